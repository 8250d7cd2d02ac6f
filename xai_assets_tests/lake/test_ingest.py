import csv
import json
import os
import resource
import subprocess
import sys
import textwrap
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xai_assets.config import MonitorConfig
from xai_assets.errors import LakeError, ModelError, SourceError
from xai_assets.lake.ingest import ingest_day, ingest_labels
from xai_assets.lake.ingest_report import stored_report
from xai_assets.lake.source import files_of_day, source_fingerprint
from xai_assets.lake.store import Lake
from xai_assets.records import IngestReport

DAY = date(2025, 1, 1)
Monitor, Ingest, Rows = Callable[..., MonitorConfig], Callable[..., IngestReport], Callable[..., pl.DataFrame]


def adds_up(report: IngestReport) -> bool:
    kept = report.rows_stored + report.rows_duplicate + report.rows_quarantined + report.rows_other_days
    return report.rows_read == kept


def quarantine(lake: Lake, table: str = "quarantine") -> list[dict[str, Any]]:
    return lake.read(table, "shop", DAY).to_dicts()


# --- a sound day -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_sound_day_is_the_same_partition_in_every_format(
    monitor: Monitor, lake: Lake, ingest: Ingest, rows: Rows, tmp_path: Path, kind: str
) -> None:
    frame = rows(4, region=["north", None, "west", "north"], age=[20.5, None, 22.0, 23.0], income=[1, 2, None, 4])
    path = tmp_path / f"logs/2025-01-01.{kind}"
    {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}[kind](path)
    config = monitor(source={"path": f"logs/{{date}}.{kind}"}, derived_context=["hour_of_day", "weekday"])

    report = ingest(config, categories={"region": ["north", "south"]})

    assert (report.status, report.rows_read, report.rows_stored) == ("complete", 4, 4)
    assert report.unseen_categories == {"region": 1}
    assert report.missing_share == {"age": 0.25, "income": 0.25, "region": 0.25, "vip": 0.0}
    assert report.files == files_of_day(config, DAY)
    stored = lake.read("replay_log", "shop", DAY)
    assert stored.drop("label", "production_latency_ms", "experimental_latency_ms").rows(named=True)[:2] == [
        {
            "request_id": "r0",
            "requested_at": datetime(2025, 1, 1, tzinfo=UTC),
            "production_output": pytest.approx(0.205),
            "experimental_output": pytest.approx(0.455),
            "age": 20.5,
            "income": 1.0,
            "region": "north",
            "vip": True,
            "channel": "web",
            "hour_of_day": "00",
            "weekday": "wed",
        },
        {
            "request_id": "r1",
            "requested_at": datetime(2025, 1, 1, 1, tzinfo=UTC),
            "production_output": 0.0,
            "experimental_output": 0.25,
            "age": None,
            "income": 2.0,
            "region": None,
            "vip": True,
            "channel": "web",
            "hour_of_day": "01",
            "weekday": "wed",
        },
    ]
    assert stored["production_latency_ms"].null_count() == 4
    assert quarantine(lake) == []


def test_the_footer_says_what_was_read_and_changes_with_it(
    monitor: Monitor, lake: Lake, ingest: Ingest, rows: Rows, tmp_path: Path
) -> None:
    path = tmp_path / "logs/2025-01-01.csv"
    rows().write_csv(path)
    report = ingest(monitor())
    first = lake.metadata("replay_log", "shop", DAY)
    assert (first["provenance"], first["status"]) == ("p1", "complete")
    assert first["source_fingerprint"] == source_fingerprint(files_of_day(monitor(), DAY))
    assert str(stored_report(lake, "replay_log", "shop", DAY)) == str(report), "NaN differs from itself, its text not"
    assert lake.metadata("quarantine", "shop", DAY) == {"provenance": "p1"}

    os.utime(path, (1e9, 1e9))
    ingest(monitor())
    touched = lake.metadata("replay_log", "shop", DAY)
    assert touched["content_hash"] == first["content_hash"], "the same rows"
    assert touched["source_fingerprint"] != first["source_fingerprint"]

    rows(age=[1.0, 2.0, 3.0]).write_csv(path)
    ingest(monitor())
    assert lake.metadata("replay_log", "shop", DAY)["content_hash"] != first["content_hash"]


def test_the_same_input_gives_the_same_bytes(
    monitor: Monitor, lake: Lake, ingest: Ingest, rows: Rows, tmp_path: Path
) -> None:
    rows(50).write_csv(tmp_path / "logs/2025-01-01.csv")
    contents = []
    for _ in range(2):
        ingest(monitor())
        contents.append(Path(lake.path("replay_log", "shop", DAY)).read_bytes())
    assert contents[0] == contents[1]


def test_a_replaced_and_a_late_file_replace_the_partition(
    monitor: Monitor, lake: Lake, ingest: Ingest, rows: Rows, tmp_path: Path
) -> None:
    assert ingest(monitor()).status == "missing"
    rows(3).write_csv(tmp_path / "logs/2025-01-01.csv")
    assert ingest(monitor()).rows_stored == 3
    rows(2, request_id=["x", "y"]).write_csv(tmp_path / "logs/2025-01-01-late.csv")
    assert ingest(monitor()).rows_stored == 5
    rows(1).write_csv(tmp_path / "logs/2025-01-01.csv")
    assert ingest(monitor()).rows_stored == 3


# --- few or no rows --------------------------------------------------------------------------------------------------


def test_a_day_without_files_is_missing_and_one_without_rows_is_empty(
    monitor: Monitor, lake: Lake, ingest: Ingest, rows: Rows, tmp_path: Path
) -> None:
    missing = ingest(monitor())
    assert (missing.status, missing.rows_read, missing.files) == ("missing", 0, ())
    schema = lake.schema("replay_log", "shop", DAY)
    rows(0).write_csv(tmp_path / "logs/2025-01-01.csv")
    empty = ingest(monitor())
    assert (empty.status, empty.rows_read, len(empty.files)) == ("empty", 0, 1)
    assert lake.metadata("replay_log", "shop", DAY)["status"] == "empty"
    assert lake.read("replay_log", "shop", DAY).height == 0
    rows(1).write_csv(tmp_path / "logs/2025-01-01.csv")
    single = ingest(monitor())
    assert (single.status, single.rows_stored) == ("complete", 1)
    assert lake.schema("replay_log", "shop", DAY) == schema, "the same columns whether there are rows or not"


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_file_of_0_bytes_is_refused_and_nothing_is_written(
    monitor: Monitor, lake: Lake, ingest: Ingest, tmp_path: Path, kind: str
) -> None:
    (tmp_path / f"logs/2025-01-01.{kind}").touch()
    with pytest.raises(SourceError, match=rf"2025-01-01.{kind} has 0 bytes.*Nothing was written"):
        ingest(monitor(source={"path": f"logs/{{date}}.{kind}"}))
    assert lake.days("replay_log", "shop") == lake.days("quarantine", "shop") == []


def test_an_all_null_feature_is_stored_and_counted(
    monitor: Monitor, lake: Lake, ingest: Ingest, rows: Rows, tmp_path: Path
) -> None:
    config = monitor(source={"path": "logs/{date}.parquet"})
    nothing = pl.Series([None] * 3)
    rows(age=nothing, region=nothing, vip=nothing).write_parquet(tmp_path / "logs/2025-01-01.parquet")
    report = ingest(config)
    assert report.rows_stored == 3
    assert report.missing_share == {"age": 1.0, "income": 0.0, "region": 1.0, "vip": 1.0}
    assert lake.schema("replay_log", "shop", DAY)["region"] == pl.String


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda f: f.drop("income"), "has no column 'income'"),
        (lambda f: f.rename({"income": "incom"}), "did you mean 'incom'"),
        (lambda f: f.with_columns(income=pl.lit(datetime(2025, 1, 1))), "column 'income' of .* is of the wrong type"),
        (lambda f: f.with_columns(income=pl.lit([1.0])), "column 'income' of .* cannot be used"),
        (lambda f: f.drop("channel"), "has no column 'channel'"),
    ],
)
def test_a_column_that_cannot_be_used_stops_the_day_and_leaves_the_old_one(
    monitor: Monitor, lake: Lake, ingest: Ingest, rows: Rows, tmp_path: Path, change: Any, reason: str
) -> None:
    config = monitor(source={"path": "logs/{date}*.parquet"})
    rows(2).write_parquet(tmp_path / "logs/2025-01-01.parquet")
    ingest(config)
    change(rows(5)).write_parquet(tmp_path / "logs/2025-01-01b.parquet")
    with pytest.raises(SourceError, match=reason):
        ingest(config)
    assert lake.row_count("replay_log", "shop", DAY) == 2


def test_a_truncated_second_file_stops_the_day(
    monitor: Monitor, lake: Lake, ingest: Ingest, rows: Rows, tmp_path: Path
) -> None:
    config = monitor(source={"path": "logs/{date}*.parquet"})
    for name in ("a", "b"):
        rows(2000).write_parquet(tmp_path / f"logs/2025-01-01{name}.parquet")
    damaged = tmp_path / "logs/2025-01-01b.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-1000])
    with pytest.raises(SourceError, match=r"2025-01-01b.parquet cannot be read as Parquet"):
        ingest(config)
    assert not lake.exists("replay_log", "shop", DAY)


def test_unknown_columns_by_policy(monitor: Monitor, ingest: Ingest, rows: Rows, tmp_path: Path) -> None:
    rows(new=[1, 2, 3]).write_csv(tmp_path / "logs/2025-01-01.csv")
    assert ingest(monitor()).rows_stored == 3
    with pytest.raises(SourceError, match=r"does not name: new.*unknown_columns"):
        ingest(monitor(source={"path": "logs/{date}.csv", "unknown_columns": "error"}))


# --- what is quarantined ---------------------------------------------------------------------------------------------


def test_bad_rows_are_quarantined_whole_with_file_row_and_reason(
    monitor: Monitor, lake: Lake, ingest: Ingest, rows: Rows, tmp_path: Path
) -> None:
    config = monitor(source={"path": "logs/{date}*.parquet"})
    path = tmp_path / "logs/2025-01-01.parquet"
    odd = rows(
        4,
        request_id=["a", None, "c", "d"],
        income=[float("inf"), 1.0, 2.0, 3.0],
        requested_at=[datetime(2025, 1, 1, 10), datetime(2025, 1, 1), datetime(2025, 1, 2, 1), datetime(2025, 1, 1)],
        extra=[b"\x00\xff", None, b"x", b"y"],
    )
    odd.write_parquet(path)
    report = ingest(config)
    assert adds_up(report)
    assert (report.rows_stored, report.rows_quarantined) == (1, 3)
    assert report.quarantine_reasons == {
        "income is infinite or too large": 1,
        "request_id is missing": 1,
        "requested_at is outside the day": 1,
    }
    found = quarantine(lake)
    assert [r["row_number"] for r in found] == [1, 2, 3]
    assert {r["source_file"] for r in found} == {str(path)}
    first = json.loads(found[0]["row_json"])
    assert list(first) == odd.columns
    assert (first["income"], first["requested_at"][:19], first["extra"]) == (
        "Infinity",
        "2025-01-01 10:00:00",
        "\x00\\xff",
    )
    assert "1 h 0 min after it ends; is source.timezone, UTC," in found[2]["reason"]


def test_ragged_and_wrongly_encoded_lines_of_csv(
    monitor: Monitor, lake: Lake, ingest: Ingest, rows: Rows, tmp_path: Path
) -> None:
    path = tmp_path / "logs/2025-01-01.csv"
    sound = rows(3).write_csv().encode().splitlines(keepends=True)
    path.write_bytes(
        b"".join([*sound[:2], b"r8,2025-01-01T10:00:00Z,1\n", sound[2], sound[3].replace(b"east", b"\xe9st")])
    )
    report = ingest(monitor())
    assert adds_up(report)
    assert (report.rows_stored, report.rows_quarantined) == (2, 2)
    assert [(r["row_number"], r["reason"].partition(":")[0]) for r in quarantine(lake)] == [
        (2, "line has more or fewer fields than the header"),
        (4, "line cannot be decoded as utf-8"),
    ]
    assert "\\xe9st" in quarantine(lake)[1]["row_json"]
    report = ingest(monitor(source={"path": "logs/{date}*.csv", "encoding": "cp1252"}))
    assert report.rows_quarantined == 1, "the encoding was the only fault of the other"


def test_most_rows_outside_the_day_point_to_the_time_zone(
    monitor: Monitor, ingest: Ingest, rows: Rows, tmp_path: Path
) -> None:
    late = [f"2025-01-02T{h:02d}:00:00Z" for h in range(8)]
    rows(10, requested_at=[*late, "2025-01-01T10:00:00Z", "2025-01-01T11:00:00Z"]).write_csv(
        tmp_path / "logs/2025-01-01.csv"
    )
    reasons = ingest(monitor()).quarantine_reasons
    assert list(reasons.values()) == [8]
    assert "most rows, typically 3 h 30 min after it ends; check source.timezone (UTC)" in next(iter(reasons))
    report = ingest(monitor(source={"path": "logs/{date}*.csv", "timezone": "Pacific/Honolulu"}))
    assert report.rows_stored == 10, "in the right zone all of them belong to the day"


def test_an_undated_source_gives_each_day_its_own_rows(
    monitor: Monitor, lake: Lake, ingest: Ingest, rows: Rows, tmp_path: Path
) -> None:
    config = monitor(source={"path": "logs/all.csv"})
    times = ["2025-01-01T10:00:00Z", "2025-01-02T10:00:00Z", "2025-01-02T11:00:00Z", "broken"]
    rows(4, requested_at=times, income=[1, "inf", 2, 3]).write_csv(tmp_path / "logs/all.csv")
    first, second, third = (ingest(config, DAY + timedelta(days=i)) for i in range(3))
    assert (first.rows_stored, first.rows_other_days, first.rows_quarantined) == (1, 2, 1)
    assert (second.rows_stored, second.rows_other_days, second.rows_quarantined) == (1, 1, 2)
    assert (third.rows_stored, third.rows_other_days, third.status) == (0, 3, "complete")
    assert all(adds_up(r) for r in (first, second, third))


# --- duplicates ------------------------------------------------------------------------------------------------------


def test_of_duplicates_across_files_the_last_request_stays(
    monitor: Monitor, lake: Lake, ingest: Ingest, rows: Rows, tmp_path: Path
) -> None:
    early, late = "2025-01-01T01:00:00Z", "2025-01-01T02:00:00Z"
    rows(3, request_id=["x", "y", "z"], requested_at=[late, early, early], age=[1, 2, 3]).write_csv(
        tmp_path / "logs/2025-01-01a.csv"
    )
    rows(3, request_id=["x", "y", "y"], requested_at=[early, early, early], age=[4, 5, 6]).write_csv(
        tmp_path / "logs/2025-01-01b.csv"
    )
    report = ingest(monitor())
    assert (report.rows_read, report.rows_stored, report.rows_duplicate) == (6, 3, 3)
    stored = lake.read("replay_log", "shop", DAY, ["request_id", "age"])
    assert stored.rows() == [("x", 1.0), ("z", 3.0), ("y", 6.0)], "later time, else last file, else last row"


def test_a_bad_row_does_not_replace_a_sound_one(
    monitor: Monitor, lake: Lake, ingest: Ingest, rows: Rows, tmp_path: Path
) -> None:
    rows(2, request_id=["x", "x"], income=["5", "inf"]).write_csv(tmp_path / "logs/2025-01-01.csv")
    report = ingest(monitor())
    assert (report.rows_stored, report.rows_duplicate, report.rows_quarantined) == (1, 0, 1)
    assert lake.read("replay_log", "shop", DAY)["income"].to_list() == [5.0]


# --- outputs ---------------------------------------------------------------------------------------------------------


BOTH = {"production_output": "p", "experimental_output": "e", "label": "y", "production_latency_ms": "ms"}


def logged(rows: Rows, n: int, shift: float = 0.0, every: int = 1) -> pl.DataFrame:
    """Rows with the outputs that the replay gives, some of them shifted."""
    frame = rows(n)
    wrong = shift * (np.arange(n) % every == 0)
    return frame.with_columns(
        p=pl.col("age") / 100 + pl.Series(wrong), e=pl.col("age") / 100 + 0.25, y=pl.lit(1), ms=pl.lit(3.5)
    )


def test_logged_outputs_are_stored_and_a_sample_of_them_recomputed(
    monitor: Monitor, lake: Lake, ingest: Ingest, rows: Rows, tmp_path: Path
) -> None:
    config = monitor(columns=BOTH, explanation={"replay_check_rows": 40})
    logged(rows, 100).write_csv(tmp_path / "logs/2025-01-01.csv")
    report = ingest(config)
    assert (report.replay_checked_rows, report.replay_mismatch_rows) == (40, 0)
    assert report.replay_max_difference < 1e-6
    stored = lake.read("replay_log", "shop", DAY)
    assert stored["label"].to_list() == [1.0] * 100
    assert stored["production_latency_ms"].to_list() == [3.5] * 100

    logged(rows, 100, shift=0.05).write_csv(tmp_path / "logs/2025-01-01.csv")
    report = ingest(config)
    assert (report.replay_checked_rows, report.replay_mismatch_rows) == (40, 40)
    assert report.replay_max_difference == pytest.approx(0.05, abs=1e-6)
    logged_value = lake.read("replay_log", "shop", DAY)["production_output"][0]
    assert logged_value == pytest.approx(0.25), "the log's own value is kept"


def test_the_recomputed_sample_does_not_depend_on_the_order_of_rows(
    monitor: Monitor, ingest: Ingest, rows: Rows, tmp_path: Path
) -> None:
    config = monitor(columns=BOTH, explanation={"replay_check_rows": 20})
    frame = logged(rows, 200, shift=0.05, every=7)
    counts = []
    for seed in (0, 1):
        frame.sample(fraction=1, shuffle=True, seed=seed).write_csv(tmp_path / "logs/2025-01-01.csv")
        counts.append(ingest(config).replay_mismatch_rows)
    assert counts[0] == counts[1]


def test_where_one_output_is_logged_the_other_is_computed(
    monitor: Monitor, lake: Lake, ingest: Ingest, rows: Rows, tmp_path: Path
) -> None:
    logged(rows, 5, shift=0.5).write_csv(tmp_path / "logs/2025-01-01.csv")
    report = ingest(monitor(columns={"production_output": "p"}))
    stored = lake.read("replay_log", "shop", DAY)
    assert stored["production_output"][0] == pytest.approx(0.7)
    assert stored["experimental_output"][0] == pytest.approx(0.45)
    assert report.replay_mismatch_rows == 5


def test_no_row_is_recomputed_where_none_is_asked_for(
    monitor: Monitor, ingest: Ingest, rows: Rows, tmp_path: Path
) -> None:
    logged(rows, 5).write_csv(tmp_path / "logs/2025-01-01.csv")

    def never(frame: pl.DataFrame) -> Any:
        raise AssertionError("not asked for")

    report = ingest(monitor(columns=BOTH, explanation={"replay_check_rows": 0}), replay=never)
    assert report.replay_checked_rows == 0
    assert np.isnan(report.replay_max_difference)


def test_logged_outputs_that_are_missing_or_infinite_are_quarantined(
    monitor: Monitor, ingest: Ingest, rows: Rows, tmp_path: Path
) -> None:
    frame = logged(rows, 3).with_columns(e=pl.Series([0.5, None, float("inf")]), y=pl.Series(["1", "no", "perhaps"]))
    frame.write_csv(tmp_path / "logs/2025-01-01.csv")
    assert ingest(monitor(columns=BOTH)).quarantine_reasons == {
        "experimental_output is infinite or too large": 1,
        "experimental_output is missing": 1,
        "label is not a number": 1,
    }


def test_a_replay_that_is_not_finite_stops_the_day(
    monitor: Monitor, lake: Lake, ingest: Ingest, rows: Rows, tmp_path: Path
) -> None:
    rows(3).write_csv(tmp_path / "logs/2025-01-01.csv")
    with pytest.raises(ModelError, match=r"replayed production_output cannot be used.*2 finite among 3"):
        ingest(monitor(), replay=lambda f: (np.array([1.0, np.nan, 1.0]), np.ones(3)))
    assert not lake.exists("replay_log", "shop", DAY)
    assert not lake.exists("quarantine", "shop", DAY)


def test_the_replay_sees_the_features_in_their_order_and_types(
    monitor: Monitor, ingest: Ingest, rows: Rows, tmp_path: Path
) -> None:
    rows(3).rename({"age": "alter"}).write_csv(tmp_path / "logs/2025-01-01.csv")
    seen: list[Any] = []

    def replay(frame: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        seen.append(dict(frame.schema))
        return np.zeros(frame.height), np.zeros(frame.height)

    ingest(monitor(columns={"features": {"age": "alter"}}), replay=replay)
    assert seen == [{"age": pl.Float32, "income": pl.Float32, "region": pl.String, "vip": pl.Boolean}]
    assert list(seen[0]) == ["age", "income", "region", "vip"]


# --- labels ----------------------------------------------------------------------------------------------------------


def test_labels_of_a_day_the_last_one_wins_and_bad_ones_are_quarantined(
    monitor: Monitor, lake: Lake, tmp_path: Path
) -> None:
    config = monitor(labels={"path": "logs/labels-{date}.jsonl", "label": "repaid"})
    lines = [
        {"request_id": "a", "repaid": True},
        {"request_id": "b", "repaid": 0},
        {"request_id": "a", "repaid": False},
    ]
    lines += [{"request_id": "c", "repaid": "maybe"}, {"request_id": "d", "repaid": None}]
    text = "\n".join(map(json.dumps, lines)) + "\n{broken\n"
    (tmp_path / "logs/labels-2025-01-01.jsonl").write_text(text)
    report = ingest_labels(lake, config, DAY, "p2")
    assert adds_up(report)
    assert (report.rows_stored, report.rows_duplicate, report.rows_quarantined) == (2, 1, 3)
    assert lake.read("labels", "shop", DAY).rows() == [("b", 0.0), ("a", 0.0)]
    assert [r["row_number"] for r in quarantine(lake, "label_quarantine")] == [4, 5, 6]
    assert lake.metadata("labels", "shop", DAY)["provenance"] == "p2"
    assert ingest_labels(lake, config, DAY + timedelta(days=1), "p2").status == "missing"


# --- nothing is lost -------------------------------------------------------------------------------------------------

text_cell = st.sampled_from(["", " ", "1", "1.5", "abc", "inf", "NaN", "true", "no", '"', "\n", "é", "2025-01-01"])
time_cell = st.sampled_from(["2025-01-01T10:00:00Z", "2025-01-01 23:59", "2025-01-02T00:00:00Z", "1735732800", "x", ""])
line = st.tuples(st.sampled_from(["a", "b", "c", ""]), time_cell, text_cell, text_cell, text_cell, text_cell, text_cell)
junk = st.binary(max_size=12)


@given(
    files=st.lists(st.lists(line | junk, max_size=8), min_size=1, max_size=3),
    dated=st.booleans(),
    kind=st.sampled_from(["csv", "jsonl"]),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_every_row_of_dirty_files_is_stored_a_duplicate_quarantined_or_of_another_day(
    monitor: Monitor, tmp_path: Path, ingest: Ingest, lake: Lake, files: list[list[Any]], dated: bool, kind: str
) -> None:
    header = ["request_id", "requested_at", "age", "income", "region", "vip", "channel"]
    for old in (tmp_path / "logs").iterdir():
        old.unlink()
    for i, lines in enumerate(files):
        (tmp_path / f"logs/2025-01-01-{i}.{kind}").write_bytes(dirty_file(header, lines, kind))
    config = monitor(source={"path": f"logs/{'{date}' if dated else ''}*.{kind}"})
    report = ingest(config)
    assert adds_up(report)
    stored = lake.read("replay_log", "shop", DAY)
    assert stored.height == report.rows_stored == stored["request_id"].n_unique()
    assert len(quarantine(lake)) == report.rows_quarantined
    sound = [x for f in files for x in f if isinstance(x, tuple)]
    if kind == "jsonl":
        kept = [json.loads(x) for f in files for x in [dirty_line(header, t, kind) for t in f if isinstance(t, tuple)]]
        assert report.rows_read >= len(kept) == len(sound)


def dirty_line(header: list[str], values: tuple[str, ...], kind: str) -> bytes:
    if kind == "jsonl":
        return json.dumps(dict(zip(header, values, strict=True))).encode()
    quoted = ['"' + v.replace('"', '""') + '"' for v in values]
    return ",".join(quoted).encode()


def dirty_file(header: list[str], lines: list[Any], kind: str) -> bytes:
    first = [",".join(header).encode()] if kind == "csv" else [json.dumps(dict.fromkeys(header, "1")).encode()]
    return b"\n".join([*first, *(x if isinstance(x, bytes) else dirty_line(header, x, kind) for x in lines)]) + b"\n"


# --- disk, memory, processes -----------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="file size limits")
def test_a_full_disk_leaves_both_old_partitions(
    monitor: Monitor, lake: Lake, ingest: Ingest, rows: Rows, tmp_path: Path
) -> None:
    rows(2).write_csv(tmp_path / "logs/2025-01-01.csv")
    ingest(monitor())
    rows(30_000).write_csv(tmp_path / "logs/2025-01-01.csv")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        with pytest.raises(LakeError, match=r"temporary file .* could not be written.*TMPDIR"):
            ingest(monitor())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert lake.row_count("replay_log", "shop", DAY) == 2
    assert lake.row_count("quarantine", "shop", DAY) == 0


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="resource limits")
def test_memory_does_not_grow_with_the_day(tmp_path: Path) -> None:
    """Peak anonymous memory over the interpreter's own of a day four times as long, in processes of their own."""
    peaks = {n: _peak_mib(tmp_path, n) for n in (150_000, 600_000)}
    assert peaks[600_000] < peaks[150_000] + 120, peaks


def _peak_mib(folder: Path, n: int) -> float:
    program = """
        import sys, threading, time
        from datetime import date
        from pathlib import Path
        import numpy as np, polars as pl
        from xai_assets.config import MonitorConfig
        from xai_assets.lake.ingest import ingest_day
        from xai_assets.lake.store import Lake
        folder, n = Path(sys.argv[1]), int(sys.argv[2])
        features = [f"f{i}" for i in range(30)]
        mapping = {"source": {"path": f"{n}.parquet"}, "features": {"numeric": features},
                   "columns": {"production_output": "f0"},
                   "models": {"production": "p.json", "experimental": "e.json"},
                   "reference": {"start_date": "2025-01-01", "end_date": "2025-01-07"}}
        config = MonitorConfig.from_mapping("m", mapping, folder)
        peak = 0.0
        def watch():
            global peak
            while True:
                text = Path("/proc/self/status").read_text()
                peak = max(peak, int(text.partition("RssAnon:")[2].split()[0]) / 1024)
                time.sleep(0.01)
        threading.Thread(target=watch, daemon=True).start()
        replay = lambda f: (f["f0"].to_numpy().astype(float), f["f1"].to_numpy().astype(float))
        report = ingest_day(Lake(str(folder / "lake")), config, date(2025, 1, 1), {}, replay, "p")
        assert report.rows_stored == n, report
        print(peak)
    """
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({f"f{i}": rng.normal(size=n) for i in range(30)}).with_columns(
        request_id=pl.int_range(n).cast(pl.String), requested_at=pl.lit(1735732800)
    )
    frame.write_parquet(folder / f"{n}.parquet", row_group_size=n)
    command = [sys.executable, "-c", textwrap.dedent(program), str(folder), str(n)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def test_two_ingests_of_one_day_at_once_leave_one_whole_day(
    monitor: Monitor, lake: Lake, rows: Rows, tmp_path: Path
) -> None:
    from threading import Thread

    from xai_assets.errors import XaiAssetsError

    rows(20_000).write_csv(tmp_path / "logs/2025-01-01.csv")
    failures: list[XaiAssetsError] = []

    def run(provenance: str) -> None:
        try:
            ingest_day(lake, monitor(), DAY, {}, lambda f: (np.zeros(f.height), np.zeros(f.height)), provenance)
        except XaiAssetsError as error:
            failures.append(error)

    config_threads = [Thread(target=run, args=(p,)) for p in ("one", "two", "one")]
    for thread in config_threads:
        thread.start()
    for thread in config_threads:
        thread.join()
    assert failures == []
    assert lake.row_count("replay_log", "shop", DAY) == 20_000
    assert lake.metadata("replay_log", "shop", DAY)["provenance"] in ("one", "two")


# --- real data -------------------------------------------------------------------------------------------------------


def shared_data() -> Path:
    return Path(os.environ.get("XAI_ASSETS_SHARED_DATA") or Path(__file__).parents[3] / "shared/data")


MONTHS = {datetime(2000, m, 1).strftime("%B"): m for m in range(1, 13)}


def test_a_year_of_real_bookings_is_accounted_for(lake: Lake, tmp_path: Path) -> None:
    """Hotel bookings by booking date: real types, real missing values, one file for all days."""
    bookings = pl.read_parquet(shared_data() / "hotel_bookings.parquet").with_row_index("id")
    arrival = pl.date(
        pl.col("arrival_date_year"),
        pl.col("arrival_date_month").cast(pl.String).replace_strict(MONTHS, return_dtype=pl.Int8),
        pl.col("arrival_date_day_of_month"),
    )
    bookings = bookings.with_columns(booked_on=arrival - pl.duration(days="lead_time"))
    bookings.write_parquet(tmp_path / "bookings.parquet")
    config = MonitorConfig.from_mapping(
        "hotel",
        {
            "source": {"path": "bookings.parquet"},
            "columns": {"request_id": "id", "requested_at": "booked_on", "label": "is_canceled"},
            "features": {"numeric": ["lead_time", "adr", "children", "agent"], "categorical": ["country", "meal"]},
            "context": ["hotel", "market_segment"],
            "models": {"production": "p.json", "experimental": "e.json"},
            "reference": {"start_date": "2016-04-01", "end_date": "2016-06-30"},
        },
        tmp_path,
    )
    day = date(2016, 5, 3)
    report = ingest_day(lake, config, day, {}, lambda f: (np.zeros(f.height), np.zeros(f.height)), "p")
    expected = bookings.filter(pl.col("booked_on") == day)
    assert adds_up(report)
    assert report.rows_read == bookings.height == 119_390
    assert report.rows_stored == expected.height > 50
    assert report.rows_quarantined == 0
    stored = lake.read("replay_log", "hotel", day)
    assert stored["request_id"].to_list() == expected["id"].cast(pl.String).to_list()
    assert stored["label"].to_list() == expected["is_canceled"].cast(pl.Float64).to_list()
    np.testing.assert_array_equal(stored["adr"].to_numpy(), expected["adr"].to_numpy().astype(np.float32))


def test_csv_written_by_python_is_read_like_parquet(
    monitor: Monitor, lake: Lake, ingest: Ingest, rows: Rows, tmp_path: Path
) -> None:
    frame = rows(500)
    with (tmp_path / "logs/2025-01-01.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(frame.columns)
        writer.writerows(frame.rows())
    ingest(monitor())
    from_csv = lake.read("replay_log", "shop", DAY)
    frame.write_parquet(tmp_path / "logs/2025-01-01.parquet")
    ingest(monitor(source={"path": "logs/{date}.parquet"}))
    assert lake.read("replay_log", "shop", DAY).equals(from_csv)
