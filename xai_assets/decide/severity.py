"""How bad a score is: none, noted, warning, critical, or too few requests to say.

Belongs here: the rule that turns one row of scores into a severity and a sentence. Does not belong here: where the
drift is (see `localise`), why (see `causes`), whether it lasts (see `alerts`).

Interim rule: fixed floors on the effect and a guard against chance. It stands behind `grade` and `grade_labels`
alone, so that a rule calibrated on the reference days can replace it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from xai_assets.config import DriftConfig
from xai_assets.records import INPUT, OUTPUT, SEVERITIES, WHOLE, Float64

Columns = Mapping[str, Any]
"""Rows as columns: name → sequence or array, all of one length."""
_Text = npt.NDArray[np.object_]

NULL_DEVIATIONS = 4.0
"""Standard deviations above its mean without drift that a corrected PSI must exceed."""
LABEL_Z = 4.5
"""`z_score` from which a change of residuals counts; chance reaches it about three times in a million."""
LABEL_FLOORS = (0.02, 0.05, 0.10)
"""`residual_shift` from which a change is noted, a warning, critical: in output units of a classifier, for a
regression in units of the reference's mean absolute error."""


def grade(scores: Columns, drift: DriftConfig) -> tuple[_Text, _Text]:
    """Severity and rule of every row of drift scores.

    A row is `insufficient` where the window or the reference has fewer than `drift.min_effective_rows` effective
    requests. Else it is at least noted where the corrected PSI (nats) reaches a floor of `drift.effect_floors`,
    exceeds what chance reaches (`noise_limit`), and, except for inputs and outputs, the feature carries at least
    `drift.min_importance_share` of Σ mean |φ|. The row of feature `*` never decides.

    Parameters
    ----------
    scores
        Columns as `stats.scores.score_blocks` gives them; `cells_used` among them.
    drift
        Floors and limits.

    Returns
    -------
    tuple
        Two object arrays of text, severity and rule.
    """
    floors = drift.effect_floors
    n, m, effect, share = (
        _floats(scores[c]) for c in ("n_effective", "n_effective_reference", "psi_corrected_nats", "importance_share")
    )
    noise = noise_limit(_floats(scores["cells_used"]), n, m)
    of_values = _equal(scores["role"], INPUT) | _equal(scores["role"], OUTPUT)
    whole = _equal(scores["feature"], WHOLE)
    enough = (n >= drift.min_effective_rows) & (m >= drift.min_effective_rows)
    loud = effect > noise
    important = of_values | (share >= drift.min_importance_share)
    level = np.searchsorted(
        (floors.noted, floors.warning, floors.critical), np.nan_to_num(effect, nan=-1), side="right"
    )
    rank = np.where(enough, 1 + np.where(loud & important & ~whole, level, 0), 0)
    severity = np.array(SEVERITIES, dtype=object)[rank]
    facts = zip(severity, effect, noise, share, n, m, loud, important, whole, level, strict=True)
    rules = [_rule(drift, *row) for row in facts]
    return severity, np.array(rules, dtype=object)


def noise_limit(cells: Float64, n: Float64, m: Float64) -> Float64:
    """Corrected PSI (nats) that chance alone exceeds once in 30,000 times.

    Without drift PSI/(1/n + 1/m) follows χ² with k−1 degrees of freedom. The limit lies `NULL_DEVIATIONS` standard
    deviations above the mean on the scale on which χ² is nearly normal (Wilson and Hilferty 1931): counted in plain
    standard deviations, √(2(k−1))·(1/n + 1/m), chance would exceed four of them once in 100 for two cells.

    cells (k), n, m: float [...]; NaN where one of n, m is 0 or k is below 2 (nothing can differ there).

    >>> noise_limit(np.array([21.0]), np.array([200.0]), np.array([1e9])).round(2)
    array([0.18])
    """
    freedom = np.where(cells >= 2, cells - 1, np.nan)
    spread = 2.0 / (9.0 * freedom)
    quantile = freedom * (1.0 - spread + NULL_DEVIATIONS * np.sqrt(spread)) ** 3
    inverse = np.divide(1.0, n, out=np.full_like(n, np.nan), where=n > 0)
    inverse = inverse + np.divide(1.0, m, out=np.full_like(m, np.nan), where=m > 0)
    return np.asarray((quantile - freedom) * inverse)


def grade_labels(scores: Columns, drift: DriftConfig) -> tuple[_Text, _Text]:
    """Severity and rule of every row of label scores.

    A row is `insufficient` with fewer than `drift.min_effective_rows` labels. Else it is at least noted where
    `z_score` ≥ `LABEL_Z` and `residual_shift` reaches one of `LABEL_FLOORS`; with metric `mae` the floors are
    multiplied by the reference's mean absolute error, taken from the row of feature `*`.
    """
    count, shift, z = (_floats(scores[c]) for c in ("label_count", "residual_shift", "z_score"))
    unit = _label_units(scores)
    enough = count >= drift.min_effective_rows
    relative = np.divide(shift, unit, out=np.full_like(shift, np.nan), where=unit > 0)
    level = np.searchsorted(LABEL_FLOORS, np.nan_to_num(relative, nan=-1), side="right")
    loud = z >= LABEL_Z
    rank = np.where(enough, 1 + np.where(loud, level, 0), 0)
    severity = np.array(SEVERITIES, dtype=object)[rank]
    rules = [_label_rule(drift, *row) for row in zip(severity, shift, unit, z, count, loud, level, strict=True)]
    return severity, np.array(rules, dtype=object)


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


def _rule(
    drift: DriftConfig,
    severity: str,
    effect: float,
    noise: float,
    share: float,
    n: float,
    m: float,
    loud: bool,
    important: bool,
    whole: bool,
    level: int,
) -> str:
    if severity == "insufficient":
        few, name = (n, "window") if n < drift.min_effective_rows else (m, "reference")
        return f"{few:.0f} effective requests in the {name}, {drift.min_effective_rows} are needed"
    if whole:
        return "for comparison only, never decides"
    floors = drift.effect_floors
    if level == 0:
        return f"corrected PSI {effect:.3f} below {floors.noted:g} nats"
    if not loud:
        return f"corrected PSI {effect:.3f} nats is what chance reaches (up to {noise:.3f})"
    if not important:
        small = f"only {share:.1%} of Σ mean |φ|, below {drift.min_importance_share:.1%}"
        return f"corrected PSI {effect:.3f} nats, but {small}"
    floor = (floors.noted, floors.warning, floors.critical)[level - 1]
    return f"corrected PSI {effect:.3f} ≥ {floor:g} nats, chance reaches {noise:.3f}"


def _label_rule(
    drift: DriftConfig, severity: str, shift: float, unit: float, z: float, count: float, loud: bool, level: int
) -> str:
    if severity == "insufficient":
        return f"{count:.0f} labels in the window, {drift.min_effective_rows} are needed"
    if np.isnan(shift):
        return "too few labels per cell to compare"
    if level == 0:
        return f"residuals changed by {shift:.3g}, below {LABEL_FLOORS[0] * unit:.3g}"
    if not loud:
        return f"residuals changed by {shift:.3g}, but z = {z:.1f} is below {LABEL_Z:g}"
    return f"residuals changed by {shift:.3g} ≥ {LABEL_FLOORS[level - 1] * unit:.3g} with z = {z:.1f}"


def _floats(column: Any) -> Float64:
    return np.asarray(column, dtype=np.float64)


def _equal(column: Any, word: str) -> npt.NDArray[np.bool_]:
    return np.asarray(np.asarray(column, dtype=object) == word, dtype=np.bool_)
