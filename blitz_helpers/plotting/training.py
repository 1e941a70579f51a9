"""Draws the losses of a training run, a search for its learning rate, and a confusion matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from blitz_helpers._extras import require
from blitz_helpers.plotting._canvas import (
    BLACK,
    BLUE,
    GREEN,
    MOST_NUMBERED,
    PURPLE,
    VERMILION,
    canvas,
    describe,
    number_classes,
)
from blitz_helpers.plotting._settings import same_for_all

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from blitz_helpers.training import Evaluation, History

_COLORS = (BLUE, VERMILION, GREEN, PURPLE)
_TOLD = 3  # pairs of confused classes named in the alt text


@same_for_all
def plot_losses(
    losses: Mapping[str, Sequence[float] | torch.Tensor], window: int = 100, ax: Axes | None = None
) -> Axes:
    """Draw running means of the loss of each step, one curve per name.

    If there is a single curve, the losses themselves are drawn behind it, paler. The mean is
    centred on each step, with fewer steps at both ends.

    Args:
        losses: such as ``{"momentum": history.losses}``; up to four curves, each a list, an array
            or a tensor ``(steps,)``.
        window: the number of steps in the mean.
        ax: where to draw; a new figure by default.

    Raises:
        ValueError: there is no curve or more than four, a curve is empty, or ``window`` is below 1.
        ImportError: matplotlib is not installed.

    >>> plot_losses({"sgd": [2.3, 1.1, 0.4]}).get_ylabel()
    'loss'
    """
    curves = {name: _numbers(name, curve) for name, curve in losses.items()}
    if not 1 <= len(curves) <= len(_COLORS) or not all(map(len, curves.values())):
        raise ValueError(
            f"{len(curves)} curves of {[len(curve) for curve in curves.values()]} steps cannot be "
            f"drawn: 1 to {len(_COLORS)} are expected, of 1 step or more each."
        )
    if window < 1:
        raise ValueError(f"window={window} must be a number of steps. Use 1 or more.")
    ax = canvas(ax, 6.5, 3.0)
    told = []
    for (name, values), color in zip(curves.items(), _COLORS, strict=False):
        means = _running_mean(values, window).tolist()
        steps = range(1, len(means) + 1)
        if len(curves) == 1:
            ax.plot(steps, values.tolist(), color=color, linewidth=0.5, alpha=0.3, label="one step")
            label = f"{name}, mean of {window} steps"
        else:
            label = name
        only = "o" if len(steps) == 1 else ""  # a line needs two
        ax.plot(steps, means, color=color, linewidth=1.8, marker=only, label=label)
        told.append(f"{name}: {len(steps):,} steps, from {means[0]:.2f} to {means[-1]:.2f}")
    ax.set_xlabel("step")
    ax.set_ylabel("loss")
    if not any((values < 0).any() for values in curves.values()):
        ax.set_ylim(bottom=0)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, title=f"mean of {window} steps" if len(curves) > 1 else None)
    return describe(ax, f"Loss against step, as a mean over {window} steps. {'; '.join(told)}.")


def _numbers(name: str, curve: Sequence[float] | torch.Tensor) -> torch.Tensor:
    """Return the curve as float64 ``(steps,)``; it may be a list of losses with a graph."""
    if getattr(curve, "ndim", 1) != 1:
        raise ValueError(
            f"losses[{name!r}] has the shape {tuple(torch.as_tensor(curve).shape)}; (steps,) is "
            "expected. Use its flatten(), or its mean over the other axes."
        )
    if isinstance(curve, torch.Tensor):
        return curve.detach().cpu().double()
    values = [loss.item() if isinstance(loss, torch.Tensor) else float(loss) for loss in curve]
    return torch.tensor(values, dtype=torch.float64)


def _running_mean(values: torch.Tensor, window: int) -> torch.Tensor:
    """Return the centred running mean over ``window`` values.

    Each window is summed on its own, so that a huge or infinite value affects no other window.

    >>> _running_mean(torch.tensor([0.0, 3.0, 6.0, 0.0]), 3)
    tensor([1.5000, 3.0000, 3.0000, 3.0000])
    """
    means = F.avg_pool1d(
        values.view(1, 1, -1), window, stride=1, padding=window // 2, count_include_pad=False
    )
    return means.flatten()[: len(values)]


@same_for_all
def plot_history(history: History, ax: Axes | None = None) -> Axes:
    """Draw the loss of each epoch, in training and on held-out data if ``fit`` was given any.

    The lowest held-out loss is marked; after it, the network memorizes its training data.

    Raises:
        ValueError: the history has no steps.
        ImportError: matplotlib is not installed.

    >>> from blitz_helpers import History
    >>> plot_history(History((2.3, 1.1), steps_per_epoch=1, val_losses=(2.0, 1.5))).get_xlabel()
    'epoch'
    """
    training, held_out = history.epoch_losses, history.val_losses
    if not training:
        raise ValueError("The history holds no steps. Train for one or more.")
    ax = canvas(ax, 6.5, 3.0)
    epochs = range(1, len(training) + 1)
    ax.plot(epochs, training, color=BLUE, linewidth=1.8, marker=".", label="in training")
    words = f"Loss of {len(training)} epochs. In training: {training[0]:.2f} to {training[-1]:.2g}."
    if held_out:
        ax.plot(
            epochs[: len(held_out)], held_out,
            color=VERMILION, linewidth=1.8, marker=".", label="held out",
        )  # fmt: skip
        lowest = min(range(len(held_out)), key=held_out.__getitem__)
        ax.plot(lowest + 1, held_out[lowest], "o", color=VERMILION, markersize=9, fillstyle="none")
        ax.annotate(
            f"lowest: {held_out[lowest]:.2f}, epoch {lowest + 1}",
            (lowest + 1, held_out[lowest]), (0, 14), textcoords="offset points", color=VERMILION,
        )  # fmt: skip
        words += (
            f" Held out: {held_out[0]:.2f} to {held_out[-1]:.2f}, "
            f"lowest after epoch {lowest + 1}, {held_out[lowest]:.2f}."
        )
    ticker = require("matplotlib.ticker", extra="plotting")
    ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    ax.set_xlabel("epoch")
    ax.set_ylabel("loss")
    ax.set_ylim(bottom=0)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return describe(ax, words)


@same_for_all
def plot_lr_sweep(accuracies: Mapping[float, Sequence[float]], ax: Axes | None = None) -> Axes:
    """Draw the accuracies reached with each learning rate: dots, and a line through their means.

    Args:
        accuracies: the accuracies reached with each ``lr``, such as one for each seed.
        ax: where to draw; a new figure by default.

    Raises:
        ValueError: there is no learning rate, or one is not above 0 or has no accuracy.
        ImportError: matplotlib is not installed.

    >>> plot_lr_sweep({0.1: [0.8, 0.7], 1.0: [0.9, 0.1]}).get_xscale()
    'log'
    """
    if not accuracies or not all(lr > 0 and len(each) for lr, each in accuracies.items()):
        raise ValueError(
            f"accuracies={dict(accuracies)} cannot be drawn: learning rates above 0 are expected, "
            "each with 1 accuracy or more."
        )
    ax = canvas(ax, 6.5, 3.0)
    rates = sorted(accuracies)
    means = [100 * sum(accuracies[lr]) / len(accuracies[lr]) for lr in rates]
    ax.plot(rates, means, color=BLUE, linewidth=1.8, label="mean")
    dots = [(lr, 100 * accuracy) for lr in rates for accuracy in accuracies[lr]]
    ax.plot(*zip(*dots, strict=True), "o", color=VERMILION, alpha=0.8, label="one training")
    ax.set_xscale("log")
    ax.set_xticks(rates, [f"{lr:g}" for lr in rates])
    ax.set_xticks([], minor=True)
    ax.set_xlabel("lr (log scale)")
    ax.set_ylabel("right answers (%)")
    ax.set_ylim(0, 104)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    told = ", ".join(f"{mean:.0f} % at {lr:g}" for lr, mean in zip(rates, means, strict=True))
    return describe(ax, f"Right answers for each lr, on average: {told}.")


@same_for_all
def plot_confusion(
    evaluation: Evaluation, class_name: str = "class", ax: Axes | None = None
) -> Axes:
    """Draw the confusion matrix: rows are the labels, columns the answers.

    Only mistakes are shaded, since the right answers on the diagonal would outshine them. The
    counts of up to 20 classes are written out.

    Args:
        evaluation: what ``evaluate`` returned.
        class_name: the name of a class in the labels, such as "digit".
        ax: where to draw; a new figure by default.

    Raises:
        ImportError: matplotlib is not installed.

    >>> from blitz_helpers import Evaluation
    >>> answers, digits = torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0])
    >>> plot_confusion(Evaluation(0.5, answers, digits, 2), class_name="digit").get_ylabel()
    'digit'
    """
    counts = evaluation.confusion_matrix
    mistakes = counts - counts.diag().diag()
    highest = max(1, int(mistakes.max()))
    ax = canvas(ax, 5.4, 4.4)
    image = ax.imshow(mistakes.numpy(), cmap="Oranges", vmin=0, vmax=highest, origin="upper")
    ticker = require("matplotlib.ticker", extra="plotting")
    figure = ax.get_figure(root=False)
    assert figure is not None  # axes always belong to a figure here
    bar = figure.colorbar(image, ax=ax, shrink=0.8, ticks=ticker.MaxNLocator(integer=True))
    bar.set_label("mistakes (right answers are not shaded)")
    bar.outline.set_visible(False)
    written = counts.tolist() if len(counts) <= MOST_NUMBERED else []
    for label, row in enumerate(written):
        for prediction, count in enumerate(row):
            if count:
                dark = label != prediction and count > 0.7 * highest
                ax.text(
                    prediction, label, str(count), ha="center", va="center", fontsize=8,
                    color="white" if dark else BLACK,
                )  # fmt: skip
    for axis in (ax.xaxis, ax.yaxis):
        number_classes(axis, len(counts))
    ax.set_xlabel("answer")
    ax.set_ylabel(class_name)
    ax.spines[:].set_visible(False)
    return describe(ax, _confused(counts))


def _confused(counts: torch.Tensor) -> str:
    """Return the alt text: the number of right answers, and the most frequent mistakes.

    >>> _confused(torch.tensor([[5, 2], [1, 4]]))
    '12 answers, 9 of them right. Most often 0 was taken for 1 (2 times) and 1 for 0 (1 time).'
    """
    pairs = sorted(
        (-count, label, answer)
        for label, row in enumerate(counts.tolist())
        for answer, count in enumerate(row)
        if count and label != answer
    )
    words = f"{int(counts.sum()):,} answers, {int(counts.diag().sum()):,} of them right."
    if not pairs:
        return words
    told = [
        f"{label} {'was taken ' * (number == 0)}for {answer} ({-count} time{'s' * (count < -1)})"
        for number, (count, label, answer) in enumerate(pairs[:_TOLD])
    ]
    listed = " and ".join(filter(None, [", ".join(told[:-1]), told[-1]]))
    return f"{words} Most often {listed}."
