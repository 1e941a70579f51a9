"""Pools: windows that keep the channels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from blitz_helpers.shapes import pool_arithmetic, pool_fitting_sizes, pool_output_size
from blitz_helpers.trace._field import Origin
from blitz_helpers.trace._layout import (
    Shape,
    Sizes,
    like_format,
    new,
    per_dimension,
    without_data,
)
from blitz_helpers.trace._op import Misfit
from blitz_helpers.trace.ops.windows import Window, check_image, for_each_ndim


def pooled(x: Tensor, sizes: Shape) -> Tensor:
    """Return the output of a pool; torch pools a line as an image of height 1."""
    if len(sizes) == 1:
        return pooled(x.unsqueeze(-2), (1, *sizes)).squeeze(-2)
    shape = (*x.shape[: -len(sizes)], *sizes)
    return new(shape, x.dtype) if len(sizes) == 3 else like_format(shape, x.dtype, x)


@for_each_ndim("max_pool{}d")
class MaxPool(Window):
    """The largest value of each window, and its place if asked for."""

    size_of = staticmethod(pool_output_size)
    sum_of = staticmethod(pool_arithmetic)
    fitting_sizes = staticmethod(pool_fitting_sizes)
    input: Tensor
    kernel_size: Sizes
    stride: Sizes | None = None
    padding: Sizes = 0
    dilation: Sizes = 1
    ceil_mode: bool = False
    return_indices: bool = False

    def settings(self) -> tuple[tuple[Any, ...], ...]:
        kernel, stride = self.kernel_size, self.stride
        given = (kernel, kernel if stride in (None, (), []) else stride, self.padding)
        each = [per_dimension(one, self.ndim) for one in (*given, self.dilation)]
        return *each, (bool(self.ceil_mode),) * self.ndim

    def output(self) -> Any:
        x = self.input
        check_image(x, self.ndim)
        shape = (*x.shape[: -self.ndim], *self.slide.sizes)
        if self.ndim == 1 and not self.return_indices:
            return new(shape, x.dtype)
        out = like_format(shape, x.dtype, x) if self.ndim == 3 else pooled(x, self.slide.sizes)
        return (out, without_data(out, torch.int64)) if self.return_indices else out

    def origin(self, output: Tensor, step: int) -> Origin:
        return self._origin(None)


@for_each_ndim("max_pool{}d_with_indices")
class MaxPoolWithIndices(MaxPool):
    """A max pool that always gives the places."""

    def output(self) -> Any:
        self.return_indices = True
        return super().output()


@for_each_ndim("avg_pool{}d")
class AveragePool(MaxPool):
    """The mean of each window."""

    input: Tensor
    kernel_size: Sizes
    stride: Sizes | None = None
    padding: Sizes = 0
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor_override: int | None = None

    def output(self) -> Any:
        if self.ndim == 3 and self.input.dim() in (4, 5):
            kernels = per_dimension(self.kernel_size, 3)
            for i, (size, kernel) in enumerate(zip(self.input.shape[-3:], kernels, strict=True)):
                if size < kernel:  # torch counts the padding in all pools but this one
                    text = (
                        f"got {tuple(self.input.shape)}: kernel_size={kernel} does not fit an "
                        f"input of {size}, as avg_pool3d counts no padding"
                    )
                    raise Misfit("window", text, self.input, i - 3, size, kernel)
        check_image(self.input, self.ndim)
        return pooled(self.input, self.slide.sizes)
