"""CSV and JSON lines as batches of raw rows, with every line that cannot be parsed kept whole.

Belongs here: lines, quotes, encodings, where a broken line ends and the next row starts.
Does not belong here: what a value means (see `validate`).

Both formats have two ways through a piece of the file: a fast parser (pyarrow for CSV, polars for JSON lines) that
takes the piece only when every line of it is sound, and a slow one that takes line by line. Measured on 300,000 rows of
52 columns: fast CSV 1.3 s, slow 4 s; fast JSON lines 1.2 s, slow 7 s.
"""

import codecs
import csv
import gzip
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv

from xai_assets.errors import ConfigError, SourceError
from xai_assets.lake.readers import BrokenLine, RawBatch, Wanted, refuse_empty, row_as_json, rows_as_json

PIECE_CHARACTERS = 8 << 20
RECORD_LINES = 100
"""A quoted value may hold line ends; a row of more lines than this is taken for an unclosed quotation mark."""
_BAD_BYTE = 0x10F000
_BAD_BYTES = re.compile(f"[{chr(_BAD_BYTE)}-{chr(_BAD_BYTE + 255)}]")
_KEEP_BYTES = "xai_assets.keep_bytes"


def _keep_bytes(error: UnicodeError) -> tuple[str, int]:
    """Stand-ins (private-use characters) for bytes that the encoding does not know, so that the row can be named."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(_BAD_BYTE + b) for b in error.object[error.start : error.end]), error.end


codecs.register_error(_KEEP_BYTES, _keep_bytes)


def read_csv(
    path: Path, uri: str, wanted: Wanted, *, encoding: str = "utf-8", separator: str = ",", key: str = "source"
) -> Iterator[RawBatch]:
    """Rows of a CSV file with a header line, every value as text, an empty one as null.

    Raises
    ------
    SourceError
        0 bytes, no usable header, or a wanted column missing.
    ConfigError
        An encoding that Python does not know.
    """
    refuse_empty(path, uri)
    with _open_text(path, encoding, key) as stream:
        header_line = stream.readline()
        header = next(csv.reader([header_line], delimiter=separator), [])
        if _BAD_BYTES.search(header_line) or not header:
            raise SourceError(
                f"the header of {uri} cannot be read as {encoding}",
                found=repr(_visible(header_line))[:200],
                next_step=f"set {key}.encoding and {key}.separator to those of the file",
            )
        wanted.check(uri, header)
        rows = _CsvRows(header, separator, encoding)
        names = list(wanted.columns) or header
        for first, lines, is_last in _pieces(stream):
            for start, table, broken in rows.take(first, lines, is_last):
                yield _csv_batch(table, names, start, broken)


def read_jsonl(
    path: Path, uri: str, wanted: Wanted, *, encoding: str = "utf-8", key: str = "source"
) -> Iterator[RawBatch]:
    """Rows of a file with one JSON object per line, values typed as in the file; true and false become text.

    An absent key is a null. A wanted column that no line has is refused after the last line.

    Raises
    ------
    SourceError
        0 bytes, or no line has one of the wanted columns.
    """
    refuse_empty(path, uri)
    seen: dict[str, None] = {}
    had_rows, rows = False, _JsonRows(wanted, encoding)
    with _open_text(path, encoding, key) as stream:
        for first, lines, _ in _pieces(stream):
            frame, numbers, broken = rows.take(first, lines)
            seen |= dict.fromkeys(frame.columns)
            wanted.check_others(uri, frame.columns)
            had_rows = had_rows or frame.height > 0
            if frame.height or broken:
                yield RawBatch(_typed(frame, wanted.columns), numbers, _raw_lines(lines, first, numbers), broken)
    if had_rows:
        wanted.check(uri, list(seen))


def _has_bad_bytes(text: str) -> bool:
    """A search for characters outside the BMP costs more than parsing; ASCII is known to have none."""
    return not text.isascii() and _BAD_BYTES.search(text) is not None


def _open_text(path: Path, encoding: str, key: str) -> TextIO:
    try:
        known = codecs.lookup(encoding).name
    except LookupError:
        raise ConfigError(
            f"{key}.encoding is wrong", expected="an encoding such as utf-8, cp1252 or utf-16", found=repr(encoding)
        ) from None
    name = "utf-8-sig" if known == "utf-8" else encoding  # a byte order mark is not part of the first name
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding=name, errors=_KEEP_BYTES)
    return path.open(encoding=name, errors=_KEEP_BYTES)


def _pieces(stream: TextIO) -> Iterator[tuple[int, list[str], bool]]:
    """(number of the first line, complete lines without their ends, whether these are the last)."""
    carried, number = "", 1
    while True:
        text = stream.read(PIECE_CHARACTERS)
        if not text:
            yield number, carried.split("\n") if carried else [], True
            return
        whole, end, rest = text.rpartition("\n")
        if not end:
            carried += text
            continue
        lines = (carried + whole).split("\n")
        carried = rest
        yield number, lines, False
        number += len(lines)


# --- CSV ----------------------------------------------------------------------------------------------------


class _CsvRows:
    """Splits lines into rows; lines of a row that is not yet closed wait for the next piece."""

    def __init__(self, header: list[str], separator: str, encoding: str) -> None:
        self._header, self._separator, self._encoding = header, separator, encoding
        self._waiting: list[str] = []

    def take(
        self, first: int, lines: list[str], is_last: bool
    ) -> Iterator[tuple[pl.Series, pa.Table, tuple[BrokenLine, ...]]]:
        """Yields at most one (row numbers, table of text, broken lines)."""
        if self._waiting:
            first, lines = first - len(self._waiting), self._waiting + lines
            self._waiting = []
        if not lines:
            return
        table = self._fast(lines)
        if table is not None:
            yield pl.int_range(first, first + len(lines), eager=True), table, ()
            return
        yield self._slow(first, lines, is_last)

    def _fast(self, lines: list[str]) -> pa.Table | None:
        """All lines at once, or None where one of them needs a closer look."""
        text = "\n".join(lines)
        if "" in lines or _has_bad_bytes(text) or any(line.count('"') % 2 for line in lines if '"' in line):
            return None
        unsound: list[Any] = []

        def note(row: Any) -> str:
            unsound.append(row)
            return "skip"

        content = text.encode("utf-8", "surrogatepass")
        try:
            table = pa_csv.read_csv(
                pa.BufferReader(content),
                read_options=pa_csv.ReadOptions(column_names=_unique(self._header), block_size=len(content) + 1),
                parse_options=pa_csv.ParseOptions(delimiter=self._separator, invalid_row_handler=note),
                convert_options=pa_csv.ConvertOptions(
                    column_types=dict.fromkeys(_unique(self._header), pa.string()),
                    strings_can_be_null=True,
                    null_values=[""],
                ),
            )
        except pa.ArrowInvalid:
            return None
        return table if not unsound and table.num_rows == len(lines) else None

    def _slow(self, first: int, lines: list[str], is_last: bool) -> tuple[pl.Series, pa.Table, tuple[BrokenLine, ...]]:
        rows: list[list[str | None]] = []
        numbers: list[int] = []
        broken: list[BrokenLine] = []
        at = 0
        while at < len(lines):
            if not lines[at].strip():
                at += 1
                continue
            length = _record_length(lines, at)
            if length is None and not is_last and len(lines) - at < RECORD_LINES:
                self._waiting = lines[at:]
                break
            fields, reason = self._split(lines[at : at + (length or 1)], closed=length is not None)
            if reason:
                broken.append(BrokenLine(first + at, reason, _visible(lines[at])))
                at += 1  # the next line may be sound, even where a stray quotation mark seemed to swallow it
            else:
                rows.append([f or None for f in fields])
                numbers.append(first + at)
                at += length or 1
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(self._header)
        table = pa.table([pa.array(c, pa.string()) for c in columns], names=_unique(self._header))
        return pl.Series(numbers, dtype=pl.Int64), table, tuple(broken)

    def _split(self, record: list[str], closed: bool) -> tuple[list[str], str]:
        text = "\n".join(record)
        if _BAD_BYTES.search(text):
            return [], f"line cannot be decoded as {self._encoding}"
        if not closed:
            return [], "line has an unclosed quotation mark"
        try:
            # Over several lines no leniency: two stray quotation marks would make one row of all that is between.
            is_strict = len(record) > 1
            fields = next(csv.reader(io.StringIO(text, newline=""), delimiter=self._separator, strict=is_strict))
        except csv.Error as error:
            return [], f"line cannot be parsed: {error}"
        if len(fields) != len(self._header):
            return [], f"line has more or fewer fields than the header: {len(fields)} instead of {len(self._header)}"
        try:
            text.encode()
        except UnicodeEncodeError:
            return [], f"line cannot be decoded as {self._encoding}"
        return fields, ""


def _record_length(lines: list[str], at: int) -> int | None:
    """Lines that the row starting at `at` spans: up to where its quotation marks are even."""
    quotes = 0
    for length in range(1, min(RECORD_LINES, len(lines) - at) + 1):
        quotes += lines[at + length - 1].count('"')
        if quotes % 2 == 0:
            return length
    return None


def _unique(header: Sequence[str]) -> list[str]:
    """Names for the parser, which refuses doubled ones; doubled wanted columns were refused before."""
    seen: dict[str, int] = {}
    names = []
    for name in header:
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name}.{seen[name]}")
    return names


def _csv_batch(table: pa.Table, names: list[str], numbers: pl.Series, broken: tuple[BrokenLine, ...]) -> RawBatch:
    frame = pl.from_arrow(table.select(_unique(names)))
    assert isinstance(frame, pl.DataFrame)

    def whole_rows(positions: Sequence[int]) -> list[str]:
        return rows_as_json(table.take(pa.array(positions, pa.int64())))

    return RawBatch(frame, numbers, whole_rows, broken)


# --- JSON lines ------------------------------------------------------------------------------------------


class _JsonRows:
    """Rows of JSON lines; types found in one piece are tried on the next, which halves the work on it."""

    def __init__(self, wanted: Wanted, encoding: str) -> None:
        self._wanted, self._encoding = wanted, encoding
        self._types: dict[str, pl.DataType] | None = None

    def take(self, first: int, lines: list[str]) -> tuple[pl.DataFrame, pl.Series, tuple[BrokenLine, ...]]:
        filled = [i for i, line in enumerate(lines) if line.strip()]
        frame = self._fast([lines[i] for i in filled]) if filled else None
        if frame is not None:
            return frame, pl.Series(filled, dtype=pl.Int64) + first, ()
        return _slow_json(first, lines, filled, self._encoding)

    def _fast(self, lines: list[str]) -> pl.DataFrame | None:
        """All lines at once, or None where a line is unsound or values of one column do not go together."""
        text = "\n".join(lines)
        if _has_bad_bytes(text):
            return None
        content = text.encode("utf-8", "surrogatepass")
        frame = _ndjson(content, self._types) if self._types else None
        if frame is None:
            frame = _ndjson(content, None)
        if frame is None or frame.height != len(lines) or any(_odd(t) for t in frame.dtypes):
            return None
        types = {n: frame.schema[n] for n in self._wanted.columns if n in frame.columns}
        complete = len(types) == len(self._wanted.columns) and pl.Null() not in types.values()
        self._types = types if complete and self._wanted.others_allowed else None
        return frame.with_columns(pl.col(pl.Boolean).cast(pl.String))


def _ndjson(content: bytes, types: dict[str, pl.DataType] | None) -> pl.DataFrame | None:
    """polars refuses a value that is not of the given type, it does not convert it."""
    try:
        return pl.read_ndjson(io.BytesIO(content), schema=types, infer_schema_length=None)
    except pl.exceptions.PolarsError:
        return None


def _odd(dtype: pl.DataType) -> bool:
    return dtype.is_nested() or dtype == pl.Int128


def _slow_json(
    first: int, lines: list[str], filled: list[int], encoding: str
) -> tuple[pl.DataFrame, pl.Series, tuple[BrokenLine, ...]]:
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    broken: list[BrokenLine] = []
    for i in filled:
        row, reason = _parse_json(lines[i], encoding)
        if row is None:
            broken.append(BrokenLine(first + i, reason, _visible(lines[i])))
        else:
            rows.append(row)
            numbers.append(first + i)
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: _json_column(name, [row.get(name) for row in rows]) for name in names}
    frame = pl.DataFrame(columns) if columns else pl.DataFrame(height=len(rows))
    return frame, pl.Series(numbers, dtype=pl.Int64), tuple(broken)


def _parse_json(line: str, encoding: str) -> tuple[dict[str, Any] | None, str]:
    if _BAD_BYTES.search(line):
        return None, f"line cannot be decoded as {encoding}"
    try:
        row = json.loads(line)
        line.encode()
    except (json.JSONDecodeError, RecursionError, UnicodeEncodeError, ValueError) as error:
        return None, f"line is not valid JSON: {error}"
    if not isinstance(row, dict):
        return None, "line is not a JSON object"
    return row, ""


def _json_column(name: str, values: list[Any]) -> pl.Series:
    kinds = {type(v) for v in values if v is not None}
    if kinds == {int} and all(-(2**63) <= v < 2**63 for v in values if v is not None):
        return pl.Series(name, values, dtype=pl.Int64)
    if kinds == {float}:
        return pl.Series(name, values, dtype=pl.Float64)
    if kinds == {int, float} and all(abs(v) < 2**1000 for v in values if isinstance(v, int)):
        return pl.Series(name, [None if v is None else float(v) for v in values], dtype=pl.Float64)
    if not kinds:
        return pl.Series(name, values, dtype=pl.Null)
    return pl.Series(name, [_json_text(v) for v in values], dtype=pl.String)


def _json_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        # A lone surrogate (JSON "\ud800") has no UTF-8 form and cannot be stored.
        return None if value is None else value.encode("utf-8", "replace").decode()
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return row_as_json({"v": value})[6:-1] if isinstance(value, dict | list) else json.dumps(value)


def _typed(frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """The wanted columns; one that no line of this piece has is null."""
    if not names:
        return frame
    return frame.select(pl.col(n) if n in frame.columns else pl.lit(None).alias(n) for n in names)


def _raw_lines(lines: list[str], first: int, numbers: pl.Series) -> Callable[[Sequence[int]], list[str]]:
    return lambda positions: [lines[numbers[p] - first] for p in positions]


def _visible(text: str) -> str:
    r"""Undecodable bytes as \xNN, so that the line can be stored whole."""
    shown = _BAD_BYTES.sub(lambda m: f"\\x{ord(m[0]) - _BAD_BYTE:02x}", text)
    return shown.encode("utf-8", "backslashreplace").decode()
