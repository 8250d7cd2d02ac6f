"""A day's usable rows on their way into the lake: on local disk, because only the last row tells the duplicates.

Belongs here: the temporary file, and which of its rows are superseded. Does not belong here: what makes a row usable.

Memory is 16 bytes per row (hash of the id, time) plus, for rows whose hash occurs twice, their ids.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from xai_assets.errors import LakeError

_ROW = "__position"


class Spool:
    """Frames of one schema, appended and read back in order, without the rows that a later one replaces.

    Of rows with the same `request_id` the one with the latest time stays, and of several such the last appended.
    The file lies under TMPDIR and is gone when the spool is left.
    """

    def __init__(self, schema: dict[str, Any], time_column: str | None, id_column: str | None = "request_id") -> None:
        self.schema, self._time, self._id = schema, time_column, id_column
        self.rows = 0
        self._hashes: list[npt.NDArray[np.uint64]] = []
        self._times: list[npt.NDArray[np.int64]] = []
        self._folder = tempfile.TemporaryDirectory(prefix="xai_assets_")
        self._path = Path(self._folder.name) / "rows.arrow"
        self._sink = pa.OSFile(str(self._path), "wb")
        self._writer: Any = pa.ipc.new_stream(self._sink, self._arrow(pl.DataFrame(schema=schema)).schema)

    def __enter__(self) -> "Spool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._sink.closed:
            self._sink.close()
        self._folder.cleanup()

    def append(self, frame: pl.DataFrame) -> None:
        """Add rows: the schema's columns, in order."""
        if frame.is_empty():
            return
        if self._id:
            self._hashes.append(frame[self._id].hash(seed=0).to_numpy())
        if self._time:
            self._times.append(frame[self._time].to_physical().to_numpy())
        try:
            self._writer.write_table(self._arrow(frame))
        except OSError as error:
            raise _no_space(self._path, error) from error
        self.rows += frame.height

    def close(self) -> None:
        """End writing; `frames` and `superseded` work from here on."""
        self._writer.close()
        self._sink.close()

    def superseded(self) -> npt.NDArray[np.int64]:
        """Positions of the rows that a later one with the same id replaces, rising."""
        hashes = np.concatenate(self._hashes) if self._hashes else np.empty(0, np.uint64)
        self._hashes = []
        ordered = np.sort(hashes)
        twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        if not len(twice):
            return np.empty(0, np.int64)
        # Equal ids have equal hashes; that different ids may too is settled by the ids themselves.
        suspects = np.flatnonzero(np.isin(hashes, twice))
        times = np.concatenate(self._times)[suspects] if self._time else np.zeros(len(suspects), np.int64)
        ids = pl.concat(ids.gather(local) for ids, local in self._ids_at(suspects))
        rows = pl.DataFrame({"id": ids, "time": times, _ROW: suspects})
        last = rows.sort("time", _ROW).group_by("id").agg(pl.col(_ROW).last())
        return np.setdiff1d(suspects, last[_ROW].to_numpy(), assume_unique=True)

    def frames(self, without: npt.NDArray[np.int64]) -> Iterator[pl.DataFrame]:
        """The rows in the order they came, less those at the given positions."""
        start = 0
        for frame in self._read():
            end = start + frame.height
            gone = without[np.searchsorted(without, start) : np.searchsorted(without, end)] - start
            start = end
            if len(gone):
                keep = np.ones(frame.height, dtype=bool)
                keep[gone] = False
                frame = frame.filter(pl.Series(keep))
            if frame.height:
                yield frame

    def _ids_at(self, positions: npt.NDArray[np.int64]) -> Iterator[tuple[pl.Series, npt.NDArray[np.int64]]]:
        assert self._id
        start = 0
        for frame in self._read([self._id]):
            end = start + frame.height
            local = positions[np.searchsorted(positions, start) : np.searchsorted(positions, end)] - start
            start = end
            if len(local):
                yield frame[self._id], local

    def _read(self, columns: list[str] | None = None) -> Iterator[pl.DataFrame]:
        with pa.OSFile(str(self._path), "rb") as source:  # a memory map would count as memory in use
            for batch in pa.ipc.open_stream(source):
                table = pa.Table.from_batches([batch])
                frame = pl.from_arrow(table.select(columns) if columns else table)
                assert isinstance(frame, pl.DataFrame)
                yield frame

    @staticmethod
    def _arrow(frame: pl.DataFrame) -> Any:
        return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def _no_space(path: Path, error: OSError) -> LakeError:
    return LakeError(
        f"the temporary file {path} could not be written",
        found=str(error),
        next_step="free space there, or point the environment variable TMPDIR at a larger disk, and run again",
    )
