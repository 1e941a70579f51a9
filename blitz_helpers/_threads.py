"""Contexts shared by threads that overlap."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any


class SharedContext:
    """A context that begins with the first thread that enters it, and ends with the last.

    State of the whole process, such as random states or torch's global hooks, cannot be saved and
    restored by each thread separately: of two that overlap, the second would save what the first
    has set, and restore that last.

    >>> @SharedContext
    ... @contextmanager
    ... def noted():
    ...     print("begin")
    ...     yield
    ...     print("end")
    >>> with noted:
    ...     with noted:
    ...         print("twice")
    begin
    twice
    end
    """

    def __init__(self, context: Callable[[], AbstractContextManager[object]]) -> None:
        self._new = context
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._context = self._new()
                self._context.__enter__()
            self._inside += 1

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._context.__exit__(None, None, None)


class WarningIgnored(SharedContext):
    """Ignores warnings that start with ``text``.

    ``warnings.catch_warnings`` restores the whole list of filters, and so undoes what other threads
    have added or removed meanwhile. This context adds and removes a single filter.
    """

    def __init__(self, text: str) -> None:
        super().__init__(self._filtered)
        self._text = text

    def match(self, warning: str) -> bool:
        """Return whether to ignore a warning; Python calls it as that of a regular expression."""
        return warning.startswith(self._text)

    @contextmanager
    def _filtered(self) -> Iterator[None]:
        """Add a filter, and remove it, even from a copy that ``catch_warnings`` has made."""
        before, entry = _filters(), ("ignore", self, Warning, None, 0)
        before.insert(0, entry)
        try:
            yield
        finally:
            for filters in (before, _filters()):
                if entry in filters:
                    filters.remove(entry)


def _filters() -> list[Any]:
    return warnings.filters  # type: ignore[return-value]  # a list, although typed as a Sequence
