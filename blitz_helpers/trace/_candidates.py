"""Changes that might mend a failure, cheapest first; `_proof` tries them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from math import prod
from typing import Any

from torch import Tensor, nn

from blitz_helpers._torch import ConvTransposeNd
from blitz_helpers.trace._changes import CodeChange, ModelChange
from blitz_helpers.trace._clues import Candidate, Clues, Found, Sides, differing, step_of
from blitz_helpers.trace._costs import Cost
from blitz_helpers.trace._failures import Failure
from blitz_helpers.trace._field import Dim, dims_of, known_origin
from blitz_helpers.trace._layers import makes, remade, sets, takes
from blitz_helpers.trace._moves import moves
from blitz_helpers.trace._nests import shape_text
from blitz_helpers.trace._records import ShapeStep
from blitz_helpers.trace._sizes import input_sizes
from blitz_helpers.trace._transforms import Transform
from blitz_helpers.trace._words import mixing_view, root


def candidates(failure: Failure) -> list[Candidate | Sides]:
    """Return the changes to try, cheapest first."""
    clues = Clues(failure)
    moved = [*_calls(clues), *moves(clues)]
    found = [*moved, *_slips(clues)]
    # If the wanted features are in another dimension, the layer should not be made to fit this one.
    x, dim = failure.misfit.tensor, failure.misfit.dim
    was_made = x is not None and dim is not None and dims_of(x)[dim].step is not None
    elsewhere = bool(moved) and failure.misfit.kind == "size" and not was_made
    found += _layers(clues, elsewhere)
    views = any(one.cost < Cost.TAKES for one in moved)
    found += [] if elsewhere else input_sizes(clues, views)
    if failure.sealed:
        found = [c for c in found if isinstance(c, Sides) or c.change.kind == "input"]
    return sorted(found, key=lambda one: one.cost)


# The call itself


def _calls(clues: Clues) -> Found:
    """Yield other views in place of the one that failed, or that mixed the batch in."""
    failure, misfit, x = clues.failure, clues.misfit, clues.misfit.tensor
    if x is None or known_origin(x) is None:
        return
    number, op = failure.number, failure.step.op
    if misfit.kind == "size" and mixing_view(failure, x) and (made := step_of(x)) is not None:
        op = failure.steps[made].op
        if op in ("flatten", "view", "reshape"):
            yield _flat(failure.numbers[made], op)
    elif misfit.noun == "stride":
        place = next(i for i, one in enumerate(failure.tensors) if one is x)
        text = f"x.reshape(...) in the place of x.{op}(...)"
        # A view of a contiguous copy, as reshape makes it.
        yield Candidate(Cost.COPY, CodeChange(number, op, place, Transform("contiguous"), text))
    elif misfit.kind == "numbers" and op in ("view", "reshape", "unflatten"):
        for cost, sizes in _other_sizes(x, misfit.wants):
            text = (
                f"x.{'view' if op == 'view' else 'reshape'}{sizes} in the place of {misfit.wants}"
            )
            change = CodeChange(number, op, "call", Transform("reshape", sizes), text)
            yield Candidate(cost, change)
        if x.dim() > 1 and len(misfit.wants) == 2:
            yield _flat(number, op)


def _flat(number: int, op: str) -> Candidate:
    text = f"x.flatten(1) in the place of {op}"
    return Candidate(Cost.FLAT, CodeChange(number, op, "call", Transform("flatten", (1,)), text))


def _other_sizes(x: Tensor, asked: tuple[int, ...]) -> Iterator[tuple[float, tuple[int, ...]]]:
    """Yield sizes similar to those asked for that hold all numbers of ``x``."""
    if len(asked) < 2 or not x.dim():
        return
    if asked[0] not in (-1, x.shape[0]) and -1 not in asked[1:]:
        yield Cost.BATCH_KEPT, (-1, *asked[1:])
    per, sides = x.numel() // max(1, x.shape[0]), asked[2:]
    side = root(per, asked[1], len(sides)) if len(set(sides)) == 1 and asked[1] > 0 else None
    if side:
        yield Cost.SIDES_OF_VIEW, (-1, asked[1], *(side,) * len(sides))
    if sides and asked[1] != -1 and min(sides) > 0 and per % prod(sides) == 0:
        yield Cost.CHANNELS_OF_VIEW, (-1, per // prod(sides), *sides)


# The model


def _layers(clues: Clues, elsewhere: bool) -> Found:
    """Yield changes to the layer that failed, and to those that made its inputs."""
    misfit, x, dim = clues.misfit, clues.misfit.tensor, clues.misfit.dim
    module, path = clues.failure.module, clues.failure.step.module
    match misfit.kind:
        case "size" if x is not None and dim is not None and known_origin(x) is not None:
            if clues.is_features(x, dim):
                change = takes(path, module, misfit.got, misfit.noun)
                yield from _if_any(Cost.TAKES, change, elsewhere)
            if misfit.wants is not None:
                yield from _maker(clues, x, dim, misfit.wants)
            own = not type(module).__module__.startswith("torch.nn")
            for y in misfit.others:
                for d in [d for d, size in enumerate(y.shape) if size == misfit.wants]:
                    if known_origin(y) is not None:
                        yield from _maker(clues, y, d, misfit.got)
                    elif own:
                        yield from _parameter(clues, y, d, misfit.got)
        case "window" if x is not None and dim is not None:
            yield from _padding(path, module, misfit.wants - x.shape[dim])
        case "numbers" if x is not None and misfit.wants and x.dim() > 1:
            yield from _viewed(clues, x, misfit.wants)
        case "unequal" if not misfit.noun:
            yield from _meeting(clues)
        case "unequal" if misfit.noun == "target":
            scores, target = misfit.others
            sides = dict(zip(scores.shape[2:], target.shape[1:], strict=False))
            if scores.dim() == target.dim() + 1 and scores.shape[2:] != target.shape[1:]:
                yield from _window_settings(clues, scores, sides)
        case "dtype" if x is not None:
            yield from _conversion(clues, x)
        case "table":
            if isinstance(module, nn.Embedding | nn.EmbeddingBag) and misfit.got >= 0:
                longer = remade(path, module, {"num_embeddings": misfit.got + 1})
                yield from _if_any(Cost.LONGER_TABLE, longer)
            for y in misfit.others if misfit.got >= 0 else ():
                for d in [d for d, size in enumerate(y.shape) if size == misfit.wants]:
                    yield from _maker(clues, y, d, misfit.got + 1)
        case "average":
            flags = tuple((name, "training", False) for name, _ in clues.model.named_modules())
            yield Candidate(Cost.MODE, ModelChange(flags, (), "model.eval()", "code"))
        case "batch" if x is not None and misfit.wants and len(misfit.wants) == x.dim():
            yield from _if_any(Cost.TAKES, takes(path, module, x.shape[-1], misfit.noun))
            if isinstance(module, nn.RNNBase) and x.shape[0] % (1 + module.bidirectional) == 0:
                layers = x.shape[0] // (1 + module.bidirectional)
                yield from _if_any(Cost.TAKES, remade(path, module, {"num_layers": layers}))
            yield from _maker(clues, x, x.dim() - 1, misfit.wants[-1])
    meets = misfit.kind in ("batch", "unequal") and misfit.noun != "mask"
    for place in dict.fromkeys([path, *(step.module for step in clues.failure.steps)]):
        layer = clues.part(place)
        if isinstance(layer, nn.RNNBase | nn.MultiheadAttention):
            cost = Cost.MODE if meets and place == path else Cost.OTHER_MODE
            where = "" if place == path else clues.name_of(place)
            yield Candidate(cost, sets(place, where, batch_first=not layer.batch_first))


def _viewed(clues: Clues, x: Tensor, asked: tuple[int, ...]) -> Found:
    """Yield changes with which layers make as many numbers as a view asks for."""
    whole = (x.shape[0], *asked[1:]) if asked[0] == -1 else asked
    if -1 in whole:
        yield from _maker(clues, x, x.dim() - 1, prod(whole[whole.index(-1) + 1 :]))
    for dim in range(1, x.dim()) if -1 not in whole else ():
        rest = x.numel() // x.shape[dim]
        if prod(whole) % rest == 0:
            yield from _maker(clues, x, dim, prod(whole) // rest)
    number, rest = (asked[-1], 1) if -1 in whole else (prod(whole), prod(x.shape[:2]))
    side = root(number, rest, max(0, x.dim() - 2))
    if side and side != x.shape[-1]:
        yield from _window_settings(clues, x, {x.shape[-1]: side})


def _maker(clues: Clues, x: Tensor, dim: int, wants: int) -> Found:
    """Yield changes with which the layers that made a dimension make it of size ``wants``."""
    yield from _making(clues, dims_of(x)[dim], x.shape[dim], wants)


def _making(clues: Clues, own: Dim, got: int, wants: int) -> Found:
    path = clues.failure.maker(own)
    if path and got:
        change = makes(path, clues.part(path), got, wants, clues.name_of(path))
        yield from _if_any(Cost.MAKES, change)
    terms: dict[object, list[tuple[int, Dim]]] = {}
    for size, part in own.summed:  # a layer may have made several of them
        terms.setdefault(clues.failure.maker(part) or part, []).append((size, part))
    sides = [size for size, part in own.parts if part.axis is not None and part.axis.chain]
    if len(sides) > 1 and root(wants, got // prod(sides), len(sides)):
        return  # sides of another size explain the number
    factors = [(size, part, wants * size, got) for size, part in own.parts]
    for same in terms.values():
        (size, part), *_ = same
        total = sum(one for one, _ in same)
        factors.append((size, part, size * (wants - got + total), total))
    for size, part, number, among in factors:
        if number <= 0 or number % among:
            continue
        yield from _making(clues, part, size, number // among)
        if part.input is not None and part.input[1] == 1 and own.parts:
            at, channels = part.input[0], number // among
            if clues.shape_of(at)[1] == size != channels:
                words = f"{channels} channel{'s' * (channels > 1)}"
                yield from clues.another_input(at, ((1, channels),), Cost.MAKES, words)


def _if_any(cost: float, change: ModelChange | None, doubtful: bool = False) -> Found:
    if change is not None:
        yield Candidate(cost, change, doubtful)


def _padding(path: str, module: Any, lack: int) -> Found:
    """Yield the padding with which a window fits its input."""
    padding = getattr(module, "padding", None)
    if not isinstance(padding, int | tuple):
        return
    sides = padding if isinstance(padding, tuple) else (padding,)
    more = -(-lack // 2)
    if isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        more = -(-lack * max(module.stride) // 2) * -1  # it crops its output by the padding
    value = tuple(side + more for side in sides)
    if min(value) >= 0:
        change = sets(path, padding=value if isinstance(padding, tuple) else value[0])
        yield Candidate(Cost.SETTINGS, change)


def _conversion(clues: Clues, x: Tensor) -> Found:
    """Yield the conversion of the layer to the dtype of what another step made."""
    path = clues.failure.step.module
    module = clues.part(path)
    if clues.input_number(x) is not None or not path or module is None or not x.is_floating_point():
        return
    states = (*module.named_parameters(), *module.named_buffers())
    names = [name for name, one in states if one.is_floating_point()]
    forms = tuple((f"{path}.{name}", x.dtype) for name in names)
    yield Candidate(Cost.TAKES, ModelChange((), forms, f"{clues.name_of(path)}.to({x.dtype})"))


def _meeting(clues: Clues) -> Found:
    """Yield changes of layers and parameters that make the tensors of one call agree in size."""
    for x, y in permutations(clues.misfit.others, 2):
        differ = differing(x, y, clues.misfit.dim)
        for at in differ:
            change = _parameter if known_origin(x) is None else _maker
            yield from change(clues, x, x.dim() - at, y.shape[-at])
        sides = {x.shape[-at]: y.shape[-at] for at in differ if dims_of(x)[-at].step is None}
        if sides and x.dim() > 2:
            yield from _window_settings(clues, x, sides)


def _parameter(clues: Clues, weight: Tensor, dim: int, size: int) -> Found:
    """Yield a parameter of another shape, or its first rows."""
    tensors = (*clues.model.named_parameters(), *clues.model.named_buffers())
    for name in [name for name, own in tensors if own is weight]:
        shape = (*weight.shape[:dim], size, *weight.shape[dim + 1 :])
        change = ModelChange((), ((name, shape),), f"{name} of {shape_text(shape)}")
        yield Candidate(Cost.PARAMETER, change)
    if size < weight.shape[dim] and clues.misfit.kind == "unequal":
        cut = Transform("index", (*((None, None),) * dim, (None, size)))
        yield from clues.changed(weight, cut, Cost.CUT_PARAMETER)


def _window_settings(clues: Clues, x: Tensor, wanted: dict[int, int]) -> Found:
    """Yield settings of the layers before ``x`` with which its sides have the sizes ``wanted``."""
    number, up = step_of(x), []
    while number is not None and 0 <= number < len(clues.failure.steps):
        step = clues.failure.steps[number]
        shape = _sides_of(step)
        if wanted.keys().isdisjoint(shape) and set(wanted.values()) <= set(shape):
            break
        module: Any = clues.part(step.module)
        kernel, stride = (getattr(module, name, None) for name in ("kernel_size", "stride"))
        if step.module and isinstance(kernel, tuple) and isinstance(stride, tuple):
            name = clues.name_of(step.module)
            if isinstance(module, ConvTransposeNd):
                up.append((step.module, name, module.stride))
                rows = zip(module.output_padding, shape[-len(kernel) :], strict=True)
                more = tuple(pad + wanted.get(size, size) - size for pad, size in rows)
                if all(0 <= pad < step for pad, step in zip(more, stride, strict=True)):
                    yield Candidate(Cost.SETTINGS, sets(step.module, name, output_padding=more))
            else:
                got, wants = next(iter(wanted.items()))
                usual = round(max(got / wants, wants / got)) in (2, 4)
                steps = tuple(max(1, round(one * got / wants)) if usual else 1 for one in stride)
                if steps != stride:
                    yield Candidate(Cost.SETTINGS, sets(step.module, name, stride=steps))
            padding = tuple((k - 1) * d // 2 for k, d in zip(kernel, module.dilation, strict=True))
            if not all(k % 2 for k in kernel) and isinstance(module.padding, tuple):
                lacks = [wanted.get(size, size) - size for size in shape[-len(kernel) :]]
                padding = tuple(p + n // 2 for p, n in zip(module.padding, lacks, strict=True))
            if padding != module.padding and min(padding) >= 0:
                yield Candidate(Cost.SETTINGS, sets(step.module, name, padding=padding))
        known = [one for one in step.inputs if one >= 0]
        slid = [n for n in known if wanted.keys() & {*_sides_of(clues.failure.steps[n])}]
        number = next(iter(slid or known), None)
    if len(up) > 1 and len({stride for _, _, stride in up}) == 1:
        more = tuple(step - 1 for step in up[0][2])
        all_of = sets(
            up[-1][0], " and ".join(name for _, name, _ in reversed(up)), output_padding=more
        )
        settings = tuple((path, "output_padding", more) for path, _, _ in up)
        yield Candidate(Cost.SETTINGS, ModelChange(settings, (), all_of.text))


def _sides_of(step: ShapeStep) -> tuple[int, ...]:
    """Return the sizes in which windows may slide over the output of a step."""
    shape = step.output_shape
    return shape[1 + (len(shape) > 3) :] if isinstance(shape, tuple) else ()


# Common slips, which cause failures only later


def _slips(clues: Clues) -> Found:
    """Yield views of an input for a missing batch, or for channels that stand last."""
    number = clues.number
    shape, kind = clues.shape_of(number), clues.misfit.kind
    if not shape or kind == "table":
        return
    alone = any(
        step.op.startswith("conv") and step.input_shapes[:1] == (shape,)
        for step in clues.failure.steps
    )
    flat = any(step.op == "flatten" and step.inputs == (-1,) for step in clues.failure.steps)
    if flat and len(shape) == 2 and clues.misfit.wants == prod(shape):  # it flattened nothing
        yield from clues.changed_input(number, Transform("unsqueeze", (0,)), Cost.WIDEN)
    if len(shape) == 3 or alone or (len(shape) == 1 and number == 0):
        cost = Cost.UNBATCHED if kind == "rank" else Cost.SLIP
        yield from clues.changed_input(number, Transform("unsqueeze", (0,)), cost)
    if alone and len(shape) == 2 and shape[1] % shape[0] == 0:
        # As many flat rows as there are channels, which a convolution took for one sequence.
        rows = Transform("reshape", (-1, shape[0], shape[1] // shape[0]))
        yield from clues.changed_input(number, rows, Cost.SLIP)
    if len(shape) == 4 and shape[3] not in shape[1:3]:
        yield from clues.changed_input(number, Transform("permute", (0, 3, 1, 2)), Cost.OTHER_SLIP)
    if len(shape) == 3 and clues.misfit.noun != "inner":
        yield from clues.changed_input(number, Transform("transpose", (1, 2)), Cost.OTHER_SLIP)
    if shape[0] == 1 and kind == "average":
        two = Transform("sized", ((0, 2),))
        yield from clues.of_input(number, two, Cost.LARGER_BATCH, "a batch of 2 or more")
    first = clues.shape_of(0)
    for other in range(1, len(clues.failure.given)):
        if clues.shape_of(other)[:1] not in ((), first[:1]):
            yield from clues.another_input(other, ((0, first[0]),), Cost.OTHER_SLIP)
