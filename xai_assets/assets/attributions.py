"""Stage 3: attributions of each model for the chosen requests; additivity blocks what follows."""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import dagster as dg
import polars as pl

from xai_assets import stage
from xai_assets.config import MonitorConfig
from xai_assets.flow.attribution import explain_day
from xai_assets.flow.background import ensure_background, needs_background
from xai_assets.flow.monitor import Monitor
from xai_assets.lake.store import Lake


def build(settings: MonitorConfig, role: str) -> dg.AssetsDefinition:
    """The `<role>_attributions` asset of a monitor."""
    table = f"{role}_attributions"
    key = stage.asset_key(settings, table)
    limit = settings.explanation.additivity_tolerance
    additivity = dg.AssetCheckSpec(
        "additivity",
        asset=key,
        blocking=True,
        description=f"Base value plus attributions equals the model's margin within {limit:g} relative.",
    )

    @stage.asset(
        settings, table, deps=["divergence_set", "replay_log"], kinds={"python", "parquet"}, checks=[additivity]
    )
    def attributions(
        context: dg.AssetExecutionContext, config: stage.StageConfig, lake: dg.ResourceParam[Lake]
    ) -> Iterator[Any]:
        monitor = Monitor(settings, lake)

        def compute(day: date, provenance: str) -> Mapping[str, Any]:
            report = explain_day(monitor, role, day, provenance)
            top = pl.DataFrame(
                {"feature": list(report.mean_absolute), "mean |φ|": list(report.mean_absolute.values())},
                schema={"feature": pl.String, "mean |φ|": pl.Float64},
            ).sort("mean |φ|", "feature", descending=[True, False])
            return {
                "dagster/partition_row_count": report.rows,
                "additivity_error": report.additivity_error,
                **report.explainer,
                "seconds": report.seconds,
                "top_features": stage.table_of(top),
            }

        if needs_background(monitor):
            ensure_background(monitor)  # before any day's provenance is asked for: its hash is part of it
        yield from stage.run_days(context, monitor, table, compute, force=config.force)
        errors = {d: _error(monitor, table, date.fromisoformat(d)) for d in context.partition_keys}
        over = {d: e for d, e in errors.items() if e is not None and not e <= limit}
        yield dg.AssetCheckResult(
            passed=not over,
            check_name=additivity.name,
            asset_key=key,
            severity=dg.AssetCheckSeverity.ERROR,
            metadata={"over_limit": over, "limit": limit},
        )

    return attributions


def _error(monitor: Monitor, table: str, day: date) -> float | None:
    if not monitor.lake.exists(table, monitor.name, day):
        return None
    return float(monitor.lake.metadata(table, monitor.name, day)["additivity_error"])
