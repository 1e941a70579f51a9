"""What might mend one tensor whose sizes or dimensions do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

from torch import Tensor

from blitz_helpers.trace._clues import (
    Candidate,
    Clues,
    Found,
    Sides,
    is_computed,
    slot_of,
)
from blitz_helpers.trace._field import dims_of, known_origin, origin_of
from blitz_helpers.trace._layers import sets, takes
from blitz_helpers.trace._remedies import (
    CodeChange,
    LayerChange,
    Resize,
)
from blitz_helpers.trace._transforms import Transform


def wrong_size(clues: Clues) -> Found:
    """Yield ways out where one dimension is not the one size that fits."""
    misfit, x, dim = clues.misfit, clues.misfit.tensor, clues.misfit.dim
    if x is None or dim is None or known_origin(x) is None:
        return  # both are weights: nothing that came in can mend that
    wants, got = misfit.wants, misfit.got
    own = dims_of(x)[dim]
    views: list[Candidate | Sides] = []
    if wants is not None:
        views += _flattened(clues, x, dim, wants)
        if not views and misfit.noun != "inner":
            views += _moved(clues, x, dim, wants)
        views += _unmixed(clues, x, dim)
        if wants == 1 and misfit.noun == "channels" and dim == 0 and x.dim() > 1:
            views += clues.at(x, Transform("unsqueeze", (1,)), 4)
        elif misfit.noun == "channels" and dim == 0 and x.shape[1] == wants:
            views += clues.at(x, Transform("unsqueeze", (-1,)), 4)
        elif misfit.noun == "channels" and dim == 0 and x.dim() == 2:
            views += _images(clues, x, 3, wants)
        yield from views
    # What stands elsewhere is not to be made here as well.
    doubtful = bool(views) and own.step is None
    if clues.is_features(x, dim):
        path, module = clues.failure.step.module, clues.failure.module
        change = takes(path, module, got, misfit.noun, "")
        if change is not None:
            yield Candidate(20, change, doubtful=doubtful)
    if wants is None:
        return
    yield from clues.maker(x, dim, wants)
    if not doubtful:
        yield from _input_size(clues, x, dim, wants)
        yield from _fitting(clues, x, dim, wants)
    if misfit.noun.startswith("rows"):
        yield from clues.other_input(x, dim, wants)
    if misfit.noun == "inner" and misfit.others:
        yield from _product(clues, x, misfit.others[0])


def _product(clues: Clues, a: Tensor, b: Tensor) -> Found:
    """Yield the transposes that make two matrices meet."""
    if b.dim() > 1 and b.shape[-1] == a.shape[-1]:
        text = "the second one's .transpose(-2, -1)"
        yield from clues.worded(b, Transform("transpose", (-2, -1)), 6, text)
    if a.dim() > 1 and b.dim() > 1 and a.shape[-2] == b.shape[-2]:
        text = "the first one's .transpose(-2, -1)"
        yield from clues.worded(a, Transform("transpose", (-2, -1)), 7, text)


def _moved(clues: Clues, x: Tensor, dim: int, wants: int) -> Found:
    """Yield the moves of another dimension, which has the size that is wanted, to its place."""
    ndim = x.dim()
    for other in reversed(range(ndim)):
        same = x.shape[other] == wants
        if other == dim or not same or clues.is_side(x, other) or clues.is_batch(x, other):
            continue
        own = dims_of(x)[other]
        if own.input is not None and own.input[1] == 0 and ndim > 1:
            continue
        if ndim > 3 and dim == 1 and other > 1 and len(set(x.shape[2:])) == 1:
            continue  # a square image with its channels first: this is its width
        if dim == ndim - 1 and ndim > 3 and origin_of(x).untouched and other != 1:
            continue
        order = [i for i in range(ndim) if i != other]
        order.insert(dim, other)
        if ndim == 3 and sorted((dim, other)) == [1, 2]:
            transform = Transform("transpose", (1, 2))
        else:
            transform = Transform("permute", tuple(order))
        yield from clues.at(x, transform, 5)


def _flattened(clues: Clues, x: Tensor, dim: int, wants: int) -> Found:
    """Yield the flattening of dimensions whose product is what is wanted."""
    if dim != x.dim() - 1:
        return
    for start in range(1, dim):
        if any(clues.is_batch(x, other) for other in range(start, x.dim())):
            continue
        if prod(x.shape[start:]) == wants:
            yield from clues.at(x, Transform("flatten", (start,)), 4)
            return


def _unmixed(clues: Clues, x: Tensor, dim: int) -> Found:
    """Yield the view that keeps the batch in the place of one that mixed it in."""
    maker = clues.made_at(x)
    mixes = any(
        part.input == (0, 0) and size > 1
        for one in dims_of(x)
        for size, part in one.parts
    )  # fmt: skip
    if maker is None or not mixes:
        return
    step, call = maker
    op = clues.failure.steps[step].op
    if op in ("flatten", "view", "reshape"):
        text = f"x.flatten(1) in the place of {op}"
        change = CodeChange(call, op, ("call",), Transform("flatten", (1,)), text)
        yield Candidate(3, change)


def _input_size(clues: Clues, x: Tensor, dim: int, wants: int) -> Found:
    """Yield an input with the size that is wanted, where the dimension is one of its own."""
    own = dims_of(x)[dim]
    if own.input is None or not clues.is_features(x, dim):
        return
    number, axis = own.input
    if number >= len(clues.failure.given) or axis == 0:
        return
    given = clues.failure.given[number]
    if given.argument is None or given.shape[axis] != x.shape[dim]:
        return
    channels = clues.misfit.noun == "channels" or (axis == 1 and len(given.shape) > 3)
    noun = "channels" if channels else "features"
    plural = noun if wants != 1 else noun[:-1]
    which = clues.an_input(given)
    text = f"{which} of {wants} {plural}"
    yield Candidate(25, Resize(given.argument, ((axis, wants),), text))


def _fitting(clues: Clues, x: Tensor, dim: int, wants: int) -> Found:
    """Yield the sizes of the input that give the dimension the size that is wanted."""
    own = dims_of(x)[dim]
    if is_computed(own):
        yield from clues.sides([(x, dim)], lambda sizes: sizes[0] == wants, 22)


def wrong_rank(clues: Clues) -> Found:
    """Yield views with the number of dimensions that is wanted."""
    misfit, x = clues.misfit, clues.misfit.tensor
    if x is None or known_origin(x) is None or not misfit.wants:
        return
    lacking, shape = max(misfit.wants) - x.dim(), tuple(x.shape)
    channels = misfit.channels
    if channels is None:
        channels = getattr(clues.failure.module, "num_features", None)
    if lacking > 0:
        yield from _images(clues, x, max(misfit.wants), channels)
        if channels is not None and shape == (channels,):
            items = (None, (None, None), *(None,) * (max(misfit.wants) - 2))
            yield from clues.at(x, Transform("index", items), 5, batch=True)
        if channels is not None and x.dim() == 2 and shape[1] == channels:
            items = ((None, None), (None, None), *(None,) * lacking)
            yield from clues.at(x, Transform("index", items), 5)
        if lacking == 1 or min(misfit.wants) - x.dim() == 1:
            first = 4 if channels is None or x.dim() < 1 or shape[0] == channels else 8
            first += 0 if clues.input_number(x) is not None else 8
            if x.dim() != 2 or (channels is not None and _is_picture(clues, x)):
                yield from clues.at(x, Transform("unsqueeze", (0,)), first, batch=True)
            if channels == 1:
                yield from clues.at(x, Transform("unsqueeze", (1,)), 6)
            elif x.dim() == 2:
                yield from clues.at(x, Transform("unsqueeze", (1,)), 12)
        if lacking == 2 and channels in (None, 1) and _is_picture(clues, x):
            yield from clues.at(x, Transform("index", (None, None)), 7, batch=True)
    else:
        for dim in range(x.dim() - 1, -1, -1):
            if shape[dim] == 1:
                yield from clues.at(x, Transform("squeeze", (dim,)), 6, batch=dim == 0)
        start = max(misfit.wants) - 1
        if clues.failure.step.op.startswith("BatchNorm1"):
            yield from clues.at(x, Transform("flatten", (start,)), 10)


def _is_picture(clues: Clues, x: Tensor) -> bool:
    """Return whether the last two dimensions look like the sides of one picture."""
    if x.dim() < 2:
        return False
    high, wide = x.shape[-2:]
    return max(high, wide) <= 4 * min(high, wide)


def _images(clues: Clues, x: Tensor, ndim: int, channels: int | None) -> Found:
    """Yield the view that makes images of flat rows."""
    sides = ndim - 2
    if channels is None or x.dim() != 2 or sides < 1 or x.shape[1] % channels:
        return
    pixels = x.shape[1] // channels
    side = round(pixels ** (1 / sides))
    if side > 1 and side**sides == pixels:
        transform = Transform("reshape", (-1, channels, *(side,) * sides))
        yield from clues.at(x, transform, 3)


def small_window(clues: Clues) -> Found:
    """Yield larger inputs, and padding, where a side is too small."""
    misfit, x, dim = clues.misfit, clues.misfit.tensor, clues.misfit.dim
    if x is None or dim is None or known_origin(x) is None:
        return
    least = misfit.wants
    yield from clues.sides([(x, dim)], lambda sizes: min(sizes) >= least, 15)
    module, path = clues.failure.module, clues.failure.step.module
    padding = getattr(module, "padding", None)
    kernel = getattr(module, "kernel_size", None)
    if isinstance(padding, int | tuple) and kernel is not None:
        yield from _padded(clues, path, module, padding, least - x.shape[dim])


def _padded(clues: Clues, path: str, module: Any, padding: Any, lack: int) -> Found:
    """Yield another padding in a layer."""
    sides = padding if isinstance(padding, tuple) else (padding,)
    transposed = "Transpose" in type(module).__name__
    step = -1 if transposed else 1
    strides = module.stride if isinstance(module.stride, tuple) else (module.stride,)
    more = -(-lack * (max(strides) if transposed else 1) // 2)
    if any(side + step * more < 0 for side in sides):
        return
    value: Any = tuple(side + step * more for side in sides)
    value = value[0] if len(set(value)) == 1 else value
    change = sets(path, "", padding=value)
    text = f"padding={value}"
    settings: list[tuple[str, Any]] = []
    whole = value if isinstance(value, tuple) else (value,) * len(sides)
    settings.append(("padding", whole if isinstance(padding, tuple) else value))
    yield Candidate(14, LayerChange(change.path, tuple(settings), (), text))


def wrong_count(clues: Clues) -> Found:
    """Yield views that hold the numbers there are."""
    misfit, x, op = clues.misfit, clues.misfit.tensor, clues.failure.step.op
    if x is None or known_origin(x) is None:
        return
    number = clues.failure.number
    if misfit.noun == "stride":
        text = f"x.reshape(...) in the place of x.{op}(...)"
        slot = slot_of(x, clues.failure.args, clues.failure.kwargs)
        if slot is not None:  # reshape is a view of such a copy
            yield Candidate(2, CodeChange(number, op, slot, Transform("contiguous"), text))
        return
    asked = misfit.wants
    for sizes, rank in _other_sizes(x, asked):
        transform = Transform("reshape", sizes)
        text = f"x.{'view' if op == 'view' else 'reshape'}{sizes} in the place of {asked}"
        yield Candidate(rank, CodeChange(number, op, ("call",), transform, text))
    if x.dim() > 1 and len(asked) == 2:
        text = f"x.flatten(1) in the place of {op}"
        yield Candidate(3, CodeChange(number, op, ("call",), Transform("flatten", (1,)), text))
    last = x.dim() - 1
    if last > 0 and -1 not in asked[last:] and asked[1:last] == tuple(x.shape[1:last]):
        rest = prod(asked[last:])
        yield from clues.maker(x, last, rest, rank=6)
    if x.dim() > 1 and -1 not in asked[1:]:
        rest = prod(asked[1:])
        places = [(x, dim) for dim in range(1, x.dim())]
        yield from clues.sides(places, lambda sizes: prod(sizes) == rest, 8)


def _other_sizes(x: Tensor, asked: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], int]]:
    """Yield sizes like those asked for that hold the numbers there are."""
    if len(asked) > 1 and asked[0] not in (-1, x.shape[0]) and -1 not in asked[1:]:
        yield (-1, *asked[1:]), 1
        yield (x.shape[0], *asked[1:]), 12
    per = x.numel() // max(1, x.shape[0]) if x.dim() else 0
    sides = len(asked) - 2
    if sides > 0 and len(set(asked[2:])) == 1 and asked[1] > 0 and per % asked[1] == 0:
        side = round((per // asked[1]) ** (1 / sides))
        if side**sides * asked[1] == per:
            yield (-1, asked[1], *(side,) * sides), 4
    if sides > 0 and asked[1] != -1 and min(asked[2:]) > 0 and per % prod(asked[2:]) == 0:
        yield (-1, per // prod(asked[2:]), *asked[2:]), 7
