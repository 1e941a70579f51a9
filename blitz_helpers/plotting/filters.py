"""Draws the filters of a first layer, and their responses to an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from blitz_helpers.plotting._canvas import BLACK, MOST_NUMBERED, canvas, describe
from blitz_helpers.plotting._images import INK, around_zero, checked, colour_bar, draw_image
from blitz_helpers.plotting._settings import same_for_all
from blitz_helpers.plotting._words import by, minus

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
    filters = checked("filters", filters, "(N, 1, h, w)")
    count = len(filters)
    if before is not None and before.shape != filters.shape:
        raise ValueError(
            f"before of shape {tuple(before.shape)} does not fit filters of shape "
            f"{tuple(filters.shape)}: give the same filters, as they were before training."
        )
    weights = {"weights": filters}
    if before is not None:
        weights = {"before": checked("before", before, "(N, 1, h, w)"), "after": filters}
    shown = torch.stack(list(weights.values()))
    look = around_zero(shown)
    rows: list[tuple[str, torch.Tensor, dict[str, Any]]]  # name, images and look
    rows = [(name, kernels[:, 0], look) for name, kernels in weights.items()]
    if responses is not None:
        problem = f"do not fit {count} filters"
        answers = checked("responses", responses, f"({count}, H, W)", problem=problem).clamp(min=0)
        rows.append(("answers", answers, {**INK, "vmax": answers.max().item() or 1.0}))

    inches = min(1.1, 7.0 / (_PITCH * count))
    ax = canvas(ax, inches * _PITCH * count + 1.4, inches * _PITCH * len(rows) + 0.3)
    for row, (name, images, look) in enumerate(rows):
        ax.text(-0.12, row * _PITCH + 0.5, name, ha="right", va="center", color=BLACK)
        for index, image in enumerate(images):
            draw_image(ax, image, index * _PITCH, row * _PITCH, 1, 1, **look)
    if count <= MOST_NUMBERED:
        for index in range(count):
            ax.text(index * _PITCH + 0.5, -0.08, str(index), ha="center", va="bottom", color=BLACK)
    ax.set_xlim(-0.05, (count - 1) * _PITCH + 1.05)
    ax.set_ylim((len(rows) - 1) * _PITCH + 1.05, -0.05)
    ax.set_axis_off()
    colour_bar(ax.images[0], shrink=0.8, aspect=12, label="weight")
    return describe(ax, _words(shown, responses))


def _words(weights: torch.Tensor, responses: torch.Tensor | None) -> str:
    _, count, _, height, width = weights.shape
    drawn = ", before and after training" if len(weights) == 2 else ""
    low, high = (minus(f"{end:.2f}") for end in weights.aminmax())
    words = f"{count} filters of {by(height, width)} weights{drawn}, from {low} to {high}."
    if responses is None:
        return words
    silent = [str(index) for index, each in enumerate(responses) if each.max() <= 0]
    which = f"; {', '.join(silent)} answer nothing" if silent else ""
    return f"{words} Below each its answers to an image{which}."
