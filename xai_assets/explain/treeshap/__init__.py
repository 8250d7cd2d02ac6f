"""Exact SHAP values of tree ensembles at full traffic.

Belongs here: reading ensembles, the kernels, their interface. Usable alone: nothing here knows of monitors.
Does not belong here: other kinds of models (see the explainers beside this package).
"""
