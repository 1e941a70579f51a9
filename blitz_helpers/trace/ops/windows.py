"""Windows that slide: convolutions, transposed convolutions and pools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
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
    pool_arithmetic,
    pool_output_size,
)
from blitz_helpers.trace._field import Dim, Origin, SizeRule, slid, spatial, upsampling, window
from blitz_helpers.trace._layout import (
    Shape,
    Sizes,
    compute_dtype,
    like_format,
    per_dimension,
    without_data,
)
from blitz_helpers.trace._op import Misfit, Op, op

# The formulas themselves; networks ask the same few questions over and over.
_conv_size = lru_cache(maxsize=4096)(conv_output_size)
_pool_size = lru_cache(maxsize=4096)(pool_output_size)
_pool_sum = lru_cache(maxsize=4096)(pool_arithmetic)
_conv_transpose_size = lru_cache(maxsize=4096)(conv_transpose_output_size)
_conv_transpose_sum = lru_cache(maxsize=4096)(conv_transpose_arithmetic)
AXES = {1: "L", 2: "H, W", 3: "D, H, W"}


@lru_cache(maxsize=1024)
def _formula(function: Callable[..., int], **settings: Any) -> SizeRule:
    return partial(function, **settings)


@lru_cache(maxsize=4096)
def _windows(
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


def _fitted(x: Tensor, ndim: int, sizes: Callable[..., Any], *settings: Any) -> Shape:
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
        out = _fitted(x, ndim, _conv_size, *settings)
        return like_format((*shape[: -ndim - 1], kernel[0], *out), dtype, x, weight)

    @property
    def _settings(self) -> tuple[tuple[str, ...], list[SizeRule]]:
        kernel = tuple(self.weight.shape[2:])
        pads = (self.pads,) * self.count if isinstance(self.pads, str) else self.pads
        sizes = tuple(self.input.shape[-self.count :])
        settings = (kernel, self.strides, pads, self.dilations)
        return _windows(conv_arithmetic, conv_output_size, sizes, *settings)

    def sums(self, output: Tensor) -> tuple[str, ...]:
        return self._settings[0]

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
            formulas = self._settings[1]
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
        out = _fitted(x, ndim, _conv_transpose_size, *self.settings)
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


class _Pool(Op):
    """A pool: a window that keeps the channels."""

    ndim = 0
    input: Tensor
    kernel_size: Sizes
    stride: Sizes | None
    padding: Sizes
    dilation: Sizes = 1
    ceil_mode: bool

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
        out = _fitted(x, self.ndim, _pool_size, *self._settings(), self.ceil_mode)
        return like_format((*x.shape[: -self.ndim], *out), x.dtype, x)

    def _explained(self) -> tuple[tuple[str, ...], list[SizeRule]]:
        sizes = tuple(self.input.shape[-self.ndim :])
        settings = self._settings()
        mode = bool(self.ceil_mode)
        return _windows(pool_arithmetic, pool_output_size, sizes, *settings, ceil_mode=mode)

    def sums(self, output: Tensor) -> tuple[str, ...]:
        return self._explained()[0]

    def origin(self, output: Tensor, step: int) -> Origin:
        axes = spatial(self.input, self.ndim)
        if axes is not None:
            axes = list(map(window, axes, *self._settings(), self._explained()[1]))
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


def _register(kind: type[Op], name: str, namespaces: Sequence[Any], ndim: int) -> None:
    op(name, *namespaces)(type(f"{kind.__name__}{ndim}d", (kind,), {"ndim": ndim}))


for _ndim in (1, 2, 3):
    for _kind, _name in (
        (Convolution, "conv{}d"),
        (TransposedConvolution, "conv_transpose{}d"),
        (MaxPool, "max_pool{}d"),
        (AveragePool, "avg_pool{}d"),
    ):
        _register(_kind, _name.format(_ndim), (torch, F), _ndim)
    _register(MaxPoolWithIndices, f"max_pool{_ndim}d_with_indices", (F,), _ndim)
    _register(AdaptiveAveragePool, f"adaptive_avg_pool{_ndim}d", (F, torch), _ndim)
    _register(AdaptivePool, f"adaptive_max_pool{_ndim}d", (F,), _ndim)
