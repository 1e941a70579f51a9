"""Normalisation, and softmax and its like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from blitz_helpers.trace._field import Origin, origin_of
from blitz_helpers.trace._layout import (
    check_norm_dtypes,
    check_rank,
    check_size,
    like_format,
    new,
    wrap,
)
from blitz_helpers.trace._op import Misfit, Op, op
from blitz_helpers.trace.ops.views import along


class _Norm(Op):
    """An operation that keeps the shape of its input and mixes numbers of it."""

    input: Tensor

    def origin(self, output: Tensor, step: int) -> Origin:
        return origin_of(self.input)


def _check_average(x: Tensor, count: int) -> None:
    """Refuse to normalise one number alone, whose variance is 0."""
    if count == 1:
        text = f"got {tuple(x.shape)}, one value a channel: training needs more to normalise"
        raise Misfit("average", text, x)


@op("batch_norm", F)
@dataclass(eq=False)
class BatchNorm(_Norm):
    """Normalisation of each channel over the batch."""

    input: Tensor
    running_mean: Tensor | None
    running_var: Tensor | None
    weight: Tensor | None = None
    bias: Tensor | None = None
    training: bool = False
    momentum: float = 0.1
    eps: float = 1e-5

    def output(self) -> Tensor:
        x = self.input
        if x.dim() < 2:
            check_rank(x, (2, 3, 4, 5))
        for tensor in (self.running_mean, self.weight, self.bias):
            if tensor is not None:
                check_size(x, 1, tensor.shape[0], "channels", tensor)
        if self.training:
            _check_average(x, prod(x.shape) // max(1, x.shape[1]))
        check_norm_dtypes(x, self.running_mean, self.weight)
        return like_format(tuple(x.shape), x.dtype, x)


@op("instance_norm local_response_norm", F)
class ChannelNorm(_Norm):
    """Normalisation within each image."""

    def __init__(self, input: Tensor, *args: Any, **kwargs: Any) -> None:
        self.input, self.args, self.kwargs = input, args, kwargs

    def output(self) -> Any:
        x = self.input
        per_channel = [t for t in (*self.args, *self.kwargs.values()) if isinstance(t, Tensor)]
        if x.dim() < 2:
            return NotImplemented
        for tensor in per_channel:
            check_size(x, 1, tensor.shape[0], "channels", tensor)
        check_norm_dtypes(x, *per_channel)
        if not x.is_contiguous() or prod(x.shape[2:]) == 1:
            return NotImplemented  # torch itself sees whether there is enough to average
        return new(x.shape, x.dtype)


@op("group_norm", F)
class GroupNorm(ChannelNorm):
    """Normalisation of groups of channels within each image."""

    def __init__(self, input: Tensor, num_groups: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(input, *args, **kwargs)
        self.num_groups = num_groups

    def output(self) -> Any:
        x = self.input
        if x.dim() < 2:
            return NotImplemented  # torch refuses it
        output = super().output()
        if x.shape[1] % self.num_groups:
            text = f"got {x.shape[1]} channels, which {self.num_groups} groups do not divide"
            raise Misfit("size", text, x, 1, x.shape[1], None, "channels")
        return output


@op("layer_norm rms_norm", F)
class LayerNorm(_Norm):
    """Normalisation over the last dimensions."""

    def __init__(
        self,
        input: Tensor,
        normalized_shape: Sequence[int],
        weight: Tensor | None = None,
        bias: Any = None,
        eps: float | None = None,
    ) -> None:
        self.input, self.wanted, self.weight = input, tuple(normalized_shape), weight

    def output(self) -> Any:
        x, wanted = self.input, self.wanted
        last = tuple(x.shape[-len(wanted) :])
        if len(wanted) == 1 and x.dim():
            check_size(x, -1, wanted[0], "features")
        elif last != wanted:
            text = f"got {tuple(x.shape)}, wants {wanted} last"
            off = [i for i, (a, b) in enumerate(zip(last, wanted, strict=False)) if a != b]
            if len(last) == len(wanted) and off:
                dim = off[0] - len(wanted)
                raise Misfit("size", text, x, dim, last[off[0]], wanted[off[0]], "last sizes")
            raise Misfit("rank", text, x, None, x.dim(), (len(wanted),))
        check_norm_dtypes(x, self.weight)
        return NotImplemented if not x.is_contiguous() else new(x.shape, x.dtype)

    def origin(self, output: Tensor, step: int) -> Origin:
        return origin_of(self.input)


@op("softmax log_softmax softmin gumbel_softmax normalize cumsum flip")
class Along(Op):
    """A function along one dimension."""

    def __init__(self, input: Tensor, *args: Any, **kwargs: Any) -> None:
        self.input, self.args, self.kwargs = input, args, kwargs

    def output(self) -> Any:
        x, dtype = self.input, self.kwargs.get("dtype")
        dim = self.kwargs.get("dim", self.args[0] if self.args else None)
        if isinstance(dim, int):
            wrap(dim, x)
        given = self.kwargs.get("out") is not None
        if not x.is_contiguous() or given or not x.is_floating_point():
            return NotImplemented
        return new(x.shape, dtype or x.dtype)

    def origin(self, output: Tensor, step: int) -> Origin | None:
        return along(self.input, output, step)
