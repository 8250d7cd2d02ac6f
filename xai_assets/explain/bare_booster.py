"""A bare XGBoost booster as explainers take models.

Belongs here: that one adapter, for callers that have a booster and no `models.Model`. Does not belong here: loading.
"""

import hashlib
from typing import Any

import numpy as np

from xai_assets.records import Float32, Float64


class BareBooster:
    """`ExplainableModel` around an `xgboost.Booster`; its features are f0, f1 … where it names none."""

    kind = "xgboost"

    def __init__(self, booster: Any) -> None:
        self.native = booster
        self.sha256 = hashlib.sha256(bytes(booster.save_raw("ubj"))).hexdigest()
        self.feature_names = tuple(booster.feature_names or (f"f{i}" for i in range(booster.num_features())))

    def predict_margin(self, X: Float32) -> Float64:
        """Raw prediction, float64 [n]."""
        if len(X) == 0:
            return np.empty(0, np.float64)
        found = self.native.inplace_predict(X, predict_type="margin", validate_features=False)
        return np.asarray(found, dtype=np.float64).reshape(len(X))
