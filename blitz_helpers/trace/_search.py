"""Finds the objects that a forward pass can change.

The search starts from the modules, their inputs, and the code of their ``forward``. It goes through
containers, objects, closures and hooks, and from code to the globals, class attributes and methods
that the code names. It never enters tensors, datasets or the standard library, and it stops after
a fixed number of objects.
"""

from __future__ import annotations

import functools
import gc
import sys
import threading
import types
from collections import ChainMap, UserDict, UserList, deque
from collections.abc import Callable, Iterable
from dis import opmap
from enum import Enum
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from blitz_helpers._insides import codes_in, slots_of
from blitz_helpers._random_states import state_methods
from blitz_helpers.trace._places import CONTAINERS, Module, Names, Numbers, Place, RandomState

_LIMIT = 10_000  # objects, and items of one container; a larger container is taken for data
_LIBRARIES = sys.stdlib_module_names | {"torch", "numpy"}
_RANDOM = {"random", "numpy", "numpy.random"}  # libraries whose functions have a state
_STORE_GLOBAL = opmap["STORE_GLOBAL"]
# Objects shared with other threads: restoring them would undo the work of those threads.
_THREADED = (type(threading.Lock()), type(threading.RLock()), threading.Condition, threading.Thread)
# Types of the standard library that are searched all the same.
_SEARCHED_TOO = (types.SimpleNamespace, threading.local, UserDict, UserList, ChainMap)
# Types that cannot change, or are never searched.
_LEAVES = frozenset(
    {type(None), bool, int, float, complex, str, bytes, range, slice, type(Ellipsis), object}
    | {Tensor, nn.Parameter, nn.Buffer, torch.Size, torch.dtype, torch.device, torch.layout}
    | {torch.memory_format, types.MethodDescriptorType, types.WrapperDescriptorType}
    | {types.GetSetDescriptorType}
)
# Types that hold nothing of their own but lead to other objects.
_PASSAGES = (
    *(types.MethodType, types.BuiltinMethodType, staticmethod, classmethod, property),
    *(functools.partial, functools.partialmethod, functools.cached_property),
)

Keep = Callable[..., Place]
Way = Callable[["_Search", Any], None]


def search(modules: Iterable[nn.Module], given: Iterable[Any], keep: Keep) -> None:
    """Call ``keep`` for each place that is found.

    ``keep`` takes a class of places, the object, and further arguments of the class. It returns the
    place, which may be one that another trace made for the same object.
    """
    found = _Search(keep)
    for module in modules:
        found.module(module)
    found.add(given)
    found.run()


class _Search:
    def __init__(self, keep: Keep) -> None:
        self.keep = keep
        self.things: deque[Any] = deque()
        self.code: deque[tuple[types.FunctionType, type | None]] = deque()
        # Ids stay valid, since a kept place holds each of these objects, directly or not.
        self.seen: set[object] = set()
        self.read: set[int] = set()
        self.ways: dict[type, Way] = {}

    def run(self) -> None:
        limit = len(self.seen) + _LIMIT
        while (self.things or self.code) and len(self.seen) < limit:
            if not self.things:
                self.function(*self.code.popleft())
                continue
            thing = self.things.popleft()
            if id(thing) not in self.seen:
                self.seen.add(id(thing))
                kind = type(thing)
                way = _WAYS.get(kind) or self.ways.get(kind)
                if way is None:
                    way = self.ways[kind] = _way_into(kind)
                way(self, thing)

    # Things

    def add(self, things: Iterable[Any]) -> None:
        for thing in things:
            kind = type(thing)
            if kind is tuple:  # most hold only numbers, such as the sizes of a kernel
                if not _LEAVES.issuperset(map(type, thing)):
                    self.things.append(thing)
            elif kind not in _LEAVES:
                self.things.append(thing)

    def container(self, thing: Any, kind: type[Place]) -> None:
        if len(thing) <= _LIMIT:
            self.add(self.keep(kind, thing).inside())

    def object(self, thing: Any, container: type[Place] | None, slots: tuple[str, ...]) -> None:
        if container:
            self.container(thing, container)
        attributes = getattr(thing, "__dict__", None)
        if isinstance(attributes, dict):
            if any(isinstance(value, _THREADED) for value in attributes.values()):
                return
            self.things.append(attributes)
        if slots:
            self.add(self.keep(Names, thing, slots).inside())

    def generator(self, thing: Any) -> None:
        if state_methods(thing):
            self.keep(RandomState, thing)

    def array(self, thing: Any) -> None:
        if thing.size <= _LIMIT and thing.flags.writeable:
            self.keep(Numbers, thing)

    def module(self, module: nn.Module) -> None:
        self.seen.add(id(module))
        kind = type(module)
        if isinstance(module, torch.jit.ScriptModule):
            self.things.append(module.__dict__)
            return
        self.add(self.keep(Module, module).inside())
        if kind not in self.seen:
            self.seen.add(kind)
            self.named(kind.forward, (), kind)

    # Code

    def function(self, function: types.FunctionType, owner: type | None) -> None:
        """Search a function's closure, defaults and attributes, and the objects its code names."""
        self.add((function.__defaults__, function.__kwdefaults__, function.__dict__))
        names, stored = _names_of(function.__code__)
        for cell in function.__closure__ or ():
            self.names(cell, ("cell_contents",), owner, names)
        namespace = function.__globals__
        if is_library(namespace.get("__name__", "")):
            return
        if stored:
            self.keep(Names, namespace, stored)
        for name in names:
            if name in namespace:
                self.named(namespace[name], names)
        if owner is not None:
            self.named(owner, names, owner)

    def named(self, thing: Any, names: tuple[str, ...] = (), owner: type | None = None) -> None:
        """Search an object that code names; of modules and classes, only what it names in them."""
        kind = type(thing)
        if kind in _LEAVES:
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
            if not is_library(thing.__name__):
                self.names(vars(thing), names, None)
            elif thing.__name__ in _RANDOM:
                for name in names:
                    self.named(vars(thing).get(name), names)
        elif isinstance(thing, functools._lru_cache_wrapper):  # its cache is left as it is
            self.named(thing.__wrapped__, names, owner)
        elif isinstance(thing, _PASSAGES):
            if isinstance(thing, types.MethodType):
                owner = type(thing.__self__)
            for one in gc.get_referents(thing):
                self.named(one, names, owner)
        else:
            self.things.append(thing)

    def names(
        self,
        namespace: Any,
        names: tuple[str, ...],
        owner: type | None,
        used: tuple[str, ...] = (),
    ) -> None:
        """Keep the values of these names in a namespace, and search them."""
        key = (id(namespace), names)
        if names and key not in self.seen:
            self.seen.add(key)
            for value in self.keep(Names, namespace, names).inside():
                self.named(value, used or names, owner)


_WAYS: dict[type, Way] = {
    **{kind: partial(_Search.container, kind=place) for kind, place in CONTAINERS.items()},
    tuple: _Search.add,
    types.FunctionType: _Search.named,
    types.MethodType: _Search.named,
    torch.Generator: _Search.generator,
}


def _way_into(kind: type) -> Way:
    """Return the method that searches objects of a type."""
    if issubclass(kind, nn.Module):
        return _Search.module
    if issubclass(kind, (types.FunctionType, functools._lru_cache_wrapper, *_PASSAGES)):
        return _Search.named
    if issubclass(kind, (tuple, frozenset)):
        return _Search.add
    if (kind.__module__, kind.__name__) == ("numpy", "ndarray"):  # which need not be installed
        return _Search.array
    container = next((CONTAINERS[base] for base in kind.__mro__ if base in CONTAINERS), None)
    if container or _is_open(kind):
        return partial(_Search.object, container=container, slots=slots_of(kind))
    return _Search.generator


@lru_cache(maxsize=1024)
def is_library(name: str) -> bool:
    """Return whether the module of this name is Python's, torch's or numpy's."""
    return name.partition(".")[0] in _LIBRARIES


def _is_open(kind: type) -> bool:
    """Return whether objects of this type are searched."""
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
    """Return the names that code and its inner functions use, and the globals that it sets."""
    codes = [*codes_in(code)]
    names = tuple(name for one in codes for name in one.co_names)
    # Which global is set does not matter: if any is, all names are kept.
    is_set = any(_STORE_GLOBAL in one.co_code[::2] for one in codes)
    return names, names if is_set else ()
