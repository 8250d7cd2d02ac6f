"""Where each monitor stands: days, reference, open alerts, recommendations, quarantine.

Belongs here: the overview of what is stored. Does not belong here: comparing it with the source (the sensor does).
"""

import argparse
from collections import Counter
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from xai_assets.cli.findings import (
    alarming,
    alert_rows,
    day_statuses,
    quarantined_rows,
    recommendation_rows,
    reference_days,
    severity_counts,
)
from xai_assets.cli.monitors import configured_names, load_config, open_lake, stored_name
from xai_assets.cli.output import Output
from xai_assets.config import MonitorConfig

if TYPE_CHECKING:
    from xai_assets.lake.store import Lake


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which monitor."""
    parser.add_argument(
        "monitor", nargs="?", metavar="MONITOR", help="a name, or the path of a defs.yaml (default: all)"
    )
    parser.add_argument("--exit-code", action="store_true", help="exit with 3 when a warning or worse is open")


def execute(arguments: argparse.Namespace, output: Output) -> int:
    """Print one row per monitor."""
    lake = open_lake()
    chosen = _chosen(lake, arguments.monitor)
    facts = [monitor_facts(lake, name, config) for name, config in chosen]
    output.table(
        [
            "monitor",
            "days",
            "last day",
            "reference",
            "open alerts",
            "recommendations",
            "explanations",
            "quarantined rows",
        ],
        [_row(f) for f in facts],
    )
    if not facts:
        output.say("There is no monitor yet. 'xai init' writes one for your logs, 'xai demo' shows a simulated one.")
    output.document({"monitors": facts})
    return 3 if arguments.exit_code and any(f["alarming"] for f in facts) else 0


def _chosen(lake: "Lake", monitor: str | None) -> list[tuple[str, MonitorConfig | None]]:
    """Configured monitors and those that are only in the lake."""
    configured = configured_names()
    if monitor is not None:
        if monitor in lake.monitors() and monitor not in configured:
            return [(stored_name(lake, monitor), None)]
        config = load_config(monitor)
        return [(config.name, config)]
    only_stored = [n for n in lake.monitors() if n not in configured]
    return [*((n, load_config(n)) for n in configured), *((n, None) for n in only_stored)]


def monitor_facts(lake: "Lake", name: str, config: MonitorConfig | None) -> dict[str, Any]:
    """What is stored of one monitor; config: None where it is not in `defs/`."""
    statuses = day_statuses(lake, name)
    counts = Counter(statuses.values())
    alerts = alert_rows(lake, name)
    return {
        "monitor": name,
        "days": {s: counts[s] for s in ("complete", "empty", "missing")} | {"waiting": _waiting(config, statuses)},
        "last_day": max(statuses, default=None),
        "reference": _reference(lake, name, config, statuses),
        "open_alerts": severity_counts(alerts),
        "alarming": alarming(alerts),
        "recommendations": [
            {"action": r["action"], "target": r["target"], "state": r["state"]} for r in recommendation_rows(lake, name)
        ],
        "explanations": _explanations(lake, name, config),
        "quarantined_rows": quarantined_rows(lake, name),
    }


def _explanations(lake: "Lake", name: str, config: MonitorConfig | None) -> dict[str, Any] | None:
    """Service levels of the last measured day that miss their targets; None where no day was measured."""
    from xai_assets.flow.service_levels import TABLE, judge_days, load_levels

    days = lake.days(TABLE, name)
    if config is None or not days:
        return None
    verdicts = judge_days(config, load_levels(lake, name, days[-1:]))
    return {"day": days[-1], "missed": {v.measure: list(v.sentences) for v in verdicts if not v.passed}}


def _waiting(config: MonitorConfig | None, statuses: dict[date, str]) -> int | None:
    """Days of the monitor up to yesterday (or its end) that were never run."""
    if config is None:
        return None
    last = min(config.end_date or date.max, date.today() - timedelta(days=1))
    total = max((last - config.first_date).days + 1, 0)
    return total - sum(config.first_date <= d <= last for d in statuses)


def _reference(lake: "Lake", name: str, config: MonitorConfig | None, statuses: dict[date, str]) -> str:
    made_from = reference_days(lake, name)
    if made_from is not None:
        return f"made from {made_from} days"
    if config is None:
        return "not made"
    waiting = [d for d in config.reference_days if d not in statuses]
    return f"waiting for {len(waiting)} of {len(config.reference_days)} days" if waiting else "not made yet"


def _row(facts: dict[str, Any]) -> list[Any]:
    days = ", ".join(f"{n} {s}" for s, n in facts["days"].items() if n)
    alerts = ", ".join(f"{n} {s}" for s, n in facts["open_alerts"].items() if n)
    explained = facts["explanations"]
    actions = Counter(r["action"] for r in facts["recommendations"] if r["state"] == "open")
    return [
        facts["monitor"],
        days or "none",
        facts["last_day"],
        facts["reference"],
        alerts or "none",
        ", ".join(f"{a} ×{n}" if n > 1 else a for a, n in actions.items()) or "none",
        "not measured" if explained is None else ", ".join(f"{m} missed" for m in explained["missed"]) or "on target",
        facts["quarantined_rows"],
    ]
