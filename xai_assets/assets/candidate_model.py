"""Stage 9: a candidate trained for an open retrain recommendation, tested on later rows, and registered."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg

from xai_assets import stage
from xai_assets.config import MonitorConfig
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.retraining import train_candidate
from xai_assets.lake.location import data_root
from xai_assets.lake.store import Lake

NAME = "candidate_model"


class RetrainingConfig(dg.Config):
    """Which recommendation to follow. Empty values mean the latest open retrain recommendation."""

    recommendation_id: str = ""
    as_of: str = ""


def build(settings: MonitorConfig) -> dg.AssetsDefinition:
    """The `candidate_model` asset of a monitor, materialized by the retraining job."""

    @stage.asset(
        settings,
        "model_versions",
        name=NAME,
        deps=["recommendations", "replay_log"],
        kinds={"xgboost"},
        daily=False,
    )
    def candidate_model(
        context: dg.AssetExecutionContext, config: RetrainingConfig, lake: dg.ResourceParam[Lake]
    ) -> Iterator[dg.MaterializeResult[Any]]:
        as_of = date.fromisoformat(config.as_of) if config.as_of else None
        candidate = train_candidate(
            Monitor(settings, lake),
            model_dir=str(data_root() / "models"),
            recommendation_id=config.recommendation_id or None,
            as_of=as_of,
            now=datetime.now(UTC),
        )
        version = candidate.version
        context.log.info(candidate.sentence)
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(version.sha256[:16]),
            metadata={
                "decision": version.decision,
                "finding": candidate.sentence,
                "recommendation_id": version.recommendation_id,
                "artifact": dg.MetadataValue.path(version.artifact),
                "candidate_metric": version.candidate_metric,
                "incumbent_metric": version.incumbent_metric,
                "metric": version.metric,
                "train_rows": version.train_rows,
                "test_rows": version.test_rows,
                "focus_features": list(version.focus_features),
                "focus_segments": list(version.focus_segments),
            },
        )

    return candidate_model
