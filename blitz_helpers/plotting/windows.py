"""Draws the windows of convolutions, poolings and transposed convolutions on a grid."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from blitz_helpers._extras import require
from blitz_helpers.plotting._axes import add_arrow, add_box
from blitz_helpers.plotting._canvas import canvas, describe
from blitz_helpers.plotting._checks import whole_pair
from blitz_helpers.plotting._colours import BLACK, BLUE, GREY, ORANGE, VERMILION
from blitz_helpers.plotting._settings import default_style
from blitz_helpers.plotting._words import by, counted, listed, minus

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LISTED = 8  # up to this many positions are listed in the alt text
_GAP, _ARROW = 4, 0.25  # minimum gap between the grids in cells; length of the arrow in inches
_BAR = 0.8  # distance between lines of bars, in cells
_WIDTH, _HEIGHT, _CELL = 7.2, 4.6, 0.3  # largest picture, largest cell, in inches
_LEGIBLE, _DIGIT = 0.17, 0.08  # smallest cell that fits a number, width of a digit, in inches
_LEGEND = 5.2  # smallest width of a picture, in inches, so that its legend fits

# The dots of the second window stay visible where it overlaps the first.
_LOOKS: tuple[dict[str, Any], ...]
_LOOKS = ({"facecolor": BLUE, "alpha": 0.5}, {"edgecolor": ORANGE, "hatch": "....", "linewidth": 0})
_LAST: dict[str, Any] = {"edgecolor": BLACK, "linewidth": 1.5, "linestyle": "--"}
_NEVER_READ: dict[str, Any] = {"edgecolor": VERMILION, "hatch": "////"}


@default_style()
def plot_window(
    size: int | tuple[int, int],
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    ax: Axes | None = None,
) -> Axes:
    """Draw a window sliding over a grid, and the grid of its outputs.

    On the left is the input with the window in its first two positions and, dashed, its last. The
    bars below show every position along a row, each with its column of the output. Rows and
    columns that no window reads are hatched. Padding is drawn as a border of zeros, as a
    convolution reads it; max pooling reads minus infinity there.

    Sizes and settings are an int, or a pair: one for the rows and one for the columns.

    Raises:
        ValueError: a number is too small, or the window is larger than the padded input.

    >>> plot_window(13, kernel_size=2, stride=2).get_title()
    '13x13 to 6x6'
    """
    rows, columns = _sides(size, kernel_size, stride, padding, dilation)
    for side in (rows, columns):
        if not side.starts:
            raise ValueError(
                f"kernel_size={side.kernel_size} with dilation={side.dilation} does not fit an "
                f"input of {side.size} with padding={side.padding}: use a larger size or padding."
            )
    grids = _Grids(ax, rows, columns, left=-columns.padding)
    grids.windows(left=0, gid="input", border="0")
    right = grids.arrow(columns.size + columns.padding)
    grids.numbers(left=right, gid="output")
    given, out = by(rows.size, columns.size), by(len(rows.starts), len(columns.starts))
    grids.finish(f"{given} to {out}")

    padded = " with a border of zeros" if rows.padding or columns.padding else ""
    words = (
        f"A {by(rows.kernel_size, columns.kernel_size)} window on a {given} grid{padded}. "
        f"Its left edge can stand on column {_places(columns)}, and the output is {out}."
    )
    unread = {"row": rows.never_read, "column": columns.never_read}
    hatched = [counted(len(lines), name) for name, lines in unread.items() if lines]
    if hatched:
        words += f" Hatched, since no window reads it: {listed(hatched)}."
    return describe(grids.ax, words)


@default_style()
def plot_transposed_window(
    size: int | tuple[int, int],
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    ax: Axes | None = None,
) -> Axes:
    """Draw a transposed convolution: each number of the input lays a window down on the output.

    On the left is the input, on the right the output with the windows of the first two numbers
    and, dashed, of the last. Windows that overlap are added up. The dashed border is ``padding``,
    which a transposed convolution cuts off.

    Sizes and settings are an int, or a pair: one for the rows and one for the columns.

    Raises:
        ValueError: a number is too small, or the padding cuts off the whole output.

    Source: the formula under "Shape" of :class:`torch.nn.ConvTranspose2d`.

    >>> plot_transposed_window(3, kernel_size=4, stride=2, padding=1).get_title()
    '3x3 to 6x6'
    """
    inputs = _sides(size, kernel_size, stride, padding, dilation)
    rows, columns = (
        side._replace(size=(side.size - 1) * side.stride + side.span - 2 * side.padding)
        for side in inputs
    )
    if rows.size < 1 or columns.size < 1:
        raise ValueError(
            f"padding={padding} cuts off all that the windows lay down: use a smaller padding."
        )
    grids = _Grids(ax, rows, columns, left=0)
    grids.numbers(left=0, gid="input")
    right = grids.arrow(inputs[1].size)
    grids.windows(left=right + columns.padding, gid="output", border="")
    given, out = by(inputs[0].size, inputs[1].size), by(rows.size, columns.size)
    grids.finish(f"{given} to {out}")

    cut = " The dashed border is cut off." if rows.padding or columns.padding else ""
    words = (
        f"Each number of a {given} grid lays a {by(rows.kernel_size, columns.kernel_size)} "
        f"window down on a {out} grid, its left edge on column {_places(columns)}.{cut}"
    )
    return describe(grids.ax, words)


def _sides(*settings: int | tuple[int, int]) -> tuple[Side, Side]:
    """Return the settings of the rows and of the columns, or raise a ValueError."""
    pairs = []
    for name, value in zip(Side._fields, settings, strict=True):
        pair = whole_pair(value if isinstance(value, (tuple, list)) else (value, value))
        least = 0 if name == "padding" else 1
        if pair is None or min(pair) < least:
            raise ValueError(
                f"{name}={value!r} cannot be drawn: use an int of {least} or more, or two of them."
            )
        pairs.append(pair)
    rows, columns = (Side(*side) for side in zip(*pairs, strict=True))
    return rows, columns


def _places(columns: Side) -> str:
    """List the columns where a window's left edge can stand.

    >>> _places(Side(size=6, kernel_size=3, stride=1, padding=0, dilation=1))
    '0, 1, 2 or 3'
    """
    places = [minus(start) for start in columns.starts]
    if len(places) > _LISTED:
        return f"{', '.join(places[:3])} and so on to {places[-1]}"
    return listed(places, "or")


class Side(NamedTuple):
    """The rows or the columns of a grid under a sliding window, counted from 0."""

    size: int
    kernel_size: int
    stride: int
    padding: int
    dilation: int

    @property
    def span(self) -> int:
        """How many rows or columns the window spans, gaps included."""
        return self.dilation * (self.kernel_size - 1) + 1

    @property
    def starts(self) -> range:
        """The first row or column of the window at each of its positions."""
        return range(-self.padding, self.size + self.padding - self.span + 1, self.stride)

    def under(self, place: int) -> range:
        """Return the rows or columns under the window at its ``place``-th position."""
        start = self.starts[place]
        return range(start, start + self.span, self.dilation)

    @property
    def never_read(self) -> list[int]:
        """The rows or columns that no position of the window reads."""
        read = {index for place in range(len(self.starts)) for index in self.under(place)}
        return [index for index in range(self.size) if index not in read]

    @property
    def positions(self) -> Side:
        """The grid with one cell for each position of the window."""
        return Side(len(self.starts), kernel_size=1, stride=1, padding=0, dilation=1)


class _Grids:
    """Two grids side by side: one under the windows, and one with a number for each window.

    Lengths are in cells. ``left`` is the left edge of the left grid, including its padding.
    """

    def __init__(self, ax: Axes | None, rows: Side, columns: Side, left: int) -> None:
        self.rows, self.columns = rows, columns
        height, width = len(rows.starts), len(columns.starts)
        bottom = rows.size + rows.padding
        self.numbers_top = (rows.size - height) // 2
        self.bar_lines = min(width, math.ceil(columns.span / columns.stride))
        cells = columns.size + 2 * columns.padding + width
        low = max(bottom + self.bar_lines * _BAR + 0.3, self.numbers_top + height)
        high: float = min(-rows.padding, self.numbers_top)
        self.cell = min(_CELL, _WIDTH / (cells + _GAP + 2), _HEIGHT / (low - high + 1))
        number = _DIGIT * len(str(max(rows.size, columns.size) - 1)) / self.cell
        self.aside = max(0.55, 0.1 / self.cell, 0.6 * number)  # distance of the index labels
        self.gap = max(_GAP, math.ceil(_ARROW / self.cell + 2 * self.aside))
        self.legible = self.cell >= _LEGIBLE
        # Only every so many rows and columns are numbered.
        self.every = math.ceil(max(_LEGIBLE / self.cell, number))
        right = cells + self.gap
        high -= 2 * self.aside
        page = max(_LEGEND, self.cell * (right + 2)), self.cell * (low - high) + 0.9
        self.ax = canvas(ax, *page)
        self.ax.set(xlim=(left - 2 * self.aside, left + right + 0.5), ylim=(low, high))
        self.ax.set_aspect("equal")
        self.ax.set_axis_off()
        # The first two positions, and the last if there are more.
        self.places = [(0, 0), (0, 1) if width > 1 else (1, 0)][: height * width]
        self.last = (height - 1, width - 1) if height * width > 2 else None

    def windows(self, left: int, gid: str, border: str) -> None:
        """Draw the grid under the windows, with ``border`` written into its padding."""
        rows, columns = self.rows, self.columns
        top, bottom = -rows.padding, rows.size + rows.padding
        before, after = left - columns.padding, left + columns.size + columns.padding
        if rows.padding or columns.padding:
            look = {"linestyle": (0, (2, 2)), "gid": "padding"}
            self._lines(before, top, after - before, bottom - top, **look)
        if border and self.legible:
            for y in range(top, bottom):
                for x in range(before, after):
                    if not (0 <= y < rows.size and left <= x < left + columns.size):
                        self._write(x + 0.5, y + 0.5, border, GREY)
        strips = [(left, row, columns.size, 1) for row in rows.never_read]
        strips += [(left + column, 0, 1, rows.size) for column in columns.never_read]
        for x, y, width, height in strips:
            add_box(self.ax, (x, y), width, height, **_NEVER_READ, gid="never read")
        self._draw(rows, columns, left, 0, gid, ("read", "window", "last"))
        self._bars(left, bottom + 0.3)

    def numbers(self, left: int, gid: str) -> None:
        """Draw the grid with one number for each position of the window."""
        rows, columns = self.rows.positions, self.columns.positions
        names = ("result", "outline", "last result")
        self._draw(rows, columns, left, self.numbers_top, gid, names)

    def arrow(self, edge: int) -> int:
        """Draw an arrow from the right edge of one grid, and return the left edge of the next."""
        middle = self.rows.size / 2
        tip = edge + self.gap - 2 * self.aside - 0.1
        add_arrow(self.ax, (edge + 0.4, middle), (tip, middle))
        return edge + self.gap

    def finish(self, title: str) -> None:
        """Add the title and the legend."""
        rows, columns = self.rows, self.columns
        step = f"{rows.stride} down"
        if (0, 1) in self.places:
            step = f"{columns.stride} to the right"
        labels = [f"first {by(rows.kernel_size, columns.kernel_size)} window", f"second, {step}"]
        entries = list(zip(labels[: len(self.places)], _LOOKS, strict=False))
        if self.last:
            entries.append(("last", _LAST))
        if rows.never_read or columns.never_read:
            entries.append(("never read", _NEVER_READ))
        patch = require("matplotlib.patches", extra="plotting").Patch
        handles = [
            patch(**{"facecolor": "none", **look, "linewidth": 1, "label": name})
            for name, look in entries
        ]
        self.ax.legend(
            handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=len(entries),
            frameon=False,
        )  # fmt: skip
        self.ax.set_title(title, color=BLACK, fontsize=11)

    def _draw(
        self, rows: Side, columns: Side, left: int, top: int, gid: str, names: tuple[str, str, str]
    ) -> None:
        """Draw a grid with its first two windows and the last; ``names`` are their gids."""
        self._lines(left, top, columns.size, rows.size, gid=gid)
        for column in range(0, columns.size, self.every):
            self._write(left + column + 0.5, top - rows.padding - self.aside, column, GREY)
        for row in range(0, rows.size, self.every):
            self._write(left - columns.padding - self.aside, top + row + 0.5, row, GREY)
        cell, window, last = names

        def outline(place: tuple[int, int], **look: Any) -> None:
            corner = left + columns.starts[place[1]], top + rows.starts[place[0]]
            add_box(self.ax, corner, columns.span, rows.span, **look)

        for place, colour, look in zip(self.places, (BLUE, ORANGE), _LOOKS, strict=False):
            for row in rows.under(place[0]):
                for column in columns.under(place[1]):
                    add_box(self.ax, (left + column, top + row), 1, 1, gid=cell, **look)
            outline(place, edgecolor=colour, linewidth=2.5, gid=window)
        if self.last:
            outline(self.last, **_LAST, gid=last)

    def _bars(self, left: int, top: float) -> None:
        """Draw a bar under the grid for each window of a row, on as many lines as needed."""
        colours = dict(zip(self.places, (BLUE, ORANGE), strict=False))
        width, height = self.columns.span, _BAR - 0.15
        for place, start in enumerate(self.columns.starts):
            x, y = left + start, top + place % self.bar_lines * _BAR
            look = {"facecolor": colours.get((0, place), GREY), "alpha": 0.35, "gid": "bar"}
            add_box(self.ax, (x + 0.1, y), width - 0.2, height, **look)
            if self.legible:
                self._write(x + width / 2, y + height / 2, place, BLACK)

    def _write(self, x: float, y: float, text: object, color: str) -> None:
        self.ax.text(x, y, str(text), ha="center", va="center", fontsize=8, color=color)

    def _lines(self, left: int, top: int, width: int, height: int, **look: Any) -> None:
        collection = require("matplotlib.collections", extra="plotting").LineCollection
        across = [[(left, y), (left + width, y)] for y in range(top, top + height + 1)]
        down = [[(x, top), (x, top + height)] for x in range(left, left + width + 1)]
        self.ax.add_collection(collection(across + down, linewidths=0.7, color=GREY, **look))
