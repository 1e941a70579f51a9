"""A model and torch's global state, put back as they were."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# What `nn.Module` itself keeps in an instance: parameters, buffers, hooks, the training flag, ...
_OWN = tuple(nn.Module().__dict__)
_NOTHING: dict[str, Any] = {}


class ModelState:
    """How the modules of a model stand, to be put back by `restore`."""

    def __init__(self, modules: dict[nn.Module, str]) -> None:
        self._modules = [
            (
                module,
                type(module),
                module.__dict__.copy(),
                {
                    key: value.copy()
                    for key, value in module.__dict__.items()
                    if isinstance(value, dict) and value
                },
            )
            for module in modules
        ]
        tensors: dict[int, Tensor] = {}
        for _, _, _, contents in self._modules:
            for kind in ("_parameters", "_buffers"):
                for tensor in contents.get(kind, _NOTHING).values():
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
            self.protect(tensor)
            tensor.grad = None

    def restore(self) -> None:
        """Put everything back."""
        for module, kind, attributes, contents in self._modules:
            changed_kind = type(module) is not kind
            if changed_kind:
                module.__class__ = kind
            current = module.__dict__
            for key, value in list(current.items()):
                if key not in _OWN and (changed_kind or _without_data(value)):
                    del current[key]
                    if key in attributes:
                        current[key] = attributes[key]
            for key, value in attributes.items():
                if key in _OWN or changed_kind:
                    current[key] = value
                    if isinstance(value, dict):
                        _refill(value, contents.get(key, _NOTHING))
        with torch.no_grad():
            for tensor, data, values in reversed(self._values):
                tensor.data = data
                if not _same(data, values):
                    data.copy_(values)
        for tensor, requires_grad, grad in self._flags:
            if tensor.requires_grad != requires_grad:
                tensor.requires_grad_(requires_grad)
            if tensor.grad is not grad:
                tensor.grad = grad


def _without_data(value: Any) -> bool:
    """Whether the value holds a tensor that the trace made."""
    if isinstance(value, Tensor):
        return hasattr(value, "_blitz_origin")
    if isinstance(value, dict):
        return any(map(_without_data, value.values()))
    return isinstance(value, list | tuple) and any(map(_without_data, value))


def _refill(mapping: dict[str, Any], contents: dict[str, Any]) -> None:
    if len(mapping) != len(contents) or any(
        mapping.get(key) is not value for key, value in contents.items()
    ):
        mapping.clear()
        mapping.update(contents)


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
    """Put torch's global state and every random state back on leaving."""
    grad_enabled = torch.is_grad_enabled()
    dtype = torch.get_default_dtype()
    autocast = [(d, torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in _AUTOCAST]
    cpu = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]  # torch's own
    python = random.getstate()
    numpy = sys.modules.get("numpy")
    numpy_state = numpy.random.get_state() if numpy else None
    try:
        yield
    finally:
        torch.set_grad_enabled(grad_enabled)
        torch.set_default_dtype(dtype)
        for device, enabled, kind in autocast:
            torch.set_autocast_enabled(device, enabled)
            torch.set_autocast_dtype(device, kind)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        random.setstate(python)
        if numpy:
            numpy.random.set_state(numpy_state)


_AUTOCAST = ("cpu", "cuda")
