"""Exercises of page 02: sizes, what keeps them, what breaks a network, and what a number sees."""

import random
from types import FunctionType

import torch
from torch import nn

from blitz_helpers.exercises._exercise import Wrong, attempt, exercise, expect_shape, page
from blitz_helpers.shapes import conv_output_size, pool_output_size


@exercise(
    wants=int,
    question="""\
**Predict.** `F.max_pool2d(x, 3, stride=2)` gets feature maps of 20x20. How many numbers a side
come out?""",
    hints=(
        "How many steps of 2 can a window of 3 take before it leaves a side of 20?",
        "The first place is free. (20 - 3) / 2 further steps fit, and only whole ones count.",
    ),
    solution="answer = (20 - 3) // 2 + 1",
    why="Beside the window there is room for 8 whole steps of 2, and the first place is free: 9.",
)
def pooled_size(answer: int) -> None:
    """Compare with the size formula, and name the usual slips."""
    if answer == 10:
        raise Wrong("That rounds up. A step that does not fit whole is not taken.")
    if answer == 8:
        raise Wrong("That counts the steps. The first place needs no step.")
    if answer == 18:
        raise Wrong("That is right for a stride of 1. Here the window moves by 2.")
    if answer == 6:
        raise Wrong("That is right for a stride of 3, the window's own size. Here it is 2.")
    if answer != pool_output_size(20, 3, stride=2):
        raise Wrong("Count the places of the window's left edge: 0, 2, 4, and so on.")


@exercise(
    wants=FunctionType,
    question="""\
**Write** a function `same_padding(kernel_size, dilation)` that returns the padding with which a
convolution of stride 1 leaves the size as it is. The kernel size is odd.""",
    hints=(
        "Without padding, how much smaller does a window of 3 make a side? And a window of 5?",
        "A dilated window spans `dilation * (kernel_size - 1) + 1` pixels, and so takes away that "
        "many less one.",
        "Padding is added on both sides, so each side gets half of what is taken away.",
    ),
    solution="""\
def answer(kernel_size, dilation):
    return dilation * (kernel_size - 1) // 2""",
    why="A window takes away its span less one, `dilation * (kernel_size - 1)`, and padding gives "
    "half of that back on each side.",
)
def same_padding(answer: FunctionType) -> None:
    """Lay a convolution with the padding on sides that the learner did not see."""
    draw = random.Random(0)
    for _ in range(20):
        kernel_size, dilation = draw.choice((1, 3, 5, 7, 9)), draw.randint(1, 4)
        padding = attempt(answer, kernel_size, dilation)
        tried = f"For kernel_size={kernel_size} and dilation={dilation}"
        if isinstance(padding, float) and padding.is_integer():
            raise Wrong(f"{tried} you return {padding}, and padding must be whole: use `//`.")
        if not isinstance(padding, int) or padding < 0:
            raise Wrong(f"{tried} you return {padding!r}, and padding is a whole number from 0.")
        needed = dilation * (kernel_size - 1) // 2
        if padding == needed:
            continue
        if padding == 2 * needed:
            raise Wrong(f"{tried} you return {padding}. Padding is added on both sides: halve it.")
        if padding == (kernel_size - 1) // 2:
            raise Wrong(f"{tried} you return {padding}, as without dilation. What does it span?")
        size = max(2 * needed + 1, 32)
        came_out = conv_output_size(size, kernel_size, 1, padding, dilation)
        raise Wrong(f"{tried} you return {padding}, which makes a side of {size} {came_out} long.")


@exercise(
    wants=nn.Module,
    question="""\
**Find the fault.** This network should give ten scores for each of N digits of 1x28x28. It raises
an error. Mend it, and pass the network that you made.

```python
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
        "Work out the sides: 28, then behind `conv1`, the first pooling, `conv2`, the second.",
        "28 goes 24, 12, 12, 6. What does `fc` expect?",
        "Either `fc` takes 16 * 6 * 6 numbers, or `conv1` keeps the 28 with a padding of 2.",
    ),
    solution="""\
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
    why="`conv1` has no padding, so 28 becomes 24, then 12, 12, 6: `fc` gets 16 * 6 * 6 numbers.",
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


@exercise(
    wants=FunctionType,
    question="""\
**Half an hour.** Write a receptive-field calculator: `receptive_fields(layers)` gets a list of
pairs `(kernel_size, stride)`, one for each convolution or pooling, and returns a list with what one
number behind each of them sees of the input, in pixels a side.""",
    hints=(
        "Before the first layer, a number sees one pixel: itself.",
        "A window of `kernel_size` covers `kernel_size - 1` further numbers of the layer before. "
        "How many pixels lie between two of those?",
        "Two neighbours lie as many pixels apart as the product of all strides before this layer.",
    ),
    solution="""\
def answer(layers):
    sees, between, found = 1, 1, []
    for kernel_size, stride in layers:
        sees += (kernel_size - 1) * between
        between *= stride
        found.append(sees)
    return found""",
    why="Each window adds its further numbers, `kernel_size - 1`, as far apart as the strides "
    "before it have made them.",
)
def receptive_fields(answer: FunctionType) -> None:
    """Compare with the rule on random stacks of layers, and name the usual slips."""
    draw = random.Random(0)
    stacks = [[(3, 1)], [(3, 1), (2, 2), (3, 1), (2, 2)]]
    stacks += [
        [(draw.randint(1, 7), draw.randint(1, 3)) for _ in range(draw.randint(1, 6))]
        for _ in range(20)
    ]
    for layers in stacks:
        got = attempt(answer, layers)
        wanted = _fields(layers)
        if isinstance(got, tuple | list) and list(got) == wanted:
            continue
        said = f"For {layers} it should be {wanted}, but you return {got!r}."
        if isinstance(got, tuple | list) and list(got) == _fields(layers, own_stride_first=True):
            raise Wrong(f"{said} A layer's own stride counts for the layers behind it.")
        if isinstance(got, tuple | list) and list(got) == _fields([(k, 1) for k, _ in layers]):
            raise Wrong(f"{said} The strides move the numbers of a layer apart.")
        if isinstance(got, int) and got == wanted[-1]:
            raise Wrong(f"{said} Return a list, with a number for each layer.")
        raise Wrong(said)


def _fields(layers: list[tuple[int, int]], own_stride_first: bool = False) -> list[int]:
    sees, between, found = 1, 1, []
    for kernel_size, stride in layers:
        sees += (kernel_size - 1) * between * (stride if own_stride_first else 1)
        between *= stride
        found.append(sees)
    return found


page(__name__)
