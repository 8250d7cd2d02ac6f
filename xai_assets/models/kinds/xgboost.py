"""XGBoost's own JSON and UBJSON files: trees (gbtree, dart) and linear boosters.

Belongs here: the booster exactly as it predicts, its names, types and stored levels.
Does not belong here: the format (see `model_document`), the shape of trees (see `structure`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xai_assets.errors import ModelError
from xai_assets.model_document import parse
from xai_assets.models.kinds.loaded import Loaded, damaged, first_line, logistic, refuse_newer, several_outputs
from xai_assets.models.structure import check_linear, check_structure
from xai_assets.records import FeatureSpec, Float32, Float64

WRITER = "booster.save_model"
ROWS_FOR_THREADS = 512


def load(location: str, raw: bytes) -> Loaded:
    """The booster of a file's bytes. Raises ModelError where it is damaged, newer, or has several outputs."""
    import xgboost

    try:
        document = parse(raw)
        learner = document["learner"]
        _refuse_newer(location, document.get("version"))
        _refuse_several(location, learner)
        linear = learner["gradient_booster"]["name"] == "gblinear"
        (check_linear if linear else check_structure)(learner)
        booster, levels = _booster(raw, linear)
        outputs = _outputs(booster, linear)
    except (xgboost.core.XGBoostError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise damaged(location, "an XGBoost model", WRITER, error) from error
    if outputs != 1:
        raise several_outputs(location, f"{outputs} outputs per request")
    objective = str(json.loads(booster.save_config())["learner"]["objective"]["name"])
    types = booster.feature_types or []
    stored: dict[int, tuple[str, ...] | None] = {p: None for p, kind in enumerate(types) if kind == "c"}
    return Loaded(
        kind="xgboost",
        native=booster,
        bind=lambda features: _bind(booster, features, objective, linear),
        objective=objective,
        is_classifier=objective.startswith("binary:"),
        n_features=booster.num_features(),
        feature_names=None if booster.feature_names is None else tuple(booster.feature_names),
        categorical=stored | levels,
        boolean=frozenset(p for p, kind in enumerate(types) if kind == "i"),
    )


@dataclass(frozen=True, eq=False)
class BoosterPredictor:
    """Margins and outputs of a booster.

    single: the same on one thread. For a few rows the threads would wait for each other longer than they work: on
    busy cores one row took up to 95 ms, on one thread up to 10 ms, the median being 0.3 ms in both.
    """

    booster: Any
    single: Any
    objective: str
    linear: bool

    def margin(self, X: Float32) -> Float64:
        return self._predict(X, "margin")

    def value(self, X: Float32) -> Float64:
        return self._predict(X, "value")

    def probability(self, X: Float32) -> Float64:
        return logistic(self.margin(X))

    def _predict(self, X: Float32, kind: str) -> Float64:
        if self.linear:  # XGBoost has no in-place prediction for linear boosters
            found = self.booster.predict(_matrix(self.booster, X), output_margin=kind == "margin")
        else:
            booster = self.single if len(X) < ROWS_FOR_THREADS else self.booster
            found = booster.inplace_predict(X, predict_type=kind, validate_features=False)
        return np.asarray(found, dtype=np.float64).reshape(len(X))


def _bind(booster: Any, features: Sequence[FeatureSpec], objective: str, linear: bool) -> BoosterPredictor:
    if booster.feature_names is None:
        booster.feature_names = [f.name for f in features]
    single = booster.copy()
    single.set_param({"nthread": 1})
    return BoosterPredictor(booster, single, objective, linear)


def _matrix(booster: Any, X: Float32) -> Any:
    import xgboost

    return xgboost.DMatrix(X, feature_names=booster.feature_names, feature_types=booster.feature_types)


def _booster(raw: bytes, linear: bool) -> tuple[Any, dict[int, tuple[str, ...]]]:
    """The trees that predict, and the levels stored with them."""
    import xgboost

    booster = xgboost.Booster()
    booster.load_model(bytearray(raw))
    if linear:
        return booster, {}
    stored = _stored_levels(booster)
    best = booster.attr("best_iteration")
    if best is not None and int(best) + 1 < booster.num_boosted_rounds():
        booster = booster[: int(best) + 1]  # a slice keeps names and types, but loses the stored levels
    return booster, stored


def _outputs(booster: Any, linear: bool) -> int:
    one_row = np.full((1, booster.num_features()), np.nan, np.float32)
    if linear:
        return int(booster.predict(_matrix(booster, one_row), strict_shape=True).shape[1])
    return int(booster.inplace_predict(one_row, strict_shape=True, validate_features=False).shape[-1])


def _refuse_newer(location: str, version: Any) -> None:
    import xgboost

    if version is not None and len(version) >= 2:
        refuse_newer(location, "xgboost", ".".join(str(int(v)) for v in version), xgboost.__version__)


def _refuse_several(location: str, learner: Mapping[str, Any]) -> None:
    objective = str(learner["objective"]["name"])
    parameters = learner["learner_model_param"]
    if objective.startswith("multi:") or int(parameters.get("num_class", 0)) > 1:
        raise several_outputs(location, f"objective {objective} with {parameters.get('num_class')} classes")
    if int(parameters.get("num_target", 1)) > 1:
        raise several_outputs(location, f"{parameters['num_target']} targets")


def _stored_levels(booster: Any) -> dict[int, tuple[str, ...]]:
    """Levels by feature position that XGBoost (3.1 and later) stores when it was trained from a data frame."""
    arrays = booster.get_categories(export_to_arrow=True).to_arrow() or ()
    return {
        position: tuple(str(level) for level in array.to_pylist())
        for position, (_, array) in enumerate(arrays)
        if array is not None
    }


def unwrap(location: str, model: Any) -> Loaded:
    """The same from a booster or a scikit-learn wrapper in memory."""
    import xgboost

    try:
        booster = model if hasattr(model, "save_raw") else model.get_booster()
        raw = bytes(booster.save_raw("ubj"))
    except (xgboost.core.XGBoostError, ValueError) as error:  # a model that was never fitted
        raise ModelError(f"model {location} cannot be used", found=first_line(error)) from error
    return load(location, raw)
