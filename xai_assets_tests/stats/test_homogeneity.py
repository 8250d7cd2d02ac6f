"""X² against scipy, cells that are joined, sizes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency

from xai_assets.stats.homogeneity import EXPECTED_PER_CELL, comparison_size, homogeneity


def test_golden_statistic_is_scipys_where_every_cell_has_enough_requests() -> None:
    reference, current = np.array([400.0, 350.0, 250.0]), np.array([30.0, 50.0, 40.0])
    x2, freedom = homogeneity(reference, current, n_effective_reference=1000.0, n_effective=120.0)
    expected = chi2_contingency(np.array([reference, current]), correction=False)
    assert x2 == pytest.approx(expected.statistic)
    assert freedom == expected.dof == 2


@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.integers(40, 4000))
def test_twin_joins_rare_cells_one_by_one(seed: int, cells: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(cells, 0.4))
    q, p = rng.multinomial(5 * n, shares).astype(float), rng.multinomial(n, shares).astype(float)
    x2, freedom = homogeneity(q, p, n_effective_reference=5.0 * n, n_effective=float(n))
    groups: list[list[int]] = [[]]
    for cell in np.argsort(q, kind="stable"):
        groups[-1].append(int(cell))
        if n * q[groups[-1]].sum() / q.sum() >= EXPECTED_PER_CELL * (1 - 1e-9):
            groups.append([])
    rest = groups.pop()
    if groups:
        groups[-1] += rest
    assert freedom == max(len(groups) - 1, 1)
    if len(groups) >= 2:
        table = np.array([[q[g].sum(), p[g].sum()] for g in groups]).T
        assert x2 == pytest.approx(chi2_contingency(table, correction=False).statistic, abs=1e-9)


def test_one_request_in_a_cell_new_to_the_reference_is_no_drift() -> None:
    reference = np.array([50_000.0, 50_000.0, 0.0])
    x2, freedom = homogeneity(
        reference, np.array([500.0, 499.0, 1.0]), n_effective_reference=100_000.0, n_effective=1000.0
    )
    assert freedom == 1
    assert x2 < 1  # unjoined it would be m/n = 100


def test_a_constant_that_begins_to_vary_is_seen_and_a_single_new_value_is_not() -> None:
    reference = np.array([0.0, 1344.0, 0.0])
    numbers = {"n_effective_reference": 1344.0, "n_effective": 48.0}
    one, freedom = homogeneity(reference, np.array([0.0, 47.0, 1.0]), **numbers)
    assert freedom == 1
    assert one < 0.5
    assert homogeneity(reference, np.array([0.0, 0.0, 48.0]), **numbers)[0] > 400
    assert homogeneity(reference, reference, **numbers)[0] == 0
    assert np.isnan(homogeneity(reference, np.zeros(3), n_effective_reference=1344.0, n_effective=0.0)[0])


def test_effective_numbers_scale_the_statistic_not_the_shares() -> None:
    q, p = np.array([100.0, 300.0]), np.array([60.0, 40.0])
    full, _ = homogeneity(q, p, n_effective_reference=400.0, n_effective=100.0)
    half, _ = homogeneity(q, p, n_effective_reference=200.0, n_effective=50.0)
    assert half == pytest.approx(full / 2)


def test_leading_axes_broadcast() -> None:
    rng = np.random.default_rng(0)
    q, p = rng.integers(50, 90, (3, 6)).astype(float), rng.integers(50, 90, (4, 3, 6)).astype(float)
    x2, freedom = homogeneity(q, p, n_effective_reference=q.sum(-1), n_effective=p.sum(-1), cells_from=q)
    assert x2.shape == freedom.shape == (4, 3)
    alone, _ = homogeneity(q[1], p[2, 1], n_effective_reference=q[1].sum(), n_effective=p[2, 1].sum())
    assert x2[2, 1] == pytest.approx(float(alone))


def test_mean_is_the_freedom_without_drift() -> None:
    rng = np.random.default_rng(3)
    shares = np.array([0.9, 0.05, 0.03, 0.015, 0.004, 0.001])
    q, p = rng.multinomial(6000, shares, 4000).astype(float), rng.multinomial(300, shares, 4000).astype(float)
    x2, freedom = homogeneity(q, p, n_effective_reference=6000.0, n_effective=300.0, cells_from=shares)
    assert np.mean(x2) == pytest.approx(freedom[0], rel=0.05)


def test_size_of_a_day_is_its_effective_requests_and_of_empty_sides_zero() -> None:
    assert comparison_size(100.0, 1e12, 1.0, 0.0) == pytest.approx(100.0)
    assert comparison_size(700.0, 2800.0, 1 / 7, 1 / 28) == pytest.approx(100.0)
    assert comparison_size(0.0, 0.0, 1.0, 1.0) == 0.0
