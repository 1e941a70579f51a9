"""Exercises of page 08: what several ranks exchange, and who gets which digits."""

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from blitz_helpers.exercises._exercise import exercise, page
from blitz_helpers.exercises._judging import Wrong, attempt, expect_tensor, expect_value, shown

AllReduce = Callable[[Tensor], None]


@exercise(
    question="""\
**Predict.** Four processes train one network on 4,000 digits. A `DistributedSampler` deals out the
digits, and the `DataLoader` of each process has `batch_size=20`. How many steps does an epoch
have?""",
    hints=(
        "How many digits does each process get in an epoch?",
        "1,000, of which it takes 20 in each step.",
    ),
    solution="answer = 4000 // 4 // 20",
    why="Each of the four takes 20 of its own 1,000 digits in a step. Together that is a batch of "
    "80, and `lr` has to suit that.",
)
def steps_an_epoch(answer: int) -> None:
    slips = {
        200: "That is right for one process. Here four take their batches at the same time.",
        800: "The processes do not add up their steps: they take each step together.",
        12: "20 is the batch of one process. Together they take 80 digits a step.",
        1000: "That is how many digits a process gets. It takes 20 of them in a step.",
        80: "That is how many digits all of them take in a step.",
    }
    expect_value(answer, 50, slips, "Count the digits of one process, then its batches.")


@exercise(
    question="""\
**Write** the exchange of gradients for shards of any size: `whole_gradient(gradient, size,
all_reduce)` runs in every process. `gradient` is that of the mean loss of this process's shard, and
`size` is how many digits the shard holds. `all_reduce(tensor)` puts the sum over all processes in
the tensor's place. Return the gradient of the whole batch. You are not told how many processes
there are.""",
    hints=(
        "On the page, shards of six and two: `(6 * a + 2 * b) / 8`. Which part of that can a "
        "process work out alone?",
        "Each sends `size * gradient`. And who knows the 8?",
        "The 8 is a sum over all processes as well: `total = torch.tensor(float(size))`, then "
        "`all_reduce(total)`.",
    ),
    solution="""\
def answer(gradient, size, all_reduce):
    whole = size * gradient
    total = torch.tensor(float(size))
    all_reduce(whole)
    all_reduce(total)
    return whole / total""",
    why="A mean over all digits needs the sum over all digits, and how many there are. Both are "
    "sums over the processes.",
)
def whole_gradient(answer: FunctionType) -> None:
    """Simulate the exchange between ranks whose batches differ in size."""
    generator = torch.Generator().manual_seed(0)
    for sizes in ((6, 2), (4, 4), (5, 1, 3), (7,)):
        shards = [torch.randn(3, generator=generator) for _ in sizes]
        given = [(shard, size) for shard, size in zip(shards, sizes, strict=True)]
        total = torch.stack(shards).sum(dim=0)
        weighted = torch.stack([size * shard for shard, size in given]).sum(dim=0)
        wanted = weighted / sum(sizes)
        tried = f"With shards of {' and '.join(map(str, sizes))}"
        slips = [
            (
                total / len(sizes),
                "That is the plain mean, in which the digits of a small shard count more.",
            ),
            (total, "That is the sum of the gradients. A mean is wanted."),
            (weighted, "That is the sum over all digits. Divide by how many there are."),
        ]
        for rank, got in enumerate(_play(answer, given)):
            its_own = shards[rank], "it returns its own gradient. `all_reduce` it."
            expect_tensor(got, wanted, f"{tried}, rank {rank}", [*slips, its_own])


@exercise(
    question="""\
**Write** what DDP does when it wraps: `same_weights(weights, rank, all_reduce)` runs in every
process, and all of them end with the weights of rank 0. You have `all_reduce(tensor)` alone, which
puts the sum over all processes in the tensor's place. Return the weights.""",
    hints=(
        "What would the others have to add, so that the sum is what rank 0 holds?",
        "Zeros: `torch.zeros_like(weights)`. And every process has to call `all_reduce`, or the "
        "others wait for it for ever.",
    ),
    solution="""\
def answer(weights, rank, all_reduce):
    sent = weights if rank == 0 else torch.zeros_like(weights)
    all_reduce(sent)
    return sent""",
    why="Rank 0 adds its weights and the others add zeros, so the sum is rank 0's. "
    "(`dist.broadcast(tensor, src=0)` does the same with less to send.)",
)
def same_weights(answer: FunctionType) -> None:
    """Simulate the exchange between ranks whose weights differ."""
    generator = torch.Generator().manual_seed(0)
    for world_size in (2, 1, 3):
        weights = [torch.randn(4, generator=generator) for _ in range(world_size)]
        got = _play(answer, [(each, rank) for rank, each in enumerate(weights)])
        total = torch.stack(weights).sum(dim=0)
        for rank, each in enumerate(got):
            slips = [
                (total, "it gets the sum of all weights. Only those of rank 0 count."),
                (
                    total / world_size,
                    "it gets the mean of all weights. Only those of rank 0 count.",
                ),
                (weights[rank], "it still has its own weights."),
                (torch.zeros(4), "it ends with zeros. What it sends must go through the sum."),
            ]
            tried = f"With {world_size} processes, rank {rank}"
            expect_tensor(each, weights[0], tried, slips)


def _play(answer: FunctionType, given: list[tuple[Any, ...]]) -> list[Any]:
    """Return what each rank returns, as if they ran at once and met at each ``all_reduce``.

    They run one after the other, again and again. A rank's first call depends on nothing of the
    others, so after one round its sum is known; after two, that of the second call; and so on.
    """
    sums: list[Tensor] = []
    while True:
        sent: list[list[Tensor]] = [[] for _ in given]
        returned = [
            attempt(answer, *inputs, _Sums(sums, calls))
            for inputs, calls in zip(given, sent, strict=True)
        ]
        counts = [len(calls) for calls in sent]
        if len(set(counts)) > 1:
            each = ", ".join(f"rank {rank}: {count}" for rank, count in enumerate(counts))
            raise Wrong(
                f"The ranks call `all_reduce` unequally often ({each}). In real processes the "
                "others would wait for ever: each must make the same calls."
            )
        if len(sums) == counts[0]:
            return returned
        if len(sums) == _MOST_CALLS:
            raise Wrong(f"It calls `all_reduce` more than {_MOST_CALLS} times. Two are enough.")
        meeting = [calls[len(sums)] for calls in sent]
        if len({tensor.shape for tensor in meeting}) > 1:
            raise Wrong("The ranks give `all_reduce` tensors of different shapes.")
        sums.append(torch.stack(meeting).sum(dim=0))


_MOST_CALLS = 10


class _Sums:
    """An ``all_reduce`` that fills in the known sums, and notes its arguments."""

    def __init__(self, sums: list[Tensor], calls: list[Tensor]) -> None:
        self._sums, self._calls = sums, calls

    def __call__(self, tensor: Tensor) -> None:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"all_reduce takes a tensor, but gets {shown(tensor)}.")
        number = len(self._calls)
        self._calls.append(tensor.detach().clone())
        if number < len(self._sums):
            with torch.no_grad():
                tensor.copy_(self._sums[number])

    def __deepcopy__(self, memo: object) -> "_Sums":
        return self  # its notes are read after the call

    def __repr__(self) -> str:
        return "all_reduce"


@exercise(
    question="""\
**Find the faults.** `deal(digits, rank, world_size, batch_size, epochs)` runs in every process and
returns the list of its batches, of all epochs. The training should be the same for any number of
processes: `batch_size` counts the digits of all together. Nothing raises an error, and two
things are wrong. (`batch_size` and the number of digits are multiples of `world_size`.)

```python
def deal(digits, rank, world_size, batch_size, epochs):
    sampler = DistributedSampler(digits, num_replicas=world_size, rank=rank)
    loader = DataLoader(digits, batch_size, sampler=sampler)
    return [batch for epoch in range(epochs) for batch in loader]
```""",
    hints=(
        "How many digits do all processes together take in one step?",
        "What does a sampler deal in the second epoch, if it is not told?",
        "`batch_size // world_size`, and `sampler.set_epoch(epoch)` before each epoch.",
    ),
    solution="""\
from torch.utils.data import DataLoader, DistributedSampler


def answer(digits, rank, world_size, batch_size, epochs):
    sampler = DistributedSampler(digits, num_replicas=world_size, rank=rank)
    loader = DataLoader(digits, batch_size // world_size, sampler=sampler)
    batches = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        batches.extend(loader)
    return batches""",
    why="Each process takes its part of the batch, and `set_epoch` has the sampler shuffle anew. "
    "(`fit` calls `set_epoch` for you.)",
)
def mended_deal(answer: FunctionType) -> None:
    """Collect the batches of all ranks, and check which digits each rank got, and when."""
    for count, world_size, batch_size in ((24, 2, 8), (24, 3, 6), (12, 1, 4)):
        digits, epochs = list(range(count)), 3
        tried = f"With {count} digits, {world_size} processes and batches of {batch_size}"
        hands = [
            _numbers(attempt(answer, digits, rank, world_size, batch_size, epochs), tried)
            for rank in range(world_size)
        ]
        steps, own = count // batch_size, batch_size // world_size
        for rank, hand in enumerate(hands):
            sizes = [len(batch) for batch in hand]
            if batch_size != own and batch_size in sizes:
                raise Wrong(f"{tried}, each takes {batch_size} a step. Together they should.")
            if sizes != [own] * (steps * epochs):
                wanted = f"{steps * epochs} batches of {own}"
                raise Wrong(
                    f"{tried}, rank {rank} should get {wanted}, but their sizes are {sizes}."
                )
        dealt = [
            [number for hand in hands for batch in hand[first : first + steps] for number in batch]
            for first in range(0, steps * epochs, steps)
        ]
        for epoch, numbers in enumerate(dealt):
            if sorted(numbers) != digits:
                missing = sorted(set(digits) - set(numbers))
                raise Wrong(
                    f"{tried}, nobody gets the digits {missing} in epoch {epoch}, and others are "
                    "dealt twice. Do all ranks shuffle by the same seed?"
                )
        of_rank_0 = dealt[0][: count // world_size]
        if of_rank_0 == sorted(of_rank_0):
            raise Wrong(f"{tried}, the digits are not shuffled.")
        if any(dealt[0] == later for later in dealt[1:]):
            raise Wrong(f"{tried}, two epochs deal the same hands.")


def _numbers(batches: Any, tried: str) -> list[list[int]]:
    try:
        return [[int(number) for number in batch] for batch in batches]
    except (TypeError, ValueError):
        raise Wrong(f"{tried} it should return a list of batches, not {shown(batches)}.") from None


page(__name__)
