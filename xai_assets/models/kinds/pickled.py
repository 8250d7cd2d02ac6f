"""Pickles and joblib files, for those who trust them.

Belongs here: unpickling, and telling which library an object comes from. Does not belong here: the decision that a
file may be unpickled, and the comparison with its pinned hash (see `artifact`): both come before.

XGBoost, LightGBM and CatBoost models are written to their own format in memory and read again, so that they obey the
same rules as files.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xai_assets.errors import ModelError
from xai_assets.models.kinds import catboost, lightgbm, sklearn, torch, xgboost
from xai_assets.models.kinds.loaded import Loaded, damaged, log_odds, one_output, rejected, several_outputs
from xai_assets.records import FeatureSpec, Float32, Float64

LIBRARIES: dict[str, Callable[[str, Any], Loaded]] = {
    "xgboost": xgboost.unwrap,
    "lightgbm": lightgbm.unwrap,
    "catboost": catboost.unwrap,
    "torch": torch.unwrap,
}
WHAT, WRITER = "a pickle of a model", "pickle.dump or joblib.dump"


def load(location: str, raw: bytes) -> Loaded:
    """Unpickle: this runs the code that the file holds. Only `artifact` may call it, after the hash agreed."""
    import joblib

    try:
        model, notes = sklearn.read_quietly(location, lambda: joblib.load(io.BytesIO(raw)))
    except ModelError:
        raise
    except ModuleNotFoundError as error:
        raise ModelError(
            f"model {location} needs the package {error.name}, which is not installed",
            found=str(error),
            next_step="install the packages that the model was trained with",
        ) from error
    except Exception as error:  # unpickling raises whatever the file's code raises
        raise damaged(location, WHAT, WRITER, error) from error
    return _recognised(location, model, notes)


@dataclass(frozen=True, eq=False)
class CallablePredictor:
    """An object with `predict_proba` of two classes, or `predict` of one value, over an array [n, d]."""

    model: Any
    classifier: bool

    def margin(self, X: Float32) -> Float64:
        return log_odds(self.value(X)) if self.classifier else self.value(X)

    def value(self, X: Float32) -> Float64:
        try:
            found = np.asarray(self.model.predict_proba(X) if self.classifier else self.model.predict(X))
        except Exception as error:  # the user's code may raise anything
            raise rejected("user's", error) from error
        if self.classifier and found.shape != (len(X), 2):
            raise several_outputs("of predict_proba", f"shape {list(found.shape)} for {len(X)} rows")
        return one_output(found[:, 1] if self.classifier else found, len(X), "of predict")

    def probability(self, X: Float32) -> Float64:
        return self.value(X)


def _recognised(location: str, model: Any, notes: Sequence[str]) -> Loaded:
    origins = {c.__module__.split(".")[0] for c in type(model).__mro__}
    for name, unwrap in LIBRARIES.items():
        if name in origins:
            return unwrap(location, model)
    if "sklearn" in origins:
        return sklearn.from_estimator(location, model, notes)
    if not hasattr(model, "predict"):
        raise ModelError(
            f"model {location} holds no model",
            expected="an object with predict, or a PyTorch module",
            found=f"{type(model).__module__}.{type(model).__qualname__}",
        )
    classifier = hasattr(model, "predict_proba")
    return Loaded(
        kind="callable",
        native=model,
        bind=lambda features: _bind(model, classifier, features),
        objective=type(model).__name__,
        is_classifier=classifier,
        n_features=None,
        notes=tuple(notes),
    )


def _bind(model: Any, classifier: bool, features: Sequence[FeatureSpec]) -> CallablePredictor:
    predictor = CallablePredictor(model, classifier)
    predictor.value(np.zeros((2, len(features)), np.float32))
    return predictor
