"""Foretells what the backward of a custom ``Function`` does, from its code."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from torch.autograd import Function

from blitz_helpers.graph._code import Asks, Code, code_of
from blitz_helpers.graph._derivatives import IsUsed, Obstacle, fails, may_fail
from blitz_helpers.graph._returns import UNREADABLE, Returned, returned_by


class BackwardCode(NamedTuple):
    """Facts read from the code of a custom function's backward."""

    asks: Asks
    """Whether it asks ``ctx`` for the saved tensors."""
    only_raises: bool
    """Whether every path through it ends in an error."""
    attributes: frozenset[str] = frozenset()
    """The attributes that it takes from ``ctx`` on every path, and does not set itself."""
    arguments: str = ""
    takes: range | None = None
    """How many gradients it takes; ``None`` if that cannot be read."""
    returned: tuple[Returned, ...] = ()
    """What each return statement gives; empty for the code of torch itself."""
    is_of_library: bool = False
    """Whether it belongs to an operation of ``torch.library``."""

    def check(self, node: Any, where: str, _is_used: IsUsed) -> Obstacle | None:
        """Check a node of a custom function."""
        if self.only_raises:
            return fails(f"{where} is a custom Function whose backward always raises an error.")
        gone = [name for name in sorted(self.attributes) if not _has(node, name)]
        if gone:
            return fails(
                f"{where} takes {', '.join(f'ctx.{name}' for name in gone)} in its backward, and "
                "no longer has it: an earlier backward deleted it, or the forward pass never set "
                "it. Run the forward pass again."
            )
        count = len(node._input_metadata)
        if self.takes is not None and count not in self.takes:
            return fails(
                f"{where} calls its backward with ctx and {_count(count, 'gradient')}, one for "
                f"each output, but its arguments are {self.arguments}."
            )
        # The forward of torch.library has one argument more than the user's.
        arguments = len(node.needs_input_grad) - self.is_of_library
        if all(arguments in each.fitting for each in self.returned):
            return None
        wanted = f"{_count(arguments, 'gradient')}, one for each argument of forward"
        if any(arguments in each.possible for each in self.returned):
            return may_fail(
                f"{where} is a custom Function, and its code does not tell whether it returns "
                f"{wanted}"
            )
        found = _count(self.returned[0].fitting[-1], "value")
        return fails(
            f"{where} is a custom Function whose backward returns {found}. "
            f"It must return {wanted}, and None for an argument that is not a tensor."
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _has(node: Any, attribute: str) -> bool:
    """Return whether a node has an attribute, without running the code of a property."""
    return attribute in vars(node) or hasattr(type(node), attribute)


def read_backward(function: type[Function]) -> BackwardCode:
    """Read the code of a custom function's backward."""
    defined = function.backward is not Function.backward
    if defined and function.vjp is not Function.vjp:
        return BackwardCode("never", only_raises=True)  # torch raises: it wants one of them
    code = code_of(function.backward if defined else function.vjp)
    if code is None:
        return BackwardCode("perhaps", only_raises=False, returned=(UNREADABLE,))
    is_boxed = getattr(function, "boxed_grads_call", False)  # all gradients come in one list
    written = _written_by_user(code)
    if written is None:
        return BackwardCode(code.asks(is_first=True), not code.can_return(0))
    return BackwardCode(
        code.asks(is_first=True),
        not (code.can_return(0) and written.can_return(0)),
        written.attributes(),
        str(written.signature),
        _gradients_taken(written) if not is_boxed else None,
        returned_by(written),
        is_of_library=code.module == "torch._library.autograd",
    )


def _gradients_taken(code: Code) -> range:
    """Return how many gradients fit the arguments of a backward, behind ``ctx``."""
    kinds = [one.kind.name for one in code.signature.parameters.values()]
    positional = sum(kind.startswith("POSITIONAL") for kind in kinds)
    return range(len(code.required) - 1, sys.maxsize if "VAR_POSITIONAL" in kinds else positional)


def _written_by_user(code: Code) -> Code | None:
    """Return the user's backward, which torch's own code may call; ``None`` if that calls none."""
    if code.module.partition(".")[0] != "torch":
        return code
    helpers = filter(None, (code.helper(value) for value, _ in code.known.values()))
    called = {helper.function for helper in helpers if helper.module != code.module}
    inner = code_of(called.pop()) if len(called) == 1 else None
    return None if inner is None else _written_by_user(inner)
