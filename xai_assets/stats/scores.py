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
from xai_assets.stats.homogeneity import Grouping, comparison_size, grouped_homogeneity, grouping_of

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
    """One side of the comparison; cells first: weight, weight_squared and histogram [K, S, d], the others [S, d].
    mean, variance: of what is not null. rest: everybody outside each segment; None without `overall`."""

    weight: Float64
    histogram: drift.Histogram
    rest: drift.Histogram | None
    n: Float64
    row_count: Float64
    importance: Float64
    missing_share: Float64
    outside_share: Float64
    mean: Float64
    variance: Float64


@dataclass(frozen=True)
class Reference:
    """A reference of one role, prepared once and compared with many windows (`prepare`, `score_window`)."""

    block: HistogramBlock
    edges: Sequence[Edges]
    role: str
    side: _Side
    grouping: Grouping
    segment_column: npt.NDArray[Any]
    feature_column: npt.NDArray[Any]


def prepare(block: HistogramBlock, edges: Sequence[Edges], role: str) -> Reference:
    """What scores need of a reference, computed once. Raises StatisticsError where borders and block do not fit."""
    _check(block, block, edges)
    side = _side(block, edges, role)
    rows = len(block.features) + 1
    return Reference(
        block,
        edges,
        role,
        side,
        grouping_of(side.weight, side.n),
        np.repeat(np.array(block.segments, dtype=object), rows),
        np.tile(np.array([*block.features, WHOLE], dtype=object), len(block.segments)),
    )


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
    prepared = prepare(reference, edges, role)
    return score_window(prepared, current, population=population, window_days=window_days, normal=normal)


def score_window(
    reference: Reference, current: HistogramBlock, *, population: str, window_days: int, normal: Normal | None = None
) -> dict[str, npt.NDArray[Any]]:
    """`score_blocks` against a prepared reference."""
    _check(reference.block, current, reference.edges)
    known = reference.block.segments
    if new := tuple(s for s in current.segments if s not in set(known)):
        reference = prepare(align_segments(reference.block, known + new), reference.edges, reference.role)
    q, edges, role = reference.side, reference.edges, reference.role
    p = _side(align_segments(current, reference.block.segments), edges, role)
    columns = drift.distances(q.histogram, p.histogram) | _importances(q, p, role) | _evidence(reference, p, normal)
    columns |= {
        "psi_complement_nats": _complement(reference, p),
        "n_effective": p.n,
        "n_effective_reference": q.n,
        "missing_share": p.missing_share,
        "missing_share_reference": q.missing_share,
        "outside_share": p.outside_share,
        "outside_share_reference": q.outside_share,
    }
    names = {"role": role, "population": population, "window_days": window_days}
    return _rows(columns, _stuck(q, p, edges), _rankings(q, p, role), reference, p, names)


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
    weight = np.maximum(_cells_first(block.weight), 0.0)
    weight_squared, phi = _cells_first(block.weight_squared), _cells_first(block.phi_sum)
    total = weight.sum(axis=0)
    inner, features = np.array([e.inner_cells for e in edges], dtype=np.int64), np.arange(len(edges))
    null_weight = weight[inner + 2, :, features].T
    outside = weight[0] + weight[inner + 1, :, features].T
    mean, squares = (_ratio(x, total - null_weight) for x in (phi.sum(axis=0), block.squared_sum))
    squares_sum = weight_squared.sum(axis=0)
    n = np.divide(total**2, squares_sum, out=np.zeros_like(total), where=squares_sum > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        cell_means = phi / weight
    # Nulls have no place on the axis; their sum of φ is 0 and would put them at 0.
    cell_means[inner + 2, :, features] = np.nan
    return _Side(
        weight=weight,
        histogram=drift.histogram(weight, n, cell_means),
        rest=_rest(block.segments, weight, weight_squared),
        n=n,
        row_count=np.einsum("...k->...", block.row_count),
        importance=mean if role in VALUE_ROLES else _ratio(block.abs_sum, total),
        missing_share=_ratio(null_weight, total),
        outside_share=_ratio(outside, total),
        mean=mean,
        variance=np.maximum(squares - mean**2, 0.0),
    )


def _cells_first(counts: Float64) -> Float64:
    return np.ascontiguousarray(np.moveaxis(counts, -1, 0))


def _rest(segments: Sequence[str], weight: Float64, weight_squared: Float64) -> drift.Histogram | None:
    """Everybody outside each segment; None without `overall`."""
    if OVERALL not in segments:
        return None
    whole = segments.index(OVERALL)
    all_of, squared_of = weight[:, whole, None], weight_squared[:, whole, None]
    rest = all_of - weight
    # What rounding leaves of a difference of equal sums is nothing.
    left = rest > 1e-9 * np.maximum(all_of, 1.0)
    rest *= left
    squares = (np.maximum(squared_of - weight_squared, 0.0) * left).sum(axis=0)
    total = rest.sum(axis=0)
    n = np.divide(total**2, squares, out=np.zeros(total.shape), where=squares > 0)
    return drift.histogram(rest, n)


def _complement(reference: Reference, p: _Side) -> Float64:
    """Corrected PSI of everybody outside each segment [S, d]."""
    if reference.side.rest is None or p.rest is None:
        return np.full(p.n.shape, np.nan)
    value = drift.corrected_psi(reference.side.rest, p.rest)
    value[reference.block.segments.index(OVERALL)] = np.nan
    return value


def _evidence(reference: Reference, p: _Side, normal: Normal | None) -> dict[str, Float64]:
    """Evidence and dispersion [S, d]; NaN for segments that the reference does not have."""
    found = {name: np.full(p.n.shape, np.nan) for name in ("evidence", "dispersion")}
    if normal is None:
        return found
    known = slice(0, len(normal.day_share_reference))
    m, n = reference.side.n[known], p.n[known]
    x2, freedom = (a[known] for a in grouped_homogeneity(reference.grouping, p.weight, p.n))
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
    cells = used.sum(axis=0)
    nulls = p.missing_share > 0
    if not ((cells == 1) | (cells - nulls == 1)).any():
        return np.zeros(cells.shape, dtype=bool)
    several = np.count_nonzero(q.weight > 0, axis=0) > 1
    one_cell = (cells == 1) & several & _unlikely(_share_of_cells(q.weight, used), p.n)
    inner = np.array([e.inner_cells for e in edges], dtype=np.int64)
    null = (np.arange(len(used))[:, None] == inner + 2)[:, None, :]
    values = used & ~null
    one_value = (np.count_nonzero(values, axis=0) == 1) & _is_one_value(q, p)
    share = _share_of_cells(np.where(null, 0.0, q.weight), values)
    chance = np.where(share < 1, share, _most_equal(q, p, values, edges))
    return np.asarray(one_cell | (one_value & _unlikely(chance, p.n * (1 - p.missing_share))))


def _share_of_cells(weight: Float64, cells: _Mask) -> Float64:
    """Share of the weight in the marked cells, [S, d]; 0 where there is no weight."""
    return np.nan_to_num(_ratio((weight * cells).sum(axis=0), weight.sum(axis=0)))


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
    widths = np.zeros((len(cells), len(edges)))
    for column, e in zip(widths.T, edges, strict=True):
        column[1 : e.inner_cells + 1] = np.diff(e.cuts)
    width = (cells * widths[:, None, :]).sum(axis=0)
    apart = np.nan_to_num(_ratio(q.variance + (q.mean - p.mean) ** 2, width**2))
    return np.clip(1.0 - apart, 0.0, 1.0)


def _rankings(q: _Side, p: _Side, role: str) -> Float64:
    """`ndcg` per segment [S]."""
    if role in VALUE_ROLES or q.importance.shape[1] == 0:
        return np.full(len(q.importance), np.nan)
    value = drift.ndcg(np.nan_to_num(q.importance), np.nan_to_num(p.importance))
    return np.where((q.n[:, 0] > 0) & (p.n[:, 0] > 0), value, np.nan)


def _rows(
    columns: dict[str, Float64],
    stuck: _Mask,
    ndcg: Float64,
    reference: Reference,
    current: _Side,
    names: dict[str, Any],
) -> dict[str, npt.NDArray[Any]]:
    """[S, d] arrays as columns, one row per segment × feature, the row of `*` after its segment's features."""
    segments, features = len(reference.block.segments), len(reference.edges)
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
        "segment": reference.segment_column,
        "feature": reference.feature_column,
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
