"""Draws the losses of a training run, a search for its learning rate, and a confusion matrix."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from blitz_helpers.plotting._axes import (
    MOST_NUMBERED,
    colour_bar,
    finish_axes,
    in_legend,
    number_classes,
)
from blitz_helpers.plotting._canvas import canvas, describe
from blitz_helpers.plotting._checks import require_mapping, require_record
from blitz_helpers.plotting._colours import BLACK, BLUE, SERIES, SKY, VERMILION
from blitz_helpers.plotting._settings import default_style
from blitz_helpers.plotting._words import as_written, counted, fixed, listed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from blitz_helpers.training import Evaluation, History

_MOST_CURVES = 4
_TOLD = 3  # pairs of confused classes named in the alt text


@default_style()
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

    >>> plot_losses({"sgd": [2.3, 1.1, 0.4]}).get_ylabel()
    'loss'
    """
    require_mapping(losses, "losses", "{'sgd': history.losses}")
    curves = {name: _numbers(name, curve) for name, curve in losses.items()}
    if not 1 <= len(curves) <= _MOST_CURVES or not all(map(len, curves.values())):
        raise ValueError(
            f"{counted(len(curves), 'curve')} of {[len(curve) for curve in curves.values()]} steps "
            f"cannot be drawn: 1 to {_MOST_CURVES} are expected, of 1 step or more each."
        )
    try:
        window = operator.index(window)
    except TypeError as error:
        raise TypeError(f"window={window!r} must be a whole number of steps.") from error
    if window < 1:
        raise ValueError(f"window={window} must be a number of steps. Use 1 or more.")
    ax = canvas(ax, 6.5, 3.0)
    mean, alone = f"mean of {window} steps", len(curves) == 1
    told = []
    for (name, values), color in zip(curves.items(), SERIES, strict=False):
        means = _running_mean(values, window).tolist()
        steps = range(1, len(means) + 1)
        if alone:
            ax.plot(steps, values.tolist(), color=SKY, linewidth=0.6, label="one step")
        marker = "o" if len(steps) == 1 else ""  # a line needs two
        label = in_legend(f"{name}, {mean}" if alone else name)
        ax.plot(steps, means, color=color, linewidth=1.8, marker=marker, label=label)
        ends = f"from {fixed(means[0])} to {fixed(means[-1])}"
        told.append(f"{name}: {counted(len(steps), 'step')}, {ends}")
    _start_at_zero(ax, *(values.tolist() for values in curves.values()))
    finish_axes(ax, "step", "loss", title=None if alone else mean)
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
    try:
        if not isinstance(curve, Iterable) or isinstance(curve, dict):
            raise TypeError("it is not a sequence")
        values = [loss.item() if isinstance(loss, torch.Tensor) else float(loss) for loss in curve]
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"losses[{name!r}] must be the loss of each step, as a list, an array or a tensor of "
            f"numbers. ({error})"
        ) from error
    return torch.tensor(values, dtype=torch.float64)


def _start_at_zero(ax: Axes, *curves: Sequence[float]) -> None:
    """Let the vertical axis begin at zero, unless a loss lies below."""
    if not any(loss < 0 for curve in curves for loss in curve):
        ax.set_ylim(bottom=0)


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


@default_style()
def plot_history(history: History, ax: Axes | None = None) -> Axes:
    """Draw the loss of each epoch, in training and on held-out data if ``fit`` was given any.

    The lowest held-out loss is marked; after it, the network memorizes its training data.

    Raises:
        ValueError: the history has no steps.

    >>> from blitz_helpers import History
    >>> plot_history(History((2.3, 1.1), steps_per_epoch=1, val_losses=(2.0, 1.5))).get_xlabel()
    'epoch'
    """
    require_record(history, "history", "History", "fit(...)")
    training, held_out = history.epoch_losses, history.val_losses
    if not training:
        raise ValueError("The history holds no steps. Train for one or more.")
    ax = canvas(ax, 6.5, 3.0)
    ax.locator_params(axis="x", integer=True)
    epochs = range(1, len(training) + 1)
    ax.plot(epochs, training, ".-", color=BLUE, linewidth=1.8, label="in training")
    words = f"Loss of {counted(len(training), 'epoch')}. In training: {fixed(training[0])} to "
    words += f"{training[-1]:.2g}."
    if held_out:
        done = epochs[: len(held_out)]
        ax.plot(done, held_out, ".-", color=VERMILION, linewidth=1.8, label="held out")
        words += f" Held out: {fixed(held_out[0])} to {fixed(held_out[-1])}"
        known = [each for each in zip(held_out, done, strict=True) if math.isfinite(each[0])]
        if known:
            lowest, epoch = min(known)
            ax.plot(epoch, lowest, "o", color=VERMILION, markersize=9, fillstyle="none")
            ax.annotate(
                f"lowest: {fixed(lowest)}, epoch {epoch}",
                (epoch, lowest), (0, 14), textcoords="offset points", color=VERMILION,
            )  # fmt: skip
            words += f", lowest after epoch {epoch}, {fixed(lowest)}"
        words += "."
    _start_at_zero(ax, training, held_out)
    finish_axes(ax, "epoch", "loss")
    return describe(ax, words)


@default_style()
def plot_lr_sweep(accuracies: Mapping[float, Sequence[float]], ax: Axes | None = None) -> Axes:
    """Draw the accuracies reached with each learning rate: dots, and a line through their means.

    ``accuracies`` maps each ``lr`` to those that it reached, such as one for each seed.

    Raises:
        ValueError: there is no learning rate, or one is not above 0 or has no accuracy.

    >>> plot_lr_sweep({0.1: [0.8, 0.7], 1.0: [0.9, 0.1]}).get_xscale()
    'log'
    """
    require_mapping(accuracies, "accuracies", "{0.1: [0.92, 0.95]}")
    try:
        is_fine = bool(accuracies) and all(0 < lr < math.inf for lr in accuracies)
        means = {lr: 100 * sum(map(float, each)) / len(each) for lr, each in accuracies.items()}
    except (TypeError, ValueError, ZeroDivisionError):
        is_fine = False
    if not is_fine:
        raise ValueError(
            f"accuracies={dict(accuracies)} cannot be drawn: finite learning rates above 0 are "
            "expected, each with 1 accuracy or more."
        )
    ax = canvas(ax, 6.5, 3.0)
    rates = sorted(accuracies)
    ax.plot(rates, [means[lr] for lr in rates], color=BLUE, linewidth=1.8, label="mean")
    dots = [
        (lr * (rates[-1] / rates[0]) ** shift, 100 * accuracy)
        for lr in rates
        for shift, accuracy in zip(_side_by_side(len(accuracies[lr])), accuracies[lr], strict=True)
    ]
    ax.plot(*zip(*dots, strict=True), "o", color=VERMILION, alpha=0.8, label="one training")
    ax.set(xscale="log", ylim=(0, 104))
    ax.set_xticks(rates, [f"{lr:g}" for lr in rates])
    ax.xaxis.minorticks_off()
    finish_axes(ax, "learning rate (log scale)", "right answers (%)")
    told = ", ".join(f"{means[lr]:.0f}% at {lr:g}" for lr in rates)
    return describe(ax, f"Right answers for each lr, on average: {told}.")


def _side_by_side(count: int) -> list[float]:
    """Return how far to shift each of so many dots, so that equal ones do not hide each other.

    >>> _side_by_side(3), _side_by_side(1)
    ([-0.015, 0.0, 0.015], [0.0])
    """
    return [0.03 * (number / (count - 1) - 0.5) if count > 1 else 0.0 for number in range(count)]


@default_style()
def plot_confusion(
    evaluation: Evaluation, class_name: str = "class", ax: Axes | None = None
) -> Axes:
    """Draw the confusion matrix of what ``evaluate`` returned: rows are labels, columns answers.

    Only mistakes are shaded, since the right answers on the diagonal would outshine them. The
    counts of up to 20 classes are written out. ``class_name`` is the label of the vertical axis.

    >>> from blitz_helpers import Evaluation
    >>> answers, digits = torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0])
    >>> plot_confusion(Evaluation(0.5, answers, digits, 2), class_name="digit").get_ylabel()
    'digit'
    """
    require_record(evaluation, "evaluation", "Evaluation", "evaluate(model, loader)")
    counts = evaluation.confusion_matrix
    mistakes = counts - counts.diag().diag()
    highest = max(1, int(mistakes.max()))
    ax = canvas(ax, 5.4, 4.4)
    image = ax.imshow(mistakes.numpy(), cmap="Oranges", vmin=0, vmax=highest)
    bar = colour_bar(image, shrink=0.8, label="mistakes (right answers are not shaded)")
    bar.ax.locator_params(axis="y", integer=True)
    written = counts.tolist() if len(counts) <= MOST_NUMBERED else []
    for label, row in enumerate(written):
        for answer, count in enumerate(row):
            if count:
                color = "white" if mistakes[label, answer] > 0.7 * highest else BLACK
                ax.text(answer, label, count, ha="center", va="center", fontsize=8, color=color)
    for axis in (ax.xaxis, ax.yaxis):
        number_classes(axis, len(counts))
    ax.set(xlabel="answer", ylabel=as_written(class_name))
    ax.spines[:].set_visible(False)
    return describe(ax, _confused(counts))


def _confused(counts: torch.Tensor) -> str:
    """Return the alt text: the number of right answers, and the most frequent mistakes.

    >>> _confused(torch.tensor([[5, 2], [1, 4]]))
    '12 answers, 9 of them right. Most often 0 was taken for 1 (2 times) and 1 for 0 (1 time).'
    """
    mistakes = (counts - counts.diag().diag()).flatten()
    told: list[str] = []
    for index in mistakes.argsort(descending=True, stable=True)[:_TOLD].tolist():
        if mistakes[index]:
            label, answer = divmod(index, len(counts))
            times = counted(int(mistakes[index]), "time")
            told.append(f"{label} {'' if told else 'was taken '}for {answer} ({times})")
    words = f"{counted(int(counts.sum()), 'answer')}, {int(counts.diag().sum()):,} of them right."
    return f"{words} Most often {listed(told)}." if told else words
