"""The user's files: which belong to a day, what they were when read, a local copy to read them from.

Belongs here: paths with `{date}`, globs, listings on a disk or an object store, a look at a file's head for `xai init`.
Does not belong here: what rows mean (see `validate`), the lake's own files (see `store`).
"""

import contextlib
import glob
import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import unquote

import polars as pl
import pyarrow.fs as pafs

from xai_assets.config import FORMATS, LabelsConfig, MonitorConfig, SourceConfig
from xai_assets.errors import SourceError
from xai_assets.lake.csv_reader import read_csv
from xai_assets.lake.jsonl_reader import read_jsonl
from xai_assets.lake.readers import RawBatch, Wanted, read_parquet
from xai_assets.lake.times import times_as_utc
from xai_assets.records import SourceFile

Which = Literal["source", "labels"]
_DATE_PART = re.compile(r"\{date(?::([^}]*))?\}")


def files_of_day(config: MonitorConfig, day: date, which: Which = "source") -> tuple[SourceFile, ...]:
    """Files that belong to a day, sorted by address; none means that the day is missing.

    A path without `{date}` belongs to every day. Files whose name starts with `.` or `_` are left out.

    Raises
    ------
    SourceError
        The place itself cannot be listed (no access, unknown bucket), which is not the same as a missing day.
    """
    pattern = path_of_day(_part(config, which).path, day)
    if "://" not in pattern:
        found = _local_files(pattern, config.base_dir)
    elif pattern.startswith("file://"):
        found = _local_files(unquote(pattern.removeprefix("file://")), config.base_dir)
    else:
        found = _remote_files(pattern)
    return tuple(sorted(found, key=lambda f: f.uri))


def path_of_day(path: str, day: date) -> str:
    """Fill in `{date}` (ISO) and `{date:...}` (strftime).

    >>> path_of_day("logs/{date:%Y/%m/%d}/{date}.csv", date(2025, 1, 31))
    'logs/2025/01/31/2025-01-31.csv'
    """
    return _DATE_PART.sub(lambda m: day.strftime(m[1]) if m[1] else day.isoformat(), path)


def source_fingerprint(files: Sequence[SourceFile]) -> str:
    """Hash (16 hex digits) over address, size and modification time: changes when a file is late, gone or replaced."""
    facts = [(f.uri, f.size_bytes, f.modified_at.isoformat()) for f in files]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def raw_batches(config: MonitorConfig, file: SourceFile, wanted: Wanted, which: Which = "source") -> Iterator[RawBatch]:
    """Rows of one file as the configuration says they are to be read. Raises SourceError, ConfigError."""
    part = _part(config, which)
    with local_copy(file.uri) as path:
        yield from _read(path, file.uri, part, wanted, config.source, f"{config.name}.{which}")


@contextlib.contextmanager
def local_copy(uri: str) -> Iterator[Path]:
    """The file on this machine: itself, or a temporary copy of an object (under TMPDIR)."""
    if "://" not in uri:
        yield Path(uri)
        return
    with tempfile.TemporaryDirectory(prefix="xai_assets_") as folder:
        filesystem, inner = _open_uri(uri)
        target = Path(folder) / PurePosixPath(inner).name
        try:
            pafs.copy_files(
                inner, target.as_posix(), source_filesystem=filesystem, destination_filesystem=pafs.LocalFileSystem()
            )
        except OSError as error:
            raise _unreachable(uri, error) from error
        yield target


@dataclass(frozen=True)
class ColumnProfile:
    """What the head of a file shows of one column. kind: numeric, boolean, text, time; levels: most frequent first."""

    name: str
    kind: str
    missing_share: float
    distinct_values: int
    levels: tuple[str, ...]


@dataclass(frozen=True)
class SourceProfile:
    """What the head of a file shows. Times are UTC; `rows` is how many were looked at."""

    format: str
    rows: int
    columns: tuple[ColumnProfile, ...]
    earliest: dict[str, datetime]
    latest: dict[str, datetime]


def profile_source(
    path: str,
    format: str | None = None,
    *,
    encoding: str = "utf-8",
    separator: str = ",",
    timezone: str = "UTC",
    rows: int = 10_000,
) -> SourceProfile:
    """Look at the first rows of a file, to propose a configuration for it.

    Raises
    ------
    SourceError
        The file does not exist or is not of the format.
    """
    source = SourceConfig(path=path, format=format, timezone=timezone, encoding=encoding, separator=separator)  # type: ignore[arg-type]
    if "://" not in path and not Path(path).is_file():
        raise SourceError(f"there is no file {path}", next_step="give the path of one log file")
    with local_copy(path) as local:
        batches = _read(local, path, source, Wanted(()), source, "source")
        frames = [b.frame for b in islice(batches, 1)]
    head = frames[0].head(rows) if frames else pl.DataFrame()
    columns = tuple(_profile(head[name], timezone) for name in head.columns)
    times = {c.name: times_as_utc(head[c.name], timezone).drop_nulls() for c in columns if c.kind == "time"}
    earliest: dict[str, Any] = {name: values.min() for name, values in times.items()}
    latest: dict[str, Any] = {name: values.max() for name, values in times.items()}
    return SourceProfile(_format(source, path), head.height, columns, earliest, latest)


def _profile(values: pl.Series, timezone: str) -> ColumnProfile:
    known = values.drop_nulls()
    counts = known.cast(pl.String).value_counts(sort=True, name="n").sort(["n", values.name], descending=[True, False])
    levels = tuple(counts[values.name].head(50).to_list())
    missing = values.null_count() / len(values) if len(values) else 0.0
    return ColumnProfile(values.name, _kind(known, timezone), missing, counts.height, levels)


def _kind(known: pl.Series, timezone: str) -> str:
    if known.dtype == pl.Boolean:
        return "boolean"
    if known.dtype.is_numeric():
        return "numeric"
    if known.dtype.is_temporal():
        return "time"
    texts = known.cast(pl.String).str.strip_chars()
    if texts.is_empty():
        return "text"
    if texts.str.to_lowercase().is_in(["true", "false", "yes", "no"]).all():
        return "boolean"
    if texts.cast(pl.Float64, strict=False).is_not_null().all():
        return "numeric"
    if times_as_utc(texts, timezone).is_not_null().all():
        return "time"
    return "text"


def _part(config: MonitorConfig, which: Which) -> SourceConfig | LabelsConfig:
    part = config.source if which == "source" else config.labels
    if part is None:
        raise SourceError(f"monitor '{config.name}' has no labels", next_step="add 'labels:' with a path")
    return part


def _format(part: SourceConfig | LabelsConfig, uri: str) -> str:
    suffix = PurePosixPath(uri.removesuffix(".gz")).suffix
    chosen = part.format or FORMATS.get(suffix)
    if chosen is None:
        raise SourceError(
            f"the format of {uri} is not known", expected="parquet, csv or jsonl", next_step="set the key 'format'"
        )
    return chosen


def _read(
    path: Path, uri: str, part: SourceConfig | LabelsConfig, wanted: Wanted, text: SourceConfig, key: str
) -> Iterator[RawBatch]:
    kind = _format(part, uri)
    if kind == "parquet":
        return read_parquet(path, uri, wanted)
    if kind == "csv":
        return read_csv(path, uri, wanted, encoding=text.encoding, separator=text.separator, key=key)
    return read_jsonl(path, uri, wanted, encoding=text.encoding, key=key)


def _local_files(pattern: str, base: Path) -> list[SourceFile]:
    literal = base / pattern
    # glob sees only the pattern, never the base folder, whose name may hold brackets
    names = [] if literal.exists() else glob.glob(pattern, root_dir=base, recursive=True)  # noqa: PTH207
    paths = [base / n for n in names] or [literal]
    files = [f for p in paths for f in (p.iterdir() if p.is_dir() else [p])]
    found = []
    for file in files:
        if file.is_file() and not file.name.startswith((".", "_")):
            stat = file.stat()
            found.append(SourceFile(file.as_posix(), stat.st_size, datetime.fromtimestamp(stat.st_mtime_ns / 1e9, UTC)))
    return found


def _remote_files(pattern: str) -> list[SourceFile]:
    address, _, options = pattern.partition("?")
    scheme, _, path = address.partition("://")
    parts = path.split("/")
    fixed = next((i for i, p in enumerate(parts) if any(c in p for c in "*[")), len(parts))
    options = f"?{options}" if options else ""
    filesystem, folder = _open_uri(f"{scheme}://{'/'.join(parts[:fixed])}{options}")
    try:
        infos = [filesystem.get_file_info(folder)]
        if fixed < len(parts) or infos[0].type == pafs.FileType.Directory:
            infos = filesystem.get_file_info(pafs.FileSelector(folder, recursive=True, allow_not_found=True))
        bucket = folder.partition("/")[0]
        if not any(i.type == pafs.FileType.File for i in infos) and bucket:
            _require_bucket(filesystem, bucket)
    except OSError as error:
        raise _unreachable(pattern, error) from error
    wanted = [folder.rstrip("/"), *parts[fixed:]] if fixed < len(parts) else None
    return [
        SourceFile(f"{scheme}://{i.path}{options}", i.size, i.mtime or datetime.fromtimestamp(0, UTC))
        for i in infos
        if i.type == pafs.FileType.File
        and not i.base_name.startswith((".", "_"))
        and (wanted is None or _matches(i.path[len(wanted[0]) + 1 :].split("/"), wanted[1:]))
    ]


def _require_bucket(filesystem: Any, bucket: str) -> None:
    """Nothing below a bucket that exists is a missing day; a bucket that does not exist is a wrong address."""
    try:
        found = filesystem.get_file_info(bucket).type
    except OSError as error:
        if isinstance(error, PermissionError) or "ACCESS_DENIED" in str(error):
            return  # the listing below it was allowed, which is all that is needed
        raise
    if found == pafs.FileType.NotFound:
        raise FileNotFoundError(f"there is no bucket '{bucket}'")


def _matches(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    """Glob part by part: `*` stays within a part, `**` stands for any number of parts.

    >>> _matches(["2025", "a.csv"], ["**", "*.csv"]), _matches(["2025", "a.csv"], ["*.csv"])
    (True, False)
    """
    if not patterns:
        return not parts
    if patterns[0] == "**":
        return _matches(parts, patterns[1:]) or (bool(parts) and _matches(parts[1:], patterns))
    return bool(parts) and fnmatchcase(parts[0], patterns[0]) and _matches(parts[1:], patterns[1:])


def _open_uri(uri: str) -> tuple[Any, str]:
    try:
        filesystem, inner = pafs.FileSystem.from_uri(uri)
    except (ValueError, OSError, NotImplementedError) as error:
        raise _unreachable(uri, error) from error
    return filesystem, inner


def _unreachable(uri: str, error: Exception) -> SourceError:
    return SourceError(
        f"{uri} cannot be reached",
        found=str(error).rstrip("."),
        next_step="check the address, the credentials and the network",
    )
