"""Model files as plain data: XGBoost's JSON and UBJSON.

Belongs here: the two formats. Does not belong here: what a model must look like (see `models.structure`), any use
of it. A module of its own because `models` and `explain` both read such files and never import one another.

XGBoost's own reader trusts its input: of 150 truncated UBJSON files it crashed the process on 5 and was silent on 6.
So a file is read here first, with every length checked, and only a well-formed one is handed on.
UBJSON: https://ubjson.org, draft 12, with the typed arrays that XGBoost writes.
"""

import json
import struct
from typing import Any

import numpy as np

_NUMBERS = {b"i": "b", b"U": "B", b"I": ">h", b"l": ">i", b"L": ">q", b"d": ">f", b"D": ">d"}
_ARRAYS = {b"i": "i1", b"U": "u1", b"I": ">i2", b"l": ">i4", b"L": ">i8", b"d": ">f4", b"D": ">f8"}
_CONSTANTS = {b"T": True, b"F": False, b"Z": None}
_MAX_DEPTH = 32


def parse(raw: bytes) -> dict[str, Any]:
    """The document of a model file. Typed arrays come as numpy arrays, others as lists.

    Raises
    ------
    ValueError
        The file is cut off, malformed, or has bytes after its end.

    >>> parse(b'{"version": [3, 2, 0]}')
    {'version': [3, 2, 0]}
    >>> parse(b'{U\\x01aSU\\x02bc}')
    {'a': 'bc'}
    """
    if raw.lstrip()[:2] == b"{}" or raw.lstrip()[1:].lstrip()[:1] == b'"':
        document = json.loads(raw)
    else:
        reader = _Reader(raw)
        document = reader.value(reader.take(1), 0)
        if reader.position != len(raw):
            raise ValueError(f"{len(raw) - reader.position} bytes after the end of the document")
    if not isinstance(document, dict):
        raise ValueError("the document is not an object")
    return document


class _Reader:
    """A cursor over UBJSON bytes."""

    def __init__(self, raw: bytes) -> None:
        self.raw, self.position = raw, 0

    def take(self, count: int) -> bytes:
        end = self.position + count
        if count < 0 or end > len(self.raw):
            raise ValueError(f"the file ends after {len(self.raw)} bytes, in the middle of a value")
        chunk, self.position = self.raw[self.position : end], end
        return chunk

    def value(self, marker: bytes, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise ValueError(f"nested deeper than {_MAX_DEPTH} levels")
        if marker in _NUMBERS:
            return self._number(marker)
        if marker in (b"S", b"H"):
            return self._text()
        if marker == b"C":
            return self.take(1).decode("latin-1")
        if marker in _CONSTANTS:
            return _CONSTANTS[marker]
        if marker == b"[":
            return self._array(depth)
        if marker == b"{":
            return self._object(depth)
        raise ValueError(f"unknown marker {marker!r} at byte {self.position - 1}")

    def _number(self, marker: bytes) -> Any:
        layout = _NUMBERS[marker]
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def _length(self) -> int:
        marker = self.take(1)
        if marker not in (b"i", b"U", b"I", b"l", b"L"):
            raise ValueError(f"no length at byte {self.position - 1}")
        return int(self._number(marker))

    def _text(self) -> str:
        return self.take(self._length()).decode()

    def _array(self, depth: int) -> Any:
        marker = self.take(1)
        if marker == b"$":
            kind = self.take(1)
            if kind not in _ARRAYS or self.take(1) != b"#":
                raise ValueError(f"malformed typed array at byte {self.position}")
            layout = np.dtype(_ARRAYS[kind])
            return np.frombuffer(self.take(self._length() * layout.itemsize), layout)
        if marker == b"#":
            return [self.value(self.take(1), depth + 1) for _ in range(self._length())]
        items = []
        while marker != b"]":
            items.append(self.value(marker, depth + 1))
            marker = self.take(1)
        return items

    def _object(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while (marker := self.take(1)) != b"}":
            if marker not in (b"i", b"U", b"I", b"l", b"L"):
                raise ValueError(f"no key at byte {self.position - 1}")
            key = self.take(int(self._number(marker))).decode()
            found[key] = self.value(self.take(1), depth + 1)
        return found
