"""Folds a large graph into a limited number of boxes."""

from __future__ import annotations

from collections import Counter
from typing import Literal, NamedTuple, TypeAlias

from blitz_helpers.graph._nodes import GraphNode

_BANDS = 12  # at most; a graph without modules is cut into bands of depth
_Nodes: TypeAlias = tuple[GraphNode, ...]


class Box(NamedTuple):
    """Nodes of a graph that are shown as one box."""

    title: str
    """The operation or parameter of a single node; otherwise the module or range of depths."""
    detail: str
    """The module of a single node; otherwise the operations and their counts."""
    nodes: tuple[GraphNode, ...]

    @property
    def kind(self) -> Literal["operation", "leaf", "freed"]:
        """``"leaf"``: a single leaf; ``"freed"``: backward has freed saved tensors of some node."""
        if len(self.nodes) == 1 and self.nodes[0].is_leaf:
            return "leaf"
        return "freed" if any(node.freed for node in self.nodes) else "operation"


class Arrow(NamedTuple):
    """An arrow from one box to another that takes its output."""

    source: int
    target: int
    slot: int | None
    """The input slot, if the target is a single node with several inputs."""


class FoldedGraph(NamedTuple):
    """Boxes, and arrows that refer to them by index.

    Every box comes before those that feed it, so there are no cycles.

    >>> import torch
    >>> from blitz_helpers import autograd_graph
    >>> w = torch.tensor(2.0, requires_grad=True)
    >>> folded = autograd_graph((w * 3).square()).folded(limit=2)
    >>> len(folded.boxes), len(folded.arrows)
    (2, 1)
    """

    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]


def fold(nodes: _Nodes, limit: int) -> FoldedGraph:
    """Group the nodes into boxes: one node per box if there are at most ``limit``.

    Otherwise consecutive nodes of one module share a box, at the deepest nesting of modules that
    stays within the limit; a node without a module joins the nodes that feed it. A graph without
    modules, or one that still has too many boxes, is cut by depth into a chain of bands.
    """
    if len(nodes) <= limit:
        return _boxes([("", [node]) for node in nodes])
    paths = _paths(nodes)
    for length in range(max(map(len, paths)), 0, -1):
        stretches = _stretches(nodes, [path[:length] for path in paths])
        if len(stretches) <= limit:
            return _boxes(stretches)
    # A leaf joins its deepest consumer, which is one level above it.
    depths = [node.depth - node.is_leaf for node in nodes]
    deepest = max(depths)
    height = deepest // min(_BANDS, limit) + 1
    bands: dict[int, list[GraphNode]] = {}
    for node, depth in zip(nodes, depths, strict=True):
        bands.setdefault(depth // height, []).append(node)
    boxes = tuple(
        _box(f"depth {band * height:,} to {min((band + 1) * height - 1, deepest):,}", inside)
        for band, inside in sorted(bands.items())
    )
    return FoldedGraph(boxes, tuple(Arrow(band + 1, band, None) for band in range(len(boxes) - 1)))


def _paths(nodes: _Nodes) -> list[tuple[str, ...]]:
    """Return the module path of each node, or of its deepest input if it has none.

    The root module does not count, since it runs between all others.
    """
    paths: list[tuple[str, ...]] = [()] * len(nodes)
    for node in reversed(nodes):
        if node.module:
            paths[node.number] = tuple(node.module.split("."))
        else:
            known = [number for number in node.inputs if number is not None and paths[number]]
            if known:
                paths[node.number] = paths[max(known, key=lambda at: nodes[at].depth)]
    return paths


def _stretches(nodes: _Nodes, paths: list[tuple[str, ...]]) -> list[tuple[str, list[GraphNode]]]:
    """Group the nodes by path and rank, each group under the name of its module.

    A node's rank is the maximum number of module changes on any path from the root. It grows from
    each box to those that feed it, which rules out cycles even if a module runs several times.
    """
    ranks = [(0, path) for path in paths]
    for node in nodes:
        rank, path = ranks[node.number]
        for source in node.inputs:
            if source is None:
                continue
            is_nameless_leaf = not paths[source] and not nodes[source].inputs
            if is_nameless_leaf:  # it gets no box of its own and joins its last consumer
                candidate = (rank, path)
            else:
                candidate = (rank + (path != paths[source] or not path), paths[source])
            ranks[source] = max(ranks[source], candidate)
    stretches: dict[tuple[int, tuple[str, ...]], list[GraphNode]] = {}
    for node in nodes:
        stretches.setdefault(ranks[node.number], []).append(node)
    return [(".".join(path), inside) for (_, path), inside in sorted(stretches.items())]


def _boxes(groups: list[tuple[str, list[GraphNode]]]) -> FoldedGraph:
    place = {node.number: at for at, (_, nodes) in enumerate(groups) for node in nodes}
    arrows: dict[Arrow, None] = {}  # used as an ordered set, sorted by target and slot
    for target, (_, nodes) in enumerate(groups):
        for node in nodes:
            shows_slots = len(nodes) == 1 and len(node.inputs) - node.inputs.count(None) > 1
            for slot, source in enumerate(node.inputs):
                if source is not None and place[source] != target:
                    arrows[Arrow(place[source], target, slot if shows_slots else None)] = None
    return FoldedGraph(tuple(_box(*group) for group in groups), tuple(arrows))


def _box(title: str, nodes: list[GraphNode]) -> Box:
    if len(nodes) == 1:
        (node,) = nodes
        if node.is_leaf:
            return Box(
                node.parameter or node.name, "" if node.shape is None else str(node.shape), (node,)
            )
        return Box(node.op, node.module or "", (node,))
    counts = Counter(node.op for node in nodes if node.op not in ("accumulate_grad", "t"))
    detail = ", ".join(f"{count} {op}" for op, count in counts.most_common(4))
    if len(counts) > 4:
        detail += f" and {sum(counts.values()) - sum(n for _, n in counts.most_common(4))} more"
    return Box(title or nodes[0].op, detail, tuple(nodes))
