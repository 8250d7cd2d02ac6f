"""The matrix of requests as explainers take it.

Belongs here: what is refused before a model sees it, and the identity of a background.
Does not belong here: making the matrix out of a table (see `models.encoding`).
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from xai_assets.errors import ModelError
from xai_assets.records import Float32, Float64


def checked(X: Any, names: Sequence[str]) -> Float32:
    """`X` itself where it is float32 [n, len(names)] without infinite values; NaN means missing.

    Raises
    ------
    ModelError
        X is no such matrix. Text, objects and other number types are not converted: what would be guessed here is
        decided by the model's own encoding.

    >>> checked(np.zeros((2, 1), np.float32), ["age"]).shape
    (2, 1)
    """
    matrix = float32_matrix(X, f"float32 [n, {len(names)}]")
    if matrix.ndim != 2 or matrix.shape[1] != len(names):
        shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
        raise ModelError(
            "the matrix does not fit the model",
            expected=f"[n, {len(names)}] in the order {shown}",
            found=str(list(matrix.shape)),
            next_step="make it with Model.encode",
        )
    # Largest and smallest value, missing ones left out, instead of a mask of the whole matrix.
    if any(np.isinf(extreme.reduce(matrix, axis=None, initial=0.0)) for extreme in (np.fmax, np.fmin)):
        raise ModelError(
            f"infinite values of feature '{names[int(np.isinf(matrix).any(axis=0).argmax())]}' cannot be explained",
            next_step="quarantine those requests",
        )
    return matrix


def float32_matrix(X: Any, expected: str) -> Float32:
    """`X` itself where it is a float32 array; ModelError, which names `expected`, where it is not."""
    if not isinstance(X, np.ndarray) or X.dtype != np.float32:
        raise ModelError(
            "only a float32 matrix can be explained",
            expected=expected,
            found=f"{X.dtype} {list(X.shape)}" if isinstance(X, np.ndarray) else type(X).__name__,
            next_step="make it with Model.encode",
        )
    return X


def checked_background(background: Float32 | None, names: Sequence[str], purpose: str) -> Float32:
    """The background, where there is one with at least one row.

    purpose: what it is needed for, completing "a background is needed …".
    """
    if background is not None:
        float32_matrix(background, f"float32 [m, {len(names)}]")
    if background is None or background.size == 0:
        raise ModelError(
            f"a background is needed {purpose}",
            expected=f"some encoded requests, float32 [m, {len(names)}]",
            found="none" if background is None else "no rows",
            next_step="pass background=, for example Model.encode of a hundred requests of the reference days",
        )
    return checked(background, names)


def background_digest(background: Float32 | Float64) -> str:
    """16 hex digits that identify a background's values, their order included; ModelError for all but float arrays.

    The kernel alone takes float64 backgrounds too; explainers refuse them in `checked_background`.

    >>> background_digest(np.zeros((2, 1), np.float32)) == background_digest(np.zeros((1, 2), np.float32))
    False
    """
    if not isinstance(background, np.ndarray) or background.dtype != np.float64:
        float32_matrix(background, "float32 [m, d]")
    digest = hashlib.sha256(str(background.shape).encode())
    digest.update(np.ascontiguousarray(background).tobytes())
    return digest.hexdigest()[:16]


def finite_margin(margin: Float64, next_step: str) -> Float64:
    """The margin itself; ModelError where the model gave no number, which is how many models take a missing value."""
    broken = int(np.count_nonzero(~np.isfinite(margin)))
    if broken:
        raise ModelError(
            "the model's prediction is not a finite number, so there is nothing to explain",
            expected="a finite margin for every request",
            found=f"{broken} of {len(margin)} requests without one",
            next_step=next_step,
        )
    return margin
