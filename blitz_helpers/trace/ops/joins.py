"""Tensors that are joined, or reduced along dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from blitz_helpers.trace._field import Dim, Origin, dims_of, merged, origin_of, without_trail
from blitz_helpers.trace._layout import in_channels_last, like_format, new, unequal, wrap
from blitz_helpers.trace._op import Op, op


@op("cat concat concatenate", torch)
class Cat(Op):
    """Tensors one after the other along a dimension."""

    def __init__(self, tensors: Sequence[Tensor], dim: int = 0, **kwargs: Any) -> None:
        self.tensors, self.dim = tensors, kwargs.pop("axis", dim)
        self.others = kwargs

    @property
    def parts(self) -> list[Tensor]:
        """The tensors without the empty ones that torch leaves out."""
        return [one for one in self.tensors if tuple(one.shape) != (0,)] or list(self.tensors)

    def output(self) -> Any:
        parts = self.parts
        if self.others or not parts:
            return NotImplemented
        first = parts[0].shape
        dim = wrap(self.dim, parts[0])
        for tensor in parts:
            shape = tensor.shape
            if len(shape) != len(first) or any(
                a != b for i, (a, b) in enumerate(zip(first, shape, strict=True)) if i != dim
            ):
                refused = unequal(parts, f"which must agree in all dimensions but {dim}")
                refused.dim = dim
                raise refused
        out = (*first[:dim], sum([tensor.shape[dim] for tensor in parts]), *first[dim + 1 :])
        dtype = reduce(torch.promote_types, [tensor.dtype for tensor in parts])
        return like_format(out, dtype, *(parts if all(map(in_channels_last, parts)) else ()))

    def sums(self, output: Tensor) -> tuple[str, ...]:
        dim = self.dim % (output.dim() or 1)
        sizes = [tensor.shape[dim] for tensor in self.parts]
        return (f"{' + '.join(map(str, sizes))} = {output.shape[dim]}",) if len(sizes) > 1 else ()

    def origin(self, output: Tensor, step: int) -> Origin:
        parts, dim = self.parts, self.dim % (output.dim() or 1)
        origin = merged(parts, output.dim())
        if len(parts) == 1 or len(origin.dims) != output.dim():
            return origin
        joined = origin.dims[dim]
        summed = tuple([(part.shape[dim], dims_of(part)[dim]) for part in parts])
        made = Dim(joined.axis, step=step, summed=summed)
        if joined.axis is not None and not origin.untouched:
            # Joined along the sides that the windows slide over.
            return without_trail(origin, (*origin.dims[:dim], made, *origin.dims[dim + 1 :]))
        return origin._replace(dims=(*origin.dims[:dim], made, *origin.dims[dim + 1 :]))


@op("stack", torch)
class Stack(Op):
    """Tensors side by side along a new dimension."""

    def __init__(self, tensors: Sequence[Tensor], dim: int = 0) -> None:
        self.tensors, self.dim = tensors, dim

    def output(self) -> Tensor:
        first = self.tensors[0]
        for tensor in self.tensors:
            if tensor.shape != first.shape:
                raise unequal(self.tensors, "which must be equal to be stacked")
        dim = wrap(self.dim, first, extra=1)
        dtype = reduce(torch.promote_types, [tensor.dtype for tensor in self.tensors])
        return new((*first.shape[:dim], len(self.tensors), *first.shape[dim:]), dtype)

    def origin(self, output: Tensor, step: int) -> Origin:
        origin = merged(self.tensors, output.dim() - 1)
        dims = list(origin.dims)
        dims.insert(self.dim % output.dim(), Dim(step=step))
        return without_trail(origin, tuple(dims))


@op("sum mean amax amin var std logsumexp prod")
class Reduction(Op):
    """One number for all those along some dimensions."""

    def __init__(self, input: Tensor, *args: Any, **kwargs: Any) -> None:
        self.input, self.args, self.kwargs = input, args, kwargs

    def _dims(self) -> Any:
        return self.kwargs.get("dim", self.args[0] if self.args else None)

    def _reduced(self) -> set[int]:
        dim = self._dims()
        if dim is None or (isinstance(dim, Sequence) and not dim):
            return set(range(self.input.dim()))
        return {wrap(d, self.input) for d in ((dim,) if isinstance(dim, int) else dim)}

    @property
    def _plain(self) -> bool:
        # A bool in the place of a dimension: `var(unbiased)`.
        return not isinstance(self._dims(), bool) and "axis" not in self.kwargs

    def output(self) -> Any:
        x = self.input
        keepdim = self.kwargs.get("keepdim", self.args[1] if len(self.args) > 1 else False)
        if not x.is_floating_point() or not self._plain:
            return NotImplemented
        gone = self._reduced()
        if not isinstance(keepdim, bool) or not x.is_contiguous():
            return NotImplemented
        shape = [
            1 if i in gone else size for i, size in enumerate(x.shape) if keepdim or i not in gone
        ]
        return new(shape, self.kwargs.get("dtype") or x.dtype)

    def origin(self, output: Tensor, step: int) -> Origin | None:
        if not self._plain:
            return None
        gone, x = self._reduced(), self.input
        kept = output.dim() == x.dim()
        dims = [
            Dim(step=step) if i in gone else dim
            for i, dim in enumerate(dims_of(x))
            if kept or i not in gone
        ]
        return without_trail(origin_of(x), tuple(dims))


@op("max min argmax argmin median any all", object)
class Extremum(Reduction):
    """The largest or smallest along a dimension; torch's own kernel answers it."""

    def output(self) -> Any:
        return NotImplemented

    def origin(self, output: Tensor, step: int) -> Origin | None:
        return None if isinstance(self._dims(), Tensor) else super().origin(output, step)
