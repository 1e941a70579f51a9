"""Answers to the exercises of page 08, right and wrong, with the reply that each should get."""

import random

import torch
from torch.utils.data import DataLoader, DistributedSampler


def in_one_message(gradient, size, all_reduce):
    both = torch.cat([gradient * size, torch.tensor([size])])
    all_reduce(both)
    return both[:-1] / both[-1]


def known_size_first(gradient, size, all_reduce):
    total = torch.tensor([size])
    all_reduce(total)
    part = gradient * (size / total)
    all_reduce(part)
    return part


def plain_mean(gradient, size, all_reduce):
    world_size = torch.ones(1)
    all_reduce(world_size)
    all_reduce(gradient)
    return gradient / world_size


def plain_sum(gradient, size, all_reduce):
    all_reduce(gradient)
    return gradient


def weighted_sum(gradient, size, all_reduce):
    return plain_sum(size * gradient, size, all_reduce)


def own_size(gradient, size, all_reduce):
    return weighted_sum(gradient, size, all_reduce) / size


def result_of_all_reduce(gradient, size, all_reduce):
    return all_reduce(size * gradient) / all_reduce(size)


def unequal(gradient, size, all_reduce):
    all_reduce(gradient)
    if size > 4:
        all_reduce(gradient)
    return gradient


def without_end(gradient, size, all_reduce):
    for _ in range(100):
        all_reduce(gradient)


def times_the_flag(weights, rank, all_reduce):
    weights *= rank == 0
    all_reduce(weights)
    return weights


def sum_of_weights(weights, rank, all_reduce):
    all_reduce(weights)
    return weights


def mean_of_weights(weights, rank, all_reduce):
    return plain_mean(weights, 1, all_reduce)


def rank_zero_alone(weights, rank, all_reduce):
    if rank == 0:
        all_reduce(weights)
    return weights


def zeros(weights, rank, all_reduce):
    all_reduce(weights.clone())
    return weights if rank == 0 else torch.zeros_like(weights)


def zero_dimensional(weights, rank, all_reduce):
    return sum_of_weights(weights if rank == 0 else torch.tensor(0.0), rank, all_reduce)


def by_loader(digits, rank, world_size, batch_size, epochs, part=True, seeds=None, shuffle=True):
    sampler = DistributedSampler(digits, world_size, rank, shuffle=shuffle)
    loader = DataLoader(digits, batch_size // world_size if part else batch_size, sampler=sampler)
    batches = []
    for epoch in range(epochs):
        sampler.set_epoch(seeds(rank, epoch) if seeds else epoch)
        batches += list(loader)
    return batches


def by_hand(digits, rank, world_size, batch_size, epochs):
    draw, own, hand = random.Random(3), batch_size // world_size, []
    for _ in range(epochs):
        order = draw.sample(digits, len(digits))[rank::world_size]
        hand += [order[start : start + own] for start in range(0, len(order), own)]
    return hand


def as_given(*given):
    return by_loader(*given, part=False, seeds=lambda rank, epoch: 0)


def no_set_epoch(*given):
    return by_loader(*given, seeds=lambda rank, epoch: 0)


def own_seed(*given):
    return by_loader(*given, seeds=lambda rank, epoch: 10 * epoch + rank)


RIGHT = {
    "steps_an_epoch": [50.0],
    "whole_gradient": [in_one_message, known_size_first],
    "same_weights": [times_the_flag],
    "mended_deal": [by_loader, by_hand],
}
WRONG = {
    "steps_an_epoch": [
        (200, "right for one process"),
        (800, "do not add up their steps"),
        (12, "the batch of one process"),
        (1000, "how many digits a process gets"),
        (80, "all of them take in a step"),
        (4000, "Count the digits of one process"),
    ],
    "whole_gradient": [
        (plain_mean, "the plain mean"),
        (plain_sum, "the sum of the gradients"),
        (weighted_sum, "the sum over all digits"),
        (own_size, "rank 0 should give"),
        (lambda gradient, size, all_reduce: gradient, "its own gradient"),
        (lambda gradient, size, all_reduce: gradient.tolist(), "should give a tensor"),
        (result_of_all_reduce, "Your code raised TypeError in your line"),
        (lambda gradient, size, all_reduce: all_reduce(size), "all_reduce takes a tensor"),
        (unequal, "unequally often (rank 0: 2, rank 1: 1)"),
        (without_end, "more than 10 times"),
    ],
    "same_weights": [
        (sum_of_weights, "the sum of all weights"),
        (mean_of_weights, "the mean of all weights"),
        (lambda weights, rank, all_reduce: weights, "still has its own"),
        (rank_zero_alone, "unequally often (rank 0: 1, rank 1: 0)"),
        (zeros, "ends with zeros"),
        (lambda weights, rank, all_reduce: None, "should give a tensor"),
        (zero_dimensional, "tensors of different shapes"),
    ],
    "mended_deal": [
        (as_given, "each takes 8 a step"),
        (no_set_epoch, "two epochs deal the same hands"),
        (own_seed, "nobody gets the digits"),
        (lambda *given: by_loader(*given, shuffle=False), "the digits are not shuffled"),
        (lambda *given: by_loader(*given)[:3], "should get 9 batches of 4"),
        (lambda digits, *given: digits, "should return a list of batches"),
    ],
}
