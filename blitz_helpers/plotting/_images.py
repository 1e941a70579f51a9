"""Draws images and other grids of numbers, and checks the shapes of what is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from blitz_helpers._extras import require
from blitz_helpers.plotting._canvas import GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage
    from numpy.typing import ArrayLike

INK = {"cmap": "gray_r", "vmin": 0}  # 0 is white, as paper; the highest value is black


def checked(
    name: str,
    numbers: torch.Tensor | ArrayLike,
    shape: str,
    advice: str = "",
    problem: str = "cannot be drawn",
) -> torch.Tensor:
    """Return ``numbers`` in float64, on the CPU and without a graph.

    ``shape`` is written as the error shows it. A number in it stands for a size, and a name for
    any size of 1 or more.

    Raises:
        ValueError: the numbers have another shape, are complex, or on the meta device.
        TypeError: they are not numbers.

    >>> checked("image", [[0.0, 1.0]], "(H, W)").shape
    torch.Size([1, 2])
    """
    numbers = as_tensor(name, numbers)
    expected = shape.strip("(),").split(", ")
    fits = numbers.ndim == len(expected) and all(
        str(size) == wanted if wanted.isdigit() else size
        for size, wanted in zip(numbers.shape, expected, strict=True)
    )
    if not fits:
        given = f"{name} of shape {tuple(numbers.shape)} {problem}"
        raise ValueError(f"{given}: {shape} is expected. {advice}".rstrip())
    return numbers.detach().cpu().double()


def as_tensor(name: str, numbers: torch.Tensor | ArrayLike) -> torch.Tensor:
    """Return ``numbers`` as a tensor, or raise an error if they are not real numbers."""
    if not isinstance(numbers, torch.Tensor):
        try:
            array = require("numpy", extra="plotting").array(numbers)
            array = array if array.dtype.kind == "c" else array.astype(float)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{name} is a {type(numbers).__name__} that cannot be drawn: expected a tensor, or "
                f"an array or nested lists of numbers. ({error})"
            ) from error
        numbers = torch.from_numpy(array)
    if numbers.is_complex() or numbers.is_meta:
        why = "complex: draw its abs()" if numbers.is_complex() else "on the meta device: draw data"
        raise ValueError(f"{name} is {why}.")
    return numbers


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
