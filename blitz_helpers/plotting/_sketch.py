"""Lays a graph out as boxes, curves, arrowheads and words, in inches, for any backend to draw."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from blitz_helpers.plotting._checks import require_record
from blitz_helpers.plotting._colours import BLACK, BLUE, GREY, ORANGE
from blitz_helpers.plotting._layers import BOX_HEIGHT, Point, Route, arrange
from blitz_helpers.plotting._words import minus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from blitz_helpers.graph import AutogradGraph, NamedTensor
    from blitz_helpers.graph._fold import Box, FoldedGraph

_MOST_NODES, _MOST_BOXES = 64, 40  # graphs with more nodes are folded into so many boxes
_FEW_BOXES = 8  # up to this many, the alt text lists every box


class BoxStyle(NamedTuple):
    """The look of a box, and its meaning."""

    face: str
    edge: str
    dash: tuple[float, ...]  # lengths of line and gap in points
    corners: float  # radius in inches; box kinds differ in shape as well as in colour
    meaning: str


class WordStyle(NamedTuple):
    """The look of a word."""

    size: float  # points; 7.5 points are 10 pixels, the smallest comfortable size
    color: str
    letter: float  # an upper estimate of the width of a letter, in inches


BOX_STYLES = {
    "operation": BoxStyle("#DCEBF6", BLUE, (), 0.04, "operation"),
    "leaf": BoxStyle("#FCEBCB", ORANGE, (), 0.15, "leaf: fills .grad"),
    "freed": BoxStyle("#F1F1F1", GREY, (3.7, 1.6), 0.04, "freed operation"),
}
WORD_STYLES = {
    "title": WordStyle(9, BLACK, 0.078),
    "detail": WordStyle(8, "#4A4A4A", 0.068),
    "slot": WordStyle(8, "#4A4A4A", 0.069),
    "legend": WordStyle(9, BLACK, 0.064),
}

_MARGIN, _PADDING, _LEGEND = 0.1, 0.1, 0.35
_SAMPLE, _SPACE = (0.25, 0.12), (0.07, 0.2)  # legend: sample size, space around a word
_HEAD = (0.075, 0.032)  # length and half the width of an arrowhead


class Rectangle(NamedTuple):
    """A box on the page, by its lower left corner."""

    kind: str
    x: float
    y: float
    width: float
    height: float

    @property
    def corners(self) -> float:
        """Radius of the rounded corners."""
        return min(BOX_STYLES[self.kind].corners, self.height / 2)


class Word(NamedTuple):
    """A word on the page, with the point where its baseline starts, is centred or ends."""

    text: str
    role: str
    x: float
    y: float
    align: str = "center"


@dataclass
class Sketch:
    """Everything to draw, with y growing upward."""

    description: str = ""
    """The alt text."""
    boxes: list[Rectangle] = field(default_factory=list)
    blanks: list[Rectangle] = field(default_factory=list)
    """Boxes without text: the sheets behind folded boxes, and the samples in the legend."""
    curves: list[list[Point]] = field(default_factory=list)
    """A start point, then two control points and an end point for each cubic Bézier curve."""
    heads: list[tuple[Point, Point, Point]] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    left: float = 0.0
    right: float = 0.0
    bottom: float = 0.0
    top: float = 0.0


def sketch(graph: AutogradGraph) -> Sketch:
    """Return the sketch of ``graph``, folded if it is large."""
    require_record(graph, "graph", "AutogradGraph", "autograd_graph(loss)")
    folded = graph.folded(_MOST_NODES if len(graph.nodes) <= _MOST_NODES else _MOST_BOXES)
    named = {tensor.node: tensor for tensor in graph.tensors}
    texts = [_texts(box, named) for box in folded.boxes]
    widths = [
        2 * _PADDING + max(_width("title", title), _width("detail", detail), _width("title", "..."))
        for title, detail in texts
    ]
    places, routes = arrange(folded, widths)
    page = Sketch(_description(graph, folded, texts))
    for route in routes:
        _add_route(page, route)
        _add_slots(page, route, routes)
    for box, (title, detail), place in zip(folded.boxes, texts, places, strict=True):
        corner = place.x - place.width / 2, place.y - BOX_HEIGHT / 2
        rectangle = Rectangle(box.kind, *corner, place.width, BOX_HEIGHT)
        page.boxes.append(rectangle)
        if len(box.nodes) > 1:
            page.blanks.append(rectangle._replace(x=rectangle.x + 0.05, y=rectangle.y - 0.05))
        page.words.append(Word(title, "title", place.x, place.y + (0.03 if detail else -0.045)))
        if detail:
            page.words.append(Word(detail, "detail", place.x, place.y - 0.125))
    xs = [x for curve in page.curves for x, _ in curve]
    xs += [x for word in page.words for x in _ends(word)]
    page.left = min([box.x for box in page.boxes] + xs) - _MARGIN
    page.right = max([box.x + box.width for box in page.boxes] + xs) + _MARGIN
    page.bottom = min(box.y for box in page.boxes) - _MARGIN - _LEGEND
    page.top = max(box.y + box.height for box in page.boxes) + _MARGIN
    _add_legend(page)
    return page


def _texts(box: Box, named: Mapping[int, NamedTensor]) -> tuple[str, str]:
    if len(box.nodes) > 1:
        return box.title, f"{len(box.nodes):,} nodes"
    (node,) = box.nodes
    shape = "" if node.shape is None else "x".join(map(str, node.shape)) or "scalar"
    if node.number in named:
        return box.title, _numbers(named[node.number], box.title) or shape
    module = None if box.kind == "leaf" else node.module
    return box.title, "  ".join(filter(None, (module, shape)))


def _numbers(tensor: NamedTensor, title: str) -> str:
    """Return the tensor's name (unless it is the title), value and gradient, where known."""
    name = "" if tensor.name == title else tensor.name
    if tensor.value is None:
        return name
    value = minus(f"{tensor.value:.4g}")
    value = f"{name} = {value}" if name else f"value {value}"
    return value if tensor.grad is None else f"{value}, gradient {minus(f'{tensor.grad:.4g}')}"


def _description(
    graph: AutogradGraph, folded: FoldedGraph, texts: Sequence[tuple[str, str]]
) -> str:
    """Return the alt text: every box if there are few, otherwise a summary."""
    boxes = folded.boxes
    if len(boxes) <= _FEW_BOXES:
        titles = [title for title, _ in texts]
        told = [f"{title} ({detail})" if detail else title for title, detail in texts]
        counts = Counter((titles[arrow.target], titles[arrow.source]) for arrow in folded.arrows)
        arrows = [
            f"{target} to {source}{f' by {count} slots' * (count > 1)}"
            for (target, source), count in counts.items()
        ]
        words = [f"The graph from the top down: {', '.join(told)}."]
        words += [f"Gradients go from {', from '.join(arrows)}."] if arrows else []
    elif len(boxes) == len(graph.nodes):
        leaves = len(graph.leaves)
        words = [f"A graph of {len(boxes) - leaves} operations and {leaves} leaves."]
        words.append(f"The longest way, read forward: {graph.path().replace(' -> ', ', ')}.")
    else:
        words = [f"A graph of {len(graph.nodes):,} nodes, drawn as {len(boxes)} boxes"]
        words[0] += f" from {texts[0][0]} at the top to {texts[-1][0]} at the bottom."
    freed = sum(box.kind == "freed" for box in boxes)
    return " ".join([*words, f"{freed} boxes are freed."] if freed else words)


def _width(role: str, text: str) -> float:
    return len(text) * WORD_STYLES[role].letter


def _ends(word: Word) -> tuple[float, float]:
    width = _width(word.role, word.text)
    left = word.x - width * {"left": 0, "center": 0.5, "right": 1}[word.align]
    return left, left + width


def _add_route(page: Sketch, route: Route) -> None:
    """Add a curve that leaves and arrives vertically, or horizontally."""

    def turned(point: Point) -> Point:
        x, y = point
        return (y, x) if route.sideways else point

    # Worked out as a vertical curve, and turned where it is horizontal.
    *before, (x, tip) = map(turned, route.points)
    length, half = _HEAD
    base = tip - length if tip > before[-1][1] else tip + length
    left, right = (x - half, base), (x + half, base)
    page.heads.append((turned((x, tip)), turned(left), turned(right)))
    curve = [before[0]]
    for (x0, y0), (x1, y1) in pairwise([*before, (x, base)]):
        curve += [(x0, (y0 + y1) / 2), (x1, (y0 + y1) / 2), (x1, y1)]
    page.curves.append([turned(point) for point in curve])


def _add_slots(page: Sketch, route: Route, routes: Sequence[Route]) -> None:
    """Write the slots of ``route`` beside it, clear of the other ``routes``."""
    if not route.slots:
        return
    (x0, y0), (x1, y1) = route.points[:2]
    text = "".join(f"[{slot}]" for slot in route.slots)
    if route.sideways:
        above_or_below = 0.035 if y1 == y0 else -0.125  # on the side away from the curve
        page.words.append(Word(text, "slot", (x0 + x1) / 2, y1 + above_or_below))
        return
    # Label the straight part: a curve that swings far out would run through its label.
    x, y = (x0, y0 - 0.135) if len(route.points) == 2 else (x1, y1 - BOX_HEIGHT / 2)
    if x1 == x0:
        ends = [end for other in routes for end in (other.points[0], other.points[-1])]
        aside = [end_x - x0 for end_x, end_y in ends if end_y in (y0, y1) and end_x != x0]
        near = 0.14 + _width("slot", text)
        right_is_taken = any(0 < distance < near for distance in aside)
        left = right_is_taken and not any(-near < distance < 0 for distance in aside)
    else:
        left = x1 < x0  # on the outer side of a bend, so that neighbouring labels do not collide
    away, align = (-0.04, "right") if left else (0.04, "left")
    page.words.append(Word(text, "slot", x + away, y, align))


def _add_legend(page: Sketch) -> None:
    kinds = [kind for kind in BOX_STYLES if any(box.kind == kind for box in page.boxes)]
    meanings = [*(BOX_STYLES[kind].meaning for kind in kinds), "gradient"]
    (width, height), (before, after) = _SAMPLE, _SPACE
    steps = [width + before + _width("legend", meaning) + after for meaning in meanings]
    half = (sum(steps) - after) / 2
    x, y = (page.left + page.right) / 2 - half, page.bottom + _MARGIN + height / 2
    page.left = min(page.left, x - _MARGIN)
    page.right = max(page.right, x + 2 * half + _MARGIN)
    for number, (meaning, step) in enumerate(zip(meanings, steps, strict=True)):
        if number < len(kinds):
            page.blanks.append(Rectangle(kinds[number], x, y - height / 2, width, height))
        else:
            _add_route(page, Route(((x, y), (x + width, y)), (), sideways=True))
        page.words.append(Word(meaning, "legend", x + width + before, y - 0.043, "left"))
        x += step
