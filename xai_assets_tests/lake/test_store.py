import errno
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import time
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_assets.errors import LakeError
from xai_assets.lake.files import STALE_SECONDS
from xai_assets.lake.store import ROW_GROUP_ROWS, Lake
from xai_assets.lake.tables import TABLES, UNPARTITIONED

DAY = date(2025, 1, 1)


def labels(n: int = 3, value: float = 1.0) -> pl.DataFrame:
    return pl.DataFrame({"request_id": [f"r{i}" for i in range(n)], "label": [value] * n})


def temporary_files(root: Path) -> list[Path]:
    return [p for p in root.rglob("*") if p.is_file() and p.name.endswith(".tmp")]


@pytest.fixture(params=["path", "file uri", "object store"])
def any_lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    """`mock:` is pyarrow's own object store in memory; it goes through the code that s3:// goes through."""
    return Lake(
        {"path": str(tmp_path / "a b"), "file uri": f"file://{tmp_path}/x", "object store": "mock:///x"}[request.param]
    )


def test_what_is_written_is_read_back_with_its_footer(any_lake: Lake) -> None:
    any_lake.write("labels", "shop", DAY, labels(), {"provenance": "abc"})

    assert any_lake.read("labels", "shop", DAY).equals(labels())
    assert any_lake.read("labels", "shop", DAY, ["label"]).columns == ["label"]
    assert any_lake.metadata("labels", "shop", DAY) == {"provenance": "abc"}
    assert any_lake.row_count("labels", "shop", DAY) == 3
    assert any_lake.schema("labels", "shop", DAY) == TABLES["labels"].schema
    assert any_lake.exists("labels", "shop", DAY)
    assert not any_lake.exists("labels", "shop", DAY + timedelta(days=1))
    assert any_lake.days("labels", "shop") == [DAY]
    assert any_lake.monitors() == ["shop"]


def test_the_path_is_the_documented_one(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.write("labels", "shop", DAY, labels())
    assert lake.path("labels", "shop", DAY) == f"{tmp_path}/labels/monitor=shop/date=2025-01-01/part-0.parquet"
    assert Path(lake.path("labels", "shop", DAY)).is_file()


def test_a_uri_with_options_keeps_them_at_the_end_of_each_address() -> None:
    lake = Lake("s3://bucket/lake/?endpoint_override=127.0.0.1:1&scheme=http&region=x")
    address = "s3://bucket/lake/labels/monitor=shop/date=2025-01-01/part-0.parquet"
    assert lake.path("labels", "shop", DAY) == address + "?endpoint_override=127.0.0.1:1&scheme=http&region=x"
    assert lake.inner("labels", "shop", DAY) == address.removeprefix("s3://")
    assert not lake.is_local


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(LakeError, match="cannot be opened as the root"):
        Lake("ftp://nowhere/lake")


@pytest.mark.parametrize("table", sorted(TABLES))
def test_every_table_survives_a_round_trip_without_rows(lake: Lake, table: str) -> None:
    day = None if table in UNPARTITIONED else DAY
    frame = pl.DataFrame(schema=TABLES[table].schema)
    lake.write(table, "shop", day, frame)
    assert lake.read(table, "shop", day).equals(frame)
    assert list(lake.batches(table, "shop", day)) == []


def test_a_writer_that_appends_nothing_leaves_an_empty_partition(lake: Lake) -> None:
    with lake.writer("labels", "shop", DAY):
        pass
    assert lake.read("labels", "shop", DAY).schema == TABLES["labels"].schema


def test_batches_keep_the_order_and_the_size(lake: Lake) -> None:
    n = ROW_GROUP_ROWS * 2 + 17
    frame = pl.DataFrame({"request_id": [str(i) for i in range(n)], "label": np.arange(n, dtype=np.float64)})
    with lake.writer("labels", "shop", DAY) as writer:
        for start in range(0, n, 50_000):
            writer.append(frame.slice(start, 50_000))
        assert writer.rows == n
        writer.metadata["late"] = "yes"
    batches = list(lake.batches("labels", "shop", DAY, ["label"], batch_rows=1000))
    assert max(b.height for b in batches) == 1000
    assert pl.concat(batches)["label"].to_list() == list(range(n))
    assert lake.metadata("labels", "shop", DAY) == {"late": "yes"}


def test_only_text_is_dictionary_encoded_and_compression_is_zstd(lake: Lake) -> None:
    lake.write("labels", "shop", DAY, labels(1000))
    group = pq.read_metadata(lake.path("labels", "shop", DAY)).row_group(0)
    encodings = {group.column(i).path_in_schema: group.column(i).encodings for i in range(2)}
    assert "RLE_DICTIONARY" in encodings["request_id"]
    assert "RLE_DICTIONARY" not in encodings["label"]
    assert {group.column(i).compression for i in range(2)} == {"ZSTD"}


def test_days_that_exist_are_read_with_their_date(lake: Lake) -> None:
    for i in (0, 1, 3):
        lake.write("labels", "shop", DAY + timedelta(days=i), labels(2, float(i)))
    days = [DAY + timedelta(days=i) for i in range(5)]
    read = lake.read_days("labels", "shop", days, ["label"], pl.col("request_id") == "r1")
    assert read.columns == ["date", "label"]
    assert read.rows() == [(days[0], 0.0), (days[1], 1.0), (days[3], 3.0)]
    assert lake.read_days("labels", "shop", days, predicate=pl.col("date") > days[1])["label"].to_list() == [3.0, 3.0]


def test_no_day_at_all_reads_as_an_empty_frame_of_the_right_types(lake: Lake) -> None:
    read = lake.read_days("labels", "shop", [DAY])
    assert read.schema == {"date": pl.Date(), **TABLES["labels"].schema}
    assert lake.read_days("production_attributions", "shop", [DAY], ["phi_age"]).schema["phi_age"] == pl.Float32


def test_days_of_different_types_are_refused(lake: Lake) -> None:
    base = pl.DataFrame(schema=TABLES["replay_log"].schema)
    lake.write("replay_log", "shop", DAY, base.with_columns(age=pl.lit(1.0)))
    lake.write("replay_log", "shop", DAY + timedelta(days=1), base.with_columns(age=pl.lit("old")))
    with pytest.raises(LakeError, match="hold different types"):
        lake.read_days("replay_log", "shop", lake.days("replay_log", "shop"))


def test_a_missing_partition_says_which_days_there_are(lake: Lake) -> None:
    lake.write("labels", "shop", DAY, labels())
    with pytest.raises(LakeError, match=r"no partition of 2025-02-01.*Found: 2025-01-01.*materialize labels"):
        lake.read("labels", "shop", date(2025, 2, 1))
    with pytest.raises(LakeError, match="did you mean 'shop'"):
        lake.read("labels", "shopp", DAY)


def test_unknown_tables_columns_and_days_are_refused(lake: Lake) -> None:
    lake.write("labels", "shop", DAY, labels())
    with pytest.raises(LakeError, match="did you mean 'labels'"):
        lake.path("label", "shop", DAY)
    with pytest.raises(LakeError, match=r"no column 'lable'. Next: did you mean 'label'"):
        lake.read("labels", "shop", DAY, ["lable"])
    with pytest.raises(LakeError, match="is stored by day"):
        lake.path("labels", "shop")
    with pytest.raises(LakeError, match="not stored by day"):
        lake.path("model_versions", "shop", DAY)


@pytest.mark.parametrize(
    "frame, reason",
    [
        (labels().rename({"label": "lable"}), "label: absent instead of Float64"),
        (labels().cast({"label": pl.Float32}), "label: Float32 instead of Float64"),
        (labels().select("label", "request_id"), "in another order"),
        (labels().with_columns(extra=pl.lit(1)), "extra: not expected"),
    ],
)
def test_rows_that_do_not_fit_the_table_are_refused(lake: Lake, frame: pl.DataFrame, reason: str) -> None:
    with pytest.raises(LakeError, match=reason):
        lake.write("labels", "shop", DAY, frame)
    assert not lake.exists("labels", "shop", DAY)


def test_frames_of_one_partition_have_one_schema(lake: Lake) -> None:
    base = pl.DataFrame(schema=TABLES["replay_log"].schema)
    with lake.writer("replay_log", "shop", DAY) as writer:
        writer.append(base)
        with pytest.raises(LakeError, match="age: not expected"):
            writer.append(base.with_columns(age=pl.lit(1.0)))


def test_an_exception_leaves_the_old_partition_and_no_temporary_file(any_lake: Lake, tmp_path: Path) -> None:
    any_lake.write("labels", "shop", DAY, labels(3, 1.0))

    def fail_in_the_middle() -> None:
        with any_lake.writer("labels", "shop", DAY) as writer:
            writer.append(labels(ROW_GROUP_ROWS + 1, 2.0))
            raise FileNotFoundError("mine")

    with pytest.raises(FileNotFoundError, match="mine"):
        fail_in_the_middle()
    assert any_lake.read("labels", "shop", DAY).equals(labels(3, 1.0))
    assert temporary_files(tmp_path) == []


def test_retention_removes_only_older_days(any_lake: Lake) -> None:
    days = [DAY + timedelta(days=i) for i in range(4)]
    for day in days:
        any_lake.write("labels", "shop", day, labels())
        any_lake.write("labels", "other", day, labels())
    assert any_lake.delete_older("labels", "shop", days[2]) == days[:2]
    assert any_lake.days("labels", "shop") == days[2:]
    assert any_lake.days("labels", "other") == days
    any_lake.delete("labels", "shop", days[0])  # absent: fine


def test_a_damaged_partition_is_named(lake: Lake) -> None:
    lake.write("labels", "shop", DAY, labels(10_000))
    path = Path(lake.path("labels", "shop", DAY))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(LakeError, match=r"part-0.parquet cannot be read as Parquet.*materialize this partition again"):
        lake.read("labels", "shop", DAY)


def test_leftovers_of_killed_writers_are_ignored_and_swept_when_old(lake: Lake) -> None:
    lake.write("labels", "shop", DAY, labels())
    folder = Path(lake.path("labels", "shop", DAY)).parent
    old, young = folder / ".part-0.parquet.aa.tmp", folder / ".part-0.parquet.bb.tmp"
    for leftover in (old, young):
        leftover.write_bytes(b"half")
    past = time.time() - STALE_SECONDS - 60
    os.utime(old, (past, past))

    assert lake.days("labels", "shop") == [DAY]
    lake.write("labels", "shop", DAY, labels(5))
    assert not old.exists()
    assert young.exists()
    assert lake.row_count("labels", "shop", DAY) == 5


def test_a_folder_with_only_a_leftover_is_no_day(lake: Lake) -> None:
    folder = Path(lake.path("labels", "shop", DAY)).parent
    folder.mkdir(parents=True)
    (folder / ".part-0.parquet.aa.tmp").write_bytes(b"half")
    assert lake.days("labels", "shop") == []
    assert lake.monitors() == []


WRITER = """
    import sys, polars as pl
    from datetime import date
    from xai_assets.lake.store import Lake
    lake, day = Lake(sys.argv[1]), date(2025, 1, 1)
    def frame(n, value):
        return pl.DataFrame({"request_id": [f"{value}-{i}" for i in range(n)], "label": [float(value)] * n})
"""


def python(code: str, *arguments: str, **options: object) -> "subprocess.Popen[str]":
    program = textwrap.dedent(WRITER) + textwrap.dedent(code)
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_kill_9_in_the_middle_of_a_write_leaves_the_old_partition(lake: Lake, tmp_path: Path) -> None:
    lake.write("labels", "shop", DAY, labels(3, 1.0))
    code = """
        with lake.writer("labels", "shop", day) as writer:
            while True:
                writer.append(frame(200_000, 2))
                print("appended", flush=True)
    """
    process = python(code, lake.root)
    assert process.stdout
    process.stdout.readline()
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()

    assert process.returncode == -signal.SIGKILL
    assert len(temporary_files(tmp_path)) == 1, "it was killed while writing"
    assert lake.read("labels", "shop", DAY).equals(labels(3, 1.0))
    lake.write("labels", "shop", DAY, labels(4, 3.0))
    assert lake.row_count("labels", "shop", DAY) == 4


@pytest.mark.skipif(os.name == "nt", reason="file size limits")
def test_a_full_disk_says_so_and_leaves_the_old_partition(lake: Lake, tmp_path: Path) -> None:
    """A file size limit makes the system refuse bytes in the middle of the file, as a full disk does."""
    import resource

    lake.write("labels", "shop", DAY, labels(3, 1.0))
    code = """
        from xai_assets.errors import LakeError
        import random
        texts = [random.randbytes(40).hex() for _ in range(100_000)]
        try:
            with lake.writer("labels", "shop", day) as writer:
                for _ in range(5):
                    writer.append(pl.DataFrame({"request_id": texts, "label": 2.0}))
        except LakeError as error:
            print(error)
    """
    limit = 3_000_000
    process = python(code, lake.root, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    out, err = process.communicate(timeout=60)

    assert process.returncode == 0, err
    assert err == ""
    assert "could not be written: the disk is full" in out
    assert "the stored partition is as it was before" in out
    assert os.strerror(errno.EFBIG) in out
    assert temporary_files(tmp_path) == []
    assert lake.read("labels", "shop", DAY).equals(labels(3, 1.0))


def test_two_writers_of_one_partition_always_leave_one_whole_version(lake: Lake, tmp_path: Path) -> None:
    sizes = {1: 30_000, 2: 50_000}
    code = """
        value, n = int(sys.argv[2]), int(sys.argv[3])
        rows = frame(n, value)
        for _ in range(15):
            lake.write("labels", "shop", day, rows, {"writer": str(value)})
    """
    lake.write("labels", "shop", DAY, labels(sizes[1], 1.0))
    processes = [python(code, lake.root, str(v), str(n)) for v, n in sizes.items()]
    seen = set()
    while any(p.poll() is None for p in processes):
        frame = lake.read("labels", "shop", DAY)
        assert frame["label"].n_unique() == 1
        assert frame.height == sizes[int(frame["label"][0])]
        assert lake.days("labels", "shop") == [DAY]
        seen.add(frame["label"][0])
    for process in processes:
        _, err = process.communicate()
        assert process.returncode == 0, err
    assert seen <= {1.0, 2.0}
    assert temporary_files(tmp_path) == []


def test_a_reader_in_the_middle_of_a_partition_is_not_disturbed_by_its_replacement(lake: Lake) -> None:
    lake.write("labels", "shop", DAY, labels(200_000, 1.0))
    batches = lake.batches("labels", "shop", DAY, batch_rows=1000)
    first = next(batches)
    lake.write("labels", "shop", DAY, labels(5, 2.0))
    assert pl.concat([first, *batches])["label"].unique().to_list() == [1.0]
    assert lake.row_count("labels", "shop", DAY) == 5


def test_an_object_replaced_while_it_is_read_is_noticed() -> None:
    lake = Lake("mock:///x")
    lake.write("labels", "shop", DAY, labels(5, 1.0))

    def read_slowly() -> None:
        for _ in lake.batches("labels", "shop", DAY, batch_rows=1):
            lake.write("labels", "shop", DAY, labels(50_000, 2.0))

    with pytest.raises(LakeError, match="was replaced while it was read"):
        read_slowly()


@given(
    values=st.lists(st.tuples(st.text(max_size=5), st.none() | st.floats(allow_nan=False)), max_size=20),
    cuts=st.lists(st.integers(0, 20), max_size=3),
)
@settings(max_examples=30, deadline=None)
def test_however_rows_are_cut_into_frames_the_partition_is_the_same(
    values: list[tuple[str, float | None]], cuts: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    lake = Lake(str(tmp_path_factory.mktemp("cut")))
    frame = pl.DataFrame(values, schema=TABLES["labels"].schema, orient="row")
    borders = [0, *sorted(min(c, len(values)) for c in cuts), len(values)]
    with lake.writer("labels", "shop", DAY) as writer:
        for start, end in itertools.pairwise(borders):
            writer.append(frame.slice(start, end - start))
    assert lake.read("labels", "shop", DAY).equals(frame)
