"""Exercises of page 05: a velocity, a rule that looks ahead, a loop to mend, and AdamW."""

from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from blitz_helpers.exercises._exercise import exercise, page
from blitz_helpers.exercises._judging import Wrong, attempt_in_place, expect_value, shown
from blitz_helpers.exercises._walks import Rule, Walk, alike
from blitz_helpers.updates import adamw_step


@exercise(
    question="""\
**Predict.** A weight starts at `w = 0` and gets the gradient 2 in every step. The rule is momentum
as on the page, but with nine tenths in place of a half, and `lr = 0.1`. Where is `w` after three
steps, to three decimals?""",
    hints=(
        "Write down the velocity after each step. It starts from 0.",
        "The velocity is 2, then 0.9 * 2 + 2, then 0.9 * 3.8 + 2.",
        "The weight takes three steps: `-0.1` times each of the three velocities.",
    ),
    solution="""\
w, v = 0.0, 0.0
for _ in range(3):
    v = 0.9 * v + 2
    w -= 0.1 * v
answer = w""",
    why="The velocities are 2, 3.8 and 5.42, and a tenth of each is taken off: -1.122. Without "
    "momentum it would be -0.6.",
)
def third_step(answer: float) -> None:
    slips = {
        -0.6: "That is the way without momentum: each step is 0.1 times the gradient.",
        1.122: "The distance is right, but a step goes against the gradient.",
        -0.542: "That is the third step alone. The two before it moved the weight, too.",
        -0.1122: "That takes a tenth of each gradient, as Adam does. Momentum takes all of it.",
        -0.35: "That is right for a velocity that keeps a half. Here it keeps nine tenths.",
        -0.85: "That is right for a velocity that keeps a half. Here it keeps nine tenths.",
        -5.42: "That is the velocity after three steps, without `lr`.",
        5.42: "That is the velocity after three steps. The weight takes `-lr` times each of them.",
        -11.22: "`lr` is missing: a step is 0.1 times the velocity.",
    }
    otherwise = "Work out the velocity of each step, then add up what the weight moves."
    expect_value(answer, -1.122, slips, otherwise, within=1e-3)


@exercise(
    question="""\
**Write** Nesterov's momentum, a rule that looks ahead: first the velocity,
$v \\leftarrow \\mathtt{momentum} \\cdot v + g$, as always; then the weight, which goes by more than
the new velocity: $w \\leftarrow w - \\mathtt{lr} \\cdot (g + \\mathtt{momentum} \\cdot v)$.

`nesterov(params, velocities, lr, momentum)` takes one step with every parameter in the list
`params`. The `.grad` of one of them may be `None`: skip it. `velocities` is a dict, empty at first,
that keeps what you put into it between steps.""",
    hints=(
        "Begin with `my_momentum` from the page. Which line is different here?",
        "`velocities.get(w, 0)` is the old velocity of `w`, or 0 in its first step.",
        "Keep the new velocity in the dict first, then use it in the line that moves `w`. And skip "
        "a parameter `if w.grad is None`.",
    ),
    solution="""\
def answer(params, velocities, lr, momentum):
    for w in params:
        if w.grad is None:
            continue
        velocities[w] = momentum * velocities.get(w, 0) + w.grad
        with torch.no_grad():
            w -= lr * (w.grad + momentum * velocities[w])""",
    why="The weight goes where the next step of plain momentum would begin to take it. The "
    "package has it as `momentum_step(..., nesterov=True)`.",
)
def nesterov(answer: FunctionType) -> None:
    """Compare six steps with the rule, and wrong ones with the rules that people write instead."""
    slips: list[tuple[Move, str]] = [
        (
            lambda g, v, lr, m: lr * v,
            "That is plain momentum. Look ahead with the new velocity: `g + momentum * v`, where "
            "`v` already holds this step's gradient.",
        ),
        (
            lambda g, v, lr, m: lr * g + m * v,
            "The velocity is used without `lr`: the whole sum, `g + momentum * v`, is taken times "
            "`lr`.",
        ),
        (lambda g, v, lr, m: -_ahead(g, v, lr, m), "The weight goes up the slope, not down."),
        (
            lambda g, v, lr, m: lr * (g + v),
            "The velocity is taken whole. Look ahead by `momentum` times it.",
        ),
        (
            lambda g, v, lr, m: _ahead(g, g, lr, m),
            "Each step begins without a velocity. Keep it in the dict `velocities`.",
        ),
    ]
    walk = Walk(torch.float64, steps=6)
    for settings in ((0.1, 0.9), (0.03, 0.5)):
        path = walk.path_of_learner(answer, "velocities", "velocities", *settings)
        rule = _moving_by(_ahead, *settings)
        if not alike(path, walk.path(rule)):
            rules = [(_moving_by(move, *settings), reply) for move, reply in slips]
            walk.name_the_slip(path, rule, rules)


Move = Callable[[Tensor, Tensor, float, float], Tensor]  # of gradient, velocity, lr, momentum


def _ahead(g: Tensor, v: Tensor, lr: float, m: float) -> Tensor:
    return lr * (g + m * v)


def _moving_by(move: Move, lr: float, momentum: float) -> Rule:
    """Return a rule that keeps velocities and takes ``move`` off each weight."""

    def step(params: list[Tensor], velocities: dict[Tensor, Tensor]) -> None:
        for w in params:
            if w.grad is not None:
                velocities[w] = momentum * velocities.get(w, torch.zeros_like(w)) + w.grad
                with torch.no_grad():
                    w -= move(w.grad, velocities[w], lr, momentum)

    return step


@exercise(
    question="""\
**Find the faults.** `gradient_descent(w, loss_of, lr, steps)` should take steps with the leaf `w`,
whose loss is `loss_of(w)`, so that `w` itself moves. It raises an error; and when you have mended
that, it is still not gradient descent. Pass the function that you made.

```python
def gradient_descent(w, loss_of, lr, steps):
    for _ in range(steps):
        loss_of(w).backward()
        with torch.no_grad():
            w = w - lr * w.grad
```""",
    hints=(
        "After the first step, what is `w`: the leaf, or what a subtraction made?",
        "`w -= ...` changes the leaf in place. And what does `backward()` do with a gradient that "
        "is there already?",
        "Clear the gradient before each `backward()`: `w.grad = None`.",
    ),
    solution="""\
def answer(w, loss_of, lr, steps):
    for _ in range(steps):
        w.grad = None
        loss_of(w).backward()
        with torch.no_grad():
            w -= lr * w.grad""",
    why="`w = w - ...` gave the name `w` to another tensor, which has no graph. And without "
    "`w.grad = None`, each step is made of all gradients since the beginning.",
)
def mended_walk(answer: FunctionType) -> None:
    """Walk down parabolas that the learner did not see."""
    generator = torch.Generator().manual_seed(0)
    for lr, steps in ((0.1, 2), (0.1, 1), (0.05, 7)):
        start = torch.randn(3, generator=generator, dtype=torch.float64)
        lowest = torch.randn(3, generator=generator, dtype=torch.float64)
        w = start.clone().requires_grad_()
        earlier = w.square().sum()  # its backward needs the value that `w` has now
        asked: list[Tensor] = []
        try:
            attempt_in_place(answer, w, _parabola(lowest, asked), lr, steps)
        except Wrong as wrong:
            if len(asked) > 1 and asked[0].requires_grad and not asked[-1].requires_grad:
                raise Wrong(f"{wrong}\n{_ANOTHER_W}") from None
            raise
        got = w.detach()
        tried = f"After {steps} steps with lr={lr}" if steps > 1 else "After 1 step"
        wanted = _descended(start, lowest, lr, steps, cleared=True)
        if torch.equal(got, start):
            raise Wrong(f"{tried} `w` is where it was. Change the leaf in place, with `-=`.")
        if torch.allclose(got, _descended(start, lowest, lr, steps, cleared=False)) and steps > 1:
            raise Wrong(f"{tried}: old gradients still push. Clear them before each `backward()`.")
        if torch.allclose(got, _descended(start, lowest, -lr, steps, cleared=True)):
            raise Wrong(f"{tried} `w` went up the slope, not down.")
        if not torch.allclose(got, wanted):
            raise Wrong(
                f"{tried} from {shown(start)} it should be {shown(wanted)}, not {shown(got)}."
            )
        if _goes_back(earlier):
            raise Wrong("The steps are right, but autograd did not see them: not through `.data`.")


_ANOTHER_W = (
    "After the first step `w` is the result of a subtraction under `no_grad`, so it has no graph. "
    "Change the leaf in place."
)


def _parabola(lowest: Tensor, asked: list[Tensor]) -> Callable[[Tensor], Tensor]:
    def loss_of(w: Tensor) -> Tensor:
        asked.append(w)
        return (w - lowest).square().sum()

    return loss_of


def _descended(start: Tensor, lowest: Tensor, lr: float, steps: int, cleared: bool) -> Tensor:
    w, gradient = start, torch.zeros_like(start)
    for _ in range(steps):
        gradient = 2 * (w - lowest) + (0 if cleared else gradient)
        w = w - lr * gradient
    return w


def _goes_back(loss: Tensor) -> bool:
    try:
        torch.autograd.backward(loss)
    except RuntimeError:
        return False
    return True


@exercise(
    question="""\
**Half an hour.** Write AdamW so that it matches `torch.optim.AdamW` **to the last bit**, over 200
steps. `my_adamw(params, state, lr, weight_decay)` takes one step with every parameter of a list:
first the decay, `w <- w - lr * weight_decay * w`, then Adam's step. The averages keep 0.9 and
0.999, and `1e-8` is added to the root, as on the page. `state` is a dict, empty at first, that
keeps what you put into it. A parameter whose `.grad` is `None` is left alone.

First write the formulas of the page. The check then tells you if only roundings are left, and the
hints tell how torch rounds.""",
    hints=(
        "Keep for each parameter its averages, `m` and `v`. Start both from `torch.zeros_like(w)`. "
        "Keep `t`, too, which counts its own steps, from 1. The decay, as torch rounds it: "
        "`w.mul_(1 - lr * weight_decay)`.",
        "The averages, as torch rounds them: `m.lerp_(g, 1 - 0.9)` goes from `m` a tenth of the "
        "way to `g`; `v.mul_(0.999).addcmul_(g, g, value=1 - 0.999)` adds a product.",
        "The root comes before the correction: `v.sqrt() / (1 - 0.999**t) ** 0.5 + 1e-8`.",
        "`m` is never corrected. The step's length is: `w.addcdiv_(m, root, value=-length)`, where "
        "`length = lr / (1 - 0.9**t)`.",
    ),
    solution="""\
def answer(params, state, lr, weight_decay):
    for w in params:
        if w.grad is None:
            continue
        g = w.grad
        t, m, v = state.get(w, (0, torch.zeros_like(w), torch.zeros_like(w)))
        t += 1
        with torch.no_grad():
            w.mul_(1 - lr * weight_decay)
            m.lerp_(g, 1 - 0.9)
            v.mul_(0.999).addcmul_(g, g, value=1 - 0.999)
            root = v.sqrt() / (1 - 0.999**t) ** 0.5 + 1e-8
            w.addcdiv_(m, root, value=-lr / (1 - 0.9**t))
        state[w] = t, m, v""",
    why="The same formulas, in the order in which torch computes them: only then is every "
    "rounding the same. `adamw_step` of the package is tested in the same way.",
)
def adamw(answer: FunctionType) -> None:
    """Compare with the package's rule, which equals torch's to the last bit; then name the slip."""
    settings = 0.01, 0.1
    walk = Walk(torch.float32, steps=200)
    path = walk.path_of_learner(answer, "averages", "state", *settings)
    lr, weight_decay = settings
    wanted = walk.path(partial(adamw_step, lr=lr, weight_decay=weight_decay))
    differ = [int((a != b).sum()) for a, b in zip(path, wanted, strict=True)]
    if not any(differ):
        return
    if alike(path, wanted):
        first = next(step for step, count in enumerate(differ, start=1) if count)
        raise Wrong(
            f"Only roundings are left: the first in step {first}, and after the last, {differ[-1]} "
            f"of {len(path[-1])} numbers differ in their last bits. How torch rounds is in the "
            "hints."
        )
    if path[0].isnan().any():
        raise Wrong("The first step gives nan: 0 / 0. Does `t` count from 1?")
    slips = [(_adamw(*settings, **slip), reply) for reply, slip in _SLIPS.items()]
    walk.name_the_slip(path, _adamw(*settings), slips)


_SLIPS: dict[str, dict[str, Any]] = {
    "The bias correction is missing: divide by `1 - 0.9**t` and `1 - 0.999**t`.": {
        "corrected": False
    },
    "The decay is missing.": {"decay": "none"},
    "That adds the decay to the gradient, as Adam does. AdamW shrinks the weight apart from it.": {
        "decay": "gradient"
    },
    "The decay is taken off without `lr`: the factor is `1 - lr * weight_decay`.": {
        "decay": "whole"
    },
    "The gradient is divided by the average of its squares. Take the root of it.": {"root": False},
}


def _adamw(
    lr: float, weight_decay: float, corrected: bool = True, decay: str = "weight", root: bool = True
) -> Rule:
    """Return AdamW, or the rule that one of the usual slips makes of it."""

    def step(params: list[Tensor], state: dict[Tensor, tuple[int, Any, Any]]) -> None:
        for w in params:
            if w.grad is None:
                continue
            t, m, v = state.get(w, (0, 0, 0))
            t, g = t + 1, w.grad
            if decay == "gradient":
                g = g + weight_decay * w.detach()
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            state[w] = t, m, v
            if corrected:
                m, v = m / (1 - 0.9**t), v / (1 - 0.999**t)
            shrink = {"weight": lr * weight_decay, "whole": weight_decay}.get(decay, 0)
            with torch.no_grad():
                w *= 1 - shrink
                w -= lr * m / ((v.sqrt() if root else v) + 1e-8)

    return step


page(__name__)
