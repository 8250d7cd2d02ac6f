"""CSV as batches of raw rows, with every line that cannot be split into columns kept whole.

Belongs here: quotes, where a broken line ends and the next row starts. Does not belong here: what a value means (see
`validate`).

There are two ways through a piece of the file: pyarrow's parser, which takes the piece only when every line of it is
sound, and a slow one that takes line by line. Measured on 300,000 rows of 52 columns: 1.3 s and 4 s.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv

from xai_assets.errors import SourceError
from xai_assets.lake.readers import BrokenLine, RawBatch, Wanted, refuse_empty, rows_as_json
from xai_assets.lake.text_lines import BAD_BYTES, has_bad_bytes, open_text, pieces, visible

RECORD_LINES = 100
"""A quoted value may hold line ends; a row of more lines than this is taken for an unclosed quotation mark."""


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
    with open_text(path, encoding, key) as stream:
        header_line = stream.readline()
        header = next(csv.reader([header_line], delimiter=separator), [])
        if BAD_BYTES.search(header_line) or not header:
            raise SourceError(
                f"the header of {uri} cannot be read as {encoding}",
                found=repr(visible(header_line))[:200],
                next_step=f"set {key}.encoding and {key}.separator to those of the file",
            )
        wanted.check(uri, header)
        rows = _CsvRows(header, separator, encoding)
        names = list(wanted.columns) or header
        for first, lines, is_last in pieces(stream):
            for start, table, broken in rows.take(first, lines, is_last):
                yield _csv_batch(table, names, start, broken)


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
        if "" in lines or has_bad_bytes(text) or any(line.count('"') % 2 for line in lines if '"' in line):
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
                broken.append(BrokenLine(first + at, reason, visible(lines[at])))
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
        if BAD_BYTES.search(text):
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
