"""Inputs of other sizes, found by the size formulas or among the sizes of the other operands."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from itertools import combinations, pairwise, product
from math import prod

from torch import Tensor

from blitz_helpers.trace._clues import Clues, Found, Sides, Sizes, differing
from blitz_helpers.trace._costs import Cost
from blitz_helpers.trace._field import Dim, dims_of, origin_of
from blitz_helpers.trace._transforms import Transform

Place = tuple[Tensor, int]
Fits = Callable[[list[int]], bool]


def input_sizes(clues: Clues, doubtful: bool) -> Found:
    """Yield inputs of other sizes with which the failing call might work."""
    misfit, x, dim = clues.misfit, clues.misfit.tensor, clues.misfit.dim
    wants = misfit.wants
    if misfit.kind == "guard":
        yield from _exported(clues)
    elif misfit.kind == "table":
        yield from _shorter(clues)
    elif misfit.kind == "unequal":
        yield from _equal_sides(clues)
    elif misfit.kind == "numbers" and x is not None and wants:
        yield from _viewed(clues, x, wants)
    elif x is not None and dim is not None and wants is not None:
        if misfit.kind == "window":
            yield from _sides(clues, [(x, dim)], lambda sizes: sizes[0] >= wants)
        elif _is_computed(dims_of(x)[dim]):
            yield from _sides(clues, [(x, dim)], lambda sizes: sizes[0] == wants)
        elif clues.is_features(x, dim):
            yield from _features(clues, x, dim, wants)
    if misfit.kind in ("unequal", "batch", "size"):
        yield from _with_sizes_of_operands(clues, doubtful)
    if clues.failure.sealed:
        yield from _guesses(clues)


def _guesses(clues: Clues) -> Found:
    """Yield common sides of images, for scripted or exported code, whose steps are not traced."""
    shape = clues.shape_of(0)
    if len(shape) < 3:
        return
    for size in sorted({28, 32, 64, 96, 224, 256} - {shape[2]}, key=lambda n: abs(n - shape[2])):
        yield from _along(clues, 0, tuple(range(2, len(shape))), {size}.__contains__, Cost.GUESS)


def _features(clues: Clues, x: Tensor, dim: int, wants: int) -> Found:
    """Yield an input with the number of features or channels that is wanted."""
    number, axis = dims_of(x)[dim].input or (0, 0)
    shape = clues.shape_of(number)
    if axis and shape[axis] == x.shape[dim]:
        channels = clues.misfit.noun == "channels" or (axis == 1 and len(shape) > 3)
        noun = ("channel" if channels else "feature") + "s" * (wants != 1)
        yield from clues.another_input(number, ((axis, wants),), Cost.FEATURES, f"{wants} {noun}")


def _exported(clues: Clues) -> Found:
    """Yield the input that a program was exported for."""
    dim, wants = clues.misfit.got, clues.misfit.wants
    for number, given in enumerate(clues.failure.given):
        if given.name == clues.misfit.noun and dim < len(given.shape):
            image = dim > 1 and len(given.shape) > 3
            axes = range(2, len(given.shape)) if image else (dim,)
            words = f"{wants} pixels a side" if image else f"{wants} in dimension {dim}"
            sizes = tuple((axis, wants) for axis in axes)
            yield from clues.another_input(number, sizes, Cost.EXPORTED, words)


def _viewed(clues: Clues, x: Tensor, asked: tuple[int, ...]) -> Found:
    """Yield input sizes that give as many numbers as a view asks for, or that its parts divide."""

    def divide(window: int, sizes: list[int]) -> bool:
        return not any(size % window for size in sizes)

    for pair in pairwise(asked):
        window = pair[1]
        places = [(x, d) for d, n in enumerate(x.shape) if window > 1 and pair[0] == n // window]
        if places and any(x.shape[d] % window for _, d in places):
            yield from _sides(clues, places, partial(divide, window))
            return
    if -1 not in asked[1:]:
        places = [(x, d) for d in range(1, x.dim())]
        yield from _sides(clues, places, lambda sizes: prod(sizes) == prod(asked[1:]))


def _shorter(clues: Clues) -> Found:
    """Yield an input that is not longer than the table of positions."""
    rows, length = clues.misfit.wants, clues.misfit.got + 1
    for number, given in enumerate(clues.failure.given):
        for axis, size in enumerate(given.shape):
            if axis and size == length > rows:
                yield from _along(clues, number, (axis,), lambda side: side <= rows)


def _equal_sides(clues: Clues) -> Found:
    """Yield input sizes that make two tensors equal in the dimensions where they differ."""
    pairs = _differing(clues)
    places = [place for pair in pairs for place in pair]
    axes = {(id(t), d): _input_axes(clues, t.shape[d], dims_of(t)[d]) for t, d in places}
    if all(not _is_computed(dims_of(t)[d]) and origin_of(t).depends for t, d in places):
        for pair in pairs:
            yield from _like_other_input(clues, pair, axes)
        return
    for number in sorted({number for used in axes.values() for number, _ in used}):
        # A side that follows from another input, or from the number of samples, is kept.
        moving = [
            (t, d)
            for t, d in places
            if {one for one, _ in axes[id(t), d]} == {number} and axes[id(t), d] != {(number, 0)}
        ]
        if moving:
            yield from _sides(clues, moving, partial(_agree, pairs, moving))


def _like_other_input(
    clues: Clues, pair: tuple[Place, Place], axes: dict[tuple[int, int], set[tuple[int, int]]]
) -> Found:
    """Yield an input with the size that another input has, the later input first."""
    found = []
    for (t, d), (u, e) in (pair, pair[::-1]):
        if len(axes[id(t), d]) == len(axes[id(u), e]) == 1:
            (number, axis), (other, _) = *axes[id(t), d], *axes[id(u), e]
            found += [(number, axis, u.shape[e])] if number != other else []
    for number, axis, size in sorted(found, reverse=True):
        yield from clues.another_input(number, ((axis, size),), Cost.MEETING)


def _differing(clues: Clues) -> list[tuple[Place, Place]]:
    """Return the dimensions in which two operands should agree, and do not."""
    misfit = clues.misfit
    if misfit.noun == "target":
        scores, target = misfit.others
        dims = [d for d in range(scores.dim()) if d != 1]  # dimension 1 holds the classes
        both = zip(dims, range(target.dim()), strict=False)
        found = [(d, e) for d, e in both if scores.shape[d] != target.shape[e]]
        return [((scores, d), (target, e)) for d, e in found if len(dims) == target.dim()]
    for x, y in combinations(() if misfit.noun else misfit.others, 2):
        if x.shape != y.shape:
            differ = differing(x, y, misfit.dim)
            return [((x, x.dim() - at), (y, y.dim() - at)) for at in differ]
    return []


def _agree(pairs: list[tuple[Place, Place]], moving: list[Place], sizes: list[int]) -> bool:
    """Return whether new sizes at the ``moving`` places make each pair equal."""
    new = {(id(t), d): size for (t, d), size in zip(moving, sizes, strict=True)}
    rows = [[new.get((id(t), d), t.shape[d]) for t, d in pair] for pair in pairs]
    return 1 not in sizes and all(left == right for left, right in rows)


def _with_sizes_of_operands(clues: Clues, doubtful: bool) -> Found:
    """Yield an input with sizes of the tensors that it is combined with."""
    misfit = clues.misfit
    for x in clues.operands:
        number = clues.input_number(x)
        if number is None or clues.shape_of(number) != tuple(x.shape):
            continue
        for sizes in _needed_sizes(clues, x) if number or misfit.kind == "size" else ():
            yield from clues.another_input(number, sizes, Cost.MEETING, doubtful=doubtful)


def _needed_sizes(clues: Clues, x: Tensor) -> Iterator[Sizes]:
    """Yield axes of ``x`` with the sizes that they would need."""
    misfit = clues.misfit
    others = [one for one in clues.failure.tensors if one is not x]
    if misfit.kind == "unequal" and not misfit.noun:
        alike = [one for one in others if one.dim() == x.dim()]
        axes = [{y.shape[d] for y in alike} if d != misfit.dim else () for d in range(x.dim())]
        yield from _accepted_sizes(clues, x, axes)
    elif x is not misfit.tensor:
        return
    elif misfit.kind == "unequal":
        met = {size for one in others for size in one.shape}
        yield from _accepted_sizes(clues, x, [met] * x.dim())
    elif misfit.kind == "batch" and misfit.wants:
        yield tuple((d, n) for d, n in enumerate(misfit.wants) if n != x.shape[d])
    elif misfit.dim is not None and misfit.noun.startswith(("rows", "values", "indices")):
        yield ((misfit.dim, misfit.wants),)


def _accepted_sizes(clues: Clues, x: Tensor, options: Sequence[Collection[int]]) -> Iterator[Sizes]:
    """Yield the smallest sets of new sizes for ``x`` with which the call works."""
    for count in (1, 2, 3):
        found = []
        for axes in combinations(range(x.dim()), count):
            for new in product(*[sorted({*options[axis]} - {x.shape[axis]}) for axis in axes]):
                change = tuple(zip(axes, new, strict=True))
                other = Transform("sized", change)(x.to("meta"))
                found += [change] if clues.accepts(x, other) else []
        if found:
            yield from found
            return


# The size formulas


def _sides(clues: Clues, places: Sequence[Place], fits: Fits) -> Found:
    """Yield the input sides for which the sizes at ``places`` satisfy ``fits``."""
    owns = [(x.shape[dim], dims_of(x)[dim]) for x, dim in places]
    used = {axis for size, own in owns for axis in _input_axes(clues, size, own)}
    if len({number for number, _ in used}) != 1:
        return
    number = min(used)[0]
    shape = clues.shape_of(number)
    own_axes = {axis for _, axis in used} - ({0} if len(shape) > 1 else set())
    if not own_axes:
        return
    axes = tuple(range(2, len(shape))) if len(shape) > 3 else tuple(sorted(own_axes))
    given = shape[min(set(axes) & own_axes, default=axes[0])]

    def fits_side(side: int) -> bool:
        if 8 * side < shape[axes[0]]:
            return False  # nobody means to shrink an image that far
        try:
            return fits([_size_for(clues, size, own, side, axes) for size, own in owns])
        except ValueError:
            return False

    last = len(axes) == 1 and 0 < axes[0] == len(shape) - 1
    numbers = clues.failure.given[number].dtype.is_floating_point
    features = last and numbers and not any(_is_slid(dim) for _, dim in owns)
    words = "{} features" if features else ""
    yield from _along(clues, number, axes, fits_side, given=given, words=words)


def _along(
    clues: Clues,
    number: int,
    axes: tuple[int, ...],
    fits: Callable[[int], bool],
    cost: float = Cost.SIDES,
    given: int = 0,
    words: str = "",
) -> Found:
    """Yield the sizes of an input along some axes for which ``fits`` is true."""
    noun = clues.an_input(number, words or ("{} pixels a side" if axes[1:] else "length {}"))
    shape = clues.shape_of(number)
    differ = len({shape[axis] for axis in axes}) > 1
    given = given or shape[axes[0]]
    yield Sides(cost, *clues.place_of(number), axes, given, fits, noun, differ)


def _follows(clues: Clues, size: int, dim: Dim) -> bool:
    """Return whether the size of a dimension is, or follows from, that of an input axis."""
    if dim.input is None:
        return False
    number, axis = dim.input
    return dim.axis is not None or clues.shape_of(number)[axis : axis + 1] == (size,)


def _input_axes(clues: Clues, size: int, dim: Dim) -> set[tuple[int, int]]:
    """Return the input axes that determine the size of a dimension, as (input, axis)."""
    if dim.input is not None and _follows(clues, size, dim):
        return {dim.input}
    parts = (*dim.parts, *dim.summed)
    return {axis for one, part in parts for axis in _input_axes(clues, one, part)}


def _is_computed(dim: Dim) -> bool:
    """Return whether the size of a dimension was computed, not just taken over from an input."""
    return bool(dim.parts or dim.summed) or (dim.axis is not None and dim.axis.chain is not None)


def _is_slid(dim: Dim) -> bool:
    """Return whether windows have slid along a dimension, or along a part of it."""
    parts = (*dim.parts, *dim.summed)
    own = dim.axis is not None and dim.axis.chain is not None
    return own or any(_is_slid(part) for _, part in parts)


def _size_for(clues: Clues, size: int, dim: Dim, side: int, axes: tuple[int, ...]) -> int:
    """Return the size of a dimension for an input of ``side`` along some axes."""
    if dim.input is not None and dim.input[1] in axes and _follows(clues, size, dim):
        return side if dim.axis is None else dim.axis.size_for(side)
    sizes = [_size_for(clues, one, part, side, axes) for one, part in (*dim.parts, *dim.summed)]
    if dim.summed:
        return sum(sizes)
    return prod(sizes) if dim.parts else size
