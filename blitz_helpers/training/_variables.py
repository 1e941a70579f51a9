"""Saves and restores the variables that the parts of a training count in."""

from __future__ import annotations

import reprlib
import sys
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from copy import copy
from itertools import chain
from typing import Any

from torch import Tensor, nn

from blitz_helpers.training._reach import MISSING, Namespace, is_own, namespaces

_NUMBERS = (int, float, complex, bool, str, type(None))
_Variable = tuple[str, str]  # the name of its holder, and its own


class Variables:
    """Plain variables of the user's own objects and functions that a training reaches.

    They are numbers and text, and for the update rule also tensors, arrays and containers of
    numbers and text. Only those that change in the training count as state, so that settings can
    be changed before it resumes.

    >>> from types import SimpleNamespace
    >>> step = SimpleNamespace(lr=0.1, steps=0)
    >>> variables = Variables([("step", step)], rule=[step])
    >>> step.steps += 1
    >>> variables.changed()
    {('step', 'steps'): (1, 0)}
    """

    def __init__(self, held: Iterable[tuple[str, Any]], rule: Iterable[Any]) -> None:
        self._held = [(name, thing) for name, thing in held if is_own(thing)]
        self._of_rule = {id(thing) for thing in rule if not isinstance(thing, nn.Module)}
        self._first = self.values()  # keeps tensors alive, since ids are reused
        self._marks = {variable: _mark(value) for variable, value in self._first.items()}

    def values(self) -> dict[_Variable, Any]:
        """Return the value of every variable."""
        found = {}
        for holder, thing, namespace in self._namespaces():
            of_rule = id(thing) in self._of_rule
            for name, value in namespace.values.items():
                if _is_plain(value) or (of_rule and _is_tensor(value)):
                    found[holder, name] = value
                elif of_rule and _holds_plain(value):
                    found[holder, name] = copy(value)
        return found

    def changed(self) -> dict[_Variable, tuple[Any, ...]]:
        """Return the variables that have changed: the value, and the first one if it was plain."""
        changed = {}
        for variable, value in self.values().items():
            if self._marks.get(variable) != _mark(value):
                first = self._first.get(variable, MISSING)
                is_known = _is_plain(first) or _holds_plain(first)
                changed[variable] = (value, first) if is_known else (value,)
        return changed

    def restore(self, changed: dict[_Variable, tuple[Any, ...]]) -> None:
        """Restore what ``changed`` returned in another training.

        A number that did not begin as it did there was set by the user: it stays, with a warning.
        """
        now, restored = self.values(), {}
        for variable, (saved, *first) in changed.items():
            began, here = first[0] if first else MISSING, now.get(variable, MISSING)
            if _is_tensor(saved) or _mark(here) in (_mark(began), _mark(saved)):
                restored[variable] = saved
                self._first[variable], self._marks[variable] = began, _mark(began)
            elif here is not MISSING:
                name, was = ".".join(variable), reprlib.repr(began) if first else "unset"
                warnings.warn(
                    f"{name} is {reprlib.repr(here)}, but was {was} when the saved training "
                    f"began, and {reprlib.repr(saved)} at its end. It is taken for a setting of "
                    f"yours and stays. If the training counts in {name}, make it as it was then.",
                    stacklevel=4,
                )
        self._put(restored)

    def reset(self, values: dict[_Variable, Any]) -> None:
        """Set the variables to what ``values`` returned, and delete the others."""
        self._put(dict.fromkeys(self.values(), MISSING) | values)

    def _put(self, values: dict[_Variable, Any]) -> None:
        found = {holder: namespace for holder, _, namespace in self._namespaces()}
        for (holder, name), value in values.items():
            with suppress(AttributeError, KeyError):  # the object or function has changed since
                now = found[holder].values.get(name)
                if type(now) is type(value) and isinstance(now, list | deque | set | dict):
                    refill(now, value)  # others may hold it too
                else:
                    found[holder].put(name, value)

    def _namespaces(self) -> Iterator[tuple[str, Any, Namespace]]:
        for name, thing in self._held:
            for namespace in namespaces(thing):
                yield f"{name}{namespace.kind}", thing, namespace


def refill(container: Any, items: Any) -> None:
    """Give a list, a deque, a set or a mapping other items."""
    container.clear()
    (container.extend if isinstance(container, list | deque) else container.update)(items)


def _is_plain(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return type(value) in _NUMBERS or (numpy is not None and isinstance(value, numpy.number))


def _holds_plain(value: Any) -> bool:
    if type(value) in (list, tuple, set, frozenset, deque):
        return all(map(_is_plain, value))
    return type(value) is dict and all(map(_is_plain, chain(value, value.values())))


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
    if hasattr(value, "tobytes"):
        return type(value), value.tobytes()
    if _holds_plain(value):
        marks = map(_mark, value.items() if isinstance(value, dict) else value)
        return type(value), (set if isinstance(value, set | frozenset) else list)(marks)
    return type(value), "nan" if value != value else value
