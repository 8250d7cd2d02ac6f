"""Rows that a model or an explainer refuses, told apart from those it takes.

Belongs here: finding them. Does not belong here: what becomes of them (see `attribution`, `background`,
`service_levels`).

Models and explainers refuse a whole matrix for one row that they cannot take (a missing value in a logistic
regression). One request must not cost a day its explanations.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from xai_assets.errors import ModelError
from xai_assets.explain.protocol import Explainer
from xai_assets.records import Attributions, Float32, Float64

Result = TypeVar("Result")


def accepted_parts(
    compute: Callable[[Float32], Result], X: Float32
) -> tuple[list[tuple[slice, Result]], ModelError | None]:
    """Results of the parts of X that `compute` takes, in order, and why it did not take the whole (None where it did).

    What is refused is halved until single rows are left: no further call where nothing is refused, about 2 log₂ n
    calls per refused row where few are, 2 n calls at most. Every accepted row is computed once.

    X: [n, d]. compute: raises ModelError on a matrix with a row that it cannot take; other errors are not caught.

    >>> def strict(X):
    ...     if np.isnan(X).any():
    ...         raise ModelError("missing")
    ...     return X[:, 0].tolist()
    >>> parts, error = accepted_parts(strict, np.array([[1], [2], [np.nan], [4]], np.float32))
    >>> [(part.start, part.stop, found) for part, found in parts], error is None
    ([(0, 2, [1.0, 2.0]), (3, 4, [4.0])], False)
    """
    found: list[tuple[slice, Result]] = []
    first: ModelError | None = None
    open_parts = [slice(0, len(X))]
    while open_parts:
        part = open_parts.pop()
        try:
            found.append((part, compute(X[part])))
        except ModelError as error:
            first = first or error
            if part.stop - part.start > 1:
                middle = (part.start + part.stop) // 2
                open_parts += [slice(middle, part.stop), slice(part.start, middle)]
    return found, first


def explain_accepted(explainer: Explainer, X: Float32) -> tuple[Attributions, ModelError | None]:
    """Attributions of X, NaN in everything of a refused row, and why rows were refused (None where none was)."""
    parts, error = accepted_parts(explainer.explain, X)
    if error is None:
        return parts[0][1], None
    nothing = np.full(len(X), np.nan)
    whole = Attributions(np.full(X.shape, np.nan, np.float32), nothing, nothing.copy())
    for part, found in parts:
        whole.values[part], whole.base_value[part], whole.margin[part] = found.values, found.base_value, found.margin
    return whole, error


def accepted_margins(model: Any, X: Float32) -> Float64:
    """The model's margins, float64 [n]; NaN where it refuses the row."""
    margins = np.full(len(X), np.nan)
    for part, found in accepted_parts(model.predict_margin, X)[0]:
        margins[part] = found
    return margins


def predictable(model: Any, X: Float32) -> npt.NDArray[np.bool_]:
    """Rows with a finite margin and without infinite values (which no explainer takes), bool [n]."""
    return np.asarray(np.isfinite(accepted_margins(model, X)) & ~np.isinf(X).any(axis=1))
