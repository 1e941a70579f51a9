"""Draws filters, feature maps, and the receptive fields of layers on an image."""

from __future__ import annotations

import math
from itertools import cycle
from typing import TYPE_CHECKING, Any

import torch

from blitz_helpers.plotting._axes import MOST_NUMBERED, add_box, colour_bar, in_legend
from blitz_helpers.plotting._canvas import canvas, describe
from blitz_helpers.plotting._checks import as_tensor, checked, require_mapping, whole_pair
from blitz_helpers.plotting._colours import BLACK, SERIES
from blitz_helpers.plotting._images import INK, around_zero, draw_image
from blitz_helpers.plotting._settings import default_style
from blitz_helpers.plotting._words import by, counted, fixed, minus, short

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

_KERNEL_SIDE = 0.5  # the longest side of the image is 1
_GAP = 0.25  # between the pictures
_INCHES, _DIGIT = 2.4, 0.08  # longest side of an image, width of a digit
_PITCH = 1.15  # distance between filters, as a multiple of their side
_TOLD = 7  # the alt text gives the numbers of kernels up to this size


@default_style()
def plot_feature_map(
    image: ArrayLike, kernel: ArrayLike, feature_map: ArrayLike, ax: Axes | None = None
) -> Axes:
    """Draw an image ``(H, W)``, a kernel ``(h, w)``, and their feature map ``(H', W')``.

    Image and map are drawn at the same scale. Kernel and map are blue where negative, white at
    zero and red where positive; each has its own colour range, and a bar beside the map shows
    the range of the map.

    Raises:
        ValueError: one of the three is empty, or does not have two dimensions.

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


@default_style()
def plot_filters(
    filters: torch.Tensor,
    responses: torch.Tensor | None = None,
    before: torch.Tensor | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw filters ``(N, 1, h, w)`` in a row: blue where a weight is negative, red where positive.

    Each filter is labelled with its index in the tensor.

    Args:
        filters: the weights of a first layer.
        responses: ``(N, H, W)``, the response of each filter to an image, drawn below the
            filter: white where it is zero or less, black at the largest of all responses.
        before: the same filters before training, drawn in a row above.
        ax: where to draw; a new figure by default.

    Raises:
        ValueError: an argument has another shape.

    >>> plot_filters(torch.rand(6, 1, 3, 3)).get_title()
    ''
    """
    filters = checked("filters", filters, "(N, 1, h, w)", "Use filters[:, :1] for one channel.")
    count = len(filters)
    weights = {"weights": filters}
    if before is not None:
        before = as_tensor("before", before)
        if before.shape != filters.shape:
            raise ValueError(
                f"before of shape {tuple(before.shape)} does not fit filters of shape "
                f"{tuple(filters.shape)}: give the same filters, as they were before training."
            )
        weights = {"before": checked("before", before, "(N, 1, h, w)"), "after": filters}
    shown = torch.stack(list(weights.values()))
    look = around_zero(shown)
    rows: list[tuple[str, torch.Tensor, dict[str, Any]]]  # name, images and look
    rows = [(name, kernels[:, 0], look) for name, kernels in weights.items()]
    if responses is not None:
        problem = f"do not fit {count} filters"
        answers = checked("responses", responses, f"({count}, H, W)", problem=problem).clamp(min=0)
        rows.append(("answers", answers, {**INK, "vmax": answers.max().item() or 1.0}))

    inches = min(1.1, 7.0 / (_PITCH * count))
    ax = canvas(ax, inches * _PITCH * count + 1.4, inches * _PITCH * len(rows) + 0.3)
    for row, (name, images, look) in enumerate(rows):
        ax.text(-0.12, row * _PITCH + 0.5, name, ha="right", va="center", color=BLACK)
        for index, image in enumerate(images):
            draw_image(ax, image, index * _PITCH, row * _PITCH, 1, 1, **look)
    if count <= MOST_NUMBERED:
        for index in range(count):
            ax.text(index * _PITCH + 0.5, -0.08, str(index), ha="center", va="bottom", color=BLACK)
    ax.set_xlim(-0.05, (count - 1) * _PITCH + 1.05)
    ax.set_ylim((len(rows) - 1) * _PITCH + 1.05, -0.05)
    ax.set_axis_off()
    colour_bar(ax.images[0], shrink=0.8, aspect=12, label="weight")
    return describe(ax, _filter_words(shown, responses))


def _filter_words(weights: torch.Tensor, responses: torch.Tensor | None) -> str:
    _, count, _, height, width = weights.shape
    drawn = ", before and after training" if len(weights) == 2 else ""
    low, high = (minus(fixed(end.item())) for end in weights.aminmax())
    words = (
        f"{counted(count, 'filter')} of {by(height, width)} weights{drawn}, from {low} to {high}."
    )
    if responses is None:
        return words
    silent = [str(index) for index, each in enumerate(responses) if each.max() <= 0]
    which = f"; {', '.join(silent)} answer nothing" if silent else ""
    return f"{words} Below each its answers to an image{which}."


@default_style()
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

    >>> fields = {"conv1": (3, 3), "pool1": (4, 4)}
    >>> plot_receptive_field([[0.0] * 8] * 8, fields, corner=(2, 3)).get_title()
    ''
    """
    pixels = _grid("image", image)
    require_mapping(fields, "fields", "{'conv1': (3, 3)}")
    if not fields:
        raise ValueError("fields is empty: give at least one, such as {'conv1': (3, 3)}.")
    height, width = pixels.shape
    top, left = _two("corner", corner)
    for name, size in fields.items():
        rows, columns = _two(f"fields[{name!r}]", size)
        fits = 0 <= top <= height - rows and 0 <= left <= width - columns
        if rows < 1 or columns < 1 or not fits:
            raise ValueError(
                f"The {by(rows, columns)} field of {name} at {corner} does not lie in an "
                f"image of {by(height, width)}. Use a corner from (0, 0) to "
                f"{(max(0, height - rows), max(0, width - columns))}."
            )
    ax = canvas(ax, 5.6, 4.0)
    draw_image(ax, pixels, 0, 0, width, height, **INK)
    for (name, (rows, columns)), color in zip(fields.items(), cycle(SERIES), strict=False):
        smaller_on_top = 2 + 1 / (rows * columns)
        look = {"edgecolor": color, "linewidth": 2.5, "zorder": smaller_on_top}
        label = in_legend(f"{name}: {by(rows, columns)}")
        add_box(ax, (left, top), columns, rows, label=label, gid=name, **look)
    ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    every = 4 * math.ceil(max(height, width) / 40)
    ax.set(xticks=range(0, width + 1, every), yticks=range(0, height + 1, every))
    told = ", ".join(f"{name} {by(*size)}" for name, size in fields.items())
    words = (
        f"An image of {by(height, width)}, and on it what one number of each layer sees, from row "
        f"{top} and column {left} on: {told}."
    )
    return describe(ax, words)


def _two(name: str, numbers: tuple[int, int]) -> tuple[int, int]:
    pair = whole_pair(numbers)
    if pair is None:
        raise ValueError(
            f"{name}={numbers!r} must be two whole numbers, of rows and of columns. Use, say, "
            "(3, 3)."
        )
    return pair


def _grid(name: str, numbers: ArrayLike) -> torch.Tensor:
    return checked(name, numbers, "(height, width)", f"Use {name}[0] for the first channel.")


def _write_numbers(ax: Axes, kernel: torch.Tensor, left: float, cell: float) -> None:
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


def _rows(kernel: torch.Tensor) -> str:
    if max(kernel.shape) > _TOLD:
        return ""
    rows = (" ".join(map(short, row)) for row in kernel.tolist())
    return f" with the rows {'; '.join(rows)}"
