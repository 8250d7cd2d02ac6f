"""Reservoirs draw the same rows whatever the order and the batches, with the exact probabilities, in bounded memory."""

import hashlib
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_assets.errors import LakeError
from xai_assets.lake.sampling import Reservoir, shares_of_budget, stable_keys


def drawn(ids: list[str], cuts: list[int], capacity: int, count: int) -> list[str]:
    """Ids that a reservoir gives when `ids` come in batches that end at the cuts."""
    reservoir = Reservoir(capacity)
    borders = [0, *sorted(c for c in cuts if c < len(ids)), len(ids)]
    for first, last in pairwise(borders):
        rows = pl.DataFrame({"request_id": ids[first:last]}, schema={"request_id": pl.String})
        reservoir.offer(rows, stable_keys(rows["request_id"], 0))
    assert reservoir.offered == len(ids)
    return reservoir.smallest(count)["request_id"].to_list()


def key(request_id: str, seed: int = 0) -> int:
    return int.from_bytes(hashlib.md5(f"{seed}:{request_id}".encode()).digest()[:8], "little")


def twin(ids: list[str], count: int) -> list[str]:
    """The same by hashlib and a plain sort."""
    return sorted(ids, key=lambda i: (key(i), i))[:count]


@given(
    order=st.permutations(range(60)),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    capacity=st.integers(1, 70),
    data=st.data(),
)
@settings(max_examples=30)
def test_a_reservoir_gives_the_smallest_keys_in_any_order_and_batching(
    order: list[int], cuts: list[int], capacity: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(0, capacity))
    ids = [f"r{i}" for i in order]
    assert drawn(ids, cuts, capacity, count) == twin(ids, count)


def test_equal_keys_go_by_request_id_whatever_the_order() -> None:
    for ids in (["a", "b", "c", "d"], ["d", "b", "c", "a"]):
        reservoir = Reservoir(2)
        for i in ids:
            reservoir.offer(pl.DataFrame({"request_id": [i]}), pl.Series([7], dtype=pl.UInt64))
        assert reservoir.smallest(2)["request_id"].to_list() == ["a", "b"]


def test_a_reservoir_holds_few_rows_however_many_are_offered() -> None:
    reservoir, most = Reservoir(100), 0
    for batch in range(200):
        rows = pl.DataFrame({"request_id": [f"{batch}-{i}" for i in range(50)]})
        reservoir.offer(rows, pl.Series([key(i) for i in rows["request_id"]], dtype=pl.UInt64))
        most = max(most, sum(table.num_rows for table in reservoir._held))
    assert reservoir.offered == 10_000
    assert most <= 2 * 100 + 50


def test_more_than_was_kept_cannot_be_had() -> None:
    reservoir = Reservoir(3)
    assert reservoir.smallest(3).is_empty()
    with pytest.raises(LakeError, match="did not keep"):
        reservoir.smallest(4)


@given(
    budget=st.integers(1, 2_000),
    share=st.floats(0.01, 0.99),
    divergent=st.integers(0, 2_000),
    rest=st.integers(0, 2_000),
)
@settings(max_examples=100)
def test_shares_fill_the_budget_and_divergent_rows_come_first_up_to_theirs(
    budget: int, share: float, divergent: int, rest: int
) -> None:
    taken, others = shares_of_budget(budget, share, divergent, rest)
    assert taken + others == min(budget, divergent + rest)
    assert 0 <= taken <= divergent
    assert 0 <= others <= rest
    assert taken >= min(divergent, int(share * budget))
    if budget > 1:
        assert (taken > 0) == (divergent > 0)
        assert (others > 0) == (rest > 0)


def test_every_row_is_drawn_equally_often_over_seeds() -> None:
    """n of N with another key per seed: each row's share of draws is n/N within four standard errors."""
    rows, seeds = pl.DataFrame({"request_id": [f"r{i}" for i in range(40)]}), 400
    counts = dict.fromkeys(rows["request_id"], 0)
    for seed in range(seeds):
        keys = pl.Series([key(i, seed) for i in counts], dtype=pl.UInt64)
        reservoir = Reservoir(10)
        reservoir.offer(rows[:17], keys[:17])
        reservoir.offer(rows[17:], keys[17:])
        for i in reservoir.smallest(10)["request_id"]:
            counts[i] += 1
    share = np.array(list(counts.values())) / seeds
    assert share.mean() == pytest.approx(10 / 40)
    assert np.abs(share - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / seeds)
