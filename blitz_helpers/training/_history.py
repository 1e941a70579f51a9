"""The record that a training keeps, and the history that it returns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from blitz_helpers._tables import html_table, scroll_box, text_table


@dataclass(frozen=True)
class History:
    """The history of a training run; ``losses`` has the loss of each step, in order.

    ``steps_per_epoch`` is the number of batches in the first epoch. ``epoch_steps`` has the number
    for each complete epoch if they differ; otherwise it is empty. ``val_losses`` and
    ``val_accuracies`` have one value per epoch if ``fit`` was given a ``val_loader``.
    ``interrupted`` tells whether training was stopped early.

    >>> from functools import partial
    >>> import torch
    >>> from torch import nn
    >>> from blitz_helpers import fit, sgd_step
    >>> batch = torch.zeros(4, 2), torch.tensor([0, 0, 0, 1])
    >>> model = nn.Linear(2, 2, bias=False)  # all its scores are zero
    >>> history = fit(model, [batch], partial(sgd_step, lr=0.1), epochs=2)
    epoch 1 of 2: loss 0.6931
    epoch 2 of 2: loss 0.6931
    >>> len(history.losses), history.steps_per_epoch, history.interrupted
    (2, 1, False)
    """

    losses: tuple[float, ...]
    steps_per_epoch: int
    val_losses: tuple[float, ...] = ()
    val_accuracies: tuple[float, ...] = ()
    interrupted: bool = False
    epoch_steps: tuple[int, ...] = ()

    @property
    def epochs(self) -> int:
        """The number of complete epochs."""
        return len(self.epoch_steps) or len(self.losses) // self.steps_per_epoch

    @property
    def epoch_losses(self) -> tuple[float, ...]:
        """The mean loss of each epoch, including an unfinished last one."""
        steps = self.epoch_steps or (self.steps_per_epoch,) * self.epochs
        means, start = [], 0
        for count in (*steps, len(self.losses) - sum(steps)):
            if count:
                means.append(mean(self.losses[start : start + count]))
            start += count
        return tuple(means)

    def _table(self) -> tuple[list[str], list[list[str]], str]:
        header = ["epoch", "loss"]
        columns = [[f"{loss:.4f}" for loss in self.epoch_losses]]
        if self.val_losses:
            header += ["val loss", "val accuracy"]
            columns += [[f"{loss:.4f}" for loss in self.val_losses]]
            columns += [[f"{accuracy:.2%}" for accuracy in self.val_accuracies]]
        rows = [
            [str(epoch), *row] for epoch, row in enumerate(zip_longest(*columns, fillvalue=""), 1)
        ]
        return header, rows, ">" * len(header)

    def _note(self) -> str:
        return f"interrupted after {len(self.losses):,} steps" if self.interrupted else ""

    def __str__(self) -> str:
        return "\n".join(filter(None, [text_table(*self._table()), self._note()]))

    def _repr_html_(self) -> str:
        note = f"<p>{self._note()}</p>" if self.interrupted else ""
        return scroll_box(html_table(*self._table()) + note, "History of a training")


@dataclass
class Record:
    """The record that a training keeps as it goes; ``promised`` is the length of its loader."""

    epochs: int
    promised: int
    losses: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)  # of each complete epoch
    val_losses: list[float] = field(default_factory=list)
    val_accuracies: list[float] = field(default_factory=list)

    @property
    def unfinished(self) -> int:
        """The number of finished steps in the current epoch."""
        return len(self.losses) - sum(self.steps)

    def num_steps(self) -> int:
        """Return the expected total number of steps, at least one more than are done.

        Future epochs count as long as the last one, since a loader's length may be wrong.
        """
        usual = max(self.steps[-1] if self.steps else self.promised, self.unfinished + 1)
        return sum(self.steps) + usual * (self.epochs - len(self.steps))

    def history(self, interrupted: bool = False) -> History:
        usual = self.steps[0] if self.steps else max(self.promised, self.unfinished + 1)
        is_even = all(steps == usual for steps in self.steps) and self.unfinished < usual
        return History(
            losses=tuple(self.losses),
            steps_per_epoch=usual,
            val_losses=tuple(self.val_losses),
            val_accuracies=tuple(self.val_accuracies),
            interrupted=interrupted,
            epoch_steps=() if is_even else tuple(self.steps),
        )


def mean(losses: Sequence[float]) -> float:
    return math.fsum(losses) / len(losses)
