"""Which days a user's files speak of, and the path with `{date}` that names them all.

Belongs here: dates in paths. Does not belong here: what is inside the files (see `lake.source`).
"""

import glob
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from xai_assets.errors import SourceError

_FORMS = (
    (re.compile(r"(?<!\d)(\d{4})-(\d{2})-(\d{2})(?!\d)"), "{date}"),
    (re.compile(r"(?<!\d)(\d{4})/(\d{2})/(\d{2})(?!\d)"), "{date:%Y/%m/%d}"),
    (re.compile(r"(?<!\d)(\d{4})_(\d{2})_(\d{2})(?!\d)"), "{date:%Y_%m_%d}"),
    (re.compile(r"(?<!\d)(\d{4})(\d{2})(\d{2})(?!\d)"), "{date:%Y%m%d}"),
)


@dataclass(frozen=True)
class LogFiles:
    """A path for `source.path`, the files behind it in order of time, and the days in their names (() where none)."""

    pattern: str
    files: tuple[Path, ...]
    days: tuple[date, ...]


def find_logs(given: Sequence[str]) -> LogFiles:
    """From a file, several files, or a glob to the path that also names the days to come.

    Raises
    ------
    SourceError
        There is no such file, or the files do not share one pattern.
    """
    files = sorted({Path(p).absolute() for text in given for p in _matching(text)})
    if not files:
        raise SourceError(f"there is no file {' '.join(given)}", next_step="give a log file, or a glob in quotes")
    dated = [(with_date(f.as_posix()), f) for f in files]
    if all(day is None for (_, day), _ in dated):
        return LogFiles(_undated(files, given), tuple(files), ())
    patterns = {pattern for (pattern, day), _ in dated if day is not None}
    pattern = patterns.pop() if len(patterns) == 1 else _with_stars(patterns)
    days = {day for (_, day), _ in dated if day is not None}
    siblings = _siblings(pattern)
    known = sorted((d, f) for (_, d), f in [*dated, *siblings] if d is not None)
    return LogFiles(pattern, tuple(dict.fromkeys(f for _, f in known)), tuple(sorted(days | {d for d, _ in known})))


def with_date(path: str) -> tuple[str, date | None]:
    """The path with its date replaced, and the date. The part nearest to the file's name counts.

    >>> with_date("logs/2025-01-31.parquet")
    ('logs/{date}.parquet', datetime.date(2025, 1, 31))
    >>> with_date("logs/2025/01/31/part-0.csv")[0]
    'logs/{date:%Y/%m/%d}/part-0.csv'
    >>> with_date("logs/20259999.csv")
    ('logs/20259999.csv', None)
    """
    for form, placeholder in _FORMS:
        for match in reversed(list(form.finditer(path))):
            try:
                day = date(int(match[1]), int(match[2]), int(match[3]))
            except ValueError:
                continue
            return path.replace(match[0], placeholder), day
    return path, None


def _matching(text: str) -> list[str]:
    if Path(text).is_file():
        return [text]
    if Path(text).is_dir():
        text = f"{glob.escape(text)}/**/*.*"
    found = glob.glob(text, recursive=True)  # noqa: PTH207 - the pattern may be absolute
    return [p for p in found if Path(p).is_file() and not Path(p).name.startswith((".", "_"))]


def _siblings(pattern: str) -> list[tuple[tuple[str, date | None], Path]]:
    """Files of other days that the pattern names too."""
    wild = re.sub(r"\{date(:%Y/%m/%d)?[^}]*\}", lambda m: "*/*/*" if m[1] else "*", _escaped(pattern))
    found = [Path(p) for p in glob.glob(wild)]  # noqa: PTH207 - the pattern is absolute
    dated = [(with_date(f.as_posix()), f) for f in found]
    return [item for item in dated if _fits(item[0][0], pattern)]


def _escaped(pattern: str) -> str:
    return "".join("[[]" if c == "[" else c for c in pattern)


def _fits(path: str, pattern: str) -> bool:
    parts = [re.escape(p) for p in pattern.split("*")]
    return re.fullmatch("[^/]*".join(parts), path) is not None


def _with_stars(patterns: Iterable[str]) -> str:
    """One pattern for several: what differs within a part of the path becomes `*`."""
    split = [p.split("/") for p in sorted(patterns)]
    if len({len(s) for s in split}) > 1:
        raise SourceError("the log files lie at different depths", found=", ".join(sorted(patterns)[:3]))
    return "/".join(_starred(parts) for parts in zip(*split, strict=True))


def _starred(parts: Sequence[str]) -> str:
    if len(set(parts)) == 1:
        return parts[0]
    head = _common(parts)
    tail = _common([p[len(head) :][::-1] for p in parts])[::-1]
    middle = next((m for p in parts if (m := re.search(r"\{date[^}]*\}", p[len(head) : len(p) - len(tail)]))), None)
    return f"{head}*{middle[0]}*{tail}" if middle else f"{head}*{tail}"


def _common(texts: Sequence[str]) -> str:
    shortest = min(texts, key=len)
    return next((shortest[:i] for i, c in enumerate(shortest) if any(t[i] != c for t in texts)), shortest)


def _undated(files: Sequence[Path], given: Sequence[str]) -> str:
    if len(files) == 1:
        return files[0].as_posix()
    if len(given) == 1 and not Path(given[0]).is_dir():
        return Path(given[0]).absolute().as_posix()
    return _with_stars({f.as_posix() for f in files})
