"""The tables that the comparison prints.

Belongs here: shares, columns, words. Does not belong here: judging.
"""

import numpy as np

from benchmarks.detection.comparison import LEVELS, WATCHED_DAYS, Outcome
from benchmarks.detection.ours import Calibrated
from benchmarks.detection.peers import StabilityIndex
from benchmarks.detection.streams import AMOUNTS

NAME_SEGMENTS = (Calibrated.name, Calibrated.evidence, StabilityIndex.segments)


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
