"""Finds the variables that the parts of a training count in, to save and restore them."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache, partial
from types import CellType, CodeType, FunctionType, SimpleNamespace
from typing import Any, NamedTuple

from torch import Tensor, nn

from blitz_helpers.training._reach import slots_of

_NUMBERS = (int, float, complex, bool, str, type(None))
_OTHER_PEOPLES = tuple(
    {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)
_Values = dict[str, dict[str, Any]]  # of each variable, by its holder


class _Holder(NamedTuple):
    """Something with variables: an object, a function's closure, or a module's globals."""

    read: Callable[[], dict[str, Any]]
    write: Callable[[str, Any], object]
    has_tensors: bool


class Variables:
    """Plain variables of the user's own objects and functions that a training reaches.

    They are numbers and text, and for the update rule tensors and arrays. Only those that change
    after this object was made count as state, so that settings can be changed before a training
    resumes.

    >>> class Counted:
    ...     lr, steps = 0.1, 0
    ...     def __call__(self, params):
    ...         self.steps += 1
    >>> step = Counted()
    >>> step.lr = 0.5
    >>> variables = Variables([("step", step)], rule=[step])
    >>> step(params=[])
    >>> variables.changed()
    {'step': {'steps': 1}}
    """

    def __init__(self, held: Iterable[tuple[str, Any]], rule: Iterable[Any]) -> None:
        of_rule = {id(thing) for thing in rule if not isinstance(thing, nn.Module)}
        self._holders: dict[str, _Holder] = {}
        seen: dict[int, Any] = {}  # keeps the objects alive, since ids of freed objects are reused
        for name, thing in held:
            if id(thing) in seen or not is_own(thing):
                continue
            seen[id(thing)] = thing
            for kind, read, write in _variables_of(thing):
                holder = name + kind
                while holder in self._holders:
                    holder += "'"
                self._holders[holder] = _Holder(read, write, id(thing) in of_rule)
        self._first = self.values()  # keeps tensors alive, since ids are reused
        self._before = {
            name: {variable: _mark(value) for variable, value in values.items()}
            for name, values in self._first.items()
        }
        self._restored: set[tuple[str, str]] = set()

    def values(self) -> _Values:
        """Return the value of every variable."""
        return {
            name: {
                variable: value
                for variable, value in holder.read().items()
                if _is_plain(value) or (holder.has_tensors and _is_tensor(value))
            }
            for name, holder in self._holders.items()
        }

    def changed(self) -> _Values:
        """Return the value of every variable that has changed, or that was restored."""
        found: _Values = {}
        for name, values in self.values().items():
            before = self._before[name]
            for variable, value in values.items():
                is_restored = (name, variable) in self._restored
                if is_restored or before.get(variable) != _mark(value):
                    found.setdefault(name, {})[variable] = value
        return found

    def restore(self, values: _Values) -> None:
        """Set the variables of all holders that exist here too."""
        for name in values.keys() & self._holders.keys():
            for variable, value in values[name].items():
                self._holders[name].write(variable, value)
                self._restored.add((name, variable))


def names_in(code: CodeType) -> Iterator[str]:
    """Yield the names that code and the functions inside it use without defining them."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):  # of a comprehension or an inner function
            yield from names_in(constant)


def _variables_of(
    thing: Any,
) -> Iterator[tuple[str, Callable[[], dict[str, Any]], Callable[[str, Any], object]]]:
    """Yield each kind of variables that an object has, with functions that read and write them."""
    yield "", partial(_attributes, thing), partial(_set_attribute, thing)
    if isinstance(thing, FunctionType):
        cells = dict(zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True))
        yield ".closure", partial(_contents, cells), partial(_fill, cells)
        used, globals_ = set(names_in(thing.__code__)), thing.__globals__
        yield (
            ".globals",
            lambda: {name: globals_[name] for name in used if name in globals_},
            globals_.__setitem__,
        )


def _attributes(thing: Any) -> dict[str, Any]:
    found = dict(getattr(thing, "__dict__", {}))
    if isinstance(thing, nn.Module):
        found.pop("training", None)  # which `fit` sets itself
    for name in slots_of(thing):
        found[name] = getattr(thing, name)
    return found


def _set_attribute(thing: Any, name: str, value: Any) -> None:
    with suppress(AttributeError):  # there is no such slot any more
        object.__setattr__(thing, name, value)


def _contents(cells: dict[str, CellType]) -> dict[str, Any]:
    found = {}
    for name, cell in cells.items():
        with suppress(ValueError):  # it has no value yet
            found[name] = cell.cell_contents
    return found


def _fill(cells: dict[str, CellType], name: str, value: Any) -> None:
    if name in cells:  # otherwise the function has changed since
        cells[name].cell_contents = value


def is_own(thing: Any) -> bool:
    """Return whether the user wrote its class or function: objects of a library may break."""
    if isinstance(thing, nn.Parameter | SimpleNamespace):
        return True  # users tie attributes of their own to them
    return _is_own_module((thing if isinstance(thing, FunctionType) else type(thing)).__module__)


@lru_cache(maxsize=1024)
def _is_own_module(name: str | None) -> bool:
    file = getattr(sys.modules.get(name or ""), "__file__", None)
    return name == "__main__" or (file is not None and not file.startswith(_OTHER_PEOPLES))


def _is_plain(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return type(value) in _NUMBERS or (numpy is not None and isinstance(value, numpy.number))


def _is_tensor(value: Any) -> bool:
    """Return whether it is an array of numpy, or a tensor that no graph and no model holds."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and type(value) is numpy.ndarray:
        return value.dtype.kind in "biufc"  # no objects
    return type(value) is Tensor and value.grad_fn is None and not value.is_inference()


def _mark(value: Any) -> object:
    """Return something that is equal as long as the value does not change."""
    if isinstance(value, Tensor):
        return id(value), value._version
    return type(value), value.tobytes() if hasattr(value, "tobytes") else value
