"""What is on the axes is what was handed in."""

import math

import pytest
import torch

from blitz_helpers import plot_descent, plot_descent_losses, plot_foretold_losses, show


def bowl(w):
    return w[0] ** 2 + 3 * w[1] ** 2


PATH = torch.tensor([[4.0, 1.0], [2.0, -0.5], [1.0, 0.25]])


def lines_by_label(ax):
    return {line.get_label(): line for line in ax.get_lines()}


def test_the_drop_is_drawn_foretold_and_measured_and_the_largest_is_ringed():
    ax = plot_foretold_losses(2.5, lrs=[1, 10, 100], losses=[2, 1.5, 3], foretold=[1.5, 0.5, -1.5])
    lines = lines_by_label(ax)
    assert lines["foretold by the gradient"].get_xydata().tolist() == [[1, 1], [10, 2], [100, 4]]
    assert lines["measured"].get_xydata().tolist() == [[1, 0.5], [10, 1]]
    assert lines["measured: the loss rises"].get_xdata().tolist() == [100]
    (ring,) = (line for line in ax.get_lines() if line.get_markersize() == 13)
    assert ring.get_xydata().tolist() == [[10, 1]]
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "10", "100"]
    assert show(ax).alt == (
        "The drop in loss after one step at 3 learning rates, on log axes. At 1, 50% of the "
        "promise is kept. The largest drop, 1, is at 10: 50% is kept. At 100 the loss rises."
    )


def test_steps_that_only_rise_are_drawn_as_such():
    ax = plot_foretold_losses(1.0, lrs=[1, 2], losses=[1.5, math.nan], foretold=[0.5, 0.2])
    assert lines_by_label(ax)["measured: the loss rises"].get_xdata().tolist() == [1, 2]
    assert show(ax).alt.endswith("At 1 and 2 the loss rises.")


@pytest.mark.parametrize("numbers", [([0.1], [1.0, 2.0], [1.0]), ([], [], [])])
def test_losses_that_do_not_belong_to_learning_rates_are_an_error(numbers):
    with pytest.raises(ValueError, match="give one of each for every step"):
        plot_foretold_losses(2.5, *numbers)


@pytest.mark.parametrize("foretold", [2.5, 2.6, math.nan])
def test_a_promise_that_lowers_nothing_is_an_error(foretold):
    with pytest.raises(ValueError, match=r"must lie below the loss before the step, 2\.5"):
        plot_foretold_losses(2.5, [0.1], [2.4], [foretold])


def test_each_path_is_drawn_point_by_point_over_contours_of_the_loss():
    ax = plot_descent(bowl, {"SGD": PATH, "Adam": PATH / 2})
    lines = lines_by_label(ax)
    assert lines["SGD"].get_xydata().tolist() == PATH.tolist()
    assert lines["Adam"].get_xydata().tolist() == (PATH / 2).tolist()
    assert lines["SGD"].get_color() != lines["Adam"].get_color()
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["SGD", "Adam"]

    (contours,) = ax.collections
    for level, curve in zip(contours.levels, contours.get_paths(), strict=True):
        for x, y in curve.vertices:
            assert bowl((x, y)) == pytest.approx(level, rel=0.02, abs=0.02)


def test_the_lowest_point_is_marked_where_it_lies_within_the_picture():
    path = torch.cat([PATH, -PATH[2:]])
    (star,) = lines_by_label(plot_descent(bowl, {"SGD": path}))["lowest point"].get_xydata()
    assert star.tolist() == pytest.approx([0, 0], abs=0.02)


@pytest.mark.parametrize("bottom", [(0, -99), (0, 99), (-99, 0), (99, 0)])
def test_a_lowest_point_outside_the_picture_is_not_marked(bottom):
    path = torch.cat([PATH, -PATH])
    ax = plot_descent(lambda w: (w[0] - bottom[0]) ** 2 + (w[1] - bottom[1]) ** 2, {"SGD": path})
    assert "lowest point" not in lines_by_label(ax)


def test_words_say_where_a_path_leads_and_how_long_it_is():
    path = torch.tensor([[3.0, 4.0], [0.0, 0.0], [-1.0, 0.0], [-0.0, -0.001]])
    ax = plot_descent(bowl, {"SGD": path, "Adam": path[:2]})
    assert show(ax).alt == (
        "Paths of two weights over contours of the loss. SGD: 3 steps from (3, 4) to (0, 0), 7 "
        "long in all. Adam: 1 step from (3, 4) to (0, 0), 5 long in all."
    )


def test_a_loss_that_is_not_finite_everywhere_has_contours_and_a_lowest_point():
    path = torch.tensor([[3.5, 0.5], [1.5, -0.5], [0.1, 0.1]])
    ax = plot_descent(lambda w: bowl(w) - w[0].log(), {"SGD": path})
    assert ax.get_xlim()[0] < 0, "where the logarithm is NaN"
    assert len(ax.collections) == 1
    (star,) = lines_by_label(ax)["lowest point"].get_xydata()
    assert star.tolist() == pytest.approx([0.5**0.5, 0], abs=0.02)


def test_both_weights_share_a_scale_unless_one_would_be_a_sliver():
    assert plot_descent(bowl, {"SGD": PATH}).get_aspect() == 1
    assert plot_descent(bowl, {"SGD": PATH * torch.tensor([100, 1])}).get_aspect() == "auto"


def test_the_loss_is_drawn_along_each_path_with_the_step_from_which_it_stays_below():
    dips = torch.tensor(
        [[2.0, 0.0], [0.2, 0.0], [-1.0, 0.0], [0.1, 0.0]]
    )  # below 0.5 at step 1, too
    ax = plot_descent_losses(bowl, {"SGD": dips, "Adam": dips[:3]}, below=0.5)
    lines = lines_by_label(ax)
    assert lines["SGD: below 0.5 from step 3"].get_ydata() == pytest.approx([4, 0.04, 1, 0.01])
    assert lines["Adam: not below"].get_ydata() == pytest.approx([4, 0.04, 1])
    (diamond,) = (line for line in ax.get_lines() if line.get_marker() == "D")
    assert diamond.get_xydata()[0] == pytest.approx([3, 0.01])
    assert ax.get_yscale() == "log"
    assert show(ax).alt == (
        "The loss against the step, on a log axis. SGD stays below 0.5 from step 3. "
        "Adam does not stay below 0.5 in 2 steps."
    )


def test_a_loss_of_zero_is_left_out_of_the_line_and_a_path_may_start_below():
    ax = plot_descent_losses(bowl, {"SGD": torch.tensor([[0.1, 0.0], [0.0, 0.0]])}, below=0.5)
    drawn = lines_by_label(ax)["SGD: below 0.5 from step 0"].get_ydata()
    assert drawn[0] == pytest.approx(0.01)
    assert math.isnan(drawn[1])
    ax.get_figure().canvas.draw()


def test_a_loss_that_is_nan_does_not_lie_below_the_bound():
    path = torch.tensor([[0.1, 0.0], [-1.0, 0.0]])
    ax = plot_descent_losses(lambda w: w[0].sqrt(), {"SGD": path}, below=0.5)
    assert list(lines_by_label(ax))[1] == "SGD: not below"


def test_the_shortest_step_is_told_only_if_it_lowers_the_loss():
    ax = plot_foretold_losses(1.0, lrs=[1, 2, 3], losses=[1.5, 0.5, 0.25], foretold=[0.5, 0, -1])
    assert "At 2, 50% of the promise is kept." in show(ax).alt


@pytest.mark.parametrize("below", [0, -1, math.nan, math.inf])
def test_a_bound_that_no_loss_can_stay_below_is_an_error(below):
    with pytest.raises(ValueError, match="below must be above 0 and finite"):
        plot_descent_losses(bowl, {"SGD": PATH}, below=below)


def test_a_negative_loss_is_an_error_that_says_what_to_do():
    with pytest.raises(ValueError, match="Add a constant to loss_fn"):
        plot_descent_losses(lambda w: bowl(w) - 2, {"SGD": PATH}, below=0.5)
    plot_descent_losses(lambda w: bowl(w) - 2 + 2, {"SGD": PATH}, below=0.5)


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


def test_paths_on_a_graph_are_taken():
    assert plot_descent(bowl, {"SGD": PATH.clone().requires_grad_()}).lines


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
    with pytest.raises(ValueError, match=message):
        plot_descent_losses(bowl, paths, below=0.5)


def test_a_loss_that_sums_over_the_grid_is_an_error():
    with pytest.raises(ValueError, match=r"loss_fn gave the shape \(\) .* a loss for each place"):
        plot_descent(lambda w: (w**2).sum(), {"SGD": PATH})
