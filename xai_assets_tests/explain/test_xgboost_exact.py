"""Attributions of XGBoost models against Shapley values by enumeration, and against shap's own tree algorithm."""

import itertools
import json
import warnings
from math import factorial

import numpy as np
import pytest
import xgboost

from xai_assets.explain import explainer_for


def expectation(tree: dict, x: np.ndarray, known: frozenset[int], node: int = 0) -> float:
    """E[f(x) | known features], following the tree's own cover where a feature is unknown (path-dependent)."""
    left, right = tree["left_children"][node], tree["right_children"][node]
    if left == -1:
        return tree["split_conditions"][node]
    feature = tree["split_indices"][node]
    if feature not in known:
        cover = tree["sum_hessian"]
        both = (expectation(tree, x, known, left), expectation(tree, x, known, right))
        return (cover[left] * both[0] + cover[right] * both[1]) / cover[node]
    value = x[feature]
    if np.isnan(value):
        go_left = bool(tree["default_left"][node])
    elif tree["split_type"][node]:
        place = tree["categories_nodes"].index(node)
        start, size = tree["categories_segments"][place], tree["categories_sizes"][place]
        go_left = int(value) not in tree["categories"][start : start + size]
    else:
        go_left = value < np.float32(tree["split_conditions"][node])
    return expectation(tree, x, known, left if go_left else right)


def shapley(booster: xgboost.Booster, X: np.ndarray) -> np.ndarray:
    """Shapley values (Shapley 1953) over all subsets: [n, d]."""
    trees = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]["model"]["trees"]
    d = X.shape[1]
    phi = np.zeros(X.shape)
    for i, x in enumerate(X):
        worth = {
            s: sum(expectation(t, x, frozenset(s)) for t in trees)
            for size in range(d + 1)
            for s in itertools.combinations(range(d), size)
        }
        for j in range(d):
            for s in worth:
                if j not in s:
                    share = factorial(len(s)) * factorial(d - len(s) - 1) / factorial(d)
                    phi[i, j] += share * (worth[tuple(sorted((*s, j)))] - worth[s])
    return phi


def data(seed: int = 0, rows: int = 300, levels: int = 0, missing: float = 0.0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, 4)).astype(np.float32)
    if levels:
        X[:, 1] = rng.integers(0, levels, rows)
    y = X[:, 0] * X[:, 2] + (X[:, 1] % 2 if levels else X[:, 1]) + 0.3 * rng.normal(size=rows)
    X[rng.random(X.shape) < missing] = np.nan
    return X, y


CASES = {
    "regression": ({}, {}),
    "classifier": ({"objective": "binary:logistic"}, {}),
    "missing values": ({"objective": "binary:logistic"}, {"missing": 0.25}),
    "categories, one-hot splits": ({"max_cat_to_onehot": 99}, {"levels": 5, "missing": 0.1}),
    "categories, partitions": ({"max_cat_to_onehot": 1}, {"levels": 12, "missing": 0.1}),
    "base score": ({"base_score": 7.0}, {}),
    "deep": ({"max_depth": 7}, {}),
    "forest": ({"num_parallel_tree": 3, "subsample": 0.6}, {"missing": 0.1}),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_enumeration(of_booster, case):
    parameters, wanted = CASES[case]
    X, y = data(**wanted)
    if parameters.get("objective") == "binary:logistic":
        y = (y > np.median(y)).astype(float)
    types = ["float", "c" if wanted.get("levels") else "float", "float", "float"]
    matrix = xgboost.DMatrix(X, label=y, feature_types=types, enable_categorical=True)
    booster = xgboost.train({"max_depth": 3, "nthread": 1, **parameters}, matrix, 6)
    found = explainer_for(of_booster(booster)).explain(X[:6])
    expected = shapley(booster, X[:6])
    np.testing.assert_allclose(found.values, expected, atol=2e-5)
    assert np.abs(expected).max() > 0.05


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_equals_shaps_own_algorithm(of_booster, missing):
    """shap hands XGBoost models to XGBoost itself; with the model type hidden it runs its own C implementation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # shap's plots use a function that matplotlib is about to deprecate
        import shap

    X, y = data(1, missing=missing)
    booster = xgboost.train({"max_depth": 4, "base_score": 0.5}, xgboost.DMatrix(X, label=y), 12)
    explainer = shap.TreeExplainer(booster, feature_perturbation="tree_path_dependent")
    assert explainer.model.model_type == "xgboost"
    explainer.model.model_type = "internal"
    expected = explainer.shap_values(X, check_additivity=False)
    found = explainer_for(of_booster(booster)).explain(X)
    np.testing.assert_allclose(found.values, expected, atol=2e-5)


def test_the_cheap_approximation_is_not_what_is_used(of_booster):
    X, y = data(2, missing=0.1)
    matrix = xgboost.DMatrix(X, label=y)
    booster = xgboost.train({"max_depth": 5}, matrix, 10)
    approximate = booster.predict(matrix, pred_contribs=True, approx_contribs=True)[:, :-1]
    assert np.abs(explainer_for(of_booster(booster)).explain(X).values - approximate).max() > 0.01
