"""What a caller hands a reader: a path, the content of a file, or a library's object.

Belongs here: telling them apart and reading files. Does not belong here: any format.
"""

import os
from pathlib import Path
from typing import Any

from xai_assets.errors import ModelError

MAX_BYTES = 4 * 2**30


def file_content(model: Any) -> tuple[bytes, str] | None:
    """Content and a name for messages, of a path or of bytes; None for any other object.

    Raises
    ------
    ModelError
        The file does not exist, cannot be read, is empty or larger than 4 GiB.
    """
    if isinstance(model, (bytes, bytearray, memoryview)):
        raw, location = bytes(model), "the model"
    elif isinstance(model, (str, os.PathLike)):
        location = f"model {os.fspath(model)!s}"
        raw = _read(Path(os.fspath(model)), location)
    else:
        return None
    if not raw:
        raise ModelError(f"{location} is empty", next_step="save the model again")
    return raw, location


def wrong_object(model: Any, expected: str) -> ModelError:
    """The error for an object that is not what a reader reads."""
    kind = type(model)
    return ModelError(
        "this is not a model that can be read",
        expected=expected,
        found=f"{kind.__module__}.{kind.__qualname__}",
        next_step="give the fitted model itself, or the path of its file",
    )


def _read(path: Path, location: str) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(f"{location} is too large to be a model", expected=f"at most {MAX_BYTES} bytes")
        return path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"{location} does not exist", next_step="check the path") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{location} cannot be read", found=str(error), next_step="check path and rights") from error
