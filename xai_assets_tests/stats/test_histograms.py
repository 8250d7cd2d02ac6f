import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_assets.errors import StatisticsError
from xai_assets.records import Edges, HistogramBlock
from xai_assets.stats.cells import cell_numbers
from xai_assets.stats.edges import EdgeSketch
from xai_assets.stats.histograms import (
    accumulate,
    add_blocks,
    align_segments,
    check_weight,
    empty_block,
    null_rows,
    segment_position,
)

ARRAYS = ("row_count", "weight", "weight_squared", "phi_sum", "abs_sum", "squared_sum")
SEGMENTS = ("overall", "c=a", "c=b")
EDGES = (
    Edges("several", np.array([-1.0, 0.0, 0.5, 2.0])),
    Edges("constant", np.array([3.0, 3.0])),
    Edges("null", np.empty(0)),
    Edges("flag", np.array([0.0, 1.0, 1.0])),
)


def _rows(seed: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    special = [-1.0, 0.0, 0.5, 1.0, 2.0, 3.0, np.nan, np.inf, -np.inf]
    values = np.where(rng.random((n, 4)) < 0.5, rng.choice(special, (n, 4)), rng.normal(size=(n, 4)))
    codes = np.column_stack([np.zeros(n), rng.integers(-1, 3, n)]).astype(np.int32)
    codes[codes[:, 1] == 0, 1] = -1
    return values.astype(np.float32), rng.integers(1, 5, n).astype(float), codes


def _filled(values: np.ndarray, weights: np.ndarray, codes: np.ndarray) -> HistogramBlock:
    block = empty_block(SEGMENTS, EDGES)
    accumulate(block, EDGES, values, weights, codes)
    return block


def _naive(values: np.ndarray, weights: np.ndarray, codes: np.ndarray) -> HistogramBlock:
    """The obvious way, one row at a time."""
    block = empty_block(SEGMENTS, EDGES)
    for i, row in enumerate(values):
        for g in (g for g in codes[i] if g >= 0):
            for j, edges in enumerate(EDGES):
                cell, w = cell_numbers(edges, row[j : j + 1])[0], weights[i]
                phi = float(row[j]) if np.isfinite(row[j]) else 0.0
                for array, number in zip(ARRAYS[:4], (1.0, w, w * w, w * phi), strict=True):
                    getattr(block, array)[g, j, cell] += number
                block.abs_sum[g, j] += w * abs(phi)
                block.squared_sum[g, j] += w * phi**2
    return block


def _assert_equal(a: HistogramBlock, b: HistogramBlock, **tolerance: float) -> None:
    for name in ARRAYS:
        np.testing.assert_allclose(
            getattr(a, name), getattr(b, name), err_msg=name, **{"rtol": 1e-12, "atol": 1e-9} | tolerance
        )


def _naive_cell(edges: Edges, x: float) -> int:
    """The convention of records.Edges in its own words."""
    cuts, inner = edges.cuts, edges.inner_cells
    if np.isnan(x):
        return inner + 2
    if inner == 0 or x > cuts[-1]:
        return inner + 1
    if x < cuts[0]:
        return 0
    if x == cuts[-1]:
        return inner
    return next(b for b in range(1, inner + 1) if cuts[b - 1] <= x < cuts[b])


@pytest.mark.parametrize("edges", EDGES, ids=lambda e: e.feature)
def test_cells_follow_the_words_of_the_convention(edges: Edges) -> None:
    values = np.array([-np.inf, -2, -1, -0.5, 0, 0.25, 0.5, 1, 1.5, 2, 2.5, 3, np.inf, np.nan])
    assert cell_numbers(edges, values).tolist() == [_naive_cell(edges, x) for x in values]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_kernel_equals_its_twin(dtype: type) -> None:
    values, weights, codes = _rows(1, 300)
    if dtype is np.int64:
        values = np.nan_to_num(values, posinf=9, neginf=-9)
    values = values.astype(dtype)
    _assert_equal(_filled(values, weights, codes), _naive(values, weights, codes))


def test_kernel_equals_its_twin_with_many_cells() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(size=(20_000, 3)).astype(np.float32)
    sketch = EdgeSketch(["a", "b", "c"])
    sketch.add(values[:, [0, 1, 1]])
    edges = (*sketch.edges(20)[:2], sketch.edges(7)[2])
    block = empty_block(["overall"], edges)
    accumulate(block, edges, values, np.ones(len(values)), np.zeros((len(values), 1), np.int32))
    for j, e in enumerate(edges):
        expected = np.bincount(cell_numbers(e, values[:, j]), minlength=block.row_count.shape[2])
        assert np.array_equal(block.row_count[0, j], expected)


@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.integers(1, 4))
@settings(max_examples=40)
def test_shards_add_and_order_does_not_matter(seed: int, n: int, parts: int) -> None:
    values, weights, codes = _rows(seed, n)
    whole = _filled(values, weights, codes)
    total = empty_block(SEGMENTS, EDGES)
    for rows in np.array_split(np.random.default_rng(seed).permutation(n), parts):
        total = add_blocks(total, _filled(values[rows], weights[rows], codes[rows]))
    assert np.array_equal(whole.row_count, total.row_count)
    assert np.array_equal(whole.weight, total.weight)
    assert np.array_equal(whole.weight_squared, total.weight_squared)
    _assert_equal(whole, total)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_values_of_one_context_add_up_to_overall(seed: int) -> None:
    values, weights, codes = _rows(seed, 100)
    codes[:, 1] = np.random.default_rng(seed).integers(1, 3, 100)
    block = _filled(values, weights, codes)
    for name in ARRAYS:
        array = getattr(block, name)
        np.testing.assert_allclose(array[1:].sum(axis=0), array[0], rtol=1e-12, atol=1e-9)


def test_features_may_be_permuted() -> None:
    values, weights, codes = _rows(3, 200)
    order = [2, 0, 3, 1]
    edges = [EDGES[j] for j in order]
    permuted = empty_block(SEGMENTS, edges)
    accumulate(permuted, edges, np.ascontiguousarray(values[:, order]), weights, codes)
    straight = _filled(values, weights, codes)
    for name in ARRAYS:
        assert np.array_equal(getattr(permuted, name), getattr(straight, name)[:, order])


def test_column_order_of_the_array_does_not_matter() -> None:
    values, weights, codes = _rows(4, 200)
    _assert_equal(_filled(values, weights, codes), _filled(np.asfortranarray(values), weights, codes), rtol=0, atol=0)


def test_inverse_probability_weights_reproduce_the_unsampled_histogram() -> None:
    rng = np.random.default_rng(6)
    n = 200_000
    values = rng.normal(size=(n, 1)).astype(np.float32)
    edges = (Edges("f", np.array([-6.0, -1.0, 0.0, 1.0, 6.0])),)
    inclusion = np.where(values[:, 0] > 0, 0.5, 0.1)
    kept = rng.random(n) < inclusion
    codes = np.zeros((n, 1), np.int32)
    full, sampled = empty_block(["overall"], edges), empty_block(["overall"], edges)
    accumulate(full, edges, values, np.ones(n), codes)
    accumulate(sampled, edges, values[kept], 1 / inclusion[kept], codes[kept])
    variance = [((1 / inclusion - 1) * (cell_numbers(edges[0], values[:, 0]) == k)).sum() for k in range(7)]
    error = np.abs(sampled.weight - full.weight)[0, 0]
    assert np.all(error <= 4 * np.sqrt(variance))


def test_blocks_with_other_segments_are_aligned_by_name() -> None:
    edges = EDGES[:1]
    a, b = empty_block(["overall", "c=a"], edges), empty_block(["c=b", "overall"], edges)
    a.weight[:] = [[[1.0]], [[2.0]]]
    b.weight[:] = [[[10.0]], [[20.0]]]
    total = add_blocks(a, b)
    assert total.segments == ("overall", "c=a", "c=b")
    assert total.weight[:, 0, 0].tolist() == [21.0, 2.0, 10.0]
    assert align_segments(total, ["c=b", "c=new"]).weight[:, 0, 0].tolist() == [10.0, 0.0]


def test_refusals_leave_the_block_unchanged() -> None:
    values, weights, codes = _rows(7, 10)
    block = empty_block(SEGMENTS, EDGES)
    bad = [
        (values[:, :3], weights, codes, "values have the wrong shape"),
        (values, weights[:9], codes, "weights"),
        (values, -weights, codes, "weights"),
        (values, np.full(10, np.nan), codes, "weights"),
        (values, weights, codes[:9], "segment codes"),
        (values, weights, codes + 3, "outside the block"),
        (values, weights, codes - 2, "outside the block"),
    ]
    for v, w, c, match in bad:
        with pytest.raises(StatisticsError, match=match):
            accumulate(block, EDGES, v, w, c)
    with pytest.raises(StatisticsError, match="borders"):
        accumulate(block, EDGES[::-1], values, weights, codes)
    assert block.row_count.sum() == 0
    with pytest.raises(StatisticsError, match="cannot be added"):
        add_blocks(block, empty_block(SEGMENTS, EDGES[:2]))
    with pytest.raises(StatisticsError, match="repeat"):
        empty_block(["a", "a"], EDGES)
    with pytest.raises(StatisticsError, match="did you mean 'c=a'"):
        segment_position(block, "c=aa")


def test_a_block_of_weightless_rows_is_refused_and_one_without_rows_is_not() -> None:
    values, weights, codes = _rows(9, 12)
    block = empty_block(SEGMENTS, EDGES)
    check_weight(block, "the day")
    accumulate(block, EDGES, values, np.zeros(12), codes)
    with pytest.raises(StatisticsError, match=r"all weights of the day are zero.*12 rows"):
        check_weight(block, "the day")
    accumulate(block, EDGES, values[:1], weights[:1], codes[:1])
    check_weight(block, "the day")


def test_null_rows_are_those_without_a_value() -> None:
    values, weights, codes = _rows(10, 300)
    block = _filled(values, weights, codes)
    for g, segment in enumerate(SEGMENTS):
        here = np.any(codes == g, axis=1)
        assert null_rows(block, EDGES, segment).tolist() == np.isnan(values[here]).sum(axis=0).tolist()


def test_wrong_weights_are_counted_in_the_message() -> None:
    values, weights, codes = _rows(11, 10)
    weights[:3] = [np.inf, -1.0, np.nan]
    with pytest.raises(StatisticsError, match="3 negative or not finite"):
        accumulate(empty_block(SEGMENTS, EDGES), EDGES, values, weights, codes)


def test_no_rows_is_no_change() -> None:
    block = empty_block(SEGMENTS, EDGES)
    accumulate(block, EDGES, np.empty((0, 4), np.float32), np.empty(0), np.empty((0, 2), np.int32))
    assert block.weight.sum() == 0


def test_numba_is_imported_late_and_needs_no_cache_folder() -> None:
    code = """
import sys
import numpy as np
import xai_assets.stats.histograms as h
from xai_assets.records import Edges
assert "numba" not in sys.modules
edges = [Edges("f", np.array([0.0, 1.0]))]
block = h.empty_block(["overall"], edges)
h.accumulate(block, edges, np.array([[0.5]]), np.ones(1), np.zeros((1, 1), np.int32))
assert block.row_count[0, 0].tolist() == [0, 1, 0, 0], block.row_count
"""
    # Only the folder that a user names may be used, and none is named: numba finds nowhere to write.
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    environment["NUMBA_CACHE_LOCATOR_CLASSES"] = "UserProvidedCacheLocator"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "compiled anew" in done.stderr
