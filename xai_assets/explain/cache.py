"""Explainers made once per process.

Belongs here: keeping a few built things by key, each built once however many threads ask.
Does not belong here: what is built (see `selection`).
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class BuildOnce(Generic[T]):
    """At most `size` built values, the least recently used leave first.

    Builds of different keys run side by side; a second thread that asks for a key being built waits for it. A build
    that raises leaves nothing behind, so the next call tries again.

    >>> kept = BuildOnce(2)
    >>> [kept.get(key, lambda: key * 10) for key in (1, 1, 2)], kept.builds
    ([10, 10, 20], 2)
    """

    def __init__(self, size: int) -> None:
        self.builds = 0
        self._size = size
        self._kept: OrderedDict[Hashable, T] = OrderedDict()
        self._building: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, build: Callable[[], T]) -> T:
        """The value kept under `key`, built now where there is none."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            turn = self._building.setdefault(key, threading.Lock())
        with turn:
            with self._lock:
                if key in self._kept:
                    return self._kept[key]
            try:
                value = build()
                with self._lock:
                    self._keep(key, value)
            finally:
                with self._lock:
                    self._building.pop(key, None)
            return value

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)

    def _keep(self, key: Hashable, value: T) -> None:
        self._kept[key] = value
        self.builds += 1
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)
