"""Stage 6c: where the drift of attributions concentrates, as rules; nothing waits for them."""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import dagster as dg

from xai_assets import stage
from xai_assets.config import MonitorConfig
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.slices import DRIFT, DaySlices, Slicer
from xai_assets.lake.store import Lake

SHOWN = ["role", "feature", "rule", "support_share", "psi_corrected_nats", "psi_rest_nats", "confirmed"]


def build(settings: MonitorConfig) -> dg.AssetsDefinition:
    """The `drift_slices` asset of a monitor."""
    deps = ["replay_log", "divergence_set", "production_attributions", "experimental_attributions", "drift_scores"]

    @stage.asset(settings, DRIFT, deps=[*deps, "reference_profile"], kinds={"parquet"})
    def drift_slices(
        context: dg.AssetExecutionContext, config: stage.StageConfig, lake: dg.ResourceParam[Lake]
    ) -> Iterator[Any]:
        monitor = Monitor(settings, lake)
        slicer = Slicer(monitor)

        def compute(day: date, provenance: str) -> Mapping[str, Any]:
            return _metadata(slicer.drift_day(day, provenance))

        yield from stage.run_days(context, monitor, DRIFT, compute, force=config.force)

    return drift_slices


def _metadata(found: DaySlices) -> Mapping[str, Any]:
    return {
        "dagster/partition_row_count": found.frame.height,
        "found": found.note,
        "slices": stage.table_of(found.frame.select(SHOWN)),
    }
