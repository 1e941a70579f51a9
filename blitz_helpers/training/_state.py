"""Finds the state of a training outside its model: what the rule remembers, and random states."""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from copy import copy, deepcopy
from functools import partial
from itertools import chain
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from blitz_helpers.training._reach import reachable
from blitz_helpers.training._variables import Variables, is_own, names_in


class Source(NamedTuple):
    """A value that a checkpoint holds, as functions that read and restore it.

    A source that is ``needed`` is saved even if it holds nothing for a parameter of the model.
    """

    get: Callable[[], Any]
    set: Callable[[Any], object]
    needed: bool = False


class State:
    """The state of a training outside its model.

    ``generators`` has the random generators held by the model and the ``parts``; ``random`` has
    these and the global ones, of devices too; ``variables`` has those that count. Random states
    inside worker processes are out of reach.
    """

    def __init__(self, model: nn.Module, step: Callable[..., object], **parts: object) -> None:
        self._model, self._step = model, step
        roots = {"model": model, "step": step, **parts}
        held_by = {name: list(_held(root, name)) for name, root in roots.items()}
        held = [*chain.from_iterable(held_by.values())]
        self._stateful = [
            (name, thing)
            for name, thing in held
            if is_own(thing) and _has_state(thing) and not isinstance(thing, nn.Module)
        ]
        self.generators = _sources(held, _random_source)
        self.random = _global_sources(model) | self.generators
        parameters = [(f"model.{name}", w) for name, w in model.named_parameters()]
        rule = [*held_by["step"], *parameters]
        self.variables = Variables(held + parameters, rule=(thing for _, thing in rule))

    def memory(self) -> dict[str, Source]:
        """Return the dicts, lists and objects with a ``state_dict`` that the update rule reaches.

        The latter are optimizers, schedulers and averaged models, for example. Of the other parts
        only the user's own count: libraries do not agree on what loaders restore.
        """
        bound: set[str] = set()
        if isinstance(self._step, partial):
            places = range(len(self._step.args))
            bound = {*self._step.keywords, *(f"args[{place}]" for place in places)}
        source_of = partial(_memory_source, bound=bound, saved=set(self._model.modules()))
        return _sources(chain(_held(self._step, ""), self._stateful), source_of)

    def remembered(self) -> dict[str, Source]:
        """Return the part of the memory that a checkpoint made now would hold.

        Of the dicts and lists that are not bound to the rule, but reached through a closure, an
        attribute or a global name, it holds those that hold something for a parameter.
        """
        chosen: dict[str, Source] = {}
        for name, source in self.memory().items():
            is_inside = name.startswith(tuple(outer + mark for outer in chosen for mark in "[."))
            if source.needed or (not is_inside and self._belongs(source.get())):
                chosen[name] = source
        return chosen

    def _belongs(self, memory: dict[Any, Any] | Iterable[Any]) -> bool:
        """Return whether parameters are its keys, or it has a tensor like each of them."""
        params = list(self._model.parameters())
        if isinstance(memory, dict) and not memory.keys().isdisjoint(params):
            return True
        values = [*memory.values()] if isinstance(memory, dict) else [*memory]
        return len(values) == len(params) and all(
            isinstance(value, Tensor) and not is_lazy(w) and value.shape == w.shape
            for value, w in zip(values, params, strict=True)
        )


def _memory_source(name: str, thing: Any, bound: set[str], saved: set[nn.Module]) -> Source | None:
    if isinstance(thing, nn.Module):
        if not saved.isdisjoint(thing.modules()):
            return None  # part of the model, or of another module that is saved
        saved.update(thing.modules())
        # Copied, since a module restores its state into the very tensors that it gave.
        return Source(lambda: deepcopy(thing.state_dict()), thing.load_state_dict, needed=True)
    if _has_state(thing):
        return Source(thing.state_dict, thing.load_state_dict, needed=True)
    if isinstance(thing, MutableMapping):
        return Source(lambda: dict(thing), partial(_refill, thing), name in bound)
    if isinstance(thing, list):
        return Source(lambda: list(thing), partial(thing.__setitem__, slice(None)), name in bound)
    if isinstance(thing, deque | set):
        return Source(lambda: copy(thing), partial(_refill, thing), name in bound)
    return None


def _has_state(thing: Any) -> bool:
    return hasattr(type(thing), "state_dict") and hasattr(type(thing), "load_state_dict")


def _refill(memory: MutableMapping[Any, Any] | deque[Any] | set[Any], kept: Any) -> None:
    memory.clear()
    if isinstance(memory, deque):
        memory.extend(kept)
    else:
        memory.update(kept)


def _held(root: object, name: str) -> Iterator[tuple[str, Any]]:
    """Yield what ``root`` and its classes hold, and the global variables that their code names."""
    classes: dict[Any, None] = {}  # in order, each once
    functions: dict[Any, None] = {}
    for place, thing in reachable(root, name):
        yield place, thing
        classes |= dict.fromkeys(type(thing).__mro__)
        functions |= dict.fromkeys([thing] if isinstance(thing, FunctionType) else [])
    shared = [item for cls in classes if _is_users(cls) for item in vars(cls).items()]
    functions |= {value: None for _, value in shared if isinstance(value, FunctionType)}
    for function in filter(_is_users, functions):
        shared += [(n, function.__globals__.get(n)) for n in names_in(function.__code__)]
    for variable, value in shared:
        yield from reachable(value, variable)


def _is_users(code: type | FunctionType) -> bool:
    return (code.__module__ or "").partition(".")[0] not in ("builtins", "numpy", "torch")


def _sources(
    found: Iterable[tuple[str, Any]], source_of: Callable[[str, Any], Source | None]
) -> dict[str, Source]:
    sources: dict[str, Source] = {}
    seen: dict[int, Any] = {}  # keeps the objects alive, since ids of freed objects are reused
    for name, thing in found:
        source = None if id(thing) in seen else source_of(name, thing)
        if source is not None:
            seen[id(thing)] = thing
            while name in sources:  # two closures may use the same name
                name += "'"
            sources[name] = source
    return sources


def _global_sources(model: nn.Module) -> dict[str, Source]:
    numpy = sys.modules.get("numpy")
    found = {"torch": torch.default_generator, "python": random, "numpy": numpy and numpy.random}
    devices = dict.fromkeys(w.device for w in model.parameters())
    return _sources(found.items(), _random_source) | {
        f"device {number}": _device_source(device)
        for number, device in enumerate(d for d in devices if d.type not in ("cpu", "meta"))
    }


def _device_source(device: torch.device) -> Source:
    module = torch.get_device_module(device)
    which = () if device.type == "mps" else (device,)  # there is only one mps device
    return Source(
        lambda: module.get_rng_state(*which),
        lambda state: module.set_rng_state(state.cpu(), *which),
    )


def _random_source(name: str, thing: Any) -> Source | None:
    if isinstance(thing, torch.Generator):
        # A checkpoint is loaded onto the model's device, but torch wants random states on the CPU.
        return Source(thing.get_state, lambda state: thing.set_state(state.cpu()))
    if thing is random or (
        isinstance(thing, random.Random) and not isinstance(thing, random.SystemRandom)
    ):
        return Source(thing.getstate, thing.setstate)
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    if thing is numpy.random or isinstance(thing, numpy.random.RandomState):
        return Source(lambda: thing.get_state(legacy=False), thing.set_state)
    bits = thing.bit_generator if isinstance(thing, numpy.random.Generator) else thing
    if isinstance(bits, numpy.random.BitGenerator):
        return Source(lambda: bits.state, lambda state: setattr(bits, "state", state))
    return None
