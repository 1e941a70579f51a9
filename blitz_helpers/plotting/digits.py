"""Draws digits as pictures, and a network's scores for one of them as bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from blitz_helpers.plotting._canvas import (
    BLACK,
    BLUE,
    GREY,
    MOST_NUMBERED,
    SKY,
    canvas,
    describe,
    number_classes,
)
from blitz_helpers.plotting._settings import same_for_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

_COLUMNS = 10
_MARGIN = 0.15  # between digits, as a fraction of a digit's side
_CAPTION = 0.25  # height of a caption, also as a fraction
_TOLD = 20  # captions that the alt text repeats


@same_for_all
def plot_digits(
    images: torch.Tensor, captions: Sequence[object] = (), ax: Axes | None = None
) -> Axes:
    """Draw images ``(N, 1, H, W)`` in rows of ten, each framed, with its caption above.

    Values of 0 are drawn white and 1 black, as ink on paper.

    Raises:
        ValueError: the images have another shape, or there is not one caption for each.
        ImportError: matplotlib is not installed.

    >>> plot_digits(torch.rand(12, 1, 32, 32), captions=range(12)).get_title()
    ''
    """
    if images.ndim != 4 or images.shape[1] != 1 or len(images) == 0:
        raise ValueError(
            f"images of shape {tuple(images.shape)} cannot be drawn: (N, 1, H, W) is expected, "
            "with N of 1 or more. Use images[i:i + 1] for a single one."
        )
    if captions and len(captions) != len(images):
        raise ValueError(f"{len(captions)} captions do not fit {len(images)} images.")
    columns = min(len(images), _COLUMNS)
    rows = -(-len(images) // columns)
    above = _CAPTION if captions else 0.0
    row_height = 1 + _MARGIN + above
    # Ten images in a row fill the page. Fewer images are drawn larger, up to an inch each.
    inches = min(1.0, 7.4 / (columns * (1 + _MARGIN)))
    ax = canvas(ax, inches * columns * (1 + _MARGIN), inches * rows * row_height)
    for index, image in enumerate(images.detach().cpu()):
        left, top = (index % columns) * (1 + _MARGIN), (index // columns) * row_height
        ax.imshow(
            image[0].float().numpy(),
            cmap="gray_r",
            vmin=0,
            vmax=1,
            extent=(left, left + 1, top + 1, top),
        )
        sides = ([left, left + 1, left + 1, left, left], [top, top, top + 1, top + 1, top])
        ax.plot(*sides, color=GREY, linewidth=0.5)  # the image's edge, which is white as the page
        if captions:
            ax.text(
                left + 0.5, top - 0.05, str(captions[index]),
                ha="center", va="bottom", color=BLACK, fontsize=10,
            )  # fmt: skip
    ax.set_xlim(-_MARGIN / 2, columns * (1 + _MARGIN) - _MARGIN / 2)
    ax.set_ylim((rows - 1) * row_height + 1 + _MARGIN / 2, -_MARGIN / 2 - above)
    ax.set_axis_off()
    return describe(ax, _counted(len(images), list(map(str, captions))))


def _counted(count: int, captions: list[str]) -> str:
    """Return the alt text: the number of images, and the captions of the first ones.

    >>> _counted(2, ["a 3", "a 5"])
    '2 images: a 3; a 5.'
    """
    told = captions[:_TOLD]
    if len(captions) > _TOLD:
        told.append(f"and {len(captions) - _TOLD} more")
    return f"{count} {'image' if count == 1 else 'images'}{': ' * bool(told)}{'; '.join(told)}."


@same_for_all
def plot_scores(
    scores: torch.Tensor,
    image: torch.Tensor | None = None,
    name: str = "logit",
    class_name: str = "class",
    ax: Axes | None = None,
) -> Axes:
    """Draw one score a class as a bar, the highest in a darker colour.

    Up to 20 scores are written out; if there are more, only the highest is.

    Args:
        scores: ``(num_classes,)``, such as the logits of one image, or their softmax.
        image: the image ``(1, H, W)`` that the scores are for, drawn beside them.
        name: the label of the vertical axis, such as "logit".
        class_name: the label of the horizontal axis, such as "digit".
        ax: where to draw; a new figure by default.

    Raises:
        ValueError: ``scores`` or ``image`` has another shape.
        ImportError: matplotlib is not installed.

    >>> plot_scores(torch.tensor([0.1, -0.2, 0.4])).get_ylabel()
    'logit'
    """
    if scores.ndim != 1:
        raise ValueError(
            f"scores of shape {tuple(scores.shape)} cannot be drawn: (num_classes,) is expected. "
            "Use scores[i] for the scores of one image."
        )
    if image is not None and image.ndim != 3:
        raise ValueError(
            f"image of shape {tuple(image.shape)} cannot be drawn: (1, H, W) is expected. "
            "Use images[i] for a single one."
        )
    ax = canvas(ax, 6.0, 2.2)
    heights = scores.detach().cpu().tolist()
    highest = heights.index(max(heights))
    colors = [SKY] * len(heights)
    colors[highest] = BLUE
    bars = ax.bar(range(len(heights)), heights, color=colors)
    # The axis uses true minus signs, which are longer than hyphens.
    labels = [f"{height:.2f}".replace("-", "\N{MINUS SIGN}") for height in heights]
    top = labels[highest]
    if len(labels) > MOST_NUMBERED:
        labels = [label if n == highest else "" for n, label in enumerate(labels)]
    ax.bar_label(bars, labels=labels, padding=2, fontsize=8, color=BLACK)
    ax.axhline(0, color=BLACK, linewidth=0.8)
    ax.margins(y=0.15)  # room for the numbers
    number_classes(ax.xaxis, len(heights))
    ax.set_xlabel(class_name)
    ax.set_ylabel(name)
    ax.spines[["top", "right", "bottom"]].set_visible(False)
    beside = ""
    if image is not None:
        plot_digits(image.unsqueeze(0), ax=ax.inset_axes((-0.58, 0.0, 0.3, 1.0)))
        beside = "An image, and beside it "
    words = (
        f"{beside}{len(heights)} bars, the {name} of each {class_name}. "
        f"The highest, {top}, is that of {class_name} {highest}."
    )
    return describe(ax, words)
