"""Frozen records that stages exchange, and the vocabulary they share.

Belongs here: names of roles, populations and severities; value objects of plain fields and numpy arrays.
Does not belong here: formulas (see `stats`), decisions (see `decide`), files (see `lake`), Dagster.
"""

from dataclasses import dataclass, field
from datetime import date, datetime

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

OVERALL = "overall"
"""Name of the segment that holds every request; others are named ``context=value``."""

PRODUCTION, EXPERIMENTAL = "production", "experimental"
MODEL_ROLES = (PRODUCTION, EXPERIMENTAL)
DIFFERENCE = "difference"
"""δ = φ_experimental − φ_production: why the two models disagree."""
INPUT = "input"
"""The feature values themselves, kept in the same histograms as the attributions."""
OUTPUT = "output"
"""The outputs of both models and their difference, kept in the same histograms too (`OUTPUT_FEATURES`)."""
ROLES = (*MODEL_ROLES, DIFFERENCE, INPUT, OUTPUT)
VALUE_ROLES = (INPUT, OUTPUT)
"""Roles whose histograms hold values and not attributions: there is no share of importance in them."""
OUTPUT_FEATURES = (f"{PRODUCTION}_output", f"{EXPERIMENTAL}_output", "output_difference")
"""The features of role output; the last one is experimental minus production output."""

POPULATIONS = ("all", "divergent")
WHOLE = "*"
"""Stands in the feature column of a score that speaks of all features together (`ndcg`)."""

SEVERITIES = ("insufficient", "none", "noted", "warning", "critical")
"""Ordered: `insufficient` means too few requests to judge, never "no drift"."""


def severity_rank(severity: str) -> int:
    """Position in `SEVERITIES`; higher is worse.

    >>> severity_rank("critical") > severity_rank("noted")
    True
    """
    return SEVERITIES.index(severity)


@dataclass(frozen=True)
class FeatureSpec:
    """One model input. `categories` gives the code of each level by position (categorical only)."""

    name: str
    kind: str  # "numeric" | "categorical" | "boolean"
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attributions:
    """Attributions of n requests to d features on the margin scale (log-odds, or the raw regression output).

    values: float32 [n, d]; base_value: float64 [n]; margin: float64 [n] as the model itself predicts it.
    `base_value + values.sum(1)` equals `margin` within rounding: that is what the additivity check measures.
    """

    values: Float32
    base_value: Float64
    margin: Float64


@dataclass(frozen=True)
class Edges:
    """Cell borders of one feature, owned by the reference.

    cuts: float64 [B+1], non-decreasing; cuts[0] and cuts[-1] are the reference minimum and maximum.
    Cells: 0 below cuts[0]; b = 1..B holds cuts[b-1] <= x < cuts[b] (the last one also x == cuts[-1]);
    B+1 above cuts[-1]; B+2 null. A constant reference has cuts (c, c), B = 1. An all-null reference has
    no cuts: B = 0, and every finite value falls in the "above" cell 1; null is cell 2.
    """

    feature: str
    cuts: Float64

    @property
    def inner_cells(self) -> int:
        return max(len(self.cuts) - 1, 0)

    @property
    def cells(self) -> int:
        """B + 3: the inner cells, one below, one above, one for null."""
        return self.inner_cells + 3


@dataclass(frozen=True)
class HistogramBlock:
    """Histograms of one role and population over S segments × d features × K cells (padded with zeros).

    row_count, weight (Σw), weight_squared (Σw²), phi_sum (Σwφ): float64 [S, d, K].
    abs_sum (Σw|φ|), squared_sum (Σwφ²): float64 [S, d]. Blocks with the same features and edges add.
    """

    segments: tuple[str, ...]
    features: tuple[str, ...]
    row_count: Float64
    weight: Float64
    weight_squared: Float64
    phi_sum: Float64
    abs_sum: Float64
    squared_sum: Float64


@dataclass(frozen=True)
class ServiceLevel:
    """One row of `explanation_quality`: a measure of how well a day was explained.

    value: NaN where the day has nothing to measure it on. row_count: requests behind the value.
    """

    role: str
    segment: str
    measure: str
    unit: str
    value: float
    row_count: int


@dataclass(frozen=True)
class Alert:
    """One row of `drift_alerts` as of a day: the state of one fault's signal.

    effect_of: what it came with. `data`: other requests; `model`: a new version of the model; `both`; `truth`: the
    outcomes changed.
    """

    fingerprint: str
    state: str  # "open" (first day) | "ongoing" | "resolved"
    severity: str
    cause: str  # "input_fault" | "population_moved" | "use_changed" | "relation_changed"
    role: str
    feature: str
    segment: str
    window_days: int
    first_exceeded_on: date
    opened_on: date
    last_seen_on: date
    effect: float
    effect_unit: str
    sentence: str
    moved_with: tuple[str, ...] = ()
    effect_of: str = "data"


@dataclass(frozen=True)
class Recommendation:
    """One row of `recommendations`: what to do, for which features and segments, and why."""

    recommendation_id: str
    action: str  # "retrain" | "reduce_traffic" | "investigate_upstream" | "none"
    target: str  # model role, or "upstream"
    focus_features: tuple[str, ...]
    focus_segments: tuple[str, ...]
    opened_on: date
    evidence: str
    alert_fingerprints: tuple[str, ...] = ()
    state: str = "open"


@dataclass(frozen=True)
class SourceFile:
    """One input file as it was when it was read; size and modification time tell a changed file."""

    uri: str
    size_bytes: int
    modified_at: datetime


@dataclass(frozen=True)
class IngestReport:
    """What happened to one day's input rows. Every row read is stored, a duplicate, quarantined or filtered."""

    date: date
    status: str  # "complete" | "empty" (files, no rows) | "missing" (no file)
    files: tuple[SourceFile, ...]
    rows_read: int
    rows_stored: int
    rows_duplicate: int
    rows_quarantined: int
    rows_other_days: int
    quarantine_reasons: dict[str, int] = field(default_factory=dict)
    unseen_categories: dict[str, int] = field(default_factory=dict)
    missing_share: dict[str, float] = field(default_factory=dict)
    replay_checked_rows: int = 0
    replay_max_difference: float = float("nan")
    replay_mismatch_rows: int = 0
