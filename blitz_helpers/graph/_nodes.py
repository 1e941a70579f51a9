"""The parts of a graph: nodes, the edges between them, and the tensors that nodes save."""

from __future__ import annotations

from typing import Literal, NamedTuple


# Named tuples, not dataclasses: a graph may have a million, and a tuple takes a quarter of the
# time to make.
class SavedTensor(NamedTuple):
    """A tensor that a node keeps, or kept, for its backward.

    >>> import torch
    >>> from blitz_helpers import autograd_graph
    >>> w = torch.ones(3, requires_grad=True)
    >>> [(saved.name, saved.shape, saved.state) for saved in autograd_graph(w.exp()).root.saved]
    [('result', (3,), 'kept')]
    """

    name: str
    """torch's name: ``"mat1"`` for ``node._saved_mat1``."""
    shape: tuple[int, ...] | None
    """``None`` if the tensor is freed, packed or nested (nested tensors have no single shape)."""
    nbytes: int | None
    """0 once freed; ``None`` (unknown) for packed, sparse and nested tensors."""
    state: Literal["kept", "freed", "changed", "packed"]
    """``"changed"``: modified in place since; ``"packed"``: by ``saved_tensors_hooks``."""


class NamedTensor(NamedTuple):
    """A tensor that the caller of ``autograd_graph`` named.

    >>> import torch
    >>> from blitz_helpers import autograd_graph
    >>> w = torch.tensor(2.0, requires_grad=True)
    >>> graph = autograd_graph(w * 3, tensors={"w": w})
    >>> [(named.name, named.value) for named in graph.tensors]
    [('w', 2.0)]
    """

    node: int
    """Number of the node that made it, or that fills its ``.grad`` if it is a leaf."""
    name: str
    value: float | None
    """Its value, if it holds a single number."""
    grad: float | None
    """Its gradient, if it holds a single number and backward left one in ``.grad``."""


class GraphNode(NamedTuple):
    """One node of an autograd graph: the backward of one operation, or a leaf.

    >>> import torch
    >>> from blitz_helpers import autograd_graph
    >>> node = autograd_graph(torch.ones(3, requires_grad=True).exp()).root
    >>> node.name, node.op, node.shape
    ('ExpBackward0', 'exp', (3,))
    """

    number: int
    """Its index in ``AutogradGraph.nodes``, by which edges and ``inputs`` refer to it."""
    name: str
    """torch's own without its prefix: ``"AddmmBackward0"``, ``"AccumulateGrad"``."""
    op: str
    """The operation of the forward pass, such as ``"addmm"``, or a custom function's name."""
    parameter: str | None
    """Dotted name of the leaf; the first name of a tied weight, as in ``named_parameters()``.

    A leaf that the model does not own has its name in ``autograd_graph(..., tensors=...)``.
    """
    module: str | None
    """Dotted path of the module that ran the operation or owns the parameter that feeds it."""
    shape: tuple[int, ...] | None
    """Shape of the tensor that the forward pass made here, or of the first if several."""
    inputs: tuple[int | None, ...]
    """For each slot of ``next_functions``, the number of its node, or ``None``."""
    saved: tuple[SavedTensor, ...]
    """The tensors that it keeps, or kept, for its backward."""
    depth: int
    """The length of the longest path from the root, in edges."""

    @property
    def is_leaf(self) -> bool:
        """Whether it adds a gradient to a tensor's ``.grad``."""
        return self.name == "AccumulateGrad"

    @property
    def freed(self) -> bool | None:
        """Whether backward has freed its saved tensors; ``None`` if it saved nothing."""
        if not self.saved:
            return None
        return self.saved[0].state == "freed"  # a node frees all of it at once


class GraphEdge(NamedTuple):
    """An edge of the graph: the output of one node goes into a slot of another.

    ``next_functions[slot][0]`` of node ``target`` is node ``source``.

    >>> import torch
    >>> from blitz_helpers import autograd_graph
    >>> w = torch.tensor(2.0, requires_grad=True)
    >>> sorted(edge.slot for edge in autograd_graph(w * w).edges)
    [0, 1]
    """

    source: int
    """Number of the node that made the tensor."""
    target: int
    """Number of the node that took it, nearer to the root."""
    slot: int
    """Index of the input of ``target``."""
