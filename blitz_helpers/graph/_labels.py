"""Records which module runs when, to find the module that made a node."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import ReferenceType, WeakSet, ref

from torch import Tensor, nn
from torch.autograd.graph import Node

from blitz_helpers._running import follow_modules, running_modules
from blitz_helpers._torch import sequence_number
from blitz_helpers.graph._release import free_apart


class Labels:
    """The modules of a model that ran in one thread, and the sequence numbers where they began."""

    def __init__(self, model: ReferenceType[nn.Module]) -> None:
        self.model = model
        self._starts: list[int] = []
        self._modules: list[str | None] = []

    def note(self, module: str | None) -> None:
        """Record that ``module`` runs from here on."""
        now: int = sequence_number()
        if self._starts and now == self._starts[-1]:
            self._modules[-1] = module
        else:
            self._starts.append(now)
            self._modules.append(module)

    def running_at(self, sequence_nr: int) -> str | None:
        """Return the module that was running when the node with this number was made."""
        place = bisect_right(self._starts, sequence_nr) - 1
        return None if place < 0 else self._modules[place]


class _Mark:
    """Attached to a node; says which labels apply to the node and its inputs.

    Sequence numbers count within a thread, and nodes do not know their thread. The mark does.
    """

    __slots__ = ("__weakref__", "labels", "sequence_nr")

    def __init__(self, labels: Labels, sequence_nr: int) -> None:
        self.labels = labels
        self.sequence_nr = sequence_nr


_KEY = "blitz_helpers.labels"
_marks: WeakSet[_Mark] = WeakSet()  # each mark lives as long as its node
_marks_lock = threading.Lock()


class _Labeller:
    """Records for each thread which module of one model runs when."""

    def __init__(self, model: nn.Module) -> None:
        self._model = ref(model)
        self._paths = {module: path for path, module in model.named_modules()}
        self._here = threading.local()

    def entered(self, module: nn.Module) -> None:
        if module in self._paths:
            self._note_inner()

    def left(self, module: nn.Module, output: Any) -> None:
        if module in self._paths:
            labels = self._note_inner()
            for tensor in _tensors(output):
                if tensor.grad_fn is not None:
                    _mark(tensor.grad_fn, labels)

    def end(self) -> None:
        """Record that no module runs any more, in case one was interrupted."""
        labels: Labels | None = getattr(self._here, "labels", None)
        if labels is not None:
            labels.note(None)

    def _note_inner(self) -> Labels:
        labels: Labels | None = getattr(self._here, "labels", None)
        if labels is None:
            labels = self._here.labels = Labels(self._model)
        inner = (self._paths.get(one) for one in reversed(running_modules()))
        labels.note(next((path for path in inner if path is not None), None))
        return labels


def _mark(node: Node, labels: Labels) -> None:
    marks: list[_Mark] = node.metadata.setdefault(_KEY, [])  # type: ignore[attr-defined]  # a dict, stubbed wrongly
    if any(mark.labels is labels for mark in marks):
        return
    mark = _Mark(labels, node._sequence_nr())
    marks.append(mark)
    with _marks_lock:
        _marks.add(mark)
    free_apart(node)  # the node now has a Python object


def _tensors(output: object) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, tuple | list):
        for value in output:
            yield from _tensors(value)
    elif hasattr(output, "__dataclass_fields__"):
        yield from _tensors(vars(output))


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


class FoundLabels:
    """The labels that apply to each node of one graph."""

    def __init__(self, model: nn.Module | None) -> None:
        with _marks_lock:
            marks = list(_marks)
        self._numbers = {
            mark.sequence_nr for mark in marks if model is None or mark.labels.model() is model
        }
        self._model = model

    def __bool__(self) -> bool:
        return bool(self._numbers)

    def modules(
        self, nodes: list[Node], slots: list[list[int]], order: list[int]
    ) -> list[str | None]:
        """Return the module that was running when each node was made, if that was recorded.

        Args:
            nodes: the nodes of the graph.
            slots: for each node the indices of the nodes that feed it, -1 for an empty slot.
            order: all indices, each before those of the nodes that feed it.
        """
        above: list[tuple[Labels, ...]] = [()] * (len(nodes) + 1)
        modules: list[str | None] = [None] * (len(nodes) + 1)
        for place in order:
            node = nodes[place]
            number = node._sequence_nr()
            labels = above[place]
            if number in self._numbers:
                own = [mark.labels for mark in node.metadata.get(_KEY, ())]  # type: ignore[attr-defined]  # a dict, stubbed wrongly
                if self._model is not None:
                    own = [each for each in own if each.model() is self._model]
                labels = tuple(dict.fromkeys((*own, *labels)))
            if not labels:
                continue
            running = (each.running_at(number) for each in labels)
            modules[place] = next((module for module in running if module is not None), None)
            for source in slots[place]:
                if not above[source]:
                    above[source] = labels
                elif above[source] is not labels:
                    above[source] = tuple(dict.fromkeys((*above[source], *labels)))
        return modules


def require_module(model: object) -> None:
    """Raise a ``TypeError`` unless ``model`` is a module."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; expected a torch.nn.Module.")
