"""Exercises of page 01: numbers to count, squares that find edges, and what a module lists."""

from types import FunctionType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blitz_helpers.exercises._exercise import exercise, page
from blitz_helpers.exercises._judging import (
    Wrong,
    attempt,
    expect_shape,
    expect_tensor,
    expect_value,
)


@exercise(
    question="""\
**Predict.** `Network(kernel_size=5)` is your network with squares of 5x5 in place of 3x3. Larger
squares have fewer places, so the 16 maps after the second pooling are 5x5 in place of 6x6. Does
this network hold more numbers than the 81,194 of yours, or fewer? Give the count.""",
    hints=(
        "Take the five lines of `by_hand` from the page. What changes in each of them?",
        "A square has 5 * 5 weights now, and `fc1` gets 16 * 5 * 5 numbers. `fc2` and `fc3` stay.",
    ),
    solution="""\
conv1 = 6 * (1 * 5 * 5) + 6
conv2 = 16 * (6 * 5 * 5) + 16
fc1 = 120 * 400 + 120
fc2 = 84 * 120 + 84
fc3 = 10 * 84 + 10
answer = conv1 + conv2 + fc1 + fc2 + fc3""",
    why="Larger squares, and a smaller network: the convolutions gain 1,632 numbers, and `fc1` "
    "loses 21,120, since it gets 400 numbers in place of 576.",
)
def larger_squares(answer: int) -> None:
    slips = {
        81_194: "That is the network with squares of 3x3.",
        82_826: "That leaves `fc1` as it was. It gets 400 numbers now, not 576.",
        61_470: "That counts the weights alone. Each output of a layer has a bias too.",
        59_706: "A square of `conv2` looks at six maps: it has 6 * 5 * 5 weights.",
        60_074: "That has the right `fc1`, but the squares are still 3x3.",
    }
    otherwise = "Count layer by layer, weights and biases. `fc2` and `fc3` stay as they were."
    expect_value(answer, 61_706, slips, otherwise)


@exercise(
    question="""\
**Write** the nine weights of a square, a tensor of 3x3, that finds *horizontal* edges: high where
ink begins from top to bottom, low where it ends. On empty paper, inside the ink, and along a
vertical edge it should give zero.""",
    hints=(
        "The page has weights that find vertical edges. What do they compare with what?",
        "Compare the pixels above with those below, in place of left and right.",
    ),
    solution="answer = torch.tensor([[-1.0, -1.0, -1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])",
    why="The sum is what lies below less what lies above. Other weights will do too, as long as "
    "each column adds up to zero and there is more weight below than above.",
)
def horizontal_edges(answer: Tensor) -> None:
    """Lay the square on every kind of edge, and away from all edges."""
    if answer.shape != (3, 3):
        raise Wrong(f"A square of 3x3 is wanted, but this has the shape {tuple(answer.shape)}.")
    if not _is_zero(inside := answer.sum()):
        raise Wrong(f"Inside the ink it gives {inside:g}, and should give zero.")
    of_rows, of_columns = answer.sum(dim=1), answer.sum(dim=0)
    for ink in (slice(2, 3), slice(1, 3)):  # the rows, or columns, with ink under the square
        if not _is_zero(vertical := of_columns[ink].sum()):
            raise Wrong(f"Along a vertical edge it gives {vertical:g}, and should give zero.")
        if of_rows[ink].sum() < 0:
            raise Wrong("It is low where ink begins from top to bottom: turn it upside down.")
    if all(_is_zero(of_rows[ink].sum()) for ink in (slice(2, 3), slice(1, 3))):
        raise Wrong("Where ink begins from top to bottom it gives zero, and should be high.")


def _is_zero(total: Tensor) -> bool:
    return bool(total.abs() < 1e-5)


@exercise(
    question="""\
**Write** a function `feature_map(image, weights, bias)` that makes a whole map by hand. `image` is
one channel, of the shape (rows, columns); `weights` is a square of the shape (3, 3); `bias` is one
number. It returns the map as a tensor.""",
    hints=(
        "The page works out one number of a map. Do that at every place.",
        "How many places does a square of 3 have in a row of 32? And in `image.shape[1]` columns?",
        "With two loops: `image[i : i + 3, j : j + 3]` is what lies under the square at (i, j).",
    ),
    solution="""\
def answer(image, weights, bias):
    rows, columns = image.shape
    made = torch.zeros(rows - 2, columns - 2)
    for i in range(rows - 2):
        for j in range(columns - 2):
            made[i, j] = (image[i : i + 3, j : j + 3] * weights).sum() + bias
    return made""",
    why="The same nine weights at every place, and the bias once for each. That is all that "
    "`conv1` does, six times over.",
)
def feature_map(answer: FunctionType) -> None:
    """Compare with torch on images that are not square."""
    generator = torch.Generator().manual_seed(0)
    for rows, columns in ((5, 4), (3, 3), (6, 9)):
        image = torch.randn(rows, columns, generator=generator)
        weights, bias = torch.randn(3, 3, generator=generator), rows - 5.5
        got = attempt(answer, image, weights, bias)
        plain = F.conv2d(image[None, None], weights[None, None])[0, 0]
        tried = f"An image of {rows}x{columns}"
        flipped = F.conv2d(image[None, None], weights.flip(0, 1)[None, None])[0, 0]
        if isinstance(got, Tensor):
            if got.shape == image.shape:
                raise Wrong(f"{tried} gives a map as large. How many places does the square have?")
            if got.shape == plain.T.shape != plain.shape:
                raise Wrong(f"{tried} gives {tuple(got.shape)}: rows and columns are exchanged.")
        slips = [
            (plain, "the bias is missing."),
            (plain + 9 * bias, "the bias counts nine times. Add it to the sum, once."),
            ((plain + bias).relu(), "a map may hold numbers below zero. ReLU comes after it."),
            (flipped + bias, "the weights lie upside down: the first is that of the first pixel."),
        ]
        expect_tensor(got, plain + bias, tried, slips)


@exercise(
    question="""\
**Find the fault.** This network runs, and makes ten scores of each digit. But it will never learn,
since `parameters()` finds none of its 16,571 numbers. Mend it, so that all can learn: the contrast,
and the two layers. Pass the network that you made.

```python
class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.contrast = torch.tensor(1.0)
        self.layers = [nn.Linear(32 * 32, 16), nn.Linear(16, 10)]

    def forward(self, x):
        x = torch.flatten(self.contrast * x, 1)
        x = F.relu(self.layers[0](x))
        return self.layers[1](x)
```""",
    hints=(
        "What does a module list: any tensor, or those of one type?",
        "It also lists what is in the modules that you assign to `self`. A list is not a module.",
        "Make `contrast` an `nn.Parameter`, and assign each layer to a name of its own.",
    ),
    solution="""\
class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.contrast = nn.Parameter(torch.tensor(1.0))
        self.fc1 = nn.Linear(32 * 32, 16)
        self.fc2 = nn.Linear(16, 10)

    def forward(self, x):
        x = torch.flatten(self.contrast * x, 1)
        x = F.relu(self.fc1(x))
        return self.fc2(x)


answer = Reader()""",
    why="A module lists the parameters and modules that are assigned to it. It does not look into "
    "a plain tensor or a list. (`nn.ModuleList` is a list into which it does look.)",
)
def unlisted(answer: nn.Module) -> None:
    """Count the parameters that the module lists, then check that each one is used."""
    parameters = list(answer.parameters())
    count = sum(parameter.numel() for parameter in parameters)
    slips = {
        0: "`parameters()` still finds nothing.",
        1: "`parameters()` finds the contrast alone. It does not look into a list.",
        16_570: "`parameters()` finds the layers, and not the contrast: it is a plain tensor.",
    }
    otherwise = f"`parameters()` finds {count:,} numbers, and should find 16,571."
    expect_value(count, 16_571, slips, otherwise)
    if not all(parameter.requires_grad for parameter in parameters):
        raise Wrong("`parameters()` finds all, but one of them is frozen: `requires_grad` is off.")
    contrast = min(parameters, key=Tensor.numel)
    digits = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        scores, twice, nothing, negative = (
            attempt(answer, factor * digits) for factor in (1, 2, 0, -1)
        )
        expect_shape(scores, (3, 10), "3 digits")
        contrast.mul_(2)
        if not torch.allclose(attempt(answer, digits), twice, atol=1e-5):
            raise Wrong("A higher contrast should do the same as a brighter image. `forward`?")
    if torch.allclose(scores - nothing, nothing - negative, atol=1e-5):
        raise Wrong("With no ReLU between them, the two layers do no more than one.")
    scores = attempt(answer, digits)
    if scores.requires_grad:
        scores.square().sum().backward()
    if any(parameter.grad is None for parameter in answer.parameters()):
        raise Wrong(
            "No gradient comes from the scores to some parameter. Does `forward` cut it off?"
        )


page(__name__)
