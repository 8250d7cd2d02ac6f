"""`Model`: one usable artifact, whatever library made it.

Belongs here: what the rest of the platform may ask of a model. Does not belong here: reading files (see `artifact`),
how a library predicts (see `kinds`), attributions (see `explain`).
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from xai_assets.errors import ModelError
from xai_assets.models.encoding import encode_features
from xai_assets.models.kinds.loaded import Predictor
from xai_assets.records import FeatureSpec, Float32, Float64

OutputKind = Literal["auto", "probability", "margin", "value"]


@dataclass(frozen=True, eq=False)
class Model:
    """One usable artifact.

    sha256: of the file that holds the model's parameters.
    features: in the model's own order; the categories of categorical ones are resolved.
    kind: xgboost, lightgbm, catboost, sklearn, onnx, torch, or callable (it can only be asked for predictions).
    native: the library's object. For XGBoost exactly the trees that predict: where early stopping stored a best
    iteration, later trees are cut off, as its scikit-learn interface does.
    objective: the library's name for what the model was trained on, or its class; for messages.
    is_classifier: whether the label is 0 or 1.
    notes: what a reader should know though it is no error, one sentence each.
    """

    sha256: str
    features: tuple[FeatureSpec, ...]
    kind: str
    native: Any
    objective: str
    is_classifier: bool
    predictor: Predictor
    has_probability: bool
    notes: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """First 12 hex digits of the file's SHA-256."""
        return self.sha256[:12]

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.features)

    def encode(self, frame: pl.DataFrame) -> Float32:
        """The frame's features as this model reads them: float32 [n, d_model]; null and unseen levels are NaN."""
        return encode_features(frame, self.features)

    def predict_margin(self, X: Float32) -> Float64:
        """The scale that attributions explain, float64 [n].

        Classifiers: log-odds, or the raw decision function where the library has one (LightGBM's raw score, of its
        forests the trees' average; a scikit-learn `decision_function`). Forests of scikit-learn average probabilities,
        so their margin is the probability itself. Where only probabilities are known (other scikit-learn classifiers,
        ONNX classifiers) it is their log-odds. Regressions: the value before its link. Networks: the module's output.

        Raises
        ------
        ModelError
            X is not [n, d_model], or the library refuses its values.
        """
        self._check_shape(X)
        return self.predictor.margin(X) if len(X) else np.empty(0, np.float64)

    def predict_output(self, X: Float32, output: OutputKind = "auto") -> Float64:
        """Prediction in output units, float64 [n].

        "auto" and "value" are what the model's own prediction gives: the probability of a classifier, the value of a
        regression, the output of a network. "margin" is `predict_margin`. "probability" is that of a classifier; a
        network's output is then read as log-odds, and this is its logistic function.

        Raises
        ------
        ModelError
            A probability is asked of a model that has none, or X does not fit.
        """
        if output == "margin":
            return self.predict_margin(X)
        if output == "probability" and not self.has_probability:
            raise ModelError(
                f"models.output is 'probability', and model {self.version} has none",
                expected="a binary classifier that gives probabilities",
                found=self.objective,
                next_step="set models.output to auto or value",
            )
        self._check_shape(X)
        if len(X) == 0:
            return np.empty(0, np.float64)
        return self.predictor.probability(X) if output == "probability" else self.predictor.value(X)

    def native_rows(self, X: Float32) -> Any:
        """The rows in the form the library itself takes: X, or for CatBoost with levels a frame of texts."""
        self._check_shape(X)
        rows = getattr(self.predictor, "rows", None)
        return X if rows is None else rows(X)

    def _check_shape(self, X: Float32) -> None:
        if X.ndim != 2 or X.shape[1] != len(self.features):
            raise ModelError(
                f"the matrix does not fit model {self.version}",
                expected=f"[n, {len(self.features)}] in the order {', '.join(self.feature_names)}",
                found=str(list(X.shape)),
                next_step="make it with Model.encode",
            )
