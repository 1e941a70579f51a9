"""Views: the same numbers in another shape, or some of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from blitz_helpers.trace._field import (
    INPUT_AXIS,
    UNKNOWN,
    Dim,
    Dims,
    Origin,
    SizeRule,
    dims_of,
    origin_of,
    window,
    without_trail,
)
from blitz_helpers.trace._layout import new, without_data, wrap
from blitz_helpers.trace._op import Misfit, Op, op


def regroup(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Yield which dimensions of ``old`` became which of ``new``, the smallest groups first."""
    i = j = 0
    while i < len(old) or j < len(new):
        ins, outs = [], []
        left = right = 1
        if j < len(new):
            right, outs, j = new[j], [j], j + 1
        if i < len(old):
            left, ins, i = old[i], [i], i + 1
        while left != right:
            if left < right and i < len(old):
                left, i = left * old[i], i + 1
                ins.append(i - 1)
            elif j < len(new):
                right, j = right * new[j], j + 1
                outs.append(j - 1)
            else:
                return
        if j == len(new):
            ins += range(i, len(old))
            i = len(old)
        if i == len(old):
            outs += range(j, len(new))
            j = len(new)
        yield ins, outs


class View(Op):
    """Another shape for the same numbers."""

    asked: tuple[int, ...] = ()  # the sizes as they were typed, where they were

    def __init__(self, input: Tensor, *args: Any, **kwargs: Any) -> None:
        self.input = input

    def sums(self, output: Tensor) -> tuple[str, ...]:
        old, now = tuple(self.input.shape), tuple(output.shape)
        sums = []
        typed = -1 in self.asked and len(self.asked) == len(now)
        inferred = self.asked.index(-1) if typed else None
        for ins, outs in () if 0 in old else regroup(old, now):
            parts = "*".join([str(old[i]) for i in ins])
            if len(outs) == 1 and len(ins) > 1:
                sums.append(f"{parts} = {now[outs[0]]}")
            elif inferred in outs and len(outs) > 1:
                rest = "*".join(str(now[j]) for j in outs if j != inferred)
                rest = f"({rest})" if "*" in rest else rest
                sums.append(f"{parts}/{rest} = {now[inferred]}")
        return tuple(sums)

    def origin(self, output: Tensor, step: int) -> Origin | None:
        origin = origin_of(self.input)
        old, now = tuple(self.input.shape), tuple(output.shape)
        if 0 in old:
            return None
        before = dims_of(self.input)
        dims = [UNKNOWN] * len(now)
        for ins, outs in regroup(old, now):
            if len(ins) == len(outs) == 1:
                dims[outs[0]] = before[ins[0]]
            elif len(ins) == 1:
                one = before[ins[0]]
                for j in outs:
                    dims[j] = Dim(None, one.input, one.step, one.parts)
            elif ins:
                parts = tuple([(old[i], before[i]) for i in ins])
                for j in outs:
                    dims[j] = Dim(parts=parts)
        if origin.untouched:
            dims = [dim._replace(axis=INPUT_AXIS) for dim in dims]
        return Origin(origin.device, origin.depends, tuple(dims), origin.traced, origin.untouched)


@op("flatten view_as reshape_as")
class Flatten(View):
    """Dimensions multiplied into one."""

    def check(self) -> None:
        """Nothing: torch's own kernel is quick and says what is wrong."""


@op("view reshape")
class Reshape(View):
    """A shape of given sizes, of which one may be -1."""

    def __init__(self, input: Tensor, *sizes: Any, shape: Any = None, size: Any = None) -> None:
        self.input = input
        given = shape if shape is not None else size
        if given is None:
            given = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], Sequence) else sizes
        if len(given) == 1 and isinstance(given[0], torch.dtype):
            raise TypeError("a dtype, no sizes")
        self.asked = tuple(given)

    def check(self) -> None:
        _check_numbers(self.input, self.asked)


@op("reshape", torch, Tensor)
class CopyingReshape(Reshape):
    """A view where there is one, and a copy elsewhere."""

    def output(self) -> Any:
        source = self.input if self.input.is_meta else without_data(self.input)
        if not source.is_contiguous():
            try:
                return source.view(self.asked)
            except RuntimeError:
                source = new(source.shape, source.dtype)  # torch makes a contiguous copy first
        return source.view(self.asked)


def _check_numbers(x: Tensor, asked: tuple[int, ...]) -> None:
    """Refuse sizes that hold another count of numbers."""
    known = prod(size for size in asked if size != -1)
    holds = known and x.numel() % known == 0 if -1 in asked else known == x.numel()
    if not holds and min(asked, default=0) >= -1:
        text = f"got {tuple(x.shape)}, {x.numel()} numbers, which {asked} does not hold"
        raise Misfit("numbers", text, x, None, x.numel(), asked)


@op("unflatten")
class Unflatten(View):
    """One dimension split into several."""

    def __init__(self, input: Tensor, dim: int, sizes: Sequence[int], *names: Any) -> None:
        self.input, self.dim, self.sizes = input, dim, sizes

    def check(self) -> None:
        dim = wrap(self.dim, self.input)
        size, asked = self.input.shape[dim], tuple(self.sizes)
        known = prod(one for one in asked if one != -1)
        if known and (size % known if -1 in asked else size != known):
            text = f"got {tuple(self.input.shape)}, whose {size} in dimension {dim} is not {asked}"
            shape = tuple(self.input.shape)
            wants = (*shape[:dim], *asked, *shape[dim + 1 :])
            raise Misfit("numbers", text, self.input, dim, size, wants)


class _Moving(Op):
    """A view that moves dimensions: `moved` says where they are then."""

    def __init__(self, input: Tensor, *args: Any, **kwargs: Any) -> None:
        self.input, self.args, self.kwargs = input, args, kwargs

    def moved(self, dims: Dims, new_dim: Dim, step: int) -> Dims | None:
        """Return the dimensions of the output; ``None`` where the trail is lost."""
        raise NotImplementedError

    def origin(self, output: Tensor, step: int) -> Origin | None:
        origin = origin_of(self.input)
        new_dim = Dim(INPUT_AXIS) if origin.untouched else UNKNOWN
        dims = self.moved(dims_of(self.input), new_dim, step)
        return None if dims is None else origin._replace(dims=dims)


@op("unsqueeze")
class Unsqueeze(_Moving):
    """A new dimension of size 1."""

    def moved(self, dims: Dims, new_dim: Dim, step: int) -> Dims:
        (dim,) = (*self.args, *self.kwargs.values())
        dim %= len(dims) + 1
        return (*dims[:dim], new_dim, *dims[dim:])


@op("squeeze")
class Squeeze(_Moving):
    """Dimensions of size 1 left out."""

    def moved(self, dims: Dims, new_dim: Dim, step: int) -> Dims:
        dim = next(iter((*self.args, *self.kwargs.values())), None)
        asked = range(len(dims)) if dim is None else (dim,) if isinstance(dim, int) else dim
        gone = {d % (len(dims) or 1) for d in asked}
        sizes = self.input.shape
        return tuple(old for i, old in enumerate(dims) if not (i in gone and sizes[i] == 1))


@op("permute")
class Permute(_Moving):
    """Dimensions in another order."""

    def moved(self, dims: Dims, new_dim: Dim, step: int) -> Dims:
        order = self.args[0] if len(self.args) == 1 else self.args
        return tuple([dims[d] for d in self.kwargs.get("dims", order)])

    def check(self) -> None:
        order = self.args[0] if len(self.args) == 1 else self.args
        order = self.kwargs.get("dims", order)
        if isinstance(order, Sequence) and len(order) != self.input.dim():
            text = f"got {tuple(self.input.shape)}, which permute{tuple(order)} does not fit"
            x = self.input
            raise Misfit("rank", text, x, None, x.dim(), (len(order),), "dimensions")


@op("transpose swapaxes swapdims")
class Transpose(_Moving):
    """Two dimensions that change places."""

    def check(self) -> None:
        for dim in (*self.args, *self.kwargs.values()):
            wrap(dim, self.input)

    def moved(self, dims: Dims, new_dim: Dim, step: int) -> Dims:
        first, second = (*self.args, *self.kwargs.values())  # also called axis0 and axis1
        swapped = list(dims)
        swapped[first], swapped[second] = swapped[second], swapped[first]
        return tuple(swapped)


@op("T mT H mH t adjoint", object)
class LastTwo(_Moving):
    """The last two dimensions change places."""

    def moved(self, dims: Dims, new_dim: Dim, step: int) -> Dims:
        return (*dims[:-2], *reversed(dims[-2:]))


@op("movedim moveaxis")
class MoveDim(_Moving):
    """One dimension in another place."""

    def moved(self, dims: Dims, new_dim: Dim, step: int) -> Dims | None:
        source, target = (*self.args, *self.kwargs.values())
        if not isinstance(source, int) or not isinstance(target, int):
            return None
        rest = list(dims)
        one = rest.pop(source)
        rest.insert(target % len(dims), one)
        return tuple(rest)


@op("chunk split narrow roll")
class Part(Op):
    """Parts along a dimension, or all of it in another order."""

    def __init__(self, input: Tensor, *args: Any, **kwargs: Any) -> None:
        self.input = input

    def origin(self, output: Tensor, step: int) -> Origin | None:
        return along(self.input, output, step)


def along(x: Tensor, output: Tensor, step: int) -> Origin | None:
    """Return the origin of what changed sizes of ``x`` and kept its dimensions."""
    origin, dims = origin_of(x), dims_of(x)
    if output.dim() != x.dim():
        return None
    sizes = zip(x.shape, output.shape, strict=True)
    changed = [i for i, (a, b) in enumerate(sizes) if a != b]
    if any(dims[i].axis is not None for i in changed) and not origin.untouched:
        return without_trail(origin, dims)
    return origin._replace(dims=dims)


@op("expand", Tensor)
class Expand(Op):
    """Dimensions of size 1 repeated without a copy."""

    def __init__(self, input: Tensor, *sizes: Any, **kwargs: Any) -> None:
        one = len(sizes) == 1 and isinstance(sizes[0], Sequence)
        self.input, self.sizes = input, tuple(sizes[0] if one else sizes)

    def check(self) -> None:
        x, asked = self.input, self.sizes
        if len(asked) < x.dim():
            text = f"got {tuple(x.shape)}, which expand{asked} does not fit"
            raise Misfit("rank", text, x, None, x.dim(), (len(asked),), "dimensions")
        for i, (old, size) in enumerate(zip(x.shape, asked[len(asked) - x.dim() :], strict=True)):
            if old != 1 and size not in (-1, old):
                text = f"got {tuple(x.shape)}, which does not expand to {asked}"
                raise Misfit("size", text, x, i, old, size, "expand")

    def origin(self, output: Tensor, step: int) -> Origin | None:
        dims = dims_of(self.input)
        lead = (UNKNOWN,) * (output.dim() - len(dims))
        return without_trail(origin_of(self.input), (*lead, *dims))


@op("__getitem__", Tensor)
class GetItem(Op):
    """Plain slices, positions and new axes; of other indices the trail is lost."""

    def __init__(self, input: Tensor, index: Any) -> None:
        self.input, self.index = input, index

    def origin(self, output: Tensor, step: int) -> Origin | None:
        index = self.index
        items = list(index) if isinstance(index, tuple) else [index]
        if any(not isinstance(item, int | slice | type(None) | type(...)) for item in items):
            return None
        origin, x = origin_of(self.input), self.input
        used = sum(item is not None and item is not ... for item in items)
        if ... not in items:
            items.append(...)
        at = items.index(...)
        items[at : at + 1] = [slice(None)] * (x.dim() - used)
        found: list[Dim] = []
        lost = False
        old = zip(dims_of(x), x.shape, strict=True)
        for item in items:
            if item is None:
                found.append(Dim(INPUT_AXIS) if origin.untouched else UNKNOWN)
                continue
            dim, size = next(old)
            if isinstance(item, slice):
                found.append(_sliced(dim, item, size))
            else:  # one position of a spatial side
                lost |= dim.axis is not None and not origin.untouched
        dims = tuple(found)
        return without_trail(origin, dims) if lost else origin._replace(dims=dims)


def _sliced(dim: Dim, item: slice, size: int) -> Dim:
    start, stop, step = item.indices(size)
    if dim.axis is None or (start, stop, step) == (0, size, 1):
        return dim
    formula = _slice_formula(item.start, item.stop, item.step)
    return dim._replace(axis=window(dim.axis, 1, step, -start, 1, formula))


@lru_cache(maxsize=1024)
def _slice_formula(start: int | None, stop: int | None, step: int | None) -> SizeRule:
    return partial(_slice_size, start=start, stop=stop, step=step)


def _slice_size(size: int, start: int | None, stop: int | None, step: int | None) -> int:
    return len(range(*slice(start, stop, step).indices(size)))
