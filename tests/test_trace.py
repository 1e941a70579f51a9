"""A trace says what a forward pass does to shapes, and a failure explains itself."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from blitz_helpers import ShapeError, trace_shapes


class Digits(nn.Module):
    """The network of the series, as its reader writes it."""

    def __init__(self, kernel_size=3, features=576):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, kernel_size)
        self.conv2 = nn.Conv2d(6, 16, kernel_size)
        self.fc1 = nn.Linear(features, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


def evaluate(arithmetic):
    """Return both sides of a written-out sum."""
    left, right = arithmetic.split(" = ")
    return eval(left, {"floor": math.floor, "ceil": math.ceil}), int(right)


def test_the_network_of_the_series_is_seen_operation_by_operation():
    trace = trace_shapes(Digits(), (1, 1, 32, 32))

    assert trace.path() == (
        "input -> conv2d -> relu -> max_pool2d -> conv2d -> relu -> max_pool2d -> flatten"
        " -> linear -> relu -> linear -> relu -> linear"
    )
    sides = [step.output_shape[-1] for step in trace if len(step.output_shape) == 4]
    assert sides == [30, 30, 15, 13, 13, 6]
    assert [step.module for step in trace if step.op in ("conv2d", "linear")] == [
        "conv1",
        "conv2",
        "fc1",
        "fc2",
        "fc3",
    ]
    assert trace.output_shape == (1, 10)
    assert trace.num_params == trace.num_trainable_params == 81_194
    assert sum(step.num_params for step in trace) == 81_194
    assert trace.num_macs == sum(step.num_macs for step in trace)
    assert trace.ran_for_real is None


def test_the_sums_of_the_network_are_written_out():
    trace = trace_shapes(Digits(), (1, 1, 32, 32))
    sums = {step.op: step.arithmetic for step in trace}

    assert trace[0].arithmetic == ("(32 - 3 + 2*0)/1 + 1 = 30",) * 2
    assert sums["max_pool2d"] == ("floor((13 - 2 + 2*0)/2) + 1 = 6",) * 2
    assert sums["flatten"] == ("16*6*6 = 576",)
    assert sums["relu"] == ()
    for step in trace:
        for one in step.arithmetic:
            left, right = evaluate(one)
            assert left == right
            assert right in step.output_shape


def test_the_receptive_field_of_the_network_grows_as_the_gradient_shows():
    trace = trace_shapes(Digits(), (1, 1, 32, 32))
    fields = [step.receptive_field for step in trace]
    assert fields[:6] == [(3, 3), (3, 3), (4, 4), (8, 8), (8, 8), (10, 10)]
    assert fields[6:] == [None] * 6


def test_a_step_says_where_it_was_called():
    trace = trace_shapes(Digits(), (1, 1, 32, 32))
    file, _, line = trace[0].source.rpartition(":")
    assert file == __file__
    assert "self.conv1" in Path(__file__).read_text().splitlines()[int(line) - 1]
    assert __file__ not in str(trace)
    assert __file__ not in trace._repr_html_()


def test_the_digit_as_mnist_has_it_fails_with_the_reason_and_both_ways_out():
    with pytest.raises(ShapeError) as caught:
        trace_shapes(Digits(), (1, 1, 28, 28))

    message = str(caught.value)
    parts = ["fc1", "400 = 16*5*5", "wants 576 = 16*6*6", "in_features=400",
             "an input of 30 to 33 pixels a side"]  # fmt: skip
    places = [message.index(part) for part in parts]
    assert places == sorted(places)
    assert caught.value.step.module == "fc1"
    assert caught.value.step.op == "linear"
    assert [step.op for step in caught.value.trace][-1] == "flatten"


def test_both_ways_out_of_the_digit_make_the_network_run():
    assert trace_shapes(Digits(features=400), (1, 1, 28, 28)).output_shape == (1, 10)
    for side in range(30, 34):
        assert trace_shapes(Digits(), (1, 1, side, side)).output_shape == (1, 10)
    for side in (29, 34):
        with pytest.raises(ShapeError, match="fc1"):
            trace_shapes(Digits(), (1, 1, side, side))


def test_tracing_common_networks_loads_neither_sympy_nor_the_compiler():
    program = """
import sys
from torch import nn
from blitz_helpers import trace_shapes
trace_shapes(nn.Sequential(
    nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(),
    nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 8), nn.GELU(), nn.LayerNorm(8),
    nn.Softmax(-1),
), (2, 3, 16, 16))
print(sorted({"sympy", "torch._dynamo"} & set(sys.modules)))
"""
    run = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ((1, 1, 0, 32), "0 is not a whole number"),
        ((1, 1, 32.0, 32), "32.0 is not a whole number"),
        ((True, 1, 32, 32), "True is not a whole number"),
        ((1, 1, -4, 32), "-4 is not a whole number"),
    ],
)
def test_a_shape_that_is_none_is_refused(shape, match):
    with pytest.raises(ValueError, match=match):
        trace_shapes(Digits(), shape)


def test_a_class_is_no_model():
    with pytest.raises(TypeError, match="Pass an instance"):
        trace_shapes(Digits, (1, 1, 32, 32))


def test_no_input_is_refused():
    with pytest.raises(ValueError, match="no input, but forward takes x"):
        trace_shapes(Digits())


def test_an_input_on_another_device_is_refused():
    with pytest.raises(ValueError, match=r"conv1.*on meta.*on cpu"):
        trace_shapes(Digits(), torch.empty(1, 1, 32, 32, device="meta"))


def test_an_error_of_the_model_comes_through_with_the_trace_so_far():
    class Broken(Digits):
        def forward(self, x):
            self.conv1(x)
            raise KeyError("own")

    with pytest.raises(KeyError, match="own") as caught:
        trace_shapes(Broken(), (1, 1, 32, 32))
    assert [step.op for step in caught.value.trace] == ["conv2d"]


def test_a_model_sees_the_device_its_tensors_stand_for():
    class Places(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(6, 5)
            self.head = nn.Linear(5, 3)

        def forward(self, x):
            assert x.device.type == "cpu"
            assert not x.is_meta
            return self.head(self.rnn(x)[1])  # the state, which starts on the input's device

    assert trace_shapes(Places(), (10, 20, 6)).output_shape == (1, 20, 3)
