"""Recurrent layers and cells."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from blitz_helpers.trace._field import (
    Origin,
    last_made,
)
from blitz_helpers.trace._layout import (
    check_size,
    compute_dtype,
)
from blitz_helpers.trace._op import Op, OpenOp, op


@op("lstm gru rnn_tanh rnn_relu")
class Recurrent(OpenOp):
    """Every token passes through every weight matrix of every layer and direction once."""

    input: Tensor

    @property
    def weights(self) -> list[Tensor]:
        """The weights, which packed sequences move to a later argument."""
        return next(value for value in self.args if isinstance(value, list))

    def check(self) -> None:
        if self.weights:
            compute_dtype(self.input, self.weights[0])

    def macs(self, output: Tensor) -> int:
        tokens = self.input.numel() // self.input.shape[-1]
        return tokens * sum([weight.numel() for weight in self.weights if weight.dim() == 2])

    def origin(self, output: Tensor, step: int) -> Origin | None:
        return last_made(self.input, output, step)


@op("lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell")
class Cell(Op):
    """One token through the weights of one layer."""

    input: Tensor
    hx: Any
    w_ih: Tensor
    w_hh: Tensor
    b_ih: Tensor | None = None
    b_hh: Tensor | None = None

    def check(self) -> None:
        check_size(self.input, -1, self.w_ih.shape[1], "features", self.w_ih)
        for state in self.hx if isinstance(self.hx, list | tuple) else (self.hx,):
            check_size(state, -1, self.w_hh.shape[1], "features in the hidden state", self.w_hh)
            if state.dim() == self.input.dim() == 2:
                check_size(state, 0, self.input.shape[0], "rows in the hidden state", self.input)

    def macs(self, output: Tensor) -> int:
        return self.input.shape[0] * (self.w_ih.numel() + self.w_hh.numel())
