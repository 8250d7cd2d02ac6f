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
import functools
import json
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.detection.days import Day, Stream, sum_of
from benchmarks.detection.ours import Calibrated
from benchmarks.detection.peers import Evidently, RankingLoss, StabilityIndex, TwoSampleTests
from benchmarks.detection.streams import (
    AMOUNTS,
    HEALTHY_DAYS,
    NAMES,
    REFERENCE_DAYS,
    SLOW,
    Fault,
    planted,
)
from benchmarks.detection.verdicts import Detector
from xai_assets.lake.histogram_rows import Blocks
from xai_assets.records import MODEL_ROLES
from xai_assets.stats import drift

DETECTORS: dict[str, Callable[[Stream], Detector]] = {
    "xai_assets": Calibrated,
    "evidently": Evidently,
    "psi": StabilityIndex,
    "ks": TwoSampleTests,
    "ndcg": RankingLoss,
}
NAME_SEGMENTS = (Calibrated.name, Calibrated.evidence, StabilityIndex.segments)
LEVELS = {"0.25 nats or more": 0.25, "0.10 to 0.25 nats": 0.10, "less than 0.10 nats": -np.inf}
WATCHED_DAYS = 7
REACHED_BY_DAY = 14
"""Days that a slow shift has to reach a level."""


@dataclass(frozen=True)
class Job:
    """One stationary stream (no fault) or one planted fault."""

    seed: int
    requests_per_day: int
    memory: float
    days: int
    only: tuple[str, ...]
    fault: Fault | None = None


@dataclass
class Outcome:
    """What all methods made of one job.

    alarm_days: per method, of `days` stationary ones. psi: size of the fault day by day, corrected PSI in nats.
    delay: per method, watched days until the first alarm, 1 for the first day; infinite where there is none.
    feature, segment: what was named first on that day.
    """

    job: Job
    days: int = 0
    alarm_days: dict[str, list[int]] = field(default_factory=dict)
    psi: list[float] = field(default_factory=list)
    delay: dict[str, float] = field(default_factory=dict)
    feature: dict[str, str] = field(default_factory=dict)
    segment: dict[str, str] = field(default_factory=dict)

    @property
    def level(self) -> str:
        return next(level for level, limit in LEVELS.items() if max(self.psi[:REACHED_BY_DAY]) >= limit)

    @property
    def watched_from(self) -> int:
        """The fault's day, 1-based, on which it first has the size of its level."""
        return next(i for i, x in enumerate(self.psi, start=1) if x >= LEVELS[self.level])

    def names_feature(self, method: str) -> bool:
        return self.job.fault is not None and self.feature.get(method) in self.job.fault.features

    def names_segment(self, method: str) -> bool:
        return self.job.fault is not None and self.segment.get(method) == self.job.fault.place


@functools.lru_cache(maxsize=1)
def prepared(seed: int, requests_per_day: int, memory: float, only: tuple[str, ...]) -> tuple[Stream, list[Detector]]:
    stream = Stream(seed, requests_per_day, memory)
    return stream, [DETECTORS[name](stream) for name in only]


def run(job: Job) -> Outcome:
    stream, detectors = prepared(job.seed, job.requests_per_day, job.memory, job.only)
    return stationary(job, stream, detectors) if job.fault is None else faulty(job, stream, detectors, job.fault)


def stationary(job: Job, stream: Stream, detectors: list[Detector]) -> Outcome:
    outcome = Outcome(job, job.days)
    for number in range(REFERENCE_DAYS + 1, REFERENCE_DAYS + job.days + 1):
        before = [stream.day(n) for n in range(1, number)]
        for detector in detectors:
            for method, verdict in detector.judge(stream.day(number), before).items():
                outcome.alarm_days.setdefault(method, []).extend([number - REFERENCE_DAYS] * verdict.alarm)
    return outcome


def faulty(job: Job, stream: Stream, detectors: list[Detector], fault: Fault) -> Outcome:
    begin = REFERENCE_DAYS + HEALTHY_DAYS + 1
    length = WATCHED_DAYS + (REACHED_BY_DAY if fault.kind == SLOW else 0)
    days = [stream.day(begin + i, fault, i + 1) for i in range(length)]
    outcome = Outcome(job, psi=sizes(stream, fault, days))
    start = outcome.watched_from - 1
    healthy = [stream.day(n) for n in range(1, begin)]
    for detector in detectors:
        for number in range(start, start + WATCHED_DAYS):
            verdicts = detector.judge(days[number], healthy + days[:number])
            for method, verdict in verdicts.items():
                if verdict.alarm and outcome.delay.get(method, np.inf) == np.inf:
                    outcome.delay[method] = number - start + 1
                    outcome.feature[method], outcome.segment[method] = verdict.feature, verdict.segment
                outcome.delay.setdefault(method, np.inf)
            if all(outcome.delay[method] < np.inf for method in verdicts):
                break
    return outcome


def sizes(stream: Stream, fault: Fault, days: list[Day]) -> list[float]:
    """Corrected PSI (nats) of the fault's feature in its place, in the model where it is larger, day by day.

    A fault that stays the same has one size, that of all its days together: a single day of a small segment has 0.25
    by chance.
    """
    each = [day.blocks for day in days]
    chosen = each if fault.kind == SLOW else [sum_of(each)]
    found = [
        _size(stream.profile.blocks, blocks, stream.profile.segments.index(fault.place), fault) for blocks in chosen
    ]
    return found if fault.kind == SLOW else found * len(days)


def _size(reference: Blocks, blocks: Blocks, at: int, fault: Fault) -> float:
    pairs = [(role, NAMES.index(name)) for role in MODEL_ROLES for name in fault.features]
    weights = ((reference[r, "all"].weight[at, j], blocks[r, "all"].weight[at, j]) for r, j in pairs)
    return max(float(drift.psi_corrected(q, p)) for q, p in weights)


def report(outcomes: list[Outcome]) -> None:
    quiet = [o for o in outcomes if o.job.fault is None]
    faults = [o for o in outcomes if o.job.fault is not None]
    methods = list(dict.fromkeys(m for o in outcomes for m in (*o.alarm_days, *o.delay)))
    days = sum(o.days for o in quiet)
    strong = [o for o in faults if o.level == next(iter(LEVELS))]
    print(f"\n{days} stationary days; {len(faults)} planted faults, {len(strong)} of them of 0.25 nats or more:")
    print("alarm days per 30 stationary days; share found; of those found within 7 days, named rightly at once\n")
    print(f"{'method':<32}{'alarm days':>11}{'≤ 1 day':>9}{'≤ 3':>7}{'≤ 7':>7}{'feature':>9}{'segment':>9}")
    for method in methods:
        alarms = 30 * sum(len(set(o.alarm_days.get(method, []))) for o in quiet) / days if days else float("nan")
        found = [share([o.delay[method] <= n for o in strong]) for n in (1, 3, 7)]
        hits = [o for o in strong if o.delay[method] <= WATCHED_DAYS]
        feature = share([o.names_feature(method) for o in hits])
        segment = share([o.names_segment(method) for o in hits]) if method in NAME_SEGMENTS else "—"
        print(f"{method:<32}{alarms:>11.1f}{found[0]:>9}{found[1]:>7}{found[2]:>7}{feature:>9}{segment:>9}")
    for level in LEVELS:
        by_kind([o for o in faults if o.level == level], methods, level)


def by_kind(chosen: list[Outcome], methods: list[str], level: str) -> None:
    """Per kind of fault: found within 1 and 7 days, and of those the right feature first."""
    groups = {kind: [o for o in chosen if o.job.fault is not None and o.job.fault.kind == kind] for kind in AMOUNTS}
    groups = {kind: group for kind, group in groups.items() if group}
    if not groups:
        return
    print(f"\nFaults of {level}: found within 1 / 7 days, right feature first")
    print(" " * 32 + "".join(f"{f'{kind} ({len(group)})':>25}" for kind, group in groups.items()))
    for method in methods:
        cells = []
        for group in groups.values():
            found = [share([o.delay[method] <= n for o in group]) for n in (1, 7)]
            feature = share([o.names_feature(method) for o in group if o.delay[method] <= WATCHED_DAYS])
            cells.append(f"{found[0]} / {found[1]}, {feature}")
        print(f"{method:<32}" + "".join(f"{cell:>25}" for cell in cells))


def share(hits: list[bool]) -> str:
    return f"{100 * np.mean(hits):.0f} %" if hits else "–"


def misses(outcomes: list[Outcome], method: str) -> None:
    """Every false alarm, and every fault that was found late or named wrongly, one line each."""
    print(f"\nFalse alarms and misses of {method}")
    for o in outcomes:
        fault = o.job.fault
        if fault is None:
            print(f"seed {o.job.seed}: alarms on stationary days {o.alarm_days.get(method, [])} of {o.days}")
        elif o.delay[method] > 1 or not (o.names_feature(method) and o.names_segment(method)):
            print(
                f"seed {o.job.seed} {fault.kind} {fault.amount:g} of {'/'.join(fault.features)} in {fault.place}, "
                f"{o.psi[o.watched_from - 1]:.2f} nats from day {o.watched_from}: "
                f"first alarm after {o.delay[method]} days, {o.feature.get(method)} in {o.segment.get(method)}"
            )


def jobs(chosen: argparse.Namespace) -> list[Job]:
    found = []
    for seed in range(chosen.seeds):
        job = Job(seed, chosen.requests_per_day, chosen.memory, chosen.days, tuple(chosen.only.split(",")))
        faults = [f for f in planted(seed) if f.size == "large" or not chosen.quick]
        found += [job, *(Job(**{**vars(job), "fault": f}) for f in faults)]
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="streams, each with models and faults of its own")
    parser.add_argument("--requests-per-day", type=int, default=2_000)
    parser.add_argument("--days", type=int, default=90, help="stationary days per seed")
    parser.add_argument("--memory", type=float, default=0.0, help="share of a day's shift that stays over night")
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
        outcomes = pool.map(run, jobs(chosen), chunksize=1)
    report(outcomes)
    if chosen.misses:
        misses(outcomes, Calibrated.name)
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(o) for o in outcomes], indent=1))
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
