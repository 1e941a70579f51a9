"""Places that a forward pass can change, each with its earlier content."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Iterable
from itertools import filterfalse, repeat
from operator import is_, itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from blitz_helpers._random_states import state_methods
from blitz_helpers._torch import set_version

MISSING = object()  # the value of a name that is not set


class Place:
    """An object and its earlier content. Traces that run at the same time share it."""

    def __init__(self, owner: Any) -> None:
        self.owner = owner
        self.held: Any = self.read()

    def read(self) -> Any:
        """Return the present content of the object."""
        raise NotImplementedError

    def write(self) -> None:
        """Give the object its earlier content."""
        raise NotImplementedError

    def inside(self) -> Iterable[Any]:
        """Return the objects to search next."""
        return self.held  # type: ignore[no-any-return]  # a list

    def put_back(self) -> None:
        """Restore the object if its content has changed."""
        if not _same(self.read(), self.held):
            self.write()


def _same(now: Collection[Any], before: Collection[Any]) -> bool:
    return len(now) == len(before) and all(map(is_, now, before))


# Containers. Subclasses are read and written through the methods of the built-in type.


class Contents(Place):
    """The items of a list, a deque, a set or a bytearray."""

    def read(self) -> list[Any]:
        return list(base_of(self.owner).__iter__(self.owner))

    def write(self) -> None:
        base: Any = base_of(self.owner)
        base.clear(self.owner)
        (base.update if base is set else base.extend)(self.owner, self.held)


class Numbers(Place):
    """The numbers of a numpy array."""

    def read(self) -> Any:
        return self.owner.copy()

    def put_back(self) -> None:
        self.owner[...] = self.held


class Mapping(Place):
    """The items of a dictionary."""

    def read(self) -> dict[Any, Any]:
        return dict(base_of(self.owner).items(self.owner))

    def inside(self) -> list[Any]:
        return [*self.held, *self.held.values()]

    def put_back(self) -> None:
        refill(self.owner, self.held)


CONTAINERS: dict[type, type[Place]] = {
    **{OrderedDict: Mapping, dict: Mapping},
    **{list: Contents, deque: Contents, set: Contents, bytearray: Contents},
}


def base_of(container: Any) -> Any:
    """Return the built-in type of a container."""
    kind = type(container)
    return kind if kind in CONTAINERS else next(one for one in CONTAINERS if issubclass(kind, one))


def refill(mapping: Any, before: dict[Any, Any]) -> None:
    """Give a dictionary its earlier items, in the same order."""
    base = base_of(mapping)
    if (
        base.__len__(mapping) == len(before)
        and all(map(is_, base.values(mapping), before.values()))
        # A key that replaced another one is now the last.
        and next(base.__reversed__(mapping), None) is next(reversed(before), None)
    ):
        return
    # Key by key: another thread may be reading the attributes of a module.
    for key in [key for key in base.keys(mapping) if key not in before]:
        base.__delitem__(mapping, key)
    for key, value in before.items():
        if base.get(mapping, key, MISSING) is not value:
            base.__setitem__(mapping, key, value)
    if not _same(list(base.keys(mapping)), list(before)):
        base.clear(mapping)
        base.update(mapping, before)


# Named values: globals by their dictionary, class attributes, slots, closure cells.


class Names(Place):
    """The values of some names of an object, ``MISSING`` for a name that is not set."""

    def __init__(self, owner: Any, names: tuple[str, ...]) -> None:
        self.names = names
        super().__init__(owner)

    def read(self) -> list[Any]:
        owner = self.owner
        if type(owner) is dict or isinstance(owner, type):
            namespace = owner if type(owner) is dict else vars(owner)
            return [*map(namespace.get, self.names, repeat(MISSING))]
        return [*map(self._value, self.names)]

    def inside(self) -> list[Any]:
        return [value for value in self.held if value is not MISSING]

    def _value(self, name: str) -> Any:
        try:
            return object.__getattribute__(self.owner, name)
        except (AttributeError, ValueError):  # an empty slot or cell
            return MISSING

    def write(self) -> None:
        for name, now, value in zip(self.names, self.read(), self.held, strict=True):
            if now is not value:
                self._put(name, value)

    def _put(self, name: str, value: Any) -> None:
        owner, gone = self.owner, value is MISSING
        if type(owner) is dict:
            owner.pop(name) if gone else owner.update({name: value})
        elif isinstance(owner, type):
            delattr(owner, name) if gone else setattr(owner, name, value)
        elif gone:
            object.__delattr__(owner, name)
        else:  # without `__setattr__`, since the class may be frozen
            object.__setattr__(owner, name, value)


# Torch's default dtype and random generators, modules, and the values of their tensors.


class DefaultDtype(Place):
    """The dtype of new tensors."""

    def read(self) -> list[Any]:
        return [torch.get_default_dtype()]

    def write(self) -> None:
        torch.set_default_dtype(*self.held)


class RandomState(Place):
    """The state of a random generator."""

    def read(self) -> Any:
        get, self.put = state_methods(self.owner)  # type: ignore[misc]  # it is a generator
        return get()

    def inside(self) -> tuple[()]:
        return ()

    def put_back(self) -> None:
        self.put(self.held)


_OWN = vars(nn.Module())  # parameters, buffers, hooks, the training flag, ...
_TREE = ("_parameters", "_buffers", "_modules")
# After these, what is empty in most modules: hooks, and the names of buffers that are not saved.
_stores = itemgetter(*_TREE, *[name for name in _OWN if "hooks" in name or "persistent" in name])


class Module(Place):
    """A module: its class, attributes, parameters, buffers, modules and hooks.

    It includes `requires_grad` and `.grad` of parameters and buffers, but not their values.
    """

    def read(self) -> list[tuple[dict[Any, Any], dict[Any, Any]]]:
        """Return the dictionaries that always hold something, with a copy of each."""
        attributes = self.owner.__dict__
        self.kind = type(self.owner)
        parameters, buffers, modules, *stores = _stores(attributes)
        self.filled = [*filter(None, stores)]
        self.empty = [store for store in stores if not store] if self.filled else stores
        self.flags = [
            (tensor, tensor.requires_grad, tensor.grad if tensor.is_leaf else None)
            for tensor in (*parameters.values(), *buffers.values())
            if tensor is not None
        ]
        return [(now, now.copy()) for now in (attributes, parameters, buffers, modules)]

    def inside(self) -> list[Any]:
        (attributes, _), *_, (modules, _) = self.held
        found = map(attributes.__getitem__, filterfalse(_OWN.__contains__, attributes))
        return [*found, *self.filled, *modules.values()]

    def put_back(self) -> None:
        module = self.owner
        if type(module) is not self.kind:  # a lazy module that became an ordinary one
            module.__class__ = self.kind
        if any(self.empty):
            for store in self.empty:
                store.clear()
        for now, before in self.held:
            if now or before:
                refill(now, before)
        for tensor, requires_grad, grad in self.flags:
            if tensor.requires_grad != requires_grad:
                tensor.requires_grad_(requires_grad)
            if (grad is not None or tensor.is_leaf) and tensor.grad is not grad:
                tensor.grad = grad


class Values(Place):
    """The values of a tensor that is about to be written to, its attributes and its gradient."""

    def read(self) -> Tensor:
        tensor = self.owner
        self.attributes = tensor.__dict__.copy()
        self.data, self.grad = tensor.data, tensor.grad if tensor.is_leaf else None
        self.version = None if tensor.is_inference() else tensor._version
        return tensor.detach().clone()  # type: ignore[no-any-return]  # it is a tensor

    def put_back(self) -> None:
        tensor = self.owner
        tensor.data = self.data
        refill(tensor.__dict__, self.attributes)
        if self.grad is not None:
            tensor.grad = self.grad
        # Large weights are often mapped from a file; writing to them would copy the pages.
        if self.data.numel() <= _SMALL or not _same_bits(self.data, self.held):
            with torch.no_grad():
                self.data.copy_(self.held)
        # A graph that has saved the tensor can still run backward.
        if self.version is not None:
            set_version((tensor,), (self.version,))


_SMALL = 1024  # tensors of at most so many numbers are not compared first


def _same_bits(a: Tensor, b: Tensor) -> bool:
    if a.is_meta:
        return True
    try:
        return torch.equal(a.view(torch.uint8), b.view(torch.uint8))
    except RuntimeError:  # this layout has no such view: write it back
        return False
