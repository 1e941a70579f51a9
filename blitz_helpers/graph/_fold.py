"""A graph too large to look at, folded into as many boxes as one can."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from blitz_helpers.graph._records import AutogradGraph, GraphNode

_BANDS = 12  # what a graph without modules is cut into, by depth


class Box(NamedTuple):
    """Some nodes of a graph that are shown as one."""

    title: str
    """The operation or the parameter of a single node, else the module or the range of depths."""
    detail: str
    """What a single node belongs to, else its operations and how many of each."""
    nodes: tuple[GraphNode, ...]

    @property
    def kind(self) -> Literal["operation", "leaf", "freed"]:
        """``"leaf"``: one and nothing else; ``"freed"``: a backward freed what some node saved."""
        if len(self.nodes) == 1 and self.nodes[0].name == "AccumulateGrad":
            return "leaf"
        return "freed" if any(node.freed for node in self.nodes) else "operation"


class Arrow(NamedTuple):
    """What one box made goes into another."""

    source: int
    target: int
    slot: int | None
    """Which input, where the target is a single node that takes more than one."""


class FoldedGraph(NamedTuple):
    """Boxes and the arrows between them, by their places.

    Every box stands before those that feed it, so no arrows run in a circle.
    """

    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]


def fold(graph: AutogradGraph, limit: int) -> FoldedGraph:
    """Return ``graph`` in boxes: a node each if there are at most ``limit`` nodes.

    Else what a module did at a stretch shares a box, of a module as small as the limit allows;
    nodes that no module is known of go with what feeds them. A graph that has no modules, or falls
    into too many pieces even so, is cut by depth into bands, shown as a chain.
    """
    if len(graph.nodes) <= limit:
        return _boxes([("", [node]) for node in graph.nodes])
    paths = _paths(graph)
    for length in range(max(map(len, paths)), 0, -1):
        stretches = _stretches(graph, [path[:length] for path in paths])
        if len(stretches) <= limit:
            return _boxes(stretches)
    # A leaf goes with what it feeds last, which lies one above it.
    depths = [node.depth - (node.name == "AccumulateGrad") for node in graph.nodes]
    deepest = max(depths)
    height = deepest // min(_BANDS, limit) + 1
    bands: dict[int, list[GraphNode]] = {}
    for node, depth in zip(graph.nodes, depths, strict=True):
        bands.setdefault(depth // height, []).append(node)
    boxes = tuple(
        _box(f"depth {band * height:,} to {min((band + 1) * height - 1, deepest):,}", nodes)
        for band, nodes in sorted(bands.items())
    )
    return FoldedGraph(boxes, tuple(Arrow(band + 1, band, None) for band in range(len(boxes) - 1)))


def _paths(graph: AutogradGraph) -> list[tuple[str, ...]]:
    """Return the module of each node as a path; where unknown, that of its deepest input.

    The root module runs between all others, so it says as little as none.
    """
    paths: list[tuple[str, ...]] = [()] * len(graph.nodes)
    for node in reversed(graph.nodes):
        if node.module:
            paths[node.number] = tuple(node.module.split("."))
        else:
            known = [number for number in node.inputs if number is not None and paths[number]]
            if known:
                paths[node.number] = paths[max(known, key=lambda at: graph.nodes[at].depth)]
    return paths


def _stretches(
    graph: AutogradGraph, paths: list[tuple[str, ...]]
) -> list[tuple[str, list[GraphNode]]]:
    """Return the nodes of one path and one rank together, under the name of their module.

    The rank of a node counts how often the path changes on the way from the root to it, at most.
    From a box to one that feeds it, it grows: this rules out circles, even where a module runs
    between others again and again.
    """
    ranks = [(0, path) for path in paths]
    for node in graph.nodes:
        rank, path = ranks[node.number]
        for source in node.inputs:
            if source is None:
                continue
            is_nameless_leaf = not paths[source] and not graph.nodes[source].inputs
            if is_nameless_leaf:  # no box of its own: it goes with what it feeds last
                candidate = (rank, path)
            else:
                candidate = (rank + (path != paths[source] or not path), paths[source])
            ranks[source] = max(ranks[source], candidate)
    stretches: dict[tuple[int, tuple[str, ...]], list[GraphNode]] = {}
    for node in graph.nodes:
        stretches.setdefault(ranks[node.number], []).append(node)
    return [(".".join(key[1]), nodes) for key, nodes in sorted(stretches.items())]


def _boxes(groups: list[tuple[str, list[GraphNode]]]) -> FoldedGraph:
    place = {node.number: at for at, (_, nodes) in enumerate(groups) for node in nodes}
    arrows: dict[Arrow, None] = {}  # as a set that keeps its order: by target and slot
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
        if node.op == "accumulate_grad":
            return Box(
                node.parameter or node.name, "" if node.shape is None else str(node.shape), (node,)
            )
        return Box(node.op, node.module or "", (node,))
    counts = Counter(node.op for node in nodes if node.op not in ("accumulate_grad", "t"))
    detail = ", ".join(f"{count} {op}" for op, count in counts.most_common(4))
    if len(counts) > 4:
        detail += f" and {sum(counts.values()) - sum(n for _, n in counts.most_common(4))} more"
    return Box(title or nodes[0].op, detail, tuple(nodes))
