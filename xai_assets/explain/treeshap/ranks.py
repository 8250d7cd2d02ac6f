"""Exact comparison of float64 values in a float32 kernel: values become ranks among the thresholds.

Belongs here: the ranks. Does not belong here: anything about trees' paths.

A library that compares in float64 (LightGBM, scikit-learn's histogram boosting) can tell two values apart that
float32 cannot. A split x < c only asks on which side of c the value is, so the rank of x among the sorted thresholds
of its feature answers every split exactly, and ranks below 2²⁴ are exact in float32.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from xai_assets.errors import ModelError
from xai_assets.explain.treeshap.compiled import compiled
from xai_assets.explain.treeshap.ensemble import ZERO, Float64, Int64, TreeEnsemble

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Ranks:
    """thresholds: float64, those of each feature sorted and distinct; starts: int64 [d+1] into it.

    categorical: bool [d], features whose codes stay as they are. ensemble: with thresholds on the scale of ranks.
    zero_low, zero_high: float64 [d], the ranks that zero-is-missing splits take as zero.
    """

    thresholds: Float64
    starts: Int64
    categorical: npt.NDArray[np.bool_]
    ensemble: TreeEnsemble
    zero_low: Float64
    zero_high: Float64

    def encode(self, X: npt.NDArray[np.float64]) -> Float32:
        """float64 [n, d] → float32 [n, d]: number of the feature's thresholds ≤ x; NaN stays NaN."""
        ranks = np.empty(X.shape, np.float32)
        _encode(X, self.thresholds, self.starts, self.categorical, ranks)
        return ranks


def ranks_of(ensemble: TreeEnsemble) -> Ranks:
    """The ranks of an ensemble's own thresholds (and of the borders of zero, where zero is missing)."""
    inner = ensemble.left >= 0
    numeric = inner & (ensemble.category_set < 0)
    categorical = np.zeros(ensemble.n_features, np.bool_)
    categorical[ensemble.feature[inner & (ensemble.category_set >= 0)]] = True
    for j in sorted(set(ensemble.feature[numeric].tolist()) & set(np.flatnonzero(categorical).tolist())):
        raise ModelError(
            f"feature {j} is split both as a number and as a category",
            expected="one of the two in all trees, where the library compares in float64",
            next_step="give float32 rows",
        )
    zero_borders = np.array([-ZERO, np.nextafter(ZERO, np.inf)])
    zero_features = set(ensemble.feature[numeric & ensemble.zero_is_missing].tolist())
    per_feature, threshold = [], ensemble.threshold.copy()
    zero_low, zero_high = np.full(ensemble.n_features, -ZERO), np.full(ensemble.n_features, ZERO)
    for j in range(ensemble.n_features):
        at = np.flatnonzero(numeric & (ensemble.feature == j))
        values = np.unique(np.concatenate([threshold[at], zero_borders if j in zero_features else []]))
        per_feature.append(values)
        threshold[at] = np.searchsorted(values, threshold[at]) + 1.0
        if j in zero_features:
            zero_low[j], zero_high[j] = np.searchsorted(values, zero_borders) + np.array([1.0, 0.0])
    starts = np.concatenate([[0], np.cumsum([len(v) for v in per_feature])]).astype(np.int64)
    return Ranks(
        np.concatenate([np.empty(0), *per_feature]),
        starts,
        categorical,
        replace(ensemble, threshold=threshold, input_precision="float32"),
        zero_low,
        zero_high,
    )


@compiled()
def _encode(X: Any, thresholds: Any, starts: Any, categorical: Any, ranks: Any) -> None:
    for i in range(X.shape[0]):
        for j in range(X.shape[1]):
            value = X[i, j]
            if value != value or categorical[j]:
                code = np.float32(value)
                if abs(np.float64(code)) > abs(value):  # towards zero: rounding must not reach the next code
                    code = np.nextafter(code, np.float32(0))
                ranks[i, j] = code
                continue
            low, high = starts[j], starts[j + 1]
            while low < high:
                middle = (low + high) // 2
                if thresholds[middle] <= value:
                    low = middle + 1
                else:
                    high = middle
            ranks[i, j] = low - starts[j]
