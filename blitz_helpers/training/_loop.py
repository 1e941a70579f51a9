"""The training loop: the gradients of each batch, then an update step."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from blitz_helpers.training._evaluation import Loader, answer, unwrapped
from blitz_helpers.training._history import History, Record
from blitz_helpers.training._processes import mean_over_processes
from blitz_helpers.training._progress import Progress


class DivergenceError(FloatingPointError):
    """The loss or a weight became NaN or infinite, and training stopped.

    Attributes:
        step: the step where it was noticed, counted from 1.
        parameters: the names of the parameters that are not finite, nearest to the loss first.
        history: the training up to that step.

    >>> from functools import partial
    >>> import torch
    >>> from torch import nn
    >>> from blitz_helpers import fit, sgd_step
    >>> batch = torch.full((1, 2), 1e20), torch.tensor([0])
    >>> model = nn.Linear(2, 2)
    >>> _ = nn.init.zeros_(model.weight)
    >>> try:
    ...     fit(model, [batch, batch], partial(sgd_step, lr=1e30), epochs=1)
    ... except DivergenceError as error:
    ...     print(error.step, error.parameters)
    2 ('weight',)
    """

    def __init__(self, message: str, step: int, parameters: tuple[str, ...], history: History):
        super().__init__(message)
        self.step = step
        self.parameters = parameters
        self.history = history

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.step, self.parameters, self.history), vars(self)


class Run(Protocol):
    """A run of Weights & Biases, or any object with a ``log`` method like its own."""

    def log(self, data: dict[str, Any], /) -> Any:
        """Log the values of one step."""


class Loop:
    """The steps of a training."""

    def __init__(
        self,
        model: nn.Module,
        step: Callable[..., object],
        lr_schedule: Callable[[float], float] | None,
        record: Record,
        run: Run | None,
        progress: Progress,
    ) -> None:
        self._model, self._params = model, list(model.parameters())
        self._step, self._lr_schedule = step, lr_schedule
        self._record, self._run, self._progress = record, run, progress
        self._trained_on: tuple[Tensor, Tensor] | None = None
        """The batch of the last finished step."""
        self.checkpoint: tuple[Path, int] | None = None
        """The last good checkpoint and its epoch."""
        self.values: dict[str, float] = {}
        """The values to log for the last step; at the end of an epoch, more are added."""

    def log(self) -> None:
        values, self.values = self.values, {}
        if self._run is not None and values:
            self._run.log(values)

    def train_epoch(self, loader: Loader) -> None:
        """Train on all batches of the loader, and count them as an epoch.

        Raises:
            DivergenceError: the loss or a parameter is no longer finite.
            ValueError: the loader gave no batch, or a bad one.
        """
        for batch in loader:
            self._train_on(batch)
        if self._record.unfinished == 0:
            raise ValueError(
                f"The loader gave no batch in epoch {len(self._record.steps) + 1}, though its "
                "length says otherwise: it is empty, or used up after one pass. Use a list of "
                "batches or a DataLoader, which can be read again and again."
            )
        if not all(w.isfinite().all() for w in self._params):
            step = len(self._record.losses)
            raise self._divergence(step, "a parameter is no longer finite", self._trained_on)
        self._record.steps.append(self._record.unfinished)

    def _train_on(self, batch: tuple[Tensor, Tensor]) -> None:
        record = self._record
        self.log()  # or values that hooks log in backward would join the last step
        for w in self._params:  # before the forward pass, which needs their memory
            w.grad = None
        logits, labels = answer(self._model, batch)
        loss = F.cross_entropy(logits, labels)
        value = mean_over_processes(loss)
        if not math.isfinite(value):
            raise self._divergence(len(record.losses) + 1, f"the loss is {value}", batch)
        if not loss.requires_grad:
            raise ValueError(
                "The loss has no gradient: gradients are off, as under torch.no_grad(), or all "
                "parameters of the model are frozen. Unfreeze some, by requires_grad_()."
            )
        loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
        num_steps, values = record.num_steps(), {"train/loss": value}
        if self._lr_schedule is None:
            self._step(self._params)
        else:
            lr = self._lr_schedule(len(record.losses) / num_steps)
            self._step(self._params, lr=lr)
            values["train/lr"] = lr
        self.values = values
        record.losses.append(value)
        self._trained_on = batch
        self._progress.advance(value, num_steps)

    def _divergence(
        self, step: int, reason: str, batch: tuple[Tensor, Tensor] | None
    ) -> DivergenceError:
        parameters = dict(unwrapped(self._model).named_parameters())
        # Gradients start at the loss, so they reach the last of several bad parameters first.
        bad = tuple(name for name, w in parameters.items() if not w.isfinite().all())[::-1]
        culprit = self._trained_on if bad else batch
        is_lr = culprit is not None and bool(culprit[0].isfinite().all())
        if culprit is None:
            where = (
                f"Before the first step {', '.join(bad)} held values that are not finite: load or "
                "draw the weights anew."
            )
        elif bad:
            rest = f", then {', '.join(bad[1:])}" if bad[1:] else ""
            data = "The inputs of the batch before were not finite: mend the data. "
            where = f"{'' if is_lr else data}The parameter that went bad first is {bad[0]}{rest}."
        elif is_lr:
            sizes = {n: w.detach().abs().max().item() for n, w in parameters.items() if w.numel()}
            largest = max(sizes, key=sizes.__getitem__)
            size = f"{largest} is the largest, up to {sizes[largest]:.2g}"
            where = f"No parameter went bad yet; {size}."
        else:
            where = (
                "All parameters are finite, but the inputs of this batch are not: mend the data."
            )
        if self.checkpoint is not None:
            path, epoch = self.checkpoint
            with_lr = " with a smaller lr" if is_lr else ""
            where += f" {path} is good, of epoch {epoch}: resume from it{with_lr}."
        elif is_lr:
            where += " Try a smaller lr."
        message = f"Training stopped at step {step}: {reason}. {where}"
        return DivergenceError(message, step, bad, self._record.history())
