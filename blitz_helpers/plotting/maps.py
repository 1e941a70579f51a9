"""Draws feature maps, and the receptive fields of layers on an image."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING

from blitz_helpers._extras import require
from blitz_helpers.plotting._canvas import BLACK, SERIES, canvas, describe
from blitz_helpers.plotting._images import INK, around_zero, checked, colour_bar, draw_image
from blitz_helpers.plotting._settings import same_for_all
from blitz_helpers.plotting._words import by, short

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike
    from torch import Tensor

_KERNEL_SIDE = 0.5  # the longest side of the image is 1
_GAP = 0.25  # between the pictures
_INCHES, _DIGIT = 2.4, 0.08  # longest side of an image, width of a digit
_TOLD = 7  # the alt text gives the numbers of kernels up to this size


@same_for_all
def plot_feature_map(
    image: ArrayLike, kernel: ArrayLike, feature_map: ArrayLike, ax: Axes | None = None
) -> Axes:
    """Draw an image ``(H, W)``, a kernel ``(h, w)``, and their feature map ``(H', W')``.

    Image and map are drawn at the same scale. Kernel and map are blue where negative, white at
    zero and red where positive; each has its own colour range, and a bar beside the map shows
    the range of the map.

    Raises:
        ValueError: one of the three is empty, or does not have two dimensions.
        ImportError: matplotlib is not installed.

    >>> image, kernel = [[0.0, 1.0, 1.0]], [[-1.0, 1.0]]
    >>> plot_feature_map(image, kernel, [[1.0, 0.0]]).get_title()
    ''
    """
    pixels, weights = _grid("image", image), _grid("kernel", kernel)
    result = _grid("feature_map", feature_map)
    pixel = 1 / max(*pixels.shape, *result.shape)
    cell = _KERNEL_SIDE / max(weights.shape)
    widths = [pixels.shape[1] * pixel, weights.shape[1] * cell, result.shape[1] * pixel]
    lefts = [0.0, widths[0] + _GAP, widths[0] + widths[1] + 2 * _GAP]
    right = lefts[2] + widths[2]
    ax = canvas(ax, _INCHES * (right + 0.35), _INCHES * 1.2)
    _write_numbers(ax, weights, lefts[1], cell)
    for name, grid, left, width, look in zip(
        ("image", "kernel", "feature map"), (pixels, weights, result), lefts, widths,
        (INK, around_zero(weights), around_zero(result)), strict=True,
    ):  # fmt: skip
        height = width * grid.shape[0] / grid.shape[1]
        drawn = draw_image(ax, grid, left, -height / 2, width, height, **look)
        label = f"{name}, {by(*grid.shape)}"
        ax.text(left + width / 2, -0.54, label, ha="center", va="bottom", fontsize=9, color=BLACK)
    beside = ax.inset_axes((right + 0.06, -0.5, 0.05, 1.0), transform=ax.transData)
    colour_bar(drawn, cax=beside).ax.tick_params(labelsize=8)
    ax.set(xlim=(-0.02, right + 0.3), ylim=(0.52, -0.66), aspect="equal")
    ax.set_axis_off()
    words = (
        f"An image of {by(*pixels.shape)}, a kernel of {by(*weights.shape)}{_rows(weights)}, and "
        f"the feature map of {by(*result.shape)} that it makes, with numbers from "
        f"{short(result.min().item(), 1)} to {short(result.max().item(), 1)}."
    )
    return describe(ax, words)


@same_for_all
def plot_receptive_field(
    image: ArrayLike,
    fields: Mapping[str, tuple[int, int]],
    corner: tuple[int, int] = (0, 0),
    ax: Axes | None = None,
) -> Axes:
    """Draw an image, and outline on it the receptive field of each layer.

    ``fields`` gives their heights and widths in pixels. All have their top left corner at
    ``corner``, a row and a column of the image. Values of 0 are drawn white and the largest
    black, as ink on paper.

    Raises:
        ValueError: the image does not have two dimensions, ``fields`` is empty, or a field does
            not lie inside the image.
        ImportError: matplotlib is not installed.

    >>> fields = {"conv1": (3, 3), "pool1": (4, 4)}
    >>> plot_receptive_field([[0.0] * 8] * 8, fields, corner=(2, 3)).get_title()
    ''
    """
    pixels = _grid("image", image)
    if not fields:
        raise ValueError("fields is empty: give at least one, such as {'conv1': (3, 3)}.")
    height, width = pixels.shape
    top, left = corner
    for name, (rows, columns) in fields.items():
        fits = 0 <= top <= height - rows and 0 <= left <= width - columns
        if rows < 1 or columns < 1 or not fits:
            raise ValueError(
                f"The {by(rows, columns)} field of {name} at {corner} does not lie in an "
                f"image of {by(height, width)}. Use a corner from (0, 0) to "
                f"{(max(0, height - rows), max(0, width - columns))}."
            )
    ax = canvas(ax, 5.6, 4.0)
    draw_image(ax, pixels, 0, 0, width, height, **INK)
    rectangle = require("matplotlib.patches", extra="plotting").Rectangle
    for (name, (rows, columns)), color in zip(fields.items(), cycle(SERIES), strict=False):
        smaller_on_top = 2 + 1 / (rows * columns)
        look = {"facecolor": "none", "edgecolor": color, "linewidth": 2.5, "zorder": smaller_on_top}
        label = f"{name}: {by(rows, columns)}"
        ax.add_patch(rectangle((left, top), columns, rows, label=label, gid=name, **look))
    ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    ax.set_xticks(range(0, width + 1, 4))
    ax.set_yticks(range(0, height + 1, 4))
    told = ", ".join(f"{name} {by(*size)}" for name, size in fields.items())
    words = (
        f"An image of {by(height, width)}, and on it what one number of each layer sees, from row "
        f"{top} and column {left} on: {told}."
    )
    return describe(ax, words)


def _grid(name: str, numbers: ArrayLike) -> Tensor:
    return checked(name, numbers, "(height, width)", f"Use {name}[0] for the first channel.")


def _write_numbers(ax: Axes, kernel: Tensor, left: float, cell: float) -> None:
    """Write each number of a kernel into its cell, if all of them fit."""
    rows = [[short(number) for number in row] for row in kernel.tolist()]
    if max(len(text) for row in rows for text in row) * _DIGIT > cell * _INCHES:
        return
    dark = kernel.abs() > 0.6 * kernel.abs().max()
    for row, texts in enumerate(rows):
        for column, text in enumerate(texts):
            x, y = left + (column + 0.5) * cell, (row + 0.5 - len(rows) / 2) * cell
            color = "white" if dark[row, column] else BLACK
            ax.text(x, y, text, ha="center", va="center", fontsize=8, color=color)


def _rows(kernel: Tensor) -> str:
    if max(kernel.shape) > _TOLD:
        return ""
    rows = (" ".join(map(short, row)) for row in kernel.tolist())
    return f" with the rows {'; '.join(rows)}"
