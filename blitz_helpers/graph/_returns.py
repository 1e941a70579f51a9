"""Reads from the code of a backward how many gradients it returns."""

from __future__ import annotations

import sys
from dis import Instruction
from typing import NamedTuple

from blitz_helpers.graph._code import Code


class Returned(NamedTuple):
    """How many arguments forward may have for what a return statement of its backward gives."""

    fitting: range
    """The last of them is the number of gradients; torch ignores each ``None`` at the end."""
    possible: range
    """The same if whatever may turn out to be ``None`` is."""


UNREADABLE = Returned(fitting=range(1, 2), possible=range(sys.maxsize))
"""Of unknown number; for a forward of one argument that is most likely one gradient."""


def returned_by(code: Code) -> tuple[Returned, ...]:
    """Return what each return statement gives."""
    return tuple(_returned_at(code, place) for place in code.returns())


def _returned_at(code: Code, place: int) -> Returned:
    if code.steps[place].opname == "RETURN_VALUE":
        place -= 1  # to what makes the value
        if place + 1 in code.targets:
            return UNREADABLE
    step = code.steps[place]
    if step.opname in ("LOAD_CONST", "RETURN_CONST"):
        items = step.argval if isinstance(step.argval, tuple) else (step.argval,)
        present = [number for number, item in enumerate(items, 1) if item is not None]
        fitting = range(max(present, default=0), len(items) + 1)
        return Returned(fitting, fitting)
    if step.opname != "BUILD_TUPLE":
        one = range(1, 2)
        return Returned(one, one) if code.leaves_tensor(place) else UNREADABLE
    needed = step.argval
    unset = _set_to_none(code)
    while place not in code.targets and _may_be_none(code.steps[place - 1], unset):
        place, needed = place - 1, needed - 1
    # Beside other outputs, one may not be a tensor, and its gradient is None.
    is_computed = len(code.required) == 2 or code.steps[place - 1].opname == "BINARY_OP"
    least = needed if is_computed and code.leaves_tensor(place - 1) else 0
    return Returned(range(needed, step.argval + 1), range(least, step.argval + 1))


def _may_be_none(step: Instruction, unset: set[str]) -> bool:
    return step.argval is None if step.opname == "LOAD_CONST" else step.argval in unset


def _set_to_none(code: Code) -> set[str]:
    """Return the variables that start as ``None``, for gradients that are not needed."""
    names: set[str] = set()
    follows_none = False
    for step in code.steps:
        if step.opname == "STORE_FAST" and follows_none:
            names.add(step.argval)
        elif step.opname != "COPY":
            follows_none = step.opname == "LOAD_CONST" and step.argval is None
    return names
