"""Shows the progress of a training while it runs."""

from __future__ import annotations

import sys
from typing import IO

from blitz_helpers._extras import require


class Progress:
    """A bar in a terminal or notebook, a line per epoch in a log file, nothing without stdout."""

    def __init__(self, epochs: int, num_steps: int, done: int, shown: bool) -> None:
        # Programs without a console have no stdout, or a closed one.
        self._live = shown and _is_live(sys.stdout)
        self._lines = shown and not self._live
        self._epochs = epochs
        self._bar = require("tqdm", extra="training").tqdm(
            total=num_steps,
            initial=done,
            # Text, not a widget: a stored widget does not work, and its id changes with each run.
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
            # No times or losses, so that the stored output is the same on every machine.
            print(f"{self._bar.n:,} of {self._bar.total:,} steps")

    def advance(self, loss: float, num_steps: int) -> None:
        self._bar.total = num_steps
        self._bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
        self._bar.update()

    def end_epoch(self, epoch: int, loss: float) -> None:
        if self._lines:
            try:
                print(f"epoch {epoch} of {self._epochs}: loss {loss:.4f}", flush=True)
            except (AttributeError, OSError, ValueError):  # closed, or without a reader
                self._lines = False


def _is_live(stdout: IO[str] | None) -> bool:
    if type(stdout).__module__ == "ipykernel.iostream":
        return True
    try:
        return stdout is not None and stdout.isatty()
    except (AttributeError, ValueError):
        return False
