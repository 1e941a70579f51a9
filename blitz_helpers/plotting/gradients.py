"""Draws the size of each parameter's gradient, and the gradient of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blitz_helpers.plotting._axes import colour_bar, row_spacing
from blitz_helpers.plotting._canvas import canvas, describe
from blitz_helpers.plotting._checks import as_tensor, checked, require_record
from blitz_helpers.plotting._colours import BLACK, BLUE, GREY, VERMILION
from blitz_helpers.plotting._images import around_zero, draw_image
from blitz_helpers.plotting._settings import default_style
from blitz_helpers.plotting._words import as_written, by, counted, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

    from blitz_helpers.gradients import GradientReport

# Text shown instead of a dot, and its colour; vermilion marks a problem.
_REMARKS = {
    "frozen": ("frozen: requires_grad is off", GREY),
    "none": ("none: no backward has reached it", GREY),
    "zero": ("zero: reached, and every entry is 0", VERMILION),
    "nonfinite": ("not finite: an entry is inf or nan", VERMILION),
}
_INCHES_A_ROW = 0.27
_LINE = "#E3E3E3"
_RIGHT = 1.13  # right edge of the column of zeros, as a fraction of the axes' width


@default_style()
def plot_gradient_report(report: GradientReport, ax: Axes | None = None) -> Axes:
    """Draw the size of every gradient, one line a parameter, on a logarithmic scale.

    The dot is the norm of the gradient, the stroke its largest absolute value. The column on the
    right gives the fraction of exact zeros. Without a norm to draw, the status is written out.

    >>> import torch
    >>> from blitz_helpers import gradient_report
    >>> model = torch.nn.Linear(2, 1)
    >>> model(torch.ones(1, 2)).sum().backward()
    >>> ax = plot_gradient_report(gradient_report(model))
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['weight', 'bias']
    """
    require_record(report, "report", "GradientReport", "gradient_report(model)")
    if not report:
        raise ValueError("report is empty: it holds no parameter. Draw that of a model with some.")
    pitch, every = row_spacing(len(report), _INCHES_A_ROW)
    ax = canvas(ax, 7.0, 1.1 + pitch * len(report))
    lines = [line for line, row in enumerate(report) if row.status == "ok"]
    norms = [report[line].norm or 0.0 for line in lines]  # an "ok" row always has a norm
    largest = [report[line].max_abs or 0.0 for line in lines]
    across = ax.get_yaxis_transform()  # x is a fraction of the axes' width, on any scale
    ax.hlines(lines, 0, 1, transform=across, color=_LINE, linewidth=1, zorder=0)
    (strokes,) = ax.plot(largest, lines, "|", color=BLACK, label="largest absolute value")
    strokes.set(markersize=11, markeredgewidth=1.8)
    ax.plot(norms, lines, "o", color=BLUE, markersize=7, label="norm")
    if lines:
        ax.set_xscale("log")
        ax.margins(x=0.08)
        # Labels at 2 and 5 too, unless the axis is so wide that they would collide.
        subs = (1, 2, 5) if max(norms) < 100 * min(largest) else (1,)
        ax.locator_params(axis="x", subs=subs, numticks=9)
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter("")
        ax.set_xlabel("size of the gradient (log scale)")
    else:
        ax.set_xticks([])
    for line, row in list(enumerate(report))[::every]:
        baseline: dict[str, Any] = {"transform": across, "va": "center_baseline"}
        if row.zero_fraction is not None:
            ax.text(_RIGHT, line, _percent(row.zero_fraction), ha="right", **baseline)
        if row.status != "ok":
            remark, color = _REMARKS[row.status]
            ax.text(0.02, line, remark, color=color, fontsize=9, **baseline)
    ax.text(_RIGHT, -0.9, "exact zeros", transform=across, ha="right", va="bottom")
    names = [as_written(row.name) for row in report[::every]]
    ax.set_yticks(range(0, len(report), every), names)
    ax.set_ylim(len(report) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderpad=0)
    return describe(ax, _words(report))


@default_style()
def plot_image_gradient(image: Tensor, gradient: Tensor, ax: Axes | None = None) -> Axes:
    """Draw the gradient of one image: red where positive, blue where negative.

    Red pixels raise the output when their value grows, blue ones lower it; the deeper the colour,
    the steeper. The outline marks the level halfway between the image's lowest and highest value.

    Args:
        image: ``(1, H, W)`` or ``(H, W)``.
        gradient: of the same shape, such as ``image.grad`` after a backward.
        ax: where to draw; a new figure by default.

    Raises:
        ValueError: the shapes of ``image`` and ``gradient`` are different or not as above.
        TypeError: one of them is not made of numbers.

    >>> import torch
    >>> image = torch.rand(1, 8, 8, requires_grad=True)
    >>> image[0, 2:4].sum().backward()
    >>> ax = plot_image_gradient(image, image.grad)
    >>> int((ax.images[0].get_array() > 0).sum())
    16
    """
    image, gradient = as_tensor("image", image), as_tensor("gradient", gradient)
    if image.shape != gradient.shape or image.ndim not in (2, 3) or image.shape[:-2].numel() != 1:
        raise ValueError(
            f"image of shape {tuple(image.shape)} with gradient of shape {tuple(gradient.shape)} "
            "cannot be drawn: (1, H, W) or (H, W) is expected of both. Use images[i] for a single "
            "image of a batch."
        )
    height, width = image.shape[-2:]
    values = checked("image", image.reshape(height, width), "(H, W)")
    rates = checked("gradient", gradient.reshape(height, width), "(H, W)")
    ax = canvas(ax, 4.6, 3.4)
    drawn = draw_image(ax, rates, -0.5, -0.5, width, height, **around_zero(rates))
    low, high = values.min().item(), values.max().item()
    if low < high and min(height, width) > 1:
        ax.contour(values.numpy(), levels=[(low + high) / 2], colors=BLACK, linewidths=1.2)
    ax.set_axis_off()
    bar = colour_bar(drawn, ticks=[drawn.norm.vmin, 0, drawn.norm.vmax])
    bar.ax.set_yticklabels(["a larger value\nlowers it", "no effect", "a larger value\nraises it"])
    known = rates.nan_to_num(0)
    steepest = []
    for way, rising in (("upwards", known), ("downwards", -known)):
        if rising.max() > 0:
            row, column = divmod(int(rising.argmax()), width)
            steepest.append(f"{way} at row {row}, column {column}")
    where = f"; steepest {', '.join(steepest)}, counted from 0" if steepest else ""
    return describe(
        ax,
        f"The gradient of an image of {by(height, width)} pixels over the outline of "
        "the image, red where a larger value raises what was sent back and blue where it lowers "
        f"it{where}.",
    )


def _words(report: GradientReport) -> str:
    measured = [row for row in report if row.status == "ok"]
    words = [f"The gradients of {counted(len(report), 'parameter')}."]
    if measured:
        measured.sort(key=lambda row: row.norm or 0.0)
        smallest, largest = measured[0], measured[-1]
        words.append(f"{largest.name} has the largest norm, {largest.norm:.2g}, and")
        words.append(f"{smallest.name} the smallest, {smallest.norm:.2g}.")
    zeros = [f"{_percent(row.zero_fraction)} of {row.name}" for row in report if row.zero_fraction]
    if zeros:
        words.append(f"Exactly zero: {', '.join(shortened(zeros))}.")
    for status, (remark, _) in _REMARKS.items():
        names = [row.name for row in report if row.status == status]
        if names:
            words.append(f"{', '.join(shortened(names))}: {remark.partition(': ')[2]}.")
    return " ".join(words)


def _percent(fraction: float) -> str:
    """Format the fraction in whole percent, never rounding to 0% or 100%.

    >>> [_percent(fraction) for fraction in (0, 0.002, 0.58, 0.999, 1)]
    ['0%', '< 1%', '58%', '> 99%', '100%']
    """
    if 0 < fraction < 0.01:
        return "< 1%"
    return "> 99%" if 0.99 < fraction < 1 else f"{fraction:.0%}"
