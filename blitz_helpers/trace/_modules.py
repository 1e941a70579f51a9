"""The modules of a model, and their parameters and buffers."""

from __future__ import annotations

import copy
from collections.abc import Iterable
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


def tensors_of(modules: Iterable[nn.Module]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the parameters and the buffers, each once."""
    parameters: dict[int, Tensor] = {}
    buffers: dict[int, Tensor] = {}
    for module in modules:
        scripted = isinstance(module, torch.jit.ScriptModule)
        for found, own in (
            (parameters, module.parameters() if scripted else module._parameters.values()),
            (buffers, module.buffers() if scripted else module._buffers.values()),
        ):
            for tensor in own:
                if tensor is not None:
                    found[id(tensor)] = tensor
    return list(parameters.values()), list(buffers.values())


def device_of(modules: Iterable[nn.Module]) -> torch.device:
    """Return the device of the first parameter or buffer, the CPU if there is none."""
    parameters, buffers = tensors_of(modules)
    return next((tensor.device for tensor in (*parameters, *buffers)), torch.device("cpu"))


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
