"""What is on the axes is what was handed in."""

import pytest
import torch
from matplotlib import pyplot as plt

from blitz_helpers import plot_descent, plot_foretold_losses


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def bowl(w):
    return w[0] ** 2 + 3 * w[1] ** 2


PATH = torch.tensor([[4.0, 1.0], [2.0, -0.5], [1.0, 0.25]])


def lines_by_label(ax):
    return {line.get_label(): line for line in ax.get_lines()}


def test_each_step_is_drawn_with_the_loss_after_it_and_the_foretold_one():
    ax = plot_foretold_losses(2.5, lrs=[0.1, 1, 10], losses=[2.4, 2.3, 3], foretold=[2.4, 2.2, 1])
    lines = lines_by_label(ax)
    assert lines["after the step"].get_xydata().tolist() == [[0.1, 2.4], [1, 2.3], [10, 3]]
    assert lines["foretold by the gradient"].get_ydata().tolist() == [2.4, 2.2, 1]
    assert set(lines["before the step"].get_ydata()) == {2.5}
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0.1", "1", "10"]
    assert {text.get_text() for text in ax.get_legend().get_texts()} == set(lines)


@pytest.mark.parametrize("numbers", [([0.1], [1.0, 2.0], [1.0]), ([], [], [])])
def test_losses_that_do_not_belong_to_learning_rates_are_an_error(numbers):
    with pytest.raises(ValueError, match="give one of each for every step"):
        plot_foretold_losses(2.5, *numbers)


def test_each_path_is_drawn_point_by_point_over_contours_of_the_loss():
    ax = plot_descent(bowl, {"SGD": PATH, "Adam": PATH / 2})
    lines = lines_by_label(ax)
    assert lines["SGD"].get_xydata().tolist() == PATH.tolist()
    assert lines["Adam"].get_xydata().tolist() == (PATH / 2).tolist()
    assert lines["SGD"].get_color() != lines["Adam"].get_color()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["SGD", "Adam"]

    (contours,) = ax.collections
    for level, curve in zip(contours.levels, contours.get_paths(), strict=True):
        for x, y in curve.vertices:
            assert bowl((x, y)) == pytest.approx(level, rel=0.02, abs=0.02)


def test_every_point_of_every_path_lies_on_the_page():
    ax = plot_descent(bowl, {"far": PATH * 10, "near": PATH})
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    assert left < 10
    assert right > 40
    assert bottom < -5
    assert top > 10


def test_a_path_that_never_leaves_a_line_or_a_point_is_drawn():
    line = torch.tensor([[1.0, 0.0], [0.5, 0.0]])
    plot_descent(bowl, {"line": line, "point": line[:1]}).get_figure().canvas.draw()
    plot_descent(bowl, {"point": line[:1]}).get_figure().canvas.draw()


def test_a_flat_loss_has_no_contours():
    assert not plot_descent(lambda w: 0 * w[0], {"SGD": PATH}).collections


def test_paths_on_a_graph_and_axes_of_the_callers_own_are_taken():
    _, ax = plt.subplots()
    assert plot_descent(bowl, {"SGD": PATH.clone().requires_grad_()}, ax=ax) is ax
    assert plot_foretold_losses(1.0, [1], [1.0], [1.0], ax=ax) is ax
    assert len(plt.get_fignums()) == 1


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ({}, "paths is empty"),
        ({"SGD": PATH.T}, r"paths\['SGD'\] has the shape \(2, 3\)"),
        ({"SGD": PATH[0]}, r"paths\['SGD'\] has the shape \(2,\)"),
        ({"SGD": PATH[:0]}, r"paths\['SGD'\] has the shape \(0, 2\)"),
        ({"SGD": PATH / 0}, r"paths\['SGD'\] leaves every page"),
    ],
)
def test_a_path_that_cannot_be_drawn_is_an_error(paths, message):
    with pytest.raises(ValueError, match=message):
        plot_descent(bowl, paths)


def test_a_loss_that_sums_over_the_grid_is_an_error():
    with pytest.raises(ValueError, match=r"loss_fn gave the shape \(\) .* a loss for each place"):
        plot_descent(lambda w: (w**2).sum(), {"SGD": PATH})
