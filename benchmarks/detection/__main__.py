"""Drift detection beside its peers: false alarms on stationary streams, planted faults found, and what is named first.

    .venv/bin/python -m benchmarks.detection            # the tables of README
    .venv/bin/python -m benchmarks.detection --quick    # a minute
    .venv/bin/python -m benchmarks.detection --only xai_assets,psi --requests-per-day 200

A stream has 28 reference days; a fault begins on the 8th day after them. How large a fault is follows from what it
does to the affected feature: its corrected PSI on attributions, in the affected place. A slow shift
is watched from the day on which it reaches the size it is reported under, 0.25 nats for the first table. A fault counts
as found when a method raises an alarm, whatever it names: one that alarms every day finds everything at once.
"""

import argparse
import json
import multiprocessing
import os
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.detection.comparison import DETECTORS, Job, run
from benchmarks.detection.ours import Calibrated
from benchmarks.detection.streams import REFERENCE_DAYS, planted
from benchmarks.detection.tables import misses, report


def jobs(chosen: argparse.Namespace) -> list[Job]:
    found = []
    for seed in range(chosen.seeds):
        only = tuple(chosen.only.split(","))
        job = Job(seed, chosen.requests_per_day, chosen.memory, chosen.day_effects, only, chosen.days)
        faults = [f for f in planted(seed) if f.size == "large" or not chosen.quick]
        found += [job, *(Job(**{**vars(job), "fault": f}) for f in faults)]
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="streams, each with models and faults of its own")
    parser.add_argument("--requests-per-day", type=int, default=2_000)
    parser.add_argument("--days", type=int, default=90, help="stationary days per seed")
    parser.add_argument("--memory", type=float, default=0.0, help="share of a day's shift that stays over night")
    parser.add_argument("--day-effects", type=float, default=1.0, help="how much days differ; 0: not at all")
    parser.add_argument("--only", default=",".join(DETECTORS), help="some of " + ", ".join(DETECTORS))
    parser.add_argument("--quick", action="store_true", help="one seed, 30 days, a quarter of the faults")
    parser.add_argument("--misses", action="store_true", help="list false alarms and misses of xai_assets")
    parser.add_argument("--json", type=Path, help="write every outcome to this file")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.seeds, chosen.days = 1, 30
    if unknown := set(chosen.only.split(",")) - set(DETECTORS):
        parser.error(f"--only: {', '.join(sorted(unknown))} is none of {', '.join(DETECTORS)}")
    return chosen


def main() -> None:
    chosen = arguments()
    started = time.perf_counter()
    processors = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    print(
        f"{platform.processor() or platform.machine()}, {processors} processors, Python {platform.python_version()}; "
        f"{chosen.seeds} streams of {chosen.requests_per_day:,} requests a day, {REFERENCE_DAYS} reference days"
    )
    with multiprocessing.get_context("spawn").Pool(processors) as pool:
        waiting, outcomes = jobs(chosen), []
        for outcome in pool.imap(run, waiting):
            outcomes.append(outcome)
            print(f"\r{len(outcomes)} of {len(waiting)} streams", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    report(outcomes)
    if chosen.misses:
        misses(outcomes, Calibrated.name)
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(o) for o in outcomes], indent=1))
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
