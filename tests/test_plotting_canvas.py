"""A picture on a page has alt text: what its plots wrote down, or the reader's own words."""

import gc
import weakref
from collections import OrderedDict

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from blitz_helpers import (
    Evaluation,
    GradientReport,
    autograd_graph,
    gradient_report,
    plot_confusion,
    plot_descent,
    plot_descent_losses,
    plot_digits,
    plot_gradient_report,
    plot_graph,
    plot_history,
    plot_losses,
    plot_network,
    plot_receptive_field,
    plot_scores,
    plot_window,
    show,
    trace_shapes,
)
from blitz_helpers.plotting._canvas import describe
from blitz_helpers.plotting._words import as_written


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


def square(w):
    return w.square().sum(0)


def named(name):
    """Return a model whose only layer has this name."""
    return nn.Sequential(OrderedDict({name: nn.Linear(2, 2)}))


NAMED = {
    "curve": lambda name: plot_losses({name: [1.0, 2.0]}),
    "one of two curves": lambda name: plot_losses({name: [1.0], "other": [2.0]}),
    "path": lambda name: plot_descent(square, {name: torch.eye(2)}),
    "path of losses": lambda name: plot_descent_losses(square, {name: torch.eye(2)}, 0.5),
    "field": lambda name: plot_receptive_field([[0.0] * 4] * 4, {name: (2, 2)}),
    "caption": lambda name: plot_digits(torch.zeros(1, 1, 2, 2), [name]),
    "score": lambda name: plot_scores(torch.zeros(2), name=name),
    "class": lambda name: plot_scores(torch.zeros(2), class_name=name),
    "label": lambda name: plot_confusion(evaluation(), class_name=name),
    "parameter": lambda name: plot_gradient_report(gradient_report(named(name))),
    "layer": lambda name: plot_network(trace_shapes(named(name), (1, 2))),
    "node": lambda name: plot_graph(autograd_graph(named(name)(torch.ones(1, 2)))),
}


def evaluation():
    return Evaluation(0.5, torch.tensor([0, 1]), torch.tensor([0, 0]), 2)


@pytest.mark.parametrize("plot", ["curve", "one of two curves", "path", "path of losses", "field"])
def test_a_name_that_begins_with_an_underscore_is_in_the_legend(plot):
    texts = NAMED[plot]("_fast").get_legend().get_texts()
    assert any("_fast" in text.get_text() for text in texts)


@pytest.mark.parametrize("plot", NAMED.values(), ids=NAMED)
@pytest.mark.parametrize("name", [r"$\unknown$", "from $5 to $6", "<b>_$"])
def test_a_name_with_dollars_is_drawn_and_not_read_as_a_formula(plot, name):
    assert show(plot(name), alt="as written").png


@pytest.mark.parametrize("name", ["$x_1$", "$", r"\$x\$", "no dollar"])
def test_a_name_is_drawn_as_it_is_written(name):
    figure = plt.figure()
    ours, plain = figure.text(0, 0, as_written(name)), figure.text(0, 0, name, parse_math=False)
    figure.canvas.draw()
    assert ours.get_window_extent().bounds == plain.get_window_extent().bounds


GIVEN = [
    (plot_history, "a History. Use what fit"),
    (plot_confusion, "an Evaluation. Use what evaluate"),
    (plot_gradient_report, "a GradientReport. Use what gradient_report"),
    (plot_network, "a ShapeTrace. Use what trace_shapes"),
    (plot_graph, "an AutogradGraph. Use what autograd_graph"),
    (plot_losses, "losses is a float: expected a dict"),
]


@pytest.mark.parametrize(("plot", "message"), GIVEN)
def test_something_else_than_a_plot_draws_is_refused_with_what_it_draws(plot, message):
    with pytest.raises(TypeError, match=message):
        plot(0.5)
    assert plt.get_fignums() == []


@pytest.mark.parametrize("draw", [lambda ax: plot_window(3, 2, ax=ax), lambda ax: show(ax, "text")])
@pytest.mark.parametrize("kind", ["figure", "array", "number"])
def test_something_else_than_axes_is_refused(draw, kind):
    ax = {"figure": plt.figure, "array": lambda: plt.subplots(2)[1], "number": lambda: 3}[kind]()
    with pytest.raises(TypeError, match=r"expected the Axes .* plt.subplots"):
        draw(ax)


def test_alt_text_that_is_no_text_is_refused():
    with pytest.raises(TypeError, match="alt is a int: expected a sentence"):
        show(plot_window(3, 2), alt=3)


def test_a_picture_that_no_program_could_open_is_refused_before_it_is_drawn():
    with pytest.raises(ValueError, match=r"7 by [\d,]+ inches, .* Draw a part of it"):
        plot_digits(torch.zeros(5000, 1, 2, 2))
    assert plt.get_fignums() == []


def test_the_gradients_of_thousands_of_parameters_are_drawn():
    (row,) = gradient_report(nn.Linear(1, 1, bias=False))
    ax = plot_gradient_report(GradientReport([row] * 3000))
    assert show(ax).png
    assert 100 < len(ax.get_yticklabels()) < 1500
