"""Rows over threads, the one way in which this package uses several processors.

Belongs here: how many threads, and who gets which rows. Does not belong here: what is done with them.

Compiled code runs without the interpreter's lock, so plain threads are enough. (numba's own share one pool, which may
end the process when two callers enter it at once.)
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def over_threads(task: Callable[[int, int], None], length: int, size: int, threads: int | None) -> None:
    """Call task(first, last) for consecutive pieces of `size` that cover range(length), at most `threads` at once.

    Tasks write to places of their own, so their order and number do not matter. None: all processors.
    """
    pieces = [(first, min(first + size, length)) for first in range(0, length, size)]
    workers = min(threads or processors(), len(pieces))
    if workers <= 1:
        for first, last in pieces:
            task(first, last)
        return
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(task, *zip(*pieces, strict=True)))
