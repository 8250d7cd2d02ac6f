"""Residuals of the day whose labels became complete.

Belongs here: joining labels to outputs, filling residual tables, their rows.
Does not belong here: scores made from them (see `label_scoring`), sums over cells (`stats.residuals`).
"""

from collections.abc import Mapping
from datetime import date
from typing import Any

import numpy as np
import polars as pl

from xai_assets.flow.histograms import Profile
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import cohort_day
from xai_assets.lake.queries import labelled_rows
from xai_assets.lake.segments import segment_codes
from xai_assets.lake.tables import RESIDUAL_HISTOGRAMS
from xai_assets.models.artifact import encode_features
from xai_assets.records import INPUT, MODEL_ROLES, Float64
from xai_assets.stats.residuals import (
    ResidualTable,
    accumulate_residuals,
    empty_residuals,
)

SUMS = ("label_count", "residual_sum", "residual_squared_sum", "label_sum", "residual_abs_sum")
Tables = dict[str, ResidualTable]


def write_day_residuals(monitor: Monitor, day: date, profile: Profile, provenance: str) -> Mapping[str, Any]:
    """Fill and store `residual_histograms` of `day`: requests made `labels.complete_after_days` earlier."""
    config, cohort = monitor.config, cohort_day(monitor.config, day)
    assert cohort is not None, "a monitor without complete labels has no such asset"
    columns = list(dict.fromkeys((*config.feature_names, *config.segment_columns, *OUTPUTS.values())))
    rows = labelled_rows(monitor.lake, config, [cohort], day, columns)
    values = encode_features(rows, monitor.features, unseen="own_code")
    codes = segment_codes(rows, config.segment_columns, profile.segments)
    labels = rows["label"].to_numpy().astype(np.float64)
    tables: Tables = {}
    for role, column in OUTPUTS.items():
        is_classifier = monitor.model(role).is_classifier
        tables[role] = empty_residuals(profile.segments, profile.edges[INPUT])
        outputs = probabilities(monitor, role, rows[column].to_numpy()) if is_classifier else rows[column].to_numpy()
        accumulate_residuals(
            tables[role], profile.edges[INPUT], values, labels, outputs, codes, is_classifier=is_classifier
        )
    metadata = {"provenance": provenance, "profile_hash": profile.profile_hash, "cohort": str(cohort)}
    monitor.lake.write("residual_histograms", monitor.name, day, tables_to_frame(tables), metadata)
    return {"requests_of": str(cohort), "labelled_requests": rows.height}


OUTPUTS = {role: f"{role}_output" for role in MODEL_ROLES}
"""Column of the replay log that holds a role's output."""


def probabilities(monitor: Monitor, role: str, outputs: Float64) -> Float64:
    """Logged outputs of a classifier [n] as probabilities: margins go through the logistic function."""
    output = monitor.config.models.output
    is_margin = output == "margin" or (output != "probability" and monitor.model(role).objective == "binary:logitraw")
    if not is_margin:
        return outputs
    return np.asarray(1.0 / (1.0 + np.exp(-outputs)))


def tables_to_frame(tables: Mapping[str, ResidualTable]) -> pl.DataFrame:
    """Rows of `residual_histograms`; a cell without a label has no row."""
    parts = [pl.DataFrame(schema=RESIDUAL_HISTOGRAMS.schema)]
    for role, table in tables.items():
        s, j, k = np.nonzero(table.label_count)
        segments = pl.Series(table.segments, dtype=pl.String).gather(s)
        features = pl.Series(table.features, dtype=pl.String).gather(j)
        columns: dict[str, Any] = {"segment": segments, "feature": features, "bin": k}
        columns |= {name: getattr(table, name)[s, j, k] for name in SUMS}
        frame = pl.DataFrame(columns).with_columns(pl.lit(role).alias("role"))
        parts.append(frame.select(pl.col(c).cast(t) for c, t in RESIDUAL_HISTOGRAMS.schema.items()))
    return pl.concat(parts)


def frame_to_tables(frame: pl.DataFrame, profile: Profile) -> Tables:
    """Residual tables by role; what has no row is zero."""
    tables: Tables = {}
    for role in MODEL_ROLES:
        empty = empty_residuals(profile.segments, profile.edges[INPUT])
        rows = frame.filter(pl.col("role") == role)
        segment = {n: i for i, n in enumerate(empty.segments)}
        feature = {n: i for i, n in enumerate(empty.features)}
        at = (
            rows["segment"].replace_strict(segment, return_dtype=pl.Int64).to_numpy(),
            rows["feature"].replace_strict(feature, return_dtype=pl.Int64).to_numpy(),
            rows["bin"].cast(pl.Int64).to_numpy(),
        )
        for name in SUMS:
            getattr(empty, name)[at] = rows[name].to_numpy()
        tables[role] = empty
    return tables
