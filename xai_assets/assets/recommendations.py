"""Stage 8: what to do as of a day, with the evidence."""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import dagster as dg
import polars as pl
from dagster_duckdb import DuckDBResource

from xai_assets import stage
from xai_assets.config import MonitorConfig
from xai_assets.flow.decisions import Recommender
from xai_assets.flow.monitor import Monitor
from xai_assets.lake.overview import recent_days
from xai_assets.lake.store import Lake

TABLE = "recommendations"


def build(settings: MonitorConfig) -> dg.AssetsDefinition:
    """The `recommendations` asset of a monitor."""

    @stage.asset(settings, TABLE, deps=["drift_alerts", "attribution_histograms"], kinds={"parquet"})
    def recommendations(
        context: dg.AssetExecutionContext,
        config: stage.StageConfig,
        lake: dg.ResourceParam[Lake],
        duckdb: DuckDBResource,
    ) -> Iterator[Any]:
        monitor = Monitor(settings, lake)
        recommender = Recommender(monitor)

        def compute(day: date, provenance: str) -> Mapping[str, Any]:
            rows = recommender.write_day(day, provenance)
            shown = rows.select("action", "target", "focus_features", "focus_segments", "state", "evidence")
            open_ids = rows.filter((pl.col("action") == "retrain") & (pl.col("state") == "open"))["recommendation_id"]
            return {
                "dagster/partition_row_count": rows.height,
                "recommendations": stage.table_of(shown),
                "open_retrain_ids": open_ids.to_list(),
            }

        last = context.partition_keys[-1]
        for result in stage.run_days(context, monitor, TABLE, compute, force=config.force):
            with duckdb.get_connection() as connection:
                recent = recent_days(connection, lake, settings.name, date.fromisoformat(last))
            context.add_asset_metadata({"recent_days": stage.table_of(recent, rows=14)}, partition_key=last)
            yield result

    return recommendations
