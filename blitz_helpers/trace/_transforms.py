"""An operation of a remedy on one tensor, as data: it can be applied, worded and pickled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_SEED = 0
_SHORT = {torch.int64: "long()", torch.bool: "bool()"}


@dataclass(frozen=True)
class Transform:
    """One operation on one tensor: its name, and the arguments after the tensor."""

    name: str
    args: tuple[Any, ...] = ()

    def __call__(self, tensor: Tensor) -> Tensor:
        """Return the tensor after the operation."""
        own = _OWN.get(self.name)
        if own is not None:
            return own(tensor, *self.args)
        return getattr(tensor, self.name)(*self.args)  # type: ignore[no-any-return]  # tensor methods

    @property
    def touches_batch(self) -> bool:
        """Whether the operation adds, drops or resizes the first dimension."""
        first = self.args[:1]
        if self.name == "sized":
            return any(axis == 0 for axis, _ in self.args)
        if self.name == "expand":
            return first != (-1,)
        return first == (None,) or (first == (0,) and self.name in ("squeeze", "unsqueeze"))

    def text(self, name: str = "x") -> str:
        """Return the operation as one types it, on a tensor called ``name``."""
        args = ", ".join(map(str, self.args))
        match self.name:
            case "index":
                return f"{name}[{', '.join(map(_index_text, self.args))}]"
            case "pad":
                return f"F.pad({name}, {args})"
            case "interpolate":
                return f"F.interpolate({name}, size={args})"
            case "linear":
                return f"nn.Linear({args})"
            case "conv":
                before, after, stride = self.args
                steps: Any = stride[0] if len(set(stride)) == 1 else stride
                strided = "" if steps == 1 else f", stride={steps}"
                return f"nn.Conv{len(stride)}d({before}, {after}, 1{strided})"
            case "to":
                return f"{name}.{_SHORT.get(self.args[0], f'to({args})')}"
        return f"{name}.{self.name}({args})"


def _index_text(item: Any) -> str:
    if not isinstance(item, tuple):
        return str(item)
    return ":".join("" if end is None else str(end) for end in item)


def _index(tensor: Tensor, *items: Any) -> Tensor:
    return tensor[tuple(slice(*item) if isinstance(item, tuple) else item for item in items)]


def _conv(tensor: Tensor, before: int, after: int, stride: tuple[int, ...]) -> Tensor:
    weight = fresh((after, before, *(1,) * len(stride)), tensor)
    convolve: Callable[..., Tensor] = getattr(F, f"conv{len(stride)}d")
    return convolve(tensor, weight, None, stride)


def _linear(tensor: Tensor, before: int, after: int) -> Tensor:
    return F.linear(tensor, fresh((after, before), tensor))


def _interpolate(tensor: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(tensor, size=size)


def fresh(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return new weights from a fixed seed, without data if ``like`` has none."""
    if like.is_meta:
        return torch.empty(shape, dtype=like.dtype, device="meta")
    generator = torch.Generator().manual_seed(_SEED)
    inside = max(1, torch.Size(shape[1:]).numel())
    dtype = torch.get_default_dtype()
    values = torch.randn(shape, generator=generator, dtype=dtype) / sqrt(inside)
    return values.to(like.device, like.dtype)


def _sized(tensor: Tensor, *sizes: tuple[int, int]) -> Tensor:
    """Return a tensor with other sizes along some axes: the old values, then new ones."""
    shape = list(tensor.shape)
    for axis, size in sizes:
        shape[axis] = size
    cut = tensor[tuple(map(slice, shape))]
    if list(cut.shape) == shape:
        return cut
    if tensor.is_meta:
        return torch.empty(shape, dtype=tensor.dtype, device=tensor.device)
    generator = torch.Generator().manual_seed(_SEED)
    if tensor.is_floating_point() or tensor.is_complex():
        made = torch.randn(shape, generator=generator)
    elif tensor.numel():
        made = torch.randint(int(tensor.min()), int(tensor.max()) + 1, shape, generator=generator)
    else:
        made = torch.zeros(shape)
    made = made.to(tensor.device, tensor.dtype)
    made[tuple(map(slice, cut.shape))] = cut
    return made


_OWN: dict[str, Callable[..., Tensor]] = {
    "index": _index,
    "pad": F.pad,
    "interpolate": _interpolate,
    "conv": _conv,
    "linear": _linear,
    "sized": _sized,
}
