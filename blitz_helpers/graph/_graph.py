"""The autograd graph as a whole, with its views: text, HTML, Mermaid and DOT."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from html import escape
from operator import index

from blitz_helpers._tables import html_table, scroll_box, text_table
from blitz_helpers.graph._derivatives import Obstacle
from blitz_helpers.graph._fold import FoldedGraph, fold
from blitz_helpers.graph._languages import dot, mermaid
from blitz_helpers.graph._nodes import GraphEdge, GraphNode, NamedTensor, SavedTensor

# No more fit on a page, and Mermaid fails in some browsers at a few hundred edges.
_MOST_ROWS, _MOST_BOXES = 100, 100


@dataclass(frozen=True)
class AutogradGraph:
    """A snapshot of the graph that autograd built: see :func:`autograd_graph`.

    >>> import torch
    >>> from blitz_helpers import autograd_graph
    >>> w = torch.tensor(2.0, requires_grad=True)
    >>> graph = autograd_graph((w * 3).square())
    >>> graph.path(), len(graph.nodes), graph.can_backward
    ('mul -> pow', 3, True)
    """

    nodes: tuple[GraphNode, ...]
    """All nodes, ordered by depth: every node comes before those that feed it."""
    roots: tuple[GraphNode, ...]
    """The nodes of the outputs, in order and without repeats."""
    saved_bytes: int
    """Memory held by the saved tensors, including parameters, as far as it is known.

    Memory that several of them share counts once.
    """
    _obstacle: Obstacle | None
    """The reason why ``backward()`` fails, or may fail."""
    tensors: tuple[NamedTensor, ...] = ()
    """The tensors that the caller named, in the caller's order."""

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
        """The node of the output, or of the first output if there are several."""
        return self.roots[0]

    @property
    def leaves(self) -> tuple[GraphNode, ...]:
        """The nodes that add a gradient to a tensor's ``.grad``."""
        return tuple(node for node in self.nodes if node.is_leaf)

    @property
    def can_backward(self) -> bool | None:
        """Whether one call of ``torch.autograd.backward`` works, as of the time of the walk.

        The call gets all outputs and gradients of their shapes, and no other arguments. ``True``:
        it works; ``False``: it raises; ``None``: only running it can tell, for the reason in
        ``backward_error``. It cannot foresee errors that user hooks raise, nor gradients of a wrong
        shape or type that a custom ``Function`` returns: only their number is read.
        """
        if self._obstacle is None:
            return True
        return False if self._obstacle.is_certain else None

    @property
    def backward_error(self) -> str | None:
        """The reason why ``backward()`` will or may fail; ``None`` if it works."""
        return None if self._obstacle is None else self._obstacle.reason

    def path(self) -> str:
        """Return the operations along the longest path, from the deepest one to the root."""
        node = max((node for node in self.nodes if not node.is_leaf), key=lambda node: node.depth)
        consumers: dict[int, int] = {}
        for source, target, _ in self.edges:
            if self.nodes[target].depth == self.nodes[source].depth - 1:
                consumers.setdefault(source, target)
        ops = [node.op]
        while node.depth:
            node = self.nodes[consumers[node.number]]
            ops.append(node.op)
        return " -> ".join(ops)

    def folded(self, limit: int = _MOST_BOXES) -> FoldedGraph:
        """Return the graph in at most ``limit`` boxes, grouped by module or depth if necessary.

        Every box comes before those that feed it, so there are no cycles.
        """
        try:
            limit = index(limit)
        except TypeError as error:
            raise TypeError(f"limit={limit!r}; expected a whole number of boxes.") from error
        if limit < 1:
            raise ValueError(f"limit={limit}; expected at least 1 box.")
        return fold(self.nodes, limit)

    def to_mermaid(self) -> str:
        """Return Mermaid source, which JupyterLab draws; a large graph is folded."""
        return mermaid(self.folded())

    def to_dot(self) -> str:
        """Return Graphviz source; a large graph is folded."""
        return dot(self.folded())

    def __repr__(self) -> str:
        return (
            f"AutogradGraph({len(self.nodes)} nodes, {len(self.edges)} edges, "
            f"{len(self.leaves)} leaves)"
        )

    def __str__(self) -> str:
        return "\n".join([text_table(*self._table()), "", self._summary()])

    def _repr_html_(self) -> str:
        html = f"{html_table(*self._table())}<p>{escape(self._summary())}</p>"
        return scroll_box(html, "Autograd graph")

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
                f"{sum(saved.nbytes or 0 for saved in node.saved):,}" if node.saved else "",
            ]
            for node in self.nodes
        ]
        return header, rows, ">><<<<<>"

    def _folded_table(self) -> tuple[list[str], list[list[str]], str]:
        rows = []
        for box in self.folded(_MOST_ROWS).boxes:
            nbytes = sum(saved.nbytes or 0 for node in box.nodes for saved in node.saved)
            rows.append([box.title, f"{len(box.nodes):,}", box.detail, f"{nbytes:,}"])
        return ["part", "nodes", "operations", "bytes"], rows, "<><>"

    def _summary(self) -> str:
        verdict = {True: "can run.", False: "fails:", None: "may fail:"}[self.can_backward]
        return (
            f"{len(self.nodes)} nodes, {len(self.edges)} edges, {len(self.leaves)} leaves. "
            f"Saved: {self.saved_bytes:,} bytes, shared memory counted once. "
            f"backward() {verdict} {self.backward_error or ''}".rstrip()
        )


def _with_states(saved: tuple[SavedTensor, ...]) -> str:
    names: dict[str, list[str]] = {}
    for tensor in saved:
        names.setdefault(tensor.state, []).append(tensor.name)
    return ", ".join(
        ", ".join(same) + ("" if state == "kept" else f" ({state})")
        for state, same in names.items()
    )
