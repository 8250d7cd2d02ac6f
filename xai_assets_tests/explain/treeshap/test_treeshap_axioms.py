"""What makes Shapley values Shapley values, for both games of `TreeShap`."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_assets.explain.treeshap.ensemble import TreeEnsemble
from xai_assets.explain.treeshap.margin import predict_margin
from xai_assets.explain.treeshap.shap import TreeShap

RNG = st.builds(random.Random, st.integers(0, 2**32 - 1))
GAMES = pytest.mark.parametrize("interventional", [False, True], ids=["path-dependent", "interventional"])


def values_of(ensemble, X, background):
    found = TreeShap(ensemble, background=background).explain(X)
    return found.values.reshape(len(X), ensemble.n_features, -1), found.base_value


def rows_of(rng, random_rows, ensemble, n, interventional):
    return random_rows(rng, ensemble, n), random_rows(rng, ensemble, 5) if interventional else None


def one_output(ensemble):
    return replace(
        ensemble, tree_output=np.zeros_like(ensemble.tree_output), base_score=ensemble.base_score.sum(keepdims=True)
    )


@GAMES
@settings(max_examples=60)
@given(rng=RNG)
def test_efficiency(interventional, rng, random_ensemble, random_rows):
    """Base and values add up to the margin: within 1e-6 of the largest margin, a hundredth of what is promised."""
    ensemble = random_ensemble(rng, features=6, trees=8, depth=6)
    X, background = rows_of(rng, random_rows, ensemble, 40, interventional)
    values, base = values_of(ensemble, X, background)
    margin = predict_margin(ensemble, X)
    gap = np.abs(values.sum(1, dtype=np.float64) + base - margin).max()
    assert gap <= 1e-6 * max(1.0, np.abs(margin).max())


@GAMES
@settings(max_examples=30)
@given(rng=RNG)
def test_null_player(interventional, rng, random_ensemble, random_rows):
    """A feature that no tree reads gets exactly 0; so does one whose splits have equal leaves, within rounding."""
    ensemble = replace(random_ensemble(rng, features=3), n_features=5)
    X, background = rows_of(rng, random_rows, ensemble, 10, interventional)
    values, _ = values_of(ensemble, X, background)
    assert (values[:, 3:] == 0).all()
    constant = replace(ensemble, value=np.where(ensemble.left < 0, 2.5, 0.0))
    values, base = values_of(constant, X, background)
    assert np.abs(values).max(initial=0) <= 1e-6
    expected = ensemble.base_score + 2.5 * np.bincount(ensemble.tree_output, minlength=ensemble.n_outputs)
    np.testing.assert_allclose(base, expected, rtol=1e-12)


@GAMES
def test_a_player_that_matters_is_no_null_player(interventional, tree_builder):
    """The planted fault of the test above: one leaf differs."""
    build = tree_builder(2)
    root = build.split(1)
    build.join(root, build.leaf(2.5), build.leaf(2.51))
    build.end_tree()
    values, _ = values_of(build.build(), np.full((1, 2), -1.0), np.ones((1, 2)) if interventional else None)
    assert values[0, 0, 0] == 0
    assert values[0, 1, 0] == pytest.approx(-0.01 if interventional else -0.005, rel=1e-5)


@GAMES
@settings(max_examples=30)
@given(rng=RNG)
def test_symmetry(interventional, rng, random_ensemble, random_rows):
    """Players have no names: renaming the features everywhere renames the values."""
    ensemble = random_ensemble(rng)
    X, background = rows_of(rng, random_rows, ensemble, 10, interventional)
    order = np.array(rng.sample(range(4), 4))
    feature = np.where(ensemble.feature >= 0, np.argsort(order)[ensemble.feature], -1).astype(np.int32)
    values, base = values_of(ensemble, X, background)
    renamed = replace(ensemble, feature=feature)
    found, found_base = values_of(renamed, X[:, order], None if background is None else background[:, order])
    np.testing.assert_allclose(found, values[:, order], rtol=0, atol=2e-6)
    np.testing.assert_allclose(found_base, base, rtol=0, atol=1e-12)


@GAMES
def test_interchangeable_players_share_equally(interventional, tree_builder):
    """x0 < 0 and x1 < 0 as a tree and its mirror image: neither feature comes first."""
    build = tree_builder(2)
    for first, second in ((0, 1), (1, 0)):
        root, below = build.split(first), build.split(second)
        build.join(below, build.leaf(6.0, 1.0), build.leaf(0.0, 2.0))
        build.join(root, below, build.leaf(0.0, 5.0))
        build.end_tree()
    grid = np.array([(a, b) for a in (-1.0, 1.0) for b in (-1.0, 1.0)])
    values, _ = values_of(build.build(), grid, grid[1:3] if interventional else None)
    np.testing.assert_allclose(values[0, 0], values[0, 1], rtol=1e-6)
    np.testing.assert_allclose(values[3, 0], values[3, 1], rtol=1e-6)
    np.testing.assert_allclose(values[1], values[2, ::-1], rtol=1e-6)
    assert values[0, 0, 0] > 1


@GAMES
@settings(max_examples=30)
@given(rng=RNG)
def test_linearity(interventional, rng, random_ensemble, random_rows):
    """φ(2 f − g/2) = 2 φ(f) − φ(g)/2, outputs of one stack included."""
    f, g = (one_output(random_ensemble(rng, trees=2)) for _ in range(2))
    X, background = rows_of(rng, random_rows, f, 10, interventional)
    X = X.astype(np.float32)  # models that round their inputs and those that do not are the same function of these
    background = None if background is None else background.astype(np.float32)
    scaled = [replace(e, value=s * e.value, base_score=s * e.base_score) for e, s in ((f, 2.0), (g, -0.5))]
    (phi_f, base_f), (phi_g, base_g) = values_of(f, X, background), values_of(g, X, background)
    both, both_base = values_of(TreeEnsemble.stack(scaled), X, background)
    total, total_base = values_of(one_output(TreeEnsemble.stack(scaled)), X, background)
    np.testing.assert_allclose(both[:, :, 0], 2 * phi_f[:, :, 0], rtol=0, atol=2e-5)
    np.testing.assert_allclose(total[:, :, 0], (2 * phi_f - phi_g / 2)[:, :, 0], rtol=0, atol=2e-5)
    np.testing.assert_allclose(both_base, np.concatenate([2 * base_f, -base_g / 2]), rtol=0, atol=1e-11)
    np.testing.assert_allclose(total_base, 2 * base_f - base_g / 2, rtol=0, atol=1e-11)


@GAMES
@settings(max_examples=20)
@given(rng=RNG)
def test_split_order_is_forgotten_when_features_are_independent(interventional, rng, tree_builder):
    """One function, two trees: x0 above x1 and x1 above x0, covers of a product distribution, a grid as background."""
    table = [[float(rng.randint(-9, 9)) for _ in range(2)] for _ in range(2)]
    p, q = rng.randint(1, 5), rng.randint(1, 5)  # of 6: the share of rows below 0
    ensembles = []
    for first in (0, 1):
        build = tree_builder(2)
        root, sides = build.split(first), []
        for i in range(2):
            node, leaves = build.split(1 - first), []
            for j in range(2):
                a, b = (i, j) if first == 0 else (j, i)
                leaves.append(build.leaf(table[a][b], float((p if a == 0 else 6 - p) * (q if b == 0 else 6 - q))))
            build.join(node, *leaves)
            sides.append(node)
        build.join(root, *sides)
        build.end_tree()
        ensembles.append(build.build())
    grid = np.array([(-1.0 if i < p else 1.0, -1.0 if j < q else 1.0) for i in range(6) for j in range(6)])
    one, other = (values_of(e, grid, grid if interventional else None)[0] for e in ensembles)
    np.testing.assert_allclose(one, other, rtol=0, atol=2e-6)
    across, _ = values_of(ensembles[0], grid, None if interventional else grid)
    np.testing.assert_allclose(across, one, rtol=0, atol=2e-6)
