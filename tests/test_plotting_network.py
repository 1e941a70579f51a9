"""The drawn architecture says what torch says, to scale, and nothing covers a label."""

import itertools

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.patches import Circle, Rectangle
from pictures import assert_apart
from torch import nn

from blitz_helpers import Network, plot_network, show, trace_shapes


def texts(ax):
    return [text.get_text() for text in ax.texts]


def labels(ax):
    """Return the labels of what the steps give, from left to right."""
    return [text for text in texts(ax) if text[0].isdigit()]


def names(ax):
    return [text for text in texts(ax) if not text[0].isdigit()]


def shape_label(shape):
    count, *size = shape
    return f"{count}@{'x'.join(map(str, size))}" if size else f"{count}"


def fronts(ax):
    """Return width and height of the maps of each stack, from left to right."""
    sides = [(patch.get_width(), patch.get_height()) for patch in maps(ax)]
    return [side for side, _ in itertools.groupby(sides)]


def maps(ax):
    return [patch for patch in ax.patches if isinstance(patch, Rectangle)]


class ForBoth(Network):
    """The network of the series, with and without a batch."""

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(torch.flatten(x, -3))))))


def test_the_network_of_the_series_is_drawn_as_in_a_textbook():
    ax = plot_network(trace_shapes(Network(), (1, 1, 32, 32)))
    assert labels(ax) == [
        *("1@32x32", "6@30x30", "6@15x15", "16@13x13", "16@6x6", "576", "120", "84", "10"),
    ]
    assert names(ax) == [
        *("conv1", "relu", "max_pool2d", "conv2", "relu", "max_pool2d", "flatten"),
        *("fc1", "relu", "fc2", "relu", "fc3"),
    ]


@pytest.mark.parametrize("shape", [(1, 32, 32), (1, 1, 32, 32), (7, 1, 32, 32)])
def test_the_batch_makes_no_difference(shape):
    ax = plot_network(trace_shapes(ForBoth(), shape))
    assert labels(ax)[:2] == ["1@32x32", "6@30x30"]
    assert labels(ax)[-1] == "10"
    assert len(labels(ax)) == 9


@st.composite
def chains(draw):
    """A chain of one to three convolutions, pooled or not, and linear layers; and its input."""
    size = (draw(st.integers(40, 60)), draw(st.integers(40, 60)))
    channels = draw(st.integers(1, 20))
    shape = (draw(st.integers(1, 3)), channels, *size)
    layers = []
    for _ in range(draw(st.integers(1, 3))):
        out = draw(st.integers(1, 20))
        kernel = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
        layers += [nn.Conv2d(channels, out, kernel, padding=draw(st.integers(0, 2))), nn.ReLU()]
        channels = out
        if draw(st.booleans()):
            layers.append(nn.MaxPool2d(2) if draw(st.booleans()) else nn.AvgPool2d(2))
    layers.append(nn.Flatten())
    features = nn.Sequential(*layers)(torch.zeros(shape)).shape[1]
    for _ in range(draw(st.integers(0, 2))):
        out = draw(st.integers(1, 200))
        layers += [nn.Linear(features, out), nn.Tanh()]
        features = out
    return nn.Sequential(*layers), shape


@settings(max_examples=30)  # each one is a figure
@given(chains())
def test_labels_are_the_shapes_that_torch_gives(chain):
    model, shape = chain
    x = torch.zeros(shape)
    given_by_torch = [shape_label(shape[1:])]
    for layer in model:
        x = layer(x)
        if not isinstance(layer, nn.ReLU | nn.Tanh):
            given_by_torch.append(shape_label(x.shape[1:]))
    ax = plot_network(trace_shapes(model, shape))
    try:
        assert labels(ax) == given_by_torch
    finally:
        plt.close(ax.figure)


def test_sides_are_drawn_to_one_scale():
    model = nn.Sequential(nn.Conv2d(1, 2, (3, 7)), nn.MaxPool2d((4, 2)))
    ax = plot_network(trace_shapes(model, (1, 1, 34, 50)))
    sizes = [(50, 34), (44, 32), (22, 8)]  # width, height
    (full_width, _), *_ = fronts(ax)
    for (width, height), (drawn_width, drawn_height) in zip(sizes, fronts(ax), strict=True):
        assert drawn_width / full_width == pytest.approx(width / 50)
        assert drawn_height / full_width == pytest.approx(height / 50)


def test_each_of_a_few_maps_and_units_is_drawn_and_ever_less_of_more():
    def drawn(model, shape, kind):
        ax = plot_network(trace_shapes(model, shape))
        return sum(isinstance(patch, kind) for patch in ax.patches)

    in_maps = [drawn(nn.Conv2d(1, n, 3), (1, 1, 9, 9), Rectangle) - 1 for n in (1, 6, 16, 64, 512)]
    assert in_maps[:3] == [1, 6, 16]
    assert 16 < in_maps[3] < in_maps[4] < 40

    in_units = [drawn(nn.Linear(1, n), (1, 1), Circle) - 1 for n in (1, 3, 10, 84, 4096)]
    assert in_units[:3] == [1, 3, 10]
    assert 10 < in_units[3] < in_units[4] < 40


MODELS = {
    "the series": (Network(), (1, 1, 32, 32)),
    "kernels of 5": (Network(kernel_size=5), (1, 1, 32, 32)),
    "colour": (Network(in_channels=3), (4, 3, 32, 32)),
    "1-D": (
        nn.Sequential(
            nn.Conv1d(2, 8, 9),
            nn.ReLU(),
            nn.AdaptiveMaxPool1d(1),
            nn.Flatten(),
            nn.Linear(8, 1000),
            nn.Softmax(1),
        ),
        (1, 2, 128),
    ),
    "3-D": (nn.Sequential(nn.Conv3d(1, 4, 3), nn.MaxPool3d(2), nn.Flatten()), (1, 1, 12, 12, 12)),
    "no image": (nn.Sequential(nn.Linear(4, 100), nn.ReLU(), nn.Linear(100, 3)), (5, 4)),
    "deep and wide": (
        nn.Sequential(
            nn.Conv2d(3, 256, 5, padding=2),
            nn.BatchNorm2d(256),
            nn.ReLU(),
            nn.Conv2d(256, 512, 3, stride=2),
            nn.ConvTranspose2d(512, 8, 2, stride=2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(8, 12345),
        ),
        (2, 3, 100, 60),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_no_text_covers_another_or_leaves_the_picture(name):
    ax = plot_network(trace_shapes(MODELS[name][0], MODELS[name][1]))
    assert_apart(ax.texts)
    frame = ax.figure.bbox
    for text in ax.texts:
        box = text.get_window_extent()
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1, text
        assert frame.y0 <= box.y0 < box.y1 <= frame.y1, text


@pytest.mark.parametrize("name", MODELS)
def test_no_map_or_unit_covers_a_text(name):
    ax = plot_network(trace_shapes(MODELS[name][0], MODELS[name][1]))
    ax.figure.draw_without_rendering()
    shapes = [patch for patch in ax.patches if isinstance(patch, Rectangle | Circle)]
    for text in ax.texts:
        box = text.get_window_extent()
        assert not any(box.overlaps(shape.get_window_extent()) for shape in shapes), text


def test_layers_without_a_name_of_their_own_go_by_their_operation():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    ax = plot_network(trace_shapes(model, (1, 1, 4, 4)))
    assert names(ax) == ["conv2d", "relu", "flatten", "linear"]


def test_elementwise_steps_on_the_input_are_named_before_the_first_layer():
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(), nn.Conv2d(1, 2, 3), nn.ReLU())
    ax = plot_network(trace_shapes(model, (1, 1, 4, 4)))
    assert names(ax) == ["batch_norm", "dropout", "conv2d", "relu"]


def test_words_tell_each_step_and_the_size_it_makes():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    assert show(plot_network(trace_shapes(model, (1, 1, 4, 4)))).alt == (
        "A network from left to right. "
        "Input: 1 of 4x4; conv2d and relu: 2 of 2x2; flatten: 8; linear: 3."
    )


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return x + self.conv(x)


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(2, 1)

    def forward(self, x):
        x = self.left(self.body(x))
        return x, self.right(x)


class MixesImages(Network):
    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv2(F.max_pool2d(F.relu(self.conv1(x)), 2))), 2)
        return self.fc1(x.view(-1, 576))


class SideBySide(Residual):
    def forward(self, x):
        self.conv(x)
        return self.conv(x)


class Halves(nn.Linear):
    def forward(self, x):
        return super().forward(x).chunk(2, 1)


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (
            Halves(4, 4),
            (1, 4),
            r"chunk gives \(\(1, 2\), \(1, 2\)\), and .* steps that give one tensor",
        ),
        (Residual(), (1, 4, 8, 8), r"add takes .* and .*In a chain it would take .*one by one"),
        (SideBySide(), (1, 4, 8, 8), r"conv2d in conv takes .*the output of the step before it"),
        (TwoHeads(), (1, 4), r"The model returns .*its last step gave.*draws a chain"),
        (
            MixesImages(),
            (9, 1, 24, 24),
            r"\(4, 576\) of \(9, 16, 4, 4\): the first size is the batch",
        ),
        (
            nn.Sequential(nn.Conv1d(4, 4, 1), nn.LSTM(7, 5)),
            (1, 4, 7),
            "lstm in 1 takes .*without branches or states",
        ),
        (nn.Sequential(nn.Linear(4, 4), nn.GLU()), (1, 4), r"glu .*cannot draw.*it draws convol"),
        (nn.Linear(4, 5), (2, 7, 4), r"linear takes \(2, 7, 4\), which has more sizes"),
        (nn.ReLU(), (1, 4), "no convolution, pooling or linear step"),
        (nn.Identity(), (1, 4), "no convolution, pooling or linear step"),
    ],
)
def test_a_model_that_is_not_a_chain_is_refused(model, shape, message):
    trace = trace_shapes(model, shape)
    with pytest.raises(ValueError, match=message):
        plot_network(trace)
    assert plt.get_fignums() == []
