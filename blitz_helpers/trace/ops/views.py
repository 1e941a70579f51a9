"""Views of another shape: the same numbers, counted out anew."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from blitz_helpers.trace._field import (
    INPUT_AXIS,
    UNKNOWN,
    Dim,
    Origin,
    dims_of,
    origin_of,
)
from blitz_helpers.trace._layout import Shape, wrap
from blitz_helpers.trace._op import Misfit, OpenOp, op

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
