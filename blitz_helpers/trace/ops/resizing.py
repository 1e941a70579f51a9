"""What makes the sides of an image larger or smaller: padding and interpolation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import add, mul
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from blitz_helpers.trace._field import Origin, dims_of, origin_of, slid, spatial, upsampling, window
from blitz_helpers.trace._layout import check_rank, like_format, per_dimension
from blitz_helpers.trace._op import Misfit, Op, op


@op("pad constant_pad_nd", F, torch)
@dataclass(eq=False)
class Pad(Op):
    """Numbers added before and after each of the last dimensions."""

    input: Tensor
    pad: Sequence[int]
    mode: Any = "constant"
    value: Any = None

    def output(self) -> Any:
        x, pad = self.input, list(self.pad)
        if len(pad) % 2 or len(pad) > 2 * x.dim():
            text = f"got {tuple(x.shape)}, which pad {tuple(pad)} does not fit"
            raise Misfit("rank", text, x, None, x.dim(), (-(-len(pad) // 2),), "dimensions")
        if isinstance(self.mode, str) and self.mode != "constant":
            self._check_borders()
            return NotImplemented
        shape = list(x.shape)
        for i in range(len(pad) // 2):
            shape[-i - 1] += pad[2 * i] + pad[2 * i + 1]
        if min(shape, default=0) < 0:
            text = f"got {tuple(x.shape)}, from which pad {tuple(pad)} takes more than there is"
            raise Misfit("other", text, x)
        return like_format(tuple(shape), x.dtype, x)

    def _check_borders(self) -> None:
        """Refuse more padding than the numbers that it repeats."""
        x = self.input
        room = {"reflect": 1, "circular": 0}.get(self.mode)
        for i, wide in enumerate(self.pad) if room is not None else ():
            side = x.shape[-(i // 2) - 1]
            if wide + room > side:  # type: ignore[operator]  # not None here
                text = f"got {tuple(x.shape)}: {self.mode} padding of {wide} does not fit {side}"
                least = wide + room  # type: ignore[operator]  # likewise
                raise Misfit("window", text, x, -(i // 2) - 1, side, least)

    def _sides(self) -> list[tuple[int, int, int]]:
        """Return the dimensions that change, from the end, with the numbers before and after."""
        pairs = [(i, self.pad[2 * i], self.pad[2 * i + 1]) for i in range(len(self.pad) // 2)]
        return [one for one in reversed(pairs) if one[1] or one[2]]

    def sums(self, output: Tensor) -> tuple[str, ...]:
        return tuple(
            f"{before} + {self.input.shape[-i - 1]} + {after} = {output.shape[-i - 1]}"
            for i, before, after in self._sides()
        )

    def origin(self, output: Tensor, step: int) -> Origin:
        dims = list(dims_of(self.input))
        for i, before, after in self._sides():
            axis = dims[-i - 1].axis
            if axis is not None:
                axis = window(axis, 1, 1, before, 1, partial(add, before + after))
                dims[-i - 1] = dims[-i - 1]._replace(axis=axis)
        return origin_of(self.input)._replace(dims=tuple(dims))


@op("interpolate upsample upsample_nearest upsample_bilinear", F)
@dataclass(eq=False)
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
        wanted = _RANKS.get(self.mode)
        if wanted is not None:
            check_rank(x, wanted, f"dimensions for mode={self.mode!r}")
        count = x.dim() - 2
        if count not in (1, 2, 3) or (self.size is None) == (self.scale_factor is None):
            return NotImplemented
        for given in (self.size, self.scale_factor):
            if isinstance(given, Sequence) and len(given) != count:
                text = f"got {tuple(x.shape)} and {len(given)} sizes, wants {count}"
                raise Misfit("rank", text, x, None, x.dim(), (len(given) + 2,), "dimensions")
        if self.size is not None:
            out = per_dimension(self.size, count)
        else:
            one = not isinstance(self.scale_factor, Sequence)
            factors = (self.scale_factor,) * count if one else self.scale_factor
            sides = zip(x.shape[2:], factors, strict=True)
            out = tuple(int(side * float(factor)) for side, factor in sides)
        return like_format((*x.shape[:2], *out), x.dtype, x)

    def _factors(self, output: Tensor) -> list[int]:
        pairs = zip(self.input.shape[2:], output.shape[2:], strict=True)
        return [after // before if after % before == 0 else 0 for before, after in pairs]

    def sums(self, output: Tensor) -> tuple[str, ...]:
        rows = zip(self.input.shape[2:], self._factors(output), output.shape[2:], strict=True)
        return tuple(f"{a}*{f} = {b}" for a, f, b in rows if f > 1)

    def origin(self, output: Tensor, step: int) -> Origin:
        count = self.input.dim() - 2
        axes, factors = spatial(self.input, count), self._factors(output)
        reach = _REACH.get(self.mode)
        if axes is not None and reach and all(factors) and not self.align_corners:
            formulas: list[Callable[[int], int]] = [
                partial(_fixed, out) if self.size is not None else partial(mul, factor)
                for out, factor in zip(output.shape[2:], factors, strict=True)
            ]
            axes = [
                axis if factor == 1 else upsampling(axis, factor, *reach(factor), formula)
                for axis, factor, formula in zip(axes, factors, formulas, strict=True)
            ]
        else:
            axes = None
        return slid(self.input, axes, count, None)


def _fixed(output_size: int, _: int) -> int:
    return output_size


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
