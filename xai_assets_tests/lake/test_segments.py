"""Segments: top values, (other) and (missing) partition the requests of every column."""

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from xai_assets.lake.segments import MISSING, OTHER, segment_codes, top_segments, value_counts

VALUES = st.lists(st.sampled_from(["north", "south", "east", "west", "a=b", None]), max_size=40)


@given(reference=VALUES, current=VALUES, top=st.integers(1, 4))
def test_every_request_is_in_overall_and_in_one_segment_per_column(
    reference: list[str | None], current: list[str | None], top: int
) -> None:
    schema = {"region": pl.String}
    counts = value_counts(pl.DataFrame({"region": reference}, schema=schema), ["region"])
    segments = top_segments(counts, top)
    codes = segment_codes(pl.DataFrame({"region": current}, schema=schema), ["region"], segments)
    assert codes.shape == (len(current), 2)
    assert codes.dtype == np.int32
    named = {s.removeprefix("region=") for s in segments[1:]}
    for value, (overall, code) in zip(current, codes, strict=True):
        assert segments[overall] == "overall"
        expected = MISSING if value is None else value if value in named else OTHER
        assert segments[code] == f"region={expected}"


def test_the_most_frequent_values_get_names() -> None:
    frame = pl.DataFrame({"region": ["n"] * 3 + ["s"] * 2 + ["e"] * 2 + [None]})
    assert top_segments(value_counts(frame, ["region"]), 2)[1:] == (
        "region=n",
        "region=e",
        "region=(other)",
        "region=(missing)",
    )


def test_columns_that_are_not_text_are_segments_too() -> None:
    frame = pl.DataFrame({"returning": [True, False, True]})
    segments = top_segments(value_counts(frame, ["returning"]), 5)
    codes = segment_codes(frame, ["returning"], segments)
    assert [segments[c] for c in codes[:, 1]] == ["returning=true", "returning=false", "returning=true"]
