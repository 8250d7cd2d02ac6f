"""`TreeShap`: exact SHAP values of a tree ensemble, batch by batch, over threads.

Belongs here: the interface, the choice of block size, threads. Does not belong here: loops over nodes (see
`kernel`, `interventional_kernels`), formats (see `inputs`, `readers`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xai_assets.errors import ModelError
from xai_assets.explain.treeshap.ensemble import MAX_TREES, Float64, TreeEnsemble
from xai_assets.explain.treeshap.inputs import BATCH_ROWS, batches, row_count
from xai_assets.explain.treeshap.margin import predict_margin
from xai_assets.explain.treeshap.threads import over_threads, processors

if TYPE_CHECKING:  # these modules import numba
    from xai_assets.explain.treeshap.program import Program
    from xai_assets.explain.treeshap.ranks import Ranks

Float32 = npt.NDArray[np.float32]
VERSION = "1"
"""Raised when the same ensemble and rows would give other values, beyond rounding."""

_LANES = 16
_CACHE_BYTES = 512 * 1024
"""What the planes and slots of one block should take: they are read and written all the time."""


@dataclass(frozen=True, eq=False)
class TreeAttributions:
    """values: float32 [n, d], or [n, d, k] where the ensemble has k > 1 outputs; base_value: float64 [k].

    Per output, base_value + values.sum(axis=1) is the margin, within float32 rounding.
    """

    values: Float32
    base_value: Float64


class TreeShap:
    """Exact SHAP values on the margin scale.

    Without a background the path-dependent game of Lundberg et al. (Nature Machine Intelligence 2020), in which
    absent features are averaged by the training cover of the trees. With one the interventional game: absent features
    are taken from the background's rows; see `interventional`.

    Parameters
    ----------
    ensemble
        k outputs over d features; for two models in one pass `TreeEnsemble.stack`.
    background
        Real numbers [m, d], or None.
    threads
        At most so many; the values do not depend on it. None: all processors this process may use.

    Raises
    ------
    ModelError
        The ensemble has no trees or more than 10,000, or the background does not fit.
    """

    def __init__(self, ensemble: TreeEnsemble, *, background: Any = None, threads: int | None = None) -> None:
        if not 0 < ensemble.n_trees <= MAX_TREES * ensemble.n_outputs:
            raise ModelError(
                "this ensemble cannot be explained",
                expected=f"1 to {MAX_TREES:,} trees per output",
                found=f"{ensemble.n_trees:,} trees",
            )
        if threads is not None and threads < 1:
            raise ModelError("at least one thread is needed", expected="threads ≥ 1", found=str(threads))
        self.ensemble = ensemble
        self.threads: int = threads or processors()
        self._interventional = None
        if background is not None:
            from xai_assets.explain.treeshap.interventional import InterventionalShap

            rows = np.concatenate(list(batches(ensemble, background)) or [np.empty((0, ensemble.n_features))])
            self._interventional = InterventionalShap(ensemble, rows, threads=threads)

    @property
    def base_value(self) -> Float64:
        """Expected margin of each output, float64 [k]: what attributions are differences from."""
        if self._interventional is not None:
            return self._interventional.base_value.copy()
        return self._program.base_value.copy()

    def explain(self, X: Any) -> TreeAttributions:
        """Attributions of all rows.

        Parameters
        ----------
        X
            numpy [n, d] (any layout; NaN is missing), or a polars, Arrow or pandas table with the model's features.
            Categorical values are the model's codes.

        Returns
        -------
        values float32 [n, d] or [n, d, k], a view where k > 1; base_value float64 [k].

        Raises
        ------
        ModelError
            X does not fit the model.
        """
        values = np.zeros((self.ensemble.n_outputs, row_count(self.ensemble, X), self.ensemble.n_features), np.float32)
        start = 0
        for rows in batches(self.ensemble, X):
            self._explain_batch(rows, values[:, start : start + len(rows)])
            start += len(rows)
        return TreeAttributions(self._shaped(values), self.base_value)

    def stream(self, X: Any, batch_rows: int = BATCH_ROWS) -> Iterator[Float32]:
        """The same values, batch by batch in order, in memory that does not grow with the number of rows."""
        if batch_rows < 1:
            raise ModelError("a batch needs rows", expected="batch_rows ≥ 1", found=str(batch_rows))
        row_count(self.ensemble, X)
        for rows in batches(self.ensemble, X, batch_rows):
            values = np.zeros((self.ensemble.n_outputs, len(rows), self.ensemble.n_features), np.float32)
            self._explain_batch(rows, values)
            yield self._shaped(values)

    def margin(self, X: Any) -> Float64:
        """The ensemble's own prediction by walking the trees, float64 [n, k]: what attributions add up to."""
        row_count(self.ensemble, X)
        parts = [predict_margin(self.ensemble, rows, threads=self.threads) for rows in batches(self.ensemble, X)]
        return np.concatenate(parts) if parts else np.empty((0, self.ensemble.n_outputs))

    def _shaped(self, values: Float32) -> Float32:
        return values[0] if len(values) == 1 else np.moveaxis(values, 0, 2)

    def _explain_batch(self, rows: npt.NDArray[Any], values: Float32) -> None:
        """Fill values [k, n, d], which hold zeros."""
        if self._interventional is not None:
            explained, _ = self._interventional.explain(rows)
            values[:] = np.moveaxis(explained, 2, 0)
            return
        if rows.dtype == np.float64 and self.ensemble.input_precision == "float64":
            rows, program = self._ranks.encode(rows), self._rank_program
        else:
            program = self._program
            with np.errstate(over="ignore"):
                rows = rows.astype(np.float32, copy=False)
        block = self._block(len(rows), program)
        from xai_assets.explain.treeshap.kernel import kernel_for

        kernel = kernel_for(program.points)

        def run(first: int, last: int) -> None:
            kernel(
                rows, first, last, values, program.operations, program.factors, program.starts,
                program.output_starts, program.used, program.weights, program.depth, program.planes, block,
                program.category_starts, program.category_words, program.category_other_left,
            )  # fmt: skip

        piece = -(-len(rows) // (4 * self.threads * block)) * block  # four pieces per thread even out their ends
        over_threads(run, len(rows), max(piece, block), self.threads)

    def _block(self, rows: int, program: "Program") -> int:
        """Rows that are worked on at a time: as many as keep their planes in the processor's cache."""
        floats = program.planes + 3 * len(program.used) + 2 * (2 * program.depth + 3) * program.points
        fitting = _CACHE_BYTES // (4 * floats) // _LANES * _LANES
        wanted = -(-rows // (self.threads * _LANES)) * _LANES
        return int(max(_LANES, min(256, max(64, fitting), wanted)))

    @cached_property
    def _program(self) -> "Program":
        from xai_assets.explain.treeshap.program import build

        return build(self.ensemble)

    @cached_property
    def _ranks(self) -> "Ranks":
        from xai_assets.explain.treeshap.ranks import ranks_of

        return ranks_of(self.ensemble)

    @cached_property
    def _rank_program(self) -> "Program":
        from xai_assets.explain.treeshap.program import build

        return build(self._ranks.ensemble, self._ranks.zero_low, self._ranks.zero_high)
