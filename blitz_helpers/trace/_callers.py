"""Finds the line of the user's code that called an operation."""

from __future__ import annotations

import sys
import traceback
from functools import lru_cache
from types import FrameType

import torch

TORCH = torch.__path__[0]
_OURS = __file__.removesuffix("_callers.py")


def is_ours(frame: FrameType) -> bool:
    """Return whether a frame belongs to the trace, not to what is traced."""
    return frame.f_code.co_filename.startswith(_OURS)


def called_by_torch() -> bool:
    """Return whether torch's own code, not the user's, called the operation being traced."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(_OURS):
        frame = frame.f_back  # type: ignore[assignment]  # somebody called us
    return frame.f_code.co_filename.startswith(TORCH)


def calling_line() -> str:
    """Return file and line of the innermost call outside torch and this package."""
    frame = sys._getframe(3)  # the nearer ones belong to the trace
    while not _is_callers(frame.f_code.co_filename) and (outer := frame.f_back):
        frame = outer
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def line_of(error: Exception) -> str:
    """Return file and line of the innermost call in an error's traceback that is the user's."""
    lines = [
        f"{frame.filename}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if _is_callers(frame.filename)
    ]
    return lines[-1]


@lru_cache(maxsize=1024)
def _is_callers(file: str) -> bool:
    return not file.startswith((TORCH, _OURS, "<"))
