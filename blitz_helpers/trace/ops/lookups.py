"""Tables that are looked up by index, and losses that are told classes by index."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from blitz_helpers.trace._field import Dim, Origin, dims_of, origin_of, without_trail
from blitz_helpers.trace._layout import new, unequal, wrap, wrong_dtype
from blitz_helpers.trace._op import Misfit, Op, op
from blitz_helpers.trace._standins import has_values


def _check_indices(ids: Tensor, rows: int, others: tuple[Tensor, ...], noun: str = "rows") -> None:
    """Refuse indices past either end of a table of so many rows, where their values are known."""
    if not has_values(ids) or not ids.numel() or ids.dtype == torch.bool:
        return
    largest, smallest = int(ids.max()), int(ids.min())
    if largest >= rows or smallest < 0:
        worst = largest if largest >= rows else smallest
        text = f"got index {worst}, wants one of {rows} {noun}, 0 to {rows - 1}"
        raise Misfit("table", text, ids, None, worst, rows, noun, others)


@op("embedding", F, torch)
class Embedding(Op):
    """Rows of a table."""

    def __init__(self, input: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> None:
        if input.is_floating_point() and not weight.is_floating_point():
            input, weight = weight, input  # torch.embedding takes the table first
        self.ids, self.weight = input, weight

    def check(self) -> None:
        if self.ids.dtype not in (torch.int64, torch.int32):
            raise wrong_dtype(self.ids, torch.int64, (self.weight,), "indices")
        _check_indices(self.ids, self.weight.shape[0], (self.weight,))

    def output(self) -> Tensor:
        self.check()
        return new((*self.ids.shape, self.weight.shape[1]), self.weight.dtype)

    def origin(self, output: Tensor, step: int) -> Origin | None:
        return without_trail(origin_of(self.ids), (*dims_of(self.ids), Dim(step=step)))


@op("embedding_bag", F)
class EmbeddingBag(Op):
    """Sums of rows of a table."""

    def __init__(self, input: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> None:
        self.ids, self.weight = input, weight

    def check(self) -> None:
        if self.ids.dtype not in (torch.int64, torch.int32):
            raise wrong_dtype(self.ids, torch.int64, (self.weight,), "indices")
        _check_indices(self.ids, self.weight.shape[0], (self.weight,))


@op("index_add index_copy index_reduce scatter_add scatter gather index_select", torch, Tensor)
class Indexed(Op):
    """Numbers picked or placed by their indices along a dimension."""

    def __init__(self, input: Tensor, dim: int, index: Tensor, *args: Any, **kwargs: Any) -> None:
        source = kwargs.get("source", args[0] if args else None)
        self.input, self.dim, self.index, self.source = input, dim, index, source

    def check(self) -> None:
        if not isinstance(self.dim, int):
            return
        dim = wrap(self.dim, self.input)
        if self.index.dtype not in (torch.int64, torch.int32):
            raise wrong_dtype(self.index, torch.int64, (self.input,), "indices")
        _check_indices(self.index, self.input.shape[dim], (self.input,))
        source = self.source
        if not isinstance(source, Tensor) or source.dim() < 2 or self.index.dim() > 1:
            return
        if source.shape[dim] != self.index.numel():
            got = self.index.numel()
            text = f"got {got} indices for {source.shape[dim]} rows of {tuple(source.shape)}"
            wants = source.shape[dim]
            raise Misfit("size", text, self.index, 0, got, wants, "indices", (source,))


class _ClassLoss(Op):
    """A loss that takes the scores of classes, dimension 1 or the only one, and the classes."""

    probabilities = False

    def __init__(self, input: Tensor, target: Tensor, *args: Any, **kwargs: Any) -> None:
        self.input, self.target = input, target
        given = kwargs.get("ignore_index", args[2] if len(args) > 2 else -100)
        self.ignored = given

    def check(self) -> None:
        x, target = self.input, self.target
        batch = tuple(x.shape[:1]) if x.dim() > 1 else ()
        wants = (*batch, *x.shape[2:])
        floating = target.dtype.is_floating_point
        if floating and self.probabilities and target.shape == x.shape:
            return
        if tuple(target.shape) != wants:
            text = f"got {tuple(x.shape)} and a target of {tuple(target.shape)}, wants {wants}"
            raise Misfit("unequal", text, target, None, noun="target", others=(x, target))
        if target.dtype not in (torch.int64, torch.uint8):
            raise wrong_dtype(target, torch.int64, (x,), "a target")
        classes = x.shape[1] if x.dim() > 1 else x.shape[0]
        if has_values(target):
            _check_indices(target[target != self.ignored], classes, (x,), "classes")

    def origin(self, output: Tensor, step: int) -> Origin | None:
        return without_trail(origin_of(self.input), (Dim(step=step),) * output.dim())


@op("nll_loss", F)
class NegativeLogLikelihood(_ClassLoss):
    """The negative logarithm of the probability of the right class."""


@op("cross_entropy", F)
class CrossEntropy(_ClassLoss):
    """The same from scores; the target may also be probabilities."""

    probabilities = True


@op("binary_cross_entropy binary_cross_entropy_with_logits", F)
class BinaryCrossEntropy(Op):
    """A loss of numbers against truth values, element by element."""

    def __init__(self, input: Tensor, target: Tensor, *args: Any, **kwargs: Any) -> None:
        self.input, self.target = input, target

    def check(self) -> None:
        if self.input.shape != self.target.shape:
            raise unequal((self.input, self.target), "which must be equal")
