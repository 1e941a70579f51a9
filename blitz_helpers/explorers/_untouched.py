"""Runs a model for real, and restores it afterwards."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Run the ``with`` block in eval mode, then restore the model and the random state.

    Restored are the attributes of each module, including its mode and hooks, the contents of its
    lists, dicts and sets, and the values of its buffers.

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
    """Give a list, dict or set its earlier contents."""
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
