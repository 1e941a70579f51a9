"""Normalisation, and functions along one dimension such as softmax."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from blitz_helpers.trace._field import Origin, origin_of
from blitz_helpers.trace._layout import (
    check_rank,
    check_size,
    compute_dtype,
    in_channels_last,
    like_format,
    new,
    wrap,
    wrong_rank,
)
from blitz_helpers.trace._op import Misfit, Op, OpenOp, op
from blitz_helpers.trace.ops.indexing import Part


class _Norm(Op):
    """An operation that keeps the shape of its input and mixes its numbers."""

    input: Tensor

    def origin(self, output: Tensor, step: int) -> Origin:
        return origin_of(self.input)


def _check_channels(x: Tensor, *parameters: Any) -> None:
    """Refuse parameters of another dtype, or without exactly one number for each channel."""
    for parameter in parameters:
        if isinstance(parameter, Tensor):
            check_size(x, 1, parameter.shape[0], "channels", parameter)
    _check_dtypes(x, *parameters)


def _check_dtypes(x: Tensor, *parameters: Any) -> None:
    """Refuse parameters whose dtype differs from that of the input, as torch does."""
    half = x.dtype in (torch.bfloat16, torch.float16)
    for parameter in parameters:
        if isinstance(parameter, Tensor) and not (half and parameter.dtype == torch.float32):
            compute_dtype(x, parameter)


@op("batch_norm")
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
        _check_channels(x, self.running_mean, self.running_var, self.weight, self.bias)
        for running in (self.running_mean, self.running_var):
            if running is not None and running.requires_grad and torch.is_grad_enabled():
                text = "got running statistics that require a gradient, wants them without"
                raise Misfit("other", text, running)
        if self.training and prod(x.shape) // max(1, x.shape[1]) == 1:
            text = f"got {tuple(x.shape)}, one value a channel: training needs more to normalise"
            raise Misfit("average", text, x)
        return like_format(tuple(x.shape), x.dtype, x)


@op("instance_norm local_response_norm")
class ChannelNorm(_Norm, OpenOp):
    """Normalisation within each image."""

    input: Tensor

    def output(self) -> Any:
        x = self.input
        if x.dim() < 2:
            return NotImplemented
        _check_channels(x, *self.args, *self.kwargs.values())
        if not x.is_contiguous() or prod(x.shape[2:]) == 1:
            return NotImplemented  # torch itself sees whether there is enough to average
        return new(x.shape, x.dtype)


@op("group_norm")
class GroupNorm(ChannelNorm):
    """Normalisation of groups of channels within each image."""

    input: Tensor
    num_groups: int

    def output(self) -> Any:
        x = self.input
        output = super().output()
        if in_channels_last(x):
            output = like_format(tuple(x.shape), x.dtype, x)
        if x.dim() > 1 and x.shape[1] % self.num_groups:
            text = f"got {x.shape[1]} channels, which {self.num_groups} groups do not divide"
            raise Misfit("size", text, x, 1, x.shape[1], None, "channels")
        return output


@op("layer_norm rms_norm")
class LayerNorm(_Norm):
    """Normalisation over the last dimensions."""

    input: Tensor
    normalized_shape: Sequence[int]
    weight: Tensor | None = None
    bias: Any = None  # of `rms_norm`: `eps`
    eps: float | None = None

    def output(self) -> Any:
        x, wanted = self.input, tuple(self.normalized_shape)
        last = tuple(x.shape[-len(wanted) :])
        if len(wanted) == 1 and x.dim():
            check_size(x, -1, wanted[0], "features")
        elif last != wanted:
            text = f"got {tuple(x.shape)}, wants {wanted} last"
            if len(last) != len(wanted):
                raise wrong_rank(x, text, len(wanted))
            dim = next(i for i in range(-len(wanted), 0) if last[i] != wanted[i])
            raise Misfit("size", text, x, dim, last[dim], wanted[dim], "last sizes")
        for parameter in (self.weight, self.bias):
            if isinstance(parameter, Tensor) and tuple(parameter.shape) != wanted:
                text = f"wants parameters of shape {wanted}, but got {tuple(parameter.shape)}"
                raise Misfit("other", text, parameter)
        _check_dtypes(x, self.weight, self.bias)
        return NotImplemented if not x.is_contiguous() else new(x.shape, x.dtype)


@op("softmax log_softmax softmin gumbel_softmax normalize cumsum flip")
class Along(Part):
    """A function along one dimension."""

    def output(self) -> Any:
        x = self.input
        dim = self.kwargs.get("dim", self.args[0] if self.args else None)
        if isinstance(dim, int):
            wrap(dim, x)
        if not x.is_contiguous() or not x.is_floating_point():
            return NotImplemented
        return new(x.shape, self.kwargs.get("dtype") or x.dtype)
