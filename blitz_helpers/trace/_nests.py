"""Tensors inside lists, tuples, dictionaries and dataclasses, and their shapes as text."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable
from operator import is_
from typing import Any

import torch
from torch import Tensor

_SEQUENCES = (list, tuple)
_PLAIN = frozenset({type(None), bool, int, float, str, torch.Size, torch.dtype, torch.device})


def mapped(function: Callable[[Tensor], Any], value: Any) -> Any:
    """Return the value with ``function`` applied to each tensor in it.

    Lists, tuples, dictionaries and dataclasses that hold tensors are copied, with their type.
    """
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple):
        items = [mapped(function, item) for item in value]
        if all(map(is_, items, value)):
            return value
        # The types of torch's own results take a list; a user's type may take anything.
        return (
            type(value)(items) if hasattr(value, "n_fields") else tuple.__new__(type(value), items)
        )
    if type(value) is list:
        return [mapped(function, item) for item in value]
    if type(value) is dict:
        return {key: mapped(function, item) for key, item in value.items()}
    again: Any
    if isinstance(value, list | dict):
        again = copy.copy(value)
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            again[key] = mapped(function, item)
        return again
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        again = copy.copy(value)
        for field in dataclasses.fields(value):
            if hasattr(value, field.name):
                item = mapped(function, getattr(value, field.name))
                object.__setattr__(again, field.name, item)  # it may be frozen
        return again
    return value


def tensors_in(values: Iterable[Any]) -> list[Tensor]:
    """Return the tensors among the values, and in the lists, tuples and dicts among them."""
    found = []
    for value in values:
        kind = type(value)
        if kind in _PLAIN or (kind is tuple and _PLAIN.issuperset(map(type, value))):
            continue
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, dict):
            found += tensors_in(value.values())
        elif isinstance(value, _SEQUENCES):
            found += tensors_in(value)
    return found


def shape_of(value: Any) -> Any:
    """Return the shapes of the tensors in ``value``, nested as they are; ``None`` for the rest.

    A nested tensor has the shapes of its parts.
    """
    if isinstance(value, Tensor):
        return tuple(map(shape_of, value.unbind())) if value.is_nested else tuple(value.shape)
    if isinstance(value, dict):
        return {key: shape_of(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape_of(item) for item in value]
    if isinstance(value, tuple):
        return tuple(shape_of(item) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: shape_of(getattr(value, name)) for name in names}
    return None


def shape_text(shape: Any) -> str:
    """Return a shape, or a nest of them, as short text."""
    if shape is None:
        return "-"
    if isinstance(shape, dict):
        return "{" + ", ".join(f"{key}: {shape_text(one)}" for key, one in shape.items()) + "}"
    if isinstance(shape, list):
        return "[" + ", ".join(map(shape_text, shape)) + "]"
    if all(isinstance(size, int) for size in shape):
        return str(tuple(shape))
    return "(" + ", ".join(map(shape_text, shape)) + ")"
