"""Finds out about a failure: the meaning of each dimension, and where a tensor can be changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from blitz_helpers.trace._changes import Change, CodeChange, InputChange, ModelChange
from blitz_helpers.trace._failures import Failure, place_name
from blitz_helpers.trace._field import dims_of, known_origin, origin_of
from blitz_helpers.trace._nests import mapped, shape_text
from blitz_helpers.trace._op import Misfit, bind
from blitz_helpers.trace._transforms import Transform


@dataclass(frozen=True)
class Candidate:
    """A change that may help; the cheapest is tried first.

    A ``doubtful`` one is tried only if nothing cheaper works: it may just hide the failure.
    """

    cost: float
    change: Change
    doubtful: bool = False

    @property
    def batch(self) -> bool:
        """Whether it changes the size of the batch; then its text says so."""
        return not isinstance(self.change, ModelChange) and self.change.transform.touches_batch


@dataclass(frozen=True)
class Sides:
    """An input of another size along some axes. ``fits`` tells which sizes may work."""

    cost: float
    argument: int | str
    place: int
    axes: tuple[int, ...]
    given: int
    fits: Callable[[int], bool]
    noun: str
    differ: bool = False  # whether the axes have different sizes now
    doubtful = False

    def change(self, size: int, sizes: str = "") -> InputChange:
        """Return the change to one size, worded for ``sizes`` such as ``"30 to 33"``."""
        view = Transform("sized", tuple((axis, size) for axis in self.axes))
        return InputChange(self.argument, self.place, view, self.noun.format(sizes or size))

    def and_also(self, other: Sides) -> Sides | None:
        """Return the sizes that suit both, if the other failure asks for another size as well."""
        same = (self.argument, self.place, self.axes) == (other.argument, other.place, other.axes)
        if not same or other.fits(other.given):
            return None
        return replace(self, fits=lambda side: self.fits(side) and other.fits(side))


Found = Iterator[Candidate | Sides]
Sizes = tuple[tuple[int, int], ...]


class Clues:
    """A failure, and the changes that can be made where it happened."""

    def __init__(self, failure: Failure) -> None:
        self.failure, self.model = failure, failure.model
        self.misfit: Misfit = failure.misfit

    # The call that failed

    @cached_property
    def operands(self) -> list[Tensor]:
        """The tensors among the arguments that the trace made."""
        return [tensor for tensor in self.failure.tensors if known_origin(tensor) is not None]

    @cached_property
    def _is_known(self) -> bool:
        return self._refused(self.failure.args, self.failure.kwargs) is True

    @property
    def is_loss(self) -> bool:
        """Whether the operation that failed compares an output with a target."""
        op = self.failure.step.op
        return op.endswith(("_loss", "kl_div")) or "cross_entropy" in op

    def accepts(self, x: Tensor, other: Tensor) -> bool:
        """Return whether the failed call, run alone, accepts ``other`` in place of ``x``."""
        if not self._is_known:
            return self._mends(x, tuple(other.shape))
        both = (self.failure.args, self.failure.kwargs)
        return not self._refused(*mapped(lambda one: other if one is x else one, both))

    def _mends(self, x: Tensor, shape: tuple[int, ...]) -> bool:
        """Return whether ``x`` in this shape would satisfy the misfit."""
        wants, dim = self.misfit.wants, self.misfit.dim
        match self.misfit.kind:
            case "size" if dim is not None:
                return dim < len(shape) == x.dim() and bool(shape[dim] == wants)
            case "rank":
                return len(shape) in wants and self.channels in (None, *shape[1:2])
            case "batch":
                return bool(shape == wants)
        return False

    @property
    def channels(self) -> int | None:
        """The number of channels that is wanted, if it is known."""
        if self.misfit.noun == "channels":
            return self.misfit.wants  # type: ignore[no-any-return]  # a size, or None
        return self.misfit.channels or getattr(self.failure.module, "num_features", None)

    def _refused(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool | None:
        """Return whether the function refuses these arguments; ``None`` if none was called."""
        func = self.failure.func
        if func is None:
            return None
        call = bind(func, self.failure.step.op, args, kwargs)
        try:
            if call is not None:
                call.check()
            if call is None or call.output() is NotImplemented:
                func(*mapped(_on_meta, args), **mapped(_on_meta, kwargs))
        except Exception:  # a misfit, or an error of torch's own kernel
            return True
        return False

    # Where a tensor is changed

    def changed(self, x: Tensor, transform: Transform, cost: float) -> Found:
        """Yield the change of an operand, which is an input or the output of a step."""
        failure, number = self.failure, self.input_number(x)
        if number is not None:
            alone = self.misfit.noun == "mask" or not self._used_before(x)
            meets = self.misfit.kind == "unequal" and len(self.operands) > 1
            where = self._on_the_one(x) if meets and len(failure.given) > 1 else ""
            yield from self.changed_input(number, transform, cost if alone else cost + 2, where)
            if alone:
                return
        several = len({*map(id, self.operands), id(x)}) > 1
        words = f"{transform.text()} {self._on_the_one(x) if several else f'before {failure.name}'}"
        in_sequential = failure.step.module.rpartition(".")[2].isdigit()
        if transform == Transform("flatten", (1,)) and in_sequential and not several:
            words = f"nn.Flatten() before {failure.name}"
        step = step_of(x)
        if failure.func is not None:
            place = next((i for i, one in enumerate(failure.tensors) if one is x), None)
            if place is not None:
                here = CodeChange(failure.number, failure.step.op, place, transform, words)
                yield Candidate(cost, here)
        elif step is not None and step >= 0:
            op, call = failure.steps[step].op, failure.numbers[step]
            yield Candidate(cost, CodeChange(call, op, "output", transform, words))

    def changed_input(
        self, number: int, transform: Transform, cost: float, where: str = ""
    ) -> Found:
        """Yield the change of one input by a view or a conversion."""
        given = self.failure.given
        name = given[number].name
        if not where:
            named = f"on the input {name}" if len(given) > 1 else "on the input"
            where = f"on {self._part_of(number)}" if self._is_shared(number) else named
        code = name if len(given) > 1 and name.isidentifier() else "x"
        yield from self.of_input(number, transform, cost, f"{transform.text(code)} {where}")

    def another_input(
        self, number: int, sizes: Sizes, cost: float, words: str = "", doubtful: bool = False
    ) -> Found:
        """Yield an input with other sizes along some axes, worded by ``words`` or its shape."""
        shape = list(self.failure.given[number].shape)
        for axis, size in sizes:
            shape[axis] = size
        text = self.an_input(number, words or shape_text(tuple(shape)))
        yield from self.of_input(number, Transform("sized", sizes), cost, text, doubtful)

    def of_input(
        self, number: int, transform: Transform, cost: float, text: str, doubtful: bool = False
    ) -> Found:
        """Yield the change of one input by a transform, worded by ``text``."""
        yield Candidate(cost, InputChange(*self.place_of(number), transform, text), doubtful)

    def place_of(self, number: int) -> tuple[int | str, int]:
        """Return the argument that holds an input, and the input's place among its tensors."""
        argument = self.failure.given[number].argument
        return argument, sum(one.argument == argument for one in self.failure.given[:number])

    def _used_before(self, x: Tensor) -> bool:
        """Return whether an earlier step has used an input of this shape."""
        return any(
            made == -1 and shape == tuple(x.shape)
            for step in self.failure.steps
            for made, shape in zip(step.inputs, step.input_shapes, strict=True)
        )

    # Words

    def _on_the_one(self, x: Tensor) -> str:
        alike = [one for one in self.operands if one.shape == x.shape]
        which = next(i for i, one in enumerate(alike) if one is x) if len(alike) > 1 else 0
        ordinal = ("first ", "second ", "third ", "next ")[min(which, 3)] if len(alike) > 1 else ""
        return f"on the {ordinal}one of {shape_text(tuple(x.shape))}"

    def an_input(self, number: int, words: str) -> str:
        """Return the words for another input, described by words such as ``"9 features"``."""
        if len(self.failure.given) == 1:
            return f"an input of {words}"
        if self._is_shared(number):
            return f"a tensor of {words} for {self._part_of(number)}"
        name = self.failure.given[number].name
        return f"{'an input' if name.isidentifier() else 'input'} {name} of {words}"

    def _is_shared(self, number: int) -> bool:
        """Return whether the input's argument, a list or dict, holds other tensors as well."""
        given = self.failure.given
        return sum(one.argument == given[number].argument for one in given) > 1

    def _part_of(self, number: int) -> str:
        given = self.failure.given[number]
        name = given.name if given.name.isidentifier() else f"input {given.name}"
        return f"the {shape_text(given.shape)} in {name}"

    def name_of(self, path: str) -> str:
        """Return the name of a module in a remedy."""
        return place_name(path, self.part(path), path)

    # The model

    def part(self, path: str) -> nn.Module | None:
        """Return the module at a path, or ``None``."""
        try:
            return self.model.get_submodule(path)
        except (AttributeError, RuntimeError):  # there is none, or it is scripted
            return None

    # The meaning of a dimension

    def input_number(self, x: Tensor) -> int | None:
        """Return the number of the input that this tensor is, or ``None``."""
        number = next((dim.input[0] for dim in dims_of(x) if dim.input is not None), None)
        if step_of(x) == -1 or number is None:
            return number
        # Attention makes its mask from the one that it is given, element by element.
        same = self.misfit.noun == "mask" and self.shape_of(number) == tuple(x.shape)
        return number if same else None

    @property
    def number(self) -> int:
        """The number of the input behind the tensor that does not fit, 0 if it is not known."""
        todo = [] if self.misfit.tensor is None else [*dims_of(self.misfit.tensor)]
        for dim in todo:
            if dim.input is not None:
                return dim.input[0]
            todo += [part for _, part in dim.parts]
        return 0

    def is_batch(self, x: Tensor, dim: int) -> bool:
        """Return whether a dimension holds the batch."""
        own = dims_of(x)[dim]
        return own.input is not None and own.input[1] == 0 and x.dim() > 1

    def is_side(self, x: Tensor, dim: int) -> bool:
        """Return whether windows slide along a dimension."""
        slid = dims_of(x)[dim].axis is not None or self._is_image_side(x, dim)
        return slid and not origin_of(x).untouched

    def _is_image_side(self, x: Tensor, dim: int) -> bool:
        """Return whether a dimension is height, width or depth of an image that is an input."""
        number, axis = dims_of(x)[dim].input or (0, 0)
        return axis > 1 and len(self.shape_of(number)) > 3

    def shape_of(self, number: int) -> tuple[int, ...]:
        """Return the shape of an input, ``()`` if its number is unknown."""
        given = self.failure.given
        return given[number].shape if number < len(given) else ()

    def is_features(self, x: Tensor, dim: int) -> bool:
        """Return whether a dimension holds features or channels."""
        own = dims_of(x)[dim]
        if own.step is not None:
            return True
        if own.parts:
            return all(part.input is None or part.input[1] > 0 for _, part in own.parts)
        if self.is_side(x, dim) or self.is_batch(x, dim):
            return False
        attends = self.misfit.noun.startswith("features in")
        last = dim == x.dim() - 1 and (attends or not self._is_image_side(x, dim))
        return last or self.misfit.noun == "channels"


def differing(x: Tensor, y: Tensor, joined: int | None) -> list[int]:
    """Return the dimensions, counted from the end, in which two tensors do not fit together.

    Tensors that are ``joined`` along a dimension may differ in it; others are broadcast.
    """
    found = []
    for at in range(1, 1 + min(x.dim(), y.dim())):
        p, q = x.shape[-at], y.shape[-at]
        allowed = 1 in (p, q) if joined is None else x.dim() - at == joined
        found += [] if p == q or allowed else [at]
    return found


def _on_meta(tensor: Tensor) -> Tensor:
    return tensor.detach().to("meta")  # an alias, since a function may change a shape in place


def step_of(x: Tensor) -> int | None:
    """Return the number of the step that made a tensor, -1 for an input."""
    return getattr(x, "_blitz_step", None)
