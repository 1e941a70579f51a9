"""Draws images and other grids of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from blitz_helpers.plotting._colours import GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

INK = {"cmap": "gray_r", "vmin": 0}  # 0 is white, as paper; the highest value is black


def around_zero(numbers: torch.Tensor) -> dict[str, Any]:
    """Return the look of signed numbers: blue below zero, white at zero, red above."""
    limit = numbers.nan_to_num(0, 0, 0).abs().max().item() or 1.0
    return {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}


def draw_image(
    ax: Axes, image: torch.Tensor, left: float, top: float, width: float, height: float, **look: Any
) -> AxesImage:
    """Draw an image ``(H, W)`` in a frame; the vertical axis runs downward."""
    right, bottom = left + width, top + height
    drawn = ax.imshow(
        image.numpy(), extent=(left, right, bottom, top), interpolation="nearest", **look
    )
    # The edge of an image is often as white as the page: the frame shows where it runs.
    sides = ([left, right, right, left, left], [top, top, bottom, bottom, top])
    ax.plot(*sides, color=GREY, linewidth=0.5, clip_on=False)
    return drawn
