"""Changes that might mend a failure, likeliest first. Whether one does, only trying it tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import prod
from typing import Any

from torch import Tensor, nn

from blitz_helpers.trace._failures import Failure, Given, place_name
from blitz_helpers.trace._field import Dim, dims_of, known_origin, origin_of
from blitz_helpers.trace._layers import makes, sets, takes
from blitz_helpers.trace._op import Misfit
from blitz_helpers.trace._records import shape_text
from blitz_helpers.trace._remedies import (
    Change,
    CodeChange,
    Conversion,
    EvalMode,
    InputChange,
    LayerChange,
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


def candidates(failure: Failure, model: nn.Module) -> list[Candidate | Sides]:
    """Return what to try, likeliest first."""
    search = _Search(failure, model)
    found = [*search.own(), *search.usual()]
    if failure.sealed:
        found = [c for c in found if isinstance(c, Sides) or c.change.kind == "input"]
    return sorted(found, key=lambda one: one.rank)


class _Search:
    """What a failure suggests."""

    def __init__(self, failure: Failure, model: nn.Module) -> None:
        self.failure, self.model = failure, model
        self.misfit: Misfit = failure.misfit

    def own(self) -> Found:
        """Yield what the kind of the misfit suggests."""
        kinds: dict[str, Callable[[], Found]] = {
            "size": self.size,
            "rank": self.rank,
            "window": self.window,
            "numbers": self.numbers,
            "unequal": self.unequal,
            "dtype": self.dtype,
            "table": self.table,
            "average": self.average,
            "batch": self.state,
            "guard": self.guard,
        }
        kind = kinds.get(self.misfit.kind)
        if kind is not None:
            yield from kind()

    # Where a change can be made

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
        slot = _slot(x, failure.args, failure.kwargs) if failure.called else None
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

    # What dimensions are

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
        return axis == ndim - 1 and (ndim <= 3 or attends)

    # By kind

    def size(self) -> Found:
        """Yield ways out where one dimension is not the one size that fits."""
        misfit, x, dim = self.misfit, self.misfit.tensor, self.misfit.dim
        if x is None or dim is None or known_origin(x) is None:
            yield from self.features_of_weight()
            return
        wants, got = misfit.wants, misfit.got
        own = dims_of(x)[dim]
        views: list[Candidate | Sides] = []
        if wants is not None:
            views += self.flattened(x, dim, wants)
            if not views and misfit.noun != "inner":
                views += self.moved(x, dim, wants)
            views += self.unmixed(x, dim)
            if wants == 1 and misfit.noun == "channels" and dim == 0 and x.dim() > 1:
                views += self.at(x, Transform("unsqueeze", (1,)), 4)
            elif misfit.noun == "channels" and dim == 0 and x.dim() == 2:
                views += self.images(x, 3, wants)
            yield from views
        # What stands elsewhere is not to be made here as well.
        doubtful = bool(views) and own.step is None
        if self.is_features(x, dim):
            path, module = self.failure.step.module, self.failure.module
            change = takes(path, module, got, misfit.noun, "")
            if change is not None:
                yield Candidate(20, change, doubtful=doubtful)
        if wants is None:
            return
        yield from self.maker(x, dim, wants)
        if not doubtful:
            yield from self.input_size(x, dim, wants)
            yield from self.fitting(x, dim, wants)
        if misfit.noun.startswith("rows"):
            yield from self.other_input(x, dim, wants)
        if misfit.noun == "inner" and misfit.others:
            yield from self.product(x, misfit.others[0])

    def features_of_weight(self) -> Found:
        """Yield nothing: both sides are weights, and nothing that came in can mend that."""
        return iter(())

    def product(self, a: Tensor, b: Tensor) -> Found:
        """Yield the transposes that make two matrices meet."""
        if b.dim() > 1 and b.shape[-1] == a.shape[-1]:
            text = "the second one's .transpose(-2, -1)"
            yield from self.worded(b, Transform("transpose", (-2, -1)), 6, text)
        if a.dim() > 1 and b.dim() > 1 and a.shape[-2] == b.shape[-2]:
            text = "the first one's .transpose(-2, -1)"
            yield from self.worded(a, Transform("transpose", (-2, -1)), 7, text)

    def worded(self, x: Tensor, transform: Transform, rank: int, text: str) -> Found:
        """Yield a code change of an operand, in words of its own."""
        slot = _slot(x, self.failure.args, self.failure.kwargs)
        if slot is not None:
            op, number = self.failure.step.op, self.failure.number
            yield Candidate(rank, CodeChange(number, op, slot, transform, text))

    def moved(self, x: Tensor, dim: int, wants: int) -> Found:
        """Yield the moves of another dimension, which has the size that is wanted, to its place."""
        ndim = x.dim()
        for other in reversed(range(ndim)):
            same = x.shape[other] == wants
            if other == dim or not same or self.is_side(x, other) or self.is_batch(x, other):
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
            yield from self.at(x, transform, 5)

    def flattened(self, x: Tensor, dim: int, wants: int) -> Found:
        """Yield the flattening of dimensions whose product is what is wanted."""
        if dim != x.dim() - 1:
            return
        for start in range(1, dim):
            if any(self.is_batch(x, other) for other in range(start, x.dim())):
                continue
            if prod(x.shape[start:]) == wants:
                yield from self.at(x, Transform("flatten", (start,)), 4)
                return

    def unmixed(self, x: Tensor, dim: int) -> Found:
        """Yield the view that keeps the batch in the place of one that mixed it in."""
        maker = self.made_at(x)
        mixes = any(
            part.input == (0, 0) and size > 1
            for one in dims_of(x)
            for size, part in one.parts
        )  # fmt: skip
        if maker is None or not mixes:
            return
        step, call = maker
        op = self.failure.steps[step].op
        if op in ("flatten", "view", "reshape"):
            text = f"x.flatten(1) in the place of {op}"
            change = CodeChange(call, op, ("call",), Transform("flatten", (1,)), text)
            yield Candidate(3, change)

    def maker(self, x: Tensor, dim: int, wants: int, rank: int = 30) -> Found:
        """Yield another size for the layer that made the dimension."""
        own, size = dims_of(x)[dim], wants
        for part_size, part in own.parts:
            if part.step is not None:
                rest = prod(one for one, _ in own.parts) // part_size
                own, size = part, wants // rest if wants % rest == 0 else 0
                break
        path = self.failure.maker(own)
        if path and size:
            change = makes(path, self.part(path), size, self.name_of(path))
            if change is not None:
                yield Candidate(rank, change)

    def input_size(self, x: Tensor, dim: int, wants: int) -> Found:
        """Yield an input with the size that is wanted, where the dimension is one of its own."""
        own = dims_of(x)[dim]
        if own.input is None or not self.is_features(x, dim):
            return
        number, axis = own.input
        if number >= len(self.failure.given) or axis == 0:
            return
        given = self.failure.given[number]
        if given.argument is None or given.shape[axis] != x.shape[dim]:
            return
        noun = self.misfit.noun if self.misfit.noun in ("channels", "features") else "features"
        plural = noun if wants != 1 else noun[:-1]
        which = self.an_input(given)
        text = f"{which} of {wants} {plural}"
        yield Candidate(25, Resize(given.argument, ((axis, wants),), text))

    def fitting(self, x: Tensor, dim: int, wants: int) -> Found:
        """Yield the sizes of the input that give the dimension the size that is wanted."""
        own = dims_of(x)[dim]
        if _is_computed(own):
            yield from self.sides([(x, dim)], lambda sizes: sizes[0] == wants, 22)

    def sides(
        self, places: Sequence[tuple[Tensor, int]], fits: Callable[[list[int]], bool], rank: int
    ) -> Found:
        """Yield the input sides that give the dimensions at these places sizes that fit."""
        owns = [(x.shape[dim], dims_of(x)[dim]) for x, dim in places]
        used = {axis for size, own in owns for axis in _input_axes(own)}
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
                return fits([_size_for(size, own, side) for size, own in owns])
            except ValueError:
                return False

        which = self.an_input(given)
        noun = f"{which} of length {{}}" if len(axes) == 1 else f"{which} of {{}} pixels a side"
        at = next((i for i in axes if i in {axis for _, axis in used}), axes[0])
        yield Sides(rank, given.argument, axes, given.shape[at], fits_side, noun)

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
            found |= {axis for own in slid for _, axis in _input_axes(own) if axis}
        if len(shape) == 3 and self.failure.step.op.endswith("2d"):
            found = {1, 2}  # one image without its batch
        return tuple(sorted(found))

    def rank(self) -> Found:
        """Yield views with the number of dimensions that is wanted."""
        misfit, x = self.misfit, self.misfit.tensor
        if x is None or known_origin(x) is None or not misfit.wants:
            return
        lacking, shape = max(misfit.wants) - x.dim(), tuple(x.shape)
        channels = misfit.channels
        if channels is None:
            channels = getattr(self.failure.module, "num_features", None)
        if lacking > 0:
            yield from self.images(x, max(misfit.wants), channels)
            if channels is not None and x.dim() == 2 and shape[1] == channels:
                items = ((None, None), (None, None), *(None,) * lacking)
                yield from self.at(x, Transform("index", items), 5)
            if lacking == 1 or min(misfit.wants) - x.dim() == 1:
                first = 4 if channels is None or x.dim() < 1 or shape[0] == channels else 8
                first += 0 if self.input_number(x) is not None else 8
                if channels is None or x.dim() != 2 or self.is_picture(x):
                    yield from self.at(x, Transform("unsqueeze", (0,)), first, batch=True)
                if x.dim() > 1 or channels == 1:
                    yield from self.at(x, Transform("unsqueeze", (1,)), 6 if channels == 1 else 12)
                if x.dim() > 1:
                    yield from self.at(x, Transform("unsqueeze", (-1,)), 13)
            if lacking == 2 and channels in (None, 1) and self.is_picture(x):
                yield from self.at(x, Transform("index", (None, None)), 7, batch=True)
        else:
            for dim in range(x.dim() - 1, -1, -1):
                if shape[dim] == 1:
                    yield from self.at(x, Transform("squeeze", (dim,)), 6, batch=dim == 0)
            start = max(misfit.wants) - 1
            if self.failure.step.op.startswith("BatchNorm1"):
                yield from self.at(x, Transform("flatten", (start,)), 10)

    def is_picture(self, x: Tensor) -> bool:
        """Return whether the last two dimensions look like the sides of one picture."""
        if x.dim() < 2:
            return False
        high, wide = x.shape[-2:]
        return max(high, wide) <= 4 * min(high, wide)

    def images(self, x: Tensor, ndim: int, channels: int | None) -> Found:
        """Yield the view that makes images of flat rows."""
        sides = ndim - 2
        if channels is None or x.dim() != 2 or sides < 1 or x.shape[1] % channels:
            return
        pixels = x.shape[1] // channels
        side = round(pixels ** (1 / sides))
        if side > 1 and side**sides == pixels:
            transform = Transform("reshape", (-1, channels, *(side,) * sides))
            yield from self.at(x, transform, 3)

    def window(self) -> Found:
        """Yield larger inputs, and padding, where a side is too small."""
        misfit, x, dim = self.misfit, self.misfit.tensor, self.misfit.dim
        if x is None or dim is None or known_origin(x) is None:
            return
        least = misfit.wants
        yield from self.sides([(x, dim)], lambda sizes: min(sizes) >= least, 15)
        module, path = self.failure.module, self.failure.step.module
        padding = getattr(module, "padding", None)
        kernel = getattr(module, "kernel_size", None)
        if isinstance(padding, int | tuple) and kernel is not None:
            yield from self.padded(path, module, padding, least - x.shape[dim])

    def padded(self, path: str, module: Any, padding: Any, lack: int) -> Found:
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

    def numbers(self) -> Found:
        """Yield views that hold the numbers there are."""
        misfit, x, op = self.misfit, self.misfit.tensor, self.failure.step.op
        if x is None or known_origin(x) is None:
            return
        number = self.failure.number
        if misfit.noun == "stride":
            asked = Transform("reshape", _sizes(self.failure.args, self.failure.kwargs))
            text = f"x.reshape(...) in the place of x.{op}(...)"
            yield Candidate(2, CodeChange(number, op, ("call",), asked, text))
            return
        asked = misfit.wants
        for sizes, rank in self.other_sizes(x, asked):
            transform = Transform("reshape", sizes)
            text = f"x.{'view' if op == 'view' else 'reshape'}{sizes} in the place of {asked}"
            yield Candidate(rank, CodeChange(number, op, ("call",), transform, text))
        if x.dim() > 1 and len(asked) == 2:
            text = f"x.flatten(1) in the place of {op}"
            yield Candidate(3, CodeChange(number, op, ("call",), Transform("flatten", (1,)), text))
        last = x.dim() - 1
        if last > 0 and -1 not in asked[last:] and asked[1:last] == tuple(x.shape[1:last]):
            rest = prod(asked[last:])
            yield from self.maker(x, last, rest, rank=6)
        if x.dim() > 1 and -1 not in asked[1:]:
            rest = prod(asked[1:])
            places = [(x, dim) for dim in range(1, x.dim())]
            yield from self.sides(places, lambda sizes: prod(sizes) == rest, 8)

    def other_sizes(
        self, x: Tensor, asked: tuple[int, ...]
    ) -> Iterator[tuple[tuple[int, ...], int]]:
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

    def unequal(self) -> Found:
        """Yield what makes tensors agree that meet and differ."""
        misfit = self.misfit
        if misfit.noun == "mask":
            yield from self.masks()
            return
        if misfit.noun == "target":
            yield from self.targets()
            return
        tensors = [t for t in misfit.others if isinstance(t, Tensor)]
        odd, model = _odd_one(tensors, misfit.dim)
        if odd is None or model is None:
            return
        if isinstance(self.failure.module, nn.MultiheadAttention):
            flag = not self.failure.module.batch_first
            yield Candidate(4, sets(self.failure.step.module, "", batch_first=flag))
        meets = "attention" not in self.failure.step.op
        for late, (x, y) in enumerate(((odd, model), (model, odd))):
            if x.dim() < y.dim():
                yield from self.widened(x, y)
            if x.dim() == y.dim() and meets:
                yield from self.turned(x, y, late)
                yield from self.grown(x, y, self.differing(x, y))
        yield from self.levelled(odd, model, self.differing(odd, model))
        if odd.dim() == model.dim() and odd.dim() > 2:
            for x, y in ((odd, model), (model, odd)):
                yield from self.window_settings(x, y)

    def differing(self, x: Tensor, y: Tensor) -> list[int]:
        """Return the dimensions of ``x`` that do not go with those of ``y``."""
        joined = self.failure.step.op.startswith(("cat", "conc", "stack"))
        free = self.misfit.dim if joined else None
        lead = max(0, x.dim() - y.dim())
        pairs = zip(x.shape[lead:], y.shape[max(0, y.dim() - x.dim()) :], strict=True)
        return [
            i
            for i, (p, q) in enumerate(pairs, start=lead)
            if p != q and i != free and (joined or 1 not in (p, q))
        ]

    def widened(self, x: Tensor, y: Tensor) -> Found:
        """Yield new dimensions of a tensor that has fewer than the one it meets."""
        found = []
        for places in combinations(range(y.dim()), x.dim()):
            sizes = [y.shape[place] for place in places]
            if all(p in (1, q) or q == 1 for p, q in zip(x.shape, sizes, strict=True)):
                exact = sum(p == q for p, q in zip(x.shape, sizes, strict=True))
                found.append((places[0] != 0, -exact, places))
        for late, (_, _, places) in enumerate(sorted(found)[:3]):
            items = tuple((None, None) if at in places else None for at in range(y.dim()))
            if items[y.dim() - x.dim() :] == ((None, None),) * x.dim():
                continue  # as it is aligned already
            while len(items) > 1 and items[-1] == (None, None):
                items = items[:-1]
            view = Transform("index", items)
            if items.count(None) == 1:
                view = Transform("unsqueeze", (items.index(None),))
            yield from self.at(x, view, 3 + late)

    def turned(self, x: Tensor, y: Tensor, late: int) -> Found:
        """Yield the order of dimensions in which two tensors agree."""
        if sorted(x.shape) != sorted(y.shape) or x.shape == y.shape or x.dim() < 2:
            return
        differ = [i for i, (p, q) in enumerate(zip(x.shape, y.shape, strict=True)) if p != q]
        if len(differ) == 2:
            yield from self.at(x, Transform("transpose", tuple(differ)), 5 + late)
        elif len(differ) == 3 and x.dim() == 4:
            for order in ((0, 3, 1, 2), (0, 2, 3, 1)):
                if tuple(x.shape[i] for i in order) == tuple(y.shape):
                    yield from self.at(x, Transform("permute", order), 5 + late)

    def levelled(self, x: Tensor, y: Tensor, differ: list[int]) -> Found:
        """Yield inputs for which two tensors become equal in the sides that differ."""
        moving: list[tuple[Tensor, int]] = []
        places: list[int] = []
        fixed: dict[int, set[int]] = {}
        for dim in differ:
            for one in (x, y):
                own = dim - x.dim() + one.dim()
                if known_origin(one) is not None and _input_axes(dims_of(one)[own]):
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
        if fixed_by_weights or any(_is_computed(dims_of(one)[own]) for one, own in moving):
            yield from self.sides(moving, agree, 10)
        for dim in differ:
            for one, other in ((x, y), (y, x)):
                own, wants = dim - x.dim() + one.dim(), other.shape[dim - x.dim() + other.dim()]
                if known_origin(one) is None:
                    yield from self.parameter(one, own, wants)
                    continue
                yield from self.maker(one, own, wants, rank=12)
                if own or x.dim() == y.dim():
                    yield from self.other_input(one, own, wants)

    def window_settings(self, x: Tensor, y: Tensor) -> Found:
        """Yield the strides and paddings of layers with which ``x`` keeps the sides of ``y``."""
        sides = tuple(y.shape[2:])
        number = step_of(x)
        while number is not None and 0 <= number < len(self.failure.steps):
            step = self.failure.steps[number]
            shape = step.output_shape
            if isinstance(shape, tuple) and shape[2:] == sides:
                return
            module = self.part(step.module)
            if step.op.startswith(("conv", "max_pool", "avg_pool")) and step.module:
                yield from self.kept_sides(step.module, module)
            number = step.inputs[0] if step.inputs else None

    def kept_sides(self, path: str, module: Any) -> Found:
        """Yield the settings with which a window keeps the sides of its input."""
        kernel, stride = (getattr(module, name, None) for name in ("kernel_size", "stride"))
        if not isinstance(kernel, tuple) or not isinstance(stride, tuple):
            return
        name = self.name_of(path)
        if set(stride) != {1}:
            change = sets(path, name, stride=(1,) * len(stride))
            yield Candidate(9, replace(change, text=f"stride=1 in {name}"))
        padding = tuple((k - 1) * d // 2 for k, d in zip(kernel, module.dilation, strict=True))
        if padding != module.padding and all(k % 2 for k in kernel):
            change = sets(path, name, padding=padding)
            value = padding[0] if len(set(padding)) == 1 else padding
            yield Candidate(9, replace(change, text=f"padding={value} in {name}"))

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

    def parameter(self, weight: Tensor, dim: int, size: int) -> Found:
        """Yield a parameter of another shape, or its first rows."""
        for path, module in self.model.named_modules():
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
            yield from self.worded(weight, cut, 14, text)

    def grown(self, x: Tensor, y: Tensor, differ: list[int]) -> Found:
        """Yield padding, cropping, a projection, for the one of two tensors that is smaller."""
        if not differ or (0 in differ and x.dim() > 1 and self.is_batch(x, 0)):
            return
        sides = [d for d in differ if self.is_side(x, d) or self.is_side(y, d) or d > 1]
        ndim = x.dim() - 2
        own = len(self.operands()) > 1
        channels = 1 in differ and ndim >= 1
        strides = [-(-x.shape[d] // max(1, y.shape[d])) for d in range(2, x.dim())]
        past = dims_of(x)[1] if x.dim() > 1 else None
        if not own or not origin_of(x).depends:
            return
        if channels and (
            2 <= ndim <= 3 or (ndim == 1 and past is not None and past.step is not None)
        ):
            halved = [-(-x.shape[d] // s) == y.shape[d] if s else False
                      for d, s in zip(range(2, x.dim()), strides, strict=True)]  # fmt: skip
            if all(halved):
                args = (ndim, x.shape[1], y.shape[1], tuple(strides))
                larger = x.shape[1] > y.shape[1]
                yield from self.at(x, Transform("conv", args), 17 + 3 * larger)
        elif differ == [ndim + 1] and ndim < 2 and not self.is_side(x, ndim + 1):
            larger = x.shape[-1] > y.shape[-1]
            project = Transform("linear", (x.shape[-1], y.shape[-1]))
            yield from self.at(x, project, 17 + 3 * larger)
        if channels or not sides or sides != differ:
            return
        if all(x.shape[d] < y.shape[d] for d in differ):
            pads: list[int] = []
            for d in range(x.dim() - 1, min(differ) - 1, -1):
                lack = y.shape[d] - x.shape[d] if d in differ else 0
                pads += [lack // 2, lack - lack // 2]
            small = max(y.shape[d] - x.shape[d] for d in differ) <= 3
            yield from self.at(x, Transform("pad", (tuple(pads),)), 11 if small else 18)
            if ndim >= 1 and self.is_side(x, x.dim() - 1):
                size = tuple(y.shape[2:])
                yield from self.at(x, Transform("interpolate", (size,)), 15)
        elif all(x.shape[d] > y.shape[d] for d in differ):
            items = tuple((None, y.shape[d]) if d in differ else (None, None)
                          for d in range(max(differ) + 1))  # fmt: skip
            yield from self.at(x, Transform("index", items), 16)

    def masks(self) -> Found:
        """Yield the shapes of a mask that fit the scores."""
        mask = self.misfit.tensor
        if mask is None or known_origin(mask) is None:
            return
        scores = [t for t in self.misfit.others if isinstance(t, Tensor)]
        if len(scores) < 2:
            return
        full: Any = (None, None)
        if mask.dim() == 2:
            for items in ((full, None, None, full), (None, None, full, full), (full, None, full)):
                yield from self.at(mask, Transform("index", items), 5)
            yield from self.at(mask, Transform("transpose", (0, 1)), 6)
        if mask.dim() == 3:
            yield from self.at(mask, Transform("unsqueeze", (1,)), 5)
        number = next((dim.input[0] for dim in dims_of(mask) if dim.input is not None), None)
        given = None if number is None else self.failure.given[number]
        if given is not None and given.argument is not None and given.shape == tuple(mask.shape):
            rows, keys = scores[0].shape[-2], scores[1].shape[-2]
            if self.failure.step.op == "multi_head_attention_forward":
                rows, keys = scores[0].shape[0], scores[1].shape[0]
            wanted = {mask.dim() - 2: rows, mask.dim() - 1: keys}
            if self.misfit.dim is None and mask.dim() == 2 and "padding" in str(self.misfit):
                wanted = {1: keys}
            sizes = tuple((d, s) for d, s in wanted.items() if mask.shape[d] not in (1, s))
            shape = list(mask.shape)
            for d, s in sizes:
                shape[d] = s
            text = f"a mask {given.name} of {shape_text(tuple(shape))}"
            if sizes:
                yield Candidate(8, Resize(given.argument, sizes, text))

    def targets(self) -> Found:
        """Yield what brings scores and classes together."""
        scores, target = self.misfit.others[:2]
        turned = scores.dim() > 2 and tuple(target.shape) == tuple(scores.shape[:-1])
        if turned and scores.dim() == 3:
            yield from self.at(scores, Transform("transpose", (1, 2)), 4)
        elif turned:
            order = (0, scores.dim() - 1, *range(1, scores.dim() - 1))
            yield from self.at(scores, Transform("permute", order), 4)
        ones = [dim for dim in range(target.dim()) if target.shape[dim] == 1]
        for dim in ones:
            yield from self.at(target, Transform("squeeze", (dim,)), 5)
        if not ones and scores.dim() == 2 and target.numel() == scores.shape[0]:
            yield from self.at(target, Transform("flatten", ()), 6)
        wants = (scores.shape[0], *scores.shape[2:]) if scores.dim() > 1 else ()
        number = self.input_number(target)
        if turned or ones or len(wants) != target.dim():
            return
        if target.dim() > 2:
            size = tuple(target.shape[1:])
            yield from self.at(scores, Transform("interpolate", (size,)), 9)
        if number is not None and (argument := self.failure.given[number].argument) is not None:
            sizes = tuple((d, n) for d, n in enumerate(wants) if n != target.shape[d])
            yield Candidate(8, Resize(argument, sizes, f"a target of {shape_text(wants)}"))

    def dtype(self) -> Found:
        """Yield conversions of what came in, or of the layer."""
        x, wants = self.misfit.tensor, self.misfit.wants
        if x is None:
            return
        lossy = x.is_complex() and not wants.is_complex
        if known_origin(x) is not None and not lossy:
            yield from self.at(x, Transform("to", (wants,)), 3)
        path = self.failure.step.module
        if lossy:
            yield Candidate(4, Conversion("", x.dtype, f"model.to({x.dtype})"))
        elif self.input_number(x) is None and path and x.is_floating_point():
            yield Candidate(8, Conversion(path, x.dtype, f"{self.name_of(path)}.to({x.dtype})"))
        for other in self.misfit.others:
            if known_origin(other) is not None and other.dtype != x.dtype:
                yield from self.at(other, Transform("to", (x.dtype,)), 6)

    def table(self) -> Found:
        """Yield a longer table, and a shorter input."""
        ids, rows, worst = self.misfit.tensor, self.misfit.wants, self.misfit.got
        module, path = self.failure.module, self.failure.step.module
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and worst >= 0:
            shape = (worst + 1, module.embedding_dim)
            text = f"num_embeddings={worst + 1}"
            settings = (("num_embeddings", worst + 1),)
            yield Candidate(5, LayerChange(path, settings, (("weight", shape),), text))
        if self.misfit.others and self.misfit.noun == "classes" and worst > 0:
            yield from self.maker(self.misfit.others[0], 1, worst + 1, rank=5)
        if ids is None:
            return
        for number, given in enumerate(self.failure.given):
            for axis, size in enumerate(given.shape):
                if axis and size == worst + 1 and given.argument is not None and size > rows:
                    which = self.an_input(given)
                    noun = f"{which} of length {{}}"
                    yield Sides(
                        6 + number, given.argument, (axis,), size, lambda s: s <= rows, noun
                    )

    def average(self) -> Found:
        """Yield eval mode, and a batch of two."""
        yield Candidate(3, EvalMode())
        given = self.failure.given[0] if self.failure.given else None
        if given is not None and given.argument is not None and given.shape[:1] == (1,):
            change = Resize(given.argument, ((0, 2),), "a batch of 2 or more")
            yield Candidate(4, change, batch=True)

    def state(self) -> Found:
        """Yield what brings a recurrent layer and its hidden state together."""
        module, path = self.failure.module, self.failure.step.module
        if isinstance(module, nn.RNNBase):
            flag = not module.batch_first
            yield Candidate(3, sets(path, "", batch_first=flag))
        x = self.misfit.others[0] if self.misfit.others else self.misfit.tensor
        if x is not None and x.dim() == 3:
            yield from self.at(x, Transform("transpose", (0, 1)), 6)
        state, wants = self.misfit.tensor, self.misfit.wants
        number = None if state is None else self.input_number(state)
        if state is not None and number is not None and wants and len(wants) == state.dim():
            given = self.failure.given[number]
            sizes = tuple((d, n) for d, n in enumerate(wants) if n != state.shape[d])
            if given.argument is not None:
                text = f"{self.an_input(given)} of {shape_text(wants)}"
                yield Candidate(5, Resize(given.argument, sizes, text))
        if state is not None and state.dim() == 2:
            yield from self.at(state, Transform("unsqueeze", (0,)), 7)
        if state is not None and state.dim() == 3:
            yield from self.at(state, Transform("transpose", (0, 1)), 8)

    def guard(self) -> Found:
        """Yield the input that a program was exported for."""
        dim, wants = self.misfit.got, self.misfit.wants
        for given in self.failure.given:
            if given.argument is None or given.name != self.misfit.noun or dim >= len(given.shape):
                continue
            image = dim > 1 and len(given.shape) > 3
            axes = tuple(i for i in range(2, len(given.shape))) if image else (dim,)
            sizes = tuple((axis, wants) for axis in axes)
            words = f"of {wants} pixels a side" if image else f"of {wants} in dimension {dim}"
            text = f"{self.an_input(given)} {words}"
            yield Candidate(3, Resize(given.argument, sizes, text), batch=dim == 0)

    # For every kind

    def usual(self) -> Found:
        """Yield the usual slips: the batch is missing, the channels stand last."""
        for number, given in enumerate(self.failure.given[:1]):
            if given.argument is None:
                continue
            name = self.input_name(number)
            where = "on the input" if len(self.failure.given) == 1 else f"on the input {given.name}"
            ndim = len(given.shape)
            views: list[tuple[int, Transform, bool]] = []
            alone = any(
                step.op.startswith("conv") and step.input_shapes[:1] == (given.shape,)
                for step in self.failure.steps
            )
            if ndim in (1, 3) or alone or (ndim == 2 and max(given.shape) <= 4 * min(given.shape)):
                rank = 9 if self.misfit.kind == "rank" else 26
                views.append((rank, Transform("unsqueeze", (0,)), True))
            if ndim == 4 and _has_channels_last(given.shape):
                views.append((41, Transform("permute", (0, 3, 1, 2)), False))
            if ndim == 3:
                views.append((42, Transform("transpose", (1, 2)), False))
            for other in self.failure.given[1:] if given.shape else ():
                if (
                    other.shape[:1] != given.shape[:1]
                    and other.argument is not None
                    and other.shape
                ):
                    shape = shape_text((given.shape[0], *other.shape[1:]))
                    text = f"{self.an_input(other)} of {shape}"
                    resize = Resize(other.argument, ((0, given.shape[0]),), text)
                    yield Candidate(43, resize)
            if given.shape[:1] == (1,) and ndim > 1:
                views.append((44, Transform("squeeze", (0,)), True))
            for rank, transform, batch in views:
                text = f"{transform.text(name)} {where}"
                yield Candidate(rank, InputChange(given.argument, transform, text), batch)
        if self.failure.sealed:
            yield from self.guesses()
        module, path = self.failure.module, self.failure.step.module
        if isinstance(module, nn.RNNBase | nn.MultiheadAttention) and self.misfit.kind != "batch":
            yield Candidate(45, sets(path, "", batch_first=not module.batch_first))

    def guesses(self) -> Found:
        """Yield the sides that images often have, for code that nothing is known of."""
        given = self.failure.given[0] if self.failure.given else None
        if given is None or given.argument is None or len(given.shape) < 3:
            return
        axes = tuple(range(2, len(given.shape)))
        noun = "an input of length {}" if len(axes) == 1 else "an input of {} pixels a side"
        side = given.shape[axes[0]]
        for size in sorted({28, 32, 64, 96, 224, 256} - {side}, key=lambda n: abs(n - side)):
            yield Sides(70, given.argument, axes, side, _only(size), noun)


def _only(size: int) -> Callable[[int], bool]:
    return lambda side: side == size


def _has_channels_last(shape: tuple[int, ...]) -> bool:
    """Return whether the sizes are those of images whose channels stand last."""
    high, wide, last = shape[1:]
    return (last <= 4 < min(high, wide)) or (high == last != wide)


def step_of(x: Tensor) -> int | None:
    """Return the number of the step that made a tensor, -1 for an input."""
    return getattr(x, "_blitz_step", None)


def _slot(x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Slot | None:
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


def _sizes(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, ...]:
    given = kwargs.get("size", kwargs.get("shape", args[1:]))
    return tuple(given[0]) if len(given) == 1 and not isinstance(given[0], int) else tuple(given)


def _input_axes(dim: Dim) -> set[tuple[int, int]]:
    """Return the axes of inputs that decide the size of a dimension."""
    if dim.input is not None and (dim.axis is not None):
        return {dim.input}
    return {axis for _, part in (*dim.parts, *dim.summed) for axis in _input_axes(part)}


def _is_computed(dim: Dim) -> bool:
    """Return whether the size of a dimension is more than that of an axis of an input."""
    return bool(dim.parts or dim.summed) or (dim.axis is not None and dim.axis.chain is not None)


def _size_for(size: int, dim: Dim, side: int) -> int:
    """Return the size of a dimension for an input of ``side``."""
    if dim.axis is not None and dim.input is not None and dim.input[1] > 0:
        return dim.axis.size_for(side)
    if dim.summed:
        return sum(_size_for(one, part, side) for one, part in dim.summed)
    if dim.parts:
        return prod(_size_for(one, part, side) for one, part in dim.parts)
    return size


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
