"""The compiled walk behind `margin`: importing this module imports numba.

Belongs here: one loop over rows and trees. Does not belong here: its interface (see `margin`).
"""

import math
from typing import Any

import numpy as np

from xai_assets.explain.treeshap.compiled import compiled
from xai_assets.explain.treeshap.ensemble import ZERO

ROWS_PER_BLOCK = 256


@compiled()
def goes_left(
    x: float,
    node: int,
    threshold: Any,
    missing_left: Any,
    zero_is_missing: Any,
    category_set: Any,
    category_starts: Any,
    category_words: Any,
    category_other_left: Any,
) -> bool:
    """Where a value goes at an inner node; the rules are those of `TreeEnsemble`."""
    if math.isnan(x) or (zero_is_missing[node] and abs(x) <= ZERO):
        return missing_left[node]  # type: ignore[no-any-return]
    own = category_set[node]
    if own < 0:
        return x < threshold[node]  # type: ignore[no-any-return]
    first = category_starts[own]
    limit = 32.0 * (category_starts[own + 1] - first)
    code = math.trunc(x) if abs(x) < 4e18 else -1
    if code < 0 or code >= limit:
        return category_other_left[own]  # type: ignore[no-any-return]
    return (category_words[first + (code >> 5)] >> np.uint32(code & 31)) & np.uint32(1) != 0  # type: ignore[no-any-return]


@compiled()
def walk(
    X: Any,
    first_row: int,
    last_row: int,
    tree_starts: Any,
    tree_output: Any,
    left: Any,
    right: Any,
    feature: Any,
    threshold: Any,
    missing_left: Any,
    zero_is_missing: Any,
    category_set: Any,
    category_starts: Any,
    category_words: Any,
    category_other_left: Any,
    value: Any,
    base_score: Any,
    margin: Any,
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
                while left[node] >= 0:
                    if goes_left(
                        np.float64(X[row, feature[node]]),
                        node,
                        threshold,
                        missing_left,
                        zero_is_missing,
                        category_set,
                        category_starts,
                        category_words,
                        category_other_left,
                    ):
                        node = left[node]
                    else:
                        node = right[node]
                margin[row, output] += value[node]
