"""One feature's histogram: the reference against a window, over the reference's own cells.

Does not belong here: filling histograms, or measuring their distance.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from xai_assets.errors import StatisticsError
from xai_assets.plots.palette import REFERENCE, WINDOW, new_figure
from xai_assets.records import Edges, Float64

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_LABELS = 12


def attribution_histogram(
    edges: Edges,
    reference: Float64,
    window: Float64,
    *,
    title: str,
    unit: str = "margin units",
    levels: Sequence[str] = (),
) -> "Figure":
    """Share of requests per cell, reference beside window.

    Cells are drawn equally wide, because they hold equal shares of the reference and PSI compares just these shares;
    the axis carries their borders. Outermost: below and above the reference's range, and missing.

    Parameters
    ----------
    reference, window
        float64 [cells] weights as in `records.Edges`; each is shown as shares of its own sum.
    levels
        Names of the inner cells of a categorical feature, in the order of their codes.

    Raises
    ------
    StatisticsError
        The weights do not fit the cells.
    """
    if reference.shape != (edges.cells,) or window.shape != (edges.cells,):
        raise StatisticsError(
            f"the histograms of '{edges.feature}' do not fit its cells",
            expected=f"{edges.cells} cells",
            found=f"{reference.shape} and {window.shape}",
        )
    kept = _kept(reference, window)
    place = np.arange(kept.size)
    figure, axes = new_figure(title, 8.0, 3.6)
    for weights, colour, offset, label in (
        (reference, REFERENCE, -0.21, "reference"),
        (window, WINDOW, 0.21, "window"),
    ):
        axes.bar(place + offset, 100 * _share(weights)[kept], width=0.42, color=colour, label=label)
    names = _cell_names(edges, levels)
    step = 1 if levels else max(1, -(-kept.size // MOST_LABELS))
    special = {0, edges.cells - 2, edges.cells - 1}
    labels = [names[c] if i % step == 0 or c in special else "" for i, c in enumerate(kept)]
    axes.set_xticks(place, labels, fontsize=7.5, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_ylabel("requests (%)")
    axes.set_xlabel(edges.feature if levels else f"{edges.feature} ({unit}), cell from")
    axes.legend(frameon=False, fontsize=8)
    return figure


def _kept(reference: Float64, window: Float64) -> np.ndarray:
    """Inner cells always; below, above and missing only where somebody is in them."""
    outer = np.zeros(reference.size, dtype=bool)
    outer[[0, -2, -1]] = True
    return np.nonzero(~outer | (reference + window > 0))[0]


def _share(weights: Float64) -> Float64:
    total = weights.sum()
    return weights / total if total > 0 else np.zeros_like(weights)


def _cell_names(edges: Edges, levels: Sequence[str]) -> list[str]:
    inner = list(levels) or [number(c) for c in edges.cuts[:-1]]
    low = f"below {number(edges.cuts[0])}" if len(edges.cuts) and not levels else "below"
    high = "unseen" if levels else f"above {number(edges.cuts[-1])}" if len(edges.cuts) else "above"
    return [low, *inner[: edges.inner_cells], high, "missing"]


def number(value: float) -> str:
    """A border as a short text.

    >>> number(0.05142), number(18812.4), number(3.2e9)
    ('0.0514', '18,812', '3.2e+09')
    """
    return f"{value:,.0f}" if 1_000 <= abs(value) < 1e7 else f"{value:.3g}"
