"""Products with the last dimension of a tensor: linear layers and matrix products."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from blitz_helpers.trace._field import (
    UNKNOWN,
    Dim,
    Origin,
    dims_of,
    origin_of,
    without_trail,
)
from blitz_helpers.trace._layout import (
    broadcast,
    check_size,
    compute_dtype,
    new,
    unequal,
    wrong_rank,
)
from blitz_helpers.trace._op import Misfit, Op, op


@op("inner")
class Product(Op):
    """Sums of products over the last dimension of the input."""

    input: Tensor
    other: Tensor

    def macs(self, output: Tensor) -> int:
        return output.numel() * self.input.shape[-1] if self.input.dim() else output.numel()


@op("linear")
class Linear(Product):
    """A linear layer: a product with the last dimension."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None = None

    def output(self) -> Any:
        x, weight = self.input, self.weight
        if not x.dim() or not weight.dim():
            raise wrong_rank(x, "got a number, wants at least one dimension", 1)
        if weight.dim() != 2:
            return NotImplemented
        out_features, in_features = weight.shape
        check_size(x, -1, in_features, "features", weight)
        if self.bias is not None and self.bias.shape not in ((out_features,), (1,), ()):
            text = f"got a bias of {tuple(self.bias.shape)}, wants ({out_features},)"
            raise Misfit("other", text, self.bias)
        return new((*x.shape[:-1], out_features), compute_dtype(x, weight, self.bias))

    def origin(self, output: Tensor, step: int) -> Origin | None:
        if self.weight.dim() != 2:
            return None
        origin, dims = origin_of(self.input), dims_of(self.input)
        made = (*dims[:-1], Dim(step=step))
        if origin.traced and not origin.untouched and dims[-1].axis is None:
            return Origin(origin.device, origin.depends, made, True)
        return without_trail(origin, made)


@op("matmul")
@op("mm", ranks=(2, 2))
@op("bmm", ranks=(3, 3))
@op("mv", ranks=(2, 1))
@op("dot vdot", ranks=(1, 1))
class MatMul(Product):
    """A matrix product. ``ranks`` are the numbers of dimensions that the operands must have."""

    ranks: ClassVar[tuple[int, ...]] = ()
    input: Tensor
    other: Tensor
    out_dtype: torch.dtype | None = None

    def output(self) -> Any:
        a, b = self.input, self.other
        left, right = tuple(a.shape), tuple(b.shape)
        for tensor, rank in zip((a, b), self.ranks, strict=False):
            if tensor.dim() != rank:
                wants = " and ".join(map(str, dict.fromkeys(self.ranks)))
                text = f"got {left} and {right}, wants {wants} dimensions"
                raise wrong_rank(tensor, text, rank)
        if not left or not right:
            text = f"got {left} and {right}, wants at least one dimension in both"
            raise wrong_rank(b if left else a, text, 1)
        if self.ranks == (3, 3) and left[0] != right[0]:
            raise unequal((a, b), f"whose batches are {left[0]} and {right[0]}")
        inner = right[-2:][0]
        if left[-1] != inner:
            text = f"got {left} @ {right}, whose inner sizes are {left[-1]} and {inner}"
            raise Misfit("size", text, a, -1, left[-1], inner, "inner", [b])
        batch = broadcast((a, b), 2) if len(left) > 2 or len(right) > 2 else ()
        dtype = self.out_dtype or compute_dtype(a, b)
        return new((*batch, *left[-2:-1], *(right[-1:] if len(right) > 1 else ())), dtype)

    def origin(self, output: Tensor, step: int) -> Origin | None:
        left, right = dims_of(self.input), dims_of(self.other)
        columns = right[-1:] if len(right) > 1 else ()
        lead = right[:-2] if len(right) > len(left) else left[:-2]
        origin = origin_of(self.input)
        if not origin.depends:
            origin = origin_of(self.other)
        if len(right) == 2 and columns == (UNKNOWN,):
            columns = (Dim(step=step),)
        return without_trail(origin, (*lead, *left[-2:-1], *columns)[-output.dim() or 1 :])
