"""Walk from a tensor to the nodes behind it, in time and memory linear in their number."""

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
    """Return the graph that autograd built to go backward from ``output``.

    The graph is a snapshot and keeps no tensor alive. Taking it runs no hook and recomputes
    nothing. On every 64th level of a deep graph an entry of torch's ``node.metadata`` is left, so
    that the graph can be freed: without it, nodes seen from Python are freed one inside the other.

    Args:
        output: a tensor, or several in a tuple, list or dict, also nested.
        model: names the leaves by its parameters, and the nodes by its modules.
        tensors: names of your own for tensors in the graph. Leaves that ``model`` does not own
            are called by them; a tensor of one number is kept with its value and its gradient, and
            ``plot_graph`` writes both in its box. Call ``retain_grad()`` on a tensor that is not
            a leaf before backward, or torch keeps no gradient of it.

    Raises:
        TypeError: ``output`` or ``tensors`` holds something other than tensors, or ``model`` is
            not a module.
        ValueError: a tensor has no graph or is a leaf, there is no tensor at all, ``model`` owns
            none of the leaves, or one of ``tensors`` is not in the graph.

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
    # Nothing here is garbage, and the search for it would take as long as the rest.
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
    # Sources first: they have a number and owners when a node that they feed asks for them.
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
        except RuntimeError:  # a nested tensor is not of one shape
            shape = None
        shapes[place] = shape
        parameter = module = None
        inputs: tuple[int | None, ...] = ()
        saved: tuple[SavedTensor, ...] = ()
        if op == "accumulate_grad":
            leaf: Tensor = node.variable  # type: ignore[attr-defined]  # a leaf's node has it
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
    # The roots have the first places.
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
    """Return the nodes, roots first, and three lists that refer to them by their places.

    For each node the places of the nodes that feed its slots; all places ordered by depth; and the
    depth of each node. An empty slot has the place -1: a list that is looked up by it has one more
    element at its end.
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
        consumers.append(0)  # below 0 from the first empty slot on
        # A node comes when its last consumer has come, so the order is one by depth.
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
    except BaseException:  # a keyboard interrupt must not leave a graph that crashes later
        for node in nodes:
            free_apart(node)
        raise
    return nodes, slots, order, depths
