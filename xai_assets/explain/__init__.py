"""Explainers: exact attributions of a model's margin to its features.

Belongs here: the Protocol, its implementations, and the axioms they must meet.
Does not belong here: loading models (see `models`), batching over a day and storage (see `assets`, `lake`).
"""

from xai_assets.explain.additivity import additivity_error
from xai_assets.explain.protocol import Explainer, explainer_for
from xai_assets.explain.widen import widen

__all__ = ["Explainer", "additivity_error", "explainer_for", "widen"]
