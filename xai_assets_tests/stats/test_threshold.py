"""The alarm threshold: quantiles that hold, refusals, Benjamini–Hochberg against scipy."""

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from xai_assets.errors import StatisticsError
from xai_assets.stats.threshold import Threshold, benjamini_hochberg, westfall_young


def largest_of_exact_evidence(rng: np.random.Generator, days: int, hypotheses: int) -> np.ndarray:
    return np.asarray((-np.log10(rng.uniform(size=(days, hypotheses)))).max(axis=1))


@pytest.mark.parametrize(("days", "hypotheses"), [(14, 5), (28, 200), (183, 2000)])
def test_new_days_exceed_the_threshold_at_most_one_and_a_half_times_the_budget(days: int, hypotheses: int) -> None:
    rng = np.random.default_rng(days)
    rates = []
    for _ in range(60):
        threshold = westfall_young(largest_of_exact_evidence(rng, days, hypotheses), 1 / 30, rng)
        new = largest_of_exact_evidence(rng, 500, hypotheses)
        rates.append(30 * np.mean(new > threshold))
    assert 0.15 < np.mean(rates) < 1.0
    assert np.quantile(rates, 0.9) < 1.5


def test_heavy_tails_of_the_reference_raise_it() -> None:
    rng = np.random.default_rng(1)
    maxima = largest_of_exact_evidence(rng, 28, 100)
    assert westfall_young(3 * maxima, 1 / 30, rng) > 2.5 * westfall_young(maxima, 1 / 30, rng)


def test_a_larger_budget_lowers_it_and_the_same_seed_gives_the_same() -> None:
    maxima = largest_of_exact_evidence(np.random.default_rng(2), 60, 50)
    values = [westfall_young(maxima, a, np.random.default_rng(0)) for a in (0.01, 1 / 30, 0.2, 0.5)]
    assert values == sorted(values, reverse=True)
    assert values[1] == westfall_young(maxima, 1 / 30, np.random.default_rng(0))


def test_windows_that_overlap_are_worth_fewer() -> None:
    """183 days of month-long windows are six of them: what they did not exceed says less."""
    rng = np.random.default_rng(4)
    monthly = np.repeat(largest_of_exact_evidence(rng, 7, 50), 28)[:183]
    assert westfall_young(monthly, 1 / 30, rng, 28) > westfall_young(monthly, 1 / 30, rng, 1)


def test_each_window_has_its_own_threshold() -> None:
    found = Threshold(4.0, "westfall_young", 1 / 30, 28, ((1, 4.0), (7, 3.0)))
    assert found.at(np.array([7, 1, 28])).tolist() == [3.0, 4.0, 4.0]


@pytest.mark.parametrize("rate", [0.0, 1.0, -1.0])
def test_a_rate_that_is_no_share_of_days_is_refused(rate: float) -> None:
    with pytest.raises(StatisticsError, match="between 0 and 1"):
        westfall_young(np.ones(20), rate, np.random.default_rng(0))


def test_missing_maxima_are_refused() -> None:
    with pytest.raises(StatisticsError, match="one finite number per day"):
        westfall_young(np.array([1.0, np.nan]), 0.1, np.random.default_rng(0))


def test_benjamini_hochberg_rejects_what_scipy_rejects() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        p = np.concatenate((rng.uniform(size=40), rng.uniform(size=5) * 1e-3))
        limit = benjamini_hochberg(-np.log10(p), 0.1)
        np.testing.assert_array_equal(-np.log10(p) >= limit, false_discovery_control(p) <= 0.1)


def test_benjamini_hochberg_of_nothing_is_never_reached() -> None:
    assert benjamini_hochberg(np.array([np.nan]), 0.1) == float("inf")
    assert benjamini_hochberg(np.array([0.1, 0.2]), 0.05) == pytest.approx(-np.log10(0.025))
