"""What is drawn of a sliding window is what torch's layers read and give."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from blitz_helpers import conv_output_size, plot_receptive_field, plot_window


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def boxes(ax, gid):
    """Return left, top, width and height of the boxes drawn as ``gid``."""
    return [(*patch.get_xy(), patch.get_width(), patch.get_height()) for patch in ax.patches
            if patch.get_gid() == gid]  # fmt: skip


def grid(ax, gid):
    """Return left, top, width and height of the grid drawn as ``gid``."""
    (lines,) = [c for c in ax.collections if c.get_gid() == gid]
    points = np.concatenate(lines.get_segments())
    left, top = points.min(axis=0)
    right, bottom = points.max(axis=0)
    return left, top, right - left, bottom - top


def cells_read(conv, size, place):
    """Return the cells (column, row) that one output of torch's convolution depends on."""
    x = torch.zeros(1, size, size, requires_grad=True)
    conv(x)[0, place[0], place[1]].backward()
    rows, columns = x.grad[0].nonzero(as_tuple=True)
    return set(zip(columns.tolist(), rows.tolist(), strict=True))


def test_the_pixel_that_pooling_drops_at_13_is_hatched():
    ax = plot_window(13, kernel_size=2, stride=2)
    assert boxes(ax, "never read") == [(0, 12, 13, 1), (12, 0, 1, 13)]
    assert ax.get_title() == "13x13 to 6x6"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "first 2x2 window",
        "second, 2 to the right",
        "never read",
    ]


def test_nothing_is_hatched_where_every_pixel_is_read():
    ax = plot_window(30, kernel_size=2, stride=2)
    assert boxes(ax, "never read") == []
    assert len(ax.get_legend().get_texts()) == 2


@settings(max_examples=40)
@given(
    size=st.integers(1, 9),
    kernel_size=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 3),
)
def test_window_and_output_are_drawn_where_torch_reads_and_writes(size, **numbers):
    try:
        out = conv_output_size(size, **numbers)
    except ValueError:
        with pytest.raises(ValueError, match="does not fit an input"):
            plot_window(size, **numbers)
        return
    ax = plot_window(size, **numbers)
    assert grid(ax, "output")[2:] == (out, out)
    assert grid(ax, "input") == (0, 0, size, size)

    conv = nn.Conv2d(1, 1, **numbers, bias=False)
    nn.init.ones_(conv.weight)
    places = [(0, 0), (0, 1)][: min(2, out)]
    for index, place in enumerate(places):
        read = boxes(ax, "read")
        mine = read[index * len(read) // len(places) : (index + 1) * len(read) // len(places)]
        inside = {(x, y) for x, y, *_ in mine if 0 <= x < size and 0 <= y < size}
        assert inside == cells_read(conv, size, place)
        left, top, *_ = grid(ax, "output")
        assert boxes(ax, "result")[index] == (left + place[1], top + place[0], 1, 1)

    x = torch.zeros(1, size, size, requires_grad=True)
    conv(x).sum().backward()
    unread_rows = [row for row in range(size) if not x.grad[0, row].any()]
    hatched = [top for _, top, width, _ in boxes(ax, "never read") if width == size and size > 1]
    if size > 1 and x.grad.any():
        assert hatched == unread_rows
    plt.close("all")


def test_padding_is_drawn_around_the_input():
    ax = plot_window((4, 6), kernel_size=3, padding=(1, 2))
    assert grid(ax, "padding") == (-2, -1, 10, 6)
    assert boxes(ax, "window")[0] == (-2, -1, 3, 3)
    assert ax.get_title() == "4x6 to 4x8"


def test_a_single_column_of_windows_slides_down():
    ax = plot_window((6, 3), kernel_size=3)
    assert boxes(ax, "window") == [(0, 0, 3, 3), (0, 1, 3, 3)]
    assert ax.get_legend().get_texts()[1].get_text() == "second, 1 down"


def test_pictures_are_drawn_on_the_axes_that_are_given():
    _, ax = plt.subplots()
    assert plot_window(4, kernel_size=2, ax=ax) is ax
    _, ax = plt.subplots()
    assert plot_receptive_field(np.zeros((8, 8)), {"conv1": (3, 3)}, ax=ax) is ax


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"size": 2, "kernel_size": 3}, "kernel_size=3 .* does not fit an input of 2"),
        ({"size": 0, "kernel_size": 1}, "size=0 cannot be drawn: use an int of 1 or more"),
        ({"size": 4, "kernel_size": 2, "stride": 0}, "stride=0 cannot be drawn"),
        ({"size": (4, 4, 4), "kernel_size": 2}, r"size=\(4, 4, 4\) cannot .* or two of them"),
        ({"size": 4.5, "kernel_size": 2}, "size=4.5 cannot be drawn"),
    ],
)
def test_a_window_that_cannot_be_drawn_is_an_error_that_says_why(numbers, message):
    with pytest.raises(ValueError, match=message):
        plot_window(**numbers)
    assert plt.get_fignums() == []


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
    ],
)
def test_fields_that_cannot_be_drawn_are_an_error_that_says_why(image, fields, corner, message):
    with pytest.raises(ValueError, match=message):
        plot_receptive_field(image, fields, corner=corner)
    assert plt.get_fignums() == []
