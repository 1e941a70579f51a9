"""Answers to the exercises of page 03, right and wrong, with the reply that each should get."""

import numpy as np
import torch
import torch.nn.functional as F


def status_by_count(parameter):
    grad = parameter.grad
    return "none" if grad is None else "ok" if grad.count_nonzero() else "zero"


def none_as_zero(parameter):
    return "ok" if parameter.grad is not None and parameter.grad.any() else "zero"


def zero_by(is_zero):
    def status(parameter):
        if parameter.grad is None:
            return "none"
        return "zero" if is_zero(parameter.grad) else "ok"

    return status


def nudge_one_side(f, w):
    with torch.no_grad():
        return torch.stack(
            [(f(w + 1e-7 * unit) - f(w)) / 1e-7 for unit in torch.eye(len(w)).double()]
        )


def nudges(size=1e-6, divide=2e-6, give=torch.stack):
    def by_nudging(f, w):
        moves = size * torch.eye(len(w)).double()
        return give([(f(w + move) - f(w - move)) / divide for move in moves])

    return by_nudging


def nudge_all(f, w):
    return torch.stack([(f(w + 1e-6) - f(w - 1e-6)) / 2e-6] * len(w))


def nudges_that_stay(f, w):
    rates, before = torch.zeros_like(w), f(w)
    for i in range(len(w)):
        w[i] += 1e-6
        rates[i] = (f(w) - before) / 1e-6
    return rates


def nudges_left(f, w):
    rates = torch.zeros_like(w)
    for i in range(len(w)):
        w[i] += 1e-6
        up = f(w)
        w[i] -= 2e-6
        rates[i] = (up - f(w)) / 2e-6
    return rates


def nudges_taken_back(f, w):
    rates, before = torch.zeros_like(w), f(w)
    for i in range(len(w)):
        w[i] += 1e-7
        rates[i] = (f(w) - before) / 1e-7
        w[i] -= 1e-7
    return rates


def by_backward(f, w):
    f(w.requires_grad_()).backward()
    return w.grad


def by_jacobian(f, w):
    return torch.autograd.functional.jacobian(f, w)


def parts(weigh, clear=False, at_first=True):
    def in_parts(layer, images, v, size):
        if at_first:
            layer.zero_grad()
        for part, v_part in zip(images.split(size), v.split(size), strict=True):
            if clear:
                layer.zero_grad()
            numbers = (v_part * layer(part)).sum(dim=1)
            (weigh(numbers, -(-len(images) // size), len(images))).backward()
        return layer.weight.grad

    return in_parts


def parts_by_hand(layer, images, v, size):
    total = torch.zeros_like(layer.weight)
    for part, v_part in zip(images.split(size), v.split(size), strict=True):
        layer.zero_grad()
        (v_part * layer(part)).sum(dim=1).mean().backward()
        total += layer.weight.grad * len(part) / len(images)
    return total


def all_at_once(layer, images, v, size):
    layer.zero_grad()
    (v * layer(images)).sum(dim=1).mean().backward()
    return layer.weight.grad


def all_at_once_past_the_layer(layer, images, v, size):
    layer.weight.grad = None
    (v * F.linear(images, layer.weight)).sum(dim=1).mean().backward()
    return layer.weight.grad


def parts_by_linear(layer, images, v, size):
    layer.weight.grad = None
    for part, v_part in zip(images.split(size), v.split(size), strict=True):
        ((v_part * (part @ layer.weight.T)).sum() / len(images)).backward()
    return layer.weight.grad


RIGHT = {
    "weighed_rows": [[7, 4.0], torch.tensor([7.0, 4.0]), np.array([7, 4])],
    "rows_that_count_for_nothing": [torch.tensor(2)],
    "status": [status_by_count],
    "by_nudging": [nudge_one_side, nudges(1e-4, 2e-4), nudges_taken_back],
    "in_parts": [
        parts_by_hand,
        parts_by_linear,
        parts(lambda numbers, parts, all: numbers.sum() / all),
    ],
}
WRONG = {
    "weighed_rows": [
        ((5, 5), "How often does each count"),
        ((5, 0), "`v` weighs the rows"),
        ((9, 8), "counts *minus* once"),
        ((5, 6), "4 times, not 3"),
        ((8, 6), "The second sends something too"),
        ((7, -4), "Add the rows of the table"),
        ((11,), "two numbers"),
    ],
    "rows_that_count_for_nothing": [
        (0, "does anybody read that map"),
        (1, "How far does it reach down"),
        (3, "One of those 3 rows"),
        (4, "Two of those 4 rows"),
        (6, "Follow the last row"),
    ],
    "status": [
        (none_as_zero, "`None` is not zero"),
        (zero_by(lambda grad: grad.sum() == 0), "whose sum is zero"),
        (zero_by(lambda grad: (grad == 0).any()), "with one zero"),
        (zero_by(lambda grad: grad.max() <= 0), "of [-2.0, -3.0]"),
        (zero_by(lambda grad: grad.abs().max() < 1e-6), "of [1e-12, 0.0]"),
        (lambda parameter: "ok" if parameter.grad.any() else "zero", "Its gradient is None"),
    ],
    "by_nudging": [
        (nudge_all, "all entries at once"),
        (nudges_that_stay, "A nudge stays"),
        (nudges(divide=1e-6), "All are 2 times as large"),
        (nudges(divide=1), "divide by the nudge"),
        (nudges(0.3, 0.6), "the nudge is too large"),
        (nudges(give=list), "Return a tensor"),
        (nudges_left, "`w` is left nudged"),
        (by_backward, "No `backward()` here"),
        (by_jacobian, "by calling `f` on nudged copies"),
        (lambda f, w: f(w), "should give the shape"),
        (lambda f, w: w / 0 - f(w), "the rates are tensor("),
        (lambda f, w: f(), "missing 1 required positional argument"),
    ],
    "in_parts": [
        (parts(lambda numbers, parts, all: numbers.mean(), clear=True), "only the last part's"),
        (parts(lambda numbers, parts, all: numbers.mean()), "means of the parts are added up"),
        (parts(lambda numbers, parts, all: numbers.mean() / parts), "a part of fewer images"),
        (
            parts(lambda numbers, parts, all: numbers.sum() / all, at_first=False),
            "what was in `.grad` before",
        ),
        (parts(lambda numbers, parts, all: numbers.sum()), "of the sum over the batch"),
        (all_at_once, "6 images in parts of 3: 6 went through `layer` at once"),
        (all_at_once_past_the_layer, "6 images in parts of 3: 6 went through"),
        (lambda layer, images, v, size: None, "should give a tensor, but gives None"),
    ],
}
