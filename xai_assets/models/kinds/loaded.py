"""What every loader returns, and the refusals that loaders share.

Belongs here: the record between a loader and `artifact`, and errors that read alike whatever the library.
Does not belong here: any library.
"""

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from xai_assets.errors import ModelError
from xai_assets.records import FeatureSpec, Float32, Float64

PROBABILITY_FLOOR = 1e-12
"""Probabilities are kept this far from 0 and 1 before their log-odds are taken, so that these stay finite."""


def rounding_note(location: str) -> str:
    """For libraries that compare float64 values: the platform's matrices are float32."""
    return (
        f"model {location} compares inputs as float64 and gets them rounded to float32: "
        "a value within 6e-8 (relative) of a threshold may fall on its other side"
    )


class Predictor(Protocol):
    """Predictions of float32 [n, d], n ≥ 1, in the model's feature order; all return float64 [n].

    margin: the scale that attributions explain. value: what the model's own predict_proba or predict gives.
    probability: of the positive class; asked only of classifiers, and of models that do not say what they are.
    """

    def margin(self, X: Float32) -> Float64: ...
    def value(self, X: Float32) -> Float64: ...
    def probability(self, X: Float32) -> Float64: ...


@dataclass(frozen=True, eq=False)
class Loaded:
    """An artifact as its library reads it, before it meets the configuration.

    kind: xgboost, lightgbm, catboost, sklearn, onnx, torch or callable.
    file_kind: which kind the file is, where that is not how it can be explained; "" where it is `kind`.
    bind: makes the predictor once the features (names, levels) are known; may raise ModelError.
    is_classifier: None where the artifact does not say (a bare network): `models.output` decides then.
    n_features: None where the artifact does not say; feature_names: None where it has none.
    categorical: positions that the model reads as categorical, with the levels it stores, or None where it stores
    none. boolean: positions that it reads as true or false, where it says so.
    has_probability: whether a classifier gives probabilities, not only decisions.
    """

    kind: str
    native: Any
    bind: Callable[[Sequence[FeatureSpec]], Predictor]
    objective: str
    is_classifier: bool | None
    n_features: int | None
    feature_names: tuple[str, ...] | None = None
    categorical: Mapping[int, tuple[str, ...] | None] = field(default_factory=dict)
    boolean: frozenset[int] = frozenset()
    has_probability: bool = True
    notes: tuple[str, ...] = ()
    file_kind: str = ""


def log_odds(probability: Float64, floor: float = PROBABILITY_FLOOR) -> Float64:
    """ln(p / (1 − p)), with p kept within [floor, 1 − floor].

    >>> log_odds(np.array([0.5, 1.0])).round(2).tolist()
    [0.0, 27.63]
    """
    p = np.clip(np.asarray(probability, dtype=np.float64), floor, 1.0 - floor)
    return np.asarray(np.log(p) - np.log1p(-p), dtype=np.float64)


def logistic(margin: Float64) -> Float64:
    """1 / (1 + e^−margin), without overflow.

    >>> logistic(np.array([-1000.0, 0.0])).tolist()
    [0.0, 0.5]
    """
    small = np.exp(-np.abs(margin))
    return np.asarray(np.where(margin >= 0, 1.0, small) / (1.0 + small), dtype=np.float64)


def library(name: str, extra: str, location: str) -> Any:
    """The imported library. Raises ModelError naming the extra that brings it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ModelError(
            f"model {location} needs {name.split('.')[0]}, which cannot be imported",
            expected=f"the package {name.split('.')[0]}",
            found=first_line(error),
            next_step=f"install the extra: pip install 'xai-assets[{extra}]'",
        ) from error


def damaged(location: str, what: str, writer: str, error: object) -> ModelError:
    """The error for a file that its library, or a check before it, cannot read."""
    found = f"no part {error}" if isinstance(error, KeyError) else first_line(error)
    return ModelError(
        f"model {location} is damaged, or not {what}",
        expected=f"a complete file written by {writer}",
        found=found,
        next_step="copy the file again, or save the model again",
    )


def several_outputs(location: str, found: str) -> ModelError:
    """The error for a model that predicts more than one number per request."""
    return ModelError(
        f"model {location} has more than one output, which is not supported yet",
        expected="a binary classifier or a regression with one output",
        found=found,
        next_step="monitor one class against the rest with a binary model",
    )


def rejected(kind: str, error: Exception) -> ModelError:
    """The error for rows that the library itself refuses, such as missing values in a model that takes none."""
    return ModelError(
        f"the {kind} model refuses these rows",
        found=first_line(error),
        next_step="correct the values in the source, or configure a model that accepts them",
    )


def refuse_newer(location: str, name: str, written_by: str, installed: str) -> None:
    """Raise ModelError where the artifact was written by a newer major.minor version than the installed one."""
    if _major_minor(written_by) > _major_minor(installed):
        raise ModelError(
            f"model {location} was written by a newer {name} than the installed one",
            expected=f"{name} {installed} or older",
            found=f"{name} {written_by}",
            next_step=f"upgrade {name} here, or save the model with {name} {installed}",
        )


def _major_minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def first_line(error: object) -> str:
    """The finding of a library's message: its first line, without stack traces and addresses of build machines.

    >>> first_line(ValueError("[12:00:01] /build/model.cc:9: the file is cut off"))
    'the file is cut off'
    """
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.rsplit("] ", 1)[-1].split(": ", 1)[-1][:200] if re.match(r"\[\d\d:", line) else line[:200]


def one_output(found: Any, rows: int, location: str) -> Float64:
    """A library's result as float64 [rows]. Raises ModelError where it is not one number per row."""
    values = np.asarray(found, dtype=np.float64)
    if values.shape not in ((rows,), (rows, 1)):
        raise several_outputs(location, f"an output of shape {list(values.shape)} for {rows} rows")
    return values.reshape(rows)
