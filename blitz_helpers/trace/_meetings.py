"""What might mend tensors that meet and differ: sums, joins, masks, targets."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from blitz_helpers.trace._clues import (
    Candidate,
    Clues,
    Found,
    input_axes,
    is_computed,
    step_of,
)
from blitz_helpers.trace._field import dims_of, known_origin, origin_of
from blitz_helpers.trace._layers import sets
from blitz_helpers.trace._records import shape_text
from blitz_helpers.trace._remedies import (
    InputChange,
    LayerChange,
    Resize,
)
from blitz_helpers.trace._transforms import Transform


def unequal(clues: Clues) -> Found:
    """Yield what makes tensors agree that meet and differ."""
    misfit = clues.misfit
    if misfit.noun == "mask":
        yield from _masks(clues)
        return
    if misfit.noun == "target":
        yield from _targets(clues)
        return
    tensors = [t for t in misfit.others if isinstance(t, Tensor)]
    odd, model = _odd_one(tensors, misfit.dim)
    if odd is None or model is None:
        return
    if isinstance(clues.failure.module, nn.MultiheadAttention):
        flag = not clues.failure.module.batch_first
        yield Candidate(4, sets(clues.failure.step.module, "", batch_first=flag))
    meets = "attention" not in clues.failure.step.op
    for late, (x, y) in enumerate(((odd, model), (model, odd))):
        if x.dim() < y.dim():
            yield from _widened(clues, x, y)
        if x.dim() == y.dim() and meets:
            yield from _turned(clues, x, y, late)
            yield from _grown(clues, x, y, _differing(clues, x, y))
    yield from _levelled(clues, odd, model, _differing(clues, odd, model))
    if odd.dim() == model.dim() and odd.dim() > 2:
        for x, y in ((odd, model), (model, odd)):
            yield from _window_settings(clues, x, y)


def _differing(clues: Clues, x: Tensor, y: Tensor) -> list[int]:
    """Return the dimensions of ``x`` that do not go with those of ``y``."""
    joined = clues.failure.step.op.startswith(("cat", "conc", "stack"))
    free = clues.misfit.dim if joined else None
    lead = max(0, x.dim() - y.dim())
    pairs = zip(x.shape[lead:], y.shape[max(0, y.dim() - x.dim()) :], strict=True)
    return [
        i
        for i, (p, q) in enumerate(pairs, start=lead)
        if p != q and i != free and (joined or 1 not in (p, q))
    ]


def _widened(clues: Clues, x: Tensor, y: Tensor) -> Found:
    """Yield new dimensions of a tensor that has fewer than the one it meets."""
    found = []
    for places in combinations(range(y.dim()), x.dim()):
        sizes = [y.shape[place] for place in places]
        if all(p in (1, q) or q == 1 for p, q in zip(x.shape, sizes, strict=True)):
            exact = sum(p == q for p, q in zip(x.shape, sizes, strict=True))
            last = -sum(places) if x.dtype == torch.bool else 0  # masks stand at the end
            found.append((places[0] != 0, -exact, last, places))
    for late, (_, _, _, places) in enumerate(sorted(found)[:3]):
        items = tuple((None, None) if at in places else None for at in range(y.dim()))
        if items[y.dim() - x.dim() :] == ((None, None),) * x.dim():
            continue  # as it is aligned already
        while len(items) > 1 and items[-1] == (None, None):
            items = items[:-1]
        view = Transform("index", items)
        if items.count(None) == 1:
            view = Transform("unsqueeze", (items.index(None),))
        yield from clues.at(x, view, 3 + late)


def _turned(clues: Clues, x: Tensor, y: Tensor, late: int) -> Found:
    """Yield the order of dimensions in which two tensors agree."""
    if sorted(x.shape) != sorted(y.shape) or x.shape == y.shape or x.dim() < 2:
        return
    differ = [i for i, (p, q) in enumerate(zip(x.shape, y.shape, strict=True)) if p != q]
    if len(differ) == 2:
        yield from clues.at(x, Transform("transpose", tuple(differ)), 5 + late)
    elif len(differ) == 3 and x.dim() == 4:
        for order in ((0, 3, 1, 2), (0, 2, 3, 1)):
            if tuple(x.shape[i] for i in order) == tuple(y.shape):
                yield from clues.at(x, Transform("permute", order), 5 + late)


def _levelled(clues: Clues, x: Tensor, y: Tensor, differ: list[int]) -> Found:
    """Yield inputs for which two tensors become equal in the sides that differ."""
    moving: list[tuple[Tensor, int]] = []
    places: list[int] = []
    fixed: dict[int, set[int]] = {}
    for dim in differ:
        for one in (x, y):
            own = dim - x.dim() + one.dim()
            if known_origin(one) is not None and input_axes(clues.sized(one, own)):
                moving.append((one, own))
                places.append(dim)
            else:
                fixed.setdefault(dim, set()).add(one.shape[own])

    def agree(sizes: list[int]) -> bool:
        seen = {dim: set(of) for dim, of in fixed.items()}
        for dim, size in zip(places, sizes, strict=True):
            seen.setdefault(dim, set()).add(size)
        return all(len(of) == 1 for of in seen.values())

    fixed_by_weights = not origin_of(x).depends or not origin_of(y).depends
    if fixed_by_weights or any(is_computed(dims_of(one)[own]) for one, own in moving):
        yield from clues.sides(moving, agree, 10)
    for dim in differ:
        for one, other in ((x, y), (y, x)):
            own, wants = dim - x.dim() + one.dim(), other.shape[dim - x.dim() + other.dim()]
            if known_origin(one) is None:
                yield from _parameter(clues, one, own, wants)
                continue
            yield from clues.maker(one, own, wants, rank=12)
            if own or x.dim() == y.dim():
                yield from clues.other_input(one, own, wants)


def _window_settings(clues: Clues, x: Tensor, y: Tensor) -> Found:
    """Yield the strides and paddings of layers with which ``x`` keeps the sides of ``y``."""
    sides = tuple(y.shape[2:])
    number = step_of(x)
    while number is not None and 0 <= number < len(clues.failure.steps):
        step = clues.failure.steps[number]
        shape = step.output_shape
        if isinstance(shape, tuple) and shape[2:] == sides:
            return
        module = clues.part(step.module)
        if step.op.startswith(("conv", "max_pool", "avg_pool")) and step.module:
            yield from _kept_sides(clues, step.module, module)
        number = step.inputs[0] if step.inputs else None


def _kept_sides(clues: Clues, path: str, module: Any) -> Found:
    """Yield the settings with which a window keeps the sides of its input."""
    kernel, stride = (getattr(module, name, None) for name in ("kernel_size", "stride"))
    if not isinstance(kernel, tuple) or not isinstance(stride, tuple):
        return
    name = clues.name_of(path)
    if set(stride) != {1}:
        change = sets(path, name, stride=(1,) * len(stride))
        yield Candidate(9, replace(change, text=f"stride=1 in {name}"))
    padding = tuple((k - 1) * d // 2 for k, d in zip(kernel, module.dilation, strict=True))
    if padding != module.padding and all(k % 2 for k in kernel):
        change = sets(path, name, padding=padding)
        value = padding[0] if len(set(padding)) == 1 else padding
        yield Candidate(9, replace(change, text=f"padding={value} in {name}"))


def _parameter(clues: Clues, weight: Tensor, dim: int, size: int) -> Found:
    """Yield a parameter of another shape, or its first rows."""
    for path, module in clues.model.named_modules():
        for name, own in (*module._parameters.items(), *module._buffers.items()):
            if own is weight:
                shape = list(own.shape)
                shape[dim] = size
                full = f"{path}.{name}" if path else name
                text = f"{full} of {shape_text(tuple(shape))}"
                change = LayerChange(path, (), ((name, tuple(shape)),), text)
                yield Candidate(13, change)
    if size < weight.shape[dim]:
        items = (*((None, None),) * dim, (None, size))
        cut = Transform("index", items)
        text = f"{cut.text()} on the one of {shape_text(tuple(weight.shape))}"
        yield from clues.worded(weight, cut, 14, text)


def _grown(clues: Clues, x: Tensor, y: Tensor, differ: list[int]) -> Found:
    """Yield padding, cropping, a projection, for the one of two tensors that is smaller."""
    if not differ or (0 in differ and x.dim() > 1 and clues.is_batch(x, 0)):
        return
    sides = [d for d in differ if clues.is_side(x, d) or clues.is_side(y, d) or d > 1]
    ndim = x.dim() - 2
    own = len(clues.operands()) > 1
    channels = 1 in differ and ndim >= 1
    strides = [-(-x.shape[d] // max(1, y.shape[d])) for d in range(2, x.dim())]
    past = dims_of(x)[1] if x.dim() > 1 else None
    if not own or not origin_of(x).depends:
        return
    if channels and (2 <= ndim <= 3 or (ndim == 1 and past is not None and past.step is not None)):
        halved = [-(-x.shape[d] // s) == y.shape[d] if s else False
                  for d, s in zip(range(2, x.dim()), strides, strict=True)]  # fmt: skip
        if all(halved):
            args = (ndim, x.shape[1], y.shape[1], tuple(strides))
            larger = x.shape[1] > y.shape[1]
            yield from clues.at(x, Transform("conv", args), 17 + 3 * larger)
    elif differ == [ndim + 1] and ndim < 2 and not clues.is_side(x, ndim + 1):
        larger = x.shape[-1] > y.shape[-1]
        project = Transform("linear", (x.shape[-1], y.shape[-1]))
        yield from clues.at(x, project, 17 + 3 * larger)
    if channels or not sides or sides != differ:
        return
    if all(x.shape[d] < y.shape[d] for d in differ):
        pads: list[int] = []
        for d in range(x.dim() - 1, min(differ) - 1, -1):
            lack = y.shape[d] - x.shape[d] if d in differ else 0
            pads += [lack // 2, lack - lack // 2]
        small = max(y.shape[d] - x.shape[d] for d in differ) <= 3
        yield from clues.at(x, Transform("pad", (tuple(pads),)), 11 if small else 18)
        if ndim >= 1 and clues.is_side(x, x.dim() - 1):
            size = tuple(y.shape[2:])
            yield from clues.at(x, Transform("interpolate", (size,)), 15)
    elif all(x.shape[d] > y.shape[d] for d in differ):
        items = tuple((None, y.shape[d]) if d in differ else (None, None)
                      for d in range(max(differ) + 1))  # fmt: skip
        yield from clues.at(x, Transform("index", items), 16)


def _masks(clues: Clues) -> Found:
    """Yield the shapes of a mask that fit the scores."""
    mask = clues.misfit.tensor
    if mask is None or known_origin(mask) is None:
        return
    scores = [t for t in clues.misfit.others if isinstance(t, Tensor)]
    if len(scores) < 2:
        return
    full: Any = (None, None)
    if mask.dim() == 2:
        turn = Transform("transpose", (0, 1))
        source = next((dim.input[0] for dim in dims_of(mask) if dim.input is not None), None)
        if source is not None and clues.input_number(mask) is None:  # made of an input
            origin = clues.failure.given[source]
            if origin.argument is not None and origin.shape == tuple(mask.shape):
                words = f"{turn.text(clues.input_name(source))} {clues.on(mask, source)}"
                yield Candidate(5, InputChange(origin.argument, turn, words))
        for items in ((full, None, None, full), (None, None, full, full), (full, None, full)):
            yield from clues.at(mask, Transform("index", items), 5)
        yield from clues.at(mask, turn, 6)
    if mask.dim() == 3:
        yield from clues.at(mask, Transform("unsqueeze", (1,)), 5)
    number = next((dim.input[0] for dim in dims_of(mask) if dim.input is not None), None)
    given = None if number is None else clues.failure.given[number]
    if given is not None and given.argument is not None and given.shape == tuple(mask.shape):
        rows, keys = scores[0].shape[-2], scores[1].shape[-2]
        if clues.failure.step.op == "multi_head_attention_forward":
            rows, keys = scores[0].shape[0], scores[1].shape[0]
        wanted = {mask.dim() - 2: rows, mask.dim() - 1: keys}
        if clues.misfit.dim is None and mask.dim() == 2 and "padding" in str(clues.misfit):
            wanted = {1: keys}
        sizes = tuple((d, s) for d, s in wanted.items() if mask.shape[d] not in (1, s))
        shape = list(mask.shape)
        for d, s in sizes:
            shape[d] = s
        text = f"{clues.an_input(given)} of {shape_text(tuple(shape))}"
        if sizes:
            yield Candidate(8, Resize(given.argument, sizes, text))


def _targets(clues: Clues) -> Found:
    """Yield what brings scores and classes together."""
    scores, target = clues.misfit.others[:2]
    turned = scores.dim() > 2 and tuple(target.shape) == tuple(scores.shape[:-1])
    if turned and scores.dim() == 3:
        yield from clues.at(scores, Transform("transpose", (1, 2)), 4)
    elif turned:
        order = (0, scores.dim() - 1, *range(1, scores.dim() - 1))
        yield from clues.at(scores, Transform("permute", order), 4)
    ones = [dim for dim in range(target.dim()) if target.shape[dim] == 1]
    for dim in ones:
        yield from clues.at(target, Transform("squeeze", (dim,)), 5)
    if not ones and scores.dim() == 2 and target.numel() == scores.shape[0]:
        yield from clues.at(target, Transform("flatten", ()), 6)
    wants = (scores.shape[0], *scores.shape[2:]) if scores.dim() > 1 else ()
    number = clues.input_number(target)
    if turned or ones or len(wants) != target.dim():
        return
    if target.dim() > 2:
        size = tuple(target.shape[1:])
        yield from clues.at(scores, Transform("interpolate", (size,)), 9)
    if number is not None and (argument := clues.failure.given[number].argument) is not None:
        sizes = tuple((d, n) for d, n in enumerate(wants) if n != target.shape[d])
        yield Candidate(8, Resize(argument, sizes, f"a target of {shape_text(wants)}"))


def _odd_one(tensors: list[Tensor], free: int | None) -> tuple[Tensor | None, Tensor | None]:
    """Return the tensor that differs from the others, and one of those."""

    def key(tensor: Tensor) -> tuple[int, ...]:
        return tuple(size for i, size in enumerate(tensor.shape) if i != free)

    keys = [key(tensor) for tensor in tensors]
    if len(set(keys)) < 2:
        return None, None
    usual = max(keys, key=keys.count)
    if keys.count(usual) == 1:
        usual = max(keys, key=lambda one: (len(one), prod(one)))
    odd = next(t for t, one in zip(tensors, keys, strict=True) if one != usual)
    return odd, next(t for t, one in zip(tensors, keys, strict=True) if one == usual)
