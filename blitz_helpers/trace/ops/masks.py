"""Masks: filled in, turned around, or drawn at random."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from blitz_helpers.trace._field import Origin, origin_of
from blitz_helpers.trace._layout import elementwise, new, wrong_dtype
from blitz_helpers.trace._op import Op, op
from blitz_helpers.trace.ops.pointwise import Elementwise


@op("dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout")
class Dropout(Op):
    """Random zeros."""

    input: Tensor
    p: float = 0.5
    training: bool = True
    inplace: bool = False

    def output(self) -> Tensor:
        same = self.inplace or not self.training
        return self.input if same else elementwise((self.input,), self.input.dtype)

    def origin(self, output: Tensor, step: int) -> Origin:
        return origin_of(self.input)


@op("masked_fill")
class MaskedFill(Elementwise):
    """One value wherever a mask is set."""

    def check(self) -> None:
        mask = self.operands[1]
        if mask.dtype != torch.bool:
            raise wrong_dtype(mask, torch.bool, noun="a mask")

    def output(self) -> Any:
        return new(super().output().shape, self.input.dtype)  # torch fills a contiguous copy


@op("invert bitwise_not")
class Invert(Elementwise):
    """Truth values turned around, or the bits of whole numbers."""

    def check(self) -> None:
        if self.input.is_floating_point() or self.input.is_complex():
            raise wrong_dtype(self.input, torch.bool, noun="a mask")
