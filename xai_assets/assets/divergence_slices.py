"""Stage 2b: where the two models differ, as rules over features and context; nothing waits for them."""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import dagster as dg

from xai_assets import stage
from xai_assets.config import MonitorConfig
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.slices import DIVERGENCE, DaySlices, Slicer
from xai_assets.lake.store import Lake

SHOWN = ["rule", "support_share", "mean_abs_delta", "mean_abs_delta_rest", "lift", "flip_share", "confirmed"]


def build(settings: MonitorConfig) -> dg.AssetsDefinition:
    """The `divergence_slices` asset of a monitor."""

    @stage.asset(settings, DIVERGENCE, deps=["replay_log", "divergence_set"], kinds={"parquet"})
    def divergence_slices(
        context: dg.AssetExecutionContext, config: stage.StageConfig, lake: dg.ResourceParam[Lake]
    ) -> Iterator[Any]:
        monitor = Monitor(settings, lake)
        slicer = Slicer(monitor)

        def compute(day: date, provenance: str) -> Mapping[str, Any]:
            return _metadata(slicer.divergence_day(day, provenance))

        yield from stage.run_days(context, monitor, DIVERGENCE, compute, force=config.force)

    return divergence_slices


def _metadata(found: DaySlices) -> Mapping[str, Any]:
    return {
        "dagster/partition_row_count": found.frame.height,
        "found": found.note,
        "slices": stage.table_of(found.frame.select(SHOWN)),
    }
