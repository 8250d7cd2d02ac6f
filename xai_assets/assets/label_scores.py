"""Stage 6b: whether features still mean for the truth what they meant, from labels that are complete."""

from collections.abc import Iterator, Mapping
from datetime import date
from functools import cache
from typing import Any

import dagster as dg

from xai_assets import stage
from xai_assets.config import MonitorConfig
from xai_assets.flow.label_scoring import LabelScorer
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.reference import load_profile
from xai_assets.flow.residuals import write_day_residuals
from xai_assets.lake.store import Lake

RESIDUALS, CALIBRATION, SCORES = "residual_histograms", "label_calibration", "label_scores"


def build_residuals(settings: MonitorConfig) -> dg.AssetsDefinition:
    """The `residual_histograms` asset: sums of residuals for the day whose labels became complete."""
    deps = ["labels", "replay_log", "reference_profile"]

    @stage.asset(settings, RESIDUALS, deps=deps, kinds={"parquet"})
    def residual_histograms(
        context: dg.AssetExecutionContext, config: stage.StageConfig, lake: dg.ResourceParam[Lake]
    ) -> Iterator[Any]:
        monitor = Monitor(settings, lake)
        profile = cache(lambda: load_profile(monitor))

        def compute(day: date, provenance: str) -> Mapping[str, Any]:
            return write_day_residuals(monitor, day, profile(), provenance)

        yield from stage.run_days(context, monitor, RESIDUALS, compute, force=config.force)

    return residual_histograms


def build(settings: MonitorConfig) -> dg.AssetsDefinition:
    """The `label_scores` asset of a monitor."""

    @stage.asset(settings, SCORES, deps=[RESIDUALS, CALIBRATION], kinds={"parquet"})
    def label_scores(
        context: dg.AssetExecutionContext, config: stage.StageConfig, lake: dg.ResourceParam[Lake]
    ) -> Iterator[Any]:
        monitor = Monitor(settings, lake)
        scorer = LabelScorer(monitor)

        def compute(day: date, provenance: str) -> Mapping[str, Any]:
            scores = scorer.score_day(day, provenance)
            worst = scores.sort("evidence", descending=True, nulls_last=True)
            shown = [
                "role",
                "segment",
                "feature",
                "window_days",
                "label_count",
                "residual_shift",
                "evidence",
                "threshold",
                "severity",
            ]
            return {"dagster/partition_row_count": scores.height, "largest_shifts": stage.table_of(worst.select(shown))}

        yield from stage.run_days(context, monitor, SCORES, compute, force=config.force)

    return label_scores
