"""Windows that slide: convolutions and transposed convolutions, and what pools share with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from blitz_helpers.shapes import (
    conv_arithmetic,
    conv_output_size,
    conv_transpose_arithmetic,
    conv_transpose_output_size,
)
from blitz_helpers.trace._field import Dim, Origin, SizeRule, slid, spatial, upsampling, window
from blitz_helpers.trace._layout import (
    Shape,
    Sizes,
    compute_dtype,
    like_format,
    per_dimension,
)
from blitz_helpers.trace._op import Misfit, Op, op

# The formulas themselves; networks ask the same few questions over and over.
_conv_size = lru_cache(maxsize=4096)(conv_output_size)
_conv_transpose_size = lru_cache(maxsize=4096)(conv_transpose_output_size)
_conv_transpose_sum = lru_cache(maxsize=4096)(conv_transpose_arithmetic)
AXES = {1: "L", 2: "H, W", 3: "D, H, W"}


@lru_cache(maxsize=1024)
def _formula(function: Callable[..., int], **settings: Any) -> SizeRule:
    return partial(function, **settings)


@lru_cache(maxsize=4096)
def slides(
    sum_of: Callable[..., str],
    formula: Callable[..., int],
    sizes: Shape,
    *settings: tuple[Any, ...],
    **mode: bool,
) -> tuple[tuple[str, ...], list[SizeRule]]:
    """Return the sum and the size formula of each dimension that a window slides over."""
    names = ("kernel_size", "stride", "padding", "dilation")
    each = [dict(zip(names, one, strict=True)) | mode for one in zip(*settings, strict=True)]
    sums = tuple([sum_of(size, **one) for size, one in zip(sizes, each, strict=True)])
    return sums, [partial(formula, **one) for one in each]


def fitted(x: Tensor, ndim: int, sizes: Callable[..., Any], *settings: Any) -> Shape:
    """Return the sizes of the output, or refuse the first side that is too small."""
    sides = tuple(x.shape[-ndim:])
    try:
        return sizes(sides, *settings)  # type: ignore[no-any-return]  # a tuple for a tuple
    except ValueError as error:
        text = str(error).split("\n")[0].rstrip(".")
        each = [value if isinstance(value, tuple) else (value,) * ndim for value in settings]
        for i, side in enumerate(sides):
            own = [value[i] for value in each]
            least = _least(sizes, side, own)
            if least is not None:
                got = f"got {tuple(x.shape)}: {text.split(':')[0]}"
                raise Misfit("window", got, x, i - ndim, side, least) from None
        raise Misfit("other", f"got {tuple(x.shape)}: {text}", x) from None


def _least(sizes: Callable[..., Any], side: int, settings: list[Any]) -> int | None:
    """Return the smallest side that fits where this one does not; ``None`` where it is no matter.

    A side fits from some size on, so that a search by halves finds it.
    """

    def fits(size: int) -> bool:
        try:
            sizes(size, *settings)
        except ValueError:
            return False
        return True

    low, high = side, side + 1
    if fits(side):
        return None
    while not fits(high):
        if high > 1 << 20:
            return None
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def check_image(x: Tensor, ndim: int, channels: int | None = None) -> None:
    """Refuse an input that is neither one image of ``ndim`` dimensions nor a batch of them."""
    if x.dim() not in (ndim + 1, ndim + 2):
        named = "" if channels is None else f" with C = {channels}"
        text = f"got {tuple(x.shape)}, wants (N, C, {AXES[ndim]}) or (C, {AXES[ndim]}){named}"
        allowed = (ndim + 1, ndim + 2)
        raise Misfit("rank", text, x, None, x.dim(), allowed, "dimensions", channels=channels)


def _check_channels(x: Tensor, ndim: int, wants: int, weight: Tensor) -> None:
    check_image(x, ndim, wants)
    if x.shape[-ndim - 1] != wants:
        text = f"got {x.shape[-ndim - 1]} channels of {tuple(x.shape)}, wants {wants}"
        got = x.shape[-ndim - 1]
        raise Misfit("size", text, x, -ndim - 1, got, wants, "channels", [weight])


def _check_kernel(
    ndim: int, weight: Tensor, bias: Tensor | None, out_channels: int, groups: int
) -> None:
    if weight.dim() != ndim + 2:
        shape = tuple(weight.shape)
        text = f"wants a weight of {ndim + 2} dimensions, but got {weight.dim()}: {shape}"
        raise Misfit("other", text, weight)
    if groups < 1 or weight.shape[0] % groups:
        text = f"groups={groups} does not divide its weight of {tuple(weight.shape)}"
        raise Misfit("other", text, weight)
    if bias is not None and bias.shape != (out_channels,):
        text = f"wants a bias of shape ({out_channels},), but got {tuple(bias.shape)}"
        raise Misfit("other", text, bias)


@dataclass(eq=False)
class Convolution(Op):
    """A convolution over the last dimensions of its input."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None = None
    stride: Sizes = 1
    padding: Sizes | str = 0
    dilation: Sizes = 1
    groups: int = 1
    ndim = 0

    def __post_init__(self) -> None:
        """Write each setting as one number a dimension."""
        ndim = self.ndim or self.weight.dim() - 2
        self.count = ndim
        self.strides = per_dimension(self.stride, ndim)
        self.dilations = per_dimension(self.dilation, ndim)
        self.pads: Any = (
            self.padding if isinstance(self.padding, str) else per_dimension(self.padding, ndim)
        )

    def output(self) -> Tensor:
        x, weight, ndim = self.input, self.weight, self.count
        shape, kernel = x.shape, weight.shape
        _check_kernel(ndim, weight, self.bias, kernel[0], self.groups)
        _check_channels(x, ndim, kernel[1] * self.groups, weight)
        dtype = compute_dtype(x, weight, self.bias)
        settings = (tuple(kernel[2:]), self.strides, self.pads, self.dilations)
        out = fitted(x, ndim, _conv_size, *settings)
        return like_format((*shape[: -ndim - 1], kernel[0], *out), dtype, x, weight)

    @cached_property
    def _explained(self) -> tuple[tuple[str, ...], list[SizeRule]]:
        kernel = tuple(self.weight.shape[2:])
        pads = (self.pads,) * self.count if isinstance(self.pads, str) else self.pads
        sizes = tuple(self.input.shape[-self.count :])
        settings = (kernel, self.strides, pads, self.dilations)
        return slides(conv_arithmetic, conv_output_size, sizes, *settings)

    def sums(self, output: Tensor) -> tuple[str, ...]:
        return self._explained[0]

    def macs(self, output: Tensor) -> int:
        return output.numel() * prod(self.weight.shape[1:])

    def origin(self, output: Tensor, step: int) -> Origin:
        axes = spatial(self.input, self.count)
        if axes is not None:
            kernel = self.weight.shape[2:]
            before = self.pads
            if self.pads == "same":  # the smaller half stands before the input
                before = [d * (k - 1) // 2 for k, d in zip(kernel, self.dilations, strict=True)]
            elif self.pads == "valid":
                before = (0,) * self.count
            formulas = self._explained[1]
            axes = list(map(window, axes, kernel, self.strides, before, self.dilations, formulas))
        return slid(self.input, axes, self.count, Dim(step=step))


@dataclass(eq=False)
class TransposedConvolution(Op):
    """A transposed convolution over the last dimensions of its input."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None = None
    stride: Sizes = 1
    padding: Sizes = 0
    output_padding: Sizes = 0
    groups: int = 1
    dilation: Sizes = 1
    ndim = 0

    def __post_init__(self) -> None:
        """Write each setting as one number a dimension."""
        self.count = ndim = self.ndim or self.weight.dim() - 2
        self.settings = [
            tuple(self.weight.shape[2:]),
            per_dimension(self.stride, ndim),
            per_dimension(self.padding, ndim),
            per_dimension(self.output_padding, ndim),
            per_dimension(self.dilation, ndim),
        ]

    def output(self) -> Tensor:
        x, weight, ndim = self.input, self.weight, self.count
        shape, kernel = x.shape, weight.shape
        _check_kernel(ndim, weight, self.bias, kernel[1] * self.groups, self.groups)
        _check_channels(x, ndim, kernel[0], weight)
        dtype = compute_dtype(x, weight, self.bias)
        out = fitted(x, ndim, _conv_transpose_size, *self.settings)
        channels = kernel[1] * self.groups
        return like_format((*shape[: -ndim - 1], channels, *out), dtype, x, weight)

    def sums(self, output: Tensor) -> tuple[str, ...]:
        sizes = self.input.shape[-self.count :]
        return tuple(map(_conv_transpose_sum, sizes, *self.settings))

    def macs(self, output: Tensor) -> int:
        return self.input.numel() * prod(self.weight.shape[1:])

    def origin(self, output: Tensor, step: int) -> Origin:
        axes = spatial(self.input, self.count)
        if axes is not None:
            each = zip(*self.settings, strict=True)
            axes = [
                upsampling(
                    axis,
                    factor=s,
                    before=d * (k - 1) - p,
                    after=p,
                    formula=_formula(
                        conv_transpose_output_size,
                        kernel_size=k,
                        stride=s,
                        padding=p,
                        output_padding=o,
                        dilation=d,
                    ),
                )
                for axis, (k, s, p, o, d) in zip(axes, each, strict=True)
            ]
        return slid(self.input, axes, self.count, Dim(step=step))


@op("convolution", torch)
class AnyConvolution(Op):
    """A convolution as exported programs spell it, transposed or not."""

    def __init__(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Sizes,
        padding: Sizes,
        dilation: Sizes,
        transposed: bool,
        output_padding: Sizes,
        groups: int,
    ) -> None:
        self.call: Convolution | TransposedConvolution = (
            TransposedConvolution(
                input, weight, bias, stride, padding, output_padding, groups, dilation
            )
            if transposed
            else Convolution(input, weight, bias, stride, padding, dilation, groups)
        )
        self.output, self.sums = self.call.output, self.call.sums  # type: ignore[method-assign]  # the same questions
        self.macs, self.origin = self.call.macs, self.call.origin  # type: ignore[method-assign]  # likewise


def register(kind: type[Op], name: str, namespaces: Sequence[Any], ndim: int) -> None:
    """Let a class over so many spatial dimensions stand for a function."""
    op(name, *namespaces)(type(f"{kind.__name__}{ndim}d", (kind,), {"ndim": ndim}))


for _ndim in (1, 2, 3):
    register(Convolution, f"conv{_ndim}d", (torch, F), _ndim)
    register(TransposedConvolution, f"conv_transpose{_ndim}d", (torch, F), _ndim)
