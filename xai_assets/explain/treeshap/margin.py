"""The margin of a tree ensemble by walking its trees.

Belongs here: the plain traversal, which knows nothing of Shapley values: what attributions must add up to.
The loop itself is in `walk`, so that importing this module does not import numba.
Does not belong here: attributions (see `kernel`), reading models (see `readers`).
"""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from xai_assets.explain.treeshap.ensemble import Float64, TreeEnsemble
from xai_assets.explain.treeshap.inputs import matrix_of

ROWS_PER_TASK = 4096
"""Fewer rows are not worth a thread."""


def predict_margin(ensemble: TreeEnsemble, X: npt.NDArray[Any], *, threads: int | None = None) -> Float64:
    """The margin of each row and output, summed in float64 in the order of the trees, whatever the threads.

    Parameters
    ----------
    ensemble
        k outputs over d features.
    X
        Any real numbers [n, d], NaN where missing; rounded to float32 first where the library does so.
    threads
        None means one per core. (Threads of its own: numba's share one pool, which may end the process when two
        callers enter it at once.)

    Returns
    -------
    float64 [n, k], margin units.

    Raises
    ------
    ModelError
        X does not have d columns, or no numbers.
    """
    from xai_assets.explain.treeshap.walk import walk  # imports numba, and loads the compiled loop from its cache

    rows = matrix_of(ensemble, X)
    margin = np.empty((len(rows), ensemble.n_outputs), np.float64)

    def fill(first: int) -> None:
        walk(
            rows,
            first,
            min(first + ROWS_PER_TASK, len(rows)),
            ensemble.tree_starts,
            ensemble.tree_output,
            ensemble.left,
            ensemble.right,
            ensemble.feature,
            ensemble.threshold,
            ensemble.missing_left,
            ensemble.zero_is_missing,
            ensemble.category_set,
            ensemble.category_starts,
            ensemble.category_words,
            ensemble.category_other_left,
            ensemble.value,
            ensemble.base_score,
            margin,
        )

    tasks = range(0, len(rows), ROWS_PER_TASK)
    if len(tasks) <= 1:
        for first in tasks:
            fill(first)
        return margin
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        list(pool.map(fill, tasks))
    return margin
