"""Daily histograms of attributions, their differences, the inputs and the outputs, over the reference's cells.

Belongs here: walking a day's rows and attributions side by side and filling the blocks.
Does not belong here: the kernel that counts (`stats.histograms`), the reference itself (`flow.reference`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from xai_assets.config import MonitorConfig
from xai_assets.flow.monitor import Monitor
from xai_assets.lake.alignment import RowReader, explained_batches
from xai_assets.lake.histogram_rows import Blocks, blocks_to_frame
from xai_assets.lake.segments import segment_codes
from xai_assets.lake.tables import PHI
from xai_assets.models.artifact import encode_features
from xai_assets.records import (
    DIFFERENCE,
    EXPERIMENTAL,
    INPUT,
    MODEL_ROLES,
    OUTPUT,
    OUTPUT_FEATURES,
    POPULATIONS,
    PRODUCTION,
    ROLES,
    Edges,
    Float64,
)
from xai_assets.stats.histograms import accumulate, empty_block

BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Profile:
    """The reference: cells' borders per role, segments, and the reference days' histograms.

    Each role has features of its own: those of `edges[role]`, in that order.
    """

    profile_hash: str
    segments: tuple[str, ...]
    edges: dict[str, tuple[Edges, ...]]
    blocks: Blocks


@dataclass(frozen=True)
class ExplainedBatch:
    """One batch of explained requests: values per role [n, d], weights 1/π, who diverges, their rows.

    values: float32, of role output float64; d is the role's own number of features (`role_features`).

    context: holds the segment columns, if there are any; its height is n.
    """

    values: dict[str, np.ndarray]
    weights: np.ndarray
    divergent: np.ndarray
    context: pl.DataFrame


def role_features(config: MonitorConfig, role: str) -> tuple[str, ...]:
    """Names of the columns that a role's values have: the model inputs, or what the models gave (role output)."""
    return OUTPUT_FEATURES if role == OUTPUT else config.feature_names


def explained_values(monitor: Monitor, day: date) -> Iterator[ExplainedBatch]:
    """A day's explained requests: attributions of both models, their difference, the encoded inputs, the outputs."""
    lake, name, config = monitor.lake, monitor.name, monitor.config
    features, segments = config.feature_names, config.segment_columns
    phi = [f"{PHI}{f}" for f in features]
    readers = {
        r: RowReader(lake.batches(f"{r}_attributions", name, day, columns=phi, batch_rows=BATCH_ROWS))
        for r in MODEL_ROLES
    }
    columns = list(dict.fromkeys((*features, *segments, *_OUTPUT_COLUMNS)))
    for chosen, rows in explained_batches(lake, name, day, columns, BATCH_ROWS):
        values: dict[str, np.ndarray] = {
            r: readers[r].take(chosen.height).to_numpy().astype(np.float32, copy=False) for r in MODEL_ROLES
        }
        values[DIFFERENCE] = values[EXPERIMENTAL] - values[PRODUCTION]
        values[INPUT] = encode_features(rows, monitor.features, unseen="own_code")
        values[OUTPUT] = _outputs(rows)
        yield ExplainedBatch(
            values=values,
            weights=1.0 / chosen["inclusion_probability"].to_numpy(),
            divergent=chosen["is_divergent"].to_numpy(),
            context=rows,
        )


_OUTPUT_COLUMNS = tuple(f"{role}_output" for role in MODEL_ROLES)


def _outputs(rows: pl.DataFrame) -> Float64:
    """Production output, experimental output, and how much higher the second is; float64 [n, 3], NaN where missing."""
    production, experimental = (rows[c].cast(pl.Float64).to_numpy() for c in _OUTPUT_COLUMNS)
    return np.column_stack((production, experimental, experimental - production))


def day_blocks(monitor: Monitor, day: date, segments: Sequence[str], edges: dict[str, tuple[Edges, ...]]) -> Blocks:
    """Histograms of one day: every role × population. Memory is that of one batch and of the blocks."""
    blocks = {(r, p): empty_block(segments, edges[r]) for r in ROLES for p in POPULATIONS}
    for batch in explained_values(monitor, day):
        codes = segment_codes(batch.context, monitor.config.segment_columns, segments)
        chosen = np.flatnonzero(batch.divergent)
        for role in ROLES:
            values = np.ascontiguousarray(batch.values[role])
            accumulate(blocks[role, "all"], edges[role], values, batch.weights, codes)
            accumulate(blocks[role, "divergent"], edges[role], values[chosen], batch.weights[chosen], codes[chosen])
    return blocks


def write_day_histograms(monitor: Monitor, day: date, profile: Profile, provenance: str) -> Blocks:
    """Fill and store `attribution_histograms` of one day; returns what was stored."""
    blocks = day_blocks(monitor, day, profile.segments, profile.edges)
    frame = blocks_to_frame(blocks)
    divergence = monitor.lake.metadata("divergence_set", monitor.name, day)
    # The divergence report moves in here: the divergence set has a retention, the memory of its rate has none.
    metadata = {
        "provenance": provenance,
        "profile_hash": profile.profile_hash,
        "divergence_report": divergence["report"],
    }
    monitor.lake.write("attribution_histograms", monitor.name, day, frame, metadata)
    return blocks
