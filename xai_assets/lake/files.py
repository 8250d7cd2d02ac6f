"""Whole files on a local disk or an object store: open, list, replace atomically, delete.

Belongs here: what differs between a disk and an object store. Does not belong here: Parquet, tables, partitions.
"""

import contextlib
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pyarrow.fs as pafs

from xai_assets.errors import LakeError

STALE_SECONDS = 3600.0
"""Age from which a temporary file is taken for the leftover of a killed writer."""
_WITHOUT_FOLDERS = ("s3", "gcs", "abfs")
"""Stores in which a folder would be an object of its own that nobody needs."""


class FileStore(Protocol):
    """Files under one root, named by relative paths with forward slashes."""

    root: str
    is_local: bool
    filesystem: Any
    """The `pyarrow.fs.FileSystem` below."""

    def inner(self, name: str) -> str:
        """Path of a file within `filesystem`."""
        ...

    def address(self, name: str) -> str:
        """Path or URI of a file, as other tools understand it."""
        ...

    def open(self, name: str) -> Any:
        """Random-access `pyarrow.NativeFile`. Raises FileNotFoundError."""
        ...

    def version(self, name: str) -> tuple[int, int] | None:
        """(size in bytes, modification time in ns), or None where there is no such file."""
        ...

    def names(self, folder: str) -> list[str]:
        """Every file below a folder, sorted; an absent folder has none."""
        ...

    def delete(self, name: str) -> None:
        """Remove a file; an absent one is fine."""
        ...

    def replacing(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """A local path to write to; on clean exit its content becomes the file, in one step."""
        ...


def open_root(root: str) -> FileStore:
    """The store behind a local path or a URI (`file://`, `s3://`, `gs://`, ...)."""
    if "://" not in root:
        return LocalFiles(Path(root).expanduser().absolute())
    try:
        filesystem, inner = pafs.FileSystem.from_uri(root)
    except (ValueError, OSError, NotImplementedError) as error:
        raise LakeError(
            f"'{root}' cannot be opened as the root of the lake",
            expected="a path, or a URI such as s3://bucket/prefix",
            found=str(error),
        ) from error
    if isinstance(filesystem, pafs.LocalFileSystem):
        return LocalFiles(Path(inner))
    return ObjectFiles(root, filesystem, inner.rstrip("/"))


class LocalFiles:
    """Files on a disk. A replacement is a temporary file beside its place, fsync, then one rename."""

    is_local = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder.as_posix()
        self.filesystem: Any = pafs.LocalFileSystem()

    def address(self, name: str) -> str:
        return f"{self.root}/{name}"

    def inner(self, name: str) -> str:
        return self.address(name)

    def open(self, name: str) -> Any:
        return self.filesystem.open_input_file(self.address(name))

    def version(self, name: str) -> tuple[int, int] | None:
        try:
            found = Path(self.address(name)).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_size, found.st_mtime_ns

    def names(self, folder: str) -> list[str]:
        base = self.folder / folder
        found = [
            f"{Path(place).relative_to(self.folder).as_posix()}/{name}"
            for place, _, names in os.walk(base)
            for name in names
            if not name.startswith(".")
        ]
        return sorted(found)

    def delete(self, name: str) -> None:
        path = Path(self.address(name))
        path.unlink(missing_ok=True)
        # The folder goes too, unless a writer is at work in it.
        with contextlib.suppress(OSError):
            path.parent.rmdir()

    @contextlib.contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        path = Path(self.address(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
        try:
            yield temporary
            _flush_to_disk(temporary)
            temporary.replace(path)
            _flush_to_disk(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


class ObjectFiles:
    """Objects in a bucket. A replacement is written to a local temporary file and sent as one object.

    It is not written straight into the object's stream: pyarrow closes a stream that goes out of scope, and closing
    completes the upload, so an exception in the middle would leave half a partition in the place of the old one.
    """

    is_local = False

    def __init__(self, root: str, filesystem: Any, inner: str) -> None:
        base, mark, options = root.partition("?")
        self._base, self._options = base.rstrip("/"), mark + options
        self.root = self._base + self._options
        self.filesystem, self._inner = filesystem, inner

    def address(self, name: str) -> str:
        return f"{self._base}/{name}{self._options}"

    def inner(self, name: str) -> str:
        return f"{self._inner}/{name}" if self._inner else name

    def open(self, name: str) -> Any:
        return self.filesystem.open_input_file(self.inner(name))

    def version(self, name: str) -> tuple[int, int] | None:
        info = self.filesystem.get_file_info(self.inner(name))
        if info.type != pafs.FileType.File:
            return None
        return info.size, info.mtime_ns or 0

    def names(self, folder: str) -> list[str]:
        selector = pafs.FileSelector(self.inner(folder), recursive=True, allow_not_found=True)
        start = len(self._inner) + 1 if self._inner else 0
        found = self.filesystem.get_file_info(selector)
        return sorted(f.path[start:] for f in found if f.type == pafs.FileType.File)

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_file(self.inner(name))

    @contextlib.contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="xai_assets_") as spool:
            temporary = Path(spool) / "object"
            yield temporary
            if self.filesystem.type_name not in _WITHOUT_FOLDERS:
                self.filesystem.create_dir(self.inner(name).rpartition("/")[0], recursive=True)
            pafs.copy_files(
                temporary.as_posix(),
                self.inner(name),
                source_filesystem=pafs.LocalFileSystem(),
                destination_filesystem=self.filesystem,
            )


def _flush_to_disk(path: Path) -> None:
    """fsync a file, or a folder where the platform can open one."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    """Remove what killed writers left behind; a young temporary file may belong to a living one."""
    oldest_alive = time.time() - STALE_SECONDS
    for leftover in folder.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # another writer swept it first
            if leftover.stat().st_mtime < oldest_alive:
                leftover.unlink()
