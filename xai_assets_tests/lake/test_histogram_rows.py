"""Blocks survive being stored: dense → rows → dense is the identity, and rows of days add like blocks."""

import numpy as np
import polars as pl
import pytest

from xai_assets.lake.histogram_rows import MOMENTS_BIN, blocks_to_frame, frame_to_blocks
from xai_assets.records import Edges, HistogramBlock
from xai_assets.stats.histograms import accumulate, add_blocks, empty_block

SEGMENTS = ("overall", "region=north", "region=(other)")
EDGES = (Edges("income", np.array([0.0, 1.0, 2.0])), Edges("age", np.array([-1.0, 0.5])))


def filled(seed: int) -> HistogramBlock:
    rng = np.random.default_rng(seed)
    block = empty_block(SEGMENTS, EDGES)
    values = rng.normal(size=(200, 2)).astype(np.float32)
    values[::7, 0] = np.nan
    codes = np.column_stack([np.zeros(200), rng.integers(1, 3, 200)]).astype(np.int32)
    accumulate(block, EDGES, values, rng.uniform(1, 3, 200), codes)
    return block


def assert_equal(a: HistogramBlock, b: HistogramBlock) -> None:
    assert a.segments == b.segments
    for name in ("row_count", "weight", "weight_squared", "phi_sum", "abs_sum", "squared_sum"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-12, err_msg=name)


def test_rows_give_the_block_back() -> None:
    blocks = {("production", "all"): filled(1), ("input", "all"): filled(2)}
    edges = {"production": EDGES, "input": EDGES}
    back = frame_to_blocks(blocks_to_frame(blocks), SEGMENTS, edges, ["all"])
    for key, block in blocks.items():
        assert_equal(back[key], block)


def test_each_role_has_features_of_its_own() -> None:
    """In any order: the features of a role are those of its own edges, not of the first role's."""
    outputs = (Edges("age", np.array([0.0, 0.5, 1.0])), Edges("score", np.array([-3.0, 0.0, 1.0, 3.0])))
    rng = np.random.default_rng(3)
    block = empty_block(SEGMENTS, outputs)
    accumulate(block, outputs, rng.normal(size=(100, 2)), np.ones(100), np.zeros((100, 1), np.int32))
    blocks = {("production", "all"): filled(1), ("output", "all"): block}
    for edges in ({"production": EDGES, "output": outputs}, {"output": outputs, "production": EDGES}):
        back = frame_to_blocks(blocks_to_frame(blocks), SEGMENTS, edges, ["all"])
        for key, expected in blocks.items():
            assert back[key].features == expected.features
            assert_equal(back[key], expected)


def test_rows_of_unknown_features_and_segments_are_left_out() -> None:
    frame = blocks_to_frame({("production", "all"): filled(1)})
    strange = frame.with_columns(feature=pl.lit("height")), frame.with_columns(segment=pl.lit("region=mars"))
    back = frame_to_blocks(pl.concat([frame, *strange]), SEGMENTS, {"production": EDGES}, ["all"])
    assert_equal(back["production", "all"], filled(1))


def test_summed_rows_are_the_sum_of_days() -> None:
    days = [blocks_to_frame({("production", "all"): filled(s)}) for s in (1, 2)]
    keys = ["role", "population", "segment", "feature", "bin"]
    summed = pl.concat(days).group_by(keys).sum()
    back = frame_to_blocks(summed, SEGMENTS, {"production": EDGES}, ["all"])
    assert_equal(back["production", "all"], add_blocks(filled(1), filled(2)))


def test_empty_cells_have_no_row_and_moments_have_one() -> None:
    frame = blocks_to_frame({("production", "all"): filled(1)})
    assert frame.filter(pl.col("row_count") == 0).is_empty()
    assert frame.filter(pl.col("bin") == MOMENTS_BIN).height == len(SEGMENTS) * len(EDGES)


def test_an_empty_block_is_no_rows() -> None:
    frame = blocks_to_frame({("production", "all"): empty_block(SEGMENTS, EDGES)})
    assert frame.is_empty()
    back = frame_to_blocks(frame, SEGMENTS, {"production": EDGES}, ["all"])
    assert back["production", "all"].weight.sum() == pytest.approx(0.0)
