"""Answers to the exercises of page 06, right and wrong, with the reply that each should get."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Subset

from blitz_helpers import Network, evaluate, fit, load_mnist, momentum_step, sgd_step


def by_evaluate(net, batches):
    return evaluate(net, batches).accuracy


def as_it_comes(net, batches):
    return sum(map(right, [net] * len(batches), batches)) / sum(len(b) for _, b in batches)


def right(net, batch):
    return (net(batch[0]).argmax(dim=1) == batch[1]).sum().item()


def left_in_eval(net, batches):
    net.eval()
    return as_it_comes(net, batches)


def left_in_train(net, batches):
    score = left_in_eval(net, batches)
    net.train()
    return score


def mean_of_batches(net, batches):
    return sum(by_evaluate(net, [batch]) for batch in batches) / len(batches)


def a_tensor(net, batches):
    return torch.tensor(by_evaluate(net, batches))


def wrong_axis(net, batches):
    return (net(batches[0][0]).argmax(dim=0) == batches[0][1]).mean()


def the_mended_loop(loss_of=F.cross_entropy, training=True, cleared=True):
    def train(net, batches, lr):
        net.train(training)
        for images, labels in batches:
            if cleared:
                net.zero_grad()
            loss_of(net(images), labels).backward()
            sgd_step(net.parameters(), lr)

    return train


def by_fit(net, batches, lr):
    fit(net, batches, lambda params: sgd_step(params, lr), epochs=1)


def log_softmax_first(logits, labels):  # the logarithms of probabilities are logits, too
    return F.cross_entropy(logits.log_softmax(dim=1), labels)


def softmax_twice(logits, labels):
    return F.cross_entropy(logits.softmax(dim=1), labels)


def squares(logits, labels):
    return F.mse_loss(logits.softmax(dim=1), F.one_hot(labels, 10).double())


def one_hot_of_integers(logits, labels):
    return F.cross_entropy(logits, F.one_hot(labels, 10))


def without_logarithm(logits, labels):
    return F.nll_loss(logits.softmax(dim=1), labels)


def sums(logits, labels):
    return F.cross_entropy(logits, labels, reduction="sum")


class OnlyWhenAsked(nn.Module):
    """Train when it is first asked, so that collecting the tests stays quick."""

    net = None

    def forward(self, images):
        if OnlyWhenAsked.net is None:
            OnlyWhenAsked.net = trained()
        return OnlyWhenAsked.net(images)


@torch.enable_grad()
def trained():
    torch.manual_seed(0)
    first = nn.Conv2d(1, 16, 5), nn.ReLU(), nn.MaxPool2d(2)
    second = nn.Conv2d(16, 32, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(800, 10)
    net, velocities = nn.Sequential(*first, *second), {}
    digits = Subset(load_mnist("train"), range(3000))
    loader = DataLoader(digits, 16, shuffle=True, generator=torch.Generator().manual_seed(0))
    for epoch in range(6):
        for images, labels in loader:
            net.zero_grad()
            F.cross_entropy(net(images), labels).backward()
            momentum_step(net.parameters(), velocities, lr=0.05 * (1 - epoch / 6))
    return net


class Memory(nn.Module):
    """Weigh the digits that it has seen by how near they are: a network without training."""

    def __init__(self, count, smoothness=1e-3):
        super().__init__()
        self.count, self.smoothness, self.seen, self.weights = count, smoothness, None, None

    def likeness(self, images):
        return torch.exp(-0.025 * torch.cdist(images.flatten(1), self.seen).square())

    def forward(self, images):
        if self.weights is None:
            seen, labels = (each[: self.count] for each in load_mnist("train").tensors)
            self.seen = seen.flatten(1)
            likeness = self.likeness(seen) + self.smoothness * torch.eye(self.count)
            self.weights = torch.linalg.solve(likeness, F.one_hot(labels, 10) - 0.1)
        return 10 * self.likeness(images) @ self.weights


RIGHT = {
    "first_loss": [3.26, math.log(26)],
    "accuracy": [by_evaluate, a_tensor],
    "mended_training": [by_fit, the_mended_loop(log_softmax_first)],
    "digit_reader": [OnlyWhenAsked()],
}
WRONG = {
    "first_loss": [
        (2.30, "right for ten digits"),
        (-3.26, "minus the logarithm"),
        (4.70, "to base 2"),
        (1.41, "to base 10"),
        (1 / 26, "the probability of the right letter"),
        (0.96, "share of wrong answers"),
        (26, "Which probability"),
    ],
    "accuracy": [
        (as_it_comes, "asked in `train()`, where"),
        (left_in_eval, "the network came in `train()`"),
        (left_in_train, "the network came in `eval()`"),
        (mean_of_batches, "mean of the batches' scores"),
        (lambda *given: 100 * by_evaluate(*given), "a percentage"),
        (lambda *given: 1 - by_evaluate(*given), "share of wrong answers"),
        (lambda net, b: sum(right(net.eval(), each) for each in b), "how many are right"),
        (lambda net, batches: by_evaluate(net, batches[-1:]), "last batch alone"),
        (lambda *given: [by_evaluate(*given)], "should return one number"),
        (lambda *given: by_evaluate(*given) / 2, "but returns"),
        (wrong_axis, "Your code raised RuntimeError"),
    ],
    "mended_training": [
        (
            the_mended_loop(softmax_twice, False, False),
            "left: 3. The first: `F.cross_entropy` does",
        ),
        (the_mended_loop(softmax_twice), "left: 1. The first: `F.cross_entropy` does the softmax"),
        (the_mended_loop(training=False), "left: 1. The first: It trains in `eval()`"),
        (the_mended_loop(cleared=False), "left: 1. The first: Old gradients"),
        (the_mended_loop(squares), "not the squared error"),
        (the_mended_loop(without_logarithm), "wants logarithms"),
        (the_mended_loop(one_hot_of_integers), "Your code raised RuntimeError"),
        (the_mended_loop(sums), "not to where `fit` does"),
        (lambda net, batches, lr: None, "No weight has moved"),
    ],
    "digit_reader": [
        (Network(), "Is this the network that was trained?"),
        (Network(num_classes=26), "Ten logits are wanted"),
        (Memory(3000), "Within the margin"),
        (Memory(1000), "by heart"),
        (Memory(1000, smoothness=100.0), "Of its own it reads only 8"),
        (Memory(3500), "as sure of numbers 3,000 to 3,499"),
        (nn.Flatten(), "Ten logits are wanted for each image, but it gives 1024"),
        (Network(input_size=28), "mat1 and mat2 shapes cannot be multiplied"),
    ],
}
