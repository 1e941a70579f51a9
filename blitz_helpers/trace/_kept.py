"""Objects that can change, each as it was, to be put back."""

from __future__ import annotations

import random
import sys
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from operator import is_
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class _Missing:
    """Stands for a value that is not there."""


MISSING = _Missing()


class Kind(NamedTuple):
    """How to read what objects of a type hold, as a list, and how to make one hold that again."""

    read: Callable[[Any], list[Any]]
    write: Callable[[Any, list[Any]], None]


class Kept:
    """One object and what it held. Traces that run at the same time share it."""

    __slots__ = ("held", "kind", "owner", "users")

    def __init__(self, owner: Any, kind: Kind) -> None:
        self.owner = owner
        self.kind = kind
        self.held = kind.read(owner)
        self.users = 0

    def put_back(self) -> None:
        """Make the object hold again what it held."""
        if not same(self.kind.read(self.owner), self.held):
            self.kind.write(self.owner, self.held)


def same(now: Sequence[Any], before: Sequence[Any]) -> bool:
    """Whether both sequences hold the very same objects."""
    return len(now) == len(before) and all(map(is_, now, before))


# Containers. A subclass is read and written by the methods of the built-in type, past its own.


def _mapping(base: Any) -> Kind:
    def read(mapping: Any) -> list[Any]:
        return [*base.keys(mapping), *base.values(mapping)]

    def write(mapping: Any, held: list[Any]) -> None:
        keys, values = held[: len(held) // 2], held[len(held) // 2 :]
        # Key by key: another thread may be reading the attributes of a module.
        for key in base.keys(mapping) - set(keys):
            base.__delitem__(mapping, key)
        for key, value in zip(keys, values, strict=True):
            if base.get(mapping, key, MISSING) is not value:
                base.__setitem__(mapping, key, value)
        if not same(list(base.keys(mapping)), keys):  # their order
            base.clear(mapping)
            base.update(mapping, zip(keys, values, strict=True))

    return Kind(read, write)


def _write_list(items: Any, held: list[Any]) -> None:
    list.__setitem__(items, slice(None), held)


def _write_deque(items: Any, held: list[Any]) -> None:
    deque.clear(items)
    deque.extend(items, held)


def _write_set(items: Any, held: list[Any]) -> None:
    set.clear(items)
    set.update(items, held)


MAPPING = _mapping(dict)
CONTAINERS: dict[type, Kind] = {
    OrderedDict: _mapping(OrderedDict),
    dict: MAPPING,
    list: Kind(list, _write_list),
    deque: Kind(list, _write_deque),
    set: Kind(list, _write_set),
}


# Closure cells, slots, names, random generators: no containers, but what they hold can change.


def _read_cell(cell: types.CellType) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:  # empty
        return []


def _write_cell(cell: types.CellType, held: list[Any]) -> None:
    if held:
        (cell.cell_contents,) = held
    else:
        del cell.cell_contents


CELL = Kind(_read_cell, _write_cell)


def slots_of(kind: type) -> list[Any]:
    """Return the descriptors of a type's ``__slots__``, one a slot."""
    return [
        slot
        for base in kind.__mro__
        if "__slots__" in vars(base)
        for slot in vars(base).values()
        if isinstance(slot, types.MemberDescriptorType)
    ]


def slots(descriptors: list[Any]) -> Kind:
    """Return how to read and write these slots of an object."""

    def read(owner: Any) -> list[Any]:
        held = []
        for slot in descriptors:
            try:
                held.append(slot.__get__(owner))
            except AttributeError:
                held.append(MISSING)
        return held

    def write(owner: Any, held: list[Any]) -> None:
        for slot, now, value in zip(descriptors, read(owner), held, strict=True):
            if now is not value:
                slot.__delete__(owner) if value is MISSING else slot.__set__(owner, value)

    return Kind(read, write)


def names_in(names: tuple[str, ...]) -> Kind:
    """Return how to read and write these names in a class, a module or its dictionary."""

    def read(namespace: Any) -> list[Any]:
        mapping = namespace if isinstance(namespace, dict) else vars(namespace)
        return [mapping.get(name, MISSING) for name in names]

    def write(namespace: Any, held: list[Any]) -> None:
        for name, now, value in zip(names, read(namespace), held, strict=True):
            if now is value:
                continue
            if isinstance(namespace, dict):
                namespace.pop(name) if value is MISSING else namespace.update({name: value})
            else:
                delattr(namespace, name) if value is MISSING else setattr(namespace, name, value)

    return Kind(read, write)


def generator_kind(thing: Any) -> Kind | None:
    """Return how the state of a random generator is read and written, ``None`` for the rest."""
    numpy = sys.modules.get("numpy.random")
    if numpy and (thing is numpy or isinstance(thing, numpy.RandomState)):
        return Kind(lambda it: [it.get_state()], lambda it, held: it.set_state(*held))
    if isinstance(thing, torch.Generator):
        return Kind(lambda it: [it.get_state()], lambda it, held: it.set_state(*held))
    if isinstance(thing, random.Random):
        return Kind(lambda it: [it.getstate()], lambda it, held: it.setstate(*held))
    if numpy and isinstance(thing, numpy.Generator):
        return Kind(
            lambda it: [it.bit_generator.state],
            lambda it, held: setattr(it.bit_generator, "state", *held),
        )
    return None


class KeptModule:
    """A module and what torch itself keeps in it: parameters, buffers, hooks, flags."""

    __slots__ = ("attributes", "empty", "filled", "flags", "inside", "kind", "module", "users")

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.kind = type(module)
        self.users = 0
        self.attributes = module.__dict__.copy()
        self.empty: list[Any] = []  # about a dozen a module, most for hooks
        self.filled: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.inside: list[Any] = []  # what else is to be searched
        tensors: list[Tensor | None] = []
        for name, value in self.attributes.items():
            kind = type(value)
            if kind in LEAVES:
                continue
            if name in _TORCHS_OWN and not value:
                self.empty.append(value)
            elif kind is tuple:
                # Most tuples hold numbers alone, such as the sizes of a kernel.
                if not LEAVES.issuperset(map(type, value)):
                    self.inside += value
            elif name in _TREE and isinstance(value, dict):
                self.filled.append((value, value.copy()))
                if name != "_modules":
                    tensors += value.values()
            else:
                self.inside.append(value)
        self.flags = [
            (tensor, tensor.requires_grad, tensor.grad if tensor.is_leaf else None)
            for tensor in tensors
            if tensor is not None
        ]

    def put_back(self) -> None:
        """Give the module back its class, attributes, parameters, buffers, hooks and flags."""
        module = self.module
        if type(module) is not self.kind:  # a lazy module that became an ordinary one
            module.__class__ = self.kind
        if any(self.empty):
            for store in self.empty:
                store.clear()
        for now, before in (*self.filled, (module.__dict__, self.attributes)):
            if len(now) != len(before) or not all(map(is_, now.values(), before.values())):
                MAPPING.write(now, [*before, *before.values()])
        for tensor, requires_grad, grad in self.flags:
            if tensor.requires_grad != requires_grad:
                tensor.requires_grad_(requires_grad)
            if (grad is not None or tensor.is_leaf) and tensor.grad is not grad:
                tensor.grad = grad


# What `nn.Module` itself keeps in an instance: parameters, buffers, hooks, the training flag, ...
_TORCHS_OWN = frozenset(nn.Module().__dict__)
_TREE = frozenset({"_parameters", "_buffers", "_modules"})


class KeptValues:
    """The values of a tensor that is about to be written to."""

    __slots__ = ("attributes", "data", "tensor", "users", "values")

    @torch.no_grad()
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.users = 0
        self.attributes = tensor.__dict__.copy()
        self.data = tensor.data
        self.values = tensor.detach().clone()

    @torch.no_grad()
    def put_back(self) -> None:
        """Give the tensor back its memory, and that its values."""
        self.tensor.data = self.data
        MAPPING.write(self.tensor.__dict__, [*self.attributes, *self.attributes.values()])
        # Large weights are often mapped from a file, and writing would copy its pages.
        if self.data.numel() <= _SMALL or not _same_bits(self.data, self.values):
            self.data.copy_(self.values)


_SMALL = 1024  # numbers that are written back without being compared


def _same_bits(a: Tensor, b: Tensor) -> bool:
    if a.is_meta:
        return True
    try:
        return torch.equal(a.view(torch.uint8), b.view(torch.uint8))
    except RuntimeError:  # no such view of this layout: write it back
        return False


# What cannot change, or is never searched.
LEAVES = frozenset(
    {
        *(
            _Missing,
            type(None),
            bool,
            int,
            float,
            complex,
            str,
            bytes,
            range,
            slice,
            type(Ellipsis),
        ),
        *(Tensor, nn.Parameter, nn.Buffer, torch.Size, torch.dtype, torch.device, torch.layout),
        *(torch.memory_format, types.BuiltinFunctionType, types.MethodDescriptorType),
        *(
            types.WrapperDescriptorType,
            types.GetSetDescriptorType,
            type(torch.nn.functional.conv2d),
        ),
    }
)
