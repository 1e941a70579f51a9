"""Answers to the exercises of page 02, right and wrong, with the reply that each should get."""

import torch
import torch.nn.functional as F
from torch import nn


class Padded(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 5, padding=2), nn.Conv2d(8, 16, 5, padding=2)
        self.fc = nn.Linear(16 * 7 * 7, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        return self.fc(F.max_pool2d(F.relu(self.conv2(x)), 2).flatten(1))


class Broken(Padded):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 5)


class Mixing(Broken):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(16 * 6 * 6, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc(x.transpose(0, 1).reshape(-1, 576))


class Flat(Broken):
    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        return torch.flatten(F.max_pool2d(F.relu(self.conv2(x)), 2)[:, :10, 0, 0])


class Blind(nn.Module):
    def forward(self, x):
        return torch.zeros(len(x), 10)


def field_by_recursion(layers, number):
    if not layers:
        return [number, number]
    *before, (kernel_size, stride, padding, dilation) = layers
    begin = number * stride - padding
    ends = [field_by_recursion(before, begin + dilation * cell) for cell in range(kernel_size)]
    return [ends[0][0], ends[-1][1]]


def field_forward(layers, number):
    size, apart, start = 1, 1, 0
    for kernel_size, stride, padding, dilation in layers:
        size += dilation * (kernel_size - 1) * apart
        start -= padding * apart
        apart *= stride
    return start + number * apart, start + number * apart + size - 1


def field_of(change=lambda layer: layer, order=list, give=lambda first, last: (first, last)):
    def receptive_field(layers, number):
        return give(*field_forward(order(map(change, layers)), number))

    return receptive_field


RIGHT = {
    "pooled_size": [9, torch.tensor(9), 9.0],
    "fitting_sides": [range(32, 36), [35, 34, 33, 32]],
    "same_padding": [lambda k, d: [d * (k - 1) // 2, (d * (k - 1) + 1) // 2]],
    "mended_reader": [Padded()],
    "receptive_field": [field_forward, field_by_recursion],
}
WRONG = {
    "pooled_size": [
        (10, "rounds up"),
        (9.5, "counts half a step"),
        (8, "first place needs no step"),
        (18, "stride of 1"),
        (6, "stride of 3"),
        (7, "Count the places"),
    ],
    "fitting_sides": [
        ((30, 31, 32, 33), "right for windows of 3"),
        ((28, 29, 30, 31), "before the first pooling"),
        ((32,), "which other sides fit"),
        ((32, 32, 33, 34, 35), "A side stands there twice"),
        ((), "At least one side fits: 32 does"),
        ((32, 34), "each doubles the number"),
        ((32, 33, 34), "there are more than 3"),
        ((31, 32, 33, 34), "31 does not fit"),
    ],
    "same_padding": [
        (lambda k, d: (d * (k - 1), d * (k - 1)), "both sides together"),
        (lambda k, d: ((k - 1) // 2, k // 2), "as without dilation"),
        (lambda k, d: (d * (k - 1) / 2, d * (k - 1) / 2), "use `//`"),
        (lambda k, d: (d * (k - 1) // 2,) * 2, "one shorter than before"),
        (lambda k, d: ((d * (k - 1) + 1) // 2, d * (k - 1) // 2), "the right side"),
        (lambda k, d: d * (k - 1) // 2, "Return two numbers"),
        (lambda k, d: (0, d * (k - 1)), "the window takes away"),
        (lambda k: (k // 2, k // 2), "Your code raised TypeError"),
    ],
    "mended_reader": [
        (Broken(), "mat1 and mat2 shapes cannot be multiplied"),
        (Mixing(), "something mixes them"),
        (Blind(), "They should depend on the digit"),
        (Flat(), "should give the shape (1, 10)"),
        (Padded, "Pass what it makes: Padded(...)"),
    ],
    "receptive_field": [
        (field_of(give=lambda first, last: (first, last + 1)), "one too far"),
        (field_of(give=lambda first, last: (first, last - first + 1)), "That is how many it sees"),
        (field_of(give=lambda first, last: last - first + 1), "Return two numbers"),
        (field_of(order=lambda layers: list(layers)[::-1]), "begin with the last layer"),
        (field_of(change=lambda layer: (*layer[:2], 0, layer[3])), "A border moves"),
        (field_of(change=lambda layer: (*layer[:3], 1)), "pulls the cells of a window apart"),
        (field_of(give=lambda first, last: (max(first, 0), last)), "Keep pixels below 0"),
        (field_of(give=lambda first, last: (last, first)), "not (3, 1)"),
    ],
}
