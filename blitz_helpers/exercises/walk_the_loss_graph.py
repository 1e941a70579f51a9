"""Exercises of page 04: slots, what arrives at a bias, and backward written by hand."""

from collections.abc import Iterator
from types import FunctionType

import torch
import torch.nn.functional as F
from torch import Tensor

from blitz_helpers.exercises._exercise import exercise, page
from blitz_helpers.exercises._judging import Wrong, attempt, expect_tensor, expect_value, shown
from blitz_helpers.network import Network


@exercise(
    question="""\
**Predict.** Begin at `loss.grad_fn` and take `.next_functions[slot][0]` again and again, until you
are at the `AccumulateGrad` of `fc2.weight`. Which slots are those, from the top? Pass them all, as
`(0, 0)` would be the way to `fc3.bias`.""",
    hints=(
        "*addmm* has bias, activation and weight in slots 0, 1 and 2. Which way leads to `fc2`?",
        "From the loss to `fc3`, on through its activation, the ReLU, and you are at the `addmm` "
        "of `fc2`. Take its weight: is that the end?",
        "A weight is used transposed, so one more node, `TBackward0`, stands before it.",
    ),
    solution="answer = (0, 1, 0, 2, 0)",
    why="The loss leads to `fc3`, its activation to the ReLU, that to `fc2`, its slot 2 to the "
    "transpose, and that to `fc2.weight`.",
)
def slots_to_a_weight(answer: tuple[int, ...]) -> None:
    """Walk the slots, and say where they lead."""
    net = Network()
    names: dict[Tensor, str] = {parameter: name for name, parameter in net.named_parameters()}
    node = F.mse_loss(net(torch.zeros(1, 1, 32, 32)), torch.zeros(1, 10)).grad_fn
    for step, slot in enumerate(answer):
        name = _told(node, names)
        if hasattr(node, "variable"):
            raise Wrong(f"{answer[:step]} leads to {name}, the end of a way: it has no slots.")
        last = len(node.next_functions) - 1  # type: ignore[union-attr]  # a loss has a grad_fn
        if not 0 <= slot <= last:
            slots = f"slots 0 to {last}" if last else "slot 0 alone"
            raise Wrong(f"{answer[:step]} leads to {name}, which has {slots}.")
        node = node.next_functions[slot][0]  # type: ignore[union-attr]  # as above
        if node is None:
            raise Wrong(f"{answer[: step + 1]} leads nowhere: nobody asked for that gradient.")
    if getattr(node, "variable", None) is not net.fc2.weight:
        raise Wrong(f"{answer} leads to {_told(node, names)}.")


def _told(node: object, names: dict[Tensor, str]) -> str:
    if hasattr(node, "variable"):
        return f"the `AccumulateGrad` of `{names[node.variable]}`"
    return f"`{type(node).__name__}`"


@exercise(
    question="""\
**Predict.** Three images go through the network at once, and a row of ones comes back for each:
`net(images).backward(torch.ones(3, 10))`. All ten entries of `fc3.bias.grad` are the same number.
Which?""",
    hints=(
        "What would it be for one image?",
        "The bias is added to the row of each image. Where ways meet, gradients add up.",
    ),
    solution="answer = 3",
    why="Each image sends a 1 to each of the ten biases, and three images send 3: nobody took a "
    "mean.",
)
def ones_sent_back(answer: float) -> None:
    slips = {
        1: "That is right for one image. The same bias is added to three rows.",
        30: "That adds up all thirty ones. Bias 0 meets only score 0 of each image.",
        10: "That adds up the ten scores of an image. Each score has a bias of its own.",
        1 / 3: "That divides by the images, as a mean does. There is no mean here.",
    }
    otherwise = "How many ways lead from the thirty ones to bias 0?"
    expect_value(answer, 3, slips, otherwise, within=0.01)


@exercise(
    question="""\
**Write** the backward of a linear layer, `linear_backward(grad, x, weight)`. The layer made
`x @ weight.T + bias`, and `grad` is the gradient of that. Return three gradients: for the bias,
for `x`, and for `weight`, each of the shape of what it belongs to. With N images, `grad` is
(N, outputs), `x` is (N, inputs), and `weight` is (outputs, inputs).""",
    hints=(
        "The bias is added to each of the N rows. The page says what then becomes of its gradient.",
        "Output j changes `weight[j, i]` times as fast as input i. So input i receives the sum of "
        "`grad[j] * weight[j, i]` over all outputs: a product of two matrices, `grad @ weight`.",
        "Output j changes `x[i]` times as fast as `weight[j, i]`. So that one receives "
        "`grad[j] * x[i]`, added up over the images. `grad.T @ x` does both.",
    ),
    solution="""\
def answer(grad, x, weight):
    return grad.sum(dim=0), grad @ weight, grad.T @ x""",
    why="A factor's rate is the other factor: `x` receives `grad` times the weight, the weight "
    "receives `grad` times `x`. What all images share, weight and bias, adds up over them.",
)
def linear_backward(answer: FunctionType) -> None:
    """Compare with the products, on batches whose sizes all differ."""
    generator = torch.Generator().manual_seed(0)
    for images, inputs, outputs in ((1, 3, 2), (4, 3, 2), (2, 5, 3)):
        grad = torch.randn(images, outputs, generator=generator)
        x = torch.randn(images, inputs, generator=generator)
        weight = torch.randn(outputs, inputs, generator=generator)
        got = attempt(answer, grad, x, weight)
        if not isinstance(got, tuple | list) or len(got) != 3:
            raise Wrong(f"Return three gradients, and not {shown(got)}.")
        bias, for_x, for_weight = got
        tried = f"With a `grad` of shape {tuple(grad.shape)}, the gradient of"
        slips = [
            (grad, "the bias was added to each row of the batch, so its gradients add up."),
            (grad.mean(dim=0), "it is the mean over the images. Where ways meet, they add up."),
        ]
        expect_tensor(bias, grad.sum(dim=0), f"{tried} the bias", slips)
        slips = [(weight, "that is the weight alone. What came from above is `grad`: use it.")]
        expect_tensor(for_x, grad @ weight, f"{tried} `x`", slips)
        slips = [(x.T @ grad, "it is transposed: it should be (outputs, inputs).")]
        expect_tensor(for_weight, grad.T @ x, f"{tried} `weight`", slips)


@exercise(
    question="""\
**Find the two faults.** This `send_back` visits each node once, as the walk did that counted them.
It is right about the network. Of `w * w + w` at 2 it says 1, and should say 5. Mend it.

```python
def send_back(loss):
    arrived, seen = {}, set()
    todo = [(loss.grad_fn, torch.ones(()))]
    while todo:
        node, grad = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            tensor = node.variable
            arrived[tensor] = grad.sum_to_size(tensor.shape)
            continue
        grads = node(grad)
        grads = grads if isinstance(grads, tuple) else (grads,)
        for (source, _), grad in zip(node.next_functions, grads):
            if source is not None:
                todo.append((source, grad))
    return arrived
```""",
    hints=(
        "Three ways lead to `w`, and each brings a gradient. What becomes of the second and third?",
        "A gradient that comes to a node seen before is dropped. And at the leaf?",
        "Leave `seen` out, and add what arrives to what is there: `arrived.get(tensor, 0) + ...`.",
    ),
    solution="""\
def answer(loss):
    arrived = {}
    todo = [(loss.grad_fn, torch.ones(()))]
    while todo:
        node, grad = todo.pop()
        if hasattr(node, "variable"):
            tensor = node.variable
            arrived[tensor] = arrived.get(tensor, 0) + grad.sum_to_size(tensor.shape)
            continue
        grads = node(grad)
        grads = grads if isinstance(grads, tuple) else (grads,)
        for (source, _), grad in zip(node.next_functions, grads):
            if source is not None:
                todo.append((source, grad))
    return arrived""",
    why="Every way brings a gradient that counts. A node that is seen again must pass on what came "
    "this time, and a leaf must add it. In the network no two ways meet, so there it did not show.",
)
def meeting_ways(answer: FunctionType) -> None:
    """Compare with autograd on a tree, and on graphs whose paths meet, at a leaf or before it."""
    for name, loss, leaves, slips in _graphs():
        wanted = torch.autograd.grad(loss, leaves, retain_graph=True)
        with torch.no_grad():
            arrived = attempt(lambda loss=loss: answer(loss))
        if not isinstance(arrived, dict):
            raise Wrong(f"Return the dict `arrived`, and not {shown(arrived)}.")
        if not all(leaf in arrived for leaf in leaves):
            raise Wrong(f"{name}: of {len(leaves)} leaves, some received nothing.")
        for leaf, gradient in zip(leaves, wanted, strict=True):
            for slip, reply in slips.items():
                if shown(arrived[leaf]) == shown(torch.tensor(slip)):
                    raise Wrong(f"{name}: {slip:g} in place of {gradient.item():g}. {reply}")
            expect_tensor(arrived[leaf], gradient, f"{name}: the leaf {tuple(leaf.shape)}")


def _graphs() -> Iterator[tuple[str, Tensor, list[Tensor], dict[float, str]]]:
    w = torch.tensor(2.0, requires_grad=True)
    inner = "Three ways lead to the node of `w * w`, and it should pass on what comes by each."
    slips = {
        1.0: "What comes by `w * w` is dropped.",
        2.0: "A leaf should add what arrives, and not overwrite.",
    }
    yield "`w * w + w` at 2", w * w + w, [w], slips
    square = w * w
    slips = dict.fromkeys((4.0, 16.0), inner)
    yield "`s * s + s` with `s = w * w` at 2", square * square + square, [w], slips
    generator = torch.Generator().manual_seed(0)
    parameters = [
        torch.randn(shape, generator=generator, requires_grad=True)
        for shape in ((3, 4), (3,), (2, 3), (2,))
    ]
    hidden = F.linear(torch.randn(5, 4, generator=generator), *parameters[:2])
    scores = F.linear(hidden.relu(), *parameters[2:])
    yield "Two layers, 5 images", (scores**2).mean(), parameters, {}


@exercise(
    question="""\
**Half an hour.** Write backward for one more operation, the pooling of one feature map `x`, of the
shape (rows, columns), by windows of 2x2. `max_pool_backward(grad, x)` gets the gradient of what
the pooling made, and `x` itself, and returns the gradient of `x`. Where a window has its largest
number twice, the first of them counts, row by row, as in PyTorch. The sides of `x` may be odd.""",
    hints=(
        "Nudge a number that is not the largest of its window: what changes? And the largest?",
        "So each number of `grad` goes to one place of its window, and all others get zero: begin "
        "with `torch.zeros_like(x)`. What becomes of a last row that no window reads?",
        "The window at (i, j) is `x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]`. Its `argmax()` counts "
        "0 and 1 in its first row, 2 and 3 in its second.",
    ),
    solution="""\
def answer(grad, x):
    back = torch.zeros_like(x)
    rows, columns = grad.shape
    for i in range(rows):
        for j in range(columns):
            window = x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            place = window.argmax().item()
            back[2 * i + place // 2, 2 * j + place % 2] = grad[i, j]
    return back""",
    why="A nudge of the largest number moves the result by just as much, and one of the others not "
    "at all. That is why the node of a pooling keeps the places of the maxima.",
)
def max_pool_backward(answer: FunctionType) -> None:
    """Compare with autograd: on even sides, odd sides, and windows of equal numbers."""
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 2), (4, 6), (5, 7), (3, 4)
    maps = [torch.randn(shape, generator=generator) for shape in shapes]
    for x in [*maps, torch.randn(6, 6, generator=generator).relu().ceil()]:
        rows, columns = x.shape
        grad = torch.randn(rows // 2, columns // 2, generator=generator)
        got = attempt(answer, grad, x)
        tried = f"A map of {rows}x{columns}"
        if isinstance(got, Tensor) and got.shape == (rows // 2 * 2, columns // 2 * 2) != x.shape:
            raise Wrong(f"{tried}: a row or column that no window reads has a gradient too, 0.")
        pooled = F.max_pool2d(x.requires_grad_()[None], 2)[0]
        (wanted,) = torch.autograd.grad(pooled, x, grad)
        spread = _spread(grad, x)
        slips = [
            (spread, "all four numbers of a window get its gradient. Does a nudge of each count?"),
            (spread / 4, "that is the backward of the mean of each window, not of the largest."),
            ((wanted != 0).float(), "these are the right places, but they hold 1, not `grad`."),
            (spread * (x == _spread(pooled, x)), "of equal numbers, only the first should count."),
        ]
        expect_tensor(got, wanted, f"{tried}, x = {shown(x)}, grad = {shown(grad)}", slips)


def _spread(numbers: Tensor, x: Tensor) -> Tensor:
    """Return a map as large as ``x``, with the number of each window in all of its places."""
    wide = numbers.repeat_interleave(2, dim=0).repeat_interleave(2, dim=1)
    return F.pad(wide, (0, x.shape[1] % 2, 0, x.shape[0] % 2))


page(__name__)
