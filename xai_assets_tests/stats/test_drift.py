"""Distances: axioms, obvious twins, and numbers from elsewhere."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import jensenshannon
from scipy.stats import norm, wasserstein_distance

from xai_assets.errors import StatisticsError
from xai_assets.stats import drift

COUNTS = hnp.arrays(
    np.float64, st.tuples(st.just(2), st.integers(2, 12)), elements=st.integers(0, 500).map(float)
).filter(lambda a: bool(np.all(a.sum(axis=1) > 0)))
SYMMETRIC = (drift.psi, drift.jensen_shannon, drift.kolmogorov_smirnov, drift.hellinger, drift.l_infinity)
DISTANCES = (*SYMMETRIC, drift.kullback_leibler)
BOUNDED = (drift.jensen_shannon, drift.kolmogorov_smirnov, drift.hellinger, drift.l_infinity)


@given(COUNTS)
def test_axioms(counts: np.ndarray) -> None:
    q, p = counts
    for distance in DISTANCES:
        assert distance(p, p) == pytest.approx(0.0, abs=1e-7)
        assert distance(q, p) >= -1e-12
    for distance in SYMMETRIC:
        assert distance(q, p) == pytest.approx(float(distance(p, q)), abs=1e-12)
    for distance in BOUNDED:
        assert distance(q, p) <= 1.0


@given(COUNTS, st.randoms(use_true_random=False))
def test_order_of_cells_does_not_matter_where_it_has_no_meaning(counts: np.ndarray, random: object) -> None:
    order = list(range(counts.shape[1]))
    random.shuffle(order)  # type: ignore[attr-defined]
    for distance in (drift.psi, drift.jensen_shannon, drift.hellinger, drift.l_infinity, drift.kullback_leibler):
        assert distance(*counts) == pytest.approx(float(distance(*counts[:, order])), abs=1e-9)


@given(COUNTS)
def test_cells_empty_on_both_sides_change_nothing(counts: np.ndarray) -> None:
    padded = np.concatenate((counts, np.zeros((2, 3))), axis=1)
    for distance in (*DISTANCES, drift.psi_corrected):
        assert distance(*counts) == pytest.approx(float(distance(*padded)), abs=1e-12)


@given(COUNTS)
def test_twins(counts: np.ndarray) -> None:
    q, p = counts
    used = [i for i in range(len(q)) if q[i] + p[i] > 0]
    qs = [(q[i] + 0.5) / (q.sum() + 0.5 * len(used)) for i in used]
    ps = [(p[i] + 0.5) / (p.sum() + 0.5 * len(used)) for i in used]
    psi = sum((b - a) * np.log(b / a) for a, b in zip(qs, ps, strict=True))
    assert drift.psi(q, p) == pytest.approx(psi, abs=1e-12)
    assert drift.kullback_leibler(q, p) == pytest.approx(sum(b * np.log2(b / a) for a, b in zip(qs, ps, strict=True)))
    null = (len(used) - 1) * (1 / p.sum() + 1 / q.sum())
    assert drift.psi_corrected(q, p) == pytest.approx(psi - null, abs=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert drift.jensen_shannon(q, p) == pytest.approx(np.nan_to_num(jensenshannon(q, p, 2)), abs=1e-6)
    assert drift.kolmogorov_smirnov(q, p) == pytest.approx(
        max(abs(p[: i + 1].sum() / p.sum() - q[: i + 1].sum() / q.sum()) for i in range(len(q)))
    )


@given(hnp.arrays(np.float64, (4, 6), elements=st.integers(0, 50).map(float)))
def test_wasserstein_equals_scipy(a: np.ndarray) -> None:
    q, p, at_q, at_p = a
    if q.sum() == 0 or p.sum() == 0:
        assert np.isnan(drift.wasserstein(q, p, at_q, at_p))
        return
    assert drift.wasserstein(q, p, at_q, at_p) == pytest.approx(wasserstein_distance(at_q, at_p, q, p), abs=1e-9)


@given(COUNTS, st.floats(0.5, 5.0))
def test_weights_count_by_their_effective_number(counts: np.ndarray, weight: float) -> None:
    q, p = counts
    # All weights equal: effective numbers are the plain ones, whatever the weight.
    assert drift.psi_corrected(q * weight, p, n_effective_reference=q.sum()) == pytest.approx(
        float(drift.psi_corrected(q, p)), abs=1e-9
    )
    assert drift.effective_rows(q * weight, q * weight**2) == pytest.approx(q.sum())


def test_golden_psi_of_popmon() -> None:
    # popmon, tests/popmon/analysis/comparison/test_comparisons.py, test_psi: 1.699815077214137 to 4 decimals.
    # Counts of 10⁸ make the ½ in each cell negligible, as popmon has none.
    assert drift.psi(np.full(4, 0.25e8), np.array([0.85, 0.05, 0.05, 0.05]) * 1e8) == pytest.approx(
        1.699815, abs=1.5e-4
    )


def test_golden_kullback_leibler_of_popmon() -> None:
    # The same file, test_kl, in nats and the other order of arguments: 0.90105 and 0.79875.
    a, b = np.full(4, 0.25e8), np.array([0.85, 0.05, 0.05, 0.05]) * 1e8
    assert drift.kullback_leibler(b, a) * np.log(2) == pytest.approx(0.90105, abs=1.5e-4)
    assert drift.kullback_leibler(a, b) * np.log(2) == pytest.approx(0.79875, abs=1.5e-4)


@pytest.mark.parametrize("mu", [0.25, 0.5, 1.0])
def test_psi_of_two_normals_is_mu_squared(mu: float) -> None:
    # The symmetric Kullback–Leibler divergence of N(0,1) and N(μ,1) is μ² nats.
    borders = np.linspace(-9, 10, 4_001)
    q, p = (np.diff(norm.cdf(borders, m)) * 1e12 for m in (0.0, mu))
    assert drift.psi(q, p) == pytest.approx(mu**2, rel=1e-4)


def _cells(reference: np.ndarray, current: np.ndarray, cells: int = 400) -> tuple[np.ndarray, ...]:
    """Counts and cell means of two samples over equal cells of their common range."""
    edges = np.linspace(min(reference.min(), current.min()), max(reference.max(), current.max()), cells + 1)
    counts = [np.histogram(x, edges)[0].astype(float) for x in (reference, current)]
    sums = [np.histogram(x, edges, weights=x)[0] for x in (reference, current)]
    with np.errstate(invalid="ignore"):
        means = [s / n for s, n in zip(sums, counts, strict=True)]
    return counts[0], counts[1], means[0], means[1]


def test_golden_distances_of_nannyml() -> None:
    # nannyml, tests for univariate drift methods: 2 decimals each, samples of numpy's legacy generator, seed 1.
    assert round(float(drift.l_infinity([2, 2, 2, 0], [2, 2, 2, 1])), 2) == 0.14  # test_l_infinity_for_new_category
    assert round(float(drift.l_infinity([2, 2, 2], [0, 5, 0])), 2) == 0.67  # test_l_infinity_for_total_change
    old = np.random.RandomState(1)
    letters = [old.choice(list("abcd"), 10_000), old.choice(list("abce"), 1000)]
    counts = [[int((x == letter).sum()) for letter in "abcde"] for x in letters]
    assert round(float(drift.jensen_shannon(*counts)), 2) == 0.5  # test_js_for_categorical
    old = np.random.RandomState(1)
    q, p, _, _ = _cells(old.normal(0, 1, 10_000), old.normal(-2, 1, 10_000), cells=60)
    assert round(float(drift.hellinger(q, p)), 2) == 0.63  # test_hellinger_both_continuous_analysis_with_small_drift
    old = np.random.RandomState(1)
    q, p, at_q, at_p = _cells(old.normal(0, 1, 100_000), old.normal(-4, 1, 1000))
    assert round(float(drift.wasserstein(q, p, at_q, at_p)), 2) == 3.99  # …_analysis_with_neg_mean_medium_drift


def test_golden_ndcg() -> None:
    # Feature attribution drift documented for a cloud monitor: [.70,.50,.05] → [.10,.20,.70] gives 0.69.
    assert drift.ndcg([0.70, 0.50, 0.05], [0.10, 0.20, 0.70]) == pytest.approx(0.68764, abs=5e-6)
    # azureml-assets, model_monitoring feature attribution drift, test_calculated_attribution_with_drift.
    assert drift.ndcg([1.2, 0, 0.1, 3], [0.2, 3.7, 3, 0.1]) == pytest.approx(0.5135443210660507, rel=1e-12)


@settings(deadline=None)  # the first call imports scikit-learn
@given(hnp.arrays(np.float64, (2, 7), elements=st.integers(0, 3).map(float)).filter(lambda a: a[0].sum() > 0))
def test_ndcg_equals_scikit_learn_ties_too(a: np.ndarray) -> None:
    from sklearn.metrics import ndcg_score

    assert drift.ndcg(*a) == pytest.approx(ndcg_score(a[:1], a[1:]), abs=1e-12)


CELLS = {
    "equal": np.full(20, 0.05),
    "equal and three empty": np.r_[np.full(20, 0.05), 0, 0, 0],
    "heavy tie": np.r_[0.97, 0.03],
    "ties": np.r_[0.9, 0.05, 0.02, 0.01, 0.01, 0.01],
    "tails": np.r_[np.full(20, 0.0495), 0.005, 0.0005, 0.0045],
    "geometric": 0.6 ** np.arange(20) / (0.6 ** np.arange(20)).sum(),
}


@pytest.mark.parametrize("shares", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("n, m", [(110, 3_000), (200, 140_000), (1_000, 28_000), (5_000, 140_000)])
def test_mean_corrected_psi_without_drift_is_about_nought(shares: np.ndarray, n: int, m: int) -> None:
    rng = np.random.default_rng(11)
    reference, current = rng.multinomial(m, shares, 2_000), rng.multinomial(n, shares, 2_000)
    score = drift.psi_corrected(reference, current)
    assert -0.027 <= score.mean() <= 0.010
    assert abs(score.mean()) <= 0.6 * score.std() + 1e-4
    # The twin that drifts is seen.
    moved = (
        rng.multinomial(n, shares[::-1], 2_000)
        if len(set(shares)) > 1
        else rng.multinomial(n, CELLS["geometric"], 2_000)
    )
    assert drift.psi_corrected(reference, moved).mean() > score.mean() + 5 * score.std()


def test_results_broadcast_over_leading_axes() -> None:
    rng = np.random.default_rng(0)
    q, p = rng.integers(0, 50, (1, 4, 9)), rng.integers(0, 50, (3, 4, 9))
    for distance in (*DISTANCES, drift.psi_corrected):
        many = distance(q, p)
        assert many.shape == (3, 4)
        assert many[2, 1] == pytest.approx(float(distance(q[0, 1], p[2, 1])))


def test_an_empty_histogram_has_no_distance() -> None:
    for distance in (*DISTANCES, drift.psi_corrected):
        assert np.isnan(distance(np.zeros(3), np.ones(3)))
        assert np.isnan(distance(np.ones(3), np.zeros(3)))
    assert np.isnan(drift.wasserstein(np.ones(2), np.ones(2), [np.nan, np.nan], [1.0, 2.0]))


def test_importance_ratio() -> None:
    ratio = drift.importance_ratio([0.2, 0.0, 0.0, 0.5], [0.4, 0.0, 0.3, 0.0])
    np.testing.assert_array_equal(ratio, [2.0, np.nan, np.inf, 0.0])


def test_refusals() -> None:
    for distance in (*DISTANCES, drift.psi_corrected, drift.ndcg, drift.importance_ratio):
        with pytest.raises(StatisticsError, match="negative or NaN"):
            distance([1.0, -1.0], [1.0, 1.0])
        with pytest.raises(StatisticsError, match="negative or NaN"):
            distance([1.0, 1.0], [1.0, np.nan])
        with pytest.raises(StatisticsError, match="different shapes"):
            distance([1.0, 1.0], [1.0, 1.0, 1.0])
    with pytest.raises(StatisticsError, match="effective"):
        drift.psi([1.0, 1.0], [1.0, 1.0], n_effective=-1.0)
    with pytest.raises(ValueError):
        drift.psi([-1.0], [1.0])
