"""Tells which tensors have data or share memory, and makes those without data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from blitz_helpers._torch import functorch
from blitz_helpers.trace._layout import without_data

# Tensors up to these sizes keep their values.
SMALL_INTEGERS, SMALL_NUMBERS = 1 << 16, 64


class NoValuesError(NotImplementedError):
    """An operation asks for values of a tensor without data."""


def is_strided(tensor: Tensor) -> bool:
    """Return whether a tensor is fully described by its sizes, strides and values."""
    return tensor.layout is torch.strided and not tensor.is_nested


def stripped(tensor: Tensor) -> Tensor:
    """Return the tensor without its data.

    Raises:
        NoValuesError: the tensor is sparse or nested, with part of its shape among its values.
    """
    if tensor.is_meta:
        return tensor
    if not is_strided(tensor):
        raise NoValuesError(f"a tensor of layout {tensor.layout} has no strides")
    return without_data(tensor)


def is_stale(tensor: Tensor) -> bool:
    """Return whether an operation that the trace did not compute has written to the tensor."""
    return getattr(tensor, "_blitz_stale", False)


def has_values(tensor: Tensor) -> bool:
    """Return whether a tensor has values, and few enough of them to compute with."""
    if tensor.is_meta or is_stale(tensor) or tensor.is_nested:
        return False
    dtype = tensor.dtype
    whole = not (dtype.is_floating_point or dtype.is_complex)
    return tensor.numel() <= (SMALL_INTEGERS if whole else SMALL_NUMBERS)


def extremes_of(tensor: Tensor) -> tuple[int, int] | None:
    """Return the smallest and the largest of whole numbers, or ``None`` if they are not known."""
    while functorch.is_batchedtensor(tensor):  # a sample of `vmap` has no values, its batch has
        tensor = functorch.get_unwrapped(tensor)
    if tensor.is_floating_point() or not has_values(tensor) or not tensor.numel():
        return None
    return int(tensor.min()), int(tensor.max())


def is_memory_of(base: Tensor, inputs: Sequence[Tensor]) -> bool:
    """Return whether the base of an output, a view, is the memory of an input.

    Torch also calls a tensor a view if its base is one that the operation itself has made.
    """
    return any(
        base is one
        or base is one._base
        or (base.is_meta and not one.is_meta and base.shape == one.shape)  # `one` without data
        for one in inputs
    )
