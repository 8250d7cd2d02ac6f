"""The background of explainers, and the explainer of a monitor's model.

Belongs here: choosing the background's requests, storing and loading them, binding settings and background to a model.
Does not belong here: what explainers do with it (see `explain`).

The rule: the `explanation.background_rows` requests with the smallest seeded hash of their id among those that both
models can predict, out of the reference days that are replayed when a background is first needed; out of the earliest
replayed day where none of them is. So it depends on the days replayed by then: a monitor whose days are replayed in
another order may get another one.
Days of which too many rows were unusable are passed over. It is stored once, for both models, as requests rather than
as encoded numbers, and then kept: days that arrive or change later do not change it. It is made anew only where the
features, the reference days, `background_rows` or `seed` change. Its hash is part of every attribution's provenance, so
that attributions over another background are stale, never mixed.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import date

import numpy as np
import polars as pl

from xai_assets.errors import LakeError, ModelError
from xai_assets.explain.protocol import Explainer
from xai_assets.explain.selection import METHODS, choose_method, explainer_for
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import Provenance
from xai_assets.flow.refusals import predictable
from xai_assets.lake.sampling import Reservoir, stable_keys
from xai_assets.models.model import Model
from xai_assets.records import MODEL_ROLES

TABLE = "explanation_background"


def monitor_explainer(monitor: Monitor, role: str, method: str | None = None, *, store: bool = True) -> Explainer:
    """The explainer of a role's model under the monitor's settings; a background it needs is made where there is none.

    method: another one than the monitor's own. store: keep a background that is made now; else it is drawn in memory
    and the daily path will draw its own.

    Raises
    ------
    ModelError
        The model cannot be loaded, the configured method does not fit it, or there is no request for a background
        that both models can predict.
    LakeError
        A background is needed, and no day is replayed yet.
    """
    return model_explainer(monitor, monitor.model(role), method, store=store)


def model_explainer(monitor: Monitor, model: Model, method: str | None = None, *, store: bool = True) -> Explainer:
    """`monitor_explainer` of any model of the monitor's features, such as an earlier version. Raises the same."""
    settings = monitor.config.explanation
    chosen = choose_method(model, method or settings.method)
    background = None
    if METHODS[chosen].needs_background:
        background = model.encode(_background(monitor, store=store))
    if chosen in ("lime", "integrated_gradients") and background is not None:
        # LIME cannot draw around missing values, and no path leads from one to a number
        background = background[~np.isnan(background).any(axis=1)]
    return explainer_for(model, method=chosen, background=background, seed=settings.seed)


def needs_background(monitor: Monitor) -> bool:
    """Whether one of the two models is explained by comparison with a background."""
    return any_needs_background(monitor, [monitor.model(r) for r in MODEL_ROLES])


def any_needs_background(monitor: Monitor, models: Sequence[Model]) -> bool:
    """The same of any models of the monitor's features."""
    method = monitor.config.explanation.method
    return any(METHODS[choose_method(m, method)].needs_background for m in models)


def ensure_background(monitor: Monitor) -> str | None:
    """Hash of the stored background, made now where the settings' one is not stored.

    None while there is no replayed request that both models can predict; nothing is stored then.
    """
    provenance = Provenance(monitor)
    stored = provenance.background_hash()
    if stored is not None:
        return stored
    days = _days(provenance)
    rows = _draw(monitor, days)
    if rows.height == 0:
        return None
    digest = hashlib.sha256(rows.write_ndjson().encode()).hexdigest()[:16]
    metadata = {
        "provenance": provenance.background_identity,
        "background_hash": digest,
        "days": json.dumps([str(d) for d in days]),
    }
    monitor.lake.write(TABLE, monitor.name, None, rows, metadata)
    return digest


def load_background(monitor: Monitor) -> pl.DataFrame:
    """The background's requests: one column per configured feature. Raises LakeError where there is none."""
    if not monitor.lake.exists(TABLE, monitor.name):
        raise _nothing_replayed(monitor)
    return monitor.lake.read(TABLE, monitor.name, columns=monitor.config.feature_names)


def _background(monitor: Monitor, *, store: bool) -> pl.DataFrame:
    """The background's requests, stored or drawn now."""
    provenance = Provenance(monitor)
    if store:
        ensure_background(monitor)
    if provenance.background_hash() is not None:
        return load_background(monitor)
    days = _days(provenance)
    rows = _draw(monitor, days)
    if rows.height:
        return rows.select(monitor.config.feature_names)
    if not days:
        raise _nothing_replayed(monitor)
    raise ModelError(
        f"explaining the models of '{monitor.name}' needs a background, and no request could serve",
        expected="requests that both models predict as a finite number",
        found=f"none in {len(days)} replayed days from {days[0]} on",
        next_step="impute missing values in the models' pipelines, or choose other reference days",
    )


def _nothing_replayed(monitor: Monitor) -> LakeError:
    return LakeError(
        f"explaining the models of '{monitor.name}' needs a background, and no request is replayed yet",
        next_step="materialize replay_log of a reference day first",
    )


def _days(provenance: Provenance) -> list[date]:
    """Replayed days to draw from."""
    monitor = provenance.monitor
    replayed = [d for d in monitor.lake.days("replay_log", monitor.name) if not provenance.is_refused(d)]
    filled = [d for d in replayed if monitor.lake.row_count("replay_log", monitor.name, d)]
    reference = set(monitor.config.reference_days)
    return [d for d in filled if d in reference] or filled[:1]


def _draw(monitor: Monitor, days: list[date]) -> pl.DataFrame:
    settings, features = monitor.config.explanation, monitor.config.feature_names
    columns = ("request_id", *features)
    reservoir = Reservoir(settings.background_rows)
    for day in days:
        for batch in monitor.lake.batches("replay_log", monitor.name, day, columns):
            rows = _first_predictable(monitor, batch, settings.background_rows)
            dated = rows.select("request_id", pl.lit(day).alias("requested_on"), *features)
            reservoir.offer(dated, stable_keys(rows["request_id"], settings.seed))
    return reservoir.smallest(settings.background_rows)


def _first_predictable(monitor: Monitor, rows: pl.DataFrame, count: int) -> pl.DataFrame:
    """The `count` rows with the smallest keys that both models can predict; no more rows are predicted than that takes
    (twice as many in each further attempt)."""
    order = stable_keys(rows["request_id"], monitor.config.explanation.seed)
    by_key = rows.select(pl.all().sort_by(order, "request_id"))
    kept, first, size = rows.clear(), 0, count
    while first < rows.height and kept.height < count:
        part = by_key[first : first + size]
        sound = [predictable(model, model.encode(part)) for model in map(monitor.model, MODEL_ROLES)]
        kept = pl.concat([kept, part.filter(pl.Series(np.logical_and(*sound)))])
        first, size = first + size, 2 * size
    return kept.head(count)
