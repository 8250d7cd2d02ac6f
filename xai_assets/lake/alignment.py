"""Reading tables that share one row order side by side, in batches.

Belongs here: walking replay_log, divergence_set and the attribution tables of a day in step, by position instead
of by a join on a million request ids. Does not belong here: what is done with the rows.
"""

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from xai_assets.errors import ProvenanceError
from xai_assets.lake.store import Lake


class RowReader:
    """Takes any number of rows at a time from a stream of frames."""

    def __init__(self, frames: Iterator[pl.DataFrame]) -> None:
        self._frames = frames
        self._held: list[pl.DataFrame] = []
        self._rows = 0

    def take(self, rows: int) -> pl.DataFrame:
        """The next `rows` rows. Raises ProvenanceError where the stream ends sooner."""
        while self._rows < rows:
            frame = next(self._frames, None)
            if frame is None:
                raise ProvenanceError(
                    "two tables of one day do not have the same rows",
                    expected=f"{rows} more rows",
                    found=f"{self._rows}",
                    next_step="materialize the day again from divergence_set on",
                )
            self._held.append(frame)
            self._rows += frame.height
        if not self._held:
            raise ProvenanceError("an empty stream has no rows to take")
        joined = pl.concat(self._held) if len(self._held) > 1 else self._held[0]
        self._held, self._rows = [joined[rows:]], joined.height - rows
        return joined[:rows]


def explained_batches(
    lake: Lake, monitor: str, day: date, columns: Sequence[str], batch_rows: int = 65_536
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """Batches of (divergence_set rows, the same requests' replay_log rows with `columns`), in stored order.

    Memory is that of one batch of each table. Batches without an explained request are passed over.
    """
    chosen = RowReader(lake.batches("divergence_set", monitor, day, batch_rows=batch_rows))
    indices = lake.read("divergence_set", monitor, day, columns=["row_index"])["row_index"].to_numpy()
    offset, done = 0, 0
    for rows in lake.batches("replay_log", monitor, day, columns=list(columns), batch_rows=batch_rows):
        end = int(indices.searchsorted(offset + rows.height))
        if end > done:
            yield chosen.take(end - done), rows[indices[done:end].astype("int64") - offset]
        offset, done = offset + rows.height, end
    if done < len(indices):
        raise ProvenanceError(
            f"the divergence_set of {day} points past the end of its replay_log",
            expected=f"positions below {offset}",
            found=str(int(indices[-1])),
            next_step="materialize the day again from divergence_set on",
        )


def rows_at(
    lake: Lake,
    table: str,
    monitor: str,
    day: date,
    columns: Sequence[str],
    positions: npt.NDArray[np.integer[Any]],
    batch_rows: int = 65_536,
) -> pl.DataFrame:
    """The rows of a partition at rising 0-based `positions`, in that order. Memory is theirs and that of one batch.

    Raises ProvenanceError where a position is past the end.
    """
    offset, done = 0, 0
    parts: list[pl.DataFrame] = []
    for rows in lake.batches(table, monitor, day, columns=list(columns), batch_rows=batch_rows):
        end = int(np.searchsorted(positions, offset + rows.height))
        if end > done or not parts:
            parts.append(rows[positions[done:end].astype(np.int64) - offset])
        offset, done = offset + rows.height, end
    if done < len(positions):
        raise ProvenanceError(
            f"a position of {day} is past the end of {table}",
            expected=f"positions below {offset}",
            found=str(int(positions[-1])),
            next_step="materialize the day again from divergence_set on",
        )
    if not parts:
        return lake.read(table, monitor, day, columns)  # a partition without rows has no batch
    return pl.concat(parts)
