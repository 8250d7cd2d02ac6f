"""How this package compiles: once per machine, cached on disk where that is possible.

Belongs here: the choice between cached and uncached compilation, and when a cache is out of date.
Does not belong here: what is compiled.
"""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from numba import njit
from numba.core.caching import IndexDataCacheFile

_log = logging.getLogger(__name__)
_Function = TypeVar("_Function", bound=Callable[..., Any])


def sources_digest() -> str:
    """Hash of every module of this package: constants of one are built into the machine code of another."""
    digest = hashlib.sha256()
    for module in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(module.name.encode() + b"\0" + module.read_bytes())
    return digest.hexdigest()


_SOURCES = sources_digest()


def compiled(*signature: Any) -> Callable[[_Function], _Function]:
    """Decorator: machine code without the interpreter's lock, without bounds checks, cached across processes.

    With a signature the code is made (or read from the cache) at once, else at the first call. Where no cache
    folder can be written (a read-only installation without a home), it is compiled in every process, and a
    warning is logged once per function.
    """
    options: dict[str, Any] = {"nogil": True, "boundscheck": False, "error_model": "numpy"}

    def decorate(function: _Function) -> _Function:
        try:
            dispatcher: Any = njit(cache=True, **options)(function)
            _follow_all_sources(dispatcher)
        except RuntimeError as error:
            if "cannot cache function" not in str(error):
                raise
            _log.warning(
                "compiled code of %s cannot be kept (%s): every process compiles it again, which takes seconds; "
                "set NUMBA_CACHE_DIR to a folder that can be written",
                function.__name__,
                error,
            )
            dispatcher = njit(**options)(function)
        if signature:
            dispatcher.compile(signature)
        return dispatcher  # type: ignore[no-any-return]

    return decorate


def _follow_all_sources(dispatcher: Any) -> None:
    """Make the cache ask for the sources of the package; numba's own stamp is that of the function's file alone."""
    cache = dispatcher._cache
    implementation = cache._impl
    stamp = (implementation.locator.get_source_stamp(), _SOURCES)
    cache._cache_file = IndexDataCacheFile(  # type: ignore[no-untyped-call]
        cache._cache_path, implementation.filename_base, stamp
    )
