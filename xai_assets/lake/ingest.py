"""One day's files of the user become one partition: read, validate, drop duplicates, replay, store.

Belongs here: the order of these steps. Does not belong here: how a file is read (`source`), what a value may be
(`validate`), which of two rows stays (`spool`), where outputs come from (`outputs`), counting (`ingest_report`).

Footer of `replay_log` and `labels`: `provenance`, `status`, `report` (an `IngestReport` as JSON),
`source_fingerprint` (changes with the files), `content_hash` (changes with the stored rows). Of `quarantine` and
`label_quarantine`: `provenance`.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from xai_assets.config import MonitorConfig
from xai_assets.lake.ingest_report import Counts, Shape, report_json
from xai_assets.lake.outputs import Outputs, Replayer
from xai_assets.lake.readers import RawBatch, Wanted
from xai_assets.lake.source import Which, files_of_day, raw_batches, source_fingerprint
from xai_assets.lake.spool import Spool
from xai_assets.lake.store import Lake, PartitionWriter
from xai_assets.lake.tables import LABELS, QUARANTINE
from xai_assets.lake.validate import ROW, Plan, Validated, labels_plan, replay_plan, stored_schema, validate
from xai_assets.records import IngestReport, SourceFile

_NONE = np.empty(0, np.int64)


def ingest_day(
    lake: Lake,
    config: MonitorConfig,
    day: date,
    categories: Mapping[str, Sequence[str]],
    replay: Replayer,
    provenance: str,
) -> IngestReport:
    """Store one day's `quarantine` and `replay_log`, in this order, each in one step, replacing what was there.

    A day without files is stored with zero rows and status "missing", so that it is known to have been looked at.

    Parameters
    ----------
    categories
        Known levels per categorical feature; others are counted as unseen and stored as they are.
    replay
        Computes outputs that the log does not have, and recomputes a sample of those that it has.

    Raises
    ------
    SourceError, ConfigError
        A file or a column cannot be used at all; nothing is stored then.
    ModelError
        A replayed output is not finite; nothing is stored then.
    LakeError
        A disk is full; what was stored before stays.
    """
    files = files_of_day(config, day)
    schema = stored_schema(config)
    outputs, shape = Outputs(config, replay), Shape(config, categories)
    with _spools(schema, "requested_at") as (good, bad):
        counts = _read_all(config, replay_plan(config, day), files, "source", good, bad)
        superseded = good.superseded()
        # The inner partition is committed first, and both only after the last row was replayed.
        with (
            lake.writer("replay_log", config.name, day) as kept,
            lake.writer("quarantine", config.name, day) as refused,
        ):
            _store_quarantine(refused, bad, provenance)
            digest = _ContentHash()
            kept.append(pl.DataFrame(schema=schema))
            for frame in good.frames(superseded):
                complete = outputs.complete(frame)
                shape.count(complete)
                digest.add(complete)
                kept.append(complete)
            report = counts.report(day, files, kept.rows, len(superseded), config.source.timezone)
            report = outputs.judge(shape.fill(report))
            kept.metadata |= _footer(report, digest, provenance)
    return report


def ingest_labels(lake: Lake, config: MonitorConfig, day: date, provenance: str) -> IngestReport:
    """Store the labels that arrived on a day, and `label_quarantine`; of several for one request the last wins.

    Raises as `ingest_day`, and SourceError where the monitor has no labels.
    """
    files = files_of_day(config, day, "labels")
    with _spools(LABELS.schema, None) as (good, bad):
        counts = _read_all(config, labels_plan(config), files, "labels", good, bad)
        superseded = good.superseded()
        with (
            lake.writer("labels", config.name, day) as kept,
            lake.writer("label_quarantine", config.name, day) as refused,
        ):
            _store_quarantine(refused, bad, provenance)
            digest = _ContentHash()
            for frame in good.frames(superseded):
                digest.add(frame)
                kept.append(frame)
            report = counts.report(day, files, kept.rows, len(superseded), config.source.timezone)
            kept.metadata |= _footer(report, digest, provenance)
    return report


@contextmanager
def _spools(schema: Mapping[str, Any], time_column: str | None) -> Iterator[tuple[Spool, Spool]]:
    with Spool(dict(schema), time_column) as good, Spool(dict(QUARANTINE.schema), None, id_column=None) as bad:
        yield good, bad


def _read_all(
    config: MonitorConfig, plan: Plan, files: Sequence[SourceFile], which: Which, good: Spool, bad: Spool
) -> Counts:
    """Every row of every file into one of the spools, or counted as one of another day."""
    counts = Counts()
    wanted = Wanted(plan.source_columns, others_allowed=config.source.unknown_columns == "ignore" or which == "labels")
    for file in files:
        for batch in raw_batches(config, file, wanted, which):
            checked = validate(batch.frame, plan, file.uri)
            counts.add(batch, checked)
            good.append(_in_schema(checked.rows, good.schema))
            bad.append(_quarantined(batch, checked, file.uri))
    good.close()
    bad.close()
    return counts


def _in_schema(rows: pl.DataFrame, schema: Mapping[str, Any]) -> pl.DataFrame:
    """The stored columns in order; those the source does not have are null."""
    return rows.select(
        pl.col(n).cast(t) if n in rows.columns else pl.lit(None, dtype=t).alias(n) for n, t in schema.items()
    )


def _quarantined(batch: RawBatch, checked: Validated, uri: str) -> pl.DataFrame:
    positions = checked.bad[ROW].to_list()
    rows = {
        "row_number": [*batch.row_numbers.gather(positions), *(b.row_number for b in batch.broken)],
        "reason": [*checked.bad["reason"], *(b.reason for b in batch.broken)],
        "row_json": [*(batch.whole_rows(positions) if positions else []), *(b.text for b in batch.broken)],
    }
    frame = pl.DataFrame(rows, schema={k: QUARANTINE.schema[k] for k in rows}).sort("row_number", maintain_order=True)
    return frame.select(pl.lit(uri).alias("source_file"), pl.all())


def _store_quarantine(writer: PartitionWriter, bad: Spool, provenance: str) -> None:
    writer.metadata["provenance"] = provenance
    for frame in bad.frames(_NONE):
        writer.append(frame)


def _footer(report: IngestReport, digest: "_ContentHash", provenance: str) -> dict[str, str]:
    return {
        "provenance": provenance,
        "status": report.status,
        "report": report_json(report),
        "source_fingerprint": source_fingerprint(report.files),
        "content_hash": digest.hexdigest(),
    }


class _ContentHash:
    """SHA-256 over the stored rows; a file-like sink for Arrow's stream format."""

    closed = False

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        self._digest.update(data)
        return len(data)

    def add(self, frame: pl.DataFrame) -> None:
        table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
        with pa.ipc.new_stream(self, table.schema) as stream:
            stream.write_table(table)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()[:16]
