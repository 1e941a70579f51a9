"""Runs a model for real, and restores it afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from blitz_helpers.trace._guard import StateGuard, global_state_kept, other_generators_kept


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Run the ``with`` block in eval mode, then restore the model and the random states.

    >>> model = nn.Dropout()
    >>> with untouched(model):
    ...     model.training
    False
    >>> model.training
    True
    """
    guard = StateGuard(model.modules(), ())
    try:
        for buffer in model.buffers():
            guard.protect(buffer)
        with global_state_kept(), other_generators_kept:
            for module in model.modules():
                module.training = False
            yield
    finally:
        guard.restore()
