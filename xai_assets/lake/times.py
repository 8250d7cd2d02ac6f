"""Times as logs write them, to UTC.

Belongs here: the forms that are accepted. Does not belong here: which day a time belongs to (see `validate`).

Accepted are ISO 8601 text, timestamps, dates (midnight), and numbers since 1970: seconds below 1e11, milliseconds below
1e14, microseconds below 1e17, else nanoseconds. Times without an offset are in the zone given; of the hour that a clock
change repeats the first is taken, and one in the hour that it skips is no time.
"""

import polars as pl

from xai_assets.lake.tables import UTC

_OFFSET = r"(?:[zZ]|[+-]\d{2}(?::?\d{2})?)$"


def times_as_utc(values: pl.Series, zone: str) -> pl.Series:
    """Times in any accepted form as UTC, microseconds; null where it is none."""
    dtype, value = values.dtype, pl.col(values.name)
    if dtype == pl.String:
        return _times_of_text(values, zone)
    if isinstance(dtype, pl.Datetime):
        at = value.cast(pl.Datetime("us", dtype.time_zone))
        time_expr = at.dt.convert_time_zone("UTC") if dtype.time_zone else _in_zone(at, zone)
    elif dtype == pl.Date:
        time_expr = _in_zone(value.cast(pl.Datetime("us")), zone)
    elif dtype.is_numeric():
        time_expr = _epoch(value.cast(pl.Float64))
    else:
        time_expr = value.cast(UTC)  # a column of nulls
    return values.to_frame().select(time_expr).to_series()


def _times_of_text(values: pl.Series, zone: str) -> pl.Series:
    """One form after the other, each on what the ones before left over."""
    text = values.str.strip_chars().str.replace("[tT]", " ").alias("text")
    result = text.to_frame().select(_aware(pl.col("text"))).to_series()
    for form in (_in_zone(_naive(pl.col("text")), zone), _epoch(pl.col("text").cast(pl.Float64, strict=False))):
        left = (result.is_null() & text.is_not_null()).arg_true()
        if left.is_empty():
            break
        result = result.scatter(left, text.gather(left).to_frame().select(form).to_series())
    return result.alias(values.name)


def _naive(text: pl.Expr) -> pl.Expr:
    plain = pl.when(~text.str.contains(r"\d " + r".*" + _OFFSET)).then(text)
    seconds = plain.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False)
    minutes = plain.str.to_datetime("%Y-%m-%d %H:%M", time_unit="us", strict=False)
    days = plain.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
    return pl.coalesce(seconds, minutes, days)


def _aware(text: pl.Expr) -> pl.Expr:
    with_offset: pl.Expr = pl.when(text.str.contains(r"\d:.*" + _OFFSET)).then(text.str.replace("[zZ]$", "+00:00"))
    with_offset = with_offset.str.replace(r" ([+-]\d{2}(?::?\d{2})?)$", "${1}").str.replace(r"([+-]\d{2})$", "${1}:00")
    forms = ("%Y-%m-%d %H:%M:%S%.f%z", "%Y-%m-%d %H:%M%z")
    return pl.coalesce(with_offset.str.to_datetime(f, time_unit="us", time_zone="UTC", strict=False) for f in forms)


def _in_zone(naive: pl.Expr, zone: str) -> pl.Expr:
    placed = naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return placed.dt.convert_time_zone("UTC")


def _epoch(number: pl.Expr) -> pl.Expr:
    size = number.abs()
    scale = pl.when(size < 1e11).then(1e6).when(size < 1e14).then(1e3).when(size < 1e17).then(1.0).otherwise(1e-3)
    return (number * scale).cast(pl.Int64, strict=False).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
