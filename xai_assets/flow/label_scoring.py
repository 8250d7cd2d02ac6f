"""Label scores of a day: residuals of its windows against those of the reference.

Belongs here: which stored days make a window, and putting scores, severities and rules into one table. Does not belong
here: the comparison itself (`stats.residuals`), what is normal (`stats.label_calibration`), severities
(`decide.severity`).
"""

from collections.abc import Mapping, Sequence
from datetime import date
from functools import cached_property, reduce

import numpy as np
import polars as pl

from xai_assets.config import DriftConfig
from xai_assets.decide.severity import grade_labels
from xai_assets.flow.histograms import Profile
from xai_assets.flow.label_calibration import load_label_calibration
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import Provenance, window_days
from xai_assets.flow.reference import load_profile
from xai_assets.flow.residuals import Tables, frame_to_tables
from xai_assets.lake.tables import LABEL_SCORES
from xai_assets.records import MODEL_ROLES, Float64
from xai_assets.stats.calibration import Calibration, day_share
from xai_assets.stats.residuals import add_residuals, label_scores, labels_of
from xai_assets.stats.scores import Normal

Columns = dict[str, np.ndarray]


def add_tables(days: Sequence[Tables]) -> Tables:
    """Sum of several days. Raises ValueError where there is none."""
    if not days:
        raise ValueError("no day of residuals to add")
    return {role: reduce(add_residuals, [tables[role] for tables in days]) for role in days[0]}


def score_label_windows(
    windows: Mapping[int, Sequence[Tables]],
    reference: Tables,
    calibration: Calibration,
    drift: DriftConfig,
    *,
    is_classifier: bool,
) -> Columns:
    """All rows of `label_scores` of a day but `reference_hash`, graded.

    windows: the residuals of each window's days, none of them empty, by the window's length in days; reference: those
    of all reference days together, over the same segments and cells.
    """
    parts = []
    for length, days in windows.items():
        normal = {
            role: Normal(calibration.dispersions[role, length], _day_share(days, role), calibration.day_share_reference)
            for role in reference
            if (role, length) in calibration.dispersions
        }
        now = add_tables(days)
        parts.append(label_scores(reference, now, window_days=length, is_classifier=is_classifier, normal=normal))
    if not parts:
        return {}
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return columns | grade_labels(columns, drift, calibration.threshold)


def _day_share(days: Sequence[Tables], role: str) -> Float64:
    return day_share(np.stack([labels_of(tables[role]) for tables in days]))


class LabelScorer:
    """Scores residuals of days of one monitor; each stored day is read once."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self._tables: dict[date, Tables | None] = {}

    @cached_property
    def profile(self) -> Profile:
        return load_profile(self.monitor)

    @cached_property
    def calibration(self) -> Calibration | None:
        """None while residuals of the reference are incomplete."""
        if Provenance(self.monitor).label_calibration_hash() is None:
            return None
        return load_label_calibration(self.monitor, self.profile)

    @cached_property
    def _reference_days(self) -> tuple[date, ...]:
        return Provenance(self.monitor).residual_reference_days()

    @cached_property
    def _reference(self) -> Tables:
        return add_tables(self._stored(self._reference_days))

    @property
    def is_classifier(self) -> bool:
        return all(self.monitor.model(role).is_classifier for role in MODEL_ROLES)

    def score_day(self, day: date, provenance: str) -> pl.DataFrame:
        """Compute and store `label_scores` of one day; returns what was stored."""
        scores = self.scores(day)
        self.monitor.lake.write("label_scores", self.monitor.name, day, scores, {"provenance": provenance})
        return scores

    def scores(self, day: date) -> pl.DataFrame:
        """Rows of `label_scores`, none while the reference's own labels are incomplete. Stores nothing."""
        if day <= self._reference_days[-1] or self.calibration is None:
            return pl.DataFrame(schema=LABEL_SCORES.schema)
        drift = self.monitor.config.drift
        windows = {w: self._stored(window_days(day, w, self._reference_days[0])) for w in drift.windows_days}
        windows = {w: days for w, days in windows.items() if days}
        columns = score_label_windows(
            windows, self._reference, self.calibration, drift, is_classifier=self.is_classifier
        )
        return self._frame(columns) if columns else pl.DataFrame(schema=LABEL_SCORES.schema)

    def _frame(self, columns: Columns) -> pl.DataFrame:
        """The table's columns with its types; NaN, which means "not defined", becomes null."""
        filled = columns | {"reference_hash": np.full(len(columns["role"]), self.profile.profile_hash, dtype=object)}
        series = [pl.Series(name, filled[name]) for name in LABEL_SCORES.schema]
        types = LABEL_SCORES.schema.values()
        return pl.DataFrame(
            (s.fill_nan(None) if s.dtype.is_float() else s).cast(t) for s, t in zip(series, types, strict=True)
        )

    def _stored(self, days: Sequence[date]) -> list[Tables]:
        return [t for t in (self._day(d) for d in days) if t is not None]

    def _day(self, day: date) -> Tables | None:
        if day not in self._tables:
            self._tables[day] = self._load(day)
        return self._tables[day]

    def _load(self, day: date) -> Tables | None:
        lake, name = self.monitor.lake, self.monitor.name
        if not lake.exists("residual_histograms", name, day):
            return None
        found = lake.metadata("residual_histograms", name, day).get("profile_hash")
        if found != self.profile.profile_hash:
            return None  # over the cells of another reference: not comparable, and its rows may be gone by now
        return frame_to_tables(lake.read("residual_histograms", name, day), self.profile)
