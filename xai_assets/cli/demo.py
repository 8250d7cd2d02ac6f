"""Simulate a shadow deployment with planted faults, run the platform on it, and show what it found.

Belongs here: the order of the demo and its closing table. Does not belong here: the simulator and the judgement of
what was found (see `xai_assets.demo`).
"""

import argparse
import shutil
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any

from xai_assets.cli.findings import alerts_by_day, recommendations_by_day
from xai_assets.cli.monitors import load_config, open_lake
from xai_assets.cli.output import Output
from xai_assets.cli.run import run_document, show_run
from xai_assets.cli.runs import Launch, days_between, evaluate_retraining, forget_monitor, open_instance, run_range
from xai_assets.config import MonitorConfig
from xai_assets.lake.location import data_root

if TYPE_CHECKING:
    from xai_assets.demo import Simulation, VerdictRow
    from xai_assets.lake.store import Lake

MONITOR = "lending"
DAYS, REQUESTS_PER_DAY = 60, 5_000
VERDICT_COLUMNS = ("planted fault", "from", "found", "named", "cause", "recommendation", "retraining")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Size of the simulation."""
    parser.add_argument("--days", type=int, default=DAYS, help=f"days to simulate (default: {DAYS})")
    parser.add_argument(
        "--requests-per-day",
        type=int,
        default=REQUESTS_PER_DAY,
        help=f"mean requests a day (default: {REQUESTS_PER_DAY})",
    )
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier demo stored")


def execute(arguments: argparse.Namespace, output: Output) -> int:
    """Simulate, run all days as one run, let the sensor start retraining, print planted against found."""
    from xai_assets.demo import simulate

    folder = data_root() / "demo" / MONITOR
    lake = open_lake()
    with open_instance() as instance:
        if arguments.fresh:
            output.say("Forgetting the earlier demo.")
            shutil.rmtree(folder, ignore_errors=True)
            forget_monitor(load_config(MONITOR), instance)
            _forget_partitions(lake)
        output.say(f"Simulating {arguments.days} days of about {arguments.requests_per_day:,} requests in {folder} …")
        simulation = simulate(folder, days=arguments.days, requests_per_day=arguments.requests_per_day)
        config = demo_config(simulation)
        output.say(f"{simulation.rows:,} requests, {simulation.labels:,} labels. Running the platform on them …")
        run = run_range(config, simulation.first_date, simulation.last_date, instance, show_progress=not output.is_json)
        show_run(run, output)
        output.say("Evaluating the retraining sensor …")
        launches = evaluate_retraining(config, instance)
    for launch in launches:
        output.say(_launch_line(launch))
    verdicts, false_alarms = judge(lake, simulation, launches)
    show_verdicts(verdicts, false_alarms, output)
    document = {
        "monitor": MONITOR,
        **run_document(run),
        "faults": [v.cells() for v in verdicts],
        "false_alarms": false_alarms,
        "retrainings": [vars(launch) for launch in launches],
    }
    output.document(document)
    return 0


def demo_config(simulation: "Simulation") -> MonitorConfig:
    """The monitor in `defs/`, over the simulated days."""
    return replace(load_config(MONITOR), end_date=simulation.last_date)


def judge(
    lake: "Lake", simulation: "Simulation", launches: list[Launch]
) -> tuple[tuple["VerdictRow", ...], list[dict[str, Any]]]:
    """Planted faults against what is stored, and alerts that no planted fault accounts for."""
    from xai_assets.demo.verdict import unexplained_alerts, verdict

    days = days_between(simulation.first_date, simulation.last_date)
    alerts = alerts_by_day(lake, MONITOR, days)
    recommendations = recommendations_by_day(lake, MONITOR, days)
    started = {launch.recommendation_id for launch in launches}
    faults = [f for f in simulation.faults if f.first_date <= simulation.last_date]
    found = verdict(faults, alerts, recommendations, started)
    extra = [
        {"opened_on": opened, "severity": a.severity, "sentence": a.sentence}
        for opened, a in unexplained_alerts(faults, alerts)
    ]
    return found, extra


def show_verdicts(verdicts: tuple["VerdictRow", ...], false_alarms: list[dict[str, Any]], output: Output) -> None:
    """The closing table."""
    if not verdicts:
        output.say("No fault is planted in so few days; the first one starts on day 35.")
    else:
        output.table(VERDICT_COLUMNS, [_verdict_row(v) for v in verdicts], "Planted faults, and what became of them")
    if not false_alarms:
        output.say("No other alert was raised.")
        return
    output.say(f"{len(false_alarms)} alerts that no planted fault accounts for (false alarms):")
    for alarm in false_alarms:
        output.say(f"  {alarm['opened_on']} {alarm['severity']}: {alarm['sentence']}")


def _verdict_row(verdict: "VerdictRow") -> list[str]:
    """The verdict's own words, drawn together so that the table fits a terminal."""
    cells = verdict.cells()
    fault = verdict.fault
    named = "-" if verdict.feature is None else f"{cells['feature']} in {cells['segment']}"
    found = cells["found"] if verdict.found_on is None else f"{cells['found']}, {cells['on']}"
    planted = f"{fault.name}: {fault.features[0]} in {fault.segment}"
    return [planted, cells["from"], found, named, cells["cause"], cells["recommendation"], cells["retraining"]]


def _launch_line(launch: Launch) -> str:
    when = "started" if launch.started_now else "had been started before"
    text = f"Retraining for recommendation {launch.recommendation_id} {when} (run {launch.run_id[:8]})."
    return f"{text} It was refused: {launch.error}" if launch.error else text


def _forget_partitions(lake: "Lake") -> None:
    from xai_assets.lake.tables import TABLES, UNPARTITIONED

    for table in TABLES:
        days: list[date | None] = [None] if table in UNPARTITIONED else [*lake.days(table, MONITOR)]
        for day in days:
            if lake.exists(table, MONITOR, day):
                lake.delete(table, MONITOR, day)
