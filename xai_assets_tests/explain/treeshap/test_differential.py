"""`TreeShap` against rational arithmetic, shap and each library's own contributions, on made-up models and rows."""

import random
import warnings

import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_assets.explain.treeshap.ensemble import TreeEnsemble
from xai_assets.explain.treeshap.margin import predict_margin
from xai_assets.explain.treeshap.shap import TreeShap

RNG = st.builds(random.Random, st.integers(0, 2**32 - 1))
SEEDS = st.integers(0, 2**32 - 1)


def explained(ensemble, X, **more):
    """values [n, d, k] and base [k]."""
    found = TreeShap(ensemble, **more).explain(X)
    assert found.values.dtype == np.float32
    return found.values.reshape(len(X), ensemble.n_features, -1), found.base_value


def assert_same(found, expected, tolerance=2e-6, margin=None):
    """Within `tolerance` of the largest value or margin (at least 1): sums of float32 cannot promise more."""
    scale = max(1.0, np.abs(expected).max(initial=0), 0 if margin is None else np.abs(margin).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


def additivity(ensemble, X, values, base):
    margin = predict_margin(ensemble, X)
    return np.abs(values.sum(1, dtype=np.float64) + base - margin).max() / max(1.0, np.abs(margin).max())


# ---------------------------------------------------------------- rational arithmetic


@settings(max_examples=150)
@given(rng=RNG)
def test_random_ensembles(rng, random_ensemble, random_rows, exact_path_dependent):
    """All kinds of splits, leaves, covers, outputs and rows that the makers know, both input precisions."""
    ensemble = random_ensemble(rng, depth=rng.randint(0, 4))
    X = random_rows(rng, ensemble, 3)
    expected, base = exact_path_dependent(ensemble, X)
    found, found_base = explained(ensemble, X)
    assert_same(found, expected)
    assert_same(found_base, base, 1e-12)


@settings(max_examples=15)
@given(rng=RNG)
def test_bushy_trees(rng, random_ensemble, random_rows, exact_path_dependent_deep):
    ensemble = random_ensemble(rng, features=10, trees=2, depth=6, bushy=0.95)
    X = random_rows(rng, ensemble, 1)
    expected, base = exact_path_dependent_deep(ensemble, X)
    found, found_base = explained(ensemble, X)
    assert_same(found, expected)
    assert_same(found_base, base, 1e-12)


@pytest.mark.parametrize("depth, features", [(9, 9), (16, 16), (16, 5), (17, 17), (32, 32), (32, 3), (60, 60)])
def test_deep_chains(depth, features, random_chain, random_rows, exact_path_dependent_deep):
    """As many distinct features as levels, or each of a few many times."""
    for seed in range(3 if depth < 20 else 1):
        rng = random.Random(seed)
        ensemble = random_chain(rng, depth=depth, features=features, side_depth=2 if depth < 20 else 1)
        X = random_rows(rng, ensemble, 2 if depth < 20 else 1)
        expected, base = exact_path_dependent_deep(ensemble, X)
        found, found_base = explained(ensemble, X)
        assert_same(found, expected)
        assert_same(found_base, base, 1e-12)


def test_rows_that_follow_a_deep_chain_to_its_end(tree_builder, exact_path_dependent_deep):
    """32 distinct features, each cover a thousandth: the last leaf's value is far from the average of the tree."""
    build = tree_builder(32)
    spine = [build.split(f) for f in range(32)]
    below = build.leaf(1000.0, 1.0)
    for f in reversed(range(32)):
        build.join(spine[f], below, build.leaf(float(f % 3), 10.0 ** (f % 4)))
        below = spine[f]
    build.end_tree()
    ensemble = build.build()
    X = np.full((4, 32), -1.0)
    X[1, ::2], X[2, :3], X[3, 31] = 1.0, 1.0, 1.0
    expected, base = exact_path_dependent_deep(ensemble, X)
    assert expected[0].sum() > 990
    found, found_base = explained(ensemble, X)
    assert_same(found, expected, margin=predict_margin(ensemble, X))
    assert_same(found_base, base, 1e-12)


@pytest.mark.parametrize("cover", [0.0, 1e-300, 1e-12, 1e12])
def test_covers_of_any_size(cover, tree_builder, exact_path_dependent):
    """Empty leaves, leaves of next to nothing and huge ones, on the row's way and off it."""
    build = tree_builder(3)
    root, low, deep = build.split(0), build.split(1), build.split(2)
    leaves = [build.leaf(v, c) for v, c in ((1.0, cover), (-2.0, 1.0), (4.0, cover), (8.0, 3.0))]
    build.join(deep, leaves[0], leaves[1])
    build.join(low, deep, leaves[2])
    build.join(root, low, leaves[3])
    build.end_tree()
    ensemble = build.build()
    X = np.array([[a, b, c] for a in (-1.0, 1.0) for b in (-1.0, 1.0) for c in (-1.0, np.nan)])
    expected, base = exact_path_dependent(ensemble, X)
    found, found_base = explained(ensemble, X)
    assert_same(found, expected)
    assert_same(found_base, base, 1e-12)


@pytest.mark.parametrize("precision, code", [("float64", 1), ("float32", 2)])
def test_codes_next_to_whole_numbers(precision, code, tree_builder):
    """A code is cut, not rounded, unless the library rounds its inputs: 2 − 2⁻⁵² is category 1."""
    build = tree_builder(1, 1, precision)
    root = build.split(0, categories=((1 << code,), False))
    build.join(root, build.leaf(1.0), build.leaf(-1.0))
    build.end_tree()
    found, base = explained(build.build(), np.array([[np.nextafter(2.0, 0.0)]]))
    assert (base[0], found[0, 0, 0]) == (0.0, 1.0)


def test_thresholds_beyond_float32(tree_builder):
    """CatBoost's NaN-last splits have x ≤ the largest float32 as their border."""
    build = tree_builder(1)
    root = build.split(0, float(np.nextafter(np.float64(np.finfo(np.float32).max), np.inf)))
    build.join(root, build.leaf(1.0), build.leaf(-1.0))
    build.end_tree()
    found, _ = explained(build.build(), np.array([[np.finfo(np.float32).max], [np.inf]], np.float32))
    assert found[:, 0, 0].tolist() == [1.0, -1.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_ties_at_thresholds(precision, dtype, tree_builder):
    """Which side of a threshold a row falls on, one bit around it, with inputs and thresholds of both precisions."""
    build = tree_builder(1, 1, precision)
    thresholds = [0.1, float(np.float32(0.1)), 0.0, 1e-40, 16777217.0, -3.0, 1e38]
    for threshold in thresholds:
        root = build.split(0, threshold)
        build.join(root, build.leaf(1.0), build.leaf(-1.0))
        build.end_tree()
    ensemble = build.build()
    near = [np.nextafter(dtype(t), dtype(to)) for t in thresholds for to in (-np.inf, np.inf)]
    X = np.array([*thresholds, *near, -0.0, 16777216.0, 16777218.0], dtype)[:, None]
    found, base = explained(ensemble, X)
    np.testing.assert_array_equal(found[:, 0, 0] + base[0], predict_margin(ensemble, X)[:, 0])


# ---------------------------------------------------------------- libraries


def rows_for_training(seed, n=300, d=5, infinite=False, missing=0.15):
    """Few distinct values, so that thresholds tie with rows; NaN, ±0, huge values."""
    rng = np.random.default_rng(seed)
    X = rng.choice([-2, -1, -0.5, -0.0, 0.0, 0.25, 1, 3], size=(n, d)) + rng.choice([0, 0.125], size=(n, d))
    X[rng.random(X.shape) < 0.02] = rng.choice([1e30, -1e30, 1e-30])
    y = np.clip(X[:, 0], -3, 3) * (X[:, 1] > 0) + np.clip(X[:, 2], -3, 3) + rng.normal(size=n) / 4
    X[rng.random(X.shape) < missing] = np.nan
    return X, y


XGBOOST = st.fixed_dictionaries(
    {
        "max_depth": st.integers(1, 7),
        "eta": st.sampled_from([0.1, 1.0]),
        "lambda": st.sampled_from([0.0, 1.0]),
        "booster": st.sampled_from(["gbtree", "gbtree", "dart"]),
        "objective": st.sampled_from(["reg:squarederror", "binary:logistic", "multi:softprob", "count:poisson"]),
        "tree_method": st.sampled_from(["hist", "exact"]),
        "num_parallel_tree": st.sampled_from([1, 1, 3]),
    }
)


def target_for(objective, y):
    """The target as an objective wants it."""
    if objective == "binary:logistic":
        return (y > 0).astype(int)
    if objective == "multi:softprob":
        return np.digitize(y, [-1, 1])
    return np.abs(y) if objective == "count:poisson" else y


@settings(max_examples=20)
@given(seed=SEEDS, parameters=XGBOOST)
def test_xgboost_contributions(seed, parameters, shap_library):
    X, y = rows_for_training(seed)
    X = X.astype(np.float32)
    parameters = {**parameters, "nthread": 1, "rate_drop": 0.3, "num_class": 3, "verbosity": 0}
    if parameters["objective"] != "multi:softprob":
        del parameters["num_class"]
    if parameters["booster"] == "gbtree":
        del parameters["rate_drop"]
    target = target_for(parameters["objective"], y)
    booster = xgboost.train(parameters, xgboost.DMatrix(X, target), 6)
    ensemble = TreeEnsemble.from_xgboost(booster)
    found, base = explained(ensemble, X[:80])
    contributions = booster.predict(xgboost.DMatrix(X[:80]), pred_contribs=True, strict_shape=True)
    margin = booster.predict(xgboost.DMatrix(X[:80]), output_margin=True, strict_shape=True)
    expected = contributions[:, :, :-1].transpose(0, 2, 1)
    assert_same(found, expected, 5e-6, margin)
    assert_same(base, contributions[0, :, -1], 5e-6, margin)
    assert additivity(ensemble, X[:80], found, base) < 1e-5


@settings(max_examples=8)
@given(seed=SEEDS, one_hot=st.sampled_from([1, 100]))
def test_xgboost_categories(seed, one_hot):
    """Sets of categories and one-hot splits; codes the training did not see."""
    rng = np.random.default_rng(seed)
    X, y = rows_for_training(seed, d=3)
    X = np.column_stack([X, rng.integers(0, 40, len(X)), rng.integers(0, 5, len(X))]).astype(np.float32)
    y = y + (X[:, 3] % 3 == 1) * 2 - X[:, 4]
    types = ["float", "float", "float", "c", "c"]
    parameters = {"max_depth": 5, "max_cat_to_onehot": one_hot, "tree_method": "hist", "nthread": 1}
    booster = xgboost.train(parameters, xgboost.DMatrix(X, y, feature_types=types, enable_categorical=True), 6)
    X = X[:80].copy()
    X[:10, 3] = 39
    X[10:20, 4] = np.nan
    ensemble = TreeEnsemble.from_xgboost(booster)
    assert (ensemble.category_set >= 0).any()
    found, base = explained(ensemble, X)
    matrix = xgboost.DMatrix(X, feature_types=types, enable_categorical=True)
    contributions = booster.predict(matrix, pred_contribs=True)
    assert_same(found[:, :, 0], contributions[:, :-1], 5e-6)
    assert_same(base[0], contributions[0, -1], 5e-6)


LIGHTGBM = st.fixed_dictionaries(
    {
        "num_leaves": st.sampled_from([2, 7, 31]),
        "boosting": st.sampled_from(["gbdt", "gbdt", "dart", "rf"]),
        "objective": st.sampled_from(["regression", "binary", "multiclass"]),
        "zero_as_missing": st.booleans(),
        "use_missing": st.sampled_from([True, True, False]),
        "min_data_in_leaf": st.sampled_from([1, 20]),
    }
)


@settings(max_examples=20)
@given(seed=SEEDS, parameters=LIGHTGBM)
def test_lightgbm_contributions(seed, parameters):
    """With a categorical column, unseen, negative and broken codes, missing values in all of LightGBM's ways."""
    lightgbm = pytest.importorskip("lightgbm")
    rng = np.random.default_rng(seed)
    X, y = rows_for_training(seed)
    X[:, 4] = rng.integers(0, 40, len(X))
    y = y + (X[:, 4] % 3 == 1) * 2
    target = {"regression": y, "binary": y > 0, "multiclass": np.digitize(y, [-1, 1])}[parameters["objective"]]
    parameters = {**parameters, "verbose": -1, "num_threads": 1, "seed": 1, "min_data_per_group": 5, "cat_smooth": 1}
    if parameters["objective"] == "multiclass":
        parameters["num_class"] = 3
    if parameters["boosting"] == "rf":
        parameters |= {"bagging_freq": 1, "bagging_fraction": 0.6}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        booster = lightgbm.train(parameters, lightgbm.Dataset(X, target, categorical_feature=[4]), 6)
        X = X[:80].copy()
        X[:20, 4] = rng.choice([41, 100, -1, 3.7, np.nan, 1e6], size=20)
        outputs = booster.num_model_per_iteration()
        contributions = booster.predict(X, pred_contrib=True).reshape(len(X), outputs, -1)
    if parameters["boosting"] == "rf":
        contributions = contributions / booster.current_iteration()  # `predict` averages, its contributions do not
    ensemble = TreeEnsemble.from_lightgbm(booster)
    found, base = explained(ensemble, X)
    assert_same(found, contributions[:, :, :-1].transpose(0, 2, 1), 2e-6)
    assert_same(base, contributions[0, :, -1], 1e-6)


@settings(max_examples=12)
@given(
    seed=SEEDS,
    depth=st.integers(1, 7),
    loss=st.sampled_from(["RMSE", "Logloss", "MultiClass"]),
    nan_mode=st.sampled_from(["Min", "Max"]),
)
def test_catboost_contributions(seed, depth, loss, nan_mode):
    catboost = pytest.importorskip("catboost")
    X, y = rows_for_training(seed)
    target = {"RMSE": y, "Logloss": (y > 0).astype(int), "MultiClass": np.digitize(y, [-1, 1])}[loss]
    parameters = {"iterations": 6, "depth": depth, "loss_function": loss, "nan_mode": nan_mode, "thread_count": 1}
    model = catboost.CatBoost({**parameters, "allow_writing_files": False, "verbose": False, "random_seed": 1})
    model.fit(catboost.Pool(X, target))
    found, base = explained(TreeEnsemble.from_catboost(model), X[:80])
    contributions = model.get_feature_importance(catboost.Pool(X[:80]), type="ShapValues", thread_count=1)
    contributions = contributions.reshape(80, -1, 6)
    assert_same(found, contributions[:, :, :-1].transpose(0, 2, 1), 2e-6)
    assert_same(base, contributions[0, :, -1], 2e-6)


@pytest.mark.parametrize(
    "name",
    [
        "DecisionTreeRegressor",
        "RandomForestClassifier",
        "RandomForestRegressor",
        "ExtraTreesRegressor",
        "GradientBoostingRegressor",
        "GradientBoostingClassifier",
        "HistGradientBoostingRegressor",
        "HistGradientBoostingClassifier",
    ],
)
@settings(max_examples=4)
@given(seed=SEEDS, depth=st.integers(1, 6))
def test_sklearn_by_shap(name, seed, depth, shap_library):
    import sklearn.ensemble
    import sklearn.tree

    X, y = rows_for_training(seed, missing=0.1 if name.startswith("Hist") else 0.0)
    X = np.where(np.abs(X) > 1e20, 7.0, X)
    target = (y > 0).astype(int) if name.endswith("Classifier") else y
    size = {"max_iter": 5} if name.startswith("Hist") else {} if "Decision" in name else {"n_estimators": 5}
    make = getattr(sklearn.tree if "Decision" in name else sklearn.ensemble, name)
    model = make(max_depth=depth, random_state=0, **size).fit(X, target)
    ensemble = TreeEnsemble.from_sklearn(model)
    found, base = explained(ensemble, X[:60])
    explainer = shap_library.TreeExplainer(model)
    expected = np.asarray(explainer.shap_values(X[:60], check_additivity=False))
    expected = expected if expected.ndim == 3 else expected[:, :, None]
    expected_base = np.atleast_1d(explainer.expected_value)
    if ensemble.n_outputs < expected.shape[2]:  # a binary classifier's two outputs mirror each other
        expected, expected_base = expected[:, :, 1:], expected_base[1:]
    assert_same(found, expected, 5e-6)
    assert_same(base, expected_base, 5e-6)


@settings(max_examples=5)
@given(seed=SEEDS)
def test_xgboost_by_shap(seed, shap_library):
    X, y = rows_for_training(seed, missing=0.0)
    X = X.astype(np.float32)
    booster = xgboost.train({"max_depth": 6, "nthread": 1}, xgboost.DMatrix(X, y), 10)
    explainer = shap_library.TreeExplainer(booster, feature_perturbation="tree_path_dependent")
    found, base = explained(TreeEnsemble.from_xgboost(booster), X[:50])
    assert_same(found[:, :, 0], explainer.shap_values(X[:50], check_additivity=False), 5e-6)
    assert_same(base[0], explainer.expected_value, 5e-6)


# ---------------------------------------------------------------- large


@pytest.fixture(scope="module")
def forest():
    """1,000 trees × depth 6 over 20 features, and 400 rows."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 20)).astype(np.float32)
    X[rng.random(X.shape) < 0.05] = np.nan
    y = np.nan_to_num(X[:, :5]).sum(1) + rng.normal(size=len(X))
    booster = xgboost.train({"max_depth": 6, "eta": 0.02, "nthread": 1}, xgboost.DMatrix(X, y), 1000)
    return booster, TreeEnsemble.from_xgboost(booster), X[:400]


@pytest.mark.slow
def test_forest_of_a_thousand_trees(forest):
    booster, ensemble, X = forest
    found, base = explained(ensemble, X)
    assert additivity(ensemble, X, found, base) < 1e-5
    contributions = booster.predict(xgboost.DMatrix(X[:40]), pred_contribs=True)
    assert_same(found[:40, :, 0], contributions[:, :-1], 2e-5)


@pytest.mark.parametrize("max_leaves", [0, 200])
def test_trees_of_depth_sixteen(max_leaves):
    """Grown trees of up to 16 levels; limited to 200 leaves they grow leaf-wise, to depth 30 and more."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(3000, 30)).astype(np.float32)
    y = np.abs(X).sum(1) + rng.normal(size=len(X))
    shape = {"max_leaves": max_leaves, "grow_policy": "lossguide", "max_depth": 0} if max_leaves else {"max_depth": 16}
    booster = xgboost.train({**shape, "nthread": 1, "tree_method": "hist"}, xgboost.DMatrix(X, y), 3)
    ensemble = TreeEnsemble.from_xgboost(booster)
    found, base = explained(ensemble, X[:50])
    assert additivity(ensemble, X[:50], found, base) < 1e-5
    contributions = booster.predict(xgboost.DMatrix(X[:50]), pred_contribs=True)
    # XGBoost 3.2 divides by small float32 on long paths: 2.6e-5 from the rational twin here, ours is 2e-7 from it.
    assert_same(found[:, :, 0], contributions[:, :-1], 5e-5)


def test_grown_trees_against_the_rational_twin(exact_path_dependent_deep):
    """The libraries share float32; rational arithmetic does not."""
    rng = np.random.default_rng(2)
    X = rng.normal(size=(2000, 25)).astype(np.float32)
    y = np.abs(X).sum(1) + rng.normal(size=len(X))
    booster = xgboost.train({"max_depth": 16, "min_child_weight": 8, "nthread": 1}, xgboost.DMatrix(X, y), 1)
    ensemble = TreeEnsemble.from_xgboost(booster)
    found, base = explained(ensemble, X[:1])
    expected, expected_base = exact_path_dependent_deep(ensemble, X[:1])
    assert_same(found, expected)
    assert_same(base, expected_base, 1e-12)


# ---------------------------------------------------------------- the same everywhere


@pytest.mark.parametrize("background", [None, 20])
def test_threads_batches_and_layout_change_nothing(background, forest):
    _, ensemble, X = forest
    X = np.concatenate([X] * 5)[:1500] if background is None else X[:60]
    given = {} if background is None else {"background": X[:background]}
    one = TreeShap(ensemble, threads=1, **given).explain(X).values
    for threads in (2, 3, 7):
        np.testing.assert_array_equal(TreeShap(ensemble, threads=threads, **given).explain(X).values, one)
    many = TreeShap(ensemble, **given)
    np.testing.assert_array_equal(many.explain(np.asfortranarray(X)).values, one)
    np.testing.assert_array_equal(many.explain(X.astype(np.float64)).values, one)
    np.testing.assert_array_equal(np.concatenate(list(many.stream(X, 37))), one)
    np.testing.assert_array_equal(many.explain(X[::2]).values, one[::2])
    np.testing.assert_array_equal(np.concatenate([many.explain(X[i : i + 1]).values for i in range(20)]), one[:20])


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_both_modes_agree_where_their_games_do(precision, tree_builder):
    """A full grid as training data and as background: features are independent, so cover and background agree."""
    build = tree_builder(3, 1, precision)
    root, a, b = build.split(0), build.split(1), build.split(2)
    build.join(a, build.leaf(1.0, 2.0), build.leaf(5.0, 2.0))
    build.join(b, build.leaf(-3.0, 2.0), build.leaf(2.0, 2.0))
    build.join(root, a, b)
    build.end_tree()
    ensemble = build.build()
    grid = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
    cover = TreeShap(ensemble).explain(grid)
    shared = TreeShap(ensemble, background=grid).explain(grid)
    np.testing.assert_allclose(cover.values, shared.values, rtol=0, atol=1e-6)
    np.testing.assert_allclose(cover.base_value, shared.base_value, rtol=0, atol=1e-12)
