"""Runs a model for real, and restores it afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from blitz_helpers._random_states import global_generators
from blitz_helpers.trace._guard import StateGuard


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
    with StateGuard(model.modules(), global_generators().values()) as guard:
        for buffer in model.buffers():
            guard.protect(buffer)
        for module in model.modules():
            module.training = False
        yield
