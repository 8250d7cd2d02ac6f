"""Attributions of one model for one day.

Belongs here: walking the chosen requests, encoding, explaining, widening to all configured features, storing.
Does not belong here: how a model or an explainer works.
"""

import time
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from xai_assets.explain.additivity import additivity_error
from xai_assets.explain.selection import explainer_for
from xai_assets.explain.widen import widen
from xai_assets.flow.monitor import Monitor
from xai_assets.lake.alignment import explained_batches
from xai_assets.lake.tables import PHI
from xai_assets.records import Attributions

BATCH_ROWS = 32_768
_NOBODY = pl.DataFrame(schema={"request_id": pl.String})


@dataclass(frozen=True)
class AttributionReport:
    """What one model's attributions of a day look like.

    mean_absolute: mean |φ| per feature, margin units. seconds: the whole stage; explain_seconds: the explainer alone.
    """

    rows: int
    additivity_error: float
    mean_absolute: dict[str, float]
    seconds: float
    explain_seconds: float
    explainer: str


def explain_day(monitor: Monitor, role: str, day: date, provenance: str) -> AttributionReport:
    """Explain a day's chosen requests with one model and store `<role>_attributions`.

    Memory is that of one batch. Raises ModelError where the artifact does not fit, and stores nothing then.
    """
    started = time.perf_counter()
    model = monitor.model(role)
    explainer = explainer_for(model)
    names = monitor.config.feature_names
    rows, worst, absolute, explaining = 0, 0.0, np.zeros(len(names)), 0.0
    with monitor.lake.writer(f"{role}_attributions", monitor.name, day) as out:
        for chosen, replayed in explained_batches(monitor.lake, monitor.name, day, names, BATCH_ROWS):
            matrix = model.encode(replayed)
            before = time.perf_counter()
            explained = explainer.explain(matrix)
            explaining += time.perf_counter() - before
            explained = widen(explained, model.feature_names, names)
            out.append(_frame(chosen, role, model.version, explained, names))
            worst = max(worst, additivity_error(explained))
            rows += chosen.height
            absolute += np.abs(explained.values, dtype=np.float64).sum(axis=0)
        if rows == 0:
            out.append(_frame(_NOBODY, role, model.version, _nothing(len(names)), names))
        out.metadata |= {
            "provenance": provenance,
            "model_sha256": model.sha256,
            "explainer": f"{explainer.id} {explainer.version}",
            "additivity_error": repr(worst),
            "explain_seconds": repr(explaining),
        }
    means = absolute / max(rows, 1)
    return AttributionReport(
        rows=rows,
        additivity_error=worst,
        mean_absolute=dict(zip(names, means.tolist(), strict=True)),
        seconds=time.perf_counter() - started,
        explain_seconds=explaining,
        explainer=f"{explainer.id} {explainer.version}",
    )


def _nothing(features: int) -> Attributions:
    return Attributions(np.zeros((0, features), np.float32), np.zeros(0), np.zeros(0))


def _frame(
    chosen: pl.DataFrame, role: str, version: str, explained: Attributions, names: tuple[str, ...]
) -> pl.DataFrame:
    fixed = pl.DataFrame(
        {
            "request_id": chosen["request_id"],
            "role": pl.repeat(role, chosen.height, eager=True, dtype=pl.String),
            "model_version": pl.repeat(version, chosen.height, eager=True, dtype=pl.String),
            "base_value": explained.base_value,
            "margin": explained.margin,
        }
    )
    phi = {f"{PHI}{name}": np.ascontiguousarray(explained.values[:, j]) for j, name in enumerate(names)}
    return fixed.with_columns([pl.Series(k, v, dtype=pl.Float32) for k, v in phi.items()])
