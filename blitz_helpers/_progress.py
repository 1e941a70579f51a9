"""How far a training has come, shown while it runs."""

from __future__ import annotations

import sys

from blitz_helpers._extras import require


class Progress:
    """A bar in a terminal or a notebook; in a log file a line an epoch."""

    def __init__(self, epochs: int, num_steps: int, done: int, shown: bool) -> None:
        in_notebook = type(sys.stdout).__module__ == "ipykernel.iostream"
        self._live = shown and (in_notebook or sys.stdout.isatty())
        self._lines = shown and not self._live
        self._epochs, self._num_steps = epochs, num_steps
        self._bar = require("tqdm", extra="training").tqdm(
            total=num_steps,
            initial=done,
            # Text, not a widget: a stored widget is a dead one, and has another id in each run.
            file=sys.stdout,
            disable=not self._live,
            leave=False,
            ncols=78,
            bar_format="{percentage:3.0f}%|{bar}| {n_fmt} of {total_fmt} steps{postfix}, "
            "{remaining} left",
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self._live:
            # Without times and losses, so that a notebook stores the same on every machine.
            print(f"{self._bar.n:,} of {self._num_steps:,} steps")

    def advance(self, loss: float) -> None:
        self._bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
        self._bar.update()

    def end_epoch(self, epoch: int, loss: float) -> None:
        if self._lines:
            print(f"epoch {epoch} of {self._epochs}: loss {loss:.4f}", flush=True)
