"""Facts that all nodes of one Python type share, worked out once per type."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node

from blitz_helpers.graph._code import Asks
from blitz_helpers.graph._derivatives import Check, check_of, hidden
from blitz_helpers.graph._functions import read_backward

# A parameter may reach the node that uses it through these, as through `T` under every `Addmm`.
_VIEWS = frozenset(
    (
        *("alias", "as_strided", "clone", "diagonal", "expand", "narrow", "permute", "select"),
        *("reshape_alias", "slice", "split", "split_with_sizes", "squeeze", "t", "to_copy"),
        *("transpose", "unbind", "unfold", "unsafe_view", "unsqueeze", "view"),
        *("view_as_complex", "view_as_real"),
    )
)


@dataclass(frozen=True, slots=True)
class Kind:
    """Facts about the nodes of one type."""

    name: str
    op: str
    is_leaf: bool = False
    is_view: bool = False
    is_pointwise: bool = False
    """Whether the operation computes each entry from the entries at the same place."""
    saved: tuple[tuple[str, str, str, str | None], ...] = ()
    """For each tensor that its nodes may save: name, attribute as saved, unpacked, of its sizes."""
    asks: Asks = "always"
    """Whether its backward asks for the tensors that were saved."""
    check: Check | None = None
    """Finds what else may stop a backward at one of its nodes."""


# torch's own types live for ever, but programs may create thousands of custom functions.
_kinds: dict[type[Node], Kind] = {}
_custom_kinds: WeakKeyDictionary[type[Node], Kind] = WeakKeyDictionary()


def kind_of(node: Node) -> Kind:
    """Return the kind of a node."""
    python_type = type(node)
    return _kinds.get(python_type) or _custom_kinds.get(python_type) or _learn_kind(node)


def _learn_kind(node: Node) -> Kind:
    python_type = type(node)
    if issubclass(python_type, BackwardCFunction):
        kind = _custom_kinds[python_type] = _custom_kind(node)
        return kind
    name = _QUALIFIERS.sub("", node.name())
    op = op_of(name)
    has_own_type = name == python_type.__name__  # nodes defined in C++ share one type
    raw = "_raw_saved_"
    names = [each.removeprefix(raw) for each in vars(python_type) if each.startswith(raw)]
    kind = Kind(
        name,
        op,
        is_leaf=name == "AccumulateGrad",
        is_view=op in _VIEWS,
        is_pointwise=_is_pointwise(op),
        saved=tuple(_attributes_of(name, python_type) for name in names),
        check=check_of(name) or (None if has_own_type else hidden),
    )
    if has_own_type:
        _kinds[python_type] = kind
    return kind


def _attributes_of(name: str, python_type: type[Node]) -> tuple[str, str, str, str | None]:
    sizes = f"_saved_{name}_sym_sizes"
    has_sizes = hasattr(python_type, sizes)
    return name, f"_raw_saved_{name}", f"_saved_{name}", sizes if has_sizes else None


def _custom_kind(node: Any) -> Kind:
    name = node.name()
    code = read_backward(node._forward_cls)
    return Kind(
        name,
        _BACKWARD.sub("", name) or name,
        saved=(("saved_tensors", "_raw_saved_tensors", "saved_tensors", None),),
        asks=code.asks,
        check=code.check,
    )


def _is_pointwise(op: str) -> bool:
    overloads = getattr(torch.ops.aten, op, None)
    main = (getattr(overloads, name, None) for name in ("default", "self", "Scalar", "Tensor"))
    return any(overload is not None and torch.Tag.pointwise in overload.tags for overload in main)


_QUALIFIERS = re.compile(r"^(?:[\w() ]+::)+")
_BACKWARD = re.compile(r"Backward\d*$")
# A word continues after a digit with a single capital (Pool2D, R2C), with the second half of a
# conversion (Col2Im, Deg2Rad), and in Xlog1Py.
_WORD = re.compile(r"[A-Z][a-z]*(?:2[A-Z][a-z]+|1Py|\d+(?:[A-Z](?![a-z]))?)*|[a-z]+|\d+[A-Z]")


def op_of(name: str) -> str:
    """Return the operation behind a node's name, as it is called in torch.

    >>> op_of("MaxPool2DWithIndicesBackward0")
    'max_pool2d_with_indices'
    """
    stem = _BACKWARD.sub("", name)
    if not stem.isidentifier():
        return name
    stem = stem.replace("GridSampler", "GridSampler_")  # grid_sampler_2d, unlike pool2d
    return "_".join(_WORD.findall(stem)).lower()
