"""Attributions over the monitor's features, where a model uses only some of them.

Belongs here: the mapping of columns. Does not belong here: computing attributions.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from xai_assets.errors import ModelError, nearest
from xai_assets.records import Attributions


def widen(attributions: Attributions, from_features: Sequence[str], to_features: Sequence[str]) -> Attributions:
    """The same attributions in the columns `to_features`; a feature the model does not use gets exactly 0.

    Raises
    ------
    ModelError
        A feature of the model is not among `to_features`: its attribution would be lost.
    """
    if tuple(from_features) == tuple(to_features):
        return attributions
    position = {name: i for i, name in enumerate(to_features)}
    lost = [name for name in from_features if name not in position]
    if lost:
        raise ModelError(f"attribution of '{lost[0]}' has no column", next_step=nearest(lost[0], to_features))
    values = np.zeros((len(attributions.values), len(to_features)), np.float32)
    values[:, [position[name] for name in from_features]] = attributions.values
    return replace(attributions, values=values)
