"""Runs a learner's code for a limited time, with limited output, and restores the random state."""

from __future__ import annotations

import ctypes
import io
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch

_AGAIN = 0.1  # seconds until code that swallowed the exception is stopped again
_MOST_PRINTED = 2_000  # characters
_MOST_LINES = 10


class TookTooLongError(BaseException):
    """Raised in the learner's code when its time is over; no `except Exception` swallows it."""


class Printed(io.StringIO):
    """What the learner's code printed, up to a limit."""

    cut = False

    def write(self, text: str) -> int:
        """Keep as much of the text as fits."""
        room = max(0, _MOST_PRINTED - self.tell())
        self.cut |= len(text) > room
        super().write(text[:room])
        return len(text)

    def told(self) -> str:
        """Return the first lines, with a mark if something was cut."""
        lines = self.getvalue().rstrip().splitlines()
        cut = self.cut or len(lines) > _MOST_LINES
        return "\n".join([*lines[:_MOST_LINES], *["... (cut here)"] * cut])


@contextmanager
def bounded_output() -> Iterator[Printed]:
    """Collect printed text instead of showing it."""
    printed = Printed()
    with redirect_stdout(printed), redirect_stderr(printed):
        yield printed


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Restore the random states of torch, Python and numpy afterwards, and torch's settings.

    Inside, gradients are recorded and numbers are float32, whatever was set before.
    """
    numpy = sys.modules.get("numpy")
    states = torch.get_rng_state(), random.getstate(), numpy and numpy.random.get_state()
    grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    try:
        torch.set_grad_enabled(True)
        torch.set_default_dtype(torch.float32)
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        if numpy:
            numpy.random.set_state(states[2])
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)


def within(seconds: float, function: Callable[[], Any]) -> Any:
    """Return what ``function`` returns, or stop it after ``seconds``.

    It runs in the caller's thread, in which a second thread raises :class:`TookTooLongError` until
    the code has ended. The error is raised here even if the code has swallowed it. A call that
    hangs inside C cannot be stopped.

    Raises:
        TookTooLongError: the time was up.
    """
    thread = ctypes.c_ulong(threading.get_ident())
    stop = ctypes.py_object(TookTooLongError)
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    # Plain locks and a list, whose calls are single steps: the exception can arrive between any
    # two steps, and inside an `Event` or `Thread.join` it would leave a lock taken for ever.
    running = threading.Lock()
    running.acquire()
    gone: list[bool] = []
    over: list[bool] = []

    def watch() -> None:
        wait = seconds
        while not running.acquire(timeout=wait):
            over.append(True)
            raise_in(thread, stop)
            wait = _AGAIN
        gone.append(True)

    try:
        threading.Thread(target=watch, daemon=True).start()
        return function()
    finally:
        while True:
            try:
                if running.locked():
                    running.release()
                while not gone:
                    time.sleep(0)
                raise_in(thread, None)  # one that has not arrived yet
                break
            except TookTooLongError:  # it arrived here, just as the code had ended
                continue
        if over:
            raise TookTooLongError
