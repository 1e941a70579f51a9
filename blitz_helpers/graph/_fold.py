"""A graph too large to look at, folded into as many boxes as one can."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from blitz_helpers.graph._records import AutogradGraph, GraphNode

_BANDS = 24  # what a graph without modules is cut into, by depth


class Box(NamedTuple):
    """Some nodes of a graph that are shown as one."""

    title: str
    """The operation or the parameter of a single node, else the module or the range of depths."""
    detail: str
    """What a single node belongs to, else its operations and how many of each."""
    nodes: tuple[GraphNode, ...]

    @property
    def is_leaf(self) -> bool:
        """Whether it is one leaf and nothing else."""
        return len(self.nodes) == 1 and self.nodes[0].op == "accumulate_grad"

    @property
    def freed(self) -> bool:
        """Whether a backward has freed what any of the nodes saved."""
        return any(node.freed for node in self.nodes)


class Arrow(NamedTuple):
    """What one box made goes into another."""

    source: int
    target: int
    slot: int | None
    """Which input, where the target is a single node that takes more than one."""


class FoldedGraph(NamedTuple):
    """Boxes from the root on, and the arrows between them, by their places."""

    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]


def fold(graph: AutogradGraph, limit: int) -> FoldedGraph:
    """Return ``graph`` in boxes: a node each if there are at most ``limit`` nodes.

    Else neighbours of one module share a box, of a module as small as the limit allows; nodes
    that no module is known of go with what feeds them. A graph that has no modules, or falls into
    too many pieces even so, is cut by depth.
    """
    if len(graph.nodes) <= limit:
        return _boxes(graph, [node.number for node in graph.nodes], {})
    paths = _paths(graph)
    for length in range(max(map(len, paths)), 0, -1):
        keys = [path[:length] for path in paths]
        groups = _neighbours(graph, keys)
        if len(set(groups)) <= limit:
            return _boxes(graph, groups, {first: ".".join(keys[first]) for first in set(groups)})
    levels = graph.nodes[-1].depth + 1
    bands = [node.depth * _BANDS // levels for node in graph.nodes]
    starts = {band: -(-band * levels // _BANDS) for band in set(bands)}
    ends = {band: -(-(band + 1) * levels // _BANDS) - 1 for band in set(bands)}
    return _boxes(graph, bands, {band: f"depth {starts[band]} to {ends[band]}" for band in starts})


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


def _neighbours(graph: AutogradGraph, keys: list[tuple[str, ...]]) -> list[int]:
    """Return for each node the first node of its connected piece of one key."""
    first = list(range(len(keys)))

    def find(number: int) -> int:
        while first[number] != number:
            first[number] = first[first[number]]
            number = first[number]
        return number

    for node in graph.nodes:
        for source in node.inputs:
            if source is not None and keys[source] == keys[node.number] != ():
                one, other = sorted((find(source), find(node.number)))
                first[other] = one
    # What has no key and is no operation, such as an input that requires grad, is no box either.
    for node in graph.nodes:
        for source in node.inputs:
            if source is not None and not keys[source] and not graph.nodes[source].inputs:
                first[source] = find(node.number)
    return [find(number) for number in range(len(keys))]


def _boxes(graph: AutogradGraph, groups: list[int], titles: dict[int, str]) -> FoldedGraph:
    members: dict[int, list[GraphNode]] = {}
    for node, group in zip(graph.nodes, groups, strict=True):
        members.setdefault(group, []).append(node)
    places = {group: place for place, group in enumerate(members)}
    arrows: dict[tuple[int, int], int | None] = {}
    loose: list[Arrow] = []
    for node in graph.nodes:
        target = places[groups[node.number]]
        is_single = len(members[groups[node.number]]) == 1
        shows_slots = is_single and sum(source is not None for source in node.inputs) > 1
        for slot, source in enumerate(node.inputs):
            if source is None:
                continue
            if shows_slots:
                loose.append(Arrow(places[groups[source]], target, slot))
            elif places[groups[source]] != target:
                arrows[places[groups[source]], target] = None
    boxes = tuple(_box(nodes, titles.get(group, "")) for group, nodes in members.items())
    joined = [Arrow(source, target, None) for source, target in arrows]
    return FoldedGraph(boxes, tuple(sorted(loose + joined, key=lambda arrow: arrow[1::-1])))


def _box(nodes: list[GraphNode], title: str) -> Box:
    if len(nodes) == 1:
        (node,) = nodes
        if node.op == "accumulate_grad":
            return Box(
                node.parameter or "leaf", "" if node.shape is None else str(node.shape), (node,)
            )
        return Box(node.op, node.module or "", (node,))
    counts = Counter(node.op for node in nodes if node.op not in ("accumulate_grad", "t"))
    detail = ", ".join(f"{count} {op}" for op, count in counts.most_common(4))
    if len(counts) > 4:
        detail += f" and {sum(counts.values()) - sum(n for _, n in counts.most_common(4))} more"
    return Box(title or "the rest", detail, tuple(nodes))
