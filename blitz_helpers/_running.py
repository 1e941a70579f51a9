"""Tracks which module is running in each thread, through torch's global module hooks."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from blitz_helpers._threads import SharedContext, WarningIgnored
from blitz_helpers._torch import COMPILERS

if TYPE_CHECKING:
    from typing import Protocol

    class Follower(Protocol):
        """Is notified when a module starts or ends, in any thread."""

        def entered(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
            """Called when the module is about to run in this thread; ``inputs`` are positional."""

        def left(self, module: nn.Module, output: Any) -> None:
            """Called when the module has ended in this thread; without output if it failed."""


# For each thread, by its number, the modules that are running in it, with the innermost last.
_running: dict[int, list[nn.Module]] = {}
_followers: tuple[Follower, ...] = ()  # replaced, never modified: other threads may be reading it
_followers_lock = Lock()


@contextmanager
def follow_modules(follower: Follower) -> Iterator[None]:
    """Notify ``follower`` of all modules that run inside the ``with`` block, in any thread.

    Nothing is attached to a model, and torch is restored afterwards. Meanwhile, compiled models
    run uncompiled, since the compiler would compile the hooks too.
    """
    global _followers
    with _hooks:
        modules = _running.setdefault(get_ident(), [])
        outside = len(modules)
        try:
            with _followers_lock:
                _followers = (*_followers, follower)
            yield
        finally:
            with _followers_lock:
                _followers = tuple(one for one in _followers if one is not follower)
            del modules[outside:]  # stopped by Ctrl-C, for which torch runs no hooks


def running_modules() -> Sequence[nn.Module]:
    """Return the modules that are running in this thread, with the innermost last."""
    return _running.get(get_ident(), [])


def _enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
    _running.setdefault(get_ident(), []).append(module)
    for follower in _followers:
        follower.entered(module, inputs)


def _leave(module: nn.Module, _inputs: Any, output: Any) -> None:
    modules = _running.get(get_ident())
    if not modules or (modules[-1] is not module and not any(one is module for one in modules)):
        return  # it began before the hooks were set, or an earlier hook raised
    ended = None
    while ended is not module:
        ended = modules.pop()
        for follower in _followers:
            follower.left(ended, output if ended is module else None)


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Run compiled modules uncompiled, and without the warning about global hooks."""
    with (
        torch.compiler.set_stance("force_eager"),
        WarningIgnored("Using `torch.compile(module)` when there are global hooks"),
    ):
        yield


@SharedContext
@contextmanager
def _hooks() -> Iterator[None]:
    """Set torch's global module hooks."""
    _running.clear()  # modules that ran when the hooks were last removed have ended
    compiles = not sys.modules.keys().isdisjoint(COMPILERS)  # not loaded if nothing is compiled
    with (
        _uncompiled() if compiles else nullcontext(),
        register_module_forward_pre_hook(_enter),
        register_module_forward_hook(_leave, always_call=True),
    ):
        yield
