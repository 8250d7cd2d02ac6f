"""Blocks, their scale and the two detectors: planted changes are found on their day, quiet streams stay quiet."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import f_oneway

from xai_assets.errors import StatisticsError
from xai_assets.records import Float64
from xai_assets.stats.concept_drift import (
    DETECTORS,
    FALLING,
    INSUFFICIENT,
    LEAST_INSTANCES,
    PAGE_HINKLEY,
    PAGE_HINKLEY_DELTA,
    PAGE_HINKLEY_THRESHOLD,
    RISING,
    STABLE,
    ErrorBlocks,
    ErrorValues,
    best_split,
    block_numbers,
    error_values,
    find_changes,
    reference_scale,
    request_errors,
    state_after,
)

REFERENCE, VARIANCE = 28, 0.05
"""Reference days of a stream (days 0 … 27), and the variance of one label's error."""


def stream(
    rng: np.random.Generator, levels: Float64, *, labels: int = 400, blocks: int = 20, day_noise: float = 0.0
) -> ErrorBlocks:
    """Days of `labels` labels in `blocks` blocks around a mean error per day, which itself varies by `day_noise`."""
    level = levels + rng.normal(0.0, day_noise, len(levels))
    mean = rng.normal(np.repeat(level, blocks), np.sqrt(VARIANCE * blocks / labels))
    return ErrorBlocks(np.repeat(np.arange(len(levels)), blocks), np.full(len(mean), labels / blocks), mean)


def values_of(blocks: ErrorBlocks) -> ErrorValues:
    found = error_values(blocks, REFERENCE - 1)
    assert found is not None
    return found


def test_the_loss_is_brier_for_a_classifier_and_absolute_for_a_regression() -> None:
    y, p = np.array([1.0, 0.0, 1.0]), np.array([0.9, 0.5, 0.0])
    assert request_errors(y, p, is_classifier=True) == pytest.approx([0.01, 0.25, 1.0])
    assert request_errors(y * 3, p, is_classifier=False) == pytest.approx([2.1, 0.5, 3.0])


@pytest.mark.parametrize("y, p, is_classifier", [([1.0], [1.2], True), ([2.0], [0.5], True), ([np.nan], [0.5], False)])
def test_what_is_no_probability_or_no_number_is_refused(y: list[float], p: list[float], is_classifier: bool) -> None:
    with pytest.raises(StatisticsError, match="cannot be measured"):
        request_errors(np.array(y), np.array(p), is_classifier=is_classifier)


@given(st.integers(0, 5_000))
def test_blocks_are_consecutive_near_equal_and_neither_many_nor_small(requests: int) -> None:
    numbers = block_numbers(requests)
    sizes = np.bincount(numbers)
    assert len(numbers) == requests
    assert (np.diff(numbers) >= 0).all()
    assert len(sizes) <= 50
    assert requests < 20 or (sizes.min() >= 20 and sizes.max() - sizes.min() <= 1)


def test_the_scale_is_that_of_a_one_way_analysis_of_variance() -> None:
    """With equal blocks F = MS_between / MS_within = 1 + N σ_day²/σ_label² for N labels a day."""
    rng = np.random.default_rng(4)
    blocks = stream(rng, np.full(REFERENCE, 0.2), labels=400, blocks=8, day_noise=0.03)
    scale = reference_scale(np.column_stack((blocks.day, blocks.day, blocks.label_count, blocks.error_mean)))
    assert scale is not None
    f = f_oneway(*blocks.error_mean.reshape(REFERENCE, 8)).statistic
    assert 1 + 400 * scale.day_variance / scale.label_variance == pytest.approx(f)
    assert scale.mean == pytest.approx(blocks.error_mean.mean())
    assert scale.label_variance == pytest.approx(
        50 * blocks.error_mean.reshape(REFERENCE, 8).var(axis=1, ddof=1).mean()
    )
    assert scale.label_variance == pytest.approx(VARIANCE, rel=0.25)


@pytest.mark.parametrize("day_noise", [0.0, 0.01, 0.1])
def test_scores_of_a_quiet_stream_have_days_of_one_variance_whatever_days_share(day_noise: float) -> None:
    """The mean of a day's k scores has the variance 1/k where they are independent; dividing by √deff restores it."""
    rng = np.random.default_rng(5)
    values = error_values(stream(rng, np.full(600, 0.2), day_noise=day_noise), 299)
    assert values is not None
    days, k = np.unique(values.last_day, return_counts=True)
    sums = np.bincount(values.last_day, values.score) / np.sqrt(k)
    assert len(days) == 600
    assert np.var(sums[300:]) == pytest.approx(1.0, rel=0.25)
    assert len(set(k)) == 1
    least, most = {0.0: (20, 20), 0.01: (3, 8), 0.1: (1, 1)}[day_noise]
    assert least <= k[0] <= most, "the more days matter, the fewer values a day has"


def test_blocks_of_busy_and_of_quiet_days_have_scores_of_one_size() -> None:
    rng = np.random.default_rng(6)
    counts = np.where(np.arange(400) % 7 >= 5, 30.0, 3_000.0)
    blocks = ErrorBlocks(np.arange(400), counts, rng.normal(0.2, np.sqrt(VARIANCE / counts)))
    values = values_of(blocks)
    quiet = values.label_count == 30
    assert values.score[quiet].std() == pytest.approx(values.score[~quiet].std(), rel=0.3)


def test_days_of_few_labels_are_joined_until_twenty() -> None:
    """Five labels a day: a value every fourth day, dated from its first to its last; the unfinished rest waits."""
    error = np.random.default_rng(7).uniform(size=123)
    values = values_of(ErrorBlocks(np.arange(123), np.full(123, 5.0), error))
    assert values.first_day.tolist() == list(range(0, 120, 4))
    assert values.last_day.tolist() == list(range(3, 120, 4))
    assert set(values.label_count) == {20.0}
    assert values.error_mean == pytest.approx(error[:120].reshape(30, 4).mean(axis=1))
    assert values.reference == REFERENCE // 4


@pytest.mark.parametrize("days, error", [(2, None), (0, None), (60, 0.25)])
def test_a_reference_of_too_few_days_or_without_variation_sets_no_scale(days: int, error: float | None) -> None:
    rng = np.random.default_rng(8)
    mean = rng.uniform(size=days) if error is None else np.full(days, error)
    assert error_values(ErrorBlocks(np.arange(days), np.full(days, 50.0), mean), REFERENCE - 1) is None


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("shift, state", [(0.06, RISING), (-0.06, FALLING)])
@pytest.mark.parametrize("seed", range(3))
def test_a_planted_change_is_found_within_days_dated_and_sized(
    detector: str, shift: float, state: str, seed: int
) -> None:
    levels = 0.2 + shift * (np.arange(100) >= 60)
    values = values_of(stream(np.random.default_rng(seed), levels, day_noise=0.002))
    (change,) = find_changes(values, detector)
    assert 60 <= values.last_day[change.found_at] <= 66
    assert abs(values.first_day[change.began_at] - 60) <= 2
    found = state_after(values, [change], len(values.score))
    assert found.state == state
    assert found.error_before == pytest.approx(0.2, abs=0.01)
    assert found.error_after == pytest.approx(0.2 + shift, abs=0.01)
    before = int(np.searchsorted(values.last_day, 59, side="right"))
    assert state_after(values, [change], before).state == STABLE


@pytest.mark.slow
@pytest.mark.parametrize("day_noise, labels", [(0.0, 400), (0.011, 400), (0.05, 400), (0.0, 40)])
def test_stationary_streams_are_quiet(day_noise: float, labels: int) -> None:
    """40 streams of 150 days: in 200 of 300 days at most 2 % of streams had any change (module docstring)."""
    rng = np.random.default_rng(9)
    alarms = dict.fromkeys(DETECTORS, 0)
    for _ in range(40):
        levels = np.full(150, 0.2)
        values = values_of(stream(rng, levels, labels=labels, blocks=labels // 20, day_noise=day_noise))
        for detector in DETECTORS:
            alarms[detector] += any(c.found_at >= values.reference for c in find_changes(values, detector))
    assert max(alarms.values()) <= 2, alarms


def test_page_hinkley_does_not_forget_what_it_tolerates() -> None:
    """15,000 quiet values; with river's fading of the sum every such stream ended in an alarm."""
    rng = np.random.default_rng(10)
    values = values_of(stream(rng, np.full(300, 0.2), labels=1_000, blocks=50))
    assert len(values.score) > 14_000
    assert find_changes(values, PAGE_HINKLEY) == ()


def _page_hinkley_by_hand(scores: Float64) -> list[int]:
    """Page 1954, two-sided: cumulated deviations from the running mean, less what is tolerated."""
    found, start = [], 0
    for i in range(len(scores)):
        part = scores[start : i + 1]
        deviation = part - np.cumsum(part) / np.arange(1, len(part) + 1)
        up, down = np.cumsum(deviation - PAGE_HINKLEY_DELTA), np.cumsum(deviation + PAGE_HINKLEY_DELTA)
        rise, fall = up[-1] - up.min(), max(down.max(), -1.0) - down[-1]
        if len(part) >= LEAST_INSTANCES and max(rise, fall) > PAGE_HINKLEY_THRESHOLD:
            found.append(i)
            start = i + 1
    return found


def test_page_hinkley_is_that_of_the_book() -> None:
    levels = 0.2 + 0.1 * (np.arange(90) >= 40) - 0.15 * (np.arange(90) >= 65)
    values = values_of(stream(np.random.default_rng(11), levels))
    changes = find_changes(values, PAGE_HINKLEY)
    assert [c.found_at for c in changes] == _page_hinkley_by_hand(values.score)
    assert [c.rises for c in changes] == [True, False]


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_longer_stream_begins_with_the_same_values_and_changes(detector: str) -> None:
    levels = 0.2 + 0.08 * (np.arange(120) >= 50) - 0.1 * (np.arange(120) >= 80)
    blocks = stream(np.random.default_rng(12), levels, labels=200, blocks=4, day_noise=0.004)
    whole = values_of(blocks)
    found = find_changes(whole, detector)
    assert len(found) == 2
    for days in (40, 61, 77, 101):
        early = blocks.day < days
        part = values_of(ErrorBlocks(blocks.day[early], blocks.label_count[early], blocks.error_mean[early]))
        count = len(part.score)
        assert part.score.tobytes() == whole.score[:count].tobytes()
        assert find_changes(part, detector) == tuple(c for c in found if c.found_at < count)
        assert state_after(part, find_changes(part, detector), count) == state_after(whole, found, count)


@pytest.mark.parametrize("detector", DETECTORS)
def test_an_excursion_wears_off(detector: str) -> None:
    levels = 0.2 + 0.1 * ((np.arange(140) >= 60) & (np.arange(140) < 66))
    values = values_of(stream(np.random.default_rng(13), levels))
    found = find_changes(values, detector)
    states = [state_after(values, found, int(np.searchsorted(values.last_day, d, side="right"))) for d in (59, 65, 139)]
    assert [s.state for s in states[:2]] == [STABLE, RISING]
    assert states[2].state in (STABLE, FALLING)
    assert states[2].error_after == pytest.approx(0.2, abs=0.02)


def test_a_rise_stands_though_a_later_excursion_wore_off() -> None:
    levels = 0.2 + 0.1 * (np.arange(160) >= 60) + 0.1 * ((np.arange(160) >= 100) & (np.arange(160) < 104))
    values = values_of(stream(np.random.default_rng(14), levels))
    found = find_changes(values, PAGE_HINKLEY)
    only_rises = [c for c in found if c.rises]
    assert len(only_rises) >= 2, "the excursion is found as well"
    state = state_after(values, only_rises, len(values.score))
    assert (state.state, state.change) == (RISING, only_rises[0])


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_rise_in_two_steps_is_told_as_one(detector: str) -> None:
    levels = 0.2 + 0.08 * (np.arange(120) >= 60) + 0.08 * (np.arange(120) >= 90)
    values = values_of(stream(np.random.default_rng(16), levels))
    found = find_changes(values, detector)
    assert len(found) == 2, "the second step is found although the first left the range of the reference"
    state = state_after(values, found, len(values.score))
    assert (state.state, state.change) == (RISING, found[0])
    assert (state.error_before, state.error_after) == (pytest.approx(0.2, abs=0.01), pytest.approx(0.36, abs=0.01))


def test_few_values_are_insufficient_not_stable() -> None:
    values = values_of(stream(np.random.default_rng(15), np.full(40, 0.2), labels=20, blocks=1))
    assert [state_after(values, (), n).state for n in (0, 19, 20)] == [INSUFFICIENT, INSUFFICIENT, STABLE]


@given(st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=30))
def test_the_best_split_leaves_the_least_squares(numbers: list[float]) -> None:
    scores = np.array(numbers)
    left = [((scores[:k] - scores[:k].mean()) ** 2).sum() + ((scores[k:] - scores[k:].mean()) ** 2).sum()
            for k in range(1, len(scores))]  # fmt: skip
    assert left[best_split(scores) - 1] == pytest.approx(min(left), abs=1e-9)
