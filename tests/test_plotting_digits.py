"""What is drawn of digits and scores is what was given."""

import math

import numpy as np
import pytest
import torch
from pictures import assert_apart

from blitz_helpers import plot_digits, plot_scores, show


def test_every_digit_is_drawn_with_its_caption_above(generator):
    images = torch.rand(12, 1, 8, 8, generator=generator)
    captions = [f"digit {index}" for index in range(12)]
    ax = plot_digits(images, captions)
    assert [text.get_text() for text in ax.texts] == captions
    for image, drawn, text in zip(images, ax.images, ax.texts, strict=True):
        assert np.array_equal(drawn.get_array(), image[0].numpy())
        left, right, bottom, top = drawn.get_extent()
        x, y = text.get_position()
        assert left < x < right
        assert y < top < bottom  # the axis runs downward


def test_digits_do_not_overlap_and_lie_inside_the_axes(generator):
    ax = plot_digits(torch.rand(23, 1, 8, 8, generator=generator), captions=range(23))
    corners = [(drawn.get_extent()[0], drawn.get_extent()[3]) for drawn in ax.images]
    assert len(set(corners)) == 23
    for index, (left, top) in enumerate(corners):
        assert ax.get_xlim()[0] < left < left + 1 < ax.get_xlim()[1]
        assert ax.get_ylim()[1] < top < top + 1 < ax.get_ylim()[0]
        for other_left, other_top in corners[:index]:
            assert abs(left - other_left) > 1 or abs(top - other_top) > 1


def test_ink_is_dark_and_the_scale_does_not_depend_on_the_image():
    ax = plot_digits(torch.full((1, 1, 4, 4), 0.5))
    drawn = ax.images[0]
    assert (drawn.norm.vmin, drawn.norm.vmax) == (0, 1)
    assert drawn.cmap(1.0)[:3] == (0, 0, 0)


def test_bars_are_the_scores_and_the_highest_stands_out():
    scores = torch.tensor([0.5, -1.25, 2.0, 0.0], requires_grad=True)
    ax = plot_scores(scores, name="score")
    bars = ax.containers[0]
    assert [bar.get_height() for bar in bars] == [0.5, -1.25, 2.0, 0.0]
    assert [text.get_text() for text in ax.texts] == ["0.50", "\N{MINUS SIGN}1.25", "2.00", "0.00"]
    colors = [bar.get_facecolor() for bar in bars]
    assert [color != colors[1] for color in colors] == [False, False, True, False]
    assert ax.get_ylabel() == "score"


def test_of_many_scores_the_highest_is_written_and_the_classes_keep_apart():
    ax = plot_scores(torch.arange(100.0))
    assert [text.get_text() for text in ax.texts if text.get_text()] == ["99.00"]
    assert_apart(ax.get_xticklabels())


def test_the_image_is_drawn_beside_its_scores(generator):
    image = torch.rand(1, 8, 8, generator=generator)
    ax = plot_scores(torch.linspace(-0.12, 0.1, 10), image=image)
    (beside,) = ax.child_axes
    assert np.array_equal(beside.images[0].get_array(), image[0].numpy())
    for _ in range(4):  # until the layout has settled
        ax.figure.canvas.draw()
    frame, name = beside.get_window_extent(), ax.yaxis.label.get_window_extent()
    assert frame.x1 + name.width / 2 < name.x0  # the name of the axis keeps clear of the image


def test_classes_are_called_what_the_caller_calls_them():
    assert plot_scores(torch.ones(10)).get_xlabel() == "class"
    assert plot_scores(torch.ones(10), class_name="digit").get_xlabel() == "digit"


def test_words_tell_the_highest_score_and_whose_it_is():
    scores = torch.tensor([-3.0, -0.125, -0.5])
    assert show(plot_scores(scores)).alt == (
        "3 bars, the logit of each class. The highest, \N{MINUS SIGN}0.12, is that of class 1."
    )
    picture = show(plot_scores(-scores, torch.ones(1, 4, 4), name="score", class_name="digit"))
    assert picture.alt == (
        "An image, and beside it 3 bars, the score of each digit. "
        "The highest, 3.00, is that of digit 0."
    )


def test_words_count_the_digits_and_repeat_the_captions():
    images = torch.ones(25, 1, 4, 4)
    assert show(plot_digits(images[:1])).alt == "1 image."
    assert show(plot_digits(images[:2], ["a 3", "a 5"])).alt == "2 images: a 3; a 5."
    many = show(plot_digits(images, range(25))).alt
    assert many.startswith("25 images: 0; 1; ")
    assert many.endswith("; 19; and 5 more.")


@pytest.mark.parametrize("shape", [(32, 32), (1, 32, 32), (2, 3, 32, 32), (0, 1, 32, 32)])
def test_anything_but_a_batch_of_grey_images_is_refused(shape):
    with pytest.raises(ValueError, match=r"\(N, 1, H, W\) is expected"):
        plot_digits(torch.ones(shape))


def test_captions_that_do_not_fit_the_images_are_refused():
    with pytest.raises(ValueError, match="3 captions do not fit 2 images"):
        plot_digits(torch.ones(2, 1, 4, 4), captions="abc")


def test_scores_and_image_of_a_whole_batch_are_refused():
    with pytest.raises(ValueError, match=r"scores of shape \(1, 10\).*scores\[i\]"):
        plot_scores(torch.ones(1, 10))
    with pytest.raises(ValueError, match=r"image of shape \(1, 1, 4, 4\).*images\[i\]"):
        plot_scores(torch.ones(10), image=torch.ones(1, 1, 4, 4))


@pytest.mark.parametrize("masked", [math.nan, -math.inf])
def test_a_score_that_is_not_finite_has_no_bar_and_is_not_the_highest(masked):
    picture = show(plot_scores(torch.tensor([masked, 0.5, 2.0])))
    assert "The highest, 2.00, is that of class 2." in picture.alt


def test_an_infinite_score_is_the_highest():
    picture = show(plot_scores(torch.tensor([1.0, math.inf])))
    assert "The highest, inf, is that of class 1." in picture.alt


def test_scores_that_are_all_nan_have_no_highest():
    assert "None is a number" in show(plot_scores(torch.full((2,), math.nan))).alt
