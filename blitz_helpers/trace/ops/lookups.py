"""Lookups by index: rows of tables, and losses whose targets are class numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from blitz_helpers.trace._field import Dim, Origin, dims_of, last_made, origin_of, without_trail
from blitz_helpers.trace._layout import check_rank, compute_dtype, new, unequal, wrap, wrong_dtype
from blitz_helpers.trace._op import Misfit, OpenOp, op, vmapped
from blitz_helpers.trace._standins import extremes_of, has_values
from blitz_helpers.trace.ops.pointwise import Pointwise


def _check_indices(ids: Tensor, rows: int, table: Tensor, noun: str = "rows") -> None:
    """Refuse indices outside a table with so many rows, if their values are known."""
    if ids.dtype not in (torch.int64, torch.int32):
        raise wrong_dtype(ids, torch.int64, (table,), "indices")
    smallest, largest = extremes_of(ids) or (0, -1)
    if largest >= rows or smallest < 0:
        worst = largest if largest >= rows else smallest
        text = f"got index {worst}, wants one of {rows} {noun}, 0 to {rows - 1}"
        raise Misfit("table", text, ids, None, worst, rows, noun, (table,))


@op("embedding_bag")
class EmbeddingBag(OpenOp):
    """Sums of rows of a table."""

    input: Tensor
    weight: Tensor

    def check(self) -> None:
        check_rank(self.weight, (2,), "dimensions of the table")
        _check_indices(self.input, self.weight.shape[0], self.weight)


@op("embedding")
class Embedding(EmbeddingBag):
    """Rows of a table."""

    def __init__(self, input: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> None:
        if input.is_floating_point() and not weight.is_floating_point():
            input, weight = weight, input  # torch.embedding takes the table first
        super().__init__(input, weight, *args, **kwargs)

    def output(self) -> Tensor:
        return new((*self.input.shape, self.weight.shape[1]), self.weight.dtype)

    def origin(self, output: Tensor, step: int) -> Origin | None:
        return last_made(self.input, output, step)


@op("index_add index_copy index_reduce index_fill scatter_add scatter gather index_select")
class Indexed(OpenOp):
    """Numbers picked or placed by their indices along a dimension."""

    input: Tensor
    dim: int
    index: Tensor
    source: Any = None

    def check(self) -> None:
        x, index, source = self.input, self.index, self.source
        if not isinstance(self.dim, int) or not index.numel():
            return
        dim = wrap(self.dim, x)
        _check_indices(index, x.shape[dim] if x.dim() else 1, x)
        if self.name.startswith(("gather", "scatter")) and 0 < index.dim() != x.dim() > 0:
            text = f"got an index of {tuple(index.shape)} for {tuple(x.shape)}"
            raise Misfit("rank", text, index, None, index.dim(), (x.dim(),), "index", (x,))
        if isinstance(source, Tensor) and source.dim() and source.dtype != x.dtype:
            raise wrong_dtype(source, x.dtype, (x,), "a source")
        if isinstance(source, Tensor) and source.dim() and x.dim() and "index" in self.name:
            check_rank(source, (x.dim(),), "dimensions of the source")
        if not isinstance(source, Tensor) or source.dim() < 2 or index.dim() > 1:
            return
        got, wants = index.numel(), source.shape[dim]
        if got != wants:
            text = f"got {got} indices for {wants} rows of {tuple(source.shape)}"
            raise Misfit("size", text, index, 0, got, wants, "indices", (source,))

    def origin(self, output: Tensor, step: int) -> Origin | None:
        for x in (self.input, self.source):
            if isinstance(x, Tensor) and x.dim() == output.dim() and origin_of(x).depends:
                sizes = zip(dims_of(x), x.shape, output.shape, strict=True)
                dims = [dim if old == now else Dim(step=step) for dim, old, now in sizes]
                return without_trail(origin_of(x), tuple(dims))
        return None


@op("one_hot")
class OneHot(OpenOp):
    """A row for each class number."""

    input: Tensor
    num_classes: int = -1

    def check(self) -> None:
        if self.input.dtype != torch.int64:
            raise wrong_dtype(self.input, torch.int64, (), "classes")
        if self.num_classes > 0:
            _check_indices(self.input, self.num_classes, self.input, "classes")


@op("nll_loss", takes_probabilities=False)
@op("cross_entropy", takes_probabilities=True)
class ClassLoss(OpenOp):
    """A loss of scores against class numbers. The classes are dimension 1, or the only one."""

    takes_probabilities = False
    input: Tensor
    target: Tensor
    weight: Any = None
    size_average: Any = None
    ignore_index: int = -100

    def check(self) -> None:
        x, target = self.input, self.target
        wants = (*x.shape[: x.dim() > 1], *x.shape[2:])
        floating = target.dtype.is_floating_point
        if floating and self.takes_probabilities and target.shape == x.shape:
            return
        if target.shape == x.shape and x.dim() > 1 and self.takes_probabilities:
            raise wrong_dtype(target, x.dtype, (x,), "a target")
        if tuple(target.shape) != wants:
            text = f"got {tuple(x.shape)} and a target of {tuple(target.shape)}, wants {wants}"
            raise Misfit("unequal", text, target, None, noun="target", others=(x, target))
        if target.dtype not in (torch.int64, torch.uint8):
            raise wrong_dtype(target, torch.int64, (x,), "a target")
        if has_values(target) and not vmapped():  # masks do not work under `vmap`
            classes = x.shape[1] if x.dim() > 1 else x.shape[0]
            _check_indices(target[target != self.ignore_index].long(), classes, x, "classes")

    def origin(self, output: Tensor, step: int) -> Origin | None:
        return without_trail(origin_of(self.input), (Dim(step=step),) * output.dim())


@op("binary_cross_entropy binary_cross_entropy_with_logits")
class BinaryCrossEntropy(OpenOp):
    """A loss of numbers against truth values, element by element."""

    input: Tensor
    target: Tensor

    def check(self) -> None:
        if self.input.shape != self.target.shape:
            raise unequal((self.input, self.target), "which must be equal")
        if not self.target.is_floating_point():
            raise wrong_dtype(self.target, self.input.dtype, (self.input,), "a target")
        if self.name == "binary_cross_entropy":  # the other one converts its target
            compute_dtype(self.target, self.input)


@op("bucketize")
class Buckets(Pointwise):
    """The places of numbers among boundaries."""

    def check(self) -> None:
        check_rank(self.operands[1], (1,), "dimension of the boundaries")

    def origin(self, output: Tensor, step: int) -> Origin:
        return origin_of(self.input)
