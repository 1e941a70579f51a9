"""Lays a graph out in layers: the longest path straight down the page, leaves to the side."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from blitz_helpers._extras import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blitz_helpers.graph._fold import Box, FoldedGraph

# All lengths are in inches.
BOX_HEIGHT = 0.4
_ROW = 0.62
_GAP = 0.36  # between boxes: room for an arrow and its slot number
_LONGEST_CHAIN = 3  # boxes drawn to the side of an operation, including the leaf

Point: TypeAlias = tuple[float, float]


@dataclass
class Place:
    """The centre and the width of a box."""

    x: float
    y: float
    width: float


class Link(NamedTuple):
    """All arrows from one box to another; gradients go from ``target`` to ``source``."""

    target: int
    source: int
    slots: tuple[int, ...]


class Route(NamedTuple):
    """An arrow: the points that it passes through, and the slots it starts from."""

    points: tuple[Point, ...]
    slots: tuple[int, ...]
    sideways: bool


def arrange(folded: FoldedGraph, widths: Sequence[float]) -> tuple[list[Place], list[Route]]:
    """Place the boxes, with the longest path at x = 0 and the root at y = 0; route the arrows."""
    boxes, links = folded.boxes, _links(folded)
    depths = _depths(len(boxes), links)
    main = _longest_path(boxes, links, depths)
    sides = {
        host: (chains[::2], chains[1::2]) if len(chains) > 1 else ([], chains)
        for host, chains in _chains(boxes, links, main)
    }
    beside = {box for both in sides.values() for side in both for chain in side for box in chain}
    trunk = [link for link in links if link.source not in beside]
    places = [Place(0.0, 0.0, width) for width in widths]
    bends = _place_layers(places, trunk, depths, main, sides)
    routes = [
        Route(_downward_route(places, link, bends[link]), link.slots, sideways=False)
        for link in trunk
    ]
    for link in links:
        if link.source in beside:
            routes.append(Route(_sideways_route(places, link), link.slots, sideways=True))
    return places, routes


def _links(folded: FoldedGraph) -> list[Link]:
    slots: dict[tuple[int, int], list[int]] = defaultdict(list)
    for source, target, slot in folded.arrows:
        slots[target, source] += [] if slot is None else [slot]
    return [Link(*ends, tuple(numbers)) for ends, numbers in slots.items()]


def _depths(count: int, links: Sequence[Link]) -> list[int]:
    """Return the layer of each box: its longest distance from a root."""
    depths = [0] * count
    for link in links:  # sorted by target, and boxes come before their inputs
        depths[link.source] = max(depths[link.source], depths[link.target] + 1)
    return depths


def _longest_path(boxes: Sequence[Box], links: Sequence[Link], depths: Sequence[int]) -> list[int]:
    """Return the longest path to the deepest operation, and to its input if there is just one."""
    inner = [number for number, box in enumerate(boxes) if box.kind != "leaf"]
    path = [max(inner, key=depths.__getitem__)]
    while depths[path[-1]]:
        above = (link.target for link in links if link.source == path[-1])
        path.append(next(box for box in above if depths[box] == depths[path[-1]] - 1))
    path.reverse()
    inputs = [link.source for link in links if link.target == path[-1]]
    return path + inputs if len(inputs) == 1 else path


def _chains(
    boxes: Sequence[Box], links: Sequence[Link], main: Sequence[int]
) -> list[tuple[int, list[list[int]]]]:
    """Return each box with short chains that end in a leaf used nowhere else, and the chains.

    A chain runs from an input of the box to the leaf: a weight, or a transpose and its weight.
    """
    consumers, inputs = defaultdict(list), Counter(link.target for link in links)
    for link in links:
        consumers[link.source].append(link.target)
    chain_from: dict[int, list[int]] = {}
    for leaf, box in enumerate(boxes):
        if box.kind != "leaf" or leaf in main or len(consumers[leaf]) != 1:
            continue
        chain, host = [leaf], consumers[leaf][0]
        while host not in main and inputs[host] == 1 and len(consumers[host]) == 1:
            chain, host = [host, *chain], consumers[host][0]
        if len(chain) > _LONGEST_CHAIN:
            chain = [leaf]
        chain_from[chain[0]] = chain
    chains: dict[int, list[list[int]]] = defaultdict(list)
    for link in links:  # in the order of the slots
        if link.source in chain_from:
            chains[link.target].append(chain_from[link.source])
    return list(chains.items())


def _place_layers(
    places: list[Place],
    trunk: Sequence[Link],
    depths: Sequence[int],
    main: Sequence[int],
    sides: dict[int, tuple[list[list[int]], list[list[int]]]],
) -> dict[Link, list[Point]]:
    """Place all boxes, and return the bends of arrows that span several layers."""
    aside = {box for both in sides.values() for side in both for chain in side for box in chain}
    in_trunk = [box for box in range(len(places)) if box not in aside]
    # A vertex is a box or a bend, that is, a point where an arrow crosses a layer.
    vertices: list[Place] = [places[box] for box in in_trunk]
    layers = [depths[box] for box in in_trunk]
    number = {box: vertex for vertex, box in enumerate(in_trunk)}
    edges: list[tuple[int, int]] = []
    bends: dict[Link, list[Place]] = {}
    for link in trunk:
        passed = []
        line = [number[link.target]]
        for layer in range(depths[link.target] + 1, depths[link.source]):
            passed.append(Place(0.0, 0.0, 0.0))
            line.append(len(vertices))
            vertices.append(passed[-1])
            layers.append(layer)
        edges += pairwise([*line, number[link.source]])
        bends[link] = passed
    graph = require("igraph", extra="plotting").Graph(len(vertices), edges, directed=True)
    columns = [x for x, _ in graph.layout_sugiyama(layers=layers).coords]

    reach = [[place.width / 2, place.width / 2] for place in vertices]  # to the left, to the right
    rows = [1] * (max(layers) + 1)
    for host, both in sides.items():
        for side, chains in enumerate(both):
            beyond = [sum(_GAP + places[box].width for box in chain) for chain in chains]
            reach[number[host]][side] += max(beyond, default=0.0)
            rows[depths[host]] = max(rows[depths[host]], len(chains))
    tops = [-_ROW * sum(rows[:layer]) for layer in range(len(rows))]
    pitch = _GAP + max(map(max, reach))
    straight = {number[box] for box in main}
    middle = 0.0
    for layer, top in enumerate(tops):
        row = sorted((v for v, at in enumerate(layers) if at == layer), key=columns.__getitem__)
        anchor = next((place for place, vertex in enumerate(row) if vertex in straight), 0)
        if row[anchor] in straight:
            middle = columns[row[anchor]]
        for sign, outwards in ((1, row[anchor:]), (-1, row[anchor::-1])):
            edge = -math.inf
            for vertex in outwards:
                wanted = 0.0 if vertex in straight else sign * (columns[vertex] - middle) * pitch
                inner, outer = reach[vertex][::sign]
                distance = max(wanted, edge + _GAP + inner)
                edge = distance + outer
                vertices[vertex].x, vertices[vertex].y = sign * distance, top
    for host, (left, right) in sides.items():
        for sign, chains in ((-1, left), (1, right)):
            for place, chain in enumerate(chains):
                end = places[host].x + sign * places[host].width / 2
                for box in chain:
                    half = places[box].width / 2
                    places[box].x = end + sign * (_GAP + half)
                    places[box].y = places[host].y - place * _ROW
                    end = places[box].x + sign * half
    return {link: [(bend.x, bend.y) for bend in passed] for link, passed in bends.items()}


def _downward_route(
    places: Sequence[Place], link: Link, bends: Sequence[Point]
) -> tuple[Point, ...]:
    """Return the points of an arrow from the bottom of its target to the top of its source."""
    above, below = places[link.target], places[link.source]
    half = BOX_HEIGHT / 2
    middles = [(above.x, above.y), *bends, (below.x, below.y)]
    start = above.x + _offset_towards(middles[1][0] - above.x, above.width)
    end = below.x + _offset_towards(middles[-2][0] - below.x, below.width)
    through = [point for x, y in bends for point in ((x, y + half), (x, y - half))]
    return ((start, above.y - half), *through, (end, below.y + half))


def _offset_towards(distance: float, width: float) -> float:
    """Return the offset from the centre of a box at which an arrow to a distant point starts."""
    return max(-width / 3, min(width / 3, distance))


def _sideways_route(places: Sequence[Place], link: Link) -> tuple[Point, ...]:
    """Return the ends of an arrow from the side of its target to the near side of its source."""
    host, box = places[link.target], places[link.source]
    sign = 1 if box.x > host.x else -1
    return (
        (host.x + sign * host.width / 2, host.y),
        (box.x - sign * box.width / 2, box.y),
    )
