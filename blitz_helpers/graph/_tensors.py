"""Finds the tensors that the caller gave, and the node that made each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from blitz_helpers.graph._nodes import NamedTensor

Shape: TypeAlias = tuple[int, ...]


Form: TypeAlias = tuple[Shape | None, torch.dtype]
"""The shape and dtype, which ``.data`` and ``set_`` can change behind autograd's back."""


def form_of(tensor: Any) -> Form:
    """Return the form of a tensor, or of one that a node made, from its ``_input_metadata``."""
    try:
        return tuple(tensor.shape), tensor.dtype
    except RuntimeError:  # a nested tensor has no single shape
        return None, tensor.dtype


def items_in(output: object, where: str) -> Iterator[tuple[object, str]]:
    """Yield everything inside tuples, lists, dicts and dataclasses, each with the path to it."""
    inside: list[tuple[str, object]]
    if isinstance(output, Tensor):
        yield output, where
        return
    if isinstance(output, Mapping):
        inside = [(f"[{key!r}]", value) for key, value in output.items()]
    elif isinstance(output, tuple | list):
        inside = [(f"[{place}]", value) for place, value in enumerate(output)]
    elif is_dataclass(output) and not isinstance(output, type):
        inside = [(f".{field.name}", getattr(output, field.name, None)) for field in fields(output)]
    else:
        yield output, where
        return
    for step, value in inside:
        yield from items_in(value, where + step)


def maker_of(tensor: Tensor, where: str) -> Node | None:
    """Return the node that made a tensor, or ``None`` for a leaf; refuse a view without a graph."""
    try:
        return tensor.grad_fn
    except RuntimeError as error:
        raise ValueError(
            f"{where} is a view that has lost its graph: its base, or another view of it, was "
            "modified in place since. Make the view anew, or change a copy of its base. "
            f"(torch: {error})"
        ) from error


class Root(NamedTuple):
    """An output of the forward pass, where backward begins."""

    where: str
    form: Form
    node: Node
    output_nr: int


def require_graph(output: object, where: str) -> Root:
    """Return where backward begins for an output; refuse what is not a tensor or has no graph."""
    if not isinstance(output, Tensor):
        raise TypeError(
            f"{where} is a {type(output).__name__}; expected a tensor, "
            "or tensors in a tuple, list or dict."
        )
    node = maker_of(output, where)
    if node is not None:
        return Root(where, form_of(output), node, output.output_nr)
    if output.requires_grad:
        raise ValueError(
            f"{where} is a leaf that requires grad: no operation made it, so there is no graph "
            "behind it. Pass what was computed from it, such as a loss."
        )
    if not (output.is_floating_point() or output.is_complex()):
        raise ValueError(
            f"{where} is a tensor of {output.dtype} and can have no graph: only floating point "
            "and complex tensors have gradients. Pass the floating point output."
        )
    raise ValueError(
        f"{where} has no graph: it was made under torch.no_grad() (or inference_mode(), or by "
        "detach()), or from inputs of which none requires grad. torch does not know which. To "
        "find out, print torch.is_grad_enabled() and the requires_grad of every input where it "
        "is computed."
    )


def read_named(
    tensors: Mapping[str, Tensor], numbers: Mapping[Node, int]
) -> tuple[NamedTensor, ...]:
    """Return the record of each tensor, given the number of each node of the graph."""
    records = []
    for name, tensor in tensors.items():
        where = f"tensors[{name!r}]"
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{where} is a {type(tensor).__name__}; expected a tensor.")
        if not tensor.requires_grad:
            raise ValueError(
                f"{where} does not require grad, so it has no node in the graph. Leave it out."
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
