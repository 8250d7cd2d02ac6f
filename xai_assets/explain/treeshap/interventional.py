"""Exact interventional SHAP values of a tree ensemble against a shared background.

Belongs here: the interface, what is precomputed per tree and how much memory it may take, threads.
Does not belong here: compiled loops (see `interventional_kernels`), path-dependent values (see `shap`).

The game of a row x is v(S) = mean over background rows z of f(x on S, z elsewhere). Unlike the path-dependent game it
is the same operation for every model, so with one background the values of f − g are those of f minus those of g:
the difference of two models' attributions is the exact attribution of their difference. The mathematics is in
docs/treeshap.md. Interventional values: Lundberg et al., Nature Machine Intelligence 2020; pattern frequencies of the
background: Nadel and Wettenstein, "From Decision Trees to Boolean Logic", 2025.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xai_assets.errors import ModelError
from xai_assets.explain.matrix import background_digest
from xai_assets.explain.treeshap.ensemble import Float64, Int64, TreeEnsemble, float32_ceiling
from xai_assets.explain.treeshap.inputs import matrix_of
from xai_assets.explain.treeshap.margin import predict_margin
from xai_assets.explain.treeshap.threads import over_threads

if TYPE_CHECKING:  # that module imports numba
    from xai_assets.explain.treeshap.interventional_kernels import Paths, Plan, Trees, Weights

Matrix = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]

TABLE_BYTES = 64 * 2**20
"""Memory for the tables of one ensemble; trees past it are walked, which is exact too and slower."""
ROWS_PER_TASK, TREES_PER_TASK = 1024, 8


class InterventionalShap:
    """Shapley values of v(S) = mean over background rows z of f(x on S, z elsewhere), exactly.

    Parameters
    ----------
    ensemble
        k outputs over d features.
    background
        Real numbers [m, d], m ≥ 1; NaN where missing.
    table_bytes
        What the precomputed tables may take.
    threads
        At most so many; the values do not depend on it. None: all processors this process may use.

    Raises
    ------
    ModelError
        The background has no rows or other columns, or a path has more than 64 distinct features.
    """

    def __init__(
        self,
        ensemble: TreeEnsemble,
        background: Matrix,
        *,
        table_bytes: int = TABLE_BYTES,
        threads: int | None = None,
    ) -> None:
        self.ensemble, self.threads = ensemble, threads
        rows = matrix_of(ensemble, background, "background")
        if len(rows) == 0:
            raise ModelError(
                "interventional attributions need a background",
                expected=f"at least one row of {ensemble.n_features} features",
                found="no rows",
                next_step="give a hundred or more rows of the reference days",
            )
        self.background_hash = background_digest(rows)
        self.base_value: Float64 = predict_margin(ensemble, rows, threads=threads).mean(axis=0)
        self._background, self._weights = rows, _weights()
        self._paths, self._deepest = _trace(ensemble)
        tabled, self._walked = _divide(ensemble, self._paths, table_bytes)
        self._plan = _plan(ensemble, self._paths, tabled)
        self._fill()

    @property
    def table_bytes(self) -> int:
        """Memory of the tables."""
        return int(self._plan.entries.nbytes)

    @property
    def walked_trees(self) -> int:
        """Trees for which there was no room, or which are too deep for a table."""
        return len(self._walked)

    def explain(self, X: Matrix) -> tuple[Float32, Float64]:
        """Attributions of the rows of X [n, d].

        Returns
        -------
        values float32 [n, d, k], margin units, and base float64 [k], the mean margin of the background.
        base + values summed over features is the margin of a row, within float32 rounding.
        Infinite values are numbers like others here: they lie beyond every threshold.

        Raises
        ------
        ModelError
            X has another number of columns, or no numbers.
        """
        rows = matrix_of(self.ensemble, X)
        values = np.empty((len(rows), self.ensemble.n_features, self.ensemble.n_outputs), np.float32)

        def task(first: int, last: int) -> None:
            values[first:last] = self._values(rows[first:last]).transpose(0, 2, 1)

        over_threads(task, len(rows), ROWS_PER_TASK, self.threads)
        return values, self.base_value

    def _values(self, rows: Matrix) -> Float64:
        """float64 [rows, k, d], summed in the order of the trees."""
        from xai_assets.explain.treeshap import interventional_kernels as kernels

        e, deepest = self.ensemble, self._deepest
        phi = np.zeros((len(rows), e.n_outputs, e.n_features))
        if len(self._plan.outputs):
            kernels.add_tables(rows, self._plan, _trees(e, rows), deepest, phi)
        if len(self._walked):
            wide = np.result_type(rows, self._background)
            rows, background = rows.astype(wide, copy=False), self._background.astype(wide, copy=False)
            roots, outputs = e.tree_starts[self._walked], e.tree_output[self._walked]
            kernels.add_walks(
                rows, roots, outputs, _trees(e, rows), self._paths, background, deepest, self._weights, phi
            )
        return phi

    def _fill(self) -> None:
        from xai_assets.explain.treeshap import interventional_kernels as kernels

        trees, count = _trees(self.ensemble, self._background), len(self._plan.outputs)

        def task(first: int, last: int) -> None:
            kernels.build_tables(first, last, self._plan, trees, self._background, self._deepest, self._weights)

        over_threads(task, count, TREES_PER_TASK, self.threads)


def _trees(ensemble: TreeEnsemble, rows: Matrix) -> "Trees":
    """The arrays as the kernels take them for such rows."""
    from xai_assets.explain.treeshap.interventional_kernels import Trees

    e, narrow = ensemble, rows.dtype == np.float32
    threshold = float32_ceiling(e.threshold)
    with np.errstate(over="ignore"):  # next below the least number is −∞; next below −∞ there is nothing
        limit = np.where(threshold == -np.inf, np.float32(np.nan), np.nextafter(threshold, np.float32(-np.inf)))
    return Trees(
        e.left,
        e.right,
        e.feature,
        e.value,
        threshold if narrow else e.threshold,
        e.missing_left,
        e.zero_is_missing,
        e.category_set,
        e.category_starts,
        e.category_words,
        e.category_other_left,
        (e.category_set < 0) & ~e.zero_is_missing & narrow,
        limit,
    )


def _weights() -> "Weights":
    """(u−1)! v! / (u+v)! = 1 / (u · C(u+v, u)), rounded once; the two tables mirror each other."""
    from xai_assets.explain.treeshap.interventional_kernels import MAX_SLOTS, Weights

    size = MAX_SLOTS + 1
    gain = np.zeros((size, size))
    for u in range(1, size):
        gain[u] = [1 / (u * math.comb(u + v, u)) for v in range(size)]
    return Weights(gain, np.ascontiguousarray(gain.T))


def _trace(ensemble: TreeEnsemble) -> tuple["Paths", int]:
    """Paths of all trees and how they are cut into units; the depth of the deepest.

    Raises
    ------
    ModelError
        A path has more than 64 distinct features.
    """
    from xai_assets.explain.treeshap import interventional_kernels as kernels

    n = len(ensemble.left)
    above, slot, repeated, depth, parent, is_unit = np.zeros((6, n), np.int32)
    paths = kernels.Paths(above, slot, repeated, depth, parent, is_unit, np.zeros(n, np.int64), np.zeros(n))
    trees, order = _trees(ensemble, np.empty(0)), np.zeros(n, np.int32)
    deepest = widest = 0
    for root in ensemble.tree_starts[:-1]:
        count, levels, width = kernels.trace(root, trees, paths, order)
        deepest, widest = max(deepest, levels), max(widest, width)
        kernels.choose_units(count, trees, paths, order)
    if widest > kernels.MAX_SLOTS:
        raise ModelError(
            "a path of the model has too many distinct features for interventional attributions",
            expected=f"at most {kernels.MAX_SLOTS}",
            found=str(widest),
            next_step="use path-dependent attributions, which have no such limit",
        )
    return paths, deepest


def _divide(ensemble: TreeEnsemble, paths: "Paths", table_bytes: int) -> tuple[Int64, Int64]:
    """Trees with tables, smallest first until the memory is used up, and those without; each in their own order.

    Trees of a single leaf are in neither: they attribute nothing.
    """
    roots = ensemble.tree_starts[:-1]
    splits = np.flatnonzero(ensemble.left[roots] >= 0)
    possible = splits[np.isfinite(paths.cost[roots[splits]])]
    by_size = possible[np.argsort(paths.size[roots[possible]], kind="stable")]
    fit = np.cumsum(paths.size[roots[by_size]]) * np.dtype(np.float32).itemsize <= table_bytes
    tabled = np.sort(by_size[fit])
    return tabled, np.setdiff1d(splits, tabled)


def _plan(ensemble: TreeEnsemble, paths: "Paths", tabled: Int64) -> "Plan":
    """Operations of the given trees, and room for their tables."""
    from xai_assets.explain.treeshap import interventional_kernels as kernels

    counts = np.diff(ensemble.tree_starts)[tabled]
    total = int(counts.sum())
    plan = kernels.Plan(
        starts=np.zeros(len(tabled) + 1, np.int64),
        outputs=ensemble.tree_output[tabled],
        ops=np.zeros((2 * total, kernels.COLUMNS), np.int32),
        table=np.zeros(2 * total, np.int64),
        nodes=np.zeros(total, np.int32),
        features=np.zeros(kernels.MAX_BITS * total, np.int32),
        entries=np.zeros(paths.size[ensemble.tree_starts[tabled]].sum(), np.float32),
    )
    trees, at = _trees(ensemble, np.empty(0)), np.zeros(4, np.int64)
    for t, root in enumerate(ensemble.tree_starts[tabled]):
        kernels.write_plan(root, counts[t], trees, paths, plan, at)
        plan.starts[t + 1] = at[0]
    return plan._replace(
        ops=plan.ops[: at[0]].copy(),
        table=plan.table[: at[0]].copy(),
        nodes=plan.nodes[: at[1]].copy(),
        features=plan.features[: at[2]].copy(),
    )
