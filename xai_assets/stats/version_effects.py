"""What a new version of a model changed in its attributions, apart from what new rows changed.

Belongs here: the effects of rows and of version on each feature's attributions, and which of them there was.
Does not belong here: which rows are compared and who explains them (see `flow.version_effects`), alerts (see `decide`).

Three sets of attributions tell the two apart: the old version on the old rows, the old version on the new rows, and the
new version on the new rows. From the first to the second only rows changed, from the second to the third only the
version did. All are counted into the same cells, cut from the first.

Both versions explain the same new rows, so the second comparison is paired. Two samples of n requests differ by
(k−1)·2/n nats when nothing drifts; two versions that put every request into the same cell do not differ at all. What
chance alone gives is therefore taken from the pairs themselves: with c_i the difference of request i's two cells (+1 in
the new one, −1 in the old one) and w_i its share of the weight, Σ w_i² c_i c_iᵀ is the covariance of the change of
shares when either version's cell could as well have been the other's (a sign-flip randomisation test). PSI is close to
the quadratic form Δᵀ diag(1/p̄) Δ, whose mean is the trace and whose quantile follows by Satterthwaite's χ². For
independent samples the same two formulas give the well-known (k−1)(1/n + 1/m) and its χ² with k−1 degrees of freedom.
In simulations without any effect (2000 each; 300 and 2000 requests; versions that share 0, 90 and 99.9 % of their
variance) 0 to 0.35 % exceed the limit of one in a thousand.

A request that a version refuses has no attributions, which says nothing about how they changed. So only requests that
both versions explain are compared; refusals are counted apart, and where the versions refuse quite different shares of
the same requests, what is left is no fair sample and there is no verdict.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from xai_assets.errors import StatisticsError
from xai_assets.records import Edges, Float64, Int64
from xai_assets.stats.cells import cell_numbers
from xai_assets.stats.drift import SMOOTHING_COUNT, effective_rows, psi
from xai_assets.stats.edges import quantile_cuts

DATA, MODEL, BOTH, NONE = "data", "model", "both", "none"
CELLS = 20
CHANCE = 1e-3
"""An effect counts only where chance alone gives one of its size less often than this."""
MIN_ROWS = 30
"""Effective requests on a side below which nothing is said."""
MOST_REFUSED = 0.05
"""Difference of the versions' shares of refused requests, of the same ones, above which there is no verdict."""

_Values = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class VersionEffect:
    """What rows and version did to one feature's attributions.

    data_effect_nats, model_effect_nats, total_effect_nats: PSI less what chance gives, never below 0. They do not add
    up: PSI is no distance, and the two effects may cancel. data_limit_nats, model_limit_nats: what chance alone stays
    below, all but `CHANCE` of the time. importances: mean |φ| of the old version on the old rows, the old version on
    the new rows, the new version on the new rows; margin units. refused_before, refused_old_model, refused_after:
    share of the weight without attributions in the same three sets, 0–1. All else is of the requests that have some:
    of the new rows those that both versions explain. Effects and limits are NaN where fewer than `MIN_ROWS` effective
    requests are left. verdict: data, model, both or none.
    """

    feature: str
    data_effect_nats: float
    model_effect_nats: float
    total_effect_nats: float
    data_limit_nats: float
    model_limit_nats: float
    importance_before: float
    importance_old_model: float
    importance_after: float
    refused_before: float
    refused_old_model: float
    refused_after: float
    verdict: str

    @property
    def is_comparable(self) -> bool:
        """Whether the two versions explain about the same of the new rows (`MOST_REFUSED`)."""
        return abs(self.refused_after - self.refused_old_model) <= MOST_REFUSED


def version_effects(
    old_model_old_rows: _Values,
    old_model_new_rows: _Values,
    new_model_new_rows: _Values,
    features: Sequence[str],
    *,
    old_weights: _Values | None = None,
    new_weights: _Values | None = None,
    floor_nats: float = 0.10,
) -> tuple[VersionEffect, ...]:
    """Effects of rows and of version, one per feature.

    Parameters
    ----------
    old_model_old_rows
        Attributions of the old version, float [m, d], margin units; NaN where a request has none.
    old_model_new_rows, new_model_new_rows
        Attributions of both versions on the same requests in the same order, float [n, d].
    features
        Names of the d features.
    old_weights, new_weights
        1/π of the requests, float [m] and [n]; ones where None.
    floor_nats
        An effect below it, or below what chance gives, takes no part in the verdict.

    Returns
    -------
    tuple of VersionEffect
        Empty where a side has fewer than `MIN_ROWS` effective requests.

    Raises
    ------
    StatisticsError
        Shapes or weights do not fit, or the floor is not above 0.

    Examples
    --------
    >>> phi = np.random.default_rng(0).normal(size=(500, 1))
    >>> [e] = version_effects(phi, phi, phi * 3, ["income"])
    >>> e.data_effect_nats, e.model_effect_nats > 0.5, e.verdict
    (0.0, True, 'model')
    """
    w, v = _weights(old_weights, len(old_model_old_rows)), _weights(new_weights, len(new_model_new_rows))
    _check(old_model_old_rows, old_model_new_rows, new_model_new_rows, features, floor_nats)
    if min(effective_rows(w, w**2), effective_rows(v, v**2)) < MIN_ROWS:
        return ()
    found = []
    for j, name in enumerate(features):
        columns = (old_model_old_rows[:, j], old_model_new_rows[:, j], new_model_new_rows[:, j])
        found.append(_one_feature(name, columns, w, v, floor_nats))
    return tuple(found)


def _one_feature(
    name: str, columns: tuple[_Values, _Values, _Values], w: Float64, v: Float64, floor: float
) -> VersionEffect:
    old, pairs = np.isfinite(columns[0]), np.isfinite(columns[1]) & np.isfinite(columns[2])
    rows = (columns[0][old], columns[1][pairs], columns[2][pairs])
    kept, compared = w[old], v[pairs]
    enough = min(effective_rows(kept, kept**2), effective_rows(compared, compared**2)) >= MIN_ROWS
    (data, data_limit), (model, model_limit), (total, _) = (
        _effects(name, rows, kept, compared) if enough else [(np.nan, np.nan)] * 3
    )
    effect = VersionEffect(
        feature=name,
        data_effect_nats=data,
        model_effect_nats=model,
        total_effect_nats=total,
        data_limit_nats=data_limit,
        model_limit_nats=model_limit,
        importance_before=_importance(rows[0], kept),
        importance_old_model=_importance(rows[1], compared),
        importance_after=_importance(rows[2], compared),
        refused_before=_refused(columns[0], w),
        refused_old_model=_refused(columns[1], v),
        refused_after=_refused(columns[2], v),
        verdict=NONE,
    )
    by_rows, by_version = data >= max(floor, data_limit), model >= max(floor, model_limit)
    return replace(effect, verdict=_verdict(by_rows=by_rows, by_version=by_version)) if effect.is_comparable else effect


def _effects(name: str, rows: tuple[_Values, _Values, _Values], w: Float64, v: Float64) -> list[tuple[float, float]]:
    """Effect and limit of the rows, of the version, and of both; every value is finite."""
    edges = reference_edges(name, rows[0], w)
    first, second, third = (cell_numbers(edges, c) for c in rows)
    return [
        independent_effect(first, w, second, v, edges.cells),
        paired_effect(second, third, v, edges.cells),
        independent_effect(first, w, third, v, edges.cells),
    ]


def _verdict(*, by_rows: bool, by_version: bool) -> str:
    if by_rows and by_version:
        return BOTH
    return DATA if by_rows else MODEL if by_version else NONE


def reference_edges(feature: str, values: _Values, weights: Float64) -> Edges:
    """At most `CELLS` cells of about equal weight over the finite values; no borders where there are none."""
    finite = np.isfinite(values) & (weights > 0)
    if not finite.any():
        return Edges(feature, np.empty(0))
    x = values[finite]
    return Edges(feature, quantile_cuts(x, weights[finite], float(x.min()), float(x.max()), CELLS))


def independent_effect(
    before: Int64, before_weights: Float64, after: Int64, after_weights: Float64, cells: int
) -> tuple[float, float]:
    """PSI of two independent samples less what chance gives (at least 0), and its limit by chance; nats.

    before, after: cell of each request, [m] and [n].
    """
    (q, m), (p, n) = _shares(before, before_weights, cells), _shares(after, after_weights, cells)
    pooled = _pooled(q, p, m, n)
    covariance = (1 / n + 1 / m) * (np.diag(pooled) - np.outer(pooled, pooled))
    return _effect(q, p, m, n, pooled, covariance)


def paired_effect(before: Int64, after: Int64, weights: Float64, cells: int) -> tuple[float, float]:
    """PSI of the same requests' two cells less what chance gives (at least 0), and its limit by chance; nats.

    Exactly 0 where every request stays in its cell. before, after: cells [n].
    """
    (q, n), (p, _) = _shares(before, weights, cells), _shares(after, weights, cells)
    share = weights / weights.sum()
    moved = before != after
    # Σ w² c cᵀ without the [n, cells] matrix of c: the flows between cells hold all of it.
    flow = np.zeros((cells, cells))
    np.add.at(flow, (before[moved], after[moved]), share[moved] ** 2)
    covariance = np.diag(flow.sum(axis=0) + flow.sum(axis=1)) - flow - flow.T
    return _effect(q, p, n, n, _pooled(q, p, n, n), covariance)


def _effect(q: Float64, p: Float64, m: float, n: float, pooled: Float64, covariance: Float64) -> tuple[float, float]:
    raw = float(psi(q, p, n_effective_reference=m, n_effective=n))
    used = pooled > 0
    form = covariance[np.ix_(used, used)] / pooled[used][:, None]
    mean, squared = float(np.trace(form)), float(np.sum(form * form.T))
    return max(raw - mean, 0.0), _quantile(mean, squared) - mean


def _quantile(mean: float, squared: float) -> float:
    """The 1 − `CHANCE` quantile of a quadratic form of normal numbers with these traces of its matrix and its square.

    Source: Satterthwaite's approximation, g·χ²_h with g = squared/mean and h = mean²/squared.
    """
    if mean <= 0 or squared <= 0:
        return 0.0
    from scipy.special import gammaincinv

    scale, freedom = squared / mean, mean**2 / squared
    return float(scale * 2.0 * gammaincinv(freedom / 2.0, 1.0 - CHANCE))


def _shares(cells_of: Int64, weights: Float64, cells: int) -> tuple[Float64, float]:
    """Share of the weight in each cell [cells], and effective requests."""
    counts = np.bincount(cells_of, weights=weights, minlength=cells)
    return counts / counts.sum(), float(effective_rows(weights, weights**2))


def _pooled(q: Float64, p: Float64, m: float, n: float) -> Float64:
    """Share of each used cell in both together, with the ½ that PSI adds; 0 in cells that nothing uses."""
    counts = np.where((q > 0) | (p > 0), m * q + n * p + 2 * SMOOTHING_COUNT, 0.0)
    return np.asarray(counts / counts.sum())


def _importance(values: _Values, weights: Float64) -> float:
    finite = np.isfinite(values)
    total = float(weights[finite].sum())
    return float(np.abs(values[finite].astype(np.float64)) @ weights[finite]) / total if total > 0 else float("nan")


def _refused(values: _Values, weights: Float64) -> float:
    """Share of the weight without a value, 0–1."""
    return float(weights[~np.isfinite(values)].sum() / weights.sum())


def _weights(weights: _Values | None, rows: int) -> Float64:
    found = np.ones(rows) if weights is None else np.asarray(weights, dtype=np.float64)
    if found.shape != (rows,) or not np.all(np.isfinite(found) & (found >= 0)):
        raise StatisticsError(
            "weights of version effects are wrong", expected=f"{rows} finite numbers from 0", found=str(found.shape)
        )
    return found


def _check(first: _Values, second: _Values, third: _Values, features: Sequence[str], floor: float) -> None:
    d = len(features)
    fits = first.ndim == second.ndim == 2 and first.shape[1] == second.shape[1] == d and second.shape == third.shape
    if not fits:
        raise StatisticsError(
            "attributions of version effects have the wrong shape",
            expected=f"[m, {d}], [n, {d}] and [n, {d}]",
            found=f"{first.shape}, {second.shape} and {third.shape}",
        )
    if not floor > 0:
        raise StatisticsError("the floor of version effects is wrong", expected="above 0", found=str(floor))
