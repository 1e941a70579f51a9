"""What is drawn of a training is what was given."""

import math

import numpy as np
import pytest
import torch
from pictures import assert_apart

from blitz_helpers import (
    Evaluation,
    History,
    plot_confusion,
    plot_history,
    plot_losses,
    plot_lr_sweep,
    show,
)


def test_a_single_curve_is_drawn_as_it_is_and_as_a_centred_running_mean(generator):
    losses = torch.rand(50, generator=generator).tolist()
    ax = plot_losses({"sgd": losses}, window=7)
    raw, mean = ax.lines
    assert list(raw.get_ydata()) == losses
    assert list(raw.get_xdata()) == list(mean.get_xdata()) == list(range(1, 51))
    expected = [np.mean(losses[max(0, at - 3) : at + 4]) for at in range(50)]
    assert np.allclose(mean.get_ydata(), expected)
    ends = f"sgd: 50 steps, from {expected[0]:.2f} to {expected[-1]:.2f}"
    assert show(ax).alt == f"Loss against step, as a mean over 7 steps. {ends}."


@pytest.mark.parametrize("window", [1, 2, 7, 50, 51, 300])
def test_a_straight_line_is_its_own_running_mean_away_from_the_ends(window):
    line = [float(step) for step in range(400)]
    drawn = plot_losses({"a": line}, window=window).lines[-1].get_ydata()
    assert len(drawn) == 400
    inside = slice(window, 400 - window)
    # An even window has one step more before than after.
    assert np.allclose(drawn[inside], np.array(line[inside]) - (window % 2 == 0) / 2)


def test_several_curves_are_told_apart_by_name_and_color():
    ax = plot_losses({"sgd": [2.0, 1.0], "adam": [2.0, 0.5, 0.1]}, window=1)
    drawn = [pytest.approx(line.get_ydata()) for line in ax.lines]
    assert drawn == [[2.0, 1.0], [2.0, 0.5, 0.1]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["sgd", "adam"]
    assert len({line.get_color() for line in ax.lines}) == 2
    alt = show(ax).alt
    assert "sgd: 2 steps, from 2.00 to 1.00; adam: 3 steps, from 2.00 to 0.10." in alt


@pytest.mark.parametrize("spike", [math.inf, -math.inf, math.nan, 1e20])
@pytest.mark.parametrize("at", [0, 1, 4])
def test_the_running_mean_comes_back_after_a_spike(spike, at):
    losses = [1.0] * 9
    losses[at] = spike
    mean = plot_losses({"a": losses}, window=3).lines[-1].get_ydata()
    assert [value == 1.0 for value in mean] == [abs(step - at) > 1 for step in range(9)]


@pytest.mark.parametrize(
    "curve",
    [
        np.array([2.0, 0.0, 4.0]),
        torch.tensor([2.0, 0.0, 4.0]),
        torch.tensor([2.0, 0.0, 4.0], requires_grad=True),
        torch.tensor([2, 0, 4]),
        [torch.tensor(loss, requires_grad=True) * 1 for loss in (2.0, 0.0, 4.0)],
        (2, 0, 4),
    ],
)
def test_losses_can_be_an_array_a_tensor_or_a_list_of_tensors(curve):
    raw, mean = plot_losses({"a": curve}, window=3).lines
    assert list(raw.get_ydata()) == [2, 0, 4]
    assert list(mean.get_ydata()) == [1, 2, 2]


def test_an_array_of_a_single_zero_is_drawn():
    assert list(plot_losses({"a": np.zeros(1)}).lines[-1].get_ydata()) == [0]


@pytest.mark.parametrize("losses", [[-1.0, -2.0], [1.0, -0.5]])
def test_losses_below_zero_lie_within_the_axes(losses):
    assert plot_losses({"a": losses}).get_ylim()[0] < min(losses)


@pytest.mark.parametrize("curve", [np.ones((3, 2)), torch.ones(3, 2), torch.tensor(1.0)])
def test_a_curve_needs_one_number_per_step(curve):
    with pytest.raises(ValueError, match=r"losses\['a'\] has the shape .*; \(steps,\) is expected"):
        plot_losses({"a": curve})


@pytest.mark.parametrize(
    "losses", [{}, {"a": []}, {"a": np.ones(0)}, {name: [1.0] for name in "abcde"}]
)
def test_curves_that_cannot_be_drawn_are_refused(losses):
    with pytest.raises(ValueError, match="1 to 4 are expected"):
        plot_losses(losses)


def test_a_window_of_no_steps_is_refused():
    with pytest.raises(ValueError, match="window=0 must be a number of steps"):
        plot_losses({"a": [1.0]}, window=0)


def test_the_confusion_matrix_shows_every_count_and_shades_mistakes_alone():
    evaluation = Evaluation(1.0, torch.tensor([0, 1, 1, 2, 1]), torch.tensor([0, 0, 0, 2, 2]), 3)
    ax = plot_confusion(evaluation, class_name="digit")
    assert {(text.get_position(), text.get_text()) for text in ax.texts} == {
        ((0, 0), "1"),
        ((1, 0), "2"),
        ((2, 2), "1"),
        ((1, 2), "1"),
    }
    assert ax.images[0].get_array().tolist() == [[0, 2, 0], [0, 0, 0], [0, 1, 0]]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("answer", "digit")
    assert "mistakes" in ax.images[0].colorbar.ax.get_ylabel()
    assert show(ax).alt == (
        "5 answers, 2 of them right. Most often 0 was taken for 1 (2 times) and 2 for 1 (1 time)."
    )


def test_a_confusion_without_mistakes_says_that_all_are_right():
    right = torch.arange(3)
    assert show(plot_confusion(Evaluation(0.0, right, right, 3))).alt == (
        "3 answers, 3 of them right."
    )


def test_the_confusion_of_many_classes_is_shade_alone():
    many = torch.arange(50)
    ax = plot_confusion(Evaluation(1.0, many, many.flip(0), 50))
    assert not ax.texts
    assert_apart(ax.get_xticklabels())


def test_a_single_loss_is_seen():
    _, curve = plot_losses({"one": [2.3]}).lines
    assert curve.get_marker() == "o"


def test_a_history_shows_both_losses_of_each_epoch_and_marks_the_lowest_held_out():
    history = History((3.0, 2.0, 2.0, 1.0, 0.5, 0.1), 2, val_losses=(2.0, 0.75, 1.25))
    ax = plot_history(history)
    training, held_out, mark = ax.lines
    assert list(training.get_ydata()) == list(history.epoch_losses)
    assert list(held_out.get_ydata()) == [2.0, 0.75, 1.25]
    assert (list(mark.get_xdata()), list(mark.get_ydata())) == ([2], [0.75])
    assert ax.texts[0].get_text() == "lowest: 0.75, epoch 2"
    assert show(ax).alt == (
        "Loss of 3 epochs. In training: 2.50 to 0.3. "
        "Held out: 2.00 to 1.25, lowest after epoch 2, 0.75."
    )


def test_a_history_without_held_out_losses_is_one_curve():
    (curve,) = plot_history(History((3.0, 2.0), 1)).lines
    assert list(curve.get_ydata()) == [3.0, 2.0]


def test_an_interrupted_history_has_one_held_out_loss_less():
    training, held_out, _ = plot_history(History((3.0, 2.0, 1.0), 2, val_losses=(1.5,))).lines
    assert (list(training.get_xdata()), list(held_out.get_xdata())) == ([1, 2], [1])


def test_an_empty_history_is_refused():
    with pytest.raises(ValueError, match="holds no steps"):
        plot_history(History((), 1))


def test_a_sweep_shows_each_training_and_the_mean_for_each_lr():
    ax = plot_lr_sweep({1.0: [0.1, 0.2], 0.1: [0.75]})
    mean, dots = ax.lines
    assert list(mean.get_xdata()) == [0.1, 1.0]
    assert mean.get_ydata() == pytest.approx([75, 15])
    drawn = sorted(zip(dots.get_xdata(), dots.get_ydata(), strict=True))
    assert drawn[0] == (0.1, 75)
    assert [accuracy for _, accuracy in drawn[1:]] == [10, 20]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0.1", "1"]
    assert show(ax).alt == "Right answers for each lr, on average: 75% at 0.1, 15% at 1."


def test_equal_trainings_of_a_sweep_do_not_hide_each_other():
    _, dots = plot_lr_sweep({0.1: [0.1, 0.5, 0.1], 1.0: [0.8]}).lines
    assert len(set(dots.get_xdata())) == 4


@pytest.mark.parametrize(
    "accuracies",
    [{}, {0.0: [0.5]}, {0.1: []}, {math.inf: [0.5]}, {0.1: 0.5}, {0.1: ["x"]}, {"a": [0.5]}],
)
def test_a_sweep_that_cannot_be_drawn_is_refused(accuracies):
    with pytest.raises(ValueError, match="learning rates above 0 are expected"):
        plot_lr_sweep(accuracies)


def test_a_held_out_loss_that_is_not_finite_is_not_the_lowest():
    ax = plot_history(History((2.0, 1.0), 1, val_losses=(math.nan, 1.5)))
    assert "lowest after epoch 2, 1.50" in show(ax).alt
    ax = plot_history(History((2.0,), 1, val_losses=(math.nan,)))
    assert "lowest" not in show(ax).alt


def test_a_history_of_losses_below_zero_lies_within_the_axes():
    assert plot_history(History((-1.0, -2.0), 1)).get_ylim()[0] < -2


def test_huge_losses_are_told_as_powers_of_ten():
    assert "from 1e+300 to 1e+300" in show(plot_losses({"sgd": [1e300] * 2}, window=1)).alt


@pytest.mark.parametrize("curve", [3.0, None, "text", ["text"], [1j], {1: 2.0}])
def test_a_curve_that_is_not_made_of_numbers_is_refused(curve):
    with pytest.raises(TypeError, match=r"losses\['sgd'\] must be the loss of each step"):
        plot_losses({"sgd": curve})


@pytest.mark.parametrize("window", [1.5, "3", None])
def test_a_window_that_is_not_a_whole_number_is_refused(window):
    with pytest.raises(TypeError, match="must be a whole number of steps"):
        plot_losses({"sgd": [1.0]}, window=window)
