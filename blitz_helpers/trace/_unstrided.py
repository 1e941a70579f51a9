"""Counts for sparse and nested tensors, which have no strides."""

from __future__ import annotations

import copy
import traceback
from pathlib import Path

import torch
from torch import Tensor

from blitz_helpers.trace._field import Origin
from blitz_helpers.trace._op import Op

_FILES = str(Path(torch.nested.__file__).parent)


class UnstridedOp(Op):
    """An operation on sparse or nested tensors, about which less is known."""

    call: Op | None

    def macs(self, output: Tensor) -> int:
        """Return the multiply-accumulates of a nested tensor's parts or a sparse one's entries."""
        if self.call is None:
            return 0
        operands = {n: value for n, value in vars(self.call).items() if isinstance(value, Tensor)}
        nested = {name: value.unbind() for name, value in operands.items() if value.is_nested}
        if nested:
            macs = 0
            for place, part in enumerate(output.unbind() if output.is_nested else ()):
                of_part = copy.copy(self.call)
                vars(of_part).update({name: parts[place] for name, parts in nested.items()})
                macs += of_part.macs(part)
            return macs
        macs = self.call.macs(output)
        for value in operands.values():
            if value.layout in (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc):
                macs = macs * value._nnz() // max(value.numel(), 1)
        return macs

    def origin(self, output: Tensor, step: int) -> Origin:
        return Origin(output.device, depends=True)


def made_by_torch_nested(error: Exception) -> bool:
    """Return whether an error was raised as torch made a nested tensor, which needs values."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(frame.filename.startswith(_FILES) for frame in frames)
