"""Makes pictures look the same whatever style, font or layout the user has set in matplotlib."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from blitz_helpers._extras import require

# Matplotlib's settings for the look of a picture, without those for saving it.
_LOOK = (
    "agg.", "axes.", "contour.", "figure.", "font.", "grid.", "hatch.", "image.", "legend.",
    "lines.", "markers.", "mathtext.", "patch.", "path.", "scatter.", "text.", "xaxis.", "xtick.",
    "yaxis.", "ytick.",
)  # fmt: skip
_NOT_LOOK = ("figure.hooks", "figure.max_open_warning")


@contextmanager
def default_style() -> Iterator[None]:
    """Use matplotlib's default settings in a block or a decorated function, then the user's."""
    mpl = require("matplotlib", extra="plotting")
    look = {
        name: value
        for name, value in mpl.rcParamsDefault.items()
        if name.startswith(_LOOK) and name not in _NOT_LOOK
    }
    with mpl.rc_context(look):
        yield
