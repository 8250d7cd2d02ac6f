"""Every drift metric of one role and population: a window's histograms against the reference's.

Belongs here: which numbers are compared, all segments and features at once. Does not belong here: the metrics
themselves (see `drift`), severities (see `xai_assets.decide.severity`), which days make a window.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xai_assets.errors import StatisticsError
from xai_assets.records import OVERALL, VALUE_ROLES, WHOLE, Edges, Float64, HistogramBlock
from xai_assets.stats import drift
from xai_assets.stats.dispersion import Dispersion, evidence
from xai_assets.stats.histograms import align_segments
from xai_assets.stats.homogeneity import comparison_size, homogeneity

_Mask = npt.NDArray[np.bool_]

_STUCK_CHANCE = 1e-6
"""A window in one single cell counts as constant when the reference gives that a smaller chance than this."""


@dataclass(frozen=True)
class Normal:
    """What a window of one role is held against (see `stats.calibration`).

    dispersion: arrays [S, d] in the order of the reference's segments; day_share, day_share_reference: Σ n_t²/(Σ n_t)²
    over the days of window and reference, [S].
    """

    dispersion: Dispersion
    day_share: Float64
    day_share_reference: Float64


@dataclass(frozen=True)
class _Side:
    """One side of the comparison. weight, cell_means: [S, d, K]; the others: [S, d]. mean, variance: of what is not
    null."""

    weight: Float64
    cell_means: Float64
    n: Float64
    row_count: Float64
    importance: Float64
    missing_share: Float64
    outside_share: Float64
    mean: Float64
    variance: Float64


def score_blocks(
    reference: HistogramBlock,
    current: HistogramBlock,
    edges: Sequence[Edges],
    *,
    role: str,
    population: str,
    window_days: int,
    normal: Normal | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """Scores of every segment × feature, and per segment one row of feature `*` that holds the `ndcg`.

    Parameters
    ----------
    reference, current
        Blocks over the same features and borders. Segments are matched by name; one that a side does not know has
        no requests there, and its distances are NaN.
    edges
        Borders of the features, in the blocks' order.
    role, population, window_days
        Written into the rows. In roles `input` and `output` importance is the mean value of the feature, and there
        is no share of importance and no `ndcg`.
    normal
        What the reference's own windows do. Without it evidence and dispersion are NaN.

    Returns
    -------
    dict
        The columns of `drift_scores` except those that grading adds. All of length S·(d+1). NaN stands for "not
        defined". The complement of a segment is `overall` minus the segment; it is NaN where there is no `overall`, and
        for `overall` itself.

    Raises
    ------
    StatisticsError
        Where features or cells of blocks and borders do not fit.
    """
    _check(reference, current, edges)
    segments = reference.segments + tuple(s for s in current.segments if s not in set(reference.segments))
    before, now = align_segments(reference, segments), align_segments(current, segments)
    q, p = _side(before, edges, role), _side(now, edges, role)
    columns = _distances(q, p) | _importances(q, p, role) | _evidence(q, p, normal)
    columns |= {
        "psi_complement_nats": _complement(before, now),
        "n_effective": p.n,
        "n_effective_reference": q.n,
        "missing_share": p.missing_share,
        "missing_share_reference": q.missing_share,
        "outside_share": p.outside_share,
        "outside_share_reference": q.outside_share,
    }
    names = {"role": role, "population": population, "window_days": window_days}
    return _rows(columns, _stuck(q, p, edges), _rankings(q, p, role), before, p, names)


def _check(reference: HistogramBlock, current: HistogramBlock, edges: Sequence[Edges]) -> None:
    names = tuple(e.feature for e in edges)
    if not (reference.features == current.features == names):
        raise StatisticsError(
            "reference, window and borders speak of different features",
            expected=str(reference.features),
            found=f"{current.features} and {names}",
        )
    cells = max((e.cells for e in edges), default=3)
    if not (reference.weight.shape[2] == current.weight.shape[2] == cells):
        raise StatisticsError(
            "reference, window and borders have different cells",
            expected=f"{cells} cells",
            found=f"{reference.weight.shape[2]} and {current.weight.shape[2]}",
        )


def _side(block: HistogramBlock, edges: Sequence[Edges], role: str) -> _Side:
    # Sums that were subtracted from one another may be below 0 by rounding.
    weight = np.maximum(block.weight, 0.0)
    total = weight.sum(axis=2)
    null, outside = _cell_masks(edges, weight.shape[2])
    null_weight = np.where(null, weight, 0.0).sum(axis=2)
    mean, squares = (_ratio(x, total - null_weight) for x in (block.phi_sum.sum(axis=2), block.squared_sum))
    importance = mean if role in VALUE_ROLES else _ratio(block.abs_sum, total)
    return _Side(
        weight=weight,
        # Nulls have no place on the axis; their sum of φ is 0 and would put them at 0.
        cell_means=np.where(null, np.nan, _ratio(block.phi_sum, weight)),
        n=drift.effective_rows(weight, block.weight_squared),
        row_count=block.row_count.sum(axis=2),
        importance=importance,
        missing_share=_ratio(null_weight, total),
        outside_share=_ratio(np.where(outside, weight, 0.0).sum(axis=2), total),
        mean=mean,
        variance=np.maximum(squares - mean**2, 0.0),
    )


def _cell_masks(edges: Sequence[Edges], cells: int) -> tuple[_Mask, _Mask]:
    """Which cells [d, K] are null, and which lie below or above the reference's range."""
    inner = np.array([e.inner_cells for e in edges], dtype=np.int64)[:, None]
    position = np.arange(cells)[None, :]
    return position == inner + 2, (position == 0) | (position == inner + 1)


def _distances(q: _Side, p: _Side) -> dict[str, Float64]:
    return drift.distances(q.weight, p.weight, q.cell_means, p.cell_means, n_effective_reference=q.n, n_effective=p.n)


def _evidence(q: _Side, p: _Side, normal: Normal | None) -> dict[str, Float64]:
    """Evidence and dispersion [S, d]; NaN for segments that the reference does not have."""
    found = {name: np.full(p.n.shape, np.nan) for name in ("evidence", "dispersion")}
    if normal is None:
        return found
    known = slice(0, len(normal.day_share_reference))
    m, n = q.n[known], p.n[known]
    x2, freedom = homogeneity(q.weight[known], p.weight[known], n_effective_reference=m, n_effective=n)
    size = comparison_size(n, m, normal.day_share[known, None], normal.day_share_reference[:, None])
    found["evidence"][known] = evidence(x2 / np.maximum(freedom, 1.0), freedom, size, normal.dispersion)
    found["dispersion"][known] = normal.dispersion.at(size)
    return found


def _importances(q: _Side, p: _Side, role: str) -> dict[str, Float64]:
    if role in VALUE_ROLES:
        ratio, share = _ratio(p.importance, q.importance), np.full_like(p.importance, np.nan)
    else:
        ratio = drift.importance_ratio(np.nan_to_num(q.importance), np.nan_to_num(p.importance))
        ratio = np.where((q.n > 0) & (p.n > 0), ratio, np.nan)
        share = np.fmax(*(_ratio(s.importance, s.importance.sum(axis=1, keepdims=True)) for s in (q, p)))
    return {
        "importance": p.importance,
        "importance_reference": q.importance,
        "importance_ratio": ratio,
        "importance_share": share,
    }


def _stuck(q: _Side, p: _Side, edges: Sequence[Edges]) -> _Mask:
    """One cell holds the window, or all that is not null has one value, and under the reference that would be more
    than bad luck. bool [S, d]."""
    used = p.weight > 0
    several = np.count_nonzero(q.weight > 0, axis=2) > 1
    one_cell = (np.count_nonzero(used, axis=2) == 1) & several & _unlikely(_share_of_cells(q.weight, used), p.n)
    null, _ = _cell_masks(edges, used.shape[2])
    values = used & ~null
    one_value = (np.count_nonzero(values, axis=2) == 1) & _is_one_value(q, p)
    share = _share_of_cells(np.where(null, 0.0, q.weight), values)
    chance = np.where(share < 1, share, _most_equal(q, p, values, edges))
    return np.asarray(one_cell | (one_value & _unlikely(chance, p.n * (1 - p.missing_share))))


def _share_of_cells(weight: Float64, cells: _Mask) -> Float64:
    """Share of the weight in the marked cells, [S, d]; 0 where there is no weight."""
    shares = np.nan_to_num(_ratio(weight, weight.sum(axis=2, keepdims=True)))
    return np.asarray(np.where(cells, shares, 0.0).sum(axis=2))


def _unlikely(chance: Float64, n: Float64) -> _Mask:
    """Whether n requests in a row have what one has with this chance, less often than `_STUCK_CHANCE`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(n * np.log(chance) < np.log(_STUCK_CHANCE))


def _is_one_value(q: _Side, p: _Side) -> _Mask:
    """The window has no variance to speak of, where the reference has more than rounding of sums could be."""
    varied = (q.variance > 0) & (q.variance >= 1e-6 * (p.mean**2 + p.variance))
    return np.asarray(varied & (p.variance <= 1e-5 * q.variance))


def _most_equal(q: _Side, p: _Side, cells: _Mask, edges: Sequence[Edges]) -> Float64:
    """Largest share of the reference that can equal the window's value, where one cell holds both, [S, d].

    Values of a cell are at most its width apart: P(x ≠ c) ≥ E(x − c)² / width².
    """
    widths = np.zeros((len(edges), cells.shape[2]))
    for row, e in zip(widths, edges, strict=True):
        row[1 : e.inner_cells + 1] = np.diff(e.cuts)
    width = np.where(cells, widths, 0.0).sum(axis=2)
    apart = np.nan_to_num(_ratio(q.variance + (q.mean - p.mean) ** 2, width**2))
    return np.clip(1.0 - apart, 0.0, 1.0)


def _rankings(q: _Side, p: _Side, role: str) -> Float64:
    """`ndcg` per segment [S]."""
    if role in VALUE_ROLES or q.importance.shape[1] == 0:
        return np.full(len(q.importance), np.nan)
    value = drift.ndcg(np.nan_to_num(q.importance), np.nan_to_num(p.importance))
    return np.where((q.n[:, 0] > 0) & (p.n[:, 0] > 0), value, np.nan)


def _complement(before: HistogramBlock, now: HistogramBlock) -> Float64:
    """Corrected PSI of everybody outside each segment [S, d]."""
    if OVERALL not in before.segments:
        return np.full(before.abs_sum.shape, np.nan)
    whole = before.segments.index(OVERALL)
    rest = [
        tuple(np.maximum(array[whole] - array, 0.0) for array in (block.weight, block.weight_squared))
        for block in (before, now)
    ]
    # What rounding leaves of a difference of equal sums is nothing.
    weights = [
        np.where(w > 1e-9 * np.maximum(b.weight[whole], 1.0), w, 0.0)
        for (w, _), b in zip(rest, (before, now), strict=True)
    ]
    m, n = (drift.effective_rows(w, np.where(w > 0, w2, 0.0)) for w, (_, w2) in zip(weights, rest, strict=True))
    value = drift.psi_corrected(*weights, n_effective_reference=m, n_effective=n)
    value[whole] = np.nan
    return value


def _rows(
    columns: dict[str, Float64],
    stuck: _Mask,
    ndcg: Float64,
    block: HistogramBlock,
    current: _Side,
    names: dict[str, Any],
) -> dict[str, npt.NDArray[Any]]:
    """[S, d] arrays as columns, one row per segment × feature, the row of `*` after its segment's features."""
    segments, features = len(block.segments), len(block.features)
    length = segments * (features + 1)

    def flat(array: npt.NDArray[Any], whole: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.concatenate((array, whole[:, None]), axis=1).reshape(-1)

    def first(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return array[:, 0] if features else np.zeros(segments)

    undefined = np.full(segments, np.nan)
    per_segment = {"n_effective": first(current.n), "n_effective_reference": first(columns["n_effective_reference"])}
    result: dict[str, npt.NDArray[Any]] = {
        "role": np.full(length, names["role"], dtype=object),
        "population": np.full(length, names["population"], dtype=object),
        "segment": np.repeat(np.array(block.segments, dtype=object), features + 1),
        "feature": np.tile(np.array([*block.features, WHOLE], dtype=object), segments),
        "window_days": np.full(length, names["window_days"], dtype=np.int16),
        "row_count": np.rint(flat(current.row_count, first(current.row_count))).astype(np.int64),
    }
    result |= {name: flat(array, per_segment.get(name, undefined)) for name, array in columns.items()}
    result["is_constant"] = flat(stuck, np.zeros(segments, dtype=bool))
    result["ndcg"] = flat(np.full((segments, features), np.nan), ndcg)
    return result


def _ratio(numerator: Float64, denominator: Float64) -> Float64:
    """Quotient, NaN where the denominator is 0 or not finite; never a warning."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    out = np.full(numerator.shape, np.nan)
    defined = np.isfinite(denominator) & (denominator != 0) & np.isfinite(numerator)
    return np.asarray(np.divide(numerator, denominator, out=out, where=defined))
