"""Pictures of a training: its losses, the answers of the network, and its first filters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from blitz_helpers.plotting._canvas import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    MOST_NUMBERED,
    PURPLE,
    VERMILION,
    canvas,
    number_classes,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from blitz_helpers.training import Evaluation

_COLORS = (BLUE, VERMILION, GREEN, PURPLE)


def plot_losses(
    losses: Mapping[str, Sequence[float]], window: int = 100, ax: Axes | None = None
) -> Axes:
    """Draw the loss of each step, one curve a name: pale as it is, dark as a running mean.

    Args:
        losses: such as ``{"momentum": history.losses}``; up to four curves.
        window: over how many steps the mean runs, fewer at the start.
        ax: where to draw; a new figure by default.

    Raises:
        ValueError: no curve, an empty one, more than four, or a window below 1.
        ImportError: matplotlib is not installed.

    >>> plot_losses({"sgd": [2.3, 1.1, 0.4]}).get_ylabel()
    'loss'
    """
    if not 1 <= len(losses) <= len(_COLORS) or not all(losses.values()):
        raise ValueError(
            f"{len(losses)} curves of {[len(curve) for curve in losses.values()]} steps cannot be "
            f"drawn: 1 to {len(_COLORS)} are expected, of 1 step or more each."
        )
    if window < 1:
        raise ValueError(f"window={window} is no number of steps. Use 1 or more.")
    ax = canvas(ax, 6.5, 3.0)
    for (name, curve), color in zip(losses.items(), _COLORS, strict=False):
        values = torch.tensor(curve, dtype=torch.float64)
        sums = F.pad(values.cumsum(0), (1, 0))
        last = torch.arange(1, len(values) + 1)
        first = (last - window).clamp(min=0)
        means = (sums[last] - sums[first]) / (last - first)
        steps = last.tolist()
        if len(losses) == 1:
            ax.plot(steps, curve, color=color, linewidth=0.5, alpha=0.3)
        only = "o" if len(steps) == 1 else ""  # a line needs two
        ax.plot(steps, means.tolist(), color=color, linewidth=1.8, marker=only, label=name)
    ax.set_xlabel("step")
    ax.set_ylabel("loss")
    ax.set_ylim(bottom=0)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return ax


def plot_confusion(evaluation: Evaluation, ax: Axes | None = None) -> Axes:
    """Draw how often each class, down, was taken for each, across; mistakes are the dark cells.

    The shade stands for mistakes alone: the right answers, on the diagonal, would outshine them.
    The counts of up to 20 classes are written out.

    Raises:
        ImportError: matplotlib is not installed.
    """
    counts = evaluation.confusion_matrix
    mistakes = counts - counts.diag().diag()
    highest = max(1, int(mistakes.max()))
    ax = canvas(ax, 4.6, 4.4)
    ax.imshow(mistakes.numpy(), cmap="Oranges", vmin=0, vmax=highest)
    written = counts.tolist() if len(counts) <= MOST_NUMBERED else []
    for label, row in enumerate(written):
        for prediction, count in enumerate(row):
            if count:
                dark = label != prediction and count > 0.7 * highest
                ax.text(
                    prediction, label, str(count), ha="center", va="center", fontsize=8,
                    color="white" if dark else BLACK,
                )  # fmt: skip
    for axis in (ax.xaxis, ax.yaxis):
        number_classes(axis, len(counts))
    ax.set_xlabel("answer")
    ax.set_ylabel("class")
    ax.spines[:].set_visible(False)
    return ax


def plot_filters(
    filters: torch.Tensor, responses: torch.Tensor | None = None, ax: Axes | None = None
) -> Axes:
    """Draw filters ``(N, 1, h, w)`` in a row: blue where a weight is negative, red where positive.

    With ``responses`` ``(N, H, W)``, each filter's answer to an image is drawn below it: white
    where it is zero or less, black at the largest answer of all.

    Raises:
        ValueError: another shape.
        ImportError: matplotlib is not installed.

    >>> plot_filters(torch.rand(6, 1, 3, 3)).get_title()
    ''
    """
    if filters.ndim != 4 or filters.shape[1] != 1 or len(filters) == 0:
        raise ValueError(
            f"filters of shape {tuple(filters.shape)} cannot be drawn: (N, 1, h, w) is expected."
        )
    if responses is not None and (responses.ndim != 3 or len(responses) != len(filters)):
        raise ValueError(
            f"responses of shape {tuple(responses.shape)} do not fit {len(filters)} filters: "
            f"({len(filters)}, H, W) is expected."
        )
    rows = 1 if responses is None else 2
    pitch = 1.15  # from one picture to the next, in sides of a picture
    inches = min(1.1, 7.2 / (pitch * len(filters)))
    ax = canvas(ax, inches * pitch * len(filters), inches * pitch * rows)
    limit = filters.detach().abs().max().item() or 1.0
    for index, weights in enumerate(filters.detach().cpu()):
        left = index * pitch
        ax.imshow(
            weights[0].numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit,
            extent=(left, left + 1, 1, 0),
        )  # fmt: skip
        if responses is not None:
            ax.imshow(
                responses[index].detach().cpu().clamp(min=0).numpy(), cmap="gray_r",
                vmin=0, vmax=responses.max().item() or 1.0,
                extent=(left, left + 1, pitch + 1, pitch),
            )  # fmt: skip
            # A frame, for answers that are white all over.
            sides = [left, left + 1, left + 1, left, left]
            ax.plot(sides, [pitch, pitch, pitch + 1, pitch + 1, pitch], color=GREY, linewidth=0.5)
    ax.set_xlim(-0.05, (len(filters) - 1) * pitch + 1.05)
    ax.set_ylim((rows - 1) * pitch + 1.05, -0.05)
    ax.set_axis_off()
    return ax
