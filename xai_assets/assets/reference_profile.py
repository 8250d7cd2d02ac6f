"""Stage 4: what normal looks like; made once, and again only when its definition changes or a person forces it."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from xai_assets import stage
from xai_assets.config import MonitorConfig
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.reference import ensure_profile
from xai_assets.lake.store import Lake

TABLE = "reference_profile"


def build(settings: MonitorConfig) -> dg.AssetsDefinition:
    """The `reference_profile` asset of a monitor, not partitioned."""
    deps = ["production_attributions", "experimental_attributions"]

    @stage.asset(settings, TABLE, deps=deps, kinds={"parquet"}, daily=False)
    def reference_profile(
        context: dg.AssetExecutionContext, config: stage.StageConfig, lake: dg.ResourceParam[Lake]
    ) -> Iterator[Any]:
        state = ensure_profile(Monitor(settings, lake), force=config.force)
        context.log.info(state.sentence)
        if state.profile_hash is not None:
            yield dg.MaterializeResult(
                data_version=dg.DataVersion(state.profile_hash),
                metadata={
                    "state": state.sentence,
                    "profile_hash": state.profile_hash,
                    "reference_days": state.days,
                    "segments": state.segments,
                },
            )

    return reference_profile
