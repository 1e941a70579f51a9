"""Walks from a tensor to the nodes behind it, in linear time and memory."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from torch import Tensor, UntypedStorage, nn
from torch.autograd.graph import Node

from blitz_helpers.graph._backward import check_leaf, check_root, decisive, obstacle_at
from blitz_helpers.graph._derivatives import Obstacle
from blitz_helpers.graph._graph import AutogradGraph
from blitz_helpers.graph._kinds import kind_of
from blitz_helpers.graph._labels import labelled_modules
from blitz_helpers.graph._modules import common_owner, parameters_of, require_a_frozen_parameter
from blitz_helpers.graph._nodes import GraphNode, SavedTensor
from blitz_helpers.graph._release import LEVELS_FREED_AT_ONCE, free_apart
from blitz_helpers.graph._saved import Lost, SavedReader
from blitz_helpers.graph._tensors import (
    Root,
    form_of,
    items_in,
    read_named,
    require_graph,
    require_named,
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
    tensors = {} if tensors is None else tensors
    require_named(tensors)
    # The walk makes no garbage, and collecting it would take as long as the rest.
    collects = gc.isenabled()
    gc.disable()
    try:
        return _snapshot(roots, model, tensors)
    finally:
        if collects:
            gc.enable()


def _snapshot(
    roots: Sequence[Root], model: nn.Module | None, tensors: Mapping[str, Tensor]
) -> AutogradGraph:
    # One pass over all nodes: several short ones would take twice the time.
    ends = list(dict.fromkeys(root.node for root in roots))
    nodes, slots, order, depths = _discover(ends)
    known = parameters_of(model)
    for name, tensor in tensors.items():
        known.setdefault(id(tensor), (name, []))
    modules = labelled_modules(model, nodes, slots, order)
    used: set[tuple[Node | None, int]] = set()

    def is_used(node: Node, output_nr: int) -> bool:
        if not used:
            used.update((root.node, root.output_nr) for root in roots)
            used.update(chain.from_iterable(node.next_functions for node in nodes))
        return (node, output_nr) in used

    reader = SavedReader()
    obstacles: list[Obstacle | None] = []
    leaf_obstacles: list[Obstacle | None] = []
    numbers: list[Any] = [None] * (len(nodes) + 1)  # the last one is for empty slots
    owners: list[list[str] | None] = [None] * (len(nodes) + 1)
    graph: list[GraphNode] = []
    for number in reversed(range(len(nodes))):  # inputs come before the nodes that they feed
        place = order[number]
        numbers[place] = number
        node, module = nodes[place], modules[place]
        kind = kind_of(node)
        made = node._input_metadata
        form = reader.forms[node] = form_of(made[0]) if made else None
        parameter = None
        inputs: tuple[int | None, ...] = ()
        saved: tuple[SavedTensor, ...] = ()
        if kind.is_leaf:
            leaf = node.variable  # type: ignore[attr-defined]  # AccumulateGrad has it
            assert form is not None  # a leaf always has metadata
            reader.forms[id(leaf)] = form
            parameter, owned_by = known.get(id(leaf), (None, None))
            if owned_by:
                owners[place], module = owned_by, owned_by[0]
            leaf_obstacles.append(check_leaf(parameter or "a leaf", leaf, form))
        else:
            filled, feeding = [], []
            for source in slots[place]:
                filled.append(numbers[source])
                owned_by = owners[source]
                if owned_by is not None:
                    feeding.append(owned_by)
            inputs = tuple(filled)
            if feeding:
                if kind.is_view:
                    owners[place] = feeding[0]
                if module is None:
                    module = common_owner(feeding)
            lost: list[Lost] = []
            if kind.saved:
                saved, lost = reader.read(node, kind)
            if lost or kind.check is not None:
                obstacles.append(obstacle_at(node, kind, module, lost, is_used))
        shape = form and form[0]
        depth = depths[place]
        graph.append(
            GraphNode(number, kind.name, kind.op, parameter, module, shape, inputs, saved, depth)
        )
    graph.reverse()
    if model is not None and all(node.module is None for node in graph):
        require_a_frozen_parameter(model)
    starts = tuple([graph[number] for number in numbers[: len(ends)]])
    saved_bytes = sum(map(UntypedStorage.nbytes, reader.storages))
    obstacles += map(check_root, reversed(roots))
    obstacle = decisive(obstacles[::-1] + leaf_obstacles[::-1])
    named = read_named(tensors, dict(zip(nodes, numbers, strict=False)) if tensors else {})
    return AutogradGraph(tuple(graph), starts, saved_bytes, obstacle, named)


def _discover(roots: list[Node]) -> tuple[list[Node], list[list[int]], list[int], list[int]]:
    """Return the nodes, roots first, and by their places in that list all the rest.

    The rest is: the places of each node's inputs, an order by depth, and each node's depth. An
    empty slot has place -1.
    """
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
    return nodes, slots, order, depths
