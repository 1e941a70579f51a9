"""A model and torch's global state, put back as they were."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from blitz_helpers._threads import SharedContext, WarningIgnored
from blitz_helpers._torch import no_torch_function
from blitz_helpers.trace._kept import KeptValues
from blitz_helpers.trace._search import keep_all

# What traces keep at the moment. Those that overlap share it: the second would otherwise keep what
# the first has left somewhere, and put that back last.
_kept: dict[object, Any] = {}
_lock = threading.RLock()


class StateGuard:
    """What a model, its code and its inputs hold, to be put back by `restore`."""

    def __init__(self, modules: Iterable[nn.Module], given: Iterable[Any]) -> None:
        self._mine: list[tuple[object, Any]] = []
        self._modules = list(modules)
        self._protected: set[int] = set()
        with _lock, no_torch_function():
            try:
                keep_all(self._modules, given, self._keep)
            except BaseException:
                self.restore()
                raise

    def _keep(self, key: object, make: Callable[[], Any]) -> Any:
        kept = _kept.get(key)
        if kept is None:
            kept = _kept[key] = make()
        self._mine.append((key, kept))
        kept.users += 1
        return kept

    def protect(self, tensor: Tensor) -> None:
        """Keep the values of a tensor that is about to be written to."""
        if id(tensor) not in self._protected:
            self._protected.add(id(tensor))
            with _lock:
                self._keep((id(tensor), "values"), lambda: KeptValues(tensor))

    def protect_values(self) -> None:
        """Keep the values of all parameters and buffers, and lay their gradients aside."""
        for module in self._modules:
            for tensor, _, _ in _kept[id(module)].flags:
                if not nn.parameter.is_lazy(tensor):  # that has no values yet
                    self.protect(tensor)
                    if tensor.is_leaf:
                        tensor.grad = None

    def restore(self) -> None:
        """Put back what no other trace uses. Where Ctrl-C stopped it, a second call goes on."""
        refused: Exception | None = None
        with _lock, no_torch_function():
            while self._mine:
                key, kept = self._mine[-1]
                if kept.users <= 1:
                    try:
                        kept.put_back()
                    except Exception as error:  # whatever a user's class raises: the rest goes on
                        refused = error
                    _kept.pop(key, None)
                kept.users -= 1
                self._mine.pop()
        if refused is not None:
            raise refused


@contextmanager
def global_state_kept() -> Iterator[None]:
    """Put torch's global state, and its and Python's random state, back on leaving."""
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
    """The dtype of new tensors, and the states of torch's and Python's random generators."""

    _warning = WarningIgnored("None of the inputs have requires_grad")  # says checkpointing

    def begin(self) -> None:
        self._dtype = torch.get_default_dtype()
        self._cpu = torch.get_rng_state()
        cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch's own
        self._cuda = torch.cuda.get_rng_state_all() if cuda else None
        self._python = random.getstate()
        self._warning.__enter__()

    def end(self) -> None:
        self._warning.__exit__()
        torch.set_default_dtype(self._dtype)
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state_all(self._cuda)
        random.setstate(self._python)


class _NumpyState(SharedContext):
    """The state of numpy's random generator; to read it takes as long as tracing three layers."""

    def begin(self) -> None:
        numpy = sys.modules.get("numpy")
        self._state = numpy.random.get_state() if numpy else None

    def end(self) -> None:
        if self._state is not None:
            sys.modules["numpy"].random.set_state(self._state)


_process_state = _ProcessState()
numpy_state_kept = _NumpyState()
