"""A picture is the same whatever the user has set, and what the user has set stays set."""

import pickle
from functools import partial

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

import blitz_helpers
from blitz_helpers import (
    Evaluation,
    History,
    Network,
    autograd_graph,
    gradient_report,
    plot_confusion,
    plot_descent,
    plot_descent_losses,
    plot_digits,
    plot_feature_map,
    plot_filters,
    plot_foretold_losses,
    plot_gradient_report,
    plot_graph,
    plot_histograms,
    plot_history,
    plot_image_gradient,
    plot_losses,
    plot_lr_sweep,
    plot_network,
    plot_ranks,
    plot_receptive_field,
    plot_scores,
    plot_transposed_window,
    plot_window,
    show,
    trace_shapes,
)

IMAGE = torch.linspace(0, 1, 64).view(1, 1, 8, 8)
PATH = torch.tensor([[2.0, 1.0], [1.0, 0.5], [0.5, 0.25]])


def report():
    model = nn.Linear(2, 3)
    for w in model.parameters():
        w.data.fill_(0.5)
    model(torch.ones(1, 2)).square().sum().backward()
    return gradient_report(model)


def graph():
    w = torch.ones(2, requires_grad=True)
    return autograd_graph((w * w).sum())


EVALUATION = Evaluation(1.0, torch.tensor([0, 1, 1, 2]), torch.tensor([0, 0, 1, 2]), 3)
PLOTS = {
    "plot_confusion": partial(plot_confusion, EVALUATION),
    "plot_descent": partial(plot_descent, lambda w: w[0] ** 2 + w[1] ** 2, {"SGD": PATH}),
    "plot_descent_losses": partial(plot_descent_losses, lambda w: w[0] ** 2, {"SGD": PATH}, 0.5),
    "plot_digits": partial(plot_digits, IMAGE, captions=["seven"]),
    "plot_feature_map": partial(plot_feature_map, IMAGE[0, 0], [[-1, 1]], IMAGE[0, 0, :, 1:]),
    "plot_filters": partial(plot_filters, IMAGE, responses=IMAGE[0]),
    "plot_foretold_losses": partial(plot_foretold_losses, 1.0, [0.1, 1], [0.9, 0.7], [0.9, 0]),
    "plot_gradient_report": partial(plot_gradient_report, report()),
    "plot_graph": partial(plot_graph, graph()),
    "plot_histograms": partial(plot_histograms, {"w": ([1, 3], [-1, 0, 1]), "b": ([4], [0, 0])}),
    "plot_history": partial(plot_history, History((2.0, 1.0), 1, val_losses=(1.5, 1.2))),
    "plot_image_gradient": partial(plot_image_gradient, IMAGE[0], IMAGE[0] - 0.5),
    "plot_losses": partial(plot_losses, {"sgd": [2.3, -1.1, 0.4]}),
    "plot_lr_sweep": partial(plot_lr_sweep, {0.1: [0.8, 0.7], 1.0: [0.9, 0.1]}),
    "plot_network": partial(plot_network, trace_shapes(Network(), (1, 1, 32, 32))),
    "plot_ranks": partial(plot_ranks, [IMAGE, IMAGE], [PATH[0], PATH[1]]),
    "plot_receptive_field": partial(plot_receptive_field, IMAGE[0, 0], {"conv1": (3, 3)}),
    "plot_scores": partial(plot_scores, torch.tensor([0.5, -1.0, 2.0]), image=IMAGE[0]),
    "plot_transposed_window": partial(plot_transposed_window, 3, kernel_size=2),
    "plot_window": partial(plot_window, 5, kernel_size=3),
}
SETTINGS = {
    "images from below, another layout, other numbers": {
        "image.origin": "lower",
        "image.cmap": "jet",
        "figure.autolayout": True,
        "figure.dpi": 61,
        "savefig.dpi": 31,
        "axes.unicode_minus": False,
        "axes.formatter.limits": (0, 0),
    },
    "a dark style": "dark_background",
    "a busy style and another font": [
        "ggplot",
        {"font.family": "serif", "font.sans-serif": ["DejaVu Serif"], "font.size": 17},
    ],
}


def pixels(ax):
    figure = ax.get_figure(root=True)
    figure.canvas.draw()
    drawn = np.asarray(figure.canvas.buffer_rgba()).copy()
    plt.close(figure)
    return drawn


@pytest.fixture(scope="module")
def usual():
    return {name: (pixels(plot()), show(plot(), alt=name).png) for name, plot in PLOTS.items()}


def test_no_plot_is_left_out_here():
    assert list(PLOTS) == [name for name in blitz_helpers.__all__ if name.startswith("plot_")]


@pytest.mark.parametrize("name", PLOTS)
def test_axes_that_are_given_are_drawn_on(name):
    _, ax = plt.subplots()
    assert PLOTS[name](ax=ax) is ax
    assert ax.has_data()
    assert plt.get_fignums() == [ax.figure.number]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", PLOTS)
def test_a_picture_does_not_depend_on_the_users_settings(name, settings, usual):
    with mpl.rc_context():
        mpl.style.use(SETTINGS[settings])
        before = dict(mpl.rcParams)
        on_screen, page = pixels(PLOTS[name]()), show(PLOTS[name](), alt=name).png
        assert dict(mpl.rcParams) == before
    assert np.array_equal(on_screen, usual[name][0])
    assert page == usual[name][1]


def test_images_stand_upright_in_the_axes_of_a_user_who_has_them_from_below():
    with mpl.rc_context({"image.origin": "lower"}):
        _, ax = plt.subplots()
        plot_filters(IMAGE, ax=ax)
        assert ax.images[0].origin == "upper"


def test_a_figure_can_be_pickled():
    again = pickle.loads(pickle.dumps(PLOTS["plot_losses"]().figure))
    assert np.array_equal(pixels(again.axes[0]), pixels(PLOTS["plot_losses"]()))
