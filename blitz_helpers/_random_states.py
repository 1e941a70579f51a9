"""Reads and restores the states of random generators: torch's, Python's and numpy's."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch


def state_methods(thing: Any) -> tuple[Callable[[], Any], Callable[[Any], object]] | None:
    """Return the functions that read and set a random generator's state, or ``None``.

    >>> get, put = state_methods(random.Random(0))
    >>> state = get()
    >>> first = random.Random(0).random()
    >>> put(state) is None
    True
    """
    if isinstance(thing, torch.Generator):
        # A saved state may have been loaded onto another device; torch wants it on the CPU.
        return thing.get_state, lambda state: thing.set_state(state.cpu())
    if isinstance(thing, random.Random) and not isinstance(thing, random.SystemRandom):
        return thing.getstate, thing.setstate
    numpy: Any = sys.modules.get("numpy.random")
    if numpy is None:
        return None
    if isinstance(thing, numpy.RandomState):
        return partial(thing.get_state, legacy=False), thing.set_state
    bits = thing.bit_generator if isinstance(thing, numpy.Generator) else thing
    if isinstance(bits, numpy.BitGenerator):
        return partial(getattr, bits, "state"), partial(setattr, bits, "state")
    return None


def global_generators() -> dict[str, Any]:
    """Return the generators behind ``random.random()`` and, once loaded, ``numpy.random.rand()``.

    >>> global_generators()["python"] is random.random.__self__
    True
    """
    numpy: Any = sys.modules.get("numpy.random")
    drawing = {"python": random.random} | ({"numpy": numpy.rand} if numpy else {})
    return {library: draw.__self__ for library, draw in drawing.items()}
