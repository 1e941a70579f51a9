"""Contexts that overlapping threads share."""

from __future__ import annotations

import re
import threading
import warnings
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Any


class SharedContext(ABC):
    """Begins with the first thread that enters it, and ends with the last one that leaves.

    What belongs to the whole process (random states, torch's global hooks) cannot be kept and put
    back by each thread for itself: where two overlap, the second keeps what the first has set, and
    puts that back last.

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

    @abstractmethod
    def begin(self) -> None:
        """Set up what all threads share."""

    @abstractmethod
    def end(self) -> None:
        """Take it down again."""

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
    """Ignores the warnings that begin with ``message``, a regular expression.

    ``warnings.catch_warnings`` puts a whole list of filters back, and with it what other threads
    have added or removed meanwhile. This adds one filter and removes one.
    """

    def __init__(self, message: str) -> None:
        super().__init__()
        self._filter = ("ignore", re.compile(message, re.IGNORECASE), Warning, None, 0)

    def begin(self) -> None:
        """Add the filter."""
        self._filters = _filters()
        self._filters.insert(0, self._filter)

    def end(self) -> None:
        """Remove the filter, also from a copy that a ``catch_warnings`` has made meanwhile."""
        for filters in {id(one): one for one in (self._filters, _filters())}.values():
            with suppress(ValueError):
                filters.remove(self._filter)


def _filters() -> list[Any]:
    return warnings.filters  # type: ignore[return-value]  # a list, which its type hides
