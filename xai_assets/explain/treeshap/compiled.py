"""How this package compiles: once per machine, cached on disk where that is possible.

Belongs here: the choice between cached and uncached compilation. Does not belong here: what is compiled.
"""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

_log = logging.getLogger(__name__)
_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(*signature: str) -> Callable[[_Function], _Function]:
    """Decorator: machine code without the interpreter's lock, without bounds checks, cached across processes.

    With a signature the code is made (or read from the cache) at once, else at the first call. Where no cache
    folder can be written (a read-only installation without a home), it is compiled in every process, and a
    warning is logged once per function.
    """
    options: dict[str, Any] = {"nogil": True, "boundscheck": False, "error_model": "numpy"}

    def decorate(function: _Function) -> _Function:
        try:
            return njit(*signature, cache=True, **options)(function)  # type: ignore[call-overload,no-any-return]
        except RuntimeError as error:
            if "cannot cache function" not in str(error):
                raise
            _log.warning(
                "compiled code of %s cannot be kept (%s): every process compiles it again, which takes seconds; "
                "set NUMBA_CACHE_DIR to a folder that can be written",
                function.__name__,
                error,
            )
            return njit(*signature, **options)(function)  # type: ignore[call-overload,no-any-return]

    return decorate
