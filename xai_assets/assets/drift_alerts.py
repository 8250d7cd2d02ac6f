"""Stage 7: the state of every alert as of a day, a pure fold over the stored scores."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg
import polars as pl

from xai_assets import stage
from xai_assets.config import MonitorConfig
from xai_assets.flow.decisions import AlertFolder
from xai_assets.flow.monitor import Monitor
from xai_assets.lake.store import Lake
from xai_assets.records import SEVERITIES

TABLE = "drift_alerts"


def build(settings: MonitorConfig) -> dg.AssetsDefinition:
    """The `drift_alerts` asset of a monitor; drift shows as a check with severity WARN that blocks nothing."""
    deps = ["drift_scores"] + (["label_scores"] if settings.label_delay_days is not None else [])
    deps += ["version_effects"] if settings.roles_with_previous else []
    key = stage.asset_key(settings, TABLE)
    drift = dg.AssetCheckSpec(
        "drift", asset=key, description="Passes when no alert is open on the last day of the run."
    )

    @stage.asset(settings, TABLE, deps=deps, kinds={"parquet"}, checks=[drift])
    def drift_alerts(
        context: dg.AssetExecutionContext, config: stage.StageConfig, lake: dg.ResourceParam[Lake]
    ) -> Iterator[Any]:
        monitor = Monitor(settings, lake)
        folder = AlertFolder(monitor)

        def compute(day: date, provenance: str) -> Mapping[str, Any]:
            alerts = folder.write_day(day, provenance)
            shown = alerts.select("state", "severity", "cause", "effect_of", "role", "feature", "segment", "sentence")
            active = alerts.filter(pl.col("state") != "resolved").height
            return {"dagster/partition_row_count": alerts.height, "active": active, "alerts": stage.table_of(shown)}

        yield from stage.run_days(context, monitor, TABLE, compute, force=config.force)
        last = date.fromisoformat(context.partition_keys[-1])
        stored = lake.exists(TABLE, settings.name, last)
        active = lake.read_days(TABLE, settings.name, [last] if stored else []).filter(pl.col("state") != "resolved")
        yield dg.AssetCheckResult(
            passed=active.is_empty(),
            check_name=drift.name,
            asset_key=key,
            severity=dg.AssetCheckSeverity.WARN,
            description=open_alerts(active["severity"].to_list()),
            metadata={"day": str(last), "alerts": stage.list_of(active["sentence"].to_list())},
        )

    return drift_alerts


def open_alerts(severities: Sequence[str]) -> str:
    """How many alerts are open, the worst first.

    >>> open_alerts(["warning", "critical", "critical"]), open_alerts([])
    ('3 open: 2 critical, 1 warning', 'none open')
    """
    counts = [f"{severities.count(s)} {s}" for s in reversed(SEVERITIES) if s in severities]
    return f"{len(severities)} open: {', '.join(counts)}" if severities else "none open"
