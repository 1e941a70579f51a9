"""Shortens errors in a notebook to the lines of your own code that led to them."""

from __future__ import annotations

import linecache
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

_OTHER_PEOPLES = (
    *{sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")},
    str(Path(__file__).parent),
    "<",  # code without a file, such as methods made by `dataclass`
)
# Still shown: the network of the series, and code typed into IPython in a terminal.
_READERS = (str(Path(__file__).with_name("network.py")), "<ipython-input")


def short_errors() -> None:
    """Hide the lines inside installed packages in the errors that this notebook shows.

    The message and all lines of your own code that led to the error remain. Outside Jupyter and
    IPython this does nothing. ``%tb`` still shows the full traceback.

    >>> short_errors()
    """
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is not None:
        shell.set_custom_exc((Exception,), _show)


def own_line(error: BaseException) -> str | None:
    """Return the last line of the reader's own code that led to the error, or ``None``."""
    trace = _own(error.__traceback__)
    if trace is None:
        return None
    while trace.tb_next is not None:
        trace = trace.tb_next
    return linecache.getline(trace.tb_frame.f_code.co_filename, trace.tb_lineno).strip() or None


def _show(shell: Any, kind: Any, error: BaseException, trace: Any, tb_offset: Any = None) -> None:
    with _shortened(error):
        shell.showtraceback((kind, error, error.__traceback__), tb_offset=0)


@contextmanager
def _shortened(error: BaseException) -> Iterator[None]:
    """Temporarily remove other people's lines from an error and from those that led to it."""
    kept = [
        (each, each.__traceback__, each.__cause__, each.__suppress_context__)
        for each in _chain(error)
    ]
    previous = None
    for each, trace, _, _ in kept:
        own = _own(trace)
        if own is None and previous is not None:
            previous.__cause__ = None  # no own lines from here on; hides the context too
            break
        each.__traceback__ = own or trace
        previous = each
    try:
        yield
    finally:
        for each, trace, cause, hidden in kept:
            each.__traceback__, each.__cause__, each.__suppress_context__ = trace, cause, hidden


def _chain(error: BaseException) -> list[BaseException]:
    """Return the error and those that led to it, as Python shows them."""
    found: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in found:
        found.append(following)
        hidden = following.__suppress_context__
        following = following.__cause__ or (None if hidden else following.__context__)
    return found


def _own(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback without other people's lines, or ``None`` if none are left."""
    lines = []
    following = trace
    while following is not None:
        file = following.tb_frame.f_code.co_filename
        if file.startswith(_READERS) or not file.startswith(_OTHER_PEOPLES):
            lines.append(following)
        following = following.tb_next
    own: TracebackType | None = None
    for line in reversed(lines):
        own = TracebackType(own, line.tb_frame, line.tb_lasti, line.tb_lineno)
    return own
