"""Tries the learner's code, compares its results, and says what is wrong with them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from blitz_helpers.notebook import own_line

_MOST_SHOWN = 12  # numbers of a tensor that a reply shows


class Wrong(Exception):  # noqa: N818, it is a verdict and not an error
    """Raised by a check; its text tells the learner what is wrong with the answer."""


def attempt(function: Callable[..., Any], *inputs: Any) -> Any:
    """Call the learner's code with copies of the inputs, and return its result.

    Raises:
        Wrong: the code raised an error. The text names the error, the line and the inputs.
    """
    return attempt_in_place(function, *_copies(inputs))


def attempt_in_place(function: Callable[..., Any], *inputs: Any) -> Any:
    """Like :func:`attempt`, but with the inputs themselves, which the code is meant to change."""
    tried = ", ".join(map(shown, inputs))
    try:
        return function(*inputs)
    except Exception as error:
        called = f"\nIt was called with {tried}." if inputs else ""
        raise Wrong(f"{told_of(error)}{called}") from error


def _copies(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    copies = copy.deepcopy(inputs)
    for given, copied in zip(_leaves(inputs), _leaves(copies), strict=True):
        if given.grad is not None:  # a copy of a parameter comes without
            copied.grad = given.grad.clone()
    return copies


def _leaves(inputs: tuple[Any, ...]) -> list[Tensor]:
    modules = [each for each in inputs if isinstance(each, nn.Module)]
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return parameters + [each for each in inputs if isinstance(each, Tensor)]


def shown(value: Any) -> str:
    """Return a value as a reply shows it: a few numbers in full, many by their shape."""
    if isinstance(value, Tensor):
        if value.numel() <= _MOST_SHOWN:
            leaf = value.requires_grad and value.is_leaf
            return repr(value.detach().requires_grad_(leaf)).replace("\n", "")
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, nn.Module):
        return f"a {type(value).__name__}"
    if isinstance(value, FunctionType):
        return "a function"
    text = f"[{', '.join(map(shown, value))}]" if isinstance(value, list) else repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def expect_shape(got: Any, shape: tuple[int, ...], tried: str) -> None:
    """Raise :class:`Wrong` unless ``got`` is a tensor of the shape wanted."""
    if not isinstance(got, Tensor):
        raise Wrong(f"{tried} should give a tensor, but gives {shown(got)}.")
    if got.shape != shape:
        raise Wrong(f"{tried} should give the shape {shape}, but gives {tuple(got.shape)}.")


def expect_tensor(
    got: Any,
    wanted: Tensor,
    tried: str,
    slips: Iterable[tuple[Tensor, str]] = (),
) -> None:
    """Raise :class:`Wrong` unless ``got`` is a tensor of the shape and the numbers wanted.

    ``slips`` are the results of usual mistakes, each with the reply to it.
    """
    if _alike(got, wanted):
        return
    for slip, reply in slips:
        if _alike(got, slip):
            raise Wrong(f"{tried}: {reply}")
    expect_shape(got, tuple(wanted.shape), tried)
    if wanted.numel() <= _MOST_SHOWN:
        raise Wrong(f"{tried} should give {shown(wanted)}, but gives {shown(got)}.")
    place = tuple((~_near(got, wanted)).nonzero()[0].tolist())
    numbers = f"{wanted[place]:.4f} at {place}, but gives {got[place]:.4f}"
    raise Wrong(f"{tried} should give {numbers}.")


def _alike(got: Any, wanted: Tensor) -> bool:
    """Return whether ``got`` is a tensor of the same shape, and equal up to rounding."""
    if not isinstance(got, Tensor) or got.shape != wanted.shape:
        return False
    return bool(_near(got, wanted).all())


def _near(got: Tensor, wanted: Tensor) -> Tensor:
    return torch.isclose(got.double(), wanted.double(), rtol=1e-4, atol=1e-5)


def expect_value(
    got: Any, wanted: Any, slips: dict[Any, str], otherwise: str, within: float = 0.0
) -> None:
    """Raise :class:`Wrong` unless ``got`` is the value wanted, or a number ``within`` of it.

    ``slips`` has the results of usual mistakes with the reply to each; ``otherwise`` is the reply
    to any other value.
    """

    def is_near(value: Any) -> bool:
        return bool(got == value or (within and abs(got - value) <= within))

    if not is_near(wanted):
        raise Wrong(next((reply for slip, reply in slips.items() if is_near(slip)), otherwise))


def told_of(error: Exception) -> str:
    """Return the words for an error in the learner's code, with the line that raised it."""
    line = own_line(error)
    where = f" in your line `{line}`" if line else ""
    return f"Your code raised {type(error).__name__}{where}: {error}"
