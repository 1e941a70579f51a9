"""Converts values to types that ``torch.load`` reads without running code, and back."""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict, deque
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

NUMPY_KINDS = "biufcmMSU"  # no objects, whose bytes are addresses
_SIMPLE = (
    *(int, float, complex, bool, str, type(None)),
    *(Tensor, nn.Parameter, torch.Size, torch.dtype, torch.device),
)
_CONTAINERS: dict[str, Any] = {
    kind.__name__: kind for kind in (list, tuple, set, frozenset, deque, dict, OrderedDict, Counter)
}


def encode(value: Any, where: str, names: dict[int, str]) -> Any:
    """Convert ``value`` to tensors, numbers, text, lists and dicts; ``names`` are of parameters.

    A parameter becomes ``{"parameter": its name}``, a tuple ``{"tuple": [its parts]}``, and so on
    for every container and for numpy's arrays: the only key says what it was.

    Raises:
        TypeError: a part of it would not come back the same.

    >>> w = nn.Parameter(torch.zeros(1))
    >>> decode(encode({w: (1, 2.5)}, "state", {id(w): "bias"}), {"bias": w}) == {w: (1, 2.5)}
    True
    """
    if isinstance(value, Tensor) and id(value) in names:
        return {"parameter": names[id(value)]}
    if type(value) in _SIMPLE:
        return value
    if type(value) is bytes:
        return {"bytes": _text(value)}
    numpy = sys.modules.get("numpy")
    if numpy and (type(value) is numpy.ndarray or isinstance(value, numpy.generic)):
        kind = "array" if type(value) is numpy.ndarray else "scalar"
        if value.dtype.kind in NUMPY_KINDS:
            return {kind: [value.dtype.str, list(value.shape), _text(value.tobytes())]}
    kind = type(value).__name__
    if type(value) is not _CONTAINERS.get(kind):
        raise TypeError(
            f"{where} holds a {type(value).__module__}.{type(value).__qualname__}, which a "
            "checkpoint cannot store. Keep tensors, numbers, text, and lists, tuples, sets and "
            "dicts."
        )
    if isinstance(value, dict):
        return {kind: [_encode_item(*item, where, names) for item in value.items()]}
    parts = [encode(part, where, names) for part in value]
    return {kind: [value.maxlen, *parts] if type(value) is deque else parts}


def _text(data: bytes) -> str:
    return data.decode("latin-1")  # torch.load cannot read empty bytes


def _encode_item(key: Any, value: Any, where: str, names: dict[int, str]) -> list[Any]:
    if isinstance(key, Tensor) and id(key) not in names:
        raise TypeError(
            f"{where} has a tensor as a key that is not a parameter of the model, so it could not "
            "be found again. Use the parameter itself, or a name, as the key."
        )
    is_id = type(key) is int and key in names
    inside = f"{where}[{key!r}]" if type(key) in (str, int) else f"{where}[...]"
    found = {"id": names[key]} if is_id else encode(key, where, names)
    return [found, encode(value, inside, names)]


def decode(encoded: Any, parameters: dict[str, nn.Parameter]) -> Any:
    """Convert the result of ``encode`` back to the original value."""
    if isinstance(encoded, list):
        return [decode(part, parameters) for part in encoded]
    if not isinstance(encoded, dict):
        return encoded
    ((kind, value),) = encoded.items()
    if kind == "parameter":
        return parameters[value]
    if kind == "id":  # of a parameter, which is another one in another process
        return id(parameters[value])
    if kind == "bytes":
        return value.encode("latin-1")
    if kind in ("array", "scalar"):
        dtype, shape, text = value
        array = import_module("numpy").ndarray(shape, dtype, text.encode("latin-1"))
        return array.copy() if kind == "array" else array[()]
    parts = decode(value, parameters)
    if kind == "deque":
        return deque(parts[1:], parts[0])
    container = _CONTAINERS[kind]
    return container(dict(parts) if issubclass(container, dict) else parts)
