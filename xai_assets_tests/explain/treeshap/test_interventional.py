"""Interventional values: the rational twin, shap, axioms, differences of models, threads, bad input."""

import random
from dataclasses import replace

import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_assets.errors import ModelError
from xai_assets.explain.treeshap.ensemble import TreeEnsemble
from xai_assets.explain.treeshap.interventional import InterventionalShap
from xai_assets.explain.treeshap.margin import predict_margin

RNG = st.builds(random.Random, st.integers(0, 2**32 - 1))
TABLES, WALK = 2**26, 0
MODES = pytest.mark.parametrize("table_bytes", [TABLES, WALK], ids=["tables", "walk"])


@pytest.fixture(scope="module")
def trained():
    """Booster of 20 trees × depth 5 over 8 features with missing values, its ensemble, and its rows."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 8)).astype(np.float32)
    X[rng.random(X.shape) < 0.1] = np.nan
    z = np.nan_to_num(X)
    y = (z[:, 0] * z[:, 1] + z[:, 2] + rng.normal(size=len(X)) > 0).astype(int)
    parameters = {"max_depth": 5, "objective": "binary:logistic", "nthread": 1}
    booster = xgboost.train(parameters, xgboost.DMatrix(X, y), 20)
    return booster, TreeEnsemble.from_xgboost(booster), X


@MODES
@settings(max_examples=40)
@given(rng=RNG)
def test_against_the_rational_twin(table_bytes, rng, random_ensemble, random_rows, exact_interventional):
    ensemble = random_ensemble(rng)
    X, background = random_rows(rng, ensemble, 2), random_rows(rng, ensemble, rng.randint(1, 4))
    expected, base = exact_interventional(ensemble, X, background)
    found, found_base = InterventionalShap(ensemble, background, table_bytes=table_bytes).explain(X)
    assert (found.dtype, found_base.dtype) == (np.float32, np.float64)
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * scale)
    np.testing.assert_allclose(found_base, base, rtol=0, atol=1e-12 * scale)


@MODES
@pytest.mark.parametrize("depth, features", [(9, 9), (16, 7)])
def test_long_paths_against_the_rational_twin(
    table_bytes, depth, features, random_chain, random_rows, exact_interventional
):
    """Nine distinct features on a path; and sixteen levels, where every feature comes back."""
    for seed in range(2):
        rng = random.Random(seed)
        ensemble = random_chain(rng, depth=depth, features=features)
        X, background = random_rows(rng, ensemble, 1), random_rows(rng, ensemble, 3)
        expected, _ = exact_interventional(ensemble, X, background)
        found, _ = InterventionalShap(ensemble, background, table_bytes=table_bytes).explain(X)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@MODES
@pytest.mark.parametrize("rows", [1, 100, 1500])
def test_against_shap(table_bytes, rows, trained, shap_interventional):
    """1,500 background rows are more than the walk carries down at once."""
    booster, ensemble, X = trained
    expected, base = shap_interventional(booster, X[-rows:], X[:20])
    found, found_base = InterventionalShap(ensemble, X[-rows:], table_bytes=table_bytes).explain(X[:20])
    np.testing.assert_allclose(found[:, :, 0], expected, rtol=0, atol=3e-6)
    np.testing.assert_allclose(found_base, base, rtol=0, atol=3e-6)


@MODES
def test_some_trees_with_tables_and_some_without(table_bytes, trained):
    _, ensemble, X = trained
    whole = InterventionalShap(ensemble, X[:50])
    part = InterventionalShap(ensemble, X[:50], table_bytes=whole.table_bytes // 2)
    assert whole.walked_trees == 0
    assert 0 < part.walked_trees < ensemble.n_trees
    assert part.table_bytes <= whole.table_bytes // 2
    X = X[:300]
    one_by_one = InterventionalShap(ensemble, X[:50], table_bytes=table_bytes).explain(X)[0]
    np.testing.assert_allclose(part.explain(X)[0], one_by_one, rtol=0, atol=1e-6)


@MODES
def test_deep_trees_are_efficient(table_bytes, random_chain):
    """40 distinct features on a path, where no enumeration can follow."""
    rng = random.Random(1)
    ensemble = random_chain(rng, depth=40, features=40, side_depth=3)
    X = np.random.default_rng(0).choice([-2.0, -0.5, 0.5, 2.0, np.nan], size=(60, 40))
    found, base = InterventionalShap(ensemble, X[30:], table_bytes=table_bytes).explain(X)
    margin = predict_margin(ensemble, X)
    assert np.ptp(margin) > 1
    np.testing.assert_allclose(found.sum(1, dtype=np.float64) + base, margin, rtol=0, atol=1e-5)


def conjunction(tree_builder, features: int) -> TreeEnsemble:
    """1 where every feature is below 0, else 0."""
    build = tree_builder(features)
    spine = [build.split(f) for f in range(features)]
    below = build.leaf(1.0)
    for f in reversed(range(features)):
        build.join(spine[f], below, build.leaf(0.0))
        below = spine[f]
    build.end_tree()
    return build.build()


@MODES
@pytest.mark.parametrize("features", [1, 11, 64])
def test_conjunction_shares_equally(table_bytes, features, tree_builder):
    """All features below 0 against a background with u of them above: 1/u each, 0 for the others."""
    ensemble = conjunction(tree_builder, features)
    for u in {1, features // 2, features} - {0}:
        background = np.where(np.arange(features) < u, 1.0, -1.0)[None]
        found, base = InterventionalShap(ensemble, background, table_bytes=table_bytes).explain(
            np.full((1, features), -1.0)
        )
        expected = np.where(np.arange(features) < u, 1 / u, 0)
        np.testing.assert_allclose(found[0, :, 0], expected, rtol=1e-6)
        assert base == 0


def test_too_many_features_on_a_path(tree_builder):
    with pytest.raises(ModelError, match=r"too many distinct features.*at most 64.*65.*path-dependent"):
        InterventionalShap(conjunction(tree_builder, 65), np.zeros((1, 65)))


# ---------------------------------------------------------------- axioms


@MODES
@settings(max_examples=40)
@given(rng=RNG)
def test_efficiency(table_bytes, rng, random_ensemble, random_rows):
    ensemble = random_ensemble(rng, features=6, trees=6, depth=6)
    X, background = random_rows(rng, ensemble, 40), random_rows(rng, ensemble, 9)
    found, base = InterventionalShap(ensemble, background, table_bytes=table_bytes).explain(X)
    margin = predict_margin(ensemble, X)
    error = np.abs(found.sum(1, dtype=np.float64) + base - margin).max() / max(1.0, np.abs(margin).max())
    assert error < 1e-6


@MODES
@settings(max_examples=20)
@given(rng=RNG)
def test_null_player(table_bytes, rng, random_ensemble, random_rows):
    """Exactly 0 for what no tree reads, and for a row that is its own background."""
    ensemble = random_ensemble(rng, features=3)
    wide = replace(ensemble, n_features=5)
    X = random_rows(rng, wide, 5)
    found, _ = InterventionalShap(wide, X, table_bytes=table_bytes).explain(X)
    assert (found[:, 3:] == 0).all()
    alone, _ = InterventionalShap(wide, X[:1], table_bytes=table_bytes).explain(X[:1])
    assert (alone == 0).all()


@MODES
@settings(max_examples=20)
@given(rng=RNG)
def test_symmetry(table_bytes, rng, random_ensemble, random_rows):
    """Renaming the features of model, background and rows renames the values."""
    ensemble = random_ensemble(rng)
    X, background = random_rows(rng, ensemble, 5), random_rows(rng, ensemble, 5)
    order = np.array(rng.sample(range(4), 4))
    renamed = replace(ensemble, feature=np.where(ensemble.feature >= 0, np.argsort(order)[ensemble.feature], -1))
    renamed = replace(renamed, feature=renamed.feature.astype(np.int32))
    found, _ = InterventionalShap(ensemble, background, table_bytes=table_bytes).explain(X)
    other, _ = InterventionalShap(renamed, background[:, order], table_bytes=table_bytes).explain(X[:, order])
    np.testing.assert_allclose(other, found[:, order], rtol=0, atol=1e-6)


def difference(e: TreeEnsemble, p: TreeEnsemble) -> TreeEnsemble:
    """e − p as one ensemble of one output."""
    both = TreeEnsemble.stack([e, replace(p, value=-p.value, base_score=-p.base_score)])
    return replace(both, tree_output=np.zeros_like(both.tree_output), base_score=both.base_score.sum(keepdims=True))


@MODES
@settings(max_examples=25)
@given(rng=RNG)
def test_difference_of_two_models(table_bytes, rng, random_ensemble, random_rows, exact_interventional):
    """φ(e) − φ(p) is the Shapley value of the difference e − p: the reason for a shared background."""
    e, p = (random_ensemble(rng, outputs=1, trees=2, depth=3) for _ in range(2))
    # float32, because a model that rounds its inputs and one that does not are different games on other numbers
    X, background = (random_rows(rng, e, n).astype(np.float32) for n in (2, 3))
    (phi_e, base_e), (phi_p, base_p) = (
        InterventionalShap(model, background, table_bytes=table_bytes).explain(X) for model in (e, p)
    )
    expected, base = exact_interventional(difference(e, p), X, background)
    np.testing.assert_allclose(phi_e - phi_p, expected, rtol=0, atol=3e-6)
    np.testing.assert_allclose(base_e - base_p, base, rtol=0, atol=1e-12)


def test_difference_of_two_boosters(trained):
    """The same on trained models, whose difference is explained in one pass."""
    _, e, X = trained
    p = TreeEnsemble.from_xgboost(
        xgboost.train({"max_depth": 3, "nthread": 1}, xgboost.DMatrix(X, np.nan_to_num(X[:, 2])), 10)
    )
    background = X[-200:]
    phi_e, phi_p, phi = (InterventionalShap(m, background).explain(X[:500])[0] for m in (e, p, difference(e, p)))
    np.testing.assert_allclose(phi_e - phi_p, phi, rtol=0, atol=3e-6)
    assert np.abs(phi_e - phi_p).max() > 0.1


def test_outputs_of_a_stack_are_those_of_its_models(trained):
    _, e, X = trained
    stacked = InterventionalShap(TreeEnsemble.stack([e, difference(e, e)]), X[:30]).explain(X[:700])[0]
    np.testing.assert_array_equal(stacked[:, :, :1], InterventionalShap(e, X[:30]).explain(X[:700])[0])
    np.testing.assert_allclose(stacked[:, :, 1], 0, atol=1e-6)


# ---------------------------------------------------------------- the same everywhere


@MODES
def test_threads_and_batches_change_nothing(table_bytes, trained):
    """1,100 rows are two tasks."""
    _, ensemble, X = trained
    X = X[:1100]
    one = InterventionalShap(ensemble, X[:40], table_bytes=table_bytes, threads=1).explain(X)[0]
    many = InterventionalShap(ensemble, X[:40], table_bytes=table_bytes, threads=5)
    np.testing.assert_array_equal(many.explain(X)[0], one)
    np.testing.assert_array_equal(many.explain(X[777:778])[0], one[777:778])
    np.testing.assert_array_equal(many.explain(np.asfortranarray(X))[0], one)


def test_background_is_a_set_with_frequencies(trained):
    """Order does not matter, and a background given twice is the same background."""
    _, ensemble, X = trained
    once = InterventionalShap(ensemble, X[:64])
    again = InterventionalShap(ensemble, np.concatenate([X[:64], X[63::-1]]))
    np.testing.assert_allclose(again.explain(X)[0], once.explain(X)[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(again.base_value, once.base_value, rtol=0, atol=1e-12)
    assert once.background_hash == InterventionalShap(ensemble, X[:64].copy()).background_hash
    assert once.background_hash != again.background_hash


def test_a_wrong_background_is_seen(trained, shap_interventional):
    """The comparison with shap would notice one background row too many."""
    booster, ensemble, X = trained
    expected, _ = shap_interventional(booster, X[:30], X[-20:])
    found, _ = InterventionalShap(ensemble, X[:31]).explain(X[-20:])
    assert np.abs(found[:, :, 0] - expected).max() > 1e-3


# ---------------------------------------------------------------- edges


def test_single_leaves_give_everything_to_the_base(tree_builder):
    build = tree_builder(2)
    build.leaf(1.5)
    build.end_tree()
    found, base = InterventionalShap(build.build(), np.zeros((1, 2))).explain(np.ones((3, 2)))
    assert found.shape == (3, 2, 1)
    assert (found == 0).all()
    assert base.tolist() == [1.5]


def test_no_rows(trained):
    _, ensemble, X = trained
    assert InterventionalShap(ensemble, X[:5]).explain(X[:0])[0].shape == (0, 8, 1)


@MODES
def test_infinite_values_lie_beyond_every_threshold(table_bytes, trained):
    _, ensemble, X = trained
    z = np.nan_to_num(X[:200])
    shap_of = InterventionalShap(ensemble, z[:20], table_bytes=table_bytes).explain
    np.testing.assert_array_equal(
        shap_of(np.where(z > 0, np.inf, -np.inf))[0], shap_of(np.where(z > 0, 3e38, -3e38))[0]
    )


@pytest.mark.parametrize(
    "background, message",
    [
        (np.zeros((0, 8)), r"need a background.*at least one row of 8 features.*no rows"),
        (np.zeros((3, 7)), r"background does not fit.*\[n, 8\].*\[3, 7\]"),
        (np.zeros(8), r"background does not fit"),
        (np.array([["a"] * 8]), r"background does not fit.*numbers"),
        (np.array([[None] * 8]), r"background does not fit.*object"),
    ],
)
def test_bad_backgrounds(background, message, trained):
    with pytest.raises(ModelError, match=message):
        InterventionalShap(trained[1], background)


@pytest.mark.parametrize("X", [np.zeros((3, 9)), np.zeros(8), np.array([["1"] * 8])])
def test_bad_rows(X, trained):
    _, ensemble, rows = trained
    with pytest.raises(ModelError, match="matrix does not fit"):
        InterventionalShap(ensemble, rows[:3]).explain(X)
