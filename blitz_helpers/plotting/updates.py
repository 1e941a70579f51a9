"""What an update step does to the loss, and the ways that update rules take downhill."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from blitz_helpers.plotting._canvas import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    canvas,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.axes import Axes

_PATH_COLORS = (VERMILION, BLUE, GREEN, PURPLE, ORANGE, SKY)
_GRID = 200  # points a side at which the loss is evaluated


def plot_foretold_losses(
    loss: float,
    lrs: Sequence[float],
    losses: Sequence[float],
    foretold: Sequence[float],
    ax: Axes | None = None,
) -> Axes:
    """Draw, for each learning rate, the loss after one step beside the one that was foretold.

    Args:
        loss: the loss before the step.
        lrs: the learning rates, each above 0; drawn on a logarithmic axis.
        losses: the loss after a step at each of them.
        foretold: what the gradient foretold for each of them.
        ax: where to draw; a new figure by default.

    Raises:
        ValueError: not one loss and one foretold loss a learning rate, or none at all.
        ImportError: matplotlib is not installed.

    >>> plot_foretold_losses(1.0, lrs=[0.1, 1], losses=[0.92, 0.7], foretold=[0.9, 0]).get_xscale()
    'log'
    """
    if not len(lrs) == len(losses) == len(foretold) > 0:
        raise ValueError(
            f"{len(lrs)} lrs, {len(losses)} losses and {len(foretold)} foretold ones do not fit: "
            "give one of each for every step, and at least one."
        )
    ax = canvas(ax, 6.0, 3.2)
    ax.set_xscale("log")
    ax.axhline(loss, color=GREY, linewidth=1, linestyle="--", label="before the step")
    ax.vlines(lrs, losses, foretold, color=GREY, linewidth=1)
    ax.plot(
        lrs, foretold, "o", markersize=9, markerfacecolor="white", markeredgecolor=VERMILION,
        markeredgewidth=1.8, label="foretold by the gradient",
    )  # fmt: skip
    ax.plot(lrs, losses, "o", markersize=6, color=BLUE, label="after the step")
    ax.set_xticks(lrs, [f"{lr:g}" for lr in lrs])
    ax.minorticks_off()
    ax.margins(x=0.12, y=0.12)
    ax.set_xlabel("learning rate")
    ax.set_ylabel("loss")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="best")
    return ax


def plot_descent(
    loss_fn: Callable[[torch.Tensor], torch.Tensor],
    paths: Mapping[str, torch.Tensor],
    ax: Axes | None = None,
) -> Axes:
    """Draw the ways of two weights downhill, over contours of the loss.

    A line is a path, with a dot for each step, from the ring that marks its start.

    Args:
        loss_fn: the loss of the weights ``w[0]`` and ``w[1]``, numbers or tensors of one shape:
            it gets a whole grid, ``(2, H, W)``, and gives the loss at each place, ``(H, W)``.
        paths: a name and the weights ``(steps + 1, 2)`` before, between and after the steps.
        ax: where to draw; a new figure by default.

    Raises:
        ValueError: no path, a path of another shape or with values that are not finite, or a
            ``loss_fn`` that does not give one loss for each place.
        ImportError: matplotlib is not installed.

    >>> path = torch.tensor([[2.0, 1.0], [1.0, 0.5], [0.5, 0.25]])
    >>> ax = plot_descent(lambda w: w[0] ** 2 + w[1] ** 2, {"SGD": path})
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('$w_0$', '$w_1$')
    """
    if not paths:
        raise ValueError("paths is empty: give at least one, such as {'SGD': path}.")
    points = {name: path.detach().cpu().double() for name, path in paths.items()}
    for name, path in points.items():
        if path.ndim != 2 or path.shape[1] != 2 or len(path) == 0:
            raise ValueError(
                f"paths[{name!r}] has the shape {tuple(path.shape)}; (steps + 1, 2) is expected. "
                "Use torch.stack on a list with the two weights of every step."
            )
        if not path.isfinite().all():
            raise ValueError(
                f"paths[{name!r}] leaves every page: a weight became infinite or NaN. "
                "Use a smaller learning rate, or fewer steps."
            )
    everywhere = torch.cat(list(points.values()))
    low, high = everywhere.min(0).values, everywhere.max(0).values
    # A path that stays on a line, or on a point, still needs a page around it.
    extent = high - low
    margin = 0.12 * torch.maximum(extent, extent.max() / 4 if extent.any() else torch.tensor(1.0))
    sides = [
        torch.linspace(a, b, _GRID, dtype=torch.float64)
        for a, b in zip((low - margin).tolist(), (high + margin).tolist(), strict=True)
    ]
    grid = torch.stack(torch.meshgrid(*sides, indexing="xy"))
    losses = loss_fn(grid).detach()
    if losses.shape != grid.shape[1:]:
        raise ValueError(
            f"loss_fn gave the shape {tuple(losses.shape)} for weights of shape "
            f"{tuple(grid.shape)}; {tuple(grid.shape[1:])} is expected, a loss for each place. "
            "Take w[0] and w[1], and no sum over all of w."
        )
    ax = canvas(ax, 6.5, 3.6)
    # Quadratically spaced above the lowest point: the contours of a parabola are evenly apart.
    bottom, top = losses.min().item(), losses.max().item()
    levels = bottom + (top - bottom) * torch.linspace(0.03, 1, 14, dtype=torch.float64).square()
    if bottom < top:
        ax.contour(
            *(side.numpy() for side in sides), losses.numpy(), levels=levels.tolist(),
            colors="#BBBBBB", linewidths=0.8,
        )  # fmt: skip
    for index, (name, path) in enumerate(points.items()):
        ax.plot(
            *path.T.numpy(), "-o", markersize=3, linewidth=1.3, label=name,
            color=_PATH_COLORS[index % len(_PATH_COLORS)],
        )  # fmt: skip
        ax.plot(*path[0].tolist(), "o", markersize=9, markerfacecolor="none", color=BLACK)
    ax.set_xlabel("$w_0$")
    ax.set_ylabel("$w_1$")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=True, framealpha=0.9, edgecolor="none")
    return ax
