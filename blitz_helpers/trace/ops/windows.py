"""Windows that slide over the sides of an image: convolutions, and what pools share with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from blitz_helpers.shapes import (
    conv_arithmetic,
    conv_fitting_sizes,
    conv_output_size,
)
from blitz_helpers.trace._field import (
    Dim,
    Dims,
    Origin,
    slid,
    window,
)
from blitz_helpers.trace._layout import (
    Shape,
    Sizes,
    compute_dtype,
    like_format,
    per_dimension,
    wrong_rank,
)
from blitz_helpers.trace._op import Misfit, Op, op

if TYPE_CHECKING:
    from blitz_helpers.trace._op import Family

_AXES = {1: "L", 2: "H, W", 3: "D, H, W"}


class Slide:
    """The sides after a window has slid over them.

    Attributes:
        sizes: their sizes.
        sums: their written-out sums.
        windows: the strides of the windows, how far they reach, and their size formulas.
    """

    def __init__(self, kind: Any, sides: Shape, *settings: tuple[Any, ...]) -> None:
        self.sizes: Shape = kind.size_of(sides, *settings)
        self.sums: tuple[str, ...] = kind.sum_of(sides, *settings)
        each = zip(*settings, strict=False)
        windows = [(*kind.reach(*one), partial(_size, kind.size_of, one)) for one in each]
        self.windows = tuple(zip(*windows, strict=True))


_slide = lru_cache(maxsize=4096)(Slide)


def _size(size_of: Callable[..., int], settings: tuple[Any, ...], size: int) -> int:
    return size_of(size, *settings)


def check_image(x: Tensor, ndim: int, channels: int | None = None) -> None:
    """Refuse an input that is neither one image of ``ndim`` dimensions nor a batch of them."""
    if x.dim() not in (ndim + 1, ndim + 2):
        named = "" if channels is None else f" with C = {channels}"
        text = f"got {tuple(x.shape)}, wants (N, C, {_AXES[ndim]}) or (C, {_AXES[ndim]}){named}"
        raise wrong_rank(x, text, ndim + 1, ndim + 2, channels=channels)


class Window(Op):
    """A window that slides over the last ``ndim`` dimensions of the input."""

    ndim = 0
    size_of: ClassVar[Any] = staticmethod(conv_output_size)
    sum_of: ClassVar[Any] = staticmethod(conv_arithmetic)
    fitting_sizes: ClassVar[Any] = staticmethod(conv_fitting_sizes)
    moved: ClassVar[Any] = staticmethod(window)
    _slide: ClassVar[Slide | None] = None
    input: Tensor

    def settings(self) -> tuple[tuple[Any, ...], ...]:
        """Return the arguments after the size, each with one entry per dimension."""
        raise NotImplementedError

    @staticmethod
    def reach(kernel_size: int, stride: int, padding: Any, dilation: int, *_: Any) -> Shape:
        """Return what ``moved`` takes between a dimension and its size formula."""
        span = dilation * (kernel_size - 1)
        # "same": the smaller half of the padding comes first
        before = {"same": span // 2, "valid": 0}.get(padding, padding)
        return stride, before, span - before

    @property
    def slide(self) -> Slide:
        """The sides of the output.

        Raises:
            Misfit: a side is too small, or torch refuses the settings.
        """
        if self._slide is None:  # `cached_property` would make the other attributes slower
            self._slide = self._slid()  # type: ignore[misc]  # `ClassVar`: not a field
        return self._slide

    def _slid(self) -> Slide:
        x, settings = self.input, self.settings()
        kind: Any = type(self)
        sides = tuple(x.shape[-self.ndim :])
        try:
            return _slide(kind, sides, *settings)
        except ValueError as error:
            text = f"got {tuple(x.shape)}: "
            reason = str(error).split("\n")[0].rstrip(".")
        try:
            least = [self.fitting_sizes(1, *one)[0] for one in zip(*settings, strict=True)]
        except ValueError:  # the settings fit no size
            raise Misfit("other", text + reason, x) from None
        text += reason.split(":")[0]
        dim = next(i for i, side in enumerate(sides) if side < least[i])
        raise Misfit("window", text, x, dim - self.ndim, sides[dim], least[dim])

    def sums(self, output: Tensor) -> tuple[str, ...]:
        return self.slide.sums

    def _origin(self, channels: Dim | None) -> Origin:
        def move(dims: Dims) -> Iterable[Dim]:
            return map(self.moved, dims, *self.slide.windows)

        return slid(self.input, self.ndim, move, channels)


def for_each_ndim(name: str) -> Callable[[Family], Family]:
    """Let the decorated class stand for functions in one, two and three dimensions."""

    def decorate(family: Family) -> Family:
        for ndim in (1, 2, 3):
            op(name.format(ndim), ndim=ndim)(family)
        return family

    return decorate


@for_each_ndim("conv{}d")
class Convolution(Window):
    """A convolution over the last dimensions of its input."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None = None
    stride: Sizes = 1
    padding: Sizes | str = 0
    dilation: Sizes = 1
    groups: int = 1

    def settings(self) -> tuple[tuple[Any, ...], ...]:
        ndim, pads = self.ndim, self.padding
        return (
            tuple(self.weight.shape[2:]),
            per_dimension(self.stride, ndim),
            (pads,) * ndim if isinstance(pads, str) else per_dimension(pads, ndim),
            per_dimension(self.dilation, ndim),
        )

    def channels(self) -> tuple[int, int]:
        """Return how many channels the weight takes, and how many it makes."""
        return self.weight.shape[1] * self.groups, self.weight.shape[0]

    def output(self) -> Tensor:
        x, weight, ndim = self.input, self.weight, self.ndim
        inside, outside = self.channels()
        self._check_weight(outside)
        check_image(x, ndim, inside)
        got = x.shape[-ndim - 1]
        if got != inside:
            text = f"got {got} channels of {tuple(x.shape)}, wants {inside}"
            raise Misfit("size", text, x, -ndim - 1, got, inside, "channels", [weight])
        dtype = compute_dtype(x, weight, self.bias)
        return like_format((*x.shape[: -ndim - 1], outside, *self.slide.sizes), dtype, x, weight)

    def _check_weight(self, channels: int) -> None:
        weight, bias, ndim = self.weight, self.bias, self.ndim
        shape = tuple(weight.shape)
        if len(shape) != ndim + 2:
            text = f"wants a weight of {ndim + 2} dimensions, but got {len(shape)}: {shape}"
            raise Misfit("other", text, weight)
        if self.groups < 1 or shape[0] % self.groups:
            text = f"groups={self.groups} does not divide its weight of {shape}"
            raise Misfit("other", text, weight)
        if bias is not None and bias.shape != (channels,):
            text = f"wants a bias of shape ({channels},), but got {tuple(bias.shape)}"
            raise Misfit("other", text, bias)

    def macs(self, output: Tensor) -> int:
        return output.numel() * prod(self.weight.shape[1:])

    def origin(self, output: Tensor, step: int) -> Origin:
        return self._origin(Dim(step=step))
