"""Finds everything an object holds: in containers and variables, and by the names in its code."""

from __future__ import annotations

import sys
import sysconfig
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache, partial
from itertools import islice
from types import BuiltinMethodType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any, NamedTuple

from torch import Tensor, nn

from blitz_helpers._insides import codes_in, slots_of

MISSING = object()  # the value of a variable that does not exist
_LIMIT = 2_000  # objects, and items of one container
_FEW = 100  # a container of more items is taken for data, and searched last
# Types that hold nothing of interest.
_CLOSED = (Tensor, str, bytes, int, float, complex, type(None), ModuleType)
_PLAIN = frozenset(_CLOSED) | {bool}
# Packages whose objects lead everywhere, and are never a user's data or update rule.
_MACHINERY = {"asyncio", "concurrent", "logging", "multiprocessing", "threading", "wandb"}
_UNLIMITED = (nn.Module, FunctionType, type)  # a large model or program is searched to the end
_SEQUENCES = (list, tuple, deque)
_PASSAGES = (MethodType, BuiltinMethodType, staticmethod, classmethod, property)
_OF_MODULES = vars(nn.Module()).keys()
_OTHER_PEOPLES = tuple(
    {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)


def reachable(root: object, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``root`` and the objects it holds at any depth, once each, under a short name.

    What the user's own functions and classes name counts too. No code of the objects runs, not
    even properties. Large containers come last, and the search stops after a fixed number of
    objects, so that large data costs little.

    >>> [name for name, _ in reachable({"a": [None, {"b": 1}]}, "x")]
    ['x', "x['a']", "x['a'][1]"]
    """
    seen: dict[int, object] = {}  # keeps the objects alive, since ids of freed objects are reused
    kinds: set[type] = set()
    limit = _LIMIT
    todo, later = deque([(name, root)]), deque[tuple[str, object]]()
    while (todo or later) and len(seen) < limit:
        name, thing = (todo or later).popleft()
        kind = type(thing)
        if id(thing) in seen or kind.__module__.partition(".")[0] in _MACHINERY:
            continue
        seen[id(thing)] = thing
        yield name, thing
        dot = f"{name}." if name else ""
        parts = [
            (part, value)
            for part, value in _parts(name, dot, thing)
            if not (isinstance(value, _CLOSED) or _holds_numbers(value))
        ]
        if kind not in kinds:
            kinds.add(kind)
            parts += [(f"{dot}{cls.__name__}", cls) for cls in kind.__mro__ if is_own(cls)]
        limit += isinstance(thing, _UNLIMITED)
        (later if len(parts) > _FEW else todo).extend(parts)


def _holds_numbers(thing: object) -> bool:
    return type(thing) is tuple and _PLAIN.issuperset(map(type, thing))


def _parts(name: str, dot: str, thing: object) -> Iterable[tuple[str, object]]:
    if isinstance(thing, dict):
        for place, (key, value) in enumerate(list(islice(dict.items(thing), _LIMIT))):
            yield f"{name}[{key!r}]" if isinstance(key, str) else f"{name}[{place}]", value
    elif isinstance(thing, _SEQUENCES):
        base: Any = next(base for base in _SEQUENCES if isinstance(thing, base))
        for place, value in enumerate(list(islice(base.__iter__(thing), _LIMIT))):
            if type(value) not in _PLAIN:  # first, for lists of many numbers
                yield f"{name}[{place}]", value
    elif isinstance(thing, partial):
        yield from ((f"{dot}{keyword}", value) for keyword, value in thing.keywords.items())
        yield from ((f"{dot}args[{place}]", value) for place, value in enumerate(thing.args))
        yield f"{dot}func", thing.func
    elif isinstance(thing, _PASSAGES):
        for way in ("__self__", "__func__", "fget"):
            yield name, getattr(thing, way, None)
    elif isinstance(thing, nn.Module):
        children = nn.Module.named_children(thing)
        yield from ((f"{dot}{child}", module) for child, module in children)
        hooks = [name for name in _OF_MODULES if "hooks" in name and vars(thing).get(name)]
        yield from ((f"{dot}{name}", vars(thing)[name]) for name in hooks)
    for namespace in namespaces(thing):
        yield from ((f"{dot}{variable}", value) for variable, value in namespace.values.items())


class Namespace(NamedTuple):
    """Variables that belong together: an object's attributes, a function's closure or globals."""

    kind: str
    values: dict[str, Any]
    owner: Any
    """The object, the cells of the closure by name, or the globals."""

    def put(self, name: str, value: Any) -> None:
        """Set a variable, or delete it if the value is ``MISSING``."""
        if self.kind == ".defaults":
            return  # what a function was defined with is only changed in place
        if self.kind == ".globals":
            self.owner[name] = value
            if value is MISSING:
                del self.owner[name]
            return
        is_cell = self.kind == ".closure"
        owner, attribute = (self.owner[name], "cell_contents") if is_cell else (self.owner, name)
        base: Any = type if isinstance(owner, type) else object
        if value is MISSING:
            base.__delattr__(owner, attribute)
        else:
            base.__setattr__(owner, attribute, value)


def namespaces(thing: Any) -> Iterator[Namespace]:
    """Yield the variables of an object. Globals, and attributes of classes, only if the user's."""
    if isinstance(thing, type):
        if is_own(thing):
            yield Namespace("", dict(vars(thing)), thing)
        return
    attributes: dict[str, Any] = {}
    with suppress(AttributeError):
        attributes |= object.__getattribute__(thing, "__dict__")
    if isinstance(thing, nn.Module):
        attributes = {n: value for n, value in attributes.items() if n not in _OF_MODULES}
    for name in slots_of(type(thing)):
        with suppress(AttributeError):  # it has no value
            attributes[name] = object.__getattribute__(thing, name)
    if isinstance(thing, nn.Parameter):
        attributes["requires_grad"] = thing.requires_grad  # of layers that are unfrozen on the way
    yield Namespace("", attributes, thing)
    if isinstance(thing, FunctionType):
        yield Namespace(".defaults", _defaults(thing), thing)
        cells = dict(zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True))
        closure = {}
        for name, cell in cells.items():
            with suppress(ValueError):  # it has no value yet
                closure[name] = cell.cell_contents
        yield Namespace(".closure", closure, cells)
        if is_own(thing):
            variables = thing.__globals__
            names = {name for code in codes_in(thing.__code__) for name in code.co_names}
            used = {name: variables[name] for name in sorted(names) if name in variables}
            yield Namespace(".globals", used, variables)


def _defaults(function: FunctionType) -> dict[str, Any]:
    code, defaults = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
    return dict(zip(names, defaults, strict=True)) | (function.__kwdefaults__ or {})


def is_own(thing: Any) -> bool:
    """Return whether the user wrote it, or its class: objects of a library may break."""
    if isinstance(thing, FunctionType):
        return _is_own_module(thing.__globals__.get("__name__"))
    # Users tie attributes of their own to parameters and namespaces.
    kind = thing if isinstance(thing, type) else type(thing)
    return kind in (nn.Parameter, SimpleNamespace) or _is_own_module(kind.__module__)


@lru_cache(maxsize=1024)
def _is_own_module(name: str | None) -> bool:
    if name is None or name.partition(".")[0] == "blitz_helpers":
        return False
    file = getattr(sys.modules.get(name), "__file__", None)
    return name == "__main__" or (file is not None and not file.startswith(_OTHER_PEOPLES))
