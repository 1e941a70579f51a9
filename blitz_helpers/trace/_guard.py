"""Restores a model, its inputs and torch's global state after a trace."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from blitz_helpers._threads import SharedContext, WarningIgnored
from blitz_helpers._torch import no_torch_function
from blitz_helpers.trace._places import Place, Values
from blitz_helpers.trace._search import search

# The guards of all running traces. Traces that overlap share their places. Otherwise the second
# would save the changes of the first, and restore those at the end.
_guards: list[StateGuard] = []
_lock = threading.RLock()


class StateGuard:
    """Saves what a model, its code and its inputs hold, until `restore` puts it back."""

    def __init__(self, modules: Iterable[nn.Module], given: Iterable[Any]) -> None:
        self._places: dict[object, Place] = {}
        with _lock, no_torch_function():
            _guards.append(self)
            try:
                search(modules, given, self._keep)
            except BaseException:
                self.restore()
                raise

    def _keep(self, kind: type[Place], owner: Any, *names: tuple[str, ...]) -> Place:
        key = (kind, id(owner), *names)
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

    def restore(self) -> None:
        """Restore every place that no other trace uses. After Ctrl-C it can be called again."""
        refused: Exception | None = None
        with _lock, no_torch_function():
            others = {key for guard in _guards if guard is not self for key in guard._places}
            for key, place in reversed(self._places.items()):
                if key not in others:
                    try:
                        place.put_back()
                    except Exception as error:  # of a user's class; the other places come first
                        refused = error
            self._places.clear()
            if self in _guards:
                _guards.remove(self)
        if refused is not None:
            raise refused


@contextmanager
def global_state_kept() -> Iterator[None]:
    """Restore torch's global state afterwards, including random states."""
    grad_enabled = torch.is_grad_enabled()
    autocast = [(d, torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in _AUTOCAST]
    with _process_state:
        try:
            yield
        finally:
            torch.set_grad_enabled(grad_enabled)
            for device, enabled, kind in autocast:
                torch.set_autocast_enabled(device, enabled)
                torch.set_autocast_dtype(device, kind)


_AUTOCAST = ("cpu", "cuda")


class _ProcessState(SharedContext):
    """The dtype of new tensors, and the states of torch's random generators."""

    _warning = WarningIgnored("None of the inputs have requires_grad")  # from checkpointing

    def begin(self) -> None:
        self._dtype = torch.get_default_dtype()
        self._cpu = torch.get_rng_state()
        cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch's own
        self._cuda = torch.cuda.get_rng_state_all() if cuda else None
        self._warning.__enter__()

    def end(self) -> None:
        self._warning.__exit__()
        torch.set_default_dtype(self._dtype)
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state_all(self._cuda)


class _OtherGenerators(SharedContext):
    """The states of Python's and numpy's random generators, which take long to read."""

    def begin(self) -> None:
        numpy = sys.modules.get("numpy")
        self._python = random.getstate()
        self._numpy = numpy.random.get_state() if numpy else None

    def end(self) -> None:
        random.setstate(self._python)
        if self._numpy is not None:
            sys.modules["numpy"].random.set_state(self._numpy)


_process_state = _ProcessState()
other_generators_kept = _OtherGenerators()
