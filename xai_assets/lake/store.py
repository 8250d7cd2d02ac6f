"""The lake: partitions of tables as Parquet files, read whole or in batches, replaced atomically.

Belongs here: where a partition is, how it is read and replaced, checks against the schemas of `tables`.
Does not belong here: SQL (see `queries`), what the rows mean, files of the user (see `source`).

A partition is `<root>/<table>/monitor=<name>/date=<YYYY-MM-DD>/part-0.parquet`. Readers open the file once, so they see
the old partition or the new one; writers never wait for readers. Keys of ours in the footer start with `xai_assets.`.
"""

import contextlib
import errno
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from xai_assets.errors import LakeError, nearest
from xai_assets.lake.files import FileStore, open_root
from xai_assets.lake.tables import PHI, TABLES, UNPARTITIONED, Table

FILE = "part-0.parquet"
ROW_GROUP_ROWS = 131_072
_KEY = "xai_assets."
_PARTITION = re.compile(r"([^/]+)/monitor=([^/]+)/(?:date=(\d{4}-\d\d-\d\d)/)?" + re.escape(FILE))
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Lake:
    """All stored tables under one root, a local path or a URI such as `s3://bucket/prefix`."""

    def __init__(self, root: str) -> None:
        self.files: FileStore = open_root(str(root))
        self.root = self.files.root

    def __repr__(self) -> str:
        return f"Lake({self.root!r})"

    @property
    def is_local(self) -> bool:
        """False where the root is an object store."""
        return self.files.is_local

    def path(self, table: str, monitor: str, day: date | None = None) -> str:
        """Path or URI of a partition, whether it exists or not."""
        return self.files.address(_name(table, monitor, day))

    def inner(self, table: str, monitor: str, day: date | None = None) -> str:
        """Path of a partition within `files.filesystem`."""
        return self.files.inner(_name(table, monitor, day))

    def exists(self, table: str, monitor: str, day: date | None = None) -> bool:
        return self.files.version(_name(table, monitor, day)) is not None

    def days(self, table: str, monitor: str) -> list[date]:
        """Days that have a partition, sorted."""
        _known(table)
        found = (_PARTITION.fullmatch(n) for n in self.files.names(f"{table}/monitor={monitor}"))
        return sorted(date.fromisoformat(m[3]) for m in found if m and m[3])

    def monitors(self) -> list[str]:
        """Every monitor that has a partition in any table, sorted."""
        found = (_PARTITION.fullmatch(n) for t in TABLES for n in self.files.names(t))
        return sorted({m[2] for m in found if m})

    def metadata(self, table: str, monitor: str, day: date | None = None) -> dict[str, str]:
        """Our keys of the footer; only the footer is read."""
        with self._opened(table, monitor, day) as parquet:
            stored = parquet.metadata.metadata or {}
        pairs = ((k.decode(), v.decode()) for k, v in stored.items())
        return {k.removeprefix(_KEY): v for k, v in pairs if k.startswith(_KEY)}

    def row_count(self, table: str, monitor: str, day: date | None = None) -> int:
        """Rows of a partition, from the footer."""
        with self._opened(table, monitor, day) as parquet:
            return int(parquet.metadata.num_rows)

    def size_bytes(self, table: str, monitor: str, day: date | None = None) -> int:
        """Size of a partition's file. Raises LakeError where there is none."""
        found = self.files.version(_name(table, monitor, day))
        if found is None:
            raise self._missing(table, monitor, day)
        return found[0]

    def schema(self, table: str, monitor: str, day: date | None = None) -> dict[str, pl.DataType]:
        """Columns and types of a partition, from the footer."""
        with self._opened(table, monitor, day) as parquet:
            return dict(_frame(parquet.schema_arrow.empty_table(), parquet.schema_arrow.names).schema)

    def read(
        self, table: str, monitor: str, day: date | None = None, columns: Sequence[str] | None = None
    ) -> pl.DataFrame:
        """One partition, whole or some of its columns (in the order asked).

        Raises
        ------
        LakeError
            The partition does not exist (the message says which days do), cannot be read, or lacks a column.
        """
        with self._opened(table, monitor, day) as parquet:
            names = _chosen(parquet, columns, self.path(table, monitor, day))
            return _frame(parquet.read(columns=names), names)

    def read_days(
        self,
        table: str,
        monitor: str,
        days: Sequence[date],
        columns: Sequence[str] | None = None,
        predicate: pl.Expr | None = None,
    ) -> pl.DataFrame:
        """Those of the days that exist, one after the other, with the day in the first column, `date`.

        `predicate` is applied day by day and may use `date` and columns that are not asked for.
        """
        stored = set(self.days(table, monitor))
        frames = [self._day(table, monitor, day, columns, predicate) for day in days if day in stored]
        if not frames:
            return _empty(table, columns)
        try:
            return pl.concat(frames, how="diagonal")
        except pl.exceptions.PolarsError as error:
            raise LakeError(
                f"days of table '{table}' of monitor '{monitor}' hold different types",
                found=str(error),
                next_step="materialize the days again that were stored under the older configuration",
                nothing_written=False,
            ) from error

    def batches(
        self,
        table: str,
        monitor: str,
        day: date | None = None,
        columns: Sequence[str] | None = None,
        batch_rows: int = 65_536,
    ) -> Iterator[pl.DataFrame]:
        """A partition in file order, at most `batch_rows` rows at a time; nothing for a partition of zero rows."""
        with self._opened(table, monitor, day) as parquet:
            names = _chosen(parquet, columns, self.path(table, monitor, day))
            # One row group at a time: asked for all of them, pyarrow keeps what it has read ahead (1.2 GiB of 4M × 50).
            for group in range(parquet.num_row_groups):
                for batch in parquet.iter_batches(batch_size=batch_rows, row_groups=[group], columns=names):
                    yield _frame(pa.Table.from_batches([batch]), names)

    @contextlib.contextmanager
    def writer(self, table: str, monitor: str, day: date | None = None) -> Iterator["PartitionWriter"]:
        """Write a partition in pieces; it takes the old one's place in one step on clean exit.

        On an exception nothing changes: the old partition, if any, stays.

        Raises
        ------
        LakeError
            A frame does not fit the table's schema, or the disk is full.
        """
        name = _name(table, monitor, day)
        from_caller: BaseException | None = None
        try:
            with self.files.replacing(name) as temporary:
                writer = PartitionWriter(TABLES[table], temporary, self.files.address(name))
                try:
                    yield writer
                except BaseException as error:
                    from_caller = error
                    writer.abandon()
                    raise
                writer.finish()
        except OSError as error:
            if error is from_caller:
                raise
            raise _unwritable(self.files.address(name), error) from error

    def write(
        self, table: str, monitor: str, day: date | None, frame: pl.DataFrame, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Replace a partition by one frame. Raises LakeError, see `writer`."""
        with self.writer(table, monitor, day) as writer:
            writer.metadata.update(metadata or {})
            writer.append(frame)

    def delete(self, table: str, monitor: str, day: date | None = None) -> None:
        """Remove a partition; an absent one is fine."""
        self.files.delete(_name(table, monitor, day))

    def delete_older(self, table: str, monitor: str, before: date) -> list[date]:
        """Remove the partitions of days before `before`; returns these days."""
        old = [day for day in self.days(table, monitor) if day < before]
        for day in old:
            self.delete(table, monitor, day)
        return old

    def _day(
        self, table: str, monitor: str, day: date, columns: Sequence[str] | None, predicate: pl.Expr | None
    ) -> pl.DataFrame:
        wanted = None if columns is None else [c for c in columns if c != "date"]
        needed = wanted
        if wanted is not None and predicate is not None:
            needed = list(dict.fromkeys((*wanted, *(c for c in predicate.meta.root_names() if c != "date"))))
        frame = self.read(table, monitor, day, needed).select(pl.lit(day).alias("date"), pl.all())
        if predicate is not None:
            frame = frame.filter(predicate)
        return frame if wanted is None else frame.select("date", *wanted)

    @contextlib.contextmanager
    def _opened(self, table: str, monitor: str, day: date | None) -> Iterator[Any]:
        name = _name(table, monitor, day)
        # A disk keeps an opened file whole. An object is read in ranges, which may belong to two versions of it.
        before = None if self.files.is_local else self.files.version(name)
        try:
            handle = self.files.open(name)
        except (FileNotFoundError, NotADirectoryError):
            raise self._missing(table, monitor, day) from None
        with handle:
            try:
                parquet = pq.ParquetFile(handle)
            except pa.ArrowInvalid as error:
                raise _unreadable(self.files.address(name), error) from error
            try:
                yield parquet
            except OSError as error:
                raise _unreadable(self.files.address(name), error) from error
        if before is not None and self.files.version(name) != before:
            raise LakeError(
                f"{self.files.address(name)} was replaced while it was read",
                next_step="run again",
                nothing_written=False,
            )

    def _missing(self, table: str, monitor: str, day: date | None) -> LakeError:
        days = [] if table in UNPARTITIONED else self.days(table, monitor)
        span = f"{len(days)} days from {days[0]} to {days[-1]}" if days else "no partition of this table"
        if len(days) <= 7 and days:
            span = ", ".join(str(d) for d in days)
        known = self.monitors()
        if monitor not in known:
            span = f"no monitor '{monitor}' in the lake; {nearest(monitor, known)}"
        of_day = f" of {day}" if day else ""
        return LakeError(
            f"table '{table}' of monitor '{monitor}' has no partition{of_day}",
            expected=self.path(table, monitor, day),
            found=span,
            next_step=f"materialize {table}{of_day} first",
            nothing_written=False,
        )


class PartitionWriter:
    """Takes the frames of one partition. `metadata` may be filled until the end; `rows` counts what was appended."""

    def __init__(self, table: Table, path: Path, address: str) -> None:
        self.metadata: dict[str, str] = {}
        self.rows = 0
        self._table, self._path, self._address = table, path, address
        self._schema: dict[str, Any] | None = None
        self._parquet: Any = None
        self._waiting: list[Any] = []
        self._waiting_rows = 0

    def append(self, frame: pl.DataFrame) -> None:
        """Add rows. The table's columns come first and in order; every frame has the same columns and types."""
        if self._schema is None:
            _check_schema(self._table, dict(frame.schema))
            self._schema = dict(frame.schema)
        elif list(frame.schema.items()) != list(self._schema.items()):
            raise _misfit(self._table.name, self._schema, dict(frame.schema))
        self.rows += frame.height
        # As Arrow's plain text at once: polars' text points into the batch it was read from, and a few rows of each
        # batch would keep all of them in memory until the group is full.
        self._waiting.append(frame.to_arrow(compat_level=pl.CompatLevel.oldest()))
        self._waiting_rows += frame.height
        if self._waiting_rows >= ROW_GROUP_ROWS:
            self._flush()

    def finish(self) -> None:
        """Write what is left and the footer. Called by `Lake.writer`."""
        if self._schema is None:
            self.append(pl.DataFrame(schema=self._table.schema))
        if self._waiting:
            self._flush()
        self._parquet.add_key_value_metadata({_KEY + k: str(v) for k, v in self.metadata.items()})
        try:
            self._parquet.close()
        except OSError as error:
            self.abandon()
            raise _unwritable(self._address, error) from error

    def abandon(self) -> None:
        """Let go of the file after an exception, so that it can be removed."""
        if self._parquet is not None:
            # The exception on its way out tells what happened; closing a file on a full disk fails again.
            with contextlib.suppress(OSError):
                self._parquet.close()

    def _flush(self) -> None:
        rows = pa.concat_tables(self._waiting).combine_chunks()
        self._waiting, self._waiting_rows = [], 0
        try:
            if self._parquet is None:
                texts = [f.name for f in rows.schema if pa.types.is_large_string(f.type)]
                self._parquet = pq.ParquetWriter(str(self._path), rows.schema, compression="zstd", use_dictionary=texts)
            self._parquet.write_table(rows, row_group_size=ROW_GROUP_ROWS)
        except OSError as error:
            raise _unwritable(self._address, error) from error


def _known(table: str) -> None:
    if table not in TABLES:
        raise LakeError(f"'{table}' is not a table of the lake", next_step=nearest(table, TABLES))


def _name(table: str, monitor: str, day: date | None) -> str:
    _known(table)
    if (day is None) != (table in UNPARTITIONED):
        raise LakeError(f"table '{table}' is {'not ' if day else ''}stored by day", found=f"day {day}")
    return f"{table}/monitor={monitor}/" + (f"date={day.isoformat()}/" if day else "") + FILE


def _check_schema(table: Table, schema: Mapping[str, Any]) -> None:
    head = dict(list(schema.items())[: len(table.columns)])
    more = len(schema) - len(table.columns)
    if list(head.items()) != list(table.schema.items()) or (more and not table.open_columns):
        raise _misfit(table.name, table.schema, schema)


def _misfit(table: str, expected: Mapping[str, Any], found: Mapping[str, Any]) -> LakeError:
    wrong = [f"{n}: {found.get(n, 'absent')} instead of {t}" for n, t in expected.items() if found.get(n) != t]
    wrong += [f"{n}: not expected" for n in found if n not in expected]
    text = "; ".join(wrong) or "the columns in another order: " + ", ".join(found)
    return LakeError(f"rows do not fit table '{table}'", expected=", ".join(expected), found=text)


def _chosen(parquet: Any, columns: Sequence[str] | None, address: str) -> list[str]:
    stored = parquet.schema_arrow.names
    if columns is None:
        return list(stored)
    for column in columns:
        if column not in stored:
            raise LakeError(
                f"{address} has no column '{column}'", next_step=nearest(column, stored), nothing_written=False
            )
    return list(columns)


def _frame(table: Any, names: Sequence[str]) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame.select(names)


def _empty(table: str, columns: Sequence[str] | None) -> pl.DataFrame:
    fixed = TABLES[table].schema
    names = list(fixed) if columns is None else [c for c in columns if c != "date"]
    types = {n: fixed.get(n, pl.Float32() if n.startswith(PHI) else pl.Null()) for n in names}
    return pl.DataFrame(schema={"date": pl.Date(), **types})


def _unreadable(address: str, error: Exception) -> LakeError:
    return LakeError(
        f"{address} cannot be read as Parquet",
        found=str(error),
        next_step="delete the file and materialize this partition again",
        nothing_written=False,
    )


def _unwritable(address: str, error: OSError) -> LakeError:
    full = error.errno in _FULL
    return LakeError(
        f"{address} could not be written" + (": the disk is full" if full else ""),
        found=str(error).rstrip("."),
        next_step="free space (or raise the file size limit) and run again; the stored partition is as it was before"
        if full
        else "check that the folder exists and may be written to; the stored partition is as it was before",
    )
