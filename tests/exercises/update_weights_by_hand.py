"""Answers to the exercises of page 05, right and wrong, with the reply that each should get."""

from functools import partial

import torch

from blitz_helpers import adam_step, adamw_step, momentum_step, sgd_step

# The first optimizer of a process loads much of torch, which a check should not wait for.
torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)


nesterov = partial(momentum_step, nesterov=True)


def looking_ahead(move):
    def step(params, velocities, lr, momentum):
        for w in params:
            if w.grad is not None:
                v = velocities.get(w, 0)
                velocities[w] = momentum * v + w.grad
                with torch.no_grad():
                    w -= move(w.grad, v, velocities[w], lr, momentum)

    return step


def forgetting(params, velocities, lr, momentum):
    nesterov(params, {}, lr, momentum)


def making_another(params, velocities, lr, momentum):
    for w in params:
        w = w - lr * w.grad if w.grad is not None else w


def with_none(params, velocities, lr, momentum):
    for w in params:
        velocities[w] = momentum * velocities.get(w, 0) + w.grad


def recorded(params, velocities, lr, momentum):
    for w in params:
        w -= lr * w.grad


def stopping_at_none(params, velocities, lr, momentum):
    for w in params:
        if w.grad is None:
            return
        nesterov([w], velocities, lr, momentum)


VELOCITIES, STATE = {}, {}


def remembering_elsewhere(params, velocities, lr, momentum):
    nesterov(params, VELOCITIES, lr, momentum)


def remembering_by_number(params, velocities, lr, momentum):
    for number, w in enumerate(params):
        if w.grad is not None:
            VELOCITIES[number] = momentum * VELOCITIES.get(number, 0) + w.grad
            with torch.no_grad():
                w -= lr * (w.grad + momentum * VELOCITIES[number])


def velocity_in_the_gradient(params, velocities, lr, momentum):
    for w in params:
        if w.grad is not None:
            g = w.grad.clone()
            velocities[w] = w.grad.add_(velocities.get(w, torch.zeros_like(w)), alpha=momentum)
            with torch.no_grad():
                w -= lr * (g + momentum * velocities[w])


def by_sgd(w, loss_of, lr, steps):
    optimizer = torch.optim.SGD([w], lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(w).backward()
        optimizer.step()


def by_autograd_grad(w, loss_of, lr, steps):
    for _ in range(steps):
        (gradient,) = torch.autograd.grad(loss_of(w), w)
        with torch.no_grad():
            w.sub_(lr * gradient)


def as_given(w, loss_of, lr, steps):
    for _ in range(steps):
        loss_of(w).backward()
        with torch.no_grad():
            w = w - lr * w.grad


def broken_at_once(w, loss_of, lr, steps):
    raise KeyError("gradient")


def not_cleared(w, loss_of, lr, steps):
    for _ in range(steps):
        loss_of(w).backward()
        sgd_step([w], lr)


def moved_leaf(w, loss_of, lr, steps):
    for _ in range(steps):
        w = w.detach().requires_grad_()
        loss_of(w).backward()
        w = w - lr * w.grad


def through_data(w, loss_of, lr, steps):
    for _ in range(steps):
        w.grad = None
        loss_of(w).backward()
        w.data -= lr * w.grad


def cleared_too_late(w, loss_of, lr, steps):
    for _ in range(steps):
        loss_of(w).backward()
        w.grad = None
        with torch.no_grad():
            w -= lr * w.grad


def packages_adamw(params, state, lr, weight_decay):
    adamw_step(params, state, lr, weight_decay=weight_decay)


def torchs_adamw(params, state, lr, weight_decay):
    if "optimizer" not in state:
        state["optimizer"] = torch.optim.AdamW(params, lr=lr, weight_decay=weight_decay)
    state["optimizer"].step()


def adamw_by_its_formulas(
    params, state, lr, weight_decay, corrected=True, eps=1e-8, start=0, power=0.5
):
    for w in params:
        if w.grad is None:
            continue
        t, m, v = state.get(w, (start, torch.zeros_like(w), torch.zeros_like(w)))
        t, m, v = t + 1, 0.9 * m + 0.1 * w.grad, 0.999 * v + 0.001 * w.grad**2
        state[w] = t, m, v
        m_hat, v_hat = (m / (1 - 0.9**t), v / (1 - 0.999**t)) if corrected else (m, v)
        with torch.no_grad():
            w *= 1 - lr * weight_decay
            w -= lr * m_hat / (v_hat**power + eps)


def adamw_stopping_at_none(params, state, lr, weight_decay):
    for w in params:
        if w.grad is None:
            return
        packages_adamw([w], state, lr, weight_decay)


def adamw_remembering_elsewhere(params, state, lr, weight_decay):
    packages_adamw(params, STATE, lr, weight_decay)


def adamw_changing_gradients(params, state, lr, weight_decay):
    packages_adamw(params, state, lr, weight_decay)
    for w in params:
        if w.grad is not None:
            w.grad.zero_()


RIGHT = {
    "third_step": [-1.122, torch.tensor(-1.122)],
    "nesterov": [nesterov, looking_ahead(lambda g, old, v, lr, m: lr * (g + m * (m * old + g)))],
    "mended_walk": [by_sgd, by_autograd_grad],
    "adamw": [packages_adamw, torchs_adamw],
}
WRONG = {
    "third_step": [
        (-0.6, "without momentum"),
        (1.122, "against the gradient"),
        (-0.542, "third step alone"),
        (-0.1122, "as Adam does"),
        (-0.85, "keeps a half"),
        (5.42, "velocity after three steps. The"),
        (-5.42, "without `lr`"),
        (-11.22, "`lr` is missing"),
        (-2, "velocity of each step"),
    ],
    "nesterov": [
        (momentum_step, "That is plain momentum"),
        (looking_ahead(lambda g, old, v, lr, m: lr * (g + m * old)), "already holds this step's"),
        (looking_ahead(lambda g, old, v, lr, m: lr * g + m * v), "used without `lr`"),
        (looking_ahead(lambda g, old, v, lr, m: -lr * (g + m * v)), "up the slope"),
        (looking_ahead(lambda g, old, v, lr, m: lr * (g + v)), "taken whole"),
        (looking_ahead(lambda g, old, v, lr, m: lr * g), "In step 1 the weights come out wrong"),
        (forgetting, "begins without a velocity"),
        (making_another, "No weight has moved"),
        (stopping_at_none, "`continue`, not `return`"),
        (remembering_elsewhere, "with the old velocities. Keep them in `velocities`, and"),
        (remembering_by_number, "A second walk with an empty dict"),
        (velocity_in_the_gradient, "changes `.grad`: make new tensors for the velocities"),
        (with_none, "in your line `velocities[w] = momentum * velocities.get(w, 0) + w.grad`"),
        (recorded, "a leaf Variable that requires grad"),
    ],
    "mended_walk": [
        (as_given, "so it has no graph. Change the leaf in place."),
        (broken_at_once, "dtype=torch.float64, requires_grad=True), a function, 0.1, 2"),
        (not_cleared, "old gradients still push"),
        (moved_leaf, "`w` is where it was"),
        (lambda w, loss_of, lr, steps: by_autograd_grad(w, loss_of, -lr, steps), "up the slope"),
        (lambda w, loss_of, lr, steps: by_autograd_grad(w, loss_of, lr, 1), "it should be"),
        (through_data, "not through `.data`"),
        (cleared_too_late, "Your code raised TypeError in your line `w -= lr * w.grad`"),
    ],
    "adamw": [
        (adamw_by_its_formulas, "Only roundings are left"),
        (partial(adamw_by_its_formulas, corrected=False), "bias correction is missing"),
        (lambda params, state, lr, decay: adam_step(params, state, lr), "decay is missing"),
        (
            lambda params, state, lr, decay: adam_step(params, state, lr, weight_decay=decay),
            "as Adam does",
        ),
        (
            lambda params, state, lr, decay: packages_adamw(params, state, lr, decay / lr),
            "taken off without `lr`",
        ),
        (partial(adamw_by_its_formulas, eps=0.1), "In step 1 the weights"),
        (partial(adamw_by_its_formulas, start=-1), "Does `t` count from 1?"),
        (partial(adamw_by_its_formulas, power=1), "Take the root of it"),
        (adamw_stopping_at_none, "`continue`, not `return`"),
        (adamw_remembering_elsewhere, "with the old averages. Keep them in `state`, and"),
        (adamw_changing_gradients, "changes `.grad`: make new tensors for the averages"),
        (lambda params, state, lr, decay: None, "No weight has moved"),
    ],
}
