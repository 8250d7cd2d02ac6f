"""Effects of rows and of version: a twin in plain loops, what must be exactly nothing, planted effects, chance."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from xai_assets.errors import StatisticsError
from xai_assets.records import Float64
from xai_assets.stats.cells import cell_numbers
from xai_assets.stats.drift import psi_corrected
from xai_assets.stats.version_effects import (
    CHANCE,
    MIN_ROWS,
    VersionEffect,
    independent_effect,
    paired_effect,
    reference_edges,
    version_effects,
)

Rng = np.random.Generator


def _plain_psi(before: list[float], after: list[float], m: float, n: float) -> float:
    """PSI of shares scaled to m and n requests, ½ added to every cell that either uses."""
    used = [k for k in range(len(before)) if before[k] > 0 or after[k] > 0]
    q, p = ([x * shares[k] + 0.5 for k in used] for x, shares in ((m, before), (n, after)))
    q, p = [x / sum(q) for x in q], [x / sum(p) for x in p]
    return sum((b - a) * np.log(b / a) for a, b in zip(q, p, strict=True))


def _plain_shares(cells: np.ndarray, weights: Float64, k: int) -> list[float]:
    counts = Counter()
    for cell, w in zip(cells.tolist(), weights.tolist(), strict=True):
        counts[cell] += w
    return [counts[c] / weights.sum() for c in range(k)]


def _plain_paired(before: np.ndarray, after: np.ndarray, w: Float64, k: int) -> tuple[float, float]:
    """PSI and its mean by chance, Σ_k Var(Δ_k)/p̄_k, from every request's own ±1."""
    q, p, n = _plain_shares(before, w, k), _plain_shares(after, w, k), w.sum() ** 2 / (w**2).sum()
    used = [c for c in range(k) if q[c] > 0 or p[c] > 0]
    pooled = {c: n * (q[c] + p[c]) + 1.0 for c in used}
    variance = {
        c: sum(x * x for x, a, b in zip(w / w.sum(), before, after, strict=True) if (a == c) != (b == c)) for c in used
    }
    mean = sum(variance[c] / (pooled[c] / sum(pooled.values())) for c in used)
    return _plain_psi(q, p, n, n), mean


def _sample(rng: Rng, n: int, scale: float = 1.0) -> np.ndarray:
    return (rng.normal(size=(n, 1)) * scale).astype(np.float32)


def test_the_paired_effect_is_that_of_plain_loops() -> None:
    rng = np.random.default_rng(3)
    a = rng.integers(0, 6, 700)
    b = np.where(rng.random(700) < 0.4, (a + 1) % 6, a)
    b = np.where(rng.random(700) < 0.3, 0, b)
    w = rng.uniform(0.5, 4.0, 700)
    raw, mean = _plain_paired(a, b, w, 8)
    effect, limit = paired_effect(a, b, w, 8)
    assert effect == pytest.approx(raw - mean, rel=1e-9)
    assert effect > limit > 0


def test_the_independent_effect_is_the_corrected_psi_of_everywhere_else() -> None:
    """Chance: (k−1)(1/n + 1/m) (Yurdakul and Naranjo 2020), and its χ² with k−1 degrees of freedom."""
    rng = np.random.default_rng(4)
    before, after = rng.integers(0, 10, 900), np.minimum(rng.integers(0, 12, 600), 9)
    effect, limit = independent_effect(before, np.ones(900), after, np.ones(600), 10)
    counts = (np.bincount(before, minlength=10), np.bincount(after, minlength=10))
    assert effect == pytest.approx(float(psi_corrected(*counts)), rel=1e-9)
    unit = 1 / 900 + 1 / 600
    assert limit == pytest.approx(unit * (stats.chi2.ppf(1 - CHANCE, 9) - 9), rel=1e-6)


def test_a_pair_has_less_chance_than_two_samples() -> None:
    rng = np.random.default_rng(5)
    old = rng.integers(0, 20, 2_000)
    new = np.where(rng.random(2_000) < 0.02, rng.integers(0, 20, 2_000), old)
    w = np.ones(2_000)
    assert paired_effect(old, new, w, 20)[1] < 0.1 * independent_effect(old, w, new, w, 20)[1]


@pytest.mark.parametrize("together", [0.0, 0.9])
def test_versions_that_differ_by_noise_alone_stay_below_the_limit(together: float) -> None:
    """500 pairs of versions whose attributions have one distribution: at a chance of 1 in 1,000, 0.5 are expected."""
    rng, n, over, sizes = np.random.default_rng(6), 600, 0, []
    for _ in range(500):
        common = rng.normal(size=n) * together**0.5
        a, b = (common + rng.normal(size=n) * (1 - together) ** 0.5 for _ in range(2))
        edges = reference_edges("x", a, np.ones(n))
        effect, limit = paired_effect(cell_numbers(edges, a), cell_numbers(edges, b), np.ones(n), edges.cells)
        sizes.append(effect)
        over += effect > limit
    assert over <= 4
    assert np.mean(sizes) < 0.02


@given(seed=st.integers(0, 2**20), n=st.integers(40, 300), d=st.integers(1, 4), weighted=st.booleans())
def test_no_change_of_version_is_exactly_no_model_effect(seed: int, n: int, d: int, weighted: bool) -> None:
    rng = np.random.default_rng(seed)
    old, new = rng.normal(size=(n, d)), rng.normal(size=(n + 7, d)) * rng.uniform(0.2, 3)
    new[rng.random(new.shape) < 0.1] = np.nan
    weights = rng.uniform(0.8, 1.5, n + 7) if weighted else None
    found = version_effects(old, new, new.copy(), [f"f{j}" for j in range(d)], new_weights=weights)
    assert [e.model_effect_nats for e in found] == [0.0] * d
    assert all(e.verdict in ("data", "none") for e in found)
    assert all(e.total_effect_nats == e.data_effect_nats for e in found)
    assert all(e.importance_old_model == e.importance_after for e in found)


@given(seed=st.integers(0, 2**20), n=st.integers(40, 300))
def test_the_same_rows_are_exactly_no_data_effect(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    rows, other = rng.normal(size=(n, 2)), rng.normal(size=(n, 2)) * rng.uniform(0.2, 3)
    weights = rng.uniform(0.8, 1.5, n)
    found = version_effects(rows, rows, other, ["a", "b"], old_weights=weights, new_weights=weights)
    assert [e.data_effect_nats for e in found] == [0.0, 0.0]
    assert all(e.verdict in ("model", "none") for e in found)
    assert all(e.importance_before == e.importance_old_model for e in found)


@given(seed=st.integers(0, 2**20))
def test_neither_the_order_of_rows_nor_of_features_matters(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(120, 3)), rng.normal(size=(90, 3)) * 1.4
    third, weights = second * 0.7 + rng.normal(size=(90, 3)) * 0.1, rng.uniform(1, 2, 90)
    found = version_effects(first, second, third, ["a", "b", "c"], new_weights=weights)
    order, turned = rng.permutation(90), [2, 0, 1]
    again = version_effects(
        first[:, turned], second[order][:, turned], third[order][:, turned], ["c", "a", "b"], new_weights=weights[order]
    )
    for effect in found:
        other = next(e for e in again if e.feature == effect.feature)
        assert other.verdict == effect.verdict
        numbers = ("data_effect_nats", "model_effect_nats", "total_effect_nats", "importance_after", "model_limit_nats")
        for name in numbers:
            assert getattr(other, name) == pytest.approx(getattr(effect, name), rel=1e-9, abs=1e-12)


Change = Callable[[np.ndarray], np.ndarray]


@pytest.mark.parametrize(
    "rows, version, verdict",
    [
        (lambda x: x, lambda phi: phi, "none"),
        (lambda x: x + 1.5, lambda phi: phi, "data"),
        (lambda x: x, lambda phi: 2.5 * phi, "model"),
        (lambda x: x, lambda phi: 0 * phi, "model"),
        (lambda x: x + 1.5, lambda phi: -phi, "both"),
        # A change of 3 % of the scale is real on the same rows, and too small to matter.
        (lambda x: x, lambda phi: 1.03 * phi, "none"),
    ],
)
def test_verdicts(rows: Change, version: Change, verdict: str) -> None:
    rng = np.random.default_rng(8)
    before, now = _sample(rng, 3_000), rows(_sample(rng, 2_000))
    (effect,) = version_effects(before, now, version(now), ["x"])
    assert effect.verdict == verdict


def _refused(values: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """The same with NaN in that share of the rows, as a version gives it that refuses them."""
    found = values.copy()
    found[np.random.default_rng(seed).permutation(len(values))[: round(share * len(values))]] = np.nan
    return found


@pytest.mark.parametrize("share", [0.01, 0.05, 0.06, 0.5, 1.0])
@pytest.mark.parametrize("side", ["old rows", "old version", "new version"])
def test_refusals_of_the_same_model_are_no_effect(share: float, side: str) -> None:
    rng = np.random.default_rng(14)
    before, now = _sample(rng, 3_000), _sample(rng, 2_000)
    sets = {"old rows": before, "old version": now, "new version": now.copy()}
    sets[side] = _refused(sets[side], share)
    (effect,) = version_effects(*sets.values(), ["x"])
    assert effect.verdict == "none"
    if share < 1.0:
        assert effect.model_effect_nats == 0.0
        assert effect.data_effect_nats == effect.total_effect_nats < 0.02
    else:
        assert np.isnan([effect.model_effect_nats, effect.data_effect_nats, effect.total_effect_nats]).all()
    counted = (effect.refused_before, effect.refused_old_model, effect.refused_after)
    assert counted == tuple(pytest.approx(share if name == side else 0.0) for name in sets)


@pytest.mark.parametrize("share, verdict", [(0.0, "model"), (0.05, "model"), (0.06, "none")])
def test_versions_that_refuse_different_requests_are_compared_on_what_both_explain(share: float, verdict: str) -> None:
    rng = np.random.default_rng(15)
    before, now = _sample(rng, 3_000), _sample(rng, 2_000)
    (effect,) = version_effects(before, now, _refused(2.5 * now, share), ["x"])
    assert effect.verdict == verdict
    assert effect.is_comparable == (verdict == "model")
    both = np.isfinite(_refused(now, share))[:, 0]
    (plain,) = version_effects(before, now[both], 2.5 * now[both], ["x"])
    assert effect.model_effect_nats == plain.model_effect_nats
    assert effect.importance_after == plain.importance_after


def test_refusals_weigh_as_their_requests_do() -> None:
    rng = np.random.default_rng(16)
    before, now = _sample(rng, 500), _sample(rng, 400)
    weights, after = np.r_[np.full(10, 4.0), np.ones(390)], now.copy()
    after[:10] = np.nan
    (effect,) = version_effects(before, now, after, ["x"], new_weights=weights)
    assert effect.refused_after == pytest.approx(40 / 430)
    assert not effect.is_comparable, "2.5 % of the rows, but 9 % of the requests"


def test_for_normal_attributions_the_effects_are_those_of_theory() -> None:
    """Symmetric KL of N(0,1) and N(μ,1) is μ² (Jeffreys 1946), of which twenty cells lose a little. Scaled by 1.3, the
    shares of the twenty cells follow from the normal distribution function."""
    rng = np.random.default_rng(9)
    before, now = _sample(rng, 40_000), _sample(rng, 40_000) + 0.5
    (moved,) = version_effects(before, now, now, ["x"])
    assert moved.data_effect_nats == pytest.approx(0.25, rel=0.06)
    same = _sample(rng, 40_000)
    (scaled,) = version_effects(before, same, 1.3 * same, ["x"])
    shares = np.diff(stats.norm.cdf(stats.norm.ppf(np.arange(21) / 20) / 1.3))
    assert scaled.model_effect_nats == pytest.approx(float(((shares - 0.05) * np.log(shares / 0.05)).sum()), rel=0.06)
    assert scaled.importance_after / scaled.importance_old_model == pytest.approx(1.3, rel=1e-6)


def test_opposite_effects_cancel_in_the_total_only() -> None:
    rng = np.random.default_rng(10)
    before, now = _sample(rng, 3_000), _sample(rng, 3_000, scale=2.0)
    (effect,) = version_effects(before, now, now / 2, ["x"])
    assert effect.verdict == "both"
    assert effect.total_effect_nats < 0.02
    assert min(effect.data_effect_nats, effect.model_effect_nats) > 0.3


def test_few_requests_say_nothing_and_odd_features_break_nothing() -> None:
    rng = np.random.default_rng(12)
    few = rng.normal(size=(MIN_ROWS - 1, 1))
    assert version_effects(few, _sample(rng, 99), _sample(rng, 99), ["x"]) == ()
    assert version_effects(_sample(rng, 99), few, few, ["x"]) == ()
    heavy = np.r_[np.full(2, 1e6), np.ones(97)]
    assert version_effects(_sample(rng, 99), _sample(rng, 99), _sample(rng, 99), ["x"], new_weights=heavy) == ()
    constant, nothing = np.zeros((200, 1)), np.full((200, 1), np.nan)
    (still,) = version_effects(constant, constant, constant, ["x"])
    assert (still.data_effect_nats, still.model_effect_nats, still.verdict) == (0.0, 0.0, "none")
    (unexplained,) = version_effects(nothing, nothing, nothing, ["x"])
    assert unexplained.verdict == "none"
    assert np.isnan(unexplained.importance_before)
    (newly,) = version_effects(constant, constant, _sample(rng, 200), ["x"])
    assert newly.verdict == "model"
    assert isinstance(newly, VersionEffect)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"old": (90, 2)}, "wrong shape"),
        ({"new": (80, 3)}, "wrong shape"),
        ({"weights": np.ones(3)}, "weights"),
        ({"weights": np.full(90, -1.0)}, "weights"),
        ({"floor": 0.0}, "floor"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, said: str) -> None:
    old, new = np.ones(change.get("old", (90, 3))), np.ones(change.get("new", (90, 3)))
    with pytest.raises(StatisticsError, match=said):
        version_effects(
            old,
            np.ones((90, 3)),
            new,
            ["a", "b", "c"],
            new_weights=change.get("weights"),
            floor_nats=change.get("floor", 0.1),
        )
