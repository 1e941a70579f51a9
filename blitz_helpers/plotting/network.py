"""Draws the architecture of a network from the shapes of a traced forward pass."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from blitz_helpers._extras import require
from blitz_helpers.plotting._axes import add_box
from blitz_helpers.plotting._canvas import canvas, describe
from blitz_helpers.plotting._checks import require_record
from blitz_helpers.plotting._colours import BLACK, BLUE, GREEN, GREY, ORANGE
from blitz_helpers.plotting._settings import default_style
from blitz_helpers.plotting._words import as_written

if TYPE_CHECKING:
    from collections.abc import Sequence

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
_FONT_SIZE, _LINE, _SPACE = 8.5, 0.15, 0.18  # in points; height of a line, space between words


@default_style()
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
    require_record(trace, "trace", "ShapeTrace", "trace_shapes(model, (1, 1, 32, 32))")
    stages = _stages(trace)
    _lay_out(stages)
    texts = [(stage.middle, _width_of(stage.label)) for stage in stages]
    for before, after in pairwise(stages):
        texts.append(((before.right + after.x) / 2, max(map(_width_of, after.names))))
    left = min(stages[0].x, *(middle - width / 2 for middle, width in texts))
    right = max(stages[-1].right, *(middle + width / 2 for middle, width in texts))
    top = max(stage.height for stage in stages) / 2
    lines_below = 1 + max(len(stage.names) for stage in stages)

    ax = canvas(ax, right - left, 2 * top + (lines_below + 1.5) * _LINE)
    margin = _UNIT / 2  # room for half of a line's width
    ax.set(xlim=(left - margin, right + margin), aspect="equal")
    ax.set(ylim=(-top - lines_below * _LINE, top + 1.5 * _LINE))
    ax.axis("off")
    text = {"size": _FONT_SIZE, "ha": "center", "va": "center"}
    for before, after in pairwise(stages):
        _connect(ax, before, after)
        middle = (before.right + after.x) / 2
        connection = (before.bottom + before.depth + after.bottom) / 2  # its lower edge at `middle`
        ax.plot([middle, middle], [-top - 0.4 * _LINE, connection], color=GREY, linewidth=0.5)
        for line, name in enumerate(after.names, start=1):
            look = {"color": BLACK, "weight": "bold"} if line == 1 else {"color": GREY}
            ax.text(middle, -top - line * _LINE, as_written(name), {**text, **look})
    for stage in stages:
        (_draw_maps if stage.has_maps else _draw_column)(ax, stage)
        above = stage.height / 2 + 0.6 * _LINE
        ax.text(stage.middle, above, stage.label, {**text, "color": BLACK})
    return describe(ax, _words(stages))


@dataclass
class _Stage:
    """The output of a step for one sample, and its drawing, centred on a height of 0."""

    shape: tuple[int, ...]
    colour: str
    names: list[str]  # of the steps that led to it
    # Set by `_lay_out`: the left edge; the size of the whole drawing; the part of the size by
    # which the last map is shifted to the right and up.
    x: float = 0.0
    width: float = 0.0
    height: float = 0.0
    depth: float = 0.0

    @property
    def has_maps(self) -> bool:
        return len(self.shape) > 1

    @property
    def shown(self) -> int:
        """The number of maps or units drawn: all if there are few, a shrinking share of many."""
        all_of = _MAPS if self.has_maps else _UNITS
        more = math.log2(max(self.shape[0], all_of) / all_of)
        return min(self.shape[0], all_of + round(2 * more))

    @property
    def label(self) -> str:
        count, *size = self.shape
        return f"{count}@{'x'.join(map(str, size))}" if size else str(count)

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def middle(self) -> float:
        return self.x + self.width / 2

    @property
    def bottom(self) -> float:
        return -self.height / 2


def _words(stages: Sequence[_Stage]) -> str:
    first, *others = (stage.label.replace("@", " of ") for stage in stages)
    names = (" and ".join(stage.names) for stage in stages[1:])
    chain = "; ".join(f"{name}: {size}" for name, size in zip(names, others, strict=True))
    return f"A network from left to right. Input: {first}; {chain}."


def _stages(trace: ShapeTrace) -> list[_Stage]:
    """Return the input, and the output of each step that is not merely elementwise."""
    batch_ndim = _batch_ndim(trace)
    shape = trace[0].input_shapes[0] if trace[0].input_shapes else ()
    stages = [_Stage(shape[batch_ndim:], GREY, [])]
    for number, step in enumerate(trace):
        _check_link(step, number - 1, shape, batch_ndim)
        before, shape = shape, step.output_shape
        colour = _colour(step.op)
        if colour is None and shape == before:
            stages[-1].names.append(step.op)
            continue
        if colour is None and step.op not in _RESHAPES:
            raise ValueError(
                f"{_where(step)} makes {shape} of {before}, which plot_network cannot draw: it "
                "draws convolution, pooling, reshaping and linear steps, and elementwise ones."
            )
        name = step.module if _has_own_name(step) else step.op
        # The output of a reshape keeps the colour of the layer that computed its numbers.
        stages.append(_Stage(shape[batch_ndim:] or (1,), colour or stages[-1].colour, [name]))
    if trace.output_shape != shape:
        raise ValueError(
            f"The model returns {trace.output_shape}, and its last step gave {shape}. plot_network "
            "draws a chain, which ends in what the model returns; trace and draw its parts."
        )
    # Elementwise steps on the input itself are named before the first layer.
    stages[1].names[:0] = stages[0].names
    stages[0].names = []
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


def _check_link(step: ShapeStep, last: int, shape: tuple[int, ...], batch_ndim: int) -> None:
    """Raise a ValueError unless ``step`` takes ``shape`` from step ``last``, and only that."""
    if step.inputs != (last,) or tuple(step.input_shapes) != (shape,):
        taken = " and ".join(map(str, step.input_shapes)) or "no tensor"
        raise ValueError(
            f"{_where(step)} takes {taken}. In a chain it would take the output of the step "
            f"before it, {shape}, and nothing else. plot_network draws a chain, without branches "
            "or states; trace and draw the branches one by one."
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


def _width_of(text: str) -> float:
    font = require("matplotlib.font_manager", extra="plotting").FontProperties(
        size=_FONT_SIZE, weight="bold"
    )
    measure = require("matplotlib.textpath", extra="plotting").text_to_path
    points, _, _ = measure.get_text_width_height_descent(text, font, ismath=False)
    return float(points) / 72


def _lay_out(stages: Sequence[_Stage]) -> None:
    """Place the stages from left to right, with room for their labels and names."""
    longest = max((max(stage.shape[1:][-2:]) for stage in stages if stage.has_maps), default=1)
    for stage in stages:
        stage.width, stage.height = _UNIT, stage.shown * _PITCH
        if stage.has_maps:
            width, *height = (_LONGEST_SIDE / longest * side for side in stage.shape[:0:-1])
            stage.depth = (stage.shown - 1) * _SHIFT
            stage.width = width + stage.depth
            stage.height = (height[0] if height else _STRIP) + stage.depth
    names_end = -math.inf
    for before, stage in pairwise(stages):
        labels = (_width_of(before.label) + _width_of(stage.label)) / 2 + _SPACE
        names = max(map(_width_of, stage.names))
        # The names stand in the middle of the gap.
        gap = max(_GAP, 2 * (names_end + names / 2 - before.right))
        stage.x = max(before.right + gap, before.middle + labels - stage.width / 2)
        names_end = (before.right + stage.x + names) / 2 + _SPACE


def _tint(colour: str, strength: float) -> tuple[float, float, float]:
    """Return the colour blended with white at this opacity."""
    rgb = require("matplotlib.colors", extra="plotting").to_rgb(colour)
    red, green, blue = (1 - strength * (1 - part) for part in rgb)
    return red, green, blue


def _draw_maps(ax: Axes, stage: _Stage) -> None:
    look = {"facecolor": _tint(stage.colour, 0.22), "edgecolor": stage.colour, "linewidth": 0.7}
    width, height = stage.width - stage.depth, stage.height - stage.depth
    for back in reversed(range(stage.shown)):
        corner = (stage.x + back * _SHIFT, stage.bottom + back * _SHIFT)
        add_box(ax, corner, width, height, **look)


def _unit_heights(stage: _Stage) -> list[float]:
    """Return the heights of the units in a column, with a gap in the middle if it is shortened."""
    count = stage.shown
    heights = [stage.bottom + (place + 0.5) * _PITCH for place in range(count)]
    if count == stage.shape[0]:
        return heights
    return heights[: count // 2 - 1] + heights[(count + 1) // 2 + 1 :]


def _draw_column(ax: Axes, stage: _Stage) -> None:
    circle = require("matplotlib.patches", extra="plotting").Circle
    look = {"facecolor": _tint(stage.colour, 0.35), "edgecolor": stage.colour, "linewidth": 0.7}
    for height in _unit_heights(stage):
        ax.add_artist(circle((stage.middle, height), _UNIT / 2, **look))
    if stage.shown < stage.shape[0]:
        for dot in (-1, 0, 1):
            ax.add_artist(circle((stage.middle, dot * _PITCH * 0.4), 0.012, color=GREY))


def _connect(ax: Axes, before: _Stage, after: _Stage) -> None:
    """Connect two stages: every unit to every unit, or only the outlines."""
    if before.has_maps or after.has_maps:
        xs = [before.right, before.right, after.x, after.x]
        low = before.bottom + before.depth
        ys = [low, before.height / 2, after.height / 2 - after.depth, after.bottom]
        ax.fill(xs, ys, facecolor=_tint(GREY, 0.15), edgecolor="none", zorder=0)
        return
    # One line with gaps, so that crossings do not add up to a dark blot.
    pairs = [(start, end) for start in _unit_heights(before) for end in _unit_heights(after)]
    xs = [before.middle, after.middle, math.nan] * len(pairs)
    ys = [y for start, end in pairs for y in (start, end, math.nan)]
    ax.plot(xs, ys, color=_tint(GREY, 0.35), linewidth=0.25, zorder=0)
