"""Stage 5b: mean, spread, percentiles and rates of every feature, from the day's histograms."""

from collections.abc import Iterator, Mapping
from datetime import date
from functools import cache
from typing import Any

import dagster as dg
import polars as pl

from xai_assets import stage
from xai_assets.config import MonitorConfig
from xai_assets.flow.feature_statistics import write_day_statistics
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.reference import load_profile
from xai_assets.lake.store import Lake
from xai_assets.records import OVERALL, VALUE_ROLES

TABLE = "feature_statistics"


def build(settings: MonitorConfig) -> dg.AssetsDefinition:
    """The `feature_statistics` asset of a monitor."""

    @stage.asset(settings, TABLE, deps=["attribution_histograms"], kinds={"parquet"})
    def feature_statistics(
        context: dg.AssetExecutionContext, config: stage.StageConfig, lake: dg.ResourceParam[Lake]
    ) -> Iterator[Any]:
        monitor = Monitor(settings, lake)
        profile = cache(lambda: load_profile(monitor))

        def compute(day: date, provenance: str) -> Mapping[str, Any]:
            return _metadata(write_day_statistics(monitor, day, profile(), provenance))

        yield from stage.run_days(context, monitor, TABLE, compute, force=config.force)

    return feature_statistics


def _metadata(statistics: pl.DataFrame) -> Mapping[str, Any]:
    shown = ["feature", "mean", "std", "percentile_05", "percentile_50", "percentile_95", "missing_share"]
    whole = statistics.filter((pl.col("segment") == OVERALL) & pl.col("role").is_in(VALUE_ROLES))
    beyond = pl.coalesce("outside_share", "unseen_share").alias("outside_or_unseen_share")
    return {
        "dagster/partition_row_count": statistics.height,
        "inputs_and_outputs": stage.table_of(whole.select(*shown, beyond), rows=30),
    }
