"""Communication between the processes of torch.distributed, or none in a single process."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, distributed

_Value = TypeVar("_Value")


def rank() -> int:
    return distributed.get_rank() if _are_many() else 0


def mean_over_processes(loss: Tensor) -> float:
    if not _are_many():
        return loss.item()
    mean = loss.detach().clone()
    distributed.all_reduce(mean)
    return mean.item() / distributed.get_world_size()


def from_first(value: _Value) -> _Value:
    """Return the value of the first process."""
    values = [value]
    if _are_many():
        distributed.broadcast_object_list(values)
    return values[0]


def from_all(value: _Value) -> list[_Value]:
    """Return the values of all processes, ordered by rank."""
    values = [value]
    if _are_many():
        values *= distributed.get_world_size()
        distributed.all_gather_object(values, value)
    return values


def _are_many() -> bool:
    return distributed.is_available() and distributed.is_initialized()
