"""Tensors that are joined, or reduced along dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, reduce
from typing import Any

import torch
from torch import Tensor

from blitz_helpers.trace._field import Dim, Origin, dims_of, merged, origin_of, without_trail
from blitz_helpers.trace._layout import (
    in_channels_last,
    like_format,
    new,
    unequal,
    wrap,
    wrong_rank,
)
from blitz_helpers.trace._op import Misfit, Op, OpenOp, op


@op("cat concat concatenate")
class Cat(Op):
    """Tensors one after the other along a dimension."""

    tensors: Sequence[Tensor]
    dim: int = 0

    @cached_property
    def parts(self) -> list[Tensor]:
        """The tensors without the empty ones that torch leaves out."""
        return [one for one in self.tensors if tuple(one.shape) != (0,)] or list(self.tensors)

    def output(self) -> Any:
        parts = self.parts
        if not parts:
            return NotImplemented
        if not parts[0].dim():
            raise wrong_rank(parts[0], "got a number, wants at least one dimension", 1)
        shape = list(parts[0].shape)
        dim = wrap(self.dim, parts[0])
        for tensor in parts:
            if [*tensor.shape[:dim], *tensor.shape[dim + 1 :]] != [*shape[:dim], *shape[dim + 1 :]]:
                refused = unequal(parts, f"which must agree in all dimensions but {dim}")
                refused.dim = dim
                raise refused
        shape[dim] = sum([tensor.shape[dim] for tensor in parts])
        dtype = reduce(torch.promote_types, [tensor.dtype for tensor in self.tensors])
        models = parts if all(map(in_channels_last, parts)) else ()
        return like_format(tuple(shape), dtype, *models)

    def sums(self, output: Tensor) -> tuple[str, ...]:
        dim = self.dim % (output.dim() or 1)
        sizes = [tensor.shape[dim] for tensor in self.parts]
        return (f"{' + '.join(map(str, sizes))} = {output.shape[dim]}",) if len(sizes) > 1 else ()

    def origin(self, output: Tensor, step: int) -> Origin:
        parts, dim = self.parts, self.dim % (output.dim() or 1)
        origin = merged(parts, output.dim())
        if len(parts) == 1 or len(origin.dims) != output.dim():
            return origin
        joined = origin.dims[dim].axis
        summed = tuple([(part.shape[dim], dims_of(part)[dim]) for part in parts])
        made = Dim(joined, step=step, summed=summed)
        dims = (*origin.dims[:dim], made, *origin.dims[dim + 1 :])
        if joined is not None and not origin.untouched:
            return without_trail(origin, dims)  # joined along a side that windows slide over
        return origin._replace(dims=dims)


@op("stack")
class Stack(Op):
    """Tensors side by side along a new dimension."""

    tensors: Sequence[Tensor]
    dim: int = 0

    def output(self) -> Any:
        if not self.tensors:
            return NotImplemented
        first = self.tensors[0]
        for tensor in self.tensors:
            if tensor.shape != first.shape:
                raise unequal(self.tensors, "which must be equal to be stacked")
        if in_channels_last(first):
            return NotImplemented
        dim = wrap(self.dim, first, extra=1)
        dtype = reduce(torch.promote_types, [tensor.dtype for tensor in self.tensors])
        return new((*first.shape[:dim], len(self.tensors), *first.shape[dim:]), dtype)

    def origin(self, output: Tensor, step: int) -> Origin:
        origin = merged(self.tensors, output.dim() - 1)
        dims = list(origin.dims)
        dims.insert(self.dim % output.dim(), Dim(step=step))
        return without_trail(origin, tuple(dims))


_OF_SOME = {"max", "min", "argmax", "argmin", "amax", "amin"}


@op("max min argmax argmin median any all")
class Extremum(OpenOp):
    """The largest or smallest along a dimension, of all, or of two tensors."""

    input: Tensor
    dim: Any = None
    keepdim: Any = False

    def check(self) -> None:
        """Refuse to look for the largest or smallest of no numbers."""
        x, gone = self.input, self.reduced()
        for dim in gone or () if self.name in _OF_SOME else ():
            if x.dim() and not x.shape[dim]:  # a single number has one, in dimension 0
                text = f"got {tuple(x.shape)}, which has no numbers in dimension {dim}"
                raise Misfit("window", text, x, dim, 0, 1)

    def reduced(self) -> set[int] | None:
        """Return the dimensions that are reduced, or ``None`` if they are not known."""
        dim = self.kwargs.get("other", self.dim)
        if dim is None or (isinstance(dim, Sequence) and not dim):
            return set(range(self.input.dim()))
        if isinstance(dim, bool | Tensor):  # `var(unbiased)`, `max(other)`
            return None
        dims = [wrap(d, self.input) for d in ((dim,) if isinstance(dim, int) else dim)]
        if len(set(dims)) < len(dims):
            raise Misfit("other", f"got {dim}, which names a dimension twice", self.input)
        return set(dims)

    def origin(self, output: Tensor, step: int) -> Origin | None:
        gone, x = self.reduced(), self.input
        if gone is None:
            return None
        kept = output.dim() == x.dim()
        dims = [
            Dim(step=step) if i in gone else dim
            for i, dim in enumerate(dims_of(x))
            if kept or i not in gone
        ]
        return without_trail(origin_of(x), tuple(dims))


@op("sum mean amax amin logsumexp prod")
class Reduction(Extremum):
    """One number in place of all numbers along some dimensions."""

    def output(self) -> Any:
        x, keepdim = self.input, self.kwargs.get("keepdim", self.keepdim)
        gone = self.reduced()
        if gone is None or not isinstance(keepdim, bool):
            return NotImplemented
        if not x.is_floating_point() or not x.is_contiguous():
            return NotImplemented
        shape = [
            1 if i in gone else size for i, size in enumerate(x.shape) if keepdim or i not in gone
        ]
        return new(shape, self.kwargs.get("dtype") or x.dtype)


@op("var std")
class Variance(Reduction):
    """A reduction that has one more argument before ``keepdim``."""

    input: Tensor
    dim: Any = None
    unbiased: bool = True
    keepdim: Any = False
