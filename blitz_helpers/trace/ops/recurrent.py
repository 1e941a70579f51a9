"""Recurrent layers, as torch's own functions take them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from blitz_helpers.trace._field import Dim, Origin, dims_of, origin_of, without_trail
from blitz_helpers.trace._layout import check_size, compute_dtype
from blitz_helpers.trace._op import Op, op


@op("lstm gru rnn_tanh rnn_relu", torch)
class Recurrent(Op):
    """Every token passes through every weight matrix of every layer and direction once."""

    def __init__(self, input: Tensor, *args: Any, **kwargs: Any) -> None:
        self.input = input
        self.weights: list[Tensor] = next(value for value in args if isinstance(value, list))

    def check(self) -> None:
        if self.weights:
            compute_dtype(self.input, self.weights[0])

    def origin(self, output: Tensor, step: int) -> Origin | None:
        if output.dim() != self.input.dim() or output.shape[:-1] != self.input.shape[:-1]:
            return without_trail(origin_of(self.input), (Dim(step=step),) * output.dim())
        return without_trail(origin_of(self.input), (*dims_of(self.input)[:-1], Dim(step=step)))

    def macs(self, output: Tensor) -> int:
        tokens = self.input.numel() // self.input.shape[-1]
        return tokens * sum([weight.numel() for weight in self.weights if weight.dim() == 2])


@op("lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell", torch)
class Cell(Op):
    """One token through the weights of one layer."""

    def __init__(
        self, input: Tensor, hx: Any, w_ih: Tensor, w_hh: Tensor, *args: Any, **kwargs: Any
    ) -> None:
        self.input, self.states, self.w_ih, self.w_hh = input, hx, w_ih, w_hh

    def check(self) -> None:
        check_size(self.input, -1, self.w_ih.shape[1], "features", self.w_ih)
        for state in self.states if isinstance(self.states, list | tuple) else (self.states,):
            check_size(state, -1, self.w_hh.shape[1], "features in the hidden state", self.w_hh)
            if state.dim() == self.input.dim() == 2:
                check_size(state, 0, self.input.shape[0], "rows in the hidden state", self.input)

    def macs(self, output: Tensor) -> int:
        return self.input.shape[0] * (self.w_ih.numel() + self.w_hh.numel())
