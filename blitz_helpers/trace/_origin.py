"""Where the numbers in a tensor came from: receptive fields, and the factors of a flattened side.

While a model is traced every tensor that an operation made carries an `Origin`. It answers two
questions: how large a part of the input can one element of this tensor see, and which input sizes
would have given another size here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from fractions import Fraction

    Number = int | Fraction

SizeRule = Callable[[int], int]


class Axis(NamedTuple):
    """One spatial dimension: position ``o`` sees the input from ``stride*o + low`` to ``+ high``.

    ``stride`` is the effective stride, a fraction after upsampling. ``chain`` holds the size rules
    from the input to here, the last one first. ``grid`` is, after upsampling, the stride before it
    and what one position saw there: the windows can only begin at those positions.

    Source: A. Araujo, W. Norris, J. Sim, "Computing Receptive Fields of Convolutional Neural
    Networks", Distill, 2019.
    """

    stride: Number
    low: Number
    high: Number
    chain: tuple[object, SizeRule] | None
    grid: tuple[Number, int] | None = None

    @property
    def receptive_field(self) -> int:
        """How many neighbouring input elements one position sees, borders aside."""
        if self.grid is None:
            return math.floor(self.high - self.low) + 1
        step, seen = self.grid
        return math.floor((self.high - self.low - seen + 1) / step) * step + seen  # type: ignore[return-value]  # a whole step here

    def size_for(self, side: int) -> int:
        """Return the size here for an input of ``side``.

        Raises:
            ValueError: such an input does not get here.
        """
        rules = []
        link = self.chain
        while link is not None:
            link, rule = link  # type: ignore[assignment]  # a chain is a linked list of itself
            rules.append(rule)
        for rule in reversed(rules):
            side = rule(side)
        return side


Axes = tuple[Axis | None, ...]
INPUT_AXIS = Axis(1, 0, 0, None)


class Origin(NamedTuple):
    """What is known of a tensor's past.

    ``depends`` is off for what the input has no part in. ``axes`` has an entry a dimension, an
    `Axis` where it is spatial; ``None`` as a whole where the trail is lost. ``untouched`` holds as
    long as each element comes from one element of the input. ``factors`` maps a dimension that
    flattening made to the sizes and axes that it was made of.
    """

    device: torch.device
    depends: bool = False
    axes: Axes | None = None
    untouched: bool = False
    factors: dict[int, tuple[tuple[int, ...], Axes]] | None = None

    @property
    def receptive_field(self) -> tuple[int, ...] | None:
        """The receptive field along each spatial dimension, ``None`` without any."""
        if self.axes is None or self.untouched:
            return None
        return tuple([axis.receptive_field for axis in self.axes if axis is not None]) or None


def known_origin(tensor: Tensor) -> Origin | None:
    """Return where the tensor came from; ``None`` for one that the trace did not make."""
    return getattr(tensor, "_blitz_origin", None)


def origin_of(tensor: Tensor) -> Origin:
    """Return where the tensor came from, as far as it is known."""
    return known_origin(tensor) or Origin(tensor.device)


def set_origin(tensor: Tensor, origin: Origin) -> None:
    """Write down where the tensor came from."""
    tensor._blitz_origin = origin  # type: ignore[attr-defined]  # lives and dies with the tensor


def input_origin(device: torch.device, ndim: int) -> Origin:
    """Return the origin of an input of ``ndim`` dimensions."""
    return Origin(device, depends=True, axes=(INPUT_AXIS,) * ndim, untouched=True)


def window(
    axis: Axis, kernel_size: int, stride: int, padding: int, dilation: int, rule: SizeRule
) -> Axis:
    """Return the axis after a window has slid along it."""
    return Axis(
        axis.stride * stride,
        axis.low - axis.stride * padding,
        axis.high + axis.stride * (dilation * (kernel_size - 1) - padding),
        (axis.chain, rule),
        axis.grid,
    )


def upsampling(axis: Axis, factor: int, before: Number, after: Number, rule: SizeRule) -> Axis:
    """Return the axis after each position has become ``factor`` of them.

    The new position ``o`` sees the old ones from ``(o - before) / factor`` to
    ``(o + after) / factor``.
    """
    from fractions import Fraction  # takes as long to load as a small network to trace

    return Axis(
        Fraction(axis.stride) / factor,
        axis.low - axis.stride * Fraction(before) / factor,
        axis.high + axis.stride * Fraction(after) / factor,
        (axis.chain, rule),
        axis.grid or (axis.stride, axis.receptive_field),
    )


def spatial(origin: Origin, ndim: int, count: int) -> list[Axis] | None:
    """Return the last ``count`` axes of a tensor of ``ndim`` dimensions, if they are known."""
    axes = origin.axes
    if axes is None or len(axes) != ndim:
        return None
    last = axes[ndim - count :]
    return None if None in last else list(last)  # type: ignore[arg-type]  # no None in it


def with_last_axes(origin: Origin, ndim: int, axes: Sequence[Axis]) -> Origin:
    """Return the origin of a tensor of ``ndim`` dimensions that has these axes as its last."""
    lead: Axes = (None,) * (ndim - len(axes))
    return Origin(origin.device, True, (*lead, *axes))


def merged(origins: Sequence[Origin], shapes: Sequence[Sequence[int]], ndim: int) -> Origin:
    """Return the origin of what is made of several tensors, element by element.

    Where their receptive fields differ, it is the extent of both together: of two branches of
    which one sees all that the other sees, the larger one.
    """
    live = [
        (origin, shape) for origin, shape in zip(origins, shapes, strict=True) if origin.depends
    ]
    if not live:
        return origins[0]
    first, shape = live[0]
    if len(shape) == ndim and all(origin is first for origin, _ in live):
        return first
    device = first.device
    if any(origin.axes is None for origin, _ in live):
        return Origin(device, depends=True)
    axes: list[Axis | None] = []
    for position in range(ndim):
        # The sides that are broadcast move nothing: the others decide the stride.
        known = []
        for origin, shape in live:
            index = position - (ndim - len(shape))
            if index >= 0 and origin.axes is not None and (axis := origin.axes[index]) is not None:
                known.append((shape[index] == 1, axis))
        axes.append(_union(known) if known else None)
    untouched = all(origin.untouched for origin, _ in live)
    return Origin(device, True, tuple(axes), untouched, first.factors)


def _union(axes: list[tuple[bool, Axis]]) -> Axis:
    axes.sort(key=lambda pair: pair[0])
    first = axes[0][1]
    low, high = first.low, first.high
    for _, axis in axes[1:]:
        if axis.stride == first.stride:
            low, high = min(low, axis.low), max(high, axis.high)
        elif axis.high - axis.low > high - low:
            low, high = axis.low, axis.high
    return first._replace(low=low, high=high)
