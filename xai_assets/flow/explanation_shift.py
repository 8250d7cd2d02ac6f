"""Explanation shift of a day's windows against the reference, and what normal is for it.

Belongs here: which samples are compared, the AUCs of the reference's own windows, the verdict.
Does not belong here: the test (`stats.explanation_shift`), drawing rows (`flow.shift_samples`).

Requests of one day resemble one another, so the row-level p-value finds something on most days. What counts is the AUC
of the window beside the AUCs that windows of the reference itself have against the rest of the reference.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl

from xai_assets.config import AlarmBudget
from xai_assets.errors import LakeError
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import STAGE_VERSION, Provenance, combine, window_days
from xai_assets.flow.shift_samples import REFERENCE_ROWS, WINDOW_ROWS, Sampler, role_values, weights_of
from xai_assets.lake.tables import EXPLANATION_SHIFT
from xai_assets.records import DIFFERENCE, MODEL_ROLES, OVERALL
from xai_assets.stats.explanation_shift import MIN_ROWS, ExplanationShift, explanation_shift

TABLE, REFERENCE = "explanation_shift", "explanation_shift_reference"
COMPARED = (*MODEL_ROLES, DIFFERENCE)
P_LIMIT = 0.01
INSUFFICIENT = f"fewer than {MIN_ROWS} explained requests, or less than half of the reference's days outside the window"
MOST_WINDOWS, FEWEST_WINDOWS = 40, 5
FOLDS = 3
"""Fewer than the test's own five: a day makes nine comparisons, and their AUC is judged beside others made so."""
Aucs = dict[tuple[str, int], tuple[float, ...]]


@dataclass(frozen=True)
class ShiftReference:
    """The reference's sample and, by (role, window days), the AUCs of its windows against the rest of it."""

    profile_hash: str
    rows: pl.DataFrame
    aucs: Aucs


class ShiftJudge:
    """Judges days of one monitor; samples and reference are read once per run."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self._sampler = Sampler(monitor)
        self._reference: ShiftReference | None = None

    def judge_day(self, day: date, provenance: str) -> pl.DataFrame:
        """Compute and store `explanation_shift` of one day; returns what was stored.

        Makes the reference's sample where the present profile's is not stored. Raises LakeError where there is no
        profile.
        """
        rows = self.rows(day)
        metadata = {"provenance": provenance, "profile_hash": self.reference().profile_hash}
        self.monitor.lake.write(TABLE, self.monitor.name, day, rows, metadata)
        return rows

    def rows(self, day: date) -> pl.DataFrame:
        """Rows of `explanation_shift`: every role × window that ends on `day`.

        A window's own days are left out of the reference; where less than half of that is left, it is not judged.
        """
        config, reference = self.monitor.config, self.reference()
        longest = max(config.drift.windows_days)
        self._sampler.forget_before(day - timedelta(days=longest))
        found = []
        for window in config.drift.windows_days:
            days = window_days(day, window, config.first_date)
            days_there = sum(self._sampler.day(d) is not None for d in days)
            sample, rest = self._sampler.rows(days, WINDOW_ROWS), _without(reference.rows, days)
            enough = 2 * len(set(config.reference_days) - set(days)) >= len(config.reference_days)
            for role in COMPARED:
                shift = compare(self.monitor, sample, rest, role, (day, window)) if enough else None
                normal = normal_auc(reference.aucs, role, window, config.drift.alarm_budget)
                found.append(_row(role, window, days_there, shift, normal, sample.height))
        return pl.DataFrame(found, schema=EXPLANATION_SHIFT.schema, orient="row")

    def reference(self) -> ShiftReference:
        """The stored reference of the present profile, or one made and stored now."""
        if self._reference is None:
            self._reference = ensure_reference(self.monitor, self._sampler)
        return self._reference


def ensure_reference(monitor: Monitor, sampler: Sampler) -> ShiftReference:
    """The reference's sample that belongs to the present profile, made where it is not stored.

    Made once, from the attributions that the reference days have then, and kept: it goes on when their rows are gone.
    Raises LakeError where there is no profile of the present configuration and models.
    """
    lake, name, config = monitor.lake, monitor.name, monitor.config
    provenance = Provenance(monitor)
    profile_hash = provenance.reference_hash()
    if profile_hash is None:
        raise LakeError(
            f"explanations of '{name}' cannot be compared without a reference profile",
            next_step=f"materialize {name}/reference_profile of the present configuration first",
        )
    windows = config.drift.windows_days
    identity = combine(STAGE_VERSION[TABLE], profile_hash, str(windows), str(config.explanation.seed))
    footer = provenance.footer(REFERENCE, None)
    if footer.get("provenance") == identity:
        return ShiftReference(profile_hash, lake.read(REFERENCE, name), _parsed(footer["aucs"]))
    rows = sampler.rows(config.reference_days, REFERENCE_ROWS)
    aucs = _reference_aucs(monitor, sampler, rows)
    listed = json.dumps([[role, window, list(found)] for (role, window), found in aucs.items()])
    lake.write(REFERENCE, name, None, rows, {"provenance": identity, "profile_hash": profile_hash, "aucs": listed})
    return ShiftReference(profile_hash, rows, aucs)


def compare(
    monitor: Monitor,
    sample: pl.DataFrame,
    reference: pl.DataFrame,
    role: str,
    at: tuple[date, int],
    permutations: int = 199,
) -> ExplanationShift | None:
    """The test of a window's sample against the reference's in one role; None where a side has too few finite rows.

    at: the window's last day and its length, which seed folds and permutations.
    """
    features = monitor.config.feature_names
    if min(sample.height, reference.height) < MIN_ROWS:
        return None
    current, normal = role_values(sample, features)[role], role_values(reference, features)[role]
    if min(int(np.isfinite(side).all(axis=1).sum()) for side in (current, normal)) < MIN_ROWS:
        return None
    seed = [monitor.config.explanation.seed, at[0].toordinal(), at[1], COMPARED.index(role)]
    return explanation_shift(
        normal,
        current,
        features,
        folds=FOLDS,
        permutations=permutations,
        rng=np.random.default_rng(seed),
        reference_weights=weights_of(reference),
        current_weights=weights_of(sample),
    )


def _reference_aucs(monitor: Monitor, sampler: Sampler, rows: pl.DataFrame) -> Aucs:
    """AUC of windows of the reference against the rest of it, at most `MOST_WINDOWS` of each length, evenly spread.

    Windows longer than half of the reference have none: too little would be left to compare them with.
    """
    days = monitor.config.reference_days
    found: Aucs = {}
    for window in (w for w in monitor.config.drift.windows_days if 2 * w <= len(days)):
        last = days[window - 1 :]
        spread = np.unique(np.linspace(0, len(last) - 1, min(len(last), MOST_WINDOWS)).round().astype(int))
        by_role: dict[str, list[float]] = {role: [] for role in COMPARED}
        for end in (last[i] for i in spread):
            inside = window_days(end, window, days[0])
            sample, rest = sampler.rows(inside, WINDOW_ROWS), _without(rows, inside)
            for role in COMPARED:
                shift = compare(monitor, sample, rest, role, (end, window), permutations=0)
                by_role[role] += [] if shift is None else [round(shift.auc, 6)]
        found |= {(role, window): tuple(aucs) for role, aucs in by_role.items()}
    return found


def _parsed(text: str) -> Aucs:
    return {(role, window): tuple(found) for role, window, found in json.loads(text)}


def _without(rows: pl.DataFrame, days: Sequence[date]) -> pl.DataFrame:
    return rows.filter(~pl.col("requested_on").is_in(list(days)))


@dataclass(frozen=True)
class Normal:
    """What AUC the reference's own windows reach: quantile, of how many windows of how many days."""

    auc: float
    windows: int
    window_days: int


def normal_auc(aucs: Aucs, role: str, window: int, budget: AlarmBudget) -> Normal | None:
    """The (1 − budget per day) quantile of the reference's AUCs, the maximum where there are too few for it.

    Where the reference is too short for windows of this length, that of the next shorter ones it has: single days
    differ more than weeks do, so this errs on the quiet side. None where the reference has fewer than `FEWEST_WINDOWS`.
    """
    lengths = sorted((w for r, w in aucs if r == role and w <= window), reverse=True)
    for length in lengths:
        found = aucs[role, length]
        if len(found) >= FEWEST_WINDOWS:
            level = max(0.0, 1.0 - budget.alarms / budget.per_days)
            return Normal(float(np.quantile(found, level, method="higher")), len(found), length)
    return None


def _row(
    role: str, window: int, days_there: int, shift: ExplanationShift | None, normal: Normal | None, rows: int
) -> dict[str, object]:
    verdict, rule = _verdict(shift, normal)
    ranked = () if shift is None else shift.ranked
    return {
        "role": role,
        "segment": OVERALL,
        "window_days": window,
        "day_count": days_there,
        "row_count": rows if shift is None else shift.rows_current,
        "row_count_reference": None if shift is None else shift.rows_reference,
        "auc": None if shift is None else round(shift.auc, 6),
        "p_value": None if shift is None else shift.p_value,
        "auc_reference_quantile": None if normal is None else normal.auc,
        "features": [feature for feature, _ in ranked],
        "coefficients": [round(coefficient, 6) for _, coefficient in ranked],
        "verdict": verdict,
        "rule": rule,
    }


def _verdict(shift: ExplanationShift | None, normal: Normal | None) -> tuple[str, str]:
    if shift is None:
        return "insufficient", INSUFFICIENT
    if normal is None:
        return "insufficient", f"the reference has fewer than {FEWEST_WINDOWS} windows to compare the AUC with"
    plural = "s" if normal.window_days > 1 else ""
    of = f"{normal.windows} windows of {normal.window_days} day{plural} in the reference"
    if shift.auc <= normal.auc:
        return "stable", f"AUC {shift.auc:.3f} is within {normal.auc:.3f}, what {of} reach"
    if shift.p_value > P_LIMIT:
        return "stable", f"AUC {shift.auc:.3f} may be chance: p = {shift.p_value:.3f} is above {P_LIMIT}"
    return "shifted", f"AUC {shift.auc:.3f} is above {normal.auc:.3f}, what {of} reach; p = {shift.p_value:.3f}"
