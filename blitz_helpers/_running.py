"""Which module is running in each thread, asked of torch's own hooks for all modules."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from blitz_helpers._threads import SharedContext, WarningIgnored
from blitz_helpers._torch import COMPILER


class Follower(Protocol):
    """Hears of every module that begins or ends, in whichever thread it runs."""

    def entered(self, module: nn.Module) -> None:
        """Hear that the module is about to run in this thread."""

    def left(self, module: nn.Module, output: Any) -> None:
        """Hear that the module has ended in this thread; ``output`` is ``None`` if it failed."""


class _Running(threading.local):
    """The modules that are running in one thread, the innermost last."""

    def __init__(self) -> None:
        self.modules: list[nn.Module] = []


_here = _Running()
_followers: tuple[Follower, ...] = ()  # replaced as a whole: other threads may be reading it
_followers_lock = threading.Lock()


@contextmanager
def follow_modules(follower: Follower) -> Iterator[None]:
    """Tell ``follower`` of the modules that run, in this thread and in others.

    Nothing is attached to a model, and torch is afterwards as it was. Compiled models run
    uncompiled meanwhile, since the compiler would compile the hooks too.
    """
    global _followers
    with _hooks:
        modules = _here.modules
        outside = len(modules)
        try:
            with _followers_lock:
                _followers = (*_followers, follower)
            yield
        finally:
            with _followers_lock:
                _followers = tuple(one for one in _followers if one is not follower)
            del modules[outside:]  # those that Ctrl-C has stopped: torch runs no hook for them


def running_modules() -> Sequence[nn.Module]:
    """Return the modules that are running in this thread, the innermost last."""
    return _here.modules


def _enter(module: nn.Module, _inputs: Any) -> None:
    _here.modules.append(module)
    for follower in _followers:
        follower.entered(module)


def _leave(module: nn.Module, _inputs: Any, output: Any) -> None:
    modules = _here.modules
    if not modules or (modules[-1] is not module and not any(one is module for one in modules)):
        return  # it began before anybody followed, or a hook before ours raised
    ended = None
    while ended is not module:
        ended = modules.pop()
        for follower in _followers:
            follower.left(ended, output if ended is module else None)


class _Hooks(SharedContext):
    """Torch's hooks for all modules, with whatever was compiled running uncompiled."""

    _warning = WarningIgnored(r"Using `torch\.compile\(module\)` when there are global hooks")

    def begin(self) -> None:
        global _here
        _here = _Running()  # what ran when the hooks were last removed has long ended
        self._uncompiled = None
        if COMPILER in sys.modules:  # without which nothing can have been compiled
            self._uncompiled = torch.compiler.set_stance("force_eager")
            self._uncompiled.__enter__()
            self._warning.__enter__()
        self._handles = (
            register_module_forward_pre_hook(_enter),
            register_module_forward_hook(_leave, always_call=True),
        )

    def end(self) -> None:
        for handle in self._handles:
            handle.remove()
        if self._uncompiled is not None:
            self._warning.__exit__()
            self._uncompiled.__exit__(None, None, None)


_hooks = _Hooks()
