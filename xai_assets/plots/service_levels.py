"""Service levels of explanations, day by day, beside their targets.

Does not belong here: the levels themselves, and whether they meet their targets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np

from xai_assets.errors import StatisticsError
from xai_assets.plots.palette import ALERT, NEGATIVE, POSITIVE, new_panels
from xai_assets.records import Float64

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DAY_LABELS = 5
COLUMNS = 3
LARGEST = 0.01
"""A panel whose values are all smaller than this share of its target shows the values, not the distance to it."""


@dataclass(frozen=True)
class Panel:
    """One measure over the days. lines: per name, float64 [days], NaN on days without a value (a gap)."""

    title: str
    unit: str
    lines: Mapping[str, Float64]
    target: float | None = None


def service_level_lines(days: Sequence[date], panels: Sequence[Panel], *, title: str) -> "Figure":
    """A small chart per measure: one line per model role, the target dashed.

    Raises
    ------
    StatisticsError
        A line and the days differ in number, or there is nothing to draw.
    """
    sizes = {len(line) for panel in panels for line in panel.lines.values()} | {len(days)}
    if len(sizes) > 1 or not days or not panels:
        raise StatisticsError("lines and days differ in number", expected=str(len(days)), found=str(sorted(sizes)))
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    styles = dict(zip(names, _styles(), strict=False))
    figure, axes = new_panels(title, len(panels), COLUMNS)
    for panel, place in zip(panels, axes, strict=True):
        _draw(place, days, panel, styles)
    # dates once per column, under its last panel
    for place in axes[:-COLUMNS]:
        place.tick_params(labelbottom=False)
    found = {text: handle for place in axes for handle, text in zip(*place.get_legend_handles_labels(), strict=True)}
    figure.legend(
        found.values(), found.keys(), loc="outside lower left", ncols=len(names) + 1, frameon=False, fontsize=8
    )
    return figure


def _styles() -> list[dict[str, object]]:
    # Two roles often have the same value: the second line is drawn thinner, so that both can be seen.
    return [{"color": NEGATIVE, "linewidth": 2.4}, {"color": POSITIVE, "linewidth": 1.1}]


def _draw(axes: "Axes", days: Sequence[date], panel: Panel, styles: Mapping[str, Mapping[str, object]]) -> None:
    place = np.array([d.toordinal() for d in days], dtype=np.float64)
    for name, line in panel.lines.items():
        axes.plot(place, line, marker="o", markersize=2.5, label=name, **styles[name])  # type: ignore[arg-type]
    values = np.concatenate([line[np.isfinite(line)] for line in panel.lines.values()])
    largest, lowest = (float(values.max()), float(values.min())) if values.size else (0.0, 0.0)
    is_far = panel.target is not None and 0 < largest < LARGEST * panel.target
    if panel.target is not None and not is_far:
        axes.axhline(panel.target, color=ALERT, linestyle="--", linewidth=1, label="target")
        largest = max(largest, panel.target)
    axes.set_ylim(min(0.0, 1.12 * lowest), 1.12 * largest if largest > 0 else 1.0)
    unit = f"{panel.unit}; target {panel.target:g}" if is_far else panel.unit
    axes.set_title(f"{panel.title}\n({unit})", fontsize=8, loc="left")
    step = max(1, -(-len(days) // DAY_LABELS))
    axes.set_xticks(place[::step], [f"{d:%b %d}" for d in days[::step]], fontsize=7)
    axes.tick_params(axis="y", labelsize=7)
