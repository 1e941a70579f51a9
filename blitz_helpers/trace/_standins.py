"""Tensors without data, and those whose values are kept beside them."""

from __future__ import annotations

import torch
from torch import Tensor

from blitz_helpers.trace._layout import without_data

# Integers and truth values up to here, and numbers up to there, keep their values.
SMALL_INTEGERS, SMALL_NUMBERS = 1 << 16, 64


class NoValuesError(NotImplementedError):
    """An operation asks for values that are not there."""


def is_strided(tensor: Tensor) -> bool:
    """Whether sizes and strides are all that there is to know of the tensor but its values."""
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
    """Whether something was written to the tensor that the trace did not compute."""
    return getattr(tensor, "_blitz_stale", False)


def has_values(tensor: Tensor) -> bool:
    """Whether the values of a tensor are there and small enough to compute with."""
    if tensor.is_meta or is_stale(tensor) or tensor.is_nested:
        return False
    dtype = tensor.dtype
    whole = not (dtype.is_floating_point or dtype.is_complex)
    return tensor.numel() <= (SMALL_INTEGERS if whole else SMALL_NUMBERS)
