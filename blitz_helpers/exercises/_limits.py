"""Runs a learner's code for a limited time, with limited output."""

from __future__ import annotations

import ctypes
import io
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

_AGAIN = 0.1  # seconds until code that swallowed the exception is stopped again
_MOST_PRINTED = 2_000  # characters
_MOST_LINES = 10


class TookTooLongError(BaseException):
    """Raised in the learner's code when its time is over; no `except Exception` swallows it."""


class Printed(io.StringIO):
    """The text that the learner's code printed, up to a limit."""

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


def _wake(number: int, frame: object) -> None:
    """Handle the signal that ends a wait: an exception raised in the thread arrives here."""


_CAN_WAKE = hasattr(signal, "pthread_kill")  # not on Windows


def within(seconds: float, function: Callable[[], Any]) -> Any:
    """Return what ``function`` returns, or stop it after ``seconds``.

    It runs in the caller's thread, in which a second thread raises :class:`TookTooLongError` until
    the code has ended. The error is raised here even if the code has swallowed it. In the main
    thread, calls that wait are stopped too, such as ``time.sleep``. A long computation inside one
    call into C is not.

    Raises:
        TookTooLongError: the time was up.
    """
    thread = threading.get_ident()
    wakes = _CAN_WAKE and threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGURG, _wake) if wakes else None
    stop = ctypes.py_object(TookTooLongError)
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    # Plain locks and a list, whose calls are single steps: the exception can arrive between any
    # two steps, and inside an `Event` or `Thread.join` it would leave a lock taken for ever.
    running = threading.Lock()
    running.acquire()
    gone: list[bool] = []
    over: list[bool] = []
    last: list[bool] = []

    def watch() -> None:
        wait = seconds
        while not running.acquire(timeout=wait):
            over.append(True)
            raise_in(ctypes.c_ulong(thread), stop)
            if wakes:
                signal.pthread_kill(thread, signal.SIGURG)
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
                while over:  # one may not have arrived yet: this one takes its place
                    last.append(True)
                    raise_in(ctypes.c_ulong(thread), stop)
                break
            except TookTooLongError:  # it arrived here, just as the code had ended
                if last:
                    break
        if wakes:
            signal.signal(signal.SIGURG, handler or signal.SIG_DFL)
        if over:
            raise TookTooLongError
