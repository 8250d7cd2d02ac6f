"""The margin of a tree ensemble by walking its trees.

Belongs here: the plain traversal, which knows nothing of Shapley values: what attributions must add up to.
The loop itself is in `walk`, so that importing this module does not import numba.
Does not belong here: attributions (see `kernel`), reading models (see `readers`).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from xai_assets.explain.treeshap.ensemble import Float64, TreeEnsemble
from xai_assets.explain.treeshap.inputs import matrix_of
from xai_assets.explain.treeshap.threads import over_threads

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
        At most so many; None means all processors this process may use.

    Returns
    -------
    float64 [n, k], margin units.

    Raises
    ------
    ModelError
        X does not have d columns, or no numbers.
    """
    from xai_assets.explain.treeshap.walk import (  # imports numba, and loads the compiled loop from its cache
        Nodes,
        walk,
    )

    rows = matrix_of(ensemble, X)
    margin = np.empty((len(rows), ensemble.n_outputs), np.float64)

    nodes = Nodes(*(getattr(ensemble, name) for name in Nodes._fields))

    def fill(first: int, last: int) -> None:
        walk(rows, first, last, ensemble.tree_starts, ensemble.tree_output, nodes, ensemble.base_score, margin)

    over_threads(fill, len(rows), ROWS_PER_TASK, threads)
    return margin
