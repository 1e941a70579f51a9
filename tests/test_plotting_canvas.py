"""A picture on a page has alt text: what its plots wrote down, or the reader's own words."""

import gc
import weakref

import matplotlib.pyplot as plt
import pytest
import torch

from blitz_helpers import (
    plot_descent,
    plot_descent_losses,
    plot_losses,
    plot_receptive_field,
    show,
)
from blitz_helpers.plotting._canvas import describe


def test_show_takes_the_words_of_every_plot_in_the_figure():
    _, (left, right) = plt.subplots(1, 2)
    describe(left, "Six filters.")
    assert show(describe(right, "Their answers.")).alt == "Six filters. Their answers."


def test_show_takes_the_whole_figure_of_axes_in_a_subfigure():
    left, right = plt.figure().subfigures(1, 2)
    describe(left.subplots(), "Six filters.")
    assert show(describe(right.subplots(), "Their answers.")).alt == "Six filters. Their answers."
    assert plt.get_fignums() == []


def test_words_passed_to_show_take_the_place_of_the_plots():
    _, ax = plt.subplots()
    assert show(describe(ax, "a curve"), alt="a curve that falls").alt == "a curve that falls"


@pytest.mark.parametrize("alt", [None, "", "  "])
def test_a_picture_without_words_is_refused(alt):
    _, ax = plt.subplots()
    with pytest.raises(ValueError, match="no alt text"):
        show(ax, alt)


def test_words_keep_no_axes_alive():
    ax = plt.figure().add_subplot()
    gone = weakref.ref(ax)
    show(describe(ax, "something"))
    del ax
    gc.collect()
    assert gone() is None


def test_a_page_gets_the_words_in_every_form_of_a_picture():
    _, ax = plt.subplots()
    bundle = show(ax, alt='w < 0 & "b"')._repr_mimebundle_()
    assert bundle["text/plain"] == 'Picture: w < 0 & "b"'
    assert 'alt="w &lt; 0 &amp; &quot;b&quot;"' in bundle["text/html"]
    assert bundle["image/png"] in bundle["text/html"]


@pytest.mark.parametrize(
    "plot",
    [
        lambda name: plot_losses({name: [1.0, 2.0]}),
        lambda name: plot_losses({name: [1.0], "other": [2.0]}),
        lambda name: plot_descent(lambda w: w.square().sum(0), {name: torch.eye(2)}),
        lambda name: plot_descent_losses(lambda w: w.square().sum(0), {name: torch.eye(2)}, 0.5),
        lambda name: plot_receptive_field([[0.0] * 4] * 4, {name: (2, 2)}),
    ],
)
def test_a_name_that_begins_with_an_underscore_is_in_the_legend(plot):
    texts = plot("_fast").get_legend().get_texts()
    assert any("_fast" in text.get_text() for text in texts)
