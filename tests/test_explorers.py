"""What is drawn for a state is what torch and `shapes` say; a model is left as it was."""

import copy
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from blitz_helpers import (
    DigitState,
    Network,
    WindowState,
    conv_arithmetic,
    conv_transpose_arithmetic,
    explore_digit,
    explore_window,
    load_mnist,
    pool_arithmetic,
)
from blitz_helpers.explorers import _explorer
from blitz_helpers.explorers._ink import ink
from blitz_helpers.explorers._reading import read
from blitz_helpers.explorers.digit import digit_view
from blitz_helpers.explorers.window import LIMITS, OPS, window_view

ARITHMETIC = {
    "conv2d": conv_arithmetic,
    "max_pool2d": pool_arithmetic,
    "conv_transpose2d": conv_transpose_arithmetic,
}


def states(op, count, generator):
    """Draw settings, every other one a small padding so that most of them fit."""
    for number in range(count):
        drawn = {
            name: int(torch.randint(low, high + 1, (), generator=generator))
            for name, (low, high) in LIMITS.items()
        }
        if number % 2:
            drawn["padding"] %= 2
        yield WindowState(op, **drawn, row=9999, column=9999)


def as_numbers(values):
    return torch.tensor([[number(text) for text in row] for row in values]).double()


def number(text):
    return float(text.replace("\N{MINUS SIGN}", "-").replace("\N{INFINITY}", "inf"))


def output_of(view):
    """Return what torch makes of the view's own input and kernel."""
    state, border = view.state, view.left.border
    values = as_numbers(view.left.values)
    image = values[border : len(values) - border, border : len(values) - border][None, None]
    settings = {"stride": state.stride, "padding": state.padding, "dilation": state.dilation}
    if state.op == "max_pool2d":
        return F.max_pool2d(image, state.kernel_size, **settings)[0, 0]
    kernel = as_numbers(view.kernel.values)[None, None]
    return getattr(F, state.op)(image, kernel, **settings)[0, 0]


@pytest.mark.parametrize("op", OPS)
def test_in_the_last_place_the_output_is_torchs_and_the_sum_that_of_shapes(op, generator):
    fitting = 0
    for state in states(op, 60, generator):
        view = window_view(state)
        settings = (state.size, state.kernel_size, state.stride, state.padding)
        if view.problem:
            assert view.right is None
            with pytest.raises(RuntimeError):
                output_of(view)
            with pytest.raises(ValueError, match=r"padding|fit") as refused:
                ARITHMETIC[op](*settings, dilation=state.dilation)
            assert view.problem == str(refused.value)
            continue
        fitting += 1
        wanted = output_of(view)
        border = view.right.border
        drawn = [row[border : len(row) - border] for row in view.right.values]
        drawn = drawn[border : len(drawn) - border]
        untouched = op == "conv_transpose2d"  # where no window lays anything down
        shown = [[text or "0" if untouched else text for text in row] for row in drawn]
        assert torch.equal(as_numbers(shown), wanted)
        assert view.sum == ARITHMETIC[op](*settings, dilation=state.dilation)
        assert view.sum.endswith(f"= {len(wanted)}")
        assert view.right.title == f"output, {len(wanted)}x{len(wanted)}"
    assert fitting > 15


@pytest.mark.parametrize("op", ["conv2d", "max_pool2d"])
def test_the_window_covers_what_torch_unfolds(op, generator):
    for state in states(op, 20, generator):
        first = window_view(replace(state, row=0, column=1))
        if first.problem:
            continue
        at, cells = first.left.at, first.left.cells
        values = as_numbers(first.left.values)
        under = values[at[0] :, at[1] :][list(cells)][:, list(cells)]
        unfolded = F.unfold(values[None, None], state.kernel_size, state.dilation, 0, state.stride)
        column = min(1, len(first.right.places) - 1)
        assert torch.equal(under.flatten(), unfolded[0, :, column])


def test_the_output_fills_up_place_by_place():
    state = WindowState(size=5, stride=2, padding=1)
    for row in range(3):
        for column in range(3):
            view = window_view(replace(state, row=row, column=column))
            filled = [text != "" for line in view.right.values for text in line]
            assert filled == [n <= 3 * row + column for n in range(9)]


@pytest.mark.parametrize("kernel_size", [1, 2, 3])
def test_the_sum_of_a_place_is_right(kernel_size):
    view = window_view(WindowState(size=4, kernel_size=kernel_size, padding=1, row=1, column=2))
    told = view.told.partition(": ")[2].replace("\N{MINUS SIGN}", "-")
    left, right = told.split(" = ")
    assert eval(left) == int(right) == output_of(view)[1, 2]


def test_pooling_tells_the_largest_and_large_windows_are_not_written_out():
    view = window_view(WindowState("max_pool2d", size=4, kernel_size=2, stride=2))
    assert view.told.startswith("Row 0, column 0 of the output: the largest of ")
    assert view.told.endswith(f" is {view.right.values[0][0]}")
    assert "16 numbers, each times its weight" in window_view(WindowState(kernel_size=4)).told
    large = WindowState("max_pool2d", kernel_size=4)
    assert "the largest of the 16 numbers" in window_view(large).told


def test_a_transposed_window_adds_to_what_stands_there():
    state = WindowState("conv_transpose2d", size=2, kernel_size=3, stride=1)
    view = window_view(state)
    assert view.right.values[0][3] == ""  # nothing was laid down there yet
    first = as_numbers([row[:3] for row in view.right.values[:3]])
    assert torch.equal(first, number(view.left.values[0][0]) * as_numbers(view.kernel.values))


def test_rows_that_no_window_reads_are_marked():
    view = window_view(WindowState("max_pool2d", size=5, kernel_size=2, stride=2))
    assert view.left.unread == (4,)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, r"size=0 cannot be drawn here: use a whole number from 1 to 12\."),
        ({"size": 13}, "from 1 to 12"),
        ({"kernel_size": 8}, "kernel_size=8 .* from 1 to 7"),
        ({"stride": 0}, "stride=0 .* from 1 to 5"),
        ({"padding": -1}, "padding=-1 .* from 0 to 5"),
        ({"dilation": 2.5}, r"dilation=2\.5 .* from 1 to 4"),
        ({"stride": True}, "stride=True"),
        ({"size": "6"}, "size='6'"),
        ({"op": "conv3d"}, "op='conv3d' is unknown: use 'conv2d', 'max_pool2d'"),
    ],
)
def test_a_window_that_cannot_be_drawn_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        explore_window(**settings)
    explorer = explore_window()
    with pytest.raises(ValueError, match=message):
        explorer.state = replace(explorer.state, **settings)
    assert explorer.state == WindowState()


def test_a_window_that_does_not_fit_says_why_and_which_would():
    view = window_view(WindowState(size=2, kernel_size=5, row=1))
    assert "kernel_size=5 does not fit an input of 2" in view.problem
    assert "Use padding=2, or an input of 5 or more." in view.problem
    assert (view.sum, view.told, view.right) == ("", "", None)
    assert not window_view(replace(view.state, padding=2)).problem
    assert not window_view(replace(view.state, size=5)).problem


# What both explorers share.


def hear(explorer, state, number="a/1"):
    """Let the explorer hear what a page sends."""
    explorer._hear(explorer._widget, {"state": state, "number": number}, [])
    return explorer._widget.view


def test_a_state_can_be_set_and_read_and_the_page_gets_it():
    explorer = explore_window()
    explorer.state = replace(explorer.state, stride=2, row=50)
    assert explorer.state == WindowState(stride=2, row=1)
    assert explorer._widget.view["state"] == vars(explorer.state)


def test_a_page_that_asks_is_answered_under_its_number():
    view = hear(explore_window(), vars(WindowState(stride=3)), "b/7")
    assert (view["answers"], view["state"]["stride"], view["problem"]) == ("b/7", 3, "")


@pytest.mark.parametrize("sent", [{"size": 99}, {"colour": 1}, None, [1]])
def test_a_page_that_asks_for_nonsense_gets_a_reply_and_nothing_changes(sent):
    explorer = explore_window()
    before = explorer._widget.view
    view = hear(explorer, sent)
    assert view["problem"]
    assert view["answers"] == "a/1"
    assert {**view, "problem": "", "answers": ""} == before
    assert explorer.state == WindowState()


def test_another_explorers_state_is_refused():
    with pytest.raises(TypeError, match="must be a WindowState, not a DigitState"):
        explore_window().state = DigitState()


@pytest.mark.parametrize(
    "explorer",
    [
        explore_window(),
        explore_window("conv_transpose2d", stride=2, dilation=2),
        explore_window(size=1),
        explore_digit(Network()),
    ],
    ids=["window", "transposed", "misfit", "digit"],
)
def test_it_shows_a_widget_and_beside_it_a_picture_in_words(explorer):
    bundle, _ = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["image/png"]
    assert bundle["text/plain"].startswith("Picture: ")
    assert 'alt="' in bundle["text/html"]
    assert "Run this cell" in bundle["text/html"]


def test_two_explorers_do_not_share_a_state():
    one, other = explore_window(), explore_window()
    one.state = replace(one.state, stride=2)
    assert other.state == WindowState()


def test_without_anywidget_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    _explorer._widget_class.cache_clear()
    with pytest.raises(ImportError, match="needs anywidget, which is not installed"):
        explore_window()
    _explorer._widget_class.cache_clear()


# The digit.


class Odd(nn.Module):
    """Has all that a careless reading would change."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4, 5)
        self.register_buffer("calls", torch.zeros(()))
        self.seen, self.last = [], None

    def forward(self, x):
        self.calls += 1
        self.seen.append(x)
        self.last = x
        x = F.relu(self.norm(self.conv(x)), inplace=True)
        x = F.dropout(x, training=True)  # draws random numbers in eval mode too
        return self.fc(self.drop(x.mean(dim=(2, 3))))


def pictured(state, size=(32, 32)):
    return ink(state.strokes, *size)


SEVEN = DigitState(strokes=[[(9, 8), (23, 8), (14, 25)]])


def test_scores_gradient_and_maps_are_those_of_the_model(generator):
    model = Network()
    view = digit_view(model, (32, 32), SEVEN)
    image = pictured(SEVEN)[None, None].requires_grad_()
    scores = model(image)[0]
    best = int(scores.argmax())
    assert [row.answer for row in view.rows] == list(range(10))
    torch.testing.assert_close(torch.tensor([row.score for row in view.rows]), scores.detach())
    probabilities = torch.tensor([row.probability for row in view.rows])
    torch.testing.assert_close(probabilities, scores.detach().softmax(0))
    assert view.answer == best
    assert f"The model says {best}, with a probability of" in view.told

    (gradient,) = torch.autograd.grad(scores[best], image)
    reading = read(model, pictured(SEVEN))
    torch.testing.assert_close(reading.gradient, gradient[0, 0].double())
    sent = torch.frombuffer(bytearray(view.gradient), dtype=torch.int8).view(32, 32)
    expected = gradient[0, 0] / gradient.abs().max() * 127
    assert (sent - expected).abs().max() <= 0.51

    with torch.no_grad():
        conv1 = model.conv1(image)
        pool1 = F.max_pool2d(F.relu(conv1), 2)
        conv2 = model.conv2(pool1)
        wanted = [conv1, F.relu(conv1), pool1, conv2, F.relu(conv2), F.max_pool2d(F.relu(conv2), 2)]
    names = ["conv1: conv2d", "relu", "max_pool2d", "conv2: conv2d", "relu", "max_pool2d"]
    assert [step.name for step in reading.maps] == names
    for step, maps in zip(reading.maps, wanted, strict=True):
        torch.testing.assert_close(step.values, maps[0])
    assert [(layer.shown, layer.height) for layer in view.layers] == [
        *((6, 30), (6, 30), (6, 15)),
        *((16, 13), (16, 13), (16, 6)),
    ]


def test_another_answer_can_be_asked_about():
    model = Network()
    image = pictured(SEVEN)[None, None].requires_grad_()
    (gradient,) = torch.autograd.grad(model(image)[0, 3], image)
    reading = read(model, pictured(SEVEN), answer=3)
    torch.testing.assert_close(reading.gradient, gradient[0, 0].double())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_model_is_as_it_was(mode):
    model = Odd()
    model.drop.eval()
    model(torch.rand(2, 1, 32, 32)).sum().backward()
    before = copy.deepcopy(model.state_dict())
    grads = [w.grad for w in model.parameters()]
    values = [grad.clone() for grad in grads]
    seen, last, random = [*model.seen], model.last, torch.get_rng_state()
    with mode():
        explorer = explore_digit(model)
        explorer.state = replace(explorer.state, answer=2)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == [True, True, True, False, True]
    assert all(w.grad is grad for w, grad in zip(model.parameters(), grads, strict=True))
    assert all(map(torch.equal, grads, values))
    assert model.last is last
    assert len(model.seen) == len(seen) == 1
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_model_that_raises_is_as_it_was():
    model = Network(input_size=28)
    with pytest.raises(ValueError, match="does not take"):
        explore_digit(model)
    assert all(module.training for module in model.modules())


def test_maps_are_those_before_an_operation_in_place():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.LazyLinear(3))
    model(torch.zeros(1, 1, 16, 16))
    picture = pictured(SEVEN)[:16, :16]
    first, second = read(model, picture).maps
    assert (first.name, second.name) == ("0: conv2d", "1: relu")
    torch.testing.assert_close(first.values, model[0](picture[None, None])[0].detach())
    assert first.values.min() < 0 <= second.values.min()


def test_other_sizes_dtypes_and_numbers_of_answers_do():
    wide = nn.Sequential(nn.Conv2d(1, 20, 3, padding=1), nn.Flatten(), nn.Linear(20 * 12 * 40, 37))
    view = digit_view(wide.double(), (12, 40), DigitState(strokes=[[(5, 5), (30, 8)]], answer=4))
    assert (view.height, view.width, len(view.picture)) == (12, 40, 12 * 40)
    assert len(view.rows) in (10, 11)
    assert 4 in [row.answer for row in view.rows]
    assert (view.layers[0].shown, view.layers[0].channels) == (16, 20)
    one = nn.Sequential(nn.Flatten(), nn.Linear(1024, 1))
    assert digit_view(one, (32, 32), SEVEN).layers == ()


def test_of_a_deep_model_a_few_steps_are_shown_and_it_says_so():
    model = nn.Sequential(
        *[nn.Conv2d(1, 1, 1) for _ in range(30)], nn.Flatten(), nn.Linear(1024, 2)
    )
    view = digit_view(model, (32, 32), SEVEN)
    assert view.left_out == "Shown are 12 of 30 steps."
    assert [view.layers[0].name, view.layers[-1].name] == ["0: conv2d", "29: conv2d"]


def test_scores_that_no_gradient_connects_to_the_picture_say_so():
    class Counting(nn.Module):
        def forward(self, x):
            return torch.stack([(x > 0.5).sum(), (x > 0.9).sum()])[None].float()

    view = digit_view(Counting(), (32, 32), SEVEN)
    assert view.gradient == b""
    assert "no gradient on the picture" in view.told
    assert "Picture" in repr(explore_digit(Counting())._repr_mimebundle_()[0]["text/plain"])


@pytest.mark.parametrize("state", [DigitState(), DigitState(strokes=[[(-50, -50), (-40, -50)]])])
def test_an_empty_drawing_gets_a_reply_and_no_answers(state):
    explorer = explore_digit(Network())
    explorer.state = state
    view = explorer._widget.view
    assert view["problem"].startswith("Nothing is drawn yet. Draw a digit")
    assert (view["rows"], view["layers"], view["gradient"]) == ((), (), b"")
    assert "Nothing is drawn" in explorer._repr_mimebundle_()[0]["text/plain"]
    explorer.state = SEVEN
    assert explorer._widget.view["problem"] == ""


def test_a_test_digit_is_that_of_the_data():
    images, labels = load_mnist("test").tensors
    view = digit_view(Network(), (32, 32), DigitState(index=12))
    sent = torch.frombuffer(bytearray(view.picture), dtype=torch.int8).view(32, 32)
    assert torch.equal(sent, (images[12, 0] * 127).round().to(torch.int8))
    assert view.told.startswith(f"Test digit 12 is a {labels[12]}. The model says")
    flat = nn.Sequential(nn.Flatten(), nn.Linear(16 * 20, 10))
    assert any(digit_view(flat, (16, 20), DigitState(index=12)).picture)


class Shaped(nn.Module):
    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, _):
        return self.output


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            Network(input_size=28),
            r"shape \(1, 1, 32, 32\).*size=.*\nfc1 got .* 26 to 29 pixels a side",
        ),
        (Network(in_channels=3), r"shape \(1, 1, 32, 32\)"),
        (nn.Bilinear(2, 2, 2), "does not take a picture(.|\n)*missing"),
        (Shaped(torch.zeros(10)), r"gives \(10,\), but scores of shape \(1, K\) are expected"),
        (Shaped(torch.zeros(1, 10, 2)), r"gives \(1, 10, 2\)"),
        (Shaped({"logits": torch.zeros(1, 10)}), "gives a dict, .* Wrap it in a module"),
        (Shaped(torch.full((1, 2), torch.nan)), r"not all finite numbers: \[nan, nan\]"),
        (Shaped(torch.zeros(1, 2, dtype=torch.long)), "not all finite numbers"),
        (nn.Linear(2, 2, device="meta"), "meta device"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(model, message):
    with pytest.raises(ValueError, match=message):
        explore_digit(model)


def test_the_size_that_the_refusal_advises_works():
    assert explore_digit(Network(input_size=28), size=28).state.strokes


@pytest.mark.parametrize("size", [7, 513, 32.0, True, (32,), (32, 32, 32), (32, 7), "32"])
def test_a_size_out_of_range_is_refused(size):
    with pytest.raises(ValueError, match="cannot be drawn on: use 8 to 512"):
        explore_digit(Network(), size=size)


def test_anything_but_a_model_is_refused():
    with pytest.raises(TypeError, match=r"must be an nn\.Module, not a type. Use Network\(\)"):
        explore_digit(Network)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"strokes": [[(1, 2, 3)]]}, r"strokes must be sequences of \(x, y\)"),
        ({"strokes": 5}, "strokes must be"),
        ({"strokes": [[]]}, "one point or more"),
        ({"strokes": [[(float("nan"), 0)]]}, "finite"),
        ({"index": 1000}, "index=1000: use None or a whole number, 0 to 999"),
        ({"index": -1}, "index=-1"),
        ({"answer": 1.5}, "answer=1.5: use None or a whole number, 0 or more"),
        ({"answer": 10}, "answer=10 is not one of the model's: use 0 to 9"),
    ],
)
def test_a_drawing_that_makes_no_sense_is_refused_and_the_old_one_stays(content, message):
    explorer = explore_digit(Network())
    before = explorer.state
    with pytest.raises(ValueError, match=message):
        explorer.state = replace(before, **content)
    assert explorer.state == before
    assert hear(explorer, {**vars(before), **content})["problem"]
    assert explorer.state == before


def test_ink_lies_where_the_pen_was():
    drawn = ink((((4.0, 16.0), (28.0, 16.0)), ((16.0, 6.0),)), 32, 32)
    assert drawn[15:17, 4:28].min() == 1
    assert drawn[:4].max() == drawn[20:].max() == 0
    assert drawn[6, 16] > 0.8  # a dot
    assert torch.equal(ink((), 8, 8), torch.zeros(8, 8))
