"""What is drawn of filters and maps is what torch computes, and fields lie where they are put."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pictures import assert_apart, boxes

from blitz_helpers import plot_feature_map, plot_filters, plot_receptive_field, show

EDGE = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.5], [-1.0, 0.0, 1.0]])


def test_image_kernel_and_map_are_drawn_as_they_are(generator):
    image = torch.rand(9, 7, generator=generator)
    made = F.conv2d(image[None, None], EDGE[None, None])[0, 0]
    ax = plot_feature_map(image, EDGE, made.requires_grad_())
    for drawn, numbers in zip(ax.images, (image, EDGE, made), strict=True):
        assert np.array_equal(drawn.get_array(), numbers.detach().double().numpy())
    labels = ["image, 9x7", "kernel, 3x3", "feature map, 7x5"]
    assert [text.get_text() for text in ax.texts][-3:] == labels


def test_the_numbers_of_a_kernel_are_written_into_its_cells():
    ax = plot_feature_map(torch.ones(5, 5), EDGE, torch.ones(3, 3))
    left, right, bottom, top = ax.images[1].get_extent()
    for text, (row, column) in zip(ax.texts, np.ndindex(3, 3), strict=False):
        x, y = text.get_position()
        assert (x - left) / (right - left) == pytest.approx((column + 0.5) / 3)
        assert (y - top) / (bottom - top) == pytest.approx((row + 0.5) / 3)
        assert float(text.get_text().replace("\N{MINUS SIGN}", "-")) == EDGE[row, column]


@pytest.mark.parametrize("kernel", [torch.ones(20, 20), torch.full((1, 7), 0.25), EDGE - 0.25])
def test_numbers_of_a_kernel_keep_to_their_cells(kernel):
    ax = plot_feature_map(torch.ones(20, 20), kernel, torch.ones(10, 10))
    assert_apart(ax.texts)
    assert len(ax.texts) - 3 in (0, kernel.numel())


def test_colours_have_their_middle_at_zero_and_pixels_one_size():
    ax = plot_feature_map(torch.ones(4, 8), EDGE, torch.tensor([[1.0, -5.0, 3.0]]))
    drawn = ax.images[2]
    assert (drawn.norm.vmin, drawn.norm.vmax) == (-5, 5)
    image_left, image_right, *_ = ax.images[0].get_extent()
    map_left, map_right, *_ = drawn.get_extent()
    assert (map_right - map_left) / 3 == pytest.approx((image_right - image_left) / 8)


def test_a_map_of_zeros_is_drawn():
    drawn = plot_feature_map(torch.ones(4, 4), EDGE, torch.zeros(2, 2)).images[2]
    assert drawn.norm.vmin < 0 < drawn.norm.vmax


def test_words_tell_the_kernel_and_how_far_the_map_goes():
    made = torch.tensor([[2.0, -0.25], [0.0, 10.0]])
    assert show(plot_feature_map(torch.ones(4, 4), EDGE, made)).alt == (
        "An image of 4x4, a kernel of 3x3 with the rows \N{MINUS SIGN}1 0 1; "
        "\N{MINUS SIGN}2 0 2.5; \N{MINUS SIGN}1 0 1, and the feature map "
        "of 2x2 that it makes, with numbers from \N{MINUS SIGN}0.2 to 10."
    )


def test_a_map_of_all_channels_is_refused():
    with pytest.raises(ValueError, match=r"feature_map of shape \(6, 2, 2\) .* feature_map\[0\]"):
        plot_feature_map(torch.ones(4, 4), EDGE, torch.ones(6, 2, 2))
    assert plt.get_fignums() == []


def test_words_tell_the_field_of_each_layer():
    ax = plot_receptive_field(torch.ones(8, 9), {"conv1": (3, 3), "pool1": (4, 5)}, corner=(2, 1))
    assert show(ax).alt == (
        "An image of 8x9, and on it what one number of each layer sees, from row 2 and column 1 "
        "on: conv1 3x3, pool1 4x5."
    )


def test_receptive_fields_are_drawn_from_the_corner_with_their_sizes():
    image = torch.rand(32, 32)
    ax = plot_receptive_field(image, {"conv1": (3, 3), "pool2": (10, 12)}, corner=(8, 4))
    assert boxes(ax, "conv1") == [(4, 8, 3, 3)]
    assert boxes(ax, "pool2") == [(4, 8, 12, 10)]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "conv1: 3x3",
        "pool2: 10x12",
    ]
    assert np.array_equal(ax.images[0].get_array(), image.numpy())


@pytest.mark.parametrize(
    ("image", "fields", "corner", "message"),
    [
        (np.zeros((1, 8, 8)), {"conv1": (3, 3)}, (0, 0), r"shape \(1, 8, 8\) .* image\[0\]"),
        (np.zeros((0, 8)), {"conv1": (3, 3)}, (0, 0), r"shape \(0, 8\)"),
        (np.zeros((8, 8)), {}, (0, 0), "fields is empty"),
        (np.zeros((8, 8)), {"a": (3, 3)}, (6, 0), r"at \(6, 0\) .* from \(0, 0\) to \(5, 5\)"),
        (np.zeros((8, 8)), {"a": (3, 3)}, (-1, 0), r"at \(-1, 0\)"),
        (np.zeros((8, 8)), {"a": (9, 3)}, (0, 0), "The 9x3 field of a"),
        (np.zeros((8, 8)), {"a": 3}, (0, 0), r"fields\['a'\]=3 must be two whole numbers"),
        (np.zeros((8, 8)), {"a": (1.5, 2)}, (0, 0), "must be two whole numbers"),
        (np.zeros((8, 8)), {"a": (3, 3)}, (0,), r"corner=\(0,\) must be two whole numbers"),
        (np.zeros((8, 8), complex) * 1j, {"a": (3, 3)}, (0, 0), "complex"),
    ],
)
def test_fields_that_cannot_be_drawn_are_an_error_that_says_why(image, fields, corner, message):
    with pytest.raises(ValueError, match=message):
        plot_receptive_field(image, fields, corner=corner)
    assert plt.get_fignums() == []


def test_the_numbers_beside_a_large_image_keep_apart():
    ax = plot_receptive_field(np.zeros((224, 224)), {"conv1": (7, 7)})
    assert_apart(ax.get_xticklabels())


def test_filters_share_a_scale_around_zero_and_stand_above_their_responses(generator):
    filters = torch.randn(6, 1, 3, 3, generator=generator)
    responses = torch.randn(6, 30, 30, generator=generator)
    images = plot_filters(filters, responses).images
    for index in range(6):
        drawn, answer = images[index], images[6 + index]
        assert np.array_equal(drawn.get_array(), filters[index, 0].numpy())
        assert drawn.norm.vmax == -drawn.norm.vmin == filters.abs().max().item()
        assert np.array_equal(answer.get_array(), responses[index].clamp(min=0).numpy())
        assert (answer.norm.vmin, answer.norm.vmax) == (0, responses.max().item())
        assert drawn.get_extent()[:2] == answer.get_extent()[:2]
        assert drawn.get_extent()[2] < answer.get_extent()[3]  # the axis runs downward


def test_filters_before_and_after_training_share_a_scale(generator):
    before = torch.randn(4, 1, 5, 5, generator=generator)
    after = 3 * before
    ax = plot_filters(after, before=before)
    for index in range(4):
        first, second = ax.images[index], ax.images[4 + index]
        assert np.array_equal(first.get_array(), before[index, 0].numpy())
        assert np.array_equal(second.get_array(), after[index, 0].numpy())
        assert first.norm.vmax == second.norm.vmax == after.abs().max().item()
    assert [text.get_text() for text in ax.texts] == ["before", "after", "0", "1", "2", "3"]


def test_the_alt_text_names_the_filters_that_do_not_answer():
    filters = torch.tensor([-0.5, 0.25, 1.0]).view(3, 1, 1, 1).expand(3, 1, 3, 3)
    responses = torch.tensor([1.0, 0.0, -1.0]).view(3, 1, 1).expand(3, 8, 8)
    minus = "\N{MINUS SIGN}"
    assert show(plot_filters(filters, responses, before=filters)).alt == (
        f"3 filters of 3x3 weights, before and after training, from {minus}0.50 to 1.00. "
        "Below each its answers to an image; 1, 2 answer nothing."
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_filters_of_any_float_dtype_are_drawn(dtype):
    (image,) = plot_filters(torch.ones(1, 1, 3, 3, dtype=dtype)).images
    assert image.get_array().min() == 1


def test_anything_but_a_set_of_filters_is_refused():
    with pytest.raises(ValueError, match=r"\(6, 3, 3\) cannot be drawn"):
        plot_filters(torch.ones(6, 3, 3))
    with pytest.raises(ValueError, match=r"do not fit 6 filters: \(6, H, W\)"):
        plot_filters(torch.ones(6, 1, 3, 3), torch.ones(5, 8, 8))
    with pytest.raises(ValueError, match=r"before of shape \(6, 1, 5, 5\) does not fit"):
        plot_filters(torch.ones(6, 1, 3, 3), before=torch.ones(6, 1, 5, 5))
