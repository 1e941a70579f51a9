"""Counts for sparse and nested tensors, which have no strides. A nested tensor holds several."""

from __future__ import annotations

import copy
import traceback
from pathlib import Path

import torch
from torch import Tensor

from blitz_helpers.trace._op import Op

_FILES = str(Path(torch.nested.__file__).parent)


def macs_of(call: Op, output: Tensor) -> int:
    """Return the multiply-accumulates of an operation on sparse or nested tensors.

    Each part of a nested tensor counts by itself. Of a sparse tensor, only stored entries count.
    """
    operands = {name: value for name, value in vars(call).items() if isinstance(value, Tensor)}
    nested = {name: value.unbind() for name, value in operands.items() if value.is_nested}
    if nested:
        macs = 0
        for place, part in enumerate(output.unbind() if output.is_nested else ()):
            of_part = copy.copy(call)
            vars(of_part).update({name: parts[place] for name, parts in nested.items()})
            macs += of_part.macs(part)
        return macs
    macs = call.macs(output)
    for value in operands.values():
        if value.layout in (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc):
            macs = macs * value._nnz() // max(value.numel(), 1)
    return macs


def nbytes_of(tensor: Tensor) -> int:
    """Return the bytes of a tensor's numbers, nested or not."""
    return sum(part.numel() * part.itemsize for part in _parts(tensor))


def made_by_torch_nested(error: Exception) -> bool:
    """Return whether an error was raised as torch made a nested tensor, which needs values."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(frame.filename.startswith(_FILES) for frame in frames)


def _parts(tensor: Tensor) -> tuple[Tensor, ...]:
    return tensor.unbind() if tensor.is_nested else (tensor,)
