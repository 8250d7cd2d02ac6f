"""Rows that find a reader's mistakes, and what every read ensemble must satisfy.

Test modules cannot import each other, so every function is a fixture that returns it.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

from xai_assets.explain.treeshap.ensemble import TreeEnsemble
from xai_assets.explain.treeshap.margin import predict_margin

CODES = [*range(-3, 45), 63, 64, 70, 127, 1e6, 1e9, 3e9]
ZEROS = [0.0, -0.0, 1e-35, -1e-35, 1.1e-35, -1.1e-35, float(np.float32(1e-35)), -float(np.float32(1e-35)), 1e-40]
FAR = [1e30, -1e30, 1e35, -1e35]  # sums of a few stay finite in float32, as scikit-learn asks


def edge_rows(
    ensemble: TreeEnsemble,
    rng: np.random.Generator,
    *,
    categorical: Iterable[int] = (),
    fractions: Iterable[float] = (),
    missing: bool = True,
    infinite: bool = False,
    rows: int = 300,
) -> np.ndarray:
    """float64 [rows, d]: the thresholds themselves, their neighbours in float32 and float64, zeros, far values, NaN."""
    columns = []
    numeric = (ensemble.left >= 0) & (ensemble.category_set < 0) & np.isfinite(ensemble.threshold)
    for feature in range(ensemble.n_features):
        if feature in tuple(categorical):
            pool = np.array([*CODES, *fractions], np.float64)
        else:
            at = ensemble.threshold[numeric & (ensemble.feature == feature)]
            at = at[np.abs(at) < 1e37]
            single = at.astype(np.float32)
            around = [np.nextafter(a, np.asarray(to, a.dtype)) for a in (at, single) for to in (np.inf, -np.inf)]
            pool = np.concatenate([at, single, *around, rng.normal(size=9), ZEROS, FAR])
            pool = np.append(pool, [np.inf, -np.inf, 3.4e38, -3.4e38, 1e300]) if infinite else pool
        column = rng.choice(pool, rows)
        columns.append(np.where(rng.random(rows) < 0.15 * missing, np.nan, column))
    return np.stack(columns, axis=1)


def check_reading(ensemble: TreeEnsemble, X: np.ndarray, expected: Any, tolerance: float = 1e-12) -> None:
    """The margin is the library's, every node is reached, covers add up."""
    expected = np.asarray(expected, np.float64).reshape(len(X), -1)
    found = predict_margin(ensemble, X)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(1.0, float(np.abs(expected).max())))
    inner = ensemble.left >= 0
    children = ensemble.cover[ensemble.left[inner]] + ensemble.cover[ensemble.right[inner]]
    np.testing.assert_allclose(children, ensemble.cover[inner], rtol=1e-5)
    assert (ensemble.value[inner] == 0).all()
    assert ((ensemble.feature[inner] >= 0) & (ensemble.feature[inner] < ensemble.n_features)).all()


@pytest.fixture(name="edge_rows", scope="session")
def _edge_rows() -> Callable[..., np.ndarray]:
    return edge_rows


@pytest.fixture(name="check_reading", scope="session")
def _check_reading() -> Callable[..., None]:
    return check_reading
