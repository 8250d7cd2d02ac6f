"""Exact attributions by XGBoost itself.

Belongs here: the call and the shapes. Does not belong here: batching, storage, checks.

Path-dependent TreeSHAP (Lundberg et al., "From local explanations to global understanding with explainable AI for
trees", Nature Machine Intelligence 2020). Cost: rows × trees × leaves × depth², so callers stream batches.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from xai_assets.errors import ModelError
from xai_assets.records import Attributions, Float32


@dataclass(frozen=True)
class XGBoostExplainer:
    """`booster.predict(pred_contribs=True)`, exact, categorical splits and missing values included."""

    booster: Any
    id: str = "xgboost_exact"

    @property
    def version(self) -> str:
        import xgboost

        return str(xgboost.__version__)

    def explain(self, X: Float32) -> Attributions:
        """Attributions on the margin scale.

        Parameters
        ----------
        X
            float32 [n, d] in the model's feature order; NaN is missing, categorical values are codes.

        Returns
        -------
        values float32 [n, d]; base_value and margin float64 [n]. The margin is the model's own raw prediction, not
        the sum of the attributions: comparing the two is what makes the additivity check worth something.

        Raises
        ------
        ModelError
            X has another number of columns, or infinite values.
        """
        import xgboost

        features = self.booster.num_features()
        if X.ndim != 2 or X.shape[1] != features:
            raise ModelError("the matrix does not fit the model", expected=f"[n, {features}]", found=str(list(X.shape)))
        if len(X) == 0:
            return Attributions(np.empty((0, features), np.float32), np.empty(0), np.empty(0))
        if np.isinf(X).any():
            raise ModelError("infinite values cannot be explained", next_step="quarantine those requests")
        matrix = xgboost.DMatrix(
            X,
            feature_names=self.booster.feature_names,
            feature_types=self.booster.feature_types,
            enable_categorical=True,
        )
        contributions = self.booster.predict(matrix, pred_contribs=True, approx_contribs=False, strict_shape=True)
        margin = self.booster.predict(matrix, output_margin=True, strict_shape=True)
        if contributions.shape != (len(X), 1, features + 1):
            raise ModelError("models with several outputs cannot be explained", found=str(contributions.shape))
        return Attributions(
            np.ascontiguousarray(contributions[:, 0, :-1], dtype=np.float32),
            contributions[:, 0, -1].astype(np.float64),
            margin[:, 0].astype(np.float64),
        )
