"""Which module was running when a node was made."""

from __future__ import annotations

import sys
import threading
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)


class _Labels:
    """Which module was running from which sequence number on, in one thread."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._modules: list[str | None] = []
        self._running: list[str | None] = [None]

    def enter(self, module: str) -> None:
        self._running.append(module)
        self._mark()

    def leave(self) -> None:
        self._running.pop()
        self._mark()

    def _mark(self) -> None:
        now: int = torch.autograd._get_sequence_nr()  # type: ignore[attr-defined]  # not in `__all__`
        if self._starts and now < self._starts[-1]:
            # A new thread under the number of an old one, counting from 0.
            self._starts.clear()
            self._modules.clear()
        if self._starts and now == self._starts[-1]:
            self._modules[-1] = self._running[-1]
        else:
            self._starts.append(now)
            self._modules.append(self._running[-1])

    def running_at(self, sequence_nr: int) -> str | None:
        place = bisect_right(self._starts, sequence_nr) - 1
        return None if place < 0 else self._modules[place]


# Sequence numbers count within a thread, so each thread has its own labels.
_labels: WeakKeyDictionary[nn.Module, dict[int, _Labels]] = WeakKeyDictionary()


@contextmanager
def label_modules(model: nn.Module) -> Iterator[None]:
    """Note which module runs when, so that the graph of a forward pass inside has it on each node.

    Nothing is attached to the model: global forward hooks watch it, and are gone afterwards. The
    notes last as long as the model.

    Raises:
        TypeError: ``model`` is no module.

    >>> import torch
    >>> from blitz_helpers import autograd_graph, label_modules
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Tanh())
    >>> with label_modules(model):
    ...     output = model(torch.ones(1, 3))
    >>> [(node.op, node.module) for node in autograd_graph(output, model).nodes[:2]]
    [('tanh', '1'), ('addmm', '0')]
    """
    require_module(model)
    names = {module: name for name, module in model.named_modules()}
    threads = _labels.setdefault(model, {})

    def enter(module: nn.Module, _inputs: Any) -> None:
        if module in names:
            threads.setdefault(threading.get_ident(), _Labels()).enter(names[module])

    def leave(module: nn.Module, _inputs: Any, _output: Any) -> None:
        if module in names:
            threads[threading.get_ident()].leave()

    # A compiled model would compile the hooks too; where nothing was compiled, dynamo is not
    # even loaded.
    compiled = "torch._dynamo" in sys.modules
    handles = (
        register_module_forward_pre_hook(enter),
        register_module_forward_hook(leave, always_call=True),
    )
    try:
        with torch.compiler.set_stance("force_eager") if compiled else nullcontext():
            yield
    finally:
        for handle in handles:
            handle.remove()


def labels_of(model: nn.Module | None) -> list[_Labels]:
    """Return what was noted in this thread while ``model`` ran, or any model."""
    models = list(_labels) if model is None else [model]
    here = threading.get_ident()
    found = []
    for labelled in models:
        threads = _labels.get(labelled, {})
        if here in threads:
            found.append(threads[here])
        elif len(threads) == 1:
            found.extend(threads.values())
    return found


def module_running(labels: list[_Labels], sequence_nr: int) -> str | None:
    """Return the module that ran when the node of this number was made, if one of them knows."""
    for label in labels:
        module = label.running_at(sequence_nr)
        if module is not None:
            return module
    return None


def require_module(model: object) -> None:
    """Raise a ``TypeError`` unless ``model`` is a module."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; expected a torch.nn.Module.")
