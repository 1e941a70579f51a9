"""Tensors without data: their sizes, strides and dtypes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from blitz_helpers.trace._op import Misfit

Shape = tuple[int, ...]
Sizes = int | Sequence[int]
META = torch.device("meta")
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def new(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return a contiguous tensor without data."""
    return torch.empty(size=shape, dtype=dtype, device=META)  # by its name it is parsed faster


def without_data(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return a tensor without data that looks like this one."""
    dtype = dtype or tensor.dtype
    return torch.empty_strided(tensor.size(), tensor.stride(), dtype=dtype, device=META)


def per_dimension(value: Sizes, count: int) -> Shape:
    """Return a size argument of torch as one integer per dimension."""
    if isinstance(value, int):
        return (value,) * count
    sizes = tuple(value)
    return sizes * count if len(sizes) == 1 else sizes


def in_channels_last(tensor: Tensor) -> bool:
    """Return whether torch considers the channels of an image or a volume to be innermost.

    Only the order of the strides counts; where sizes of 1 leave it open, the answer is no.
    Source: c10's ``is_channels_last_strides_2d`` and ``_3d``.
    """
    if tensor.is_contiguous() or tensor.dim() not in FORMATS:
        return False
    sizes, strides = tensor.shape, tensor.stride()
    least = 0
    for dim in (1, *range(tensor.dim() - 1, 1, -1), 0):
        if strides[dim] < max(least, dim == 1) or (dim == 0 and least == strides[1]):
            return False
        least = strides[dim] * max(sizes[dim], 1)
    return True


def like_format(shape: Shape, dtype: torch.dtype, *models: Tensor) -> Tensor:
    """Return a new tensor, in channels-last order if one of ``models`` is."""
    for model in models:
        if in_channels_last(model) and model.dim() == len(shape):
            order = FORMATS[len(shape)]
            return torch.empty(shape, dtype=dtype, device=META, memory_format=order)
    return new(shape, dtype)


def compute_dtype(x: Tensor, *others: Tensor | None) -> torch.dtype:
    """Return the dtype that a product of these tensors has.

    Raises:
        Misfit: their dtypes differ.
    """
    # Autocast depends on the real device; here the tensors are on meta.
    for device in ("cpu", "cuda"):
        if torch.is_autocast_enabled(device) and x.dtype.is_floating_point:
            return torch.get_autocast_dtype(device)
    for other in others:
        if other is not None and other.dtype != x.dtype:
            raise wrong_dtype(x, other.dtype, [other])
    return x.dtype


def wrong_dtype(
    tensor: Tensor, wants: torch.dtype, others: Sequence[Tensor] = (), noun: str = "an input"
) -> Misfit:
    """Return the error for a tensor whose dtype is not ``wants``."""
    text = f"got {noun} of {tensor.dtype}, wants {wants}"
    return Misfit("dtype", text, tensor, None, tensor.dtype, wants, noun, others)


def check_size(tensor: Tensor, dim: int, wants: int, noun: str, *others: Tensor) -> None:
    """Refuse a tensor unless the size of dimension ``dim`` is ``wants``."""
    got = tensor.shape[dim]
    if got != wants:
        text = f"got {got} {noun}, wants {wants}"
        raise Misfit("size", text, tensor, dim, got, wants, noun, others)


def check_rank(tensor: Tensor, allowed: Sequence[int], noun: str = "dimensions") -> None:
    """Refuse a tensor unless its number of dimensions is one of those allowed."""
    if tensor.dim() not in allowed:
        wants = f"{' or '.join(map(str, allowed))} {noun}"
        raise wrong_rank(tensor, f"got {tuple(tensor.shape)}, wants {wants}", *allowed)


def wrong_rank(tensor: Tensor, text: str, *allowed: int, channels: int | None = None) -> Misfit:
    """Return the error for a tensor without one of these numbers of dimensions."""
    return Misfit("rank", text, tensor, None, tensor.dim(), allowed, "dimensions", (), channels)


def wrap(dim: int, tensor: Tensor, extra: int = 0) -> int:
    """Return the dimension ``dim``, counted from 0 even if it was given from the end.

    Raises:
        Misfit: the tensor has no such dimension.
    """
    span = tensor.dim() + extra or 1
    if not -span <= dim < span:
        text = f"got {tuple(tensor.shape)}, which has no dimension {dim}: use {-span} to {span - 1}"
        raise wrong_rank(tensor, text, dim + 1 if dim >= 0 else -dim)
    return dim % span


def broadcast(tensors: Sequence[Tensor], drop: int = 0) -> Shape:
    """Return the shape that the tensors broadcast to, without their last ``drop`` dimensions.

    Raises:
        Misfit: they do not.
    """
    shapes = [tuple(tensor.shape[: tensor.dim() - drop]) for tensor in tensors]
    out = list(max(shapes, key=lambda shape: len(tuple(shape))))
    for shape in shapes:
        for i in range(1, len(shape) + 1):
            if out[-i] == 1:
                out[-i] = shape[-i]
            elif shape[-i] not in (1, out[-i]):
                raise unequal(tensors, "which do not broadcast")
    return tuple(out)


def unequal(tensors: Sequence[Tensor], why: str) -> Misfit:
    """Return the error for operands that differ in size."""
    shapes = list(dict.fromkeys(str(tuple(tensor.shape)) for tensor in tensors))
    listed = f"{', '.join(shapes[:-1])} and {shapes[-1]}" if len(shapes) > 1 else shapes[0]
    return Misfit("unequal", f"got {listed}, {why}", others=tensors)


def elementwise(tensors: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Return a new tensor like the output of an element-wise operation on these."""
    first = tensors[0].shape
    shape: Shape = first
    for other in tensors[1:]:
        if other.shape != first:
            shape = broadcast(tensors)
            break
    for tensor in tensors:
        if not tensor.is_contiguous():
            return torch.empty_strided(shape, _strides(shape, tensors), dtype=dtype, device=META)
    return new(shape, dtype)


def _strides(shape: Shape, tensors: Sequence[Tensor]) -> list[int]:
    """Return the strides of the output of an element-wise operation on these.

    Source: torch's ``TensorIterator::reorder_dimensions``.
    """
    steps = []  # the strides of each, 0 where a dimension is broadcast
    for tensor in tensors:
        lead = len(shape) - tensor.dim()
        sizes = zip(tensor.shape, tensor.stride(), shape[lead:], strict=True)
        steps.append(
            [0] * lead + [0 if size == 1 and out != 1 else step for size, step, out in sizes]
        )

    def order(a: int, b: int) -> int:
        """Return 1 if dimension ``a`` lies outside ``b``, -1 if inside, 0 if either will do."""
        for step in steps:
            if step[a] and step[b]:
                if step[a] != step[b]:
                    return 1 if step[a] > step[b] else -1
                if shape[a] > shape[b]:
                    return 1
        return 0

    inside_out = list(range(len(shape) - 1, -1, -1))
    for i in range(1, len(inside_out)):
        moving = i
        for other in range(i - 1, -1, -1):
            outcome = order(inside_out[other], inside_out[moving])
            if outcome > 0:
                inside_out[other], inside_out[moving] = inside_out[moving], inside_out[other]
                moving = other
            elif outcome < 0:
                break
    strides, step = [1] * len(shape), 1
    for dim in inside_out:
        strides[dim] = step
        step *= shape[dim] or 1
    return strides
