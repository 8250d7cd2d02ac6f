"""Stability and faithfulness: hand-computed examples, plain twins, and models whose right answer is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_assets.errors import StatisticsError
from xai_assets.stats.explanation_quality import (
    JITTER_SD,
    MOST_STEPS,
    area,
    by_importance,
    cosine_similarity,
    exchanged,
    faithfulness,
    local_lipschitz,
    neighbours,
    random_order,
    removal_steps,
    spread,
    typical,
)

NAN = float("nan")
F32 = np.float32


def near_of(X: np.ndarray, seed: int = 0, count: int = 50) -> np.ndarray:
    return neighbours(X, np.array([2.0, 0.0, 10.0]), np.random.default_rng(seed), count)


def test_spread_and_typical_by_hand() -> None:
    background = np.array([[1, 2, NAN], [3, 2, NAN], [NAN, 0, NAN], [5, NAN, NAN]], F32)
    numeric = np.array([True, False, True])
    np.testing.assert_allclose(spread(background, numeric), [(4 - 2) / 1.349, 0, 0])
    np.testing.assert_array_equal(typical(background, numeric), [3, 2, NAN])


def test_spread_of_normal_values_is_their_deviation_and_a_few_extremes_do_not_change_it() -> None:
    values = np.random.default_rng(0).normal(0, 3, (20_000, 1)).astype(F32)
    assert spread(values, np.array([True]))[0] == pytest.approx(3, rel=0.03)
    values[:100] = 1e6
    assert spread(values, np.array([True]))[0] == pytest.approx(3, rel=0.03)


def test_spread_where_half_of_the_values_are_equal_is_the_standard_deviation() -> None:
    values = np.array([[0], [0], [0], [0], [0], [8]], F32)
    assert spread(values, np.array([True]))[0] == pytest.approx(values.std())


def test_of_equally_frequent_codes_the_lowest_is_typical() -> None:
    assert typical(np.array([[4], [1], [4], [1]], F32), np.array([False])).tolist() == [1]


def test_neighbours_differ_in_numeric_values_only_and_by_a_small_share_of_their_spread() -> None:
    X = np.array([[1.0, 3.0, NAN], [5.0, 0.0, 7.0]], F32)
    near = near_of(X, count=2_000)
    assert near.shape == (2, 2_000, 3)
    assert near.dtype == F32
    assert (near[:, :, 1] == X[:, None, 1]).all()
    assert np.isnan(near[0, :, 2]).all()
    moved = near[1, :, 2] - 7.0
    assert abs(moved.mean()) < 4 * JITTER_SD * 10 / np.sqrt(2_000)
    assert moved.std() == pytest.approx(JITTER_SD * 10, rel=0.1)
    np.testing.assert_array_equal(near, near_of(X, count=2_000))
    assert not np.array_equal(near[1], near_of(X, seed=1, count=2_000)[1])


def test_a_neighbour_of_the_largest_number_is_finite() -> None:
    X = np.full((20, 1), np.finfo(F32).max)
    assert np.isfinite(neighbours(X, np.array([1e38]), np.random.default_rng(0))).all()


def test_cosine_similarity_by_hand() -> None:
    phi = np.array([[1, 0], [0, 0], [3, 4]], F32)
    near = np.array([[[2, 0], [0, 1], [-1, 0]], [[0, 0], [1, 0], [0, 0]], [[4, 3], [NAN, 1], [6, 8]]], F32)
    expected = [[1, 0, -1], [1, 0, 1], [24 / 25, NAN, 1]]
    np.testing.assert_allclose(cosine_similarity(phi, near), expected, atol=1e-12)


@given(
    st.lists(st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=3), min_size=2, max_size=5),
    st.floats(0.5, 8, width=32),
)
@settings(max_examples=40)
def test_cosine_similarity_is_bounded_and_blind_to_scale(rows: list[list[float]], scale: float) -> None:
    phi = np.array(rows, F32)
    near = np.stack([phi[::-1], phi], axis=1)
    found = cosine_similarity(phi, near)
    assert (np.abs(found) <= 1).all()
    np.testing.assert_allclose(found[:, 1], 1.0, atol=1e-6)
    lengths = np.linalg.norm(phi.astype(np.float64), axis=1)
    solid = (lengths > 1e-3) & (lengths[::-1] > 1e-3)
    np.testing.assert_allclose(cosine_similarity(phi * F32(scale), near)[solid], found[solid], atol=1e-5)


def test_lipschitz_by_hand() -> None:
    """x moves by 1 σ in the first feature (σ 2) and φ by (3, 4): slope 5; a second neighbour gives 2."""
    X, near = np.array([[1, 1]], F32), np.array([[[3, 1], [1, 11], [1, 1]]], F32)
    phi, phi_near = np.array([[0, 0]], F32), np.array([[[3, 4], [2, 0], [9, 9]]], F32)
    sd = np.array([2.0, 10.0])
    assert local_lipschitz(X, near, phi, phi_near, sd).tolist() == [5.0]
    assert math.isnan(local_lipschitz(X, near[:, 2:], phi, phi_near[:, 2:], sd)[0]), "no neighbour differs"


def test_the_lipschitz_estimate_of_a_linear_model_is_below_its_constant_and_near_it() -> None:
    """φ_j = β_j (x_j − mean): no estimate exceeds max |β_j σ_j|, and many neighbours come close."""
    rng = np.random.default_rng(0)
    beta, sd = np.array([1.0, -3.0]), np.array([2.0, 0.5])
    X = rng.normal(size=(20, 2)).astype(F32)
    near = neighbours(X, sd, rng, 200)
    slopes = local_lipschitz(X, near, (X * beta).astype(F32), (near * beta).astype(F32), sd)
    constant = np.abs(beta * sd).max()
    assert slopes.max() <= constant * 1.01
    assert slopes.min() > 0.9 * constant


def test_a_missing_value_is_no_distance() -> None:
    X, near = np.array([[NAN, 0]], F32), np.array([[[NAN, 1]]], F32)
    phi, phi_near = np.zeros((1, 2), F32), np.array([[[0, 2]]], F32)
    assert local_lipschitz(X, near, phi, phi_near, np.ones(2)).tolist() == [2.0]


def test_steps_go_from_none_to_all_features_in_a_bounded_number() -> None:
    assert removal_steps(1).tolist() == [0, 1]
    many = removal_steps(500)
    assert (many[0], many[-1], len(many)) == (0, 500, MOST_STEPS + 1)
    assert (np.diff(many) > 0).all()


def test_features_are_exchanged_in_order() -> None:
    X, absent = np.array([[1, 2, NAN], [4, 5, 6]], F32), np.array([10, 20, 30], F32)
    order = np.array([[2, 0, 1], [1, 2, 0]])
    away = exchanged(X, absent, order, np.array([0, 1, 3]))
    np.testing.assert_array_equal(away[0], [[1, 2, NAN], [1, 2, 30], [10, 20, 30]])
    np.testing.assert_array_equal(away[1], [[4, 5, 6], [4, 20, 6], [10, 20, 30]])
    back = exchanged(absent, X, order, np.array([0, 2, 3]))
    np.testing.assert_array_equal(back[0], [[10, 20, 30], [1, 20, NAN], [1, 2, NAN]])


@given(seed=st.integers(0, 10_000), n=st.integers(1, 5), d=st.integers(1, 9))
@settings(max_examples=25)
def test_exchanged_as_its_plain_twin(seed: int, n: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    start, end = rng.normal(size=(2, n, d)).astype(F32)
    order, steps = random_order(n, d, rng), removal_steps(d)
    expected = np.repeat(start[:, None, :], len(steps), axis=1)
    for i in range(n):
        for j, s in enumerate(steps):
            for feature in order[i][:s]:
                expected[i, j, feature] = end[i, feature]
    np.testing.assert_array_equal(exchanged(start, end, order, steps), expected)
    assert (np.sort(order, axis=1) == np.arange(d)).all()


def test_importance_is_by_size_and_ties_go_to_the_first() -> None:
    assert by_importance(np.array([[1, -3, 2, 3]], F32)).tolist() == [[1, 3, 2, 0]]


def test_area_by_hand() -> None:
    """(0 → 2 → 2) over thirds 0, 1/3, 1: 1/3 · 1 + 2/3 · 2 = 5/3; a second row of zeros halves the mean."""
    steps = np.array([0, 1, 3])
    assert area(np.array([[0.0, 2, 2]]), steps) == pytest.approx(5 / 3)
    assert area(np.array([[0.0, 2, 2], [0, 0, 0]]), steps) == pytest.approx(5 / 6)
    assert math.isnan(area(np.zeros((0, 3)), steps))


def curves(order: np.ndarray, X: np.ndarray, beta: np.ndarray) -> np.ndarray:
    steps, absent = removal_steps(X.shape[1]), np.zeros(X.shape[1], F32)
    ways = (exchanged(X, absent, order, steps), exchanged(absent, X, order, steps))
    return np.stack([w.astype(np.float64) @ beta for w in ways])


def test_true_attributions_are_more_faithful_than_chance_and_reversed_ones_less() -> None:
    """Linear model, φ_j = β_j x_j, all contributions positive: the largest first is the steepest curve there is."""
    rng = np.random.default_rng(0)
    X, beta = rng.uniform(0.1, 1, (200, 8)).astype(F32), np.array([8.0, 4, 2, 1, 0.5, 0.2, 0.1, 0.05])
    order, steps = by_importance((X * beta).astype(F32)), removal_steps(8)
    chance = curves(random_order(200, 8, rng), X, beta)
    right = faithfulness(curves(order, X, beta), chance, steps)
    wrong = faithfulness(curves(order[:, ::-1], X, beta), chance, steps)
    assert min(right) > 1.5
    assert max(wrong) < 0.5
    assert faithfulness(chance, chance, steps) == (1.0, 1.0)


def test_a_model_that_does_not_move_has_no_faithfulness() -> None:
    flat = np.ones((2, 5, 4))
    assert all(math.isnan(r) for r in faithfulness(flat, flat, removal_steps(3)))


def test_curves_of_another_length_are_refused() -> None:
    with pytest.raises(StatisticsError, match="differ in shape"):
        faithfulness(np.ones((2, 5, 4)), np.ones((2, 5, 3)), removal_steps(3))
