"""Contexts shared by threads that overlap."""

from __future__ import annotations

import threading
import warnings
from contextlib import suppress
from typing import Any


class SharedContext:
    """Begins with the first thread that enters it, and ends with the last one that leaves.

    State of the whole process, such as random states or torch's global hooks, cannot be saved and
    restored by each thread separately: of two that overlap, the second would save what the first
    has set, and restore that last.

    >>> class Noted(SharedContext):
    ...     def begin(self):
    ...         print("begin")
    ...     def end(self):
    ...         print("end")
    >>> context = Noted()
    >>> with context:
    ...     with context:
    ...         print("twice")
    begin
    twice
    end
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def begin(self) -> None:
        """Set up the shared state."""
        raise NotImplementedError

    def end(self) -> None:
        """Restore the state as it was before."""
        raise NotImplementedError

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self.begin()
            self._inside += 1

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self.end()


class WarningIgnored(SharedContext):
    """Ignores warnings that start with ``text``.

    ``warnings.catch_warnings`` restores the whole list of filters, and so undoes what other threads
    have added or removed meanwhile. This context adds and removes a single filter.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text
        self._filter = ("ignore", self, Warning, None, 0)

    def match(self, warning: str) -> bool:
        """Return whether to ignore a warning; Python calls it as that of a regular expression."""
        return warning.startswith(self._text)

    def begin(self) -> None:
        """Add the filter."""
        self._filters = _filters()
        self._filters.insert(0, self._filter)

    def end(self) -> None:
        """Remove the filter, even from a copy that ``catch_warnings`` has made meanwhile."""
        for filters in {id(one): one for one in (self._filters, _filters())}.values():
            with suppress(ValueError):
                filters.remove(self._filter)


def _filters() -> list[Any]:
    return warnings.filters  # type: ignore[return-value]  # a list, although typed as a Sequence
