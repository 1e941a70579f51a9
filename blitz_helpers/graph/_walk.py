"""Walks from a tensor to the nodes behind it, in linear time and memory."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Any

from torch import Tensor, UntypedStorage, nn
from torch.autograd.graph import Node

from blitz_helpers.graph._backward import Obstacle, check_leaf, check_root, decisive, obstacle_at
from blitz_helpers.graph._graph import AutogradGraph
from blitz_helpers.graph._kinds import kind_of
from blitz_helpers.graph._modules import find_owners
from blitz_helpers.graph._nodes import GraphNode, SavedTensor
from blitz_helpers.graph._release import LEVELS_FREED_AT_ONCE, free_apart
from blitz_helpers.graph._saved import Lost, SavedReader
from blitz_helpers.graph._tensors import (
    Form,
    Root,
    form_of,
    items_in,
    read_named,
    require_graph,
)


def autograd_graph(
    output: Tensor | tuple[Any, ...] | list[Any] | Mapping[Any, Any],
    model: nn.Module | None = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> AutogradGraph:
    """Return the graph that autograd built for a backward pass from ``output``.

    The graph is a snapshot and keeps no tensor alive. Taking it runs no hooks and recomputes
    nothing. On every 64th level of a deep graph it leaves an entry in torch's ``node.metadata``,
    so that freeing the graph later does not overflow the C stack.

    Args:
        output: a tensor, or several in a tuple, list or dict, which may be nested.
        model: gives leaves the names of its parameters, and nodes the paths of its modules.
        tensors: your own names for tensors in the graph. They name leaves that ``model`` does not
            own. The value and gradient of a tensor of one number are kept, and ``plot_graph``
            writes both in its box. For a tensor that is not a leaf, call ``retain_grad()`` before
            backward; otherwise torch keeps no gradient for it.

    Raises:
        TypeError: ``output`` or ``tensors`` holds something other than tensors, or ``model`` is
            not a module.
        ValueError: ``output`` holds no tensor, or one that is a leaf or has no graph; ``model``
            owns none of the leaves; or one of ``tensors`` is not in the graph.

    >>> import torch
    >>> model = torch.nn.Linear(3, 2)
    >>> graph = autograd_graph(model(torch.ones(1, 3)).sum(), model)
    >>> graph
    AutogradGraph(5 nodes, 4 edges, 2 leaves)
    >>> graph.path()
    't -> addmm -> sum'
    >>> [leaf.parameter for leaf in graph.leaves]
    ['bias', 'weight']

    >>> w = torch.tensor(2.0, requires_grad=True)
    >>> autograd_graph(w * 3, tensors={"w": w}).tensors
    (NamedTensor(node=1, name='w', value=2.0, grad=None),)
    """
    roots = [require_graph(*found) for found in items_in(output, "output")]
    if not roots:
        raise ValueError(f"output is an empty {type(output).__name__}: there is no tensor in it.")
    # The walk makes no garbage, and collecting it would take as long as the rest.
    collects = gc.isenabled()
    gc.disable()
    try:
        return _snapshot(roots, model, tensors or {})
    finally:
        if collects:
            gc.enable()


def _snapshot(
    roots: Sequence[Root], model: nn.Module | None, tensors: Mapping[str, Tensor]
) -> AutogradGraph:
    nodes, inputs, depths = _discover(list(dict.fromkeys(root.node for root in roots)))
    numbers = dict(zip(nodes, range(len(nodes)), strict=True))
    kinds = list(map(kind_of, nodes))
    parameters, modules = find_owners(model, nodes, kinds, inputs)
    named = read_named(tensors, numbers)
    for number, name, *_ in named:
        if kinds[number].is_leaf and parameters[number] is None:
            parameters[number] = name
    forms = list(map(_form_made_at, nodes))

    @cache
    def used_outputs() -> set[tuple[Node | None, int]]:
        begins = ((root.node, root.output_nr) for root in roots)
        return {*begins, *chain.from_iterable(node.next_functions for node in nodes)}

    def is_used(node: Node, output_nr: int) -> bool:
        return (node, output_nr) in used_outputs()

    reader = SavedReader()
    leaf_obstacles = []
    for number in (number for number, kind in enumerate(kinds) if kind.is_leaf):
        leaf = nodes[number].variable  # type: ignore[attr-defined]  # AccumulateGrad has it
        then, now = forms[number], form_of(leaf)
        assert then is not None  # a leaf always has metadata
        if then != now:
            reader.changed_leaves[id(leaf)] = then
        leaf_obstacles.append(check_leaf(parameters[number] or "a leaf", leaf, then, now))
    obstacles: list[Obstacle | None] = list(map(check_root, roots))
    saved: list[tuple[SavedTensor, ...]] = [()] * len(nodes)
    for number, (node, kind) in enumerate(zip(nodes, kinds, strict=True)):
        lost: list[Lost] = []
        if kind.saved:
            made = [forms[source] for source in inputs[number] if source is not None]
            saved[number], lost = reader.read(node, kind, [forms[number], *made])
        obstacles.append(obstacle_at(node, kind, modules[number], lost, is_used))
    shapes = [form and form.shape for form in forms]
    names, ops = ([getattr(kind, field) for kind in kinds] for field in ("name", "op"))
    columns = (range(len(nodes)), names, ops, parameters, modules, shapes, inputs, saved, depths)
    graph = tuple(map(GraphNode._make, zip(*columns, strict=True)))
    starts = tuple(graph[number] for number in dict.fromkeys(numbers[root.node] for root in roots))
    saved_bytes = sum(map(UntypedStorage.nbytes, reader.storages))
    return AutogradGraph(graph, starts, saved_bytes, decisive(obstacles + leaf_obstacles), named)


def _form_made_at(node: Node) -> Form | None:
    metadata = node._input_metadata
    return form_of(metadata[0]) if metadata else None


def _discover(roots: list[Node]) -> tuple[list[Node], list[tuple[int | None, ...]], list[int]]:
    """Return the nodes by depth, and for each the numbers of its inputs, and its depth."""
    nodes = list(roots)
    places = {root: place for place, root in enumerate(roots)}
    consumers = [0] * len(roots)
    slots: list[list[int]] = []  # an empty slot has place -1, at the end of the lists below
    try:
        for node in nodes:
            sources = []
            for feeding, _ in node.next_functions:
                if feeding is None:
                    place = -1
                elif feeding in places:
                    place = places[feeding]
                    consumers[place] += 1
                else:
                    place = places[feeding] = len(nodes)
                    nodes.append(feeding)
                    consumers.append(1)
                sources.append(place)
            slots.append(sources)
        consumers.append(0)
        # A node comes after its last consumer, which gives an order by depth.
        order = [place for place in range(len(roots)) if not consumers[place]]
        depths = [0] * len(nodes)
        for place in order:
            for source in slots[place]:
                consumers[source] -= 1
                if not consumers[source]:
                    depths[source] = depths[place] + 1
                    order.append(source)
        if depths[order[-1]] > LEVELS_FREED_AT_ONCE:
            slots.append([])
            for place in order:
                level = depths[place] // LEVELS_FREED_AT_ONCE
                for source in slots[place]:
                    if slots[source] and depths[source] // LEVELS_FREED_AT_ONCE != level:
                        free_apart(nodes[place])
                        break
    except BaseException:  # an interrupt must not leave a graph that crashes when freed
        for node in nodes:
            free_apart(node)
        raise
    numbers: list[int | None] = [None] * (len(nodes) + 1)
    for number, place in enumerate(order):
        numbers[place] = number
    return (
        [nodes[place] for place in order],
        [tuple([numbers[source] for source in slots[place]]) for place in order],
        [depths[place] for place in order],
    )
