"""Makes pictures look the same whatever style, font or layout the user has set in matplotlib."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import ParamSpec, TypeVar

from blitz_helpers._extras import require

# Matplotlib's settings for the look of a picture, without those for saving it.
_LOOK = (
    "agg.", "axes.", "contour.", "figure.", "font.", "grid.", "hatch.", "image.", "legend.",
    "lines.", "markers.", "mathtext.", "patch.", "path.", "scatter.", "text.", "xaxis.", "xtick.",
    "yaxis.", "ytick.",
)  # fmt: skip
_NOT_LOOK = ("figure.hooks", "figure.max_open_warning")

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


def same_for_all(draw: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """Run ``draw`` under matplotlib's default settings, then restore the user's."""

    @functools.wraps(draw)
    def drawn(*args: _Given.args, **kwargs: _Given.kwargs) -> _Result:
        with _default_look():
            return draw(*args, **kwargs)

    return drawn


def _default_look() -> AbstractContextManager[None]:
    mpl = require("matplotlib", extra="plotting")
    look = {
        name: value
        for name, value in mpl.rcParamsDefault.items()
        if name.startswith(_LOOK) and name not in _NOT_LOOK
    }
    context: AbstractContextManager[None] = mpl.rc_context(look)
    return context
