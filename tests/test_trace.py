"""A trace says what a forward pass does to shapes, and a failure explains itself."""

import math
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

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
    assert sums["relu"] == sums["linear"] == ()
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
from torch.overrides import TorchFunctionMode
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


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # as the compiler loads
def test_a_module_compiled_in_place_is_seen_and_stays_compiled():
    model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    model[1].compile()
    compiled = model[1]._compiled_call_impl
    rows = trace_shapes(model, (2, 3)).by_module()
    assert [row.module for row in rows] == ["", "0", "1", "1.0", "1.1"]
    assert model[1]._compiled_call_impl is compiled


def test_calls_of_modules_are_torchs_own_again_after_a_trace_that_raised():
    before = nn.Module._call_impl
    with pytest.raises(ShapeError):
        trace_shapes(Digits(), (1, 1, 28, 28))
    assert nn.Module._call_impl is before


def test_records_are_named_where_their_users_find_them_and_pickle():
    trace = trace_shapes(Digits(), (1, 1, 32, 32))
    assert {type(trace).__module__, type(trace[0]).__module__} == {"blitz_helpers.trace"}
    assert ShapeError.__module__ == "blitz_helpers.trace"
    assert str(pickle.loads(pickle.dumps(trace))) == str(trace)


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


def test_a_class_in_place_of_a_model_is_refused():
    with pytest.raises(TypeError, match="Pass an instance"):
        trace_shapes(Digits, (1, 1, 32, 32))


def test_no_input_is_refused():
    with pytest.raises(ValueError, match="No input is given, but forward takes x"):
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


def test_what_is_made_elsewhere_and_moved_to_the_model_keeps_its_values_and_takes_its_place():
    class Moved(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 6)

        def forward(self, x):
            positions = torch.arange(6).to(x.device)
            assert positions.device == x.device
            large = torch.rand(50, 40).to(x.device)
            assert large.device == x.device
            zeros = torch.zeros(6, device=x.device)
            mask = zeros.to(torch.float32, copy=True)
            mask[positions.tolist()[2] :] = 1
            assert (zeros.sum(), mask.sum()) == (0, 4)
            assert x.cpu().device.type == "cpu"
            return self.fc(x * mask + positions + large[:1, :6])

    for device in ("cpu", "meta"):
        model, x = Moved().to(device), torch.ones(2, 6, device=device)
        trace = trace_shapes(model, x)
        assert (trace.output_shape, trace.ran_for_real) == ((2, 6), None)


def macs(model, *inputs):
    return trace_shapes(model, *inputs).num_macs


def test_multiply_accumulates_are_those_of_the_formulas_by_hand():
    # One output element of a convolution takes (channels of its group) x (window) products.
    assert macs(nn.Conv2d(4, 6, (3, 5), groups=2), (2, 4, 10, 12)) == 2 * 6 * 8 * 8 * 2 * 15
    # Each input element of a transposed convolution goes into (channels of its group) x (window).
    transposed = nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2)
    assert macs(transposed, (2, 4, 5, 7)) == 2 * 4 * 5 * 7 * 3 * 9
    assert macs(nn.Linear(3, 8), (5, 100, 100, 3)) == 1_200_000
    assert macs(nn.Bilinear(4, 5, 6), (2, 4), (2, 5)) == 2 * 6 * 4 * 5
    # Four gates, each from the input and from the state, and a projection of the state.
    lstm = nn.LSTM(5, 6, num_layers=2, bidirectional=True, proj_size=3)
    first, second = 4 * 6 * (5 + 3) + 6 * 3, 4 * 6 * (6 + 3) + 6 * 3
    assert macs(lstm, (7, 2, 5)) == 7 * 2 * 2 * (first + second)
    assert macs(nn.GRU(5, 6, batch_first=True), (2, 7, 5)) == 2 * 7 * 3 * 6 * (5 + 6)
    assert macs(nn.LSTMCell(5, 6), (2, 5)) == 2 * 4 * 6 * (5 + 6)
    # Four projections, then two products over each pair of positions.
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    shape = (3, 5, 8)
    assert macs(attention, shape, shape, shape) == 3 * (4 * 5 * 8 * 8 + 2 * 5 * 5 * 8)


class Call(nn.Module):
    """A function as a model."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs, **named):
        return self.function(*inputs, **named)


@pytest.mark.parametrize(
    ("function", "shapes", "expected"),
    [
        (torch.matmul, [(2, 1, 3, 4), (5, 4, 6)], 2 * 5 * 3 * 4 * 6),
        (torch.bmm, [(2, 3, 4), (2, 4, 5)], 2 * 3 * 4 * 5),
        (torch.mv, [(3, 4), (4,)], 12),
        (torch.addmm, [(3, 5), (3, 4), (4, 5)], 60),
        (torch.baddbmm, [(2, 3, 5), (2, 3, 4), (2, 4, 5)], 120),
        (lambda a, b, c: a.baddbmm(batch1=b, batch2=c), [(2, 3, 5), (2, 3, 4), (2, 4, 5)], 120),
        (lambda a, b: torch.bmm(a, mat2=b), [(2, 3, 4), (2, 4, 5)], 120),
        (lambda a, b: torch.einsum("bij,bjk->bik", a, b), [(2, 3, 4), (2, 4, 5)], 120),
        (lambda a, b, c: torch.einsum("ij,jk,kl->il", a, b, c), [(2, 3), (3, 4), (4, 5)], 64),
        (F.scaled_dot_product_attention, [(2, 3, 4, 8), (2, 3, 5, 8), (2, 3, 5, 6)],
         2 * 3 * 4 * 5 * (8 + 6)),
        (lambda a: a + a * 2, [(3, 4)], 0),
    ],
)  # fmt: skip
def test_products_are_counted_over_every_pair_that_they_multiply(function, shapes, expected):
    assert macs(Call(function), *shapes) == expected


def footprint(model, shape, at=0.5):
    """Return how many input rows and columns one output position near ``at`` really sees."""
    x = torch.rand(shape, requires_grad=True)
    y = model.eval()(x)
    y[0, :, int(at * y.shape[2]), int(at * y.shape[3])].sum().backward()
    seen = x.grad[0].abs().sum(0) > 0
    rows, columns = seen.any(1).nonzero().flatten(), seen.any(0).nonzero().flatten()
    return int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide = nn.Conv2d(2, 2, 7, padding=3)
        self.narrow = nn.Conv2d(2, 2, 3, padding=1)
        self.last = nn.Conv2d(4, 2, 3, stride=2)

    def forward(self, x):
        x = torch.cat([self.wide(x), self.narrow(x)], 1)
        return self.last(x) + F.avg_pool2d(x, 3, 2)[:, :2]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (nn.Sequential(nn.Conv2d(2, 2, (3, 5)), nn.Conv2d(2, 2, 3, dilation=2)), (7, 9)),
        (nn.Sequential(nn.Conv2d(2, 2, 3, 2), nn.AvgPool2d(3, 2), nn.Conv2d(2, 2, 2)), (11, 11)),
        (nn.Sequential(nn.Conv2d(2, 2, 3), nn.ConvTranspose2d(2, 2, 4, 2, 1)), (4, 4)),
        (nn.Sequential(nn.Conv2d(2, 2, 2, 2), nn.Upsample(scale_factor=2), nn.Conv2d(2, 2, 3)),
         (4, 4)),
        (nn.Sequential(nn.Conv2d(2, 2, 3, padding="same"), nn.ZeroPad2d(2), nn.Conv2d(2, 2, 4)),
         (6, 6)),
        (Branches(), (9, 9)),
    ],
)  # fmt: skip
def test_the_receptive_field_is_the_footprint_of_the_gradient(model, expected):
    shape = (1, 2, 41, 41)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_().add_(0.1)  # so that no path cancels another
    sizes = [footprint(model, shape, at) for at in (0.45, 0.5, 0.55)]
    assert trace_shapes(model, shape)[-1].receptive_field == tuple(map(max, *sizes)) == expected


def hint_of(model, *inputs):
    with pytest.raises(ShapeError) as caught:
        trace_shapes(model, *inputs)
    assert caught.value.hint in str(caught.value)
    return caught.value.hint


def test_a_wrong_channel_count_names_the_layer_and_a_way_out():
    assert "in_channels=3, or an input of 1 channel" in hint_of(Digits(), (1, 3, 32, 32))
    assert trace_shapes(nn.Conv2d(3, 6, 3), (1, 3, 32, 32)).output_shape == (1, 6, 30, 30)


def test_channels_that_stand_last_are_to_be_moved():
    assert "x.permute(0, 3, 1, 2)" in hint_of(nn.Conv2d(3, 6, 3), (2, 32, 32, 3))
    x = torch.ones(2, 32, 32, 3).permute(0, 3, 1, 2)
    assert trace_shapes(nn.Conv2d(3, 6, 3), x).output_shape == (2, 6, 30, 30)


def test_an_input_too_small_for_a_window_gets_sizes_that_run_to_the_end():
    assert "an input of 30 to 33 pixels a side" in hint_of(Digits(), (1, 1, 4, 4))
    deep = nn.Sequential(*[nn.Sequential(nn.Conv2d(1, 1, 3), nn.MaxPool2d(2)) for _ in range(3)])
    hint = hint_of(deep, (1, 1, 5, 5))
    assert "an input of at least 22 pixels a side" in hint
    assert trace_shapes(deep, (1, 1, 22, 22)).output_shape == (1, 1, 1, 1)


def test_an_input_too_small_for_a_transposed_convolution_gets_a_size_that_is_large_enough():
    model = nn.ConvTranspose2d(3, 6, 2, padding=1)
    hint = hint_of(model, (2, 3, 1, 9))
    assert "padding=0, or an input of at least 2 pixels a side" in hint
    assert trace_shapes(model, (2, 3, 2, 9)).output_shape == (2, 6, 1, 8)


def test_a_missing_batch_dimension_is_recognised_where_it_hurts():
    assert "x.unsqueeze(0)" in hint_of(Digits(), (1, 32, 32))
    assert trace_shapes(Digits(), torch.ones(1, 32, 32).unsqueeze(0)).output_shape == (1, 10)
    assert "x[None, None]" in hint_of(Digits(), (32, 32))
    assert trace_shapes(Digits(), torch.ones(32, 32)[None, None]).output_shape == (1, 10)
    assert "x.unsqueeze(0)" in hint_of(nn.BatchNorm2d(3), (3, 4, 4))
    assert trace_shapes(nn.BatchNorm2d(3), (1, 3, 4, 4)).output_shape == (1, 3, 4, 4)


@pytest.mark.parametrize(
    ("model", "x", "layer"),
    [
        (Digits(), torch.zeros(1, 1, 32, 32, dtype=torch.float64), "conv1"),
        (Digits(), torch.zeros(1, 1, 32, 32, dtype=torch.int64), "conv1"),
        (Digits(), torch.zeros(1, 1, 32, 32, dtype=torch.uint8), "conv1"),
        (nn.Sequential(nn.Linear(4, 3)), torch.ones(2, 4, dtype=torch.int64), "0"),
        (nn.Sequential(nn.BatchNorm2d(3)), torch.ones(2, 3, 4, 4, dtype=torch.int64), "0"),
        (nn.Sequential(nn.BatchNorm1d(80)), torch.ones(2, 80, dtype=torch.float64), "0"),
        (nn.Sequential(nn.LayerNorm(80)), torch.ones(2, 80, dtype=torch.float64), "0"),
        (nn.Sequential(nn.GroupNorm(2, 80)), torch.ones(2, 80, dtype=torch.float64), "0"),
        (nn.Sequential(nn.PReLU(80)), torch.ones(2, 80, dtype=torch.float64), "0"),
        (nn.Sequential(nn.LSTM(4, 3)), torch.ones(5, 2, 4, dtype=torch.int64), "0"),
        (nn.Sequential(nn.ConvTranspose2d(1, 2, 3)), torch.ones(1, 1, 4, 4) > 0, "0"),
    ],
    ids=lambda value: type(value[0]).__name__ if isinstance(value, nn.Sequential) else None,
)
def test_a_wrong_dtype_is_to_be_converted(model, x, layer):
    with pytest.raises((RuntimeError, ValueError)):
        model(x)
    with pytest.raises(ShapeError) as caught:
        trace_shapes(model, x)

    assert f"{layer} got an input of {x.dtype}, wants torch.float32" in str(caught.value)
    assert caught.value.hint == "Use x.to(torch.float32) on the input."
    assert caught.value.step.module == layer
    model(x.to(torch.float32))
    trace_shapes(model, x.to(torch.float32))


@pytest.mark.parametrize("layer", [nn.Embedding(5, 3), nn.EmbeddingBag(5, 3)], ids=["one", "bag"])
def test_indices_of_a_wrong_dtype_are_to_be_converted(layer):
    model = nn.Sequential(layer)
    x = torch.ones(2, 4)
    with pytest.raises(ShapeError, match=r"0 got indices of torch\.float32, wants torch\.int64"):
        trace_shapes(model, x)
    assert hint_of(model, x) == hint_of(model, (2, 4)) == "Use x.long() on the input."
    assert trace_shapes(model, x.long()).output_shape == tuple(model(x.long()).shape)


def test_a_mask_that_holds_no_truth_values_is_to_be_converted():
    class Masked(nn.Module):
        def forward(self, x, mask):
            return x.masked_fill(mask, 0.0)

    mask = torch.ones(9, 9, dtype=torch.int64)
    assert "mask.bool()" in hint_of(Masked(), (9, 9), mask)
    assert trace_shapes(Masked(), (9, 9), mask.bool()).output_shape == (9, 9)


@pytest.mark.filterwarnings("ignore:.torch.jit")  # a DeprecationWarning or a FutureWarning
def test_a_frozen_script_whose_weights_are_part_of_its_code_runs_for_real():
    model = torch.jit.freeze(torch.jit.script(nn.Sequential(nn.Linear(4, 8), nn.ReLU()).eval()))
    trace = trace_shapes(model, (2, 4))
    assert trace.output_shape == (2, 8)
    assert "RecursiveScriptModule asks for a value" in trace.ran_for_real


def test_truth_values_are_not_subtracted():
    ones = torch.ones(300, 300, dtype=torch.bool)
    with pytest.raises(RuntimeError, match="logical_not"):
        trace_shapes(Call(lambda mask: 1 - mask), ones)


def test_parameters_in_float32_beside_half_an_input_are_as_good_as_to_torch():
    for layer in (nn.BatchNorm1d(80), nn.LayerNorm(80), nn.GroupNorm(2, 80)):
        x = torch.ones(2, 80, dtype=torch.bfloat16)
        assert trace_shapes(layer, x).output_shape == tuple(layer(x).shape)


def test_what_ran_for_real_is_told_without_the_file_which_differs_from_run_to_run():
    class Asks(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    for model, where in [(nn.Sequential(Asks()), "module '0'"), (Asks(), "the model")]:
        trace = trace_shapes(model, (2, 3))
        assert f"bool asks for a value in {where}" in trace.ran_for_real
        assert f"{__file__}:" in trace.ran_for_real
        for shown in (str(trace), trace._repr_html_()):
            assert "bool asks for a value in" in shown
            assert __file__ not in shown


def test_sizes_that_do_not_add_up_are_to_be_padded():
    a, b = (1, 8, 32, 32), (1, 8, 29, 30)
    assert "F.pad(x, (1, 1, 1, 2)) on the one of (1, 8, 29, 30)" in hint_of(Call(torch.add), a, b)
    mended = Call(lambda x, y: x + F.pad(y, (1, 1, 1, 2)))
    assert trace_shapes(mended, a, b).output_shape == a
    joined = Call(lambda x, y: torch.cat([x, y], 1))
    assert "F.pad(x, (1, 1, 1, 2))" in hint_of(joined, a, b)
    mended = Call(lambda x, y: torch.cat([x, F.pad(y, (1, 1, 1, 2))], 1))
    assert trace_shapes(mended, a, b).output_shape == (1, 16, 32, 32)


def test_channels_or_features_that_do_not_add_up_need_a_layer_between():
    a, b = (1, 8, 4, 4), (1, 6, 4, 4)
    assert "nn.Conv2d(6, 8, 1)" in hint_of(Call(torch.add), a, b)
    layer = nn.Conv2d(6, 8, 1)
    assert trace_shapes(Call(lambda x, y: x + layer(y)), a, b).output_shape == a
    assert "nn.Linear(3, 5)" in hint_of(Call(torch.mul), (2, 3), (2, 5))


def test_other_layers_name_the_argument_to_change():
    assert "num_features=4" in hint_of(nn.BatchNorm1d(3), (2, 4))
    assert "input_size=4" in hint_of(nn.LSTM(5, 6), (7, 2, 4))
    assert "normalized_shape=(4,)" in hint_of(nn.LayerNorm(3), (2, 4))
    assert ".transpose(-2, -1)" in hint_of(Call(torch.matmul), (2, 3), (4, 3))
    assert "x.flatten(1)" in hint_of(Call(lambda x: x.view(-1, 5)), (2, 3))


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (F.linear, [(), (4, 3)]),
        (F.linear, [(3,), ()]),
        (torch.matmul, [(), (4, 4)]),
        (torch.mm, [(4,), (4, 4)]),
        (torch.bmm, [(2, 3, 4), (1, 4, 5)]),
        (torch.mv, [(4, 4), (4, 4)]),
        (torch.dot, [(4, 4), (4, 4)]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_product_that_torch_refuses_is_a_shape_error(function, shapes):
    operands = [torch.ones(shape) for shape in shapes]
    with pytest.raises(RuntimeError):
        function(*operands)
    with pytest.raises(ShapeError, match=f"^{function.__name__} "):
        trace_shapes(Call(function), *operands)


def test_a_pool_to_one_position_takes_what_torch_takes():
    for pool, shape in [
        (nn.AdaptiveAvgPool2d(1), (3, 12)),
        (nn.AdaptiveAvgPool2d(1), (2, 3, 4, 5, 6)),
    ]:
        assert trace_shapes(pool, shape).output_shape == tuple(pool(torch.ones(shape)).shape)
    for pool in (nn.AdaptiveAvgPool1d(1), nn.AdaptiveMaxPool2d(1), nn.AdaptiveAvgPool2d(2)):
        with pytest.raises(RuntimeError):
            pool(torch.ones(12))
        with pytest.raises(ShapeError):
            trace_shapes(pool, (12,))


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.InstanceNorm2d(3), (2, 3, 1, 1)),
        (nn.GroupNorm(4, 4), (1, 4)),
        (nn.GroupNorm(2, 4, affine=False), (2, 5, 3)),
        (nn.LocalResponseNorm(2), (2, 3)),
    ],
    ids=str,
)
def test_a_norm_that_torch_refuses_is_a_shape_error(norm, shape):
    with pytest.raises((RuntimeError, ValueError)):
        norm(torch.ones(shape))
    with pytest.raises(ShapeError):
        trace_shapes(norm, shape)


@pytest.mark.parametrize(
    ("function", "names", "shapes"),
    [
        (torch.mm, ("input", "mat2"), [(2, 3), (3, 4)]),
        (torch.bmm, ("input", "mat2"), [(5, 2, 3), (5, 3, 4)]),
        (torch.mv, ("input", "vec"), [(2, 3), (3,)]),
        (torch.addmm, ("input", "mat1", "mat2"), [(2, 4), (2, 3), (3, 4)]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_product_knows_its_operands_by_torchs_names(function, names, shapes):
    operands = [torch.ones(shape) for shape in shapes]
    (by_name,) = trace_shapes(Call(function), **dict(zip(names, operands, strict=True)))
    (by_place,) = trace_shapes(Call(function), *operands)
    assert by_name[4:9] == by_place[4:9]
    assert by_name.output_shape == tuple(function(*operands).shape)


def test_arguments_by_names_of_their_own_are_understood():
    assert trace_shapes(Call(lambda x: x.reshape(shape=(3, 2))), (2, 3)).output_shape == (3, 2)
    swapped = Call(lambda x: torch.swapaxes(x, axis0=0, axis1=1))
    assert trace_shapes(swapped, (2, 3)).output_shape == (3, 2)
    written = Call(lambda x: torch.exp(x, out=torch.empty(300, 300)))
    assert trace_shapes(written, (300, 300)).output_shape == (300, 300)


def test_an_average_over_volumes_needs_room_without_its_padding():
    volume = torch.ones(1, 6, 9, 3, 8)
    pool = nn.AvgPool3d(4, stride=2, padding=2, ceil_mode=True)
    with pytest.raises(RuntimeError, match="smaller than kernel size"):
        pool(volume)
    assert "an input of at least 4 pixels a side" in hint_of(pool, volume)
    assert trace_shapes(pool, (1, 6, 9, 4, 8)).output_shape == pool(torch.ones(1, 6, 9, 4, 8)).shape


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.grow = nn.LayerNorm(width), nn.Linear(width, 4 * width)
        self.shrink = nn.Linear(4 * width, width)

    def forward(self, x):
        return x + self.shrink(F.gelu(self.grow(self.norm(x))))


def test_every_step_is_in_the_html_unless_folded():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.Sequential(Block(4), nn.ReLU(), shared), Block(4), Block(4))
    trace = trace_shapes(model, (2, 4))
    page = trace._repr_html_()
    shown = [op for op in re.findall(r"<td[^>]*>([^<]*)</td>", page) if op.isidentifier()]
    assert shown == [step.op for step in trace[:-5]]


def test_by_module_has_one_row_a_call_nested():
    fc = nn.Linear(4, 4)
    rows = trace_shapes(nn.Sequential(fc, nn.Sequential(nn.ReLU(), fc)), (2, 4)).by_module()
    assert [(row.module, row.call, row.depth) for row in rows] == [
        ("", 0, 0), ("0", 0, 1), ("1", 0, 1), ("1.0", 0, 2), ("0", 1, 2)
    ]  # fmt: skip
    assert [row.num_params for row in rows] == [20, 20, 0, 0, 0]
    assert [row.num_macs for row in rows] == [64, 32, 32, 0, 32]


@pytest.mark.parametrize(
    ("op", "shapes", "groups", "says"),
    [
        (F.conv2d, [(1, 1, 8, 8), (1, 1, 3)], 1, "a weight of 4 dimensions, but got 3"),
        (F.conv3d, [(1, 1, 8, 8, 8), (1, 1, 3, 3)], 1, "a weight of 5 dimensions, but got 4"),
        (F.conv_transpose2d, [(1, 1, 8, 8), (1, 1, 3)], 1, "a weight of 4 dimensions, but got 3"),
        (
            F.conv2d,
            [(1, 1, 8, 8), (4, 1, 3, 3), (1,)],
            1,
            r"a bias of shape \(4,\), but got \(1,\)",
        ),
        (F.conv_transpose1d, [(1, 2, 8), (2, 3, 3), (3,)], 2, r"of shape \(6,\), but got \(3,\)"),
        (F.conv2d, [(1, 2, 8, 8), (3, 1, 3, 3)], 2, "groups=2 does not divide"),
    ],
)
def test_a_convolution_refuses_the_weights_that_torch_refuses(op, shapes, groups, says):
    class Functional(nn.Module):
        def forward(self, *operands):
            return op(*operands, groups=groups)

    operands = [torch.ones(shape) for shape in shapes]
    with pytest.raises(RuntimeError):
        op(*operands, groups=groups)
    with pytest.raises(RuntimeError, match=says):
        trace_shapes(Functional(), *operands)


@pytest.mark.parametrize(
    "compute",
    [
        lambda x, w: F.adaptive_max_pool1d(x, 2),
        lambda x, w: F.max_pool1d(x, 2).relu(),
        lambda x, w: F.instance_norm(x),
        lambda x, w: x.repeat_interleave(2, dim=1),
        lambda x, w: x.transpose(1, 2).contiguous(),
        lambda x, w: x @ w.T,
        lambda x, w: x.flatten(1)[:, 1:] + w.view(-1)[:1],
    ],
)
def test_activations_are_the_tensors_with_memory_of_their_own(compute):
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(5, 6))

        def forward(self, x):
            return compute(x, self.weight)

    class OwnMemory(TorchFunctionMode):
        nbytes = 0

        def __torch_function__(self, func, types, args=(), kwargs=None):
            output = func(*args, **(kwargs or {}))
            if isinstance(output, torch.Tensor):
                inputs = [one for one in args if isinstance(one, torch.Tensor)]
                shared = {one.untyped_storage().data_ptr() for one in inputs}
                if output.untyped_storage().data_ptr() not in shared:
                    self.nbytes += output.nbytes
            return output

    model, x = Functional(), torch.ones(2, 4, 6)
    with OwnMemory() as real:
        model(x)
    assert trace_shapes(model, x).activation_bytes == real.nbytes
