"""Views: the same numbers in another shape, or some of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from blitz_helpers.trace._field import (
    INPUT_AXIS,
    UNKNOWN,
    Dim,
    Origin,
    dims_of,
    origin_of,
    window,
    without_trail,
)
from blitz_helpers.trace._layout import META, Shape, wrap, wrong_dtype, wrong_rank
from blitz_helpers.trace._op import Misfit, Op, OpenOp, op
from blitz_helpers.trace._standins import extremes_of, has_values

Groups = list[tuple[tuple[int, ...], tuple[int, ...]]]


@lru_cache(maxsize=4096)
def regroup(old: Shape, new: Shape) -> Groups:
    """Match groups of ``old`` dimensions with groups of ``new`` ones, as small as possible."""
    groups: Groups = []
    i = j = 0
    while i < len(old) or j < len(new):
        start_in, start_out = i, j
        i, j = min(i + 1, len(old)), min(j + 1, len(new))
        while (left := prod(old[start_in:i])) != (right := prod(new[start_out:j])):
            if left < right and i < len(old):
                i += 1
            elif j < len(new):
                j += 1
            else:
                return groups  # the counts differ: this is a view as another dtype
        if j == len(new):
            i = len(old)
        if i == len(old):
            j = len(new)
        groups.append((tuple(range(start_in, i)), tuple(range(start_out, j))))
    return groups


@op("flatten view_as reshape_as")
class View(OpenOp):
    """Another shape for the same numbers."""

    input: Tensor

    @property
    def asked(self) -> Shape:
        """The sizes as they were typed, if the operation takes sizes."""
        return ()

    def sums(self, output: Tensor) -> tuple[str, ...]:
        old, now, asked = tuple(self.input.shape), tuple(output.shape), self.asked
        inferred = asked.index(-1) if -1 in asked and len(asked) == len(now) else None
        sums = []
        for ins, outs in () if 0 in old else regroup(old, now):
            parts = "*".join([str(old[i]) for i in ins])
            if len(outs) == 1 and len(ins) > 1:
                sums.append(f"{parts} = {now[outs[0]]}")
            elif inferred in outs and len(outs) > 1:
                rest = "*".join([str(now[j]) for j in outs if j != inferred])
                rest = f"({rest})" if "*" in rest else rest
                sums.append(f"{parts}/{rest} = {now[inferred]}")
        return tuple(sums)

    def origin(self, output: Tensor, step: int) -> Origin | None:
        old, now = tuple(self.input.shape), tuple(output.shape)
        if 0 in old:
            return None
        origin, before = origin_of(self.input), dims_of(self.input)
        dims = [UNKNOWN] * len(now)
        for ins, outs in regroup(old, now):
            if len(ins) == 1:
                made = before[ins[0]]
                if len(outs) > 1:
                    made = Dim(None, made.input, made.step, made.parts)
            else:
                made = Dim(parts=tuple([(old[i], before[i]) for i in ins]))
            for j in outs:
                dims[j] = made
        if origin.untouched:
            dims = [dim._replace(axis=INPUT_AXIS) for dim in dims]
        return Origin(origin.device, origin.depends, tuple(dims), origin.traced, origin.untouched)


@op("view reshape")
class Reshape(View):
    """A shape of given sizes; one of them may be -1."""

    @property
    def asked(self) -> Shape:
        given = (*self.args, *self.kwargs.values())
        one = len(given) == 1 and isinstance(given[0], Sequence)
        return tuple(given[0] if one else given)

    def check(self) -> None:
        """Refuse sizes that do not hold all numbers."""
        x, asked = self.input, self.asked
        if asked and isinstance(asked[0], torch.dtype):
            return
        known = prod(size for size in asked if size != -1)
        holds = known and x.numel() % known == 0 if -1 in asked else known == x.numel()
        if not holds and min(asked, default=0) >= -1:
            text = f"got {tuple(x.shape)}, {x.numel()} numbers, which {asked} does not hold"
            raise Misfit("numbers", text, x, None, x.numel(), asked)


@op("unflatten")
class Unflatten(View):
    """One dimension split into several."""

    input: Tensor
    dim: int
    sizes: Sequence[int]

    def check(self) -> None:
        dim = wrap(self.dim, self.input)
        shape, asked = tuple(self.input.shape), tuple(self.sizes)
        known = prod(one for one in asked if one != -1)
        if known and (shape[dim] % known if -1 in asked else shape[dim] != known):
            text = f"got {shape}, whose {shape[dim]} in dimension {dim} is not {asked}"
            wants = (*shape[:dim], *asked, *shape[dim + 1 :])
            raise Misfit("numbers", text, self.input, dim, shape[dim], wants)


@op("squeeze movedim moveaxis")
@op("T mT H mH t adjoint")
class Moved(OpenOp):
    """Dimensions in another order, or those of size 1 left out."""

    input: Tensor

    def origin(self, output: Tensor, step: int) -> Origin | None:
        origin, shape = origin_of(self.input), self.input.shape
        if len(origin.dims) != len(shape):
            return None
        # Strides that all differ show where each dimension goes.
        probe = torch.empty_strided(shape, tuple(range(1, len(shape) + 1)), device=META)
        moved = self.func(probe, *self.args, **self.kwargs).stride()
        return origin._replace(dims=tuple([origin.dims[place - 1] for place in moved]))


@op("transpose swapaxes swapdims")
class Transpose(Moved):
    """Two dimensions that change places."""

    def check(self) -> None:
        for dim in (*self.args, *self.kwargs.values()):
            wrap(dim, self.input)


@op("permute")
class Permute(Moved):
    """Dimensions in a given order."""

    def check(self) -> None:
        x = self.input
        order = self.kwargs.get("dims", self.args[0] if len(self.args) == 1 else self.args)
        if isinstance(order, Sequence) and len(order) != x.dim():
            text = f"got {tuple(x.shape)}, which permute{tuple(order)} does not fit"
            raise wrong_rank(x, text, len(order))


@op("unsqueeze")
class Unsqueeze(Op):
    """A new dimension of size 1."""

    input: Tensor
    dim: int

    def origin(self, output: Tensor, step: int) -> Origin:
        origin, dims = origin_of(self.input), dims_of(self.input)
        made = Dim(INPUT_AXIS) if origin.untouched else UNKNOWN
        at = self.dim % (len(dims) + 1)
        return origin._replace(dims=(*dims[:at], made, *dims[at:]))


@op("expand")
class Expand(OpenOp):
    """Dimensions of size 1 repeated without a copy."""

    input: Tensor

    def check(self) -> None:
        x = self.input
        given = self.kwargs.get("size", self.args)
        asked = tuple(given[0] if len(given) == 1 and isinstance(given[0], Sequence) else given)
        if len(asked) < x.dim():
            text = f"got {tuple(x.shape)}, which expand{asked} does not fit"
            raise wrong_rank(x, text, len(asked))
        for i, (old, size) in enumerate(zip(x.shape, asked[len(asked) - x.dim() :], strict=True)):
            if old != 1 and size not in (-1, old):
                text = f"got {tuple(x.shape)}, which does not expand to {asked}"
                raise Misfit("size", text, x, i, old, size, "expand")

    def origin(self, output: Tensor, step: int) -> Origin | None:
        dims = dims_of(self.input)
        lead = (UNKNOWN,) * (output.dim() - len(dims))
        return without_trail(origin_of(self.input), (*lead, *dims))


@op("chunk tensor_split glu narrow roll")
class Part(OpenOp):
    """Parts along a dimension, or all of it in another order."""

    input: Tensor

    def origin(self, output: Tensor, step: int) -> Origin | None:
        x = self.input
        origin, dims = origin_of(x), dims_of(x)
        if output.dim() != x.dim():
            return None
        sides = zip(dims, x.shape, output.shape, strict=True)
        cut = any(dim.axis is not None for dim, old, now in sides if old != now)
        if cut and not origin.untouched:
            return without_trail(origin, dims)
        return origin._replace(dims=dims)


@op("split")
class Split(Part):
    """Parts of one size, or of sizes that add up to the size of the dimension."""

    input: Tensor
    sizes: Any
    dim: int = 0

    def check(self) -> None:
        if isinstance(self.sizes, int):
            return
        dim, wants = wrap(self.dim, self.input), sum(self.sizes)
        got = self.input.shape[dim]
        if got != wants:
            asked = "+".join(map(str, self.sizes))
            text = f"got {tuple(self.input.shape)}, whose {got} is not {asked}"
            raise Misfit("size", text, self.input, dim, got, wants, "split")


@op("getitem")
class GetItem(Op):
    """An index. Origins are followed through slices, positions and new axes, not other indices."""

    input: Tensor
    index: Any

    def check(self) -> None:
        """Refuse positions that are out of range, as far as their values are known."""
        dim = 0
        for item in self.items:
            if hasattr(item, "__array__") or isinstance(item, list):
                item = torch.as_tensor(item)
            if isinstance(item, Tensor) and _spans(item) == 1 and dim < self.input.dim():
                _check_positions(item, self.input, dim)
            dim += _spans(item)

    @property
    def items(self) -> list[Any]:
        """The items of the index, with full slices for an ellipsis and at the end."""
        items = list(self.index) if isinstance(self.index, tuple) else [self.index]
        at = next((i for i, item in enumerate(items) if item is ...), len(items))
        items[at : at + 1] = [slice(None)] * (self.input.dim() - sum(map(_spans, items)))
        return items

    def origin(self, output: Tensor, step: int) -> Origin | None:
        items = self.items
        plain = (int, slice, type(None))
        if any(isinstance(item, bool) or not isinstance(item, plain) for item in items):
            return None
        origin, x = origin_of(self.input), self.input
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


@op("setitem index_put")
class SetItem(GetItem):
    """Numbers written to an index."""

    input: Tensor
    index: Any
    value: Any

    def check(self) -> None:
        """Refuse values of another dtype or number than those that they replace."""
        super().check()
        value, items = self.value, self.items
        if not isinstance(value, Tensor) or value.numel() < 2:
            return
        picks = [item for item in items if isinstance(item, Tensor)]
        if picks and value.dtype != self.input.dtype:
            raise wrong_dtype(value, self.input.dtype, (self.input,), "values")
        mask = picks[0] if len(picks) == 1 and picks[0].dtype == torch.bool else None
        if mask is None or items[0] is not mask or not has_values(mask):
            return
        wants, rank = int(mask.sum()), 1 + self.input.dim() - mask.dim()
        if value.dim() == rank and value.shape[0] not in (1, wants):
            got = value.shape[0]
            text = f"got {got} rows for the {wants} that a mask of {tuple(mask.shape)} picks"
            raise Misfit("size", text, value, 0, got, wants, "rows", (mask,))

    def origin(self, output: Tensor, step: int) -> None:
        """Return ``None``: what both tensors tell is guessed elsewhere."""


_MASKS = (torch.bool, torch.uint8)


def _spans(item: Any) -> int:
    """Return how many dimensions an item of an index takes up."""
    if item is None or item is ... or isinstance(item, bool):
        return 0
    return item.dim() if isinstance(item, Tensor) and item.dtype in _MASKS else 1


def _check_positions(at: Tensor, x: Tensor, dim: int) -> None:
    size = x.shape[dim]
    ends = None if at.dtype in _MASKS else extremes_of(at)
    worst = max(ends or (0,), key=lambda one: max(one, -1 - one))
    if ends and not -size <= worst < size:
        text = f"got index {worst}, which dimension {dim} of {tuple(x.shape)} does not have"
        raise Misfit("table", text, at, None, worst, size, "rows", (x,))


def _sliced(dim: Dim, item: slice, size: int) -> Dim:
    start, stop, step = item.indices(size)
    if dim.axis is None or (start, stop, step) == (0, size, 1):
        return dim
    formula = partial(_slice_size, (item.start, item.stop, item.step))
    return window(dim, step, -start, start, formula)


def _slice_size(bounds: tuple[int | None, ...], size: int) -> int:
    return len(range(*slice(*bounds).indices(size)))
