"""Views and conversions of one tensor, generated from its shape, that let the failed call work."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, permutations

import torch
from torch import Tensor

from blitz_helpers.trace._clues import Clues, Found, differing
from blitz_helpers.trace._costs import Cost
from blitz_helpers.trace._field import dims_of, known_origin, origin_of
from blitz_helpers.trace._transforms import Transform
from blitz_helpers.trace._words import root

FULL = (None, None)
Moves = Iterator[tuple[float, Transform]]


def moves(clues: Clues) -> Found:
    """Yield changes of one operand with which the failing call works."""
    misfit = clues.misfit
    if misfit.kind == "dtype":
        yield from _conversions(clues)
    if misfit.kind not in ("size", "rank", "unequal", "batch"):
        return
    own = [] if misfit.tensor is None else [misfit.tensor]
    single = misfit.kind in ("size", "rank") and misfit.noun != "inner"
    operands = [x for x in (own if single else clues.operands) if known_origin(x) is not None]
    operands = clues.failure.tensors if misfit.noun == "inner" else operands
    if misfit.kind == "unequal" and misfit.dim is not None:
        for x in clues.failure.tensors:  # such as a learned token, one for all samples
            yield from _accepted(clues, x, _repeated(clues, x))
    found = [one for x in operands for one in _accepted(clues, x, _views(clues, x))]
    if not found and misfit.kind == "unequal":
        found = [one for x in operands for one in _accepted(clues, x, _fillings(clues, x))]
    yield from found


def _accepted(clues: Clues, x: Tensor, possible: Moves) -> Found:
    others = [one for one in clues.misfit.others if one is not x]
    for cost, transform in possible:
        other = transform(x.to("meta"))
        if clues.is_loss and clues.misfit.noun != "target" and other.shape != others[0].shape:
            continue  # a loss that broadcasts compares each element with all others
        if clues.accepts(x, other):
            yield from clues.changed(x, transform, cost)
            if transform.name == "flatten":
                return  # if flattening helps, no other view is meant


def _conversions(clues: Clues) -> Found:
    x, wants = clues.misfit.tensor, clues.misfit.wants
    if x is None:
        return
    if x.is_complex() and not wants.is_complex:
        yield from clues.changed(x, Transform("abs"), Cost.CONVERT)
    elif known_origin(x) is not None:
        for number, given in enumerate(clues.failure.given):
            if given.dtype == x.dtype and clues.input_number(x) is None:
                yield from clues.changed_input(number, Transform("to", (wants,)), Cost.CONVERT)
        yield from clues.changed(x, Transform("to", (wants,)), Cost.CONVERT)
    for other in clues.misfit.others:
        if known_origin(other) is not None and other.dtype != x.dtype:
            yield from clues.changed(other, Transform("to", (x.dtype,)), Cost.CONVERT_OTHER)


# Views


def _views(clues: Clues, x: Tensor) -> Moves:
    misfit = clues.misfit
    if misfit.noun == "inner":
        if x.dim() > 1:
            second = x is clues.failure.tensors[-1]
            yield Cost.ORDER if second else Cost.SWAP, Transform("transpose", (-2, -1))
        return
    for dim in range(x.dim()):
        rest = (*x.shape[:dim], *x.shape[dim + 1 :])
        meant = misfit.kind == "rank" or misfit.noun == "target" or misfit.dim is not None
        if x.shape[dim] == 1 and (meant or any(rest == one.shape for one in misfit.others)):
            yield Cost.SQUEEZE, Transform("squeeze", (dim,))
    for dim in range(x.dim()):
        if _may_flatten(clues, x, dim):
            yield Cost.FLATTEN, Transform("flatten", (dim,))
    if misfit.kind == "unequal":
        yield from _like_others(clues, x)
    yield from _widened(clues, x)
    yield from _ordered(clues, x)
    yield from _images(clues, x)
    if misfit.noun == "target" and x.dim() > 1 and 1 not in x.shape:
        yield Cost.FLATTEN_ALL, Transform("flatten")


def _like_others(clues: Clues, x: Tensor) -> Moves:
    """Yield flat rows for images, and images for flat rows, as another operand has them."""
    for y in [one for one in clues.misfit.others if one is not x]:
        if x.shape[:1] == y.shape[:1] and x.numel() == y.numel():
            if y.dim() == 2 < x.dim():
                yield Cost.FLATTEN, Transform("flatten", (1,))
            elif x.dim() == 2 < y.dim():
                yield Cost.FLATTEN, Transform("reshape", (-1, *y.shape[1:]))


def _repeated(clues: Clues, x: Tensor) -> Moves:
    """Yield the expansion of dimensions of size 1 to the sizes that ``x`` is joined with."""
    for y in clues.failure.tensors:
        if x.dim() == y.dim() and x.shape[0] == 1 < y.shape[0] and clues.misfit.dim:
            yield Cost.WIDEN, Transform("expand", (y.shape[0], *(-1,) * (x.dim() - 1)))


def _may_flatten(clues: Clues, x: Tensor, start: int) -> bool:
    """Return whether the dimensions from ``start`` on can be flattened into features."""
    misfit = clues.misfit
    if misfit.kind == "size":
        meant = misfit.dim == x.dim() - 1
    else:
        meant = misfit.kind == "rank" and clues.channels is not None
    inside = range(start, x.dim())
    return meant and 0 < start < x.dim() - 1 and not any(clues.is_batch(x, i) for i in inside)


def _widened(clues: Clues, x: Tensor) -> Moves:
    """Yield new dimensions of size 1, those that keep the batch in front first."""
    misfit = clues.misfit
    between = misfit.kind == "rank" and clues.input_number(x) is None
    for ndim in range(x.dim() + 1, _most_dims(clues, x) + 1):
        found = list(combinations(range(ndim), x.dim()))
        # A mask gets new dimensions at the front, any other tensor at the end.
        found.sort(key=lambda at: (at[:1] != (0,), -sum(at) if x.dtype == torch.bool else sum(at)))
        for places in found:
            leads = places[:1] != (0,)
            if misfit.kind != "unequal":
                rows = x.dim() == 2 and origin_of(x).depends
                if leads and rows and not (_is_picture(x) or clues.input_number(x)):
                    continue  # the rows of a batch are not one sample
                start = 0 if misfit.noun == "index" else ndim - x.dim()
                if clues.channels is None and places != tuple(range(start, start + x.dim())):
                    continue  # the meaning of the other dimensions is not known
            elif places == tuple(range(ndim))[-x.dim() :]:
                continue  # broadcasting aligns the tensors like this already
            view = _indexed(places, ndim)
            yield Cost.WIDEN_BETWEEN if leads and between else Cost.WIDEN, view


def _most_dims(clues: Clues, x: Tensor) -> int:
    misfit = clues.misfit
    if misfit.kind == "rank":
        return max(misfit.wants)  # type: ignore[no-any-return]  # numbers of dimensions
    if misfit.kind == "size":
        return x.dim() + (misfit.noun == "channels" and misfit.dim == 0)
    return max((t.dim() for t in clues.failure.tensors if t is not x), default=0)


def _indexed(places: tuple[int, ...], ndim: int) -> Transform:
    """Return the view that puts the dimensions at these places, and new ones at the others."""
    items = tuple(FULL if at in places else None for at in range(ndim))
    if ndim == len(places) + 1:
        return Transform("unsqueeze", (items.index(None),))
    leading = items[-len(places) :] == (FULL,) * len(places)
    return Transform("index", items[: ndim - len(places)] if leading else items)


def _is_picture(x: Tensor) -> bool:
    """Return whether the last two dimensions look like the sides of one picture."""
    low, high = sorted(x.shape[-2:])
    return low > 4 and high <= 4 * low


def _ordered(clues: Clues, x: Tensor) -> Moves:
    """Yield other orders of the dimensions: one dimension moved, or two swapped."""
    misfit = clues.misfit
    target = misfit.dim if misfit.kind == "size" else None
    if misfit.kind == "unequal":
        others = [one for one in misfit.others if one is not x]
        same = any(sorted(one.shape) == sorted(x.shape) for one in others)
        if not {"": same, "mask": x is misfit.tensor}.get(misfit.noun, x is not misfit.tensor):
            return
    for order in permutations(range(x.dim())) if 1 < x.dim() <= 5 else ():
        off = [i for i, at in enumerate(order) if i != at]
        moved = [i for i in off if _without(order, i) == sorted(_without(order, i))]
        if target is not None and not (
            target in moved and _may_stand(clues, x, order[target], target)
        ):
            continue
        if len(off) == 2 and (target is None or moved):
            yield Cost.ORDER if moved else Cost.SWAP, Transform("transpose", tuple(off))
        elif moved:
            yield Cost.MOVE, Transform("permute", order)


def _without(order: tuple[int, ...], place: int) -> list[int]:
    return [*order[:place], *order[place + 1 :]]


def _may_stand(clues: Clues, x: Tensor, source: int, target: int) -> bool:
    """Return whether ``source`` may be the features, rather than a width, the time or the batch."""
    if source == target or clues.is_side(x, source) or clues.is_batch(x, source):
        return False
    if x.dim() <= 3:
        return True
    if target == 1 and source > 1 and len(set(x.shape[2:])) == 1:
        return False  # a square image with its channels first: this is its width
    return target < x.dim() - 1 or not origin_of(x).untouched or source == 1


def _images(clues: Clues, x: Tensor) -> Moves:
    """Yield the views that turn flat rows into images."""
    channels = clues.channels
    if channels is None or x.dim() != 2:
        return
    for count in (1, 2, 3):
        side = root(x.shape[1], channels, count) or 1
        if side > 1 and (channels, count) != (1, 1):
            yield Cost.IMAGES, Transform("reshape", (-1, channels, *(side,) * count))


# Padding, cropping, projections


def _fillings(clues: Clues, x: Tensor) -> Moves:
    """Yield the padding, crops and projections that give ``x`` the sizes of another operand."""
    noun = clues.misfit.noun
    if noun == "mask" or "attention" in clues.failure.step.op or not origin_of(x).depends:
        return
    for y in [one for one in clues.failure.tensors if one is not x]:
        if noun == "target" and x.dim() > 3 and x.is_floating_point():
            yield Cost.INTERPOLATE, Transform("interpolate", (tuple(y.shape[2 - x.dim() :]),))
        elif x.dim() == y.dim():
            joined = clues.misfit.dim
            differ = [x.dim() - at for at in reversed(differing(x, y, joined))]
            if differ and not clues.is_loss:
                yield from _projected(clues, x, y, differ, joined)
            if differ and all(_may_cut(clues, x, y, d) for d in differ):
                yield from _cut_or_filled(clues, x, y, differ)


def _projected(clues: Clues, x: Tensor, y: Tensor, differ: list[int], joined: int | None) -> Moves:
    """Yield the layer that gives ``x`` the features of ``y``, and smaller sides if it has them."""
    ndim = x.dim() - 2
    more = [y.shape[d] - x.shape[d] for d in differ]
    cost = Cost.PROJECT_DOWN if min(more) < 0 else Cost.PROJECT
    sides = zip(range(2, x.dim()), x.shape[2:], y.shape[2:], strict=True)
    strides = tuple(-(-p // q) if d in differ and q else 1 for d, p, q in sides)
    tokens = ndim == 1 and not _made_by_layer(x, 1)
    if 1 in differ and x.dim() > 2 and ndim <= 3 and joined != 1 and not tokens:
        yield cost, Transform("conv", (x.shape[1], y.shape[1], strides))
    elif 1 not in differ and max(more) < 0 and 1 < ndim <= 3:
        yield Cost.STRIDED, Transform("conv", (x.shape[1], y.shape[1], strides))
    elif differ == [x.dim() - 1] and x.dim() > 1 and ndim < 2 and not clues.is_side(x, x.dim() - 1):
        yield cost, Transform("linear", (x.shape[-1], y.shape[-1]))


def _made_by_layer(x: Tensor, dim: int) -> bool:
    """Return whether a layer made a dimension, rather than a view or a join."""
    own = dims_of(x)[dim]
    return own.step is not None and not own.summed


def _may_cut(clues: Clues, x: Tensor, y: Tensor, dim: int) -> bool:
    """Return whether a dimension can be padded or cut: a side can, but features cannot."""
    if clues.is_side(x, dim) or clues.is_side(y, dim):
        return True
    return dim > 1 and not (clues.is_features(x, dim) or clues.is_features(y, dim))


def _cut_or_filled(clues: Clues, x: Tensor, y: Tensor, differ: list[int]) -> Moves:
    """Yield the padding, the crop and the interpolation that give ``x`` the sides of ``y``."""
    more = [y.shape[d] - x.shape[d] for d in differ]
    if min(more) > 0:
        pads: list[int] = []
        for d in range(x.dim() - 1, min(differ) - 1, -1):
            lack = y.shape[d] - x.shape[d] if d in differ else 0
            pads += [lack // 2, lack - lack // 2]
        yield Cost.PAD if max(more) <= 3 else Cost.PAD_FAR, Transform("pad", (tuple(pads),))
        if x.dim() > 2 and clues.is_side(x, x.dim() - 1):
            yield Cost.INTERPOLATE, Transform("interpolate", (tuple(y.shape[2:]),))
    elif max(more) < 0:
        items = tuple((None, y.shape[d]) if d in differ else FULL for d in range(max(differ) + 1))
        yield Cost.CROP, Transform("index", items)
