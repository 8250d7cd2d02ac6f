"""Drift scores of a day: its windows against the reference.

Belongs here: which stored days make a window, and putting scores, severities and rules into one table.
Does not belong here: metrics (`stats.scores`), severities (`decide.severity`).
"""

from collections import OrderedDict
from collections.abc import Sequence
from datetime import date
from functools import cached_property

import numpy as np
import polars as pl

from xai_assets.decide.severity import grade
from xai_assets.errors import ProvenanceError
from xai_assets.flow.histograms import Profile
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import window_days
from xai_assets.flow.reference import load_profile
from xai_assets.lake.histogram_rows import Blocks, frame_to_blocks
from xai_assets.lake.tables import DRIFT_SCORES
from xai_assets.records import POPULATIONS, ROLES
from xai_assets.stats.histograms import add_blocks
from xai_assets.stats.scores import score_blocks


class Scorer:
    """Scores days of one monitor; keeps the blocks of the last days so that a range reads each day once."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self._blocks: OrderedDict[date, Blocks | None] = OrderedDict()

    @cached_property
    def profile(self) -> Profile:
        return load_profile(self.monitor)

    def score_day(self, day: date, provenance: str) -> pl.DataFrame:
        """Compute and store `drift_scores` of one day; returns what was stored.

        Raises ProvenanceError where histograms of the window were made over another reference's cells.
        """
        scores = self.scores(day)
        metadata = {"provenance": provenance, "profile_hash": self.profile.profile_hash}
        self.monitor.lake.write("drift_scores", self.monitor.name, day, scores, metadata)
        return scores

    def scores(self, day: date) -> pl.DataFrame:
        """Rows of `drift_scores` for every role, population and window that ends on `day`. Stores nothing."""
        config, parts = self.monitor.config, []
        for window in config.drift.windows_days:
            blocks = self._window(window_days(day, window, config.first_date))
            for role in ROLES:
                for population in POPULATIONS:
                    parts.append(self._score(blocks, role, population, window))
        return pl.concat(parts)

    def _score(self, blocks: Blocks | None, role: str, population: str, window: int) -> pl.DataFrame:
        if blocks is None:
            return pl.DataFrame(schema=DRIFT_SCORES.schema)
        columns = score_blocks(
            self.profile.blocks[role, population],
            blocks[role, population],
            self.profile.edges[role],
            role=role,
            population=population,
            window_days=window,
        )
        severity, rule = grade(columns, self.monitor.config.drift)
        return _frame(columns | {"severity": severity, "rule": rule})

    def _window(self, days: Sequence[date]) -> Blocks | None:
        """Sum of the stored days; None where none of them is stored."""
        present = [b for b in (self._day(d) for d in days) if b is not None]
        if not present:
            return None
        total = present[0]
        for blocks in present[1:]:
            total = {key: add_blocks(total[key], blocks[key]) for key in total}
        return total

    def _day(self, day: date) -> Blocks | None:
        if day not in self._blocks:
            self._blocks[day] = self._load(day)
            while len(self._blocks) > max(self.monitor.config.drift.windows_days) + 1:
                self._blocks.popitem(last=False)
        return self._blocks[day]

    def _load(self, day: date) -> Blocks | None:
        lake, name = self.monitor.lake, self.monitor.name
        if not lake.exists("attribution_histograms", name, day):
            return None
        found = lake.metadata("attribution_histograms", name, day).get("profile_hash")
        if found != self.profile.profile_hash:
            raise ProvenanceError(
                f"the histograms of {day} were made over the cells of another reference profile",
                expected=self.profile.profile_hash,
                found=str(found),
                next_step=f"materialize {name}/attribution_histograms of {day} again, then the scores",
            )
        frame = lake.read("attribution_histograms", name, day)
        return frame_to_blocks(frame, self.profile.segments, self.profile.edges, POPULATIONS)


def _frame(columns: dict[str, np.ndarray]) -> pl.DataFrame:
    """The table's columns with its types; NaN, which means "not defined", becomes null."""
    series = []
    for name, dtype in DRIFT_SCORES.schema.items():
        s = pl.Series(name, columns[name])
        series.append((s.fill_nan(None) if s.dtype.is_float() else s).cast(dtype))
    return pl.DataFrame(series)
