"""Distances between a reference histogram and a current one over the same cells.

Belongs here: one function per metric, arrays of weighted counts in, arrays of numbers out. Does not belong here:
which histograms are compared (see `scores`), when a distance matters (see `xai_assets.decide`).

Shapes: `reference` and `current` are float [..., k] and broadcast against each other; results are [...].
A histogram without any weight has no distance: the result there is NaN.
Every function raises StatisticsError for negative or NaN counts and for shapes that do not broadcast.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xai_assets.errors import StatisticsError
from xai_assets.records import Float64, Int64

Counts = npt.ArrayLike

SMOOTHING_COUNT = 0.5
"""Added to every used cell before a logarithm (Jeffreys): one empty cell must not swamp the score."""
_TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Histogram:
    """One side of comparisons with what every distance needs of it; a reference is prepared once for many windows.

    Cells come first, so that sums over them run along memory: counts, share, scaled (share × n), used (holds anything),
    root (√share) are [k, ...], n (effective number of requests) is [...]. means, placed: mean of each cell, NaN where
    it has none, and the shares of those that have one, [k, ...]; None where they were not given. A histogram without
    any weight has NaN shares.
    """

    counts: Float64
    share: Float64
    scaled: Float64
    root: Float64
    used: npt.NDArray[np.bool_]
    n: Float64
    means: Float64 | None = None
    placed: Float64 | None = None


def histogram(counts: Float64, n_effective: Counts | None = None, means: Float64 | None = None) -> Histogram:
    """Prepare a side of `distances`; cells first.

    counts: weighted counts [k, ...], from 0. n_effective: [...], default their sum. means: [k, ...]; a cell whose mean
    is not finite has no place on the axis. Raises StatisticsError for negative or NaN counts.
    """
    if not np.all(counts >= 0):
        raise StatisticsError("counts are wrong", expected="numbers from 0", found="negative or NaN counts")
    total = _total(counts)
    n = _effective(total, n_effective)
    share = _share(counts, total)
    if means is None:
        return Histogram(counts, share, share * n, np.sqrt(share), counts > 0, n)
    known = np.isfinite(means)
    at = means if known.all() else np.where(known, means, np.nan)
    masses = counts * known
    return Histogram(counts, share, share * n, np.sqrt(share), counts > 0, n, at, _share(masses, _total(masses)))


def psi(
    reference: Counts,
    current: Counts,
    *,
    n_effective_reference: Counts | None = None,
    n_effective: Counts | None = None,
) -> Float64:
    """Population stability index, Σ (p−q) ln(p/q), in nats; 0…∞, symmetric in its two histograms.

    Counts are scaled to `n_effective` (default: their sum), then ½ is added to every cell that holds anything in
    either histogram. Cells empty in both take no part: with ½ in them too, 110 requests against 3000 would score
    0.015 nats for each such cell.

    >>> round(float(psi([50.0, 50.0], [50.0, 50.0])), 12)
    0.0

    Source: symmetrised Kullback–Leibler divergence (Jeffreys 1946).
    """
    q, p = _smoothed(*_sides(reference, current, n_effective_reference, n_effective))
    return _psi(q, p, _log_ratio(p, q))


def psi_corrected(
    reference: Counts,
    current: Counts,
    *,
    n_effective_reference: Counts | None = None,
    n_effective: Counts | None = None,
) -> Float64:
    """`psi` less its mean without drift, (k−1)(1/n + 1/m), in nats; about 0 without drift, may be below 0.

    k is the number of cells that hold anything in either histogram, n and m the effective numbers of requests.
    In simulations without drift (4000 each; 110…5000 against 200…140,000 requests; equal cells, one cell with 97 %,
    tails of 0.1 %) the mean lies within −0.025…+0.008 nats, always less than 0.6 standard deviations from 0:
    below 0 where many cells expect fewer than five current requests, because the added ½ draws both
    histograms together; above 0 where a reference that is hundreds of times larger has cells in which less than
    a tenth of a current request is expected.

    Source: Yurdakul and Naranjo, "Statistical properties of the population stability index" (2020).
    """
    return corrected_psi(*_sides(reference, current, n_effective_reference, n_effective))


def corrected_psi(reference: Histogram, current: Histogram) -> Float64:
    """`psi_corrected` of prepared sides."""
    q, p = _smoothed(reference, current)
    return _psi(q, p, _log_ratio(p, q)) - _null_mean(reference, current)


def psi_null_mean(
    reference: Counts,
    current: Counts,
    *,
    n_effective_reference: Counts | None = None,
    n_effective: Counts | None = None,
) -> Float64:
    """Mean of `psi` without drift, (k−1)(1/n + 1/m), in nats; NaN where a histogram is empty."""
    return _null_mean(*_sides(reference, current, n_effective_reference, n_effective))


def cells_used(reference: Counts, current: Counts) -> Int64:
    """Number of cells that hold anything in either histogram (k)."""
    q, p = _pair(reference, current)
    return np.asarray(np.count_nonzero((q > 0) | (p > 0), axis=-1), dtype=np.int64)


def effective_rows(weight: Counts, weight_squared: Counts) -> Float64:
    """Kish's effective number of requests, (Σw)²/Σw² over the last axis; 0 where there are none.

    >>> float(effective_rows([2.0, 2.0], [4.0, 4.0]))
    2.0
    """
    total, squares = np.sum(weight, axis=-1), np.sum(weight_squared, axis=-1)
    nothing = np.zeros(np.shape(total))
    return np.asarray(np.divide(total**2, squares, out=nothing, where=squares > 0))


def kullback_leibler(
    reference: Counts,
    current: Counts,
    *,
    n_effective_reference: Counts | None = None,
    n_effective: Counts | None = None,
) -> Float64:
    """Σ p log2(p/q) of current p from reference q, in bits; 0…∞, not symmetric. Smoothed as `psi` is."""
    q, p = _smoothed(*_sides(reference, current, n_effective_reference, n_effective))
    return _kullback_leibler(p, _log_ratio(p, q))


def jensen_shannon(reference: Counts, current: Counts) -> Float64:
    """Jensen–Shannon distance: root of the divergence with logarithms to base 2; 0…1, a metric, symmetric.

    >>> float(jensen_shannon([1.0, 0.0], [0.0, 1.0]))
    1.0
    """
    return _jensen_shannon(*_sides(reference, current))


def kolmogorov_smirnov(reference: Counts, current: Counts) -> Float64:
    """max |P−Q| of the distribution functions at the cells' borders; 0…1, symmetric.

    Cells are taken in their order (below, inner, above, null). For categories that order has no meaning: read
    `l_infinity` or `psi` there.
    """
    return _kolmogorov_smirnov(*_sides(reference, current))


def hellinger(reference: Counts, current: Counts) -> Float64:
    """√(½ Σ (√p−√q)²); 0…1, a metric, symmetric."""
    return _hellinger(*_sides(reference, current))


def l_infinity(reference: Counts, current: Counts) -> Float64:
    """max |p−q|: the largest change of a cell's share; 0…1, symmetric."""
    return _l_infinity(*_sides(reference, current))


def wasserstein(reference: Counts, current: Counts, reference_means: Counts, current_means: Counts) -> Float64:
    """W₁ between the two distributions with each cell's weight at the cell's mean; unit of the means, 0…∞.

    reference_means, current_means: float [..., k], each side's own mean per cell, so that a shift inside a cell is
    seen. A cell without a mean (NaN: the null cell, an empty cell) has no place on the axis: its weight is left
    out and the shares of the others are of the rest.

    >>> float(wasserstein([10.0, 0.0], [0.0, 10.0], [1.0, np.nan], [np.nan, 4.0]))
    3.0
    """
    q, p = _pair(reference, current)
    shape = np.broadcast_shapes(q.shape, p.shape)
    at = (np.broadcast_to(np.asarray(a, dtype=np.float64), shape) for a in (reference_means, current_means))
    sides = zip((q, p), at, strict=True)
    return _wasserstein(*(histogram(_first(np.broadcast_to(a, shape)), None, _first(b)) for a, b in sides))


def distances(reference: Histogram, current: Histogram) -> dict[str, Float64]:
    """Every distance above by its column in `drift_scores`, with what they share computed once.

    Both sides of one shape, prepared with the means of their cells.
    """
    smooth_q, smooth_p = _smoothed(reference, current)
    ratio = _log_ratio(smooth_p, smooth_q)
    raw = _psi(smooth_q, smooth_p, ratio)
    return {
        "psi_nats": raw,
        "psi_corrected_nats": raw - _null_mean(reference, current),
        "jensen_shannon": _jensen_shannon(reference, current),
        "kullback_leibler_bits": _kullback_leibler(smooth_p, ratio),
        "kolmogorov_smirnov": _kolmogorov_smirnov(reference, current),
        "wasserstein": _wasserstein(reference, current),
        "hellinger": _hellinger(reference, current),
        "l_infinity": _l_infinity(reference, current),
    }


def _psi(q: Float64, p: Float64, log_ratio: Float64) -> Float64:
    return _total((p - q) * log_ratio)


def _null_mean(q: Histogram, p: Histogram) -> Float64:
    freedom = (q.used | p.used).sum(axis=0) - 1
    return np.asarray(freedom * (_reciprocal(p.n) + _reciprocal(q.n)), dtype=np.float64)


def _kullback_leibler(p: Float64, log_ratio: Float64) -> Float64:
    return np.asarray(_total(p * log_ratio) / np.log(2.0))


def _jensen_shannon(q: Histogram, p: Histogram) -> Float64:
    middle = (p.share + q.share) / 2
    terms = p.share * _log_ratio(p.share, middle) + q.share * _log_ratio(q.share, middle)
    return np.asarray(np.sqrt(np.clip(_total(terms) / (2 * np.log(2.0)), 0.0, 1.0)))


def _kolmogorov_smirnov(q: Histogram, p: Histogram) -> Float64:
    return np.asarray(np.minimum(np.abs(_running(np.add, p.share - q.share)).max(axis=0), 1.0))


def _hellinger(q: Histogram, p: Histogram) -> Float64:
    return np.asarray(np.sqrt(np.minimum(_total((p.root - q.root) ** 2) / 2, 1.0)))


def _l_infinity(q: Histogram, p: Histogram) -> Float64:
    return np.asarray(np.abs(p.share - q.share).max(axis=0))


def _wasserstein(q: Histogram, p: Histogram) -> Float64:
    """Cells that keep their order on the axis, as cells of a feature do, need no sorting."""
    (at_q, mass_q), (at_p, mass_p) = _with_means(q), _with_means(p)
    low, high = np.fmin(at_q, at_p), np.fmax(at_q, at_p)
    reached = _running(np.fmax, high)
    gaps = np.nan_to_num(low[1:] - reached[:-1])
    result = np.asarray(_ordered_wasserstein(at_q, at_p, mass_q, mass_p, gaps))
    astray = (gaps < 0).any(axis=0)
    if astray.any():
        result[astray] = _sorted_wasserstein(*(a[:, astray] for a in (at_q, at_p, mass_q, mass_p)))
    return result


def _with_means(side: Histogram) -> tuple[Float64, Float64]:
    if side.means is None or side.placed is None:
        raise ValueError("this histogram was prepared without the means of its cells")
    return side.means, side.placed


def _ordered_wasserstein(at_q: Float64, at_p: Float64, mass_q: Float64, mass_p: Float64, gaps: Float64) -> Float64:
    """Both means of a cell lie before those of the next one: inside each cell, and from cell to cell."""
    apart = _running(np.add, mass_q - mass_p)
    first = np.where(at_q <= at_p, mass_q, -mass_p)
    first[1:] += apart[:-1]
    inside = _total(np.abs(first) * np.nan_to_num(np.abs(at_q - at_p)))
    return inside + _total(np.abs(apart[:-1]) * gaps)


def _sorted_wasserstein(at_q: Float64, at_p: Float64, mass_q: Float64, mass_p: Float64) -> Float64:
    positions = np.nan_to_num(np.concatenate((at_q, at_p)), nan=0.0)
    masses = np.concatenate((mass_q, -mass_p))
    order = np.argsort(positions, axis=0)
    positions, masses = (np.take_along_axis(a, order, axis=0) for a in (positions, masses))
    return _total(np.abs(np.cumsum(masses, axis=0))[:-1] * np.diff(positions, axis=0))


def importance_ratio(reference: Counts, current: Counts) -> Float64:
    """current / reference, element by element: "contributes 2× more than last week"; 0…∞.

    NaN where both are 0; infinite where only the reference is.

    >>> float(importance_ratio(0.2, 0.4))
    2.0
    """
    before, now = _pair(reference, current)
    before, now = np.broadcast_arrays(before, now)
    infinite = np.where(now > 0, np.inf, np.nan)
    return np.asarray(np.divide(now, before, out=infinite, where=before > 0))


def ndcg(reference: Counts, current: Counts) -> Float64:
    """Normalised discounted cumulative gain of the ranking by current importance; 0…1, 1 for the same ranking.

    reference, current: mean |φ| per feature, float [..., d]. The gain of a feature is its reference importance, its
    discount 1/log2(rank + 1) by current importance; tied features share their mean discount. NaN where the reference
    is all 0. For comparison with cloud monitors only: it stayed ≥ 0.95 in 34 drifted windows of six data sets.

    >>> round(float(ndcg([0.70, 0.50, 0.05], [0.10, 0.20, 0.70])), 5)
    0.68764

    Source: Järvelin and Kekäläinen (2002); ties as in McSherry and Najork (2008).
    """
    gain, importance = np.broadcast_arrays(*_pair(reference, current))
    features = gain.shape[-1]
    discount = 1.0 / np.log2(np.arange(2, features + 2))
    ideal = (-np.sort(-gain, axis=-1) * discount).sum(axis=-1)
    above = np.sum(importance[..., None, :] > importance[..., :, None], axis=-1)
    tied = np.sum(importance[..., None, :] == importance[..., :, None], axis=-1)
    upto = np.concatenate(([0.0], np.cumsum(discount)))
    reached = (gain * (upto[above + tied] - upto[above]) / np.maximum(tied, 1)).sum(axis=-1)
    return np.asarray(np.divide(reached, ideal, out=np.full_like(ideal, np.nan), where=ideal > 0))


def _pair(reference: Counts, current: Counts) -> tuple[Float64, Float64]:
    q, p = np.asarray(reference, dtype=np.float64), np.asarray(current, dtype=np.float64)
    try:
        np.broadcast_shapes(q.shape, p.shape)
    except ValueError:
        raise StatisticsError(
            "histograms have different shapes", expected=f"current {q.shape}", found=str(p.shape)
        ) from None
    for name, counts in (("reference", q), ("current", p)):
        # One comparison finds both: NaN is not ≥ 0 either.
        if not np.all(counts >= 0):
            raise StatisticsError(f"{name} counts are wrong", expected="numbers from 0", found="negative or NaN counts")
    return q, p


def _sides(
    reference: Counts, current: Counts, n_effective_reference: Counts | None = None, n_effective: Counts | None = None
) -> tuple[Histogram, Histogram]:
    q, p = np.broadcast_arrays(*_pair(reference, current))
    return histogram(_first(q), n_effective_reference), histogram(_first(p), n_effective)


def _first(counts: Float64) -> Float64:
    return np.moveaxis(counts, -1, 0)


def _share(counts: Float64, total: Float64) -> Float64:
    with np.errstate(invalid="ignore"):
        return np.asarray(counts / total)


def _effective(total: Float64, given: Counts | None) -> Float64:
    if given is None:
        return total
    n = np.broadcast_to(np.asarray(given, dtype=np.float64), total.shape)
    if not np.all(n >= 0):
        raise StatisticsError("effective numbers of requests are wrong", expected="numbers from 0")
    return np.where(total > 0, n, 0.0)


def _smoothed(q: Histogram, p: Histogram) -> tuple[Float64, Float64]:
    used = q.used | p.used
    sides = ((side.scaled + SMOOTHING_COUNT) * used for side in (q, p))
    smooth_q, smooth_p = (_share(a, _total(a)) for a in sides)
    return smooth_q, smooth_p


def _log_ratio(a: Float64, b: Float64) -> Float64:
    """ln(a/b) of shares; finite where a is 0, so that such a cell adds nothing. NaN stays NaN."""
    return np.asarray(np.log(np.maximum(a, _TINY) / np.maximum(b, _TINY)))


def _reciprocal(n: Float64) -> Float64:
    return np.asarray(np.divide(1.0, n, out=np.full_like(n, np.nan), where=n > 0))


def _running(combine: np.ufunc, values: Float64) -> Float64:
    """`combine.accumulate` over the first axis, which numpy does element by element."""
    out = np.array(values)
    for k in range(1, len(out)):
        combine(out[k - 1], out[k], out=out[k, ...])
    return out


def _total(terms: Float64) -> Float64:
    """Sum over the cells."""
    return np.asarray(terms.sum(axis=0))
