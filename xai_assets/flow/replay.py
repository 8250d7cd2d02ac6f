"""Reading a day's source files with the two models at hand.

Belongs here: the replay of rows through both artifacts, in output units.
Does not belong here: reading, validating and storing rows (`lake.ingest`).
"""

from collections.abc import Callable
from datetime import date

import polars as pl

from xai_assets.flow.monitor import Monitor
from xai_assets.lake.ingest import ingest_day
from xai_assets.records import MODEL_ROLES, Float64, IngestReport


def replayer(monitor: Monitor) -> Callable[[pl.DataFrame], tuple[Float64, Float64]]:
    """A function from feature columns (stored types) to both models' outputs, float64 [n] each, in output units."""
    models = [monitor.model(role) for role in MODEL_ROLES]
    output = monitor.config.models.output

    def replay(frame: pl.DataFrame) -> tuple[Float64, Float64]:
        production, experimental = (m.predict_output(m.encode(frame), output) for m in models)
        return production, experimental

    return replay


def ingest(monitor: Monitor, day: date, provenance: str) -> IngestReport:
    """Store one day's `replay_log` and `quarantine`. Raises SourceError or ModelError, and stores nothing then."""
    return ingest_day(monitor.lake, monitor.config, day, monitor.categories, replayer(monitor), provenance)
