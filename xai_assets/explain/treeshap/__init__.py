"""Exact SHAP values of tree ensembles at full traffic.

Belongs here: reading ensembles, the kernels, their interface. Usable alone: nothing here knows of monitors.
Does not belong here: other kinds of models (see the explainers beside this package).
"""

from xai_assets.explain.treeshap.ensemble import TreeEnsemble
from xai_assets.explain.treeshap.shap import TreeAttributions, TreeShap

__all__ = ["TreeAttributions", "TreeEnsemble", "TreeShap"]
