"""Tensors that the caller named, with their values and gradients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from blitz_helpers.graph._nodes import GraphNode, NamedTensor


class Named(NamedTuple):
    """A tensor that the caller named, and the node it belongs to."""

    name: str
    tensor: Tensor
    node: Node


def find_named(tensors: Mapping[str, Tensor]) -> list[Named]:
    """Return the node that made each tensor, or that fills its ``.grad`` if it is a leaf.

    Raises:
        TypeError: one of them is not a tensor.
        ValueError: one of them does not require grad.
    """
    named = []
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"tensors[{name!r}] is a {type(tensor).__name__}; expected a tensor.")
        if not tensor.requires_grad:
            raise ValueError(
                f"tensors[{name!r}] does not require grad, so no node of the graph is its own. "
                "Leave it out."
            )
        named.append(Named(name, tensor, get_gradient_edge(tensor).node))
    return named


def read_named(named: Iterable[Named], numbers: Mapping[Node, int]) -> tuple[NamedTensor, ...]:
    """Return the record of each named tensor, given the number of each node.

    Raises:
        ValueError: the node of one of them is not in the graph.
    """
    records = []
    for name, tensor, node in named:
        if node not in numbers:
            raise ValueError(
                f"tensors[{name!r}] is not in this graph: output was not computed from it. "
                "Leave it out, or pass the tensor that was used."
            )
        kept = tensor.grad if tensor.is_leaf or tensor.retains_grad else None
        grad = None if kept is None else _number(kept)
        records.append(NamedTensor(numbers[node], name, _number(tensor), grad))
    return tuple(records)


def name_leaves(
    nodes: tuple[GraphNode, ...], tensors: Iterable[NamedTensor]
) -> tuple[GraphNode, ...]:
    """Return ``nodes`` with the caller's names on the leaves that have none."""
    names = {tensor.node: tensor.name for tensor in tensors}
    return tuple(
        node._replace(parameter=names[node.number])
        if node.name == "AccumulateGrad" and node.parameter is None and node.number in names
        else node
        for node in nodes
    )


def _number(tensor: Tensor) -> float | None:
    """Return the value of ``tensor`` if it holds a single real number, otherwise ``None``."""
    if tensor.is_complex() or tensor.is_meta or tensor.is_nested or tensor.numel() != 1:
        return None
    return float(tensor.detach())
