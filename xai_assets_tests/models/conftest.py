"""One small table and models trained on it by XGBoost itself, not by the code under test."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import xgboost

from xai_assets.records import FeatureSpec

LEVELS = ("pear", "apple", "fig")  # not in alphabetical order, so that sorting would show
FEATURES = (
    FeatureSpec("size", "numeric"),
    FeatureSpec("fruit", "categorical"),
    FeatureSpec("ripe", "boolean"),
    FeatureSpec("unused", "numeric"),
)


@pytest.fixture(scope="session")
def table() -> pl.DataFrame:
    """600 rows with missing values; `label` follows size, fruit and ripe."""
    rng = np.random.default_rng(0)
    n = 600
    size, fruit, ripe = rng.normal(size=n), rng.integers(0, 3, n), rng.random(n) < 0.5
    label = (size + 1.5 * (fruit == 0) + ripe + rng.normal(size=n) > 1).astype(float)
    missing = rng.random((n, 3)) < 0.1
    return pl.DataFrame(
        {
            "size": np.where(missing[:, 0], np.nan, size),
            "fruit": [None if m else LEVELS[c] for m, c in zip(missing[:, 1], fruit, strict=True)],
            "ripe": [None if m else bool(v) for m, v in zip(missing[:, 2], ripe, strict=True)],
            "unused": rng.normal(size=n),
            "label": label,
        }
    )


@pytest.fixture(scope="session")
def codes(table: pl.DataFrame) -> np.ndarray:
    """size, fruit code, ripe as float32 [600, 3], by hand."""
    fruit = [np.nan if v is None else LEVELS.index(v) for v in table["fruit"]]
    ripe = [np.nan if v is None else float(v) for v in table["ripe"]]
    return np.column_stack([table["size"].to_numpy(), fruit, ripe]).astype(np.float32)


def pandas_matrix(table: pl.DataFrame) -> xgboost.DMatrix:
    """From a pandas frame: the model stores the levels."""
    frame = pd.DataFrame(
        {
            "size": table["size"].to_numpy(),
            "fruit": pd.Categorical(table["fruit"].to_list(), categories=LEVELS),
            "ripe": np.array([np.nan if v is None else float(v) for v in table["ripe"]]),
        }
    )
    return xgboost.DMatrix(frame, label=table["label"].to_numpy(), enable_categorical=True)


def coded_matrix(codes: np.ndarray, label: np.ndarray, *, named: bool = True) -> xgboost.DMatrix:
    """From codes: the model stores no levels."""
    names = ["size", "fruit", "ripe"] if named else None
    return xgboost.DMatrix(
        codes, label=label, feature_names=names, feature_types=["float", "c", "float"], enable_categorical=True
    )
