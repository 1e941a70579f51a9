"""The names, legends and scales that several plots have in common."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from blitz_helpers._extras import require
from blitz_helpers.plotting._colours import BLACK, CARD
from blitz_helpers.plotting._words import as_written

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.colorbar import Colorbar
    from matplotlib.image import AxesImage

MOST_NUMBERED = 20  # with more classes than this, only some get a number
_LINE_HEIGHT, _TALLEST = 0.17, 200.0  # inches: of a line of words, and of all rows
BOXED = {"frameon": True, "framealpha": 0.9, "facecolor": CARD, "edgecolor": "none"}


def number_classes(axis: Axis, num_classes: int) -> None:
    """Label each class with its number, or only some if the labels would overlap."""
    every = 1 if num_classes <= MOST_NUMBERED else math.ceil(num_classes / 10)
    axis.set_ticks(range(0, num_classes, every))


def row_spacing(count: int, inches: float) -> tuple[float, int]:
    """Return the height of each of ``count`` rows, and of how many rows one can have words.

    The height is ``inches``, or less if there are thousands of rows.

    >>> row_spacing(10, 0.25), row_spacing(4000, 0.25)
    ((0.25, 1), (0.05, 4))
    """
    height = min(inches, _TALLEST / count)
    return height, math.ceil(_LINE_HEIGHT / height)


def in_legend(name: object) -> str:
    """Return the name as a legend shows it: matplotlib leaves out what begins with "_".

    >>> in_legend("_fast")
    ' _fast'
    """
    text = as_written(name)
    return f" {text}" if text.startswith("_") else text


def finish_axes(ax: Axes, xlabel: str, ylabel: str, **legend: Any) -> None:
    """Name the axes, add a legend, and leave out the frame above and to the right."""
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(**{"frameon": False, **legend})


def add_box(
    ax: Axes, corner: tuple[float, float], width: float, height: float, **look: Any
) -> None:
    """Draw a rectangle from one of its corners on; it leaves the limits of the axes as they are."""
    patches = require("matplotlib.patches", extra="plotting")
    # `add_patch` would compute new limits, slowly.
    ax.add_artist(patches.Rectangle(corner, width, height, **{"facecolor": "none", **look}))


def add_arrow(ax: Axes, start: tuple[float, float], tip: tuple[float, float]) -> None:
    """Draw a straight arrow."""
    look = {"arrowstyle": "-|>", "color": BLACK, "linewidth": 1.2}
    ax.annotate("", tip, start, arrowprops=look)


def colour_bar(image: AxesImage, **look: Any) -> Colorbar:
    """Draw the scale of the image's colours beside it."""
    bar = image.axes.figure.colorbar(image, ax=image.axes, **look)
    bar.outline.set_visible(False)
    return bar
