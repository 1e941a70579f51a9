"""Let go of a deep graph safely after Python has seen its nodes."""

from __future__ import annotations

import threading

from torch.autograd.graph import Node

# A node that Python has seen has a Python object, and such nodes are freed one inside the other,
# at about 200 bytes of C stack each, until something comes between them.
LEVELS_FREED_AT_ONCE = 64


def free_apart(node: Node) -> None:
    """Defer the freeing of the inputs of ``node`` until ``node`` itself is freed."""
    node.metadata["blitz_helpers"] = _Apart(node.next_functions)  # type: ignore[index]  # a dict, stubbed wrongly


class _Pending(threading.local):
    def __init__(self) -> None:
        self.sources: list[object] = []
        self.emptying = False


class _Apart:
    """Outlives what its node holds itself, by a little, and then hands it on."""

    __slots__ = ("_sources",)
    _pending = _Pending()

    def __init__(self, sources: object) -> None:
        self._sources = sources

    def __del__(self) -> None:
        pending = self._pending
        pending.sources.append(self._sources)
        # Now the list alone holds them: kept here too, they would be freed after all when this
        # object is, inside its node.
        del self._sources
        if pending.emptying:
            return  # we are inside the loop below: it goes on when this node is gone
        pending.emptying = True
        try:
            while pending.sources:
                pending.sources.pop()
        finally:
            pending.emptying = False
