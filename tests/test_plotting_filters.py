"""Filters are drawn as they are, on one scale, above what they answer."""

import numpy as np
import pytest
import torch

from blitz_helpers import plot_filters, show


@pytest.fixture(autouse=True)
def close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


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


@pytest.mark.parametrize("origin", ["upper", "lower"])
def test_the_users_origin_of_images_turns_nothing_upside_down(origin):
    import matplotlib as mpl

    with mpl.rc_context({"image.origin": origin}):
        images = plot_filters(torch.rand(1, 1, 3, 3), torch.rand(1, 8, 8)).images
    assert {image.origin for image in images} == {"upper"}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_filters_of_any_float_dtype_are_drawn(dtype):
    (image,) = plot_filters(torch.ones(1, 1, 3, 3, dtype=dtype)).images
    assert image.get_array().min() == 1


def test_given_axes_are_drawn_on():
    import matplotlib.pyplot as plt

    _, ax = plt.subplots()
    assert plot_filters(torch.ones(1, 1, 3, 3), ax=ax) is ax


def test_anything_but_a_set_of_filters_is_refused():
    with pytest.raises(ValueError, match=r"\(6, 3, 3\) cannot be drawn"):
        plot_filters(torch.ones(6, 3, 3))
    with pytest.raises(ValueError, match=r"do not fit 6 filters: \(6, H, W\)"):
        plot_filters(torch.ones(6, 1, 3, 3), torch.ones(5, 8, 8))
    with pytest.raises(ValueError, match=r"before of shape \(6, 1, 5, 5\) does not fit"):
        plot_filters(torch.ones(6, 1, 3, 3), before=torch.ones(6, 1, 5, 5))
