"""Measures how a loss changes when a single entry of a tensor is nudged."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def entry_at(values: Tensor, index: int | Sequence[int] | Tensor) -> Tensor:
    """Return a view of one entry; ``index`` is a tuple, or a number in flattened order.

    Raises:
        IndexError: ``index`` is out of range, or points at more than one entry.

    >>> entry_at(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), -1)
    tensor(4.)
    """
    where = index.tolist() if isinstance(index, Tensor) else index
    if isinstance(where, int):
        if not -values.numel() <= where < values.numel():
            raise IndexError(f"index {where} is out of range for {values.numel()} entries.")
        flat = torch.tensor(where % values.numel())
        where = [int(i) for i in torch.unravel_index(flat, values.shape)]
    entry = values[tuple(where)]
    if entry.dim():
        raise IndexError(f"index {where} must point at one entry of shape {tuple(values.shape)}.")
    return entry


def slope_along(entry: Tensor, loss_fn: Callable[[], Tensor | float], eps: float) -> float:
    """Return the central difference of ``loss_fn()`` for ``entry`` nudged up and down by ``eps``.

    If ``loss_fn`` raises, the entry stays nudged, and the caller must restore it.

    Raises:
        ValueError: ``eps`` is lost in rounding, or the loss is not one float64 number.
    """
    middle = entry.item()
    up, down = middle + eps, middle - eps
    if up == down:
        raise ValueError(f"eps={eps} is lost beside an entry of {middle}: use a larger one.")
    entry.fill_(up)
    above = _number(loss_fn())
    entry.fill_(down)
    below = _number(loss_fn())
    entry.fill_(middle)
    return (above - below) / (up - down)


def _number(loss: Tensor | float) -> float:
    if isinstance(loss, float | int):
        return loss
    if isinstance(loss, Tensor) and loss.numel() == 1 and loss.dtype == torch.float64:
        return loss.item()
    given = f"{loss.dtype} of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
    raise ValueError(
        f"loss_fn returned {given}: expected one number in float64. "
        "Reduce it, for example by .sum(), and compute it from float64 inputs."
    )
