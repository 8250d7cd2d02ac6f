"""Drift scores of a day: its windows against the reference.

Belongs here: which stored days make a window, and putting scores, severities and rules into one table.
Does not belong here: metrics (`stats.scores`), what is normal (`stats.calibration`), severities (`decide.severity`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property

import numpy as np
import polars as pl

from xai_assets.config import DriftConfig
from xai_assets.decide.severity import JUDGED_POPULATION, grade
from xai_assets.flow.calibration import load_calibration, profile_days, stored_days
from xai_assets.flow.histograms import Profile
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import window_days
from xai_assets.flow.reference import check_day, comparable_days, load_day_blocks, load_profile
from xai_assets.lake.histogram_rows import Blocks
from xai_assets.lake.tables import DRIFT_SCORES
from xai_assets.records import INPUT, MODEL_ROLES, POPULATIONS, ROLES, Float64
from xai_assets.stats.calibration import Calibration
from xai_assets.stats.drift import effective_rows
from xai_assets.stats.histograms import add_blocks
from xai_assets.stats.scores import Normal, Reference, prepare, score_window

Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Window:
    """The days of one window as one: their summed histograms, and Σ n_t²/(Σ n_t)² of the days per segment, [S].

    reference: what it is compared with where that is not the whole reference (`drift.match_weekday`).
    """

    blocks: Blocks
    day_share: Float64
    reference: Blocks | None = None


def window_of(days: Sequence[Blocks], reference: Blocks | None = None) -> Window:
    """Sum of several days' histograms. Raises ValueError where there is none."""
    total = days[0]
    for blocks in days[1:]:
        total = {key: add_blocks(total[key], blocks[key]) for key in total}
    n = np.stack([_rows_per_segment(blocks) for blocks in days])
    sum_of = n.sum(axis=0) ** 2
    share = np.divide((n**2).sum(axis=0), sum_of, out=np.ones(n.shape[1]), where=sum_of > 0)
    return Window(total, share, reference)


def _rows_per_segment(blocks: Blocks) -> Float64:
    block = blocks[MODEL_ROLES[0], JUDGED_POPULATION]
    return effective_rows(block.weight[:, 0], block.weight_squared[:, 0])


Prepared = dict[tuple[str, str], Reference]
"""References by (role, population), prepared once for many days."""


def score_windows(
    windows: Mapping[int, Window],
    profile: Profile,
    calibration: Calibration,
    drift: DriftConfig,
    prepared: Prepared | None = None,
) -> Columns:
    """All rows of `drift_scores` of the day on which the windows end, graded; windows by their length in days.

    The divergent requests, which are described and not judged, are scored in the shortest window only. prepared: filled
    on the first call with what follows from the profile alone; pass the same one for every day of a profile.
    The importance share of an input is the larger of its shares in the two models: an input that neither uses may do
    what it likes.
    """
    parts, prepared = [], {} if prepared is None else prepared
    for days, window in windows.items():
        for population in POPULATIONS if days == min(windows) else (JUDGED_POPULATION,):
            scored = {r: _score(r, population, days, window, profile, calibration, prepared) for r in ROLES}
            scored[INPUT]["importance_share"] = np.fmax(*(scored[r]["importance_share"] for r in MODEL_ROLES))
            parts += list(scored.values())
    if not parts:
        return {}
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    columns |= grade(columns, drift, calibration.threshold)
    columns["reference_hash"] = np.full(len(columns["role"]), profile.profile_hash, dtype=object)
    return columns


def _score(
    role: str,
    population: str,
    days: int,
    window: Window,
    profile: Profile,
    calibration: Calibration,
    prepared: Prepared,
) -> Columns:
    found = calibration.dispersions.get((role, days)) if population == JUDGED_POPULATION else None
    normal = None if found is None else Normal(found, window.day_share, calibration.day_share_reference)
    key, edges = (role, population), profile.edges[role]
    if window.reference is not None:
        reference = prepare(window.reference[key], edges, role)
    elif (held := prepared.get(key)) is not None:
        reference = held
    else:
        reference = prepared[key] = prepare(profile.blocks[key], edges, role)
    return score_window(reference, window.blocks[key], population=population, window_days=days, normal=normal)


class Scorer:
    """Scores days of one monitor; keeps the blocks of the last days so that a range reads each day once."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self._blocks: dict[date, Blocks | None] = {}
        self._prepared: Prepared = {}

    @cached_property
    def profile(self) -> Profile:
        return load_profile(self.monitor)

    @cached_property
    def calibration(self) -> Calibration:
        return load_calibration(self.monitor, self.profile)

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
        oldest = day - timedelta(days=max(self.monitor.config.drift.windows_days))
        self._blocks = {d: b for d, b in self._blocks.items() if oldest < d <= day}
        drift = self.monitor.config.drift
        columns = score_windows(self._windows(day), self.profile, self.calibration, drift, self._prepared)
        return _frame(columns) if columns else pl.DataFrame(schema=DRIFT_SCORES.schema)

    def _windows(self, day: date) -> dict[int, Window]:
        """Each window that has stored days."""
        windows = {}
        for length in self.monitor.config.drift.windows_days:
            days = window_days(day, length, self.monitor.config.first_date)
            stored = [b for d in days if (b := self._day(d)) is not None]
            if stored:
                windows[length] = window_of(stored, self._reference(days))
        return windows

    def _reference(self, days: Sequence[date]) -> Blocks | None:
        """The reference's days with the weekdays of the window; None where that is all of them."""
        if not self.monitor.config.drift.match_weekday or len(days) >= 7:
            return None
        same = [b for w, b in self._weekdays.items() if w in {d.weekday() for d in days}]
        return window_of(same).blocks | self._described if same else None

    @cached_property
    def _weekdays(self) -> dict[int, Blocks]:
        """The judged population's histograms of the reference by weekday."""
        totals: dict[int, Blocks] = {}
        for day, blocks in stored_days(self.monitor, profile_days(self.monitor), self.profile):
            held = totals.get(day.weekday())
            totals[day.weekday()] = blocks if held is None else {k: add_blocks(held[k], blocks[k]) for k in held}
        return totals

    @cached_property
    def _described(self) -> Blocks:
        return {key: block for key, block in self.profile.blocks.items() if key[1] != JUDGED_POPULATION}

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
