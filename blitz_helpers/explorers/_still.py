"""A still picture of what a model makes of a digit, for pages without a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from blitz_helpers._extras import require
from blitz_helpers.explorers._reading import Maps, Reading
from blitz_helpers.plotting._canvas import Picture, canvas, describe, show
from blitz_helpers.plotting._colours import BLACK, BLUE, VERMILION
from blitz_helpers.plotting._settings import default_style
from blitz_helpers.plotting._words import as_written
from blitz_helpers.plotting.digits import plot_digits, plot_scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_MAPS = 16
_LABEL = 9  # points
_WIDTH, _TOP, _ROW, _MAP = 7.4, 2.4, 0.45, 0.36  # inches


@default_style()
def draw_reading(picture: Tensor, reading: Reading, steps: Sequence[Maps]) -> Picture:
    """Draw the picture, the gradient on it, the answers, and a row of maps for each step."""
    height = _TOP + _ROW * len(steps)  # inches
    ax = canvas(None, _WIDTH, height)
    ax.set_axis_off()
    top = (_TOP - 0.5) / height
    drawn = ax.inset_axes((0.0, 1 - top, 0.2, top))
    plot_digits(picture[None, None], ax=drawn)
    drawn.set_title("the picture", fontsize=_LABEL, color=BLACK)
    if reading.gradient is not None:
        on_it = ax.inset_axes((0.22, 1 - top, 0.2, top))
        _draw_signed(on_it, reading.gradient)
        on_it.set_title(f"gradient of score {reading.answer}", fontsize=_LABEL, color=BLACK)
    bars = ax.inset_axes((0.52, 1 - top, 0.48, top * 0.9))
    plot_scores(reading.scores.softmax(0), name="probability", class_name="answer", ax=bars)
    bars.patch.set_visible(False)  # the card shows through
    for row, step in enumerate(steps):
        bottom = _ROW * (len(steps) - 1 - row) / height
        name = ax.text(
            0.0, bottom + 0.5 * _MAP / height, as_written(step.name), transform=ax.transAxes
        )
        name.set(va="center", fontsize=_LABEL, color=BLACK)
        maps = step.values[:_MOST_MAPS].float().cpu()
        side_by_side = F.pad(maps, (0, 1), value=torch.nan).transpose(0, 1).flatten(1)[:, :-1]
        width = _MAP * side_by_side.shape[1] / side_by_side.shape[0] / _WIDTH
        strip = ax.inset_axes((0.19, bottom, min(0.81, width), _MAP / height))
        _draw_signed(strip, side_by_side)
    described = describe(
        ax,
        f"A drawn digit, the gradient of answer {reading.answer} on it, the model's "
        f"{len(reading.scores)} answers, of which {int(reading.scores.argmax())} is the highest, "
        f"and the maps of {len(steps)} steps: {', '.join(step.name for step in steps)}.",
    )
    return show(described)


def _draw_signed(ax: Axes, values: Tensor) -> None:
    """Draw numbers blue below zero and orange above, as the page does, and no axes."""
    colors = require("matplotlib.colors", extra="explorers").LinearSegmentedColormap
    cmap = colors.from_list("signed", [BLUE, "white", VERMILION])
    limit = values.nan_to_num().abs().max().item() or 1.0
    ax.imshow(values.numpy(), cmap=cmap, vmin=-limit, vmax=limit)
    ax.set_axis_off()
