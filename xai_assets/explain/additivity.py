"""Efficiency, the axiom that can be checked on every row: the attributions must add up to the prediction.

Belongs here: the measure of the error. Does not belong here: what is tolerated (configuration), raising an alarm.
"""

import numpy as np
import numpy.typing as npt

from xai_assets.records import Attributions


def additivity_error(attributions: Attributions) -> float:
    """Largest gap between base value plus attributions and the model's own margin, relative.

    max_i |base_i + Σ_j φ_ij − margin_i| / max(1, max_i |margin_i|), summed in float64. Never NaN: a value that is not
    finite anywhere gives infinity, so that no comparison with a tolerance lets it pass. No rows give 0.

    >>> from xai_assets.records import Attributions
    >>> one = Attributions(np.array([[1.0, 2.0]], np.float32), np.array([0.5]), np.array([3.5]))
    >>> additivity_error(one)
    0.0
    """
    if len(attributions.margin) == 0:
        return 0.0
    total = attributions.base_value + attributions.values.sum(axis=1, dtype=np.float64)
    gap = float(np.abs(total - attributions.margin).max())
    scale = max(1.0, float(np.abs(attributions.margin).max()))
    error = gap / scale
    return error if np.isfinite(error) else float("inf")


def explained_rows(attributions: Attributions) -> npt.NDArray[np.bool_]:
    """Which requests have a finite explanation and a finite margin, bool [n]; additivity speaks of these only.

    >>> from xai_assets.records import Attributions
    >>> two = Attributions(np.array([[1.0], [np.nan]], np.float32), np.zeros(2), np.array([1.0, 2.0]))
    >>> explained_rows(two).tolist()
    [True, False]
    """
    return np.asarray(np.isfinite(attributions.values).all(axis=1) & np.isfinite(attributions.margin))
