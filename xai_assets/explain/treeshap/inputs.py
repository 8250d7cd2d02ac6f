"""Requests as a caller has them: numpy, polars or Arrow, in batches of a matrix.

Belongs here: which inputs are taken, which are refused, and how they are read without copying the whole.
Does not belong here: what a number means to a model (see `ranks`, `program`).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from xai_assets.errors import ModelError, nearest
from xai_assets.explain.treeshap.ensemble import FLOAT32_ROWS_ONLY, TreeEnsemble

Matrix = npt.NDArray[Any]
BATCH_ROWS = 65_536


def row_count(ensemble: TreeEnsemble, X: Any) -> int:
    """Number of rows of X, once it is known to fit the ensemble.

    Raises
    ------
    ModelError
        X is no matrix or table of numbers with the ensemble's features.
    """
    if isinstance(X, np.ndarray):
        _check_matrix(ensemble, X)
        return len(X)
    table = _as_polars(X)
    _columns(ensemble, table)
    return int(table.height)


def batches(ensemble: TreeEnsemble, X: Any, rows: int = BATCH_ROWS) -> Iterator[Matrix]:
    """X as matrices float32 or float64 [≤ rows, d] in the ensemble's feature order; NaN where missing.

    A numpy matrix of float32 or float64 is cut into views. Columns of a table are taken by name where the ensemble
    knows its features' names, whatever their order; other columns are ignored. Nulls become NaN.
    """
    if isinstance(X, np.ndarray):
        _check_matrix(ensemble, X)
        for start in range(0, len(X), rows):
            part = X[start : start + rows]
            yield part if part.dtype in (np.float32, np.float64) else part.astype(np.float64)
        return
    table = _as_polars(X)
    names = _columns(ensemble, table)
    for start in range(0, table.height, rows):
        yield _matrix(table.slice(start, rows), names)


def matrix_of(ensemble: TreeEnsemble, X: Any, name: str = "matrix") -> Matrix:
    """X as a C-ordered matrix of the precision in which the ensemble compares: float64 only where both have it."""
    rows = np.asanyarray(X)
    _check_matrix(ensemble, rows, name)
    narrow = ensemble.input_precision != "float64" or rows.dtype == np.float32
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(rows, dtype=np.float32 if narrow else np.float64)


def _check_matrix(ensemble: TreeEnsemble, X: Matrix, name: str = "matrix") -> None:
    if np.ma.isMaskedArray(X):
        raise ModelError(f"the {name} is a masked array", next_step="fill masked values with NaN: X.filled(np.nan)")
    if X.ndim != 2 or X.shape[1] != ensemble.n_features or X.dtype.kind not in "fiub":
        raise ModelError(
            f"the {name} does not fit the model",
            expected=f"numbers [n, {ensemble.n_features}]" + _order(ensemble.feature_names),
            found=f"{X.dtype} {list(X.shape)}",
            next_step="encode text and categories as the model's training did, missing values as NaN",
        )
    _check_precision(ensemble, X.dtype == np.float32)


def _check_precision(ensemble: TreeEnsemble, is_float32: bool) -> None:
    if ensemble.input_precision == FLOAT32_ROWS_ONLY and not is_float32:
        raise ModelError(
            "one of the stacked models rounds its inputs to float32, another one does not, and they split by category",
            expected="float32 rows",
            found="rows of another precision",
            next_step="convert the rows to float32, or explain the models one by one",
        )


def _order(names: tuple[str, ...]) -> str:
    return f" in the order {', '.join(names[:20])}{', …' if len(names) > 20 else ''}" if names else ""


def _as_polars(X: Any) -> Any:
    import polars as pl

    kind = type(X).__module__.partition(".")[0]
    if kind == "pyarrow":
        X = pl.from_arrow(X)
    if kind == "pandas":
        X = pl.from_pandas(X)
    if isinstance(X, pl.DataFrame):
        return X
    raise ModelError(
        "these rows cannot be read",
        expected="a numpy matrix, or a polars, Arrow or pandas table",
        found=f"{type(X).__module__}.{type(X).__qualname__}",
    )


def _columns(ensemble: TreeEnsemble, table: Any) -> list[str]:
    names = list(ensemble.feature_names) or list(table.columns)
    if len(names) != ensemble.n_features:
        raise ModelError(
            "the table does not fit the model, which has no feature names",
            expected=f"exactly {ensemble.n_features} columns, in the model's order",
            found=f"{len(names)} columns",
        )
    for name in names:
        if name not in table.columns:
            raise ModelError(f"feature '{name}' is not in the table", next_step=nearest(name, table.columns))
        kind = table.schema[name]
        if not kind.is_numeric() and str(kind) not in ("Boolean", "Null"):
            raise ModelError(
                f"column '{name}' does not hold numbers",
                expected="numbers; categories as the model's codes",
                found=str(kind),
                next_step="encode it as the model's training did",
            )
    _check_precision(ensemble, all(str(table.schema[name]) == "Float32" for name in names))
    return names


def _matrix(table: Any, names: list[str]) -> Matrix:
    import polars as pl

    precision = pl.Float32 if all(table.schema[name] == pl.Float32 for name in names) else pl.Float64
    plain = table.select(pl.nth(table.columns.index(name)).alias(str(i)) for i, name in enumerate(names))
    # By place and under plain names: a feature may be called "*", which polars takes for a pattern.
    columns = [pl.col(name).cast(precision).fill_null(float("nan")) for name in plain.columns]
    matrix: Matrix = plain.select(columns).to_numpy(order="fortran")
    return matrix
