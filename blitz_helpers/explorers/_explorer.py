"""An interactive picture: a state, the view that Python computes from it, and a drawing script."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from blitz_helpers._extras import require
from blitz_helpers.plotting._canvas import Picture

_FOLDER = Path(__file__).parent
_NOTE = "A still picture. Run this cell to move it yourself."

State = TypeVar("State")
_State = TypeVar("_State", covariant=True)


class View(Protocol[_State]):
    """A dataclass with everything drawn for one state: plain values, and bytes for images."""

    @property
    def state(self) -> _State:
        """Return the state that is drawn, in which impossible values have been adjusted."""


class Explorer(Generic[State]):
    """An interactive picture. Leave it on the last line of a cell to see it.

    Without a kernel, or where widgets are not supported, a still picture takes its place.

    >>> from dataclasses import replace
    >>> from blitz_helpers import explore_window
    >>> explorer = explore_window()
    >>> explorer.state = replace(explorer.state, padding=1)
    >>> explorer.state.padding
    1
    """

    def __init__(
        self,
        start: State,
        view: Callable[[State], View[State]],
        picture: Callable[[State], Picture],
        script: str,
    ) -> None:
        widget_class = _widget_class()  # first, so that without anywidget the error names it
        self._view, self._picture = view, picture
        first = view(start)
        self._state = first.state
        self._widget = widget_class(
            _esm="\n".join((_FOLDER / name).read_text("utf-8") for name in ("common.js", script)),
            _css=(_FOLDER / "style.css").read_text("utf-8"),
            view=_sent(first),
        )
        self._widget.on_msg(self._hear)

    @property
    def state(self) -> State:
        """The state shown on the page. Set it, and the page follows.

        Raises:
            TypeError: the new state belongs to another kind of explorer.
            ValueError: the state cannot be drawn; the page stays as it was.
        """
        return self._state

    @state.setter
    def state(self, state: State) -> None:
        if type(state) is not type(self._state):
            raise TypeError(
                f"A state must be a {type(self._state).__name__}, not a {type(state).__name__}. "
                "Use dataclasses.replace(explorer.state, ...)."
            )
        self._show(state, answers="")

    def _show(self, state: State, answers: str) -> None:
        view = self._view(state)
        self._state = view.state
        self._widget.view = _sent(view, answers)

    def _hear(self, _widget: object, message: Any, _buffers: object) -> None:
        """Answer a page that asks for another state."""
        answers = str(message.get("number", ""))
        try:
            self._show(type(self._state)(**message["state"]), answers)
        except Exception as error:  # shown on the page, since the reader sees no log
            self._widget.view = {
                **self._widget.view,
                "problem": str(error) or type(error).__name__,
                "answers": answers,
            }

    def __repr__(self) -> str:
        return f"Explorer: {self._state}"

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        # A live front end shows the widget; stored pages and other viewers show the picture.
        data, metadata = self._widget._repr_mimebundle_()
        bundle = self._picture(self._state)._repr_mimebundle_()
        bundle["text/html"] += f'<p style="font-size: 90%; opacity: 0.8">{escape(_NOTE)}</p>'
        return {**data, **bundle}, metadata


def _sent(view: Any, answers: str = "") -> dict[str, Any]:
    """Return a view as it is sent to the page, with the number of the request it answers."""
    return {**asdict(view), "answers": answers}


@cache
def _widget_class() -> Any:
    """Return the widget class. It is made on first use, since anywidget takes a while to load."""
    anywidget = require("anywidget", extra="explorers")
    traitlets = require("traitlets", extra="explorers")
    return type(
        "ExplorerWidget",
        (anywidget.AnyWidget,),
        {
            "__module__": __name__,
            "_esm": traitlets.Unicode().tag(sync=True),
            "_css": traitlets.Unicode().tag(sync=True),
            "view": traitlets.Dict().tag(sync=True),
        },
    )
