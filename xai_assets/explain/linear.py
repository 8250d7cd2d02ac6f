"""Exact attributions of linear models in closed form.

Belongs here: reading weights out of linear estimators (behind scalers and imputers too), and φ from them.
Does not belong here: models that are linear only in something else than their inputs (a link, a polynomial).

For f(x) = b + Σ_j w_j x_j the Shapley value of the game "features outside S are drawn from the background, features
independent" is φ_j = w_j (x_j − E[x_j]) with base value b + Σ_j w_j E[x_j] (Štrumbelj and Kononenko, "Explaining
prediction models and individual predictions with feature contributions", 2014, section 3.1). E is the background's
mean, after missing values became what the model makes of them: the imputer's value, 0 in XGBoost's linear booster.
"""

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xai_assets.errors import ModelError
from xai_assets.explain.matrix import background_digest, checked, checked_background, finite_margin
from xai_assets.explain.protocol import ExplainableModel
from xai_assets.records import Attributions, Float32, Float64

VERSION = "1"
_ESTIMATORS = """
    ARDRegression BayesianRidge ElasticNet ElasticNetCV HuberRegressor Lars LarsCV Lasso LassoCV LassoLars LassoLarsCV
    LassoLarsIC LinearRegression OrthogonalMatchingPursuit OrthogonalMatchingPursuitCV PassiveAggressiveRegressor
    QuantileRegressor Ridge RidgeCV SGDRegressor TheilSenRegressor LinearSVR
    LinearSVC LogisticRegression LogisticRegressionCV PassiveAggressiveClassifier Perceptron RidgeClassifier
    RidgeClassifierCV SGDClassifier LinearDiscriminantAnalysis
    PoissonRegressor GammaRegressor
"""
"""Names of scikit-learn's estimators whose margin (decision function, value, log of a log-link's value) is b + w·x."""


@dataclass(frozen=True, eq=False)
class LinearForm:
    """f(x) = intercept + Σ_j weights_j x_j, x_j = fill_j where missing (NaN in `fill`: missing is not accepted).

    weights, fill: float64 [d]. intercept: margin units.
    """

    weights: Float64
    intercept: float
    fill: Float64

    def filled(self, X: Float32) -> Float64:
        """X as float64 [n, d] with missing values replaced; a ModelError where the model accepts none."""
        values = X.astype(np.float64)
        missing = np.isnan(values)
        refused = missing.any(axis=0) & np.isnan(self.fill)
        if refused.any():
            raise ModelError(
                "the linear model does not accept missing values",
                found=f"missing values in column {int(refused.argmax()) + 1} of the matrix",
                next_step="put an imputer into the model's pipeline, or quarantine those requests",
            )
        return np.where(missing, self.fill, values) if missing.any() else values


def is_linear(model: ExplainableModel) -> bool:
    """Whether `linear_form` can read the model, judged by its type alone."""
    if model.kind == "xgboost":
        return _booster_name(model.native) == "gblinear"
    if model.kind != "sklearn":
        return False
    *steps, last = _steps(model.native)
    return type(last).__name__ in _ESTIMATORS.split() and _is_sklearn(last) and all(_is_affine(s) for s in steps)


def linear_form(model: ExplainableModel) -> LinearForm:
    """The model's margin as a linear function of its inputs.

    Raises
    ------
    ModelError
        The model is not linear in its inputs, or has several outputs.
    """
    if not is_linear(model):
        name = type(model.native).__name__
        raise ModelError(
            f"a {model.kind} model ({name}) has no closed form of its attributions",
            expected="a linear estimator of scikit-learn, alone or behind scalers and imputers, or XGBoost's gblinear",
            next_step="set explanation.method to auto",
        )
    if model.kind == "xgboost":
        return _of_gblinear(model.native)
    *steps, last = _steps(model.native)
    form = _of_estimator(last)
    for step in reversed(steps):
        form = _before(step, form)
    return form


@dataclass(frozen=True, eq=False)
class LinearExplainer:
    """φ_j = w_j (x_j − E[x_j]) over one background."""

    model: ExplainableModel
    form: LinearForm
    mean: Float64
    background_hash: str
    id: str = "linear"
    version: str = VERSION
    is_exact: bool = True
    is_fast: bool = True
    seed: None = None

    @classmethod
    def build(cls, model: ExplainableModel, background: Float32 | None) -> "LinearExplainer":
        """Raises ModelError where the model is not linear, or without a background (E[x] would be undefined).

        The closed form is compared with the model's own margins of the background: a type's name does not promise
        that it, or a subclass or a later version of it, is still the linear function that was read.
        """
        form = linear_form(model)
        rows = checked_background(background, model.feature_names, "for E[x] in φ_j = w_j (x_j − E[x_j])")
        if form.weights.shape != (rows.shape[1],):
            raise ModelError(
                "the linear model does not read the configured features",
                expected=f"{rows.shape[1]} weights",
                found=str(form.weights.size),
            )
        values = form.filled(rows)
        _refuse_another_function(form, values, model.predict_margin(rows))
        return cls(model, form, values.mean(axis=0), background_digest(rows))

    def explain(self, X: Float32) -> Attributions:
        """Attributions of float32 [n, d]; computed in float64, stored as float32. See `Explainer.explain`."""
        values = self.form.filled(checked(X, self.model.feature_names))
        base = self.form.intercept + float(self.form.weights @ self.mean)
        margin = finite_margin(self.model.predict_margin(X), "impute missing values in the model's pipeline")
        phi = ((values - self.mean) * self.form.weights).astype(np.float32)
        return Attributions(phi, np.full(len(X), base), margin)


def _refuse_another_function(form: LinearForm, values: Float64, margin: Float64) -> None:
    """ModelError where the form's margins of `values` [m, d] are not the model's [m], beyond float32's rounding."""
    finite_margin(margin, "choose a background that the model can predict")
    gap = float(np.abs(form.intercept + values @ form.weights - margin).max())
    terms = float((np.abs(form.intercept) + np.abs(values) @ np.abs(form.weights)).max())
    # Terms that cancel leave the rounding of their own size, in models that add them up in float32.
    if gap > 1e-4 * max(1.0, float(np.abs(margin).max())) + 1e-6 * terms:
        raise ModelError(
            "the model's predictions are not what its weights say",
            expected="margin = intercept + Σ_j weight_j x_j on every row of the background",
            found=f"differences up to {gap:.3g}",
            next_step="set explanation.method to permutation",
        )


def _of_gblinear(booster: Any) -> LinearForm:
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    weights = np.array(learner["gradient_booster"]["model"]["weights"], dtype=np.float64)
    d = booster.num_features()
    if weights.size != d + 1:
        raise _several(weights.size // (d + 1), "outputs")  # one row of weights per feature, one of biases
    # A row of missing values: what the booster adds to Σ w x, its base score carried through its objective's link.
    import xgboost

    nothing = xgboost.DMatrix(
        np.full((1, d), np.nan, np.float32), feature_names=booster.feature_names, feature_types=booster.feature_types
    )
    intercept = float(booster.predict(nothing, output_margin=True)[0])
    return LinearForm(weights[:d], intercept, np.zeros(d))


def _of_estimator(estimator: Any) -> LinearForm:
    stored = estimator.coef_
    # after sparsify() the weights are a sparse matrix
    weights = np.asarray(stored.toarray() if hasattr(stored, "toarray") else stored, dtype=np.float64)
    if weights.ndim == 2 and len(weights) != 1:
        raise _several(len(weights), "rows of coefficients")
    weights = weights.reshape(-1)
    intercept = float(np.asarray(estimator.intercept_, dtype=np.float64).reshape(-1)[0])
    return LinearForm(weights, intercept, np.full(weights.size, np.nan))


def _before(step: Any, form: LinearForm) -> LinearForm:
    """The same function of what goes into `step` instead of what comes out of it."""
    name = type(step).__name__ if not isinstance(step, str) else "passthrough"
    if name == "passthrough":
        return form
    if hasattr(step, "get_support"):
        kept = np.asarray(step.get_support())
        weights, fill = np.zeros(kept.size), np.zeros(kept.size)
        weights[kept], fill[kept] = form.weights, form.fill
        return replace(form, weights=weights, fill=fill)
    if name == "SimpleImputer":
        return replace(form, fill=np.asarray(step.statistics_, dtype=np.float64))
    scale, shift = _scale_and_shift(step, form.weights.size)
    # out = in · scale + shift, so w·out = (w · scale)·in + w·shift; a fill value travels the other way.
    return LinearForm(form.weights * scale, form.intercept + float(form.weights @ shift), (form.fill - shift) / scale)


def _scale_and_shift(step: Any, d: int) -> tuple[Float64, Float64]:
    name, ones, zeros = type(step).__name__, np.ones(d), np.zeros(d)
    if name == "StandardScaler":
        scale = ones if step.scale_ is None else 1.0 / step.scale_
        return scale, zeros if step.mean_ is None or not step.with_mean else -step.mean_ * scale
    if name == "RobustScaler":
        scale = ones if step.scale_ is None else 1.0 / step.scale_
        return scale, zeros if step.center_ is None else -step.center_ * scale
    if name == "MinMaxScaler":
        return np.asarray(step.scale_, np.float64), np.asarray(step.min_, np.float64)
    return 1.0 / np.asarray(step.scale_, np.float64), zeros  # MaxAbsScaler


def _is_affine(step: Any) -> bool:
    """Whether `_before` can carry a function back through this step."""
    if step is None or isinstance(step, str):
        return step in (None, "passthrough")
    name = type(step).__name__
    if not _is_sklearn(step):
        return False
    if getattr(step, "clip", False):  # MinMaxScaler's; MaxAbsScaler's since scikit-learn 1.9
        return False
    if name == "SimpleImputer":
        statistics = np.asarray(step.statistics_)
        plain = np.issubdtype(statistics.dtype, np.number) and not np.isnan(statistics.astype(float)).any()
        return plain and not step.add_indicator and _marks_nan(step.missing_values)
    return name in ("StandardScaler", "RobustScaler", "MinMaxScaler", "MaxAbsScaler") or hasattr(step, "get_support")


def _marks_nan(missing: Any) -> bool:
    return isinstance(missing, float) and bool(np.isnan(missing))


def _steps(native: Any) -> list[Any]:
    """The steps of a (nested) pipeline, or the estimator alone."""
    if type(native).__name__ == "Pipeline" and _is_sklearn(native):
        return [inner for _, step in native.steps for inner in _steps(step)]
    return ["passthrough" if native is None else native]


def _is_sklearn(thing: Any) -> bool:
    return type(thing).__module__.split(".")[0] == "sklearn"


def _booster_name(booster: Any) -> str:
    return str(json.loads(booster.save_config())["learner"]["gradient_booster"]["name"])


def _several(count: int, what: str) -> ModelError:
    return ModelError(
        "models with several outputs cannot be explained",
        expected="one output",
        found=f"{count} {what}",
        next_step="monitor one class against the rest with a binary model",
    )
