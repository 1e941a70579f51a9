"""Each histogram is drawn over its own edges, in its own row, and told in words."""

import math

import numpy as np
import pytest
import torch
from pictures import assert_apart

from blitz_helpers import plot_histograms, show

MINUS = "\N{MINUS SIGN}"


def rows(ax):
    """Return base, heights above it, and edges of each row that is drawn as bins."""
    found = []
    for steps in ax.patches:
        heights, edges, base = steps.get_data()
        found.append((base, (heights - base).tolist(), edges.tolist()))
    return found


def lines(ax):
    """Return the place and the base of each row that is drawn as a line."""
    found = [path.vertices for each in ax.collections for path in each.get_paths()]
    return [(low[0], low[1]) for low, high in found if low[0] == high[0]]


def test_rows_stand_in_order_from_the_top_over_their_own_edges_and_equally_high():
    ax = plot_histograms({"a": ([1, 4], [0.0, 1.0, 2.0]), "b": ([10, 5, 0], [-3, -2, -1, 0])})
    (first, a, first_edges), (second, b, second_edges) = rows(ax)
    assert (first_edges, second_edges) == ([0, 1, 2], [-3, -2, -1, 0])
    assert first > second
    assert max(a) == pytest.approx(max(b))
    assert a[0] == pytest.approx(max(a) / 4)
    assert b == pytest.approx([max(b), max(b) / 2, 0])
    assert max(b) < first - second
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a", "b"]
    high, low = ax.get_yticks()
    assert first < high < first + 1
    assert second < low < second + 1


def test_areas_stand_for_counts_where_bins_differ_in_width():
    ((_, heights, _),) = rows(plot_histograms({"a": ([6, 6], [0, 1, 4])}))
    assert heights[0] == pytest.approx(3 * heights[1])


def test_equal_values_are_a_line_with_its_value_written_beside_it():
    ax = plot_histograms({"a": ([1, 1], [-1, 0, 1]), "dead": ([54], [0.0, 0.0])})
    assert len(rows(ax)) == 1
    assert lines(ax) == [(0, 0)]
    assert [text.get_text() for text in ax.texts] == ["all 0"]
    assert show(ax).alt.endswith("dead: 54 values, all 0.")


def test_zero_is_marked_only_where_it_lies_among_the_values():
    def marked(low, high):
        ax = plot_histograms({"a": ([1], [low, high])})
        return any(list(line.get_xdata()) == [0, 0] for line in ax.lines)

    assert marked(-1, 1)
    assert marked(0, 1)
    assert not marked(1, 2)
    assert not marked(-2, -1)


def test_words_give_number_range_and_middle_half_of_the_values():
    values = torch.linspace(-2, 6, 8001, dtype=torch.float64)
    first, last = values.quantile(torch.tensor([0.25, 0.75], dtype=torch.float64)).tolist()
    assert (first, last) == pytest.approx((0, 4))
    assert show(plot_histograms({"w": values.histogram(64), "b": ([3], [1, 2])})).alt == (
        f"2 histograms on one scale. w: 8,001 values from {MINUS}2 to 6, the middle half from 0 "
        "to 4. b: 3 values from 1 to 2, the middle half from 1.2 to 1.8."
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_middle_half_is_that_of_the_values_to_within_a_bin(seed, generator):
    values = torch.randn(1000, generator=generator.manual_seed(seed), dtype=torch.float64)
    alt = show(plot_histograms({"w": values.histogram(50)})).alt.replace(MINUS, "-")
    told = [float(word.strip(".")) for word in alt.partition("half from ")[2].split(" to ")]
    width = (values.max() - values.min()).item() / 50
    quartiles = values.quantile(torch.tensor([0.25, 0.75], dtype=torch.float64)).tolist()
    assert told == pytest.approx(quartiles, abs=width)


def test_histograms_of_torch_of_numpy_and_of_a_run_are_taken():
    values = torch.tensor([0.0, 1.0, 1.0, 2.0])
    logged = {"values": [1.0, 2.0, 1.0], "bins": [0.0, 2 / 3, 4 / 3, 2.0]}
    ax = plot_histograms({
        "torch": values.histogram(3),
        "numpy": np.histogram(values.numpy(), 3),
        "run": (logged["values"], logged["bins"]),
    })  # fmt: skip
    (_, one, _), (_, two, _), (_, three, _) = rows(ax)
    assert one == pytest.approx(two)
    assert one == pytest.approx(three)


def test_a_single_histogram_and_many_are_drawn_with_room_for_their_names():
    for count in (1, 40):
        each = {f"layer{number}.weight": torch.ones(9).histogram(4) for number in range(count)}
        ax = plot_histograms(each)
        assert len(rows(ax)) == count
        assert_apart(ax.get_yticklabels())
    assert "and 20 more" in show(ax).alt


@pytest.mark.parametrize(
    ("histograms", "message"),
    [
        ({}, "There is no histogram"),
        ({"w": ([1, 2], [0, 1])}, r"edges of 'w' of shape \(2,\) cannot be drawn: \(3,\)"),
        ({"w": ([], [0])}, r"counts of 'w' of shape \(0,\)"),
        ({"w": (torch.ones(2, 2), [0, 1, 2])}, r"counts of 'w' of shape \(2, 2\)"),
        ({"w": ([1, -1], [0, 1, 2])}, r"counts of 'w' must be 0 or more.*got -1 to 1"),
        ({"w": ([0, 0], [0, 1, 2])}, "not all of them 0"),
        ({"w": ([1, math.nan], [0, 1, 2])}, "counts of 'w' must be"),
        ({"w": ([1, 1], [0, 2, 1])}, "edges of 'w' must be finite, and each above the one before"),
        ({"w": ([1, 1], [0, 0, 1])}, "each above the one before"),
        ({"w": ([1, 1], [0, 1, math.inf])}, "edges of 'w' must be finite"),
        ({"w": ([1], [math.nan, math.nan])}, "edges of 'w' must be finite"),
        ({"w": ([1], [-1.5e308, 1.5e308])}, "edges of 'w' must be finite"),
    ],
)
def test_what_cannot_be_drawn_is_an_error(histograms, message):
    with pytest.raises(ValueError, match=message):
        plot_histograms(histograms)


@pytest.mark.parametrize(
    ("histograms", "message"),
    [
        (([1], [0, 1]), "histograms is a tuple: expected a dict, such as {'fc1': "),
        (
            {"w": torch.ones(2)},
            r"histograms\['w'\] is a Tensor: expected a pair of counts and edges",
        ),
        ({"w": ([1], [0, 1], "w")}, r"histograms\['w'\] is a tuple: expected a pair"),
        ({"w": {"values": [1], "bins": [0, 1]}}, r'use \(each\["values"\], each\["bins"\]\)'),
        ({"w": ("a", "b")}, "counts of 'w' is a str that cannot be drawn"),
    ],
)
def test_what_is_no_histogram_is_an_error(histograms, message):
    with pytest.raises(TypeError, match=message):
        plot_histograms(histograms)


def test_names_with_dollars_are_drawn_as_written():
    (label,) = plot_histograms({"from $5 to $6": ([1], [0, 1])}).get_yticklabels()
    assert label.get_text() == r"from \$5 to \$6"


def test_a_model_of_many_layers_fits_into_a_picture():
    ax = plot_histograms({str(number): ([1], [0, 1]) for number in range(1500)})
    assert ax.figure.get_figheight() < 201
    names = ax.get_yticklabels()
    assert [name.get_text() for name in names[:3]] == ["0", "2", "4"]
    assert len(names) == len(ax.get_yticks()) == 750
