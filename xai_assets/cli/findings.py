"""Stored findings of one monitor as plain rows: its days, its open alerts, its recommendations.

Belongs here: reading small tables and footers for `status`, `alerts`, `run` and `demo`.
Does not belong here: printing, deciding anything.
"""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from xai_assets.records import SEVERITIES, Alert, Recommendation, severity_rank

if TYPE_CHECKING:
    from xai_assets.lake.store import Lake

RESOLVED = "resolved"


def alert_rows(lake: "Lake", monitor: str, day: date | None = None, *, resolved: bool = False) -> list[dict[str, Any]]:
    """Alerts as of a day, by default the last stored one, worst first. [] where no day is stored yet."""
    rows = _as_of(lake, "drift_alerts", monitor, day)
    chosen = [r for r in rows if resolved or r["state"] != RESOLVED]
    return sorted(chosen, key=lambda r: (r["state"] == RESOLVED, -severity_rank(r["severity"]), -r["effect"]))


def recommendation_rows(lake: "Lake", monitor: str, day: date | None = None) -> list[dict[str, Any]]:
    """Recommendations as of a day, by default the last stored one; "none" is left out."""
    return [r for r in _as_of(lake, "recommendations", monitor, day) if r["action"] != "none"]


def _as_of(lake: "Lake", table: str, monitor: str, day: date | None) -> list[dict[str, Any]]:
    if day is None:
        days = lake.days(table, monitor)
        if not days:
            return []
        day = days[-1]
    return [{"day": day, **row} for row in lake.read(table, monitor, day).iter_rows(named=True)]


def severity_counts(alerts: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Open alerts by severity, worst first; every severity that an alert can have is named.

    >>> severity_counts([{"severity": "warning"}])
    {'critical': 0, 'warning': 1, 'noted': 0}
    """
    counts = Counter(a["severity"] for a in alerts)
    return {s: counts[s] for s in reversed(SEVERITIES[2:])}


def alarming(alerts: Sequence[dict[str, Any]]) -> bool:
    """Whether an open alert is a warning or worse: what `--exit-code` reports."""
    return any(severity_rank(a["severity"]) >= severity_rank("warning") and a["state"] != RESOLVED for a in alerts)


def day_statuses(lake: "Lake", monitor: str) -> dict[date, str]:
    """Status of each stored day: complete, empty or missing."""
    return {
        d: lake.metadata("replay_log", monitor, d).get("status", "complete") for d in lake.days("replay_log", monitor)
    }


def quarantined_rows(lake: "Lake", monitor: str) -> int:
    """Input rows in quarantine over all stored days."""
    return sum(lake.row_count("quarantine", monitor, d) for d in lake.days("quarantine", monitor))


def reference_days(lake: "Lake", monitor: str) -> int | None:
    """Days that the stored reference profile was made from; None where there is no profile yet."""
    if not lake.exists("reference_profile", monitor):
        return None
    return len(json.loads(lake.metadata("reference_profile", monitor).get("days", "[]")))


def alerts_by_day(lake: "Lake", monitor: str, days: Sequence[date]) -> dict[date, list[Alert]]:
    """Stored alerts of each day, as records."""
    return {d: [_alert(r) for r in rows] for d, rows in _by_day(lake, "drift_alerts", monitor, days).items()}


def recommendations_by_day(lake: "Lake", monitor: str, days: Sequence[date]) -> dict[date, list[Recommendation]]:
    """Stored recommendations of each day, as records."""
    rows = _by_day(lake, "recommendations", monitor, days)
    return {d: [_recommendation(r) for r in found] for d, found in rows.items()}


def _by_day(lake: "Lake", table: str, monitor: str, days: Sequence[date]) -> dict[date, list[dict[str, Any]]]:
    frame = lake.read_days(table, monitor, days)
    found: dict[date, list[dict[str, Any]]] = {}
    for row in frame.sort("date", maintain_order=True).iter_rows(named=True):
        found.setdefault(row.pop("date"), []).append(row)
    return found


def _alert(row: dict[str, Any]) -> Alert:
    return Alert(**{**row, "moved_with": tuple(row["moved_with"] or ())})


def _recommendation(row: dict[str, Any]) -> Recommendation:
    lists = ("focus_features", "focus_segments", "alert_fingerprints")
    return Recommendation(**{**row, **{k: tuple(row[k] or ()) for k in lists}})
