"""Lays a graph out in layers: the longest path straight down the page, leaves to the side."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from blitz_helpers._extras import require

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from blitz_helpers.graph._fold import Box, FoldedGraph

# All lengths are in inches.
BOX_HEIGHT = 0.4
_ROW = 0.62
_GAP = 0.36  # between boxes: room for an arrow and its slot number
_LONGEST_CHAIN = 3  # boxes drawn to the side of an operation, including the leaf

Point: TypeAlias = tuple[float, float]
# For a box, by its number, the chains of boxes to its left and to its right.
Sides: TypeAlias = dict[int, tuple[list[list[int]], list[list[int]]]]


@dataclass(eq=False)
class Place:
    """The place of a box, or of a bend: a point where an arrow crosses a layer."""

    width: float
    layer: int
    x: float = 0.0  # of the centre
    y: float = 0.0

    def __post_init__(self) -> None:
        # A bare box reaches to its edges; chains beside it reach further.
        self.reach = [self.width / 2, self.width / 2]  # to the left and to the right


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
    places = [Place(width, layer) for width, layer in zip(widths, depths, strict=True)]
    trunk = {
        link: [places[link.target], *_bends(depths, link), places[link.source]]
        for link in links
        if link.source not in beside
    }
    vertices = [place for box, place in enumerate(places) if box not in beside]
    vertices += [bend for line in trunk.values() for bend in line[1:-1]]
    _place_rows(places, vertices, sides)
    _place_columns(vertices, trunk.values(), {places[box] for box in main})
    _place_chains(places, sides)
    routes = [Route(_downward_route(line), link.slots, False) for link, line in trunk.items()]
    for link in links:
        if link.source in beside:
            ends = _sideways_route(places[link.target], places[link.source])
            routes.append(Route(ends, link.slots, sideways=True))
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


def _bends(depths: Sequence[int], link: Link) -> list[Place]:
    """Return a bend for each layer that an arrow crosses on its way."""
    return [Place(0.0, layer) for layer in range(depths[link.target] + 1, depths[link.source])]


def _place_rows(places: Sequence[Place], vertices: Sequence[Place], sides: Sides) -> None:
    """Leave room for the chains beside each box, and set the heights of all layers."""
    rows = [1] * (max(vertex.layer for vertex in vertices) + 1)
    for host, both in sides.items():
        place = places[host]
        for side, chains in enumerate(both):
            beyond = [sum(_GAP + places[box].width for box in chain) for chain in chains]
            place.reach[side] += max(beyond, default=0.0)
            rows[place.layer] = max(rows[place.layer], len(chains))
    for vertex in vertices:
        vertex.y = -_ROW * sum(rows[: vertex.layer])


def _place_columns(
    vertices: Sequence[Place], lines: Iterable[Sequence[Place]], main: set[Place]
) -> None:
    """Place each layer from the longest path outwards, in the order that crosses few arrows."""
    number = {vertex: n for n, vertex in enumerate(vertices)}
    edges = [(number[one], number[other]) for line in lines for one, other in pairwise(line)]
    graph = require("igraph", extra="plotting").Graph(len(vertices), edges, directed=True)
    layers = [vertex.layer for vertex in vertices]
    layout = graph.layout_sugiyama(layers=layers)
    columns = {vertex: x for vertex, (x, _) in zip(vertices, layout.coords, strict=True)}
    pitch = _GAP + max(max(vertex.reach) for vertex in vertices)
    middle = 0.0
    for layer in range(max(layers) + 1):
        row = sorted((v for v in vertices if v.layer == layer), key=columns.__getitem__)
        anchor = next((place for place, vertex in enumerate(row) if vertex in main), 0)
        if row[anchor] in main:
            middle = columns[row[anchor]]
        for sign, outwards in ((1, row[anchor:]), (-1, row[anchor::-1])):
            edge = -math.inf
            for vertex in outwards:
                wanted = 0.0 if vertex in main else sign * (columns[vertex] - middle) * pitch
                inner, outer = vertex.reach[::sign]
                distance = max(wanted, edge + _GAP + inner)
                edge = distance + outer
                vertex.x = sign * distance


def _place_chains(places: Sequence[Place], sides: Sides) -> None:
    for host, (left, right) in sides.items():
        for sign, chains in ((-1, left), (1, right)):
            for row, chain in enumerate(chains):
                end = places[host].x + sign * places[host].width / 2
                for place in (places[box] for box in chain):
                    place.x = end + sign * (_GAP + place.width / 2)
                    place.y = places[host].y - row * _ROW
                    end = place.x + sign * place.width / 2


def _downward_route(line: Sequence[Place]) -> tuple[Point, ...]:
    """Return the points of an arrow from the bottom of its target to the top of its source."""
    above, *bends, below = line
    half = BOX_HEIGHT / 2
    start = above.x + _offset_towards(line[1].x - above.x, above.width)
    end = below.x + _offset_towards(line[-2].x - below.x, below.width)
    through = [(bend.x, y) for bend in bends for y in (bend.y + half, bend.y - half)]
    return ((start, above.y - half), *through, (end, below.y + half))


def _offset_towards(distance: float, width: float) -> float:
    """Return the offset from the centre of a box at which an arrow to a distant point starts."""
    return max(-width / 3, min(width / 3, distance))


def _sideways_route(host: Place, box: Place) -> tuple[Point, ...]:
    """Return the ends of an arrow from the side of its target to the near side of its source."""
    sign = 1 if box.x > host.x else -1
    return (
        (host.x + sign * host.width / 2, host.y),
        (box.x - sign * box.width / 2, box.y),
    )
