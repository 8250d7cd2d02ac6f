"""Local files of the user as batches of raw rows, every row with its position; nothing is lost on the way.

Belongs here: Parquet in batches, what formats have in common. CSV and JSON lines are in `csv_reader` and
`jsonl_reader`.
Does not belong here: what a value means (see `validate`), where files are (see `source`).
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from xai_assets.errors import SourceError, nearest

BATCH_ROWS = 65_536


@dataclass(frozen=True)
class BrokenLine:
    """A line of a text file that could not be split into columns."""

    row_number: int
    reason: str
    text: str

    @property
    def kind(self) -> str:
        """The reason without what is particular to this line."""
        return self.reason.partition(":")[0]


@dataclass(frozen=True)
class RawBatch:
    """Rows as they were read.

    frame: the wanted columns (all of them where none were named), under the names of the source.
    row_numbers: 1-based position in the file, header not counted; in text files the line, blank lines included.
    whole_rows: the JSON text of the rows at the given positions of the batch, with every column of the source.
    """

    frame: pl.DataFrame
    row_numbers: pl.Series
    whole_rows: Callable[[Sequence[int]], list[str]]
    broken: tuple[BrokenLine, ...] = field(default=())


@dataclass(frozen=True)
class Wanted:
    """What is expected of a file: the columns that must be there, and whether others may be."""

    columns: tuple[str, ...]
    others_allowed: bool = True

    def check(self, uri: str, found: Sequence[str]) -> None:
        """Raises SourceError for a missing, doubled or unknown column."""
        for column in self.columns:
            if column not in found:
                raise SourceError(
                    f"{uri} has no column '{column}'",
                    expected=", ".join(self.columns),
                    found=", ".join(found) or "no columns",
                    next_step=f"{nearest(column, found)} If it was renamed, map it under 'columns' of the monitor",
                )
            if list(found).count(column) > 1:
                raise SourceError(f"{uri} has the column '{column}' twice", next_step="keep one of them")
        self.check_others(uri, found)

    def check_others(self, uri: str, found: Sequence[str]) -> None:
        """Raises SourceError for a column nobody asked for, where the monitor says `unknown_columns: error`."""
        others = [c for c in found if c not in self.columns]
        if others and not self.others_allowed:
            raise SourceError(
                f"{uri} has columns that the monitor does not name: {', '.join(others)}",
                expected=", ".join(self.columns),
                next_step="add them to the monitor, or set source.unknown_columns to 'ignore'",
            )


def refuse_empty(path: Path, uri: str) -> None:
    """Raises SourceError for a file of 0 bytes: an upload that did not happen, not a day without requests."""
    if path.stat().st_size == 0:
        raise SourceError(
            f"{uri} has 0 bytes",
            expected="a file with a header, or a Parquet file without rows, for a day without requests",
            next_step="write the file again, or remove it so that the day counts as missing",
        )


def read_parquet(path: Path, uri: str, wanted: Wanted, batch_rows: int = BATCH_ROWS) -> Iterator[RawBatch]:
    """Rows of a Parquet file. Memory holds one batch, whatever the size of the row groups.

    Raises
    ------
    SourceError
        The file is truncated or no Parquet; a wanted column is missing or of a type that has no rows of values.
    """
    refuse_empty(path, uri)
    try:
        # pre_buffer would fetch whole row groups: 1 GB for a day of 5M rows written as one group.
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as parquet:
            found = parquet.schema_arrow.names
            wanted.check(uri, found)
            names = list(wanted.columns) or found
            others = _OtherColumns(path, [c for c in found if c not in names], batch_rows)
            position = 0
            for batch in parquet.iter_batches(batch_size=batch_rows, columns=names):
                table = pa.Table.from_batches([batch])
                yield RawBatch(
                    frame=to_polars(table.select(names), uri),
                    row_numbers=pl.int_range(position + 1, position + 1 + table.num_rows, eager=True),
                    whole_rows=_whole_rows(table, others, position),
                )
                position += table.num_rows
    except (OSError, pa.ArrowException) as error:
        raise SourceError(
            f"{uri} cannot be read as Parquet",
            expected="a complete Parquet file",
            found=str(error).splitlines()[0],
            next_step="write the file again; it is truncated or not a Parquet file",
        ) from error


def to_polars(table: pa.Table, uri: str) -> pl.DataFrame:
    """Columns of single values as polars columns. Raises SourceError for nested and binary ones."""
    for i, column in enumerate(table.schema):
        kind = column.type
        if pa.types.is_float16(kind):
            table = table.set_column(i, column.name, table[i].cast(pa.float32()))
        elif pa.types.is_decimal(kind):
            table = table.set_column(i, column.name, table[i].cast(pa.float64()))
        elif not _is_value(kind):
            raise SourceError(
                f"column '{column.name}' of {uri} is of a type that cannot be used",
                expected="numbers, text, true/false, dates or timestamps",
                found=str(kind),
                next_step="store one value per row in it",
            )
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame.with_columns(pl.col(pl.Categorical).cast(pl.String), pl.col(pl.Enum).cast(pl.String))


def rows_as_json(table: pa.Table) -> list[str]:
    """Each row as a JSON object. Never fails: what JSON does not know (NaN, dates, bytes) becomes text.

    >>> rows_as_json(pa.table({"a": [float("inf")], "b": [b"x"]}))
    ['{"a": "Infinity", "b": "x"}']
    """
    names = table.schema.names
    columns = [_plain_values(table.column(i)) for i in range(len(names))]
    return [row_as_json(dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)]


def row_as_json(row: dict[str, Any]) -> str:
    """One row as JSON, see `rows_as_json`."""
    try:
        return json.dumps(row, allow_nan=False, ensure_ascii=False, default=_as_text)
    except (ValueError, TypeError):
        return json.dumps({str(k): _without_nan(v) for k, v in row.items()}, ensure_ascii=False, default=_as_text)


class _OtherColumns:
    """The columns nobody asked for, read only as far as quarantined rows need them: at most one pass more."""

    def __init__(self, path: Path, names: list[str], batch_rows: int) -> None:
        self._path, self.names, self._batch_rows = path, names, batch_rows
        self._batches: Iterator[Any] | None = None
        self._table: pa.Table | None = None
        self._start = 0

    def rows(self, start: int, count: int) -> pa.Table:
        """Rows [start, start + count); never asked for rows before those of the last call."""
        if self._batches is None:
            parquet = pq.ParquetFile(self._path, pre_buffer=False, buffer_size=1 << 20)
            self._batches = parquet.iter_batches(batch_size=self._batch_rows, columns=self.names)
            self._table = pa.Table.from_batches(
                [], schema=pa.schema([parquet.schema_arrow.field(n) for n in self.names])
            )
        assert self._table is not None
        while self._start + self._table.num_rows < start + count:
            skipped = min(max(start - self._start, 0), self._table.num_rows)
            arrived = pa.Table.from_batches([next(self._batches)])
            self._table = pa.concat_tables([self._table.slice(skipped), arrived])
            self._start += skipped
        return self._table.slice(start - self._start, count)


def _whole_rows(table: pa.Table, others: _OtherColumns, start: int) -> Callable[[Sequence[int]], list[str]]:
    def rows(positions: Sequence[int]) -> list[str]:
        whole = table
        if others.names:
            more = others.rows(start, table.num_rows)
            for name in others.names:
                whole = whole.append_column(more.schema.field(name), more[name])
        return rows_as_json(whole.take(pa.array(positions, pa.int64())))

    return rows


def _is_value(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_value(kind.value_type)
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    when = pa.types.is_date(kind) or pa.types.is_timestamp(kind)
    return bool(is_text or number or when or pa.types.is_boolean(kind) or pa.types.is_null(kind))


def _plain_values(column: Any) -> list[Any]:
    """Python values; types whose conversion depends on the value (dates beyond year 9999) go through Arrow's text."""
    kind = column.type
    try:
        if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
            return list(column.cast(pa.string()).to_pylist())
        return list(column.to_pylist())
    except (pa.ArrowException, ValueError, OverflowError, TypeError):
        return [str(chunk) for chunk in column]


def _as_text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {str(k): _without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return value
