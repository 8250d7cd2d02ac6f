"""Raw rows to rows of the replay log or of the labels: types, times, and why a row cannot be used.

Belongs here: what a value may look like in the source and what it becomes; all of it vectorised.
Does not belong here: reading files (see `readers`), duplicates (see `deduplicate`), the order of the steps
(see `ingest`).

What is accepted, whatever the format:

- numbers: numbers and numeric text; blank text and NaN are missing; infinite, or beyond float32, is refused.
- booleans: true/false, yes/no (any case), 0/1; blank text and NaN are missing.
- categories and context: text as it is; other types as text, whole floats without `.0` (a column of whole numbers
  with gaps is often stored as floats).
- times: see `times`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import reduce
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from xai_assets.config import MonitorConfig
from xai_assets.errors import ConfigError, SourceError
from xai_assets.lake.source import path_of_day
from xai_assets.lake.tables import REPLAY_LOG
from xai_assets.lake.times import times_as_utc

ROW = "__row"
OUTSIDE = "requested_at is outside the day"
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
OUTPUTS = ("production_output", "experimental_output")
LATENCIES = ("production_latency_ms", "experimental_latency_ms")
_FIXED = (*REPLAY_LOG.schema, "monitor", "date")
_ZONE_SLIP = timedelta(hours=14)


@dataclass(frozen=True)
class Part:
    """One stored column and the source column it is made from. kind: id, time, float, label, numeric, boolean, text."""

    name: str
    source: str
    kind: str
    required: bool = False


@dataclass(frozen=True)
class Plan:
    """How rows become stored rows. `day` is None where rows are not bound to a day (labels)."""

    parts: tuple[Part, ...]
    day: date | None
    zone: str
    derived: tuple[str, ...] = ()
    other_days_belong: bool = False

    @property
    def time_column(self) -> str:
        """Source column of the request's time."""
        return next(p.source for p in self.parts if p.kind == "time")

    @property
    def source_columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(p.source for p in self.parts))


@dataclass(frozen=True)
class Validated:
    """rows: usable rows, stored types, with their position in the batch in `ROW`. bad: position and reason of the
    others. reason_counts: rows per kind of reason (a row with two counts in both). other_days: rows left out."""

    rows: pl.DataFrame
    bad: pl.DataFrame
    reason_counts: dict[str, int]
    other_days: int
    outside: pl.Series


def replay_plan(config: MonitorConfig, day: date) -> Plan:
    """The columns of `replay_log` for a monitor. Raises ConfigError for a feature named like a column of ours."""
    columns = config.columns
    kinds = {f.name: f.kind.replace("categorical", "text") for f in config.features}
    for name in (*kinds, *config.context):
        if name in _FIXED or (name in config.derived_context):
            raise ConfigError(
                f"{config.name}.features: '{name}' is a name the platform uses itself",
                next_step=f"rename it and map it: columns.features.<new name>: {name}",
            )
    parts = [Part("request_id", columns.request_id, "id"), Part("requested_at", columns.requested_at, "time")]
    given = {n: getattr(columns, n) for n in (*OUTPUTS, "label", *LATENCIES)}
    parts += [Part(n, c, "label" if n == "label" else "float", n in OUTPUTS) for n, c in given.items() if c is not None]
    parts += [Part(n, config.feature_column(n), kind) for n, kind in kinds.items()]
    parts += [Part(c, c, "text") for c in config.context if c not in kinds]
    return Plan(
        tuple(parts),
        day,
        config.source.timezone,
        config.derived_context,
        other_days_belong=_spans_days(config.source.path, day),
    )


def _spans_days(path: str, day: date) -> bool:
    """Whether a neighbouring day is in the same file: a path without `{date}`, or one by month or week."""
    return path_of_day(path, day) in (path_of_day(path, day + timedelta(days=i)) for i in (-1, 1))


def labels_plan(config: MonitorConfig) -> Plan:
    """The columns of `labels`; a label is a number, or true/false."""
    assert config.labels is not None
    parts = (
        Part("request_id", config.labels.request_id, "id"),
        Part("label", config.labels.label, "label", required=True),
    )
    return Plan(parts, None, config.source.timezone)


def stored_schema(config: MonitorConfig) -> dict[str, Any]:
    """All columns of a monitor's replay_log and their types, in order."""
    types = {"numeric": pl.Float32(), "boolean": pl.Boolean(), "categorical": pl.String()}
    features = {f.name: types[f.kind] for f in config.features}
    context = {c: pl.String() for c in config.segment_columns if c not in features}
    return {**REPLAY_LOG.schema, **features, **context}


def validate(raw: pl.DataFrame, plan: Plan, uri: str) -> Validated:
    """Split the rows of a batch into usable and bad ones.

    raw: the source's columns.

    Raises
    ------
    SourceError
        A column has a type that no row of it could be used with, such as timestamps in a numeric feature.
    """
    for part in plan.parts:
        _refuse_type(part, raw.schema[part.source], uri)
    frame = raw.with_row_index(ROW)
    other_days, outside, checks = 0, pl.Series(dtype=pl.Duration("us")), []
    if plan.day is not None:
        away = _outside(times_as_utc(frame[plan.time_column], plan.zone), plan.day, plan.zone)
        is_outside = away.fill_null(timedelta()) != timedelta()
        if plan.other_days_belong:
            other_days = int(is_outside.sum())
            frame = frame.filter(~is_outside)
        elif is_outside.any():
            outside = away.filter(is_outside)
            checks = [_Check.of(OUTSIDE, is_outside, _outside_text(away, plan.zone))]
    values = _values(frame, plan)
    checks = _checks(frame, values, plan) + checks
    counts = {c.reason: int(c.mask.sum()) for c in checks}
    if not checks:
        return Validated(_stored(values, plan), _bad(values, checks), counts, other_days, outside)
    is_bad = reduce(lambda a, b: a | b, (c.mask for c in checks))
    bad = _bad(values.filter(is_bad), [c.filter(is_bad) for c in checks])
    return Validated(_stored(values.filter(~is_bad), plan), bad, counts, other_days, outside)


@dataclass(frozen=True)
class _Check:
    reason: str
    mask: pl.Series
    text: pl.Series

    @staticmethod
    def of(reason: str, mask: pl.Series, detail: pl.Series) -> "_Check":
        """The detail (what was found) follows in brackets."""
        shown = detail.cast(pl.String).str.slice(0, 120)
        return _Check(reason, mask, pl.select(pl.lit(reason) + pl.lit(" (") + shown + pl.lit(")")).to_series())

    def filter(self, keep: pl.Series) -> "_Check":
        return _Check(self.reason, self.mask.filter(keep), self.text.filter(keep))


def _values(frame: pl.DataFrame, plan: Plan) -> pl.DataFrame:
    """Typed values under their stored names.

    Numeric text is first converted as it stands; only a column in which that made new nulls is looked at for blanks
    around numbers. On clean CSV this takes a fifth of the time.
    """
    schema = frame.schema
    plain = [p for p in plan.parts if p.kind in ("numeric", "float", "label") and schema[p.source] == pl.String]
    quick = frame.select(pl.col(p.source).cast(pl.Float64, strict=False).alias(p.name) for p in plain)
    sound = {p.name for p in plain if quick[p.name].null_count() == frame[p.source].null_count()}
    sound -= {name for name in sound if quick[name].is_nan().any()}
    times = {p.name: times_as_utc(frame[p.source], plan.zone) for p in plan.parts if p.kind == "time"}
    return frame.select(
        ROW,
        *(
            quick[p.name].cast(pl.Float32 if p.kind == "numeric" else pl.Float64)
            if p.name in sound
            else times[p.name].alias(p.name)
            if p.kind == "time"
            else _typed(p, pl.col(p.source), schema[p.source]).alias(p.name)
            for p in plan.parts
        ),
    )


def _checks(frame: pl.DataFrame, values: pl.DataFrame, plan: Plan) -> list[_Check]:
    """The checks that at least one row failed. Only columns with more nulls than their source, or infinities, are
    looked at row by row."""
    numbers = [p.name for p in plan.parts if values.schema[p.name].is_float()]
    infinite = values.select(pl.col(n).is_infinite().any() for n in numbers)
    checks = []
    for part in plan.parts:
        source, value = frame[part.source], values[part.name]
        must_be_there = part.required or part.kind in ("id", "time")
        is_sound = value.null_count() == (0 if must_be_there else source.null_count())
        if is_sound and not (part.name in infinite and infinite[part.name][0]):
            continue
        pair = pl.DataFrame({"source": source, "value": value})
        faults = _faults(part, pl.col("source"), source.dtype, pl.col("value"))
        masks = pair.select(fault.fill_null(value=False).alias(reason) for reason, fault in faults)
        checks += [_Check.of(m.name, m, _shown(source)) for m in masks if m.any()]
    return checks


def _refuse_type(part: Part, dtype: pl.DataType, uri: str) -> None:
    if dtype.is_temporal() and part.kind in ("float", "label", "numeric", "boolean"):
        wanted = {"boolean": "true/false or 0/1"}.get(part.kind, "numbers")
        raise SourceError(
            f"column '{part.source}' of {uri} is of the wrong type",
            expected=f"{wanted}, for '{part.name}'",
            found=str(dtype),
            next_step="map another column, or write numbers",
        )
    if part.kind == "time" and dtype == pl.Boolean:
        raise SourceError(f"column '{part.source}' of {uri} is of the wrong type", expected="times", found=str(dtype))


def _typed(part: Part, source: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if part.kind == "numeric":
        return _number(source, dtype).cast(pl.Float32)
    if part.kind == "float":
        return _number(source, dtype)
    if part.kind == "label":
        return pl.coalesce(_number(source, dtype), _boolean(source, dtype).cast(pl.Float64))
    if part.kind == "boolean":
        return _boolean(source, dtype)
    text = _text(source, dtype)
    return pl.when(text != "").then(text) if part.kind == "id" else text


def _faults(part: Part, source: pl.Expr, dtype: pl.DataType, value: pl.Expr) -> list[tuple[str, pl.Expr]]:
    given = ~_is_blank(source, dtype)
    if part.kind == "id":
        return [("request_id is missing", value.is_null())]
    if part.kind == "time":
        return [("requested_at is missing", ~given), ("requested_at is not a time", given & value.is_null())]
    if part.kind == "text":
        return []
    if part.kind == "boolean":
        return [(f"{part.name} is not true or false", given & value.is_null() & ~_is_nan(source, dtype))]
    faults = [
        (f"{part.name} is not a number", given & value.is_null() & ~_is_nan(source, dtype)),
        (f"{part.name} is infinite or too large", value.is_infinite()),
    ]
    if part.required:
        faults.append((f"{part.name} is missing", ~given | _is_nan(source, dtype)))
    return faults


def _is_blank(source: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype == pl.String:
        return source.is_null() | (source.str.strip_chars() == "")
    return source.is_null()


def _is_nan(source: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype.is_float():
        return source.is_nan().fill_null(value=False)
    if dtype == pl.String:
        return (source.str.strip_chars().str.to_lowercase() == "nan").fill_null(value=False)
    return pl.lit(value=False)


def _number(source: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype == pl.String:
        source = source.str.strip_chars()
    return source.cast(pl.Float64, strict=False).fill_nan(None)


def _boolean(source: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype == pl.Boolean:
        return source
    if dtype == pl.String:
        word = source.str.strip_chars().str.to_lowercase()
        truth = word.is_in(["true", "yes", "1", "1.0"])
        return pl.when(truth | word.is_in(["false", "no", "0", "0.0"])).then(truth)
    if dtype.is_numeric():
        return pl.when((source == 0) | (source == 1)).then(source == 1)
    return source.cast(pl.Boolean)  # a column of nulls


def _text(source: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype.is_float():
        whole = source.cast(pl.Int64, strict=False)
        return (
            pl.when(whole.cast(dtype) == source)
            .then(whole.cast(pl.String))
            .otherwise(source.fill_nan(None).cast(pl.String))
        )
    if dtype.is_temporal():
        return source.dt.to_string("iso")
    return source.cast(pl.String)


def _outside(requested_at: pl.Series, day: date, zone: str) -> pl.Series:
    """How far before (negative) or after the day; zero within, null where there is no time."""
    start = datetime.combine(day, time(), ZoneInfo(zone))
    end = datetime.combine(day + timedelta(days=1), time(), ZoneInfo(zone))
    at = pl.col("at")
    after = (at - pl.lit(end).dt.convert_time_zone("UTC")).dt.total_microseconds() + 1
    before = (at - pl.lit(start).dt.convert_time_zone("UTC")).dt.total_microseconds()
    away = pl.when(after > 0).then(after).when(before < 0).then(before).when(at.is_not_null()).then(0)
    return pl.DataFrame({"at": requested_at}).select(away.cast(pl.Duration("us"))).to_series()


def _outside_text(away: pl.Series, zone: str) -> pl.Series:
    minutes: pl.Expr = pl.col("away").dt.total_minutes()
    size = pl.format("{} h {} min", minutes.abs() // 60, minutes.abs() % 60)
    side = pl.when(minutes < 0).then(pl.lit(" before it starts")).otherwise(pl.lit(" after it ends"))
    slip = pl.col("away").abs() <= pl.lit(_ZONE_SLIP)
    hint = pl.when(slip).then(pl.lit(f"; is source.timezone, {zone}, that of the log?")).otherwise(pl.lit(""))
    return pl.DataFrame({"away": away}).select(size + side + hint).to_series()


def _shown(found: pl.Series) -> pl.Series:
    text = found if found.dtype == pl.String else found.cast(pl.String, strict=False)
    return pl.select(pl.format("found {}", text.fill_null("nothing"))).to_series()


def _bad(values: pl.DataFrame, checks: Sequence[_Check]) -> pl.DataFrame:
    if not checks:
        return pl.DataFrame(schema={ROW: pl.get_index_type(), "reason": pl.String})
    texts = [pl.when(c.mask).then(c.text) for c in checks]
    return values.select(ROW, pl.concat_str(texts, separator="; ", ignore_nulls=True).alias("reason"))


def _stored(values: pl.DataFrame, plan: Plan) -> pl.DataFrame:
    if not plan.derived:
        return values
    local = pl.col("requested_at").dt.convert_time_zone(plan.zone)
    derived = {
        "hour_of_day": local.dt.strftime("%H"),
        "weekday": local.dt.weekday().replace_strict(range(1, 8), WEEKDAYS, return_dtype=pl.String),
    }
    return values.with_columns(**{name: derived[name] for name in plan.derived})
