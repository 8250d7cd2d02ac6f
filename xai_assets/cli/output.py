"""What a command prints: text and tables for people, or one JSON document for machines.

Belongs here: layout, colours, JSON encoding. Does not belong here: what is worth saying.
"""

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Literal, TextIO

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 140
"""Columns of text where stdout is no terminal; a terminal has its own width."""
MIN_WIDTH = 8
"""Characters of a column under which its words cannot be read."""
COLOURS = {"critical": "bold red", "warning": "yellow", "noted": "cyan", "yes": "green", "no": "bold red"}


@dataclass(frozen=True)
class Output:
    """Where a command's words go. In JSON mode only `document` writes to stdout."""

    is_json: bool = False

    def document(self, content: Mapping[str, Any]) -> None:
        """The command's result as JSON; nothing in text mode."""
        if self.is_json:
            json.dump(_plain(content), sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
            sys.stdout.write("\n")

    def say(self, text: str = "") -> None:
        """A line for people."""
        if not self.is_json:
            console(sys.stdout).print(text, markup=False, highlight=False)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "") -> None:
        """A table for people; numbers are aligned right. Where columns would have less than `MIN_WIDTH` characters:
        one row after the other, a line per column."""
        if self.is_json:
            return
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        texts = [[cell(v) for v in row] for row in rows]
        terminal = console(sys.stdout)
        widths = column_widths([columns, *texts], terminal.width)
        if any(w < min(MIN_WIDTH, max(len(t[i]) for t in [columns, *texts])) for i, w in enumerate(widths)):
            self.records(columns, texts, title)
            return
        for i, name in enumerate(columns):
            numeric = bool(rows) and all(isinstance(r[i], int | float) or r[i] is None for r in rows)
            justify: Literal["left", "right"] = "right" if numeric else "left"
            table.add_column(Text(name), justify=justify, overflow="fold", width=widths[i])
        for row in texts:
            table.add_row(*(Text(t, style=COLOURS.get(t, "")) for t in row))
        terminal.print(table)

    def records(self, columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
        """Rows that no table holds, one below the other: `column  value`; empty values are left out."""
        wide = max(map(len, columns))
        if title:
            self.say(title)
        for number, row in enumerate(rows, 1):
            self.say(f"— {number} —")
            for name, text in zip(columns, row, strict=True):
                if text:
                    self.say(f"{name:<{wide}}  {text}")

    def sentences(self, texts: Iterable[str]) -> None:
        """A list of sentences under a table; what is said twice is printed once."""
        for text in dict.fromkeys(texts):
            self.say(f"  • {text}")
        self.say()

    def error(self, text: str) -> None:
        """Why nothing came of it, on stderr."""
        console(sys.stderr).print(f"xai: {text}", markup=False, highlight=False, style="red")


def column_widths(rows: Sequence[Sequence[str]], available: int) -> list[int]:
    """Characters per column, so that the table fits and words are broken only where nothing else helps.

    >>> column_widths([["a long text of words", "id-1"]], 40)
    [20, 4]
    >>> column_widths([["a long text of words", "id-1"]], 18)
    [8, 4]
    """
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, texts)) for texts in columns]
    words = [max((len(w) for t in texts for w in t.split()), default=1) for texts in columns]
    room = available - 3 * len(columns)  # what rich puts between and around them
    while sum(widths) > room and max(widths) > 1:
        breakable = [i for i, w in enumerate(widths) if w > words[i]] or list(range(len(widths)))
        widths[max(breakable, key=lambda i: widths[i])] -= 1
    return widths


def console(stream: TextIO) -> "Console":
    """A console on the stream; as wide as the terminal, or `PIPE_WIDTH`."""
    from rich.console import Console

    return Console(file=stream, width=None if stream.isatty() else PIPE_WIDTH)


def cell(value: Any) -> str:
    """A value as the text of a table cell.

    >>> cell(0.123456), cell(12345), cell(None), cell(["a", "b"]), cell(True)
    ('0.1235', '12,345', '', 'a, b', 'yes')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, list | tuple):
        return ", ".join(cell(v) for v in value)
    return str(value)


def _plain(value: Any) -> Any:
    """JSON has no date, tuple or NaN: ISO text, list, null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v) for v in value]
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, int | float | str | bool | None) else str(value)
