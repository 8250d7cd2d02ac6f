"""Exact attributions of tree ensembles by the model's own library, where the project's kernel cannot read the model.

Belongs here: the calls and the shapes. Does not belong here: the kernel (see `treeshap`).

Path-dependent TreeSHAP (Lundberg et al., "From local explanations to global understanding with explainable AI for
trees", Nature Machine Intelligence 2020). Some hundred to some thousand requests a second, so days are sampled.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from xai_assets.errors import ModelError
from xai_assets.explain.matrix import checked
from xai_assets.explain.protocol import ExplainableModel
from xai_assets.records import Attributions, Float32

VERSION = "1"
LIBRARIES = ("xgboost", "lightgbm", "catboost")


def library_refusal(model: ExplainableModel) -> ModelError | None:
    """Why the model's library gives no attributions of it, found by asking for one request; None where it does."""
    try:
        LibraryExplainer.build(model).explain(np.zeros((1, len(model.feature_names)), np.float32))
    except ModelError as error:
        return error
    return None


@dataclass(frozen=True, eq=False)
class LibraryExplainer:
    """`pred_contribs` of XGBoost, `pred_contrib` of LightGBM, `ShapValues` of CatBoost.

    reason: why the kernel was not used, in a sentence; empty where it was not asked for.
    """

    model: ExplainableModel
    reason: str = ""
    is_exact: bool = True
    is_fast: bool = False
    background_hash: None = None
    seed: None = None

    @classmethod
    def build(cls, model: ExplainableModel, reason: str = "") -> "LibraryExplainer":
        """Raises ModelError where the model's library has no such attributions."""
        if model.kind not in LIBRARIES:
            raise ModelError(
                f"the library of a model of kind '{model.kind}' gives no attributions",
                expected=", ".join(LIBRARIES),
                next_step="set explanation.method to auto",
            )
        return cls(model, reason)

    @property
    def id(self) -> str:
        return f"{self.model.kind}_exact"

    @property
    def version(self) -> str:
        from importlib.metadata import version

        return f"{VERSION} {self.model.kind}-{version(self.model.kind)}"

    def explain(self, X: Float32) -> Attributions:
        """Attributions of float32 [n, d]. See `Explainer.explain`."""
        features = checked(X, self.model.feature_names).shape[1]
        if len(X) == 0:
            return Attributions(np.empty(X.shape, np.float32), np.empty(0), np.empty(0))
        found = _CONTRIBUTIONS[self.model.kind](self.model, X)
        if found.shape != (len(X), features + 1):
            raise ModelError("models with several outputs cannot be explained", found=str(list(found.shape)))
        values = np.ascontiguousarray(found[:, :-1], dtype=np.float32)
        return Attributions(values, found[:, -1].astype(np.float64), self.model.predict_margin(X))


def _xgboost(model: ExplainableModel, X: Float32) -> Any:
    import xgboost

    booster = model.native
    matrix = xgboost.DMatrix(
        X, feature_names=booster.feature_names, feature_types=booster.feature_types, enable_categorical=True
    )
    found = booster.predict(matrix, pred_contribs=True, approx_contribs=False, strict_shape=True)
    return found[:, 0] if found.shape[1] == 1 else found


def _lightgbm(model: ExplainableModel, X: Float32) -> Any:
    import lightgbm

    try:
        return model.native.predict(X, pred_contrib=True)
    except lightgbm.basic.LightGBMError as error:
        raise ModelError("LightGBM gives no attributions for this model", found=str(error)) from error


def _catboost(model: ExplainableModel, X: Float32) -> Any:
    import catboost

    rows = model.native_rows(X) if hasattr(model, "native_rows") else X  # categories as texts, not codes
    pool = catboost.Pool(rows, cat_features=model.native.get_cat_feature_indices())
    try:
        return model.native.get_feature_importance(pool, type="ShapValues")
    except catboost.CatBoostError as error:
        raise ModelError("CatBoost gives no attributions for this model", found=str(error)) from error


_CONTRIBUTIONS = {"xgboost": _xgboost, "lightgbm": _lightgbm, "catboost": _catboost}
