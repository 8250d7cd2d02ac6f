"""What an explainer is.

Belongs here: the Protocol and the choice of an implementation. Does not belong here: any implementation.
"""

from typing import Any, Protocol

from xai_assets.errors import ModelError
from xai_assets.records import Attributions, Float32


class Explainer(Protocol):
    """Attributes a model's margin to its features. `id` and `version` go into the provenance of what it computes."""

    @property
    def id(self) -> str: ...

    @property
    def version(self) -> str: ...

    def explain(self, X: Float32) -> Attributions:
        """Attributions of float32 [n, d] in the model's own feature order."""
        ...


def explainer_for(booster: Any, *, kind: str = "xgboost") -> Explainer:
    """The explainer for a booster as `models.load_model` returns it (`Model.booster`).

    Raises
    ------
    ModelError
        There is no explainer for this kind of model.
    """
    if kind == "xgboost":
        from xai_assets.explain.xgboost_native import XGBoostExplainer

        return XGBoostExplainer(booster)
    raise ModelError(f"there is no explainer for models of kind '{kind}'", expected="xgboost")
