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


_INT = {int}


def form_of(tensor: Any) -> Form:
    """Return the form of a tensor, or of one that a node made, from its ``_input_metadata``."""
    try:
        shape = tuple(tensor.shape)
    except RuntimeError:  # a nested tensor has no single shape
        return None, tensor.dtype
    # The symbol in place of a size of a jagged tensor is no number, and belongs to this process.
    return (shape if _INT.issuperset(map(type, shape)) else None), tensor.dtype


def expands_to(shape: Shape, target: Shape) -> bool:
    """Return whether a tensor of this shape can be broadcast to the other."""
    if len(shape) > len(target):
        return False
    pairs = zip(reversed(shape), reversed(target), strict=False)
    return all(size in (1, wanted) for size, wanted in pairs)


def items_in(output: object, where: str) -> Iterator[tuple[object, str]]:
    """Yield everything inside tuples, lists, dicts and dataclasses, each with the path to it.

    A container that holds itself, at any depth, is looked into once.
    """
    todo, seen = [(output, where)], set[int]()
    while todo:
        value, place = todo.pop()
        inside = _parts(value)
        if inside is None:
            yield value, place
        elif id(value) not in seen:
            seen.add(id(value))
            todo += [(part, f"{place}{step}") for step, part in reversed(inside)]


def _parts(value: object) -> list[tuple[str, object]] | None:
    """Return the parts of a container, each with the step to it; ``None`` for anything else."""
    if isinstance(value, Tensor):
        return None
    if isinstance(value, Mapping):
        return [(f"[{key!r}]", part) for key, part in value.items()]
    if isinstance(value, tuple | list):
        return [(f"[{place}]", part) for place, part in enumerate(value)]
    if is_dataclass(value) and not isinstance(value, type):
        return [(f".{field.name}", getattr(value, field.name, None)) for field in fields(value)]
    return None


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


def require_named(tensors: object) -> None:
    """Raise a ``TypeError`` unless ``tensors`` is a dict of tensors under names."""
    if not isinstance(tensors, Mapping):
        raise TypeError(
            f"tensors is a {type(tensors).__name__}; expected a dict of tensors under names of "
            "yours, such as {'w': w}."
        )
    for name, tensor in tensors.items():
        where = f"tensors[{name!r}]"
        if not isinstance(name, str):
            raise TypeError(f"The name of {where} is a {type(name).__name__}; expected text.")
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{where} is a {type(tensor).__name__}; expected a tensor.")


def read_named(
    tensors: Mapping[str, Tensor], numbers: Mapping[Node, int]
) -> tuple[NamedTensor, ...]:
    """Return the record of each tensor, given the number of each node of the graph."""
    records = []
    for name, tensor in tensors.items():
        where = f"tensors[{name!r}]"
        if not tensor.requires_grad:
            raise ValueError(
                f"{where} does not require grad, so it has no node in the graph. Leave it out."
            )
        node = maker_of(tensor, where) or _node_of_leaf(tensor)
        if node not in numbers:
            raise ValueError(
                f"{where} is not in this graph: output was not computed from it. "
                "Leave it out, or pass the tensor that was used."
            )
        kept = tensor.grad if tensor.is_leaf or tensor.retains_grad else None
        grad = None if kept is None else _number(kept)
        records.append(NamedTensor(numbers[node], name, _number(tensor), grad))
    return tuple(records)


def _node_of_leaf(leaf: Tensor) -> Node:
    if leaf.layout is torch.strided:
        return get_gradient_edge(leaf).node
    with torch.enable_grad():  # the function above takes a view, which a sparse tensor has not
        copied = leaf.clone().grad_fn
    assert copied is not None  # since the leaf requires grad
    return copied.next_functions[0][0]  # type: ignore[return-value]  # never None here


def _number(tensor: Tensor) -> float | None:
    """Return the value of ``tensor`` if it holds a single real number, otherwise ``None``."""
    if tensor.is_complex() or tensor.is_meta or tensor.is_nested or tensor.numel() != 1:
        return None
    try:
        return float(tensor.detach())
    except RuntimeError:  # it is one of many under vmap
        return None
