"""scikit-learn's estimators from skops files.

Belongs here: which types a file may hold, the estimator, rows in the form it was fitted on, its margin.
Does not belong here: pickles (see `pickled`), attributions (see `explain`).

A skops file names every type that loading it would construct. Types that skops itself trusts are accepted, and the few
of `TRUSTED`, which hold trees and plain parameters; a file with any other type is refused with the list.
"""

import io
import json
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xai_assets.errors import ModelError
from xai_assets.models.kinds.loaded import (
    Loaded,
    damaged,
    library,
    log_odds,
    one_output,
    refuse_newer,
    rejected,
    rounding_note,
    several_outputs,
)
from xai_assets.models.kinds.sklearn_trees import check_trees
from xai_assets.records import FeatureSpec, Float32, Float64

TRUSTED = (
    "numpy.dtype",
    "sklearn._loss.loss.HalfTweedieLoss",
    "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.tree._tree.Tree",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    # The preprocessor of histogram gradient boosting over data frames: skops trusts a partial only together with the
    # function it holds, and this one only checks an array.
    "functools.partial",
    "sklearn.utils.validation.check_array",
)
"""Types that skops leaves to the reader's judgement; each only holds parameters. Trees are checked before they predict
(`sklearn_trees`)."""

PROBABILITY_FORESTS = (
    "DecisionTreeClassifier",
    "ExtraTreeClassifier",
    "ExtraTreesClassifier",
    "RandomForestClassifier",
)
"""Classifiers whose trees hold probabilities that are averaged: their margin is the probability."""
LOG_LINKS = ("PoissonRegressor", "GammaRegressor")
WHAT, WRITER = "a skops file of scikit-learn", "skops.io.dump(model, 'model.skops')"


def load(location: str, raw: bytes) -> Loaded:
    """The estimator of a skops file. Raises ModelError for types that are not trusted and for newer versions."""
    skops = library("skops.io", "sklearn-formats", location)
    _refuse_newer_skops(location, raw)
    try:
        unknown = sorted(set(skops.get_untrusted_types(data=raw)) - set(TRUSTED))
        if unknown:
            raise ModelError(
                f"model {location} holds types that are not trusted",
                expected="estimators of scikit-learn, numpy arrays and plain values",
                found=", ".join(unknown),
                next_step="save a booster in its own library's format; save search.best_estimator_, not the search; "
                "leave own classes out of the pipeline, or convert it to ONNX",
            )
        estimator, notes = read_quietly(location, lambda: skops.loads(raw, trusted=list(TRUSTED)))
    except ModelError:
        raise
    except Exception as error:  # skops raises whatever the damaged part leads to; none of it is swallowed
        raise damaged(location, WHAT, WRITER, error) from error
    return from_estimator(location, estimator, notes)


def from_estimator(location: str, estimator: Any, notes: Sequence[str] = ()) -> Loaded:
    """A fitted estimator or pipeline in memory. Raises ModelError where it is no binary classifier or regression."""
    from sklearn.base import is_classifier, is_regressor

    estimator = getattr(estimator, "best_estimator_", estimator)
    name = type(estimator).__name__
    if not hasattr(estimator, "predict") or not (is_classifier(estimator) or is_regressor(estimator)):
        raise ModelError(
            f"model {location} is neither a classifier nor a regression", expected="a fitted estimator", found=name
        )
    features = getattr(estimator, "n_features_in_", None)
    if features is None:
        raise ModelError(f"model {location} is not fitted", expected="a fitted estimator", found=name)
    found = list(notes)
    if is_classifier(estimator):
        found += _classes(location, estimator)
    if final_step(estimator) in PROBABILITY_FORESTS:
        found.append(f"{name} averages probabilities, so attributions explain the probability, not log-odds")
    if final_step(estimator).startswith("HistGradientBoosting"):
        found.append(rounding_note(location))
    try:
        check_trees(estimator)
    except (ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise damaged(location, WHAT, WRITER, error) from error
    names = getattr(estimator, "feature_names_in_", None)
    columns = None if names is None else tuple(str(n) for n in names)
    texts = _text_levels(estimator, columns, int(features))
    codes = {p: None for p in _coded(estimator) if p not in texts}
    return Loaded(
        kind="sklearn",
        native=estimator,
        bind=lambda specs: _bind(location, estimator, specs, columns, texts),
        objective=name,
        is_classifier=bool(is_classifier(estimator)),
        n_features=int(features),
        feature_names=columns,
        categorical={**codes, **{p: levels for p, (levels, _) in texts.items()}},
        has_probability=hasattr(estimator, "predict_proba"),
        notes=tuple(found),
    )


@dataclass(frozen=True, eq=False)
class EstimatorPredictor:
    """Decision functions, probabilities and values.

    columns: names for the frame that the estimator was fitted on, or None where that was an array.
    texts: levels and missing marker of columns that it reads as text, by position.
    """

    estimator: Any
    classifier: bool
    columns: tuple[str, ...] | None
    texts: Mapping[int, tuple[tuple[str, ...], object]]

    def margin(self, X: Float32) -> Float64:
        if not self.classifier:
            values = self.value(X)
            return np.log(values) if _has_log_link(self.estimator) else values
        if hasattr(self.estimator, "decision_function"):
            return self._ask("decision_function", X)
        probability = self.probability(X)
        return probability if final_step(self.estimator) in PROBABILITY_FORESTS else log_odds(probability)

    def value(self, X: Float32) -> Float64:
        if not self.classifier:
            return self._ask("predict", X)
        if hasattr(self.estimator, "predict_proba"):
            return self.probability(X)
        return (self.margin(X) > 0).astype(np.float64)

    def probability(self, X: Float32) -> Float64:
        return self._ask("predict_proba", X)

    def _ask(self, method: str, X: Float32) -> Float64:
        try:
            found = np.asarray(getattr(self.estimator, method)(self._rows(X)))
        except (ValueError, TypeError) as error:
            raise rejected("scikit-learn", error) from error
        return one_output(found[:, 1] if method == "predict_proba" else found, len(X), "of scikit-learn")

    def _rows(self, X: Float32) -> Any:
        """float64 [n, d], so that sums are as precise as in training; a frame where names or texts are needed."""
        values = np.asarray(X, dtype=np.float64)
        if self.columns is None:
            return values
        import pandas as pd  # type: ignore[import-untyped]

        frame = pd.DataFrame(values, columns=list(self.columns))
        for position, (levels, missing) in self.texts.items():
            codes = values[:, position]
            known = np.array([*levels, missing], dtype=object)
            frame[self.columns[position]] = known[np.where(np.isnan(codes), len(levels), codes).astype(np.int64)]
        return frame


def final_step(estimator: Any) -> str:
    """Class name of an estimator, or of the last step of a pipeline."""
    steps = getattr(estimator, "steps", None)
    return type(steps[-1][1] if steps else estimator).__name__


def read_quietly(location: str, read: Any) -> tuple[Any, tuple[str, ...]]:
    """What `read` returns, and notes on objects of an older scikit-learn; a newer one is refused."""
    from sklearn.exceptions import InconsistentVersionWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = read()
    notes: dict[str, None] = {}
    for warning in caught:
        message: Any = warning.message
        if not isinstance(message, InconsistentVersionWarning):
            warnings.warn_explicit(message, warning.category, warning.filename, warning.lineno)
            continue
        refuse_newer(location, "scikit-learn", message.original_sklearn_version, message.current_sklearn_version)
        notes[f"model {location} was written by scikit-learn {message.original_sklearn_version}, an older version"] = (
            None
        )
    return found, tuple(notes)


def _refuse_newer_skops(location: str, raw: bytes) -> None:
    """A file of a newer protocol may hold parts that this version would build wrongly."""
    protocol = library("skops.io._protocol", "sklearn-formats", location).PROTOCOL
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            found = int(json.loads(archive.read("schema.json"))["protocol"])
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, EOFError, OSError, NotImplementedError) as error:
        raise damaged(location, WHAT, WRITER, error) from error
    if found > protocol:
        raise ModelError(
            f"model {location} was written by a newer skops than the installed one",
            expected=f"protocol {protocol} or older",
            found=f"protocol {found}",
            next_step="upgrade skops here, or save the model with the installed version",
        )


def _classes(location: str, estimator: Any) -> list[str]:
    classes = estimator.classes_
    if isinstance(classes, list) or len(classes) != 2:
        raise several_outputs(location, f"classes {', '.join(str(c) for c in classes)}"[:200])
    if classes[1] in (1, True, "1"):
        return []
    return [f"model {location} predicts the probability of class '{classes[1]}' (the other is '{classes[0]}')"]


def _bind(
    location: str,
    estimator: Any,
    specs: Sequence[FeatureSpec],
    columns: tuple[str, ...] | None,
    texts: Mapping[int, tuple[tuple[str, ...], object]],
) -> EstimatorPredictor:
    from sklearn.base import is_classifier

    predictor = EstimatorPredictor(estimator, is_classifier(estimator), columns, texts)
    found = np.shape(estimator.predict(predictor._rows(np.zeros((2, len(specs)), np.float32))))
    if found not in ((2,), (2, 1)):
        raise several_outputs(location, f"predictions of shape {list(found)} for 2 rows")
    return predictor


def _has_log_link(estimator: Any) -> bool:
    last = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    name = type(last).__name__
    if name == "TweedieRegressor":
        return bool(last.link == "log" or (last.link == "auto" and last.power > 0))
    return name in LOG_LINKS or (name == "HistGradientBoostingRegressor" and last.loss in ("poisson", "gamma"))


def _coded(estimator: Any) -> list[int]:
    """Positions that histogram gradient boosting reads as categories."""
    mask = getattr(estimator, "is_categorical_", None)
    return [] if mask is None else [int(p) for p in np.flatnonzero(mask)]


def _text_levels(
    estimator: Any, columns: tuple[str, ...] | None, features: int
) -> dict[int, tuple[tuple[str, ...], object]]:
    """Columns that a fitted encoder reads as text: levels in its order, and what it was fitted on as missing."""
    if columns is None:
        return {}
    found: dict[int, tuple[tuple[str, ...], object]] = {}
    for encoder, chosen in _encoders(estimator):
        for position, levels in zip(_positions(chosen, columns, features), encoder.categories_, strict=False):
            texts = [level for level in levels if isinstance(level, str)]
            missing = [level for level in levels if not isinstance(level, str)]
            if texts and all(m is None or m != m for m in missing):
                found[position] = (tuple(texts), missing[0] if missing else np.nan)
    return found


def _encoders(estimator: Any) -> Iterator[tuple[Any, Any]]:
    """Fitted encoders with the columns they read, in the first step of a pipeline or inside gradient boosting."""
    steps = getattr(estimator, "steps", None)
    first = steps[0][1] if steps else getattr(estimator, "_preprocessor", None)
    if hasattr(first, "categories_"):
        yield first, slice(None)
    for _, transformer, chosen in getattr(first, "transformers_", ()):
        inner = [step for _, step in transformer.steps] if hasattr(transformer, "steps") else [transformer]
        yield from ((step, chosen) for step in inner if hasattr(step, "categories_"))


def _positions(chosen: Any, columns: tuple[str, ...], features: int) -> list[int]:
    """Positions of a column transformer's choice: names, positions, a mask or a slice."""
    if isinstance(chosen, slice) and not isinstance(chosen.start or chosen.stop, str):
        return list(range(features))[chosen]
    picked = [chosen] if isinstance(chosen, str | int) else list(chosen)
    if picked and all(isinstance(p, bool | np.bool_) for p in picked):
        return [i for i, p in enumerate(picked) if p]
    return [columns.index(p) if isinstance(p, str) else int(p) % features for p in picked]
