"""Train and evaluate models on labelled rows.

Belongs here: the trainer with XGBoost's defaults, and metrics on held-out rows.
Does not belong here: which rows, which weights, whether the candidate is better (see `decide`); files (see `registry`).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from xai_assets.errors import ModelError
from xai_assets.models.artifact import Model
from xai_assets.models.encoding import encode_features
from xai_assets.models.kinds.loaded import logistic
from xai_assets.records import FeatureSpec, Float64

MIN_ROWS = 50
"""Fewer rows train nothing that could be compared with anything."""


@dataclass(frozen=True)
class TrainSettings:
    """How to train. What is not named here keeps XGBoost's default.

    early_stopping_share: share of the rows, the last ones (so the frame must be in time order), on which training
    stops once the metric has not improved for `early_stopping_rounds` rounds; None trains all rounds on all rows.
    threads: 0 means all cores.
    """

    rounds: int = 100
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    early_stopping_share: float | None = None
    early_stopping_rounds: int = 10
    threads: int = 0


@dataclass(frozen=True)
class TrainedArtifact:
    """A trained model as the bytes of its file (UBJSON, with feature names, types and levels)."""

    raw: bytes
    objective: str
    features: tuple[FeatureSpec, ...]
    train_rows: int
    rounds: int

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.raw).hexdigest()


@dataclass(frozen=True)
class Evaluation:
    """Metrics on held-out rows. classifiers: auc, log_loss (nats), brier. Regressions: rmse, mae (label units)."""

    rows: int
    metrics: dict[str, float]

    @property
    def metric(self) -> Literal["auc", "rmse"]:
        """The one metric that decides."""
        return "auc" if "auc" in self.metrics else "rmse"

    @property
    def value(self) -> float:
        return self.metrics[self.metric]


def train_classifier(
    frame: pl.DataFrame,
    labels: npt.ArrayLike,
    weights: npt.ArrayLike | None,
    features: Sequence[FeatureSpec],
    *,
    settings: TrainSettings | None = None,
) -> TrainedArtifact:
    """A binary classifier (objective ``binary:logistic``).

    Parameters
    ----------
    frame
        One column per feature; in time order where `settings.early_stopping_share` is given.
    labels
        [n], 0 or 1.
    weights
        [n], positive, or None.
    features
        The model's features, in order. A categorical one without levels gets those of the frame, sorted.

    Returns
    -------
    The artifact; the same input gives the same bytes.

    Raises
    ------
    ModelError
        Fewer than `MIN_ROWS` rows, one class only, labels other than 0 and 1, or weights that are not positive.
    """
    y = _labels(labels, frame.height)
    _check_rows(frame.height)
    found = np.unique(y)
    if not np.isin(found, (0.0, 1.0)).all():
        raise ModelError("labels of a classifier must be 0 or 1", found=", ".join(f"{v:g}" for v in found[:5]))
    if len(found) < 2:
        raise ModelError(
            "a classifier cannot be trained on one class",
            expected="labels 0 and 1",
            found=f"{len(y)} rows with label {found[0]:g}",
            next_step="take a longer training window",
        )
    return _train(frame, y, weights, features, "binary:logistic", settings or TrainSettings())


def train_regressor(
    frame: pl.DataFrame,
    labels: npt.ArrayLike,
    weights: npt.ArrayLike | None,
    features: Sequence[FeatureSpec],
    *,
    settings: TrainSettings | None = None,
) -> TrainedArtifact:
    """A regression on the squared error (objective ``reg:squarederror``); else as `train_classifier`."""
    y = _labels(labels, frame.height)
    _check_rows(frame.height)
    return _train(frame, y, weights, features, "reg:squarederror", settings or TrainSettings())


def evaluate(
    model: Model, frame: pl.DataFrame, labels: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> Evaluation:
    """Metrics of a model on labelled rows it was not trained on. Raises ModelError as `score_outputs` does.

    A classifier that only decides (a linear SVM) is scored by the logistic function of its margin: its AUC, which
    decides, is then right, its log loss is not that of calibrated probabilities.
    """
    X = model.encode(frame)
    if model.is_classifier and not model.has_probability:
        outputs = logistic(model.predict_margin(X))
    else:
        outputs = model.predict_output(X, "probability" if model.is_classifier else "value")
    return score_outputs(outputs, labels, is_classifier=model.is_classifier, weights=weights)


def score_outputs(
    outputs: npt.ArrayLike, labels: npt.ArrayLike, *, is_classifier: bool, weights: npt.ArrayLike | None = None
) -> Evaluation:
    """Metrics of outputs (probabilities, or values) against labels, both [n].

    Raises
    ------
    ModelError
        No rows, or a classifier's labels hold one class only, so that the AUC does not exist.
    """
    from sklearn import metrics

    predicted = np.asarray(outputs, dtype=np.float64)
    y = _labels(labels, len(predicted))
    w = None if weights is None else _weights(weights, len(y))
    if len(y) == 0:
        raise ModelError("there are no rows to evaluate on", next_step="wait for labels, or hold out a longer period")
    if not is_classifier:
        squared = metrics.mean_squared_error(y, predicted, sample_weight=w)
        absolute = metrics.mean_absolute_error(y, predicted, sample_weight=w)
        return Evaluation(len(y), {"rmse": float(np.sqrt(squared)), "mae": float(absolute)})
    if len(np.unique(y)) != 2:
        raise ModelError(
            "a classifier cannot be evaluated on one class",
            found=f"{len(y)} rows with label {y[0]:g}",
            next_step="hold out a longer period",
        )
    values = {
        "auc": metrics.roc_auc_score(y, predicted, sample_weight=w),
        "log_loss": metrics.log_loss(y, predicted, sample_weight=w, labels=(0.0, 1.0)),
        "brier": metrics.brier_score_loss(y, predicted, sample_weight=w),
    }
    return Evaluation(len(y), {name: float(value) for name, value in values.items()})


def _labels(labels: npt.ArrayLike, rows: int) -> Float64:
    y = np.asarray(labels, dtype=np.float64)
    if y.shape != (rows,):
        raise ModelError("labels do not fit the rows", expected=f"{rows} labels", found=str(list(y.shape)))
    if not np.isfinite(y).all():
        missing = int((~np.isfinite(y)).sum())
        raise ModelError("labels must be finite", found=f"{missing} of {rows} missing or infinite")
    return y


def _check_rows(rows: int) -> None:
    if rows < MIN_ROWS:
        raise ModelError(
            "too few rows to train on",
            expected=f"at least {MIN_ROWS}",
            found=str(rows),
            next_step="wait for labels, or take a longer training window",
        )


def _weights(weights: npt.ArrayLike, rows: int) -> Float64:
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != (rows,) or not np.isfinite(w).all() or (w <= 0).any():
        raise ModelError("weights must be positive, finite, and one per row", expected=f"{rows} weights")
    return w


def _train(
    frame: pl.DataFrame,
    y: Float64,
    weights: npt.ArrayLike | None,
    features: Sequence[FeatureSpec],
    objective: str,
    settings: TrainSettings,
) -> TrainedArtifact:
    import xgboost

    specs = tuple(_with_levels(f, frame) for f in features)
    w = None if weights is None else _weights(weights, len(y))
    tail = _tail_rows(len(y), settings)
    head = slice(0, len(y) - tail)
    parameters = {"objective": objective, "seed": settings.seed, "nthread": settings.threads, **settings.parameters}
    matrix = _matrix(frame[head], specs, y[head], None if w is None else w[head])
    stopping: dict[str, Any] = {}
    if tail:
        held = slice(len(y) - tail, len(y))
        stopping["evals"] = [(_matrix(frame[held], specs, y[held], None if w is None else w[held]), "tail")]
        stopping["early_stopping_rounds"] = settings.early_stopping_rounds
    booster = xgboost.train(parameters, matrix, settings.rounds, verbose_eval=False, **stopping)
    best = booster.attr("best_iteration")
    rounds = booster.num_boosted_rounds() if best is None else int(best) + 1
    return TrainedArtifact(bytes(booster.save_raw("ubj")), objective, specs, len(y) - tail, rounds)


def _with_levels(feature: FeatureSpec, frame: pl.DataFrame) -> FeatureSpec:
    if feature.kind != "categorical" or feature.categories or feature.name not in frame.columns:
        return feature
    levels = frame[feature.name].cast(pl.String).drop_nulls().unique().sort().to_list()
    # A feature that is null throughout still needs one level for its type.
    return replace(feature, categories=tuple(levels) or ("(none)",))


def _tail_rows(rows: int, settings: TrainSettings) -> int:
    if settings.early_stopping_share is None:
        return 0
    tail = round(rows * settings.early_stopping_share)
    if not 0 < tail <= rows - MIN_ROWS:
        raise ModelError(
            "the rows for early stopping leave too few to train on",
            expected=f"a share above 0 that leaves at least {MIN_ROWS} of {rows} rows",
            found=f"{settings.early_stopping_share:g}",
        )
    return tail


def _matrix(frame: pl.DataFrame, specs: Sequence[FeatureSpec], y: Float64, w: Float64 | None) -> Any:
    """A DMatrix from an Arrow table: only from data frames does XGBoost store the levels in the model."""
    import pyarrow as pa
    import xgboost

    X = encode_features(frame, specs)
    columns: dict[str, Any] = {}
    for position, spec in enumerate(specs):
        column = np.ascontiguousarray(X[:, position])
        missing = np.isnan(column)
        if spec.kind == "categorical":
            codes = pa.array(np.where(missing, 0, column).astype(np.int32), mask=missing)
            columns[spec.name] = pa.DictionaryArray.from_arrays(codes, pa.array(spec.categories, pa.string()))
        else:
            columns[spec.name] = pa.array(column)
    return xgboost.DMatrix(pa.table(columns), label=y, weight=w, enable_categorical=True)
