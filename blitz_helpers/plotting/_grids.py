"""Draws two grids side by side, one of them under a sliding window."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from blitz_helpers._extras import require
from blitz_helpers.plotting._canvas import BLACK, BLUE, GREY, ORANGE, VERMILION, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GAP, _ARROW = 4, 0.25  # minimum gap between the grids in cells; length of the arrow in inches
_BAR = 0.8  # distance between lines of bars, in cells
_WIDTH, _HEIGHT, _CELL = 7.2, 4.6, 0.3  # largest picture, largest cell, in inches
_LEGIBLE, _DIGIT = 0.17, 0.08  # smallest cell that fits a number, width of a digit, in inches
_LEGEND = 5.2  # smallest width of a picture, in inches, so that its legend fits
_DOTS = "...."  # hatching of the second window, visible where it overlaps the first


class Side(NamedTuple):
    """The rows or the columns of a grid under a sliding window, counted from 0."""

    size: int
    kernel_size: int
    stride: int
    padding: int
    dilation: int

    @property
    def span(self) -> int:
        return self.dilation * (self.kernel_size - 1) + 1

    @property
    def starts(self) -> range:
        return range(-self.padding, self.size + self.padding - self.span + 1, self.stride)

    def under(self, place: int) -> range:
        """Return the rows or columns under the window at its ``place``-th position."""
        start = self.starts[place]
        return range(start, start + self.span, self.dilation)

    @property
    def never_read(self) -> list[int]:
        read = {index for place in range(len(self.starts)) for index in self.under(place)}
        return [index for index in range(self.size) if index not in read]


def by(height: int, width: int) -> str:
    """Return the size as text, such as ``30x30``."""
    return f"{height}x{width}"


class Sketch:
    """Two grids side by side: one under the windows, and one with a number for each window.

    Lengths are in cells. ``left`` is the left edge of the left grid, including its padding.
    """

    def __init__(self, ax: Axes | None, rows: Side, columns: Side, left: int) -> None:
        self.rows, self.columns = rows, columns
        self.height, self.width = len(rows.starts), len(columns.starts)
        # The padded grid reaches from row -padding to row size + padding.
        self.top, self.bottom = -rows.padding, rows.size + rows.padding
        self.numbers_top = (rows.size - self.height) // 2
        self.lanes = min(self.width, math.ceil(columns.span / columns.stride))
        cells = columns.size + 2 * columns.padding + self.width
        low = max(self.bottom + self.lanes * _BAR + 0.3, self.numbers_top + self.height)
        high: float = min(self.top, self.numbers_top)
        self.cell = min(_CELL, _WIDTH / (cells + _GAP + 2), _HEIGHT / (low - high + 1))
        number = _DIGIT * len(str(max(rows.size, columns.size) - 1)) / self.cell
        self.aside = max(0.55, 0.1 / self.cell, 0.6 * number)  # distance of the index labels
        self.gap = max(_GAP, math.ceil(_ARROW / self.cell + 2 * self.aside))
        self.right = cells + self.gap
        high -= 2 * self.aside
        self.legible = self.cell >= _LEGIBLE
        # Only every so many rows and columns are numbered.
        self.every = math.ceil(max(_LEGIBLE / self.cell, number))
        width = max(_LEGEND, self.cell * (self.right + 2))
        self.ax = canvas(ax, width, self.cell * (low - high) + 0.9)
        self.ax.set_xlim(left - 2 * self.aside, left + self.right + 0.5)
        self.ax.set_ylim(low, high)
        self.ax.set_aspect("equal")
        self.ax.set_axis_off()

        self.places = [(0, 0), (0, 1) if self.width > 1 else (1, 0)]
        self.places = self.places[: min(2, self.height * self.width)]

    def windows(self, left: int, gid: str, border: str) -> None:
        """Draw the grid under the windows, with ``border`` written into its padding."""
        rows, columns = self.rows, self.columns
        if rows.padding or columns.padding:
            self._grid(
                left - columns.padding, self.top, columns.size + 2 * columns.padding,
                self.bottom - self.top, linestyle=(0, (2, 2)), gid="padding",
            )  # fmt: skip
            self._fill_border(left, border)
        self._grid(left, 0, columns.size, rows.size, gid=gid)
        self._index(rows.size, columns.size, left, 0, (columns.padding, rows.padding))

        strips = [(left, row, columns.size, 1) for row in rows.never_read]
        strips += [(left + column, 0, 1, rows.size) for column in columns.never_read]
        for strip in strips:
            self._box(*strip, edgecolor=VERMILION, hatch="////", gid="never read")

        looks = [
            {"facecolor": BLUE, "alpha": 0.45},
            {"edgecolor": ORANGE, "hatch": _DOTS, "linewidth": 0},
        ]
        for place, colour, look in zip(self.places, (BLUE, ORANGE), looks, strict=False):
            for row in rows.under(place[0]):
                for column in columns.under(place[1]):
                    self._box(left + column, row, 1, 1, gid="read", **look)
            self._box(*self._window(place, left), edgecolor=colour, linewidth=2.5, gid="window")
        if self.height * self.width > 2:
            self._box(
                *self._window((self.height - 1, self.width - 1), left),
                edgecolor=BLACK, linewidth=1.5, linestyle="--", gid="last",
            )  # fmt: skip
        self._bars(left)

    def numbers(self, left: int, gid: str) -> None:
        """Draw the grid with one number for each position of the window."""
        top = self.numbers_top
        self._grid(left, top, self.width, self.height, gid=gid)
        self._index(self.height, self.width, left, top, (0, 0))
        looks = [
            {"facecolor": BLUE, "alpha": 0.7},
            {"edgecolor": ORANGE, "hatch": _DOTS, "linewidth": 2},
        ]
        for (row, column), look in zip(self.places, looks, strict=False):
            self._box(left + column, top + row, 1, 1, gid="result", **look)
        if self.height * self.width > 2:
            self._box(
                left + self.width - 1, top + self.height - 1, 1, 1,
                edgecolor=BLACK, linewidth=1.5, linestyle="--", gid="last result",
            )  # fmt: skip

    def arrow(self, start: float, end: float) -> None:
        """Draw an arrow between the grids, from one edge to the other."""
        arrow = {"arrowstyle": "-|>", "color": BLACK, "linewidth": 1.2}
        middle = self.rows.size / 2
        tip = end - 2 * self.aside - 0.1
        self.ax.annotate("", (tip, middle), (start + 0.4, middle), arrowprops=arrow)

    def finish(self, title: str) -> None:
        """Add the title and the legend."""
        rows, columns = self.rows, self.columns
        patch = require("matplotlib.patches", extra="plotting").Patch
        kernel = by(rows.kernel_size, columns.kernel_size)
        legend = [patch(facecolor=BLUE, alpha=0.6, label=f"first {kernel} window")]
        if len(self.places) > 1:
            right = self.places[1] == (0, 1)
            step = f"{columns.stride} to the right" if right else f"{rows.stride} down"
            legend.append(
                patch(facecolor="none", edgecolor=ORANGE, hatch=_DOTS, label=f"second, {step}")
            )
        if self.height * self.width > 2:
            legend.append(patch(facecolor="none", edgecolor=BLACK, linestyle="--", label="last"))
        if rows.never_read or columns.never_read:
            legend.append(
                patch(facecolor="none", edgecolor=VERMILION, hatch="////", label="never read")
            )
        self.ax.legend(
            handles=legend, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=len(legend),
            frameon=False, fontsize=10,
        )  # fmt: skip
        self.ax.set_title(title, color=BLACK, fontsize=11)

    def _window(self, place: tuple[int, int], left: int) -> tuple[int, int, int, int]:
        rows, columns = self.rows, self.columns
        return left + columns.starts[place[1]], rows.starts[place[0]], columns.span, rows.span

    def _bars(self, left: int) -> None:
        """Draw a bar under the grid for each window of a row, on as many lines as needed."""
        for place, start in enumerate(self.columns.starts):
            chosen = self.places.index((0, place)) if (0, place) in self.places else None
            colour = GREY if chosen is None else (BLUE, ORANGE)[chosen]
            y = self.bottom + 0.3 + (place % self.lanes) * _BAR
            width = self.columns.span
            self._box(left + start + 0.1, y, width - 0.2, _BAR - 0.15, facecolor=colour,
                      alpha=0.35, gid="bar")  # fmt: skip
            if self.legible:
                self._write(left + start + width / 2, y + (_BAR - 0.15) / 2, place, BLACK)

    def _index(
        self, height: int, width: int, left: int, top: int, padding: tuple[int, int]
    ) -> None:
        """Number the columns above the grid and the rows to its left."""
        for column in range(0, width, self.every):
            self._write(left + column + 0.5, top - padding[1] - self.aside, column, GREY)
        for row in range(0, height, self.every):
            self._write(left - padding[0] - self.aside, top + row + 0.5, row, GREY)

    def _fill_border(self, left: int, border: str) -> None:
        if not (border and self.legible):
            return
        for row in range(self.top, self.bottom):
            for column in range(-self.columns.padding, self.columns.size + self.columns.padding):
                if not (0 <= row < self.rows.size and 0 <= column < self.columns.size):
                    self._write(left + column + 0.5, row + 0.5, border, GREY)

    def _write(self, x: float, y: float, text: object, color: str) -> None:
        self.ax.text(x, y, str(text), ha="center", va="center", fontsize=8, color=color)

    def _box(self, left: float, top: float, width: float, height: float, **look: object) -> None:
        rectangle = require("matplotlib.patches", extra="plotting").Rectangle
        self.ax.add_patch(rectangle((left, top), width, height, **{"facecolor": "none", **look}))

    def _grid(self, left: int, top: int, width: int, height: int, **look: object) -> None:
        collection = require("matplotlib.collections", extra="plotting").LineCollection
        across = [[(left, y), (left + width, y)] for y in range(top, top + height + 1)]
        down = [[(x, top), (x, top + height)] for x in range(left, left + width + 1)]
        self.ax.add_collection(collection(across + down, linewidths=0.7, color=GREY, **look))
