"""Finds the tensors that the caller named, with their values and gradients."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from blitz_helpers.graph._nodes import NamedTensor
from blitz_helpers.graph._outputs import maker_of


def read_named(
    tensors: Mapping[str, Tensor], numbers: Mapping[Node, int]
) -> tuple[NamedTensor, ...]:
    """Return the record of each tensor, given the number of each node of the graph.

    Raises:
        TypeError: one of them is not a tensor.
        ValueError: one of them has no node, or none of these.
    """
    records = []
    for name, tensor in tensors.items():
        where = f"tensors[{name!r}]"
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{where} is a {type(tensor).__name__}; expected a tensor.")
        if not tensor.requires_grad:
            raise ValueError(
                f"{where} does not require grad, so no node of the graph is its own. Leave it out."
            )
        node = maker_of(tensor, where) or get_gradient_edge(tensor).node
        if node not in numbers:
            raise ValueError(
                f"{where} is not in this graph: output was not computed from it. "
                "Leave it out, or pass the tensor that was used."
            )
        kept = tensor.grad if tensor.is_leaf or tensor.retains_grad else None
        grad = None if kept is None else _number(kept)
        records.append(NamedTensor(numbers[node], name, _number(tensor), grad))
    return tuple(records)


def _number(tensor: Tensor) -> float | None:
    """Return the value of ``tensor`` if it holds a single real number, otherwise ``None``."""
    if tensor.is_complex() or tensor.is_meta or tensor.is_nested or tensor.numel() != 1:
        return None
    return float(tensor.detach())
