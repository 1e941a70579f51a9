"""Restores a model, its inputs and torch's global state after a trace."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from blitz_helpers._torch import no_torch_function
from blitz_helpers.trace._places import DefaultDtype, Place, RandomState, Values
from blitz_helpers.trace._search import search

# The guards of all running traces. Traces that overlap share their places. Otherwise the second
# would save the changes of the first, and restore those at the end.
_guards: list[StateGuard] = []
_lock = threading.RLock()
_AUTOCAST = ("cpu", "cuda")


class StateGuard:
    """A context that restores the contents of modules, their code and objects, and torch's state.

    Torch's state is its random generators, the default dtype, and the modes of this thread.
    """

    def __init__(self, modules: Iterable[nn.Module] = (), given: Iterable[Any] = ()) -> None:
        self._modules, self._given = modules, given
        self._places: dict[object, Place] = {}

    def __enter__(self) -> StateGuard:
        self._grad_enabled = torch.is_grad_enabled()
        self._autocast = [
            (device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
            for device in _AUTOCAST
        ]
        cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch's own
        generators = (torch.default_generator, *(torch.cuda.default_generators if cuda else ()))
        with _lock, no_torch_function():
            _guards.append(self)
            try:
                self._keep(DefaultDtype, torch)
                for generator in generators:
                    self._keep(RandomState, generator)
                search(self._modules, self._given, self._keep)
            except BaseException:
                self._put_back()
                raise
        return self

    def _keep(self, kind: type[Place], owner: Any, *names: tuple[str, ...]) -> Place:
        key = (kind, id(owner), names)
        for guard in _guards:
            if key in guard._places:
                place = guard._places[key]
                break
        else:
            place = kind(owner, *names)
        self._places[key] = place
        return place

    def protect(self, tensor: Tensor) -> None:
        """Save the values of a tensor that is about to be written to."""
        with _lock, no_torch_function():
            self._keep(Values, tensor)

    def __exit__(self, *error: object) -> None:
        try:
            self._put_back()
        except BaseException:  # Ctrl-C in the middle of it
            self._put_back()
            raise

    def _put_back(self) -> None:
        """Restore all places that no other trace is using."""
        refused: Exception | None = None
        with _lock, no_torch_function():
            others = {key for guard in _guards if guard is not self for key in guard._places}
            for key, place in reversed(self._places.items()):
                if key not in others:
                    try:
                        place.put_back()
                    except Exception as error:  # from a user's class; restore the rest first
                        refused = error
            self._places.clear()
            if self in _guards:
                _guards.remove(self)
        torch.set_grad_enabled(self._grad_enabled)
        for device, enabled, dtype in self._autocast:
            torch.set_autocast_enabled(device, enabled)
            torch.set_autocast_dtype(device, dtype)
        if refused is not None:
            raise refused
