"""Foretells whether ``backward()`` will work, and names what would stop it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from blitz_helpers.graph._derivatives import IsUsed, Obstacle, fails, freed, may_fail
from blitz_helpers.graph._kinds import Kind
from blitz_helpers.graph._saved import FREED, Lost, is_released
from blitz_helpers.graph._tensors import Form, Root, expands_to, form_of


def decisive(obstacles: list[Obstacle | None]) -> Obstacle | None:
    """Return the first certain obstacle; if none is certain, the first, or ``None``."""
    found = [obstacle for obstacle in obstacles if obstacle is not None]
    return max(found, key=lambda obstacle: obstacle.is_certain, default=None)


def obstacle_at(
    node: Any, kind: Kind, module: str | None, lost: list[Lost], is_used: IsUsed
) -> Obstacle | None:
    """Return the obstacle at a node, which may have lost saved tensors, or ``None``."""
    where = f"{kind.name} in {module}" if module else kind.name
    found = kind.check(node, where, is_used) if kind.check is not None else None
    if not lost or kind.asks == "never":
        return found
    loss = _of_lost(where, lost)
    if loss.is_certain and kind.asks == "perhaps":
        loss = may_fail(
            f"{loss.reason} The code of this custom Function does not tell whether it asks for "
            "what it saved"
        )
    return decisive([loss, found])


def _of_lost(where: str, lost: list[Lost]) -> Obstacle:
    worst = next((each for each in lost if each.is_certain), lost[0])
    names = ", ".join(each.name for each in lost if each.why == worst.why)
    if worst.why == FREED:
        return freed(where, names)
    needs = f"{where} needs {names} as saved, and {worst.why}"
    if worst.is_certain:
        return fails(f"{needs}. Change it after backward(), or change a copy.")
    return may_fail(needs)


def check_root(root: Root) -> Obstacle | None:
    """Return the obstacle to a gradient of an output's form, or ``None``."""
    then = form_of(root.node._input_metadata[root.output_nr])
    if then == root.form:
        return None
    (shape, dtype), (shape_then, dtype_then) = root.form, then
    if dtype.is_complex and not dtype_then.is_complex:
        change = f"was {dtype_then} in the forward pass and is {dtype} now"
    elif shape is None or shape_then is None or expands_to(shape_then, shape):
        return None
    else:
        change = f"had the shape {shape_then} in the forward pass and has {shape} now"
    return fails(f"{root.where} {change}. Run the forward pass again.")


def check_leaf(where: str, leaf: Tensor, then: Form) -> Obstacle | None:
    """Return the obstacle to a gradient in a leaf's ``.grad``, or ``None``.

    The gradient has the form that the leaf had ``then``, in the forward pass.
    """
    if not leaf.requires_grad:
        return None  # torch discards the gradient
    if not leaf.is_leaf:
        return fails(
            f"{where} is not a leaf any more: it was changed in place by an operation that is part "
            "of a graph. Run the forward pass again."
        )
    grad, (shape, dtype) = leaf.grad, then
    if grad is None and shape is not None and shape != leaf.shape:
        return may_fail(
            f"{where} had the shape {shape} in the forward pass and has {tuple(leaf.shape)} now, "
            "which its gradient may not fit"
        )
    if grad is None or grad.layout is not torch.strided:
        return None
    if grad.is_nested:
        why = "is a nested tensor"
    elif shape is not None and not expands_to(shape, tuple(grad.shape)):
        why = f"has the shape {tuple(grad.shape)}, and the gradient has {shape}"
    elif grad.is_inference() and not torch.is_inference_mode_enabled():
        why = "was made in inference_mode"
    elif not torch.can_cast(dtype, grad.dtype):
        why = f"is of {grad.dtype}, and the gradient of {dtype}"
    elif any(size > 1 and not step for size, step in zip(grad.shape, grad.stride(), strict=True)):
        why = "is an expanded tensor"
    elif is_released(grad):
        why = "has lost its memory"
    else:
        return None
    return fails(
        f"the .grad of {where} {why}: the new gradient cannot be added to it. Set it to None."
    )
