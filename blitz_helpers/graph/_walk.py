"""Walks from a tensor to the nodes behind it, in linear time and memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, UntypedStorage, nn
from torch.autograd.graph import Node

from blitz_helpers.graph._backward import Obstacle, check_leaf, check_saved, decisive
from blitz_helpers.graph._graph import AutogradGraph
from blitz_helpers.graph._kinds import kinds, learn_kind
from blitz_helpers.graph._labels import FoundLabels
from blitz_helpers.graph._modules import owner, parameters_of, require_a_name
from blitz_helpers.graph._nodes import GraphNode, NamedTensor, SavedTensor
from blitz_helpers.graph._release import LEVELS_FREED_AT_ONCE, free_apart
from blitz_helpers.graph._saved import Reading
from blitz_helpers.graph._tensors import Named, find_named, name_leaves, read_named


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
    named = find_named(tensors or {})
    roots = list(dict.fromkeys(_grad_fn(*found) for found in _tensors(output, "output")))
    if not roots:
        raise ValueError(f"output is an empty {type(output).__name__}: there is no tensor in it.")
    # The walk makes no garbage, and collecting it would take as long as the rest.
    collects = gc.isenabled()
    gc.disable()
    try:
        return _snapshot(roots, model, named)
    finally:
        if collects:
            gc.enable()


def _snapshot(roots: list[Node], model: nn.Module | None, named: list[Named]) -> AutogradGraph:
    known = parameters_of(model)
    labels = FoundLabels(model)
    nodes, slots, order, depths = _discover(roots)
    running = labels.modules(nodes, slots, order) if labels else [None] * len(nodes)
    # Sources first, so that their numbers and owners are known when their consumers need them.
    numbers: list[int | None] = [None] * (len(nodes) + 1)
    owners: list[list[str] | None] = [None] * (len(nodes) + 1)
    shapes: list[tuple[int, ...] | None] = [None] * (len(nodes) + 1)
    reading = Reading()
    obstacles: list[Obstacle] = []
    rows: list[tuple[Any, ...]] = []
    number = len(nodes)
    for place in reversed(order):
        number -= 1
        numbers[place] = number
        node = nodes[place]
        name, op, is_view, read_saved, check = kinds.get(type(node)) or learn_kind(node)
        metadata = node._input_metadata
        try:
            shape = tuple(metadata[0].shape) if metadata else None
        except RuntimeError:  # a nested tensor has no single shape
            shape = None
        shapes[place] = shape
        parameter = module = None
        inputs: tuple[int | None, ...] = ()
        saved: tuple[SavedTensor, ...] = ()
        if op == "accumulate_grad":
            leaf: Tensor = node.variable  # type: ignore[attr-defined]  # AccumulateGrad has it
            found = known.get(id(leaf))
            if found is not None:
                parameter, owners[place] = found
                module = found[1][0]
            if leaf.grad_fn is not None or leaf.grad is not None or shape != leaf.shape:
                if shape is not None and shape != leaf.shape:
                    reading.reshaped_leaves[id(leaf)] = shape
                obstacle = check_leaf(parameter or "a leaf", leaf, shape)
                if obstacle is not None:
                    obstacles.append(obstacle)
        else:
            filled = []
            feeding = []
            for source in slots[place]:
                filled.append(numbers[source])
                owned = owners[source]
                if owned is not None:
                    feeding.append(owned)
            inputs = tuple(filled)
            module = running[place]
            if feeding:
                if is_view:
                    owners[place] = feeding[0]
                if module is None:
                    module = owner(feeding)
            if read_saved is not None:
                reading.shapes = [shape, *[shapes[source] for source in slots[place]]]
                saved = read_saved(node, reading)
            if reading.lost or check is not None:
                where = f"{name} in {module}" if module else name
                lost, reading.lost = reading.lost, []
                obstacle = (check_saved if check is None else check)(node, where, lost)
                if obstacle is not None:
                    obstacles.append(obstacle)
        rows.append((number, name, op, parameter, module, shape, inputs, saved, depths[place]))
    graph = tuple(map(GraphNode._make, reversed(rows)))
    if model is not None and all(node.module is None for node in graph):
        require_a_name(model)
    tensors: tuple[NamedTensor, ...] = ()
    if named:
        at = {node: place for place, node in zip(numbers, nodes, strict=False) if place is not None}
        tensors = read_named(named, at)
        graph = name_leaves(graph, tensors)
    # The roots come first.
    starts = tuple([graph[number] for number in numbers[: len(roots)] if number is not None])
    saved_bytes = sum(map(UntypedStorage.nbytes, reading.storages))
    return AutogradGraph(graph, starts, saved_bytes, decisive(obstacles[::-1]), tensors)


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
    try:
        node = tensor.grad_fn
    except RuntimeError as error:
        raise ValueError(
            f"{where} is a view that has lost its graph: its base, or another view of it, was "
            "modified in place since. Make the view anew, or change a copy of its base. "
            f"(torch: {error})"
        ) from error
    if node is not None:
        return node
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


def _discover(roots: list[Node]) -> tuple[list[Node], list[list[int]], list[int], list[int]]:
    """Return the nodes, roots first, and three lists that refer to them by index.

    The lists hold, for each node, the indices of the nodes that feed its slots; all indices
    ordered by depth; and the depth of each node. An empty slot has index -1, so each list that is
    looked up by index has one extra element at the end.
    """
    nodes = list(roots)
    places = {root: place for place, root in enumerate(roots)}
    consumers = [0] * len(roots)
    slots: list[list[int]] = []
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
        consumers.append(0)  # the element for empty slots, which goes below 0
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
