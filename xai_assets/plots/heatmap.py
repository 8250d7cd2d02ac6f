"""Drift of every feature over time, one row per feature and one column per day.

Does not belong here: the scores, and which of them are alerts.
"""

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from xai_assets.errors import StatisticsError
from xai_assets.plots.palette import ALERT, NO_DATA, SEQUENTIAL, new_figure
from xai_assets.records import Float64

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DAY_LABELS = 10


def drift_heatmap(
    psi_nats: Float64,
    alerts: npt.NDArray[np.bool_],
    features: Sequence[str],
    days: Sequence[date],
    *,
    title: str,
    floors: tuple[float, float, float] = (0.10, 0.25, 0.50),
) -> "Figure":
    """Corrected PSI per feature and day, in steps at the floors; a dot marks a day with an alert.

    Parameters
    ----------
    psi_nats
        float64 [features, days], nats; NaN where nothing could be judged (grey).
    alerts
        bool [features, days].
    floors
        Effect from which drift is noted, a warning, critical.

    Raises
    ------
    StatisticsError
        The arrays do not fit the names, or there is nothing to draw.
    """
    shape = (len(features), len(days))
    if psi_nats.shape != shape or alerts.shape != shape or 0 in shape:
        raise StatisticsError(
            "the heatmap's arrays do not fit its names",
            expected=f"{shape[0]} features × {shape[1]} days, at least one each",
            found=f"{psi_nats.shape} and {alerts.shape}",
        )
    from matplotlib import colormaps
    from matplotlib.colors import BoundaryNorm

    figure, axes = new_figure(title, 9.0, 1.6 + 0.26 * len(features))
    bounds = [0.0, floors[0] / 2, *floors, 2 * floors[2]]
    colours = colormaps[SEQUENTIAL].with_extremes(bad=NO_DATA)
    norm = BoundaryNorm(bounds, colours.N, extend="max")
    shown = np.ma.masked_invalid(np.maximum(psi_nats, 0.0))
    mesh = axes.pcolormesh(shown, cmap=colours, norm=norm, edgecolors="white", linewidth=0.4)
    row, column = np.nonzero(alerts)
    if row.size:
        axes.scatter(column + 0.5, row + 0.5, s=9, color=ALERT, label="alert open")
        axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.07), frameon=False, fontsize=8, handletextpad=0.2)
    axes.set_yticks(np.arange(len(features)) + 0.5, features, fontsize=8)
    step = max(1, -(-len(days) // DAY_LABELS))
    axes.set_xticks(np.arange(0, len(days), step) + 0.5, [f"{d:%b %d}" for d in days[::step]], fontsize=8)
    axes.set_xlabel(f"day ({days[0]} … {days[-1]})")
    axes.invert_yaxis()
    axes.tick_params(length=0)
    bar = figure.colorbar(mesh, ax=axes, fraction=0.03, pad=0.01, format="%.2g")
    bar.set_label("corrected PSI (nats)", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return figure
