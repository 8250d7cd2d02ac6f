"""Models as explainers take them: the library's object, its own prediction, an identity."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xgboost


class Explainable:
    """What `explain` asks of a model, without the loading of files. Predictions are the library's own."""

    def __init__(self, kind: str, native: Any, margin: Callable[[Any], Any], features: int, sha256: str) -> None:
        self.kind, self.native, self.sha256, self._margin = kind, native, sha256, margin
        self.feature_names = tuple(f"f{i}" for i in range(features))
        self.calls = 0

    def predict_margin(self, X: np.ndarray) -> np.ndarray:
        self.calls += 1
        if len(X) == 0:
            return np.empty(0)
        return np.asarray(self._margin(X), dtype=np.float64).reshape(len(X))


@pytest.fixture(scope="session")
def of_booster() -> Callable[[Any], Explainable]:
    """An XGBoost booster."""

    def wrap(booster: Any) -> Explainable:
        digest = hashlib.sha256(bytes(booster.save_raw("ubj"))).hexdigest()

        def margin(X: np.ndarray) -> np.ndarray:
            names, types = booster.feature_names, booster.feature_types
            matrix = xgboost.DMatrix(X, feature_names=names, feature_types=types, enable_categorical=True)
            return booster.predict(matrix, output_margin=True)

        return Explainable("xgboost", booster, margin, booster.num_features(), digest)

    return wrap


_MADE = iter(range(10**9))


@pytest.fixture(scope="session")
def of_sklearn() -> Callable[[Any], Explainable]:
    """A fitted scikit-learn estimator: decision function, value, or the probability of a forest."""

    def wrap(estimator: Any) -> Explainable:
        def margin(X: np.ndarray) -> np.ndarray:
            rows = X.astype(np.float64)
            if hasattr(estimator, "decision_function"):
                return estimator.decision_function(rows)
            if hasattr(estimator, "predict_proba"):
                return estimator.predict_proba(rows)[:, 1]
            return estimator.predict(rows)

        return Explainable("sklearn", estimator, margin, estimator.n_features_in_, f"sklearn {next(_MADE)}")

    return wrap


@pytest.fixture(scope="session")
def of_function() -> Callable[..., Explainable]:
    """Any function of a matrix; kinds `callable`, `torch`, `lightgbm` … with the library's object in `native`."""

    def wrap(margin: Callable[[Any], Any], features: int, kind: str = "callable", native: Any = None) -> Explainable:
        return Explainable(kind, native, margin, features, f"{kind} {next(_MADE)}")

    return wrap
