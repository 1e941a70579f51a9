"""The graph that autograd built, drawn: the way back down the page, leaves to the side."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from blitz_helpers._extras import require
from blitz_helpers.plotting._canvas import BLACK, BLUE, GREY, ORANGE, canvas
from blitz_helpers.plotting._folding import boxes_and_links
from blitz_helpers.plotting._layers import BOX_HEIGHT, arrange

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from blitz_helpers.graph import AutogradGraph
    from blitz_helpers.plotting._folding import Box
    from blitz_helpers.plotting._layers import Arrow, Place


class _Style(NamedTuple):
    face: str
    edge: str
    dash: str
    corners: float  # radius in inches: told apart by form as well as by colour
    meaning: str


_STYLES = {
    "operation": _Style("#DCEBF6", BLUE, "-", 0.04, "operation"),
    "leaf": _Style("#FCEBCB", ORANGE, "-", 0.15, "leaf: fills .grad"),
    "freed": _Style("#F1F1F1", GREY, "--", 0.04, "freed operation"),
}

_TITLE_SIZE, _DETAIL_SIZE, _SLOT_SIZE = 8.5, 7, 7.5  # points
_MARGIN, _LEGEND = 0.1, 0.35  # inches
_FAINT = "#4A4A4A"


def plot_graph(graph: AutogradGraph, ax: Axes | None = None) -> Axes:
    """Draw the graph as ``backward()`` goes through it, from the root at the top down.

    Arrows show the way of the gradient, from an operation to those that made its inputs. Where
    it has several, each arrow bears the slot it starts from: the ``n`` of ``next_functions[n]``.
    The longest way is a straight line; leaves stand beside the operation that they feed.

    A graph of more than 64 nodes is folded: a box a module, as finely as 40 boxes allow, or a box
    for each band of depth where no module is known.

    Raises:
        ImportError: matplotlib or igraph is not installed.

    >>> import torch
    >>> from blitz_helpers import autograd_graph
    >>> w = torch.tensor(2.0, requires_grad=True)
    >>> ax = plot_graph(autograd_graph((w * 3 - 5) ** 2))
    >>> [text.get_text() for text in ax.texts if text.get_gid() == "title"]
    ['pow', 'sub', 'mul', 'AccumulateGrad']
    """
    boxes, links = boxes_and_links(graph)
    places, arrows = arrange(boxes, links)
    left = min(place.x - place.width / 2 for place in places) - _MARGIN
    right = max(place.x + place.width / 2 for place in places) + _MARGIN
    bottom = min(place.y for place in places) - BOX_HEIGHT / 2 - _MARGIN - _LEGEND
    top = BOX_HEIGHT / 2 + _MARGIN
    xs = [x for arrow in arrows for x, _ in arrow.points]
    left, right = min([left, *xs]), max([right, *xs])
    ax = canvas(ax, max(right - left, 3.5), top - bottom)
    ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    ax.set_axis_off()
    for arrow in arrows:
        _draw_arrow(ax, arrow)
    for number, (box, place) in enumerate(zip(boxes, places, strict=True)):
        _draw_box(ax, number, box, place)
    patches = require("matplotlib.patches", extra="plotting")
    lines = require("matplotlib.lines", extra="plotting")
    handles = [
        patches.Patch(
            facecolor=style.face, edgecolor=style.edge, linestyle=style.dash, label=style.meaning
        )
        for kind, style in _STYLES.items()
        if any(box.kind == kind for box in boxes)
    ]  # fmt: skip
    handles.append(lines.Line2D([], [], color=GREY, marker=">", markevery=[1], label="gradient"))
    ax.legend(
        handles=handles, loc="lower center", ncols=len(handles), frameon=False,
        fontsize=_TITLE_SIZE, borderaxespad=0, columnspacing=1.2,
    )  # fmt: skip
    return ax


def _draw_box(ax: Axes, number: int, box: Box, place: Place) -> None:
    patches = require("matplotlib.patches", extra="plotting")
    style = _STYLES[box.kind]
    corner = (place.x - place.width / 2, place.y - BOX_HEIGHT / 2)
    for shift in (0.05, 0.0) if box.nodes > 1 else (0.0,):  # many nodes: a sheet behind the sheet
        ax.add_patch(
            patches.FancyBboxPatch(
                (corner[0] + shift, corner[1] - shift), place.width, BOX_HEIGHT,
                boxstyle=patches.BoxStyle.Round(pad=0, rounding_size=style.corners),
                facecolor=style.face, edgecolor=style.edge, linestyle=style.dash, linewidth=1,
                zorder=2, gid=None if shift else f"{box.kind} {number}",
            )
        )  # fmt: skip
    above = 0.065 if box.detail else 0.0
    for text, y, size, color, role in (
        (box.title, place.y + above, _TITLE_SIZE, BLACK, "title"),
        (box.detail, place.y - 0.085, _DETAIL_SIZE, _FAINT, "detail"),
    ):
        ax.text(
            place.x, y, text, fontsize=size, color=color, gid=role,
            ha="center", va="center_baseline", zorder=3,
        )  # fmt: skip


def _draw_arrow(ax: Axes, arrow: Arrow) -> None:
    patches = require("matplotlib.patches", extra="plotting")
    path = require("matplotlib.path", extra="plotting").Path
    points, codes = [arrow.points[0]], [path.MOVETO]
    for (x0, y0), (x1, y1) in pairwise(arrow.points):
        # Leave and arrive straight: along the page, or across it.
        if arrow.sideways:
            points += [((x0 + x1) / 2, y0), ((x0 + x1) / 2, y1), (x1, y1)]
        else:
            points += [(x0, (y0 + y1) / 2), (x1, (y0 + y1) / 2), (x1, y1)]
        codes += [path.CURVE4] * 3
    ax.add_patch(
        patches.FancyArrowPatch(
            path=path(points, codes), arrowstyle="-|>", mutation_scale=8,
            color=GREY, linewidth=1, shrinkA=0, shrinkB=0, zorder=1,
        )
    )  # fmt: skip
    if arrow.slots:
        (x0, y0), (x1, y1) = arrow.points[:2]
        if arrow.sideways:
            x, y, side = (x0 + x1) / 2, y1 + 0.07, "center"
        else:  # on the outer side of a bend, so that neighbours do not collide
            away, side = (-0.04, "right") if x1 < x0 else (0.04, "left")
            x, y = x0 + away, y0 - 0.09
        ax.text(
            x, y, "".join(f"[{slot}]" for slot in arrow.slots),
            fontsize=_SLOT_SIZE, color=_FAINT, gid="slot", zorder=4, ha=side, va="center_baseline",
        )  # fmt: skip
