"""Statistics of a large tensor, which is read from memory once and not copied."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# Entries per piece. On a CPU, a piece fits the caches of the cores, so that only the first of
# several reductions waits for memory; elsewhere, it is large enough to be worth a kernel launch.
_PIECE_PER_THREAD, _PIECE_ELSEWHERE = 2**17, 2**24
_DOUBLE = (torch.float64, torch.complex128)


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

    Source: T. Chan, G. Golub and R. LeVeque, "Updating Formulae and a Pairwise Algorithm for
    Computing Sample Variances", 1979, for combining the pieces.

    >>> statistics(torch.tensor([0.0, 3.0, -4.0, 0.0])).norm
    5.0
    """
    seen = zeros = 0
    mean: float | complex = 0.0
    squares = spread = max_abs = 0.0
    for piece in _moments_of_pieces(tensor):
        distance = piece.mean - mean
        share = piece.size / (seen + piece.size)
        mean += distance * share
        spread += piece.spread + _square(distance) * seen * share
        squares += piece.squares
        zeros += piece.zeros
        seen += piece.size
        if piece.max_abs > max_abs or math.isnan(piece.max_abs):
            max_abs = piece.max_abs
    return Statistics(
        norm=math.sqrt(squares),
        mean=mean if seen else math.nan,
        std=math.sqrt(spread / (seen - 1)) if seen > 1 else math.nan,
        max_abs=max_abs,
        zero_fraction=zeros / seen if seen else math.nan,
    )


class _Moments(NamedTuple):
    size: int
    zeros: int
    mean: float | complex = 0.0
    squares: float = 0.0  # sum of squares
    spread: float = 0.0  # sum of squared distances from the mean
    max_abs: float = 0.0


def _moments_of_pieces(tensor: Tensor) -> Iterator[_Moments]:
    if tensor.layout == torch.strided:
        stored = tensor
    else:
        stored = tensor.to_sparse().coalesce().values()
        left_out = tensor.numel() - stored.numel()
        if left_out:
            yield _Moments(left_out, zeros=left_out)
    low_precision = tensor.dtype.itemsize < torch.float32.itemsize
    for piece in _pieces(stored):
        yield _moments(piece.float() if low_precision else piece)


def _pieces(tensor: Tensor) -> Iterator[Tensor]:
    """Yield all entries in flat pieces, as views if possible."""
    if tensor.device.type == "cpu":
        limit = _PIECE_PER_THREAD * torch.get_num_threads()
    else:
        limit = _PIECE_ELSEWHERE
    if 0 < tensor.numel() <= limit:
        yield tensor if tensor.dim() == 1 else tensor.reshape(-1)
    elif tensor.numel() > limit:
        as_stored = tensor.permute(sorted(range(tensor.dim()), key=tensor.stride, reverse=True))
        if as_stored.is_contiguous():
            yield from torch.split(as_stored.view(-1), limit)
        else:
            for half in as_stored.chunk(2, max(range(tensor.dim()), key=as_stored.size)):
                yield from _pieces(half)


def _moments(piece: Tensor) -> _Moments:
    count = piece.numel()
    low, high = torch.aminmax(piece.abs() if piece.is_complex() else piece)
    max_abs = max(-low.item(), high.item())
    if max_abs == 0:
        return _Moments(count, zeros=count)
    mean = piece.sum().item() / count
    squares = _sum_of_squares(piece)
    if piece.dtype in _DOUBLE:
        spread = _sum_of_squares(piece - mean)
    else:
        spread = squares - count * _square(mean)
        # Accurate enough unless a square may have under- or overflowed, or the mean dominates.
        if not (1e-24 < squares < 1e32 and spread > squares / 16):
            return _moments(piece.cpu().to(torch.promote_types(piece.dtype, torch.float64)))
    if piece.is_complex() or not math.isfinite(max_abs):
        nonzeros = int(piece.count_nonzero())
    else:  # twice as fast, and exact, since a piece has fewer entries than 2**24
        nonzeros = round(_sum_of_squares(piece.sign()))
    return _Moments(count, count - nonzeros, mean, squares, spread, max_abs)


def _sum_of_squares(values: Tensor) -> float:
    return float(abs(torch.dot(values, values.conj()).item()))


def _square(number: complex) -> float:
    return abs(number) * abs(number)  # `**` would raise instead of overflowing to inf
