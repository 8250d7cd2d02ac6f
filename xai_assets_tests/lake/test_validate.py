from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_assets.config import MonitorConfig
from xai_assets.errors import ConfigError, SourceError
from xai_assets.lake.times import times_as_utc
from xai_assets.lake.validate import (
    OUTSIDE,
    ROW,
    Part,
    Plan,
    Validated,
    replay_plan,
    stored_schema,
    validate,
)

DAY = date(2025, 1, 1)
NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)


def one(values: pl.Series | list[object], kind: str, required: bool = False, zone: str = "UTC") -> Validated:
    plan = Plan((Part("x", "x", kind, required),), None, zone)
    return validate(pl.DataFrame({"x": values}, strict=False), plan, "file")


def kept(values: pl.Series | list[object], kind: str, **options: object) -> list[object]:
    """Values of the usable rows."""
    return one(values, kind, **options).rows["x"].to_list()  # type: ignore[arg-type]


def utc(values: list[object] | pl.Series, zone: str = "UTC") -> list[datetime | None]:
    return times_as_utc(pl.DataFrame({"t": values})["t"], zone).to_list()


# --- values ----------------------------------------------------------------------------------------------------------


def test_numbers_of_any_type_are_float32_and_nan_is_missing() -> None:
    assert kept([1.5, float("nan"), None], "numeric") == [1.5, None, None]
    assert kept([1, None], "numeric") == [1.0, None]
    assert kept(["1.5", " 2 ", "", " ", "NaN", "1e3", "-0"], "numeric") == [1.5, 2.0, None, None, None, 1000.0, 0.0]
    assert kept([True, False], "numeric") == [1.0, 0.0]
    assert one([1.5], "numeric").rows.schema["x"] == pl.Float32
    assert one([None], "numeric").rows.schema["x"] == pl.Float32


@pytest.mark.parametrize(
    "values, reason",
    [
        ([1.0, float("inf")], "x is infinite or too large (found inf)"),
        ([1.0, -1e39], "x is infinite or too large (found -1e+39)"),
        (["1", "-inf"], "x is infinite or too large (found -inf)"),
        (["1", "abc"], "x is not a number (found abc)"),
        (["1", "1,5"], "x is not a number (found 1,5)"),
        (["1", "NA"], "x is not a number (found NA)"),
        (["1", "true"], "x is not a number (found true)"),
    ],
)
def test_what_is_no_usable_number_is_bad_with_what_was_found(values: list[object], reason: str) -> None:
    checked = one(values, "numeric")
    assert checked.rows[ROW].to_list() == [0]
    assert checked.bad.rows() == [(1, reason)]
    assert checked.reason_counts == {reason.partition(" (")[0]: 1}


def test_booleans_in_their_usual_spellings() -> None:
    words = ["true", "FALSE", "Yes", "no", "1", "0", "1.0", ""]
    assert kept(words, "boolean") == [True, False, True, False, True, False, True, None]
    assert kept([1, 0, None], "boolean") == [True, False, None]
    assert kept([1.0, 0.0, float("nan")], "boolean") == [True, False, None]
    assert kept([True, None], "boolean") == [True, None]
    assert one(["true", "maybe"], "boolean").bad.rows() == [(1, "x is not true or false (found maybe)")]
    assert one([1, 2], "boolean").bad.height == 1


def test_text_is_stored_as_it_is_and_other_types_as_text() -> None:
    assert kept(["a", "", " b ", None, "NULL"], "text") == ["a", "", " b ", None, "NULL"]
    assert kept([1, None], "text") == ["1", None]
    assert kept([1.0, 2.5, float("nan"), 1e300], "text") == ["1", "2.5", None, "1e+300"]
    assert kept([True, None], "text") == ["true", None]
    assert kept([DAY], "text") == ["2025-01-01"]


def test_labels_are_numbers_or_truth_values_and_required() -> None:
    assert kept([True, False], "label") == [1.0, 0.0]
    assert kept(["1", "no", "2.5"], "label") == [1.0, 0.0, 2.5]
    assert one(["x", "", "nan", "1"], "label", required=True).bad["reason"].to_list() == [
        "x is not a number (found x)",
        "x is missing (found )",
        "x is missing (found nan)",
    ]


def test_outputs_must_be_there_and_finite() -> None:
    checked = one([0.5, None, float("nan"), float("inf")], "float", required=True)
    assert checked.rows["x"].to_list() == [0.5]
    assert checked.reason_counts == {"x is missing": 2, "x is infinite or too large": 1}


def test_ids_of_numbers_become_text_and_empty_ones_are_bad() -> None:
    assert kept([1, 2], "id") == ["1", "2"]
    assert kept([1.0, 2.0], "id") == ["1", "2"]
    assert one(["a", "", None], "id").reason_counts == {"request_id is missing": 2}


@pytest.mark.parametrize("kind", ["numeric", "boolean", "float", "label"])
def test_a_column_of_times_is_refused_as_a_number(kind: str) -> None:
    with pytest.raises(SourceError, match=r"column 'x' of file is of the wrong type.*Found: Datetime"):
        one([NOON], kind)


def test_several_faults_of_a_row_are_all_named(monitor: Callable[..., MonitorConfig]) -> None:
    raw = pl.DataFrame(
        {
            "request_id": [None],
            "requested_at": ["x"],
            "age": ["a"],
            "income": ["inf"],
            "region": ["n"],
            "vip": ["?"],
            "channel": ["w"],
        },
        schema_overrides={"request_id": pl.String},
    )
    checked = validate(raw, replay_plan(monitor(), DAY), "file")
    assert checked.bad["reason"][0].count("; ") == 4
    assert sum(checked.reason_counts.values()) == 5
    assert checked.bad.height == 1


@given(
    st.lists(
        st.none()
        | st.sampled_from(["", "nan", "inf", "-Infinity", "0x1", "1_000", "١"])
        # Python takes four control characters for blanks, Unicode does not
        | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x1c\x1d\x1e\x1f"), max_size=4)
        | st.floats().map(str),
        min_size=1,
        max_size=20,
    )
)
@settings(max_examples=200, deadline=None)
def test_numeric_text_agrees_with_an_obvious_twin(values: list[str | None]) -> None:
    def twin(text: str | None) -> float | str | None:
        if text is None or not text.strip():
            return None
        number = pl.Series([text.strip()]).cast(pl.Float64, strict=False)[0]
        if number is None:
            return "bad"
        if np.isnan(number):
            return None
        with np.errstate(over="ignore"):
            return "bad" if np.isinf(np.float32(number)) else float(np.float32(number))

    expected = [twin(v) for v in values]
    checked = one(pl.Series(values, dtype=pl.String), "numeric")
    assert checked.rows["x"].to_list() == [e for e in expected if e != "bad"]
    assert checked.bad[ROW].to_list() == [i for i, e in enumerate(expected) if e == "bad"]


# --- times -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "2025-01-01T12:00:00Z",
        "2025-01-01 12:00:00",
        "2025-01-01T12:00",
        "2025-01-01t12:00:00.000000z",
        "2025-01-01T14:00:00+02:00",
        "2025-01-01 14:00:00.000+0200",
        "2025-01-01T07:00-05:00",
        "2025-01-01 14:00:00+02",
        "2025-01-01 14:00:00 +02:00",
        " 2025-01-01T12:00:00.000000000Z ",
        "1735732800",
        "1735732800.0",
        "1735732800000",
        "1735732800000000",
        "1735732800000000000",
    ],
)
def test_forms_of_noon(text: str) -> None:
    assert utc([text]) == [NOON]


@pytest.mark.parametrize(
    "text", ["", "noon", "01/02/2025", "2025-13-01", "2025-01-01T25:00:00", "2025-01-01T12:00:00+99", "nan"]
)
def test_forms_of_no_time(text: str) -> None:
    assert utc([text]) == [None]


def test_times_of_other_types() -> None:
    assert utc([1735732800, None]) == [NOON, None]
    assert utc([1735732800.5]) == [NOON + timedelta(milliseconds=500)]
    assert utc([datetime(2025, 1, 1, 12)]) == [NOON]
    assert utc(pl.Series([NOON.astimezone(ZoneInfo("Asia/Tokyo"))])) == [NOON]
    assert utc(pl.Series([datetime(2025, 1, 1, 12)], dtype=pl.Datetime("ns"))) == [NOON]
    assert utc([date(2025, 1, 1)], "Asia/Tokyo") == [datetime(2024, 12, 31, 15, tzinfo=UTC)]


def test_times_without_offset_are_in_the_zone_of_the_source() -> None:
    assert utc(["2025-07-01 12:00:00", "2025-07-01T12:00:00Z"], "Europe/Lisbon") == [
        datetime(2025, 7, 1, 11, tzinfo=UTC),
        datetime(2025, 7, 1, 12, tzinfo=UTC),
    ]


def test_clock_changes_take_the_first_of_two_and_refuse_what_never_was() -> None:
    twice, never = "2025-10-26 01:30:00", "2025-03-30 01:30:00"
    assert utc([twice, never], "Europe/Lisbon") == [datetime(2025, 10, 26, 0, 30, tzinfo=UTC), None]


@given(st.datetimes(datetime(1975, 1, 1), datetime(2100, 1, 1)), st.sampled_from(["s", "ms", "us", "ns"]))
@settings(max_examples=60, deadline=None)
def test_numbers_since_1970_are_told_apart_by_their_size(at: datetime, unit: str) -> None:
    seconds = round((at - datetime(1970, 1, 1)).total_seconds())
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    assert utc([seconds * scale]) == [datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)]


# --- the day ---------------------------------------------------------------------------------------------------------


def day_plan(zone: str = "UTC", other_days_belong: bool = False, derived: tuple[str, ...] = ()) -> Plan:
    return Plan((Part("requested_at", "t", "time"),), DAY, zone, derived, other_days_belong)


def test_the_borders_of_the_day_are_those_of_the_zone() -> None:
    times = [
        "2024-12-31T14:59:59.999999Z",
        "2024-12-31T15:00:00Z",
        "2025-01-01T14:59:59.999999Z",
        "2025-01-01T15:00:00Z",
    ]
    checked = validate(pl.DataFrame({"t": times}), day_plan("Asia/Tokyo"), "file")
    assert checked.rows[ROW].to_list() == [1, 2]
    assert checked.bad[ROW].to_list() == [0, 3]
    assert checked.reason_counts == {OUTSIDE: 2}


@pytest.mark.parametrize("day, hours", [(date(2025, 3, 30), 23), (date(2025, 10, 26), 25), (date(2025, 6, 1), 24)])
def test_days_of_a_clock_change_have_23_or_25_hours(day: date, hours: int) -> None:
    start = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo("Europe/Lisbon")).astimezone(UTC)
    times = [start + timedelta(minutes=30 * i) for i in range(-4, 60)]
    plan = Plan((Part("requested_at", "t", "time"),), day, "Europe/Lisbon")
    assert validate(pl.DataFrame({"t": times}), plan, "file").rows.height == 2 * hours


def test_a_time_outside_the_day_says_by_how_much_and_hints_at_the_zone() -> None:
    times = ["2024-12-31T22:30:00Z", "2025-01-02T00:00:00Z", "2025-01-03T06:05:00Z"]
    reasons = validate(pl.DataFrame({"t": times}), day_plan(), "file").bad["reason"].to_list()
    hint = "; is source.timezone, UTC, that of the log?"
    assert reasons == [
        f"{OUTSIDE} (1 h 30 min before it starts{hint})",
        f"{OUTSIDE} (0 h 0 min after it ends{hint})",
        f"{OUTSIDE} (30 h 5 min after it ends)",
    ]


def test_rows_of_other_days_are_left_out_where_the_file_holds_many_days() -> None:
    raw = pl.DataFrame({"t": ["2025-01-01T10:00:00Z", "2025-01-02T10:00:00Z", "x"]})
    checked = validate(raw, day_plan(other_days_belong=True), "file")
    assert (checked.rows.height, checked.other_days, checked.bad[ROW].to_list()) == (1, 1, [2])


def test_hour_and_weekday_are_those_of_the_zone() -> None:
    raw = pl.DataFrame({"t": ["2025-01-01T02:00:00Z"]})
    plan = Plan(
        (Part("requested_at", "t", "time"),), date(2024, 12, 31), "America/New_York", ("weekday", "hour_of_day")
    )
    row = validate(raw, plan, "file").rows.row(0, named=True)
    assert (row["hour_of_day"], row["weekday"]) == ("21", "tue")


# --- the plan --------------------------------------------------------------------------------------------------------


def test_a_context_column_that_is_a_feature_is_stored_once_with_its_type(monitor: Callable[..., MonitorConfig]) -> None:
    schema = stored_schema(monitor(context=["region", "age", "channel"], derived_context=["weekday"]))
    assert list(schema)[-6:] == ["age", "income", "region", "vip", "channel", "weekday"]
    assert schema["age"] == pl.Float32


def test_features_are_read_from_the_columns_they_are_mapped_to(monitor: Callable[..., MonitorConfig]) -> None:
    config = monitor(columns={"features": {"age": "alter"}, "request_id": "id", "label": "y"})
    assert replay_plan(config, DAY).source_columns == (
        "id",
        "requested_at",
        "y",
        "alter",
        "income",
        "region",
        "vip",
        "channel",
    )


@pytest.mark.parametrize("name", ["label", "production_output", "date", "monitor"])
def test_a_feature_named_like_a_column_of_ours_is_refused(monitor: Callable[..., MonitorConfig], name: str) -> None:
    with pytest.raises(ConfigError, match=f"shop.features: '{name}' is a name the platform uses itself"):
        monitor(features={"numeric": [name]})
