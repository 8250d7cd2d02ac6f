"""The classifier two-sample test: valid under the null, strong where means move, blind where it says it is."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest, norm

from xai_assets.errors import StatisticsError
from xai_assets.explain.treeshap import TreeEnsemble, TreeShap
from xai_assets.stats.explanation_shift import MIN_ROWS, explanation_shift, fit_logistic, weighted_auc

NAMES = ("a", "b", "c")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def normal(rows: int, seed: int, mean: tuple[float, ...] = (0.0, 0.0, 0.0)) -> np.ndarray:
    return rng(seed).normal(mean, size=(rows, len(mean)))


def pairs_auc(scores: np.ndarray, current: np.ndarray, weights: np.ndarray) -> float:
    """Every pair, one by one."""
    won = total = 0.0
    for i in np.flatnonzero(current):
        for j in np.flatnonzero(~current):
            won += weights[i] * weights[j] * ((scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]))
            total += weights[i] * weights[j]
    return won / total


@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.floats(0.1, 5)), min_size=2, max_size=25).filter(
        lambda rows: len({current for _, current, _ in rows}) == 2
    )
)
def test_auc_is_the_share_of_pairs_won(rows: list[tuple[int, bool, float]]) -> None:
    scores, current, weights = (np.array(column) for column in zip(*rows, strict=True))
    expected = pairs_auc(scores.astype(float), current, weights)
    assert weighted_auc(scores.astype(float), current, weights) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("gap", [0.0, 1.0, 20.0])
def test_the_regression_is_that_of_scikit_learn(gap: float) -> None:
    """C=1, intercept without penalty; a gap of 20 standard deviations separates the sides perfectly."""
    from sklearn.linear_model import LogisticRegression

    X, y = normal(400, 1), rng(2).random(400) < 0.3
    X[y, 0] += gap
    weights = rng(3).uniform(0.2, 4, 400)
    ours = fit_logistic(X, y, weights)
    theirs = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(X, y, sample_weight=weights)
    assert ours[1:] == pytest.approx(theirs.coef_[0], abs=1e-4)
    assert ours[0] == pytest.approx(theirs.intercept_[0], abs=1e-4)


def stationary(days: int, weighted: bool) -> np.ndarray:
    draws, found = rng(11), []
    for _ in range(days):
        reference, current = draws.normal(size=(150, 3)), draws.normal(size=(90, 3))
        weights = {}
        if weighted:
            # as a budget draws them: few rows that stand for many, and another share on either side
            weights = {
                "reference_weights": draws.choice([1.0, 3.0], size=150),
                "current_weights": draws.choice([10.0, 30.0], size=90),
            }
        found.append(explanation_shift(reference, current, NAMES, permutations=99, rng=draws, **weights).p_value)
    return np.array(found)


@pytest.mark.parametrize("weighted", [False, True])
def test_without_a_shift_p_values_are_uniform(weighted: bool) -> None:
    p = stationary(250, weighted)
    assert kstest(p - rng(1).random(250) / 100, "uniform").pvalue > 0.01
    # The cross-fitted AUC with labels permuted fold by fold rejects 11 % at 5 % (see the module): 28 of 250.
    assert np.count_nonzero(p <= 0.05) <= 22, "12.5 expected, 22 is the 99.5th percentile"


def test_a_moved_mean_is_found_named_and_sized() -> None:
    """N(0,1) against N(μ,1): the best AUC is Φ(μ/√2), the coefficient μ (times the standard deviation of the union)."""
    found = explanation_shift(normal(20_000, 3), normal(20_000, 4, (0.0, -0.5, 0.0)), NAMES, rng=rng())
    assert found.auc == pytest.approx(norm.cdf(0.5 / np.sqrt(2)), abs=0.01)
    assert found.p_value == 1 / 200
    assert found.ranked[0][0] == "b"
    assert found.ranked[0][1] == pytest.approx(-0.5 * np.sqrt(1 + 0.25**2), abs=0.05)
    assert all(abs(coefficient) < 0.06 for _, coefficient in found.ranked[1:])


def test_a_shift_that_no_single_feature_shows_is_found() -> None:
    """φ_a and φ_b nearly cancel; each alone has AUC 0.53, their sum tells the days apart."""
    noise = normal(3_000, 1)[:, :1] * 5
    reference = np.hstack([noise, -noise, noise * 0]) + normal(3_000, 2)
    current = np.hstack([noise, -noise, noise * 0]) + normal(3_000, 3, (0.6, 0.6, 0.0))
    found = explanation_shift(reference, current, NAMES, rng=rng())
    assert found.auc > 0.68
    assert {name for name, _ in found.ranked[:2]} == {"a", "b"}


def test_a_change_of_spread_alone_is_not_seen() -> None:
    """Stated in the module: the classifier is linear."""
    found = explanation_shift(normal(3_000, 1), 3 * normal(3_000, 2), NAMES, rng=rng())
    assert found.auc < 0.53


def test_the_order_of_rows_does_not_matter() -> None:
    reference, current, weights = normal(300, 1), normal(200, 2, (0.2, 0.0, 0.0)), rng(3).uniform(1, 5, 300)
    a, b = rng(4).permutation(300), rng(5).permutation(200)
    first = explanation_shift(reference, current, NAMES, rng=rng(), reference_weights=weights)
    second = explanation_shift(reference[a], current[b], NAMES, rng=rng(), reference_weights=weights[a])
    assert first == second
    assert first != explanation_shift(reference, current, NAMES, rng=rng(1), reference_weights=weights)


def test_equal_weights_are_no_weights() -> None:
    reference, current = normal(300, 1), normal(200, 2, (0.2, 0.0, 0.0))
    plain = explanation_shift(reference, current, NAMES, rng=rng())
    equal = explanation_shift(
        reference, current, NAMES, rng=rng(), reference_weights=np.full(300, 4.0), current_weights=np.full(200, 0.25)
    )
    assert equal == plain


def test_weights_undo_an_uneven_sample() -> None:
    """Rows above 0 were drawn five times as often: without weights a shift, with them none."""
    full = normal(20_000, 1)
    share = np.where(full[:, 0] > 0, 0.5, 0.1)
    drawn = rng(2).random(20_000) < share
    reference = normal(4_000, 3)
    assert explanation_shift(reference, full[drawn], NAMES, rng=rng()).auc > 0.65
    weighted = explanation_shift(reference, full[drawn], NAMES, rng=rng(), current_weights=1 / share[drawn])
    assert weighted.auc == pytest.approx(0.5, abs=0.02)
    assert abs(dict(weighted.ranked)["a"]) < 0.1


def test_rows_that_are_not_finite_are_left_out_and_counted() -> None:
    reference, current = normal(100, 1), normal(80, 2)
    whole = explanation_shift(reference, current, NAMES, rng=rng())
    bad = np.array([[np.nan, 0, 0], [0, np.inf, 0], [0, 0, -np.inf]])
    found = explanation_shift(np.vstack([bad, reference]), np.vstack([current, bad[:1]]), NAMES, rng=rng())
    assert (found.rows_reference, found.rows_current, found.rows_left_out) == (100, 80, 4)
    assert (found.auc, found.p_value, found.coefficients) == (whole.auc, whole.p_value, whole.coefficients)


def test_constant_columns_have_no_coefficient_and_nothing_else_changes() -> None:
    reference, current = normal(100, 1), normal(80, 2, (0.5, 0.0, 0.0))
    two = explanation_shift(reference[:, :2], current[:, :2], ("a", "b"), rng=rng())
    reference[:, 2] = current[:, 2] = 7.0
    found = explanation_shift(reference, current, NAMES, rng=rng())
    assert found.coefficients == (*two.coefficients, 0.0)
    assert (found.auc, found.p_value) == (two.auc, two.p_value)


def test_constant_attributions_are_no_shift() -> None:
    found = explanation_shift(np.zeros((50, 3)), np.zeros((50, 3)), NAMES, rng=rng())
    assert (found.auc, found.p_value, found.coefficients) == (0.5, 1.0, (0.0, 0.0, 0.0))


def test_two_constants_that_differ_are_told_apart_whatever_their_size() -> None:
    for size in (1e-300, 1.0, 1e300):
        found = explanation_shift(np.zeros((50, 1)), np.full((50, 1), size), ("a",), rng=rng())
        assert (found.auc, found.p_value) == (1.0, 1 / 200)


def test_without_permutations_there_is_no_p_value() -> None:
    found = explanation_shift(normal(50, 1), normal(50, 2), NAMES, permutations=0, folds=2, rng=rng())
    assert np.isnan(found.p_value)


GOOD = np.zeros((MIN_ROWS, 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": GOOD[1:]}, "too few rows of the reference"),
        ({"current": np.where(np.arange(MIN_ROWS)[:, None] == 0, np.nan, GOOD)}, "29, and 1 that are not finite"),
        ({"current": GOOD[:, :2]}, "current do not fit"),
        ({"current": GOOD[:, 0]}, "current do not fit"),
        ({"reference_weights": np.ones(3)}, "reference do not fit"),
        ({"reference_weights": np.zeros(MIN_ROWS)}, "positive and finite"),
        ({"current_weights": np.full(MIN_ROWS, np.nan)}, "positive and finite"),
        ({"folds": 2}, "3 to 15 folds"),
        ({"folds": 16}, "3 to 15 folds"),
        ({"permutations": -1}, "no negative number"),
    ],
)
def test_what_it_is_not_defined_for_is_refused(change: dict[str, object], message: str) -> None:
    arguments = {"reference": GOOD, "current": GOOD, "features": NAMES, "rng": rng(), **change}
    test: Callable[..., object] = explanation_shift
    with pytest.raises(StatisticsError, match=message):
        test(**arguments)


@pytest.mark.slow
def test_the_experiment_of_the_paper_on_a_changed_correlation() -> None:
    """Mougan et al. 2023 (arXiv:2303.08081), synthetic data: y = X1·X2 + X3 + noise, corr(X1, X2) from 0 to 1.

    Each X keeps its margins. Required: correlation of ρ with the AUC on explanations ≥ 0.98, on inputs |·| < 0.4.
    Measured with seeds 0, 1, 2: 0.9993, 0.9994, 0.9986; inputs −0.32, 0.002, −0.37 (20 AUCs of no shift: chance).
    """
    import xgboost

    draws = rng(1)

    def inputs(rho: float) -> np.ndarray:
        z = draws.normal(size=(5_000, 3))
        z[:, 1] = rho * z[:, 0] + np.sqrt(1 - rho**2) * z[:, 1]
        return z.astype(np.float32)

    X = inputs(0.0)
    y = X[:, 0] * X[:, 1] + X[:, 2] + draws.normal(0, 0.1, 5_000)
    model = xgboost.XGBRegressor(n_estimators=100, max_depth=4, n_jobs=1, random_state=0).fit(X, y)
    shap = TreeShap(TreeEnsemble.from_xgboost(model), threads=1)
    reference = inputs(0.0)
    phi = shap.explain(reference).values
    correlations = np.linspace(0, 1, 20)
    on_inputs, on_explanations, last = [], [], None
    for rho in correlations:
        current = inputs(float(rho))
        raw = explanation_shift(reference, current, NAMES, permutations=0, rng=draws)
        last = explanation_shift(phi, shap.explain(current).values, NAMES, permutations=0, rng=draws)
        on_inputs.append(raw.auc)
        on_explanations.append(last.auc)
    assert np.corrcoef(correlations, on_explanations)[0, 1] >= 0.98
    assert abs(np.corrcoef(correlations, on_inputs)[0, 1]) < 0.4
    assert max(abs(a - 0.5) for a in on_inputs) < 0.02
    assert on_explanations[-1] > 0.7
    assert last is not None
    assert {name for name, _ in last.ranked[:2]} == {"a", "b"}, "X3 does not take part"
