"""One compiled pass over rows: sums per segment, feature and cell.

Belongs here: the loop that histograms and residuals share, and how it is compiled. Does not belong here: what the
sums mean (see `histograms`, `residuals`). The cell of a value follows `cells.cell_numbers`.
"""

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xai_assets.records import Edges, Float64

_log = logging.getLogger(__name__)
_CHUNK_ROWS = 8_192
_LINE = 8
"""Numbers per cell: a cell's sums share one cache line; separate arrays would cost one each."""


def sum_by_cell(
    edges: Sequence[Edges],
    values: npt.NDArray[Any],
    weights: Float64,
    segment_codes: npt.NDArray[Any],
    segments: int,
    quantities: Float64 | None = None,
) -> Float64:
    """Sums [S, d, K, 8] over rows, K being the largest number of cells of any feature.

    Parameters
    ----------
    edges
        Borders of the d features.
    values
        numbers [n, d]; compared with the borders in float64.
    weights
        float64 [n].
    segment_codes
        integer [n, C], below `segments`; −1 for none. Not checked.
    segments
        S.
    quantities
        float64 [n, Q], Q ≤ 8: what is summed, in the first Q places. Without it 1, w, w², wφ, w|φ|, wφ² in the
        first six places, φ being the value itself (0 where it is not finite).

    Notes
    -----
    One thread, rows in order: the sums are the same on every machine. Memory beyond the result is one chunk.
    """
    cuts, lengths = _padded_cuts(edges)
    floats = values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)
    codes = np.ascontiguousarray(segment_codes, dtype=np.int32)
    summed = np.empty((len(floats), 0)) if quantities is None else quantities
    sums = np.zeros((len(edges), segments, max((e.cells for e in edges), default=3), _LINE))
    kernel = _kernel()
    for start in range(0, len(floats), _CHUNK_ROWS):
        rows = slice(start, start + _CHUNK_ROWS)
        by_feature = np.ascontiguousarray(floats[rows].T)
        kernel(by_feature, weights[rows], summed[rows], codes[rows], cuts, lengths, sums)
    return sums.transpose(1, 0, 2, 3)


def _sum_rows(
    values: Any, weights: Any, quantities: Any, codes: Any, cuts: Any, lengths: Any, sums: Any
) -> None:  # compiled by `_kernel`; plain loops on purpose
    features, rows = values.shape
    columns, extra = codes.shape[1], quantities.shape[1]
    steps = (cuts.shape[1] + 1) // 2
    for j in range(features):
        length = lengths[j]
        inner = max(length - 1, 0)
        for i in range(rows):
            x = float(values[j, i])
            phi = x if np.isfinite(x) else 0.0
            if np.isnan(x):
                cell = inner + 2
            elif length == 0 or x > cuts[j, length - 1]:
                cell = inner + 1
            elif x < cuts[j, 0]:
                cell = 0
            elif x == cuts[j, length - 1]:
                cell = inner
            else:
                # Number of cuts up to x, without branches that depend on it: half of them would be guessed wrong.
                cell = 0
                step = steps
                while step > 0:
                    cell += step * (cuts[j, cell + step - 1] <= x)
                    step //= 2
            w = weights[i]
            for c in range(columns):
                g = codes[i, c]
                if g >= 0:
                    target = sums[j, g, cell]
                    if extra > 0:
                        for q in range(extra):
                            target[q] += quantities[i, q]
                    else:
                        target[0] += 1.0
                        target[1] += w
                        target[2] += w * w
                        target[3] += w * phi
                        target[4] += w * abs(phi)
                        target[5] += w * phi * phi


@functools.cache
def _kernel() -> Callable[..., None]:
    """The compiled loop. Where no cache folder can be written it is compiled for this process alone."""
    import numba

    rows = (np.zeros((1, 1), np.float32), np.ones(1), np.empty((1, 0)), np.zeros((1, 1), np.int32))
    into = (np.zeros((1, 3)), np.array([2]), np.zeros((1, 1, 4, _LINE)))
    try:
        kernel = numba.njit(cache=True, nogil=True)(_sum_rows)
        kernel(*rows, *into)
    except (RuntimeError, OSError) as problem:
        _log.warning("the histogram kernel is compiled anew in each process: its cache cannot be used (%s)", problem)
        kernel = numba.njit(nogil=True)(_sum_rows)
        kernel(*rows, *into)
    compiled: Callable[..., None] = kernel
    return compiled


def _padded_cuts(edges: Sequence[Edges]) -> tuple[Float64, npt.NDArray[np.int64]]:
    """Borders side by side, filled up with infinity to 2^k − 1, which the halving search of the loop needs."""
    lengths = np.array([len(e.cuts) for e in edges], dtype=np.int64)
    longest = max(int(lengths.max(initial=0)), 1)
    cuts = np.full((len(edges), 2 ** longest.bit_length() - 1), np.inf)
    for j, e in enumerate(edges):
        cuts[j, : len(e.cuts)] = e.cuts
    return cuts, lengths
