"""scikit-learn's own predictions on models and rows made to be awkward; refusals."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    AdaBoostRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor
from threadpoolctl import threadpool_limits

from xai_assets.errors import ModelError
from xai_assets.explain.treeshap.ensemble import MAX_TREES, TreeEnsemble
from xai_assets.explain.treeshap.margin import predict_margin
from xai_assets.explain.treeshap.readers.sklearn import read


def data(rng: np.random.Generator, rows: int = 200, missing: bool = False) -> tuple[np.ndarray, np.ndarray]:
    X = rng.normal(size=(rows, 3))
    X[:, 2] = rng.integers(0, 50, rows)
    y = X[:, 0] + 2.0 * (X[:, 2] % 3 == 1) + X[:, 1] * (X[:, 0] > 0)
    if missing:
        X[rng.random(X.shape) < 0.2] = np.nan
    return X, y


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other in a loop take minutes where other processes use the cores."""
    with threadpool_limits(1):
        yield


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("kind", ["tree", "extra tree", "forest", "extra trees"])
@settings(max_examples=4)
@given(seed=st.integers(0, 2**32 - 1))
def test_trees_and_forests(
    kind: str, missing: bool, seed: int, edge_rows: Callable[..., np.ndarray], check_reading: Callable[..., None]
) -> None:
    rng = np.random.default_rng(seed)
    X, y = data(rng, missing=missing)
    regressors = {
        "tree": DecisionTreeRegressor(max_depth=5),
        "extra tree": ExtraTreeRegressor(max_depth=5),
        "forest": RandomForestRegressor(4, max_depth=5),
        "extra trees": ExtraTreesRegressor(4, max_depth=5, bootstrap=True),
    }
    classifiers = {
        "tree": DecisionTreeClassifier(max_depth=5, class_weight="balanced"),
        "extra tree": ExtraTreeClassifier(max_depth=5),
        "forest": RandomForestClassifier(4, max_depth=5, class_weight="balanced_subsample"),
        "extra trees": ExtraTreesClassifier(4, max_depth=5),
    }
    weights = rng.uniform(0.1, 3.0, len(y))
    for target in (y, np.stack([y, -3 * y], 1)):
        model = regressors[kind].set_params(random_state=seed % 1000).fit(X, target, sample_weight=weights)
        ensemble = read(model)
        rows = edge_rows(ensemble, rng, missing=missing)
        check_reading(ensemble, rows, model.predict(rows))
    for label in (y > 0.5, rng.integers(0, 4, len(y))):
        model = classifiers[kind].set_params(random_state=seed % 1000).fit(X, label, sample_weight=weights)
        ensemble = read(model)
        rows = edge_rows(ensemble, rng, missing=missing)
        check_reading(ensemble, rows, model.predict_proba(rows))


def test_a_split_that_only_parts_missing_values() -> None:
    """Its threshold is ∞, and ∞ ≤ ∞ is true, which no strict comparison says."""
    X = np.array([[np.nan], [np.nan], [1.0], [2.0], [3.0]] * 4)
    y = np.isnan(X[:, 0]).astype(float)
    tree = DecisionTreeRegressor().fit(X, y)
    assert np.isinf(tree.tree_.threshold).any()
    assert predict_margin(read(tree), np.array([[np.nan], [3.4e38], [-3.4e38], [np.inf]])).ravel().tolist() == [
        1,
        0,
        0,
        0,
    ]
    boosted = HistGradientBoostingRegressor(min_samples_leaf=1, max_iter=3).fit(X, y)
    rows = np.array([[np.nan], [np.inf], [-np.inf], [0.0]])
    np.testing.assert_allclose(predict_margin(read(boosted), rows)[:, 0], boosted.predict(rows), atol=1e-12)


@pytest.mark.parametrize("loss", ["squared_error", "huber", "quantile", "absolute_error"])
@pytest.mark.parametrize("init", [None, "zero", DummyRegressor(strategy="quantile", quantile=0.3)])
def test_gradient_boosting_regression(
    loss: str, init: Any, edge_rows: Callable[..., np.ndarray], check_reading: Callable[..., None]
) -> None:
    rng = np.random.default_rng(1)
    X, y = data(rng)
    model = GradientBoostingRegressor(n_estimators=4, loss=loss, init=init, subsample=0.8, random_state=0).fit(X, y)
    ensemble = read(model)
    rows = edge_rows(ensemble, rng, missing=False)
    check_reading(ensemble, rows, model.predict(rows))


@pytest.mark.parametrize("loss", ["log_loss", "exponential"])
@pytest.mark.parametrize("init", [None, "zero", DummyClassifier(strategy="uniform")])
def test_gradient_boosting_classification(
    loss: str, init: Any, edge_rows: Callable[..., np.ndarray], check_reading: Callable[..., None]
) -> None:
    rng = np.random.default_rng(2)
    X, y = data(rng)
    for label in [y > 1.0] if loss == "exponential" else [y > 1.0, np.arange(len(y)) % 3]:
        model = GradientBoostingClassifier(n_estimators=4, loss=loss, init=init, random_state=0).fit(X, label)
        ensemble = read(model)
        rows = edge_rows(ensemble, rng, missing=False)
        check_reading(ensemble, rows, model.decision_function(rows))


def test_early_stopping_of_gradient_boosting() -> None:
    X, y = data(np.random.default_rng(0))
    model = GradientBoostingRegressor(n_estimators=200, n_iter_no_change=2, learning_rate=0.8, random_state=0).fit(X, y)
    assert model.n_estimators_ < 200
    assert read(model).n_trees == model.n_estimators_
    np.testing.assert_allclose(predict_margin(read(model), X)[:, 0], model.predict(X), atol=1e-12)


@pytest.mark.parametrize("categorical", [None, [2]])
@pytest.mark.parametrize("missing", [False, True])
@settings(max_examples=4)
@given(seed=st.integers(0, 2**32 - 1))
def test_histogram_gradient_boosting(
    categorical: list[int] | None,
    missing: bool,
    seed: int,
    edge_rows: Callable[..., np.ndarray],
    check_reading: Callable[..., None],
) -> None:
    rng = np.random.default_rng(seed)
    X, y = data(rng, missing=missing)
    X[:, 2] = 3 * (X[:, 2] % 8)  # codes with gaps, each often enough for scikit-learn to split on
    plain: dict[str, Any] = {"max_iter": 4, "min_samples_leaf": 4, "categorical_features": categorical}
    infinite = categorical is None  # scikit-learn's encoder refuses infinite values in any column it is given with
    fitted = [
        HistGradientBoostingRegressor(**plain).fit(X, y),
        HistGradientBoostingRegressor(loss="poisson", **plain).fit(X, np.abs(y) + 0.1),
        HistGradientBoostingClassifier(**plain).fit(X, y > 0.5),
        HistGradientBoostingClassifier(**plain).fit(X, rng.integers(0, 3, len(y))),
    ]
    for model in fitted:
        ensemble = read(model)
        rows = edge_rows(ensemble, rng, categorical=categorical or (), infinite=infinite)
        rows[:, 2] = np.where(np.isinf(rows[:, 2]) & (categorical is not None), 0, rows[:, 2])
        expected = model._raw_predict(rows) if hasattr(model, "loss") else model.decision_function(rows)
        check_reading(ensemble, rows, expected)
    assert categorical is None or any((read(model).category_set >= 0).any() for model in fitted)


def test_names_and_text_categories_of_a_frame() -> None:
    """A categorical column comes first inside; a matrix holds its positions among the sorted texts."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 4, 300)
    levels = np.array(["flat", "house", "tent", "van"])
    age = rng.normal(size=300)
    frame = pd.DataFrame({"age": age, "home": pd.Categorical(levels[codes])})
    model = HistGradientBoostingRegressor(max_iter=3, categorical_features="from_dtype").fit(
        frame, age + (codes % 2) * 3
    )
    ensemble = read(model)
    assert ensemble.feature_names == ("age", "home")
    assert ensemble.source == f"scikit-learn {sklearn.__version__}"
    assert (ensemble.feature[ensemble.category_set >= 0] == 1).all()
    X = np.stack([age, codes], 1)
    np.testing.assert_allclose(predict_margin(ensemble, X)[:, 0], model.predict(frame), atol=1e-12)
    unseen = pd.DataFrame({"age": age[:4], "home": ["boat"] * 4})
    X[:, 1] = 9
    np.testing.assert_allclose(predict_margin(ensemble, X[:4])[:, 0], model.predict(unseen), atol=1e-12)


def test_single_leaves(check_reading: Callable[..., None]) -> None:
    X, y = data(np.random.default_rng(0))
    for model in (DecisionTreeRegressor(min_samples_leaf=150), HistGradientBoostingRegressor(min_samples_leaf=150)):
        ensemble = TreeEnsemble.from_sklearn(model.fit(X, y))
        assert (ensemble.left < 0).all()
        check_reading(ensemble, X, model.predict(X))


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "model",
    [
        *(None, 3, "model.pkl", np.zeros(3), LinearRegression(), AdaBoostRegressor(), IsolationForest()),
        make_pipeline(DecisionTreeRegressor()),
    ],
    ids=lambda model: type(model).__name__,
)
def test_other_objects(model: Any) -> None:
    with pytest.raises(ModelError, match=r"not a model that can be read.*DecisionTree"):
        read(model)


@pytest.mark.parametrize(
    "model",
    [DecisionTreeRegressor(), RandomForestClassifier(), GradientBoostingRegressor(), HistGradientBoostingClassifier()],
    ids=lambda model: type(model).__name__,
)
def test_models_that_are_not_fitted(model: Any) -> None:
    with pytest.raises(ModelError, match=f"not fitted. Found: {type(model).__name__}"):
        read(model)


def test_refused_kinds() -> None:
    X, y = data(np.random.default_rng(0))
    with pytest.raises(ModelError, match=r"starts from another model.*LinearRegression"):
        read(GradientBoostingRegressor(n_estimators=2, init=LinearRegression()).fit(X, y))
    random_start = DummyClassifier(strategy="stratified", random_state=0)
    with pytest.raises(ModelError, match="starts from another model"):
        read(GradientBoostingClassifier(n_estimators=2, init=random_start).fit(X, y > 0.5))
    with pytest.raises(ModelError, match=r"several targets.*2 targets"):
        read(DecisionTreeClassifier().fit(X, np.stack([y > 0, y > 1], 1)))


@pytest.mark.parametrize("code", [-1.0, 0.5])
def test_categories_that_are_no_codes(code: float) -> None:
    X, y = data(np.random.default_rng(0))
    X[:20, 2] = code
    model = HistGradientBoostingRegressor(max_iter=2, categorical_features=[2]).fit(X, y)
    with pytest.raises(ModelError, match=f"feature 'number 2'.*category {code:g}"):
        read(model)


def test_models_without_trees_and_with_too_many() -> None:
    X, y = data(np.random.default_rng(0))
    model = RandomForestRegressor(2, max_depth=1).fit(X, y)
    model.estimators_ = model.estimators_[:1] * (MAX_TREES + 1)
    with pytest.raises(ModelError, match=f"too many trees. Expected: at most {MAX_TREES}."):
        read(model)
    model.estimators_ = []
    with pytest.raises(ModelError, match="has no trees"):
        read(model)


def test_a_damaged_estimator() -> None:
    """skops and joblib files hold these arrays as they are."""
    X, y = data(np.random.default_rng(0))
    model = HistGradientBoostingRegressor(max_iter=1, min_samples_leaf=5).fit(X, y)
    nodes = model._predictors[0][0].nodes
    nodes["left"][1] = 0
    with pytest.raises(ModelError, match=r"damaged.*not a node"):
        read(model)
