"""A model and torch's global state, put back as they were."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

from blitz_helpers._threads import SharedContext, warning_ignored
from blitz_helpers.trace._field import known_origin

# What `nn.Module` itself keeps in an instance: parameters, buffers, hooks, the training flag, ...
_OWN = tuple(nn.Module().__dict__)
_SMALL = 1024  # numbers that are written back without being compared
_NOTHING: dict[str, Any] = {}
_MISSING = object()
# What the tracer puts on instances to steer them.
_PREPARED = ("forward", "initialize_parameters", "_compiled_call_impl")


class ModelState:
    """How the modules of a model stand, to be put back by `restore`."""

    def __init__(self, modules: dict[nn.Module, str]) -> None:
        self._modules = []
        for module in modules:
            attributes = module.__dict__.copy()
            stores = [value for value in attributes.values() if isinstance(value, dict)]
            contents = [(store, store.copy() if store else _NOTHING) for store in stores]
            self._modules.append((module, type(module), attributes, contents))
        tensors: dict[int, Tensor] = {}
        for _, _, attributes, _ in self._modules:
            for kind in ("_parameters", "_buffers"):
                store = attributes.get(kind)
                for tensor in store.values() if isinstance(store, dict) else ():
                    if tensor is not None:
                        tensors[id(tensor)] = tensor
        self._flags = [(tensor, tensor.requires_grad, tensor.grad) for tensor in tensors.values()]
        self._values: list[tuple[Tensor, Tensor, Tensor]] = []

    def protect(self, tensor: Tensor) -> None:
        """Keep the values of a tensor that is about to be written to."""
        with torch.no_grad():
            self._values.append((tensor, tensor.data, tensor.detach().clone()))

    def protect_values(self) -> None:
        """Keep the values of all parameters and buffers, and lay their gradients aside."""
        for tensor, _, _ in self._flags:
            if not nn.parameter.is_lazy(tensor):  # that has no values yet
                self.protect(tensor)
                tensor.grad = None

    def restore(self) -> None:
        """Put everything back."""
        # What the model has noted beside something that is put back has to go with it: that its
        # hooks are registered, how far its table of positions reaches.
        put_back = False
        changed = []
        for module, kind, attributes, contents in self._modules:
            for store, content in contents:
                if store or content:
                    put_back |= _refill(store, content)
            current = module.__dict__
            if len(current) != len(attributes) or not all(
                map(is_, current.values(), attributes.values())
            ):
                changed.append((module, kind, attributes))
                put_back |= any(
                    value is not attributes.get(key, _MISSING) and _is_traced(value)
                    for key, value in current.items()
                )
        for module, kind, attributes in changed:
            self._restore_attributes(module, kind, attributes, put_back)
        with torch.no_grad():
            for tensor, data, values in reversed(self._values):
                tensor.data = data
                # Large weights are often mapped from a file, and writing would copy its pages.
                if data.numel() <= _SMALL or not _same(data, values):
                    data.copy_(values)
        for tensor, requires_grad, grad in self._flags:
            if tensor.requires_grad != requires_grad:
                tensor.requires_grad_(requires_grad)
            if tensor.grad is not grad:
                tensor.grad = grad

    @staticmethod
    def _restore_attributes(
        module: nn.Module, kind: type, attributes: dict[str, Any], every: bool
    ) -> None:
        changed_kind = type(module) is not kind  # a lazy module that became an ordinary one
        if changed_kind:
            module.__class__ = kind
        current = module.__dict__
        for key, value in list(current.items()):
            ours = every or key in _OWN or key in _PREPARED or changed_kind
            if ours and value is not attributes.get(key, _MISSING):
                del current[key]
        for key, value in attributes.items():
            if key not in current:
                current[key] = value
        if changed_kind:
            module.__dict__ = attributes


def _is_traced(value: Any) -> bool:
    """Whether the value holds a tensor that the trace made."""
    if isinstance(value, Tensor):
        return known_origin(value) is not None
    if isinstance(value, dict):
        return any(map(_is_traced, value.values()))
    return isinstance(value, list | tuple) and any(map(_is_traced, value))


def _refill(mapping: dict[str, Any], contents: dict[str, Any]) -> bool:
    """Put a dictionary's contents back, and return whether it had others."""
    if len(mapping) == len(contents) and all(
        mapping.get(key) is value for key, value in contents.items()
    ):
        return False
    mapping.clear()
    mapping.update(contents)
    return True


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether both hold the same bits."""
    if a.is_meta:
        return True
    try:
        return torch.equal(a.view(torch.uint8), b.view(torch.uint8))
    except RuntimeError:  # no such view of this layout: write it back
        return False


@contextmanager
def global_state_kept() -> Iterator[None]:
    """Put torch's global state, and its and Python's random state, back on leaving."""
    grad_enabled = torch.is_grad_enabled()
    autocast = [(d, torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in _AUTOCAST]
    with _process_state:
        try:
            yield
        finally:
            torch.set_grad_enabled(grad_enabled)
            for device, enabled, kind in autocast:
                torch.set_autocast_enabled(device, enabled)
                torch.set_autocast_dtype(device, kind)


_AUTOCAST = ("cpu", "cuda")


@contextmanager
def _process_state_kept() -> Iterator[None]:
    dtype = torch.get_default_dtype()
    cpu = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]  # torch's own
    python = random.getstate()
    of_checkpointing = "None of the inputs have requires_grad"  # as ours never have
    with warning_ignored(of_checkpointing):
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            torch.set_rng_state(cpu)
            if cuda is not None:
                torch.cuda.set_rng_state_all(cuda)
            random.setstate(python)


_process_state = SharedContext(_process_state_kept)


@contextmanager
def _numpy_state_kept() -> Iterator[None]:
    """Put numpy's random state back; reading it takes as long as tracing three layers."""
    numpy = sys.modules.get("numpy")
    state = numpy.random.get_state() if numpy else None
    try:
        yield
    finally:
        if numpy:
            numpy.random.set_state(state)


numpy_state_kept = SharedContext(_numpy_state_kept)
