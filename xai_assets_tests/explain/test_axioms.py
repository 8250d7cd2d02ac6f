"""What any explainer must satisfy, on models that say what the answer is."""

import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_assets.errors import ModelError
from xai_assets.explain import additivity_error, explainer_for, widen
from xai_assets.records import Attributions


def trained(X, y, **parameters):
    return xgboost.train({"max_depth": 3, "nthread": 1, **parameters}, xgboost.DMatrix(X, label=y), 15)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(("binary:logistic", "reg:squarederror")), st.floats(0, 0.5))
def test_efficiency(of_booster, seed, objective, missing):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(120, 4)).astype(np.float32)
    y = (X.sum(1) > 0).astype(float)
    X[rng.random(X.shape) < missing] = np.nan
    booster = trained(X, y, objective=objective)
    found = explainer_for(of_booster(booster)).explain(X)
    assert additivity_error(found) < 1e-5
    margin = booster.predict(xgboost.DMatrix(X), output_margin=True)
    np.testing.assert_array_equal(found.margin, margin)  # the library's own prediction
    assert (found.values.dtype, found.base_value.dtype, found.margin.dtype) == (np.float32, np.float64, np.float64)
    assert len(set(found.base_value)) == 1


def test_null_player(of_booster):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3)).astype(np.float32)
    X[:, 1] = 4.0  # cannot be split on
    found = explainer_for(of_booster(trained(X, X[:, 0] - X[:, 2]))).explain(
        rng.normal(size=(50, 3)).astype(np.float32)
    )
    assert (found.values[:, 1] == 0).all()
    assert (np.abs(found.values[:, [0, 2]]).max(0) > 0.1).all()


def test_symmetry(of_booster):
    """y = [a > 0] + [b > 0] on a full grid with equal counts: swapping a and b must swap their attributions."""
    grid = np.array([(a, b) for a in (-1, 1) for b in (-1, 1)] * 64, np.float32)
    booster = xgboost.train(
        {"max_depth": 1, "learning_rate": 1.0, "lambda": 0.0, "tree_method": "exact"},
        xgboost.DMatrix(grid, label=(grid > 0).sum(1)),
        2,
    )
    found = explainer_for(of_booster(booster)).explain(grid[:4]).values
    swapped = explainer_for(of_booster(booster)).explain(np.ascontiguousarray(grid[:4, ::-1])).values
    np.testing.assert_allclose(found, swapped[:, ::-1], atol=1e-6)
    np.testing.assert_allclose(found, np.sign(grid[:4]) / 2, atol=1e-5)


def test_single_leaf_gives_everything_to_the_base(of_booster):
    X = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    found = explainer_for(of_booster(trained(X, np.full(40, 3.0), base_score=1.0))).explain(X)
    assert (found.values == 0).all()
    np.testing.assert_allclose(found.base_value, found.margin, atol=1e-6)


def test_no_rows_and_wrong_shapes(of_booster):
    X = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    explainer = explainer_for(of_booster(trained(X, X[:, 0])))
    assert explainer.explain(X[:0]).values.shape == (0, 2)
    with pytest.raises(ModelError, match=r"\[n, 2\].*\[40, 1\]"):
        explainer.explain(X[:, :1])
    with pytest.raises(ModelError, match="infinite"):
        explainer.explain(np.where(X > 2, np.inf, X + np.float32(np.inf)))


def test_one_row_is_explained_as_among_many(of_booster):
    X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    explainer = explainer_for(of_booster(trained(X, X.sum(1))))
    alone = np.concatenate([explainer.explain(X[i : i + 1]).values for i in range(5)])
    np.testing.assert_array_equal(alone, explainer.explain(X).values[:5])


# ---------------------------------------------------------------- additivity, widening


def attributions(values, base, margin) -> Attributions:
    return Attributions(np.array(values, np.float32), np.array(base, float), np.array(margin, float))


@pytest.mark.parametrize(
    "found, error",
    [
        (attributions([[1, 2]], [3], [6]), 0.0),
        (attributions([[1, 2]], [3], [6.5]), 0.5 / 6.5),  # relative to large margins
        (attributions([[0.01, 0]], [0], [0]), 0.01),  # absolute near zero
        (attributions([[0, 0], [1, 1]], [0, 0], [0, 10]), 0.8),  # the worst row decides
        (attributions(np.empty((0, 2)), [], []), 0.0),
    ],
)
def test_additivity_error(found, error):
    assert additivity_error(found) == pytest.approx(error, abs=1e-7)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_never_within_tolerance(bad):
    for found in (
        attributions([[bad, 0]], [0], [0]),
        attributions([[0, 0]], [bad], [0]),
        attributions([[0, 0]], [0], [bad]),
        attributions([[bad, 0]], [0], [bad]),
    ):
        with np.errstate(invalid="ignore"):
            assert additivity_error(found) == np.inf


def test_a_wrong_attribution_is_seen(of_booster):
    X = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    found = explainer_for(of_booster(trained(X, X[:, 0]))).explain(X)
    assert additivity_error(found) < 1e-5
    found.values[17, 1] += 0.01
    assert additivity_error(found) > 1e-3


def test_widen():
    found = attributions([[1, 2]], [3], [6])
    wide = widen(found, ("b", "a"), ("a", "x", "b"))
    assert wide.values.tolist() == [[2, 0, 1]]
    assert wide.values.dtype == np.float32
    assert additivity_error(wide) == 0
    assert widen(found, ("b", "a"), ("b", "a")) is found
    with pytest.raises(ModelError, match=r"'b' has no column.*did you mean 'bb'"):
        widen(found, ("b", "a"), ("a", "bb"))
