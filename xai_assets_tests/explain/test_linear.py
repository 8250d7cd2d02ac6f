"""Closed-form attributions against shap's LinearExplainer and against their definition."""

import warnings

import numpy as np
import pytest
import xgboost
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor, Ridge, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import LinearSVC

from xai_assets.errors import ModelError
from xai_assets.explain import additivity_error, choose_method, explainer_for
from xai_assets.explain.linear import is_linear, linear_form

RNG = np.random.default_rng(3)
X = (RNG.normal(size=(400, 5)) * [1, 10, 0.1, 3, 1] + [0, 5, 1, -2, 0]).astype(np.float32)
VALUE = X[:, 0] + 0.3 * X[:, 1] - 5 * X[:, 2] + RNG.normal(size=400)
CLASS = (np.median(VALUE) < VALUE).astype(int)
BACKGROUND = X[:80]


@pytest.mark.parametrize(
    "estimator, target",
    [
        (LinearRegression(), VALUE),
        (Ridge(3.0), VALUE),
        (LogisticRegression(max_iter=5_000), CLASS),
        (LinearSVC(), CLASS),
        (SGDClassifier(random_state=0), CLASS),
    ],
    ids=lambda e: type(e).__name__,
)
def test_equals_shaps_linear_explainer(of_sklearn, estimator, target):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # shap's plots use a function that matplotlib is about to deprecate
        import shap

    estimator.fit(X, target)
    found = explainer_for(of_sklearn(estimator), background=BACKGROUND).explain(X)
    peer = shap.LinearExplainer(estimator, shap.maskers.Independent(BACKGROUND.astype(float), max_samples=80))
    np.testing.assert_allclose(found.values, peer.shap_values(X.astype(float)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.base_value, peer.expected_value, rtol=1e-6)
    assert additivity_error(found) < 1e-5
    assert np.abs(found.values).max() > 0.1


@pytest.mark.parametrize(
    "steps",
    [
        (StandardScaler(),),
        (StandardScaler(with_mean=False), MinMaxScaler()),
        (StandardScaler(with_std=False), MaxAbsScaler()),
        (RobustScaler(), "passthrough"),
        (SelectKBest(k=2), StandardScaler()),
        (SimpleImputer(strategy="median"), StandardScaler(), SelectKBest(k=3)),
        (RobustScaler(), SimpleImputer()),
        (make_pipeline(MinMaxScaler(), StandardScaler()),),
    ],
    ids=str,
)
def test_behind_steps_it_is_the_same_linear_function(of_sklearn, steps):
    model = of_sklearn(make_pipeline(*steps, LogisticRegression()).fit(X, CLASS))
    found = explainer_for(model, background=BACKGROUND).explain(X)
    assert explainer_for(model, background=BACKGROUND).id == "linear"
    assert additivity_error(found) < 1e-5
    np.testing.assert_allclose(found.base_value, model.predict_margin(BACKGROUND).mean(), rtol=1e-4, atol=1e-6)
    # φ_j = f(x) − f(x with x_j at the background's mean): the definition, asked of the model itself
    for j in range(X.shape[1]):
        absent = X.copy()
        absent[:, j] = BACKGROUND[:, j].mean(dtype=np.float64)
        expected = model.predict_margin(X) - model.predict_margin(absent)
        np.testing.assert_allclose(found.values[:, j], expected, rtol=1e-3, atol=2e-5)


def test_missing_values_count_as_what_the_imputer_makes_of_them(of_sklearn):
    gappy = X.copy()
    gappy[RNG.random(X.shape) < 0.2] = np.nan
    model = of_sklearn(make_pipeline(RobustScaler(), SimpleImputer(), LogisticRegression()).fit(gappy, CLASS))
    found = explainer_for(model, background=gappy[:80]).explain(gappy)
    assert additivity_error(found) < 1e-5
    np.testing.assert_allclose(found.base_value, model.predict_margin(gappy[:80]).mean(), rtol=1e-4, atol=1e-6)
    plain = of_sklearn(LogisticRegression().fit(X, CLASS))
    with pytest.raises(ModelError, match=r"does not accept missing values.*column"):
        explainer_for(plain, background=BACKGROUND).explain(gappy)
    with pytest.raises(ModelError, match="does not accept missing values"):
        explainer_for(plain, background=gappy[:80])


@pytest.mark.parametrize("objective", ["binary:logistic", "reg:squarederror"])
def test_xgboosts_linear_booster(of_booster, objective):
    gappy = X.copy()
    gappy[RNG.random(X.shape) < 0.2] = np.nan
    target = CLASS if objective.startswith("binary") else VALUE
    parameters = {"booster": "gblinear", "objective": objective, "nthread": 1, "updater": "coord_descent"}
    booster = xgboost.train(parameters, xgboost.DMatrix(gappy, target), 20)
    found = explainer_for(of_booster(booster), background=gappy[:80]).explain(gappy)
    assert additivity_error(found) < 1e-5
    # XGBoost's own contributions of this booster are w_j x_j: the same up to a constant per feature
    own = booster.predict(xgboost.DMatrix(gappy), pred_contribs=True)[:, :-1]
    np.testing.assert_allclose(np.ptp(found.values - own, axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(found.values[:80].mean(axis=0), 0, atol=1e-4)  # centred on the background


def test_a_log_link_is_linear_on_the_margin_scale(of_function):
    estimator = PoissonRegressor().fit(X, np.exp(X[:, 0] / 3))
    model = of_function(lambda Z: np.log(estimator.predict(Z.astype(float))), 5, "sklearn", estimator)
    assert additivity_error(explainer_for(model, background=BACKGROUND).explain(X)) < 1e-5


def test_what_is_linear_only_in_something_else_is_not_taken_for_linear(of_sklearn):
    polynomial = of_sklearn(make_pipeline(PolynomialFeatures(), LinearRegression()).fit(X, VALUE))
    clipped = of_sklearn(make_pipeline(MinMaxScaler(clip=True), LinearRegression()).fit(X, VALUE))
    flagged = of_sklearn(make_pipeline(SimpleImputer(add_indicator=True), LinearRegression()).fit(X, VALUE))
    assert not any(is_linear(m) for m in (polynomial, clipped, flagged))
    assert choose_method(clipped) == "permutation"
    with pytest.raises(ModelError, match="no closed form"):
        linear_form(polynomial)


def test_any_scaler_that_clips_is_not_taken_for_linear(of_sklearn):
    if "clip" not in MaxAbsScaler().get_params():
        pytest.skip("MaxAbsScaler clips since scikit-learn 1.9")
    pipelines = [make_pipeline(MaxAbsScaler(clip=c), LinearRegression()).fit(X, VALUE) for c in (True, False)]
    assert [is_linear(of_sklearn(p)) for p in pipelines] == [False, True]


def test_a_margin_that_is_not_what_the_weights_say_is_refused(of_function):
    """A planted fault: the model predicts 1 % more than its coefficients."""
    estimator = LinearRegression().fit(X, VALUE)
    healthy = of_function(lambda Z: estimator.predict(Z.astype(float)), 5, "sklearn", estimator)
    wrong = of_function(lambda Z: 1.01 * estimator.predict(Z.astype(float)), 5, "sklearn", estimator)
    assert additivity_error(explainer_for(healthy, background=BACKGROUND).explain(X)) < 1e-5
    with pytest.raises(ModelError, match=r"not what its weights say.*method to permutation"):
        explainer_for(wrong, background=BACKGROUND)


def test_a_margin_that_leaves_the_line_outside_the_background_is_seen(of_function):
    """A planted fault: the model bends where no row of the background is."""
    estimator = LinearRegression().fit(X, VALUE)
    limit = estimator.predict(BACKGROUND.astype(float)).max()
    bent = of_function(lambda Z: np.minimum(estimator.predict(Z.astype(float)), limit), 5, "sklearn", estimator)
    explainer = explainer_for(bent, background=BACKGROUND)
    assert additivity_error(explainer.explain(BACKGROUND)) < 1e-5
    assert additivity_error(explainer.explain(X * np.float32(3))) > 5e-3


def test_rounding_of_terms_that_cancel_is_no_other_function(of_function):
    """A timestamp's term and the intercept cancel: adding them up in float32 rounds to 1/32."""
    estimator = LinearRegression().fit(X, VALUE)
    estimator.coef_[1], estimator.intercept_ = 1 / 3, -1e6 / 3
    weights, intercept = estimator.coef_.astype(np.float32), np.float32(estimator.intercept_)
    model = of_function(lambda Z: Z @ weights + intercept, 5, "sklearn", estimator)
    late = X.copy()
    late[:, 1] = 1e6 + np.arange(len(X)) % 9
    assert np.abs(model.predict_margin(late) - estimator.predict(late.astype(float))).max() > 1e-3
    assert explainer_for(model, background=late).id == "linear"


@pytest.mark.parametrize("estimator", [SGDClassifier(random_state=0), LogisticRegression(max_iter=5_000)], ids=str)
def test_sparse_weights(of_sklearn, estimator):
    dense = explainer_for(of_sklearn(estimator.fit(X, CLASS)), background=BACKGROUND).explain(X)
    sparse = explainer_for(of_sklearn(estimator.sparsify()), background=BACKGROUND).explain(X)
    np.testing.assert_array_equal(sparse.values, dense.values)
    assert np.abs(sparse.values).max() > 0.1


def test_several_outputs_of_xgboosts_linear_booster(of_booster):
    classes = xgboost.DMatrix(X, np.digitize(VALUE, np.quantile(VALUE, [0.3, 0.6])))
    parameters = {"booster": "gblinear", "objective": "multi:softprob", "num_class": 3, "nthread": 1}
    booster = xgboost.train({**parameters, "updater": "coord_descent"}, classes, 3)
    with pytest.raises(ModelError, match=r"several outputs.*\b3 outputs"):
        linear_form(of_booster(booster))


def test_several_outputs(of_sklearn):
    three = LogisticRegression(max_iter=5_000).fit(X, np.digitize(VALUE, np.quantile(VALUE, [0.3, 0.6])))
    with pytest.raises(ModelError, match="several outputs"):
        explainer_for(of_sklearn(three), background=BACKGROUND)
