"""What a failure tells: which tensors can be changed where, and what their dimensions are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor, nn

from blitz_helpers.trace._failures import Failure, Given, place_name
from blitz_helpers.trace._field import INPUT_AXIS, Dim, dims_of, known_origin, origin_of
from blitz_helpers.trace._layers import makes
from blitz_helpers.trace._op import Misfit
from blitz_helpers.trace._records import shape_text
from blitz_helpers.trace._remedies import (
    Change,
    CodeChange,
    InputChange,
    Resize,
    Slot,
)
from blitz_helpers.trace._transforms import Transform


@dataclass(frozen=True)
class Candidate:
    """A change that may help.

    ``batch`` is on where it changes the batch, and says so; ``doubtful`` where it would only hide
    the failure if another remedy is found.
    """

    rank: int
    change: Change
    batch: bool = False
    doubtful: bool = False


@dataclass(frozen=True)
class Sides:
    """An input of another size along some axes, one of those that ``fits`` takes."""

    rank: int
    argument: int | str
    axes: tuple[int, ...]
    given: int
    fits: Callable[[int], bool]
    noun: str
    doubtful = False

    def change(self, size: int, text: str = "") -> Resize:
        """Return the change to one size."""
        return Resize(self.argument, tuple((axis, size) for axis in self.axes), text)

    def words(self, sizes: str) -> str:
        """Return the remedy in words: ``sizes`` such as ``"30 to 33"``."""
        return self.noun.format(sizes)


Found = Iterator[Candidate | Sides]


class Clues:
    """A failure, and the changes that can be made where it happened."""

    def __init__(self, failure: Failure, model: nn.Module) -> None:
        self.failure, self.model = failure, model
        self.misfit: Misfit = failure.misfit

    def at(self, x: Tensor, transform: Transform, rank: int, batch: bool = False) -> Found:
        """Yield the change that applies a transform to an operand: an input, or a value between."""
        failure = self.failure
        number = self.input_number(x)
        if number is not None:
            given = failure.given[number]
            if given.argument is not None:
                words = f"{transform.text(self.input_name(number))} {self.on(x, number)}"
                change = InputChange(given.argument, transform, words)
                alone = not self.used_before(x)
                yield Candidate(rank if alone else rank + 2, change, batch)
                if alone:
                    return
        slot = slot_of(x, failure.args, failure.kwargs) if failure.called else None
        several = len(self.operands()) > 1
        where = (
            f"on the one of {shape_text(tuple(x.shape))}" if several else f"before {failure.name}"
        )
        words = f"{transform.text()} {where}"
        if transform == Transform("flatten", (1,)) and self.in_sequential() and not several:
            words = f"nn.Flatten() before {failure.name}"
        if slot is not None:
            op = failure.step.op
            yield Candidate(rank, CodeChange(failure.number, op, slot, transform, words), batch)
        elif not failure.called and (maker := self.made_at(x)) is not None:
            step, call = maker
            made = CodeChange(call, failure.steps[step].op, ("output",), transform, words)
            yield Candidate(rank, made, batch)

    def used_before(self, x: Tensor) -> bool:
        """Return whether an earlier step took an input of this shape, too."""
        shape = tuple(x.shape)
        return any(
            made == -1 and taken == shape
            for step in self.failure.steps
            for made, taken in zip(step.inputs, step.input_shapes, strict=True)
        )

    def on(self, x: Tensor, number: int) -> str:
        """Return which input is meant, in words."""
        if len(self.failure.given) == 1:
            return "on the input"
        if self.misfit.kind == "unequal" and len(self.operands()) > 1:
            return f"on the one of {shape_text(tuple(x.shape))}"
        return f"on the input {self.failure.given[number].name}"

    def an_input(self, given: Given) -> str:
        """Return what to call another input in its place."""
        if len(self.failure.given) == 1:
            return "an input"
        return f"an input {given.name}" if given.name.isidentifier() else f"input {given.name}"

    def input_name(self, number: int) -> str:
        """Return what to call an input in code."""
        name = self.failure.given[number].name
        return name if len(self.failure.given) > 1 and name.isidentifier() else "x"

    def input_number(self, x: Tensor) -> int | None:
        """Return which input this tensor is, if it is one itself."""
        if step_of(x) != -1 or known_origin(x) is None:
            return None
        return next((dim.input[0] for dim in dims_of(x) if dim.input is not None), None)

    def made_at(self, x: Tensor) -> tuple[int, int] | None:
        """Return the step that made a tensor, and the number of its call."""
        step = step_of(x)
        return None if step is None or step < 0 else (step, self.failure.numbers[step])

    def operands(self) -> list[Tensor]:
        """Return the tensors that the trace made among the arguments."""
        found: list[Tensor] = []
        for value in (*self.failure.args, *self.failure.kwargs.values()):
            for one in value if isinstance(value, list | tuple) else (value,):
                if isinstance(one, Tensor) and known_origin(one) is not None:
                    found.append(one)
        return found

    def in_sequential(self) -> bool:
        """Return whether the failing layer stands in an `nn.Sequential`."""
        parent = self.failure.step.module.rpartition(".")[0]
        return isinstance(self.part(parent), nn.Sequential)

    def part(self, path: str) -> nn.Module | None:
        """Return the module of a path."""
        try:
            return self.model.get_submodule(path)
        except AttributeError:
            return None

    def name_of(self, path: str) -> str:
        """Return what to call a module in a remedy."""
        return place_name(path, self.part(path), path)

    def is_batch(self, x: Tensor, dim: int) -> bool:
        """Return whether a dimension holds the batch."""
        own = dims_of(x)[dim]
        return own.input is not None and own.input[1] == 0 and x.dim() > 1

    def is_side(self, x: Tensor, dim: int) -> bool:
        """Return whether windows slide along a dimension."""
        own = dims_of(x)[dim]
        if own.input is not None and own.input[0] < len(self.failure.given):
            shape = self.failure.given[own.input[0]].shape
            if len(shape) > 3 and own.input[1] > 1 and not origin_of(x).untouched:
                return True
        return own.axis is not None and not origin_of(x).untouched

    def is_features(self, x: Tensor, dim: int) -> bool:
        """Return whether a dimension can be called features or channels."""
        own = dims_of(x)[dim]
        if own.step is not None:
            return True
        if own.parts:
            return all(part.input is None or part.input[1] > 0 for _, part in own.parts)
        if self.is_side(x, dim):
            return False
        if own.input is None:
            return own == Dim()
        number, axis = own.input
        if number >= len(self.failure.given):
            return False
        ndim = len(self.failure.given[number].shape)
        if self.misfit.noun == "channels":
            return axis == dim
        attends = self.misfit.noun.startswith("features in")
        pooled = axis == 1 and ndim > 3 and x.dim() < 3  # the channels, without their sides
        return pooled or (axis == ndim - 1 and (ndim <= 3 or attends))

    def worded(self, x: Tensor, transform: Transform, rank: int, text: str) -> Found:
        """Yield a code change of an operand, in words of its own."""
        slot = slot_of(x, self.failure.args, self.failure.kwargs)
        if slot is not None:
            op, number = self.failure.step.op, self.failure.number
            yield Candidate(rank, CodeChange(number, op, slot, transform, text))

    def maker(self, x: Tensor, dim: int, wants: int, rank: int = 30) -> Found:
        """Yield another size for the layer that made the dimension."""
        own, size = dims_of(x)[dim], wants
        for part_size, part in own.parts:
            if part.step is not None:
                rest = prod(one for one, _ in own.parts) // part_size
                own, size = part, wants // rest if wants % rest == 0 else 0
                break
        if own.parts and size == wants:
            yield from self.input_channels(own, wants)
        path = self.failure.maker(own)
        if path and size:
            change = makes(path, self.part(path), size, self.name_of(path))
            if change is not None:
                yield Candidate(rank, change)

    def input_channels(self, dim: Dim, wants: int) -> Found:
        """Yield an input of other channels, where a view multiplied them with sides."""
        for size, part in dim.parts:
            rest = prod(one for one, _ in dim.parts) // size
            if part.input is None or part.input[1] != 1 or wants % rest:
                continue
            given = self.failure.given[part.input[0]]
            channels = wants // rest
            if given.argument is not None and given.shape[1] == size != channels:
                text = f"{self.an_input(given)} of {channels} channel{'s' * (channels > 1)}"
                yield Candidate(26, Resize(given.argument, ((1, channels),), text))

    def sides(
        self, places: Sequence[tuple[Tensor, int]], fits: Callable[[list[int]], bool], rank: int
    ) -> Found:
        """Yield the input sides that give the dimensions at these places sizes that fit."""
        owns = [(x.shape[dim], self.sized(x, dim)) for x, dim in places]
        used = {axis for size, own in owns for axis in input_axes(own)}
        numbers = {number for number, _ in used}
        if len(numbers) != 1:
            return
        (number,) = numbers
        if number >= len(self.failure.given):
            return
        given = self.failure.given[number]
        axes = tuple(sorted({axis for _, axis in used} - {0} if len(given.shape) > 1 else {0}))
        if given.argument is None or not axes:
            return
        axes = self.all_sides(given.shape, axes, places)

        def fits_side(side: int) -> bool:
            if 8 * side < given.shape[axes[0]]:
                return False  # a size for which hardly anything is left
            try:
                return fits([size_for(size, own, side, axes) for size, own in owns])
            except ValueError:
                return False

        which = self.an_input(given)
        noun = f"{which} of length {{}}" if len(axes) == 1 else f"{which} of {{}} pixels a side"
        at = next((i for i in axes if i in {axis for _, axis in used}), axes[0])
        yield Sides(rank, given.argument, axes, given.shape[at], fits_side, noun)

    def sized(self, x: Tensor, dim: int) -> Dim:
        """Return where a dimension comes from, an axis of an input that kept its size as such."""

        def known(size: int, own: Dim) -> Dim:
            parts = tuple([(one, known(one, part)) for one, part in own.parts])
            summed = tuple([(one, known(one, part)) for one, part in own.summed])
            own = own._replace(parts=parts, summed=summed)
            if (
                own.axis is None
                and own.input is not None
                and own.input[0] < len(self.failure.given)
            ):
                shape = self.failure.given[own.input[0]].shape
                if own.input[1] < len(shape) and shape[own.input[1]] == size:
                    return own._replace(axis=INPUT_AXIS)
            return own

        return known(x.shape[dim], dims_of(x)[dim])

    def all_sides(
        self, shape: tuple[int, ...], axes: tuple[int, ...], places: Sequence[tuple[Tensor, int]]
    ) -> tuple[int, ...]:
        """Return all spatial axes of an image of which some are known."""
        if len(shape) > 3:
            return tuple(range(2, len(shape)))
        found = set(axes)
        for x, _ in places:
            slid = [
                own for own in dims_of(x) if own.axis is not None and own.axis.chain is not None
            ]
            found |= {axis for own in slid for _, axis in input_axes(own) if axis}
        if len(shape) == 3 and self.failure.step.op.endswith("2d"):
            found = {1, 2}  # one image without its batch
        return tuple(sorted(found))

    def other_input(self, x: Tensor, dim: int, size: int) -> Found:
        """Yield another input of the size that the rest has."""
        number = self.input_number(x)
        if number is None:
            return
        given = self.failure.given[number]
        plain = number or (dim and len(given.shape) < 4 and self.misfit.kind != "unequal")
        if given.argument is not None and plain:
            shape = list(given.shape)
            shape[dim] = size
            text = f"{self.an_input(given)} of {shape_text(tuple(shape))}"
            rank = 16 if number else 19
            yield Candidate(rank, Resize(given.argument, ((dim, size),), text), batch=dim == 0)


def step_of(x: Tensor) -> int | None:
    """Return the number of the step that made a tensor, -1 for an input."""
    return getattr(x, "_blitz_step", None)


def slot_of(x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Slot | None:
    """Return where a tensor stands among the arguments."""
    places: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    for key, value in places:
        if value is x:
            return (key,)
        if isinstance(value, list | tuple):
            for place, one in enumerate(value):
                if one is x:
                    return (key, place)
    return None


def input_axes(dim: Dim) -> set[tuple[int, int]]:
    """Return the axes of inputs that decide the size of a dimension."""
    if dim.input is not None and (dim.axis is not None):
        return {dim.input}
    return {axis for _, part in (*dim.parts, *dim.summed) for axis in input_axes(part)}


def is_computed(dim: Dim) -> bool:
    """Return whether the size of a dimension is more than that of an axis of an input."""
    return bool(dim.parts or dim.summed) or (dim.axis is not None and dim.axis.chain is not None)


def size_for(size: int, dim: Dim, side: int, axes: tuple[int, ...]) -> int:
    """Return the size of a dimension for an input of ``side`` along some axes."""
    if dim.axis is not None and dim.input is not None and dim.input[1] in axes:
        return dim.axis.size_for(side)
    if dim.summed:
        return sum(size_for(one, part, side, axes) for one, part in dim.summed)
    if dim.parts:
        return prod(size_for(one, part, side, axes) for one, part in dim.parts)
    return size
