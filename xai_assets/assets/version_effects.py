"""Stage 6d: what a new version of a model changed in its attributions, apart from what the day's requests changed."""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import dagster as dg

from xai_assets import stage
from xai_assets.config import MonitorConfig
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.version_effects import TABLE, VersionJudge
from xai_assets.lake.store import Lake

DEPS = (
    "replay_log",
    "divergence_set",
    "production_attributions",
    "experimental_attributions",
    "reference_profile",
    "attribution_histograms",
)
SHOWN = ["role", "feature", "data_effect_nats", "model_effect_nats", "verdict"]


def build(settings: MonitorConfig) -> dg.AssetsDefinition:
    """The `version_effects` asset of a monitor of which an earlier version is configured."""

    @stage.asset(settings, TABLE, deps=DEPS, kinds={"python", "parquet"})
    def version_effects(
        context: dg.AssetExecutionContext, config: stage.StageConfig, lake: dg.ResourceParam[Lake]
    ) -> Iterator[Any]:
        judge = VersionJudge(Monitor(settings, lake))
        judge.prepare()

        def compute(day: date, provenance: str) -> Mapping[str, Any]:
            found = judge.judge_day(day, provenance)
            largest = found.frame.sort(["model_effect_nats", "feature"], descending=[True, False]).select(SHOWN)
            return {
                "dagster/partition_row_count": found.frame.height,
                "found": found.note,
                "effects": stage.table_of(largest),
            }

        yield from stage.run_days(context, judge.monitor, TABLE, compute, force=config.force)

    return version_effects
