"""The kernel behind the Protocol, over every library's models; and what is done where no reader can read one."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import xgboost
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.tree import DecisionTreeClassifier

from xai_assets.errors import ModelError
from xai_assets.explain import additivity_error, choose_method, explainer_for
from xai_assets.explain.tree import only_output, tree_ensemble
from xai_assets.explain.treeshap.margin import predict_margin

RNG = np.random.default_rng(8)
X = RNG.normal(size=(300, 4)).astype(np.float32)
VALUE = X[:, 0] * X[:, 1] + X[:, 2] + 0.3 * RNG.normal(size=300)
CLASS = (VALUE > 0).astype(int)


@pytest.fixture(scope="module")
def shap():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # shap's plots use a function that matplotlib is about to deprecate
        import shap

        yield shap


@pytest.mark.parametrize(
    "estimator, target",
    [
        (RandomForestClassifier(8, max_depth=4, random_state=0), CLASS),
        (ExtraTreesClassifier(8, max_depth=4, random_state=0), CLASS),
        (DecisionTreeClassifier(max_depth=4), CLASS),
        (RandomForestRegressor(8, max_depth=4, random_state=0), VALUE),
        (GradientBoostingRegressor(n_estimators=10), VALUE),
        (HistGradientBoostingClassifier(max_iter=10), CLASS),
    ],
    ids=lambda e: type(e).__name__,
)
def test_scikit_learn(of_sklearn, shap, estimator, target):
    model = of_sklearn(estimator.fit(X, target))
    explainer = explainer_for(model)
    found = explainer.explain(X[:60])
    assert (explainer.id, explainer.is_fast, explainer.is_exact) == ("treeshap", True, True)
    assert additivity_error(found) < 1e-5
    peer = shap.TreeExplainer(estimator, feature_perturbation="tree_path_dependent").shap_values(X[:60].astype(float))
    expected = peer[:, :, 1] if peer.ndim == 3 else peer
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    assert np.abs(expected).max() > 0.05


@pytest.mark.parametrize("boosting", ["gbdt", "dart", "rf"])
def test_lightgbm(of_function, boosting):
    lightgbm = pytest.importorskip("lightgbm")
    sampling = {"bagging_fraction": 0.6, "bagging_freq": 1} if boosting == "rf" else {}
    parameters = {"objective": "binary", "boosting": boosting, "num_leaves": 8, "num_threads": 1, "verbose": -1}
    booster = lightgbm.train({**parameters, **sampling}, lightgbm.Dataset(X, CLASS), 12)
    average = 12 if boosting == "rf" else 1  # raw scores of a forest are the sum of its trees, predictions their mean
    model = of_function(lambda Z: booster.predict(Z, raw_score=True) / average, 4, "lightgbm", booster)
    assert choose_method(model) == "treeshap"
    found = explainer_for(model).explain(X)
    assert additivity_error(found) < 1e-5
    np.testing.assert_allclose(found.values, booster.predict(X, pred_contrib=True)[:, :-1] / average, atol=1e-5)
    library = explainer_for(model, method="library")
    assert (library.id, library.is_fast) == ("lightgbm_exact", False)
    if boosting != "rf":
        np.testing.assert_allclose(found.values, library.explain(X).values, atol=1e-5)


def test_catboost(of_function):
    catboost = pytest.importorskip("catboost")
    model = catboost.CatBoostClassifier(iterations=10, depth=3, verbose=0, thread_count=1, allow_writing_files=False)
    model.fit(X, CLASS)
    explainable = of_function(lambda Z: model.predict(Z, prediction_type="RawFormulaVal"), 4, "catboost", model)
    found = explainer_for(explainable).explain(X)
    assert explainer_for(explainable).id == "treeshap"
    assert additivity_error(found) < 1e-5
    peer = explainer_for(explainable, method="library").explain(X)
    assert additivity_error(peer) < 1e-5
    np.testing.assert_allclose(found.values, peer.values, atol=1e-5)
    np.testing.assert_allclose(found.base_value, peer.base_value, atol=1e-6)
    assert np.abs(peer.values).max() > 0.1


def test_what_no_reader_reads_is_explained_by_its_library(of_function):
    """CatBoost's counters over pairs of categories are no trees over the features alone."""
    catboost = pytest.importorskip("catboost")
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 12, (300, 2))
    levels = np.array([f"level {i}" for i in range(12)])

    def frame(Z):
        return pd.DataFrame({"a": levels[Z[:, 0].astype(int)], "b": levels[Z[:, 1].astype(int)], "x": Z[:, 2]})

    Z = np.column_stack([codes, X[:, 0]]).astype(np.float32)
    target = ((codes[:, 0] + codes[:, 1]) % 3 + X[:, 0] > 1).astype(int)
    settings = {"iterations": 20, "depth": 4, "verbose": 0, "thread_count": 1, "allow_writing_files": False}
    trained = catboost.CatBoostClassifier(**settings, one_hot_max_size=2, cat_features=["a", "b"])
    trained.fit(frame(Z), target)
    model = of_function(lambda Q: trained.predict(frame(Q), prediction_type="RawFormulaVal"), 3, "catboost", trained)
    model.native_rows = frame
    assert choose_method(model) == "library"
    explainer = explainer_for(model)
    assert (explainer.id, explainer.is_exact, explainer.is_fast) == ("catboost_exact", True, False)
    assert explainer.reason  # says why the kernel was not used
    found = explainer.explain(Z)
    assert additivity_error(found) < 1e-4
    assert np.abs(found.values).max(axis=0).min() > 0.01


def test_linear_leaves_of_lightgbm_are_sampled(of_function):
    lightgbm = pytest.importorskip("lightgbm")
    parameters = {"linear_tree": True, "num_leaves": 4, "num_threads": 1, "verbose": -1, "seed": 0}
    booster = lightgbm.train(parameters, lightgbm.Dataset(X, VALUE), 5)
    model = of_function(lambda Z: booster.predict(Z, raw_score=True), 4, "lightgbm", booster)
    assert choose_method(model) == "permutation"  # LightGBM has no contributions of linear leaves either
    found = explainer_for(model, background=X[:5]).explain(X[:2])
    assert additivity_error(found) < 1e-4


def test_interventional(of_booster, shap):
    booster = xgboost.train({"max_depth": 3, "nthread": 1}, xgboost.DMatrix(X, VALUE), 8)
    background = X[:30]
    explainer = explainer_for(of_booster(booster), method="treeshap_interventional", background=background)
    found = explainer.explain(X[:40])
    assert explainer.id == "treeshap_interventional"
    assert additivity_error(found) < 1e-5
    np.testing.assert_allclose(
        found.base_value, booster.inplace_predict(background, predict_type="margin").mean(), atol=1e-5
    )
    peer = explainer_for(of_booster(booster), method="kernel", background=background).explain(X[:40])
    np.testing.assert_allclose(found.values, peer.values, atol=1e-4)  # every coalition of 4 features is enumerated


def test_a_reading_that_differs_from_the_library_is_seen(of_booster):
    """A planted fault: the library predicts other margins than the trees that were read."""
    booster = xgboost.train({"max_depth": 3, "nthread": 1}, xgboost.DMatrix(X, VALUE), 8)
    model = of_booster(booster)
    explainer = explainer_for(model)
    assert additivity_error(explainer.explain(X)) < 1e-5
    healthy = model._margin
    model._margin = lambda Z: healthy(Z) + (np.arange(len(Z)) == 17) * 0.01  # one row of three hundred
    assert 1e-3 < additivity_error(explainer.explain(X)) < 2e-2


def test_features_in_another_order(of_booster):
    named = xgboost.DMatrix(X, VALUE, feature_names=["f1", "f0", "f2", "f3"])
    with pytest.raises(ModelError, match="another order"):
        tree_ensemble(of_booster(xgboost.train({"nthread": 1}, named, 2)))
    narrow = of_booster(xgboost.train({"nthread": 1}, xgboost.DMatrix(X, VALUE), 2))
    wider = SimpleNamespace(
        kind="xgboost", native=narrow.native, sha256="wider", feature_names=("f0", "f1", "f2", "f3", "f4")
    )
    with pytest.raises(ModelError, match="do not read the configured features"):
        tree_ensemble(wider)


def test_several_outputs(of_booster):
    classes = xgboost.DMatrix(X, np.digitize(VALUE, [-0.5, 0.5]))
    booster = xgboost.train({"objective": "multi:softprob", "num_class": 3, "nthread": 1}, classes, 2)
    with pytest.raises(ModelError, match=r"several outputs.*3 outputs"):
        explainer_for(of_booster(booster), method="treeshap")


@pytest.mark.parametrize("target", [np.column_stack([VALUE, -VALUE]), np.column_stack([CLASS, 1 - CLASS])])
def test_two_targets_are_not_two_classes(of_sklearn, target):
    kind = RandomForestRegressor if target.dtype == float else RandomForestClassifier
    two = of_sklearn(kind(3, max_depth=3, random_state=0).fit(X, target))
    with pytest.raises(ModelError, match=r"several outputs.*2 outputs|several targets.*2 targets"):
        explainer_for(two, method="treeshap")


def test_only_output():
    from xai_assets.explain.treeshap.ensemble import TreeEnsemble

    forest = RandomForestClassifier(5, max_depth=3, random_state=0).fit(X, CLASS)
    whole = TreeEnsemble.from_sklearn(forest)
    for output in range(whole.n_outputs):
        one = only_output(whole, output)
        np.testing.assert_array_equal(predict_margin(one, X)[:, 0], predict_margin(whole, X)[:, output])
