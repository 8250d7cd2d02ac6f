"""Why the two models differ, and how often they do.

Does not belong here: attributions, rates, and the choice of features to show.
"""

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING

import numpy as np

from xai_assets.errors import StatisticsError
from xai_assets.plots.palette import GRID, NEGATIVE, POSITIVE, REFERENCE, WINDOW, new_figure
from xai_assets.records import Float64

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DAY_LABELS = 10


def divergence_reasons(
    features: Sequence[str],
    mean_abs_delta: Float64,
    share: Float64,
    mean_delta: Float64,
    *,
    title: str,
) -> "Figure":
    """Bars of mean |δ| per feature, largest on top, each with its share of the whole.

    Parameters
    ----------
    mean_abs_delta, mean_delta
        float64 [features], margin units. The colour tells in which direction the feature moves the experimental
        model on average.
    share
        float64 [features], share of Σ mean |δ|, 0 to 1.

    Raises
    ------
    StatisticsError
        The arrays do not fit the names, or there is nothing to draw.
    """
    sizes = {len(features), len(mean_abs_delta), len(share), len(mean_delta)}
    if len(sizes) > 1 or not features:
        raise StatisticsError("bars and names differ in number", expected="one value per feature", found=str(sizes))
    from matplotlib.patches import Patch

    figure, axes = new_figure(title, 8.0, 1.5 + 0.3 * len(features))
    place = np.arange(len(features))
    colours = [POSITIVE if d > 0 else NEGATIVE for d in mean_delta]
    axes.barh(place, mean_abs_delta, color=colours, height=0.7)
    for y, value, part in zip(place, mean_abs_delta, share, strict=True):
        axes.annotate(f" {part:.0%}", (value, y), va="center", fontsize=8)
    axes.set_yticks(place, features, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.08)
    axes.set_xlabel("mean |δ| (margin units), with its share of the whole")
    handles = [
        Patch(color=POSITIVE, label="raises the experimental output on average"),
        Patch(color=NEGATIVE, label="lowers it"),
    ]
    axes.legend(handles=handles, loc="lower right", frameon=False, fontsize=8)
    return figure


def divergence_rate(
    days: Sequence[date], rates: Float64, *, reference_rate: float, reference: tuple[date, date], title: str
) -> "Figure":
    """Share of requests on which the models diverge, per day, with the rate of the reference days.

    rates: float64 [days], 0 to 1; NaN on days without requests (a gap).

    Raises
    ------
    StatisticsError
        Rates and days differ in number, or there are none.
    """
    if len(days) != len(rates) or not days:
        raise StatisticsError("rates and days differ in number", expected=str(len(days)), found=str(len(rates)))
    figure, axes = new_figure(title, 8.0, 3.2)
    place = np.array([d.toordinal() for d in days], dtype=np.float64)
    inside = [p for p, d in zip(place, days, strict=True) if reference[0] <= d <= reference[1]]
    if inside:
        axes.axvspan(inside[0] - 0.5, inside[-1] + 0.5, color=GRID, alpha=0.5, linewidth=0, label="reference days")
    axes.axhline(100 * reference_rate, color=REFERENCE, linestyle="--", linewidth=1.5, label="rate of the reference")
    axes.plot(place, 100 * rates, color=WINDOW, marker="o", markersize=3, linewidth=1.2, label="rate of the day")
    step = max(1, -(-len(days) // DAY_LABELS))
    axes.set_xticks(place[::step], [f"{d:%b %d}" for d in days[::step]], fontsize=8)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("divergent requests (%)")
    axes.set_xlabel(f"day ({days[0]} … {days[-1]})")
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.2), ncols=3, frameon=False, fontsize=8)
    return figure
