"""Where trained artifacts are kept.

Belongs here: content-addressed files, written whole or not at all, and the record of one registered version.
Does not belong here: the table of versions (see `lake`), deciding what is registered (see `decide`).
"""

import dataclasses
import hashlib
import os
import tempfile
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from xai_assets.errors import ModelError


@dataclass(frozen=True)
class ModelVersion:
    """One row of the table `model_versions`; the fields are its columns, in order."""

    registered_at: datetime
    role: str
    sha256: str
    artifact: str
    recommendation_id: str
    trained_from: date
    trained_to: date
    tested_from: date
    tested_to: date
    train_rows: int
    test_rows: int
    focus_segments: tuple[str, ...]
    focus_features: tuple[str, ...]
    metric: str
    candidate_metric: float
    incumbent_metric: float
    decision: str
    provenance: str

    def row(self) -> dict[str, Any]:
        """Values by column, with lists where the table has lists."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def register_artifact(model_dir: str | Path, monitor: str, role: str, artifact: bytes | str | Path) -> tuple[str, str]:
    """Store an artifact as ``<model_dir>/<monitor>/<role>-<sha12>.ubj`` and return its path and SHA-256.

    Content-addressed: the same bytes go to the same place, so registering twice changes nothing. The file is written
    beside its place and moved in by one atomic replace (on an object store: one PUT). A file that is already there
    with other content (a damaged disk) is replaced.

    Parameters
    ----------
    model_dir
        Local folder or URI (``s3://bucket/models``).
    artifact
        The bytes, or the path of a local file. XGBoost JSON gets the ending ``.json``.

    Raises
    ------
    ModelError
        The artifact is empty or cannot be read, or the folder cannot be written.
    """
    try:
        raw = artifact if isinstance(artifact, bytes) else Path(artifact).read_bytes()
    except OSError as error:
        raise ModelError(f"artifact {artifact!s} cannot be read", found=str(error.strerror)) from error
    if not raw:
        raise ModelError("an empty artifact cannot be registered")
    digest = hashlib.sha256(raw).hexdigest()
    suffix = ".json" if raw[:2] in (b'{"', b"{ ", b"{\n") else ".ubj"
    name = f"{role}-{digest[:12]}{suffix}"
    try:
        if "://" in str(model_dir):
            return _put(f"{str(model_dir).rstrip('/')}/{monitor}/{name}", raw), digest
        return _replace(Path(model_dir) / monitor / name, raw), digest
    except (OSError, ValueError) as error:
        raise ModelError(
            f"artifact {name} cannot be stored in {model_dir}",
            found=str(error).splitlines()[0],
            next_step="check that the folder can be written and that the disk is not full",
        ) from error


def _replace(place: Path, raw: bytes) -> str:
    if place.is_file() and place.stat().st_size == len(raw) and place.read_bytes() == raw:
        return str(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(raw)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(place)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return str(place)


def _put(uri: str, raw: bytes) -> str:
    from pyarrow import fs

    filesystem, inner = fs.FileSystem.from_uri(uri)
    if filesystem.get_file_info(inner).size == len(raw):
        with filesystem.open_input_stream(inner) as stream:
            if stream.read() == raw:
                return uri
    with filesystem.open_output_stream(inner) as stream:
        stream.write(raw)
    return uri
