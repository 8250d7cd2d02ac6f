"""Do two weighted histograms come from one distribution? Pearson's statistic over cells with enough requests.

Belongs here: X², its degrees of freedom, the size of a comparison. Does not belong here: how X² behaves when nothing
is wrong (see `dispersion`), distances (see `drift`).
"""

import numpy as np

from xai_assets.records import Float64
from xai_assets.stats.drift import Counts

EXPECTED_PER_CELL = 5.0
"""Cells are joined until this many requests are expected in each (Cochran 1954): one request in a cell that the
reference never used would alone give X² = m/n."""


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
    m, n = np.asarray(n_effective_reference, dtype=np.float64), np.asarray(n_effective, dtype=np.float64)
    guide = q if cells_from is None else np.asarray(cells_from, dtype=np.float64)
    shape = np.broadcast_shapes(q.shape, p.shape, guide.shape)
    order = np.broadcast_to(np.argsort(guide, axis=-1, kind="stable"), shape)
    of_q, of_p, of_guide = (
        np.take_along_axis(np.broadcast_to(_share(a), shape), order, axis=-1) for a in (q, p, guide)
    )
    return _grouped(of_q, of_p, of_guide, np.broadcast_to(m, shape[:-1]), np.broadcast_to(n, shape[:-1]))


def _grouped(q: Float64, p: Float64, guide: Float64, m: Float64, n: Float64) -> tuple[Float64, Float64]:
    """X² and degrees of freedom over groups of neighbouring cells (the rarest first), shares in."""
    open_q, open_p, open_e = np.zeros_like(n), np.zeros_like(n), np.zeros_like(n)
    last_q, last_p = np.zeros_like(n), np.zeros_like(n)
    total, groups = np.zeros_like(n), np.zeros_like(n)
    for j in range(q.shape[-1]):
        open_q, open_p, open_e = open_q + q[..., j], open_p + p[..., j], open_e + n * guide[..., j]
        full = open_e >= EXPECTED_PER_CELL * (1.0 - 1e-9)  # sums of shares round
        total += np.where(full, _term(open_q, open_p, m, n), 0.0)
        groups += full
        last_q, last_p = np.where(full, open_q, last_q), np.where(full, open_p, last_p)
        open_q, open_p, open_e = (np.where(full, 0.0, a) for a in (open_q, open_p, open_e))
    # What is left over at the end joins the last group.
    joined = _term(last_q + open_q, last_p + open_p, m, n)
    total = total - _term(last_q, last_p, m, n) + joined
    scale = np.divide(n * m, n + m, out=np.zeros_like(n), where=n + m > 0)
    total = np.where(groups >= 2, np.maximum(total, 0.0), _two_cells(q[..., -1], p[..., -1], m, n))
    return np.where((n > 0) & (m > 0), scale * total, np.nan), np.maximum(groups - 1.0, 1.0)


def _two_cells(q: Float64, p: Float64, m: Float64, n: Float64) -> Float64:
    """The same sum over the most common cell and the rest, shares of the former in."""
    pooled = np.divide(n * p + m * q, n + m, out=np.ones_like(n), where=n + m > 0)
    least = np.divide(EXPECTED_PER_CELL, n, out=np.ones_like(n), where=n > 0)
    return np.asarray((p - q) ** 2 * (1.0 / np.maximum(pooled, least) + 1.0 / np.maximum(1.0 - pooled, least)))


def _term(q: Float64, p: Float64, m: Float64, n: Float64) -> Float64:
    pooled = np.divide(n * p + m * q, n + m, out=np.zeros_like(n), where=n + m > 0)
    return np.asarray(np.divide((p - q) ** 2, pooled, out=np.zeros_like(n), where=pooled > 0))


def _share(counts: Float64) -> Float64:
    total = counts.sum(axis=-1, keepdims=True)
    return np.asarray(np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0))


def comparison_size(n: Counts, m: Counts, day_share: Counts, day_share_reference: Counts) -> Float64:
    """What a dispersion between whole days grows with: nm/(n+m)·(κ_n + κ_m); 0 where a side is empty.

    n, m: effective numbers of requests of window and reference, [...]. day_share, day_share_reference: κ = Σ n_t² /
    (Σ n_t)² over the days of each, 1 for a single day, 1/w for w equal ones.
    """
    a, b, x, y = (np.asarray(v, dtype=np.float64) for v in (n, m, day_share, day_share_reference))
    total, product = np.broadcast_arrays(a + b, a * b * (x + y))
    return np.asarray(np.divide(product, total, out=np.zeros(total.shape), where=total > 0))
