"""Pools to a given output size."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from blitz_helpers.shapes import pool_arithmetic
from blitz_helpers.trace._field import Dim, Dims, Origin, fixed, slid, window
from blitz_helpers.trace._layout import (
    per_dimension,
    without_data,
)
from blitz_helpers.trace._op import Misfit, Op
from blitz_helpers.trace.ops.pools import pooled
from blitz_helpers.trace.ops.windows import check_image, for_each_ndim

_sum = lru_cache(maxsize=4096)(pool_arithmetic)


@for_each_ndim("adaptive_max_pool{}d")
class AdaptivePool(Op):
    """A pool to a given output size. If this divides the input size, all windows are equal."""

    ndim = 0
    input: Tensor
    output_size: Any
    return_indices: bool = False

    def output(self) -> Any:
        x = self.input
        check_image(x, self.ndim)
        wanted = per_dimension(self.output_size, self.ndim)
        if len(wanted) != self.ndim:
            text = f"got output_size={self.output_size}, wants an int or {self.ndim} of them"
            raise Misfit("other", text, x)
        sides = x.shape[-self.ndim :]
        out = [size if want is None else want for size, want in zip(sides, wanted, strict=True)]
        made = pooled(x, tuple(out))
        return (made, without_data(made, torch.int64)) if self.return_indices else made

    def _kernels(self, output: Tensor) -> list[int]:
        """Return the size of the windows along each side, 0 if they are not all equal."""
        sides = zip(self.input.shape[-self.ndim :], output.shape[-self.ndim :], strict=False)
        return [size // out if out and size % out == 0 else 0 for size, out in sides]

    def sums(self, output: Tensor) -> tuple[str, ...]:
        sides = zip(self.input.shape[-self.ndim :], self._kernels(output), strict=False)
        return tuple([_sum(size, kernel) for size, kernel in sides if kernel > 1])

    def origin(self, output: Tensor, step: int) -> Origin | None:
        kernels = self._kernels(output)
        if len(kernels) < self.ndim:
            return None

        def move(dims: Dims) -> list[Dim]:
            sides = zip(dims, kernels, output.shape[-self.ndim :], strict=True)
            return [window(dim, size, 0, size - 1, partial(fixed, out)) for dim, size, out in sides]

        return slid(self.input, self.ndim, move if all(kernels) else None)


@for_each_ndim("adaptive_avg_pool{}d")
class AdaptiveAveragePool(AdaptivePool):
    """The mean over windows. For an output size of 1, torch accepts fewer dimensions as well."""

    def output(self) -> Any:
        one = set(per_dimension(self.output_size, self.ndim)) == {1}
        if one and self.input.dim() not in (self.ndim + 1, self.ndim + 2):
            return NotImplemented
        return super().output()
