"""Mean, spread, percentiles and rates of every feature, read off its histogram.

Belongs here: what a histogram over the reference's cells says about one window by itself. Does not belong here:
comparing a window with the reference (see `drift`, `scores`), counting rows into cells (see `histograms`).

Because blocks add, the statistics of a week are those of the seven days' summed block.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xai_assets.errors import StatisticsError
from xai_assets.records import Edges, Float64, HistogramBlock
from xai_assets.stats.drift import effective_rows

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
COLUMNS = {p: f"percentile_{p:02d}" for p in PERCENTILES}
"""Percentile → name of its column."""
_ROUNDING = 1e-12
"""Relative size up to which a difference of two sums is rounding."""


def feature_statistics(
    block: HistogramBlock, edges: Sequence[Edges], kinds: Mapping[str, str] | None = None
) -> dict[str, npt.NDArray[Any]]:
    """Statistics of every segment × feature, all weighted by w = 1/π.

    Parameters
    ----------
    block
        Histograms over S segments × d features.
    edges
        Borders of the features, in the block's order.
    kinds
        Kind of each feature as in `FeatureSpec`: numeric (where it is not listed), categorical or boolean.

    Returns
    -------
    dict
        Columns of length S·d, the features of the first segment first. NaN stands for "not defined".

        - ``segment``, ``feature``: names. ``row_count``: rows, int64. ``n_effective``: (Σw)²/Σw².
        - ``mean`` = Σwx/Σw and ``std`` = √(Σwx²/Σw − mean²), in units of the value, over the rows that have one;
          ``mean_absolute`` = Σw|x|/Σw. An infinite value counts as 0 in them. Not defined for a categorical feature,
          whose codes have no size.
        - ``percentile_01`` … ``percentile_99``: by linear order over the cells, in units of the value, null left
          out. Inside a cell the position follows the curve a + (b−a)·uᵏ whose mean is the cell's own, so a cell
          that holds one single value gives that value, and an even one is cut evenly. They lie in the same cell as
          the exact percentile. Not defined below and above the reference's range, where only the bound is known (see
          ``outside_share``), and for categorical and boolean features.
        - ``missing_share``: share of null, 0–1. ``outside_share``: share below or above the reference's range, 0–1,
          not defined for a categorical feature, for which ``unseen_share`` is the share of levels that the model
          does not know.

    Raises
    ------
    StatisticsError
        Where block and borders do not fit.

    Notes
    -----
    The spread of values far from zero is lost in Σwx² from about 10⁻⁶ of their size; there it is that of the cell
    means, which is a lower bound.

    >>> from xai_assets.stats.histograms import accumulate, empty_block
    >>> edges = [Edges("age", np.array([20.0, 40.0, 60.0]))]
    >>> block = empty_block(["overall"], edges)
    >>> ages = np.array([[20.0], [30.0], [40.0], [70.0]])
    >>> accumulate(block, edges, ages, np.ones(4), np.zeros((4, 1), dtype=np.int32))
    >>> found = feature_statistics(block, edges)
    >>> float(found["mean"][0]), float(found["percentile_99"][0]), float(found["outside_share"][0])
    (40.0, nan, 0.25)
    """
    _check(block, edges)
    of_kind = [(kinds or {}).get(e.feature, "numeric") for e in edges]
    categorical = np.array([k == "categorical" for k in of_kind], dtype=bool)
    numeric = np.array([k == "numeric" for k in of_kind], dtype=bool)
    null, outside = _cell_masks(edges, block.weight.shape[2])
    # Sums that were subtracted from one another may be below 0 by rounding.
    weight = np.maximum(block.weight, 0.0)
    total = weight.sum(axis=2)
    beyond = _ratio(np.where(outside, weight, 0.0).sum(axis=2), total)
    moments = _moments(block, np.where(null, 0.0, weight))
    result: dict[str, npt.NDArray[Any]] = {
        "segment": np.repeat(np.array(block.segments, dtype=object), len(edges)),
        "feature": np.tile(np.array(block.features, dtype=object), len(block.segments)),
        "row_count": np.rint(block.row_count.sum(axis=2)).astype(np.int64).reshape(-1),
    }
    columns = {"n_effective": effective_rows(weight, block.weight_squared)}
    columns |= {name: np.where(categorical, np.nan, values) for name, values in moments.items()}
    columns |= {name: np.where(numeric, values, np.nan) for name, values in _percentiles(block, edges, weight).items()}
    columns |= {
        "missing_share": _ratio(np.where(null, weight, 0.0).sum(axis=2), total),
        "outside_share": np.where(categorical, np.nan, beyond),
        "unseen_share": np.where(categorical, beyond, np.nan),
    }
    return result | {name: values.reshape(-1) for name, values in columns.items()}


def _check(block: HistogramBlock, edges: Sequence[Edges]) -> None:
    names, cells = tuple(e.feature for e in edges), max((e.cells for e in edges), default=3)
    if names != block.features or cells != block.weight.shape[2]:
        raise StatisticsError(
            "borders are not those of the block",
            expected=f"{block.features} with {block.weight.shape[2]} cells",
            found=f"{names} with {cells} cells",
        )


def _cell_masks(edges: Sequence[Edges], cells: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which cells [d, K] are null, and which lie below or above the reference's range."""
    inner = np.array([e.inner_cells for e in edges], dtype=np.int64)[:, None]
    position = np.arange(cells)[None, :]
    return position == inner + 2, (position == 0) | (position == inner + 1)


def _moments(block: HistogramBlock, weight: Float64) -> dict[str, Float64]:
    """Mean, spread and mean size [S, d] of what is not null; weight: [S, d, K], 0 in the null cell."""
    present = weight.sum(axis=2)
    mean, second = _ratio(block.phi_sum.sum(axis=2), present), _ratio(block.squared_sum, present)
    offsets = np.nan_to_num(_ratio(block.phi_sum, weight) - mean[..., None])
    between = _ratio((weight * offsets**2).sum(axis=2), present)
    variance = second - mean**2
    variance = np.where(variance > _ROUNDING * second, np.maximum(variance, between), between)
    return {"mean": mean, "std": np.sqrt(variance), "mean_absolute": _ratio(block.abs_sum, present)}


def _percentiles(block: HistogramBlock, edges: Sequence[Edges], weight: Float64) -> dict[str, Float64]:
    """Each percentile [S, d]."""
    found = np.full((len(PERCENTILES), len(block.segments), len(edges)), np.nan)
    for j, e in enumerate(edges):
        if e.inner_cells:
            cells = slice(0, e.inner_cells + 2)
            found[:, :, j] = _of_feature(e.cuts, weight[:, j, cells], block.phi_sum[:, j, cells])
    return dict(zip(COLUMNS.values(), found, strict=True))


def _of_feature(cuts: Float64, weight: Float64, value_sum: Float64) -> Float64:
    """Percentiles [P, S] of one feature; weight, value_sum: [S, B+2], the cells from below to above."""
    upto = weight.cumsum(axis=1)
    total = upto[:, -1]
    target = np.outer(np.array(PERCENTILES) / 100.0, total)
    # A share that ends exactly with a cell must not fall into the next one by rounding.
    at = (upto[None] < target[..., None] * (1.0 - _ROUNDING)).sum(axis=2)
    segment = np.arange(len(total))[None, :]
    low, high = np.concatenate((cuts[:1], cuts))[at], np.concatenate((cuts, cuts[-1:]))[at]
    mass = weight[segment, at]
    share = np.clip(_ratio(target - (upto[segment, at] - mass), mass), 0.0, 1.0)
    mean = np.clip(_ratio(value_sum[segment, at], mass), low, high)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        power = (high - mean) / (mean - low)
        inside = low + (high - low) * share**power
    # A cell without width, or one that holds its border alone, has that one value.
    is_point = (mean - low) <= _ROUNDING * (high - low)
    is_known = (total > 0) & (at > 0) & (at < weight.shape[1] - 1)  # not below, not above the reference's range
    return np.where(is_known, np.where(is_point, low, np.clip(inside, low, high)), np.nan)


def _ratio(numerator: Float64, denominator: Float64) -> Float64:
    """Quotient, NaN where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    return np.asarray(np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0))
