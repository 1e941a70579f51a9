"""Exercises of page 02: sizes, what keeps them, what breaks a network, and what a number sees."""

import random
from types import FunctionType

import torch
from torch import nn

from blitz_helpers.exercises._exercise import exercise, page
from blitz_helpers.exercises._judging import Wrong, attempt, expect_shape, expect_value, shown
from blitz_helpers.network import Network
from blitz_helpers.shapes import pool_output_size


@exercise(
    question="""\
**Predict.** `F.max_pool2d(x, 3, stride=2)` gets feature maps of 20x20. How many numbers per side
come out?""",
    hints=(
        "How many steps of 2 can a window of 3 take before it leaves a side of 20?",
        "The first place is free. (20 - 3) / 2 further steps fit, and only whole ones count.",
    ),
    solution="answer = (20 - 3) // 2 + 1",
    why="Beside the window there is room for 8 whole steps of 2, and the first place is free: 9.",
)
def pooled_size(answer: float) -> None:
    slips = {
        9.5: "That counts half a step. A step that does not fit whole is not taken.",
        10: "That rounds up. A step that does not fit whole is not taken.",
        8: "That counts the steps. The first place needs no step.",
        18: "That is right for a stride of 1. Here the window moves by 2.",
        6: "That is right for a stride of 3, the window's own size. Here it is 2.",
    }
    otherwise = "Count the places of the window's left edge: 0, 2, 4, and so on."
    expect_value(answer, pool_output_size(20, 3, stride=2), slips, otherwise)


@exercise(
    question="""\
**Predict.** Images of which sides fit the classic network, `Network(kernel_size=5)`? Its `fc1`
takes 16 * 5 * 5 numbers. Pass all sides, as `(30, 31, 32, 33)` is right for windows of 3.""",
    hints=(
        "The second pooling must give 5. From which sides does it make 5?",
        "Before the second pooling 10 or 11, before the second convolution 14 or 15.",
        "Before the first pooling 28 to 31. From what does a window of 5 make those?",
    ),
    solution="answer = (32, 33, 34, 35)",
    why="The second pooling makes 5 from 10 or 11, the second convolution makes those from 14 or "
    "15, the first pooling those from 28 to 31, and the first convolution those from 32 to 35.",
)
def fitting_sides(answer: tuple[int, ...]) -> None:
    if sorted(answer) == [30, 31, 32, 33]:
        raise Wrong("Those are right for windows of 3.")
    if sorted(answer) == [28, 29, 30, 31]:
        raise Wrong("Those fit before the first pooling. `conv1` stands before it.")
    if answer == (32,):
        raise Wrong("32 fits. But a pooling may drop a pixel: which other sides fit?")
    if not answer:
        raise Wrong("At least one side fits: 32 does.")
    if len(set(answer)) < len(answer):
        raise Wrong("A side stands there twice.")
    if len(answer) == 2:
        raise Wrong("Each pooling may drop a pixel or not: each doubles the number of sides.")
    networks = {side: Network(input_size=side, kernel_size=5) for side in range(16, 48)}
    fitting = [side for side, net in networks.items() if net.fc1.in_features == 16 * 5 * 5]
    for side in answer:
        if side not in fitting:
            raise Wrong(f"{side} does not fit. Walk it through: window of 5, pooling, and again.")
    if len(answer) < len(fitting):
        raise Wrong(f"Those fit, but there are more than {len(answer)}.")


@exercise(
    question="""\
**Write** a function `same_padding(kernel_size, dilation)` for windows of *any* size, even ones too.
It returns two numbers of pixels, `(left, right)`: padded by these, a row keeps its length
in a convolution of stride 1. Where the two cannot be the same, `right` is larger by one.""",
    hints=(
        "Without padding, how much shorter does a window of 4 make a row?",
        "A window takes away its span less one, `dilation * (kernel_size - 1)`. That may be odd.",
        "Left gets half of it, rounded down. Right gets the rest.",
    ),
    solution="""\
def answer(kernel_size, dilation):
    taken = dilation * (kernel_size - 1)
    return taken // 2, taken - taken // 2""",
    why="A window takes away its span less one, and both sides together give it back. PyTorch's "
    '`padding="same"` does it in the same way.',
)
def same_padding(answer: FunctionType) -> None:
    """Try windows, even and odd, that the learner did not see."""
    draw = random.Random(0)
    windows = [(3, 1), *((draw.randint(1, 9), draw.randint(1, 4)) for _ in range(20))]
    for kernel_size, dilation in windows:
        padding = attempt(answer, kernel_size, dilation)
        tried = f"For kernel_size={kernel_size} and dilation={dilation} you return {shown(padding)}"
        if not isinstance(padding, tuple | list) or len(padding) != 2:
            raise Wrong(f"{tried}. Return two numbers, `(left, right)`.")
        left, right = padding
        if any(isinstance(each, float) for each in padding):
            raise Wrong(f"{tried}. Pixels are whole: use `//`.")
        taken = dilation * (kernel_size - 1)
        slips = {
            (taken, taken): f"{tried}. That is right for both sides together: share it.",
            ((kernel_size - 1) // 2, kernel_size // 2): (
                f"{tried}, as without dilation. How wide is the span?"
            ),
            (taken - taken // 2, taken // 2): (
                f"{tried}. It is the right side that gets the odd pixel."
            ),
            (taken // 2, taken // 2): (
                f"{tried}, and the row is one shorter than before: {taken} is odd."
            ),
        }
        otherwise = f"{tried}, but the window takes away {taken} pixels."
        expect_value((left, right), (taken // 2, taken - taken // 2), slips, otherwise)


@exercise(
    question="""\
**Find the fault.** This network should give ten scores for each of N digits of 1x28x28. It raises
an error. Mend it, and pass the network that you made.

```python
from torch import nn


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 5)
        self.conv2 = nn.Conv2d(8, 16, 5, padding=2)
        self.fc = nn.Linear(16 * 7 * 7, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc(torch.flatten(x, 1))
```""",
    hints=(
        "Work out the sides: 28, then after `conv1`, the first pooling, `conv2`, the second.",
        "28 goes 24, 12, 12, 6. What does `fc` expect?",
        "Either `fc` takes 16 * 6 * 6 numbers, or `conv1` keeps the 28 with a padding of 2.",
    ),
    solution="""\
from torch import nn


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 5)
        self.conv2 = nn.Conv2d(8, 16, 5, padding=2)
        self.fc = nn.Linear(16 * 6 * 6, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc(torch.flatten(x, 1))


answer = Reader()""",
    why="Without padding `conv1` makes 24 of 28, and 12, 12, 6 follow, so `fc` would get 16 * 6 * "
    "6 numbers and not 16 * 7 * 7. Either end can be mended.",
)
def mended_reader(answer: nn.Module) -> None:
    """Run the network on batches that the learner did not see, together and one by one."""
    generator = torch.Generator().manual_seed(0)
    answer.eval()
    for batch in (1, 3, 12):
        digits = torch.randn(batch, 1, 28, 28, generator=generator)
        with torch.no_grad():
            scores = attempt(answer, digits)
        tried = f"A batch of {batch} digits of 1x28x28"
        expect_shape(scores, (batch, 10), tried)
        with torch.no_grad():
            alone = torch.cat([attempt(answer, digit[None]) for digit in digits])
        if not torch.allclose(scores, alone, atol=1e-4):
            raise Wrong(f"{tried} gets other scores together than alone: something mixes them.")
        if batch > 1 and (scores == scores[0]).all():
            raise Wrong(f"{tried}: all get the same scores. They should depend on the digit.")


@exercise(
    question="""\
**Half an hour.** The page says how many pixels a number sees. Which ones are they? Write
`receptive_field(layers, number)`, which looks along one side of the image. Each layer, from the
first on, is a tuple `(kernel_size, stride, padding, dilation)`, and a pooling is a layer too.
`number` counts the numbers after the last layer, from 0. Return `(first, last)`, the first and the
last pixel that this number sees. Pixels are counted from 0; those of the padding have numbers too,
such as -1 just before the image, and you return them as they are.""",
    hints=(
        "Take one layer, with a stride of 2. Where does the window of number 0 begin, and where "
        "that of number 5?",
        "The window of a number begins at `number * stride - padding`, and its last cell lies "
        "`dilation * (kernel_size - 1)` further on.",
        "Go backward, from the last layer to the first: the first of all numbers seen so far gives "
        "the new first, and the last of them the new last.",
    ),
    solution="""\
def answer(layers, number):
    first = last = number
    for kernel_size, stride, padding, dilation in reversed(layers):
        first = first * stride - padding
        last = last * stride - padding + dilation * (kernel_size - 1)
    return first, last""",
    why="Going backward takes two lines: the window of the first number seen begins at the new "
    "first, and the window of the last number ends at the new last.",
)
def receptive_field(answer: FunctionType) -> None:
    """Compare on random stacks of layers, and name the usual slips."""
    draw = random.Random(0)
    stacks = [[(3, 1, 0, 1)], [(3, 1, 0, 1), (2, 2, 0, 1)], [(5, 2, 0, 1), (3, 3, 0, 1)]]
    stacks += [[(3, 1, 1, 1), (2, 2, 0, 1)], [(3, 1, 0, 2)], [(3, 2, 0, 2), (3, 1, 2, 2)]]
    stacks += [[_drawn(draw) for _ in range(draw.randint(1, 6))] for _ in range(20)]
    for layers in stacks:
        number = draw.randint(1, 9)
        got = attempt(answer, layers, number)
        first, last = _field(layers, number)
        said = f"For {layers} and number {number} it is {(first, last)}, not {shown(got)}."
        if not isinstance(got, tuple | list) or len(got) != 2:
            raise Wrong(f"{said} Return two numbers, the first pixel and the last.")
        slips = {
            (first, last + 1): "That is one too far: the last pixel that it sees is wanted.",
            (first, last - first + 1): "That is how many it sees. Which one is the last?",
            _field(layers[::-1], number): "Go back: begin with the last layer.",
            _field([(k, s, 0, d) for k, s, _, d in layers], number): (
                "A border moves every window by its width, towards the start."
            ),
            _field([(k, s, p, 1) for k, s, p, _ in layers], number): (
                "Dilation pulls the cells of a window apart."
            ),
            (max(first, 0), last): "Keep pixels below 0: they lie in the border.",
        }
        told = {slip: f"{said} {reply}" for slip, reply in slips.items()}
        expect_value(tuple(got), (first, last), told, said)


_Layer = tuple[int, int, int, int]


def _drawn(draw: random.Random) -> _Layer:
    return draw.randint(1, 7), draw.randint(1, 3), draw.randint(0, 3), draw.randint(1, 3)


def _field(layers: list[_Layer], number: int) -> tuple[int, int]:
    first = last = number
    for kernel_size, stride, padding, dilation in reversed(layers):
        first = first * stride - padding
        last = last * stride - padding + dilation * (kernel_size - 1)
    return first, last


page(__name__)
