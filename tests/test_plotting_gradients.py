"""What the picture of a gradient report says."""

import math

import numpy as np
import pytest
import torch
from pictures import assert_apart
from torch import nn

from blitz_helpers import gradient_report, plot_gradient_report, plot_image_gradient, show


def model_in_every_status() -> nn.Module:
    model = nn.ParameterDict({name: torch.ones(4) for name in "abcdef"})
    model["a"].grad = torch.tensor([3.0, 0.0, 4.0, 0.0])
    model["b"].grad = torch.full((4,), 1e-3)
    model["c"].grad = torch.zeros(4)
    model["d"].grad = torch.tensor([math.nan, 0, 0, 0])
    model["f"].requires_grad_(False)
    return model


def texts(ax) -> dict[float, str]:
    """Return what is written at each height; several texts at one height are joined."""
    found: dict[float, str] = {}
    for text in ax.texts:
        height = text.get_position()[1]
        found[height] = (
            f"{found[height]}; {text.get_text()}" if height in found else text.get_text()
        )
    return found


def test_norms_and_largest_values_stand_on_the_line_of_their_parameter():
    ax = plot_gradient_report(gradient_report(model_in_every_status()))
    assert [label.get_text() for label in ax.get_yticklabels()] == list("abcdef")
    largest, norms = ax.lines
    assert norms.get_xdata() == pytest.approx([5, 2e-3])
    assert largest.get_xdata() == pytest.approx([4, 1e-3])
    assert list(norms.get_ydata()) == list(largest.get_ydata()) == [0, 1]
    assert ax.get_xscale() == "log"
    assert ax.get_ylim()[0] > ax.get_ylim()[1], "the first parameter is on top"


def test_zeros_and_statuses_are_written_beside_the_dots():
    written = texts(plot_gradient_report(gradient_report(model_in_every_status())))
    assert written[0] == "50%"
    assert written[1] == "0%"
    assert written[2] == "100%; zero: reached, and every entry is 0"
    assert written[3] == "75%; not finite: an entry is inf or nan"
    assert written[4] == "none: no backward has reached it"
    assert written[5] == "frozen: requires_grad is off"


def test_a_report_before_any_backward_can_be_drawn():
    ax = plot_gradient_report(gradient_report(nn.Linear(2, 1)))
    assert ax.get_xscale() == "linear"
    assert all(len(line.get_xdata()) == 0 for line in ax.lines)
    assert set(texts(ax).values()) >= {"none: no backward has reached it"}


@pytest.mark.parametrize("decades", [0, 1, 2, 3, 5, 8, 12, 20, 30])
def test_the_numbers_below_the_axis_keep_apart_whatever_the_range(decades):
    model = nn.ParameterDict({name: torch.ones(1) for name in "ab"})
    model["a"].grad, model["b"].grad = torch.tensor([3.0]), torch.tensor([3 * 10.0**-decades])
    ax = plot_gradient_report(gradient_report(model))
    low, high = ax.get_xlim()
    labels = [label for label in ax.get_xticklabels() if low <= label.get_position()[0] <= high]
    assert 1 <= len(labels) <= 10
    assert_apart(labels)


def test_the_alt_text_names_the_extremes_the_zeros_and_the_rows_without_a_norm():
    alt = show(plot_gradient_report(gradient_report(model_in_every_status()))).alt
    assert alt == (
        "The gradients of 6 parameters. a has the largest norm, 5, and b the smallest, 0.002. "
        "Exactly zero: 50% of a, 100% of c, 75% of d. f: requires_grad is off. e: no backward has "
        "reached it. c: reached, and every entry is 0. d: an entry is inf or nan."
    )


def test_the_alt_text_of_a_large_model_stays_short():
    model = nn.ParameterList(torch.ones(1) for _ in range(25))
    alt = show(plot_gradient_report(gradient_report(model))).alt
    assert alt.endswith("19, and 5 more: no backward has reached it.")


def image_and_gradient():
    image = torch.zeros(1, 6, 8)
    image[0, 2:4, 3:5] = 1
    image.requires_grad_()
    (3 * image[0, 1, 2] - 2 * image[0, 4, 5]).backward()
    return image.detach(), image.grad


def test_an_images_gradient_is_drawn_pixel_by_pixel_and_zero_is_the_middle_colour():
    image, gradient = image_and_gradient()
    ax = plot_image_gradient(image, gradient)
    (drawn,) = ax.images
    assert drawn.get_array().tolist() == gradient[0].tolist()
    assert drawn.norm(0.0) == 0.5
    assert drawn.get_clim() == (-3, 3)
    assert "upwards at row 1, column 2, downwards at row 4, column 5" in show(ax).alt


def test_the_outline_runs_around_the_bright_pixels():
    ax = plot_image_gradient(*image_and_gradient())
    (outline,) = ax.collections
    (path,) = outline.get_paths()
    (left, top), (right, bottom) = path.vertices.min(axis=0), path.vertices.max(axis=0)
    assert (left, right, top, bottom) == (2.5, 4.5, 1.5, 3.5)


def test_an_even_image_without_a_gradient_can_be_drawn():
    ax = plot_image_gradient(torch.ones(4, 4), torch.zeros(4, 4))
    assert len(ax.collections) == 0
    assert show(ax).alt


@pytest.mark.parametrize(
    ("shape", "of_gradient"),
    [((1, 1, 4, 4),) * 2, ((3, 4, 4),) * 2, ((4,),) * 2, ((1, 4, 4), (4, 4))],
)
def test_another_shape_is_refused(shape, of_gradient):
    with pytest.raises(ValueError, match=r"\(1, H, W\) or \(H, W\) is expected of both"):
        plot_image_gradient(torch.ones(shape), torch.ones(of_gradient))


def test_an_image_of_one_row_and_arrays_can_be_drawn():
    ax = plot_image_gradient(np.arange(5.0)[None], np.arange(-2.0, 3.0)[None])
    assert "upwards at row 0, column 4, downwards at row 0, column 0" in show(ax).alt


def test_the_alt_text_tells_no_steepest_pixel_where_there_is_none():
    for rates in (torch.zeros(2, 2), torch.full((2, 2), torch.nan)):
        assert "steepest" not in show(plot_image_gradient(torch.ones(2, 2), rates)).alt


@pytest.mark.parametrize("image", [None, "text", [["x"]], {1: 2}])
def test_an_image_that_is_not_made_of_numbers_is_refused(image):
    with pytest.raises((TypeError, ValueError), match="image"):
        plot_image_gradient(image, torch.ones(2, 2))
