"""Exercises of page 03: what a vector asks, what arrives where, nudging, and a batch in parts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType

import torch
from torch import Tensor, nn

from blitz_helpers.exercises._exercise import exercise, page
from blitz_helpers.exercises._judging import (
    Wrong,
    attempt,
    attempt_in_place,
    expect_shape,
    expect_tensor,
    expect_value,
    shown,
)


@exercise(
    question="""\
**Predict.** What will stand in `w.grad`? Pass its two numbers, as `(1, 2)`.

```python
w = torch.tensor([3.0, 4.0], requires_grad=True)
a, b = w
two = torch.stack([a * b, a + 2 * b])
two.backward(torch.tensor([2.0, -1.0]))
```""",
    hints=(
        "Write the table of rates: a row for `a * b`, a row for `a + 2 * b`.",
        "Its rows are 4, 3 and 1, 2. The vector says how often each row counts.",
        "Row one counts twice, row two minus once: add up each column.",
    ),
    solution="answer = (2 * 4 - 1 * 1, 2 * 3 - 1 * 2)",
    why="The rows of the Jacobian, 4, 3 and 1, 2, count twice and minus once: it is the gradient "
    "of `2 * (a * b) - (a + 2 * b)`.",
)
def weighed_rows(answer: tuple[int, ...]) -> None:
    if len(answer) != 2:
        raise Wrong("`w` has two numbers, and so has its gradient.")
    slips = {
        (5, 5): "That adds the rows up as they are. How often does each count?",
        (5, 0): "That weighs the columns, `a` twice and `b` minus once. `v` weighs the rows.",
        (9, 8): "The second output counts *minus* once.",
        (5, 6): "`a * b` changes `b` times as fast as `a`: 4 times, not 3.",
        (8, 6): "That is what the first output sends. The second sends something too.",
    }
    otherwise = "Add the rows of the table, each as often as its output matters."
    expect_value(answer, (7, 4), slips, otherwise)


@exercise(
    question="""\
**Predict.** Send a random vector back through an untrained `Network()`, to an image of 32x32 that
asks for its gradient. The gradient's last rows are exactly zero, whatever the image and the
weights. How many rows? (You need the sizes of notebook 2: 32, 30, 15, 13, 6.)""",
    hints=(
        "Which row does nobody read? Begin at the second pooling: 13 rows, windows of 2.",
        "Rows 0 to 11 of `conv2` are read. It reads rows 0 to 13 of the first pooling, which makes "
        "those of rows 0 to 27 of `conv1`.",
        "Row 27 of `conv1` reads three rows of the image, and row 29 is the last of them.",
    ),
    solution="""\
net, image = Network(), torch.randn(1, 1, 32, 32, requires_grad=True)
net(image).backward(torch.randn(1, 10))
answer = 0
while image.grad[0, 0, 31 - answer].abs().sum() == 0:
    answer += 1""",
    why="The second pooling drops row 12 of 13. So the last row of `conv2` that counts is 11, that "
    "of the first pooling 13, that of `conv1` 27, and that of the image 29: rows 30 and 31 change "
    "nothing. So it is with the last two columns.",
)
def rows_that_count_for_nothing(answer: int) -> None:
    slips = {
        0: "Every pixel lies under a square of `conv1`. But does anybody read that map?",
        1: "One row is dropped, but at the second pooling. How far does it reach down?",
        3: "One of those 3 rows lies in the field of a number that counts.",
        4: "Two of those 4 rows lie in the field of a number that counts.",
    }
    otherwise = "Follow the last row that is read, from the second pooling to the image."
    expect_value(answer, 2, slips, otherwise)


@exercise(
    question="""\
**Write** a function `status(parameter)` that says what backward left: `"none"` where no backward
has reached it, `"zero"` where one has and every entry is zero, `"ok"` otherwise.""",
    hints=(
        "What stands in `.grad` before any backward: zeros, or `None`?",
        "Ask for `None` first: it has no entries to compare.",
        "Positive and negative entries can add up to zero. Look at each: `(grad == 0).all()`.",
    ),
    solution="""\
def answer(parameter):
    if parameter.grad is None:
        return "none"
    if (parameter.grad == 0).all():
        return "zero"
    return "ok\"""",
    why="`None` and zero are two findings: no backward came by, or one did and found that no nudge "
    "changes anything.",
)
def status(answer: FunctionType) -> None:
    """Try gradients of all three kinds, including entries that are easily misjudged."""
    cases: list[tuple[str, str, list[float] | None]] = [
        ("ok", "of [1.0, 2.0]", [1.0, 2.0]),
        ("none", "None", None),
        ("zero", "of zeros", [0.0, 0.0]),
        ("ok", "of [1.0, -1.0], whose sum is zero,", [1.0, -1.0]),
        ("ok", "of [0.0, 3.0], with one zero,", [0.0, 3.0]),
        ("ok", "of [-2.0, -3.0]", [-2.0, -3.0]),
        ("ok", "of [1e-12, 0.0]", [1e-12, 0.0]),
    ]
    for wanted, told, entries in cases:
        parameter = nn.Parameter(torch.ones(2))
        parameter.grad = None if entries is None else torch.tensor(entries)
        try:
            got = attempt(answer, parameter)
        except Wrong as wrong:
            raise Wrong(f"{wrong} Its gradient is {entries}.") from None
        if got != wanted:
            taken = "`None` is not zero. " if entries is None and got == "zero" else ""
            raise Wrong(f"{taken}A gradient {told} should give {wanted!r}, but gives {shown(got)}.")


@exercise(
    question="""\
**Write** a function `by_nudging(f, w)` that finds a gradient without `backward()`. `w` is a row of
numbers in float64, and `f(w)` makes one number of it. Return a tensor with the rate for each entry
of `w`, right to four digits.""",
    hints=(
        "One rate is `(f(nudged) - f(w)) / nudge`, as at the top of the page.",
        "For each entry: make a copy of `w` (`w.clone()`), nudge that entry alone, and ask `f`.",
        "Nudge by `1e-6`, up and down: `(f(up) - f(down)) / 2e-6` is more exact than one side.",
    ),
    solution="""\
def answer(f, w):
    rates = torch.zeros_like(w)
    for i in range(len(w)):
        up, down = w.clone(), w.clone()
        up[i] += 1e-6
        down[i] -= 1e-6
        rates[i] = (f(up) - f(down)) / 2e-6
    return rates""",
    why="Each entry is nudged alone, from the same `w`. It takes two calls for each entry, which "
    "is why networks go back instead.",
)
def by_nudging(answer: FunctionType) -> None:
    """Compare with the rates by formula, and check the arguments that the code passes."""
    generator = torch.Generator().manual_seed(0)
    left_nudged = False
    for length in (1, 2, 5):
        drawn = torch.rand(2, length, generator=generator, dtype=torch.float64) + 1
        weights, w = drawn.round(decimals=1)
        wanted = torch.stack([w.prod() / entry for entry in w]) + 3 * weights * w**2
        asked: list[Tensor] = []
        given = w.clone()
        try:
            got = attempt_in_place(answer, _noting(weights, asked), given)
        except Wrong as wrong:
            if any(each.requires_grad for each in asked) or "does not require grad" in str(wrong):
                raise Wrong(_NO_BACKWARD) from None
            raise
        if isinstance(got, list | tuple) and len(got) == length:
            raise Wrong("Return a tensor: `torch.tensor([...])`, or fill one of zeros.")
        expect_shape(got, (length,), f"For w = {w.tolist()}, `by_nudging`")
        rates = got.detach().double()
        if not torch.allclose(rates, wanted, rtol=2e-4):
            if any(each.requires_grad for each in asked):
                raise Wrong(_NO_BACKWARD)
            slip = _slip_in_nudging(asked, w) or _slip_in_rates(rates, wanted)
            rates_told = f"{shown(wanted.float())}, not {shown(rates.float())}"
            raise Wrong(f"For w = {w.tolist()} the rates are {rates_told}. {slip}".strip())
        left_nudged |= not torch.allclose(given, w, rtol=0, atol=1e-9)
    if left_nudged:
        raise Wrong("The rates are right, but `w` is left nudged: nudge a copy of it.")


_NO_BACKWARD = "No `backward()` here: find the rates by calling `f` on nudged copies of `w`."


def _noting(weights: Tensor, asked: list[Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a function that notes its arguments, and whose result has no graph."""

    def f(w: Tensor) -> Tensor:
        asked.append(w.detach().clone().requires_grad_(w.requires_grad))
        w = w.detach()
        return w.prod() + (weights * w**3).sum()

    return f


def _slip_in_nudging(asked: list[Tensor], w: Tensor) -> str:
    moved = [int((each != w).sum()) for each in asked if each.shape == w.shape]
    if len(w) > 1 and moved and set(moved) <= {0, len(w)}:
        return "Each call nudges all entries at once. Nudge one, and leave the others."
    if max(moved, default=0) > 1:
        return "A nudge stays in `w` while the next entry is nudged: take it back first."
    return ""


def _slip_in_rates(rates: Tensor, wanted: Tensor) -> str:
    for factor in (2.0, 0.5):
        if torch.allclose(rates, factor * wanted, rtol=1e-3):
            return f"All are {factor:g} times as large: how far apart are the two numbers of `w`?"
    if torch.allclose(rates, wanted, rtol=0.3):
        return "They are near: the nudge is too large, or so small that rounding drowns it."
    if torch.allclose(rates / rates.norm(), wanted / wanted.norm(), rtol=1e-2):
        return "All are too large or too small by one factor: divide by the nudge."
    return ""


@exercise(
    question="""\
**Find the faults.** A batch is too large to go through at once, so it goes in parts of `size`
images, each a row of numbers for a `Linear` layer. The function should return the gradient of the
*mean* over the whole batch, whatever stood in `layer.weight.grad` before. It does not. Mend it.

```python
def in_parts(layer, images, v, size):
    for part, v_part in zip(images.split(size), v.split(size)):
        layer.zero_grad()
        numbers = (v_part * layer(part)).sum(dim=1)  # one for each image
        numbers.mean().backward()
    return layer.weight.grad
```""",
    hints=(
        "What is left of the first part's gradient when the second has been sent back?",
        "Clear once, before the loop. Then the gradients of the parts add up: of what means?",
        "Ten images in parts of four: 4, 4 and 2. The mean of the whole is the sum over all images "
        "divided by ten.",
    ),
    solution="""\
def answer(layer, images, v, size):
    layer.zero_grad()
    for part, v_part in zip(images.split(size), v.split(size)):
        numbers = (v_part * layer(part)).sum(dim=1)
        (numbers.sum() / len(images)).backward()
    return layer.weight.grad""",
    why="Clear once, and let the parts add up. Each part's numbers count with one over the size of "
    "the *whole* batch, so that a smaller last part counts for no more than its images.",
)
def in_parts(answer: FunctionType) -> None:
    """Compare with the whole batch, also if the last part is smaller than the others."""
    generator = torch.Generator().manual_seed(0)
    for count, size in ((4, 4), (6, 3), (10, 4), (7, 2)):
        layer = nn.Linear(3, 2)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(2, 3, generator=generator))
        images = torch.randn(count, 3, generator=generator)
        v = torch.randn(count, 2, generator=generator)
        wanted = v.T @ images / count
        parts = torch.stack(
            [
                mine.T @ part / len(part)
                for part, mine in zip(torch.split(images, size), torch.split(v, size), strict=True)
            ]
        )
        left_over = torch.randn(2, 3, generator=generator)
        layer.weight.grad = left_over.clone()
        with _rows_kept(layer.in_features) as rows:
            got = attempt(answer, layer, images, v, size)
        tried = f"{count} images in parts of {size}"
        slips = [
            (parts[-1], "only the last part's gradient is left. What does `zero_grad` do to them?"),
            (
                parts.sum(dim=0),
                "the means of the parts are added up, which is not the mean of all.",
            ),
            (parts.mean(dim=0), "a part of fewer images counts as much as one of more."),
            (wanted + left_over, "what was in `.grad` before is still in it."),
            (wanted * count, "that is the gradient of the sum over the batch, not of the mean."),
        ]
        expect_tensor(got, wanted, tried, slips)
        if max(rows, default=0) > size:
            raise Wrong(f"{tried}: {max(rows)} went through `layer` at once.")


@contextmanager
def _rows_kept(columns: int) -> Iterator[list[int]]:
    """Note how many rows, of as many columns as an image has, autograd keeps each time."""
    rows: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        if tensor.ndim and tensor.shape[-1] == columns:
            rows.append(tensor.numel() // columns)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda kept: kept):
        yield rows


page(__name__)
