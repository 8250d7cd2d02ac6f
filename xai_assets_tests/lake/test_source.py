import os
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.fs as pafs
import pytest

from xai_assets.config import MonitorConfig
from xai_assets.errors import SourceError
from xai_assets.lake import source
from xai_assets.lake.readers import Wanted
from xai_assets.lake.source import files_of_day, path_of_day, profile_source, source_fingerprint

DAY = date(2025, 1, 1)
Monitor = Callable[..., MonitorConfig]


def names(config: MonitorConfig, day: date = DAY) -> list[str]:
    return [Path(f.uri).name for f in files_of_day(config, day)]


def touch(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("x")


@pytest.mark.parametrize(
    "path, filled",
    [
        ("a/{date}.csv", "a/2025-01-31.csv"),
        ("a/{date:%Y/%m/%d}/*.csv", "a/2025/01/31/*.csv"),
        ("{date:%Y%m}/{date}.csv", "202501/2025-01-31.csv"),
        ("all.csv", "all.csv"),
    ],
)
def test_the_day_is_filled_in(path: str, filled: str) -> None:
    assert path_of_day(path, date(2025, 1, 31)) == filled


def test_files_of_a_day_are_sorted_and_markers_left_out(monitor: Monitor, tmp_path: Path) -> None:
    touch(tmp_path / "logs", "2025-01-01b.csv", "2025-01-01a.csv", "2025-01-02.csv", ".2025-01-01c.csv")
    assert names(monitor()) == ["2025-01-01a.csv", "2025-01-01b.csv"]
    assert names(monitor(), date(2025, 1, 3)) == []


def test_subfolders_folders_and_undated_paths(monitor: Monitor, tmp_path: Path) -> None:
    touch(tmp_path / "logs", "2025/01/01/x/a.csv", "2025/01/01/b.csv", "2025/01/01/_SUCCESS", "2025/01/02/c.csv")
    assert names(monitor(source={"path": "logs/{date:%Y/%m/%d}/**/*.csv"})) == ["b.csv", "a.csv"]
    assert names(monitor(source={"path": "logs/{date:%Y/%m/%d}", "format": "csv"})) == ["b.csv"]
    assert names(monitor(source={"path": "logs/**/*.csv"}), date(1999, 1, 1)) == ["b.csv", "a.csv", "c.csv"]


def test_brackets_in_the_base_folder_or_the_name_are_taken_literally(monitor: Monitor, tmp_path: Path) -> None:
    base = tmp_path / "data [old]"
    touch(base, "logs/[x]-2025-01-01.csv")
    config = MonitorConfig(**(vars(monitor(source={"path": "logs/[x]-{date}.csv"})) | {"base_dir": base}))
    assert names(config) == ["[x]-2025-01-01.csv"]
    config = MonitorConfig(**(vars(monitor(source={"path": "logs/*-{date}.csv"})) | {"base_dir": base}))
    assert names(config) == ["[x]-2025-01-01.csv"]


def test_a_file_uri_and_an_absolute_path(monitor: Monitor, tmp_path: Path) -> None:
    touch(tmp_path, "my logs/2025-01-01.csv")
    assert names(monitor(source={"path": f"file://{tmp_path}/my%20logs/{{date}}*.csv"})) == ["2025-01-01.csv"]
    assert names(monitor(source={"path": f"{tmp_path}/my logs/{{date}}.csv"})) == ["2025-01-01.csv"]


def test_an_unreachable_store_is_not_a_missing_day(monitor: Monitor) -> None:
    with pytest.raises(SourceError, match="cannot be reached"):
        files_of_day(monitor(source={"path": "ftp://nowhere/{date}.csv"}), DAY)


def test_labels_have_files_of_their_own(monitor: Monitor, tmp_path: Path) -> None:
    touch(tmp_path, "labels/2025-01-01.jsonl")
    config = monitor(labels={"path": "labels/{date}.jsonl"})
    assert [Path(f.uri).name for f in files_of_day(config, DAY, "labels")] == ["2025-01-01.jsonl"]
    with pytest.raises(SourceError, match="has no labels"):
        files_of_day(monitor(), DAY, "labels")


def test_the_fingerprint_changes_with_late_changed_and_touched_files(monitor: Monitor, tmp_path: Path) -> None:
    prints = [source_fingerprint(files_of_day(monitor(), DAY))]
    first = tmp_path / "logs/2025-01-01.csv"
    first.write_text("a")
    prints.append(source_fingerprint(files_of_day(monitor(), DAY)))
    assert source_fingerprint(files_of_day(monitor(), DAY)) == prints[-1], "looking twice changes nothing"
    first.write_text("ab")
    prints.append(source_fingerprint(files_of_day(monitor(), DAY)))
    os.utime(first, (1e9, 1e9))
    prints.append(source_fingerprint(files_of_day(monitor(), DAY)))
    touch(tmp_path / "logs", "2025-01-01-late.csv")
    prints.append(source_fingerprint(files_of_day(monitor(), DAY)))
    assert len(set(prints)) == len(prints)


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_a_profile_shows_kinds_levels_and_times(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"log.{format}"
    frame = pl.DataFrame(
        {
            "id": ["a", "b", "c"],
            "at": ["2025-01-01T10:00:00+02:00", "2025-01-02 00:00:00", "2025-01-03T00:00:00Z"],
            "amount": [1.5, None, 2.0],
            "region": ["n", "s", "n"],
            "vip": [True, False, True],
        }
    )
    {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}[format](path)
    profile = profile_source(str(path))
    assert (profile.format, profile.rows) == (format, 3)
    kinds = {c.name: c.kind for c in profile.columns}
    assert kinds == {"id": "text", "at": "time", "amount": "numeric", "region": "text", "vip": "boolean"}
    region = next(c for c in profile.columns if c.name == "region")
    assert (region.levels, region.distinct_values) == (("n", "s"), 2)
    assert next(c for c in profile.columns if c.name == "amount").missing_share == pytest.approx(1 / 3)
    assert profile.earliest == {"at": datetime(2025, 1, 1, 8, tzinfo=UTC)}
    assert profile.latest == {"at": datetime(2025, 1, 3, tzinfo=UTC)}


def test_a_profile_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no file"):
        profile_source(str(tmp_path / "absent.csv"))
    (tmp_path / "log.xlsx").write_text("x")
    with pytest.raises(SourceError, match=r"format of .* is not known"):
        profile_source(str(tmp_path / "log.xlsx"))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A filesystem of pyarrow in memory in place of the connection; listing and copying are the real ones."""
    filesystem, _ = pafs.FileSystem.from_uri("mock:///")
    for path, text in {
        "logs/2025/01/01/a.csv": "a\n1\n",
        "logs/2025/01/01/sub/b.csv": "a\n2\n",
        "logs/2025/01/01/_SUCCESS": "",
        "logs/2025/01/02/c.csv": "a\n3\n",
    }.items():
        filesystem.create_dir(path.rpartition("/")[0])
        with filesystem.open_output_stream(path) as stream:
            stream.write(text.encode())
    monkeypatch.setattr(source, "_open_uri", lambda uri: (filesystem, uri.partition("://")[2].partition("?")[0]))
    return filesystem


@pytest.mark.parametrize(
    "path, expected",
    [
        ("s3://logs/{date:%Y/%m/%d}/*.csv", ["a.csv"]),
        ("s3://logs/{date:%Y/%m/%d}/**/*.csv", ["a.csv", "sub/b.csv"]),
        ("s3://logs/{date:%Y/%m}/*/*.csv", ["a.csv", "c.csv"]),
        ("s3://logs/{date:%Y/%m/%d}/a.csv", ["a.csv"]),
        ("s3://logs/{date:%Y/%m/%d}/z.csv", []),
        ("s3://logs/1999/*.csv", []),
    ],
)
def test_objects_of_a_day(bucket: Any, monitor: Monitor, path: str, expected: list[str]) -> None:
    files = files_of_day(monitor(source={"path": path + "?region=x", "format": "csv"}), DAY)
    assert [f.uri.partition("/2025/01/")[2].partition("/")[2] for f in files] == [e + "?region=x" for e in expected]
    assert all(f.size_bytes == 4 for f in files)


def test_a_bucket_that_does_not_exist_is_not_a_missing_day(bucket: Any, monitor: Monitor) -> None:
    with pytest.raises(SourceError, match="there is no bucket 'lgos'"):
        files_of_day(monitor(source={"path": "s3://lgos/{date}.csv"}), DAY)


def test_an_object_is_read_from_a_temporary_copy(bucket: Any, monitor: Monitor) -> None:
    config = monitor(source={"path": "s3://logs/{date:%Y/%m/%d}/*.csv"})
    (file,) = files_of_day(config, DAY)
    batches = list(source.raw_batches(config, file, Wanted(("a",))))
    assert [b.frame["a"].to_list() for b in batches] == [["1"]]
    with source.local_copy(file.uri) as path:
        assert path.read_text() == "a\n1\n"
    assert not path.exists()
    bucket.delete_file("logs/2025/01/01/a.csv")
    with pytest.raises(SourceError, match=r"s3://logs/2025/01/01/a.csv cannot be reached"):
        list(source.raw_batches(config, file, Wanted(("a",))))
