"""The compiled walk against ten obvious lines, on random trees and on rows that lie on their thresholds."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_assets.errors import ModelError
from xai_assets.explain.treeshap.ensemble import TreeEnsemble
from xai_assets.explain.treeshap.margin import predict_margin
from xai_assets.explain.treeshap.readers.assemble import RawTree, assemble

THRESHOLDS = np.array([-1.5, -0.1, 0.0, 0.1, 1e-35, 2.0, 16777217.0, np.inf, -np.inf])
VALUES = [-1.5, -0.1, -0.0, 0.0, 0.1, 1e-35, -1e-35, 1.1e-35, 2.0, 2.7, 16777216.0, 16777217.0, 1e30, 33.0, 70.9, -3.0]
ODD = [np.nan, np.inf, -np.inf, np.nextafter(0.1, 1), np.nextafter(0.1, 0), -0.5, 3e9, 1e300]


def reference(e: TreeEnsemble, X: np.ndarray) -> np.ndarray:
    """What the docstring of `TreeEnsemble` says, value by value."""

    def goes_left(node: int, x: float) -> bool:
        if math.isnan(x) or (e.zero_is_missing[node] and abs(x) <= float(np.float32(1e-35))):
            return bool(e.missing_left[node])
        own = e.category_set[node]
        if own < 0:
            return x < e.threshold[node]
        words = [int(w) for w in e.category_words[e.category_starts[own] : e.category_starts[own + 1]]]
        code = int(x) if math.isfinite(x) else -1
        if not 0 <= code < 32 * len(words):
            return bool(e.category_other_left[own])
        return bool(words[code // 32] >> code % 32 & 1)

    margin = np.tile(e.base_score, (len(X), 1))
    for i, row in enumerate(X):
        for tree in range(e.n_trees):
            node = e.tree_starts[tree]
            while e.left[node] >= 0:
                x = row[e.feature[node]]
                with np.errstate(over="ignore"):
                    x = float(np.float32(x)) if e.input_precision == "float32" else float(x)
                node = (e.left if goes_left(node, x) else e.right)[node]
            margin[i, e.tree_output[tree]] += e.value[node]
    return margin


def random_tree(rng: np.random.Generator, n_features: int, output: int) -> RawTree:
    """Splits a random leaf, again and again; some splits are categorical."""
    left, right = [-1], [-1]
    for _ in range(rng.integers(0, 9)):
        leaf = rng.choice(np.flatnonzero(np.array(left) < 0))
        left[leaf], right[leaf] = len(left), len(left) + 1
        left += [-1, -1]
        right += [-1, -1]
    n = len(left)
    sets = [(rng.integers(0, 2**32, rng.integers(0, 4), dtype=np.uint32), bool(rng.integers(2))) for _ in range(3)]
    return RawTree(
        left=np.array(left),
        right=np.array(right),
        feature=rng.integers(0, n_features, n),
        threshold=rng.choice(THRESHOLDS, n),
        missing_left=rng.integers(0, 2, n).astype(bool),
        value=rng.normal(size=n),
        cover=np.ones(n),
        output=output,
        zero_is_missing=rng.integers(0, 2, n).astype(bool),
        category_set=np.where(rng.random(n) < 0.4, rng.integers(0, 3, n), -1),
        sets=sets,
    )


def random_ensemble(rng: np.random.Generator, precision: str) -> TreeEnsemble:
    outputs = int(rng.integers(1, 4))
    trees = [random_tree(rng, 3, int(rng.integers(outputs))) for _ in range(5)]
    return assemble(
        trees,
        n_features=3,
        base_score=rng.normal(size=outputs),
        input_precision=precision,
        feature_names=(),
        source="test",
        location="the test's model",
    )


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1))
def test_walk_follows_the_documented_rules(precision: str, dtype: type, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ensemble = random_ensemble(rng, precision)
    with np.errstate(over="ignore"):
        X = rng.choice(VALUES + ODD, (60, 3)).astype(dtype)
    np.testing.assert_array_equal(predict_margin(ensemble, X), reference(ensemble, X))


def test_precision_of_the_input_decides_ties() -> None:
    """0.1 as float32 is above 0.1: at x < 0.1 the two precisions part."""
    tree = RawTree(
        left=np.array([1, -1, -1]),
        right=np.array([2, -1, -1]),
        feature=np.array([0, -1, -1]),
        threshold=np.array([np.nextafter(0.1, 1), 0, 0]),
        missing_left=np.array([True, False, False]),
        value=np.array([0.0, -1.0, 1.0]),
        cover=np.ones(3),
    )

    def one(precision: str) -> TreeEnsemble:
        return assemble(
            [tree],
            n_features=1,
            base_score=0.25,
            input_precision=precision,
            feature_names=("x",),
            source="",
            location="",
        )

    X = np.array([[0.1], [np.nan]])
    assert predict_margin(one("float32"), X).tolist() == [[1.25], [-0.75]]
    assert predict_margin(one("float64"), X).tolist() == [[-0.75], [-0.75]]


def test_layout_kind_and_number_of_rows_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    ensemble = random_ensemble(rng, "float32")
    X = rng.integers(-2, 40, (1000, 3)).astype(np.float32)
    whole = predict_margin(ensemble, X)
    np.testing.assert_array_equal(predict_margin(ensemble, np.asfortranarray(X)), whole)
    np.testing.assert_array_equal(predict_margin(ensemble, X.astype(np.int32)), whole)
    np.testing.assert_array_equal(predict_margin(ensemble, X[::-1])[::-1], whole)
    for rows in (0, 1, 255, 256, 257):
        found = predict_margin(ensemble, X[:rows])
        assert found.shape == (rows, ensemble.n_outputs)
        np.testing.assert_array_equal(found, whole[:rows])


def test_threads_do_not_matter() -> None:
    rng = np.random.default_rng(2)
    ensemble = random_ensemble(rng, "float64")
    X = rng.choice(VALUES + ODD, (10_001, 3))
    alone = predict_margin(ensemble, X, threads=1)
    np.testing.assert_array_equal(predict_margin(ensemble, X, threads=3), alone)
    np.testing.assert_array_equal(predict_margin(ensemble, X[8000:]), alone[8000:])


@pytest.mark.parametrize(
    "X", [np.zeros((4, 2)), np.zeros(3), np.zeros((4, 4)), np.full((4, 3), "a"), np.full((4, 3), None)]
)
def test_a_matrix_that_does_not_fit_is_refused(X: np.ndarray) -> None:
    ensemble = random_ensemble(np.random.default_rng(1), "float32")
    with pytest.raises(ModelError, match="does not fit the model"):
        predict_margin(ensemble, X)
