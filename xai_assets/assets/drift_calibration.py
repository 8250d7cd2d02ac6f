"""Stage 5b: how much the reference's own days differ, and the alarm threshold that follows from the budget."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from xai_assets import stage
from xai_assets.config import MonitorConfig
from xai_assets.flow.calibration import ensure_calibration
from xai_assets.flow.monitor import Monitor
from xai_assets.lake.store import Lake

TABLE = "drift_calibration"


def build(settings: MonitorConfig) -> dg.AssetsDefinition:
    """The `drift_calibration` asset of a monitor, not partitioned."""
    deps = ["reference_profile", "attribution_histograms"]

    @stage.asset(settings, TABLE, deps=deps, kinds={"parquet"}, daily=False)
    def drift_calibration(
        context: dg.AssetExecutionContext, config: stage.StageConfig, lake: dg.ResourceParam[Lake]
    ) -> Iterator[Any]:
        state = ensure_calibration(Monitor(settings, lake), force=config.force)
        context.log.info(state.sentence)
        if state.provenance is not None:
            yield dg.MaterializeResult(
                data_version=dg.DataVersion(state.provenance),
                metadata={
                    "state": state.sentence,
                    "threshold": state.threshold,
                    "rule": state.rule,
                    "reference_days": state.reference_days,
                },
            )

    return drift_calibration
