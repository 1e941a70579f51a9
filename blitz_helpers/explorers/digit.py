"""A sheet to draw a digit on, and a model's answers while it is drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blitz_helpers.data import load_mnist
from blitz_helpers.explorers._explorer import Explorer
from blitz_helpers.explorers._ink import Stroke, ink
from blitz_helpers.explorers._reading import Maps, Reading, read
from blitz_helpers.explorers._still import draw_reading
from blitz_helpers.plotting._canvas import Picture, show
from blitz_helpers.plotting.digits import plot_digits

_NUM_DIGITS = 1000  # in the test data
_MOST_LAYERS, _MOST_MAPS, _MOST_ROWS = 12, 16, 10
_LARGEST_SIDE = 512
_EMPTY = "Nothing is drawn yet. Draw a digit into the frame, or take one from the test data."
# A seven to begin with, in parts of the picture's width and height.
_SEVEN = ((0.30, 0.28), (0.70, 0.28), (0.46, 0.76))


@dataclass(frozen=True)
class DigitState:
    """The drawn strokes, and the answer whose gradient is shown.

    Raises:
        ValueError: a stroke is not a sequence of points, or a number is not a whole number.

    >>> DigitState(strokes=[[(3, 4), (5, 6)]]).strokes
    (((3.0, 4.0), (5.0, 6.0)),)
    """

    strokes: tuple[Stroke, ...] = ()  # in pixels of the picture: x to the right, y down
    index: int | None = None  # the digit of the test data under the strokes
    answer: int | None = None  # by default the one with the highest score

    def __post_init__(self) -> None:
        try:
            strokes = tuple(tuple((float(x), float(y)) for x, y in each) for each in self.strokes)
        except (TypeError, ValueError):
            raise ValueError(
                "strokes must be sequences of (x, y), such as [[(3, 4), (5, 6)]]."
            ) from None
        if not all(
            stroke and all(math.isfinite(n) for xy in stroke for n in xy) for stroke in strokes
        ):
            raise ValueError("Each stroke needs one point or more, and finite numbers.")
        object.__setattr__(self, "strokes", strokes)
        for name, most, upto in (
            ("index", _NUM_DIGITS - 1, f"to {_NUM_DIGITS - 1}"),
            ("answer", math.inf, "or more"),
        ):
            value = getattr(self, name)
            if value is not None and not (type(value) is int and 0 <= value <= most):
                raise ValueError(f"{name}={value!r}: use None or a whole number, 0 {upto}.")


@dataclass(frozen=True)
class Row:
    """One answer: its score, and its part of the softmax of all scores."""

    answer: int
    score: float
    probability: float


@dataclass(frozen=True)
class Layer:
    """The maps of one operation, scaled to signed bytes: ``largest`` is 127."""

    name: str
    height: int
    width: int
    shown: int
    channels: int
    low: float
    high: float
    maps: bytes


@dataclass(frozen=True)
class DigitView:
    """Everything drawn for a state."""

    state: DigitState
    problem: str  # why there are no answers; "" if there are
    height: int
    width: int
    frame: tuple[float, float, float, float]  # left, top, width, height of the place for a digit
    num_digits: int  # in the test data
    picture: bytes  # one per pixel, 0 to 127
    told: str = ""
    gradient: bytes = b""  # one per pixel, signed; empty if there is no gradient
    answer: int | None = None  # the class that the gradient belongs to
    rows: tuple[Row, ...] = ()
    layers: tuple[Layer, ...] = ()
    left_out: str = ""


def explore_digit(model: nn.Module, size: int | tuple[int, int] = 32) -> Explorer[DigitState]:
    """Return a sheet to draw a digit on, which shows how a model reads it.

    It shows the model's answers, the gradient of one answer's score on the picture, and the maps
    of each layer. The model runs in eval mode and is restored afterwards.

    Args:
        model: maps pictures ``(1, 1, H, W)``, with values from 0 (paper) to 1 (ink), to scores
            ``(1, K)``.
        size: H and W, or one number for both.

    Raises:
        ValueError: the model does not fit, or ``size`` is out of range.
        TypeError: ``model`` is not a module.
        ImportError: anywidget is not installed.

    >>> from blitz_helpers import Network
    >>> explore_digit(Network()).state.answer is None
    True
    """
    if not isinstance(model, nn.Module):
        made = (
            f" Use {model.__name__}() for what the class makes." if isinstance(model, type) else ""
        )
        raise TypeError(f"model must be an nn.Module, not a {type(model).__name__}.{made}")
    sides = size if isinstance(size, tuple) else (size, size)
    fit = all(type(side) is int and 8 <= side <= _LARGEST_SIDE for side in sides)
    if len(sides) != 2 or not fit:
        raise ValueError(
            f"size={size!r} cannot be drawn on: use 8 to {_LARGEST_SIDE}, or two of them."
        )
    height, width = sides
    seven = tuple((x * width, y * height) for x, y in _SEVEN)
    view = partial(digit_view, model, (height, width))
    picture = partial(digit_picture, model, (height, width))
    return Explorer(DigitState(strokes=(seven,)), view, picture, "digit.js")


def digit_view(model: nn.Module, size: tuple[int, int], state: DigitState) -> DigitView:
    """Return everything drawn for a state; every number comes from the model itself."""
    height, width = size
    picture = _drawn(state, size)
    side = 20 / 32 * min(height, width)  # MNIST's digits fill 20 of 32 pixels
    blank = DigitView(
        state=state,
        problem=_EMPTY,
        height=height,
        width=width,
        frame=((width - side) / 2, (height - side) / 2, side, side),
        num_digits=_NUM_DIGITS,
        picture=_signed_bytes(picture, largest=1.0),
    )
    if not picture.any():
        return blank
    reading = read(model, picture, state.answer)
    layers, steps = _layers(reading.maps), len(reading.maps)
    return replace(
        blank,
        problem="",
        told=_told(state, reading),
        gradient=b"" if reading.gradient is None else _signed_bytes(reading.gradient),
        answer=reading.answer,
        rows=_rows(reading),
        layers=layers,
        left_out="" if len(layers) == steps else f"Shown are {len(layers)} of {steps} steps.",
    )


def _told(state: DigitState, reading: Reading) -> str:
    best = int(reading.scores.argmax())
    probability = reading.scores.softmax(0)[best].item()
    told = f"The model says {best}, with a probability of {probability:.1%}."
    if state.index is not None:
        told = f"Test digit {state.index} is a {_digits()[1][state.index]}. {told}"
    if reading.gradient is None:
        told += " Its scores have no gradient on the picture."
    return told


def digit_picture(model: nn.Module, size: tuple[int, int], state: DigitState) -> Picture:
    """Return a still picture of a state."""
    picture = _drawn(state, size)
    if not picture.any():
        return show(plot_digits(picture[None, None]), alt=_EMPTY)
    reading = read(model, picture, state.answer)
    return draw_reading(picture, reading, _some(reading.maps, _MOST_LAYERS))


@cache
def _digits() -> tuple[Tensor, list[int]]:
    """Return the test digits ``(N, 1, 28, 28)`` and their labels."""
    images, labels = load_mnist("test", size=28).tensors
    return images.float(), labels.tolist()


def _drawn(state: DigitState, size: tuple[int, int]) -> Tensor:
    """Return the picture ``(H, W)``: the strokes, over a test digit if there is one."""
    drawn = ink(state.strokes, *size)
    if state.index is None:
        return drawn
    image = _digits()[0][state.index]
    border = [side - 28 for side in size]
    if min(border) >= 0:
        top, left = (room // 2 for room in border)
        image = F.pad(image, (left, border[1] - left, top, border[0] - top))
    else:
        image = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    return torch.maximum(drawn, image[0])


def _rows(reading: Reading) -> tuple[Row, ...]:
    """Return the answers in order; of many, only those with the highest scores."""
    probabilities = reading.scores.softmax(0)
    chosen = reading.scores.topk(min(_MOST_ROWS, len(reading.scores))).indices.tolist()
    return tuple(
        Row(answer, reading.scores[answer].item(), probabilities[answer].item())
        for answer in sorted({*chosen, reading.answer})
    )


def _some(things: tuple[Any, ...], most: int) -> tuple[Any, ...]:
    """Return at most ``most`` of them, evenly spread from the first to the last.

    >>> _some(tuple(range(10)), most=4)
    (0, 3, 6, 9)
    """
    if len(things) <= most:
        return things
    return tuple(things[round(n * (len(things) - 1) / (most - 1))] for n in range(most))


def _layers(steps: tuple[Maps, ...]) -> tuple[Layer, ...]:
    layers = []
    for step in _some(steps, _MOST_LAYERS):
        channels, height, width = step.values.shape
        values = step.values[:_MOST_MAPS].float().cpu().nan_to_num()
        low, high = values.min().item(), values.max().item()
        packed = _signed_bytes(values)
        layers.append(Layer(step.name, height, width, len(values), channels, low, high, packed))
    return tuple(layers)


def _signed_bytes(values: Tensor, largest: float | None = None) -> bytes:
    """Scale the values to bytes from -127 to 127; 127 stands for ``largest``, or the maximum."""
    limit = largest or values.abs().max().item() or 1.0
    return (values / limit * 127).round().to(torch.int8).numpy().tobytes()
