"""What a walk finds: nodes, edges, saved tensors, and the graph that they make."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Literal, NamedTuple

from blitz_helpers._tables import html_table, text_table
from blitz_helpers.graph._fold import FoldedGraph, fold
from blitz_helpers.graph._languages import Mermaid, dot, mermaid

# More than a page shows; and some browsers' Mermaid stops at some hundreds of edges.
_MOST_ROWS, _MOST_BOXES = 100, 100


# Named tuples and not dataclasses: a graph has a million of them, and a tuple is made in a
# quarter of the time.
class SavedTensor(NamedTuple):
    """A tensor that a node keeps for its backward, or kept."""

    name: str
    """torch's own: ``"mat1"`` for ``node._saved_mat1``."""
    shape: tuple[int, ...] | None
    """``None`` where the tensor is freed or packed, or nested and so not of one shape."""
    nbytes: int | None
    """0 once freed; ``None``: not known of a packed tensor, and of one that is not dense."""
    state: Literal["kept", "freed", "changed", "packed"]
    """``"changed"``: in place, since it was saved; ``"packed"``: by a ``saved_tensors_hooks``."""


class NamedTensor(NamedTuple):
    """A tensor that the caller of ``autograd_graph`` named."""

    node: int
    """Number of the node that made it, or that fills its ``.grad``."""
    name: str
    value: float | None
    """The number in it, if it holds just one."""
    grad: float | None
    """Its gradient then, where a backward left one: in a leaf, or after ``retain_grad()``."""


class GraphNode(NamedTuple):
    """One node of an autograd graph: the backward of one operation, or a leaf."""

    number: int
    """Its place in ``AutogradGraph.nodes``."""
    name: str
    """torch's own without its prefix: ``"AddmmBackward0"``, ``"AccumulateGrad"``."""
    op: str
    """The operation that the forward ran: ``"addmm"``; a custom function's own name."""
    parameter: str | None
    """Dotted name of the leaf; of a tied weight the first, as ``named_parameters()`` has it.

    A leaf that no module owns has the name that ``autograd_graph(..., tensors=...)`` gave it.
    """
    module: str | None
    """Dotted path of the module that ran the operation or owns the parameter it is fed."""
    shape: tuple[int, ...] | None
    """Shape of what the forward made here: of the first tensor, where it made several."""
    inputs: tuple[int | None, ...]
    """For each slot of ``next_functions`` the number of the node there, or ``None``."""
    saved: tuple[SavedTensor, ...]
    """What it keeps for its backward."""
    freed: bool | None
    """Whether a backward has freed that; ``None`` where nothing was saved."""
    depth: int
    """The longest way from the root, in edges."""


class GraphEdge(NamedTuple):
    """What one node's forward made goes into a slot of another.

    ``next_functions[slot][0]`` of node ``target`` is node ``source``.
    """

    source: int
    """Number of the node that made the tensor."""
    target: int
    """Number of the node that took it; it is nearer to the root."""
    slot: int
    """Which input of ``target``."""


@dataclass(frozen=True)
class AutogradGraph:
    """A snapshot of the graph that autograd built: see :func:`autograd_graph`."""

    nodes: tuple[GraphNode, ...]
    """Ordered by depth: every node stands before those that feed it."""
    roots: tuple[GraphNode, ...]
    """The nodes of the outputs, in their order, each once."""
    saved_bytes: int
    """Memory that the saved tensors keep, where known, parameters included.

    What several of them share counts once.
    """
    tensors: tuple[NamedTensor, ...] = ()
    """Those that the caller named, in the caller's order."""

    @cached_property
    def edges(self) -> tuple[GraphEdge, ...]:
        """Every filled slot of every node, ordered by target and slot."""
        return tuple(
            GraphEdge(source, node.number, slot)
            for node in self.nodes
            for slot, source in enumerate(node.inputs)
            if source is not None
        )

    @property
    def root(self) -> GraphNode:
        """The node of the output; of the first one, where there are several."""
        return self.roots[0]

    @property
    def leaves(self) -> tuple[GraphNode, ...]:
        """The nodes where gradients end up in a tensor's ``.grad``."""
        return tuple(node for node in self.nodes if node.name == "AccumulateGrad")

    @property
    def can_backward(self) -> bool:
        """Whether every saved tensor that ``backward()`` will ask for is there and unchanged.

        Not foreseen: what a hook raises, and what torch shows nobody, namely tensors inside a
        ``CopySlices`` (a write into a view) and inside functions written in C++.
        """
        return self.backward_error is None

    @property
    def backward_error(self) -> str | None:
        """Why ``backward()`` will fail, or ``None``."""
        for node in self.nodes:
            lost = [saved for saved in node.saved if saved.state in ("freed", "changed")]
            if lost:
                return _reason(node, lost)
        return None

    def path(self) -> str:
        """Return the operations along the longest way, from the deepest to the root."""
        inner = [node for node in self.nodes if node.name != "AccumulateGrad"]
        node = next(node for node in inner if node.depth == inner[-1].depth)
        consumers: dict[int, list[int]] = {}
        for edge in self.edges:
            consumers.setdefault(edge.source, []).append(edge.target)
        ops = [node.op]
        while node.depth:
            above = (self.nodes[number] for number in consumers[node.number])
            node = next(candidate for candidate in above if candidate.depth == node.depth - 1)
            ops.append(node.op)
        return " -> ".join(ops)

    def folded(self, limit: int = _MOST_BOXES) -> FoldedGraph:
        """Return the graph in at most ``limit`` boxes, if need be by module or by depth.

        Every box stands before those that feed it, so no arrows run in a circle.
        """
        if limit < 1:
            raise ValueError(f"limit={limit}; expected at least 1 box.")
        return fold(self, limit)

    def to_mermaid(self) -> Mermaid:
        """Return Mermaid source, folded where the graph is large; JupyterLab draws it."""
        return mermaid(self.folded())

    def to_dot(self) -> str:
        """Return source for Graphviz, folded where the graph is large."""
        return dot(self.folded())

    def __repr__(self) -> str:
        return (
            f"AutogradGraph({len(self.nodes)} nodes, {len(self.edges)} edges, "
            f"{len(self.leaves)} leaves)"
        )

    def __str__(self) -> str:
        return "\n".join([text_table(*self._table()), "", self._summary()])

    def _repr_html_(self) -> str:
        return f"{html_table(*self._table())}<p>{escape(self._summary())}</p>"

    def _table(self) -> tuple[list[str], list[list[str]], str]:
        if len(self.nodes) > _MOST_ROWS:
            return self._folded_table()
        header = ["#", "depth", "node", "inputs", "belongs to", "shape", "saved", "bytes"]
        rows = [
            [
                str(node.number),
                str(node.depth),
                node.name,
                " ".join("-" if number is None else str(number) for number in node.inputs),
                node.parameter or node.module or "",
                "" if node.shape is None else str(node.shape),
                _with_states(node.saved),
                str(sum(saved.nbytes or 0 for saved in node.saved)) if node.saved else "",
            ]
            for node in self.nodes
        ]
        return header, rows, ">><<<<<>"

    def _folded_table(self) -> tuple[list[str], list[list[str]], str]:
        rows = []
        for box in self.folded(_MOST_ROWS).boxes:
            nbytes = sum(saved.nbytes or 0 for node in box.nodes for saved in node.saved)
            rows.append([box.title, str(len(box.nodes)), box.detail, str(nbytes)])
        return ["part", "nodes", "operations", "bytes"], rows, "<><>"

    def _summary(self) -> str:
        error = self.backward_error
        return (
            f"{len(self.nodes)} nodes, {len(self.edges)} edges, {len(self.leaves)} leaves. "
            f"Saved: {self.saved_bytes:,} bytes, shared memory counted once. "
            f"{'backward() can run.' if error is None else f'backward() fails: {error}'}"
        )


def _with_states(saved: tuple[SavedTensor, ...]) -> str:
    names: dict[str, list[str]] = {}
    for tensor in saved:
        names.setdefault(tensor.state, []).append(tensor.name)
    return ", ".join(
        ", ".join(same) + ("" if state == "kept" else f" ({state})")
        for state, same in names.items()
    )


def _reason(node: GraphNode, lost: list[SavedTensor]) -> str:
    where = node.name + (f" in {node.module}" if node.module else "")
    names = ", ".join(saved.name for saved in lost)
    if lost[0].state == "freed":
        return (
            f"{where} has freed what it saved ({names}): an earlier backward went through it. "
            "Run the forward pass again."
        )
    return (
        f"{where} needs {names} as saved, and it was modified in place since. "
        "Change it after backward(), or change a copy."
    )
