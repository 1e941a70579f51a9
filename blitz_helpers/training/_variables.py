"""Saves and restores the variables that the parts of a training count in."""

from __future__ import annotations

import reprlib
import sys
import warnings
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from blitz_helpers.training._encoding import NUMPY_KINDS
from blitz_helpers.training._reach import MISSING, Namespace, is_own, namespaces

_PLAIN = frozenset(
    {int, float, complex, bool, str, bytes, type(None), torch.Size, torch.dtype, torch.device}
)
_SEQUENCES = (list, tuple, set, frozenset, deque)
_DICTS = (dict, OrderedDict, Counter)
_MAPPINGS = (dict, WeakKeyDictionary, WeakIdKeyDictionary)
_FEW = 100  # things in a container
_Variable = tuple[str, str]  # the name of its holder, and its own


class Variables:
    """Variables of the user's own objects and functions that a training reaches.

    They are numbers, text and containers of these, and for the update rule also tensors and arrays.
    Only those that change in the training count as state, so that settings can be changed before
    it resumes.

    >>> from types import SimpleNamespace
    >>> step = SimpleNamespace(lr=0.1, steps=0)
    >>> variables = Variables([("step", step)], rule=[step])
    >>> step.steps += 1
    >>> variables.changed()
    {('step', 'steps'): (1, 0)}
    """

    def __init__(self, held: Iterable[tuple[str, Any]], rule: Iterable[Any]) -> None:
        self._held = [(name, thing) for name, thing in held if is_own(thing)]
        self._of_rule = {id(thing) for thing in rule}
        self._first = self.values()  # keeps tensors alive, since ids are reused
        self._marks = {variable: _mark(value) for variable, value in self._first.items()}

    def values(self) -> dict[_Variable, Any]:
        """Return the value of every variable."""
        found = {}
        for holder, thing, namespace in self._namespaces():
            of_rule = id(thing) in self._of_rule
            for name, value in namespace.values.items():
                is_taken = of_rule or _is_plain(value) or _holds_plain(value)
                if is_taken or _is_small(value):
                    with suppress(RecursionError):  # it holds itself
                        kept = _kept(value)
                        if is_taken or not _has_tensors(kept):
                            found[holder, name] = kept
        return {variable: value for variable, value in found.items() if value is not MISSING}

    def changed(self) -> dict[_Variable, tuple[Any, ...]]:
        """Return the variables that have changed: the value, and the first one if that was plain.

        Of a tensor the first value is not known any more.
        """
        changed = {}
        for variable, value in self.values().items():
            if self._marks.get(variable) != _mark(value):
                first = self._first.get(variable, MISSING)
                is_known = first is not MISSING and not _has_tensors(first)
                changed[variable] = (value, first) if is_known else (value,)
        return changed

    def lacking(self, changed: dict[_Variable, tuple[Any, ...]]) -> set[str]:
        """Return the names of those with tensors that have no place here."""
        holders = {holder for holder, _, _ in self._namespaces()}
        return {
            ".".join((holder, name))
            for (holder, name), (saved, *_) in changed.items()
            if holder not in holders and _has_tensors(saved)
        }

    def restore(self, changed: dict[_Variable, tuple[Any, ...]]) -> None:
        """Restore what ``changed`` returned in another training.

        A number that did not begin as it did there was set by the user: it stays, with a warning.
        """
        now, restored = self.values(), {}
        for variable, (saved, *first) in changed.items():
            began, here = first[0] if first else MISSING, now.get(variable, MISSING)
            if _has_tensors(saved) or _mark(here) in (_mark(began), _mark(saved)):
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
                is_mapping = type(value) is dict and isinstance(now, _MAPPINGS)
                is_same = isinstance(value, list | deque | set | dict) and isinstance(
                    now, type(value)
                )
                if is_mapping or is_same:
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
    is_numpys = numpy is not None and isinstance(value, numpy.generic)
    return type(value) in _PLAIN or (is_numpys and value.dtype.kind in NUMPY_KINDS)


def _holds_plain(value: Any) -> bool:
    """Return whether it is a container of numbers and text, quickly."""
    if isinstance(value, _MAPPINGS):
        return _PLAIN.issuperset(map(type, chain(value, value.values())))
    return type(value) in _SEQUENCES and _PLAIN.issuperset(map(type, value))


def _is_small(value: Any) -> bool:
    """Return whether it is a container of few things, and so no data."""
    return isinstance(value, (*_SEQUENCES, *_MAPPINGS)) and len(value) <= _FEW


def _kept(value: Any) -> Any:
    """Return a copy of all its containers, or ``MISSING`` if a checkpoint cannot store it."""
    kind = type(value)
    if _is_plain(value) or _is_tensor(value):
        return value
    if isinstance(value, _MAPPINGS):
        copied: Any = kind if kind in _DICTS else dict
        if _holds_plain(value):
            return copied(value)
        keys, values = _all_kept(value), _all_kept(value.values())
        if keys is None or values is None:
            return MISSING
        return copied(dict(zip(value, values, strict=True)))
    if kind not in _SEQUENCES:
        return MISSING
    parts = [*value] if _holds_plain(value) else _all_kept(value)
    if parts is None:
        return MISSING
    return deque(parts, value.maxlen) if kind is deque else kind(parts)


def _all_kept(parts: Iterable[Any]) -> list[Any] | None:
    found = []
    for part in parts:
        found.append(_kept(part))
        if found[-1] is MISSING:
            return None  # without a look at the rest, which may be large
    return found


def _is_tensor(value: Any) -> bool:
    """Return whether it is a parameter, an array, or a tensor that no graph holds."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and type(value) is numpy.ndarray:
        return value.dtype.kind in NUMPY_KINDS
    if type(value) is Tensor:
        return value.grad_fn is None and not value.is_inference()
    return type(value) is nn.Parameter


def _has_tensors(value: Any) -> bool:
    if isinstance(value, _MAPPINGS):
        return any(map(_has_tensors, chain(value, value.values())))
    if type(value) in _SEQUENCES:
        return not _PLAIN.issuperset(map(type, value)) and any(map(_has_tensors, value))
    return _is_tensor(value)


def _mark(value: Any) -> object:
    """Return something that is equal as long as the value does not change."""
    kind = type(value)
    if isinstance(value, Tensor):
        return id(value), kind is Tensor and value._version  # the weights change anyway
    if hasattr(value, "tobytes"):
        return kind, value.tobytes()
    if isinstance(value, _MAPPINGS) and _holds_plain(value):
        return kind, [*value.items()]  # quickly
    if isinstance(value, _MAPPINGS):
        return kind, [_mark(part) for item in value.items() for part in item]
    if kind in _SEQUENCES and _has_tensors(value):
        return kind, [_mark(part) for part in value]
    return kind, "nan" if value != value else value
