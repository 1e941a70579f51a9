"""Reads and restores the random states that a training draws from."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from blitz_helpers.training._reach import reachable


class _Source(NamedTuple):
    get: Callable[[], Any]
    set: Callable[[Any], object]


class RandomStates:
    """The random states of a training: the global ones, and those of generators that it holds.

    These are the global states of torch (including the model's devices), Python and numpy, and
    all generators of theirs that can be reached from the model or from ``parts``. States inside
    worker processes, and other sources of random numbers, are not included.
    """

    def __init__(self, model: nn.Module, **parts: object) -> None:
        self._sources = _global_sources(model)
        self.own: set[str] = set()
        """The names of the generators held by the model and the parts."""
        for part, root in {"model": model, **parts}.items():
            for name, thing in reachable(root, part):
                source = _source(thing)
                if source is not None:
                    self._sources[name] = source
                    self.own.add(name)

    def get(self) -> dict[str, Any]:
        return {name: source.get() for name, source in self._sources.items()}

    def set(self, states: dict[str, Any]) -> None:
        """Restore what ``get`` returned, except for devices that this machine does not have."""
        for name, source in self._sources.items():
            if name in states:
                source.set(states[name])


def _global_sources(model: nn.Module) -> dict[str, _Source]:
    sources = {
        "torch": _Source(torch.get_rng_state, _on_cpu(torch.set_rng_state)),
        "python": _Source(random.getstate, random.setstate),
    }
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        get = numpy.random.get_state
        sources["numpy"] = _Source(lambda: _plain(get(legacy=False)), numpy.random.set_state)
    devices = dict.fromkeys(w.device for w in model.parameters())
    for number, device in enumerate(d for d in devices if d.type not in ("cpu", "meta")):
        sources[f"device {number}"] = _device_source(device)
    return sources


def _device_source(device: torch.device) -> _Source:
    module = torch.get_device_module(device)
    if device.type == "mps":  # there is only one
        return _Source(module.get_rng_state, _on_cpu(module.set_rng_state))
    return _Source(
        lambda: module.get_rng_state(device),
        _on_cpu(lambda state: module.set_rng_state(state, device)),
    )


def _source(thing: Any) -> _Source | None:
    if isinstance(thing, torch.Generator):
        return _Source(thing.get_state, _on_cpu(thing.set_state))
    if isinstance(thing, random.Random) and not isinstance(thing, random.SystemRandom):
        return _Source(thing.getstate, thing.setstate)
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    if isinstance(thing, numpy.random.RandomState):
        return _Source(lambda: _plain(thing.get_state(legacy=False)), thing.set_state)
    bits = thing.bit_generator if isinstance(thing, numpy.random.Generator) else thing
    if isinstance(bits, numpy.random.BitGenerator):
        return _Source(lambda: _plain(bits.state), lambda state: setattr(bits, "state", state))
    return None


def _on_cpu(setter: Callable[[torch.Tensor], object]) -> Callable[[torch.Tensor], object]:
    # A checkpoint is loaded onto the model's device, but torch wants all random states on the CPU.
    return lambda state: setter(state.cpu())


def _plain(state: Any) -> Any:
    """Convert numpy's state to numbers, text and lists, which a checkpoint can hold."""
    if isinstance(state, dict):
        return {name: _plain(value) for name, value in state.items()}
    return state.tolist() if hasattr(state, "tolist") else state
