"""Did the relation between a feature and the truth change? Residuals over the cells of each input.

Belongs here: sums of residuals per role, segment, feature and cell; their comparison with the reference.
Does not belong here: which labels are complete, what the reference's own days do (see `label_calibration`), severities
(see `xai_assets.decide.severity`).

Attributions of a fixed model cannot tell that the world changed: they depend on the inputs alone. Residuals y − p
can. Where the relation of one feature to the truth changes, the mean residual changes differently in the cells of
that feature; along any other feature it changes by the same amount everywhere (apart from correlation). So the
common change of all cells is taken out first, and belongs to the row of feature `*`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from xai_assets.errors import StatisticsError
from xai_assets.records import WHOLE, Edges, Float64
from xai_assets.stats.counting import sum_by_cell
from xai_assets.stats.dispersion import evidence
from xai_assets.stats.homogeneity import comparison_size
from xai_assets.stats.scores import Normal

OUTPUT_CELLS = 20
"""Cells of feature `*`: twentieths of the output of a classifier, from which the AUC is read."""
MIN_CELL_LABELS = 5
"""Cells with fewer labels on either side take no part: a mean of two residuals has no usable variance."""
_ARRAYS = ("label_count", "residual_sum", "residual_squared_sum", "label_sum", "residual_abs_sum")


@dataclass(frozen=True)
class ResidualTable:
    """Sums over labelled requests of one role. Tables over the same segments and features add.

    features: the d features and, last, `*`. All arrays float64 [S, d+1, K]:
    label_count (n), residual_sum Σ(y−p), residual_squared_sum Σ(y−p)², label_sum Σy, residual_abs_sum Σ|y−p|.
    Cells of a feature are those of its input edges; of `*` the twentieths of the output (0 where it is no
    probability).
    """

    segments: tuple[str, ...]
    features: tuple[str, ...]
    label_count: Float64
    residual_sum: Float64
    residual_squared_sum: Float64
    label_sum: Float64
    residual_abs_sum: Float64


class ResidualSums(Protocol):
    """n, Σ(y−p) and Σ(y−p)² over cells, float64 [..., d+1, K], the last feature being `*`."""

    @property
    def label_count(self) -> Float64: ...

    @property
    def residual_sum(self) -> Float64: ...

    @property
    def residual_squared_sum(self) -> Float64: ...


@dataclass(frozen=True)
class ResidualChange:
    """Residuals of a window against others, float64 [..., d+1]; NaN (freedom: 0) where too few cells compare.

    shift: `residual_shift`, output units; statistic, freedom: X² and its degrees of freedom f (see `label_scores`).
    """

    shift: Float64
    statistic: Float64
    freedom: Float64


def empty_residuals(segments: Sequence[str], edges: Sequence[Edges]) -> ResidualTable:
    """Zeros for S segments × (d features and `*`) × K cells."""
    cells = max([OUTPUT_CELLS, *(e.cells for e in edges)])
    shape = (len(segments), len(edges) + 1, cells)
    features = (*(e.feature for e in edges), WHOLE)
    return ResidualTable(tuple(segments), features, **{name: np.zeros(shape) for name in _ARRAYS})


def accumulate_residuals(
    table: ResidualTable,
    edges: Sequence[Edges],
    values: npt.NDArray[np.floating[Any]],
    labels: npt.NDArray[np.floating[Any]],
    outputs: npt.NDArray[np.floating[Any]],
    segment_codes: npt.NDArray[np.integer[Any]],
    *,
    is_classifier: bool,
) -> None:
    """Add labelled requests to `table`, in place.

    Parameters
    ----------
    table, edges
        Where to add, and the input edges it was made with.
    values
        float [n, d], encoded feature values; NaN is the null cell.
    labels, outputs
        float [n]: the truth y and the model's output p, both finite; of a classifier 0/1 and 0…1.
    segment_codes
        integer [n, C]: position in `table.segments`, or −1.
    is_classifier
        Whether outputs are probabilities.

    Raises
    ------
    StatisticsError
        On shapes that do not fit, labels or outputs that are not finite, or, of a classifier, outside 0…1.
        The table is then unchanged.
    """
    y, p = np.asarray(labels, dtype=np.float64), np.asarray(outputs, dtype=np.float64)
    codes = np.asarray(segment_codes, dtype=np.int64)
    _check_rows(table, edges, values, y, p, codes, is_classifier)
    residual = y - p
    quantities = np.column_stack((np.ones_like(y), residual, residual**2, y, np.abs(residual)))
    sums = sum_by_cell(edges, values, np.ones_like(y), codes, len(table.segments), quantities)
    of_outputs = _sum_by_output(p if is_classifier else np.zeros_like(p), quantities, codes, len(table.segments))
    for position, name in enumerate(_ARRAYS):
        array = getattr(table, name)
        array[:, :-1, : sums.shape[2]] += sums[..., position]
        array[:, -1, :OUTPUT_CELLS] += of_outputs[..., position]


def _sum_by_output(outputs: Float64, quantities: Float64, codes: npt.NDArray[Any], segments: int) -> Float64:
    """Sums [S, 20, Q] by twentieths of the output."""
    cell = np.minimum((outputs * OUTPUT_CELLS).astype(np.int64), OUTPUT_CELLS - 1)
    sums = np.zeros((segments, OUTPUT_CELLS, quantities.shape[1]))
    for code in codes.T:
        at, inside = code * OUTPUT_CELLS + cell, code >= 0
        for q, quantity in enumerate(quantities.T):
            counted = np.bincount(at[inside], quantity[inside], minlength=segments * OUTPUT_CELLS)
            sums[..., q] += counted.reshape(segments, OUTPUT_CELLS)
    return sums


def add_residuals(a: ResidualTable, b: ResidualTable) -> ResidualTable:
    """Sum of two tables over the same features and edges; a segment known to one only is kept."""
    if a.features != b.features or a.label_count.shape[2] != b.label_count.shape[2]:
        raise StatisticsError(
            "residuals over other features or borders cannot be added", expected=str(a.features), found=str(b.features)
        )
    names = a.segments + tuple(s for s in b.segments if s not in set(a.segments))
    left, right = _aligned(a, names), _aligned(b, names)
    return ResidualTable(names, a.features, **{n: getattr(left, n) + getattr(right, n) for n in _ARRAYS})


def label_scores(
    reference: Mapping[str, ResidualTable],
    current: Mapping[str, ResidualTable],
    *,
    window_days: int,
    is_classifier: bool,
    normal: Mapping[str, Normal] | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """Change of residuals of a window against the reference, per role × segment × feature, and `*` for the whole.

    With d_j the change of the mean residual in cell j and v_j the variance of d_j:

    - `residual_shift`: √(Σ s_j (d_j − d̄)²) with the window's shares s_j and their mean d̄, less the mean of the
      square without change, Σ s_j v_j − Σ s_j² v_j, and not below 0; output units. Of `*`: √(d² − v).
    - `z_score`: normal deviate of X² = Σ (d_j − d̂)²/v_j around the mean d̂ weighted by 1/v_j, on the scale on which
      χ² with f = cells − 1 degrees of freedom is nearly normal (Wilson and Hilferty 1931), so that features with few
      and with many cells compare; about 0 ± 1 without change, were days samples of independent requests. Of `*`:
      X² = d²/v, f = 1.
    - `evidence`: −log10 of the chance of such an X²/f when nothing changes, given what the reference's own days do;
      `dispersion`: the mean of X²/f that they would have at this window's size. NaN where `normal` does not say.

    Only cells with `MIN_CELL_LABELS` labels on both sides take part; with fewer than two such cells (one for `*`)
    the result is NaN. `metric` is `auc` (from twentieths of the output, ties count half) or `mae`.

    Parameters
    ----------
    reference, current
        Tables by role (production, experimental). Segments are matched by name.
    window_days
        Written into the rows.
    is_classifier
        Whether the metric is the AUC or the mean absolute error.
    normal
        What each role's window is held against, arrays [S, d+1] over the reference's segments.

    Returns
    -------
    dict
        The columns of `label_scores` except `reference_hash` and those of the severity; NaN stands for "not defined".

    Raises
    ------
    StatisticsError
        Where roles, features or cells do not fit.
    """
    if set(reference) != set(current):
        raise StatisticsError(
            "roles do not fit", expected=", ".join(sorted(reference)), found=", ".join(sorted(current))
        )
    held = normal or {}
    parts = [
        _role_scores(role, reference[role], current[role], window_days, is_classifier, held.get(role))
        for role in reference
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def _role_scores(
    role: str,
    reference: ResidualTable,
    current: ResidualTable,
    window_days: int,
    is_classifier: bool,
    normal: Normal | None,
) -> dict[str, npt.NDArray[Any]]:
    if reference.features != current.features or reference.label_count.shape[2] != current.label_count.shape[2]:
        raise StatisticsError(
            f"residuals of the {role} model are over other features or borders than the reference's",
            expected=str(reference.features),
            found=str(current.features),
        )
    segments = reference.segments + tuple(s for s in current.segments if s not in set(reference.segments))
    before, now = _aligned(reference, segments), _aligned(current, segments)
    change = residual_change(before, now)
    metric = _auc if is_classifier else _mae
    undefined = np.full((len(segments), len(reference.features)), np.nan)
    value, value_before = undefined.copy(), undefined.copy()
    value[:, -1], value_before[:, -1] = metric(now), metric(before)
    u, factor = _evidence(change, labels_of(before), labels_of(now), normal)
    rows, features = undefined.size, len(reference.features)
    return {
        "role": np.full(rows, role, dtype=object),
        "segment": np.repeat(np.array(segments, dtype=object), features),
        "feature": np.tile(np.array(reference.features, dtype=object), len(segments)),
        "window_days": np.full(rows, window_days, dtype=np.int16),
        "label_count": np.repeat(np.rint(labels_of(now)).astype(np.int64), features),
        "residual_shift": change.shift.reshape(-1),
        "z_score": _normal_deviate(change.statistic, np.maximum(change.freedom, 1.0)).reshape(-1),
        "evidence": u.reshape(-1),
        "dispersion": factor.reshape(-1),
        "metric": np.full(rows, "auc" if is_classifier else "mae", dtype=object),
        "metric_value": value.reshape(-1),
        "metric_reference": value_before.reshape(-1),
    }


def labels_of(sums: ResidualSums) -> Float64:
    """Labelled requests [...] of every segment."""
    return np.asarray(sums.label_count[..., -1, :].sum(axis=-1), dtype=np.float64)


def _evidence(change: ResidualChange, m: Float64, n: Float64, normal: Normal | None) -> tuple[Float64, Float64]:
    """`evidence` and `dispersion` [S, d+1]; m, n: labels of reference and window, [S]."""
    u, factor = np.full(change.shift.shape, np.nan), np.full(change.shift.shape, np.nan)
    if normal is None:
        return u, factor
    known = slice(0, len(normal.day_share_reference))  # segments that only the window has come last
    size = comparison_size(n[known], m[known], normal.day_share[known], normal.day_share_reference)[:, None]
    freedom = change.freedom[known]
    ratio = change.statistic[known] / np.maximum(freedom, 1.0)
    u[known] = evidence(ratio, freedom, size, normal.dispersion)
    factor[known] = normal.dispersion.at(size)
    return u, factor


def residual_change(before: ResidualSums, now: ResidualSums) -> ResidualChange:
    """How residuals of `now` differ from those of `before`; shapes broadcast. See `label_scores` for the formulas."""
    each, whole = _change_around_the_mean(before, now), _change_of_the_mean(before, now)
    arrays = (
        np.concatenate((a[..., :-1], b), axis=-1)
        for a, b in ((each.shift, whole.shift), (each.statistic, whole.statistic), (each.freedom, whole.freedom))
    )
    return ResidualChange(*arrays)


def _change_around_the_mean(before: ResidualSums, now: ResidualSums) -> ResidualChange:
    """Around the common change of all cells, [..., d+1]."""
    fit = (before.label_count >= MIN_CELL_LABELS) & (now.label_count >= MIN_CELL_LABELS)
    mean_before, variance_before = _mean_and_variance(before, fit)
    mean_now, variance_now = _mean_and_variance(now, fit)
    change, variance = mean_now - mean_before, variance_before + variance_now
    share = _normalised(np.where(fit, now.label_count, 0.0))
    centre = (share * change).sum(axis=-1, keepdims=True)
    square = (share * (change - centre) ** 2).sum(axis=-1)
    null_square = (share * variance).sum(axis=-1) - (share**2 * variance).sum(axis=-1)
    precision = np.divide(1.0, variance, out=np.zeros_like(variance), where=fit & (variance > 0))
    middle = (_normalised(precision) * change).sum(axis=-1, keepdims=True)
    statistic = (precision * (change - middle) ** 2).sum(axis=-1)
    freedom = np.maximum(np.count_nonzero(precision > 0, axis=-1) - 1.0, 0.0)
    shift = np.sqrt(np.maximum(square - null_square, 0.0))
    defined = freedom >= 1
    return ResidualChange(np.where(defined, shift, np.nan), np.where(defined, statistic, np.nan), freedom)


def _change_of_the_mean(before: ResidualSums, now: ResidualSums) -> ResidualChange:
    """Of the mean residual of all labelled requests, [..., 1]."""
    whole_before, whole_now = _collapsed(before), _collapsed(now)
    fit = (whole_before.label_count >= MIN_CELL_LABELS) & (whole_now.label_count >= MIN_CELL_LABELS)
    (mean_before, variance_before), (mean_now, variance_now) = (
        _mean_and_variance(t, fit) for t in (whole_before, whole_now)
    )
    square, variance = ((mean_now - mean_before) ** 2)[..., 0], (variance_before + variance_now)[..., 0]
    defined = fit[..., 0] & (variance > 0)
    statistic = np.divide(square, variance, out=np.full_like(square, np.nan), where=defined)
    shift = np.where(defined, np.sqrt(np.maximum(square - variance, 0.0)), np.nan)
    return ResidualChange(shift, statistic, defined.astype(np.float64))


def _normal_deviate(statistic: Float64, freedom: Float64) -> Float64:
    spread = 2.0 / (9.0 * freedom)
    return np.asarray((np.cbrt(statistic / freedom) - (1.0 - spread)) / np.sqrt(spread))


@dataclass(frozen=True)
class _Sums:
    label_count: Float64
    residual_sum: Float64
    residual_squared_sum: Float64


def _collapsed(sums: ResidualSums) -> _Sums:
    """All cells of `*` as one, [..., 1, 1]."""
    arrays = (sums.label_count, sums.residual_sum, sums.residual_squared_sum)
    return _Sums(*(a[..., -1:, :].sum(axis=-1, keepdims=True) for a in arrays))


def _mean_and_variance(sums: ResidualSums, fit: npt.NDArray[np.bool_]) -> tuple[Float64, Float64]:
    """Mean residual per cell and the variance of that mean; 0 where a cell takes no part.

    The spread of the residuals in a cell is drawn towards that of all cells as if two more labels had been seen:
    five labels with the same outcome do not make a mean that is known exactly.
    """
    n = np.where(fit, sums.label_count, 1.0)
    mean = np.where(fit, sums.residual_sum / n, 0.0)
    inside = np.where(fit, np.maximum(sums.residual_squared_sum - n * mean**2, 0.0), 0.0)
    labels = np.where(fit, sums.label_count, 0.0)
    total = labels.sum(axis=-1, keepdims=True)
    common = np.divide(inside.sum(axis=-1, keepdims=True), total, out=np.zeros_like(total), where=total > 0)
    spread = (inside + 2.0 * common) / (n + 2.0)
    return mean, np.where(fit, spread / n, 0.0)


def _auc(table: ResidualTable) -> Float64:
    """Area under the ROC curve per segment [S] from the cells of `*`; NaN where one class is missing."""
    positive = table.label_sum[:, -1]
    negative = np.maximum(table.label_count[:, -1] - positive, 0.0)
    below = np.cumsum(negative, axis=1) - negative
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    won = (positive * (below + negative / 2)).sum(axis=1)
    return np.asarray(np.divide(won, pairs, out=np.full(pairs.shape, np.nan), where=pairs > 0))


def _mae(table: ResidualTable) -> Float64:
    count = table.label_count[:, -1].sum(axis=1)
    total = table.residual_abs_sum[:, -1].sum(axis=1)
    return np.asarray(np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0))


def _normalised(weights: Float64) -> Float64:
    total = weights.sum(axis=-1, keepdims=True)
    return np.asarray(np.divide(weights, total, out=np.zeros_like(weights), where=total > 0))


def _aligned(table: ResidualTable, segments: Sequence[str]) -> ResidualTable:
    where = {name: i for i, name in enumerate(table.segments)}
    taken = np.array([where.get(s, -1) for s in segments], dtype=np.int64)
    arrays = {}
    for name in _ARRAYS:
        source = getattr(table, name)
        arrays[name] = np.zeros((len(taken), *source.shape[1:]))
        arrays[name][taken >= 0] = source[taken[taken >= 0]]
    return ResidualTable(tuple(segments), table.features, **arrays)


def _check_rows(
    table: ResidualTable,
    edges: Sequence[Edges],
    values: npt.NDArray[np.floating[Any]],
    y: Float64,
    p: Float64,
    codes: npt.NDArray[np.int64],
    is_classifier: bool,
) -> None:
    names = (*(e.feature for e in edges), WHOLE)
    if names != table.features:
        raise StatisticsError("borders are not those of the residuals", expected=str(table.features), found=str(names))
    rows = len(y)
    if y.shape != (rows,) or p.shape != (rows,) or values.shape != (rows, len(edges)) or len(codes) != rows:
        raise StatisticsError(
            "labelled requests have shapes that do not fit",
            expected=f"labels and outputs [n], values [n, {len(edges)}], segment codes [n, C]",
            found=f"{y.shape}, {p.shape}, {values.shape}, {codes.shape}",
        )
    if not (np.all(np.isfinite(y)) and np.all(np.isfinite(p))):
        raise StatisticsError("labels or outputs are not finite", next_step="leave requests without a label out")
    if is_classifier and rows and not (min(y.min(), p.min()) >= 0 and max(y.max(), p.max()) <= 1):
        raise StatisticsError("labels or outputs of a classifier are outside 0…1")
    if codes.ndim != 2 or (codes.size and (codes.min() < -1 or codes.max() >= len(table.segments))):
        raise StatisticsError("segment codes are wrong", expected=f"[n, C] of -1…{len(table.segments) - 1}")
