"""Do two weighted histograms come from one distribution? Pearson's statistic over cells with enough requests.

Belongs here: X², its degrees of freedom, the size of a comparison. Does not belong here: how X² behaves when nothing
is wrong (see `dispersion`), distances (see `drift`).
"""

from dataclasses import dataclass

import numpy as np

from xai_assets.records import Float64, Int64
from xai_assets.stats.drift import Counts

EXPECTED_PER_CELL = 5.0
"""Cells are joined until this many requests are expected in each (Cochran 1954): one request in a cell that the
reference never used would alone give X² = m/n."""
_TINY = float(np.finfo(np.float64).tiny)


def homogeneity(
    reference: Counts,
    current: Counts,
    *,
    n_effective_reference: Counts,
    n_effective: Counts,
    cells_from: Counts | None = None,
) -> tuple[Float64, Float64]:
    """Pearson's two-sample statistic X² and its degrees of freedom, over cells joined to hold enough requests.

    Parameters
    ----------
    reference, current
        Weighted counts, float [..., k], that broadcast.
    n_effective_reference, n_effective
        Effective numbers of requests m and n, [...].
    cells_from
        Reference counts that decide which cells are joined, [..., k]; default `reference`. Cells are taken from the
        rarest up and joined until `EXPECTED_PER_CELL` of the n current requests are expected in each.

    Returns
    -------
    tuple
        X² = nm/(n+m) Σ (p−q)²/((np+mq)/(n+m)) and groups − 1, float [...]. Where all cells would be one group (a
        feature that hardly varies in the reference) the most common cell is compared with all the others together, of
        which `EXPECTED_PER_CELL` requests are taken to be expected. NaN where a side is empty.

    Source: Pearson (1911), on effective counts as in Rao and Scott (1981).
    """
    q, p = np.asarray(reference, dtype=np.float64), np.asarray(current, dtype=np.float64)
    guide = q if cells_from is None else np.asarray(cells_from, dtype=np.float64)
    shape = np.broadcast_shapes(q.shape, p.shape, guide.shape)
    of_q, of_p = (np.moveaxis(np.broadcast_to(a, shape), -1, 0) for a in (q, p))
    of_guide = np.moveaxis(guide.reshape((1,) * (len(shape) - guide.ndim) + guide.shape), -1, 0)
    grouping = grouping_of(of_q, n_effective_reference, cells_from=of_guide)
    return grouped_homogeneity(grouping, of_p, n_effective)


@dataclass(frozen=True)
class Grouping:
    """The reference of `homogeneity` with its cells in the order in which they are joined, prepared for many windows.

    order: positions in the flattened counts [k, ...]; share, guide: shares of reference and guide in that order,
    [k, ...]; n: effective number of requests of the reference, [...].
    """

    order: Int64
    share: Float64
    guide: Float64
    n: Float64


def grouping_of(reference: Float64, n_effective: Counts, *, cells_from: Float64 | None = None) -> Grouping:
    """Prepare a reference, cells first: weighted counts [k, ...], effective numbers of requests [...]; cells_from
    may broadcast."""
    guide = reference if cells_from is None else cells_from
    inner = np.arange(reference[0].size, dtype=np.int64).reshape(reference.shape[1:])
    order = np.argsort(guide, axis=0, kind="stable") * inner.size + inner
    share = _share(reference).take(order)
    of_guide = share if cells_from is None else np.broadcast_to(_share(guide), share.shape).take(order)
    return Grouping(order, share, of_guide, np.broadcast_to(np.asarray(n_effective, dtype=np.float64), share.shape[1:]))


def grouped_homogeneity(grouping: Grouping, current: Float64, n_effective: Counts) -> tuple[Float64, Float64]:
    """`homogeneity` of a window, cells first: weighted counts [k, ...], effective numbers of requests [...]."""
    p = _share(current).take(grouping.order)
    n = np.broadcast_to(np.asarray(n_effective, dtype=np.float64), p.shape[1:])
    return _grouped(grouping.share, p, grouping.guide, grouping.n, n)


def _grouped(q: Float64, p: Float64, guide: Float64, m: Float64, n: Float64) -> tuple[Float64, Float64]:
    """X² and degrees of freedom over groups of neighbouring cells (the rarest first), shares in, cells first."""
    expected = n * guide
    open_q, open_p, open_e, last_q, last_p = (np.zeros(n.shape) for _ in range(5))
    closed_q, closed_p = np.empty(q.shape), np.empty(q.shape)  # what the group holds that ends at a cell, else 0
    groups = np.zeros(n.shape)
    for j in range(len(q)):
        open_q += q[j]
        open_p += p[j]
        open_e += expected[j]
        full = open_e >= EXPECTED_PER_CELL * (1.0 - 1e-9)  # sums of shares round
        groups += full
        np.multiply(open_q, full, out=closed_q[j, ...])
        np.multiply(open_p, full, out=closed_p[j, ...])
        np.copyto(last_q, open_q, where=full)
        np.copyto(last_p, open_p, where=full)
        for rest in (open_q, open_p, open_e):
            rest *= ~full
    # What is left over at the end joins the last group.
    joined = _term(last_q + open_q, last_p + open_p, m, n)
    total = _term(closed_q, closed_p, m, n).sum(axis=0) - _term(last_q, last_p, m, n) + joined
    scale = np.divide(n * m, n + m, out=np.zeros(n.shape), where=n + m > 0)
    total = np.where(groups >= 2, np.maximum(total, 0.0), _two_cells(q[-1], p[-1], m, n))
    return np.where((n > 0) & (m > 0), scale * total, np.nan), np.maximum(groups - 1.0, 1.0)


def _two_cells(q: Float64, p: Float64, m: Float64, n: Float64) -> Float64:
    """The same sum over the most common cell and the rest, shares of the former in."""
    pooled = np.divide(n * p + m * q, n + m, out=np.ones(n.shape), where=n + m > 0)
    least = np.divide(EXPECTED_PER_CELL, n, out=np.ones(n.shape), where=n > 0)
    return np.asarray((p - q) ** 2 * (1.0 / np.maximum(pooled, least) + 1.0 / np.maximum(1.0 - pooled, least)))


def _term(q: Float64, p: Float64, m: Float64, n: Float64) -> Float64:
    """(p − q)² over the pooled share; 0 where nothing is pooled."""
    both = n + m
    pooled = (n * p + m * q) / np.where(both > 0, both, 1.0)
    return np.asarray((p - q) ** 2 / np.maximum(pooled, _TINY))


def _share(counts: Float64) -> Float64:
    """Shares [k, ...]; zeros where there is no weight."""
    total = counts.sum(axis=0)
    return np.asarray(counts / np.where(total > 0, total, 1.0))


def comparison_size(n: Counts, m: Counts, day_share: Counts, day_share_reference: Counts) -> Float64:
    """What a dispersion between whole days grows with: nm/(n+m)·(κ_n + κ_m); 0 where a side is empty.

    n, m: effective numbers of requests of window and reference, [...]. day_share, day_share_reference: κ = Σ n_t² /
    (Σ n_t)² over the days of each, 1 for a single day, 1/w for w equal ones.
    """
    a, b, x, y = (np.asarray(v, dtype=np.float64) for v in (n, m, day_share, day_share_reference))
    total, product = np.broadcast_arrays(a + b, a * b * (x + y))
    return np.asarray(np.divide(product, total, out=np.zeros(total.shape), where=total > 0))
