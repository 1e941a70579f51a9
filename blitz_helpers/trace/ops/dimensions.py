"""Dimensions moved, added, left out or repeated."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from blitz_helpers.trace._field import (
    INPUT_AXIS,
    UNKNOWN,
    Dim,
    Origin,
    dims_of,
    origin_of,
    without_trail,
)
from blitz_helpers.trace._layout import META, wrap, wrong_rank
from blitz_helpers.trace._op import Misfit, Op, OpenOp, op


@op("squeeze movedim moveaxis")
@op("T mT H mH t adjoint")
class Moved(OpenOp):
    """Dimensions in another order, or those of size 1 left out."""

    input: Tensor

    def origin(self, output: Tensor, step: int) -> Origin | None:
        origin, shape = origin_of(self.input), self.input.shape
        if len(origin.dims) != len(shape):
            return None
        # Strides that all differ show where each dimension goes.
        probe = torch.empty_strided(shape, tuple(range(1, len(shape) + 1)), device=META)
        moved = self.func(probe, *self.args, **self.kwargs).stride()
        return origin._replace(dims=tuple([origin.dims[place - 1] for place in moved]))


@op("transpose swapaxes swapdims")
class Transpose(Moved):
    """Two dimensions that change places."""

    def check(self) -> None:
        for dim in (*self.args, *self.kwargs.values()):
            wrap(dim, self.input)


@op("permute")
class Permute(Moved):
    """Dimensions in a given order."""

    def check(self) -> None:
        x = self.input
        order = self.kwargs.get("dims", self.args[0] if len(self.args) == 1 else self.args)
        if isinstance(order, Sequence) and len(order) != x.dim():
            text = f"got {tuple(x.shape)}, which permute{tuple(order)} does not fit"
            raise wrong_rank(x, text, len(order))


@op("unsqueeze")
class Unsqueeze(Op):
    """A new dimension of size 1."""

    input: Tensor
    dim: int

    def origin(self, output: Tensor, step: int) -> Origin:
        origin, dims = origin_of(self.input), dims_of(self.input)
        made = Dim(INPUT_AXIS) if origin.untouched else UNKNOWN
        at = self.dim % (len(dims) + 1)
        return origin._replace(dims=(*dims[:at], made, *dims[at:]))


@op("expand")
class Expand(OpenOp):
    """Dimensions of size 1 repeated without a copy."""

    input: Tensor

    def check(self) -> None:
        x = self.input
        given = self.kwargs.get("size", self.args)
        asked = tuple(given[0] if len(given) == 1 and isinstance(given[0], Sequence) else given)
        if len(asked) < x.dim():
            text = f"got {tuple(x.shape)}, which expand{asked} does not fit"
            raise wrong_rank(x, text, len(asked))
        for i, (old, size) in enumerate(zip(x.shape, asked[len(asked) - x.dim() :], strict=True)):
            if old != 1 and size not in (-1, old):
                text = f"got {tuple(x.shape)}, which does not expand to {asked}"
                raise Misfit("size", text, x, i, old, size, "expand")

    def origin(self, output: Tensor, step: int) -> Origin | None:
        dims = dims_of(self.input)
        lead = (UNKNOWN,) * (output.dim() - len(dims))
        return without_trail(origin_of(self.input), (*lead, *dims))
