"""Asset checks that look at stored tables: schema and freshness.

Belongs here: checks that need no run of the asset. Checks on what a run just did are part of the assets.
"""

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg

from xai_assets.config import MonitorConfig
from xai_assets.errors import LakeError
from xai_assets.lake.store import Lake
from xai_assets.lake.tables import TABLES
from xai_assets.stage import asset_key

GRACE_DAYS = 2


def build(config: MonitorConfig, tables: list[str]) -> list[dg.AssetChecksDefinition]:
    """One `schema` check per table (blocking ERROR), and `freshness` of the scores (WARN)."""
    return [_schema(config, tables), _freshness(config)]


def _schema(config: MonitorConfig, tables: list[str]) -> dg.AssetChecksDefinition:
    @dg.multi_asset_check(
        name=f"{config.name}_schema",
        specs=[dg.AssetCheckSpec("schema", asset=asset_key(config, t)) for t in tables],
        can_subset=True,  # a backfill from the UI runs part of the flow at a time
    )
    def schema(context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[Lake]) -> Iterator[dg.AssetCheckResult]:
        chosen = {key.asset_key for key in context.selected_asset_check_keys}
        for table in (t for t in tables if asset_key(config, t) in chosen):
            days = lake.days(table, config.name)
            problem = _misfit(lake, config, table, days[-1]) if days else ""
            yield dg.AssetCheckResult(
                passed=not problem,
                check_name="schema",
                asset_key=asset_key(config, table),
                severity=dg.AssetCheckSeverity.ERROR,
                metadata={"partition": str(days[-1]) if days else "none stored yet", "problem": problem},
            )

    return schema


def _misfit(lake: Lake, config: MonitorConfig, table: str, day: date) -> str:
    try:
        found = lake.schema(table, config.name, day)
    except LakeError as error:
        return str(error)
    wrong = {c: str(found.get(c)) for c, t in TABLES[table].schema.items() if found.get(c) != t}
    return f"columns of another type than documented: {wrong}" if wrong else ""


def _freshness(config: MonitorConfig) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset_key(config, "drift_scores"),
        name="freshness",
        description=f"The newest score is at most {GRACE_DAYS} days older than the newest day that can be there.",
    )
    def freshness(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
        days = lake.days("drift_scores", config.name)
        yesterday = datetime.now(ZoneInfo(config.source.timezone)).date() - timedelta(days=1)
        due = min(config.end_date or yesterday, yesterday) - timedelta(days=GRACE_DAYS - 1)
        newest = days[-1] if days else None
        return dg.AssetCheckResult(
            passed=newest is not None and newest >= due,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"newest_day": str(newest), "due_day": str(due)},
        )

    return freshness
