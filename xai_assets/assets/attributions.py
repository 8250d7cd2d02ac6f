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
    limit, most_failed = settings.explanation.additivity_tolerance, settings.explanation.targets.error_rate
    additivity = dg.AssetCheckSpec(
        "additivity",
        asset=key,
        blocking=True,
        description=f"Base value plus attributions equals the model's margin within {limit:g} relative, and at most "
        f"{100 * most_failed:g} % of the requests have no finite explanation.",
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
                "requests_without_explanation": report.failed_rows,
                **report.explainer,
                "seconds": report.seconds,
                "top_features": stage.table_of(top),
            }

        if needs_background(monitor):
            ensure_background(monitor)  # before any day's provenance is asked for: its hash is part of it
        yield from stage.run_days(context, monitor, table, compute, force=config.force)
        found = {d: _footer(monitor, table, date.fromisoformat(d)) for d in context.partition_keys}
        over = {d: error for d, (error, _) in found.items() if not error <= limit}
        failed = {d: share for d, (_, share) in found.items() if share > most_failed}
        yield dg.AssetCheckResult(
            passed=not over and not failed,
            check_name=additivity.name,
            asset_key=key,
            severity=dg.AssetCheckSeverity.ERROR,
            metadata={"over_limit": over, "limit": limit, "share_without_explanation": failed},
        )

    return attributions


def _footer(monitor: Monitor, table: str, day: date) -> tuple[float, float]:
    """Additivity error, and share of requests without a finite explanation; 0 where nothing is stored."""
    lake, name = monitor.lake, monitor.name
    if not lake.exists(table, name, day):
        return 0.0, 0.0
    footer = lake.metadata(table, name, day)
    return float(footer["additivity_error"]), int(footer["failed_rows"]) / max(lake.row_count(table, name, day), 1)
