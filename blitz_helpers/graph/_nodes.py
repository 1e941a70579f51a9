"""The parts of a graph: nodes, the edges between them, and the tensors that nodes save."""

from __future__ import annotations

from typing import Literal, NamedTuple


# Named tuples and not dataclasses: a graph has a million of them, and a tuple is made in a
# quarter of the time.
class SavedTensor(NamedTuple):
    """A tensor that a node keeps, or kept, for its backward.

    >>> import torch
    >>> from blitz_helpers import autograd_graph
    >>> w = torch.ones(3, requires_grad=True)
    >>> [(saved.name, saved.shape, saved.state) for saved in autograd_graph(w.exp()).root.saved]
    [('result', (3,), 'kept')]
    """

    name: str
    """torch's own: ``"mat1"`` for ``node._saved_mat1``."""
    shape: tuple[int, ...] | None
    """``None`` if the tensor is freed or packed, or nested and so without a single shape."""
    nbytes: int | None
    """0 once freed; ``None`` where it is unknown: for packed, sparse and nested tensors."""
    state: Literal["kept", "freed", "changed", "packed"]
    """``"changed"``: in place, since it was saved; ``"packed"``: by a ``saved_tensors_hooks``."""


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
    """Number of the node that made it, or that fills its ``.grad``."""
    name: str
    value: float | None
    """The number in it, if it holds just one."""
    grad: float | None
    """Its gradient then, where a backward left one: in a leaf, or after ``retain_grad()``."""


class GraphNode(NamedTuple):
    """One node of an autograd graph: the backward of one operation, or a leaf.

    >>> import torch
    >>> from blitz_helpers import autograd_graph
    >>> node = autograd_graph(torch.ones(3, requires_grad=True).exp()).root
    >>> node.name, node.op, node.shape
    ('ExpBackward0', 'exp', (3,))
    """

    number: int
    """Its place in ``AutogradGraph.nodes``; edges and ``inputs`` refer to nodes by it."""
    name: str
    """torch's own without its prefix: ``"AddmmBackward0"``, ``"AccumulateGrad"``."""
    op: str
    """The operation that the forward ran: ``"addmm"``; a custom function's own name."""
    parameter: str | None
    """Dotted name of the leaf; a tied weight has its first, as in ``named_parameters()``.

    A leaf that no module owns has the name that ``autograd_graph(..., tensors=...)`` gave it.
    """
    module: str | None
    """Dotted path of the module that ran the operation or owns the parameter that feeds it."""
    shape: tuple[int, ...] | None
    """Shape of the tensor that the forward made here; of the first, if it made several."""
    inputs: tuple[int | None, ...]
    """For each slot of ``next_functions`` the number of the node there, or ``None``."""
    saved: tuple[SavedTensor, ...]
    """The tensors that it keeps for its backward."""
    depth: int
    """The longest way from the root, in edges."""

    @property
    def freed(self) -> bool | None:
        """Whether a backward has freed what it saved; ``None`` if it saved nothing."""
        if not self.saved:
            return None
        return self.saved[0].state == "freed"  # a node frees all of it at once


class GraphEdge(NamedTuple):
    """The output of one node's forward goes into a slot of another.

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
    """Number of the node that took it; it is nearer to the root."""
    slot: int
    """Which input of ``target``."""
