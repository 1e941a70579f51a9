"""Reads the bytecode of a custom ``Function``'s backward, and of the helpers that it calls.

Nothing is run. Unlike source, bytecode also exists for generated code and code typed at a prompt.
"""

from __future__ import annotations

import builtins
import contextlib
import dis
import inspect
import re
from collections.abc import Container, Iterator
from itertools import pairwise
from types import FunctionType, MethodType, ModuleType
from typing import Literal, TypeAlias

Asks: TypeAlias = Literal["always", "never", "perhaps"]
_Codes: TypeAlias = "dict[tuple[FunctionType, bool], Code]"
"""The code read so far, of functions as they are and bound to a first argument."""

_SAVED = ("saved_tensors", "saved_variables")  # the second is the old name
_ATTRIBUTE = ("LOAD_ATTR", "LOAD_METHOD")
_UNKNOWN = object()
_MOST_HELPERS = 50  # so many are followed from one backward
_PADDING = frozenset(("CACHE", "EXTENDED_ARG", "NOP", "PRECALL", "PUSH_NULL", "RESUME"))
_JUMPS = frozenset(dis.hasjrel) | frozenset(dis.hasjabs)


def code_of(function: object) -> Code | None:
    """Return the code of a function; ``None`` if Python cannot read it."""
    return _code_of(function, {})


def _code_of(function: object, known: _Codes) -> Code | None:
    is_bound = isinstance(function, classmethod) or inspect.ismethod(function)
    if is_bound or isinstance(function, staticmethod):
        function = function.__func__  # type: ignore[attr-defined]  # all three have it
    if len(known) > _MOST_HELPERS or not isinstance(function, FunctionType):
        return None
    if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
        return None  # the call alone runs none of it
    if (function, is_bound) not in known:
        known[function, is_bound] = Code(function, is_bound, known)
    return known[function, is_bound]


class Code:
    """The instructions of a function, and the possible successors of each."""

    def __init__(self, function: FunctionType, is_bound: bool, known: _Codes) -> None:
        self.function = function
        self.module = str(function.__globals__.get("__name__"))
        self._known_codes = known
        self._answers: dict[bool, Asks] = {}
        self.signature = inspect.signature(function, follow_wrapped=False)
        if is_bound and len(self.signature.parameters) > 1:
            _, *others = self.signature.parameters.values()
            self.signature = self.signature.replace(parameters=others)
        self._parameters = list(self.signature.parameters)
        self.required = [
            name
            for name, one in self.signature.parameters.items()
            if one.kind.name.startswith("POSITIONAL") and one.default is one.empty
        ]
        self.steps: list[dis.Instruction] = []
        self._place_of: dict[int, int] = {}  # keyed by offset; padding maps to the next instruction
        for step in dis.get_instructions(function):
            self._place_of[step.offset] = len(self.steps)
            if step.opname not in _PADDING:
                self.steps += _one_by_one(step)
        stored = {step.argval for step in self.steps if step.opname == "STORE_FAST"}
        shared = function.__code__.co_cellvars  # an inner function may store these
        self._gradients = set(self.required[1:]).difference(stored, shared)  # the first is ctx
        self.targets = {self._place_of[step.argval] for step in self.steps if step.opcode in _JUMPS}
        self.known: dict[int, tuple[object, int]] = {}
        """For each place that loads a global or closure value: the value, the place after it."""
        outside = _values_outside(function)
        for place, step in enumerate(self.steps):
            if step.opname in ("LOAD_GLOBAL", "LOAD_DEREF") and step.argval in outside:
                value, end = outside[step.argval], place + 1
                while self.steps[end].opname in _ATTRIBUTE:
                    value, end = _attribute(value, self.steps[end].argval), end + 1
                self.known[place] = value, end

    def helper(self, function: object) -> Code | None:
        """Return the code of a function that this one calls; ``None`` if Python cannot read it."""
        return _code_of(function, self._known_codes)

    def asks(self, is_first: bool) -> Asks:
        """Return whether it asks ``ctx``, its first or any argument, for the saved tensors."""
        if is_first not in self._answers:
            self._answers[is_first] = "perhaps"  # meanwhile: a helper may call itself
            self._answers[is_first] = self._asks(is_first)
        return self._answers[is_first]

    def _asks(self, is_first: bool) -> Asks:
        contexts = set(self._parameters[:1] if is_first else self._parameters)
        found = [self._asks_at(place, contexts) for place in range(len(self.steps))]
        asking = [place for place, asks in enumerate(found) if asks == "always"]
        if not (self.can_return(0, avoiding=asking) or self._swallows_errors()):
            return "always"
        is_in_inner_function = not contexts.isdisjoint(self.function.__code__.co_cellvars)
        return "perhaps" if is_in_inner_function or set(found) != {"never"} else "never"

    def attributes(self) -> frozenset[str]:
        """Return the attributes that it takes from its first argument in any case."""
        taken: dict[str, list[int]] = {}
        own: set[str] = set(_SAVED)
        for place, (step, following) in enumerate(pairwise(self.steps)):
            if self._parameters and _loaded(step) == self._parameters[0]:
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
        step = self.steps[place]
        if step.opname in _ATTRIBUTE and step.argval in _SAVED:
            return "always"
        if _loaded(step) not in contexts:
            return "never"
        if self.steps[place + 1].opname in (*_ATTRIBUTE, "STORE_ATTR"):
            return "never"
        value, end = self._callee(place)
        helper = self.helper(value)
        if helper is None:
            return "perhaps"
        return helper.asks(is_first=end == place)

    def _callee(self, place: int) -> tuple[object, int]:
        """Return the object called with the value loaded here, and the place after its own load."""
        start, _ = _span(self.steps[place])
        for step in self.steps[place:]:
            begin, end = _span(step)
            if step.opname.startswith("CALL") and begin <= start < end:
                # A call and its callee begin at the same position in the source.
                callees = (at for at in self.known if _span(self.steps[at])[0] == begin)
                return self.known.get(next(callees, -1), (None, place))
        return None, place

    def leaves_tensor(self, place: int) -> bool:
        """Return whether this instruction of a backward leaves a gradient that was passed in.

        The same goes for what operators compute with one, if it is the first or last operand.
        """
        if place + 1 in self.targets:
            return False
        if self.steps[place].opname != "BINARY_OP":
            return self._loads_gradient(place)
        begin, end = _span(self.steps[place])
        first = (at for at in range(place) if _span(self.steps[at])[0] == begin < end)
        return self._loads_gradient(next(first, place)) or self._loads_gradient(place - 1)

    def _loads_gradient(self, place: int) -> bool:
        is_whole = self.steps[place + 1].opname not in _ATTRIBUTE
        return is_whole and _loaded(self.steps[place]) in self._gradients

    def can_return(self, start: int, avoiding: Container[int] = ()) -> bool:
        """Return whether some path from here returns, ``avoiding`` these places."""
        return next(self.returns(start, avoiding), None) is not None

    def returns(self, start: int = 0, avoiding: Container[int] = ()) -> Iterator[int]:
        """Yield the places where a path from here returns, ``avoiding`` these places."""
        todo, seen = [start], set[int]()
        while todo:
            place = todo.pop()
            if place in seen or place in avoiding:
                continue
            seen.add(place)
            if self.steps[place].opname in ("RETURN_VALUE", "RETURN_CONST"):
                yield place
            else:
                todo += self._next(place)

    def _swallows_errors(self) -> bool:
        """Return whether some exception handler may swallow torch's error and return."""
        suppresses = any(value is contextlib.suppress for value, _ in self.known.values())
        return any(
            step.opname == "PUSH_EXC_INFO"
            # A `with` has a handler too, which does not swallow the error.
            and (suppresses or self.steps[place + 1].opname != "WITH_EXCEPT_START")
            and self.can_return(place)
            for place, step in enumerate(self.steps)
        )

    def _next(self, place: int) -> list[int]:
        step = self.steps[place]
        if step.opname in ("RAISE_VARARGS", "RERAISE"):
            return []
        if step.opcode not in _JUMPS:
            return [place + 1]
        target = self._place_of[step.argval]
        if step.opname.startswith(("JUMP_FORWARD", "JUMP_BACKWARD")):
            return [target]
        if step.opname.endswith(("IF_NONE", "IF_FALSE", "IF_NOT_NONE", "IF_TRUE")):
            # Torch's generated code tests whether a function is None: the branch taken is known.
            before = place - (self.steps[place - 1].opname == "TO_BOOL")
            for value, end in self.known.values():
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


_TWO_AT_ONCE = re.compile(r"(LOAD|STORE)_FAST")


def _one_by_one(step: dis.Instruction) -> list[dis.Instruction]:
    """Split an instruction that loads or stores two variables, and drop what tunes a load."""
    names = step.argval if isinstance(step.argval, tuple) else (step.argval,)
    kinds = _TWO_AT_ONCE.findall(step.opname)
    if not kinds:
        return [step]
    return [
        step._replace(opname=f"{kind}_FAST", argval=name)
        for kind, name in zip(kinds, names, strict=True)
    ]


def _loaded(step: dis.Instruction) -> object:
    """Return the name of the variable that an instruction loads."""
    return step.argval if step.opname in ("LOAD_FAST", "LOAD_DEREF") else None


def _span(step: dis.Instruction) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the lines and columns in the source where an instruction begins and ends."""
    line, end_line, column, end_column = (at or 0 for at in step.positions or (0, 0, 0, 0))
    return (line, column), (end_line, end_column)
