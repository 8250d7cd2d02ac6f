"""One job after another: a stationary stream, or a planted fault, judged by all detectors.

Belongs here: jobs, and what became of them. Does not belong here: detectors, the tables (see `tables`).
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.detection.days import Day, Stream, sum_of
from benchmarks.detection.ours import Calibrated
from benchmarks.detection.peers import Evidently, RankingLoss, StabilityIndex, TwoSampleTests
from benchmarks.detection.streams import (
    HEALTHY_DAYS,
    NAMES,
    REFERENCE_DAYS,
    SLOW,
    Fault,
    Service,
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
    day_effects: float
    only: tuple[str, ...]
    days: int
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
def prepared(only: tuple[str, ...], *service: Any) -> tuple[Stream, list[Detector]]:
    stream = Stream(Service(*service))
    return stream, [DETECTORS[name](stream) for name in only]


def run(job: Job) -> Outcome:
    stream, detectors = prepared(job.only, job.seed, job.requests_per_day, job.memory, job.day_effects)
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
