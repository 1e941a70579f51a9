"""Finds the state of a training outside its model: what the rule remembers, and random states."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from copy import deepcopy
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import nn

from blitz_helpers._random_states import global_generators, state_methods
from blitz_helpers.training._evaluation import unwrapped
from blitz_helpers.training._reach import is_own, reachable
from blitz_helpers.training._variables import Variables, refill

_CONTAINERS: dict[type, Any] = {MutableMapping: dict, list: list, deque: deque, set: set}


class Source(NamedTuple):
    """A value that a checkpoint holds, as functions that read and restore it."""

    get: Callable[[], Any]
    set: Callable[[Any], object]


class State:
    """The state of a training outside its model.

    ``generators`` has the random generators held by the model and the other parts; ``random`` has
    these and the global ones, of devices too; ``variables`` has those that count; ``samplers`` are
    those of the loader that want to be told the epoch. Random states inside worker processes are
    out of reach.
    """

    def __init__(
        self, model: nn.Module, step: Callable[..., object], loader: object, **parts: object
    ) -> None:
        self._model, self._step = model, step
        parameters = [(f"model.{name}", w) for name, w in model.named_parameters()]
        rule = [*reachable(step, "step"), *parameters]
        data = [*reachable(loader, "loader")]
        others = (reachable(root, name) for name, root in parts.items())
        held = [*_once(chain(reachable(model, "model"), data, *others, rule))]
        self.samplers = [part for _, part in data if hasattr(type(part), "set_epoch")]
        self._stateful = [
            (name, thing)
            for name, thing in held
            if is_own(thing) and _has_state(thing) and not isinstance(thing, nn.Module)
        ]
        self.generators = _random_sources(held)
        self.random = _global_sources(model) | self.generators
        modules = {id(module) for module in model.modules()}
        of_rule = (thing for _, thing in rule if id(thing) not in modules)
        self.variables = Variables(held, of_rule)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters of the model, and of other modules that the update rule reaches."""
        others = self._other_modules(_once(reachable(self._step))).items()
        named = {f"{place}: {n}": w for place, part in others for n, w in part.named_parameters()}
        return named | dict(self._model.named_parameters())  # last, so that these names count

    def memory(self) -> dict[str, Source]:
        """Return the containers that are bound to the update rule, and what has a ``state_dict``.

        The latter are optimizers, schedulers and averaged models, for example, that the rule
        reaches. Of the other parts only the user's own count: libraries do not agree on what
        loaders restore.
        """
        step = self._step
        values = (*step.args, *step.keywords.values()) if isinstance(step, partial) else ()
        bound = {id(value) for value in values}
        held = [*_once(chain(reachable(step), self._stateful))]
        others = self._other_modules(held)
        found = {
            name: _container_source(thing) if id(thing) in bound else _stateful_source(thing)
            for name, thing in held
            if name in others or not isinstance(thing, nn.Module)
        }
        return {name: source for name, source in found.items() if source is not None}

    def _other_modules(self, held: Iterable[tuple[str, Any]]) -> dict[str, nn.Module]:
        """Return the modules that are no part of the model or of each other."""
        modules = {name: thing for name, thing in held if isinstance(thing, nn.Module)}
        parts = {id(part) for module in modules.values() for part in module.children()}
        parts.update(map(id, self._model.modules()))
        return {
            name: module
            for name, module in modules.items()
            if id(module) not in parts and unwrapped(module) is not self._model
        }


def _container_source(thing: Any) -> Source | None:
    for kind, copied in _CONTAINERS.items():
        if isinstance(thing, kind):
            return Source(partial(copied, thing), partial(refill, thing))
    return _stateful_source(thing)


def _stateful_source(thing: Any) -> Source | None:
    if isinstance(thing, nn.Module):
        # Copied, since a module restores its state into the very tensors that it gave.
        return Source(lambda: deepcopy(thing.state_dict()), thing.load_state_dict)
    return Source(thing.state_dict, thing.load_state_dict) if _has_state(thing) else None


def _has_state(thing: Any) -> bool:
    return hasattr(type(thing), "state_dict") and hasattr(type(thing), "load_state_dict")


def _once(found: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Yield each object once, each under a name of its own."""
    names: set[str] = set()
    seen: dict[int, Any] = {}  # keeps the objects alive, since ids of freed objects are reused
    for name, thing in found:
        if id(thing) not in seen:
            seen[id(thing)] = thing
            while name in names:  # two closures may use the same name
                name += "'"
            names.add(name)
            yield name, thing


def _random_sources(held: Iterable[tuple[str, Any]]) -> dict[str, Source]:
    found = ((name, state_methods(thing)) for name, thing in held)
    return {name: Source(*methods) for name, methods in found if methods is not None}


def _global_sources(model: nn.Module) -> dict[str, Source]:
    generators = {"torch": torch.default_generator} | global_generators()
    devices = dict.fromkeys(w.device for w in model.parameters())
    return _random_sources(generators.items()) | {
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
