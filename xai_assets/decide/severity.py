"""How bad a score is: none, noted, warning, critical, or too few requests to say.

Belongs here: the rules that turn rows of scores into severities and sentences. Does not belong here: evidence and
thresholds (see `stats.dispersion`, `stats.threshold`), where the drift is (see `localise`), why (see `causes`), whether
it lasts (see `alerts`).

Evidence says that a change is real, effect says that it matters; an alarm needs both.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xai_assets.config import DriftConfig
from xai_assets.records import OUTPUT, SEVERITIES, WHOLE, Float64
from xai_assets.stats.threshold import MIN_REFERENCE_DAYS, Threshold, benjamini_hochberg

Columns = Mapping[str, Any]
"""Rows as columns: name → sequence or array, all of one length."""
_Mask = npt.NDArray[np.bool_]

JUDGED_POPULATION = "all"
"""Which requests diverge changes with the models' inputs, so attributions of the divergent ones move without any fault
of their own: they are described, not judged."""
LABEL_FLOORS = (0.02, 0.05, 0.10)
"""`residual_shift` from which a change is noted, a warning, critical: in output units of a classifier, for a
regression in units of the reference's mean absolute error."""


def grade(scores: Columns, drift: DriftConfig, threshold: Threshold) -> dict[str, npt.NDArray[Any]]:
    """Severity of every row of one day's drift scores, with everything that decided it.

    A row is at least noted where its evidence reaches the threshold, its effect reaches a floor of
    `drift.effect_floors`, and, except for outputs, its feature carries at least `drift.min_importance_share` of
    Σ mean |φ| (an input: in either model). It is `insufficient` where the window or the reference has fewer than
    `drift.min_effective_rows` effective requests, or where the reference cannot say what is normal. Rows of feature
    `*` and of the divergent population never decide.

    Parameters
    ----------
    scores
        All rows of the day, every role and window: with few reference days the threshold depends on all of them.
        Columns of `stats.scores.score_blocks`, and `evidence` (NaN where unknown).
    drift
        Floors and limits.
    threshold
        From the calibration.

    Returns
    -------
    dict
        `severity`, `rule` (text), `effect`, `threshold` (float64) and `effect_metric` (text).
    """
    n, m, u, share = (
        _floats(scores[c]) for c in ("n_effective", "n_effective_reference", "evidence", "importance_share")
    )
    effect = effects(scores, drift)
    floors = drift.effect_floors
    described = _equal(scores["feature"], WHOLE) | ~_equal(scores["population"], JUDGED_POPULATION)
    few, few_before = n < drift.min_effective_rows, m < drift.min_effective_rows
    unknown = ~np.isfinite(u) if threshold.rule != "unknown" else np.ones(len(u), dtype=bool)
    important = _equal(scores["role"], OUTPUT) | (share >= drift.min_importance_share)
    judged = ~(described | few | few_before | unknown) & important
    limit = _limit(scores["window_days"], u[judged], threshold)
    loud = np.nan_to_num(u, nan=-1.0) >= limit
    level = np.searchsorted((floors.noted, floors.warning, floors.critical), np.nan_to_num(effect, nan=-1), "right")
    rules = (
        (few, f"fewer than {drift.min_effective_rows} effective requests in the window", 0),
        (few_before, f"fewer than {drift.min_effective_rows} effective requests in the reference", 0),
        (_equal(scores["feature"], WHOLE), "for comparison only, never decides", 1),
        (described, "divergent requests are described, not judged", 1),
        (unknown, _why_unknown(threshold), 0),
        (~important, f"less than {drift.min_importance_share:.1%} of Σ mean |φ|", 1),
        (~loud & (level == 0), "evidence and effect are below their limits", 1),
        (~loud, f"evidence is below the alarm threshold ({_how(threshold)})", 1),
        (level == 0, f"real, but the effect is below {floors.noted:g}", 1),
    )
    names = [f"evidence over the threshold ({_how(threshold)}), effect from {f:g}" for f in _floors(drift)]
    return _decided(rules, level, names) | {
        "effect": effect,
        "threshold": np.where(described | unknown, np.nan, limit),
        "effect_metric": np.full(len(effect), floors.metric, dtype=object),
    }


def _decided(
    rules: Sequence[tuple[_Mask, str, int]], level: npt.NDArray[np.int64], names: Sequence[str]
) -> dict[str, npt.NDArray[Any]]:
    """`severity` and `rule`: of the first rule that holds (mask, text, rank of the severity), else of the level."""
    rank, rule = 1 + level, np.array(["", *names], dtype=object)[level]
    for mask, text, value in reversed(rules):
        rank, rule = np.where(mask, value, rank), np.where(mask, text, rule)
    return {"severity": np.array(SEVERITIES, dtype=object)[rank], "rule": rule}


def effects(scores: Columns, drift: DriftConfig) -> Float64:
    """The metric that floors are compared with; a ratio of importance below 1 counts as its inverse."""
    values = _floats(scores[drift.effect_floors.metric])
    if drift.effect_floors.metric == "importance_ratio":
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.maximum(values, 1.0 / values)
    return values


def _limit(window_days: Any, judged: Float64, threshold: Threshold) -> Float64:
    """Evidence from which each row of this day is an alarm; judged: evidence of the rows that can be one."""
    if threshold.rule == "westfall_young":
        return threshold.at(np.asarray(window_days, dtype=np.int64))
    by_day = threshold.rule == "benjamini_hochberg"
    limit = benjamini_hochberg(judged, threshold.alarm_rate) if by_day else np.inf
    return np.full(len(window_days), limit)


def _floors(drift: DriftConfig) -> tuple[float, float, float]:
    return drift.effect_floors.noted, drift.effect_floors.warning, drift.effect_floors.critical


def _how(threshold: Threshold) -> str:
    if threshold.rule == "westfall_young":
        return f"Westfall–Young, {threshold.days} reference days"
    few = f"only {threshold.days} reference days" if threshold.days < MIN_REFERENCE_DAYS else "few requests a day"
    return f"F distribution and Benjamini–Hochberg: {few}"


def _why_unknown(threshold: Threshold, what: str = "requests") -> str:
    if threshold.rule == "unknown":
        days = f"{threshold.days} reference day{'' if threshold.days == 1 else 's'}"
        why = "2 are needed" if threshold.days < 2 else "too few of them have enough"
        return f"what is normal cannot be told from {days}, {why}"
    return f"too few {what}, or too few days of the reference, to know what is normal here"


def grade_labels(scores: Columns, drift: DriftConfig, threshold: Threshold) -> dict[str, npt.NDArray[Any]]:
    """Severity of every row of one day's label scores, with everything that decided it.

    A row is at least noted where its evidence reaches the threshold and `residual_shift` reaches one of
    `LABEL_FLOORS`; with metric `mae` the floors are multiplied by the reference's mean absolute error, taken from the
    row of feature `*`. It is `insufficient` with fewer than `drift.min_effective_rows` labels, where no cell has enough
    of them to compare, or where the reference cannot say what is normal.

    Parameters
    ----------
    scores
        All rows of the day, every role and window: with few reference days the threshold depends on all of them.
        Columns of `stats.residuals.label_scores`.
    drift
        Limits.
    threshold
        From the calibration of labels.

    Returns
    -------
    dict
        `severity`, `rule` (text) and `threshold` (float64).
    """
    count, shift, u = (_floats(scores[c]) for c in ("label_count", "residual_shift", "evidence"))
    unit = _label_units(scores)
    relative = np.divide(shift, unit, out=np.full_like(shift, np.nan), where=unit > 0)
    level = np.searchsorted(LABEL_FLOORS, np.nan_to_num(relative, nan=-1), side="right")
    few, undefined = count < drift.min_effective_rows, ~np.isfinite(shift)
    unknown = ~np.isfinite(u) if threshold.rule != "unknown" else np.ones(len(u), dtype=bool)
    limit = _limit(scores["window_days"], u[~(few | undefined | unknown)], threshold)
    loud = np.nan_to_num(u, nan=-1.0) >= limit
    how = _how(threshold)
    rules = (
        (few, f"fewer than {drift.min_effective_rows} labels in the window", 0),
        (undefined, "too few labels per cell to compare", 0),
        (unknown, _why_unknown(threshold, "labels"), 0),
        (~loud & (level == 0), "evidence and change of residuals are below their limits", 1),
        (~loud, f"evidence is below the alarm threshold ({how})", 1),
        (level == 0, f"real, but residuals changed by less than {LABEL_FLOORS[0]:g}{_unit_text(scores)}", 1),
    )
    names = [f"evidence over the threshold ({how}), residuals changed by {f:g}" for f in LABEL_FLOORS]
    names = [f"{name}{_unit_text(scores)} or more" for name in names]
    return _decided(rules, level, names) | {"threshold": np.where(few | undefined | unknown, np.nan, limit)}


def _unit_text(scores: Columns) -> str:
    """What a floor is a multiple of: one day's rows have one metric."""
    return " × the reference's mean absolute error" if _equal(scores["metric"], "mae").any() else ""


def _label_units(scores: Columns) -> Float64:
    """What a floor of 1 means in output units, per row."""
    metric = np.asarray(scores["metric"], dtype=object)
    unit = np.ones(len(metric))
    if not _equal(metric, "mae").any():
        return unit
    keys = list(zip(scores["role"], scores["segment"], scores["window_days"], strict=True))
    whole, reference = _equal(scores["feature"], WHOLE), _floats(scores["metric_reference"])
    errors = {keys[i]: reference[i] for i in np.flatnonzero(whole)}
    return np.where(_equal(metric, "mae"), [errors.get(k, np.nan) for k in keys], unit)


def _floats(column: Any) -> Float64:
    return np.asarray(column, dtype=np.float64)


def _equal(column: Any, word: str) -> _Mask:
    return np.asarray(np.asarray(column, dtype=object) == word, dtype=np.bool_)
