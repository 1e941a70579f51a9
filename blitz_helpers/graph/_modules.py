"""Whose a node is: the parameter of a leaf, the module of an operation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from torch import nn
from torch.autograd.graph import Node

from blitz_helpers.graph._labels import labels_of, module_running, require_module

Slots: TypeAlias = tuple[tuple[Node | None, int], ...]
"""A node's ``next_functions``."""

# Through these a parameter still feeds the node that uses it: `T` under every `Addmm`.
_VIEWS = frozenset(
    (
        *("alias", "as_strided", "clone", "diagonal", "expand", "narrow", "permute", "select"),
        *("reshape_alias", "slice", "split", "split_with_sizes", "squeeze", "t", "to_copy"),
        *("transpose", "unbind", "unfold", "unsafe_view", "unsqueeze", "view"),
        *("view_as_complex", "view_as_real"),
    )
)


def belongings(
    order: Sequence[Node], slots: Mapping[Node, Slots], ops: Sequence[str], model: nn.Module | None
) -> tuple[dict[Node, str], dict[Node, str]]:
    """Return the parameter of each leaf and the module of each node, where they are known.

    Args:
        order: the nodes, each before those that feed it.
        slots: what feeds each of them.
        ops: the operation of each, in their order.
        model: whose parameters and modules to name.

    Raises:
        TypeError: ``model`` is no module.
        ValueError: ``model`` has nothing to do with the graph.
    """
    parameters: dict[Node, str] = {}
    modules: dict[Node, str] = {}
    owners: dict[Node, list[str]] = {}  # of leaves, and of views of them
    places = {} if model is None else _places(model)
    labels = labels_of(model)
    if not places and not labels:
        if model is not None:
            raise ValueError(_nothing_to_name(model))
        return parameters, modules
    for node, op in zip(reversed(order), reversed(ops), strict=True):
        if op == "accumulate_grad":
            place = places.get(id(node.variable))  # type: ignore[attr-defined]  # a leaf has it
            if place is not None:
                parameters[node], owners[node] = place
                modules[node] = owners[node][0]
            continue
        feeding = [owners[source] for source, _ in slots[node] if source in owners]
        if feeding and op in _VIEWS:
            owners[node] = feeding[0]
        module = module_running(labels, node._sequence_nr()) if labels else None
        if module is None and feeding:
            module = _owner(feeding)
        if module is not None:
            modules[node] = module
    if model is not None and not modules:
        raise ValueError(_nothing_to_name(model))
    return parameters, modules


def _places(model: nn.Module) -> dict[int, tuple[str, list[str]]]:
    """Return by the ``id`` of each parameter its first dotted name and the modules that own it."""
    require_module(model)
    places: dict[int, tuple[str, list[str]]] = {}
    for path, module in model.named_modules():
        for name, parameter in module._parameters.items():  # a tied one more than once
            if parameter is not None:
                dotted = f"{path}.{name}" if path else name
                places.setdefault(id(parameter), (dotted, []))[1].append(path)
    return places


def _owner(feeding: list[list[str]]) -> str:
    """Return the module that owns all of the parameters, or else the first.

    A tied weight has several owners, and the bias beside it tells which of them ran.
    """
    for owner in feeding[0]:
        if all(owner in owners for owners in feeding[1:]):
            return owner
    return feeding[0][0]


def _nothing_to_name(model: nn.Module) -> str:
    kind = type(model).__name__
    if next(model.parameters(), None) is None:
        return f"model is a {kind} without parameters: it owns no leaf of this graph to name."
    return (
        f"model is a {kind} that owns no leaf of this graph: none of its parameters went into "
        "output. Pass the model that computed it, not a copy."
    )
