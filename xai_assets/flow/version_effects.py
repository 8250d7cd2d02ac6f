"""What a new version of a model changed on a day, apart from what the day's requests changed.

Belongs here: which requests both versions explain, the earlier version's attributions, rows of `version_effects`.
Does not belong here: the effects themselves (see `stats.version_effects`), drawing requests (see `flow.slice_rows`).

The present version's attributions are those that are stored. The earlier version explains the same sampled requests
with the same method and background; nothing of that is stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property

import numpy as np
import polars as pl

from xai_assets.explain.widen import widen
from xai_assets.flow.background import any_needs_background, ensure_background, model_explainer
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import Provenance
from xai_assets.flow.refusals import explain_accepted
from xai_assets.flow.slice_rows import attributions_of, draw_day, is_stored, reference_sample
from xai_assets.lake.tables import VERSION_EFFECTS
from xai_assets.records import Float32, Float64
from xai_assets.stats.version_effects import MIN_ROWS, MOST_REFUSED, VersionEffect, version_effects

TABLE = "version_effects"
SAMPLE_ROWS = 5_000
"""Most requests of a day, and of the reference, that the earlier version explains."""


@dataclass(frozen=True)
class DayEffects:
    """The stored rows of a day, and what to know about them in a sentence."""

    frame: pl.DataFrame
    note: str


@dataclass(frozen=True)
class _Reference:
    """Requests of the reference, at most `SAMPLE_ROWS`."""

    weights: Float64
    frame: pl.DataFrame


class VersionJudge:
    """Compares days of one monitor; the earlier versions explain the reference's requests once per run."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self._of_reference: dict[str, Float32] = {}

    def prepare(self) -> None:
        """Load the earlier versions, and make the background that they need, before any provenance is asked for.

        Raises ModelError where an earlier version cannot be loaded or compared.
        """
        previous = [self.monitor.previous_model(r) for r in self.monitor.config.roles_with_previous]
        if any_needs_background(self.monitor, previous):
            ensure_background(self.monitor)

    def judge_day(self, day: date, provenance: str) -> DayEffects:
        """Compute and store `version_effects` of one day; without rows where requests of a side are not there."""
        found = self.effects(day)
        self.monitor.lake.write(TABLE, self.monitor.name, day, found.frame, {"provenance": provenance})
        return found

    def effects(self, day: date) -> DayEffects:
        """Rows of `version_effects` of one day. Stores nothing but the reference's sample where there is none.

        Raises ModelError where an earlier version or its explainer does not fit, or refuses every request.
        """
        nothing, reference = pl.DataFrame(schema=VERSION_EFFECTS.schema), self._reference
        if reference is None:
            return DayEffects(nothing, "no effects: the rows of the reference days are not stored any more")
        if not is_stored(Provenance(self.monitor), day):
            return DayEffects(nothing, "no effects: the rows of the day are not stored any more")
        parts = [self._role(role, day, reference) for role in self.monitor.config.roles_with_previous]
        frame = pl.concat([nothing, *(part.frame for part in parts)])
        return DayEffects(frame, "; ".join([_note(frame), *(part.note for part in parts if part.note)]))

    def _role(self, role: str, day: date, reference: _Reference) -> DayEffects:
        """One row per feature; none where a side has fewer than `MIN_ROWS` effective requests. Note: refusals."""
        names, floors = self.monitor.config.feature_names, self.monitor.config.drift.effect_floors
        sample = draw_day(self.monitor, day, SAMPLE_ROWS)
        if min(sample.facts.height, reference.frame.height) < MIN_ROWS:
            return DayEffects(pl.DataFrame(schema=VERSION_EFFECTS.schema), "")
        found = version_effects(
            self._reference_attributions(role, reference),
            self._explained(role, sample.values),
            attributions_of(self.monitor, sample, role, names),
            names,
            old_weights=reference.weights,
            new_weights=sample.weights,
            floor_nats=floors.nats[0],
        )
        versions = (self.monitor.previous_model(role).version, self.monitor.model(role).version)
        frame = _rows(role, found, (sample.facts.height, reference.frame.height), versions)
        return DayEffects(frame, _refusals(role, found))

    @cached_property
    def _reference(self) -> _Reference | None:
        sample = reference_sample(self.monitor)
        if sample is None:
            return None
        smallest = sample.keys.arg_sort()[:SAMPLE_ROWS].sort()
        return _Reference(sample.weights[smallest.to_numpy()], sample.frame[smallest])

    def _reference_attributions(self, role: str, reference: _Reference) -> Float32:
        if role not in self._of_reference:
            self._of_reference[role] = self._explained(role, reference.frame)
        return self._of_reference[role]

    def _explained(self, role: str, requests: pl.DataFrame) -> Float32:
        """The earlier version's attributions over all configured features, float32 [n, d]; NaN for requests that it
        refuses. Raises ModelError where it refuses them all."""
        model = self.monitor.previous_model(role)
        explained, refused = explain_accepted(model_explainer(self.monitor, model), model.encode(requests))
        if refused is not None and not np.isfinite(explained.margin).any():
            raise refused
        return widen(explained, model.feature_names, self.monitor.config.feature_names).values


def _rows(
    role: str, found: Sequence[VersionEffect], counts: tuple[int, int], versions: tuple[str, str]
) -> pl.DataFrame:
    about = {
        "role": role,
        "row_count": counts[0],
        "row_count_reference": counts[1],
        "previous_version": versions[0],
        "model_version": versions[1],
    }
    rows = [vars(effect) | about for effect in found]
    frame = pl.DataFrame([{c: row[c] for c in VERSION_EFFECTS.schema} for row in rows], schema=VERSION_EFFECTS.schema)
    return frame.with_columns(pl.selectors.float().fill_nan(None))


def _note(frame: pl.DataFrame) -> str:
    if frame.is_empty():
        return f"insufficient: fewer than {MIN_ROWS} explained requests of the day or of the reference"
    counts = {verdict: int((frame["verdict"] == verdict).sum()) for verdict in ("data", "model", "both", "none")}
    return ", ".join(f"{verdict} {count}" for verdict, count in counts.items())


def _refusals(role: str, found: Sequence[VersionEffect]) -> str:
    """What the versions of a role refuse of the day's and the reference's requests; "" where they refuse none."""
    most = max(found, key=lambda e: (abs(e.refused_after - e.refused_old_model), e.refused_before), default=None)
    if most is None or max(most.refused_before, most.refused_old_model, most.refused_after) == 0:
        return ""
    old, new, before = (f"{100 * x:.1f} %" for x in (most.refused_old_model, most.refused_after, most.refused_before))
    text = f"{role}: the earlier version refuses {old} of the day's requests, the new one {new}"
    text += f"; of the reference's the earlier one {before}"
    if not most.is_comparable:
        text += f"; no verdict, for these differ by more than {MOST_REFUSED:.0%}".replace("%", " %")
    return text
