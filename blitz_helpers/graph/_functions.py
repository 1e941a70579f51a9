"""Foretells what the backward of a custom ``Function`` does, from its code."""

from __future__ import annotations

import inspect
import sys
from typing import Any, NamedTuple

from torch.autograd import Function

from blitz_helpers.graph._code import Asks, Code, code_of
from blitz_helpers.graph._derivatives import IsUsed, Obstacle, fails, may_fail
from blitz_helpers.graph._returns import ANYTHING, Value, Values, values_returned
from blitz_helpers.graph._tensors import Shape, expands_to, form_of


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
    returned: tuple[Value, ...] = ()
    """What it may return; empty for the code of torch itself."""
    is_of_library: bool = False
    """Whether it is of ``torch.library``, whose forward has one more argument than the user's."""

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
        needs = node.needs_input_grad[:-1] if self.is_of_library else node.needs_input_grad
        found = [_obstacle_of(value, node, needs, where) for value in self.returned]
        wrong = [obstacle for obstacle in found if obstacle is not None]
        if not wrong:
            return None
        worst = min(wrong, key=lambda obstacle: obstacle.is_certain)  # in doubt first
        if not worst.is_certain or len(wrong) == len(found):
            return worst
        return may_fail(f"{worst.reason} Not every path through its code does that")


def _obstacle_of(value: Value, node: Any, needs: tuple[bool, ...], where: str) -> Obstacle | None:
    """Return the obstacle if backward returns this value, or ``None``.

    ``needs`` tells for each argument of forward whether it needs a gradient.
    """
    count = len(needs)
    items = value.items if value.what == "tuple" else (frozenset((value,)),)
    extra = [item for item in items[count:] if Value("None") not in item]
    may_be_none = [any(_may_be_none(each, node) for each in item) for item in extra]
    if any(may_be_none) or (value.what == "anything" and count > 1):
        return may_fail(
            f"{where} is a custom Function, and its code does not tell whether it returns "
            f"{_count(count, 'gradient')}, one for each argument of forward"
        )
    if extra or len(items) < count:
        mistake: str | None = _count(len(items), "value")
    else:
        mistake = _mistake_in(items[:count], node, needs)
    if mistake is None:
        return None
    return fails(
        f"{where} is a custom Function whose backward returns {mistake}. It must return "
        f"{_count(count, 'gradient')}, one for each argument of forward, and None for an argument "
        "that is not a tensor."
    )


def _may_be_none(value: Value, node: Any) -> bool:
    # Beside other outputs, one may not be a tensor, and its gradient is None.
    is_of_several = value.what == "gradient" and len(node._input_metadata) > 1
    return is_of_several or value.what in ("None", "anything")


def _mistake_in(items: tuple[Values, ...], node: Any, needs: tuple[bool, ...]) -> str | None:
    """Return what is wrong with the values returned, one for each argument of forward."""
    edges = [edge for edge in node.next_functions if edge[0] is not None]
    others = len(node.next_functions) - len(edges)  # tensors that need no gradient
    for place, (item, needs_gradient) in enumerate(zip(items, needs, strict=True)):
        found = {value.what for value in item}
        if found <= {"object", "tuple"}:
            kinds = " or ".join(sorted(value.type_name or "tuple" for value in item))
            return f"a value of type {kinds} for argument {place}"
        if needs_gradient:
            edge = edges.pop(0)
            shapes = [_wrong_shape(value, node, *edge) for value in item if found <= _OF_A_SHAPE]
            if shapes and None not in shapes:
                return (
                    f"a gradient of shape {shapes[0]} for argument {place}, which has another shape"
                )
        elif not any(_may_be_none(value, node) for value in item):
            others -= 1
            if others < 0:
                return "a gradient for an argument that is not a tensor"
    return None


_OF_A_SHAPE = {"gradient", "scalar"}


def _wrong_shape(value: Value, node: Any, source: Any, number: int) -> Shape | None:
    """Return the shape of a gradient that does not fit the tensor whose gradient it should be."""
    shape: Shape | None = ()
    if value.what == "gradient":
        shape, _ = form_of(node._input_metadata[value.number])
    wanted, _ = form_of(source._input_metadata[number])
    if shape is None or wanted is None or expands_to(wanted, shape):
        return None
    return None if not shape and _may_be_none(value, node) else shape


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _has(node: Any, attribute: str) -> bool:
    """Return whether a node has an attribute, without running the code of a property."""
    return attribute in vars(node) or hasattr(type(node), attribute)


_RETURN_THEMSELVES = (
    (inspect.isgeneratorfunction, "generator"),
    (inspect.isasyncgenfunction, "async_generator"),
    (inspect.iscoroutinefunction, "coroutine"),
)


def read_backward(function: type[Function]) -> BackwardCode:
    """Read the code of a custom function's backward."""
    defined = function.backward is not Function.backward
    if defined and function.vjp is not Function.vjp:
        return BackwardCode("never", only_raises=True)  # torch raises: it wants one of them
    backward = function.backward if defined else function.vjp
    for is_such, kind in _RETURN_THEMSELVES:
        if is_such(backward):
            returned = Value("object", type_name=kind)
            return BackwardCode("never", only_raises=False, returned=(returned,))
    code = code_of(backward)
    if code is None:
        return BackwardCode("perhaps", only_raises=False, returned=tuple(ANYTHING))
    is_boxed = getattr(function, "boxed_grads_call", False)  # all gradients come in one list
    written = _written_by_user(code)
    if written is None:
        return BackwardCode(code.asks(is_first=True), not code.can_return(0))
    return BackwardCode(
        code.asks(is_first=True),
        not (code.can_return(0) and written.can_return(0)),
        written.attributes(),
        str(written.signature),
        _gradients_taken(written.signature) if not is_boxed else None,
        tuple(sorted(values_returned(written), key=str)),
        is_of_library=code.module == "torch._library.autograd",
    )


def _gradients_taken(signature: inspect.Signature) -> range:
    """Return how many gradients fit the arguments of a backward, behind ``ctx``."""
    parameters = signature.parameters.values()
    needed = [one for one in parameters if one.default is one.empty]
    if any(one.kind is one.KEYWORD_ONLY for one in needed):
        return range(0)
    if any(one.kind is one.VAR_POSITIONAL for one in parameters):
        most = sys.maxsize
    else:
        most = sum(one.kind.name.startswith("POSITIONAL") for one in parameters)
    fewest = sum(one.kind.name.startswith("POSITIONAL") for one in needed)
    return range(fewest - 1, most)  # one of them is ctx


def _written_by_user(code: Code) -> Code | None:
    """Return the user's backward, which torch's own code may call; ``None`` if that calls none."""
    if code.module.partition(".")[0] != "torch":
        return code
    helpers = filter(None, (code.helper(value) for value, _ in code.known.values()))
    called = {helper.function for helper in helpers if helper.module != code.module}
    inner = code_of(called.pop()) if len(called) == 1 else None
    return None if inner is None else _written_by_user(inner)
