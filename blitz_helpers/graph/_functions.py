"""Reads from the code of a custom ``Function`` whether its backward asks for saved tensors.

Nothing is run. It reads the bytecode of ``backward`` and of the helpers that ``ctx`` is passed to.
Unlike source, bytecode also exists for generated code and code typed at a prompt.
"""

from __future__ import annotations

import builtins
import dis
import inspect
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any, Literal, NamedTuple, TypeAlias

from torch.autograd import Function

_SAVED = frozenset(("saved_tensors", "saved_variables"))  # the second is the old name
_UNKNOWN = object()
_MOST_HELPERS = 20  # the deepest nesting of helpers that is followed
_PADDING = frozenset(("CACHE", "EXTENDED_ARG", "NOP", "PRECALL", "PUSH_NULL", "RESUME"))
_JUMPS = frozenset(dis.hasjrel) | frozenset(dis.hasjabs)


Asks: TypeAlias = Literal["always", "never", "perhaps"]


class BackwardCode(NamedTuple):
    """Facts read from the code of a custom function's backward."""

    asks: Asks
    """Whether it asks ``ctx`` for the saved tensors."""
    only_raises: bool
    """Whether every path through it ends in an error."""


def read_backward(function: type[Function]) -> BackwardCode:
    """Read the code of a custom function's backward.

    >>> class Square(Function):
    ...     @staticmethod
    ...     def backward(ctx, gradient):
    ...         (x,) = ctx.saved_tensors
    ...         return 2 * x * gradient
    >>> read_backward(Square)
    BackwardCode(asks='always', only_raises=False)
    """
    defined = function.backward is not Function.backward
    code = _code_of(function.backward if defined else function.vjp)
    if code is None:
        return BackwardCode("perhaps", only_raises=False)
    if code.always_asks():
        return BackwardCode("always", code.only_raises())
    return BackwardCode("never" if code.never_asks() else "perhaps", code.only_raises())


def _code_of(function: object, depth: int = 0) -> _Code | None:
    """Return the code of a function without its decorators; ``None`` if Python cannot read it."""
    if isinstance(function, staticmethod | classmethod) or inspect.ismethod(function):
        function = function.__func__
    if callable(function):
        function = inspect.unwrap(function)
    if depth > _MOST_HELPERS or not isinstance(function, FunctionType):
        return None
    return _Code(function, depth)


class _Code:
    """The instructions of a function, and the possible successors of each."""

    def __init__(self, function: FunctionType, depth: int) -> None:
        self._function = function
        self._depth = depth
        self._steps: list[dis.Instruction] = []
        self._place_of: dict[int, int] = {}  # keyed by offset; padding maps to the next instruction
        for step in dis.get_instructions(function):
            self._place_of[step.offset] = len(self._steps)
            if step.opname not in _PADDING:
                self._steps.append(step)

    def only_raises(self) -> bool:
        return not self._can_return(0)

    def always_asks(self) -> bool:
        for place, step in enumerate(self._steps):
            # An exception handler that can return may swallow torch's error; a `with` does not.
            if (
                step.opname == "PUSH_EXC_INFO"
                and self._steps[place + 1].opname != "WITH_EXCEPT_START"
                and self._can_return(place)
            ):
                return False
        return not self._can_return(0, but_for=self._asks_at)

    def never_asks(self, any_parameter: bool = False) -> bool:
        code = self._function.__code__
        if _SAVED & _words(code):
            return False
        contexts = set(code.co_varnames[: code.co_argcount if any_parameter else 1])
        if contexts & set(code.co_cellvars):  # an inner function uses it
            return False
        return not any(self._passes_on(place, contexts) for place in range(len(self._steps)))

    def _passes_on(self, place: int, contexts: set[str]) -> bool:
        """Return whether ``ctx`` escapes here, beyond access to an attribute.

        Passing it to a helper that never asks for saved tensors does not count.
        """
        loaded = _loaded(self._steps[place])
        if not contexts & set(loaded):
            return False
        attribute = self._steps[place + 1].opname.startswith(
            ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR")
        )
        if attribute and loaded[-1] in contexts and not contexts & set(loaded[:-1]):
            return False
        for earlier in range(place - 1, -1, -1):
            if self._steps[earlier].opname.startswith("CALL"):
                return True
            value, end = self._resolved(earlier)
            if value is not _UNKNOWN and end <= place:
                helper = _code_of(value, self._depth + 1)
                is_first = end == place and loaded[0] in contexts
                return helper is None or not helper.never_asks(any_parameter=not is_first)
        return True

    def _asks_at(self, place: int) -> bool:
        """Return whether this instruction asks for saved tensors, or calls a helper that does."""
        step = self._steps[place]
        if step.argval in _SAVED and step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            return True
        value, end = self._resolved(place)
        if value is _UNKNOWN:
            return False
        for later in self._steps[end:]:
            if later.opname.startswith("CALL"):
                return False
            if set(_loaded(later)) & set(self._function.__code__.co_varnames):
                helper = _code_of(value, self._depth + 1)
                return helper is not None and helper.always_asks()
        return False

    def _resolved(self, place: int) -> tuple[Any, int]:
        """Return the global or closure value loaded from here on, and the place after it."""
        step = self._steps[place]
        value = _UNKNOWN
        if step.opname.startswith("LOAD_GLOBAL"):
            name = step.argval
            value = self._function.__globals__.get(name, getattr(builtins, name, _UNKNOWN))
        elif step.opname.startswith("LOAD_DEREF"):
            value = _enclosed(self._function, step.argval)
        place += 1
        while value is not _UNKNOWN and self._steps[place].opname.startswith(
            ("LOAD_ATTR", "LOAD_METHOD")
        ):
            # Looked up statically, since a property would run code.
            value = inspect.getattr_static(value, self._steps[place].argval, _UNKNOWN)
            place += 1
        return value, place

    def _can_return(self, start: int, but_for: Callable[[int], bool] = lambda _: False) -> bool:
        """Return whether some path from here returns without passing such a place."""
        todo, seen = [start], set[int]()
        while todo:
            place = todo.pop()
            if place in seen or but_for(place):
                continue
            seen.add(place)
            if self._steps[place].opname in ("RETURN_VALUE", "RETURN_CONST"):
                return True
            todo += self._next(place)
        return False

    def _next(self, place: int) -> list[int]:
        step = self._steps[place]
        if step.opname in ("RAISE_VARARGS", "RERAISE"):
            return []
        if step.opcode not in _JUMPS:
            return [place + 1]
        target = self._place_of[step.argval]
        if step.opname.startswith(("JUMP_FORWARD", "JUMP_BACKWARD")):
            return [target]
        taken = self._is_taken(place)
        return [way for way, cannot in ((target, False), (place + 1, True)) if taken is not cannot]

    def _is_taken(self, place: int) -> bool | None:
        """Return whether a jump that tests for a function is taken; ``None`` if unknown."""
        before = place - (self._steps[place - 1].opname == "TO_BOOL")
        for start in range(before - 1, -1, -1):
            value, end = self._resolved(start)
            if value is not _UNKNOWN or not self._steps[start].opname.startswith("LOAD_ATTR"):
                break
        if end != before or not (value is None or isinstance(value, FunctionType)):
            return None
        _, _, condition = self._steps[place].opname.partition("_IF_")
        return {
            "FALSE": value is None, "NONE": value is None,
            "TRUE": value is not None, "NOT_NONE": value is not None,
        }.get(condition)  # fmt: skip


def _enclosed(function: FunctionType, name: str) -> Any:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    try:
        return dict(cells)[name].cell_contents
    except (KeyError, ValueError):  # a local variable, or one without a value yet
        return _UNKNOWN


def _loaded(step: dis.Instruction) -> tuple[str, ...]:
    """Return the variables that an instruction loads; the last ends up on top of the stack."""
    if not step.opname.startswith(("LOAD_FAST", "STORE_FAST_LOAD_FAST", "LOAD_DEREF")):
        return ()
    names = step.argval if isinstance(step.argval, tuple) else (step.argval,)
    return names[1:] if step.opname.startswith("STORE") else names


def _words(code: CodeType) -> set[str]:
    """Return the names and strings in some code, including its inner functions."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    texts = (constant for constant in code.co_consts if isinstance(constant, str))
    return set(code.co_names).union(texts, *map(_words, inner))
