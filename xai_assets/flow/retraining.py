"""Training a candidate for an open retrain recommendation.

Belongs here: which rows it learns from and which it is tested on, their weights, registering it.
Does not belong here: how a model is trained (`models.training`), whether retraining is due (`decide`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np
import polars as pl

from xai_assets.errors import LakeError, ModelError
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import all_days, combine
from xai_assets.lake.queries import labelled_rows
from xai_assets.lake.tables import MODEL_VERSIONS
from xai_assets.models.artifact import load_model
from xai_assets.models.registry import ModelVersion, register_artifact
from xai_assets.models.training import TrainSettings, evaluate, train_classifier, train_regressor
from xai_assets.records import OVERALL, PRODUCTION, Float64

TRAINING = TrainSettings(
    rounds=400, parameters={"max_depth": 4, "learning_rate": 0.1}, early_stopping_share=0.15, early_stopping_rounds=20
)
"""Shallow trees that stop on the last training rows: XGBoost's own defaults overfitted the demo by 0.03 AUC."""


@dataclass(frozen=True)
class Candidate:
    """A registered version and the finding as a sentence."""

    version: ModelVersion
    sentence: str


@dataclass(frozen=True)
class RetrainingPlan:
    """What a retrain recommendation asks for."""

    recommendation_id: str
    role: str
    focus_features: tuple[str, ...]
    focus_segments: tuple[str, ...]
    as_of: date


def find_plan(monitor: Monitor, recommendation_id: str | None, as_of: date | None) -> RetrainingPlan:
    """The named retrain recommendation as it stands on `as_of`, by default the newest open one.

    Raises LakeError where there is none.
    """
    days = monitor.lake.days("recommendations", monitor.name)
    wanted = [d for d in days if as_of is None or d <= as_of]
    for day in reversed(wanted):
        rows = monitor.lake.read("recommendations", monitor.name, day)
        rows = rows.filter((pl.col("action") == "retrain") & (pl.col("state") == "open"))
        if recommendation_id is not None:
            rows = rows.filter(pl.col("recommendation_id") == recommendation_id)
        for row in rows.iter_rows(named=True):
            return RetrainingPlan(
                row["recommendation_id"],
                row["target"],
                tuple(row["focus_features"]),
                tuple(row["focus_segments"]),
                as_of or day,
            )
    raise LakeError(
        f"'{monitor.name}' has no open retrain recommendation" + (f" {recommendation_id}" if recommendation_id else ""),
        found=f"{len(wanted)} days of recommendations",
        next_step=f"look at them with: xai sql \"SELECT * FROM recommendations WHERE monitor = '{monitor.name}'\"",
    )


def train_candidate(
    monitor: Monitor, *, model_dir: str, recommendation_id: str | None, as_of: date | None, now: datetime
) -> Candidate:
    """Train on the recent window, test on its last rows, compare with the model in service, register.

    Rows under an input fault are left out: a candidate must not learn broken data. Rows of the focus segments
    weigh `remediation.focus_weight`. Raises ModelError where too few labels have arrived.
    """
    plan = find_plan(monitor, recommendation_id, as_of)
    settings = monitor.config.remediation
    rows = _usable_rows(monitor, plan)
    train, test = _split_by_day(rows, settings.holdout_share)
    incumbent = monitor.model(plan.role if plan.role in ("production", "experimental") else PRODUCTION)
    weights = focus_weights(train, plan.focus_segments, settings.focus_weight)
    trainer = train_classifier if incumbent.is_classifier else train_regressor
    artifact = trainer(train, train["label"].to_numpy(), weights, monitor.features, settings=TRAINING)
    path, sha256 = register_artifact(model_dir, monitor.name, plan.role, artifact.raw)
    candidate = load_model(path, "xgboost", sha256, monitor.config.features)
    new, old = (evaluate(m, test, test["label"].to_numpy()) for m in (candidate, incumbent))
    better = new.value > old.value if new.metric == "auc" else new.value < old.value
    version = ModelVersion(
        registered_at=now,
        role=plan.role,
        sha256=sha256,
        artifact=path,
        recommendation_id=plan.recommendation_id,
        trained_from=train["date"].min(),  # type: ignore[arg-type]
        trained_to=train["date"].max(),  # type: ignore[arg-type]
        tested_from=test["date"].min(),  # type: ignore[arg-type]
        tested_to=test["date"].max(),  # type: ignore[arg-type]
        train_rows=train.height,
        test_rows=test.height,
        focus_segments=plan.focus_segments,
        focus_features=plan.focus_features,
        metric=new.metric,
        candidate_metric=new.value,
        incumbent_metric=old.value,
        decision="better" if better else "not_better",
        provenance=combine(monitor.config.fingerprint("remediation", "features"), incumbent.sha256, sha256),
    )
    _append(monitor, version)
    return Candidate(version, _sentence(version))


def focus_weights(rows: pl.DataFrame, segments: Sequence[str], weight: float) -> Float64:
    """[n] training weights: `weight` for rows of any focus segment, else 1. `overall` singles out nobody."""
    weights = np.ones(rows.height)
    for segment in segments:
        if segment != OVERALL:
            weights[_in_segment(rows, segment)] = weight
    return weights


def _in_segment(rows: pl.DataFrame, segment: str) -> np.ndarray:
    if segment == OVERALL:
        return np.ones(rows.height, dtype=bool)
    column, value = segment.split("=", 1)
    return (rows[column].cast(pl.String).fill_null("(missing)") == value).to_numpy()


def _usable_rows(monitor: Monitor, plan: RetrainingPlan) -> pl.DataFrame:
    config, settings = monitor.config, monitor.config.remediation
    days = _training_days(monitor, plan.as_of)
    columns = list(dict.fromkeys((*config.feature_names, *config.segment_columns)))
    rows = labelled_rows(monitor.lake, config, days, plan.as_of, columns).sort("requested_at", "request_id")
    for segment, first, last in _input_faults(monitor, days, plan.as_of):
        broken = _in_segment(rows, segment) & rows["date"].is_between(first, last).to_numpy()
        rows = rows.filter(~broken)
    if rows.height < settings.min_labels:
        raise ModelError(
            f"too few labelled rows to train a candidate for '{monitor.name}'",
            expected=f"{settings.min_labels} (remediation.min_labels)",
            found=f"{rows.height} between {days[0]} and {days[-1]}, labels known by {plan.as_of}",
            next_step="wait for labels, or lengthen remediation.train_window_days",
        )
    return rows


def _training_days(monitor: Monitor, as_of: date) -> list[date]:
    """The training window. It ends on the last day whose labels are complete, where that is configured: labels that
    come early are of one kind (a cancellation is known before a stay), and a model trained on them learns that."""
    delay, window = monitor.config.label_delay_days or 0, monitor.config.remediation.train_window_days
    return [as_of - timedelta(days=delay + i) for i in reversed(range(window))]


def _input_faults(monitor: Monitor, days: Sequence[date], as_of: date) -> list[tuple[str, date, date]]:
    """Segments whose input was broken within these days, first and last day; a running fault lasts to `as_of`."""
    found: dict[tuple[str, date], date] = {}
    for day in all_days(days[0], as_of):
        if not monitor.lake.exists("drift_alerts", monitor.name, day):
            continue
        faults = monitor.lake.read("drift_alerts", monitor.name, day).filter(pl.col("cause") == "input_fault")
        for row in faults.iter_rows(named=True):
            last = as_of if row["state"] != "resolved" and day == as_of else row["last_seen_on"]
            key = (row["segment"], row["first_exceeded_on"])
            found[key] = max(last, found.get(key, last))
    return [(segment, first, last) for (segment, first), last in sorted(found.items())]


def _split_by_day(rows: pl.DataFrame, holdout_share: float) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Earlier days to train on, the last days (at least `holdout_share` of the rows) to test on."""
    per_day = rows.group_by("date").len().sort("date", descending=True)
    enough = per_day["len"].cum_sum() >= holdout_share * rows.height
    first_test = per_day["date"][int(enough.arg_max() or 0)]
    train, test = rows.filter(pl.col("date") < first_test), rows.filter(pl.col("date") >= first_test)
    if train.is_empty():
        raise ModelError(
            "the labelled rows fall on too few days to hold any out",
            expected="rows on at least two days",
            found=f"{rows['date'].n_unique()} days",
            next_step="wait for labels of more days",
        )
    return train, test


def _append(monitor: Monitor, version: ModelVersion) -> None:
    row = pl.DataFrame([version.row()], schema=MODEL_VERSIONS.schema)
    if monitor.lake.exists("model_versions", monitor.name):
        row = pl.concat([monitor.lake.read("model_versions", monitor.name), row])
    monitor.lake.write("model_versions", monitor.name, None, row, {"provenance": version.provenance})


def _sentence(v: ModelVersion) -> str:
    verdict = "better than" if v.decision == "better" else "not better than"
    return (
        f"Candidate {v.sha256[:12]} for {v.role}, trained on {v.train_rows} requests of {v.trained_from} … "
        f"{v.trained_to}, is {verdict} the model in service on {v.test_rows} later ones: "
        f"{v.metric} {v.candidate_metric:.4f} against {v.incumbent_metric:.4f}."
    )
