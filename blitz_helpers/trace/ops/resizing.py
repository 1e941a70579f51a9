"""Operations that change the sides of an image: padding and interpolation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from operator import add
from typing import Any

from torch import Tensor

from blitz_helpers.trace._field import (
    Dim,
    Dims,
    Origin,
    blurred,
    dims_of,
    fixed,
    origin_of,
    slid,
    upsampling,
    window,
)
from blitz_helpers.trace._layout import check_rank, like_format, wrong_rank
from blitz_helpers.trace._op import Misfit, Op, op

# How much longer than its padding a side must be.
_ROOM = {"reflect": 1, "circular": 0}


@op("pad constant_pad_nd")
class Pad(Op):
    """Numbers added before and after each of the last dimensions."""

    input: Tensor
    pad: Sequence[int]
    mode: Any = "constant"
    value: Any = None

    def check(self) -> None:
        x, pad = self.input, tuple(self.pad)
        if len(pad) % 2 or len(pad) > 2 * x.dim():
            text = f"got {tuple(x.shape)}, which pad {pad} does not fit"
            raise wrong_rank(x, text, -(-len(pad) // 2))
        for i, wide in enumerate(pad) if self.mode in _ROOM else ():
            side, least = x.shape[-(i // 2) - 1], wide + _ROOM[self.mode]
            if side < least:
                text = f"got {tuple(x.shape)}: {self.mode} padding of {wide} does not fit {side}"
                raise Misfit("window", text, x, -(i // 2) - 1, side, least)

    def _sides(self) -> list[tuple[int, int, int]]:
        """Return the padded dimensions, counted from the end, and the padding on both sides."""
        pairs = [(-i - 1, *self.pad[2 * i : 2 * i + 2]) for i in range(len(self.pad) // 2)]
        return [(dim, before, after) for dim, before, after in reversed(pairs) if before or after]

    def sums(self, output: Tensor) -> tuple[str, ...]:
        old, now = self.input.shape, output.shape
        return tuple(
            [f"{before} + {old[i]} + {after} = {now[i]}" for i, before, after in self._sides()]
        )

    def origin(self, output: Tensor, step: int) -> Origin:
        dims = list(dims_of(self.input))
        for i, before, after in self._sides():
            if dims[i].axis is not None:
                dims[i] = window(dims[i], 1, before, -before, partial(add, before + after))
        return origin_of(self.input)._replace(dims=tuple(dims))


@op("interpolate upsample upsample_nearest upsample_bilinear")
class Interpolate(Op):
    """Sides resampled to another size."""

    input: Tensor
    size: Any = None
    scale_factor: Any = None
    mode: str = "nearest"
    align_corners: bool | None = None
    recompute_scale_factor: bool | None = None
    antialias: bool = False

    def output(self) -> Any:
        x = self.input
        if self.mode in _RANKS:
            check_rank(x, _RANKS[self.mode], f"dimensions for mode={self.mode!r}")
        count = x.dim() - 2
        if count not in (1, 2, 3) or (self.size is None) == (self.scale_factor is None):
            return NotImplemented
        given = self.scale_factor if self.size is None else self.size
        if not isinstance(given, Sequence):
            given = (given,) * count
        if len(given) != count:
            text = f"got {tuple(x.shape)} and {len(given)} sizes, wants {count}"
            raise wrong_rank(x, text, len(given) + 2)
        if self.size is None:
            sides = zip(x.shape[2:], given, strict=True)
            given = [int(side * float(factor)) for side, factor in sides]
        return like_format((*x.shape[:2], *given), x.dtype, x)

    def _factors(self, output: Tensor) -> list[int]:
        """Return the factor by which each side grows, 0 if it is not a whole number."""
        pairs = zip(self.input.shape[2:], output.shape[2:], strict=True)
        return [after // before if after % before == 0 else 0 for before, after in pairs]

    def sums(self, output: Tensor) -> tuple[str, ...]:
        rows = zip(self.input.shape[2:], self._factors(output), output.shape[2:], strict=True)
        return tuple(
            [f"{before}*{factor} = {after}" for before, factor, after in rows if factor > 1]
        )

    def origin(self, output: Tensor, step: int) -> Origin:
        factors, reach = self._factors(output), _REACH.get(self.mode)
        scales = self.scale_factor
        scales = scales if isinstance(scales, Sequence) else (scales,) * len(factors)

        def move(dims: Dims) -> Iterator[Dim]:
            sides = zip(dims, factors, scales, output.shape[2:], strict=True)
            for dim, factor, scale, out in sides:
                formula = partial(fixed, out) if scale is None else partial(_scaled, float(scale))
                if reach is None or not factor or self.align_corners:
                    yield blurred(dim, formula)
                else:
                    yield dim if factor == 1 else upsampling(dim, factor, *reach(factor), formula)

        return slid(self.input, len(factors), move)


def _scaled(scale: float, side: int) -> int:
    return int(side * scale)


def _nearest_reach(factor: int) -> tuple[int, int]:
    return factor - 1, 0


def _linear_reach(factor: int) -> tuple[int, int]:
    # Two neighbours, or, with an odd factor, one where the centres meet.
    return (3 * factor - 2) // 2, factor // 2


_RANKS = {"linear": (3,), "bilinear": (4,), "bicubic": (4,), "trilinear": (5,)}
_REACH: dict[str, Callable[[int], tuple[int, int]]] = {
    "nearest": _nearest_reach,
    "nearest-exact": _nearest_reach,
    "linear": _linear_reach,
    "bilinear": _linear_reach,
    "trilinear": _linear_reach,
}
