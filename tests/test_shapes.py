"""The size formulas hold for torch's own layers, and every written-out sum adds up."""

import inspect
import re
from math import ceil, floor

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from blitz_helpers.shapes import (
    conv_arithmetic,
    conv_fitting_sizes,
    conv_output_size,
    conv_transpose_arithmetic,
    conv_transpose_output_size,
    pool_arithmetic,
    pool_fitting_sizes,
    pool_output_size,
)

pytestmark = pytest.mark.filterwarnings(
    # torch says that it pads by hand here; the size is not affected.
    "ignore:Using padding='same' with even kernel lengths",
    "ignore:Initializing zero-element tensors",
)

CONVS = [nn.Conv1d, nn.Conv2d, nn.Conv3d]
TRANSPOSED = [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d]
MAX_POOLS = [nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d]
AVG_POOLS = [nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d]

# Settings that torch takes and settings that it rejects, the edges included.
SIDES = {
    "size": st.integers(0, 16),
    "kernel_size": st.integers(0, 6),
    "stride": st.integers(0, 5),
    "padding": st.integers(-1, 4),
    "output_padding": st.integers(-1, 4),
    "dilation": st.integers(0, 4),
}


def torch_size(layers, size, **settings):
    """Return the spatial shape after torch's layer, or None where torch rejects the settings."""
    try:
        channels = (1, 1) if "Conv" in layers[0].__name__ else ()
        layer = layers[len(size) - 1](*channels, **settings)
        shape = tuple(layer(torch.zeros(1, 1, *size)).shape[2:])
    except (RuntimeError, ValueError):
        return None
    # An output without a single number: some of torch's backends reject it, oneDNN returns it.
    return None if 0 in shape else shape


def our_size(output_size, size, **settings):
    try:
        return output_size(size, **settings)
    except ValueError:
        return None


def left_side(arithmetic):
    """Return what the sum adds up to, after checking that its right side agrees."""
    left, right = arithmetic.split(" = ")
    value = eval(left, {"__builtins__": {}}, {"floor": floor, "ceil": ceil})
    assert value == int(right)
    # `floor` and `ceil` stand only where there is something to round.
    for name in ("floor", "ceil"):
        if name in left:
            assert eval(left.replace(name, ""), {}) != value
    return int(value)


@st.composite
def drawn(draw, *names, **others):
    """Draw a size and settings for one to three dimensions: an int or a tuple for each."""
    dimensions = draw(st.integers(1, 3))

    def sides(name):
        side = SIDES[name]
        return st.tuples(*[side] * dimensions)

    arguments = {"size": draw(sides("size"))}
    for name in names:
        arguments[name] = draw(SIDES[name] | sides(name))
    return arguments | {name: draw(strategy) for name, strategy in others.items()}


def per_dimension(arguments, i):
    return {n: v[i] if isinstance(v, tuple) else v for n, v in arguments.items()}


def assert_agrees(output_size, arithmetic, layers, arguments):
    theirs = torch_size(layers, **arguments)
    assert our_size(output_size, **arguments) == theirs
    assert our_size(output_size, **arguments | {"size": list(arguments["size"])}) == theirs
    if theirs is None:
        with pytest.raises(ValueError, match=r"[uU]se "):
            arithmetic(**arguments)
        return
    sums = arithmetic(**arguments)
    assert tuple(map(left_side, sums)) == theirs
    for i, side in enumerate(theirs):
        assert output_size(**per_dimension(arguments, i)) == side
        assert arithmetic(**per_dimension(arguments, i)) == sums[i]


@settings(max_examples=1000)
@given(drawn("kernel_size", "stride", "padding", "dilation"))
def test_convolution_has_the_size_that_torch_gives(arguments):
    assert_agrees(conv_output_size, conv_arithmetic, CONVS, arguments)


@settings(max_examples=300)
@given(
    drawn("kernel_size", "stride", "dilation", padding=st.sampled_from(["same", "valid", "full"]))
)
def test_named_padding_agrees_with_torch(arguments):
    assert_agrees(conv_output_size, conv_arithmetic, CONVS, arguments)


@settings(max_examples=1000)
@given(drawn("kernel_size", "stride", "padding", "output_padding", "dilation"))
def test_transposed_convolution_has_the_size_that_torch_gives(arguments):
    assert_agrees(conv_transpose_output_size, conv_transpose_arithmetic, TRANSPOSED, arguments)


@settings(max_examples=1000)
@given(drawn("kernel_size", "stride", "padding", "dilation", ceil_mode=st.booleans()))
@example({"size": (5,), "kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True})
@example({"size": (2,), "kernel_size": 3, "stride": 3, "ceil_mode": True})
def test_max_pooling_has_the_size_that_torch_gives(arguments):
    assert_agrees(pool_output_size, pool_arithmetic, MAX_POOLS, arguments)


@settings(max_examples=600)
@given(drawn("kernel_size", "stride", "padding", ceil_mode=st.booleans()))
def test_average_pooling_has_the_size_that_torch_gives(arguments):
    # In three dimensions torch rejects more: a kernel larger than the input without its padding.
    layers = AVG_POOLS
    kernel = arguments["kernel_size"]
    kernels = kernel if isinstance(kernel, tuple) else (kernel,) * len(arguments["size"])
    if len(kernels) == 3 and any(k > n for k, n in zip(kernels, arguments["size"], strict=True)):
        assert torch_size(AVG_POOLS, **arguments) is None
        layers = MAX_POOLS
    assert_agrees(pool_output_size, pool_arithmetic, layers, arguments)


@settings(max_examples=300)
@given(drawn("kernel_size", "stride", "padding", "dilation"), st.data())
def test_fitting_sizes_of_a_convolution_are_all_that_give_the_output(arguments, data):
    arguments["size"] = data.draw(SIDES["size"])
    assert_fitting(conv_output_size, conv_fitting_sizes, per_dimension(arguments, 0))


@settings(max_examples=500)
@given(drawn("kernel_size", "stride", "padding", "dilation", ceil_mode=st.booleans()), st.data())
def test_fitting_sizes_of_pooling_are_all_that_give_the_output(arguments, data):
    arguments["size"] = data.draw(SIDES["size"])
    assert_fitting(pool_output_size, pool_fitting_sizes, per_dimension(arguments, 0))


def assert_fitting(output_size, fitting_sizes, arguments):
    out = arguments.pop("size")
    try:
        fitting = fitting_sizes(out, **arguments)
    except ValueError:
        # Either there is no such output, or no input is right for these settings.
        assert out < 1 or our_size(output_size, 100, **arguments) is None
        return
    assert isinstance(fitting, range)
    assert list(fitting) == [
        n for n in range(1, 120) if our_size(output_size, n, **arguments) == out
    ]


def test_fitting_sizes_answer_for_each_dimension():
    assert pool_fitting_sizes((6, 15), kernel_size=2) == (range(12, 14), range(30, 32))
    assert conv_fitting_sizes((6, 15), kernel_size=(3, 1), padding="same") == (
        range(6, 7),
        range(15, 16),
    )


def test_sizes_that_would_lie_below_1_do_not_fit():
    # Padding alone makes three positions.
    assert len(conv_fitting_sizes(1, kernel_size=1, padding=1)) == 0


@pytest.mark.parametrize(
    ("arithmetic", "arguments", "text"),
    [
        (conv_arithmetic, (32, 3), "(32 - 3 + 2*0)/1 + 1 = 30"),
        (conv_arithmetic, (13, 2, 2), "floor((13 - 2 + 2*0)/2) + 1 = 6"),
        (conv_arithmetic, (32, 3, 2, 2, 2), "floor((32 + 2*2 - 2*(3 - 1) - 1)/2) + 1 = 16"),
        (conv_arithmetic, (32, 4, 1, "same"), "(32 - 4 + 1 + 2)/1 + 1 = 32"),
        (conv_arithmetic, (32, 4, 1, "same", 3), "(32 + 4 + 5 - 3*(4 - 1) - 1)/1 + 1 = 32"),
        (pool_arithmetic, (13, 2), "floor((13 - 2 + 2*0)/2) + 1 = 6"),
        (pool_arithmetic, (13, 2, 2, 0, 1, True), "ceil((13 - 2 + 2*0)/2) + 1 = 7"),
        (pool_arithmetic, (14, 2, 2, 0, 1, True), "(14 - 2 + 2*0)/2 + 1 = 7"),
        (pool_arithmetic, (5, 2, 3, 1, 1, True), "ceil((5 - 2 + 2*1)/3) + 1 - 1 = 2"),
        (conv_transpose_arithmetic, (5, 3, 2, 1, 1), "(5 - 1)*2 - 2*1 + 3 + 1 = 10"),
        (conv_transpose_arithmetic, (5, 3, 2, 1, 1, 2), "(5 - 1)*2 - 2*1 + 2*(3 - 1) + 1 + 1 = 12"),
    ],
)
def test_sums_are_written_as_agreed(arithmetic, arguments, text):
    assert arithmetic(*arguments) == text
    left_side(text)


@settings(max_examples=500)
@given(
    drawn("kernel_size", "stride", "padding", "dilation", ceil_mode=st.booleans()), st.booleans()
)
def test_what_an_error_advises_works(arguments, pooled):
    if not pooled:
        del arguments["ceil_mode"]
    arguments = per_dimension(arguments, 0)
    output_size = pool_output_size if pooled else conv_output_size
    try:
        output_size(**arguments)
    except ValueError as error:
        text = str(error)
        if "does not fit an input" not in text:
            return
        advice = text.split("\n")[1]
        smallest = int(re.search(r"an input of (\d+) or more", advice)[1])
        assert output_size(**arguments | {"size": smallest}) == 1
        assert our_size(output_size, **arguments | {"size": smallest - 1}) is None
        for padding in re.findall(r"padding=(\d+)", advice):
            assert output_size(**arguments | {"padding": int(padding)}) >= 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: conv_output_size(1, kernel_size=3),
            "kernel_size=3 does not fit an input of 1: size + 2*padding must be at least 3.\n"
            "Use padding=1, or an input of 3 or more.",
        ),
        (
            lambda: conv_output_size(3, kernel_size=3, dilation=2),
            "kernel_size=3 with dilation=2 does not fit an input of 3: "
            "size + 2*padding must be at least 5.\nUse padding=1, or an input of 5 or more.",
        ),
        (
            lambda: pool_output_size(1, kernel_size=5, stride=2, ceil_mode=True),
            "kernel_size=5 does not fit an input of 1: size + 2*padding must be at least 4.\n"
            "Use padding=2, or an input of 4 or more.",
        ),
        (
            lambda: conv_output_size(9, 3, stride=2, padding="same"),
            "padding='same' needs stride=1, not 2: use an int as padding.",
        ),
        (
            lambda: conv_output_size(9, 3, padding="full"),
            "padding='full' is unknown: use an int, 'same' or 'valid'.",
        ),
        (lambda: conv_output_size(9, 3, stride=0), "stride=0 is too small: use 1 or more."),
        (lambda: conv_output_size(0, 3, padding=2), "size=0 is too small: use 1 or more."),
        (lambda: conv_fitting_sizes(0, 3), "out=0 is too small: use 1 or more."),
        (
            lambda: pool_output_size(9, 2, padding=2),
            "padding=2 is more than half of kernel_size=2: "
            "use 1 or less, or kernel_size=4 or more.",
        ),
        (
            lambda: conv_transpose_output_size(4, 3, stride=2, output_padding=2),
            "output_padding=2 does not go with stride=2 and dilation=1: use 1 or less.",
        ),
        (
            lambda: conv_transpose_output_size(1, 2, stride=2, padding=2),
            "padding=2 leaves an output of -2 from an input of 1.\n"
            "Use padding=0 or less, or an input of 3 or more.",
        ),
        (
            lambda: conv_output_size((9, 9), (3, 3, 3)),
            "size=(9, 9), kernel_size=(3, 3, 3) do not match: use an int, or one per dimension.",
        ),
        (
            lambda: conv_output_size((9,), (3, 3)),
            "size=(9,), kernel_size=(3, 3) do not match: use an int, or one per dimension.",
        ),
        (
            lambda: conv_output_size((), 3),
            "size=() do not match: use an int, or one per dimension.",
        ),
    ],
)
def test_errors_say_what_was_given_and_what_would_fit(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()


def test_the_advice_for_a_transposed_convolution_works():
    assert conv_transpose_output_size(1, 2, stride=2, padding=0) == 2
    assert conv_transpose_output_size(3, 2, stride=2, padding=2) == 2


@pytest.mark.parametrize("value", [True, 3.0, 2.5, "3", None, torch.tensor(3.0)])
@pytest.mark.parametrize("name", ["size", "kernel_size", "stride", "padding", "dilation"])
@pytest.mark.parametrize("output_size", [conv_output_size, pool_output_size])
def test_a_setting_that_is_not_a_whole_number_is_an_error(output_size, name, value):
    if (output_size, name, value) == (pool_output_size, "stride", None):
        return  # the kernel size
    arguments = {"size": 9, "kernel_size": 3} | {name: value}
    with pytest.raises(ValueError, match=f"{name}=.* use an int"):
        output_size(**arguments)


def test_whole_numbers_of_other_libraries_give_plain_ints():
    size = conv_output_size(torch.tensor(9), kernel_size=torch.tensor(3))
    assert (size, type(size)) == (7, int)


def test_one_number_in_a_tuple_counts_for_every_dimension_as_in_torch():
    layer = nn.MaxPool2d((3,), stride=(2,))
    assert pool_output_size((9, 5), (3,), stride=(2,)) == layer(torch.zeros(1, 9, 5)).shape[1:]


@pytest.mark.parametrize(
    "function", [conv_arithmetic, conv_output_size, pool_output_size, conv_transpose_output_size]
)
def test_arguments_have_the_names_and_order_that_torch_gives_them(function):
    layer = {"conv": nn.Conv2d, "pool": nn.MaxPool2d, "conv_transpose": nn.ConvTranspose2d}[
        re.sub("_(output_size|arithmetic)", "", function.__name__)
    ]
    ours = list(inspect.signature(function).parameters)[1:]
    assert ours == [name for name in inspect.signature(layer).parameters if name in ours]


def test_a_tuple_of_settings_is_enough_for_an_answer_a_dimension():
    assert conv_output_size(32, kernel_size=(3, 5)) == (30, 28)


def test_a_misspelled_argument_is_named():
    with pytest.raises(TypeError, match="dilatoin"):
        conv_output_size(9, 3, dilatoin=3)
