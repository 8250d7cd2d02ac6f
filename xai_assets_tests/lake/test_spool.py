from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_assets.lake.spool import Spool

SCHEMA = {"request_id": pl.String(), "at": pl.Int64()}
row = st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 3))


@given(frames=st.lists(st.lists(row, max_size=6), max_size=6))
@settings(max_examples=150, deadline=None)
def test_the_last_time_wins_and_of_equal_times_the_last_row(frames: list[list[tuple[str, int]]]) -> None:
    rows = [r for f in frames for r in f]
    winners = {}
    for i, (name, at) in enumerate(rows):  # the ten-line twin
        if name not in winners or at >= rows[winners[name]][1]:
            winners[name] = i
    with Spool(SCHEMA, "at") as spool:
        for frame in frames:
            spool.append(pl.DataFrame(frame, schema=SCHEMA, orient="row"))
        spool.close()
        superseded = spool.superseded()
        kept = [r for f in spool.frames(superseded) for r in f.rows()]
    assert kept == [rows[i] for i in sorted(winners.values())]
    assert superseded.tolist() == sorted(set(range(len(rows))) - set(winners.values()))


def test_different_ids_of_equal_hash_are_not_duplicates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every hash collides; the ids themselves decide."""
    monkeypatch.setattr(pl.Series, "hash", lambda self, seed: pl.Series(np.zeros(len(self), np.uint64)))
    with Spool(SCHEMA, "at") as spool:
        spool.append(pl.DataFrame({"request_id": ["a", "b", "a"], "at": [1, 2, 3]}))
        spool.close()
        assert spool.superseded().tolist() == [0]


def test_the_temporary_file_is_gone_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Spool(SCHEMA, "at") as spool:
        spool.append(pl.DataFrame({"request_id": ["a"], "at": [1]}))
        assert list(tmp_path.iterdir())
        raised = ValueError("stop")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="stop"), Spool(SCHEMA, "at"):
        raise raised
    assert not list(tmp_path.iterdir())
