"""Finds the objects in which a forward pass can leave something behind.

The search begins at the modules, at what is passed to them, and at the code of their ``forward``.
It goes through containers, objects, closures and hooks, and from code to the globals, class
attributes and methods that the code names. It never enters tensors, data sets or the standard
library, and it ends after a number of objects.
"""

from __future__ import annotations

import functools
import sys
import threading
import types
from collections import ChainMap, UserDict, UserList, deque
from collections.abc import Callable, Iterable
from dis import opmap
from enum import Enum
from functools import lru_cache, partial
from typing import Any

from torch import Tensor, nn

from blitz_helpers.trace._kept import (
    CELL,
    CONTAINERS,
    LEAVES,
    Kept,
    KeptModule,
    Kind,
    generator_kind,
    names_in,
    slots,
    slots_of,
)

_LIMIT = 10_000  # objects, and items of one container: larger ones are taken for data
_LIBRARIES = sys.stdlib_module_names | {"torch", "numpy"}
_STORE_GLOBAL = opmap["STORE_GLOBAL"]
# What other threads work with: to put it back would undo what they have done meanwhile.
_THREADED = (type(threading.Lock()), type(threading.RLock()), threading.Condition, threading.Thread)
# Of the standard library, and searched.
_SEARCHED_TOO = (types.SimpleNamespace, threading.local, UserDict, UserList, ChainMap)

Keep = Callable[[Any, Callable[[], Any]], Any]
Visit = Callable[["_Search", Any], None]


def keep_all(modules: Iterable[nn.Module], given: Iterable[Any], keep: Keep) -> None:
    """Call ``keep`` for each object that is found.

    ``keep`` takes a key, which stands for the object, and a function that makes what is kept of
    it. It returns that, or what was kept under the key before.
    """
    search = _Search(keep)
    for module in modules:
        search.module(module)
    search.todo.extend(given)
    search.run()


class _Search:
    def __init__(self, keep: Keep) -> None:
        self.keep = keep
        self.todo: deque[Any] = deque()
        self.code: deque[tuple[types.FunctionType, type | None]] = deque()
        self.seen: set[object] = set()  # things and namespaces; all are held by what is kept
        self.read: set[int] = set()  # code
        self.visits: dict[type, Visit] = {}

    def run(self) -> None:
        limit = len(self.seen) + _LIMIT
        while (self.todo or self.code) and len(self.seen) < limit:
            if not self.todo:
                self.function(*self.code.popleft())
                continue
            thing = self.todo.popleft()
            kind = type(thing)
            if kind not in LEAVES and id(thing) not in self.seen:
                self.seen.add(id(thing))
                visit = _VISITS.get(kind) or self.visits.get(kind)
                if visit is None:
                    visit = self.visits[kind] = _visit_of(kind)
                visit(self, thing)

    # Things

    def kept(self, thing: Any, how: Kind) -> list[Any]:
        """Keep what the thing holds, and return it."""
        kept: Kept = self.keep(id(thing), lambda: Kept(thing, how))
        return kept.held

    def module(self, module: nn.Module) -> None:
        self.seen.add(id(module))
        self.todo.extend(self.keep(id(module), lambda: KeptModule(module)).inside)
        kind = type(module)
        if kind not in self.seen:
            self.seen.add(kind)
            forward = next(
                vars(base)["forward"] for base in kind.__mro__ if "forward" in vars(base)
            )
            self.named(forward, (), kind)

    def other_module(self, module: nn.Module) -> None:
        """Look into a module that is no part of the model, such as one in a plain list."""
        for part in module.modules():
            self.module(part)

    def container(self, thing: Any, how: Kind, slots: Kind | None) -> None:
        if len(thing) <= _LIMIT:
            self.todo.extend(self.kept(thing, how))
        if type(thing) not in CONTAINERS:
            self.object(thing, slots)

    def object(self, thing: Any, slots: Kind | None) -> None:
        """Look into the attributes of an object."""
        attributes = getattr(thing, "__dict__", None)
        if isinstance(attributes, dict):
            if any(isinstance(value, _THREADED) for value in attributes.values()):
                return
            self.todo.append(attributes)
        if slots is not None:
            self.todo.extend(self.keep((id(thing), "slots"), lambda: Kept(thing, slots)).held)

    def generator(self, thing: Any) -> None:
        how = generator_kind(thing)
        if how is not None:
            self.kept(thing, how)

    def items(self, thing: Iterable[Any]) -> None:
        self.todo.extend(thing)

    def partial(self, thing: Any) -> None:
        self.todo.extend((thing.func, thing.args, thing.keywords))

    def method(self, thing: Any) -> None:
        self.todo.append(thing.__self__)
        self.named(thing.__func__, (), type(thing.__self__))

    def callable(self, thing: Any) -> None:
        self.named(thing, (), None)

    # Code

    def function(self, function: types.FunctionType, owner: type | None) -> None:
        """Look into a function's closure and defaults, and at what its code names."""
        self.todo.extend((function.__defaults__, function.__kwdefaults__, function.__dict__))
        names, stored = _names_of(function.__code__)
        for cell in function.__closure__ or ():
            for value in self.kept(cell, CELL):
                self.named(value, names, owner)
        self.named(function.__dict__.get("__wrapped__"), (), owner)
        namespace = function.__globals__
        if is_library(namespace.get("__name__", "")):
            return
        if stored:
            self.names(namespace, stored)
        for name in names:
            if name in namespace:
                self.named(namespace[name], names, None)
        if owner is not None:
            self.named(owner, names, owner)

    def named(self, thing: Any, names: tuple[str, ...], owner: type | None) -> None:
        """Look into what code names; of modules and classes, into what it names in them."""
        kind = type(thing)
        if kind in LEAVES:
            return
        if kind is types.FunctionType:
            if id(thing) not in self.read and not is_library(thing.__module__ or ""):
                self.read.add(id(thing))
                self.code.append((thing, owner))
        elif isinstance(thing, type):
            for base in thing.__mro__:
                if not is_library(base.__module__):
                    self.names(base, names, thing)
        elif isinstance(thing, types.ModuleType):
            if thing.__name__ == "numpy.random" or (
                thing.__name__ == "numpy" and "random" in names
            ):
                self.generator(sys.modules["numpy.random"])
            elif not is_library(thing.__name__):
                self.names(thing, tuple(name for name in names if name in vars(thing)))
        elif isinstance(thing, staticmethod | classmethod):
            self.named(thing.__func__, names, owner)
        elif isinstance(thing, property):
            for function in (thing.fget, thing.fset):
                self.named(function, names, owner)
        elif isinstance(thing, functools._lru_cache_wrapper):
            self.named(thing.__wrapped__, names, owner)
        elif isinstance(thing, functools.cached_property):
            self.named(thing.func, names, owner)
        else:
            self.todo.append(thing)

    def names(self, namespace: Any, names: tuple[str, ...], owner: type | None = None) -> None:
        """Keep what these names mean in a namespace, and look into it."""
        key = (id(namespace), names)
        if names and key not in self.seen:
            self.seen.add(key)
            for value in self.keep(key, lambda: Kept(namespace, names_in(names))).held:
                self.named(value, names, owner)


_VISITS: dict[type, Visit] = {
    **{kind: partial(_Search.container, how=how, slots=None) for kind, how in CONTAINERS.items()},
    tuple: _Search.items,
    frozenset: _Search.items,
    nn.Module: _Search.other_module,
    types.FunctionType: _Search.callable,
    types.MethodType: _Search.method,
    functools.partial: _Search.partial,
    functools.partialmethod: _Search.partial,
    functools._lru_cache_wrapper: _Search.callable,
}


def _visit_of(kind: type) -> Visit:
    """Return the method that looks into objects of a type."""
    descriptors = slots_of(kind)
    its_slots = slots(descriptors) if descriptors else None
    for base, how in CONTAINERS.items():
        if issubclass(kind, base):
            return partial(_Search.container, how=how, slots=its_slots)
    for base, visit in _VISITS.items():
        if issubclass(kind, base):
            return visit
    return partial(_Search.object, slots=its_slots) if _is_open(kind) else _Search.generator


@lru_cache(maxsize=1024)
def is_library(name: str) -> bool:
    """Whether the module of this name is Python's, torch's or numpy's."""
    return name.partition(".")[0] in _LIBRARIES


def _is_open(kind: type) -> bool:
    """Whether objects of this type are searched."""
    if issubclass(kind, _SEARCHED_TOO):
        return True
    if issubclass(kind, (Tensor, Enum, type, types.ModuleType)):
        return False
    for base in kind.__mro__[:-1]:
        package = base.__module__
        if package.startswith(("torch.utils.data", "torch._")) or (
            is_library(package) and not package.startswith("torch.")
        ):
            return False
    return True


def _names_of(code: types.CodeType) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names that code uses, functions inside it included, and the globals it sets."""
    names = code.co_names
    # A name's number is the instruction's argument; to know that it sets one is enough here.
    stored = names if _STORE_GLOBAL in code.co_code[::2] else ()
    for constant in code.co_consts:
        if type(constant) is types.CodeType:
            inner, inner_stored = _names_of(constant)
            names += inner
            stored += inner_stored
    return names, stored
