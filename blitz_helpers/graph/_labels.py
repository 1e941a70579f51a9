"""Records which module runs when, to find the module that made a node."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakSet, ref

from torch import Tensor, nn
from torch.autograd.graph import Node

from blitz_helpers._running import follow_modules, running_modules
from blitz_helpers._torch import sequence_number
from blitz_helpers.graph._release import free_apart
from blitz_helpers.graph._tensors import items_in

# Keys of ``node.metadata``, for the labels that apply from a node on, and those that end there.
_APPLY, _END = "blitz_helpers.labels", "blitz_helpers.labels.end"


class Labels:
    """The modules of a model that ran in one thread, and the sequence numbers where they began.

    Sequence numbers count within a thread, and nodes do not know their thread. So the nodes that
    made the outputs of modules refer to their labels, which then apply to the nodes behind them,
    up to those that made the inputs: they may be of another thread.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = ref(model)
        self.marked: set[int] = set()
        """Sequence numbers of the nodes that refer to these labels."""
        self._starts: list[int] = []
        self._modules: list[str | None] = []
        with _all_labels_lock:
            _all_labels.add(self)

    def note(self, module: str | None) -> None:
        """Record that ``module`` runs from here on."""
        self._starts.append(sequence_number())
        self._modules.append(module)

    def mark(self, node: Node, key: str) -> None:
        """Let these labels apply to a node and to those behind it, or let them end there."""
        if self not in (others := _labels_on(node, key)):
            node.metadata[key] = (*others, self)  # type: ignore[index]  # a dict, stubbed wrongly
            self.marked.add(node._sequence_nr())
            free_apart(node)  # the node now has a Python object

    def running_at(self, sequence_nr: int) -> str | None:
        """Return the module that was running when a node was made."""
        place = bisect_right(self._starts, sequence_nr) - 1
        return None if place < 0 else self._modules[place]


_all_labels: WeakSet[Labels] = WeakSet()  # labels live as long as the nodes that refer to them
_all_labels_lock = threading.Lock()


def _labels_on(node: Node, key: str) -> tuple[Labels, ...]:
    return node.metadata.get(key, ())  # type: ignore[attr-defined, no-any-return]  # a dict, stubbed wrongly


class _Here(threading.local):
    """Holds the labels of one model in each thread."""

    def __init__(self, model: nn.Module) -> None:
        self.labels = Labels(model)


class _Labeller:
    """Records for each thread which module of one model runs when."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._paths = {module: path for path, module in model.named_modules()}
        self._strangers = WeakSet[nn.Module]()
        self._here = _Here(model)

    def entered(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self._owns(module):
            if self._paths.keys().isdisjoint(running_modules()[:-1]):
                self._mark_makers(inputs, _END)
            self._note_innermost()

    def left(self, module: nn.Module, output: Any) -> None:
        if module in self._paths:
            self._note_innermost()
            self._mark_makers(output, _APPLY)

    def _owns(self, module: nn.Module) -> bool:
        if module not in self._paths and module not in self._strangers:
            # A forward pass may have made it since.
            self._paths = {known: path for path, known in self._model.named_modules()}
            if module not in self._paths:
                self._strangers.add(module)
        return module in self._paths

    def _mark_makers(self, tensors: Any, key: str) -> None:
        for tensor, _ in items_in(tensors, ""):
            if isinstance(tensor, Tensor):
                with suppress(RuntimeError):  # a view that has lost its graph
                    if tensor.grad_fn is not None:
                        self._here.labels.mark(tensor.grad_fn, key)

    def end(self) -> None:
        """Record that no module runs any more, in case one was interrupted."""
        self._here.labels.note(None)

    def _note_innermost(self) -> None:
        ours = (self._paths[one] for one in reversed(running_modules()) if one in self._paths)
        self._here.labels.note(next(ours, None))


@contextmanager
def label_modules(model: nn.Module) -> Iterator[None]:
    """Record which module runs when, to label each node of graphs built inside the ``with`` block.

    Nothing is attached to the model: global forward hooks watch it and are removed afterwards. The
    labels last as long as the graph, in torch's ``node.metadata`` of the nodes that made the
    outputs of modules. They can be read from any thread.

    Raises:
        TypeError: ``model`` is not a module.

    >>> import torch
    >>> from blitz_helpers import autograd_graph, label_modules
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Tanh())
    >>> with label_modules(model):
    ...     output = model(torch.ones(1, 3))
    >>> [(node.op, node.module) for node in autograd_graph(output, model).nodes[:2]]
    [('tanh', '1'), ('addmm', '0')]
    """
    require_module(model)
    labeller = _Labeller(model)
    try:
        with follow_modules(labeller):
            yield
    finally:
        labeller.end()


def labelled_modules(
    model: nn.Module | None,
    nodes: Sequence[Node],
    slots: Sequence[Sequence[int]],
    order: Sequence[int],
) -> list[str | None]:
    """Return for each node the module that was running when it was made, if that was recorded.

    ``order`` and ``slots`` are those of ``_discover``. Without a ``model``, the labels of all
    models count.
    """

    def applies(labels: Labels) -> bool:
        return model is None or labels.model() is model

    modules: list[str | None] = [None] * len(nodes)
    if not _all_labels:
        return modules
    with _all_labels_lock:
        marked = set[int]().union(*(labels.marked for labels in filter(applies, _all_labels)))
    if not marked:
        return modules
    above: list[tuple[Labels, ...]] = [()] * (len(nodes) + 1)
    for place in order:
        node, labels = nodes[place], above[place]
        sequence_nr = node._sequence_nr()
        if sequence_nr in marked:
            ended = _labels_on(node, _END)
            labels = tuple(each for each in labels if each not in ended)
            labels = _joined(tuple(filter(applies, _labels_on(node, _APPLY))), labels)
        if labels:
            running = (each.running_at(sequence_nr) for each in labels)
            modules[place] = next((module for module in running if module is not None), None)
            for source in slots[place]:
                if above[source] is not labels:
                    above[source] = _joined(above[source], labels)
    return modules


def _joined(one: tuple[Labels, ...], other: tuple[Labels, ...]) -> tuple[Labels, ...]:
    return tuple(dict.fromkeys(one + other)) if one else other


def require_module(model: object) -> None:
    """Raise a ``TypeError`` unless ``model`` is a module."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; expected a torch.nn.Module.")
