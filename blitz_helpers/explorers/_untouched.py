"""Runs a model for real, and restores it afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from blitz_helpers.trace._guard import StateGuard, other_generators


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
    with StateGuard(model.modules(), other_generators()) as guard:
        for buffer in model.buffers():
            guard.protect(buffer)
        for module in model.modules():
            module.training = False
        yield
