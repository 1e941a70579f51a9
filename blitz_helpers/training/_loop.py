"""The training loop: the gradients of each batch, then an update step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from blitz_helpers.training._evaluation import Loader, answer
from blitz_helpers.training._history import Record
from blitz_helpers.training._processes import mean_over_processes
from blitz_helpers.training._progress import Progress


class Run(Protocol):
    """A run of Weights & Biases, or any object with a ``log`` method like its own."""

    def log(self, data: dict[str, Any], /) -> Any:
        """Log the values of one step."""


class NotFiniteError(Exception):
    """The loss or a parameter became NaN or infinite; ``step`` says when, counted from 1."""

    def __init__(self, reason: str, step: int) -> None:
        super().__init__(reason)
        self.step = step


class Log:
    """Logs each step's values late, so that more can be added to the last step of an epoch."""

    def __init__(self, run: Run | None) -> None:
        self._run, self._held = run, dict[str, float]()

    def hold(self, values: dict[str, float]) -> None:
        self.flush()
        self._held = values

    def add(self, values: dict[str, float]) -> None:
        self._held |= values

    def flush(self) -> None:
        held, self._held = self._held, {}
        if self._run is not None and held:
            self._run.log(held)


class Loop:
    """The steps of a training, and its current state."""

    def __init__(
        self,
        model: nn.Module,
        step: Callable[..., object],
        lr_schedule: Callable[[float], float] | None,
        record: Record,
        log: Log,
        progress: Progress,
    ) -> None:
        self._model, self._params = model, list(model.parameters())
        self._step, self._lr_schedule = step, lr_schedule
        self._record, self._log, self._progress = record, log, progress
        self.batch: tuple[Tensor, Tensor] | None = None
        """The current batch."""
        self.trained_on: tuple[Tensor, Tensor] | None = None
        """The batch of the last finished step; ``None`` before the first."""

    def train_epoch(self, loader: Loader) -> None:
        """Train on all batches of the loader, and count them as an epoch.

        Raises:
            NotFiniteError: the loss or a parameter is no longer finite.
            ValueError: the loader gave no batch, or a bad one.
        """
        for self.batch in loader:
            self._train_on(self.batch)
        if self._record.unfinished == 0:
            raise ValueError(
                f"The loader gave no batch in epoch {len(self._record.steps) + 1}, though its "
                "length says otherwise: it is empty, or used up after one pass. Use a list of "
                "batches or a DataLoader, which begin anew each time."
            )
        if not all(w.isfinite().all() for w in self._params):
            raise NotFiniteError("a parameter is no longer finite", len(self._record.losses))
        self._record.steps.append(self._record.unfinished)

    def _train_on(self, batch: tuple[Tensor, Tensor]) -> None:
        record = self._record
        self._log.flush()  # or values that hooks log in backward would join the last step
        if self.trained_on is not None:
            self._clear_gradients()  # before the forward pass, which needs their memory
        logits, labels = answer(self._model, batch)
        loss = F.cross_entropy(logits, labels)
        value = mean_over_processes(loss)
        if not math.isfinite(value):
            raise NotFiniteError(f"the loss is {value}", len(record.losses) + 1)
        if self.trained_on is None:
            self._clear_gradients()  # not earlier, since a rejected call must change nothing
        loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
        num_steps = record.num_steps()
        if self._lr_schedule is None:
            self._step(self._params)
            values = {"train/loss": value}
        else:
            lr = self._lr_schedule(len(record.losses) / num_steps)
            self._step(self._params, lr=lr)
            values = {"train/loss": value, "train/lr": lr}
        record.losses.append(value)
        self.trained_on = batch
        self._progress.advance(value, num_steps)
        self._log.hold(values)

    def _clear_gradients(self) -> None:
        for w in self._params:  # as model.zero_grad() does, but without looking them up
            w.grad = None
