"""The one palette, safe for colour-blind readers, and how a figure is made and saved.

Belongs here: colours, sizes, file formats. Does not belong here: any particular figure.
Colours are those of Okabe and Ito (2008); the sequential map rises in luminance, so it also reads in grey.
"""

import io
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REFERENCE = "#999999"
WINDOW = "#0072B2"
POSITIVE, NEGATIVE = "#D55E00", "#0072B2"
ALERT = "#000000"
GRID = "#DDDDDD"
NO_DATA = "#EEEEEE"
SEQUENTIAL = "YlOrBr"
TITLE_CHARACTERS = 88


def new_figure(title: str, width_inches: float = 8.0, height_inches: float = 4.0) -> tuple["Figure", "Axes"]:
    """An empty figure with one pair of axes and the finding as its title."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
    axes = figure.add_subplot()
    characters = round(TITLE_CHARACTERS * width_inches / 8.0)
    # Over the whole figure: long feature names leave the axes little room for a title.
    figure.suptitle(textwrap.fill(title, characters), x=0.01, ha="left", fontsize=11, fontweight="bold")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def new_panels(title: str, count: int, columns: int, width_inches: float = 9.0) -> tuple["Figure", list["Axes"]]:
    """An empty figure with `count` small pairs of axes, row by row, and the finding as its title."""
    figure, whole = new_figure(title, width_inches, 0.8 + 1.8 * -(-count // columns))
    whole.remove()
    panels = [figure.add_subplot(-(-count // columns), columns, i + 1) for i in range(count)]
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def to_png(figure: "Figure", dots_per_inch: int = 110) -> bytes:
    """The figure as a PNG file. The same figure gives the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(buffer, format="png", dpi=dots_per_inch, metadata={"Software": None})
    return buffer.getvalue()
