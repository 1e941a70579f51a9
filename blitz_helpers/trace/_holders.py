"""Finds what keeps a tensor alive, by the name under which users know it."""

from __future__ import annotations

import functools
import gc
import sys
import types
import weakref
from pathlib import Path
from typing import Any

from torch import Tensor

_OURS = str(Path(__file__).parent)
_LEVELS = 8  # how far a holder may be from the tensor
_NAMELESS = {dict, list, tuple, set, types.CellType, types.FrameType, weakref.ref}


def holder_of(tensor: Tensor, ours: list[Tensor]) -> str:
    """Return the name of whatever keeps the tensor alive."""
    nearest = ""
    seen = {id(ours)}
    level: list[Any] = [tensor]
    for _ in range(_LEVELS):
        seen.update(map(id, level))
        holders = [one for one in gc.get_referrers(*level) if id(one) not in seen]
        level = [one for one in holders if one is not level and not _is_our_frame(one)]
        for one in level:
            name = _name_of(one, seen)
            if name:
                return name
            if not nearest and type(one) not in _NAMELESS:
                nearest = f"a {type(one).__qualname__} object"
        if not level:
            break
    return nearest or "an object that has no name"


def _name_of(holder: Any, held: set[int]) -> str:
    """Return the name of a holder as users know it, ``""`` if it has none."""
    if isinstance(holder, functools._lru_cache_wrapper):
        name = holder.__qualname__
        return f"the cache of {name}() ({name}.cache_clear() empties it)"
    if isinstance(holder, types.FunctionType | types.GeneratorType):
        return f"{holder.__qualname__}()"
    if isinstance(holder, types.FrameType):
        return f"{holder.f_code.co_qualname}(), which is still running"
    if isinstance(holder, type):
        return f"the class {holder.__qualname__}"
    if isinstance(holder, dict) and isinstance(holder.get("__name__"), str):
        module = sys.modules.get(holder["__name__"])
        if module is not None and vars(module) is holder:
            names = [name for name, value in list(holder.items()) if id(value) in held]
            return f"{' and '.join(names) or 'a global'} of {module.__name__}"
    return ""


def _is_our_frame(holder: Any) -> bool:
    return isinstance(holder, types.FrameType) and holder.f_code.co_filename.startswith(_OURS)
