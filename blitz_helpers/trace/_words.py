"""The message of a failure: which step failed, what it got and wants, and what to change."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import Tensor

from blitz_helpers.trace._failures import Failure
from blitz_helpers.trace._field import Dim, dims_of, known_origin
from blitz_helpers.trace._nests import shape_text
from blitz_helpers.trace._op import Misfit
from blitz_helpers.trace._records import ShapeStep


def message(failure: Failure, hint: str) -> str:
    """Return the whole message: what failed, then the remedies or where the numbers come from."""
    first = _failed_step(failure)
    return f"{first}. {hint}" if hint else f"{first}.{_sources(failure)} {_page(failure)}"


def hint_of(remedies: Sequence[Any]) -> str:
    """Return what to change, as a sentence."""
    return f"Use {', or '.join(map(str, remedies))}." if remedies else ""


def _failed_step(failure: Failure) -> str:
    """Return which step failed, what it got, and what it wants."""
    misfit = failure.misfit
    text = str(misfit)
    product = _product(misfit)
    if product is not None:
        sizes, wanted = product
        text = f"got {misfit.got} = {sizes} {misfit.noun}, wants {misfit.wants}"
        text += f" = {wanted}" if wanted else ""
    x = misfit.tensor
    step = None if x is None else mixing_view(failure, x)
    if step is not None:
        text += f": {step.op} mixed the batch of {failure.given[0].shape[0]} into it"
    return f"{failure.name} {text}"


def _product(misfit: Misfit) -> tuple[str, str] | None:
    """Return the factors of both sizes as text, if a view multiplied several dimensions."""
    x, dim = misfit.tensor, misfit.dim
    if misfit.kind != "size" or x is None or dim is None:
        return None
    parts = dims_of(x)[dim].parts
    if not parts or prod(size for size, _ in parts) != misfit.got:
        return None
    sizes = "*".join(str(size) for size, _ in parts)
    sides = [i for i, (_, part) in enumerate(parts) if part.axis is not None and not _batch(part)]
    rest = prod(size for i, (size, _) in enumerate(parts) if i not in sides)
    side = root(misfit.wants, rest, len(sides))
    if side is None or any(part.input == (0, 0) for _, part in parts):
        return sizes, ""
    return sizes, "*".join(str(side if i in sides else n) for i, (n, _) in enumerate(parts))


def _batch(part: Dim) -> bool:
    return part.input is not None and part.input[1] == 0


def root(number: int, rest: int, count: int) -> int | None:
    """Return the side whose ``count``-th power times ``rest`` is ``number``."""
    if not count or not rest or number % rest:
        return None
    side: int = round((number // rest) ** (1 / count))
    return side if rest * side**count == number else None


def mixing_view(failure: Failure, x: Tensor) -> ShapeStep | None:
    """Return the view that multiplied the batch into the dimension of ``x`` that does not fit."""
    if failure.misfit.kind != "size" or failure.misfit.dim is None:
        return None
    parts = dims_of(x)[failure.misfit.dim].parts
    if len(parts) < 2 or not any(size > 1 and part.input == (0, 0) for size, part in parts):
        return None
    views = ("view", "reshape", "flatten", "unflatten")
    return next((one for one in reversed(failure.steps) if one.op in views), None)


def _sources(failure: Failure) -> str:
    """Return a sentence that says where the numbers of the misfit come from, as far as known."""
    misfit = failure.misfit
    said = []
    tensors = [misfit.tensor] if misfit.tensor is not None else list(misfit.others[:2])
    for x in tensors:
        if x is None or known_origin(x) is None:
            continue
        if misfit.tensor is not None and misfit.dim is not None:
            places = [misfit.dim]
        elif misfit.kind == "unequal":
            sizes = zip(*(t.shape for t in misfit.others), strict=False)
            places = [i for i, each in enumerate(sizes) if len(set(each) - {1}) > 1 and i < x.dim()]
        else:
            said.append(_maker_of(failure, x))
            continue
        said += [_source(failure, x.shape[place], dims_of(x)[place]) for place in places]
    if misfit.kind == "size" and any(known_origin(t) is None for t in misfit.others):
        said.append(f"the weights of {failure.name} want {misfit.wants}")
    text = "; ".join(one for one in dict.fromkeys(said) if one)
    return f" {text[0].upper()}{text[1:]}." if text else ""


def _step_name(step: ShapeStep) -> str:
    return f"`{step.module}`" if step.module else step.op


def _maker_of(failure: Failure, x: Tensor) -> str:
    number = getattr(x, "_blitz_step", None)
    shape = shape_text(tuple(x.shape))
    if number is None or number >= len(failure.steps):
        return ""
    if number < 0:
        return f"{shape} is an input"
    return f"{_step_name(failure.steps[number])} made the {shape}"


def _source(failure: Failure, size: int, dim: Dim) -> str:
    if dim.input is not None and dim.input[0] < len(failure.given):
        number, axis = dim.input
        given = failure.given[number]
        changed = axis < len(given.shape) and given.shape[axis] != size
        which = "the input" if len(failure.given) == 1 else f"the input {given.name}"
        return f"{size} {'comes from' if changed else 'is'} dimension {axis} of {which}"
    if dim.step is not None and dim.step < len(failure.steps):
        return f"{_step_name(failure.steps[dim.step])} made the {size}"
    if dim.parts:
        return f"{size} is {'*'.join(str(one) for one, _ in dim.parts)}"
    return ""


def _page(failure: Failure) -> str:
    """Return which notebook of the series explains this kind of failure."""
    op = failure.step.op
    if "loss" in op or "entropy" in op:
        return "Notebook 6, 06_train, shows what a loss takes."
    if failure.misfit.kind == "dtype":
        return "Notebook 1, 01_define_a_network, shows what a layer takes."
    return "Notebook 2, 02_shape_arithmetic, shows how the sizes follow from each other."
