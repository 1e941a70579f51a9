"""From a tensor to the nodes behind it, in time and memory linear in their number."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node

from blitz_helpers.graph._modules import Slots, belongings
from blitz_helpers.graph._records import AutogradGraph, GraphNode
from blitz_helpers.graph._release import LEVELS_FREED_AT_ONCE, free_apart
from blitz_helpers.graph._saved import Findings, SavedReader, read_custom, saved_reader


def autograd_graph(
    output: Tensor | tuple[Any, ...] | list[Any] | Mapping[Any, Any], model: nn.Module | None = None
) -> AutogradGraph:
    """Return the graph that autograd built to go backward from ``output``.

    The graph is a snapshot and keeps no tensor alive. Taking it runs no hook and recomputes
    nothing. On every 64th level of a deep graph an entry of torch's ``node.metadata`` is left, so
    that the graph can be freed: without it, nodes seen from Python are freed one inside the other.

    Args:
        output: a tensor, or several in a tuple, list or dict, also nested.
        model: names the leaves by its parameters, and the nodes by its modules.

    Raises:
        TypeError: ``output`` holds something that is no tensor, or ``model`` is no module.
        ValueError: a tensor has no graph or is a leaf, there is no tensor at all, or ``model``
            owns none of the leaves.

    >>> import torch
    >>> model = torch.nn.Linear(3, 2)
    >>> graph = autograd_graph(model(torch.ones(1, 3)).sum(), model)
    >>> graph
    AutogradGraph(5 nodes, 4 edges, 2 leaves)
    >>> graph.path()
    't -> addmm -> sum'
    >>> [leaf.parameter for leaf in graph.leaves]
    ['bias', 'weight']
    """
    roots = list(dict.fromkeys(_grad_fn(*found) for found in _tensors(output, "output")))
    if not roots:
        raise ValueError(f"output is an empty {type(output).__name__}: there is no tensor in it.")
    with _collector_paused():
        return _snapshot(roots, model)


def _snapshot(roots: list[Node], model: nn.Module | None) -> AutogradGraph:
    slots, depths = _discover(roots)
    order = list(depths)
    kinds = [_kinds.get(type(node)) or _learn_kind(node) for node in order]
    ops = [kind.op for kind in kinds]
    parameters, modules = belongings(order, slots, ops, model)
    numbers: dict[Node | None, int] = dict(zip(order, count(), strict=False))
    findings = Findings()
    saved = [
        kind.read_saved(node, findings) if kind.read_saved else ()
        for node, kind in zip(order, kinds, strict=True)
    ]
    columns = (
        numbers.values(),
        [kind.name for kind in kinds],
        ops,
        [parameters.get(node) for node in order],
        [modules.get(node) for node in order],
        [_shape(node) for node in order],
        [tuple([numbers.get(source) for source, _ in slots[node]]) for node in order],
        saved,
        # A node frees all of it at once.
        [tensors[0].state == "freed" if tensors else None for tensors in saved],
        depths.values(),
    )
    nodes = tuple(map(GraphNode._make, zip(*columns, strict=True)))
    return AutogradGraph(
        nodes, tuple([nodes[numbers[root]] for root in roots]), findings.saved_bytes
    )


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep Python from searching for garbage again and again while a large graph is read.

    There is none in it, and the search would take as long as the rest.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _tensors(output: object, where: str) -> Iterator[tuple[Tensor, str]]:
    if isinstance(output, Tensor):
        yield output, where
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from _tensors(value, f"{where}[{key!r}]")
    elif isinstance(output, tuple | list):
        for place, value in enumerate(output):
            yield from _tensors(value, f"{where}[{place}]")
    else:
        raise TypeError(
            f"{where} is a {type(output).__name__}; expected a tensor, "
            "or tensors in a tuple, list or dict."
        )


def _grad_fn(tensor: Tensor, where: str) -> Node:
    if tensor.grad_fn is not None:
        return tensor.grad_fn
    if tensor.requires_grad:
        raise ValueError(
            f"{where} is a leaf that requires grad: no operation made it, so there is no graph "
            "behind it. Pass what was computed from it, such as a loss."
        )
    if not (tensor.is_floating_point() or tensor.is_complex()):
        raise ValueError(
            f"{where} is a tensor of {tensor.dtype} and can have no graph: only floating point "
            "and complex tensors have gradients. Pass the floating point output."
        )
    raise ValueError(
        f"{where} has no graph: it was made under torch.no_grad() (or inference_mode(), or by "
        "detach()), or from inputs of which none requires grad. torch does not know which. To "
        "find out, print torch.is_grad_enabled() and the requires_grad of every input where it "
        "is computed."
    )


def _discover(roots: list[Node]) -> tuple[dict[Node, Slots], dict[Node, int]]:
    """Return the slots of every node, and the depth of each, in an order by depth."""
    slots: dict[Node, Slots] = {}
    consumers = dict.fromkeys(roots, 0)
    try:
        todo = list(roots)
        while todo:
            node = todo.pop()
            slots[node] = node.next_functions
            for source, _ in slots[node]:
                if source is None:
                    continue
                if source in consumers:
                    consumers[source] += 1
                else:
                    consumers[source] = 1
                    todo.append(source)
        # A node comes when its last consumer has come, so the order is one by depth.
        order = [root for root in roots if not consumers[root]]
        depths = dict.fromkeys(order, 0)
        for node in order:
            for source, _ in slots[node]:
                if source is not None:
                    consumers[source] -= 1
                    if not consumers[source]:
                        depths[source] = depths[node] + 1
                        order.append(source)
        if depths[order[-1]] > LEVELS_FREED_AT_ONCE:
            for node in order:
                level = depths[node] // LEVELS_FREED_AT_ONCE
                for source, _ in slots[node]:
                    if source is None or not slots[source]:
                        continue
                    if depths[source] // LEVELS_FREED_AT_ONCE != level:
                        free_apart(node)
                        break
    except BaseException:  # a keyboard interrupt must not leave a graph that crashes later
        for node in slots:
            free_apart(node)
        raise
    return slots, depths


class _Kind(NamedTuple):
    """What is the same for all nodes of one Python type."""

    name: str
    op: str
    read_saved: SavedReader | None


# torch's own types last for ever; those of custom functions may be made by the thousand.
_kinds: dict[type[Node], _Kind] = {}
_custom_kinds: WeakKeyDictionary[type[Node], _Kind] = WeakKeyDictionary()


def _learn_kind(node: Node) -> _Kind:
    """Return the kind of a node whose type is not in ``_kinds``, and put it there if it may be."""
    python_type = type(node)
    if issubclass(python_type, BackwardCFunction):
        kind = _custom_kinds.get(python_type)
        if kind is None:
            name = node.name()
            kind = _Kind(name, _BACKWARD.sub("", name) or name, read_custom)
            _custom_kinds[python_type] = kind
        return kind
    name = _QUALIFIERS.sub("", node.name())
    kind = _Kind(name, _op(name), saved_reader(python_type))
    if name == python_type.__name__:  # else one that Python does not know: they share a type
        _kinds[python_type] = kind
    return kind


_QUALIFIERS = re.compile(r"^(?:[\w() ]+::)+")
_BACKWARD = re.compile(r"Backward\d*$")
# What follows a digit goes on with the word: a single capital (Pool2D, R2C), and what is on the
# other side of a 2 (Col2Im, Deg2Rad); and Xlog1Py.
_WORD = re.compile(r"[A-Z][a-z]*(?:2[A-Z][a-z]+|1Py|\d+(?:[A-Z](?![a-z]))?)*|[a-z]+|\d+[A-Z]")


def _op(name: str) -> str:
    """Return the operation behind a node's name, as one calls it.

    >>> _op("MaxPool2DWithIndicesBackward0")
    'max_pool2d_with_indices'
    """
    stem = _BACKWARD.sub("", name)
    if not stem.isidentifier():
        return name
    stem = stem.replace("GridSampler", "GridSampler_")  # grid_sampler_2d, unlike pool2d
    return "_".join(_WORD.findall(stem)).lower()


def _shape(node: Node) -> tuple[int, ...] | None:
    metadata = node._input_metadata
    try:
        return tuple(metadata[0].shape) if metadata else None
    except RuntimeError:  # a nested tensor is not of one shape
        return None
