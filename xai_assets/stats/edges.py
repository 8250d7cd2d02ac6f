"""Cell borders of the reference: weighted quantiles of a bounded sample, exact minimum and maximum.

Belongs here: how borders are chosen. Does not belong here: counting into cells (see `histograms`), distances.

Borders are cut once, from the reference, at values that occur in it: comparing float32 values in float64 against
borders that are themselves such values never puts the reference's own minimum or maximum outside by rounding.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xai_assets.errors import StatisticsError
from xai_assets.records import Edges, Float64

_Values = npt.NDArray[np.floating[Any]]


class EdgeSketch:
    """Bounded, deterministic sample of a stream of rows, from which `edges` are cut.

    A row is kept when a hash of its position in the stream is below a limit that is halved whenever the sample
    outgrows `capacity_rows`. So the sample is uniform, the same for every way of splitting the stream into
    batches, and needs no random generator. Minimum and maximum are exact over all rows.

    Parameters
    ----------
    features
        Names of the d columns.
    capacity_rows
        Most rows kept; memory is about `capacity_rows · d` values.
    """

    def __init__(self, features: Sequence[str], capacity_rows: int = 200_000) -> None:
        if capacity_rows < 1:
            raise StatisticsError(
                "capacity_rows of an edge sketch is wrong", expected="1 or more", found=str(capacity_rows)
            )
        self.features = tuple(features)
        self.capacity_rows = capacity_rows
        self.rows_seen = 0
        self._halvings = 0
        self._values: list[_Values] = []
        self._weights: list[Float64] = []
        self._hashes: list[npt.NDArray[np.uint64]] = []
        self._kept = 0
        self._has_weight = False
        self._low = np.full(len(self.features), np.inf)
        self._high = np.full(len(self.features), -np.inf)

    def add(self, values: _Values, weights: _Values | None = None) -> None:
        """Take in rows. NaN is ignored per feature; infinities are ignored too (they have no place in a range).

        values: float [n, d]; weights: float [n], finite and ≥ 0 (ones where None).

        Raises
        ------
        StatisticsError
            On another number of columns, or weights that are negative, not finite, or of another length.
        """
        values, weight = _checked(values, weights, len(self.features))
        finite = np.isfinite(values) & (weight > 0)[:, None]
        if len(values):
            self._low = np.minimum(self._low, np.min(values, axis=0, initial=np.inf, where=finite))
            self._high = np.maximum(self._high, np.max(values, axis=0, initial=-np.inf, where=finite))
        self._has_weight |= bool(np.any(weight > 0))
        hashes = _hash_positions(self.rows_seen, len(values))
        self.rows_seen += len(values)
        keep = (hashes < self._limit()) & (weight > 0)
        self._values.append(values[keep])
        self._weights.append(weight[keep])
        self._hashes.append(hashes[keep])
        self._kept += int(keep.sum())
        while self._kept > self.capacity_rows:
            self._halve()

    def edges(self, cells: int = 20) -> tuple[Edges, ...]:
        """At most `cells` inner cells per feature of about equal weight; see `quantile_cuts` for ties.

        A constant feature c has the borders (c, c); one without a finite value, or a sketch without rows, has none.

        Raises
        ------
        StatisticsError
            `cells` is below 1, or rows were added and all of their weights are 0.
        """
        if cells < 1:
            raise StatisticsError("the number of cells is wrong", expected="1 or more", found=str(cells))
        if self.rows_seen and not self._has_weight:
            raise StatisticsError(
                "all weights of the reference's rows are zero",
                expected="weights of which some are above 0",
                found=f"{self.rows_seen} rows of total weight 0",
                next_step="look at inclusion_probability in divergence_set of the reference days",
            )
        if not self._values:
            return tuple(Edges(name, np.empty(0)) for name in self.features)
        values, weights = np.concatenate(self._values), np.concatenate(self._weights)
        return tuple(
            Edges(name, quantile_cuts(values[:, j], weights, float(self._low[j]), float(self._high[j]), cells))
            for j, name in enumerate(self.features)
        )

    def _limit(self) -> np.uint64:
        return np.uint64((2**64 - 1) >> self._halvings)

    def _halve(self) -> None:
        self._halvings += 1
        kept = [h < self._limit() for h in self._hashes]
        self._values = [v[k] for v, k in zip(self._values, kept, strict=True)]
        self._weights = [w[k] for w, k in zip(self._weights, kept, strict=True)]
        self._hashes = [h[k] for h, k in zip(self._hashes, kept, strict=True)]
        self._kept = sum(len(w) for w in self._weights)


def quantile_cuts(values: _Values, weights: _Values, low: float, high: float, cells: int) -> Float64:
    """Borders of at most `cells` left-closed cells of about equal weight between `low` and `high`.

    values, weights: float [n]; NaN is ignored. `low`, `high`: the exact range, which a sample may have missed.
    A value that carries 1/cells of the weight or more gets a cell of its own, and so does every value where there
    are no more than `cells` different ones: otherwise a flag that is set in 2 % of the requests, or attributions
    that are zero in 97 %, would lie in one cell with all the rest and no change of their share could be seen.
    Where the maximum has a cell of its own it stands twice at the end: (…, max, max).

    >>> quantile_cuts(np.array([0.0, 1.0, 0.0]), np.ones(3), 0.0, 1.0, 20)
    array([0., 1., 1.])
    >>> quantile_cuts(np.arange(5.0), np.ones(5), 0.0, 4.0, 2)
    array([0., 3., 4.])
    """
    if not low <= high:
        return np.empty(0)
    distinct, mass = _distinct(values, weights, low, high)
    for wanted in range(cells, 0, -1):
        cuts = _cell_starts(distinct, mass, wanted, apart=len(distinct) <= cells)
        if len(cuts) <= cells:
            return np.concatenate((cuts, [high]))
    return np.array([low, high])


def category_edges(feature: str, levels: int) -> Edges:
    """Borders for codes 0…levels−1: one cell per level, so that any other code counts as outside.

    >>> category_edges("channel", 2).cuts
    array([-0.5,  0.5,  1.5])
    """
    if levels < 0:
        raise StatisticsError(f"number of levels of '{feature}' is wrong", expected="0 or more", found=str(levels))
    cuts = np.arange(levels + 1, dtype=np.float64) - 0.5
    return Edges(feature, cuts if levels else np.empty(0))


def _distinct(values: _Values, weights: _Values, low: float, high: float) -> tuple[Float64, Float64]:
    finite = np.isfinite(values)
    both = np.concatenate((values[finite].astype(np.float64), [low, high]))
    mass = np.concatenate((weights[finite].astype(np.float64), [0.0, 0.0]))
    order = np.argsort(both, kind="stable")
    both, mass = both[order], mass[order]
    first = np.flatnonzero(np.diff(both, prepend=-np.inf) != 0)
    return both[first], np.add.reduceat(mass, first)


def _cell_starts(distinct: Float64, mass: Float64, cells: int, *, apart: bool) -> Float64:
    if apart:
        return distinct
    target = mass.sum() / cells
    heavy = mass >= target
    rest = np.where(heavy, 0.0, mass)
    # The small subtraction keeps a sum that is a multiple of the target up to rounding in one cell.
    group = np.floor((np.cumsum(rest) - rest) / target + 1e-9)
    after_heavy = np.concatenate(([True], heavy[:-1]))
    starts = heavy | after_heavy | (np.diff(group, prepend=-1) != 0)
    return np.asarray(distinct[starts])


def _hash_positions(start: int, count: int) -> npt.NDArray[np.uint64]:
    """splitmix64 of start…start+count−1 (Steele, Lea and Flood, OOPSLA 2014)."""
    x = np.arange(start, start + count, dtype=np.uint64) + np.uint64(1)
    x *= np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _checked(values: _Values, weights: _Values | None, features: int) -> tuple[_Values, Float64]:
    values = np.asarray(values)
    if values.ndim != 2 or values.shape[1] != features:
        raise StatisticsError(
            "values for an edge sketch have the wrong shape", expected=f"[n, {features}]", found=str(values.shape)
        )
    weight = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    if weight.shape != (len(values),) or not np.all(np.isfinite(weight) & (weight >= 0)):
        raise StatisticsError(
            "weights for an edge sketch are wrong",
            expected=f"{len(values)} finite numbers from 0",
            found=f"shape {weight.shape}",
        )
    return values, weight
