"""Contexts that overlapping threads share."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any


class SharedContext:
    """Enters a context with the first thread that comes, and leaves it with the last that goes.

    What belongs to the whole process (random states, torch's global hooks) cannot be kept and put
    back by each thread for itself: where two overlap, the second keeps what the first has set, and
    puts that back last.

    Args:
        make: returns a fresh context each time that it is to be entered.

    >>> from contextlib import contextmanager
    >>> @contextmanager
    ... def noted():
    ...     print("in")
    ...     yield
    ...     print("out")
    >>> context = SharedContext(noted)
    >>> with context:
    ...     with context:
    ...         print("twice")
    in
    twice
    out
    """

    def __init__(self, make: Callable[[], AbstractContextManager[object]]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._context = self._make()
                self._context.__enter__()
            self._inside += 1

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._context.__exit__(None, None, None)


@contextmanager
def warning_ignored(message: str) -> Iterator[None]:
    """Ignore warnings that begin with ``message``, a regular expression.

    ``warnings.catch_warnings`` puts a whole list of filters back, and with it what other threads
    have added or removed meanwhile. This adds one filter and removes one.
    """
    ignore: tuple[Any, ...] = ("ignore", re.compile(message, re.IGNORECASE), Warning, None, 0)
    filters = _filters()
    filters.insert(0, ignore)
    try:
        yield
    finally:
        # A `catch_warnings` that began meanwhile has put a copy in the place of the list.
        for one in (filters,) if filters is _filters() else (filters, _filters()):
            with suppress(ValueError):
                one.remove(ignore)


def _filters() -> list[tuple[Any, ...]]:
    return warnings.filters  # type: ignore[return-value]  # a list, which its type hides
