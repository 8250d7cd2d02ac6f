"""The rational twins themselves: against hand-computed games, each other and the axioms."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

RNG = st.builds(random.Random, st.integers(0, 2**32 - 1))


@pytest.fixture
def and_tree(tree_builder):
    """f = 8 where x0 < 0 and x1 < 0, else 0; a quarter of the cover on the left of the root, half below."""
    build = tree_builder(3)
    root, second = build.split(0), build.split(1)
    yes, no, other = build.leaf(8.0, 1.0), build.leaf(0.0, 1.0), build.leaf(0.0, 6.0)
    build.join(second, yes, no)
    build.join(root, second, other)
    build.end_tree()
    return build.build()


def test_path_dependent_by_hand(and_tree, exact_path_dependent):
    """v(∅) = 1, v({0}) = 4, v({1}) = 2, v({0,1}) = 8: φ_0 = ((4−1) + (8−2))/2, φ_1 = ((2−1) + (8−4))/2."""
    values, base = exact_path_dependent(and_tree, [[-1.0, -1.0, 0.0]])
    assert values[0, :, 0].tolist() == [4.5, 2.5, 0.0]
    assert base.tolist() == [1.0]


def test_interventional_by_hand(and_tree, exact_interventional):
    """Background (1, −1) and (1, 1): v(∅) = 0, v({0}) = 4, v({1}) = 0, v({0,1}) = 8."""
    values, base = exact_interventional(and_tree, [[-1.0, -1.0, 0.0]], [[1.0, -1.0, 0.0], [1.0, 1.0, 0.0]])
    assert values[0, :, 0].tolist() == [6.0, 2.0, 0.0]
    assert base.tolist() == [0.0]


@settings(max_examples=25)
@given(rng=RNG)
def test_both_path_dependent_twins_agree(rng, random_ensemble, random_rows, exact_path_dependent, request):
    ensemble = random_ensemble(rng)
    X = random_rows(rng, ensemble, 2)
    deep = request.getfixturevalue("exact_path_dependent_deep")(ensemble, X)
    for found, expected in zip(deep, exact_path_dependent(ensemble, X), strict=True):
        np.testing.assert_array_equal(found, expected)


@settings(max_examples=15)
@given(rng=RNG)
def test_twins_are_efficient(rng, random_ensemble, random_rows, exact_path_dependent, exact_interventional, request):
    ensemble = random_ensemble(rng, depth=3)
    X, background = random_rows(rng, ensemble, 3), random_rows(rng, ensemble, 3)
    margin = request.getfixturevalue("exact_margin")(ensemble, X)
    for values, base in (exact_path_dependent(ensemble, X), exact_interventional(ensemble, X, background)):
        np.testing.assert_allclose(values.sum(1) + base, margin, rtol=0, atol=1e-12)


def test_makers_reach_what_they_promise(random_ensemble, random_rows, random_chain):
    """Over some seeds there is each kind of node, tree and row that the differential tests rely on."""
    seen = dict.fromkeys(
        ("leaf", "category", "zero_missing", "repeated", "no cover", "nothing below", "outputs", "tie", "nan", "inf"), 0
    )
    for seed in range(60):
        rng = random.Random(seed)
        e = random_ensemble(rng)
        X = random_rows(rng, e, 4)
        inner = e.left >= 0
        below = e.cover[e.left] + e.cover[e.right]
        seen["leaf"] += (np.diff(e.tree_starts) == 1).any()
        seen["category"] += (e.category_set >= 0).any()
        seen["zero_missing"] += e.zero_is_missing[inner].any()
        seen["repeated"] += (e.feature[inner] == e.feature[e.left[inner]]).any()
        seen["no cover"] += (e.cover[~inner] == 0).any()
        seen["nothing below"] += (below[inner] == 0).any()
        seen["outputs"] += e.n_outputs > 1
        seen["tie"] += np.isin(X, e.threshold[inner]).any()
        seen["nan"] += np.isnan(X).any()
        seen["inf"] += np.isinf(X).any()
    assert min(seen.values()) >= 3, seen
    chain = random_chain(random.Random(0), depth=16, features=20)
    assert len({int(f) for f in chain.feature if f >= 0}) >= 16
