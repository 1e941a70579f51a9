"""The origin of each dimension of a tensor, and its receptive field.

While a model is traced, every tensor that an operation made carries an `Origin`. It answers three
questions: how large a part of the input one element of this tensor can see, which size a dimension
would have for another input, and which input or step each dimension comes from.
"""

# Without `from __future__ import annotations`: a named tuple would compile each text of a type.

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from fractions import Fraction

    Number = int | Fraction
else:  # loading fractions takes as long as tracing a small network
    Number = object

SizeFormula = Callable[[int], int]


class Axis(NamedTuple):
    """One spatial dimension: position ``o`` sees inputs ``stride*o + low`` to ``stride*o + high``.

    ``stride`` is the effective stride, a fraction after upsampling. ``chain`` holds the size
    formulas from the input to here, the last one first. After upsampling, ``grid`` holds the stride
    and the receptive field before it; windows start only at its multiples. ``high`` is infinite
    where the receptive field differs from one position to the next.

    Source: A. Araujo, W. Norris, J. Sim, "Computing Receptive Fields of Convolutional Neural
    Networks", Distill, 2019.
    """

    stride: Number
    low: Number
    high: Number
    chain: tuple[object, SizeFormula] | None
    grid: tuple[Number, int] | None = None

    @property
    def receptive_field(self) -> int | None:
        """The number of neighbouring input elements that one position sees, borders aside."""
        if self.high == math.inf:
            return None
        if self.grid is None:
            return math.floor(self.high - self.low) + 1
        step, seen = self.grid
        return math.floor((self.high - self.low - seen + 1) / step) * step + seen  # type: ignore[return-value]  # it is a whole number here

    def size_for(self, side: int) -> int:
        """Return the size here for an input of ``side``.

        Raises:
            ValueError: an input of this size fails before it gets here.
        """
        formulas = []
        link = self.chain
        while link is not None:
            link, formula = link  # type: ignore[assignment]  # a linked list, whose type contains itself
            formulas.append(formula)
        for formula in reversed(formulas):
            side = formula(side)
        return side


INPUT_AXIS = Axis(1, 0, 0, None)


class Dim(NamedTuple):
    """The origin of one dimension of a tensor; if it is not known, all fields are empty.

    ``axis`` is set if the dimension is spatial. ``input`` has the number of an input tensor and of
    its axis. ``step`` is the number of the step that made the dimension. ``parts`` has the sizes
    and dimensions that a view multiplied, ``summed`` those that a join added.
    """

    axis: Axis | None = None
    input: tuple[int, int] | None = None
    step: int | None = None
    parts: tuple[tuple[int, "Dim"], ...] = ()
    summed: tuple[tuple[int, "Dim"], ...] = ()


UNKNOWN = Dim()
Dims = tuple[Dim, ...]


class Origin(NamedTuple):
    """The known history of a tensor.

    ``depends`` tells whether the tensor depends on an input. ``dims`` has one entry for each
    dimension, or is empty. ``traced`` tells whether the receptive field is known, ``untouched``
    whether each element is still a single element of the input.
    """

    device: torch.device
    depends: bool = False
    dims: Dims = ()
    traced: bool = False
    untouched: bool = False

    @property
    def receptive_field(self) -> tuple[int, ...] | None:
        """The receptive field along each spatial dimension, ``None`` if it is not known."""
        if not self.traced or self.untouched:
            return None
        fields = tuple([d.axis.receptive_field for d in self.dims if d.axis is not None])
        return fields if fields and None not in fields else None  # type: ignore[return-value]  # all known


def known_origin(tensor: Tensor) -> Origin | None:
    """Return where the tensor came from; ``None`` for one that the trace did not make."""
    return getattr(tensor, "_blitz_origin", None)


def origin_of(tensor: Tensor) -> Origin:
    """Return where the tensor came from, as far as it is known."""
    return getattr(tensor, "_blitz_origin", None) or Origin(tensor.device)


def set_origin(tensor: Tensor, origin: Origin) -> None:
    """Record where the tensor came from."""
    tensor._blitz_origin = origin  # type: ignore[attr-defined]  # lives and dies with the tensor


def input_origin(device: torch.device, ndim: int, number: int) -> Origin:
    """Return the origin of input tensor ``number``, which has ``ndim`` dimensions."""
    dims = tuple([Dim(INPUT_AXIS, (number, axis)) for axis in range(ndim)])
    return Origin(device, True, dims, traced=True, untouched=True)


def dims_of(tensor: Tensor) -> Dims:
    """Return where each dimension came from."""
    dims, ndim = origin_of(tensor).dims, tensor.dim()
    return dims if len(dims) == ndim else (UNKNOWN,) * ndim


def window(dim: Dim, stride: int, before: int, after: int, formula: SizeFormula) -> Dim:
    """Return the origin of a spatial dimension after a window has slid along it.

    The new position ``o`` sees the old ones from ``stride*o - before`` to ``stride*o + after``.
    """
    axis, input, step, parts, _ = dim
    scale, low, high, chain, grid = axis  # type: ignore[misc]  # it is spatial
    axis = Axis(scale * stride, low - scale * before, high + scale * after, (chain, formula), grid)
    return Dim(axis, input, step, parts)


def upsampling(dim: Dim, factor: int, before: Number, after: Number, formula: SizeFormula) -> Dim:
    """Return the origin of a spatial dimension whose positions have become ``factor`` each.

    The new position ``o`` sees the old ones from ``(o - before) / factor`` to
    ``(o + after) / factor``.
    """
    from fractions import Fraction

    old: Any = dim.axis
    axis = Axis(
        Fraction(old.stride) / factor,
        old.low - old.stride * Fraction(before) / factor,
        old.high + old.stride * Fraction(after) / factor,
        (old.chain, formula),
        old.grid or (old.stride, old.receptive_field),
    )
    return Dim(axis, dim.input, dim.step, dim.parts)


def blurred(dim: Dim, formula: SizeFormula) -> Dim:
    """Return the origin of a spatial dimension that is resampled with a varying reach."""
    old: Any = dim.axis
    return Dim(
        old._replace(high=math.inf, chain=(old.chain, formula)), dim.input, dim.step, dim.parts
    )


def fixed(output_size: int, _: int) -> int:
    """Return the size of an output that is the same for every input."""
    return output_size


def slid(
    tensor: Tensor,
    count: int,
    move: Callable[[Dims], Iterable[Dim]] | None,
    channels: Dim | None = None,
) -> Origin:
    """Return the origin of the output of windows over the last ``count`` dimensions of ``tensor``.

    ``move`` turns them into the new ones, or is ``None`` if these are not known. ``channels``
    replaces the dimension before them, unless it is ``None``.
    """
    origin, dims = origin_of(tensor), dims_of(tensor)
    lead, last = [*map(_without_axis, dims[:-count])], dims[-count:]
    if channels is not None and lead:
        lead[-1] = channels
    if move is None or None in [dim.axis for dim in last]:
        return without_trail(origin, (*lead, *last))
    return Origin(origin.device, True, (*lead, *move(last)), True)


def last_made(tensor: Tensor, output: Tensor, step: int) -> Origin:
    """Return the origin of an output with the dimensions of ``tensor``, except for the last.

    This step makes the last one. If the other sizes differ, it makes all of them.
    """
    kept = output.dim() - 1
    dims = dims_of(tensor)[:kept] if output.shape[:kept] == tensor.shape[:kept] else ()
    made = (Dim(step=step),) * (output.dim() - len(dims))
    return without_trail(origin_of(tensor), (*dims, *made))


def without_trail(origin: Origin, dims: Dims) -> Origin:
    """Return an origin with these dimensions and an unknown receptive field."""
    return Origin(origin.device, origin.depends, tuple(map(_without_axis, dims)))


def _without_axis(dim: Dim) -> Dim:
    return dim if dim.axis is None else Dim(None, *dim[1:])


def merged(tensors: Sequence[Tensor], ndim: int) -> Origin:
    """Return the origin of an element-wise result of several tensors.

    If their receptive fields differ, the result has their union, or the largest if strides differ.
    """
    live = []
    for tensor in tensors:
        origin = origin_of(tensor)
        if origin.depends:
            live.append((origin, tensor.shape))
    if not live:
        return origin_of(tensors[0])
    first, shape = live[0]
    if len(shape) == ndim and all(origin is first for origin, _ in live):
        return first
    dims = []
    for position in range(ndim):
        # A side that is broadcast has no stride of its own, so the others decide it.
        known: list[tuple[bool, Dim]] = []
        for origin, shape in live:
            index = position - (ndim - len(shape))
            if index >= 0 and len(origin.dims) == len(shape):
                known.append((shape[index] == 1, origin.dims[index]))
        dims.append(_union(known))
    traced = all(origin.traced for origin, _ in live)
    if not traced:
        return without_trail(first, tuple(dims))
    return Origin(first.device, True, tuple(dims), True, all(o.untouched for o, _ in live))


def _union(known: list[tuple[bool, Dim]]) -> Dim:
    known.sort(key=lambda pair: pair[0])
    best = next((dim for _, dim in known if dim != UNKNOWN), UNKNOWN)
    axes = [dim.axis for _, dim in known if dim.axis is not None]
    if not axes:
        return best
    first = axes[0]
    low, high = first.low, first.high
    for axis in axes[1:]:
        if axis.stride == first.stride:
            low, high = min(low, axis.low), max(high, axis.high)
        elif axis.high - axis.low > high - low:
            low, high = axis.low, axis.high
    return best._replace(axis=first._replace(low=low, high=high))


def guessed(tensors: Sequence[Tensor], output: Tensor, step: int) -> Origin:
    """Return an origin for the output of an operation without a class.

    A leading dimension that keeps its size is taken to be the same dimension.
    """
    origins = [origin_of(tensor) for tensor in tensors]
    device = next((o.device for o in origins if o.device.type != "cpu"), origins[0].device)
    source = next((t for t, o in zip(tensors, origins, strict=True) if o.depends), None)
    if source is None:
        return Origin(device)
    kept = []
    for size, old, dim in zip(output.shape, source.shape, dims_of(source), strict=False):
        if size != old and output.dim() != source.dim():
            break
        kept.append(dim._replace(axis=None) if size == old else Dim(step=step))
    kept += [Dim(step=step)] * (output.dim() - len(kept))
    return Origin(device, True, tuple(kept))
