"""Stage 2: which requests the two models disagree on, and which are explained with what probability."""

from collections.abc import Iterator, Mapping
from datetime import date
from functools import cache
from typing import Any

import dagster as dg

from xai_assets import stage
from xai_assets.config import MonitorConfig
from xai_assets.flow.budget import explanation_budget
from xai_assets.flow.monitor import Monitor
from xai_assets.lake.queries import divergence_threshold, write_divergence_set
from xai_assets.lake.store import Lake

TABLE = "divergence_set"


def build(settings: MonitorConfig) -> dg.AssetsDefinition:
    """The `divergence_set` asset of a monitor."""

    @stage.asset(settings, TABLE, deps=["replay_log"], kinds={"duckdb", "parquet"})
    def divergence_set(
        context: dg.AssetExecutionContext, config: stage.StageConfig, lake: dg.ResourceParam[Lake]
    ) -> Iterator[Any]:
        monitor = Monitor(settings, lake)
        threshold = cache(lambda: divergence_threshold(lake, settings))
        budget = cache(lambda: explanation_budget(monitor))

        def compute(day: date, provenance: str) -> Mapping[str, Any]:
            report = write_divergence_set(lake, settings, day, threshold(), provenance, budget=budget())
            return {
                "dagster/partition_row_count": report.explained_rows,
                "requests": report.rows,
                "explained_share": report.explained_rows / report.rows if report.rows else 1.0,
                "divergent": report.divergent_rows,
                "divergence_rate": report.divergent_rows / report.rows if report.rows else 0.0,
                "magnitude": report.magnitude_rows,
                "decision_flips": report.flip_rows,
                "mean_abs_delta": report.mean_abs_delta,
                "threshold": report.threshold,
            }

        yield from stage.run_days(context, monitor, TABLE, compute, force=config.force)

    return divergence_set
