import csv
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from xai_assets.errors import ConfigError, SourceError
from xai_assets.lake import text_lines
from xai_assets.lake.csv_reader import read_csv
from xai_assets.lake.jsonl_reader import read_jsonl
from xai_assets.lake.readers import RawBatch, Wanted, read_parquet

ALL = Wanted(())
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def save(content: bytes | str, name: str = "log") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return save


def gather(batches: Iterator[RawBatch]) -> tuple[list[dict[str, Any]], list[int], list[tuple[int, str, str]]]:
    """Rows, their numbers, and the broken lines of a whole file."""
    rows, numbers, broken = [], [], []
    for b in batches:
        assert len(b.row_numbers) == b.frame.height
        rows += b.frame.to_dicts()
        numbers += b.row_numbers.to_list()
        broken += [(line.row_number, line.reason, line.text) for line in b.broken]
    return rows, numbers, broken


# --- Parquet ---------------------------------------------------------------------------------------------------------


def test_parquet_rows_come_in_order_with_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": list(range(1000)), "y": ["t"] * 1000}), path, row_group_size=300)
    batches = list(read_parquet(path, "a", Wanted(("x",)), batch_rows=128))
    assert pl.concat([b.frame for b in batches])["x"].to_list() == list(range(1000))
    assert pl.concat([b.row_numbers for b in batches]).to_list() == list(range(1, 1001))
    assert max(b.frame.height for b in batches) <= 128
    assert batches[0].frame.columns == ["x"]


def test_whole_rows_of_parquet_hold_the_columns_nobody_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"x": list(range(1000)), "other": [f"o{i}" for i in range(1000)]}), path, row_group_size=300
    )
    wanted = {3: [0], 5: [1, 100]}  # quarantined positions of some batches; those between are never read
    found = []
    for i, batch in enumerate(read_parquet(path, "a", Wanted(("x",)), batch_rows=128)):
        if i in wanted:
            found += [json.loads(r) for r in batch.whole_rows(wanted[i])]
    numbers = [r["x"] for r in found]
    assert len(found) == 3
    assert [r["other"] for r in found] == [f"o{n}" for n in numbers]


def test_whole_rows_never_fail_on_odd_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "x": pa.array([float("inf")]),
            "nan": pa.array([float("nan")]),
            "far": pa.array([2**62], pa.timestamp("us")),
            "nanos": pa.array([1_700_000_000_123_456_789], pa.timestamp("ns", "UTC")),
            "day": pa.array([2**30], pa.date32()),
            "bytes": pa.array([b"\xff\x00"]),
            "nested": pa.array([{"a": [1.0, float("nan")]}]),
            "decimal": pa.array(["1.10"]).cast(pa.decimal128(5, 2)),
            "text": pa.array(["Ö\u2028"]),
            "none": pa.array([None]),
            "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
        }
    )
    path = tmp_path / "odd.parquet"
    pq.write_table(table, path)
    batch = next(read_parquet(path, "odd", Wanted(("x",))))
    row = json.loads(batch.whole_rows([0])[0], parse_constant=lambda c: pytest.fail(f"{c} is not JSON"))
    assert (row["x"], row["nan"], row["none"], row["decimal"], row["text"]) == (
        "Infinity",
        "NaN",
        None,
        "1.10",
        "Ö\u2028",
    )
    assert row["nanos"].startswith("2023-11-14 22:13:20.123456789")
    assert row["nested"] == {"a": [1.0, "NaN"]}
    assert set(row) == set(table.column_names)


@pytest.mark.parametrize(
    "damage, reason",
    [
        (lambda b: b[:-50], "cannot be read as Parquet"),
        (lambda b: b[:4] + b"\0" * 5000 + b[5004:], "cannot be read as Parquet"),
        (lambda b: b"request_id,x\n1,2\n", "cannot be read as Parquet"),
        (lambda b: b"", "has 0 bytes"),
    ],
)
def test_a_damaged_parquet_file_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes], reason: str) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": np.random.default_rng(0).normal(size=5000)}), path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SourceError, match=rf"s3://b/a.parquet {reason}.*Nothing was written"):
        list(read_parquet(path, "s3://b/a.parquet", ALL))


def test_parquet_types_that_hold_no_single_values_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": [[1, 2]]}), path)
    with pytest.raises(SourceError, match=r"column 'x' of a is of a type that cannot be used.*Found: list<"):
        list(read_parquet(path, "a", ALL))


def test_dictionary_decimal_and_half_float_columns_are_taken_as_values(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    columns = {
        "d": pa.array(["a", "b", "a"]).dictionary_encode(),
        "m": pa.array(["1.5", "2.5", None]).cast(pa.decimal128(5, 2)),
        "h": pa.array(np.array([1, 2, 3], np.float16)),
    }
    pq.write_table(pa.table(columns), path)
    frame = next(read_parquet(path, "a", ALL)).frame
    assert frame.dtypes == [pl.String, pl.Float64, pl.Float32]
    assert frame["m"].to_list() == [1.5, 2.5, None]


# --- what is wanted --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_missing_column_is_refused_with_the_nearest_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    frame = pl.DataFrame({"request_id": ["a"], "incom": [1.0]})
    {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}[kind](path)
    reader: Any = {"csv": read_csv, "jsonl": read_jsonl, "parquet": read_parquet}[kind]
    with pytest.raises(SourceError, match=r"a has no column 'income'.*Found: request_id, incom.*did you mean 'incom'"):
        list(reader(path, "a", Wanted(("request_id", "income"))))
    with pytest.raises(SourceError, match="columns that the monitor does not name: incom"):
        list(reader(path, "a", Wanted(("request_id",), others_allowed=False)))


def test_a_wanted_column_that_stands_twice_is_refused(write: Write) -> None:
    with pytest.raises(SourceError, match="has the column 'x' twice"):
        list(read_csv(write("x,x\n1,2\n"), "a", Wanted(("x",))))
    rows, _, _ = gather(read_csv(write("x,y,y\n1,2,3\n"), "a", Wanted(("x",))))
    assert rows == [{"x": "1"}]


# --- CSV -------------------------------------------------------------------------------------------------------------


def test_csv_values_are_text_and_empty_is_missing(write: Write) -> None:
    rows, numbers, broken = gather(read_csv(write('a,b\n1, x \n,"q""q"\n"",NA\n'), "a", ALL))
    assert rows == [{"a": "1", "b": " x "}, {"a": None, "b": 'q"q'}, {"a": None, "b": "NA"}]
    assert numbers == [1, 2, 3]
    assert broken == []


def test_ragged_lines_are_kept_whole_with_their_line_number(write: Write) -> None:
    path = write("a,b\n1,2\n3\n\n4,5,6\n7,8\n")
    rows, numbers, broken = gather(read_csv(path, "a", ALL))
    assert [r["a"] for r in rows] == ["1", "7"]
    assert numbers == [1, 5], "the blank line counts as a line"
    fields = "line has more or fewer fields than the header"
    assert broken == [(2, f"{fields}: 1 instead of 2", "3"), (4, f"{fields}: 3 instead of 2", "4,5,6")]


def test_bytes_of_another_encoding_break_only_their_line(write: Write) -> None:
    path = write("a,b\n1,Zürich\n".encode() + b"2,Z\xfcrich\n" + b"3,ok\n")
    rows, numbers, broken = gather(read_csv(path, "a", ALL))
    assert rows == [{"a": "1", "b": "Zürich"}, {"a": "3", "b": "ok"}]
    assert numbers == [1, 3]
    assert broken == [(2, "line cannot be decoded as utf-8", "2,Z\\xfcrich")]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-8-sig", "utf-16-le", "shift_jis"])
def test_a_configured_encoding_is_used(write: Write, encoding: str) -> None:
    text = {"shift_jis": "東京"}.get(encoding, "Zürich")
    path = write(f"a,b\n1,{text}\n".encode(encoding))
    assert gather(read_csv(path, "a", ALL, encoding=encoding))[0] == [{"a": "1", "b": text}]
    assert gather(read_csv(path, "a", Wanted(("a",)), encoding=encoding))[0] == [{"a": "1"}]


def test_a_byte_order_mark_is_not_part_of_the_first_name(write: Write) -> None:
    assert gather(read_csv(write("a,b\n1,2\n".encode("utf-8-sig")), "a", Wanted(("a",))))[0] == [{"a": "1"}]


def test_a_file_in_another_encoding_than_configured_is_refused_at_its_header(write: Write) -> None:
    with pytest.raises(SourceError, match=r"header of a cannot be read as utf-8.*set source.encoding"):
        list(read_csv(write("größe,b\n1,2\n".encode("cp1252")), "a", ALL))
    with pytest.raises(ConfigError, match=r"source.encoding is wrong.*Found: 'utf8000'"):
        list(read_csv(write("a\n1\n"), "a", ALL, encoding="utf8000"))


def test_separators_quotes_line_ends_and_gzip(write: Write, tmp_path: Path) -> None:
    text = 'a;b\r\n1;"x;y"\r\n2;"two\r\nlines"\r\n3;z'
    expected = [{"a": "1", "b": "x;y"}, {"a": "2", "b": "two\nlines"}, {"a": "3", "b": "z"}]
    rows, numbers, broken = gather(read_csv(write(text), "a", ALL, separator=";"))
    assert rows == expected
    assert numbers == [1, 2, 4]
    assert broken == []
    packed = tmp_path / "a.csv.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    assert gather(read_csv(packed, "a", ALL, separator=";"))[0] == expected


def test_a_stray_quotation_mark_costs_one_line_not_the_rest_of_the_file(write: Write) -> None:
    lines = [f"{i},x" for i in range(300)]
    lines[10] = '10,"x'
    rows, numbers, broken = gather(read_csv(write("a,b\n" + "\n".join(lines)), "a", ALL))
    assert len(rows) == 299
    assert broken == [(11, "line has an unclosed quotation mark", '10,"x')]
    assert numbers == [i for i in range(1, 301) if i != 11]


def test_two_stray_quotation_marks_do_not_swallow_what_is_between(write: Write) -> None:
    rows, _, broken = gather(read_csv(write('a,b\n1,"x\n2,y\n3,"z\n4,w\n'), "a", ALL))
    assert [r["a"] for r in rows] == ["2", "4"]
    assert [b[0] for b in broken] == [1, 3]


def test_a_row_over_the_border_of_two_pieces_is_found(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'a,b\n1,"one\ntwo\nthree"\n2,x\n3,"un\n4,y\n'
    expected = gather(read_csv(write(text), "a", ALL))
    assert expected[1] == [1, 4, 6]
    for size in range(1, 12):
        monkeypatch.setattr(text_lines, "PIECE_CHARACTERS", size)
        assert gather(read_csv(write(text), "a", ALL)) == expected


def test_whole_csv_rows_hold_all_columns(write: Write) -> None:
    batch = next(read_csv(write("a,b,c\n1,2,\n3,4,5\n"), "a", Wanted(("b",))))
    assert [json.loads(r) for r in batch.whole_rows([0])] == [{"a": "1", "b": "2", "c": None}]


def test_header_only_is_a_file_without_rows_and_0_bytes_is_refused(write: Write) -> None:
    assert gather(read_csv(write("a,b\n"), "a", ALL)) == ([], [], [])
    with pytest.raises(SourceError, match="a has 0 bytes"):
        list(read_csv(write(""), "a", ALL))


cell = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=6)


@given(lines=st.lists(st.lists(cell, min_size=2, max_size=2), max_size=12), piece=st.integers(1, 40))
@example(lines=[["", ""]], piece=5)
@example(lines=[['"', "\n"]], piece=1)
@settings(max_examples=150, deadline=None)
def test_csv_rows_agree_with_the_standard_library(
    lines: list[list[str]], piece: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Written and read by Python's csv module: the ten-line twin. Also with pieces of a few characters."""
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerows([["a", "b"], *lines])
    expected = [{"a": a or None, "b": b or None} for a, b in lines]
    with pytest.MonkeyPatch.context() as patch:
        assert gather(read_csv(path, "a", ALL))[::2] == (expected, [])
        patch.setattr(text_lines, "PIECE_CHARACTERS", piece)
        assert gather(read_csv(path, "a", ALL))[::2] == (expected, [])


@given(content=st.binary(max_size=60), piece=st.integers(1, 20))
@example(content=b'1,2\n"', piece=3)
@example(content=b"\xff\xfe,\n", piece=1)
@settings(max_examples=200, deadline=None)
def test_every_line_of_any_bytes_is_a_row_or_broken(
    content: bytes, piece: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("bytes") / "a.csv"
    path.write_bytes(b"a,b\n" + content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_lines, "PIECE_CHARACTERS", piece)
        rows, numbers, broken = gather(read_csv(path, "a", ALL))
    decoded = path.read_bytes().decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    lines = decoded.split("\n")[1:]
    starts = sorted([*numbers, *(b[0] for b in broken)])
    assert len(set(starts)) == len(starts)
    filled = [i for i, line in enumerate(lines, 1) if line.strip()]
    inside = [n for n, r in zip(numbers, rows, strict=True) for v in r.values() if v and "\n" in v]
    if not inside:
        assert starts == filled
    assert all(1 <= s <= len(lines) for s in starts)


# --- JSON lines ------------------------------------------------------------------------------------------------------


def test_json_values_keep_their_types_and_true_becomes_text(write: Write) -> None:
    path = write('{"a": 1, "b": 1.5, "c": "x", "d": true}\n{"b": 2, "c": null}\n')
    rows, numbers, broken = gather(read_jsonl(path, "a", ALL))
    assert rows == [{"a": 1, "b": 1.5, "c": "x", "d": "true"}, {"a": None, "b": 2.0, "c": None, "d": None}]
    assert numbers == [1, 2]
    assert broken == []


def test_malformed_json_lines_are_kept_whole(write: Write) -> None:
    path = write(b'{"a": 1}\n{"a": \n\n[1]\n{"a": 2} x\n{"a": 3}\n' + b'{"a": "\xff"}\n')
    rows, numbers, broken = gather(read_jsonl(path, "a", ALL))
    assert [r["a"] for r in rows] == [1, 3]
    assert numbers == [1, 6]
    assert [(n, t) for n, _, t in broken] == [(2, '{"a": '), (4, "[1]"), (5, '{"a": 2} x'), (7, '{"a": "\\xff"}')]
    assert [r.partition(":")[0] for _, r, _ in broken] == [
        "line is not valid JSON",
        "line is not a JSON object",
        "line is not valid JSON",
        "line cannot be decoded as utf-8",
    ]


def test_values_of_several_types_in_one_column_become_text(write: Write) -> None:
    rows, _, _ = gather(read_jsonl(write('{"a": 1}\n{"a": "x"}\n{"a": 2.5}\n{"a": true}\n'), "a", ALL))
    assert [r["a"] for r in rows] == ["1", "x", "2.5", "true"]
    rows, _, _ = gather(read_jsonl(write('{"a": 1}\n{"a": [1, NaN]}\n'), "a", ALL))
    assert [r["a"] for r in rows] == ["1", '[1, "NaN"]']


def test_nan_and_infinity_which_python_writes_are_read(write: Write) -> None:
    rows, _, _ = gather(read_jsonl(write('{"a": NaN}\n{"a": -Infinity}\n{"a": 1e400}\n{"a": 1}\n'), "a", ALL))
    assert str([r["a"] for r in rows]) == "[nan, -inf, inf, 1.0]"


def test_a_key_absent_from_one_piece_is_null_there_and_found_in_the_next(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_lines, "PIECE_CHARACTERS", 10)
    path = write('{"a": 1}\n{"a": 2}\n{"a": 3.5, "b": 1}\n{"a": 4}\n{"a": "x", "b": 2}\n')
    rows, numbers, _ = gather(read_jsonl(path, "a", Wanted(("a", "b"))))
    assert [r["b"] for r in rows] == [None, None, 1, None, 2]
    assert [r["a"] for r in rows] == [1, 2, 3.5, 4, "x"]
    assert numbers == [1, 2, 3, 4, 5]


def test_whole_json_rows_are_the_lines_themselves(write: Write) -> None:
    line = '{"a": 1, "other": {"x": [1, 2]}, "a2": 1.10}'
    batch = next(read_jsonl(write(f'\n{line}\n{{"a": 2}}\n'), "a", Wanted(("a",))))
    assert batch.whole_rows([0]) == [line]


def test_json_lines_of_blanks_have_no_rows_and_0_bytes_are_refused(write: Write) -> None:
    assert gather(read_jsonl(write("\n  \n"), "a", Wanted(("a",)))) == ([], [], [])
    with pytest.raises(SourceError, match="a has 0 bytes"):
        list(read_jsonl(write(""), "a", ALL))


json_value = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=4)
json_value = json_value | st.lists(json_value, max_size=2)


@given(objects=st.lists(st.dictionaries(st.sampled_from("ab"), json_value), max_size=8), piece=st.integers(1, 60))
@settings(max_examples=150, deadline=None)
def test_every_json_object_is_a_row_whatever_its_values(
    objects: list[dict[str, Any]], piece: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("json") / "a.jsonl"
    path.write_text("\n" + "".join(json.dumps(o) + "\n" for o in objects), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_lines, "PIECE_CHARACTERS", piece)
        rows, numbers, broken = gather(read_jsonl(path, "a", ALL))
    assert broken == []
    assert numbers == list(range(2, len(objects) + 2))
    for row, given_ in zip(rows, objects, strict=True):
        for key in "ab":
            assert (row.get(key) is None) == (given_.get(key) is None)


@given(junk=st.lists(st.binary(max_size=20), max_size=6))
@settings(max_examples=100, deadline=None)
def test_any_bytes_between_json_lines_are_kept(junk: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("junk") / "a.jsonl"
    path.write_bytes(
        b'{"a": 1}\n' + b"".join(j.replace(b"\n", b"").replace(b"\r", b"") + b'\n{"a": 1}\n' for j in junk)
    )
    rows, numbers, broken = gather(read_jsonl(path, "a", ALL))
    sound = [i for i, r in zip(numbers, rows, strict=True) if r == {"a": 1}]
    assert set(range(1, 2 * len(junk) + 2, 2)) <= set(sound)
    filled = {
        2 * i + 2
        for i, j in enumerate(junk)
        if j.replace(b"\n", b"").replace(b"\r", b"").decode("utf-8", "replace").strip()
    }
    assert filled <= {*numbers, *(b[0] for b in broken)}
