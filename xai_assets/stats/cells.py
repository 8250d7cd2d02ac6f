"""Which cell a value belongs to: the convention of `records.Edges`, in numpy.

Belongs here: the cell of a value. Does not belong here: counting (see `counting`, whose compiled loop follows the same
convention and is tested against this one), choosing borders (see `edges`).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from xai_assets.records import Edges, Int64


def cell_numbers(edges: Edges, values: npt.NDArray[np.floating[Any]]) -> Int64:
    """Cell of each value, integer [n]: 0 below, 1…B inner, B+1 above, B+2 null.

    Values are compared in float64. Infinities are below or above.

    >>> cell_numbers(Edges("x", np.array([0.0, 1.0, 2.0])), np.array([-1.0, 0.0, 1.0, 2.0, 3.0, np.nan]))
    array([0, 1, 2, 2, 3, 4])
    """
    x = np.asarray(values, dtype=np.float64)
    inner = edges.inner_cells
    cell = np.searchsorted(edges.cuts, x, side="right") if inner else np.ones(x.shape, dtype=np.int64)
    if inner:
        cell = np.where(x == edges.cuts[-1], inner, cell)
    return np.asarray(np.where(np.isnan(x), inner + 2, cell), dtype=np.int64)
