"""Alerts of one monitor or of all, worst first.

Belongs here: choosing and printing stored alerts. Does not belong here: deciding what is one (see `decide`).
"""

import argparse

from xai_assets.cli.findings import alarming, alert_rows
from xai_assets.cli.monitors import open_lake, parse_day, stored_name
from xai_assets.cli.output import Output
from xai_assets.cli.run import show_alerts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which monitor, which day."""
    parser.add_argument(
        "monitor", nargs="?", metavar="MONITOR", help="a name, or the path of a defs.yaml (default: all)"
    )
    parser.add_argument("--day", type=parse_day, metavar="DAY", help="as of this day (default: the last one stored)")
    parser.add_argument("--all", action="store_true", help="resolved ones too")
    parser.add_argument("--exit-code", action="store_true", help="exit with 3 when a warning or worse is open")


def execute(arguments: argparse.Namespace, output: Output) -> int:
    """Print the alerts."""
    lake = open_lake()
    names = [stored_name(lake, arguments.monitor)] if arguments.monitor else lake.monitors()
    found = []
    for name in names:
        rows = alert_rows(lake, name, arguments.day, resolved=arguments.all)
        found += [{"monitor": name, **r} for r in rows]
        days = lake.days("drift_alerts", name)
        day = arguments.day or (days[-1] if days else None)
        if rows:
            show_alerts(rows, output, f"{name}, as of {day}")
        else:
            output.say(f"{name}: no alert is open on {day}." if day else f"{name}: no day was judged yet.")
    if not names:
        output.say("Nothing is stored yet.")
    output.document({"alerts": found})
    return 3 if arguments.exit_code and alarming(found) else 0
