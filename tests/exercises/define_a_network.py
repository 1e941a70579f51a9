"""Answers to the exercises of page 01, right and wrong, with the reply that each should get."""

import torch
import torch.nn.functional as F
from torch import nn


def map_by_torch(image, weights, bias):
    return F.conv2d(image[None, None], weights[None, None], torch.tensor([bias]))[0, 0]


def map_by_shifts(image, weights, bias):
    rows, columns = image.shape[0] - 2, image.shape[1] - 2
    places = [(i, j) for i in range(3) for j in range(3)]
    return bias + sum(weights[i, j] * image[i : i + rows, j : j + columns] for i, j in places)


class Reader(nn.Module):
    def __init__(self, contrast, layers, relu=F.relu):
        super().__init__()
        self.contrast, self.layers, self.relu = contrast, layers, relu

    def forward(self, x):
        x = self.relu(self.layers[0](torch.flatten(self.contrast * x, 1)))
        return self.layers[1](x)


class NoContrast(Reader):
    def forward(self, x):
        return self.layers[1](self.relu(self.layers[0](x.flatten(1))))


class Detached(Reader):
    def forward(self, x):
        return super().forward(x).detach()


def layers():
    return nn.Linear(1024, 16), nn.Linear(16, 10)


LEARNED = nn.Parameter(torch.ones(1))
FROZEN = nn.Parameter(torch.ones(1), requires_grad=False)

RIGHT = {
    "larger_squares": [61_706.0],
    "horizontal_edges": [[[-1, -2, -1], [0, 0, 0], [1, 2, 1]], [[-1] * 3, [1] * 3, [0] * 3]],
    "feature_map": [map_by_torch, map_by_shifts],
    "unlisted": [Reader(LEARNED, nn.ModuleList(layers()), relu=nn.ReLU())],
}
WRONG = {
    "larger_squares": [
        (81_194, "squares of 3x3"),
        (82_826, "400 numbers now, not 576"),
        (61_470, "has a bias too"),
        (59_706, "looks at six maps"),
        (60_074, "the squares are still 3x3"),
        (61_707, "Count layer by layer"),
    ],
    "horizontal_edges": [
        ([[-1, 0, 1]] * 3, "Along a vertical edge it gives 3"),
        ([[1] * 3, [0] * 3, [-1] * 3], "turn it upside down"),
        ([[0] * 3, [0] * 3, [1] * 3], "Inside the ink it gives 3"),
        ([[0, 1, 0], [1, -4, 1], [0, 1, 0]], "Along a vertical edge it gives 1"),
        (torch.zeros(3, 3), "gives zero, and should be high"),
        ([-1, 0, 1], "this has the shape (3,)"),
    ],
    "feature_map": [
        (lambda image, weights, bias: map_by_torch(image, weights, 0.0), "bias is missing"),
        (lambda image, weights, bias: map_by_torch(image, weights, 9 * bias), "nine times"),
        (lambda image, weights, bias: map_by_torch(image, weights.flip(0, 1), bias), "upside down"),
        (lambda image, weights, bias: map_by_torch(F.pad(image, (1,) * 4), weights, bias), "large"),
        (lambda *given: map_by_torch(*given).T, "rows and columns are exchanged"),
        (lambda *given: map_by_torch(*given).tolist(), "should give a tensor"),
        (lambda *given: map_by_torch(*given).relu(), "numbers below zero"),
        (lambda image, weights, bias: image @ weights, "Your code raised RuntimeError"),
    ],
    "unlisted": [
        (Reader(torch.ones(1), layers()), "still finds nothing"),
        (Reader(LEARNED, layers()), "finds the contrast alone"),
        (Reader(torch.ones(1), nn.ModuleList(layers())), "not the contrast"),
        (Reader(FROZEN, nn.ModuleList(layers())), "one of them is frozen"),
        (Detached(LEARNED, nn.ModuleList(layers())), "No gradient comes from the scores"),
        (NoContrast(LEARNED, nn.ModuleList(layers())), "same as a brighter image"),
        (Reader(LEARNED, nn.ModuleList(layers()), relu=lambda x: x), "no more than one"),
        (Reader, "Pass what it makes: Reader(...)"),
    ],
}
