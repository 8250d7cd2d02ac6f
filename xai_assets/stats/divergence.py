"""Why the two models disagree: the difference of attributions, feature by feature.

Belongs here: the summary of δ = φ_experimental − φ_production from histogram moments. Does not belong here: which
requests diverge (see `xai_assets.lake`), change over time (see `scores`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from xai_assets.errors import StatisticsError
from xai_assets.records import DIFFERENCE, EXPERIMENTAL, OVERALL, PRODUCTION, Float64, HistogramBlock
from xai_assets.stats.histograms import segment_position

UNUSED_SHARE, USED_SHARE = 0.001, 0.01
"""A model does not use a feature below the first share of its Σ mean |φ|, and uses it from the second on."""


@dataclass(frozen=True)
class DivergenceSummary:
    """One feature's part in the disagreement of the two models, in one segment.

    mean_difference: mean δ; mean_abs_difference: mean |δ|, both in margin units; difference_share: its share of
    Σ mean |δ| over all features, 0–1 (NaN where nothing differs); production_importance, experimental_importance:
    mean |φ|, margin units; usage: `newly used` or `no longer used` by the experimental model, else empty.
    """

    segment: str
    feature: str
    mean_difference: float
    mean_abs_difference: float
    difference_share: float
    production_importance: float
    experimental_importance: float
    usage: str


def summarize(
    blocks: Mapping[tuple[str, str], HistogramBlock], population: str = "divergent", segment: str = OVERALL
) -> list[DivergenceSummary]:
    """Summaries of all features, the largest mean |δ| first; ties in the order of the features.

    f_e(x) − f_p(x) = (b_e − b_p) + Σ_j δ_j, so the mean δ of all features and of the base value add up to the mean
    difference of the two margins.

    Parameters
    ----------
    blocks
        Histograms by (role, population); roles production, experimental and difference are read.
    population, segment
        Which requests.

    Raises
    ------
    StatisticsError
        Where a role, or the segment, is missing.
    """
    chosen = {}
    for role in (PRODUCTION, EXPERIMENTAL, DIFFERENCE):
        if (role, population) not in blocks:
            raise StatisticsError(f"there is no histogram of role {role} and population {population}")
        chosen[role] = blocks[role, population]
    mean = _per_request(chosen[DIFFERENCE], chosen[DIFFERENCE].phi_sum.sum(axis=2), segment)
    size, production, experimental = (
        _per_request(chosen[role], chosen[role].abs_sum, segment) for role in (DIFFERENCE, PRODUCTION, EXPERIMENTAL)
    )
    shares = [_shares(a) for a in (size, production, experimental)]
    rows = [
        DivergenceSummary(
            segment=segment,
            feature=feature,
            mean_difference=float(mean[j]),
            mean_abs_difference=float(size[j]),
            difference_share=float(shares[0][j]),
            production_importance=float(production[j]),
            experimental_importance=float(experimental[j]),
            usage=_usage(float(shares[1][j]), float(shares[2][j])),
        )
        for j, feature in enumerate(chosen[DIFFERENCE].features)
    ]
    return sorted(rows, key=lambda row: -np.nan_to_num(row.mean_abs_difference))


def _per_request(block: HistogramBlock, sums: Float64, segment: str) -> Float64:
    at = segment_position(block, segment)
    weight = block.weight[at].sum(axis=1)
    return np.asarray(np.divide(sums[at], weight, out=np.full(weight.shape, np.nan), where=weight > 0))


def _shares(importance: Float64) -> Float64:
    total = float(np.nansum(importance))
    return importance / total if total > 0 else np.full(importance.shape, np.nan)


def _usage(production_share: float, experimental_share: float) -> str:
    if production_share < UNUSED_SHARE and experimental_share >= USED_SHARE:
        return "newly used"
    if experimental_share < UNUSED_SHARE and production_share >= USED_SHARE:
        return "no longer used"
    return ""
