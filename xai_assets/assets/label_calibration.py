"""Stage 6a: how much residuals of the reference's own days differ, and the alarm threshold of label scores."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from xai_assets import stage
from xai_assets.config import MonitorConfig
from xai_assets.flow.label_calibration import TABLE, ensure_label_calibration
from xai_assets.flow.monitor import Monitor
from xai_assets.lake.store import Lake


def build(settings: MonitorConfig) -> dg.AssetsDefinition:
    """The `label_calibration` asset of a monitor, not partitioned."""
    deps = ["reference_profile", "residual_histograms"]

    @stage.asset(settings, TABLE, deps=deps, kinds={"parquet"}, daily=False)
    def label_calibration(
        context: dg.AssetExecutionContext, config: stage.StageConfig, lake: dg.ResourceParam[Lake]
    ) -> Iterator[Any]:
        state = ensure_label_calibration(Monitor(settings, lake), force=config.force)
        context.log.info(state.sentence)
        # Also while it waits: without a result Dagster would skip label scores, and with them the day's alerts.
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(state.provenance or "waiting"),
            metadata={
                "state": state.sentence,
                "threshold": state.threshold,
                "rule": state.rule,
                "reference_days": state.reference_days,
            },
        )

    return label_calibration
