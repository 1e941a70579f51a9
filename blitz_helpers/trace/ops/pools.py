"""Pools: windows that keep the channels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from blitz_helpers.shapes import (
    pool_arithmetic,
    pool_output_size,
)
from blitz_helpers.trace._field import Origin, SizeRule, slid, spatial, window
from blitz_helpers.trace._layout import (
    Shape,
    Sizes,
    like_format,
    per_dimension,
    without_data,
)
from blitz_helpers.trace._op import Misfit, Op
from blitz_helpers.trace.ops.windows import check_image, fitted, register, slides

_pool_size = lru_cache(maxsize=4096)(pool_output_size)
_pool_sum = lru_cache(maxsize=4096)(pool_arithmetic)


class _Pool(Op):
    """A pool: a window that keeps the channels."""

    ndim = 0
    input: Tensor
    kernel_size: Sizes
    stride: Sizes | None
    padding: Sizes
    dilation: Sizes = 1
    ceil_mode: bool

    @cached_property
    def _settings(self) -> tuple[Shape, Shape, Shape, Shape]:
        ndim = self.ndim
        kernel = per_dimension(self.kernel_size, ndim)
        stride = self.stride
        empty = stride is None or (not isinstance(stride, int) and not tuple(stride))
        return (
            kernel,
            kernel if empty else per_dimension(stride, ndim),  # type: ignore[arg-type]  # not None
            per_dimension(self.padding, ndim),
            per_dimension(self.dilation, ndim),
        )

    def output(self) -> Any:
        x = self.input
        check_image(x, self.ndim)
        out = fitted(x, self.ndim, _pool_size, *self._settings, self.ceil_mode)
        return like_format((*x.shape[: -self.ndim], *out), x.dtype, x)

    @cached_property
    def _explained(self) -> tuple[tuple[str, ...], list[SizeRule]]:
        sizes = tuple(self.input.shape[-self.ndim :])
        mode = bool(self.ceil_mode)
        return slides(pool_arithmetic, pool_output_size, sizes, *self._settings, ceil_mode=mode)

    def sums(self, output: Tensor) -> tuple[str, ...]:
        return self._explained[0]

    def origin(self, output: Tensor, step: int) -> Origin:
        axes = spatial(self.input, self.ndim)
        if axes is not None:
            axes = list(map(window, axes, *self._settings, self._explained[1]))
        return slid(self.input, axes, self.ndim, None)


@dataclass(eq=False)
class MaxPool(_Pool):
    """The largest value of each window, and where it stood if asked for."""

    input: Tensor
    kernel_size: Sizes
    stride: Sizes | None = None
    padding: Sizes = 0
    dilation: Sizes = 1
    ceil_mode: bool = False
    return_indices: bool = False

    def output(self) -> Any:
        out = super().output()
        return (out, without_data(out, torch.int64)) if self.return_indices else out


class MaxPoolWithIndices(MaxPool):
    """A max pool that gives the places, too."""

    def output(self) -> Any:
        self.return_indices = True
        return super().output()


@dataclass(eq=False)
class AveragePool(_Pool):
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
                if size < kernel:  # torch: here alone the padding does not help
                    text = (
                        f"got {tuple(self.input.shape)}: kernel_size={kernel} does not fit an "
                        f"input of {size}, as avg_pool3d counts no padding"
                    )
                    raise Misfit("window", text, self.input, i - 3, size, kernel)
        return super().output()


def _fixed(output_size: int, _: int) -> int:
    return output_size


@dataclass(eq=False)
class AdaptivePool(Op):
    """A pool to a size of output; where that divides the input, its windows are all equal."""

    input: Tensor
    output_size: Any
    return_indices: bool = False
    ndim = 0

    def output(self) -> Any:
        x = self.input
        check_image(x, self.ndim)
        wanted = per_dimension(self.output_size, self.ndim)
        if len(wanted) != self.ndim:
            text = f"got output_size={self.output_size}, wants an int or {self.ndim} of them"
            raise Misfit("other", text, x)
        sides = x.shape[-self.ndim :]
        out = [size if want is None else want for size, want in zip(sides, wanted, strict=True)]
        made = like_format((*x.shape[: -self.ndim], *out), x.dtype, x)
        return (made, without_data(made, torch.int64)) if self.return_indices else made

    def _sides(self, output: Tensor) -> list[tuple[int, int, int, bool]]:
        """Return of each side: its size, that of the output, the window's, whether it divides."""
        found = []
        for size, out in zip(self.input.shape[-self.ndim :], output.shape[-self.ndim :]):  # noqa: B905  # both have `ndim`
            divides = out > 0 and size % out == 0
            found.append((size, out, size // out if divides else _largest(size, out), divides))
        return found

    def sums(self, output: Tensor) -> tuple[str, ...]:
        if output.dim() < self.ndim or self.input.dim() < self.ndim:
            return ()
        sides = self._sides(output)
        return tuple([_pool_sum(s, side) for s, _, side, divides in sides if divides and side > 1])

    def origin(self, output: Tensor, step: int) -> Origin | None:
        if output.dim() < self.ndim or self.input.dim() < self.ndim:
            return None
        axes = spatial(self.input, self.ndim)
        sides = self._sides(output)
        if axes is not None and all(divides or out == 1 for _, out, _, divides in sides):
            axes = [
                window(axis, side, side, 0, 1, partial(_fixed, out))
                for axis, (_, out, side, _) in zip(axes, sides, strict=True)
            ]
        else:
            axes = None
        return slid(self.input, axes, self.ndim, None)


class AdaptiveAveragePool(AdaptivePool):
    """The mean over windows; to one position torch takes fewer dimensions as well."""

    def output(self) -> Any:
        one = set(per_dimension(self.output_size, self.ndim)) == {1}
        if one and self.input.dim() not in (self.ndim + 1, self.ndim + 2):
            return NotImplemented
        return super().output()


def _largest(size: int, out: int) -> int:
    """Return the largest of the windows of an adaptive pool."""
    return max((-(-(i + 1) * size // out) - i * size // out for i in range(out)), default=0)


for _ndim in (1, 2, 3):
    register(MaxPool, f"max_pool{_ndim}d", (torch, F), _ndim)
    register(AveragePool, f"avg_pool{_ndim}d", (torch, F), _ndim)
    register(MaxPoolWithIndices, f"max_pool{_ndim}d_with_indices", (F,), _ndim)
    register(AdaptiveAveragePool, f"adaptive_avg_pool{_ndim}d", (F, torch), _ndim)
    register(AdaptivePool, f"adaptive_max_pool{_ndim}d", (F,), _ndim)
