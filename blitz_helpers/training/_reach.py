"""Finds everything an object holds, in containers, attributes, closures and bound arguments."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor

# Types that hold nothing of interest, or that would be used up by looking inside.
_CLOSED = (Tensor, str, bytes, int, float, complex, type, ModuleType, Iterator)
# Packages whose objects lead everywhere, and are never a user's data or update rule.
_MACHINERY = {"asyncio", "concurrent", "logging", "multiprocessing", "threading", "wandb"}


def reachable(root: object, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``root`` and everything it holds at any depth, once each, under the shortest name.

    No code of the objects runs, not even properties.

    >>> [name for name, _ in reachable({"a": [None, {"b": 1}]}, "x")]
    ['x', "x['a']", "x['a'][1]"]
    """
    seen: dict[int, object] = {}  # keeps the objects alive, since ids of freed objects are reused
    todo = deque([(name, root)])
    while todo:
        name, thing = todo.popleft()
        if thing is None or isinstance(thing, _CLOSED) or id(thing) in seen:
            continue
        if type(thing).__module__.partition(".")[0] in _MACHINERY:
            continue
        seen[id(thing)] = thing
        yield name, thing
        todo.extend(_parts(name, thing))


def _parts(name: str, thing: object) -> Iterable[tuple[str, object]]:
    if isinstance(thing, dict):
        for place, (key, value) in enumerate(list(thing.items())):
            yield f"{name}[{key!r}]" if isinstance(key, str) else f"{name}[{place}]", value
    elif isinstance(thing, list | tuple | deque):
        for place, value in enumerate(list(thing)):
            if not isinstance(value, _CLOSED):  # first, for lists of many numbers
                yield f"{name}[{place}]", value
    dot = f"{name}." if name else ""
    if isinstance(thing, partial):
        yield from ((f"{dot}{keyword}", value) for keyword, value in thing.keywords.items())
        yield from ((f"{dot}args[{place}]", value) for place, value in enumerate(thing.args))
        yield name, thing.func
    elif isinstance(thing, MethodType):
        yield name, thing.__self__
        yield name, thing.__func__
    elif isinstance(thing, FunctionType):
        for variable, cell in zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True):
            try:
                yield f"{dot}{variable}", cell.cell_contents
            except ValueError:  # not assigned yet
                continue
        yield f"{dot}defaults", thing.__defaults__
        yield f"{dot}defaults", thing.__kwdefaults__
    for attribute, value in list(getattr(thing, "__dict__", {}).items()):
        yield f"{dot}{attribute}", value
    for slot in slots_of(thing):
        yield f"{dot}{slot}", getattr(thing, slot)


def slots_of(thing: object) -> Iterator[str]:
    """Yield the names of the slots that have a value."""
    for cls in type(thing).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            if slot not in ("__dict__", "__weakref__") and hasattr(thing, slot):
                yield slot
