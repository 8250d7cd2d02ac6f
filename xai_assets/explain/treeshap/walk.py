"""The compiled walk behind `margin`: importing this module imports numba.

Belongs here: the split rule, one loop over rows and trees. Does not belong here: its interface (see `margin`).
"""

from typing import Any, NamedTuple

import numpy as np

from xai_assets.explain.treeshap.compiled import compiled
from xai_assets.explain.treeshap.ensemble import ZERO

ROWS_PER_BLOCK = 256


class Nodes(NamedTuple):
    """Arrays of a `TreeEnsemble`, under its names."""

    left: Any
    right: Any
    feature: Any
    value: Any
    threshold: Any
    missing_left: Any
    zero_is_missing: Any
    category_set: Any
    category_starts: Any
    category_words: Any
    category_other_left: Any


@compiled()
def goes_left(x: Any, node: Any, nodes: Any) -> Any:
    """The one rule by which a value passes a node; see `TreeEnsemble`. nodes: `Nodes`, or more under those names."""
    if np.isnan(x) or (nodes.zero_is_missing[node] and abs(x) <= ZERO):
        return nodes.missing_left[node]
    chosen = nodes.category_set[node]
    if chosen < 0:
        return x < nodes.threshold[node]
    first = nodes.category_starts[chosen]
    codes = 32 * (nodes.category_starts[chosen + 1] - first)
    if codes > 0 and x > -1 and x < codes:
        code = int(x)
        return (nodes.category_words[first + (code >> 5)] >> np.uint32(code & 31)) & np.uint32(1) == 1
    return nodes.category_other_left[chosen]


@compiled()
def walk(
    X: Any, first_row: int, last_row: int, tree_starts: Any, tree_output: Any, nodes: Any, base_score: Any, margin: Any
) -> None:
    """Fill `margin` [n, k] from `first_row` to before `last_row`.

    Trees outside, rows of a block inside: a tree stays in cache for the block.
    """
    for first in range(first_row, last_row, ROWS_PER_BLOCK):
        last = min(last_row, first + ROWS_PER_BLOCK)
        for row in range(first, last):
            margin[row, :] = base_score
        for tree in range(len(tree_output)):
            output = tree_output[tree]
            for row in range(first, last):
                node = tree_starts[tree]
                while nodes.left[node] >= 0:
                    if goes_left(np.float64(X[row, nodes.feature[node]]), node, nodes):
                        node = nodes.left[node]
                    else:
                        node = nodes.right[node]
                margin[row, output] += nodes.value[node]
