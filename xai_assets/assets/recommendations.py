"""Stage 8: what to do as of a day, with the evidence."""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import dagster as dg
import polars as pl

from xai_assets import stage
from xai_assets.config import MonitorConfig
from xai_assets.flow.decisions import write_recommendations
from xai_assets.flow.monitor import Monitor
from xai_assets.lake.store import Lake

TABLE = "recommendations"


def build(settings: MonitorConfig) -> dg.AssetsDefinition:
    """The `recommendations` asset of a monitor."""
    arguments = stage.asset_arguments(settings, TABLE, deps=["drift_alerts", "divergence_set"], kinds={"parquet"})

    @dg.asset(**arguments, output_required=False)
    def recommendations(
        context: dg.AssetExecutionContext, config: stage.StageConfig, lake: dg.ResourceParam[Lake]
    ) -> Iterator[Any]:
        monitor = Monitor(settings, lake)

        def compute(day: date, provenance: str) -> Mapping[str, Any]:
            rows = write_recommendations(monitor, day, provenance)
            shown = rows.select("action", "target", "focus_features", "focus_segments", "state", "evidence")
            open_ids = rows.filter((pl.col("action") == "retrain") & (pl.col("state") == "open"))["recommendation_id"]
            return {
                "dagster/partition_row_count": rows.height,
                "recommendations": stage.table_of(shown),
                "open_retrain_ids": open_ids.to_list(),
            }

        yield from stage.run_days(context, monitor, TABLE, compute, force=config.force)

    return recommendations
