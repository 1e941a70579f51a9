"""Draws the effect of an update step on the loss, and the paths of update rules downhill."""

from __future__ import annotations

import math
from itertools import cycle
from numbers import Real
from operator import itemgetter
from typing import TYPE_CHECKING

import torch

from blitz_helpers.plotting._axes import BOXED, finish_axes, in_legend
from blitz_helpers.plotting._canvas import canvas, describe
from blitz_helpers.plotting._checks import as_tensor, require_mapping
from blitz_helpers.plotting._colours import BLACK, BLUE, SERIES, VERMILION, YELLOW
from blitz_helpers.plotting._settings import default_style
from blitz_helpers.plotting._words import counted, listed, short

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.axes import Axes

_GRID = 200  # grid points per side where the loss is evaluated


@default_style()
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

    >>> plot_foretold_losses(1.0, lrs=[0.1, 1], losses=[0.92, 0.7], foretold=[0.9, 0]).get_xscale()
    'log'
    """
    if not len(lrs) == len(losses) == len(foretold) > 0:
        raise ValueError(
            f"{len(lrs)} lrs, {len(losses)} losses and {len(foretold)} foretold ones do not fit: "
            "give one of each for every step, and at least one."
        )
    if not all(isinstance(lr, Real | torch.Tensor) and 0 < lr < math.inf for lr in lrs):
        raise ValueError(f"lrs={list(lrs)} must be finite numbers above 0.")
    promised = [loss - after for after in foretold]
    if not all(0 < drop < math.inf for drop in promised):
        raise ValueError(
            f"Each foretold loss must lie below the loss before the step, {loss}; got "
            f"{[float(after) for after in foretold]}. Use lrs above 0 and gradients that are not "
            "all zero."
        )
    steps = list(zip(lrs, [loss - after for after in losses], promised, strict=True))
    lower = [step for step in steps if step[1] > 0]
    higher = [lr for lr, drop, _ in steps if not drop > 0]
    ax = canvas(ax, 6.0, 3.6)
    ax.set(xscale="log", yscale="log")
    (line,) = ax.plot(lrs, promised, "--o", color=VERMILION, label="foretold by the gradient")
    line.set(linewidth=1.2, markersize=8, markerfacecolor="white", markeredgewidth=1.6)
    rates_told = counted(len(lrs), "learning rate")
    words = [f"The drop in loss after one step at {rates_told}, on log axes."]
    if lower:
        rates, drops, _ = zip(*lower, strict=True)
        ax.plot(rates, drops, "-o", linewidth=1.2, color=BLUE, label="measured")
        best, drop, promise = max(lower, key=itemgetter(1))
        ax.plot(best, drop, "o", markersize=13, markerfacecolor="none", color=BLACK)
        ax.annotate(
            f"largest drop:\n{drop / promise:.0%} kept", (best, drop), (0, -12),
            textcoords="offset points", ha="center", va="top", fontsize=9,
        )  # fmt: skip
        shortest, first, first_promise = min(lower)
        if shortest != best:
            words.append(f"At {shortest:g}, {first / first_promise:.0%} of the promise is kept.")
        words.append(f"The largest drop, {drop:.2g}, is at {best:g}: {drop / promise:.0%} is kept.")
    if higher:
        (crosses,) = ax.plot(higher, [0.04] * len(higher), "x", transform=ax.get_xaxis_transform())
        crosses.set(color=BLUE, markersize=8, markeredgewidth=2, label="measured: the loss rises")
        words.append(f"At {listed(f'{lr:g}' for lr in higher)} the loss rises.")
    ax.set_xticks(lrs, [f"{lr:g}" for lr in lrs])
    ax.xaxis.minorticks_off()
    ax.margins(x=0.08, y=0.12)
    finish_axes(ax, "learning rate (log scale)", "drop in loss (log scale)", loc="upper left")
    return describe(ax, " ".join(words))


@default_style()
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
    finite = losses[losses.isfinite()]
    bottom, top = finite.aminmax() if len(finite) else (0.0, 0.0)
    levels = bottom + (top - bottom) * torch.linspace(0.03, 1, 14, dtype=torch.float64).square()
    if bottom < top:
        ax.contour(*sides, losses, levels=levels, colors="#BBBBBB", linewidths=0.8)
    words = ["Paths of two weights over contours of the loss."]
    for (name, path), color in zip(points.items(), cycle(SERIES), strict=False):
        ax.plot(
            *path.T.numpy(), "-o", markersize=3, linewidth=1.3, label=in_legend(name), color=color
        )
        ax.plot(*path[0].tolist(), "o", markersize=9, markerfacecolor="none", color=BLACK)
        length = path.diff(dim=0).norm(dim=1).sum().item()
        words.append(
            f"{name}: {counted(len(path) - 1, 'step')} from {_place(path[0])} to "
            f"{_place(path[-1])}, {short(length, 1)} long in all."
        )
    row, column = divmod(int(losses.nan_to_num(math.inf).argmin()), _GRID)
    if bottom < top and min(row, column) > 0 and max(row, column) < _GRID - 1:
        (star,) = ax.plot(sides[0][column], sides[1][row], "*", color=BLACK, label="lowest point")
        star.set(markersize=13, markerfacecolor=YELLOW, zorder=3)
    finish_axes(ax, "$w_0$", "$w_1$", **BOXED)
    return describe(ax, " ".join(words))


@default_style()
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
    ax.axhline(below, color=BLACK, linewidth=1, linestyle="--")
    words = ["The loss against the step, on a log axis."]
    for (name, curve), color in zip(curves.items(), cycle(SERIES), strict=False):
        too_high = (~(curve < below)).nonzero().flatten().tolist()
        step = too_high[-1] + 1 if too_high else 0
        stays = step < len(curve)
        label = f"{name}: below {below:g} from step {step}" if stays else f"{name}: not below"
        drawn = curve.where(curve > 0, math.nan).tolist()
        ax.plot(drawn, "-o", markersize=2.5, linewidth=1.3, color=color, label=in_legend(label))
        if stays:
            words.append(f"{name} stays below {below:g} from step {step}.")
            (diamond,) = ax.plot(step, drawn[step], "D", color=color)
            diamond.set(markersize=7, markeredgecolor=BLACK, zorder=3)
        else:
            steps = counted(len(curve) - 1, "step")
            words.append(f"{name} does not stay below {below:g} in {steps}.")
    finish_axes(ax, "step", "loss (log scale)", **BOXED)
    return describe(ax, " ".join(words))


def _checked(paths: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return each path detached and in float64, or raise a ValueError."""
    require_mapping(paths, "paths", "{'SGD': path}")
    if not paths:
        raise ValueError("paths is empty: give at least one, such as {'SGD': path}.")
    points = {
        name: as_tensor(f"paths[{name!r}]", path).detach().cpu().double()
        for name, path in paths.items()
    }
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
    losses = loss_fn(weights)
    if not isinstance(losses, torch.Tensor):
        raise TypeError(
            f"loss_fn gave a {type(losses).__name__}: expected a tensor with a loss for each "
            "place, computed from w[0] and w[1] by torch."
        )
    losses = losses.detach()
    if losses.shape != weights.shape[1:]:
        raise ValueError(
            f"loss_fn gave the shape {tuple(losses.shape)} for weights of shape "
            f"{tuple(weights.shape)}; {tuple(weights.shape[1:])} is expected, a loss for each "
            "place. Take w[0] and w[1], and no sum over all of w."
        )
    return losses


def _place(point: torch.Tensor) -> str:
    return f"({', '.join(map(short, point.tolist()))})"
