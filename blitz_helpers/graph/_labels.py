"""Which module was running when a node was made."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from blitz_helpers._running import follow_modules, running_modules


class _Labels:
    """Which module was running from which sequence number on, in one thread."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._modules: list[str | None] = []

    def note(self, module: str | None) -> None:
        """Note that ``module`` runs from here on."""
        now: int = torch.autograd._get_sequence_nr()  # type: ignore[attr-defined]  # not in `__all__`
        if self._starts and now < self._starts[-1]:
            # A new thread under the number of an old one, counting from 0.
            self._starts.clear()
            self._modules.clear()
        if self._starts and now == self._starts[-1]:
            self._modules[-1] = module
        else:
            self._starts.append(now)
            self._modules.append(module)

    def running_at(self, sequence_nr: int) -> str | None:
        place = bisect_right(self._starts, sequence_nr) - 1
        return None if place < 0 else self._modules[place]


# Sequence numbers count within a thread, so each thread has its own labels.
_labels: WeakKeyDictionary[nn.Module, dict[int, _Labels]] = WeakKeyDictionary()


class _Labeller:
    """Notes for each thread which module of one model runs when."""

    def __init__(self, model: nn.Module) -> None:
        self._paths = {module: path for path, module in model.named_modules()}
        self._threads = _labels.setdefault(model, {})

    def entered(self, module: nn.Module) -> None:
        if module in self._paths:
            inner = (self._paths.get(one) for one in reversed(running_modules()))
            path = next((path for path in inner if path is not None), None)
            self._threads.setdefault(threading.get_ident(), _Labels()).note(path)

    def left(self, module: nn.Module, _output: Any) -> None:
        self.entered(module)  # what runs now is the module around it


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
    with follow_modules(_Labeller(model)):
        yield


def labels_of(model: nn.Module | None) -> list[_Labels]:
    """Return what was noted in this thread while ``model`` ran, or any model."""
    # Its references, since other threads may add a model meanwhile.
    models = [ref() for ref in _labels.keyrefs()] if model is None else [model]
    here = threading.get_ident()
    found = []
    for labelled in models:
        threads = {} if labelled is None else _labels.get(labelled, {})
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
