"""Draws how processes that train one network average their gradients in a step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from blitz_helpers.plotting._axes import add_arrow
from blitz_helpers.plotting._canvas import canvas, describe
from blitz_helpers.plotting._colours import BLACK, BLUE, GREY, VERMILION
from blitz_helpers.plotting._settings import default_style
from blitz_helpers.plotting._words import minus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

_MOST_IMAGES = 6  # images drawn of each shard
# Vertical positions from the top, in column widths.
_TITLE, _SHARD, _OWN, _EXCHANGE, _MEAN, _BOTTOM = 2.04, 1.68, 1.06, 0.8, 0.1, 0.0
_BARS = 0.42  # height of a bar chart


@default_style()
def plot_ranks(
    images: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor], ax: Axes | None = None
) -> Axes:
    """Draw one step of data-parallel training: each rank's shard and gradient, and the mean.

    A column is a rank, a process with a copy of the network. Each rank computes a gradient from
    its own shard; ``all_reduce`` adds the gradients up, and each rank gets the same mean.

    Args:
        images: the shard of each rank, ``(N, 1, H, W)``; its first six images are drawn.
        gradients: a few numbers of the gradient of each rank, ``(K,)``.
        ax: where to draw; a new figure by default.

    Raises:
        ValueError: there are fewer than two ranks, shards and gradients differ in number, or a
            shape is not as above.
        ImportError: matplotlib is not installed.

    >>> shards = [torch.zeros(4, 1, 8, 8), torch.ones(4, 1, 8, 8)]
    >>> ax = plot_ranks(shards, [torch.tensor([0.5, -0.1]), torch.tensor([0.1, 0.3])])
    >>> ax.texts[0].get_text(), ax.texts[-1].get_text()
    ('rank 0', 'the same step in each: equal weights again')
    """
    _check(images, gradients)
    num_ranks = len(images)
    rows = torch.stack([gradient.detach().cpu().double() for gradient in gradients])
    mean = rows.mean(dim=0)
    ax = canvas(ax, 3.4 * num_ranks, 5.4)
    ax.set_xlim(0, num_ranks)
    ax.set_ylim(_BOTTOM - 0.06, _TITLE + 0.08)
    ax.axis("off")
    tallest = 1.25 * max(rows.abs().max().item(), torch.finfo(rows.dtype).tiny)
    words = [f"{num_ranks} ranks with equal weights and a shard each."]
    for rank, (shard, row) in enumerate(zip(images, rows, strict=True)):
        middle = rank + 0.5
        ax.text(middle, _TITLE, f"rank {rank}", ha="center", fontsize=13, weight="bold")
        _draw_shard(ax, middle, shard)
        add_arrow(ax, (middle, _SHARD - 0.02), (middle, _OWN + _BARS + 0.09))
        ax.text(middle + 0.05, _SHARD - 0.09, "forward, backward", va="center", fontsize=9)
        _draw_bars(ax, middle, _OWN, row, tallest, VERMILION, "its own gradient")
        add_arrow(ax, (middle, _OWN - 0.03), (middle, _EXCHANGE + 0.08))
        add_arrow(ax, (middle, _EXCHANGE - 0.08), (middle, _MEAN + _BARS + 0.09))
        _draw_bars(ax, middle, _MEAN, mean, tallest, BLUE, "the mean")
        own = ", ".join(_numbers(row))
        words.append(f"Rank {rank} has {len(shard)} images; its own gradient: {own}.")
    ax.barh(_EXCHANGE, num_ranks - 0.2, height=0.16, left=0.1, color=BLACK)
    ax.text(
        num_ranks / 2, _EXCHANGE, f"all_reduce: add up, then divide by {num_ranks}", ha="center",
        va="center", fontsize=12, color="white",
    )  # fmt: skip
    ax.text(
        num_ranks / 2, _BOTTOM, "the same step in each: equal weights again", ha="center",
        fontsize=11, color=GREY,
    )  # fmt: skip
    words.append(f"After all_reduce, each has the mean: {', '.join(_numbers(mean))}.")
    return describe(ax, " ".join(words))


def _check(images: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> None:
    if not len(images) == len(gradients) >= 2:
        raise ValueError(
            f"{len(images)} shards and {len(gradients)} gradients do not fit: give one of each "
            "for every rank, and at least two ranks."
        )
    for rank, shard in enumerate(images):
        if shard.ndim != 4 or shard.shape[1] != 1 or len(shard) == 0:
            raise ValueError(
                f"images[{rank}] has the shape {tuple(shard.shape)}; (N, 1, H, W) is expected."
            )
    for rank, gradient in enumerate(gradients):
        if gradient.ndim != 1 or gradient.shape != gradients[0].shape or len(gradient) == 0:
            raise ValueError(
                f"gradients[{rank}] has the shape {tuple(gradient.shape)}; (K,) is expected, the "
                "same numbers of the gradient in each rank. Use, say, net.fc3.bias.grad[:4]."
            )


def _draw_shard(ax: Axes, middle: float, shard: torch.Tensor) -> None:
    shown = torch.cat(list(shard[:_MOST_IMAGES, 0].detach().cpu()), dim=1)
    height, width = shown.shape
    drawn_width = min(0.8, 0.3 * width / height)
    inset = ax.inset_axes(
        (middle - drawn_width / 2, _SHARD, drawn_width, 0.3), transform=ax.transData
    )
    inset.imshow(shown.numpy(), cmap="gray_r", aspect="auto")
    inset.set(xticks=[], yticks=[])


def _draw_bars(
    ax: Axes, middle: float, bottom: float, row: torch.Tensor, tallest: float, color: str, name: str
) -> None:
    inset = ax.inset_axes((middle - 0.4, bottom, 0.8, _BARS), transform=ax.transData)
    bars = inset.bar(range(len(row)), row.tolist(), color=color)
    inset.bar_label(bars, labels=_numbers(row), padding=2, fontsize=9)
    inset.axhline(0, color=BLACK, linewidth=0.8)
    inset.set_ylim(-tallest, tallest)
    inset.patch.set_visible(False)
    inset.axis("off")
    inset.set_title(name, fontsize=10, color=color, pad=2)


def _numbers(row: torch.Tensor) -> list[str]:
    return [minus(f"{value:.3f}") for value in row.tolist()]
