"""Dispersion, evidence and calibration: twins, fall-backs, and the alarm rate of streams without drift."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.stats import f as f_distribution

from xai_assets.stats.calibration import DailyCounts, calibrate, reference_windows
from xai_assets.stats.dispersion import (
    Dispersion,
    ReferenceWindows,
    dispersion,
    evidence,
    extrapolated,
    left_out_dispersion,
)
from xai_assets.stats.homogeneity import homogeneity


def _benchmark() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "false_alarms.py"
    spec = importlib.util.spec_from_file_location("false_alarms", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


streams = _benchmark()
Stream = streams.Stream


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in streams.STATIONARY if n != "200 features"])
def test_days_without_drift_stay_within_one_and_a_half_budgets(name: str) -> None:
    """250 days each; benchmarks/false_alarms.py runs a thousand and more references."""
    by_evidence, alarms = streams.alarm_days(streams.STATIONARY[name], 1, 250)
    assert alarms <= 1.5
    assert by_evidence <= 3  # one reference's luck, before the effect floor


@pytest.mark.slow
def test_a_real_change_is_seen_on_its_first_day_and_a_small_lasting_one_in_longer_windows() -> None:
    weight, total, squares = Stream(day_effect=0.05, segments=1).days(90, 5)
    rng = np.random.default_rng(0)
    calibration = streams.calibrated(weight[:28], total[:28], squares[:28])
    moved = weight.copy()
    for t in range(50, 90):  # a tenth of feature 3 becomes null, a fiftieth of feature 5 moves into one cell
        for feature, cell, share in ((3, -1, 0.1), (5, 10, 0.05)):
            taken = rng.binomial(moved[t, :, feature].astype(int), share)
            moved[t, :, feature] -= taken
            moved[t, :, feature, cell] += taken.sum(axis=-1)
    scores = streams.judged((moved, total, squares), 28, calibration)
    limit, limit_week = calibration.threshold.at([1, 7])
    day, week = scores[1][0][:, 0], scores[7][0][:, 0]
    assert np.argmax(day[22]) == 3
    assert day[22, 3] >= limit
    assert np.nanmean(day[22:, 5] >= limit) < 0.5 < np.nanmean(week[32:, 5] >= limit_week)
    assert not np.any(day[:22] >= limit)


def windows(seed: int = 0, days: int = 28, length: int = 1) -> ReferenceWindows:
    rng = np.random.default_rng(seed)
    shape = (days, 2, 3)
    return ReferenceWindows(
        ratio=1.7 * rng.gamma(4.0, 0.25, shape),
        freedom=np.full(shape, 19.0),
        size=np.full(shape, 500.0),
        valid=rng.random(shape) > 0.1,
        days=length,
    )


def test_dispersion_is_mean_and_spread_of_the_windows() -> None:
    given = windows()
    found = dispersion(given)
    y = np.where(given.valid, given.ratio, np.nan)
    mean, variation = np.nanmean(y, axis=0), np.nanvar(y, axis=0, ddof=1) / np.nanmean(y, axis=0) ** 2
    np.testing.assert_allclose(found.factor, np.maximum(mean, 1.0))
    expected = np.clip(2.0 / np.maximum(variation, variation.mean()), 1.0, 19.0)
    np.testing.assert_allclose(found.freedom_window, expected)
    np.testing.assert_allclose(found.freedom_reference, given.valid.sum(axis=0) * expected)


@pytest.mark.parametrize("length", [1, 7])
def test_left_out_dispersion_is_that_of_the_windows_without_a_common_day(length: int) -> None:
    given = windows(length=length)
    found = left_out_dispersion(given)
    for t in (0, 5, 27):
        apart = np.abs(np.arange(28) - t) >= length
        alone = ReferenceWindows(
            given.ratio[apart], given.freedom[apart], given.size[apart], given.valid[apart], length
        )
        np.testing.assert_allclose(found.factor[t], dispersion(alone).factor, rtol=1e-12)


def test_evidence_is_the_tail_of_an_f_distribution() -> None:
    of = Dispersion(*(np.array([x]) for x in (2.0, 0.1, 100.0, 8.0, 200.0)))
    u = evidence(np.array([7.0]), np.array([19.0]), np.array([100.0]), of)
    assert u[0] == pytest.approx(-np.log10(f_distribution.sf(3.5, 8, 200)))
    assert evidence(np.array([1e9]), np.array([19.0]), np.array([100.0]), of)[0] <= 300


def test_a_larger_window_is_allowed_more_and_a_smaller_one_not_less() -> None:
    of = Dispersion(*(np.array([x]) for x in (2.0, 0.1, 100.0, 8.0, 200.0)))
    assert of.at(np.array([50.0]))[0] == of.at(np.array([100.0]))[0] == 2.0
    assert of.at(np.array([300.0]))[0] == pytest.approx(2.0 + 1.1 * 2)


def test_long_windows_follow_the_growth_of_the_shorter_ones() -> None:
    day, week = (Dispersion(*(np.array([x]) for x in (c, 0.1, 100.0, 8.0, 32.0))) for c in (2.0, 2.0 * 7**0.5))
    month = extrapolated(day, week, 7.0, 4.0)
    assert month.factor[0] == pytest.approx(2.0 * 28**0.5)
    assert month.freedom_reference[0] == 8.0
    assert extrapolated(day, day, 1.0, 28.0).factor[0] == 2.0 * 28  # nothing is known of the growth: the most


def counts(days: int, seed: int = 0, *, features: int = 4) -> DailyCounts:
    weight, total, squares = Stream(features=features, requests=400, segments=2).days(days, seed)
    return DailyCounts(weight.astype(np.float32), total, squares, np.ones(weight.shape[1:3], dtype=bool))


def calibrated(daily: DailyCounts, **more: Any) -> Any:
    arguments: dict[str, Any] = {"windows_days": (1, 7, 28), "alarm_rate": 1 / 30, "min_effective_rows": 30}
    return calibrate({"production": daily}, rng=np.random.default_rng(0), **arguments | more)


def test_windows_of_the_reference_are_compared_with_the_rest_of_it() -> None:
    daily = counts(20)
    found = reference_windows(daily, 7, 30)
    window, rest = daily.weight[4:11].sum(axis=0), np.concatenate((daily.weight[:4], daily.weight[11:])).sum(axis=0)
    x2, freedom = homogeneity(
        rest,
        window,
        n_effective_reference=rest[:, 0].sum(axis=1)[:, None],
        n_effective=window[:, 0].sum(axis=1)[:, None],
        cells_from=daily.weight.sum(axis=0),
    )
    np.testing.assert_allclose(found.ratio[4], x2 / freedom, rtol=1e-5)
    assert len(found.ratio) == 14


def test_same_weekdays_only_where_asked() -> None:
    """By weekday the weekly season is no dispersion."""
    weight, total, squares = Stream(features=4, weekly=0.3, requests=2000, segments=1).days(56, 1)
    daily = DailyCounts(weight.astype(np.float32), total, squares, np.ones(weight.shape[1:3], dtype=bool))
    plain = reference_windows(daily, 1, 30)
    matched = reference_windows(daily, 1, 30, np.arange(56) % 7)
    assert np.nanmean(plain.ratio) > 2.0
    assert np.nanmean(matched.ratio) == pytest.approx(1.0, abs=0.15)
    week = reference_windows(daily, 7, 30, np.arange(56) % 7)
    np.testing.assert_array_equal(week.ratio, reference_windows(daily, 7, 30).ratio)


@pytest.mark.parametrize(
    ("days", "rule"),
    [(0, "unknown"), (1, "unknown"), (2, "benjamini_hochberg"), (13, "benjamini_hochberg"), (14, "westfall_young")],
)
def test_short_references_fall_back_and_say_so(days: int, rule: str) -> None:
    daily = counts(max(days, 1))
    found = (
        calibrated(daily)
        if days
        else calibrate({}, windows_days=(1,), alarm_rate=0.1, min_effective_rows=30, rng=np.random.default_rng(0))
    )
    assert found.threshold.rule == rule
    assert found.reference_days == days
    assert np.isfinite(found.threshold.value) == (rule == "westfall_young")


@pytest.mark.parametrize("days", [5, 13, 14, 19, 20, 28, 56, 82, 83])
def test_every_window_can_be_judged_however_long_the_reference(days: int) -> None:
    found = calibrated(counts(days, features=2))
    for window in (1, 7, 28):
        assert np.isfinite(found.dispersions["production", window].factor).all(), window


def test_days_that_follow_each_other_slowly_widen_a_month_that_only_days_were_measured_for() -> None:
    shape = (2, 6, 23)  # segments, features, cells
    rng = np.random.default_rng(3)
    level, days = 0.0, []
    for _ in range(28):
        level = 0.9 * level + 0.4 * rng.normal()
        shares = np.exp(level * np.linspace(-1, 1, shape[2]))
        days.append(rng.multinomial(400, shares / shares.sum(), size=shape[:2]))
    slow = np.array(days, dtype=np.float32)
    n = np.full((28, 2), 400.0)
    daily = DailyCounts(slow, n, n, np.ones(shape[:2], dtype=bool))
    found = calibrated(daily, windows_days=(1, 28)).dispersions
    assert np.median(found["production", 28].factor / found["production", 1].factor) > 2


def test_features_that_never_vary_in_the_reference_can_be_judged_later() -> None:
    weight = np.zeros((28, 1, 2, 5), dtype=np.float32)
    weight[..., 1] = 300.0
    n = np.full((28, 1), 300.0)
    found = calibrated(DailyCounts(weight, n, n, np.ones((1, 2), dtype=bool))).dispersions["production", 1]
    moved = evidence(np.array([[250.0, 0.0]]), np.ones((1, 2)), np.full((1, 2), 300.0), found)
    assert moved[0, 0] > 5
    assert moved[0, 1] == 0


def test_segments_too_small_to_be_measured_take_the_dispersion_of_all() -> None:
    weight, total, squares = Stream(features=3, requests=500, segments=2).days(28, 2)
    weight[:, 2] *= 0.02
    total[:, 2] *= 0.02
    squares[:, 2] *= 0.02
    found = streams.calibrated(weight, total, squares).dispersions["production", 1]
    np.testing.assert_array_equal(found.factor[2], found.factor[0])
    assert np.all(found.freedom_reference[2] < found.freedom_reference[0])


def test_days_without_requests_do_not_count_and_the_same_input_gives_the_same() -> None:
    daily = counts(30)
    for array in (daily.weight, daily.total, daily.squares):
        array[[3, 17]] = 0
    one, other = calibrated(daily), calibrated(daily)
    assert one.reference_days == 28
    assert one.threshold == other.threshold
    assert np.isfinite(one.dispersions["production", 28].factor).all()
