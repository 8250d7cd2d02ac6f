"""JSON lines as batches of raw rows, with every line that is no JSON object kept whole.

Belongs here: JSON, values of several types in one column. Does not belong here: what a value means (see `validate`).

There are two ways through a piece of the file: polars' parser, which takes the piece only when every line of it is
sound, and a slow one that takes line by line. Measured on 300,000 rows of 52 columns: 1.2 s and 7 s.
"""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from xai_assets.lake.readers import BrokenLine, RawBatch, Wanted, refuse_empty, row_as_json
from xai_assets.lake.text_lines import BAD_BYTES, has_bad_bytes, open_text, pieces, visible


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
    with open_text(path, encoding, key) as stream:
        for first, lines, _ in pieces(stream):
            frame, numbers, broken = rows.take(first, lines)
            seen |= dict.fromkeys(frame.columns)
            wanted.check_others(uri, frame.columns)
            had_rows = had_rows or frame.height > 0
            if frame.height or broken:
                yield RawBatch(_typed(frame, wanted.columns), numbers, _raw_lines(lines, first, numbers), broken)
    if had_rows:
        wanted.check(uri, list(seen))


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
        if has_bad_bytes(text):
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
            broken.append(BrokenLine(first + i, reason, visible(lines[i])))
        else:
            rows.append(row)
            numbers.append(first + i)
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: _json_column(name, [row.get(name) for row in rows]) for name in names}
    frame = pl.DataFrame(columns) if columns else pl.DataFrame(height=len(rows))
    return frame, pl.Series(numbers, dtype=pl.Int64), tuple(broken)


def _parse_json(line: str, encoding: str) -> tuple[dict[str, Any] | None, str]:
    if BAD_BYTES.search(line):
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
