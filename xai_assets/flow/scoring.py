"""Drift scores of a day: its windows against the reference.

Belongs here: which stored days make a window, and putting scores, severities and rules into one table.
Does not belong here: metrics (`stats.scores`), severities (`decide.severity`).
"""

from collections.abc import Iterator
from datetime import date, timedelta
from functools import cached_property

import numpy as np
import polars as pl

from xai_assets.decide.severity import grade
from xai_assets.flow.histograms import Profile
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import window_days
from xai_assets.flow.reference import check_day, comparable_days, load_day_blocks, load_profile
from xai_assets.lake.histogram_rows import Blocks
from xai_assets.lake.tables import DRIFT_SCORES
from xai_assets.records import POPULATIONS, ROLES
from xai_assets.stats.histograms import add_blocks
from xai_assets.stats.scores import score_blocks

Columns = dict[str, np.ndarray]


class Scorer:
    """Scores days of one monitor; keeps the blocks of the last days so that a range reads each day once."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self._blocks: dict[date, Blocks | None] = {}

    @cached_property
    def profile(self) -> Profile:
        return load_profile(self.monitor)

    def score_day(self, day: date, provenance: str) -> pl.DataFrame:
        """Compute and store `drift_scores` of one day; returns what was stored.

        Days whose histograms are over the cells of another reference profile are left out of the windows.
        """
        scores = self.scores(day)
        metadata = {"provenance": provenance, "profile_hash": self.profile.profile_hash}
        self.monitor.lake.write("drift_scores", self.monitor.name, day, scores, metadata)
        return scores

    def scores(self, day: date) -> pl.DataFrame:
        """Rows of `drift_scores` for every role, population and window that ends on `day`. Stores nothing.

        Raises ProvenanceError, with both hashes, where the day's own histograms are over other cells than the
        profile's; older days of that kind are left out of the windows.
        """
        check_day(self.monitor, day, self.profile)
        parts: list[Columns] = []
        oldest = day - timedelta(days=max(self.monitor.config.drift.windows_days))
        self._blocks = {d: b for d, b in self._blocks.items() if oldest < d <= day}
        for window, blocks in self._windows(day):
            for role in ROLES:
                parts += [self._score(blocks, role, population, window) for population in POPULATIONS]
        if not parts:
            return pl.DataFrame(schema=DRIFT_SCORES.schema)
        return _frame({name: np.concatenate([part[name] for part in parts]) for name in DRIFT_SCORES.schema})

    def _score(self, blocks: Blocks, role: str, population: str, window: int) -> Columns:
        columns = score_blocks(
            self.profile.blocks[role, population],
            blocks[role, population],
            self.profile.edges[role],
            role=role,
            population=population,
            window_days=window,
        )
        severity, rule = grade(columns, self.monitor.config.drift)
        return columns | {"severity": severity, "rule": rule}

    def _windows(self, day: date) -> Iterator[tuple[int, Blocks]]:
        """Each window with the sum of its stored days; a longer window only adds its older days to a shorter one."""
        config = self.monitor.config
        total: Blocks | None = None
        done = 0
        for window in config.drift.windows_days:
            days = window_days(day, window, config.first_date)
            for older in reversed(days[: len(days) - done]):
                blocks = self._day(older)
                if blocks is not None:
                    total = blocks if total is None else {k: add_blocks(total[k], blocks[k]) for k in total}
            done = len(days)
            if total is not None:
                yield window, total

    def _day(self, day: date) -> Blocks | None:
        if day not in self._blocks:
            self._blocks[day] = self._load(day)
        return self._blocks[day]

    def _load(self, day: date) -> Blocks | None:
        if not comparable_days(self.monitor, [day], self.profile):
            return None  # over the cells of another reference: not comparable, and its rows may be gone by now
        return load_day_blocks(self.monitor, day, self.profile)


def _frame(columns: Columns) -> pl.DataFrame:
    """The table's columns with its types; NaN, which means "not defined", becomes null."""
    series = []
    for name, dtype in DRIFT_SCORES.schema.items():
        s = pl.Series(name, columns[name])
        series.append((s.fill_nan(None) if s.dtype.is_float() else s).cast(dtype))
    return pl.DataFrame(series)
