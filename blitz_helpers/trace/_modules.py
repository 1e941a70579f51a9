"""The modules of a model, and their parameters and buffers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from blitz_helpers.trace._layout import without_data


def paths_of(model: nn.Module) -> dict[nn.Module, str]:
    """Return the modules and their dotted paths, a compiled module as the one inside it."""
    paths: dict[nn.Module, str] = {}
    todo = [("", model)]
    while todo:
        path, module = todo.pop()
        if module in paths:
            continue
        paths[module] = path
        if isinstance(module, torch.jit.ScriptModule):
            continue
        prefix = f"{path}." if path else ""
        for name, child in reversed(module._modules.items()):
            if child is not None:
                todo.append((path if name == "_orig_mod" else prefix + name, child))
    return paths


def tensors_of(modules: dict[nn.Module, str]) -> Iterator[Tensor]:
    """Yield each parameter and buffer once."""
    seen = set()
    for module in modules:
        scripted = isinstance(module, torch.jit.ScriptModule)
        own = (
            [*module.parameters(), *module.buffers()]
            if scripted
            else [*module._parameters.values(), *module._buffers.values()]
        )
        for tensor in own:
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                yield tensor


def device_of(modules: dict[nn.Module, str]) -> torch.device:
    """Return the device of the first parameter or buffer, the CPU if there is none."""
    tensor = next(tensors_of(modules), None)
    return torch.device("cpu") if tensor is None else tensor.device


def script_without_data(script: Any) -> Any:
    """Return a copy of a scripted module's inside that shares its code and holds no data."""
    twin = copy.copy(script)
    for name, inner in torch._C.ModuleDict(script).items():
        twin.setattr(name, script_without_data(inner))
    kinds: list[Any] = [torch._C.ParameterDict, torch._C.BufferDict]
    for kind in kinds:
        for name, tensor in kind(script).items():
            if tensor is not None:
                twin.setattr(name, without_data(tensor))
    return twin
