"""Model artifacts: load and check them, predict with them, train and register candidates.

Belongs here: everything that touches a model file or a booster, and the encoding of features for it.
Does not belong here: attributions (see `explain`), tables (see `lake`), whether to retrain (see `decide`).
"""

from xai_assets.models.artifact import Model, encode_features, feature_levels, inspect_features, load_model

__all__ = ["Model", "encode_features", "feature_levels", "inspect_features", "load_model"]
