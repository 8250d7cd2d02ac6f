"""What an explainer is, and what it asks of a model.

Belongs here: the two Protocols. Does not belong here: any implementation, the choice of one (see `selection`).
"""

from typing import Any, Protocol

from xai_assets.records import Attributions, Float32, Float64


class ExplainableModel(Protocol):
    """What explainers use of a model (`models.Model` is one): the library's object, and the model's own prediction."""

    @property
    def kind(self) -> str:
        """`xgboost`, `lightgbm`, `catboost`, `sklearn`, `onnx`, `torch` or `callable`."""
        ...

    @property
    def native(self) -> Any:
        """The library's own object, exactly as it predicts."""
        ...

    @property
    def sha256(self) -> str:
        """Hex digest of the artifact: two models with the same digest are the same function."""
        ...

    @property
    def feature_names(self) -> tuple[str, ...]:
        """In the order of the matrix' columns."""
        ...

    def predict_margin(self, X: Float32) -> Float64:
        """Raw prediction, float64 [n], by the model's own library."""
        ...


class Explainer(Protocol):
    """Attributes a model's margin to its features. All but `explain` goes into the provenance of what it computes.

    is_exact: base value and attributions add up to the margin by construction, within rounding.
    is_fast: every request of a day can be explained; else a day is sampled.
    background_hash: of the background matrix it compares with (16 hex digits), None where it needs none.
    seed: of its random draws, None where it draws none.
    """

    @property
    def id(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def is_exact(self) -> bool: ...

    @property
    def is_fast(self) -> bool: ...

    @property
    def background_hash(self) -> str | None: ...

    @property
    def seed(self) -> int | None: ...

    def explain(self, X: Float32) -> Attributions:
        """Attributions of float32 [n, d] in the model's own feature order.

        Raises
        ------
        ModelError
            X does not fit the model, or holds values that cannot be explained.
        """
        ...
