"""Shared by every picture: axes to draw on, and the alt text that a page shows."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from blitz_helpers._extras import require
from blitz_helpers.plotting._checks import require_axes
from blitz_helpers.plotting._colours import CARD
from blitz_helpers.plotting._settings import default_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Maps each axes that a plot drew on to its alt text.
_WORDS: WeakKeyDictionary[Axes, str] = WeakKeyDictionary()

_CSS_PIXELS_PER_INCH = 96
_PADDING = 12  # CSS pixels around a picture
_SHARPNESS = 2  # image pixels per CSS pixel, for high-density screens
# Matplotlib writes no larger images, and Pillow takes them for an attack.
_LARGEST_SIDE, _LARGEST_AREA = 300.0, 4500.0  # inches, square inches


def figure_class() -> type[Figure]:
    """Return the figure class that ignores the user's settings when it is drawn."""
    require("matplotlib.figure", extra="plotting")
    from blitz_helpers.plotting._figure import DefaultStyleFigure

    return DefaultStyleFigure


def canvas(ax: Axes | None, width: float, height: float) -> Axes:
    """Return ``ax``, or the axes of a new figure of ``width`` x ``height`` inches.

    Raises:
        TypeError: ``ax`` is something else.
        ValueError: no picture can be as large.
    """
    if ax is not None:
        return require_axes(ax)
    if max(width, height) > _LARGEST_SIDE or width * height > _LARGEST_AREA:
        raise ValueError(
            f"The picture would be {width:,.0f} by {height:,.0f} inches, which is too large to be "
            "drawn. Draw a part of it."
        )
    _, axes = require("matplotlib.pyplot", extra="plotting").subplots(
        figsize=(width, height), layout="constrained", FigureClass=figure_class()
    )
    return axes  # type: ignore[no-any-return]  # `require` returns Any


@dataclass(frozen=True)
class Picture:
    """A drawn figure and its alt text, as a notebook shows them.

    ``str()`` gives the alt text, so that stored notebook outputs can be compared as text.

    >>> Picture(alt="a falling curve", png=b"", width=300)
    Picture: a falling curve
    """

    alt: str
    png: bytes = field(repr=False)
    width: int = field(repr=False)

    def __repr__(self) -> str:
        return f"Picture: {self.alt}"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        # JupyterLab shows the HTML, since it gives `image/png` outputs no alt text. LaTeX exports
        # and some viewers use the PNG. The card stays light in a dark theme, so that black text
        # stays readable.
        data = base64.b64encode(self.png).decode()
        html = (
            f'<img alt="{escape(self.alt)}" width="{self.width + 2 * _PADDING}" '
            f'style="max-width: 100%; box-sizing: border-box; padding: {_PADDING}px; '
            f'border-radius: 8px; background: {CARD}" src="data:image/png;base64,{data}">'
        )
        return {"text/plain": repr(self), "text/html": html, "image/png": data}


def describe(ax: Axes, words: str) -> Axes:
    """Store ``words`` as the alt text of the plot on ``ax``, and return ``ax``."""
    _WORDS[ax] = words
    return ax


@default_style()
def show(ax: Axes, alt: str | None = None) -> Picture:
    """Return the figure of ``ax`` as a picture for a notebook's page, and close it.

    The plots of this package come with an alt text. ``alt`` replaces it, and is required for a
    picture that you drew yourself.

    Raises:
        ValueError: the plot has no alt text, and none was given.
        TypeError: ``ax`` is something else than axes, or ``alt`` than text.

    >>> import matplotlib.pyplot as plt
    >>> _, ax = plt.subplots()
    >>> show(ax, alt="an empty pair of axes")
    Picture: an empty pair of axes
    """
    plt = require("matplotlib.pyplot", extra="plotting")
    if alt is not None and not isinstance(alt, str):
        raise TypeError(f"alt is a {type(alt).__name__}: expected a sentence about the picture.")
    figure = require_axes(ax).figure.figure  # of axes in a subfigure: the whole figure
    if alt is None:
        alt = " ".join(_WORDS[axes] for axes in figure.axes if axes in _WORDS)
    if not alt.strip():
        raise ValueError(
            "This picture has no alt text. "
            "Use show(ax, alt='what the picture shows, in a sentence')."
        )
    for axes in figure.axes:
        axes.patch.set_visible(False)  # the card shows through
    file = io.BytesIO()
    figure.savefig(
        file,
        format="png",
        dpi=_CSS_PIXELS_PER_INCH * _SHARPNESS,
        facecolor=CARD,
        bbox_inches="tight",
        metadata={"Software": None},
    )
    plt.close(figure)  # otherwise the notebook would show it a second time
    png = _with_fewer_colours(file)
    width_in_pixels = int.from_bytes(png[16:20], "big")  # PNG specification, IHDR
    return Picture(alt, png, width_in_pixels // _SHARPNESS)


def _with_fewer_colours(png: io.BytesIO) -> bytes:
    """Return the picture reduced to a palette of 256 colours: a third of the bytes."""
    image = require("PIL.Image", extra="plotting")
    smaller = io.BytesIO()
    whole = image.open(png).convert("RGB")
    whole.quantize(256, dither=image.Dither.NONE).save(smaller, format="png", optimize=True)
    return smaller.getvalue()
