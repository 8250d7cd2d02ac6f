"""Counting attributions into the reference's cells: one pass over the rows, blocks that add.

Belongs here: empty blocks, accumulation, addition, window totals. Does not belong here: choosing borders (see
`edges`), distances between histograms (see `drift`).
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

from xai_assets.errors import StatisticsError, nearest
from xai_assets.records import Edges, Float64, HistogramBlock
from xai_assets.stats.counting import sum_by_cell

_CELL_ARRAYS = ("row_count", "weight", "weight_squared", "phi_sum")
_MOMENT_ARRAYS = ("abs_sum", "squared_sum")


def empty_block(segments: Sequence[str], edges: Sequence[Edges]) -> HistogramBlock:
    """Zeros for S segments × d features × K cells, K being the largest number of cells of any feature.

    >>> block = empty_block(["overall"], [Edges("age", np.array([0.0, 50.0, 100.0]))])
    >>> block.weight.shape
    (1, 1, 5)
    """
    names = tuple(segments)
    if len(set(names)) < len(names):
        raise StatisticsError("segments of a block repeat", expected="different names", found=", ".join(names))
    shape = (len(names), len(edges), max((e.cells for e in edges), default=3))
    cells = {name: np.zeros(shape) for name in _CELL_ARRAYS}
    moments = {name: np.zeros(shape[:2]) for name in _MOMENT_ARRAYS}
    return HistogramBlock(names, tuple(e.feature for e in edges), **cells, **moments)


def accumulate(
    block: HistogramBlock,
    edges: Sequence[Edges],
    values: npt.NDArray[np.floating],
    weights: npt.NDArray[np.floating],
    segment_codes: npt.NDArray[np.integer],
) -> None:
    """Add rows to `block`, in place.

    Parameters
    ----------
    block, edges
        Where to count, and the borders it was made with (`empty_block`).
    values
        float [n, d]. NaN goes to the null cell; an infinity to below or above, and into no sum of φ.
        float32 is compared with the borders in float64.
    weights
        float [n], w = 1/π: finite and ≥ 0.
    segment_codes
        integer [n, C]: position in `block.segments`, or −1 for none. A column of the code of `overall` belongs
        to it; nothing is added to `overall` by itself.

    Raises
    ------
    StatisticsError
        On shapes that do not fit, codes outside the block, or weights that are negative or not finite.
        The block is then unchanged.

    Notes
    -----
    One thread, rows in order: the sums do not depend on the machine. 1,000,000 rows × 50 features × 4 segment
    columns take about 2 s after the first call has compiled the kernel.
    """
    weight = _check_rows(block, edges, values, weights, segment_codes)
    sums = sum_by_cell(edges, values, weight, segment_codes, len(block.segments))
    for position, name in enumerate(_CELL_ARRAYS):
        getattr(block, name)[...] += sums[..., position]
    for position, name in enumerate(_MOMENT_ARRAYS, start=len(_CELL_ARRAYS)):
        getattr(block, name)[...] += sums[..., position].sum(axis=2)


def check_weight(block: HistogramBlock, what: str) -> None:
    """Refuse rows that all weigh nothing: no share, mean or distance of them is defined.

    A block without rows passes, and so does one in which some row has weight. `what` is for the message.

    Raises
    ------
    StatisticsError
        Where the block has rows and every weight is 0.
    """
    rows = block.row_count.sum(axis=2)
    if rows.any() and not block.weight.any():
        raise StatisticsError(
            f"all weights of {what} are zero",
            expected="weights 1/π of which some are above 0",
            found=f"{rows.max():.0f} rows of total weight 0",
            next_step="look at inclusion_probability in divergence_set, and materialize it again",
        )


def null_rows(block: HistogramBlock, edges: Sequence[Edges], segment: str) -> Float64:
    """Rows of one segment without a value, per feature: float64 [d]."""
    at = segment_position(block, segment)
    return np.array([block.row_count[at, j, e.inner_cells + 2] for j, e in enumerate(edges)], dtype=np.float64)


def add_blocks(a: HistogramBlock, b: HistogramBlock) -> HistogramBlock:
    """Sum of two blocks over the same features and borders; a segment known to one only is kept.

    Segments come in the order of `a`, then those that only `b` has.
    """
    if a.features != b.features or a.weight.shape[2] != b.weight.shape[2]:
        raise StatisticsError(
            "blocks with other features or borders cannot be added",
            expected=f"{a.features} with {a.weight.shape[2]} cells",
            found=f"{b.features} with {b.weight.shape[2]} cells",
        )
    names = a.segments + tuple(s for s in b.segments if s not in set(a.segments))
    left, right = align_segments(a, names), align_segments(b, names)
    sums = {name: getattr(left, name) + getattr(right, name) for name in (*_CELL_ARRAYS, *_MOMENT_ARRAYS)}
    return HistogramBlock(names, a.features, **sums)


def align_segments(block: HistogramBlock, segments: Sequence[str]) -> HistogramBlock:
    """The same block with its segments in the order of `segments`; missing ones are zeros, others are dropped."""
    if tuple(segments) == block.segments:
        return block
    where = {name: i for i, name in enumerate(block.segments)}
    taken = np.array([where.get(s, -1) for s in segments], dtype=np.int64)
    arrays: dict[str, Any] = {}
    for f in fields(block):
        if f.name not in ("segments", "features"):
            source: Float64 = getattr(block, f.name)
            arrays[f.name] = np.zeros((len(taken), *source.shape[1:]))
            arrays[f.name][taken >= 0] = source[taken[taken >= 0]]
    return HistogramBlock(tuple(segments), block.features, **arrays)


def segment_position(block: HistogramBlock, segment: str) -> int:
    """Index of a segment by name; StatisticsError names the nearest one."""
    if segment not in block.segments:
        raise StatisticsError(f"segment '{segment}' is not in the block", next_step=nearest(segment, block.segments))
    return block.segments.index(segment)


def _check_rows(
    block: HistogramBlock,
    edges: Sequence[Edges],
    values: npt.NDArray[np.floating],
    weights: npt.NDArray[np.floating],
    codes: npt.NDArray[np.integer],
) -> Float64:
    names = tuple(e.feature for e in edges)
    if names != block.features or max((e.cells for e in edges), default=3) != block.weight.shape[2]:
        raise StatisticsError("borders are not those of the block", expected=str(block.features), found=str(names))
    if values.ndim != 2 or values.shape[1] != len(names):
        raise StatisticsError("values have the wrong shape", expected=f"[n, {len(names)}]", found=str(values.shape))
    weight = np.ascontiguousarray(weights, dtype=np.float64)
    wrong = ~(np.isfinite(weight) & (weight >= 0))
    if weight.shape != (len(values),) or wrong.any():
        found = f"{np.count_nonzero(wrong)} negative or not finite, of {list(weight.shape)}"
        raise StatisticsError("weights are wrong", expected=f"{len(values)} finite numbers from 0", found=found)
    if codes.ndim != 2 or len(codes) != len(values):
        raise StatisticsError(
            "segment codes have the wrong shape", expected=f"[{len(values)}, C]", found=str(codes.shape)
        )
    if codes.size and (codes.min() < -1 or codes.max() >= len(block.segments)):
        raise StatisticsError(
            "a segment code is outside the block",
            expected=f"-1…{len(block.segments) - 1}",
            found=f"{codes.min()}…{codes.max()}",
        )
    return weight
