"""A window that slides over a grid, and what one number of a feature map sees of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

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
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

_GAP = 3  # cells between the input and the output
_WIDTH, _HEIGHT, _CELL = 7.2, 4.0, 0.3  # the most that a picture and a cell take, in inches
_FIELD_COLOURS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY)


class _Side(NamedTuple):
    """The rows, or the columns, of an input under a window. The first of them is 0."""

    size: int
    kernel_size: int
    stride: int
    padding: int
    dilation: int

    @property
    def starts(self) -> range:
        span = self.dilation * (self.kernel_size - 1) + 1
        return range(-self.padding, self.size + self.padding - span + 1, self.stride)

    def read_from(self, start: int) -> range:
        return range(start, start + self.dilation * self.kernel_size, self.dilation)

    @property
    def never_read(self) -> list[int]:
        read = {index for start in self.starts for index in self.read_from(start)}
        return [index for index in range(self.size) if index not in read]


def plot_window(
    size: int | tuple[int, int],
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    ax: Axes | None = None,
) -> Axes:
    """Draw a window sliding over a grid: where it lands, and what comes out.

    On the left is the input, its padding dashed, with the window in its first two places and the
    cells that it reads there; on the right the output, with the two numbers that they give. Rows
    and columns of the input that no place of the window reads are hatched.

    Sizes and settings are an int, or one for the rows and one for the columns.

    Raises:
        ValueError: a number is too small, or the window larger than the padded input.
        ImportError: matplotlib is not installed.

    >>> plot_window(13, kernel_size=2, stride=2).get_title()
    '13x13 to 6x6'
    """
    rows, columns = _sides(
        size=size, kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation
    )
    out_height, out_width = len(rows.starts), len(columns.starts)
    padded_height = rows.size + 2 * rows.padding
    width = columns.size + 2 * columns.padding + _GAP + out_width
    height = max(padded_height, out_height)
    cell = min(_CELL, _WIDTH / width, _HEIGHT / height)
    ax = canvas(ax, max(cell * width, 3.6), cell * height + 1.0)
    out_left = columns.size + columns.padding + _GAP
    out_top = (rows.size - out_height) // 2

    if rows.padding or columns.padding:
        _grid(
            ax, -columns.padding, -rows.padding, columns.size + 2 * columns.padding, padded_height,
            color=GREY, linestyle=(0, (2, 2)), gid="padding",
        )  # fmt: skip
    _grid(ax, 0, 0, columns.size, rows.size, color=GREY, gid="input")
    _grid(ax, out_left, out_top, out_width, out_height, color=GREY, gid="output")

    strips = [(0, row, columns.size, 1) for row in rows.never_read]
    strips += [(column, 0, 1, rows.size) for column in columns.never_read]
    for strip in strips:
        _box(ax, *strip, facecolor="none", edgecolor=VERMILION, hatch="////", gid="never read")

    places = [(0, 0), (0, 1) if out_width > 1 else (1, 0)][: min(2, out_width * out_height)]
    for place, colour in zip(places, (BLUE, ORANGE), strict=False):
        reads_rows = rows.read_from(rows.starts[place[0]])
        reads_columns = columns.read_from(columns.starts[place[1]])
        for row in reads_rows:
            for column in reads_columns:
                _box(ax, column, row, 1, 1, facecolor=colour, alpha=0.45, gid="read")
        _box(
            ax, reads_columns[0], reads_rows[0],
            reads_columns[-1] - reads_columns[0] + 1, reads_rows[-1] - reads_rows[0] + 1,
            facecolor="none", edgecolor=colour, linewidth=2.5, gid="window",
        )  # fmt: skip
        _box(
            ax, out_left + place[1], out_top + place[0], 1, 1,
            facecolor=colour, alpha=0.7, edgecolor=colour, gid="result",
        )  # fmt: skip

    arrow = {"arrowstyle": "-|>", "color": BLACK, "linewidth": 1.2}
    middle = out_top + out_height / 2
    ax.annotate("", (out_left - 0.4, middle), (out_left - _GAP + 0.4, middle), arrowprops=arrow)
    name = f"{rows.size}x{columns.size} to {out_height}x{out_width}"
    ax.set_title(name, color=BLACK, fontsize=11)
    _explain(ax, rows, columns, places)
    ax.set_xlim(-columns.padding - 0.5, out_left + out_width + 0.5)
    bottom = max(rows.size + rows.padding, out_top + out_height)
    ax.set_ylim(bottom + 0.5, min(-rows.padding, out_top) - 0.5)
    ax.set_aspect("equal")
    ax.set_axis_off()
    return ax


def plot_receptive_field(
    image: ArrayLike,
    fields: Mapping[str, tuple[int, int]],
    corner: tuple[int, int] = (0, 0),
    ax: Axes | None = None,
) -> Axes:
    """Draw an image, and on it how much of it each layer's numbers see.

    The fields, as height and width in pixels, all begin at ``corner``, a row and a column of the
    image. Values of 0 are drawn white and the largest black, as ink on paper.

    Raises:
        ValueError: the image is not a grid of numbers, there is no field, or one of them begins
            outside the image or is larger than it.
        ImportError: matplotlib is not installed.

    >>> fields = {"conv1": (3, 3), "pool1": (4, 4)}
    >>> plot_receptive_field([[0.0] * 8] * 8, fields, corner=(2, 3)).get_title()
    ''
    """
    pixels = require("numpy", extra="plotting").asarray(image)
    if pixels.ndim != 2 or 0 in pixels.shape:
        raise ValueError(
            f"An image of shape {pixels.shape} cannot be drawn: (height, width) is expected. "
            "Use image[0] for the first channel."
        )
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
    for index, (name, (field_height, field_width)) in enumerate(fields.items()):
        _box(
            ax, left, top, field_width, field_height,
            facecolor="none", edgecolor=_FIELD_COLOURS[index % len(_FIELD_COLOURS)], linewidth=2.5,
            zorder=2 + 1 / (field_height * field_width),  # the smaller above the larger
            label=f"{name}: {field_height}x{field_width}", gid=name,
        )  # fmt: skip
    ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=10)
    ax.set_xticks(range(0, width + 1, 4))
    ax.set_yticks(range(0, height + 1, 4))
    return ax


def _sides(**settings: int | tuple[int, int]) -> tuple[_Side, _Side]:
    """Return the settings of the rows and of the columns, once they can be drawn."""
    least = {"size": 1, "kernel_size": 1, "stride": 1, "padding": 0, "dilation": 1}
    pairs = {}
    for name, value in settings.items():
        pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
        if len(pair) != 2 or any(not isinstance(n, int) or n < least[name] for n in pair):
            raise ValueError(
                f"{name}={value} cannot be drawn: use an int of {least[name]} or more, "
                "or two of them."
            )
        pairs[name] = pair
    rows, columns = (_Side(*side) for side in zip(*pairs.values(), strict=True))
    for side in (rows, columns):
        if not side.starts:
            raise ValueError(
                f"kernel_size={side.kernel_size} with dilation={side.dilation} does not fit an "
                f"input of {side.size} with padding={side.padding}: use a larger size or padding."
            )
    return rows, columns


def _box(ax: Axes, left: float, top: float, width: float, height: float, **style: object) -> None:
    rectangle = require("matplotlib.patches", extra="plotting").Rectangle
    ax.add_patch(rectangle((left, top), width, height, **style))


def _grid(ax: Axes, left: int, top: int, width: int, height: int, **style: object) -> None:
    collection = require("matplotlib.collections", extra="plotting").LineCollection
    across = [[(left, y), (left + width, y)] for y in range(top, top + height + 1)]
    down = [[(x, top), (x, top + height)] for x in range(left, left + width + 1)]
    ax.add_collection(collection(across + down, linewidths=0.7, **style))


def _explain(ax: Axes, rows: _Side, columns: _Side, places: list[tuple[int, int]]) -> None:
    """Say under the picture what its colours stand for."""
    patch = require("matplotlib.patches", extra="plotting").Patch
    kernel = f"{rows.kernel_size}x{columns.kernel_size}"
    legend = [patch(facecolor=BLUE, alpha=0.6, label=f"first {kernel} window")]
    if len(places) > 1:
        step = f"{columns.stride} to the right" if places[1] == (0, 1) else f"{rows.stride} down"
        legend.append(patch(facecolor=ORANGE, alpha=0.6, label=f"second, {step}"))
    if rows.never_read or columns.never_read:
        legend.append(
            patch(facecolor="none", edgecolor=VERMILION, hatch="////", label="never read")
        )
    ax.legend(
        handles=legend,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        ncols=len(legend),
        frameon=False,
        fontsize=10,
    )
