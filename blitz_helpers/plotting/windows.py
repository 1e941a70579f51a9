"""Draws the windows of convolutions, poolings and transposed convolutions on a grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blitz_helpers.plotting._canvas import describe
from blitz_helpers.plotting._grids import Side, Sketch
from blitz_helpers.plotting._settings import same_for_all
from blitz_helpers.plotting._words import by, counted, listed, minus

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LISTED = 8  # up to this many positions are listed in the alt text


@same_for_all
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
        ImportError: matplotlib is not installed.

    >>> plot_window(13, kernel_size=2, stride=2).get_title()
    '13x13 to 6x6'
    """
    rows, columns = _sides(
        size=size, kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation
    )
    for side in (rows, columns):
        if not side.starts:
            raise ValueError(
                f"kernel_size={side.kernel_size} with dilation={side.dilation} does not fit an "
                f"input of {side.size} with padding={side.padding}: use a larger size or padding."
            )
    sketch = Sketch(ax, rows, columns, left=-columns.padding)
    out_left = columns.size + columns.padding + sketch.gap
    sketch.windows(left=0, gid="input", border="0")
    sketch.numbers(left=out_left, gid="output")
    sketch.arrow(columns.size + columns.padding, out_left)
    given, out = by(rows.size, columns.size), by(len(rows.starts), len(columns.starts))
    sketch.finish(f"{given} to {out}")

    padded = " with a border of zeros" if rows.padding or columns.padding else ""
    words = (
        f"A {by(rows.kernel_size, columns.kernel_size)} window on a {given} grid{padded}. "
        f"Its left edge can stand on column {_places(columns)}, and the output is {out}."
    )
    unread = {"row": rows.never_read, "column": columns.never_read}
    hatched = [counted(len(lines), name) for name, lines in unread.items() if lines]
    if hatched:
        words += f" Hatched, since no window reads it: {listed(hatched)}."
    return describe(sketch.ax, words)


@same_for_all
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
        ImportError: matplotlib is not installed.

    Source: the formula under "Shape" of :class:`torch.nn.ConvTranspose2d`.

    >>> plot_transposed_window(3, kernel_size=4, stride=2, padding=1).get_title()
    '3x3 to 6x6'
    """
    inputs = _sides(
        size=size, kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation
    )
    rows, columns = (
        side._replace(size=(side.size - 1) * side.stride + side.span - 2 * side.padding)
        for side in inputs
    )
    if rows.size < 1 or columns.size < 1:
        raise ValueError(
            f"padding={padding} cuts off all that the windows lay down: use a smaller padding."
        )
    sketch = Sketch(ax, rows, columns, left=0)
    out_left = inputs[1].size + sketch.gap + columns.padding
    sketch.numbers(left=0, gid="input")
    sketch.windows(left=out_left, gid="output", border="")
    sketch.arrow(inputs[1].size, out_left - columns.padding)
    given, out = by(inputs[0].size, inputs[1].size), by(rows.size, columns.size)
    sketch.finish(f"{given} to {out}")

    cut = " The dashed border is cut off." if rows.padding or columns.padding else ""
    words = (
        f"Each number of a {given} grid lays a {by(rows.kernel_size, columns.kernel_size)} "
        f"window down on a {out} grid, its left edge on column {_places(columns)}.{cut}"
    )
    return describe(sketch.ax, words)


def _sides(**settings: int | tuple[int, int]) -> tuple[Side, Side]:
    """Return the settings of the rows and of the columns, or raise a ValueError."""
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
    rows, columns = (Side(*side) for side in zip(*pairs.values(), strict=True))
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
