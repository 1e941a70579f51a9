"""What is drawn of a training is what was given."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from blitz_helpers import Evaluation, plot_confusion, plot_filters, plot_losses


@pytest.fixture(autouse=True)
def close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def test_a_single_curve_is_drawn_as_it_is_and_as_its_running_mean(generator):
    losses = torch.rand(50, generator=generator).tolist()
    raw, mean = plot_losses({"sgd": losses}, window=7).lines
    assert list(raw.get_ydata()) == losses
    assert list(raw.get_xdata()) == list(range(1, 51))
    expected = [np.mean(losses[max(0, at - 6) : at + 1]) for at in range(50)]
    assert np.allclose(mean.get_ydata(), expected)


def test_several_curves_are_told_apart_by_name_and_color():
    ax = plot_losses({"sgd": [2.0, 1.0], "adam": [2.0, 0.5, 0.1]}, window=1)
    drawn = [pytest.approx(line.get_ydata()) for line in ax.lines]
    assert drawn == [[2.0, 1.0], [2.0, 0.5, 0.1]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["sgd", "adam"]
    assert len({line.get_color() for line in ax.lines}) == 2


@pytest.mark.parametrize("losses", [{}, {"a": []}, {name: [1.0] for name in "abcde"}])
def test_curves_that_cannot_be_drawn_are_refused(losses):
    with pytest.raises(ValueError, match="1 to 4 are expected"):
        plot_losses(losses)


def test_a_window_of_no_steps_is_refused():
    with pytest.raises(ValueError, match="window=0 is no number of steps"):
        plot_losses({"a": [1.0]}, window=0)


def test_the_confusion_matrix_shows_every_count_and_shades_mistakes_alone():
    evaluation = Evaluation(1.0, torch.tensor([0, 1, 1, 2, 2]), torch.tensor([0, 0, 0, 2, 1]), 3)
    ax = plot_confusion(evaluation)
    assert {(text.get_position(), text.get_text()) for text in ax.texts} == {
        ((0, 0), "1"),
        ((1, 0), "2"),
        ((2, 2), "1"),
        ((2, 1), "1"),
    }
    assert ax.images[0].get_array().tolist() == [[0, 2, 0], [0, 0, 1], [0, 0, 0]]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("answer", "class")


def test_the_confusion_of_many_classes_is_shade_alone():
    many = torch.arange(50)
    ax = plot_confusion(Evaluation(1.0, many, many.flip(0), 50))
    assert not ax.texts
    ax.figure.canvas.draw()
    boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))


def test_a_single_loss_is_seen():
    (curve,) = (line for line in plot_losses({"one": [2.3]}).lines if line.get_label() == "one")
    assert curve.get_marker() == "o"


def test_filters_share_a_scale_around_zero_and_stand_above_their_responses(generator):
    filters = torch.randn(6, 1, 3, 3, generator=generator)
    responses = torch.randn(6, 30, 30, generator=generator)
    images = plot_filters(filters, responses).images
    for index in range(6):
        drawn, answer = images[2 * index], images[2 * index + 1]
        assert np.array_equal(drawn.get_array(), filters[index, 0].numpy())
        assert drawn.norm.vmax == -drawn.norm.vmin == filters.abs().max().item()
        assert np.array_equal(answer.get_array(), responses[index].clamp(min=0).numpy())
        assert (answer.norm.vmin, answer.norm.vmax) == (0, responses.max().item())
        assert drawn.get_extent()[:2] == answer.get_extent()[:2]
        assert drawn.get_extent()[2] < answer.get_extent()[3]  # the axis runs downward


def test_given_axes_are_drawn_on():
    import matplotlib.pyplot as plt

    _, ax = plt.subplots()
    assert plot_losses({"a": [1.0]}, ax=ax) is ax
    assert plot_filters(torch.ones(1, 1, 3, 3), ax=ax) is ax


def test_what_is_not_a_set_of_filters_is_refused():
    with pytest.raises(ValueError, match=r"\(6, 3, 3\) cannot be drawn"):
        plot_filters(torch.ones(6, 3, 3))
    with pytest.raises(ValueError, match=r"do not fit 6 filters: \(6, H, W\)"):
        plot_filters(torch.ones(6, 1, 3, 3), torch.ones(5, 8, 8))
