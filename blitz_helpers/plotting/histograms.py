"""Draws histograms in rows on one scale, such as those of a parameter in several trainings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from blitz_helpers.plotting._axes import row_spacing
from blitz_helpers.plotting._canvas import canvas, describe
from blitz_helpers.plotting._checks import checked, require_mapping
from blitz_helpers.plotting._colours import BLACK, BLUE, GREY, SKY
from blitz_helpers.plotting._settings import default_style
from blitz_helpers.plotting._words import as_written, counted, minus, short, shortened

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

_EXAMPLE = "{'fc1': weight.detach().histogram(64)}"
_HIGHEST = 0.8  # height of a row's highest bin, with rows 1 apart
_INCHES_A_ROW = 0.55


@default_style()
def plot_histograms(
    histograms: Mapping[str, tuple[torch.Tensor | ArrayLike, torch.Tensor | ArrayLike]],
    ax: Axes | None = None,
) -> Axes:
    """Draw histograms in rows, one below the other, on one horizontal scale.

    In a row, the area over a bin stands for its count. Rows are scaled so that their highest bins
    are equally high. A histogram of equal values is a line.

    Args:
        histograms: for each name the counts ``(bins,)`` and the edges ``(bins + 1,)``, as
            ``torch.histogram`` and ``numpy.histogram`` return them. In a run of wandb, as
            ``read_run`` returns it, they are a histogram's ``"values"`` and ``"bins"``.
        ax: where to draw; a new figure by default.

    Raises:
        ValueError: there is no histogram, or one has another shape, an edge that is not above the
            one before, a negative count, none above 0, or a number that is not finite. (A single
            bin may have equal edges: all values are equal.)
        TypeError: ``histograms`` is not a dict of pairs of numbers.

    >>> weight = torch.linspace(-1, 1, 100)
    >>> ax = plot_histograms({"before": weight.histogram(10), "after": (2 * weight).histogram(10)})
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['before', 'after']
    """
    require_mapping(histograms, "histograms", _EXAMPLE)
    if not histograms:
        raise ValueError(f"There is no histogram. Give one or more, such as {_EXAMPLE}.")
    rows = {str(name): _checked(str(name), each) for name, each in histograms.items()}
    pitch, every = row_spacing(len(rows), _INCHES_A_ROW)
    ax = canvas(ax, 6.5, 0.7 + pitch * len(rows))
    bases = range(len(rows) - 1, -1, -1)
    if min(edges[0] for _, edges in rows.values()) <= 0 <= max(e[-1] for _, e in rows.values()):
        ax.axvline(0, color=GREY, linewidth=0.8, linestyle=":")
    across = ax.get_yaxis_transform()  # x is a fraction of the axes' width
    ax.hlines(bases, 0, 1, transform=across, color=GREY, linewidth=0.8)
    for base, (counts, edges) in zip(bases, rows.values(), strict=True):
        if edges[0] == edges[-1]:
            value, middle = edges[0].item(), base + _HIGHEST / 2
            ax.vlines(value, base, base + _HIGHEST, color=BLUE, linewidth=2.5)
            ax.annotate(
                f"all {_two_digits(value)}", (value, middle), (8, 0),
                textcoords="offset points", va="center", color=BLACK,
            )  # fmt: skip
            continue
        heights = counts / edges.diff()
        heights *= _HIGHEST / heights.max()
        look: dict[str, Any] = {"facecolor": SKY, "edgecolor": BLUE, "linewidth": 1.0}
        ax.stairs((base + heights).numpy(), edges.numpy(), baseline=base, fill=True, **look)
    middles = [base + _HIGHEST / 2 for base in bases]
    ax.set_yticks(middles[::every], [as_written(name) for name in rows][::every])
    ax.set_ylim(-0.1, len(rows))
    ax.margins(x=0.04)
    ax.set_xlabel("value")
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "left", "right"]].set_visible(False)
    told = shortened([f"{name}: {_words(*row)}" for name, row in rows.items()])
    return describe(ax, f"{counted(len(rows), 'histogram')} on one scale. {'. '.join(told)}.")


def _checked(name: str, histogram: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the counts ``(bins,)`` and the edges ``(bins + 1,)``, or raise an error."""
    if not isinstance(histogram, Sequence) or len(histogram) != 2:
        raise TypeError(
            f"histograms[{name!r}] is a {type(histogram).__name__}: expected a pair of counts and "
            f"edges, as in {_EXAMPLE}. Of a histogram in a run of wandb, use "
            '(each["values"], each["bins"]).'
        )
    counts = checked(f"counts of {name!r}", histogram[0], "(bins,)")
    edges = checked(f"edges of {name!r}", histogram[1], f"({len(counts) + 1},)")
    if not (counts.isfinite().all() and counts.min() >= 0 and counts.max() > 0):
        raise ValueError(
            f"The counts of {name!r} must be 0 or more, and not all of them 0; got "
            f"{counts.min().item():g} to {counts.max().item():g}. Use those of torch.histogram."
        )
    ascend = bool((edges.diff() > 0).all()) or (len(counts) == 1 and edges[0] == edges[1])
    if not ((edges[-1] - edges[0]).isfinite() and ascend):
        raise ValueError(
            f"The edges of {name!r} must be finite, and each above the one before; got "
            f"{edges[0].item():g} to {edges[-1].item():g}. Use those of torch.histogram."
        )
    return counts, edges


def _words(counts: torch.Tensor, edges: torch.Tensor) -> str:
    """Return how many values there are, their range, and where the middle half of them lies.

    >>> _words(torch.tensor([1.0, 8.0, 1.0]), torch.tensor([0.0, 2.0, 4.0, 5.0]))
    '10 values from 0 to 5, the middle half from 2.4 to 3.6'
    >>> _words(torch.tensor([7.0]), torch.tensor([0.0, 0.0]))
    '7 values, all 0'
    """
    number = f"{counts.sum().item():,.0f} values"
    if edges[0] == edges[-1]:
        return f"{number}, all {_two_digits(edges[0].item())}"
    digits = 1 - math.floor(math.log10(edges[-1] - edges[0]))  # two of the range
    values = edges[0].item(), edges[-1].item(), *_quantiles(counts, edges, (0.25, 0.75))
    low, high, first, last = (short(value, digits) for value in values)
    return f"{number} from {low} to {high}, the middle half from {first} to {last}"


def _quantiles(
    counts: torch.Tensor, edges: torch.Tensor, fractions: tuple[float, ...]
) -> list[float]:
    """Return the values below which these fractions lie, as if even within each bin."""
    below = torch.cat([counts.new_zeros(1), counts.cumsum(0) / counts.sum()])
    found = []
    for fraction in fractions:
        bin = int(torch.searchsorted(below, fraction)) - 1
        inside = (fraction - below[bin]) / (below[bin + 1] - below[bin])
        found.append((edges[bin] + inside * (edges[bin + 1] - edges[bin])).item())
    return found


def _two_digits(value: float) -> str:
    return minus(f"{value + 0.0:.2g}")
