"""Stage 6: how far every feature moved from the reference, per role, population, segment and window."""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import dagster as dg
import polars as pl

from xai_assets import stage
from xai_assets.config import MonitorConfig
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.scoring import Scorer
from xai_assets.lake.store import Lake

TABLE = "drift_scores"
MOST_SHIFTS = 10
SHIFT_COLUMNS = ("role", "segment", "feature", "window_days", "psi_corrected_nats", "importance_ratio", "severity")


def build(settings: MonitorConfig) -> dg.AssetsDefinition:
    """The `drift_scores` asset of a monitor."""
    deps = ["attribution_histograms", "drift_calibration"]

    @stage.asset(settings, TABLE, deps=deps, kinds={"parquet"})
    def drift_scores(
        context: dg.AssetExecutionContext, config: stage.StageConfig, lake: dg.ResourceParam[Lake]
    ) -> Iterator[Any]:
        monitor = Monitor(settings, lake)
        scorer = Scorer(monitor)

        def compute(day: date, provenance: str) -> Mapping[str, Any]:
            return _metadata(scorer.score_day(day, provenance))

        yield from stage.run_days(context, monitor, TABLE, compute, force=config.force)

    return drift_scores


def _metadata(scores: pl.DataFrame) -> Mapping[str, Any]:
    counts = dict(scores.group_by("severity").len().sort("severity").iter_rows())
    return {
        "dagster/partition_row_count": scores.height,
        "severities": counts,
        "largest_shifts": stage.table_of(largest_shifts(scores), MOST_SHIFTS),
    }


def largest_shifts(scores: pl.DataFrame) -> pl.DataFrame:
    """What moved most among the scores graded noted or worse, each role × feature × segment once, in the window in
    which it moved most; those without a PSI last. At most `MOST_SHIFTS` rows."""
    worst = scores.filter((pl.col("population") == "all") & pl.col("severity").is_in(["noted", "warning", "critical"]))
    ranked = worst.sort("psi_corrected_nats", descending=True, nulls_last=True, maintain_order=True)
    once = ranked.unique(["role", "feature", "segment"], keep="first", maintain_order=True)
    return once.select(SHIFT_COLUMNS).head(MOST_SHIFTS)
