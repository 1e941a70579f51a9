"""Transposed convolutions, and convolutions that may be transposed."""

from __future__ import annotations

from math import prod
from typing import Any

from torch import Tensor

from blitz_helpers.shapes import conv_transpose_arithmetic, conv_transpose_output_size
from blitz_helpers.trace._field import upsampling
from blitz_helpers.trace._layout import Shape, Sizes, per_dimension
from blitz_helpers.trace._op import Op, op
from blitz_helpers.trace.ops.windows import Convolution, for_each_ndim


def _transposed_fitting_sizes(out: int, kernel: int, stride: int, pad: int, *others: int) -> range:
    """Return sizes that give ``out`` or more, from the smallest on."""
    enough = out + 2 * pad
    made = conv_transpose_output_size(enough, kernel, stride, pad, *others)
    return range(enough - (made - out) // stride, enough + 1)


@for_each_ndim("conv_transpose{}d")
class TransposedConvolution(Convolution):
    """A transposed convolution over the last dimensions of its input."""

    size_of = staticmethod(conv_transpose_output_size)
    sum_of = staticmethod(conv_transpose_arithmetic)
    fitting_sizes = staticmethod(_transposed_fitting_sizes)
    moved = staticmethod(upsampling)
    input: Tensor
    weight: Tensor
    bias: Tensor | None = None
    stride: Sizes = 1
    padding: Sizes = 0
    output_padding: Sizes = 0
    groups: int = 1
    dilation: Sizes = 1

    def settings(self) -> tuple[tuple[Any, ...], ...]:
        given = (self.stride, self.padding, self.output_padding, self.dilation)
        return tuple(self.weight.shape[2:]), *(per_dimension(one, self.ndim) for one in given)

    def channels(self) -> tuple[int, int]:
        return self.weight.shape[0], self.weight.shape[1] * self.groups

    @staticmethod
    def reach(kernel_size: int, stride: int, padding: int, _: Any, dilation: int) -> Shape:  # type: ignore[override]  # of other settings
        return stride, dilation * (kernel_size - 1) - padding, padding

    def macs(self, output: Tensor) -> int:
        return self.input.numel() * prod(self.weight.shape[1:])


@op("convolution _convolution")
def any_convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    transposed: bool,
    output_padding: Sizes,
    groups: int,
    *_flags: bool,
) -> Op:
    """Return the class behind a convolution in an exported program, transposed or not."""
    if transposed:
        settings = (stride, padding, output_padding, groups, dilation)
        call: Convolution = TransposedConvolution(input, weight, bias, *settings)
    else:
        call = Convolution(input, weight, bias, stride, padding, dilation, groups)
    call.ndim = weight.dim() - 2
    return call
