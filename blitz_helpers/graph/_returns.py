"""Reads from the code of a backward what it may return: how many gradients, and of what kind."""

from __future__ import annotations

from inspect import Parameter
from typing import Literal, NamedTuple, TypeAlias

from blitz_helpers.graph._code import ATTRIBUTE, JUMPS, Code


class Value(NamedTuple):
    """What is known of a value."""

    what: Literal["tensor", "gradient", "scalar", "None", "object", "tuple", "anything"]
    number: int = 0
    """For a gradient that backward takes, and whose shape it keeps: which one, from 0."""
    type_name: str = ""
    """For an object that stands for no gradient: its type."""
    items: tuple[frozenset[Value], ...] = ()
    """For a tuple: the possible values of each item."""


Values: TypeAlias = frozenset[Value]

ANYTHING: Values = frozenset((Value("anything"),))
_TENSOR = frozenset((Value("tensor"),))
_TYPES = {
    **{"BUILD_LIST": "list", "LIST_EXTEND": "list", "BUILD_MAP": "dict", "BUILD_SET": "set"},
    **{"BUILD_STRING": "str", "FORMAT_VALUE": "str", "FORMAT_SIMPLE": "str"},
    **{"IS_OP": "bool", "CONTAINS_OP": "bool", "UNARY_NOT": "bool", "MAKE_FUNCTION": "function"},
}
"""The types of the objects that some instructions make."""
_DEEPEST = 50  # the deepest nesting of expressions, variables and helpers that is followed
_KEEP_THE_SHAPE = ("clone", "contiguous", "detach", "neg")
_MAKE_A_SCALAR = ("amax", "amin", "max", "mean", "min", "norm", "prod", "std", "sum", "var")
_NUMBERS = {Value("object", type_name="float"), Value("object", type_name="int")}


def values_returned(code: Code) -> Values:
    """Return the possible values of a call."""
    return _values_returned(code, {}, 0)


def _values_returned(code: Code, known: dict[Code, Values], nesting: int) -> Values:
    if code not in known:
        known[code] = ANYTHING  # meanwhile: a helper may call itself
        reader = _Reader(code, known, nesting)
        known[code] = frozenset[Value]().union(*map(reader.returned_at, code.returns()))
    return known[code]


def _constant(value: object) -> Value:
    if value is None:
        return Value("None")
    if isinstance(value, tuple):
        return Value("tuple", items=tuple(frozenset((_constant(item),)) for item in value))
    return Value("object", type_name=type(value).__name__)


class _Reader:
    """Works out what the instructions of a function leave on the stack."""

    def __init__(self, code: Code, known: dict[Code, Values], nesting: int) -> None:
        self._code = code
        self._known = known
        self._nesting = nesting
        self._steps = code.steps
        self._variables: dict[str, Values] = {}
        parameters = code.signature.parameters
        names = [name for name, one in parameters.items() if _is_always_given(one)]
        if code.depth:  # a helper, which may be given anything
            names = []
        self._gradients = {name: place for place, name in enumerate(names[1:])}

    def returned_at(self, place: int) -> Values:
        """Return the possible values that a return instruction returns."""
        if self._steps[place].opname == "RETURN_CONST":
            return frozenset((_constant(self._steps[place].argval),))
        place -= 1
        # At the end of a `with`, the value waits below the call that leaves it.
        while self._steps[place].opname == "POP_TOP":
            while self._steps[place].opname in ("POP_TOP", "CALL", "LOAD_CONST"):
                place -= 1
            if self._steps[place].opname != "SWAP":
                return ANYTHING
            place -= 1
        return self._values(place)

    def _values(self, place: int) -> Values:
        """Return the possible values that this instruction leaves on top of the stack."""
        if place < 0 or place + 1 in self._code.targets or self._nesting == _DEEPEST:
            return ANYTHING
        self._nesting += 1
        try:
            return self._values_by_operation(place)
        finally:
            self._nesting -= 1

    def _values_by_operation(self, place: int) -> Values:
        step = self._steps[place]
        match step.opname:
            case "LOAD_CONST" | "LOAD_SMALL_INT":
                return frozenset((_constant(step.argval),))
            case "LOAD_FAST":
                return self._variable(step.argval)
            case "COPY" if step.arg == 1:
                return self._values(self._behind_stores(place))
            case "BUILD_TUPLE":
                return frozenset((Value("tuple", items=self._items(place, step.argval)),))
            case "UNARY_NEGATIVE":
                values = self._values(place - 1)
                return values if _are_tensors(values) else ANYTHING
            case "BINARY_OP":
                return self._product(place)
            case "CALL" if step.arg == 0 and self._steps[place - 1].opname in ATTRIBUTE:
                return self._method(self._steps[place - 1].argval, self._values(place - 2))
            case "CALL" | "CALL_FUNCTION_EX" | "CALL_KW":
                helper = self._code.helper(self._code.called_at(place)[0])
                if helper is None:
                    return ANYTHING
                return _values_returned(helper, self._known, self._nesting)
        if step.opname in _TYPES:
            return frozenset((Value("object", type_name=_TYPES[step.opname]),))
        return ANYTHING

    def _variable(self, name: str) -> Values:
        """Return the possible values of a variable, wherever it was set."""
        if name not in self._variables:
            self._variables[name] = ANYTHING  # meanwhile: it may build on itself
            found: Values = frozenset()
            if name in self._gradients:
                found = frozenset((Value("gradient", self._gradients[name]),))
            elif name in self._code.signature.parameters:
                found = ANYTHING
            for place, step in enumerate(self._steps):
                if step.opname == "STORE_FAST" and step.argval == name:
                    found |= self._values(self._behind_stores(place))
            self._variables[name] = found
        return self._variables[name]

    def _behind_stores(self, place: int) -> int:
        """Return the place before this one, and before other variables that get the same value."""
        place -= 1
        while self._steps[place].opname == "STORE_FAST":
            place -= 1
        return place

    def _items(self, place: int, count: int) -> tuple[Values, ...]:
        items: list[Values] = []
        end: int | None = place - 1
        for _ in range(count):
            items.append(ANYTHING if end is None else self._values(end))
            end = None if end is None else self._before(end)
        return tuple(reversed(items))

    def _before(self, place: int | None) -> int | None:
        """Return the place before the expression that ends here; ``None`` if it has branches."""
        wanted = 1
        while place is not None and place >= 0:
            if self._steps[place].opcode in JUMPS or place + 1 in self._code.targets:
                return None
            wanted -= self._code.effects[place]
            place -= 1
            if wanted == 0:
                return place
        return None

    def _method(self, name: str, values: Values) -> Values:
        """Return the possible values of a method without arguments."""
        if not _are_tensors(values):
            return ANYTHING
        if name in _MAKE_A_SCALAR:
            return frozenset((Value("scalar"),))
        return values if name in _KEEP_THE_SHAPE else ANYTHING

    def _product(self, place: int) -> Values:
        """Return the possible values of an operation on two operands."""
        right = place - 1
        left = self._before(right)
        if left is None:
            return ANYTHING
        sides = self._values(left), self._values(right)
        for one, other in (sides, sides[::-1]):
            if _are_tensors(one):
                is_scaled = other <= _NUMBERS and self._steps[place].argrepr in ("*", "/")
                return one if is_scaled else _TENSOR
        return ANYTHING


def _is_always_given(parameter: Parameter) -> bool:
    return "POSITIONAL_" in parameter.kind.name and parameter.default is Parameter.empty


def _are_tensors(values: Values) -> bool:
    return {value.what for value in values} <= {"gradient", "scalar", "tensor"}
