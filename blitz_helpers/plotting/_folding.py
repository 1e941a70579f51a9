"""From an autograd graph to the boxes on a page: one a node, or one a module where it is large."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from blitz_helpers._extras import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blitz_helpers.graph import AutogradGraph, GraphNode

Kind = Literal["operation", "leaf", "freed"]

_MOST_NODES = 64  # more are folded
_MOST_BOXES = 40  # that a folded graph may have
_BANDS = 12  # where no module tells where to fold


@dataclass(frozen=True)
class Box:
    """What is drawn for one node, or for the many nodes of a module."""

    title: str
    detail: str
    kind: Kind
    nodes: int = 1


@dataclass(frozen=True)
class Link:
    """An edge, or all edges, between two boxes; gradients go from ``target`` to ``source``."""

    target: int
    source: int
    slots: tuple[int, ...] = ()  # empty where only one input feeds the target, and when folded


def boxes_and_links(graph: AutogradGraph) -> tuple[list[Box], list[Link]]:
    """Return what to draw, every box before those that feed it."""
    if len(graph.nodes) <= _MOST_NODES:
        return [_box(node) for node in graph.nodes], _links(graph)
    return _by_module(graph) or _by_depth(graph)


def _box(node: GraphNode) -> Box:
    shape = "" if node.shape is None else "x".join(map(str, node.shape)) or "scalar"
    if node.name == "AccumulateGrad":
        return Box(node.parameter or "AccumulateGrad", shape, "leaf")
    detail = "  ".join(filter(None, (node.module, shape)))
    return Box(node.op, detail, "freed" if node.freed else "operation")


def _links(graph: AutogradGraph) -> list[Link]:
    feeding = Counter(edge.target for edge in graph.edges)
    slots: dict[tuple[int, int], tuple[int, ...]] = {}
    for edge in graph.edges:
        ends = (edge.target, edge.source)
        several = feeding[edge.target] > 1
        slots[ends] = (*slots.get(ends, ()), *((edge.slot,) if several else ()))
    return [Link(*ends, numbers) for ends, numbers in slots.items()]


def _by_module(graph: AutogradGraph) -> tuple[list[Box], list[Link]] | None:
    """Return a box a module, as deep as there is room for, or ``None`` if no module is known."""
    modules = [""] * len(graph.nodes)
    for node in reversed(graph.nodes):  # from the leaves on, so that inputs come first
        if node.module is not None:
            modules[node.number] = node.module
        elif node.parameter is not None:
            modules[node.number] = node.parameter.rpartition(".")[0]
        else:  # a function called between modules goes with what feeds it
            fed_by = (modules[number] for number in node.inputs if number is not None)
            modules[node.number] = next(filter(None, fed_by), "")
    if not any(modules):
        return None
    for parts in range(max(module.count(".") for module in modules) + 1, 0, -1):
        boxes, links = _folded(graph, [".".join(module.split(".")[:parts]) for module in modules])
        if len(boxes) <= _MOST_BOXES:
            return boxes, links
    return None


def _folded(graph: AutogradGraph, titles: Sequence[str]) -> tuple[list[Box], list[Link]]:
    """Put neighbours with one title into one box, and with them all that would run in a circle."""
    igraph = require("igraph", extra="plotting")
    ends = [(edge.target, edge.source) for edge in graph.edges]
    inside = [(target, source) for target, source in ends if titles[target] == titles[source]]
    pieces = igraph.Graph(len(titles), inside).connected_components().membership
    across = {(pieces[target], pieces[source]) for target, source in ends}
    quotient = igraph.Graph(max(pieces) + 1, list(across), directed=True)
    circles = quotient.connected_components(mode="strong").membership
    members: dict[int, list[GraphNode]] = {}
    for node in graph.nodes:
        members.setdefault(circles[pieces[node.number]], []).append(node)
    place = {circle: number for number, circle in enumerate(members)}
    links = {(place[circles[target]], place[circles[source]]) for target, source in across}
    boxes = []
    for nodes in members.values():
        title = Counter(titles[node.number] for node in nodes).most_common(1)[0][0]
        boxes.append(_folded_box(title or nodes[0].op, nodes))
    return boxes, [Link(*link) for link in sorted(links) if link[0] != link[1]]


def _by_depth(graph: AutogradGraph) -> tuple[list[Box], list[Link]]:
    """Return a box for each of some bands of depth, from the root on, a leaf with its consumer."""
    depths = [node.depth for node in graph.nodes]
    for edge in graph.edges:  # ordered by depth of the target, so the deepest consumer wins
        if graph.nodes[edge.source].name == "AccumulateGrad":
            depths[edge.source] = depths[edge.target]
    deepest = max(depths)
    height = deepest // _BANDS + 1
    bands: dict[int, list[GraphNode]] = {}
    for node, depth in zip(graph.nodes, depths, strict=True):
        bands.setdefault(depth // height, []).append(node)
    boxes = [
        _folded_box(f"depth {band * height:,} to {min((band + 1) * height - 1, deepest):,}", nodes)
        for band, nodes in sorted(bands.items())
    ]
    return boxes, [Link(number, number + 1) for number in range(len(boxes) - 1)]


def _folded_box(title: str, nodes: list[GraphNode]) -> Box:
    if len(nodes) == 1:
        return _box(nodes[0])
    kind: Kind = "freed" if any(node.freed for node in nodes) else "operation"
    return Box(title, f"{len(nodes):,} nodes", kind, len(nodes))
