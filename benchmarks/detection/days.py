"""One seed's stream as the detectors see it: requests, attributions and histograms of any day.

Belongs here: the reference profile and daily histograms, filled as the flow fills them, without files.
Does not belong here: drawing (see `streams`), judging (see `ours`, `peers`).
"""

from collections import Counter
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property

import numpy as np
from scipy import special

from benchmarks.detection.streams import (
    CONTEXT,
    DEVICES,
    NAMES,
    PRODUCTS,
    REFERENCE_DAYS,
    Array,
    Explained,
    Fault,
    Pair,
    Requests,
    Service,
)
from xai_assets.flow.histograms import Profile
from xai_assets.flow.reference import CELLS
from xai_assets.lake.histogram_rows import Blocks
from xai_assets.lake.segments import segment_codes, top_segments, value_counts
from xai_assets.records import INPUT, MODEL_ROLES, OUTPUT, OUTPUT_FEATURES, POPULATIONS
from xai_assets.stats.edges import EdgeSketch, category_edges
from xai_assets.stats.histograms import accumulate, add_blocks, empty_block

DIVERGENT = 0.10
FIRST_DATE = date(2025, 1, 1)
LEVELS = {"product": len(PRODUCTS), "device": len(DEVICES), "returning": 2}


def calendar(day: int) -> date:
    return FIRST_DATE + timedelta(days=day - 1)


@dataclass(frozen=True)
class Day:
    """One day: what came in, and its histograms over the reference's cells."""

    number: int
    requests: Requests
    blocks: Blocks


class Stream:
    """Days of one seed. The days 1…28 are the reference."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.pair = Pair(self.service)
        self._healthy: dict[int, Day] = {}
        self.profile, self.reference_days = self._reference()

    def day(self, number: int, fault: Fault | None = None, faulty_days: int = 0) -> Day:
        """A day, with a fault that has been there for `faulty_days` days; healthy days are remembered."""
        if fault is not None:
            return self._day(number, self.service.day(number, fault, faulty_days))
        if number not in self._healthy:
            self._healthy[number] = self._day(number, self.service.day(number))
        return self._healthy[number]

    def _day(self, number: int, requests: Requests) -> Day:
        return Day(number, requests, count(self.profile, requests, self.pair.explain(requests)))

    @cached_property
    def reference_requests(self) -> Requests:
        days = [self.service.day(d) for d in range(1, REFERENCE_DAYS + 1)]
        values = {n: np.concatenate([d.values[n] for d in days]) for n in NAMES}
        return Requests(values, {n: np.concatenate([d.context[n] for d in days]) for n in CONTEXT})

    def _reference(self) -> tuple[Profile, dict[date, Blocks]]:
        """As `flow.reference.build_profile`: one pass for borders and segments, one for the histograms."""
        days = {n: self.service.day(n) for n in range(1, REFERENCE_DAYS + 1)}
        explained = {n: self.pair.explain(requests) for n, requests in days.items()}
        counts: dict[str, Counter[str | None]] = {name: Counter() for name in CONTEXT}
        sketches = {role: EdgeSketch(features(role)) for role in matrices(explained[1])}
        for number, requests in days.items():
            for column, found in value_counts(requests.frame, list(CONTEXT)).items():
                counts[column].update(found)
            for role, matrix in matrices(explained[number]).items():
                sketches[role].add(matrix)
        edges = {role: sketch.edges(CELLS) for role, sketch in sketches.items()}
        by_level = {name: category_edges(name, levels) for name, levels in LEVELS.items()}
        edges[INPUT] = tuple(by_level.get(e.feature, e) for e in edges[INPUT])
        profile = Profile("benchmark", top_segments(counts, 12), edges, {})
        blocks = {calendar(n): count(profile, requests, explained[n]) for n, requests in days.items()}
        for day, number in zip(blocks, days, strict=True):
            self._healthy[number] = Day(number, days[number], blocks[day])
        return Profile("benchmark", profile.segments, edges, sum_of(list(blocks.values()))), blocks


def features(role: str) -> tuple[str, ...]:
    return OUTPUT_FEATURES if role == OUTPUT else NAMES


def matrices(explained: Explained) -> dict[str, Array]:
    """Values of every role, [n, d] each."""
    production, experimental = (special.expit(explained.margins[r]) for r in MODEL_ROLES)
    outputs = np.column_stack((production, experimental, experimental - production))
    return {**explained.values, OUTPUT: outputs}


def count(profile: Profile, requests: Requests, explained: Explained) -> Blocks:
    """Histograms of one day: every role × population, as `flow.histograms.day_blocks` fills them."""
    codes = segment_codes(requests.frame, list(CONTEXT), profile.segments)
    values = matrices(explained)
    apart = np.flatnonzero(np.abs(values[OUTPUT][:, -1]) >= DIVERGENT)
    blocks: Blocks = {}
    for role, matrix in values.items():
        edges = profile.edges[role]
        for population in POPULATIONS:
            rows = np.arange(len(matrix)) if population == "all" else apart
            block = blocks[role, population] = empty_block(profile.segments, edges)
            accumulate(block, edges, np.ascontiguousarray(matrix[rows]), np.ones(len(rows)), codes[rows])
    return blocks


def sum_of(days: list[Blocks]) -> Blocks:
    total = days[0]
    for blocks in days[1:]:
        total = {key: add_blocks(total[key], blocks[key]) for key in total}
    return total
