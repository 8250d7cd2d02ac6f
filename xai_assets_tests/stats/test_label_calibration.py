"""The reference's own residuals as the measure of label scores: twins, fall-backs, nothing at all."""

import numpy as np
import pytest
from scipy.stats import f as f_distribution

from xai_assets.records import Edges
from xai_assets.stats.calibration import Calibration, day_share
from xai_assets.stats.homogeneity import comparison_size
from xai_assets.stats.label_calibration import DailyResiduals, calibrate_labels, residual_windows
from xai_assets.stats.residuals import (
    MIN_CELL_LABELS,
    ResidualTable,
    accumulate_residuals,
    add_residuals,
    empty_residuals,
    label_scores,
    labels_of,
    residual_change,
)
from xai_assets.stats.scores import Normal

SEGMENTS = ("overall", "s=x", "s=y")
EDGES = tuple(Edges(name, np.linspace(-2, 2, 7)) for name in "abc")
SUMS = ("label_count", "residual_sum", "residual_squared_sum")


def tables(days: int, seed: int = 0, *, requests: int = 300, level: float = 0.1) -> list[ResidualTable]:
    """Days whose residuals share a level of their own."""
    rng = np.random.default_rng([4, seed])
    found = []
    for _ in range(days):
        x = rng.normal(size=(requests, 3))
        residual = level * rng.normal() + rng.normal(size=requests)
        codes = np.column_stack([np.zeros(requests), rng.integers(1, 3, requests)]).astype(int)
        found.append(empty_residuals(SEGMENTS, EDGES))
        accumulate_residuals(found[-1], EDGES, x, residual, np.zeros(requests), codes, is_classifier=False)
    return found


def daily(days: list[ResidualTable]) -> DailyResiduals:
    return DailyResiduals(*(np.stack([getattr(t, name) for t in days]) for name in SUMS))


def total(days: list[ResidualTable]) -> ResidualTable:
    result = days[0]
    for table in days[1:]:
        result = add_residuals(result, table)
    return result


def calibrated(days: list[ResidualTable], windows: tuple[int, ...] = (1, 7, 28), seed: int = 0) -> Calibration:
    return calibrate_labels(
        {"production": daily(days), "experimental": daily(days)},
        windows_days=windows,
        alarm_rate=1 / 60,
        min_labels=30,
        rng=np.random.default_rng(seed),
    )


def naive_change(before: ResidualTable, now: ResidualTable, segment: int, feature: int) -> tuple[float, float]:
    """X² and f of one feature, cell by cell."""
    sides = []
    for t in (before, now):
        n, s, q = (getattr(t, name)[segment, feature] for name in SUMS)
        sides.append((n, s, q))
    cells = [k for k in range(len(sides[0][0])) if min(side[0][k] for side in sides) >= MIN_CELL_LABELS]
    means, variances = [], []
    for n, s, q in sides:
        inside = [q[k] - s[k] ** 2 / n[k] for k in cells]
        common = sum(inside) / sum(n[k] for k in cells)
        means.append([s[k] / n[k] for k in cells])
        variances.append([(i + 2 * common) / (n[k] + 2) / n[k] for i, k in zip(inside, cells, strict=True)])
    change = [b - a for a, b in zip(*means, strict=True)]
    weight = [1 / (a + b) for a, b in zip(*variances, strict=True)]
    middle = sum(w * d for w, d in zip(weight, change, strict=True)) / sum(weight)
    return sum(w * (d - middle) ** 2 for w, d in zip(weight, change, strict=True)), len(cells) - 1.0


@pytest.mark.parametrize("length", [1, 7])
def test_windows_of_the_reference_are_compared_with_the_rest_of_it(length: int) -> None:
    days = tables(20)
    found = residual_windows(daily(days), length, 30)
    assert len(found.ratio) == 21 - length
    window, rest = total(days[4 : 4 + length]), total(days[:4] + days[4 + length :])
    for segment in range(3):
        for feature in range(3):
            x2, freedom = naive_change(rest, window, segment, feature)
            assert found.freedom[4, segment, feature] == freedom
            assert found.ratio[4, segment, feature] == pytest.approx(x2 / freedom, rel=1e-9)
        whole = [getattr(t, name)[segment, -1].sum() for t in (rest, window) for name in SUMS]
        m, n = whole[0], whole[3]
        spread = [(q - s**2 / k) * (1 + 2 / k) / (k + 2) / k for k, s, q in (whole[:3], whole[3:])]
        assert found.ratio[4, segment, -1] == pytest.approx((whole[4] / n - whole[1] / m) ** 2 / sum(spread), rel=1e-9)
        assert found.freedom[4, segment, -1] == 1.0
    counts = np.stack([labels_of(t) for t in days])
    others = np.concatenate((counts[:4], counts[4 + length :]))
    size = comparison_size(
        counts[4 : 4 + length].sum(axis=0), others.sum(axis=0), day_share(counts[4 : 4 + length]), day_share(others)
    )
    np.testing.assert_allclose(found.size[4, :, 0], size)
    assert found.valid[4].all()


def test_small_windows_do_not_count() -> None:
    days = tables(16, requests=90)
    days[3] = tables(1, requests=29)[0]
    days[7] = empty_residuals(SEGMENTS, EDGES)
    valid = residual_windows(daily(days), 1, 30).valid
    assert not valid[3].any()
    assert not valid[7].any()
    assert valid[:3, 0].all()


def test_the_whole_is_pooled_with_its_like_and_a_level_of_days_is_its_dispersion() -> None:
    """Residuals of deviation 1 with a level of deviation 0.1 per day: X²/f of `*` is 1 + 300·0.1² on average."""
    found = calibrated(tables(400), (1,)).dispersions["production", 1]
    assert found.factor.shape == (3, 4)
    assert found.factor[0, -1] == pytest.approx(1 + 300 * 0.1**2, rel=0.2)
    assert np.all(found.factor[:, :-1] < 1.4)
    np.testing.assert_array_equal(found.freedom_window[:, -1], 1.0)
    independent = calibrated(tables(60, level=0.0), (1,)).dispersions["production", 1]
    assert np.all(independent.factor < 1.5)


def test_evidence_is_that_of_the_dispersion_at_the_window_s_size() -> None:
    days = tables(40)
    reference, now, found = total(days[:28]), days[30], calibrated(days[:28])
    counts = np.stack([labels_of(t) for t in days[:28]])
    np.testing.assert_allclose(found.day_share_reference, day_share(counts))
    normal = Normal(found.dispersions["production", 1], np.ones(3), found.day_share_reference)
    scores = label_scores(
        {"production": reference},
        {"production": now},
        window_days=1,
        is_classifier=False,
        normal={"production": normal},
    )
    change = residual_change(reference, now)
    size = comparison_size(labels_of(now), labels_of(reference), np.ones(3), day_share(counts))[1]
    of, at = normal.dispersion, (1, 2)
    grown = of.factor[at] + (of.factor[at] - 1 + of.standard_error[at]) * max(size / of.size[at] - 1, 0)
    ratio = change.statistic[at] / change.freedom[at] / grown
    freedom = min(of.freedom_window[at], change.freedom[at])
    u = -np.log10(f_distribution.sf(ratio, freedom, of.freedom_reference[at]))
    row = np.flatnonzero((scores["segment"] == "s=x") & (scores["feature"] == "c"))
    assert scores["evidence"][row] == pytest.approx(u)
    assert scores["dispersion"][row] == pytest.approx(grown)
    plain = label_scores({"production": reference}, {"production": now}, window_days=1, is_classifier=False)
    assert np.isnan(plain["evidence"]).all()
    np.testing.assert_array_equal(plain["z_score"], scores["z_score"])


def test_segments_that_the_reference_has_not_have_no_evidence() -> None:
    days = tables(20)
    now = ResidualTable((*SEGMENTS[:2], "s=new"), days[0].features, *(getattr(days[0], n) for n in _NAMES))
    found = calibrated(days)
    normal = {"production": Normal(found.dispersions["production", 1], np.ones(3), found.day_share_reference)}
    scores = label_scores(
        {"production": total(days)}, {"production": now}, window_days=1, is_classifier=False, normal=normal
    )
    known = np.isin(scores["segment"], SEGMENTS[:2])
    assert np.isfinite(scores["evidence"][known]).all()
    assert np.isnan(scores["evidence"][~known]).all()


_NAMES = (*SUMS, "label_sum", "residual_abs_sum")


@pytest.mark.parametrize(
    ("days", "rule"),
    [(1, "unknown"), (2, "benjamini_hochberg"), (13, "benjamini_hochberg"), (14, "westfall_young")],
)
def test_short_references_fall_back_and_say_so(days: int, rule: str) -> None:
    found = calibrated(tables(days))
    assert found.threshold.rule == rule
    assert found.threshold.alarm_rate == 1 / 60
    assert found.reference_days == days
    assert np.isfinite(found.threshold.value) == (rule == "westfall_young")
    windows = {w for _, w in found.dispersions}
    assert windows == (set() if days == 1 else {1, 7, 28})


def test_days_without_any_label_calibrate_to_unknown() -> None:
    found = calibrated([empty_residuals(SEGMENTS, EDGES)] * 20)
    assert found.threshold.rule == "unknown"
    assert found.reference_days == 0
    assert all(np.isnan(d.factor).all() for d in found.dispersions.values())


def test_the_same_input_gives_the_same_and_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    days = tables(30)
    one, other = calibrated(days), calibrated(days)
    assert one.threshold == other.threshold
    whole = residual_windows(daily(days), 7, 30)
    monkeypatch.setattr("xai_assets.stats.label_calibration._CHUNK_VALUES", 1)
    np.testing.assert_array_equal(residual_windows(daily(days), 7, 30).ratio, whole.ratio)
