"""Reads from the code of a custom ``Function`` whether its backward asks for saved tensors.

Nothing is run. It reads the bytecode of ``backward`` and of the helpers that ``ctx`` is passed to.
Unlike source, bytecode also exists for generated code and code typed at a prompt.
"""

from __future__ import annotations

import builtins
import contextlib
import dis
import inspect
from collections.abc import Container
from itertools import pairwise
from types import FunctionType, MethodType, ModuleType
from typing import Any, Literal, NamedTuple, TypeAlias

from torch.autograd import Function

from blitz_helpers.graph._derivatives import IsUsed, Obstacle, fails

Asks: TypeAlias = Literal["always", "never", "perhaps"]

_SAVED = ("saved_tensors", "saved_variables")  # the second is the old name
_ATTRIBUTE = ("LOAD_ATTR", "LOAD_METHOD")
_UNKNOWN = object()
_MOST_HELPERS = 20  # the deepest nesting of helpers that is followed
_PADDING = frozenset(("CACHE", "EXTENDED_ARG", "NOP", "PRECALL", "PUSH_NULL", "RESUME"))
_JUMPS = frozenset(dis.hasjrel) | frozenset(dis.hasjabs)


class BackwardCode(NamedTuple):
    """Facts read from the code of a custom function's backward."""

    asks: Asks
    """Whether it asks ``ctx`` for the saved tensors."""
    only_raises: bool
    """Whether every path through it ends in an error."""
    attributes: frozenset[str] = frozenset()
    """The attributes that it takes from ``ctx`` on every path, and does not set itself."""

    def check(self, node: Any, where: str, _is_used: IsUsed) -> Obstacle | None:
        """Check a node of a custom function."""
        if self.only_raises:
            return fails(f"{where} is a custom Function whose backward always raises an error.")
        gone = [name for name in sorted(self.attributes) if not _has(node, name)]
        if not gone:
            return None
        return fails(
            f"{where} takes {', '.join(f'ctx.{name}' for name in gone)} in its backward, and "
            "no longer has it: an earlier backward deleted it, or the forward pass never set "
            "it. Run the forward pass again."
        )


def _has(node: Any, attribute: str) -> bool:
    """Return whether a node has an attribute, without running the code of a property."""
    return attribute in vars(node) or hasattr(type(node), attribute)


def read_backward(function: type[Function]) -> BackwardCode:
    """Read the code of a custom function's backward."""
    defined = function.backward is not Function.backward
    code = _code_of(function.backward if defined else function.vjp)
    if code is None:
        return BackwardCode("perhaps", only_raises=False)
    return BackwardCode(code.asks(is_first=True), not code.can_return(0), code.attributes())


def _code_of(function: object, depth: int = 0) -> _Code | None:
    """Return the code of a function; ``None`` if Python cannot read it."""
    is_bound = isinstance(function, classmethod) or inspect.ismethod(function)
    if is_bound or isinstance(function, staticmethod):
        function = function.__func__  # type: ignore[attr-defined]  # all three have it
    if depth > _MOST_HELPERS or not isinstance(function, FunctionType):
        return None
    if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
        return None  # the call alone runs none of it
    return _Code(function, depth, is_bound)


class _Code:
    """The instructions of a function, and the possible successors of each."""

    def __init__(self, function: FunctionType, depth: int, is_bound: bool) -> None:
        self._code = function.__code__
        self._depth = depth
        self._parameters = list(inspect.signature(function, follow_wrapped=False).parameters)
        if is_bound and len(self._parameters) > 1:
            del self._parameters[0]
        self._steps: list[dis.Instruction] = []
        self._place_of: dict[int, int] = {}  # keyed by offset; padding maps to the next instruction
        for step in dis.get_instructions(function):
            self._place_of[step.offset] = len(self._steps)
            if step.opname not in _PADDING:
                self._steps.append(step)
        self._known: dict[int, tuple[object, int]] = {}
        """For each place that loads a global or closure value: the value, the place after it."""
        outside = _values_outside(function)
        for place, step in enumerate(self._steps):
            if step.opname in ("LOAD_GLOBAL", "LOAD_DEREF") and step.argval in outside:
                value, end = outside[step.argval], place + 1
                while self._steps[end].opname in _ATTRIBUTE:
                    value, end = _attribute(value, self._steps[end].argval), end + 1
                self._known[place] = value, end

    def asks(self, is_first: bool) -> Asks:
        """Return whether it asks ``ctx``, its first or any argument, for the saved tensors."""
        contexts = set(self._parameters[:1] if is_first else self._parameters)
        found = [self._asks_at(place, contexts) for place in range(len(self._steps))]
        asking = [place for place, asks in enumerate(found) if asks == "always"]
        if not (self.can_return(0, avoiding=asking) or self._swallows_errors()):
            return "always"
        is_used_inside = contexts.intersection(self._code.co_cellvars)  # by an inner function
        return "perhaps" if is_used_inside or set(found) != {"never"} else "never"

    def attributes(self) -> frozenset[str]:
        """Return the attributes that it takes from its first argument in any case."""
        taken: dict[str, list[int]] = {}
        own: set[str] = set(_SAVED)
        for place, (step, following) in enumerate(pairwise(self._steps)):
            if self._parameters and _loaded(step)[-1:] == (self._parameters[0],):
                if following.opname in _ATTRIBUTE:
                    taken.setdefault(following.argval, []).append(place)
                elif following.opname == "STORE_ATTR":
                    own.add(following.argval)
        if self._swallows_errors():
            return frozenset()
        return frozenset(
            name
            for name, places in taken.items()
            if name not in own and not self.can_return(0, avoiding=places)
        )

    def _asks_at(self, place: int, contexts: set[str]) -> Asks:
        """Return whether this instruction asks for saved tensors, or may do so with ``ctx``."""
        step = self._steps[place]
        if step.opname in _ATTRIBUTE and step.argval in _SAVED:
            return "always"
        loaded = _loaded(step)
        if not contexts.intersection(loaded):
            return "never"
        is_attribute = self._steps[place + 1].opname in (*_ATTRIBUTE, "STORE_ATTR")
        if is_attribute and not contexts.intersection(loaded[:-1]):
            return "never"
        value, end = self._callee(place)
        helper = _code_of(value, self._depth + 1)
        if helper is None:
            return "perhaps"
        return helper.asks(is_first=end == place and loaded[0] in contexts)

    def _callee(self, place: int) -> tuple[object, int]:
        """Return the object called with the value loaded here, and the place after its own load.

        A call and its callee begin at the same position in the source.
        """
        start, _ = _span(self._steps[place])
        for step in self._steps[place:]:
            begin, end = _span(step)
            if step.opname.startswith("CALL") and begin <= start < end:
                callees = (at for at in self._known if _span(self._steps[at])[0] == begin)
                return self._known.get(next(callees, -1), (None, place))
        return None, place

    def can_return(self, start: int, avoiding: Container[int] = ()) -> bool:
        """Return whether some path from here returns, ``avoiding`` these places."""
        todo, seen = [start], set[int]()
        while todo:
            place = todo.pop()
            if place in seen or place in avoiding:
                continue
            seen.add(place)
            if self._steps[place].opname in ("RETURN_VALUE", "RETURN_CONST"):
                return True
            todo += self._next(place)
        return False

    def _swallows_errors(self) -> bool:
        """Return whether some exception handler may swallow torch's error and return."""
        suppresses = any(value is contextlib.suppress for value, _ in self._known.values())
        return any(
            step.opname == "PUSH_EXC_INFO"
            # A `with` has a handler too, which does not swallow the error.
            and (suppresses or self._steps[place + 1].opname != "WITH_EXCEPT_START")
            and self.can_return(place)
            for place, step in enumerate(self._steps)
        )

    def _next(self, place: int) -> list[int]:
        step = self._steps[place]
        if step.opname in ("RAISE_VARARGS", "RERAISE"):
            return []
        if step.opcode not in _JUMPS:
            return [place + 1]
        target = self._place_of[step.argval]
        if step.opname.startswith(("JUMP_FORWARD", "JUMP_BACKWARD")):
            return [target]
        if step.opname.endswith(("IF_NONE", "IF_FALSE", "IF_NOT_NONE", "IF_TRUE")):
            # Torch's generated code tests whether a function is None: the branch taken is known.
            before = place - (self._steps[place - 1].opname == "TO_BOOL")
            for value, end in self._known.values():
                if end == before and (value is None or isinstance(value, FunctionType)):
                    jumps = (value is None) == step.opname.endswith(("IF_NONE", "IF_FALSE"))
                    return [target if jumps else place + 1]
        return [target, place + 1]


def _values_outside(function: FunctionType) -> dict[str, object]:
    """Return the values of the names that a function takes from around it."""
    values = {**vars(builtins), **function.__globals__}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        values.pop(name, None)
        with contextlib.suppress(ValueError):  # it has no value yet
            values[name] = cell.cell_contents
    return values


def _attribute(value: object, name: str) -> object:
    """Return an attribute, looked up statically, since a property would run code."""
    if isinstance(value, ModuleType | type):
        return inspect.getattr_static(value, name, _UNKNOWN)
    own = getattr(value, "__dict__", {})
    found = own[name] if name in own else inspect.getattr_static(type(value), name, _UNKNOWN)
    is_method = isinstance(found, FunctionType) and name not in own
    return MethodType(found, value) if is_method else found


def _loaded(step: dis.Instruction) -> tuple[str, ...]:
    """Return the variables that an instruction loads; the last ends up on top of the stack."""
    if not step.opname.startswith(("LOAD_FAST", "STORE_FAST_LOAD_FAST", "LOAD_DEREF")):
        return ()
    names = step.argval if isinstance(step.argval, tuple) else (step.argval,)
    return names[1:] if step.opname.startswith("STORE") else names


def _span(step: dis.Instruction) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the lines and columns in the source where an instruction begins and ends."""
    line, end_line, column, end_column = (at or 0 for at in step.positions or (0, 0, 0, 0))
    return (line, column), (end_line, end_column)
