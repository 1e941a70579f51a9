"""Finds, writes and restores the memory that an update rule keeps between steps."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, MutableMapping
from functools import partial
from importlib import import_module
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from blitz_helpers.training._reach import reachable

_SIMPLE = (int, float, complex, bool, str, bytes, type(None), torch.dtype, torch.device)
# Numpy dtypes whose values fit exactly into Python numbers.
_NUMBERS = {"b1", *(f"{kind}{size}" for kind in "iuf" for size in (1, 2, 4, 8)), "c8", "c16"}
_Memory = MutableMapping[Any, Any] | torch.optim.Optimizer


class Memory:
    """The memory of an update rule: dicts that it is bound to or can reach, and torch optimizers.

    A dict that it reaches through a closure, an attribute or a global name counts only if it
    stores something for a parameter of the model.
    """

    def __init__(self, step: Callable[..., object], model: nn.Module) -> None:
        self._model = model
        self._found: dict[str, _Memory] = {
            name: thing
            for name, thing in (*reachable(step), *_globals(step))
            if isinstance(thing, MutableMapping | torch.optim.Optimizer)
        }
        bound = [*step.keywords.values(), *step.args] if isinstance(step, partial) else []
        self._bound = {
            name for name, thing in self._found.items() if any(thing is value for value in bound)
        }

    def names(self) -> set[str]:
        """Return the names under which a checkpoint may hold memory."""
        return set(self._found)

    def needed(self) -> set[str]:
        """Return the names under which a checkpoint must hold memory."""
        optimizers = {
            name for name, thing in self._found.items() if isinstance(thing, torch.optim.Optimizer)
        }
        return self._bound | optimizers

    def get(self) -> dict[str, Any]:
        """Return the memory in a form that torch.load reads, with names in place of parameters.

        Raises:
            TypeError: some of it could not be read back.
        """
        names: dict[Tensor, str] = {w: name for name, w in self._model.named_parameters()}
        written: dict[str, Any] = {}
        for name, thing in self._found.items():
            if any(name.startswith((f"{outer}[", f"{outer}.")) for outer in written):
                continue  # part of something already written
            if isinstance(thing, torch.optim.Optimizer):
                written[name] = write(thing.state_dict(), name, names)
            elif name in self._bound or any(isinstance(k, Tensor) and k in names for k in thing):
                written[name] = write(dict(thing), name, names)
        return written

    def copy(self) -> list[tuple[_Memory, Any]]:
        """Return the memory as it is, for ``put_back``; the tensors in it are not copied."""
        return [
            (thing, thing.state_dict() if isinstance(thing, torch.optim.Optimizer) else dict(thing))
            for thing in self._found.values()
        ]

    def put_back(self, copy: list[tuple[_Memory, Any]]) -> None:
        for thing, kept in copy:
            _fill(thing, kept)

    def set(self, written: dict[str, Any]) -> None:
        parameters = dict(self._model.named_parameters())
        for name, kept in written.items():
            _fill(self._found[name], read(kept, parameters))


def _fill(thing: _Memory, value: Any) -> None:
    if isinstance(thing, torch.optim.Optimizer):
        thing.load_state_dict(value)
    else:
        thing.clear()
        thing.update(value)


def write(value: Any, where: str, names: dict[Tensor, str]) -> Any:
    """Convert ``value`` to types that torch.load reads: tensors, numbers, text, lists and dicts.

    A parameter becomes ``{"parameter": its name}``, a tuple ``{"tuple": [its parts]}``, and so on
    for every container and for numpy's numbers: the only key says what it was.

    Raises:
        TypeError: a part of it would not come back the same.

    >>> w = nn.Parameter(torch.zeros(1))
    >>> read(write({w: (1, 2.5)}, "state", {w: "bias"}), {"bias": w}) == {w: (1, 2.5)}
    True
    """
    if isinstance(value, Tensor) and value in names:
        return {"parameter": names[value]}
    if type(value) in (dict, OrderedDict):
        for key in value:
            if isinstance(key, Tensor) and key not in names:
                raise TypeError(
                    f"{where} has a tensor as a key that is not a parameter of the model, so it "
                    "could not be found again. Use the parameter itself, or a name, as the key."
                )
        pairs = [
            [write(key, where, names), write(kept, _inside(where, key), names)]
            for key, kept in value.items()
        ]
        return {type(value).__name__: pairs}
    if type(value) in (list, tuple, set, frozenset, deque):
        parts = [write(part, where, names) for part in value]
        return {type(value).__name__: [value.maxlen, parts] if type(value) is deque else parts}
    if type(value) in _SIMPLE or type(value) in (Tensor, nn.Parameter):
        return value
    if type(value).__module__ == "numpy" and value.dtype.str[1:] in _NUMBERS:
        return {"numpy": [value.dtype.str, list(value.shape), value.reshape(-1).tolist()]}
    raise TypeError(
        f"{where} holds a {type(value).__module__}.{type(value).__qualname__}, which a checkpoint "
        "cannot store. Keep tensors, numbers, text, and lists, tuples, sets and dicts."
    )


def read(written: Any, parameters: dict[str, nn.Parameter]) -> Any:
    """Convert the result of ``write`` back to the original value."""
    if not isinstance(written, dict):
        return written
    ((kind, value),) = written.items()
    if kind == "parameter":
        return parameters[value]
    if kind == "numpy":
        dtype, shape, numbers = value
        return import_module("numpy").array(numbers, dtype).reshape(shape)[()]
    if kind == "deque":
        return deque((read(part, parameters) for part in value[1]), value[0])
    if kind in ("dict", "OrderedDict"):
        pairs = ((read(key, parameters), read(kept, parameters)) for key, kept in value)
        return OrderedDict(pairs) if kind == "OrderedDict" else dict(pairs)
    containers = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
    return containers[kind](read(part, parameters) for part in value)


def _globals(step: Callable[..., object]) -> list[tuple[str, object]]:
    rule = step.func if isinstance(step, partial) else step
    if not isinstance(rule, FunctionType):
        return []
    used = rule.__code__.co_names
    return [(name, rule.__globals__[name]) for name in used if name in rule.__globals__]


def _inside(where: str, key: object) -> str:
    return f"{where}[{key!r}]" if type(key) in (str, int) else f"{where}[...]"
