"""Stage 1: a day's source files become validated, de-duplicated rows; what cannot be used goes to quarantine."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg
import polars as pl

from xai_assets import stage
from xai_assets.config import MonitorConfig
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import quarantine_share
from xai_assets.flow.replay import ingest
from xai_assets.lake.ingest_report import stored_report
from xai_assets.lake.store import Lake
from xai_assets.records import IngestReport

TABLE = "replay_log"


def build(settings: MonitorConfig) -> dg.AssetsDefinition:
    """The `replay_log` asset of a monitor, with its data-integrity checks."""
    key = stage.asset_key(settings, TABLE)
    specs = [
        dg.AssetCheckSpec(
            "source_present", asset=key, description="Every day of the run has source files that can be read."
        ),
        dg.AssetCheckSpec(
            "quarantine_share",
            asset=key,
            blocking=True,
            description=f"At most {settings.source.quarantine_limit_share:.1%} of a day's rows are unusable.",
        ),
        dg.AssetCheckSpec("duplicates", asset=key, description="Each request appears once in the source files."),
        dg.AssetCheckSpec(
            "replay_matches_log",
            asset=key,
            description="Recomputed outputs equal the logged ones; a difference means two feature pipelines.",
        ),
    ]

    @stage.asset(settings, TABLE, deps=[], kinds={"parquet", "polars"}, checks=specs)
    def replay_log(
        context: dg.AssetExecutionContext, config: stage.StageConfig, lake: dg.ResourceParam[Lake]
    ) -> Iterator[Any]:
        monitor = Monitor(settings, lake)

        def compute(day: date, provenance: str) -> Mapping[str, Any]:
            return _metadata(ingest(monitor, day, provenance))

        yield from stage.run_days(context, monitor, TABLE, compute, force=config.force)
        days = [date.fromisoformat(key) for key in context.partition_keys]
        stored = [d for d in days if lake.exists(TABLE, settings.name, d)]
        reports = {d: stored_report(lake, TABLE, settings.name, d) for d in stored}
        yield from _checks(settings, days, reports)

    return replay_log


def _metadata(report: IngestReport) -> Mapping[str, Any]:
    reasons = pl.DataFrame(
        {"reason": list(report.quarantine_reasons), "rows": list(report.quarantine_reasons.values())},
        schema={"reason": pl.String, "rows": pl.Int64},
    ).sort("rows", "reason", descending=[True, False])
    return {
        "status": report.status,
        "dagster/partition_row_count": report.rows_stored,
        "rows_read": report.rows_read,
        "rows_duplicate": report.rows_duplicate,
        "rows_quarantined": report.rows_quarantined,
        "rows_of_other_days": report.rows_other_days,
        "files": [f.uri for f in report.files],
        "unseen_categories": report.unseen_categories,
        "missing_share": {k: round(v, 6) for k, v in report.missing_share.items() if v > 0},
        "replay_mismatch_rows": report.replay_mismatch_rows,
    } | ({"quarantine": stage.table_of(reasons)} if report.rows_quarantined else {})


def _checks(
    settings: MonitorConfig, run_days: Sequence[date], reports: Mapping[date, IngestReport]
) -> Iterator[dg.AssetCheckResult]:
    unread = [str(d) for d in run_days if d not in reports]
    missing = [str(d) for d, r in reports.items() if r.status == "missing"]
    limit = settings.source.quarantine_limit_share
    over = {str(d): round(s, 4) for d, r in reports.items() if (s := quarantine_share(r)) > limit}
    twice = {str(d): r.rows_duplicate for d, r in reports.items() if r.rows_duplicate}
    differ = {str(d): r.replay_mismatch_rows for d, r in reports.items() if r.replay_mismatch_rows}
    error, warn = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
    # A refused day is passed over by every later stage; the run is blocked where nothing else is left of it.
    blocks = error if len(over) + len(missing) + len(unread) == len(run_days) else warn
    verdicts: list[tuple[str, Any, dg.AssetCheckSeverity]] = [
        ("source_present", missing + unread, error),
        ("quarantine_share", over, blocks),
        ("duplicates", twice, warn),
        ("replay_matches_log", differ, error),
    ]
    for name, days, severity in verdicts:
        yield dg.AssetCheckResult(
            passed=not days,
            check_name=name,
            asset_key=stage.asset_key(settings, TABLE),
            severity=severity,
            metadata={"days": days},
        )
