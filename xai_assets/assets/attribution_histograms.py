"""Stage 5: daily histograms over the reference's cells, the memory of the system."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import date
from functools import cache
from typing import Any

import dagster as dg
import polars as pl

from xai_assets import stage
from xai_assets.config import MonitorConfig
from xai_assets.flow.histograms import write_day_histograms
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.reference import load_profile
from xai_assets.lake.store import Lake
from xai_assets.stats.divergence import summarize

TABLE = "attribution_histograms"


def build(settings: MonitorConfig) -> dg.AssetsDefinition:
    """The `attribution_histograms` asset of a monitor."""
    deps = ["production_attributions", "experimental_attributions", "reference_profile"]

    @stage.asset(settings, TABLE, deps=deps, kinds={"parquet"})
    def attribution_histograms(
        context: dg.AssetExecutionContext, config: stage.StageConfig, lake: dg.ResourceParam[Lake]
    ) -> Iterator[Any]:
        monitor = Monitor(settings, lake)
        profile = cache(lambda: load_profile(monitor))

        def compute(day: date, provenance: str) -> Mapping[str, Any]:
            made = write_day_histograms(monitor, day, profile(), provenance)
            return {
                "dagster/partition_row_count": lake.row_count(TABLE, settings.name, day),
                "profile_hash": profile().profile_hash,
                "unexplained_requests": dict(made.unexplained),
                "unseen_segment_values": dict(made.unseen_segment_values),
                "why_the_models_differ": stage.table_of(pl.DataFrame([asdict(s) for s in summarize(made.blocks)])),
            }

        yield from stage.run_days(context, monitor, TABLE, compute, force=config.force)

    return attribution_histograms
