"""Tensors without data that outlive the trace that made them.

Those that a model keeps are removed (see ``_guard``), but a ``functools.lru_cache``, another thread
or a library may keep one too. Such a tensor raises an error when it is used, and the trace warns
of it.
"""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

from torch import Tensor

from blitz_helpers._torch import no_subclasses
from blitz_helpers.trace._field import known_origin
from blitz_helpers.trace._nests import tensors_in
from blitz_helpers.trace._operations import PLAIN_QUESTIONS
from blitz_helpers.trace._standins import is_stale


class _Tracing(threading.local):
    """The number of traces that this thread is inside."""

    depth = 0


_here = _Tracing()
_lock = threading.Lock()
_traces = 0  # how many are running, in all threads
_raised = False  # whether one of them ended with an error
_made: list[weakref.ref[Tensor]] = []  # the tensors that they have made


def note_made(tensor: Tensor) -> None:
    """Remember, without keeping it alive, a tensor that a trace has made."""
    _made.append(weakref.ref(tensor))


class SurvivorsDisarmed:
    """A context after which tensors without data raise an error when they are used.

    ``holders`` tells what keeps them alive. If traces overlap, the last one searches for all of
    them, since shared state is restored only then.
    """

    def __init__(self) -> None:
        self.holders: list[str] = []

    def __enter__(self) -> SurvivorsDisarmed:
        global _traces
        with _lock:
            _traces += 1
        _here.depth += 1
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        global _traces, _raised
        _here.depth -= 1
        with _lock:
            _traces -= 1
            _raised = raised = _raised or kind is not None
            if _traces:
                return
            made = _made.copy()
            _made.clear()
            _raised = False
        left = _alive(made)
        if left and not raised:
            left.clear()
            gc.collect()  # the model may have made cycles
            left = _alive(made)
        for tensor in left:
            from blitz_helpers.trace._holders import holder_of  # seldom needed

            # During an error, the frames of the model still hold their variables.
            holder = "" if raised or len(self.holders) == 3 else holder_of(tensor, left)
            if holder and holder not in self.holders:
                self.holders.append(holder)
            tensor.__class__ = _Survivor
            tensor._blitz_holder = holder  # type: ignore[attr-defined]  # of `_Survivor`


class _Survivor(Tensor):
    """A tensor without data, after the trace that made it."""

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in PLAIN_QUESTIONS or _here.depth:  # inside a trace, only shapes are needed
            with no_subclasses():
                return func(*args, **(kwargs or {}))
        tensors = tensors_in((*args, *(kwargs or {}).values()))
        held_by = [getattr(one, "_blitz_holder", "") for one in tensors]
        holder = next(filter(None, held_by), "something")
        raise RuntimeError(
            f"This tensor has no data: trace_shapes made it, and {holder} kept it. "
            "Remove it there, and compute it anew."
        )


def _alive(made: list[weakref.ref[Tensor]]) -> list[Tensor]:
    """Return the tensors that are alive, without those that a real forward pass makes as well."""
    return [tensor for ref in made if (tensor := ref()) is not None and not _is_true(tensor)]


def _is_true(tensor: Tensor) -> bool:
    """Return whether a tensor has the values and the device that a real forward pass gives it."""
    origin = known_origin(tensor)
    if origin is None or tensor.is_meta or is_stale(tensor):
        return False
    return not origin.depends and origin.device == tensor.device
