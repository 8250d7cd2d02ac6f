"""Lines of text files in pieces, with bytes that the encoding does not know kept visible.

Belongs here: encodings, compression, line ends. Does not belong here: columns (see `csv_reader`, `jsonl_reader`).
"""

import codecs
import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from xai_assets.errors import ConfigError

PIECE_CHARACTERS = 8 << 20
_BAD_BYTE = 0x10F000
BAD_BYTES = re.compile(f"[{chr(_BAD_BYTE)}-{chr(_BAD_BYTE + 255)}]")
_KEEP_BYTES = "xai_assets.keep_bytes"


def _keep_bytes(error: UnicodeError) -> tuple[str, int]:
    """Stand-ins (private-use characters) for bytes that the encoding does not know, so that the row can be named."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(_BAD_BYTE + b) for b in error.object[error.start : error.end]), error.end


codecs.register_error(_KEEP_BYTES, _keep_bytes)


def has_bad_bytes(text: str) -> bool:
    """A search for characters outside the BMP costs more than parsing; ASCII is known to have none."""
    return not text.isascii() and BAD_BYTES.search(text) is not None


def open_text(path: Path, encoding: str, key: str) -> TextIO:
    """A text file, unpacked where its name ends in `.gz`. Raises ConfigError for an unknown `<key>.encoding`."""
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


def pieces(stream: TextIO) -> Iterator[tuple[int, list[str], bool]]:
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


def visible(text: str) -> str:
    r"""Undecodable bytes as \xNN, so that the line can be stored whole."""
    shown = BAD_BYTES.sub(lambda m: f"\\x{ord(m[0]) - _BAD_BYTE:02x}", text)
    return shown.encode("utf-8", "backslashreplace").decode()
