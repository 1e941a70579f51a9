"""How large the gradient of each parameter is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blitz_helpers._extras import require
from blitz_helpers.plotting._canvas import BLACK, BLUE, GREY, VERMILION, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from blitz_helpers.gradients import GradientReport

# What stands instead of a dot, and in which colour: vermilion for what wants a look.
_REMARKS = {
    "frozen": ("frozen: requires_grad is off", GREY),
    "none": ("none: no backward has reached it", GREY),
    "zero": ("zero: reached, and every entry is 0", VERMILION),
    "nonfinite": ("not finite: an entry is inf or nan", VERMILION),
}
_INCHES_A_ROW = 0.27
_RULE = "#E3E3E3"


def plot_gradient_report(report: GradientReport, ax: Axes | None = None) -> Axes:
    """Draw the size of every gradient, one line a parameter, on a logarithmic scale.

    A dot is the norm of a gradient, a stroke its largest absolute value; the column on the right
    says how much of it is exactly zero. Where there is no norm to draw, the status is written.

    Raises:
        ImportError: matplotlib is not installed.

    >>> import torch
    >>> from blitz_helpers import gradient_report
    >>> model = torch.nn.Linear(2, 1)
    >>> model(torch.ones(1, 2)).sum().backward()
    >>> ax = plot_gradient_report(gradient_report(model))
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['weight', 'bias']
    """
    ticker = require("matplotlib.ticker", extra="plotting")
    ax = canvas(ax, 7.0, 1.1 + _INCHES_A_ROW * len(report))
    drawn = [(place, row) for place, row in enumerate(report) if row.status == "ok"]
    places = [place for place, _ in drawn]
    norms = [row.norm or 0.0 for _, row in drawn]  # never 0.0: an "ok" row has its numbers
    largest = [row.max_abs or 0.0 for _, row in drawn]
    if drawn:
        ax.set_xscale("log")
        ax.margins(x=0.08)
        narrow = max(norms) < 100 * min(largest)
        subs = (1, 2, 5) if narrow else (1,)  # of each decade; all three of many would collide
        ax.xaxis.set_major_locator(ticker.LogLocator(subs=subs, numticks=9))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter("")
        ax.set_xlabel("size of the gradient")
    else:
        ax.set_xticks([])
    # Across the axes whatever the scale, and behind the dots.
    across = ax.get_yaxis_transform()
    ax.hlines(range(len(report)), 0, 1, transform=across, color=_RULE, linewidth=1, zorder=0)
    ax.plot(
        largest, places, "|", color=BLACK, markersize=11, markeredgewidth=1.8,
        label="largest absolute value",
    )  # fmt: skip
    ax.plot(norms, places, "o", color=BLUE, markersize=7, label="norm")
    for place, row in enumerate(report):
        if row.zero_fraction is not None:
            ax.text(
                1.13, place, _percent(row.zero_fraction), transform=across, ha="right", va="center"
            )
        if row.status != "ok":
            remark, color = _REMARKS[row.status]
            ax.text(
                0.02, place, remark, transform=across, color=color, va="center", fontsize=9,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
            )  # fmt: skip
    ax.set_yticks(range(len(report)), [row.name for row in report])
    ax.set_ylim(len(report) - 0.4, -0.6)
    ax.text(1.13, -0.9, "exact zeros", transform=across, ha="right", va="bottom")
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderpad=0)
    return ax


def _percent(fraction: float) -> str:
    """Return the fraction in whole percent, never rounded to none or to all.

    >>> [_percent(fraction) for fraction in (0, 0.002, 0.58, 0.999, 1)]
    ['0 %', '< 1 %', '58 %', '> 99 %', '100 %']
    """
    if 0 < fraction < 0.01:
        return "< 1 %"
    return "> 99 %" if 0.99 < fraction < 1 else f"{fraction:.0%}".replace("%", " %")
