"""Slices of a day: where the two models differ in the days up to it, and where its attribution drift concentrates.

Belongs here: which days and attributions are looked at, what is held out, rows of `divergence_slices` and
`drift_slices`.
Does not belong here: drawing requests (see `flow.slice_rows`), finding and confirming rules (see `stats.slices`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import SLICE_WINDOW_DAYS, Provenance, window_days
from xai_assets.flow.reference import load_profile
from xai_assets.flow.slice_rows import (
    ReferenceSample,
    SampleRows,
    attributions_of,
    draw_day,
    is_stored,
    join_samples,
    odd_keys,
    positions_by_day,
    reference_sample,
    rule_columns_of,
    slice_columns,
)
from xai_assets.lake.tables import DIVERGENCE_SLICES, DRIFT_SLICES
from xai_assets.records import MODEL_ROLES, WHOLE, Edges, severity_rank
from xai_assets.stats.cells import cell_numbers
from xai_assets.stats.rules import SliceColumn, rule_sentence
from xai_assets.stats.slices import (
    MIN_ROWS,
    DivergenceSlice,
    DriftSlice,
    divergence_slices,
    drift_slices,
    plain_rule,
)

DIVERGENCE, DRIFT = "divergence_slices", "drift_slices"
DIVERGENCE_ROWS, DRIFT_ROWS = 20_000, 8_000
"""Most requests of a window in which slices are looked for."""
MOST_FEATURES = 5
"""Most attributions of a day in whose drift slices are looked for, the worst first."""
DRIFTING = ("noted", "warning", "critical")
NEARLY = 0.8
"""Of the windows in which a feature drifts, the longest is taken whose PSI is at least this share of the largest: a
longer one has whole days to hold out."""


@dataclass(frozen=True)
class DaySlices:
    """The stored rows of a day, and what to know about them in a sentence."""

    frame: pl.DataFrame
    note: str


@dataclass(frozen=True)
class Drifting:
    """One attribution that drifts, and the window in which it is looked at."""

    role: str
    feature: str
    window: int


@dataclass(frozen=True)
class _Window:
    """Sampled requests of a window; columns: those of the reference's requests, then of its own."""

    sample: SampleRows | None
    columns: tuple[SliceColumn, ...]

    @property
    def rows(self) -> int:
        return 0 if self.sample is None else self.sample.facts.height

    @property
    def is_enough(self) -> bool:
        return self.rows >= MIN_ROWS


class Slicer:
    """Finds slices for days of one monitor; keeps the samples of the last days so that a range reads each day once."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self._samples: dict[date, SampleRows] = {}

    def divergence_day(self, day: date, provenance: str) -> DaySlices:
        """Find and store `divergence_slices` of one day; the note says where there are too few requests for any."""
        sample, days = self._window(day, SLICE_WINDOW_DAYS, DIVERGENCE_ROWS, attributions=False)
        rows = 0 if sample is None else sample.facts.height
        found: tuple[DivergenceSlice, ...] = ()
        if sample is not None and rows >= MIN_ROWS:
            found = self._divergence(sample)
        frame = _frame(DIVERGENCE_SLICES.schema, [_plain(s) | {"window_days": SLICE_WINDOW_DAYS} for s in found])
        self._write(DIVERGENCE, day, frame, provenance, days)
        return DaySlices(frame, _divergence_note(frame, rows, len(days)))

    def drift_day(self, day: date, provenance: str) -> DaySlices:
        """Find and store `drift_slices` of one day, for the attributions that drift in its stored scores."""
        scores = self.monitor.lake.read("drift_scores", self.monitor.name, day)
        drifting, reference = worst_drifts(scores), self._reference
        rows: list[dict[str, Any]] = []
        windows: dict[int, _Window] = {}
        if reference is not None:
            windows = {n: self._drift_window(day, n, reference) for n in {d.window for d in drifting}}
            for target in (d for d in drifting if windows[d.window].is_enough):
                rows += self._drift(target, windows[target.window], reference, len(drifting))
        frame = _frame(DRIFT_SLICES.schema, rows)
        # the whole week, as its provenance: days that are past their retention later must not make this one stale
        self._write(DRIFT, day, frame, provenance, self._days(day, SLICE_WINDOW_DAYS, attributions=True))
        return DaySlices(frame, _drift_note(drifting, windows, is_reference_there=reference is not None))

    # --- one search --------------------------------------------------------------------------------------------------

    def _divergence(self, sample: SampleRows) -> tuple[DivergenceSlice, ...]:
        facts, config = sample.facts, self.monitor.config
        columns = slice_columns(sample.values, self.monitor.features, config.segment_columns)
        held_out = odd_keys(facts["key"])
        delta, flipped = facts["delta"].to_numpy(), facts["flipped"].to_numpy()
        return divergence_slices(columns, delta, flipped, sample.weights, held_out)

    def _drift(
        self, target: Drifting, window: "_Window", reference: ReferenceSample, searches: int
    ) -> list[dict[str, Any]]:
        assert window.sample is not None
        phi_now = attributions_of(self.monitor, window.sample, target.role, [target.feature])[:, 0]
        phi = np.concatenate([reference.attributions(target.role, target.feature), phi_now])
        held_out, confirmed_on = held_out_rows(window.sample.facts)
        found = drift_slices(
            window.columns,
            cell_numbers(self._edges[target.role, target.feature], phi),
            np.concatenate([reference.weights, window.sample.weights]),
            np.arange(len(phi)) < len(reference.weights),
            np.concatenate([odd_keys(reference.keys), held_out]),
            noted_nats=self.monitor.config.drift.effect_floors.nats[0],
            searches=searches,
        )
        about = {"role": target.role, "feature": target.feature, "window_days": target.window}
        return [_plain(s) | about | {"confirmed_on": confirmed_on} for s in found]

    # --- what it is made from ----------------------------------------------------------------------------------------

    @cached_property
    def _edges(self) -> dict[tuple[str, str], Edges]:
        profile = load_profile(self.monitor)
        return {(role, e.feature): e for role in MODEL_ROLES for e in profile.edges[role]}

    @cached_property
    def _reference(self) -> ReferenceSample | None:
        return reference_sample(self.monitor)

    def _drift_window(self, day: date, window: int, reference: ReferenceSample) -> "_Window":
        sample, _ = self._window(day, window, DRIFT_ROWS, attributions=True)
        if sample is None:
            return _Window(None, ())
        names, config = rule_columns_of(self.monitor), self.monitor.config
        values = pl.concat([reference.frame.select(names), sample.values.select(names)], how="vertical_relaxed")
        return _Window(sample, tuple(slice_columns(values, self.monitor.features, config.segment_columns)))

    def _window(
        self, day: date, window: int, rows: int, *, attributions: bool
    ) -> tuple[SampleRows | None, tuple[date, ...]]:
        """A sample of the window's requests and the days it was drawn from."""
        days = self._days(day, window, attributions=attributions)
        oldest = day - timedelta(days=SLICE_WINDOW_DAYS)
        self._samples = {d: s for d, s in self._samples.items() if oldest < d <= day}
        for d in days:
            if d not in self._samples:
                self._samples[d] = draw_day(self.monitor, d, DIVERGENCE_ROWS)
        drawn = [self._samples[d] for d in days if self._samples[d].facts.height]
        return (join_samples(drawn, rows) if drawn else None), days

    def _days(self, day: date, window: int, *, attributions: bool) -> tuple[date, ...]:
        """Days of the window whose rows are stored."""
        provenance = Provenance(self.monitor)
        wanted = window_days(day, window, self.monitor.config.first_date)
        return tuple(d for d in wanted if is_stored(provenance, d, attributions=attributions))

    def _write(self, table: str, day: date, frame: pl.DataFrame, provenance: str, days: Sequence[date]) -> None:
        metadata = {"provenance": provenance, "days": json.dumps([str(d) for d in days])}
        self.monitor.lake.write(table, self.monitor.name, day, frame, metadata)


def worst_drifts(scores: pl.DataFrame) -> list[Drifting]:
    """The attributions graded noted or worse, by severity and corrected PSI; at most `MOST_FEATURES`.

    Each is looked at in the longest of its drifting windows of at most a week whose largest PSI is nearly (`NEARLY`)
    that of the strongest: fresh drift is not diluted, older drift has whole days to hold out.
    """
    drifting = scores.filter(
        (pl.col("population") == "all")
        & pl.col("role").is_in(MODEL_ROLES)
        & pl.col("severity").is_in(DRIFTING)
        & (pl.col("feature") != WHOLE)
    )
    ranked = drifting.with_columns(
        pl.col("severity").map_elements(severity_rank, return_dtype=pl.Int64).alias("rank"),
        pl.col("psi_corrected_nats").fill_null(0.0),
    )
    by_window = ranked.group_by("role", "feature", "window_days").agg(
        pl.col("rank").max(), pl.col("psi_corrected_nats").max().alias("psi")
    )
    found = []
    for (role, feature), rows in by_window.sort("window_days").group_by("role", "feature", maintain_order=True):
        short = rows.filter(pl.col("window_days") <= SLICE_WINDOW_DAYS)
        nearly = short.filter(pl.col("psi") >= NEARLY * pl.col("psi").max())
        window = int(nearly["window_days"].max()) if nearly.height else SLICE_WINDOW_DAYS  # type: ignore[arg-type]
        worst = (-int(rows["rank"].max()), -float(rows["psi"].max()))  # type: ignore[arg-type]
        found.append((worst, Drifting(str(role), str(feature), window)))
    found.sort(key=lambda item: (item[0], item[1].role, item[1].feature))
    return [drift for _, drift in found[:MOST_FEATURES]]


def held_out_rows(facts: pl.DataFrame) -> tuple[npt.NDArray[np.bool_], str]:
    """Which of a window's requests confirm, bool [n], and whether these are whole `days` or single `rows`.

    Every second day from the last but one back, where both halves hold enough requests; else half of the requests.
    Requests of one day resemble each other, so days are the stricter test.
    """
    by_day = positions_by_day(facts) % 2 == 1
    if min(by_day.sum(), (~by_day).sum()) >= MIN_ROWS / 2:
        return np.asarray(by_day), "days"
    return odd_keys(facts["key"]), "rows"


def _plain(found: DivergenceSlice | DriftSlice) -> dict[str, Any]:
    columns = {k: v for k, v in vars(found).items() if k != "rule"}
    text = {
        "rule": rule_sentence(found.rule),
        "conditions_json": json.dumps(plain_rule(found.rule), ensure_ascii=False),
    }
    return text | columns


def _frame(schema: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    frame = pl.DataFrame(list(rows), schema=schema, orient="row") if rows else pl.DataFrame(schema=schema)
    return frame.with_columns(pl.selectors.float().fill_nan(None))


def _divergence_note(frame: pl.DataFrame, rows: int, days: int) -> str:
    if rows < MIN_ROWS:
        return f"insufficient: {rows} explained requests in {days} days, {MIN_ROWS} are needed"
    confirmed = int(frame["confirmed"].sum())
    return f"{confirmed} confirmed of {frame.height} found in {rows} requests of {days} days"


def _drift_note(drifting: Sequence[Drifting], windows: Mapping[int, _Window], *, is_reference_there: bool) -> str:
    if not is_reference_there:
        return "no slices: the rows of the reference days are not stored any more"
    if not drifting:
        return "no attribution drifts"
    few = [f"; insufficient: {w.rows} requests in {n} days" for n, w in sorted(windows.items()) if not w.is_enough]
    return "looked at " + ", ".join(f"{d.feature} ({d.role}, {d.window} d)" for d in drifting) + "".join(few)
