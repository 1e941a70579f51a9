"""Draws digits as pictures, and a network's scores for one of them as bars."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from blitz_helpers.plotting._axes import MOST_NUMBERED, number_classes
from blitz_helpers.plotting._canvas import canvas, describe
from blitz_helpers.plotting._checks import checked
from blitz_helpers.plotting._colours import BLACK, BLUE, SKY
from blitz_helpers.plotting._images import INK, draw_image
from blitz_helpers.plotting._settings import default_style
from blitz_helpers.plotting._words import as_written, counted, fixed, minus, shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

_COLUMNS = 10
_MARGIN = 0.15  # between digits, as a fraction of a digit's side
_CAPTION = 0.25  # height of a caption, also as a fraction


@default_style()
def plot_digits(
    images: torch.Tensor, captions: Sequence[object] = (), ax: Axes | None = None
) -> Axes:
    """Draw images ``(N, 1, H, W)`` in rows of ten, each framed, with its caption above.

    Values of 0 are drawn white and 1 black, as ink on paper.

    Raises:
        ValueError: the images have another shape, or there is not one caption for each.

    >>> plot_digits(torch.rand(12, 1, 32, 32), captions=range(12)).get_title()
    ''
    """
    images = checked("images", images, "(N, 1, H, W)", "Use images[i:i + 1] for a single one.")
    try:
        told = [str(caption) for caption in captions]
    except TypeError as error:
        raise TypeError(
            f"captions is a {type(captions).__name__}: expected a list, one for each image."
        ) from error
    if told and len(told) != len(images):
        raise ValueError(f"{len(told)} captions do not fit {len(images)} images.")
    columns = min(len(images), _COLUMNS)
    rows = -(-len(images) // columns)
    above = _CAPTION if told else 0.0
    width, height = 1 + _MARGIN, 1 + _MARGIN + above
    # Ten images in a row fill the page. Fewer images are drawn larger, up to an inch each.
    inches = min(1.0, 7.4 / (columns * width))
    ax = canvas(ax, inches * columns * width, inches * rows * height)
    for index, image in enumerate(images):
        left, top = (index % columns) * width, (index // columns) * height
        draw_image(ax, image[0], left, top, 1, 1, **INK, vmax=1)
        if told:
            text = as_written(told[index])
            ax.text(left + 0.5, top - 0.05, text, ha="center", va="bottom", color=BLACK)
    ax.set_xlim(-_MARGIN / 2, columns * width - _MARGIN / 2)
    ax.set_ylim((rows - 1) * height + 1 + _MARGIN / 2, -_MARGIN / 2 - above)
    ax.set_axis_off()
    words = counted(len(images), "image")
    if told:
        words += f": {'; '.join(shortened(told))}"
    return describe(ax, f"{words}.")


@default_style()
def plot_scores(
    scores: torch.Tensor,
    image: torch.Tensor | None = None,
    name: str = "logit",
    class_name: str = "class",
    ax: Axes | None = None,
) -> Axes:
    """Draw one score a class as a bar, the highest in a darker colour.

    Up to 20 scores are written out; if there are more, only the highest is. A score that is not
    finite, such as that of a masked class, has no bar.

    Args:
        scores: ``(num_classes,)``, such as the logits of one image, or their softmax.
        image: the image ``(1, H, W)`` that the scores are for, drawn beside them.
        name: the label of the vertical axis, such as "logit".
        class_name: the label of the horizontal axis, such as "digit".
        ax: where to draw; a new figure by default.

    Raises:
        ValueError: ``scores`` or ``image`` has another shape.

    >>> plot_scores(torch.tensor([0.1, -0.2, 0.4])).get_ylabel()
    'logit'
    """
    advice = "Use scores[i] for the scores of one image."
    heights = checked("scores", scores, "(num_classes,)", advice).tolist()
    if image is not None:
        image = checked("image", image, "(1, H, W)", "Use images[i] for a single one.")
    ax = canvas(ax, 6.0, 2.2)
    highest = int(torch.tensor(heights).nan_to_num(-math.inf, math.inf, -math.inf).argmax())
    finite = [height if math.isfinite(height) else math.nan for height in heights]
    colors = [SKY] * len(heights)
    colors[highest] = BLUE
    bars = ax.bar(range(len(heights)), finite, color=colors)
    labels = [minus(fixed(height)) for height in heights]
    top = labels[highest]
    if len(labels) > MOST_NUMBERED:
        labels = [label if n == highest else "" for n, label in enumerate(labels)]
    ax.bar_label(bars, labels=labels, padding=2, fontsize=8, color=BLACK)
    ax.axhline(0, color=BLACK, linewidth=0.8)
    ax.margins(y=0.15)  # room for the numbers
    number_classes(ax.xaxis, len(heights))
    ax.set(xlabel=as_written(class_name), ylabel=as_written(name))
    ax.spines[["top", "right", "bottom"]].set_visible(False)
    words = f"{counted(len(heights), 'bar')}, the {name} of each {class_name}. "
    if math.isnan(heights[highest]):
        words += "None is a number."
    else:
        words += f"The highest, {top}, is that of {class_name} {highest}."
    if image is not None:
        plot_digits(image[None], ax=ax.inset_axes((-0.58, 0.0, 0.3, 1.0)))
        words = f"An image, and beside it {words}"
    return describe(ax, words)
