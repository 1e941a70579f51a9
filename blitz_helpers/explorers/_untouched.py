"""A model that runs for real, and is afterwards as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Run what is inside in eval mode. Put back what it changed in the model, and random numbers.

    Put back are the attributes of each module, its mode and hooks among them, what its lists,
    dicts and sets hold, and the values of its buffers.

    >>> model = nn.Dropout()
    >>> with untouched(model):
    ...     model.training
    False
    >>> model.training
    True
    """
    modules = [(module, vars(module).copy()) for module in model.modules()]
    holders = [
        (value, copy.copy(value))
        for _, attributes in modules
        for value in attributes.values()
        if isinstance(value, list | dict | set)
    ]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    with torch.random.fork_rng(devices=[]):
        try:
            for module, _ in modules:
                module.training = False
            yield
        finally:
            for module, attributes in modules:
                _refill(vars(module), attributes)
            for value, held in holders:
                _refill(value, held)
            _put_back(buffers)


def _refill(holder: Any, held: Any) -> None:
    """Let a list, dict or set hold what it held."""
    if isinstance(holder, list):
        holder[:] = held
    else:
        holder.clear()
        holder.update(held)


def _put_back(buffers: list[tuple[Tensor, Tensor]]) -> None:
    with torch.no_grad():
        for buffer, values in buffers:
            if not torch.equal(buffer, values):
                buffer.copy_(values)
