"""CatBoost's binary models (cbm).

Belongs here: the model, its feature types, and rows in the form it was trained on.
Does not belong here: attributions (see `explain`).

A categorical feature is hashed from its text, and the file keeps only hashes, so its levels must be configured; a
code is turned back into its level before CatBoost sees it, which is exact. Missing values and levels that are not
configured are given as the text "nan", which is what CatBoost asks missing values to be written as; where the model
was not trained on it, it is handled as any unknown level.
"""

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xai_assets.errors import ModelError
from xai_assets.models.kinds.loaded import (
    Loaded,
    damaged,
    library,
    one_output,
    refuse_newer,
    rejected,
    several_outputs,
)
from xai_assets.records import FeatureSpec, Float32, Float64

MISSING_LEVEL = "nan"
CLASSIFIER_LOSSES = ("Logloss", "CrossEntropy", "Focal")
EXPONENT_LOSSES = ("Poisson", "Tweedie")
"""Regressions whose prediction is the exponential of the raw value."""
STATISTICS = b"static_provider_v1"
"""Announces, among the trees, that tables of level statistics follow them."""
WHAT, WRITER = "a CatBoost model", "model.save_model('model.cbm')"


def load(location: str, raw: bytes) -> Loaded:
    """The model of a file's bytes. Raises ModelError where it is damaged, newer, or reads text or embeddings."""
    catboost = library("catboost", "catboost", location)
    model = catboost.CatBoost()
    try:
        _check_length(raw)
        model.load_model(blob=raw)
        metadata = dict(model.get_metadata())
        names, categorical = list(model.feature_names_), list(model.get_cat_feature_indices())
    except (catboost.CatBoostError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise damaged(location, WHAT, WRITER, error) from error
    if written_by := re.search(r"release (\d+\.\d+[.\d]*)", metadata.get("catboost_version_info", "")):
        refuse_newer(location, "catboost", written_by[1], catboost.__version__)
    for what in ("text", "embedding"):
        if positions := getattr(model, f"get_{what}_feature_indices")():
            raise ModelError(
                f"model {location} reads {what} features, which are not supported",
                expected="numeric and categorical features",
                found=", ".join(names[p] for p in positions),
            )
    loss = _loss(metadata)
    if loss.startswith("Multi"):
        raise several_outputs(location, f"loss {loss}")
    notes = (
        f"model {location} reads missing and unknown levels of categorical features as the text '{MISSING_LEVEL}'",
    )
    return Loaded(
        kind="catboost",
        native=model,
        bind=lambda features: _bind(location, model, features, categorical, loss),
        objective=loss,
        is_classifier=loss in CLASSIFIER_LOSSES,
        n_features=len(names),
        feature_names=None if names == [str(i) for i in range(len(names))] else tuple(names),
        categorical=dict.fromkeys(categorical),
        notes=notes if categorical else (),
    )


@dataclass(frozen=True, eq=False)
class CatBoostPredictor:
    """Raw values and outputs. levels: those of the categorical features by position, "nan" among them."""

    model: Any
    names: tuple[str, ...]
    levels: Mapping[int, tuple[str, ...]]
    output: str

    def margin(self, X: Float32) -> Float64:
        return one_output(self._predict(X, "RawFormulaVal"), len(X), "of CatBoost")

    def value(self, X: Float32) -> Float64:
        found = np.asarray(self._predict(X, self.output))
        return one_output(found[:, 1] if self.output == "Probability" else found, len(X), "of CatBoost")

    def probability(self, X: Float32) -> Float64:
        return self.value(X)

    def _predict(self, X: Float32, kind: str) -> Any:
        import catboost

        try:
            return self.model.predict(self.rows(X), prediction_type=kind)
        except (catboost.CatBoostError, TypeError, ValueError) as error:
            raise rejected("CatBoost", error) from error

    def rows(self, X: Float32) -> Any:
        """What CatBoost takes: the matrix, or a frame in which codes are texts again."""
        if not self.levels:
            return X
        import pandas as pd  # type: ignore[import-untyped]

        frame = pd.DataFrame(X, columns=list(self.names))
        for position, levels in self.levels.items():
            codes = np.where(np.isnan(X[:, position]), levels.index(MISSING_LEVEL), X[:, position]).astype(np.int64)
            frame[self.names[position]] = pd.Categorical.from_codes(codes, categories=list(levels))
        return frame


def unwrap(location: str, model: Any) -> Loaded:
    """The same from a fitted model in memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.cbm"
        model.save_model(str(path))
        return load(location, path.read_bytes())


def _check_length(raw: bytes) -> None:
    """CatBoost itself reads files that lack up to some hundred bytes of their trees, and crashes the process on files
    that are cut off in the tables of level statistics that follow: a count, then each table's size and bytes."""
    end = 8 + int.from_bytes(raw[4:8], "little")
    if end <= len(raw) and STATISTICS in raw[:end]:
        tables, end = int.from_bytes(raw[end : end + 4], "little"), end + 4
        for _ in range(tables):
            end += 4 + int.from_bytes(raw[end : end + 4], "little")
            if end > len(raw):
                break
    if end > len(raw) or len(raw) < 8:
        raise ValueError(f"the file ends after {len(raw)} bytes, in the middle of its content")


def _loss(metadata: Mapping[str, str]) -> str:
    parameters = json.loads(metadata.get("params", "{}"))
    return str(parameters.get("loss_function", {}).get("type", "unknown"))


def _bind(
    location: str, model: Any, features: Sequence[FeatureSpec], categorical: Sequence[int], loss: str
) -> CatBoostPredictor:
    levels = {p: _with_missing(features[p].categories) for p in categorical}
    output = "Probability" if loss in CLASSIFIER_LOSSES else "Exponent" if loss in EXPONENT_LOSSES else "RawFormulaVal"
    predictor = CatBoostPredictor(model, tuple(model.feature_names_), levels, output)
    shape = np.shape(predictor._predict(np.zeros((2, len(features)), np.float32), "RawFormulaVal"))
    if shape not in ((2,), (2, 1)):
        raise several_outputs(location, f"loss {loss} with outputs of shape {list(shape)} for 2 rows")
    return predictor


def _with_missing(levels: tuple[str, ...]) -> tuple[str, ...]:
    return levels if MISSING_LEVEL in levels else (*levels, MISSING_LEVEL)
