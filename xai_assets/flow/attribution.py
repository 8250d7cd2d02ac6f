"""Attributions of one model for one day.

Belongs here: walking the chosen requests, encoding, explaining, widening to all configured features, storing.
Does not belong here: how a model or an explainer works, which explainer is used (see `background`).
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import polars as pl

from xai_assets.explain.additivity import additivity_error, explained_rows
from xai_assets.explain.protocol import Explainer
from xai_assets.explain.widen import widen
from xai_assets.flow.background import monitor_explainer
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import Provenance
from xai_assets.flow.refusals import explain_accepted
from xai_assets.lake.alignment import explained_batches
from xai_assets.lake.tables import PHI
from xai_assets.records import Attributions

BATCH_ROWS = 32_768
_NOBODY = pl.DataFrame(schema={"request_id": pl.String})
_NOTHING_MADE = dict.fromkeys(("explainer", "explainer_exact", "explainer_background", "explainer_seed"), "-")


@dataclass(frozen=True)
class AttributionReport:
    """What one model's attributions of a day look like.

    mean_absolute: mean |φ| per feature, margin units. seconds: the whole stage; explain_seconds: the explainer alone.
    explainer: what made them, as in the partition's footer. failed_rows: requests without a finite explanation; the
    errors and means are those of the others.
    """

    rows: int
    failed_rows: int
    additivity_error: float
    mean_absolute: dict[str, float]
    seconds: float
    explain_seconds: float
    explainer: dict[str, str]


def explain_day(monitor: Monitor, role: str, day: date, provenance: str) -> AttributionReport:
    """Explain a day's chosen requests with one model and store `<role>_attributions`.

    A request that the model or the explainer refuses is stored with NaN and counts as failed. Memory is that of one
    batch. Raises ModelError where the artifact or its explainer does not fit, or refuses every request, and stores
    nothing then. The explainer is built for the first request: an empty day needs no background.
    """
    started = time.perf_counter()
    model, explainer, refusal = monitor.model(role), None, None
    names = monitor.config.feature_names
    rows, failed, worst, absolute, explaining = 0, 0, 0.0, np.zeros(len(names)), 0.0
    with monitor.lake.writer(f"{role}_attributions", monitor.name, day) as out:
        for chosen, replayed in explained_batches(monitor.lake, monitor.name, day, names, BATCH_ROWS):
            matrix = model.encode(replayed)
            explainer = explainer or monitor_explainer(monitor, role)
            before = time.perf_counter()
            explained, refused = explain_accepted(explainer, matrix)
            explaining += time.perf_counter() - before
            refusal = refusal or refused
            explained = widen(explained, model.feature_names, names)
            out.append(_frame(chosen, role, model.version, explained, names))
            rows += chosen.height
            finite = explained_rows(explained)
            if not finite.all():
                failed += int(np.count_nonzero(~finite))
                explained = Attributions(
                    explained.values[finite], explained.base_value[finite], explained.margin[finite]
                )
            worst = max(worst, additivity_error(explained))
            absolute += np.abs(explained.values).sum(axis=0, dtype=np.float64)
        if refusal is not None and failed == rows:
            raise refusal
        if rows == 0:
            out.append(_frame(_NOBODY, role, model.version, _nothing(len(names)), names))
        made_by = _NOTHING_MADE if explainer is None else described(explainer)
        out.metadata |= {
            "provenance": provenance,
            "model_sha256": model.sha256,
            "explainer_identity": Provenance(monitor).explainer_identity(role),
            "additivity_error": repr(worst),
            "failed_rows": str(failed),
            "explain_seconds": repr(explaining),
            **made_by,
        }
    means = absolute / max(rows - failed, 1)
    return AttributionReport(
        rows=rows,
        failed_rows=failed,
        additivity_error=worst,
        mean_absolute=dict(zip(names, means.tolist(), strict=True)),
        seconds=time.perf_counter() - started,
        explain_seconds=explaining,
        explainer=made_by,
    )


def explain_request(
    monitor: Monitor, role: str, features: Mapping[str, Any], method: str
) -> tuple[Attributions, dict[str, str]]:
    """One request's attributions by any method, over all configured features, and what made them; nothing is stored,
    a background that the method needs included.

    features: values by name, as in the replay log. Raises ModelError where the method does not fit model or request.
    """
    types = {"numeric": pl.Float32, "categorical": pl.String, "boolean": pl.Boolean}
    schema = {f.name: types[f.kind] for f in monitor.config.features}
    row = pl.DataFrame([{name: features.get(name) for name in schema}], schema=schema)
    model, explainer = monitor.model(role), monitor_explainer(monitor, role, method, store=False)
    explained = explainer.explain(model.encode(row))
    return widen(explained, model.feature_names, monitor.config.feature_names), described(explainer)


def described(explainer: Explainer) -> dict[str, str]:
    """What every result carries of its explainer, as texts; "-" where there is none."""
    reason = getattr(explainer, "reason", "")
    return {
        "explainer": f"{explainer.id} {explainer.version}",
        "explainer_exact": str(explainer.is_exact).lower(),
        "explainer_background": explainer.background_hash or "-",
        "explainer_seed": "-" if explainer.seed is None else str(explainer.seed),
        **({"explainer_reason": reason} if reason else {}),
    }


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
