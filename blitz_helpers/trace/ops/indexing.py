"""Parts of a tensor: along one dimension, or by an index."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from blitz_helpers.trace._field import (
    INPUT_AXIS,
    UNKNOWN,
    Dim,
    Origin,
    dims_of,
    origin_of,
    window,
    without_trail,
)
from blitz_helpers.trace._layout import wrap, wrong_dtype
from blitz_helpers.trace._op import Misfit, Op, OpenOp, op
from blitz_helpers.trace._standins import extremes_of, has_values


@op("chunk tensor_split glu narrow roll")
class Part(OpenOp):
    """Parts along a dimension, or all of it in another order."""

    input: Tensor

    def origin(self, output: Tensor, step: int) -> Origin | None:
        x = self.input
        origin, dims = origin_of(x), dims_of(x)
        if output.dim() != x.dim():
            return None
        sides = zip(dims, x.shape, output.shape, strict=True)
        cut = any(dim.axis is not None for dim, old, now in sides if old != now)
        if cut and not origin.untouched:
            return without_trail(origin, dims)
        return origin._replace(dims=dims)


@op("split")
class Split(Part):
    """Parts of one size, or of sizes that add up to the size of the dimension."""

    input: Tensor
    sizes: Any
    dim: int = 0

    def check(self) -> None:
        if isinstance(self.sizes, int):
            return
        dim, wants = wrap(self.dim, self.input), sum(self.sizes)
        got = self.input.shape[dim]
        if got != wants:
            asked = "+".join(map(str, self.sizes))
            text = f"got {tuple(self.input.shape)}, whose {got} is not {asked}"
            raise Misfit("size", text, self.input, dim, got, wants, "split")


@op("getitem")
class GetItem(Op):
    """An index. Origins are followed through slices, positions and new axes, not other indices."""

    input: Tensor
    index: Any

    def check(self) -> None:
        """Refuse positions that are out of range, as far as their values are known."""
        dim = 0
        for item in self.items:
            if hasattr(item, "__array__") or isinstance(item, list):
                item = torch.as_tensor(item)
            if isinstance(item, Tensor) and item.dtype not in _INDICES:
                raise wrong_dtype(item, torch.int64, (self.input,), "indices")
            if isinstance(item, Tensor) and _spans(item) == 1 and dim < self.input.dim():
                _check_positions(item, self.input, dim)
            dim += _spans(item)

    @property
    def items(self) -> list[Any]:
        """The items of the index, with full slices for an ellipsis and at the end."""
        items = list(self.index) if isinstance(self.index, tuple) else [self.index]
        at = next((i for i, item in enumerate(items) if item is ...), len(items))
        items[at : at + 1] = [slice(None)] * (self.input.dim() - sum(map(_spans, items)))
        return items

    def origin(self, output: Tensor, step: int) -> Origin | None:
        items = self.items
        plain = (int, slice, type(None))
        if any(isinstance(item, bool) or not isinstance(item, plain) for item in items):
            return None
        origin, x = origin_of(self.input), self.input
        found: list[Dim] = []
        lost = False
        old = zip(dims_of(x), x.shape, strict=True)
        for item in items:
            if item is None:
                found.append(Dim(INPUT_AXIS) if origin.untouched else UNKNOWN)
                continue
            dim, size = next(old)
            if isinstance(item, slice):
                found.append(_sliced(dim, item, size))
            else:  # one position of a spatial side
                lost |= dim.axis is not None and not origin.untouched
        dims = tuple(found)
        return without_trail(origin, dims) if lost else origin._replace(dims=dims)


@op("setitem index_put")
class SetItem(GetItem):
    """Numbers written to an index."""

    input: Tensor
    index: Any
    value: Any

    def check(self) -> None:
        """Refuse values of another dtype or number than those that they replace."""
        super().check()
        value, items = self.value, self.items
        if not isinstance(value, Tensor) or value.numel() < 2:
            return
        picks = [item for item in items if isinstance(item, Tensor)]
        if picks and value.dtype != self.input.dtype:
            raise wrong_dtype(value, self.input.dtype, (self.input,), "values")
        mask = picks[0] if len(picks) == 1 and picks[0].dtype == torch.bool else None
        if mask is None or items[0] is not mask or not has_values(mask):
            return
        wants, rank = int(mask.sum()), 1 + self.input.dim() - mask.dim()
        if value.dim() == rank and value.shape[0] not in (1, wants):
            got = value.shape[0]
            text = f"got {got} rows for the {wants} that a mask of {tuple(mask.shape)} picks"
            raise Misfit("size", text, value, 0, got, wants, "rows", (mask,))

    def origin(self, output: Tensor, step: int) -> None:
        """Return ``None``: what both tensors tell is guessed elsewhere."""


_MASKS = (torch.bool, torch.uint8)
_INDICES = (*_MASKS, torch.int64, torch.int32)


def _spans(item: Any) -> int:
    """Return how many dimensions an item of an index takes up."""
    if item is None or item is ... or isinstance(item, bool):
        return 0
    return item.dim() if isinstance(item, Tensor) and item.dtype in _MASKS else 1


def _check_positions(at: Tensor, x: Tensor, dim: int) -> None:
    size = x.shape[dim]
    ends = None if at.dtype in _MASKS else extremes_of(at)
    worst = max(ends or (0,), key=lambda one: max(one, -1 - one))
    if ends and not -size <= worst < size:
        text = f"got index {worst}, which dimension {dim} of {tuple(x.shape)} does not have"
        raise Misfit("table", text, at, None, worst, size, "rows", (x,))


def _sliced(dim: Dim, item: slice, size: int) -> Dim:
    start, stop, step = item.indices(size)
    if dim.axis is None or (start, stop, step) == (0, size, 1):
        return dim
    formula = partial(_slice_size, (item.start, item.stop, item.step))
    return window(dim, step, -start, start, formula)


def _slice_size(bounds: tuple[int | None, ...], size: int) -> int:
    return len(range(*slice(*bounds).indices(size)))
