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


def fields_by_recursion(layers):
    if not layers:
        return []
    *before, (kernel_size, _) = layers
    between = 1
    for _, stride in before:
        between *= stride
    found = fields_by_recursion(before)
    return [*found, (found[-1] if found else 1) + (kernel_size - 1) * between]


def fields_with_own_stride(layers):
    sees, between, found = 1, 1, []
    for kernel_size, stride in layers:
        between *= stride
        sees += (kernel_size - 1) * between
        found.append(sees)
    return found


RIGHT = {
    "pooled_size": [9, torch.tensor(9), 9.0],
    "same_padding": [lambda k, d: (d * (k - 1) + 1) // 2],
    "mended_reader": [Padded()],
    "receptive_fields": [fields_by_recursion],
}
WRONG = {
    "pooled_size": [
        (10, "rounds up"),
        (8, "first place needs no step"),
        (18, "stride of 1"),
        (6, "stride of 3"),
        (7, "Count the places"),
    ],
    "same_padding": [
        (lambda k, d: d * (k - 1), "both sides: halve it"),
        (lambda k, d: k // 2, "as without dilation"),
        (lambda k, d: d * (k - 1) / 2, "use `//`"),
        (lambda k, d: d * k // 2, "which makes a side of"),
        (lambda k: k // 2, "Your code raised TypeError"),
    ],
    "mended_reader": [
        (Broken(), "mat1 and mat2 shapes cannot be multiplied"),
        (Mixing(), "something mixes them"),
        (Flat(), "should give the shape (1, 10)"),
        (Padded, "Pass what it makes: Padded(...)"),
    ],
    "receptive_fields": [
        (fields_with_own_stride, "own stride counts for the layers behind it"),
        (lambda layers: fields_by_recursion([(k, 1) for k, _ in layers]), "strides move"),
        (lambda layers: fields_by_recursion(layers)[-1], "Return a list"),
        (lambda layers: [k for k, _ in layers], "it should be [3, 4, 8, 10]"),
    ],
}
