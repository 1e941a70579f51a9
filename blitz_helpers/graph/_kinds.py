"""Facts that all nodes of one Python type share, worked out once per type."""

from __future__ import annotations

import re
from typing import TypeAlias
from weakref import WeakKeyDictionary

from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node

from blitz_helpers.graph._backward import Check, check_custom, check_of
from blitz_helpers.graph._functions import read_backward
from blitz_helpers.graph._modules import VIEWS
from blitz_helpers.graph._saved import SavedReader, read_custom, saved_reader

Kind: TypeAlias = tuple[str, str, bool, SavedReader | None, Check | None]
"""Name, operation, whether that is a view, reader of saved tensors, check for obstacles.

A plain tuple, since a named tuple is far slower to unpack.
"""

# torch's own types live for ever, but programs may create thousands of custom functions.
kinds: dict[type[Node], Kind] = {}
_custom_kinds: WeakKeyDictionary[type[Node], Kind] = WeakKeyDictionary()


def learn_kind(node: Node) -> Kind:
    """Return the kind of a node, and add it to ``kinds`` unless other kinds share its type."""
    python_type = type(node)
    if issubclass(python_type, BackwardCFunction):
        kind = _custom_kinds.get(python_type)
        if kind is None:
            name = node.name()
            code = read_backward(node._forward_cls)
            kind = (name, _BACKWARD.sub("", name) or name, False, read_custom, check_custom(code))
            _custom_kinds[python_type] = kind
        return kind
    name = _QUALIFIERS.sub("", node.name())
    op = op_of(name)
    has_own_type = name == python_type.__name__  # nodes defined in C++ share one type
    kind = (name, op, op in VIEWS, saved_reader(python_type), check_of(name, has_own_type))
    if has_own_type:
        kinds[python_type] = kind
    return kind


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
