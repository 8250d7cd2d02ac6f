"""Run a monitor over a range of days: replay log to recommendations.

Days that are up to date are left alone. Belongs here: arguments and the summary; the run itself is in `runs`.
"""

import argparse
from datetime import date
from typing import TYPE_CHECKING, Any

from xai_assets.cli.findings import alert_rows, recommendation_rows
from xai_assets.cli.monitors import load_config, open_lake, parse_day
from xai_assets.cli.output import Output
from xai_assets.cli.runs import RangeRun, open_instance, run_range

if TYPE_CHECKING:
    from xai_assets.lake.store import Lake

ALERT_COLUMNS = ("severity", "state", "cause", "role", "feature", "segment", "opened_on", "last_seen_on")
RECOMMENDATION_COLUMNS = ("action", "target", "focus_features", "focus_segments", "opened_on", "state")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which monitor and days."""
    parser.add_argument("monitor", metavar="MONITOR", help="a name in xai_assets/defs, or the path of a defs.yaml")
    parser.add_argument(
        "--from", dest="first", type=parse_day, required=True, metavar="DAY", help="first day, 2025-01-31"
    )
    parser.add_argument("--to", dest="last", type=parse_day, required=True, metavar="DAY", help="last day, included")
    parser.add_argument("--force", action="store_true", help="compute again what is up to date")


def execute(arguments: argparse.Namespace, output: Output) -> int:
    """Run the range and print what it found as of the last day."""
    config = load_config(arguments.monitor)
    with open_instance() as instance:
        run = run_range(
            config, arguments.first, arguments.last, instance, force=arguments.force, show_progress=not output.is_json
        )
    show_run(run, output)
    lake = open_lake()
    findings = show_findings(lake, config.name, run.last, output)
    output.document({"monitor": config.name, **run_document(run), **findings})
    return 0


def run_document(run: RangeRun) -> dict[str, Any]:
    """A run for machines."""
    return {
        "first": run.first,
        "last": run.last,
        "run_id": run.run_id,
        "seconds": round(run.seconds, 2),
        "tables": {t: {"computed": s.computed, "unchanged": s.unchanged} for t, s in run.stages.items()},
    }


def show_run(run: RangeRun, output: Output) -> None:
    """One line: how many partitions were made, and how long it took."""
    if not run.run_id:
        output.say(f"{run.first} … {run.last}: up to date, nothing to do.")
        return
    what = f"{run.computed} partitions computed, {run.unchanged} up to date"
    output.say(f"{run.first} … {run.last}: {what}, in {run.seconds:.1f} s (run {run.run_id[:8]}).")


def show_findings(lake: "Lake", monitor: str, day: date, output: Output) -> dict[str, Any]:
    """Open alerts and recommendations as of a day; {} of both where the day has none stored."""
    stored = day in lake.days("recommendations", monitor)
    alerts = alert_rows(lake, monitor, day) if stored else []
    recommendations = recommendation_rows(lake, monitor, day) if stored else []
    if not stored:
        output.say("No alerts yet: the reference is still waiting for days, see 'xai status'.")
    elif not alerts:
        output.say(f"No alert is open on {day}.")
    else:
        show_alerts(alerts, output, f"Open alerts on {day}")
    if recommendations:
        rows = [[r[c] for c in RECOMMENDATION_COLUMNS] for r in recommendations]
        output.table(RECOMMENDATION_COLUMNS, rows, f"Recommendations on {day}")
        output.sentences(r["evidence"] for r in recommendations)
    return {"alerts": alerts, "recommendations": recommendations}


def show_alerts(alerts: list[dict[str, Any]], output: Output, title: str) -> None:
    """A table of alerts in the order given, then the sentence of each."""
    output.table(ALERT_COLUMNS, [[a[c] for c in ALERT_COLUMNS] for a in alerts], title)
    output.sentences(a["sentence"] for a in alerts)
