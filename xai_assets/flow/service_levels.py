"""Service levels of a day's explanations: how many, how fast, how stable, how faithful.

Belongs here: counting explained requests, drawing the day's sample, asking explainer and model about it, storing and
loading `explanation_quality`. Does not belong here: formulas (`stats.explanation_quality`), targets
(`decide.service_levels`).

Times are what the machine did; every other number follows from the day's rows, the models and the seed. The sample is
`explanation.quality_sample_rows` requests (a tenth of them where the explainer is slow), less those that the model or
the explainer refuses: `row_count` says how many remain.
"""

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import polars as pl

from xai_assets.config import MonitorConfig
from xai_assets.decide.service_levels import Verdict, judge
from xai_assets.explain.additivity import explained_rows
from xai_assets.explain.protocol import Explainer
from xai_assets.flow.background import monitor_explainer
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.refusals import accepted_margins, explain_accepted, predictable
from xai_assets.lake.segments import MISSING, OTHER, top_segments
from xai_assets.lake.store import Lake
from xai_assets.lake.tables import EXPLANATION_QUALITY, PHI
from xai_assets.records import MODEL_ROLES, OVERALL, Float32, Float64, Int64, ServiceLevel
from xai_assets.stats.explanation_quality import (
    MEASURES,
    by_importance,
    cosine_similarity,
    exchanged,
    faithfulness,
    local_lipschitz,
    neighbours,
    random_order,
    removal_steps,
    spread,
    typical,
)

TABLE = "explanation_quality"
BACKGROUND_ROWS = 2_000
"""Requests of the day from which standard deviations and typical values are taken."""
SLOW_SHARE = 10
SAMPLED = (
    "median_ms",
    "p95_ms",
    "stability",
    "lipschitz_median",
    "lipschitz_max",
    "deletion_ratio",
    "insertion_ratio",
)
"""Measures of the day's sample."""
TIMING_SECONDS, TIMED_AT_LEAST = 0.2, 20
"""Timing one request after the other ends after so many seconds, but not before so many requests."""


def measure_day(monitor: Monitor, day: date, provenance: str) -> tuple[ServiceLevel, ...]:
    """Measure and store `explanation_quality` of one day.

    Raises
    ------
    LakeError
        The day's replay log, divergence set or attributions are not stored.
    ModelError
        A model cannot be loaded, or its explainer cannot be built. Requests that either refuses are left out.
    """
    levels = [*_coverage(monitor, day)]
    for role in MODEL_ROLES:
        levels += _stored_levels(monitor, role, day)
    background = _background(monitor, day)
    if background.height:
        levels += [x for role in MODEL_ROLES for x in _sample_levels(monitor, role, day, background)]
    monitor.lake.write(TABLE, monitor.name, day, _frame(levels), {"provenance": provenance})
    return tuple(levels)


def load_levels(lake: Lake, monitor: str, days: Sequence[date]) -> dict[date, tuple[ServiceLevel, ...]]:
    """What is stored of these days; a day that is not is left out."""
    found: dict[date, list[ServiceLevel]] = {d: [] for d in days if lake.exists(TABLE, monitor, d)}
    for row in lake.read_days(TABLE, monitor, list(found)).iter_rows(named=True):
        on = row.pop("date")
        found[on].append(ServiceLevel(**row | {"value": math.nan if row["value"] is None else row["value"]}))
    return {d: tuple(levels) for d, levels in found.items()}


def judge_days(config: MonitorConfig, levels: Mapping[date, Sequence[ServiceLevel]]) -> tuple[Verdict, ...]:
    """Days' levels against the configured targets, a verdict per measure that has one."""
    return judge(levels, config.explanation.targets, min_segment_rows=config.drift.min_effective_rows)


def _level(role: str, measure: str, value: float, rows: int, segment: str = OVERALL) -> ServiceLevel:
    return ServiceLevel(role, segment, measure, MEASURES[measure][0], float(value), rows)


def _frame(levels: Sequence[ServiceLevel]) -> pl.DataFrame:
    columns = {name: [getattr(x, name) for x in levels] for name in EXPLANATION_QUALITY.schema}
    frame = pl.DataFrame(columns, schema=EXPLANATION_QUALITY.schema)
    return frame.with_columns(pl.col("value").fill_nan(None))


# --- coverage --------------------------------------------------------------------------------------------------------


@dataclass
class _Counts:
    """Requests in all, and per segment column and value. The total stands apart: a column may have any name."""

    values: dict[str, Counter[str | None]]
    total: int = 0

    @classmethod
    def of(cls, columns: Sequence[str]) -> "_Counts":
        return cls({c: Counter() for c in columns})


def _coverage(monitor: Monitor, day: date) -> Iterator[ServiceLevel]:
    """Coverage and error rate per role, overall and in every segment that has a request."""
    lake, name, config = monitor.lake, monitor.name, monitor.config
    chosen = lake.read("divergence_set", name, day, columns=["row_index"])["row_index"].to_numpy()
    failed = {role: chosen[_without_explanation(lake, name, role, day)] for role in MODEL_ROLES}
    marked = {"chosen": chosen, **failed}
    requests, within = _count(monitor, day, marked)
    top = top_segments(requests.values, config.drift.top_segment_values)
    total = _by_segment(requests, top)
    parts = {key: _by_segment(counts, top) for key, counts in within.items()}
    for role in MODEL_ROLES:
        for segment, rows in total.items():
            if rows:
                asked, errors = parts["chosen"][segment], parts[role][segment]
                yield _level(role, "coverage", (asked - errors) / rows, rows, segment)
                yield _level(role, "error_rate", errors / asked if asked else math.nan, asked, segment)


def _without_explanation(lake: Lake, monitor: str, role: str, day: date) -> Int64:
    """Positions in the day's attributions of requests with a value that is not finite."""
    table = f"{role}_attributions"
    if lake.metadata(table, monitor, day).get("failed_rows") == "0":
        return np.empty(0, np.int64)
    bad, first = [np.empty(0, np.int64)], 0
    for batch in lake.batches(table, monitor, day):
        values = batch.select("base_value", "margin", pl.selectors.starts_with(PHI))
        finite = np.isfinite(values.fill_null(math.nan).to_numpy()).all(axis=1)
        bad.append(first + np.flatnonzero(~finite))
        first += batch.height
    return np.concatenate(bad)


def _count(monitor: Monitor, day: date, marked: Mapping[str, Any]) -> tuple[_Counts, dict[str, _Counts]]:
    """Requests per column and value, and of them those at the marked positions (rising) of the replay log."""
    columns = tuple(monitor.config.segment_columns)
    requests, within = _Counts.of(columns), {key: _Counts.of(columns) for key in marked}
    sums, first = [pl.len().alias("n"), *(pl.col(f"in_{key}").sum() for key in marked)], 0
    # without segments any column will do: only its length counts
    for batch in monitor.lake.batches("replay_log", monitor.name, day, columns or ["request_id"]):
        marks = {key: _marks(at, first, batch.height) for key, at in marked.items()}
        requests.total += batch.height
        for key, mark in marks.items():
            within[key].total += int(mark.sum())
        named = {f"in_{key}": mark for key, mark in marks.items()}
        for column in columns:
            rows = pl.DataFrame({"value": batch[column].cast(pl.String), **named})
            for value, n, *parts in rows.group_by("value").agg(sums).iter_rows():
                requests.values[column][value] += n
                for key, part in zip(marked, parts, strict=True):
                    within[key].values[column][value] += part
        first += batch.height
    return requests, within


def _marks(positions: Any, first: int, rows: int) -> pl.Series:
    inside = positions[np.searchsorted(positions, first) : np.searchsorted(positions, first + rows)]
    mark = np.zeros(rows, dtype=bool)
    mark[inside.astype(np.int64) - first] = True
    return pl.Series(mark)


def _by_segment(counts: _Counts, segments: Sequence[str]) -> dict[str, int]:
    """Counts per segment name; values that have no segment of their own are `(other)`."""
    found = dict.fromkeys(segments, 0)
    found[OVERALL] = counts.total
    for column, values in counts.values.items():
        for value, n in values.items():
            own = f"{column}={value}"
            name = f"{column}={MISSING}" if value is None else own if own in found else f"{column}={OTHER}"
            found[name] += n
    return found


# --- what the attribution stage left ---------------------------------------------------------------------------------


def _stored_levels(monitor: Monitor, role: str, day: date) -> Iterator[ServiceLevel]:
    """Bytes, additivity error and batch time from the partition of attributions and its footer."""
    lake, table = monitor.lake, f"{role}_attributions"
    footer, rows = lake.metadata(table, monitor.name, day), lake.row_count(table, monitor.name, day)
    seconds = float(footer.get("explain_seconds", "nan"))
    yield _level(role, "seconds_per_1000", 1_000 * seconds / rows if rows else math.nan, rows)
    yield _level(role, "bytes", lake.size_bytes(table, monitor.name, day), rows)
    yield _level(role, "additivity_error", float(footer.get("additivity_error", "nan")), rows)


# --- the sample ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sample:
    """Requests drawn for one role. X: float32 [n, d]; sd, absent: [d] of the day's background."""

    X: Float32
    sd: Float64
    absent: Float32
    rng: np.random.Generator


def _background(monitor: Monitor, day: date) -> pl.DataFrame:
    """Up to `BACKGROUND_ROWS` requests of the day in a seeded random order, with the configured features."""
    lake, name, config = monitor.lake, monitor.name, monitor.config
    rows = lake.row_count("replay_log", name, day)
    drawn = _rng(monitor, day).permutation(rows)[: max(BACKGROUND_ROWS, config.explanation.quality_sample_rows)]
    order = np.argsort(drawn)
    positions, first, parts = drawn[order], 0, []
    for batch in lake.batches("replay_log", name, day, config.feature_names):
        inside = slice(*np.searchsorted(positions, (first, first + batch.height)))
        parts.append(batch[positions[inside] - first])
        first += batch.height
    return pl.concat(parts)[np.argsort(order)] if parts else pl.DataFrame()


def _rng(monitor: Monitor, day: date) -> np.random.Generator:
    return np.random.default_rng([monitor.config.explanation.seed % 2**63, day.toordinal()])


def _sample_levels(monitor: Monitor, role: str, day: date, background: pl.DataFrame) -> Iterator[ServiceLevel]:
    model = monitor.model(role)
    explainer = monitor_explainer(monitor, role)
    matrix = model.encode(background)
    matrix = matrix[predictable(model, matrix)]
    numeric = np.array([f.kind == "numeric" for f in model.features])
    wanted = monitor.config.explanation.quality_sample_rows
    rows = wanted if explainer.is_fast else max(2, wanted // SLOW_SHARE)
    explained, _ = explain_accepted(explainer, matrix[:rows])
    finite = explained_rows(explained)
    if not finite.any():
        yield from (_level(role, measure, math.nan, 0) for measure in SAMPLED)
        return
    X, phi = np.ascontiguousarray(matrix[:rows][finite]), explained.values[finite]
    sample = _Sample(X, spread(matrix, numeric), typical(matrix, numeric), _rng(monitor, day))
    times = _milliseconds(explainer, sample.X)
    yield _level(role, "median_ms", np.median(times), len(times))
    yield _level(role, "p95_ms", np.quantile(times, 0.95), len(times))
    near = neighbours(sample.X, sample.sd, sample.rng)
    phi_near = _explain_near(explainer, near)
    yield from _stability_levels(role, sample, near, phi, phi_near)
    yield from _faithfulness_levels(role, model, sample, phi)


def _milliseconds(explainer: Explainer, X: Float32) -> Float64:
    """Time of each request explained alone, after one call that does not count."""
    explainer.explain(X[:1])
    times: list[float] = []
    for i in range(len(X)):
        started = time.perf_counter()
        explainer.explain(X[i : i + 1])
        times.append(1_000 * (time.perf_counter() - started))
        if len(times) >= TIMED_AT_LEAST and sum(times) > 1_000 * TIMING_SECONDS:
            break
    return np.array(times)


def _explain_near(explainer: Explainer, near: Float32) -> Float32:
    """φ of the sample's neighbours [n, k, d]; NaN where the explainer refuses one."""
    rows = np.ascontiguousarray(near.reshape(-1, near.shape[-1]))
    return explain_accepted(explainer, rows)[0].values.reshape(near.shape)


def _stability_levels(
    role: str, sample: _Sample, near: Float32, phi: Float32, phi_near: Float32
) -> Iterator[ServiceLevel]:
    moved = (sample.sd > 0).any()
    cosine = cosine_similarity(phi, phi_near) if moved else np.empty(0)
    slopes = local_lipschitz(sample.X, near, phi, phi_near, sample.sd)
    finite, slopes = cosine[np.isfinite(cosine)], slopes[np.isfinite(slopes)]
    yield _level(role, "stability", finite.mean() if finite.size else math.nan, len(phi))
    yield _level(role, "lipschitz_median", np.median(slopes) if slopes.size else math.nan, len(slopes))
    yield _level(role, "lipschitz_max", slopes.max() if slopes.size else math.nan, len(slopes))


def _faithfulness_levels(role: str, model: Any, sample: _Sample, phi: Float32) -> Iterator[ServiceLevel]:
    X = sample.X
    steps = removal_steps(X.shape[1])
    chance = random_order(len(X), X.shape[1], sample.rng)
    curves = np.stack([_curves(model, X, sample.absent, order, steps) for order in (by_importance(phi), chance)])
    curves = curves[:, :, np.isfinite(curves).all(axis=(0, 1, 3))]  # a mixture of two requests may be refused
    rows = curves.shape[2]
    deletion, insertion = faithfulness(curves[0], curves[1], steps) if rows else (math.nan, math.nan)
    yield _level(role, "deletion_ratio", deletion, rows)
    yield _level(role, "insertion_ratio", insertion, rows)


def _curves(model: Any, X: Float32, absent: Float32, order: Int64, steps: Int64) -> Float64:
    """Margins on the way from the requests to absent features and back, float64 [2, n, steps]; NaN where refused."""
    ways = [exchanged(X, absent, order, steps), exchanged(absent, X, order, steps)]
    matrix = np.ascontiguousarray(np.concatenate([w.reshape(-1, X.shape[1]) for w in ways]))
    return accepted_margins(model, matrix).reshape(2, len(X), len(steps))
