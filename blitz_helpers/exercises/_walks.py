"""Runs a learner's update rule from fixed weights along fixed gradients, and judges the result."""

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from blitz_helpers.exercises._judging import Wrong, attempt_in_place

Rule = Callable[[list[Tensor]], object]
Gradients = list[list[Tensor | None]]


def draw_walk(dtype: torch.dtype, steps: int) -> tuple[list[Tensor], Gradients]:
    """Draw two parameters and their gradients at each step; at the third, the first has none."""
    generator = torch.Generator().manual_seed(0)

    def draw() -> list[Tensor]:
        shapes = (3,), (2, 2)
        return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]

    starts = draw()
    gradients: Gradients = [[*draw()] for _ in range(steps)]
    gradients[2][0] = None
    return starts, gradients


def _asked(answer: FunctionType, kept: str, *settings: float) -> Rule:
    """Return the learner's rule, with the dict that it keeps and its settings filled in."""
    memory: dict[Tensor, Any] = {}

    def step(params: list[Tensor]) -> None:
        before = [(w.grad, w.grad.clone()) for w in params if w.grad is not None]
        attempt_in_place(answer, params, memory, *settings)
        if not all(torch.equal(grad, was) for grad, was in before):
            raise Wrong(f"Your rule changes `.grad`: make a new tensor for the {kept}.")

    return step


def walk_twice(
    answer: FunctionType,
    names: tuple[str, str],
    settings: tuple[float, float],
    starts: list[Tensor],
    gradients: Gradients,
) -> list[Tensor]:
    """Walk with the learner's rule, after checking that a second walk with a new dict is equal."""
    memory, kept = names
    params = [start.clone().requires_grad_() for start in starts]
    first = walk(_asked(answer, kept, *settings), starts, gradients, params)
    second = walk(_asked(answer, kept, *settings), starts, gradients, params)
    if not alike(first, second):
        old = "velocities" if kept == "velocity" else kept
        raise Wrong(
            f"A second walk with an empty dict goes on with the old {old}. Keep them in "
            f"`{memory}`, and nowhere else."
        )
    return first


def walk(
    step: Rule,
    starts: list[Tensor],
    gradients: Gradients,
    params: list[Tensor] | None = None,
) -> list[Tensor]:
    """Return all weights, as one vector, after each step; ``params`` are set to the starts."""
    params = params or [torch.zeros_like(start).requires_grad_() for start in starts]
    with torch.no_grad():
        for w, start in zip(params, starts, strict=True):
            w.copy_(start)
    path = []
    for drawn in gradients:
        for w, g in zip(params, drawn, strict=True):
            w.grad = None if g is None else g.clone()
        step(params)
        path.append(torch.cat([w.detach().flatten() for w in params]))
    return path


def alike(path: list[Tensor], other: list[Tensor]) -> bool:
    """Return whether two walks are equal up to rounding."""
    return all(
        torch.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True)
        for a, b in zip(path, other, strict=True)
    )


def expect_going_on(
    path: list[Tensor], rule: Rule, starts: list[Tensor], gradients: Gradients
) -> None:
    """Raise :class:`Wrong` if the walk is that of a rule that stops at a missing gradient."""
    stopped: Gradients = [
        [None, None] if any(g is None for g in drawn) else drawn for drawn in gradients
    ]
    if alike(path, walk(rule, starts, stopped)):
        raise Wrong(
            "A parameter without a gradient stops those after it: `continue`, not `return`."
        )


def expect_movement(path: list[Tensor], starts: list[Tensor]) -> None:
    """Raise :class:`Wrong` if all weights end where they started."""
    if torch.equal(path[-1], torch.cat([start.flatten() for start in starts])):
        raise Wrong("No weight has moved. Change each of them in place, with `-=` or `add_`.")


def first_difference(got: list[Tensor], wanted: list[Tensor]) -> str:
    """Return a reply that names the first number where two walks differ."""
    for number, (a, b) in enumerate(zip(got, wanted, strict=True), start=1):
        if not torch.allclose(a, b, rtol=1e-4, atol=1e-6):
            first = int((~torch.isclose(a, b, rtol=1e-4, atol=1e-6)).nonzero()[0])
            return (
                f"In step {number} the weights come out wrong: one that should be "
                f"{b[first]:.5f} is {a[first]:.5f}."
            )
    raise AssertionError("they do not differ")
