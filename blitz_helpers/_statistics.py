"""Statistics of a large tensor, which is read from memory once and not copied."""

import math
from collections.abc import Iterable
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

# Entries per piece. On a CPU, a piece fits the caches of the cores, so that only the first of
# several reductions waits for memory; elsewhere, it is large enough to be worth a kernel launch.
_PIECE_PER_THREAD, _PIECE_ELSEWHERE = 2**17, 2**23


class Statistics(NamedTuple):
    """Statistics of a tensor's entries; nan if there are too few of them."""

    norm: float
    mean: float | complex
    std: float  # of the sample, as in `torch.std`
    max_abs: float
    zero_fraction: float  # of exact zeros


def statistics(tensor: Tensor) -> Statistics:
    """Return the statistics of all entries; low precision is summed in float32.

    The zeros that a sparse tensor leaves out count.

    >>> statistics(torch.tensor([0.0, 3.0, -4.0, 0.0])).norm
    5.0
    """
    count = tensor.numel()
    if not count:
        return Statistics(0.0, math.nan, math.nan, 0.0, math.nan)
    is_dense = tensor.layout is torch.strided
    stored = tensor if is_dense else tensor.to_sparse().coalesce().values()
    dtype = torch.promote_types(tensor.dtype, torch.float32)
    total, squares, max_abs, nonzeros = _sums(stored, dtype)
    mean = total / count
    spread = squares - count * _square(mean)
    # Exact enough unless a square may have under- or overflowed, or the mean dominates.
    if max_abs and not (1e-24 < squares < 1e32 and spread > squares / 16):
        dtype = torch.promote_types(dtype, torch.float64)
        stored = stored.cpu()  # not every device has float64
        total, squares, max_abs, nonzeros = _sums(stored, dtype)
        mean = total / count
        spread = sum(_sum_of_squares(piece.to(dtype) - mean) for piece in _pieces(stored))
        spread += (count - stored.numel()) * _square(mean)
    return Statistics(
        norm=math.sqrt(squares),
        mean=mean,
        std=math.sqrt(spread / (count - 1)) if count > 1 else math.nan,
        max_abs=max_abs,
        zero_fraction=(count - nonzeros) / count,
    )


def _sums(tensor: Tensor, dtype: torch.dtype) -> tuple[complex, float, float, int]:
    """Return the sum of the entries, that of their squares, the largest, and how many are not 0."""
    total, squares, max_abs, nonzeros = 0.0, 0.0, 0.0, 0
    for piece in _pieces(tensor):
        if piece.dtype != dtype:
            piece = piece.to(dtype)
        low, high = torch.aminmax(piece.abs() if dtype.is_complex else piece)
        largest = max(-low.item(), high.item())
        if largest > max_abs or math.isnan(largest):
            max_abs = largest
        total += piece.sum().item()
        squares += _sum_of_squares(piece)
        if dtype.is_complex or not math.isfinite(largest):
            nonzeros += int(piece.count_nonzero())
        elif largest:  # twice as fast, and exact, since a piece has fewer entries than 2**24
            nonzeros += round(_sum_of_squares(piece.sign()))
    return total, squares, max_abs, nonzeros


def _pieces(tensor: Tensor) -> Iterable[Tensor]:
    """Return all entries in flat pieces, as views if possible."""
    if tensor.device.type == "cpu":
        limit = _PIECE_PER_THREAD * torch.get_num_threads()
    else:
        limit = _PIECE_ELSEWHERE
    if tensor.numel() <= limit:
        return (tensor.reshape(-1),)
    as_stored = tensor.permute(sorted(range(tensor.dim()), key=tensor.stride, reverse=True))
    if as_stored.is_contiguous():
        return torch.split(as_stored.view(-1), limit)
    halves = as_stored.chunk(2, max(range(tensor.dim()), key=as_stored.size))
    return chain.from_iterable(map(_pieces, halves))


def _sum_of_squares(values: Tensor) -> float:
    return abs(torch.dot(values, values.conj()).item())


def _square(number: complex) -> float:
    return abs(number) * abs(number)  # `**` would raise instead of overflowing to inf
