"""Write one self-contained HTML report for a monitor and a day.

Belongs here: arguments. Does not belong here: the report itself (see `flow.report`).
"""

import argparse
from pathlib import Path

from xai_assets.cli.monitors import load_config, open_lake, parse_day
from xai_assets.cli.output import Output
from xai_assets.lake.location import data_root


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which monitor and day, and where the file goes."""
    parser.add_argument("monitor", metavar="MONITOR", help="a name in xai_assets/defs, or the path of a defs.yaml")
    parser.add_argument("--day", type=parse_day, metavar="DAY", help="as of this day (default: the last one scored)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: reports/MONITOR-DAY.html in the data folder")
    parser.add_argument("--without-evidently", action="store_true", help="leave the comparison view of raw inputs out")


def execute(arguments: argparse.Namespace, output: Output) -> int:
    """Write the file and say where it is."""
    from xai_assets.flow.monitor import Monitor
    from xai_assets.flow.report import build_report

    monitor = Monitor(load_config(arguments.monitor), open_lake())
    report = build_report(monitor, arguments.day, with_evidently=not arguments.without_evidently)
    target = arguments.out or data_root() / "reports" / f"{monitor.name}-{report.day}.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(report.html, encoding="utf-8")
    for line in report.headlines:
        output.say(line)
    output.say(f"Written to {target} ({len(report.html.encode()) / 1e6:.1f} MB).")
    output.document(
        {"monitor": monitor.name, "day": report.day, "file": str(target), "headlines": list(report.headlines)}
    )
    return 0
