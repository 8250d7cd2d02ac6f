"""LIME: a linear model fitted around one request. For looking at single requests, not for the daily path.

Belongs here: the call and its translation into attributions. Does not belong here: anything that is stored.

Perturbed copies of the request are drawn around the background, weighted by their distance to it, and a ridge
regression is fitted to the model's margins (Ribeiro, Singh and Guestrin, "Why should I trust you?", 2016). The
attribution of feature j is its coefficient times its standardised value, the base value is the intercept. They add up
to the surrogate's prediction, not the model's: how far apart the two are shows as additivity error.
"""

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from xai_assets.errors import ModelError
from xai_assets.explain.matrix import background_digest, checked, checked_background, finite_margin
from xai_assets.explain.protocol import ExplainableModel
from xai_assets.records import Attributions, Float32, Float64

VERSION = "1"
SAMPLES = 5_000
"""Perturbed copies per request."""


@dataclass(frozen=True, eq=False)
class LimeExplainer:
    """`lime.lime_tabular` without discretisation, on the margin scale."""

    model: ExplainableModel
    background: Float32
    background_hash: str
    seed: int
    id: str = "lime"
    is_exact: bool = False
    is_fast: bool = False

    @property
    def version(self) -> str:
        from importlib.metadata import version

        return f"{VERSION} lime-{version('lime')}"

    @classmethod
    def build(cls, model: ExplainableModel, background: Float32 | None, seed: int) -> "LimeExplainer":
        """Raises ModelError without lime, or without a background free of missing values."""
        _lime()
        rows = checked_background(background, model.feature_names, "by LIME, to draw perturbed requests around")
        _refuse_missing(rows)
        return cls(model, np.ascontiguousarray(rows), background_digest(rows), seed)

    def explain(self, X: Float32) -> Attributions:
        """Attributions of float32 [n, d]; `SAMPLES` predictions per request."""
        checked(X, self.model.feature_names)
        _refuse_missing(X)
        values, base = np.empty(X.shape, np.float32), np.empty(len(X))
        for i, row in enumerate(X):
            base[i], values[i] = self._one(row)
        margin = finite_margin(self.model.predict_margin(X), "look at the request's values") if len(X) else np.empty(0)
        return Attributions(values, base, margin)

    def _one(self, row: Float32) -> tuple[float, Float64]:
        surrogate = _lime().LimeTabularExplainer(
            self.background.astype(np.float64),
            mode="regression",
            discretize_continuous=False,
            random_state=zlib.crc32(row.tobytes(), self.seed & 0xFFFFFFFF),
        )
        found = surrogate.explain_instance(
            row.astype(np.float64), self._predict, num_features=row.size, num_samples=SAMPLES
        )
        standardised = (row - surrogate.scaler.mean_) / surrogate.scaler.scale_
        coefficients = np.zeros(row.size)
        # Of a regression LIME gives two labels: 1 is the function, 0 the same with its signs turned.
        for feature, coefficient in found.as_map()[1]:
            coefficients[feature] = coefficient
        return float(np.ravel(found.intercept[1])[0]), coefficients * standardised

    def _predict(self, X: Any) -> Float64:
        return self.model.predict_margin(np.ascontiguousarray(X, dtype=np.float32))


def _refuse_missing(X: Float32) -> None:
    if np.isnan(X).any():
        raise ModelError(
            "LIME cannot perturb missing values",
            found=f"{int(np.isnan(X).any(axis=1).sum())} of {len(X)} requests with missing values",
            next_step="use the stored attributions instead",
        )


def _lime() -> Any:
    try:
        from lime import lime_tabular
    except ImportError as error:
        raise ModelError(
            "LIME is not installed", next_step="install the extra: pip install 'xai-assets[lime]'"
        ) from error
    return lime_tabular
