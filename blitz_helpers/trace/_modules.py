"""The modules of a model, and their parameters and buffers."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from blitz_helpers._torch import script_modules, script_tensors
from blitz_helpers.trace._layout import without_data


def paths_of(model: nn.Module) -> dict[nn.Module, str]:
    """Return the modules with their dotted paths; a compiled one has that of its inner module."""
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
    parameters: dict[Any, None] = {None: None}
    buffers: dict[Any, None] = {None: None}
    for module in modules:
        if isinstance(module, torch.jit.ScriptModule):
            parameters.update(dict.fromkeys(module.parameters()))
            buffers.update(dict.fromkeys(module.buffers()))
        else:
            parameters.update(dict.fromkeys(module._parameters.values()))
            buffers.update(dict.fromkeys(module._buffers.values()))
    return [*parameters][1:], [*buffers][1:]  # without the `None` that stands for no tensor


def device_of(modules: Iterable[nn.Module]) -> torch.device:
    """Return the device of the first parameter or buffer, the CPU if there is none."""
    parameters, buffers = tensors_of(modules)
    return next((tensor.device for tensor in (*parameters, *buffers)), torch.device("cpu"))


def script_without_data(script: Any) -> Any:
    """Return a copy of the inside of a scripted module that shares its code but holds no data."""
    twin = copy.copy(script)
    for name, inner in script_modules(script).items():
        twin.setattr(name, script_without_data(inner))
    for kind in script_tensors:
        for name, tensor in kind(script).items():
            if tensor is not None:
                twin.setattr(name, without_data(tensor))
    return twin


class _Tracing(threading.local):
    """The tracer that is at work in this thread."""

    def __init__(self) -> None:
        self.tracer: Any = None


tracing = _Tracing()


def prepare(module: nn.Module) -> None:
    """Prepare a scripted, lazy or compiled module for the trace; the state guard undoes it.

    Another thread may be tracing or running the module too. What a call does depends on the thread
    that makes it.
    """
    if module._compiled_call_impl is not None:
        module.__dict__["_compiled_call_impl"] = None
    if isinstance(module, torch.jit.ScriptModule):
        module.__dict__["forward"] = partial(_run_script, module)
    elif isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
        if "initialize_parameters" in module.__dict__:  # prepared by another thread
            return
        stores: list[dict[str, Any]] = [module._parameters, module._buffers]
        for store in stores:
            for name, tensor in store.items():
                if tensor is not None and nn.parameter.is_lazy(tensor):
                    kind: Any = type(tensor)
                    store[name] = kind(
                        requires_grad=tensor.requires_grad,
                        device=tensor.device,
                        dtype=tensor.dtype,
                    )
        module.__dict__["initialize_parameters"] = partial(
            _materialise, module.initialize_parameters
        )


def _run_script(module: Any, *args: Any, **kwargs: Any) -> Any:
    if tracing.tracer is None:
        return module._c._get_method("forward")(*args, **kwargs)
    return tracing.tracer.run_script(module, args, kwargs)


def _materialise(initialize: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    with tracing.tracer.initializing() if tracing.tracer else nullcontext():
        initialize(*args, **kwargs)
