"""Turns the strokes of a pen into the pixels of a picture."""

from __future__ import annotations

import torch
from torch import Tensor

Stroke = tuple[tuple[float, float], ...]  # (x, y) from point to point, in pixels

_PEN = 1.3  # pixels from the middle of a stroke to its edge, in a picture 32 pixels high
_SOFT = 1.0  # pixels over which the edge fades


def ink(strokes: tuple[Stroke, ...], height: int, width: int) -> Tensor:
    """Return a picture ``(height, width)`` with values from 0, paper, to 1, ink.

    Pixel (row 0, column 0) reaches from x = 0 and y = 0 to 1.

    >>> ink((((0.0, 2.5), (8.0, 2.5)),), 8, 8).max(dim=1).values[:4].tolist()
    [0.0, 0.0, 1.0, 0.0]
    """
    unit = min(height, width) / 32
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float32) + 0.5,
        torch.arange(width, dtype=torch.float32) + 0.5,
        indexing="ij",
    )
    pixels = torch.stack([x, y], dim=-1)
    nearest = torch.full((height, width), torch.inf)
    for stroke in strokes:
        points = torch.tensor(stroke, dtype=torch.float32)
        starts, ends = points[:-1], points[1:]
        if len(points) == 1:  # a dot
            starts = ends = points
        for start, end in zip(torch.split(starts, 64), torch.split(ends, 64), strict=True):
            along = end - start
            length = (along * along).sum(-1).clamp(min=1e-12)
            to_start = pixels.unsqueeze(-2) - start
            part = ((to_start * along).sum(-1) / length).clamp(0, 1).unsqueeze(-1)
            distance = (to_start - part * along).norm(dim=-1).amin(dim=-1)
            nearest = torch.minimum(nearest, distance)
    reach = (_PEN + _SOFT / 2) * unit
    return ((reach - nearest) / (_SOFT * unit)).clamp(0, 1)
