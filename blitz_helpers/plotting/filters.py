"""Draws the filters of a first layer, and their responses to an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from blitz_helpers.plotting._canvas import BLACK, GREY, MOST_NUMBERED, canvas, describe
from blitz_helpers.plotting._settings import same_for_all

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PITCH = 1.15  # distance between pictures, as a multiple of their side


@same_for_all
def plot_filters(
    filters: torch.Tensor,
    responses: torch.Tensor | None = None,
    before: torch.Tensor | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw filters ``(N, 1, h, w)`` in a row: blue where a weight is negative, red where positive.

    Each filter is labelled with its index in the tensor.

    Args:
        filters: the weights of a first layer.
        responses: ``(N, H, W)``, the response of each filter to an image, drawn below the
            filter: white where it is zero or less, black at the largest of all responses.
        before: the same filters before training, drawn in a row above.
        ax: where to draw; a new figure by default.

    Raises:
        ValueError: an argument has another shape.
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
    if before is not None and before.shape != filters.shape:
        raise ValueError(
            f"before of shape {tuple(before.shape)} does not fit filters of shape "
            f"{tuple(filters.shape)}: give the same filters, as they were before training."
        )
    weights = {"weights": filters} if before is None else {"before": before, "after": filters}
    shown = torch.stack([each.detach().cpu().float() for each in weights.values()])
    limit = shown.abs().max().item() or 1.0
    rows = len(weights) + (responses is not None)
    inches = min(1.1, 7.0 / (_PITCH * len(filters)))
    ax = canvas(ax, inches * _PITCH * len(filters) + 1.4, inches * _PITCH * rows + 0.3)
    for row, (name, kernels) in enumerate(zip(weights, shown, strict=True)):
        _name_row(ax, row, name)
        for index, kernel in enumerate(kernels):
            image = ax.imshow(
                kernel[0].numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit, origin="upper",
                extent=_place(row, index),
            )  # fmt: skip
    if responses is not None:
        answers = responses.detach().cpu().float().clamp(min=0)
        _name_row(ax, rows - 1, "answers")
        for index, answer in enumerate(answers):
            left, right, bottom, top = place = _place(rows - 1, index)
            ax.imshow(
                answer.numpy(), cmap="gray_r", vmin=0, vmax=answers.max().item() or 1.0,
                origin="upper", extent=place,
            )  # fmt: skip
            # A frame, so that an all-white response can be seen.
            sides = ([left, right, right, left, left], [top, top, bottom, bottom, top])
            ax.plot(*sides, color=GREY, linewidth=0.5)
    if len(filters) <= MOST_NUMBERED:
        for index in range(len(filters)):
            ax.text(index * _PITCH + 0.5, -0.08, str(index), ha="center", va="bottom", color=BLACK)
    ax.set_xlim(-0.05, (len(filters) - 1) * _PITCH + 1.05)
    ax.set_ylim((rows - 1) * _PITCH + 1.05, -0.05)
    ax.set_axis_off()
    figure = ax.get_figure(root=False)
    assert figure is not None  # axes always belong to a figure here
    bar = figure.colorbar(image, ax=ax, shrink=0.8, aspect=12, label="weight")
    bar.outline.set_visible(False)
    return describe(ax, _words(shown, responses))


def _place(row: int, index: int) -> tuple[float, float, float, float]:
    """Return the left, right, bottom and top edges; the vertical axis runs downward."""
    left, top = index * _PITCH, row * _PITCH
    return left, left + 1, top + 1, top


def _name_row(ax: Axes, row: int, name: str) -> None:
    ax.text(-0.12, row * _PITCH + 0.5, name, ha="right", va="center", color=BLACK)


def _words(weights: torch.Tensor, responses: torch.Tensor | None) -> str:
    _, count, _, height, width = weights.shape
    drawn = ", before and after training" if len(weights) == 2 else ""
    low, high = (f"{end:.2f}".replace("-", "\N{MINUS SIGN}") for end in weights.aminmax())
    words = f"{count} filters of {height}x{width} weights{drawn}, from {low} to {high}."
    if responses is None:
        return words
    silent = [str(index) for index, each in enumerate(responses) if each.max() <= 0]
    which = f"; {', '.join(silent)} answer nothing" if silent else ""
    return f"{words} Below each its answers to an image{which}."
