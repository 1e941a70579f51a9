"""Draws feature maps, and the receptive fields of layers on an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blitz_helpers._extras import require
from blitz_helpers.plotting._canvas import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    canvas,
    describe,
)
from blitz_helpers.plotting._settings import same_for_all

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage
    from numpy.typing import ArrayLike, NDArray

_FIELD_COLOURS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY)
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
    image, kernel, feature_map = (
        _grid_of(numbers, name)
        for name, numbers in [("image", image), ("kernel", kernel), ("feature_map", feature_map)]
    )
    pixel = 1 / max(*image.shape, *feature_map.shape)
    cell = _KERNEL_SIDE / max(kernel.shape)
    widths = [image.shape[1] * pixel, kernel.shape[1] * cell, feature_map.shape[1] * pixel]
    lefts = [0.0, widths[0] + _GAP, widths[0] + widths[1] + 2 * _GAP]
    ax = canvas(ax, _INCHES * (lefts[2] + widths[2] + 0.35), _INCHES * 1.2)
    _draw(ax, image, lefts[0], pixel, cmap="gray_r", vmin=0)
    _draw(ax, kernel, lefts[1], cell, cmap="RdBu_r", **_around_zero(kernel))
    drawn = _draw(ax, feature_map, lefts[2], pixel, cmap="RdBu_r", **_around_zero(feature_map))
    _write_numbers(ax, kernel, lefts[1], cell)
    for name, numbers, left, width in zip(
        ("image", "kernel", "feature map"), (image, kernel, feature_map), lefts, widths, strict=True
    ):
        label = f"{name}, {_size(numbers)}"
        ax.text(left + width / 2, -0.54, label, ha="center", va="bottom", fontsize=9, color=BLACK)
    beside = ax.inset_axes((lefts[2] + widths[2] + 0.06, -0.5, 0.05, 1.0), transform=ax.transData)
    figure = ax.get_figure(root=True)
    assert figure is not None  # axes always belong to a figure here
    figure.colorbar(drawn, cax=beside).ax.tick_params(labelsize=8)
    ax.set_xlim(-0.02, lefts[2] + widths[2] + 0.3)
    ax.set_ylim(0.52, -0.66)
    ax.set_aspect("equal")
    ax.set_axis_off()
    words = (
        f"An image of {_size(image)}, a kernel of {_size(kernel)}{_rows(kernel)}, and "
        f"the feature map of {_size(feature_map)} that it makes, with numbers from "
        f"{_signed(feature_map.min(), 1)} to {_signed(feature_map.max(), 1)}."
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
    pixels = _grid_of(image, "image")
    if not fields:
        raise ValueError("fields is empty: give at least one, such as {'conv1': (3, 3)}.")
    height, width = pixels.shape
    top, left = corner
    for name, (field_height, field_width) in fields.items():
        fits = 0 <= top <= height - field_height and 0 <= left <= width - field_width
        if field_height < 1 or field_width < 1 or not fits:
            raise ValueError(
                f"The {field_height}x{field_width} field of {name} at {corner} does not lie in an "
                f"image of {height}x{width}. Use a corner from (0, 0) to "
                f"{(max(0, height - field_height), max(0, width - field_width))}."
            )
    ax = canvas(ax, 5.6, 4.0)
    ax.imshow(pixels, cmap="gray_r", vmin=0, extent=(0, width, height, 0), interpolation="nearest")
    rectangle = require("matplotlib.patches", extra="plotting").Rectangle
    for index, (name, (field_height, field_width)) in enumerate(fields.items()):
        field = rectangle(
            (left, top), field_width, field_height,
            facecolor="none", edgecolor=_FIELD_COLOURS[index % len(_FIELD_COLOURS)], linewidth=2.5,
            zorder=2 + 1 / (field_height * field_width),  # smaller fields on top of larger ones
            label=f"{name}: {field_height}x{field_width}", gid=name,
        )  # fmt: skip
        ax.add_patch(field)
    ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=10)
    ax.set_xticks(range(0, width + 1, 4))
    ax.set_yticks(range(0, height + 1, 4))
    told = ", ".join(f"{name} {size[0]}x{size[1]}" for name, size in fields.items())
    words = (
        f"An image of {height}x{width}, and on it what one number of each layer sees, from row "
        f"{top} and column {left} on: {told}."
    )
    return describe(ax, words)


def _grid_of(numbers: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return the numbers as a two-dimensional array, or raise a ValueError."""
    if hasattr(numbers, "detach"):  # a tensor, which may require grad
        numbers = numbers.detach().cpu()
    grid = require("numpy", extra="plotting").asarray(numbers, dtype=float)
    if grid.ndim != 2 or 0 in grid.shape:
        raise ValueError(
            f"{name} of shape {grid.shape} cannot be drawn: (height, width) is expected. "
            f"Use {name}[0] for the first channel."
        )
    return grid  # type: ignore[no-any-return]  # `require` returns Any


def _around_zero(grid: NDArray[np.float64]) -> dict[str, float]:
    limit = float(abs(grid).max()) or 1.0
    return {"vmin": -limit, "vmax": limit}


def _draw(ax: Axes, grid: NDArray[np.float64], left: float, side: float, **look: Any) -> AxesImage:
    """Draw a framed grid with cells of ``side``, its centre at height 0."""
    height, width = (side * count for count in grid.shape)
    extent = (left, left + width, height / 2, -height / 2)
    drawn = ax.imshow(grid, extent=extent, interpolation="nearest", **look)
    xs = [left, left + width, left + width, left, left]
    ax.plot(xs, [height / 2, height / 2, -height / 2, -height / 2, height / 2], color=GREY, lw=0.5)
    return drawn


def _write_numbers(ax: Axes, kernel: NDArray[np.float64], left: float, cell: float) -> None:
    """Write each number of a kernel into its cell, if all of them fit."""
    limit = _around_zero(kernel)["vmax"]
    longest = max(len(_signed(number, 2)) for number in kernel.flat)
    if longest * _DIGIT > cell * _INCHES:
        return
    for (row, column), number in require("numpy", extra="plotting").ndenumerate(kernel):
        ax.text(
            left + (column + 0.5) * cell, (row + 0.5 - kernel.shape[0] / 2) * cell,
            _signed(number, 2), ha="center", va="center", fontsize=8,
            color="white" if abs(number) > 0.6 * limit else BLACK,
        )  # fmt: skip


def _rows(kernel: NDArray[np.float64]) -> str:
    if max(kernel.shape) > _TOLD:
        return ""
    rows = (" ".join(_signed(number, 2) for number in row) for row in kernel)
    return f" with the rows {'; '.join(rows)}"


def _size(grid: NDArray[np.float64]) -> str:
    return f"{grid.shape[0]}x{grid.shape[1]}"


def _signed(number: float, digits: int) -> str:
    """Format a number with at most so many decimals and a true minus sign.

    >>> _signed(2.0, digits=1), _signed(0.125, digits=2)
    ('2', '0.12')
    """
    text = f"{number:.{digits}f}".rstrip("0").rstrip(".")
    return "0" if text in ("", "-0") else text.replace("-", "\N{MINUS SIGN}")
