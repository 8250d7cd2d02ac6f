"""Questions to the lake that join tables or choose rows: what diverged, what is labelled, why one request scored so.

Belongs here: the divergence set and its sample, joins of replay log and labels, the look-up of one request; `warehouse`
adds SQL for people. Does not belong here: formulas of drift, decisions.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from xai_assets.config import MonitorConfig
from xai_assets.errors import LakeError
from xai_assets.lake.sampling import Reservoir, shares_of_budget, stable_keys
from xai_assets.lake.store import Lake
from xai_assets.lake.tables import DIVERGENCE_SET, PHI
from xai_assets.lake.validate import stored_schema
from xai_assets.lake.warehouse import create_views, open_warehouse, run_sql
from xai_assets.records import MODEL_ROLES

__all__ = [
    "DivergenceReport",
    "create_views",
    "divergence_threshold",
    "labelled_rows",
    "open_warehouse",
    "request_explanation",
    "run_sql",
    "write_divergence_set",
]

QUANTILE_ROWS = 20_000_000
"""Rows up to which a quantile of |Δ| is exact; beyond, every k-th row of each batch speaks for its neighbours."""
_OUTPUTS = ("production_output", "experimental_output")


@dataclass(frozen=True)
class DivergenceReport:
    """What one day's divergence set holds. Counts are requests; `mean_abs_delta` is over all of them (NaN where
    there are none), `threshold` as used, both in output units."""

    rows: int
    divergent_rows: int
    explained_rows: int
    magnitude_rows: int
    flip_rows: int
    mean_abs_delta: float
    threshold: float


def divergence_threshold(lake: Lake, config: MonitorConfig) -> float:
    """The |Δ| above which outputs count as different, in output units.

    `divergence.threshold`, or the `divergence.threshold_quantile` of |Δ| over the reference days stored so far.

    Raises
    ------
    LakeError
        A quantile is asked for and no reference day has a request.
    """
    quantile = config.divergence.threshold_quantile
    if quantile is None:
        return config.divergence.threshold
    stored = set(lake.days("replay_log", config.name))
    days = [d for d in config.reference_days if d in stored]
    step = max(1, -(-sum(lake.row_count("replay_log", config.name, d) for d in days) // QUANTILE_ROWS))
    parts = [_delta(b)[::step] for d in days for b in lake.batches("replay_log", config.name, d, _OUTPUTS)]
    sizes = np.abs(np.concatenate(parts)) if parts else np.empty(0)
    if not len(sizes):
        raise LakeError(
            f"the quantile {quantile} of the divergence cannot be taken",
            expected=f"requests on days from {config.reference.start_date} to {config.reference.end_date}",
            found=f"{len(days)} of these days stored, without requests",
            next_step="materialize replay_log of the reference days first",
        )
    return float(np.quantile(sizes, quantile))


def write_divergence_set(
    lake: Lake, config: MonitorConfig, day: date, threshold: float, provenance: str, *, budget: int | None
) -> DivergenceReport:
    """Choose the requests of a day to explain, and store them with their exact inclusion probabilities.

    All rows where `budget` is None or not below their number (π = 1). Above it, a stratified simple random sample
    without replacement: of the divergent rows up to `explanation.divergent_share` of the budget, of the rest what
    remains; what one stratum does not need the other gets. Within a stratum of N the n rows with the smallest keys
    (MD5 of seed and request id) are taken, π = n/N: the same rows in every run, whatever the order in the log.

    Footer: `provenance`, `threshold`, `report` (DivergenceReport as JSON). One pass over the day; memory is that of a
    batch, and with a budget of 4 × budget rows, whatever the day's size.

    Raises
    ------
    LakeError
        The day has no replay_log partition.
    """
    counts = _Counts()
    with lake.writer("divergence_set", config.name, day) as writer:
        judged = _judged(lake, config, day, threshold, counts)
        for rows in judged if budget is None else _sampled(judged, config, budget):
            writer.append(rows.select(pl.col(c.name).cast(c.dtype) for c in DIVERGENCE_SET.columns))
        report = counts.report(writer.rows, threshold)
        writer.metadata |= {"provenance": provenance, "threshold": repr(threshold), "report": _json(report)}
    return report


def labelled_rows(
    lake: Lake, config: MonitorConfig, days: Sequence[date], known_by: date, columns: Sequence[str]
) -> pl.DataFrame:
    """Requests of these days whose label was known by the end of `known_by`, in the order of the days and the log.

    A label comes from the labels that arrived since the request's day, the last one winning, else from the log itself,
    which is known on the request's own day. Days that are not stored are left out.

    Returns
    -------
    `date`, `request_id`, `requested_at`, `label` (Float64, never null), then `columns`.
    """
    wanted = [c for c in dict.fromkeys(columns) if c not in ("date", "request_id", "requested_at", "label")]
    first = ["date", "request_id", "requested_at", "label"]
    stored = set(lake.days("replay_log", config.name))
    asked = [d for d in days if d in stored and d <= known_by]
    schema = {"date": pl.Date(), **stored_schema(config)}
    empty = pl.DataFrame(schema={c: schema[c] for c in (*first, *wanted)})
    if not asked:
        return empty
    arrived = _arrived_labels(lake, config, min(asked), known_by)
    frames = [empty]
    for day in asked:
        rows = lake.read("replay_log", config.name, day, [*first[1:], *wanted])
        rows = rows.join(
            arrived.filter(pl.col("arrived_on") >= day), on="request_id", how="left", maintain_order="left"
        )
        rows = rows.with_columns(pl.coalesce("arrived_label", "label").alias("label"), pl.lit(day).alias("date"))
        frames.append(rows.filter(pl.col("label").is_not_null()).select(first + wanted))
    return pl.concat(frames)


def request_explanation(lake: Lake, config: MonitorConfig, request_id: str) -> dict[str, Any] | None:
    """Everything stored about one request, or None where no day of the monitor has it.

    Keys: `request_id`, `monitor`, `date` (the latest day that has it), `other_dates`, `requested_at`, `features`,
    `context`, `production_output`, `experimental_output`, `delta`, `label`, and `status`:

    - "explained": with `is_divergent`, `divergence_kind`, `inclusion_probability`, `models` (per role `model_version`,
      `base_value`, `margin`, `attributions`), `difference` (δ per feature) and `base_difference`;
    - "sampled_out": the day is explained, but the request was not drawn within the budget;
    - "pending": the day's divergence set or attributions are not stored yet.

    Outputs are in output units, attributions on the margin scale.
    """
    days = _days_of(lake, config.name, request_id)
    if not days:
        return None
    row = _row(lake, "replay_log", config.name, days[0], request_id)
    assert row is not None
    features = {n: row[n] for n in config.feature_names if n in row}
    result = {
        "request_id": request_id,
        "monitor": config.name,
        "date": days[0],
        "other_dates": days[1:],
        "requested_at": row["requested_at"],
        "features": features,
        "context": {c: row[c] for c in config.segment_columns if c in row},
        **{name: row[name] for name in (*_OUTPUTS, "label")},
        "delta": row["experimental_output"] - row["production_output"],
    }
    return result | _explained(lake, config.name, days[0], request_id)


# --- the divergence set ----------------------------------------------------------------------------------------------


@dataclass
class _Counts:
    """Totals over the requests of a day, as they pass by."""

    rows: int = 0
    over: int = 0
    flipped: int = 0
    divergent: int = 0
    abs_delta_sum: float = 0.0

    def add(self, over: npt.NDArray[np.bool_], flipped: npt.NDArray[np.bool_], delta: npt.NDArray[np.float64]) -> int:
        """Count a batch; returns the position of its first row in the day."""
        first = self.rows
        self.rows += len(delta)
        self.over += int(over.sum())
        self.flipped += int(flipped.sum())
        self.divergent += int((over | flipped).sum())
        self.abs_delta_sum += float(np.abs(delta).sum())
        return first

    def report(self, explained: int, threshold: float) -> DivergenceReport:
        return DivergenceReport(
            rows=self.rows,
            divergent_rows=self.divergent,
            explained_rows=explained,
            magnitude_rows=self.over,
            flip_rows=self.flipped,
            mean_abs_delta=self.abs_delta_sum / self.rows if self.rows else float("nan"),
            threshold=threshold,
        )


def _judged(lake: Lake, config: MonitorConfig, day: date, threshold: float, counts: _Counts) -> Iterator[pl.DataFrame]:
    """Every request of a day as a row of the divergence set with π = 1, batch by batch."""
    cut, kinds = config.divergence.decision_threshold, config.divergence.kinds
    kind = pl.when("over", "flipped").then(pl.lit("magnitude+decision_flip")).when("over").then(pl.lit("magnitude"))
    for batch in lake.batches("replay_log", config.name, day, ["request_id", *_OUTPUTS]):
        delta = _delta(batch)
        production, experimental = (batch[n].to_numpy() for n in _OUTPUTS)
        # in numpy, where NaN exceeds nothing
        over = (np.abs(delta) > threshold) & ("magnitude" in kinds)
        flipped = ((production >= cut) != (experimental >= cut)) & ("decision_flip" in kinds)
        first = counts.add(over, flipped, delta)
        yield batch.select(
            pl.int_range(first, first + batch.height, dtype=pl.UInt32).alias("row_index"),
            "request_id",
            delta=delta,
            over=over,
            flipped=flipped,
        ).select(
            "row_index",
            "request_id",
            "delta",
            (pl.col("over") | pl.col("flipped")).alias("is_divergent"),
            kind.when("flipped").then(pl.lit("decision_flip")).otherwise(pl.lit("none")).alias("divergence_kind"),
            pl.lit(1.0).alias("inclusion_probability"),
        )


def _sampled(judged: Iterator[pl.DataFrame], config: MonitorConfig, budget: int) -> Iterator[pl.DataFrame]:
    """The chosen rows in the order of the log, each with its inclusion probability."""
    divergent, rest = Reservoir(budget), Reservoir(budget)
    for rows in judged:
        keyed = rows.with_columns(stable_keys(rows["request_id"], config.explanation.seed).alias("key"))
        for reservoir, stratum in ((divergent, pl.col("is_divergent")), (rest, ~pl.col("is_divergent"))):
            part = keyed.filter(stratum)
            reservoir.offer(part.drop("key"), part["key"])
    if divergent.offered + rest.offered == 0:
        return
    sizes = shares_of_budget(budget, config.explanation.divergent_share, divergent.offered, rest.offered)
    drawn = [
        reservoir.smallest(n).with_columns(pl.lit(n / max(reservoir.offered, 1)).alias("inclusion_probability"))
        for reservoir, n in zip((divergent, rest), sizes, strict=True)
    ]
    yield pl.concat(drawn).sort("row_index")


def _json(report: DivergenceReport) -> str:
    plain = asdict(report)
    return json.dumps(plain | ({} if report.rows else {"mean_abs_delta": None}))


def _delta(frame: pl.DataFrame) -> npt.NDArray[np.float64]:
    return (frame["experimental_output"] - frame["production_output"]).to_numpy().astype(np.float64, copy=False)


# --- labels ----------------------------------------------------------------------------------------------------------


def _arrived_labels(lake: Lake, config: MonitorConfig, since: date, until: date) -> pl.DataFrame:
    """The last label per request among those that arrived in these days: request_id, arrived_label, arrived_on."""
    days = [since + timedelta(days=i) for i in range((until - since).days + 1)]
    labels = lake.read_days("labels", config.name, days, ["request_id", "label"])
    known = labels.filter(pl.col("label").is_not_null()).rename({"label": "arrived_label", "date": "arrived_on"})
    return known.unique("request_id", keep="last", maintain_order=True)


# --- one request -----------------------------------------------------------------------------------------------------


def _days_of(lake: Lake, monitor: str, request_id: str) -> list[date]:
    """Days whose replay log has the request, latest first; only the column of ids is read."""
    days = lake.days("replay_log", monitor)
    return [d for d in reversed(days) if _rows_of(lake, "replay_log", monitor, d, request_id, ["request_id"]).height]


def _row(lake: Lake, table: str, monitor: str, day: date, request_id: str) -> dict[str, Any] | None:
    found = _rows_of(lake, table, monitor, day, request_id)
    return found.row(0, named=True) if found.height else None


def _rows_of(
    lake: Lake, table: str, monitor: str, day: date, request_id: str, columns: Sequence[str] | None = None
) -> pl.DataFrame:
    import pyarrow.dataset as pads  # imports pandas, half a second that no daily process should pay

    dataset = pads.dataset(lake.inner(table, monitor, day), filesystem=lake.files.filesystem, format="parquet")
    found = pl.from_arrow(dataset.to_table(columns=columns, filter=pads.field("request_id") == request_id))
    assert isinstance(found, pl.DataFrame)
    return found


def _explained(lake: Lake, monitor: str, day: date, request_id: str) -> dict[str, Any]:
    tables = ("divergence_set", *(f"{role}_attributions" for role in MODEL_ROLES))
    if not all(lake.exists(t, monitor, day) for t in tables):
        return {"status": "pending"}
    rows = [_row(lake, t, monitor, day, request_id) for t in tables]
    chosen, *attributions = rows
    if chosen is None:
        return {"status": "sampled_out"}
    if any(a is None for a in attributions):
        return {"status": "pending"}
    models = {role: _model(a) for role, a in zip(MODEL_ROLES, attributions, strict=True) if a is not None}
    production, experimental = (models[role] for role in MODEL_ROLES)
    names = [n for n in experimental["attributions"] if n in production["attributions"]]
    return {
        "status": "explained",
        **{k: chosen[k] for k in ("is_divergent", "divergence_kind", "inclusion_probability")},
        "models": models,
        "difference": {n: experimental["attributions"][n] - production["attributions"][n] for n in names},
        "base_difference": experimental["base_value"] - production["base_value"],
    }


def _model(row: Mapping[str, Any]) -> dict[str, Any]:
    attributions = {k.removeprefix(PHI): v for k, v in row.items() if k.startswith(PHI)}
    return {k: row[k] for k in ("model_version", "base_value", "margin")} | {"attributions": attributions}
