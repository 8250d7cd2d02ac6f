"""Explainers: attributions of a model's margin to its features.

Belongs here: the Protocol, its implementations, and the axioms they must meet.
Does not belong here: loading models (see `models`), batching over a day and storage (see `flow`, `lake`).
"""

from xai_assets.explain.additivity import additivity_error
from xai_assets.explain.protocol import ExplainableModel, Explainer
from xai_assets.explain.selection import METHODS, Method, choose_method, explainer_for
from xai_assets.explain.widen import widen

__all__ = [
    "METHODS",
    "ExplainableModel",
    "Explainer",
    "Method",
    "additivity_error",
    "choose_method",
    "explainer_for",
    "widen",
]
