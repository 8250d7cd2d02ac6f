"""Errors of a day's labelled requests, kept for good, and what ADWIN and Page–Hinkley find in them over the days.

Belongs here: joining labels to outputs, rows of `error_stream`, the fold over them, sentences.
Does not belong here: losses, scores of blocks, the detectors (`stats.concept_drift`).
"""

from collections.abc import Mapping
from datetime import date, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import Provenance, all_days, cohort_day
from xai_assets.flow.residuals import OUTPUTS, probabilities
from xai_assets.lake.queries import labelled_rows
from xai_assets.lake.tables import CONCEPT_DRIFT, ERROR_STREAM
from xai_assets.records import MODEL_ROLES
from xai_assets.stats.concept_drift import (
    DETECTORS,
    FALLING,
    INSUFFICIENT,
    RISING,
    Change,
    ErrorBlocks,
    ErrorState,
    ErrorValues,
    block_numbers,
    error_values,
    find_changes,
    request_errors,
    state_after,
)

BRIER, ABSOLUTE_ERROR = "brier", "absolute_error"
UNITS = {BRIER: "Brier loss, 0–1", ABSOLUTE_ERROR: "output units"}
_WORDS = {BRIER: "Brier loss", ABSOLUTE_ERROR: "absolute error", "adwin": "ADWIN", "page_hinkley": "Page–Hinkley"}


def write_day_errors(monitor: Monitor, day: date, provenance: str) -> Mapping[str, Any]:
    """Store `error_stream` of `day`: requests made `labels.complete_after_days` earlier, in the order of their time."""
    cohort = cohort_day(monitor.config, day)
    assert cohort is not None, "a monitor without complete labels has no such asset"
    rows = labelled_rows(monitor.lake, monitor.config, [cohort], day, list(OUTPUTS.values()))
    rows = rows.sort("requested_at", "request_id")
    frame = pl.concat(_blocks_of_role(monitor, role, rows) for role in MODEL_ROLES)
    metadata = {"provenance": provenance, "cohort": str(cohort)}
    monitor.lake.write("error_stream", monitor.name, day, frame, metadata)
    means = frame.group_by("role").agg(
        (pl.col("error_mean") * pl.col("label_count")).sum() / pl.col("label_count").sum()
    )
    errors = {f"{role}_error": mean for role, mean in means.sort("role").iter_rows()}
    return {"requests_of": str(cohort), "labelled_requests": rows.height, **errors}


def findings(monitor: Monitor, day: date) -> list[str]:
    """What the detectors said as of a day, rises first; nothing where the day is not stored."""
    rows = monitor.lake.read_days("concept_drift", monitor.name, [day])
    return rows.sort(pl.col("state") != RISING, maintain_order=True)["sentence"].to_list()


def error_kind(monitor: Monitor, role: str) -> str:
    """The loss of a role's model: `brier` of a classifier, `absolute_error` of a regression."""
    return BRIER if monitor.model(role).is_classifier else ABSOLUTE_ERROR


def model_version(monitor: Monitor, role: str) -> str:
    """The first 12 hex digits of the artifact's SHA-256, as in the tables of attributions."""
    return monitor.model_hashes[role][:12]


def _blocks_of_role(monitor: Monitor, role: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of `error_stream` of one role; none where no request is labelled."""
    is_classifier = monitor.model(role).is_classifier
    outputs = rows[OUTPUTS[role]].to_numpy().astype(np.float64)
    outputs = probabilities(monitor, role, outputs) if is_classifier else outputs
    errors = request_errors(rows["label"].to_numpy(), outputs, is_classifier=is_classifier)
    blocks = rows.select("requested_at", block_number=block_numbers(rows.height), error=errors)
    summed = blocks.group_by("block_number", maintain_order=True).agg(
        pl.col("requested_at").first().alias("first_requested_at"),
        pl.len().alias("label_count"),
        pl.col("error").mean().alias("error_mean"),
    )
    named = summed.with_columns(
        role=pl.lit(role), model_version=pl.lit(model_version(monitor, role)), error=pl.lit(error_kind(monitor, role))
    )
    return named.select(pl.col(c).cast(t) for c, t in ERROR_STREAM.schema.items())


class ConceptFolder:
    """Folds the stored errors of one monitor; the stream is read, and walked by each detector, once.

    The detectors see one value after the other, so what they found by an earlier day is the beginning of what they
    found by a later one: any day can be told from one walk, and comes out as if it were the last.
    """

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self.reference_days = Provenance(monitor).residual_reference_days()
        self._values: dict[str, ErrorValues | None] = {}
        self._changes: dict[tuple[str, str], tuple[Change, ...]] = {}

    def write_day(self, day: date, provenance: str) -> pl.DataFrame:
        """Compute and store `concept_drift` of one day; returns what was stored."""
        frame = self.states(day)
        self.monitor.lake.write("concept_drift", self.monitor.name, day, frame, {"provenance": provenance})
        return frame

    def states(self, day: date) -> pl.DataFrame:
        """Rows of `concept_drift` as of a day: each role by each detector. Stores nothing."""
        rows = [self._row(role, detector, day) for role in MODEL_ROLES for detector in DETECTORS]
        return pl.DataFrame(rows, schema=CONCEPT_DRIFT.schema)

    def _row(self, role: str, detector: str, day: date) -> dict[str, Any]:
        values, kind = self.values(role), error_kind(self.monitor, role)
        state = ErrorState(INSUFFICIENT, None, float("nan"), float("nan"))
        row: dict[str, Any] = {"role": role, "detector": detector, "unit": UNITS[kind], "detected_on": None}
        row |= {"changed_from": None, "label_count": self._labels(role, day), "error_reference": None}
        if values is not None and day > self.reference_days[-1]:
            count = int(np.searchsorted(values.last_day, day.toordinal(), side="right"))
            state = state_after(values, self.changes(role, detector), count)
            row["error_reference"] = values.error(0, values.reference)
            if state.change is not None:
                row["detected_on"] = date.fromordinal(int(values.last_day[state.change.found_at]))
                row["changed_from"] = self._requested(int(values.first_day[state.change.began_at]))
        row |= {"state": state.state, "error_before": state.error_before, "error_after": state.error_after}
        row |= {c: None for c in ("error_before", "error_after") if np.isnan(row[c])}
        return row | {"sentence": _sentence(row, kind, self._reason(values, day))}

    def values(self, role: str) -> ErrorValues | None:
        """The role's stream as values for a detector, None where the reference cannot set their scale."""
        if role not in self._values:
            rows = self._stream.filter(
                (pl.col("role") == role)
                & (pl.col("model_version") == model_version(self.monitor, role))
                & (pl.col("error") == error_kind(self.monitor, role))
            )
            days = np.array([d.toordinal() for d in rows["date"]], dtype=np.int64)
            counts = rows["label_count"].to_numpy().astype(np.float64)
            blocks = ErrorBlocks(days, counts, rows["error_mean"].to_numpy())
            self._values[role] = error_values(blocks, self.reference_days[-1].toordinal())
        return self._values[role]

    def changes(self, role: str, detector: str) -> tuple[Change, ...]:
        """Every change that a detector finds in a role's whole stream."""
        if (role, detector) not in self._changes:
            values = self.values(role)
            self._changes[role, detector] = () if values is None else find_changes(values, detector)
        return self._changes[role, detector]

    @cached_property
    def _stream(self) -> pl.DataFrame:
        """Stored errors of whichever models, from the first label day of the reference on."""
        lake, name = self.monitor.lake, self.monitor.name
        stored = lake.days("error_stream", name)
        first, last = self.reference_days[0], max([self.reference_days[0], *stored])
        return lake.read_days("error_stream", name, all_days(first, last))

    def _labels(self, role: str, day: date) -> int:
        rows = self._stream.filter(
            (pl.col("role") == role)
            & (pl.col("model_version") == model_version(self.monitor, role))
            & (pl.col("date") <= day)
        )
        return int(rows["label_count"].sum())

    def _requested(self, ordinal: int) -> date:
        """The day of the requests whose labels were complete on a day."""
        return date.fromordinal(ordinal) - timedelta(days=self.monitor.config.label_delay_days or 0)

    def _reason(self, values: ErrorValues | None, day: date) -> str:
        """Why nothing can be said, where nothing can."""
        if day <= self.reference_days[-1]:
            return f"labels of the reference are complete on {self.reference_days[-1]}"
        if values is None:
            return "the reference has labels of fewer than three days, or its errors do not vary"
        return "too few labels so far"


def _sentence(row: Mapping[str, Any], kind: str, reason: str) -> str:
    """The finding in words; of a state that cannot be told, why."""
    what, by = f"the {row['role']} model's {_WORDS[kind]}", _WORDS[row["detector"]]
    if row["state"] == INSUFFICIENT:
        return f"{by}: {what} cannot be judged: {reason}."
    reference = f"{row['error_reference']:.4g} in the reference"
    if row["state"] not in (RISING, FALLING):
        since = "" if row["error_after"] is None else f", {row['error_after']:.4g} since"
        return f"{by}: no change of {what} stands: {reference}{since}."
    verb = "rose" if row["state"] == RISING else "fell"
    size = f"from {row['error_before']:.4g} to {row['error_after']:.4g} ({reference})"
    return f"{by}: {what} {verb} {size} with the requests of {row['changed_from']}; found on {row['detected_on']}."
