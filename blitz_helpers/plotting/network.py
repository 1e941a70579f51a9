"""Draws the architecture of a network from the shapes of a traced forward pass."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from blitz_helpers._extras import require
from blitz_helpers.plotting._canvas import BLACK, BLUE, GREEN, GREY, ORANGE, canvas, describe
from blitz_helpers.plotting._settings import same_for_all

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from blitz_helpers.trace import ShapeStep, ShapeTrace

_RESHAPES = {"flatten", "reshape", "squeeze", "unflatten", "view"}

# Lengths in inches.
_LONGEST_SIDE = 1.1  # of the largest feature map; the others are drawn to the same scale
_STRIP = 0.07  # height of a one-dimensional map
_SHIFT = 0.03  # between the maps of a stack, to the right and up
_UNIT, _PITCH = 0.07, 0.09  # diameter of a unit, distance between units
_MAPS, _UNITS = 16, 10  # up to these counts, every one is drawn
_GAP = 0.3  # smallest gap between two stages
_FONT_SIZE, _LINE, _SPACE = 8.5, 0.15, 0.18  # in points; height of a line, gap to the drawing


@same_for_all
def plot_network(trace: ShapeTrace, ax: Axes | None = None) -> Axes:
    """Draw the architecture that a forward pass went through, from left to right.

    ``trace`` comes from `trace_shapes`. The output of a convolution or pooling is a stack of
    feature maps, drawn to scale and labelled ``channels@height x width``; the output of a linear
    layer is a column of units. A long stack or column is shortened, and its label gives the count.
    The names of the steps stand below. The batch dimension is left out.

    Raises:
        ValueError: the model is not a single chain of convolution, pooling, reshaping, linear and
            elementwise steps.

    >>> from blitz_helpers import Network, trace_shapes
    >>> ax = plot_network(trace_shapes(Network(), (1, 1, 32, 32)))
    >>> [text.get_text() for text in ax.texts if "@" in text.get_text()][:2]
    ['1@32x32', '6@30x30']
    """
    stages = _stages(trace)
    drawings = _lay_out(stages)
    first, last = drawings[0], drawings[-1]
    left = min(first.x, first.middle - _width_of(first.stage.label) / 2)
    right = max(last.right, last.middle + _width_of(last.stage.label) / 2)
    floor = -max(drawing.height for drawing in drawings) / 2
    low = floor - _LINE * (1 + max(len(stage.names) for stage in stages))
    high = max(drawing.height for drawing in drawings) / 2 + 1.5 * _LINE

    ax = canvas(ax, right - left, high - low)
    margin = _UNIT / 2  # room for half of a line's width
    ax.set(xlim=(left - margin, right + margin), ylim=(low, high), aspect="equal")
    ax.axis("off")
    for before, after in pairwise(drawings):
        _connect(ax, before, after)
        middle = (before.right + after.x) / 2
        ax.plot([middle, middle], [floor - 0.4 * _LINE, _under(before, after)], color=GREY, lw=0.5)
        for line, name in enumerate(after.stage.names, start=1):
            ax.text(
                middle,
                floor - line * _LINE,
                name,
                size=_FONT_SIZE,
                color=BLACK if line == 1 else GREY,
                weight="bold" if line == 1 else "normal",
                ha="center",
                va="center",
            )
    for drawing in drawings:
        (_draw_maps if drawing.stage.has_maps else _draw_column)(ax, drawing)
        ax.text(
            drawing.middle,
            drawing.height / 2 + 0.6 * _LINE,
            drawing.stage.label,
            size=_FONT_SIZE,
            color=BLACK,
            ha="center",
            va="center",
        )
    return describe(ax, _in_words(stages))


@dataclass(frozen=True)
class _Stage:
    """The output of a step for one sample, and the names of the steps that led to it."""

    shape: tuple[int, ...]
    colour: str
    names: tuple[str, ...] = ()

    @property
    def has_maps(self) -> bool:
        return len(self.shape) > 1

    @property
    def shown(self) -> int:
        """The number of maps or units drawn: all if there are few, a shrinking share of many."""
        all_of = _MAPS if self.has_maps else _UNITS
        more = max(0.0, math.log2(self.shape[0] / all_of))
        return min(self.shape[0], all_of + round(2 * more))

    @property
    def label(self) -> str:
        count, *size = self.shape
        return f"{count}@{'x'.join(map(str, size))}" if size else str(count)


def _in_words(stages: Sequence[_Stage]) -> str:
    first, *others = (f"{stage.label.replace('@', ' of ')}" for stage in stages)
    ways = (" and ".join(stage.names) for stage in stages[1:])
    chain = "; ".join(f"{way}: {size}" for way, size in zip(ways, others, strict=True))
    return f"A network from left to right. Input: {first}; {chain}."


def _stages(trace: ShapeTrace) -> list[_Stage]:
    """Return the input, and the output of each step that is not merely elementwise."""
    batch_ndim = _batch_ndim(trace)
    shape = trace[0].input_shapes[0] if trace[0].input_shapes else ()
    stages = [_Stage(shape[batch_ndim:], GREY)]
    early: tuple[str, ...] = ()  # elementwise steps on the input itself
    for step in trace:
        _check_link(step, shape, batch_ndim)
        before, shape = shape, step.output_shape
        colour = _colour(step.op)
        if colour is None and shape == before:
            if len(stages) == 1:
                early += (step.op,)
            else:
                stages[-1] = replace(stages[-1], names=(*stages[-1].names, step.op))
            continue
        if colour is None and step.op not in _RESHAPES:
            raise ValueError(
                f"{_where(step)} makes {shape} of {before}, which plot_network cannot draw: it "
                "draws convolution, pooling, reshaping and linear steps, and elementwise ones."
            )
        name = step.module if _has_own_name(step) else step.op
        # The output of a reshape keeps the colour of the layer that computed its numbers.
        stage = _Stage(shape[batch_ndim:] or (1,), colour or stages[-1].colour, (*early, name))
        stages.append(stage)
        early = ()
    if trace.output_shape != shape:
        raise ValueError(
            f"The model returns {trace.output_shape}, and its last step gave {shape}. plot_network "
            "draws a chain, which ends in what the model returns; trace and draw its parts."
        )
    return stages


def _batch_ndim(trace: ShapeTrace) -> int:
    """Return the number of leading batch dimensions: 1, or 0 for a single sample."""
    for step in trace:
        ndim = _sample_ndim(step.op)
        if ndim is not None and step.input_shapes:
            return len(step.input_shapes[0]) - ndim
    raise ValueError(
        "The trace has no convolution, pooling or linear step, so there is no architecture to "
        "draw. Trace a model that has one."
    )


def _sample_ndim(op: str) -> int | None:
    """Return the number of dimensions of a sample that ``op`` takes.

    >>> _sample_ndim("max_pool2d"), _sample_ndim("linear"), _sample_ndim("relu")
    (3, 1, None)
    """
    if op == "linear":
        return 1
    windowed = re.fullmatch(r"(?:conv|conv_transpose|\w*_pool)([123])d", op)
    return int(windowed[1]) + 1 if windowed else None


def _colour(op: str) -> str | None:
    if _sample_ndim(op) is None:
        return None
    return GREEN if op == "linear" else ORANGE if "pool" in op else BLUE


def _has_own_name(step: ShapeStep) -> bool:
    """Return whether the step is a layer with a name, not just a number in a list."""
    is_layer = _colour(step.op) in (BLUE, GREEN)
    return is_layer and step.module != "" and not step.module.rpartition(".")[2].isdigit()


def _where(step: ShapeStep) -> str:
    return f"{step.op} in {step.module}" if step.module else step.op


def _check_link(step: ShapeStep, shape: tuple[int, ...], batch_ndim: int) -> None:
    """Raise a ValueError unless ``step`` takes ``shape`` and continues a single chain."""
    if tuple(step.input_shapes) != (shape,):
        taken = " and ".join(map(str, step.input_shapes)) or "no tensor"
        raise ValueError(
            f"{_where(step)} takes {taken}. In a chain it would take {shape}, which the step "
            "before it gave, and nothing else. plot_network draws a chain, without branches or "
            "states; trace and draw the branches one by one."
        )
    after = step.output_shape
    if not (isinstance(after, tuple) and all(isinstance(size, int) for size in after)):
        raise ValueError(
            f"{_where(step)} gives {after}, and plot_network draws steps that give one tensor."
        )
    ndim = _sample_ndim(step.op)
    if batch_ndim not in (0, 1) or ndim not in (None, len(shape) - batch_ndim):
        raise ValueError(
            f"{_where(step)} takes {shape}, which has more sizes than one sample and its batch. "
            "plot_network draws convolution and pooling on maps, and linear steps on (N, features)."
        )
    if after[:batch_ndim] != shape[:batch_ndim]:
        raise ValueError(
            f"{_where(step)} makes {after} of {shape}: the first size is the batch, and no step "
            "of a chain changes it. torch.flatten(x, 1) keeps it."
        )


@dataclass(frozen=True)
class _Drawing:
    """A stage and its position: ``x`` is its left edge; it is centred vertically on 0."""

    stage: _Stage
    x: float
    front: tuple[float, float]  # width and height of the first map, or of the column
    depth: float  # shift of the last map, to the right and up

    @property
    def right(self) -> float:
        return self.x + self.front[0] + self.depth

    @property
    def height(self) -> float:
        return self.front[1] + self.depth

    @property
    def middle(self) -> float:
        return (self.x + self.right) / 2

    @property
    def floor(self) -> float:
        return -self.height / 2


def _width_of(text: str) -> float:
    font = require("matplotlib.font_manager", extra="plotting").FontProperties(
        size=_FONT_SIZE, weight="bold"
    )
    measure = require("matplotlib.textpath", extra="plotting").text_to_path
    points, _, _ = measure.get_text_width_height_descent(text, font, ismath=False)
    return float(points) / 72


def _lay_out(stages: Sequence[_Stage]) -> list[_Drawing]:
    """Place the stages from left to right, with room for their labels and names."""
    sides = [side for stage in stages if stage.has_maps for side in stage.shape[1:][-2:]]
    scale = _LONGEST_SIDE / max(sides, default=1)
    drawings: list[_Drawing] = []
    names_end = label_end = -math.inf
    for stage in stages:
        if not stage.has_maps:
            front, depth = (_UNIT, stage.shown * _PITCH), 0.0
        else:
            height = stage.shape[-2] * scale if len(stage.shape) > 2 else _STRIP
            front, depth = (stage.shape[-1] * scale, height), (stage.shown - 1) * _SHIFT
        here = _Drawing(stage, 0.0, front, depth)
        if drawings:
            right = drawings[-1].right
            names = max(map(_width_of, stage.names))
            # The names stand in the middle of the gap: x = 2 * middle - right.
            x = max(
                right + _GAP,
                2 * (names_end + names / 2) - right,
                label_end + _width_of(stage.label) / 2 - here.middle,
            )
            here = replace(here, x=x)
            names_end = (right + x + names) / 2 + _SPACE
        label_end = here.middle + _width_of(stage.label) / 2 + _SPACE
        drawings.append(here)
    return drawings


def _tint(colour: str, strength: float) -> tuple[float, float, float]:
    """Return the colour blended with white at this opacity."""
    rgb = require("matplotlib.colors", extra="plotting").to_rgb(colour)
    red, green, blue = (1 - strength * (1 - part) for part in rgb)
    return red, green, blue


def _draw_maps(ax: Axes, drawing: _Drawing) -> None:
    patches = require("matplotlib.patches", extra="plotting")
    for back in reversed(range(drawing.stage.shown)):
        corner = (drawing.x + back * _SHIFT, drawing.floor + back * _SHIFT)
        ax.add_artist(
            patches.Rectangle(
                corner,
                *drawing.front,
                facecolor=_tint(drawing.stage.colour, 0.22),
                edgecolor=_tint(drawing.stage.colour, 1.0),
                linewidth=0.7,
            )
        )


def _unit_heights(drawing: _Drawing) -> list[float]:
    """Return the heights of the units in a column, with a gap in the middle if it is shortened."""
    count = drawing.stage.shown
    heights = [drawing.floor + (place + 0.5) * _PITCH for place in range(count)]
    if count == drawing.stage.shape[0]:
        return heights
    return heights[: count // 2 - 1] + heights[(count + 1) // 2 + 1 :]


def _draw_column(ax: Axes, drawing: _Drawing) -> None:
    patches = require("matplotlib.patches", extra="plotting")
    for height in _unit_heights(drawing):
        ax.add_artist(
            patches.Circle(
                (drawing.middle, height),
                _UNIT / 2,
                facecolor=_tint(drawing.stage.colour, 0.35),
                edgecolor=drawing.stage.colour,
                linewidth=0.7,
            )
        )
    if drawing.stage.shown < drawing.stage.shape[0]:
        for dot in (-1, 0, 1):
            ax.add_artist(patches.Circle((drawing.middle, dot * _PITCH * 0.4), 0.012, color=GREY))


def _under(before: _Drawing, after: _Drawing) -> float:
    """Return how low the connection of the two reaches, halfway between them."""
    return (before.floor + before.depth + after.floor) / 2


def _connect(ax: Axes, before: _Drawing, after: _Drawing) -> None:
    """Connect two stages: every unit to every unit, or only the outlines."""
    patches = require("matplotlib.patches", extra="plotting")
    if not before.stage.has_maps and not after.stage.has_maps:
        path = require("matplotlib.path", extra="plotting").Path
        ends = [
            end
            for start in _unit_heights(before)
            for stop in _unit_heights(after)
            for end in [(before.middle, start), (after.middle, stop)]
        ]
        # One path for all lines, so that crossings do not add up to a dark blot.
        codes = [path.MOVETO, path.LINETO] * (len(ends) // 2)
        ax.add_artist(
            patches.PathPatch(
                path(ends, codes), fill=False, edgecolor=_tint(GREY, 0.35), linewidth=0.25, zorder=0
            )
        )
        return
    outline = [
        (before.right, before.floor + before.depth),
        (before.right, before.floor + before.height),
        (after.x, after.floor + after.front[1]),
        (after.x, after.floor),
    ]
    ax.add_artist(patches.Polygon(outline, facecolor=_tint(GREY, 0.15), edgecolor="none", zorder=0))
