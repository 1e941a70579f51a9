"""Frees a deep graph safely after Python has seen its nodes."""

from __future__ import annotations

import threading

from torch.autograd.graph import Node

# Once Python has seen a node, the node has a Python object. Freeing such a node frees its inputs
# recursively, at about 200 bytes of C stack each, unless something breaks the recursion.
LEVELS_FREED_AT_ONCE = 64


def free_apart(node: Node) -> None:
    """Defer the freeing of the inputs of ``node`` until ``node`` itself is freed."""
    node.metadata["blitz_helpers"] = _Apart(node.next_functions)  # type: ignore[index]  # a dict, stubbed wrongly


class _Pending(threading.local):
    def __init__(self) -> None:
        self.sources: list[object] = []
        self.emptying = False


class _Apart:
    """Keeps the inputs of its node alive until the node is gone, then frees them in a loop."""

    __slots__ = ("_sources",)
    _pending = _Pending()

    def __init__(self, sources: object) -> None:
        self._sources = sources

    def __del__(self) -> None:
        pending = self._pending
        pending.sources.append(self._sources)
        # Only the list may hold them now. If this object did too, they would still be freed with
        # it, inside its node.
        del self._sources
        if pending.emptying:
            return  # called from the loop below, which continues once this node is gone
        pending.emptying = True
        try:
            while pending.sources:
                pending.sources.pop()
        finally:
            pending.emptying = False
