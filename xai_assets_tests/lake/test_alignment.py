"""Tables of one day walked in step: equal to a join on the request id."""

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_assets.errors import ProvenanceError
from xai_assets.lake.alignment import RowReader, explained_batches, rows_at
from xai_assets.lake.store import Lake
from xai_assets.lake.tables import DIVERGENCE_SET, REPLAY_LOG

DAY = date(2025, 1, 1)


def store(lake: Lake, rows: int, chosen: list[int]) -> None:
    ids = [f"r{i}" for i in range(rows)]
    log = pl.DataFrame({"request_id": ids}, schema={"request_id": pl.String}).with_columns(
        *(pl.lit(None, dtype=t).alias(c) for c, t in REPLAY_LOG.schema.items() if c != "request_id"),
        pl.Series("income", np.arange(rows), dtype=pl.Float32),
    )
    lake.write("replay_log", "m", DAY, log, {})
    picked = pl.DataFrame({"row_index": chosen, "request_id": [ids[i] for i in chosen]}).with_columns(
        delta=pl.lit(0.0), is_divergent=pl.lit(False), divergence_kind=pl.lit("none"), inclusion_probability=pl.lit(1.0)
    )
    lake.write(
        "divergence_set", "m", DAY, picked.select(pl.col(c).cast(t) for c, t in DIVERGENCE_SET.schema.items()), {}
    )


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(0, 60), batch=st.integers(1, 17), data=st.data())
def test_batches_are_the_join(
    tmp_path_factory: pytest.TempPathFactory, rows: int, batch: int, data: st.DataObject
) -> None:
    chosen = sorted(data.draw(st.sets(st.integers(0, max(rows - 1, 0)), max_size=rows)))
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    store(lake, rows, chosen)
    seen = list(explained_batches(lake, "m", DAY, ["request_id", "income"], batch_rows=batch))
    left = [i for c, _ in seen for i in c["request_id"]]
    right = [i for _, r in seen for i in r["request_id"]]
    assert left == right == [f"r{i}" for i in chosen]
    assert [v for _, r in seen for v in r["income"]] == [float(i) for i in chosen]


def test_a_set_that_points_past_its_log_is_refused(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    store(lake, 5, [1, 4])
    picked = lake.read("divergence_set", "m", DAY)
    lake.write("divergence_set", "m", DAY, picked.with_columns(pl.Series("row_index", [1, 9], dtype=pl.UInt32)), {})
    with pytest.raises(ProvenanceError, match="past the end"):
        list(explained_batches(lake, "m", DAY, ["income"]))


def test_a_stream_that_ends_too_soon_is_refused() -> None:
    frames = [pl.DataFrame({"a": [1, 2]}), pl.DataFrame({"a": [3]})]
    reader = RowReader(iter(frames))
    assert reader.take(1)["a"].to_list() == [1]
    assert reader.take(2)["a"].to_list() == [2, 3]
    with pytest.raises(ProvenanceError, match="same rows"):
        reader.take(1)


@settings(max_examples=15, deadline=None)
@given(rows=st.integers(0, 40), batch=st.integers(1, 17), data=st.data())
def test_rows_at_positions_are_those_of_the_whole_table(
    tmp_path_factory: pytest.TempPathFactory, rows: int, batch: int, data: st.DataObject
) -> None:
    positions = sorted(data.draw(st.sets(st.integers(0, max(rows - 1, 0)), max_size=rows)))
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    store(lake, rows, [])
    found = rows_at(lake, "replay_log", "m", DAY, ["income", "request_id"], np.array(positions, np.uint32), batch)
    assert found.equals(lake.read("replay_log", "m", DAY, ["income", "request_id"])[positions])


def test_a_position_past_the_end_is_refused(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    store(lake, 5, [])
    with pytest.raises(ProvenanceError, match=r"past the end of replay_log.*positions below 5"):
        rows_at(lake, "replay_log", "m", DAY, ["income"], np.array([2, 5]))
