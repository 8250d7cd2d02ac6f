import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xai_assets.errors import StatisticsError
from xai_assets.stats.cells import cell_numbers
from xai_assets.stats.edges import EdgeSketch, category_edges, quantile_cuts

VALUES = hnp.arrays(
    np.float32,
    st.integers(1, 200),
    elements=st.one_of(st.floats(-1e6, 1e6, width=32), st.sampled_from([0.0, 1.0, np.float32("nan")])),
)


def _sketch(values: np.ndarray, **settings: int) -> EdgeSketch:
    sketch = EdgeSketch([f"f{j}" for j in range(values.shape[1])], **settings)
    sketch.add(values, np.ones(len(values)))
    return sketch


def test_equal_weights_give_equal_cells() -> None:
    values = np.random.default_rng(1).normal(size=20_000)
    (edges,) = _sketch(values[:, None]).edges(20)
    counts = np.bincount(cell_numbers(edges, values), minlength=edges.cells)
    assert edges.inner_cells == 20
    assert counts[1:21].min() >= 995
    assert counts[1:21].max() <= 1005


@given(VALUES, st.integers(1, 25))
def test_cuts_rise_hold_the_range_and_stay_within_the_number_of_cells(values: np.ndarray, cells: int) -> None:
    (edges,) = _sketch(values[:, None]).edges(cells)
    finite = values[np.isfinite(values)]
    if not len(finite):
        assert edges.inner_cells == 0
        return
    assert np.all(np.diff(edges.cuts) >= 0)
    assert np.all(np.diff(edges.cuts[:-1]) > 0)
    assert (edges.cuts[0], edges.cuts[-1]) == (finite.min(), finite.max())
    assert 1 <= edges.inner_cells <= cells
    own = cell_numbers(edges, values)
    assert np.all((own[np.isfinite(values)] >= 1) & (own[np.isfinite(values)] <= edges.inner_cells))


@given(VALUES, st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_edges_do_not_depend_on_batches(values: np.ndarray, parts: int, seed: int) -> None:
    whole = _sketch(values[:, None], capacity_rows=20)
    split = EdgeSketch(["f0"], capacity_rows=20)
    for part in np.array_split(values[:, None], np.sort(np.random.default_rng(seed).integers(0, len(values), parts))):
        split.add(part, np.ones(len(part)))
    assert np.array_equal(whole.edges(5)[0].cuts, split.edges(5)[0].cuts)


def test_a_bounded_sample_keeps_quantiles_and_the_exact_range() -> None:
    values = np.random.default_rng(2).normal(size=(50_000, 1))
    values[33_333] = 99.0
    sketch = _sketch(values, capacity_rows=5_000)
    assert sketch._kept <= 5_000
    (edges,) = sketch.edges(20)
    assert edges.cuts[-1] == 99.0
    shares = np.bincount(cell_numbers(edges, values[:, 0]), minlength=edges.cells)[1:21] / len(values)
    # 5,000 kept rows put a quantile at its place to within about √(0.25/5000) = 0.007.
    assert np.abs(np.cumsum(shares) - np.arange(1, 21) / 20).max() < 0.03


def test_weights_move_the_quantiles() -> None:
    values = np.arange(10_000.0)[:, None]
    sketch = EdgeSketch(["f"])
    sketch.add(values, np.where(values[:, 0] < 5_000, 3.0, 1.0))
    (edges,) = sketch.edges(4)
    # Weight 15,000 below 5,000 and 5,000 above: quarters of 5,000 end at 1,667, 3,333 and 5,000.
    assert edges.cuts == pytest.approx([0, 1667, 3334, 5000, 9999], abs=2)


@pytest.mark.parametrize("share", [0.001, 0.02, 0.5, 0.98])
def test_a_flag_has_two_cells_however_rare_it_is(share: float) -> None:
    values = (np.random.default_rng(3).random(20_000) < share).astype(np.float32)
    (edges,) = _sketch(values[:, None]).edges(20)
    assert edges.cuts.tolist() == [0.0, 1.0, 1.0]


def test_a_heavy_tie_has_a_cell_of_its_own() -> None:
    rng = np.random.default_rng(4)
    values = np.where(rng.random(20_000) < 0.97, 0.0, rng.normal(size=20_000))
    (edges,) = _sketch(values[:, None]).edges(20)
    at_zero = cell_numbers(edges, np.array([0.0]))[0]
    inside = values[cell_numbers(edges, values) == at_zero]
    assert np.all(inside == 0.0)


def test_constant_null_and_infinite_columns() -> None:
    values = np.full((50, 3), np.nan)
    values[:, 0] = 7.0
    values[:, 2] = np.inf
    constant, null, infinite = _sketch(values).edges(20)
    assert constant.cuts.tolist() == [7.0, 7.0]
    assert null.inner_cells == infinite.inner_cells == 0
    assert cell_numbers(constant, np.array([6.9, 7.0, 7.1, np.nan])).tolist() == [0, 1, 2, 3]
    assert cell_numbers(null, np.array([1.0, np.nan])).tolist() == [1, 2]


def test_no_rows_at_all() -> None:
    (edges,) = EdgeSketch(["f"]).edges(20)
    assert edges.inner_cells == 0


def test_float32_range_does_not_fall_outside_by_rounding() -> None:
    values = np.array([0.1, 0.2, 0.7, 1.1], dtype=np.float32)[:, None]
    (edges,) = _sketch(values).edges(2)
    assert np.all(np.isin(cell_numbers(edges, values[:, 0]), [1, 2]))


def test_categories() -> None:
    edges = category_edges("channel", 3)
    assert cell_numbers(edges, np.array([0, 1, 2, 3, -1, np.nan])).tolist() == [1, 2, 3, 4, 0, 5]
    assert category_edges("channel", 0).inner_cells == 0


def test_rows_that_all_weigh_nothing_have_no_quantiles() -> None:
    sketch = EdgeSketch(["f"])
    sketch.add(np.arange(5.0)[:, None], np.zeros(5))
    with pytest.raises(StatisticsError, match=r"all weights of the reference's rows are zero.*5 rows"):
        sketch.edges(4)
    sketch.add(np.array([[2.0]]), np.ones(1))
    assert sketch.edges(4)[0].cuts.tolist() == [2.0, 2.0]


def test_refusals() -> None:
    sketch = EdgeSketch(["a", "b"])
    with pytest.raises(StatisticsError, match="wrong shape"):
        sketch.add(np.zeros((3, 1)), np.ones(3))
    for weights in (np.array([1.0, -1.0, 1.0]), np.array([1.0, np.nan, 1.0]), np.ones(2)):
        with pytest.raises(StatisticsError, match="weights"):
            sketch.add(np.zeros((3, 2)), weights)
    with pytest.raises(StatisticsError, match="number of cells"):
        sketch.edges(0)
    with pytest.raises(StatisticsError, match="capacity_rows"):
        EdgeSketch(["a"], capacity_rows=0)
    with pytest.raises(StatisticsError, match="number of levels"):
        category_edges("a", -1)


def test_few_distinct_values_each_get_a_cell() -> None:
    values = np.array([1.0] * 90 + [2.0] * 9 + [3.0])
    cuts = quantile_cuts(values, np.ones(100), 1.0, 3.0, 20)
    assert cuts.tolist() == [1.0, 2.0, 3.0, 3.0]
