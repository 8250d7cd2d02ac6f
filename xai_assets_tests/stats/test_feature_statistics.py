"""Statistics read off histograms, against numpy on the raw rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xai_assets.errors import StatisticsError
from xai_assets.records import Edges, HistogramBlock
from xai_assets.stats.cells import cell_numbers
from xai_assets.stats.edges import EdgeSketch, category_edges
from xai_assets.stats.feature_statistics import COLUMNS, PERCENTILES, feature_statistics
from xai_assets.stats.histograms import accumulate, add_blocks, empty_block

SEGMENTS = ("overall", "s=x", "s=y")
FEATURES = ("normal", "skewed", "mostly_zero", "whole")


def draw(seed: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values [n, 4] with 5 % missing in each feature, weights, segment codes."""
    rng = np.random.default_rng(seed)
    values = np.column_stack(
        (
            rng.normal(50.0, 9.0, n),
            rng.lognormal(2.0, 1.5, n),
            np.where(rng.random(n) < 0.9, 0.0, rng.normal(size=n)),
            rng.poisson(4, n),
        )
    )
    values[rng.random(values.shape) < 0.05] = np.nan
    codes = np.column_stack([np.zeros(n), 1 + (rng.random(n) < 0.3)]).astype(np.int32)
    return values.astype(np.float32), rng.uniform(1.0, 20.0, n), codes


def fill(edges: tuple[Edges, ...], values: np.ndarray, weights: np.ndarray, codes: np.ndarray) -> HistogramBlock:
    block = empty_block(SEGMENTS, edges)
    accumulate(block, edges, values, weights, codes)
    return block


def reference_edges(seed: int = 0) -> tuple[Edges, ...]:
    sketch = EdgeSketch(FEATURES)
    sketch.add(draw(seed, 20_000)[0])
    return sketch.edges(20)


EDGES = reference_edges()


def of_overall(block: HistogramBlock, edges: tuple[Edges, ...] = EDGES, **more: object) -> dict[str, np.ndarray]:
    found = feature_statistics(block, edges, **more)  # type: ignore[arg-type]
    return {name: column[: len(edges)] for name, column in found.items()}


def exact_percentile(values: np.ndarray, weights: np.ndarray, percent: float) -> float:
    """The smallest value at or below which `percent` of the weight lies."""
    order = np.argsort(values)
    upto = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(upto, percent / 100 * upto[-1] * (1 - 1e-12))])


@pytest.mark.parametrize("weighted", [False, True], ids=["all", "sampled"])
def test_moments_and_rates_are_those_of_the_rows(weighted: bool) -> None:
    values, weights, codes = draw(1, 5_000)
    weights = weights if weighted else np.ones(5_000)
    found = feature_statistics(fill(EDGES, values, weights, codes), EDGES)
    for row in range(len(SEGMENTS) * len(FEATURES)):
        g, j = divmod(row, len(FEATURES))
        assert (found["segment"][row], found["feature"][row]) == (SEGMENTS[g], FEATURES[j])
        here = np.any(codes == g, axis=1)
        x, w = values[here, j].astype(np.float64), weights[here]
        there = ~np.isnan(x)
        mean = np.average(x[there], weights=w[there])
        cuts = EDGES[j].cuts
        expected = {
            "row_count": here.sum(),
            "n_effective": w.sum() ** 2 / (w**2).sum(),
            "mean": mean,
            "std": np.sqrt(np.average((x[there] - mean) ** 2, weights=w[there])),
            "mean_absolute": np.average(np.abs(x[there]), weights=w[there]),
            "missing_share": w[~there].sum() / w.sum(),
            "outside_share": w[(x < cuts[0]) | (x > cuts[-1])].sum() / w.sum(),
        }
        for name, value in expected.items():
            assert found[name][row] == pytest.approx(value, rel=1e-9), (name, row)
        assert np.isnan(found["unseen_share"][row])


@given(seed=st.integers(0, 10_000), n=st.integers(1, 400), weighted=st.booleans())
def test_percentiles_lie_in_the_cell_of_the_exact_ones(seed: int, n: int, weighted: bool) -> None:
    values, weights, codes = draw(seed, n)
    weights = weights if weighted else np.ones(n)
    found = of_overall(fill(EDGES, values, weights, codes))
    for j, edges in enumerate(EDGES):
        there = ~np.isnan(values[:, j])
        for p in PERCENTILES:
            estimate = found[COLUMNS[p]][j]
            if not there.any():
                assert np.isnan(estimate)
                continue
            exact = exact_percentile(values[there, j].astype(np.float64), weights[there], p)
            cell = int(cell_numbers(edges, np.array([exact]))[0])
            low, high = edges.cuts[max(cell - 1, 0)], edges.cuts[min(cell, edges.inner_cells)]
            assert low <= estimate <= high, (edges.feature, p)


@given(seed=st.integers(0, 10_000), n=st.integers(1, 400), shift=st.floats(-40, 40), scale=st.floats(0.0, 3.0))
def test_percentiles_rise_and_stay_in_the_reference_s_range(seed: int, n: int, shift: float, scale: float) -> None:
    values, weights, codes = draw(seed, n)
    found = of_overall(fill(EDGES, (values * scale + shift).astype(np.float32), weights, codes))
    rising = np.array([found[COLUMNS[p]] for p in PERCENTILES])
    low, high = (np.array([e.cuts[at] for e in EDGES]) for at in (0, -1))
    for j in range(len(EDGES)):
        known = rising[~np.isnan(rising[:, j]), j]
        assert np.all(np.diff(known) >= 0)
        assert np.all((known >= low[j]) & (known <= high[j]))


@given(seed=st.integers(0, 10_000), first=st.integers(0, 200), second=st.integers(0, 200))
def test_a_week_is_the_sum_of_its_days(seed: int, first: int, second: int) -> None:
    values, weights, codes = draw(seed, first + second)
    parts = [fill(EDGES, values[rows], weights[rows], codes[rows]) for rows in (slice(None, first), slice(first, None))]
    summed = feature_statistics(add_blocks(*parts), EDGES)
    whole = feature_statistics(fill(EDGES, values, weights, codes), EDGES)
    for name in ("mean", "std", "mean_absolute", "missing_share", "outside_share", "n_effective", *COLUMNS.values()):
        np.testing.assert_allclose(summed[name], whole[name], rtol=1e-7, atol=1e-9, err_msg=name)


def test_weights_stand_for_requests_that_were_not_explained() -> None:
    """A row of weight 3 counts as three rows of weight 1, in everything but the number of rows."""
    values, _, codes = draw(3, 300)
    weights = np.random.default_rng(3).integers(1, 6, 300).astype(float)
    times = weights.astype(int)
    weighted = feature_statistics(fill(EDGES, values, weights, codes), EDGES)
    repeated = feature_statistics(
        fill(EDGES, np.repeat(values, times, axis=0), np.ones(times.sum()), np.repeat(codes, times, axis=0)), EDGES
    )
    for name in weighted.keys() - {"segment", "feature", "row_count", "n_effective"}:
        np.testing.assert_allclose(weighted[name], repeated[name], rtol=1e-7, atol=1e-12, err_msg=name)
    assert np.all(weighted["n_effective"] < repeated["n_effective"])


def test_a_cell_of_one_value_gives_that_value() -> None:
    """Of 90 % zeros the percentiles between are zero, not somewhere between zero and the next border."""
    values, weights, codes = draw(5, 4_000)
    found = of_overall(fill(EDGES, values, weights, codes))
    zero = FEATURES.index("mostly_zero")
    assert [found[COLUMNS[p]][zero] for p in (25, 50, 75)] == [0.0, 0.0, 0.0]
    half = (Edges("flag", np.array([0.0, 1.0, 1.0])),)
    block = empty_block(["overall"], half)
    accumulate(block, half, np.array([[0.0], [1.0]]), np.ones(2), np.zeros((2, 1), np.int32))
    found = of_overall(block, half)
    assert [float(found[COLUMNS[p]][0]) for p in (1, 50, 75, 99)] == [0.0, 0.0, 1.0, 1.0]


def test_an_even_cell_is_cut_evenly() -> None:
    edges = (Edges("even", np.array([0.0, 100.0])),)
    block = empty_block(["overall"], edges)
    accumulate(block, edges, np.arange(101.0)[:, None], np.ones(101), np.zeros((101, 1), np.int32))
    found = of_overall(block, edges)
    np.testing.assert_allclose([found[COLUMNS[p]][0] for p in PERCENTILES], PERCENTILES, atol=1e-9)


def test_beyond_the_reference_a_percentile_is_not_known() -> None:
    """Four in ten are inside; a percentile that lies there is known whatever lies outside."""
    values = np.full((10, 4), 1e6, np.float32)
    values[:3], values[3:7] = -1e6, [e.cuts[-1] for e in EDGES]
    inside = of_overall(fill(EDGES, values, np.ones(10), np.zeros((10, 1), np.int32)))
    for j, e in enumerate(EDGES):
        assert np.isnan([inside[COLUMNS[p]][j] for p in (1, 5, 25, 75, 95, 99)]).all()
        assert e.cuts[-2] <= inside[COLUMNS[50]][j] <= e.cuts[-1]
    values[3:7] = 1e6
    found = of_overall(fill(EDGES, values, np.ones(10), np.zeros((10, 1), np.int32)))
    assert all(np.isnan(found[name]).all() for name in COLUMNS.values())
    assert found["outside_share"].tolist() == [1.0] * 4
    assert found["mean"].tolist() == pytest.approx([4e5] * 4)


def test_categories_have_rates_alone_and_flags_no_percentiles() -> None:
    edges = (category_edges("home", 3), category_edges("returning", 2))
    block = empty_block(["overall"], edges)
    codes = np.array([[0, 0], [3, 1], [2, 1], [np.nan, 1]], dtype=np.float32)
    accumulate(block, edges, codes, np.ones(4), np.zeros((4, 1), np.int32))
    found = of_overall(block, edges, kinds={"home": "categorical", "returning": "boolean"})
    assert (found["unseen_share"][0], found["missing_share"][0]) == (0.25, 0.25)
    assert found["mean"][1] == 0.75
    undefined = ["mean", "std", "mean_absolute", "outside_share", *COLUMNS.values()]
    assert all(np.isnan(found[name][0]) for name in undefined)
    assert all(np.isnan(found[name][1]) for name in ("unseen_share", *COLUMNS.values()))


def test_constant_features_have_no_spread_and_large_ones_keep_theirs() -> None:
    rng = np.random.default_rng(8)
    values = np.column_stack((np.full(1_000, 0.1), rng.normal(1e5, 1.0, 1_000), np.full(1_000, np.nan)))
    sketch = EdgeSketch(("constant", "far", "null"))
    sketch.add(values)
    edges = sketch.edges(20)
    block = empty_block(["overall"], edges)
    accumulate(block, edges, values, rng.uniform(1, 9, 1_000), np.zeros((1_000, 1), np.int32))
    found = of_overall(block, edges)
    assert found["std"][0] == 0.0
    assert [found[COLUMNS[p]][0] for p in PERCENTILES] == [0.1] * len(PERCENTILES)
    assert found["std"][1] == pytest.approx(1.0, rel=0.1)
    assert all(np.isnan(found[name][2]) for name in ("mean", "std", "mean_absolute", *COLUMNS.values()))
    assert found["missing_share"][2] == 1.0


def test_a_segment_without_requests_has_nothing() -> None:
    found = feature_statistics(empty_block(SEGMENTS, EDGES), EDGES)
    assert found["row_count"].sum() == found["n_effective"].sum() == 0
    for name in ("mean", "std", "missing_share", "outside_share", *COLUMNS.values()):
        assert np.isnan(found[name]).all(), name


def test_other_borders_are_refused() -> None:
    with pytest.raises(StatisticsError, match="borders are not those of the block"):
        feature_statistics(empty_block(SEGMENTS, EDGES), EDGES[::-1])
