"""A window to move over a grid, as convolution, pooling and transposed convolution do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from operator import index

import torch
import torch.nn.functional as F
from torch import Tensor

from blitz_helpers.explorers._explorer import Explorer
from blitz_helpers.plotting._canvas import Picture, show
from blitz_helpers.plotting._words import by, minus
from blitz_helpers.plotting.windows import Side, plot_transposed_window, plot_window
from blitz_helpers.shapes import conv_arithmetic, conv_transpose_arithmetic, pool_arithmetic

OPS = {
    "conv2d": "convolution",
    "max_pool2d": "max pooling",
    "conv_transpose2d": "transposed convolution",
}
_ARITHMETIC: dict[str, Callable[..., str]] = {
    "conv2d": conv_arithmetic,
    "max_pool2d": pool_arithmetic,
    "conv_transpose2d": conv_transpose_arithmetic,
}
LIMITS = {
    "size": (1, 12),
    "kernel_size": (1, 7),
    "stride": (1, 5),
    "padding": (0, 5),
    "dilation": (1, 4),
}
_LARGEST = LIMITS["size"][1], LIMITS["kernel_size"][1]
_WRITTEN_OUT = 9  # terms of a sum


@dataclass(frozen=True)
class WindowState:
    """The operation, its settings in both directions, and the position of the window.

    ``row`` and ``column`` are a place in the output, or in the input of a transposed convolution.
    A place past the end stands for the last one.

    Raises:
        ValueError: an unknown operation, or a number out of its range.

    >>> WindowState(stride=2).stride
    2
    """

    op: str = "conv2d"
    size: int = 6
    kernel_size: int = 3
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    row: int = 0
    column: int = 0

    def __post_init__(self) -> None:
        if self.op not in OPS:
            raise ValueError(f"op={self.op!r} is unknown: use {', '.join(map(repr, OPS))}.")
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            low, high = LIMITS.get(field.name, (0, 10_000))
            try:
                fits = not isinstance(value, bool) and low <= index(value) <= high
            except TypeError:
                fits = False
            if not fits:
                raise ValueError(
                    f"{field.name}={value!r} cannot be drawn here: "
                    f"use a whole number from {low} to {high}."
                )


@dataclass(frozen=True)
class Grid:
    """A square of numbers as it is drawn, with rows and columns counted from its border."""

    title: str
    values: tuple[tuple[str, ...], ...]  # row by row; "" is an empty cell
    border: int = 0  # how many cells of padding there are on each side
    cells: tuple[int, ...] = ()  # the marked rows and columns, counted from the corner `at`
    span: int = 1  # the rows and columns that the window covers
    at: tuple[int, int] | None = None  # the row and column of the window's corner
    places: tuple[int, ...] = ()  # the rows and columns where the corner can stand
    unread: tuple[int, ...] = ()  # the rows and columns that no window covers


@dataclass(frozen=True)
class WindowView:
    """Everything drawn for a state."""

    state: WindowState
    problem: str  # why the window does not fit; "" if it fits
    sum: str  # the size of the output, written out
    told: str  # what happens at this place, in words
    left: Grid
    kernel: Grid | None
    right: Grid | None
    ops: dict[str, str]
    limits: dict[str, tuple[int, int]]


def explore_window(
    op: str = "conv2d",
    size: int = 6,
    kernel_size: int = 3,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> Explorer[WindowState]:
    """Return a window to move over a grid of numbers, and settings to change.

    The arguments are the first state. Leave it on the last line of a cell.

    Args:
        op: ``"conv2d"``, ``"max_pool2d"`` or ``"conv_transpose2d"``.
        size: rows and columns of the input, up to 12.
        kernel_size: rows and columns of the window, up to 7.
        stride: how far it moves, up to 5.
        padding: cells added on each side, or cut off by a transposed convolution; up to 5.
        dilation: from one cell of the window to the next, up to 4.

    Raises:
        ValueError: a number is out of its range, or ``op`` is unknown.
        ImportError: anywidget is not installed.

    >>> explore_window(stride=2).state.stride
    2
    """
    start = WindowState(op, size, kernel_size, stride, padding, dilation)
    return Explorer(start, window_view, window_picture, "window.js")


def window_view(state: WindowState) -> WindowView:
    """Return everything drawn for a state; every number comes from ``shapes`` or torch.

    >>> window_view(WindowState(stride=2)).sum
    'floor((6 - 3 + 2*0)/2) + 1 = 2'
    """
    problem, written = "", ""
    settings = (state.size, state.kernel_size, state.stride, state.padding)
    try:
        written = _ARITHMETIC[state.op](*settings, dilation=state.dilation)
    except ValueError as error:
        problem = str(error)
    kernel = None
    if state.op != "max_pool2d":
        kernel = Grid(_named("kernel", state.kernel_size), _texts(_weights(state)))
    told, left, right = "", _input_grid(state), None
    if not problem:
        last = int(written.rpartition("=")[2]) if state.op != "conv_transpose2d" else state.size
        state = replace(state, row=min(state.row, last - 1), column=min(state.column, last - 1))
        draw = _laid_down if state.op == "conv_transpose2d" else _read
        told, left, right = draw(state)
    return WindowView(state, problem, written, told, left, kernel, right, OPS, LIMITS)


def window_picture(state: WindowState) -> Picture:
    """Return a still picture of a state; if the window does not fit, of the input alone."""
    problem = window_view(state).problem
    if problem:
        alt = f"It does not fit: {' '.join(problem.split())}"
        return show(plot_window(state.size, 1), alt=alt)
    plot = plot_transposed_window if state.op == "conv_transpose2d" else plot_window
    return show(plot(state.size, state.kernel_size, state.stride, state.padding, state.dilation))


def _numbers(state: WindowState) -> Tensor:
    """Return the input; a larger one continues the numbers of a smaller one."""
    drawn = torch.randint(0, 10, (_LARGEST[0],) * 2, generator=torch.Generator().manual_seed(1))
    return drawn[: state.size, : state.size].double()


def _weights(state: WindowState) -> Tensor:
    drawn = torch.randint(-1, 3, (_LARGEST[1],) * 2, generator=torch.Generator().manual_seed(3))
    return drawn[: state.kernel_size, : state.kernel_size].double()


def _input_grid(state: WindowState) -> Grid:
    """Return the input, with a border of padding if the operation adds one."""
    numbers, border = _numbers(state), state.padding
    if state.op == "conv_transpose2d":
        return Grid(_named("input", state.size), _texts(numbers))
    filling = 0.0 if state.op == "conv2d" else -torch.inf
    return Grid(
        _named("input", state.size), _texts(F.pad(numbers, (border,) * 4, value=filling)), border
    )


def _read(state: WindowState) -> tuple[str, Grid, Grid]:
    """Return the words, input and output of an operation whose window reads the input."""
    side = Side(state.size, state.kernel_size, state.stride, state.padding, state.dilation)
    row, column, border = state.row, state.column, state.padding
    numbers = _numbers(state)
    image, settings = numbers[None, None], (state.stride, border, state.dilation)
    if state.op == "conv2d":
        output = F.conv2d(image, _weights(state)[None, None], None, *settings)[0, 0]
    else:
        output = F.max_pool2d(image, state.kernel_size, *settings)[0, 0]
    starts = tuple(start + border for start in side.starts)
    grid = _input_grid(state)
    left = replace(
        grid,
        cells=tuple(range(0, side.span, state.dilation)),
        span=side.span,
        at=(starts[row], starts[column]),
        places=starts,
        unread=tuple(line + border for line in side.never_read),
    )
    lines = [[grid.values[r + starts[row]][c + starts[column]] for c in left.cells]
             for r in left.cells]  # fmt: skip
    told = f"Row {row}, column {column} of the output: {_told(state, lines)}"
    result = _text(output[row, column])
    done = torch.arange(output.numel()).view_as(output) <= row * len(output) + column
    right = Grid(
        _named("output", len(output)),
        _texts(output, done),
        cells=(0,),
        at=(row, column),
        places=tuple(range(len(output))),
    )
    return f"{told} {result}", left, right


def _told(state: WindowState, lines: list[list[str]]) -> str:
    """Say what the operation does with the numbers under the window, without the result."""
    under = [text for line in lines for text in line]
    if state.op == "max_pool2d":
        if len(under) > _WRITTEN_OUT:
            return f"the largest of the {len(under)} numbers under the window is"
        return f"the largest of {', '.join(under)} is"
    if len(under) > _WRITTEN_OUT:
        return f"{len(under)} numbers, each times its weight, add up to"
    weights = [text for line in _texts(_weights(state)) for text in line]
    terms = [
        f"{a}*{w}" if w.isdigit() else f"{a}*({w})" for a, w in zip(under, weights, strict=True)
    ]
    return f"{' + '.join(terms)} ="


def _laid_down(state: WindowState) -> tuple[str, Grid, Grid]:
    """Return the words, input and output of an operation whose window writes to the output."""
    row, column = state.row, state.column
    numbers = _numbers(state)
    done = torch.arange(numbers.numel()).view_as(numbers) <= row * state.size + column
    weights = _weights(state)
    so_far = _spread(numbers * done, weights, state)
    touched = _spread(done.double(), torch.ones_like(weights), state) > 0
    side = Side(len(so_far), state.kernel_size, state.stride, 0, state.dilation)
    left = replace(
        _input_grid(state), cells=(0,), at=(row, column), places=tuple(range(state.size))
    )
    right = Grid(
        _named("output", len(so_far) - 2 * state.padding),
        _texts(so_far, touched),
        border=state.padding,
        cells=tuple(range(0, side.span, state.dilation)),
        span=side.span,
        at=(side.starts[row], side.starts[column]),
        places=tuple(side.starts),
    )
    cut = " The dashed border is cut off." if state.padding else ""
    count = by(state.kernel_size, state.kernel_size)
    told = (
        f"Row {row}, column {column} of the input: {_text(numbers[row, column])} times each of the "
        f"{count} weights, added to what stands there.{cut}"
    )
    return told, left, right


def _spread(numbers: Tensor, weights: Tensor, state: WindowState) -> Tensor:
    """Return the transposed convolution without padding, which would cut a border off."""
    return F.conv_transpose2d(
        numbers[None, None], weights[None, None], stride=state.stride, dilation=state.dilation
    )[0, 0]


def _named(name: str, side: int) -> str:
    return f"{name}, {by(side, side)}"


def _text(number: Tensor) -> str:
    text = f"{number.item() + 0.0:.0f}"  # + 0.0 turns -0.0 into 0.0
    return minus(text).replace("inf", "\N{INFINITY}")


def _texts(numbers: Tensor, there: Tensor | None = None) -> tuple[tuple[str, ...], ...]:
    """Return numbers as text, row by row, and an empty text where ``there`` is false."""
    if there is None:
        there = torch.ones_like(numbers, dtype=torch.bool)
    return tuple(
        tuple(_text(number) if shown else "" for number, shown in zip(*rows, strict=True))
        for rows in zip(numbers, there, strict=True)
    )
