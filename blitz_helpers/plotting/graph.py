"""Draws the graph that autograd built, from the root down the page, with leaves to the side."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from blitz_helpers._extras import require
from blitz_helpers.plotting._canvas import describe, figure_class
from blitz_helpers.plotting._checks import require_axes
from blitz_helpers.plotting._colours import GREY
from blitz_helpers.plotting._settings import default_style
from blitz_helpers.plotting._sketch import BOX_STYLES, WORD_STYLES, sketch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from blitz_helpers.graph import AutogradGraph
    from blitz_helpers.plotting._layers import Point
    from blitz_helpers.plotting._sketch import Rectangle, Sketch

_POINTS = 72  # per inch
_UNPRINTABLE = "\N{REPLACEMENT CHARACTER}"
_ANCHORS = {"left": "start", "center": "middle", "right": "end"}


class Svg(str):
    """SVG source that JupyterLab shows as a picture."""

    __slots__ = ()

    def _repr_svg_(self) -> str:
        return str(self)


@default_style()
def plot_graph(graph: AutogradGraph, ax: Axes | None = None) -> Axes:
    """Draw the graph in the order of ``backward()``, with the root at the top.

    Arrows follow the gradient, from an operation to those that made its inputs. If it has several
    inputs, each arrow shows the slot it starts from: the ``n`` of ``next_functions[n]``. The
    longest path is a straight line; leaves stand beside the operation that they feed.

    Under its title, a box shows the shape of the tensor that was made there, or the value and
    gradient of a tensor that you named, as in ``autograd_graph(loss, tensors={"w": w})``. Backward
    frees the graph, and freed operations are drawn in grey. To see gradients on a graph that is
    not freed, run ``loss.backward(retain_graph=True)`` first.

    A graph of more than 64 nodes is folded into at most 40 boxes: by module, or by depth if no
    modules are known.

    Raises:
        ImportError: matplotlib or igraph is not installed.

    >>> import torch
    >>> from blitz_helpers import autograd_graph
    >>> w = torch.tensor(2.0, requires_grad=True)
    >>> ax = plot_graph(autograd_graph((w * 3 - 5) ** 2, tensors={"w": w}))
    >>> [text.get_text() for text in ax.texts if text.get_gid() == "title"]
    ['pow', 'sub', 'mul', 'w']
    """
    page = sketch(graph)
    if ax is None:
        size = (page.right - page.left, page.top - page.bottom)
        figure = require("matplotlib.pyplot", extra="plotting").figure(
            figsize=size, FigureClass=figure_class()
        )
        ax = figure.add_axes((0, 0, 1, 1))
    require_axes(ax).set(xlim=(page.left, page.right), ylim=(page.bottom, page.top), aspect="equal")
    ax.set_axis_off()
    # One collection per kind: separate artists would take matplotlib many times as long.
    for gid, collection in _collections(page).items():
        collection.set_gid(gid)
        ax.add_collection(collection, autolim=False)
    font = require("matplotlib.font_manager", extra="plotting").FontProperties
    fonts = {role: font(size=style.size) for role, style in WORD_STYLES.items()}
    for word in page.words:
        ax.text(
            word.x, word.y, word.text, fontproperties=fonts[word.role], ha=word.align,
            va="baseline", color=WORD_STYLES[word.role].color, gid=word.role, parse_math=False,
        )  # fmt: skip
    return describe(ax, page.description)


def graph_svg(graph: AutogradGraph) -> Svg:
    """Return the picture of :func:`plot_graph` as SVG, quickly and without matplotlib.

    Its text can be searched, copied and read by a screen reader.

    Raises:
        ImportError: igraph is not installed.

    >>> import torch
    >>> from blitz_helpers import autograd_graph
    >>> w = torch.tensor(2.0, requires_grad=True)
    >>> svg = graph_svg(autograd_graph((w * 3 - 5) ** 2))
    >>> svg.count("<rect"), svg.count("<text")
    (7, 11)
    """
    page = sketch(graph)

    def at(*points: Point) -> str:
        return " ".join(
            f"{(x - page.left) * _POINTS:.1f},{(page.top - y) * _POINTS:.1f}" for x, y in points
        )

    width, height = (page.right - page.left) * _POINTS, (page.top - page.bottom) * _POINTS
    curves = " ".join(f"M{at(start)} C{at(*bends)}" for start, *bends in page.curves)
    heads = " ".join(f"M{at(*corners)}Z" for corners in page.heads)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.1f}pt" height="{height:.1f}pt" '
        f'viewBox="0 0 {width:.1f} {height:.1f}" font-family="DejaVu Sans, Verdana, sans-serif">',
        f"<title>{_xml(page.description)}</title>",
        '<rect width="100%" height="100%" fill="white"/>',  # readable in a dark theme too
        f'<path d="{curves}" fill="none" stroke="{GREY}"/>',
        f'<path d="{heads}" fill="{GREY}"/>',
    ]
    for box in [*page.blanks, *page.boxes]:
        style = BOX_STYLES[box.kind]
        x, y = at((box.x, box.y + box.height)).split(",")
        dash = f' stroke-dasharray="{" ".join(map(str, style.dash))}"' if style.dash else ""
        lines.append(
            f'<rect x="{x}" y="{y}" width="{box.width * _POINTS:.1f}" '
            f'height="{box.height * _POINTS:.1f}" rx="{box.corners * _POINTS:.1f}" '
            f'fill="{style.face}" stroke="{style.edge}"{dash}/>'
        )
    for word in page.words:
        look = WORD_STYLES[word.role]
        x, y = at((word.x, word.y)).split(",")
        lines.append(
            f'<text class="{word.role}" x="{x}" y="{y}" text-anchor="{_ANCHORS[word.align]}" '
            f'font-size="{look.size}" fill="{look.color}">{_xml(word.text)}</text>'
        )
    return Svg("\n".join([*lines, "</svg>"]))


def _xml(text: str) -> str:
    """Return the text for XML, which has no control characters."""
    return escape("".join(each if each.isprintable() else _UNPRINTABLE for each in text))


def _collections(page: Sketch) -> dict[str, Any]:
    """Return everything but the words, by kind, with what is drawn last in front."""
    collections = require("matplotlib.collections", extra="plotting")
    path = require("matplotlib.path", extra="plotting").Path
    rounded = require("matplotlib.patches", extra="plotting").BoxStyle.Round

    def drawn(boxes: list[Rectangle]) -> Any:
        styles = [BOX_STYLES[box.kind] for box in boxes]
        return collections.PathCollection(
            [
                rounded(pad=0, rounding_size=box.corners)(box.x, box.y, box.width, box.height, 1)
                for box in boxes
            ],
            facecolors=[style.face for style in styles],
            edgecolors=[style.edge for style in styles],
            linestyles=[(0, style.dash or None) for style in styles],
            linewidths=1,
        )

    curves = [
        path(points, [path.MOVETO, *[path.CURVE4] * (len(points) - 1)]) for points in page.curves
    ]
    return {
        "arrows": collections.PathCollection(curves, facecolors="none", edgecolors=GREY),
        "heads": collections.PolyCollection(page.heads, facecolors=GREY, edgecolors="none"),
        "blanks": drawn(page.blanks),
        "boxes": drawn(page.boxes),
    }
