"""Draws the effect of an update step on the loss, and the paths of update rules downhill."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from blitz_helpers.plotting._canvas import (
    BLACK,
    BLUE,
    CARD,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    YELLOW,
    canvas,
    describe,
)
from blitz_helpers.plotting._settings import same_for_all

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.axes import Axes

_PATH_COLORS = (VERMILION, BLUE, GREEN, PURPLE, ORANGE, SKY)
_GRID = 200  # grid points per side where the loss is evaluated


@same_for_all
def plot_foretold_losses(
    loss: float,
    lrs: Sequence[float],
    losses: Sequence[float],
    foretold: Sequence[float],
    ax: Axes | None = None,
) -> Axes:
    """Draw the drop in loss after one step, foretold and measured, for each learning rate.

    Both axes are logarithmic, so the drop foretold by the gradient is a straight line. The largest
    measured drop is ringed; a cross at the bottom marks a step that raises the loss.

    Args:
        loss: the loss before the step.
        lrs: the learning rates, each above 0.
        losses: the loss after a step at each learning rate.
        foretold: the loss that the gradient foretells for each step, below ``loss``.
        ax: where to draw; a new figure by default.

    Raises:
        ValueError: ``lrs``, ``losses`` and ``foretold`` are empty or differ in length, or a
            foretold loss is not below ``loss``.
        ImportError: matplotlib is not installed.

    >>> plot_foretold_losses(1.0, lrs=[0.1, 1], losses=[0.92, 0.7], foretold=[0.9, 0]).get_xscale()
    'log'
    """
    if not len(lrs) == len(losses) == len(foretold) > 0:
        raise ValueError(
            f"{len(lrs)} lrs, {len(losses)} losses and {len(foretold)} foretold ones do not fit: "
            "give one of each for every step, and at least one."
        )
    promised = [loss - after for after in foretold]
    if not all(0 < drop < math.inf for drop in promised):
        raise ValueError(
            f"Each foretold loss must lie below the loss before the step, {loss}; got "
            f"{[float(after) for after in foretold]}. Use lrs above 0 and gradients that are not "
            "all zero."
        )
    steps = list(zip(lrs, [loss - after for after in losses], promised, strict=True))
    lower = [(lr, drop) for lr, drop, _ in steps if drop > 0]
    higher = [lr for lr, drop, _ in steps if not drop > 0]
    ax = canvas(ax, 6.0, 3.6)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.plot(
        lrs, promised, "--o", linewidth=1.2, markersize=8, color=VERMILION,
        markerfacecolor="white", markeredgewidth=1.6, label="foretold by the gradient",
    )  # fmt: skip
    words = [f"The drop in loss after one step at {len(lrs)} learning rates, on log axes."]
    if lower:
        ax.plot(*zip(*lower, strict=True), "-o", linewidth=1.2, color=BLUE, label="measured")
        best, drop, promise = max(steps, key=lambda step: (step[1] > 0, step[1]))
        ax.plot(best, drop, "o", markersize=13, markerfacecolor="none", color=BLACK)
        ax.annotate(
            f"largest drop:\n{drop / promise:.0%} kept", (best, drop), (0, -12),
            textcoords="offset points", ha="center", va="top", fontsize=9,
        )  # fmt: skip
        shortest, first, first_promise = min(steps)
        if shortest != best:
            words.append(f"At {shortest:g}, {first / first_promise:.0%} of the promise is kept.")
        words.append(f"The largest drop, {drop:.2g}, is at {best:g}: {drop / promise:.0%} is kept.")
    if higher:
        ax.plot(
            higher, [0.04] * len(higher), "x", transform=ax.get_xaxis_transform(), color=BLUE,
            markersize=8, markeredgewidth=2, label="measured: the loss rises",
        )  # fmt: skip
        words.append(f"At {' and '.join(f'{lr:g}' for lr in higher)} the loss rises.")
    ax.set_xticks(lrs, [f"{lr:g}" for lr in lrs])
    ax.xaxis.minorticks_off()
    ax.margins(x=0.08, y=0.12)
    ax.set_xlabel("learning rate, log axis")
    ax.set_ylabel("drop in loss, log axis")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="upper left")
    return describe(ax, " ".join(words))


@same_for_all
def plot_descent(
    loss_fn: Callable[[torch.Tensor], torch.Tensor],
    paths: Mapping[str, torch.Tensor],
    ax: Axes | None = None,
) -> Axes:
    """Draw the paths of two weights downhill, over contours of the loss.

    Each path has a dot for each step, and a ring at its start. A star marks the lowest point if it
    lies within the picture.

    Args:
        loss_fn: maps the weights ``w[0]`` and ``w[1]`` to a loss. It is called with a whole grid,
            ``(2, H, W)``, and returns the loss at each point, ``(H, W)``.
        paths: for each name the weights before the first and after each step, ``(steps + 1, 2)``.
        ax: where to draw; a new figure by default.

    Raises:
        ValueError: there is no path, a path has another shape or values that are not finite, or
            ``loss_fn`` does not give one loss for each point.
        ImportError: matplotlib is not installed.

    >>> path = torch.tensor([[2.0, 1.0], [1.0, 0.5], [0.5, 0.25]])
    >>> ax = plot_descent(lambda w: w[0] ** 2 + w[1] ** 2, {"SGD": path})
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('$w_0$', '$w_1$')
    """
    points = _checked(paths)
    everywhere = torch.cat(list(points.values()))
    low, high = everywhere.min(0).values, everywhere.max(0).values
    # A path along one axis, or a single point, still needs a margin around it.
    extent = high - low
    margin = 0.12 * torch.maximum(extent, extent.max() / 4 if extent.any() else torch.tensor(1.0))
    sides = [
        torch.linspace(a, b, _GRID, dtype=torch.float64)
        for a, b in zip((low - margin).tolist(), (high + margin).tolist(), strict=True)
    ]
    losses = _losses(loss_fn, torch.stack(torch.meshgrid(*sides, indexing="xy")))
    ax = canvas(ax, 6.5, 4.2)
    # One scale for both weights, if the page has room for it, so that steep slopes look steep.
    if extent.max() < 4 * extent.min():
        ax.set_aspect("equal")
    # Quadratic spacing above the lowest point makes the contours of a parabola evenly spaced.
    bottom, top = losses.min().item(), losses.max().item()
    levels = bottom + (top - bottom) * torch.linspace(0.03, 1, 14, dtype=torch.float64).square()
    if bottom < top:
        ax.contour(
            *(side.numpy() for side in sides), losses.numpy(), levels=levels.tolist(),
            colors="#BBBBBB", linewidths=0.8,
        )  # fmt: skip
    words = ["Paths of two weights over contours of the loss."]
    for index, (name, path) in enumerate(points.items()):
        ax.plot(*path.T.numpy(), "-o", markersize=3, linewidth=1.3, label=name, color=_color(index))
        ax.plot(*path[0].tolist(), "o", markersize=9, markerfacecolor="none", color=BLACK)
        turns = _turns(path, extent)
        words.append(
            f"{name}: {len(path) - 1} steps from {_place(path[0])} to {_place(path[-1])}; "
            f"turns in the first weight: {turns[0]}, in the second: {turns[1]}."
        )
    row, column = divmod(int(losses.argmin()), _GRID)
    if bottom < top and min(row, column) > 0 and max(row, column) < _GRID - 1:
        ax.plot(
            sides[0][column].item(), sides[1][row].item(), "*", markersize=13, color=BLACK,
            markerfacecolor=YELLOW, label="lowest point", zorder=3,
        )  # fmt: skip
    ax.set_xlabel("$w_0$")
    ax.set_ylabel("$w_1$")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=True, framealpha=0.9, facecolor=CARD, edgecolor="none")
    return describe(ax, " ".join(words))


@same_for_all
def plot_descent_losses(
    loss_fn: Callable[[torch.Tensor], torch.Tensor],
    paths: Mapping[str, torch.Tensor],
    below: float,
    ax: Axes | None = None,
) -> Axes:
    """Draw the loss along each path, and mark the step after which it stays below a bound.

    The loss has a logarithmic axis, without the points where it is exactly 0. A diamond marks the
    step from which the loss stays below the bound until the path ends.

    Args:
        loss_fn: as for :func:`plot_descent`; its losses are 0 or more.
        paths: as for :func:`plot_descent`.
        below: the bound, above 0.
        ax: where to draw; a new figure by default.

    Raises:
        ValueError: as for :func:`plot_descent`; or ``below`` is not above 0, or a loss is negative.
        ImportError: matplotlib is not installed.

    >>> path = torch.tensor([[2.0, 0.0], [0.2, 0.0], [-1.0, 0.0], [0.1, 0.0]])
    >>> ax = plot_descent_losses(lambda w: w[0] ** 2 + w[1] ** 2, {"SGD": path}, below=0.5)
    >>> ax.get_legend().get_texts()[0].get_text()
    'SGD: below 0.5 from step 3'
    """
    if not 0 < below < math.inf:
        raise ValueError(f"below must be above 0 and finite, got {below}. Use, say, below=0.01.")
    curves = {name: _losses(loss_fn, path.T) for name, path in _checked(paths).items()}
    for name, curve in curves.items():
        if curve.min() < 0:
            raise ValueError(
                f"The loss along paths[{name!r}] goes down to {curve.min().item():.2g}: a log axis "
                "has no place for it. Add a constant to loss_fn, so that no loss is negative."
            )
    ax = canvas(ax, 6.5, 3.0)
    ax.set_yscale("log")
    ax.axhline(below, color=GREY, linewidth=1, linestyle="--")
    words = ["The loss against the step, on a log axis."]
    for index, (name, curve) in enumerate(curves.items()):
        too_high = (curve >= below).nonzero().flatten().tolist()
        step = too_high[-1] + 1 if too_high else 0
        stays = step < len(curve)
        label = f"{name}: below {below:g} from step {step}" if stays else f"{name}: not below"
        drawn = curve.where(curve > 0, math.nan).tolist()
        ax.plot(drawn, "-o", markersize=2.5, linewidth=1.3, color=_color(index), label=label)
        if stays and curve[step] > 0:
            ax.plot(
                step, curve[step].item(), "D", markersize=7, color=_color(index),
                markeredgecolor=BLACK, zorder=3,
            )  # fmt: skip
        words.append(
            f"{name} stays below {below:g} from step {step}."
            if stays
            else f"{name} does not stay below {below:g} in {len(curve) - 1} steps."
        )
    ax.set_xlabel("step")
    ax.set_ylabel("loss, log axis")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=True, framealpha=0.9, facecolor=CARD, edgecolor="none")
    return describe(ax, " ".join(words))


def _checked(paths: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return each path detached and in float64, or raise a ValueError."""
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
    return points


def _losses(loss_fn: Callable[[torch.Tensor], torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
    losses = loss_fn(weights).detach()
    if losses.shape != weights.shape[1:]:
        raise ValueError(
            f"loss_fn gave the shape {tuple(losses.shape)} for weights of shape "
            f"{tuple(weights.shape)}; {tuple(weights.shape[1:])} is expected, a loss for each "
            "place. Take w[0] and w[1], and no sum over all of w."
        )
    return losses


def _turns(path: torch.Tensor, extent: torch.Tensor) -> list[int]:
    """Return how often each weight turns back, ignoring moves too short to see."""
    turns = []
    for moves, side in zip(path.diff(dim=0).T, extent, strict=True):
        signs = moves[moves.abs() > side / 1000].sign()
        turns.append(int((signs.diff() != 0).sum()))
    return turns


def _place(point: torch.Tensor) -> str:
    x, y = (round(value, 2) + 0.0 for value in point.tolist())  # + 0.0 turns -0.0 into 0.0
    return f"({x:g}, {y:g})"


def _color(index: int) -> str:
    return _PATH_COLORS[index % len(_PATH_COLORS)]
