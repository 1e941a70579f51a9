"""Inputs of other sizes, found by the size formulas or among the sizes of the other operands."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from itertools import combinations, product
from math import prod

from torch import Tensor

from blitz_helpers.trace._changes import InputChange
from blitz_helpers.trace._clues import Candidate, Clues, Found, Sides
from blitz_helpers.trace._field import INPUT_AXIS, Dim, dims_of, known_origin, origin_of
from blitz_helpers.trace._records import shape_text
from blitz_helpers.trace._transforms import Transform

Place = tuple[Tensor, int]
Sizes = tuple[tuple[int, int], ...]
SIDES, FEATURES, MEETING, GUESSES = 10, 11, 16, 70


def input_sizes(clues: Clues, doubtful: bool) -> Found:
    """Yield inputs of other sizes with which the failing call might work."""
    misfit, x, dim = clues.misfit, clues.misfit.tensor, clues.misfit.dim
    wants = misfit.wants
    if misfit.kind == "guard":
        yield from _exported(clues)
    elif misfit.kind == "table":
        yield from _shorter(clues)
    elif misfit.kind == "unequal":
        yield from _level(clues)
    elif misfit.kind == "numbers" and x is not None and wants and -1 not in wants[1:]:
        places = [(x, d) for d in range(1, x.dim())]
        yield from _sides(clues, places, lambda sizes: prod(sizes) == prod(wants[1:]))
    elif x is not None and dim is not None and wants is not None:
        if misfit.kind == "window":
            yield from _sides(clues, [(x, dim)], lambda sizes: sizes[0] >= wants)
        elif _is_computed(dims_of(x)[dim]):
            yield from _sides(clues, [(x, dim)], lambda sizes: sizes[0] == wants)
        elif clues.is_features(x, dim):
            yield from _features(clues, x, dim, wants)
    if misfit.kind in ("unequal", "batch", "size"):
        yield from _met(clues, doubtful)
    if clues.failure.sealed:
        yield from _guesses(clues)


def _guesses(clues: Clues) -> Found:
    """Yield common sides of images, for scripted or exported code, whose steps are not traced."""
    shape = clues.shape_of(0)
    if len(shape) < 3 or clues.failure.given[0].argument is None:
        return
    axes = tuple(range(2, len(shape)))
    noun = "an input of length {}" if len(axes) == 1 else "an input of {} pixels a side"
    for size in sorted({28, 32, 64, 96, 224, 256} - {shape[2]}, key=lambda n: abs(n - shape[2])):
        yield replace(_along(clues, 0, axes, {size}.__contains__, noun), cost=GUESSES)


def _features(clues: Clues, x: Tensor, dim: int, wants: int) -> Found:
    """Yield an input with the number of features or channels that is wanted."""
    own = dims_of(x)[dim]
    if own.input is None or own.input[1] == 0:
        return
    number, axis = own.input
    shape = clues.shape_of(number)
    if clues.failure.given[number].argument is None or shape[axis] != x.shape[dim]:
        return
    channels = clues.misfit.noun == "channels" or (axis == 1 and len(shape) > 3)
    noun = ("channel" if channels else "feature") + "s" * (wants != 1)
    words = f"{clues.an_input(clues.failure.given[number])} of {wants} {noun}"
    yield Candidate(FEATURES, clues.resized(number, ((axis, wants),), words))


def _exported(clues: Clues) -> Found:
    """Yield the input that a program was exported for."""
    dim, wants = clues.misfit.got, clues.misfit.wants
    for number, given in enumerate(clues.failure.given):
        if given.argument is None or given.name != clues.misfit.noun or dim >= len(given.shape):
            continue
        image = dim > 1 and len(given.shape) > 3
        axes = tuple(range(2, len(given.shape))) if image else (dim,)
        words = f"of {wants} pixels a side" if image else f"of {wants} in dimension {dim}"
        sizes = tuple((axis, wants) for axis in axes)
        change = clues.resized(number, sizes, f"{clues.an_input(given)} {words}")
        yield Candidate(3, change, batch=dim == 0)


def _shorter(clues: Clues) -> Found:
    """Yield an input that is not longer than the table of positions."""
    rows, length = clues.misfit.wants, clues.misfit.got + 1
    for number, given in enumerate(clues.failure.given):
        for axis, size in enumerate(given.shape):
            if axis and size == length > rows and given.argument is not None:
                noun = f"{clues.an_input(given)} of length {{}}"
                yield _along(clues, number, (axis,), lambda side: side <= rows, noun)


def _level(clues: Clues) -> Found:
    """Yield input sizes that make two tensors equal in the dimensions where they differ."""
    pairs = combinations(() if clues.misfit.noun else clues.misfit.others, 2)
    x, y = next(((x, y) for x, y in pairs if x.shape != y.shape), (None, None))
    if x is None or y is None:
        return
    differ = differing(x, y, clues.misfit.dim)
    places = [(t, t.dim() - at) for at in differ for t in (x, y)]
    moving = [(t, d) for t, d in places if _input_axes(_sized(clues, t, d))]
    fixed = {(t.dim() - d, t.shape[d]) for t, d in places if not _input_axes(_sized(clues, t, d))}
    known = origin_of(x).depends and origin_of(y).depends
    if known and not any(_is_computed(dims_of(t)[d]) for t, d in moving):
        return  # both are inputs, and neither of them is the wrong one

    def agree(sizes: list[int]) -> bool:
        found = {(t.dim() - d, size) for (t, d), size in zip(moving, sizes, strict=True)}
        return len(found | fixed) == len(differ)

    yield from _sides(clues, moving, agree)


def differing(x: Tensor, y: Tensor, joined: int | None) -> list[int]:
    """Return the dimensions, counted from the end, in which two tensors do not fit together.

    Tensors that are ``joined`` along a dimension may differ in it; others are broadcast.
    """
    found = []
    for at in range(1, 1 + min(x.dim(), y.dim())):
        p, q = x.shape[-at], y.shape[-at]
        allowed = 1 in (p, q) if joined is None else x.dim() - at == joined
        found += [at] if p != q and not allowed else []
    return found


def _met(clues: Clues, doubtful: bool) -> Found:
    """Yield an input with sizes of the tensors that it is combined with."""
    misfit = clues.misfit
    for x in clues.operands:
        number = clues.input_number(x)
        if number is None or clues.shape_of(number) != tuple(x.shape):
            continue
        given = clues.failure.given[number]
        if given.argument is None or (number == 0 and misfit.kind != "size"):
            continue
        for sizes in _met_sizes(clues, x):
            shape = list(x.shape)
            for axis, size in sizes:
                shape[axis] = size
            words = f"{clues.an_input(given)} of {shape_text(tuple(shape))}"
            change = clues.resized(number, sizes, words)
            batch = any(axis == 0 for axis, _ in sizes)
            yield Candidate(MEETING, change, batch, doubtful)


def _met_sizes(clues: Clues, x: Tensor) -> Iterator[Sizes]:
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


def _sides(clues: Clues, places: Sequence[Place], fits: Callable[[list[int]], bool]) -> Found:
    """Yield the input sides for which the sizes at ``places`` satisfy ``fits``."""
    owns = [(x.shape[dim], _sized(clues, x, dim)) for x, dim in places]
    used = {axis for _, own in owns for axis in _input_axes(own)}
    numbers = {number for number, _ in used}
    if len(numbers) != 1 or min(numbers) >= len(clues.failure.given):
        return
    (number,) = numbers
    given = clues.failure.given[number]
    axes = {axis for _, axis in used} - ({0} if len(given.shape) > 1 else set())
    if given.argument is None or not axes:
        return
    every = _all_sides(clues, given.shape, axes, places)
    at = min(set(every) & axes, default=every[0])

    def fits_side(side: int) -> bool:
        if 8 * side < given.shape[every[0]]:
            return False  # nobody means to shrink an image that far
        try:
            return fits([_size_for(size, own, side, every) for size, own in owns])
        except ValueError:
            return False

    which = clues.an_input(given)
    noun = f"{which} of length {{}}" if len(every) == 1 else f"{which} of {{}} pixels a side"
    yield _along(clues, number, every, fits_side, noun, given.shape[at])


def _along(
    clues: Clues,
    number: int,
    axes: tuple[int, ...],
    fits: Callable[[int], bool],
    noun: str,
    given: int = 0,
) -> Sides:
    given = given or clues.shape_of(number)[axes[0]]

    def resize(sizes: Sizes, words: str) -> InputChange:
        return clues.resized(number, sizes, words)

    return Sides(SIDES, number, axes, given, fits, noun, resize)


def _all_sides(
    clues: Clues, shape: tuple[int, ...], axes: set[int], places: Sequence[Place]
) -> tuple[int, ...]:
    """Return all spatial axes of an image, given some of its ``axes``."""
    if len(shape) > 3:
        return tuple(range(2, len(shape)))
    if len(shape) == 3 and clues.failure.step.op.endswith("2d"):
        return (1, 2)  # one image without its batch
    slid = [own for x, _ in places for own in dims_of(x) if own.axis is not None and own.axis.chain]
    return tuple(sorted(axes | {axis for own in slid for _, axis in _input_axes(own) if axis}))


def _sized(clues: Clues, x: Tensor, dim: int) -> Dim:
    """Return where a dimension comes from; an input axis that kept its size counts as spatial."""

    def known(size: int, own: Dim) -> Dim:
        parts = tuple([(one, known(one, part)) for one, part in own.parts])
        summed = tuple([(one, known(one, part)) for one, part in own.summed])
        own = own._replace(parts=parts, summed=summed)
        if own.axis is None and own.input is not None:
            number, axis = own.input
            if clues.shape_of(number)[axis : axis + 1] == (size,):
                return own._replace(axis=INPUT_AXIS)
        return own

    return known(x.shape[dim], dims_of(x)[dim]) if known_origin(x) is not None else Dim()


def _input_axes(dim: Dim) -> set[tuple[int, int]]:
    """Return the input axes that determine the size of a dimension, as (input, axis)."""
    if dim.input is not None and dim.axis is not None:
        return {dim.input}
    return {axis for _, part in (*dim.parts, *dim.summed) for axis in _input_axes(part)}


def _is_computed(dim: Dim) -> bool:
    """Return whether the size of a dimension was computed, not just taken over from an input."""
    return bool(dim.parts or dim.summed) or (dim.axis is not None and dim.axis.chain is not None)


def _size_for(size: int, dim: Dim, side: int, axes: tuple[int, ...]) -> int:
    """Return the size of a dimension for an input of ``side`` along some axes."""
    if dim.axis is not None and dim.input is not None and dim.input[1] in axes:
        return dim.axis.size_for(side)
    if dim.summed:
        return sum(_size_for(one, part, side, axes) for one, part in dim.summed)
    if dim.parts:
        return prod(_size_for(one, part, side, axes) for one, part in dim.parts)
    return size
