"""Daily histograms of attributions, their differences, the inputs and the outputs, over the reference's cells.

Belongs here: walking a day's rows and attributions side by side and filling the blocks.
Does not belong here: the kernel that counts (`stats.histograms`), the reference itself (`flow.reference`).
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import polars as pl

from xai_assets.config import MonitorConfig
from xai_assets.flow.monitor import Monitor
from xai_assets.lake.alignment import RowReader, explained_batches
from xai_assets.lake.histogram_rows import Blocks, blocks_to_frame
from xai_assets.lake.segments import segment_codes, value_counts
from xai_assets.lake.tables import PHI
from xai_assets.models.artifact import encode_features
from xai_assets.records import (
    DIFFERENCE,
    EXPERIMENTAL,
    INPUT,
    MODEL_ROLES,
    OUTPUT,
    OUTPUT_FEATURES,
    OVERALL,
    POPULATIONS,
    PRODUCTION,
    ROLES,
    Edges,
    Float64,
)
from xai_assets.stats.histograms import accumulate, check_weight, empty_block, null_rows

BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Profile:
    """The reference: cells' borders per role, segments, and the reference days' histograms.

    Each role has features of its own: those of `edges[role]`, in that order.
    segment_values: every value of each segment column that the reference days hold, those of `(other)` included;
    a column with too many of them is left out.
    """

    profile_hash: str
    segments: tuple[str, ...]
    edges: dict[str, tuple[Edges, ...]]
    blocks: Blocks
    segment_values: Mapping[str, frozenset[str]] = field(default_factory=dict)


class UnseenValues:
    """Counts explained requests whose segment value no request of the reference had; they count as `(other)`.

    known: values of the reference by column. A column that is not in it is not watched.
    """

    def __init__(self, known: Mapping[str, frozenset[str]]) -> None:
        self._known = known
        self._requests: dict[str, Counter[str]] = {column: Counter() for column in known}

    def add(self, context: pl.DataFrame) -> None:
        """Take in a batch; null is a value of its own, `(missing)`, and never unseen."""
        for column, counts in value_counts(context, [c for c in self._known if c in context.columns]).items():
            new = {v: n for v, n in counts.items() if v is not None and v not in self._known[column]}
            self._requests[column].update(new)

    def report(self) -> dict[str, dict[str, Any]]:
        """Per column with such values: how many different ones, their requests, and the most frequent three."""
        return {
            column: {
                "values": len(found),
                "requests": found.total(),
                "most_frequent": [v for v, _ in sorted(found.items(), key=lambda item: (-item[1], item[0]))[:3]],
            }
            for column, found in self._requests.items()
            if found
        }


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
        with np.errstate(divide="ignore"):  # a probability of 0 is an infinite weight, which counting refuses
            weights = 1.0 / chosen["inclusion_probability"].to_numpy()
        yield ExplainedBatch(
            values=values,
            weights=weights,
            divergent=chosen["is_divergent"].to_numpy(),
            context=rows,
        )


_OUTPUT_COLUMNS = tuple(f"{role}_output" for role in MODEL_ROLES)


def _outputs(rows: pl.DataFrame) -> Float64:
    """Production output, experimental output, and how much higher the second is; float64 [n, 3], NaN where missing."""
    production, experimental = (rows[c].cast(pl.Float64).to_numpy() for c in _OUTPUT_COLUMNS)
    return np.column_stack((production, experimental, experimental - production))


def day_blocks(
    monitor: Monitor,
    day: date,
    segments: Sequence[str],
    edges: dict[str, tuple[Edges, ...]],
    unseen: UnseenValues | None = None,
) -> Blocks:
    """Histograms of one day: every role × population. Memory is that of one batch and of the blocks.

    A missing attribution or value is counted in the null cell. `unseen` is told of every batch.
    Raises StatisticsError where the day has explained requests and none of them has any weight.
    """
    blocks = {(r, p): empty_block(segments, edges[r]) for r in ROLES for p in POPULATIONS}
    for batch in explained_values(monitor, day):
        codes = segment_codes(batch.context, monitor.config.segment_columns, segments)
        chosen = np.flatnonzero(batch.divergent)
        if unseen is not None:
            unseen.add(batch.context)
        for role in ROLES:
            values = np.ascontiguousarray(batch.values[role])
            accumulate(blocks[role, "all"], edges[role], values, batch.weights, codes)
            accumulate(blocks[role, "divergent"], edges[role], values[chosen], batch.weights[chosen], codes[chosen])
    check_weight(blocks[INPUT, "all"], f"the explained requests of {day}")
    return blocks


@dataclass(frozen=True)
class DayHistograms:
    """What was stored of a day.

    unexplained: requests without an attribution, per model role; they are in the null cells.
    unseen_segment_values: see `UnseenValues.report`.
    """

    blocks: Blocks
    unexplained: Mapping[str, int]
    unseen_segment_values: Mapping[str, Mapping[str, Any]]


def unexplained_requests(blocks: Blocks, edges: Mapping[str, tuple[Edges, ...]]) -> dict[str, int]:
    """Requests with a missing attribution, per model role: of the feature for which most are missing."""
    missing = {r: null_rows(blocks[r, "all"], edges[r], OVERALL) for r in MODEL_ROLES}
    return {r: round(float(rows.max(initial=0.0))) for r, rows in missing.items()}


def write_day_histograms(monitor: Monitor, day: date, profile: Profile, provenance: str) -> DayHistograms:
    """Fill and store `attribution_histograms` of one day; returns what was stored, and what was odd about it."""
    unseen = UnseenValues(profile.segment_values)
    blocks = day_blocks(monitor, day, profile.segments, profile.edges, unseen)
    made = DayHistograms(blocks, unexplained_requests(blocks, profile.edges), unseen.report())
    frame = blocks_to_frame(blocks)
    divergence = monitor.lake.metadata("divergence_set", monitor.name, day)
    # The divergence report moves in here: the divergence set has a retention, the memory of its rate has none.
    metadata = {
        "provenance": provenance,
        "profile_hash": profile.profile_hash,
        "divergence_report": divergence["report"],
        "unexplained_requests": json.dumps(made.unexplained),
        "unseen_segment_values": json.dumps(made.unseen_segment_values),
    }
    monitor.lake.write("attribution_histograms", monitor.name, day, frame, metadata)
    return made
