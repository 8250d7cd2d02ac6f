"""Encoding against a row-by-row twin."""

import math
from datetime import date

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_assets.errors import ModelError
from xai_assets.models.encoding import encode_features
from xai_assets.records import FeatureSpec

LEVELS = ("rent", "own", "", "rent ")
SPECS = (
    FeatureSpec("age", "numeric"),
    FeatureSpec("home", "categorical", LEVELS),
    FeatureSpec("guarantor", "boolean"),
)
rows = st.lists(
    st.fixed_dictionaries(
        {
            "guarantor": st.none() | st.booleans(),
            "home": st.none() | st.sampled_from((*LEVELS, "Rent", "castle", "œ")),
            "age": st.none() | st.floats(width=32, allow_infinity=False),
        }
    ),
    max_size=30,
)


def naive(row: dict, unseen: str) -> list[float]:
    def number(value):
        return math.nan if value is None else float(value)

    home = row["home"]
    if home is None:
        code = math.nan
    elif home in LEVELS:
        code = LEVELS.index(home)
    else:
        code = len(LEVELS) if unseen == "own_code" else math.nan
    return [number(row["age"]), code, number(row["guarantor"])]


@settings(max_examples=60, deadline=None)
@given(rows, st.sampled_from(("missing", "own_code")))
def test_same_as_row_by_row(found, unseen):
    schema = {"guarantor": pl.Boolean, "home": pl.String, "age": pl.Float64}
    encoded = encode_features(pl.DataFrame(found, schema=schema), SPECS, unseen=unseen)
    expected = np.array([naive(r, unseen) for r in found], np.float32).reshape(len(found), 3)
    np.testing.assert_array_equal(encoded, expected)
    assert encoded.dtype == np.float32
    assert encoded.flags.c_contiguous


def test_types_a_source_may_have_give_the_same_numbers():
    plain = pl.DataFrame({"age": [30.0, None], "home": ["own", "rent"], "guarantor": [True, None]})
    wanted = encode_features(plain, SPECS)
    for other in (
        plain.with_columns(pl.col("age").cast(pl.Int16)),
        plain.with_columns(pl.col("age").cast(pl.Decimal(10, 2))),
        plain.with_columns(pl.col("home").cast(pl.Categorical)),
        plain.with_columns(pl.col("home").cast(pl.Enum(["rent", "own", "castle"]))),
        plain.with_columns(pl.col("guarantor").cast(pl.Int8)),
    ):
        np.testing.assert_array_equal(encode_features(other, SPECS), wanted)


def test_whole_number_levels_match_their_text():
    frame = pl.DataFrame({"agent": [7, 9, None, 8]})
    spec = FeatureSpec("agent", "categorical", ("9", "7"))
    assert encode_features(frame, (spec,))[:, 0].tolist()[:2] == [1.0, 0.0]
    assert np.isnan(encode_features(frame, (spec,))[2:]).all()


@pytest.mark.parametrize(
    "column",
    [pl.Series("age", [None, None]), pl.Series("age", [None, None], dtype=pl.String), pl.Series("age", [np.nan, None])],
)
def test_all_missing_is_all_nan(column):
    assert np.isnan(encode_features(column.to_frame(), SPECS[:1])).all()


def test_no_rows_and_no_features():
    empty = pl.DataFrame(schema={"age": pl.Float64, "home": pl.String, "guarantor": pl.Boolean})
    assert encode_features(empty, SPECS).shape == (0, 3)
    assert encode_features(pl.DataFrame({"age": [1.0]}), ()).shape == (1, 0)


def test_missing_column_names_the_nearest():
    with pytest.raises(ModelError, match=r"'age' is not in the data.*did you mean 'agee'"):
        encode_features(pl.DataFrame({"agee": [1.0]}), SPECS[:1])


def test_text_as_number_is_refused():
    with pytest.raises(ModelError, match=r"age \(numeric\).*correct the feature's kind"):
        encode_features(pl.DataFrame({"age": ["forty"]}), SPECS[:1])


def test_categorical_without_levels_is_refused():
    with pytest.raises(ModelError, match="no levels"):
        encode_features(pl.DataFrame({"home": [date(2025, 1, 1)]}), (FeatureSpec("home", "categorical"),))
