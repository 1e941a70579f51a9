"""What is drawn of a sliding window is what torch's layers read, write and give."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import assert_apart, boxes
from torch import nn

from blitz_helpers import conv_output_size, plot_transposed_window, plot_window, show


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
        "last",
        "never read",
    ]


def test_nothing_is_hatched_where_every_pixel_is_read():
    ax = plot_window(30, kernel_size=2, stride=2)
    assert boxes(ax, "never read") == []
    assert "never read" not in [text.get_text() for text in ax.get_legend().get_texts()]


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


def written(ax, text):
    """Return where ``text`` stands, as column and row of the cell."""
    return {(math.floor(t.get_position()[0]), math.floor(t.get_position()[1])) for t in ax.texts
            if t.get_text() == text}  # fmt: skip


def test_the_border_is_filled_with_the_zeros_that_a_convolution_reads():
    ax = plot_window(3, kernel_size=3, padding=1)
    border = {(x, y) for x in range(-1, 4) for y in range(-1, 4)}
    border -= {(x, y) for x in range(3) for y in range(3)}
    assert border <= written(ax, "0")
    assert not any(0 <= x < 3 and 0 <= y < 3 for x, y in written(ax, "0"))


def test_every_place_along_a_row_has_a_bar_with_its_number():
    ax = plot_window(7, kernel_size=3, stride=2)
    assert [round(left - 0.1) for left, *_ in boxes(ax, "bar")] == [0, 2, 4]
    assert [round(width + 0.2) for _, _, width, _ in boxes(ax, "bar")] == [3, 3, 3]
    for number, (left, top, width, height) in enumerate(boxes(ax, "bar")):
        inside = [
            text.get_text() for text in ax.texts
            if left < text.get_position()[0] < left + width
            and top < text.get_position()[1] < top + height
        ]  # fmt: skip
        assert inside == [str(number)]


@pytest.mark.parametrize(
    "numbers",
    [
        {"size": 9, "kernel_size": 3},
        {"size": 9, "kernel_size": 4, "stride": 3, "padding": 1},
        {"size": 30, "kernel_size": 2, "stride": 2},
        {"size": 9, "kernel_size": 3, "dilation": 2},
    ],
)
def test_bars_of_places_do_not_overlap(numbers):
    bars = boxes(plot_window(**numbers), "bar")
    for index, (left, top, width, height) in enumerate(bars):
        for other_left, other_top, *_ in bars[:index]:
            assert other_left + width <= left or abs(other_top - top) >= height


@pytest.mark.parametrize(
    "numbers",
    [
        {"size": 13, "kernel_size": 2, "stride": 2},
        {"size": 32, "kernel_size": 3, "padding": 1},
        {"size": (120, 110), "kernel_size": 7, "stride": 2, "padding": 3},
    ],
)
def test_no_number_covers_another(numbers):
    assert_apart(plot_window(**numbers).texts)


def test_the_last_place_is_dashed_in_both_grids():
    ax = plot_window((6, 7), kernel_size=3, stride=2)
    assert boxes(ax, "last") == [(4, 2, 3, 3)]
    left, top, width, height = grid(ax, "output")
    assert boxes(ax, "last result") == [(left + width - 1, top + height - 1, 1, 1)]


def test_words_tell_where_a_window_stands_and_what_is_never_read():
    assert show(plot_window(6, kernel_size=3)).alt == (
        "A 3x3 window on a 6x6 grid. Its left edge can stand on column 0, 1, 2 or 3, and the "
        "output is 4x4."
    )
    pooled = show(plot_window((12, 14), kernel_size=3, stride=3)).alt
    assert pooled.endswith("Hatched, since no window reads it: 2 columns.")
    padded = show(plot_window(32, kernel_size=3, padding=1)).alt
    assert "with a border of zeros" in padded
    assert "column \N{MINUS SIGN}1, 0, 1 and so on to 30, and" in padded


@settings(max_examples=30)
@given(
    size=st.integers(1, 5),
    kernel_size=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
)
def test_transposed_windows_are_drawn_where_torch_writes(size, **numbers):
    conv = nn.ConvTranspose2d(1, 1, **numbers, bias=False)
    nn.init.ones_(conv.weight)
    x = torch.zeros(1, 1, size, size)
    x[..., 0, 0] = 1
    try:
        laid_down = conv(x)[0, 0]
    except RuntimeError:
        laid_down = torch.zeros(0, 0)
    if not laid_down.numel():  # torch lets a size of 0 pass, but nothing below it
        with pytest.raises(ValueError, match="use a smaller padding"):
            plot_transposed_window(size, **numbers)
        return
    ax = plot_transposed_window(size, **numbers)
    left, top, width, height = grid(ax, "output")
    assert (top, width, height) == (0, len(laid_down), len(laid_down))
    assert grid(ax, "input")[2:] == (size, size)
    read = boxes(ax, "read")[: numbers["kernel_size"] ** 2]
    cells = {(x - left, y) for x, y, *_ in read if left <= x < left + width and 0 <= y < height}
    rows, columns = laid_down.nonzero(as_tuple=True)
    assert cells == set(zip(columns.tolist(), rows.tolist(), strict=True))
    plt.close("all")


def test_words_tell_where_transposed_windows_are_laid_down():
    assert show(plot_transposed_window(3, kernel_size=4, stride=2, padding=1)).alt == (
        "Each number of a 3x3 grid lays a 4x4 window down on a 6x6 grid, its left edge on column "
        "\N{MINUS SIGN}1, 1 or 3. The dashed border is cut off."
    )


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"size": 2, "kernel_size": 3}, "kernel_size=3 .* does not fit an input of 2"),
        ({"size": 0, "kernel_size": 1}, "size=0 cannot be drawn: use an int of 1 or more"),
        ({"size": 4, "kernel_size": 2, "stride": 0}, "stride=0 cannot be drawn"),
        ({"size": (4, 4, 4), "kernel_size": 2}, r"size=\(4, 4, 4\) cannot .* or two of them"),
        ({"size": 4.5, "kernel_size": 2}, "size=4.5 cannot be drawn"),
        ({"size": True, "kernel_size": 1}, "size=True cannot be drawn"),
    ],
)
def test_a_window_that_cannot_be_drawn_is_an_error_that_says_why(numbers, message):
    with pytest.raises(ValueError, match=message):
        plot_window(**numbers)
    assert plt.get_fignums() == []


def test_whole_numbers_of_other_libraries_are_drawn():
    assert plot_window(torch.tensor(5), np.int64(3)).get_title() == "5x5 to 3x3"
