"""Tensors inside lists, tuples, dictionaries and dataclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

_SEQUENCES = (list, tuple)
_PLAIN = frozenset({type(None), bool, int, float, str, torch.Size, torch.dtype, torch.device})


def mapped(function: Callable[[Tensor], Any], value: Any) -> Any:
    """Return the value with ``function`` applied to each tensor in it."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple):
        items = [mapped(function, item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, list):
        return [mapped(function, item) for item in value]
    if isinstance(value, dict):
        return type(value)({key: mapped(function, item) for key, item in value.items()})
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value) if field.init]
        changes = {name: mapped(function, getattr(value, name)) for name in names}
        return dataclasses.replace(value, **changes)
    return value


def tensors_in(values: Iterable[Any]) -> list[Tensor]:
    """Return the tensors among the values, and in the lists, tuples and dicts among them."""
    found = []
    for value in values:
        if type(value) in _PLAIN:
            continue
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, dict):
            found += tensors_in(value.values())
        elif isinstance(value, _SEQUENCES):
            found += tensors_in(value)
    return found


def shape_of(value: Any) -> Any:
    """Return the shapes of the tensors in ``value``, nested as they are; ``None`` for the rest."""
    if isinstance(value, Tensor):
        return tuple(value.shape)
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
