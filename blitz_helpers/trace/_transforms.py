"""What a remedy does to one tensor, as data: it can be applied, worded and pickled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_SEED = 0


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

    def text(self, name: str = "x") -> str:
        """Return the operation as its user types it, on a tensor called ``name``."""
        if self.name == "index":
            return f"{name}[{', '.join(map(_index_text, self.args))}]"
        args = ", ".join(map(_text, self.args))
        if self.name == "pad":
            return f"F.pad({name}, {args})"
        if self.name == "interpolate":
            return f"F.interpolate({name}, size={args})"
        if self.name == "conv":
            ndim, before, after, stride = self.args
            strided = "" if set(stride) == {1} else f", stride={_plain(stride)}"
            return f"nn.Conv{ndim}d({before}, {after}, 1{strided})"
        if self.name == "linear":
            return f"nn.Linear({args})"
        if self.name == "to" and self.args == (torch.int64,):
            return f"{name}.long()"
        if self.name == "to" and self.args == (torch.bool,):
            return f"{name}.bool()"
        return f"{name}.{self.name}({args})"


def _plain(sizes: tuple[int, ...]) -> str:
    return str(sizes[0] if len(set(sizes)) == 1 else sizes)


def _text(value: Any) -> str:
    return str(value)


def _index_text(item: Any) -> str:
    if not isinstance(item, tuple):
        return str(item)
    start, stop = item
    return f"{'' if start is None else start}:{'' if stop is None else stop}"


def _index(tensor: Tensor, *items: Any) -> Tensor:
    return tensor[tuple(slice(*item) if isinstance(item, tuple) else item for item in items)]


def fresh(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return new weights from a fixed seed, or none where ``like`` has no data."""
    if like.is_meta:
        return torch.empty(shape, dtype=like.dtype, device="meta")
    generator = torch.Generator().manual_seed(_SEED)
    inside = max(1, torch.Size(shape[1:]).numel())
    dtype = torch.get_default_dtype()
    values = torch.randn(shape, generator=generator, dtype=dtype) / sqrt(inside)
    return values.to(like.device, like.dtype)


def _conv(tensor: Tensor, ndim: int, before: int, after: int, stride: tuple[int, ...]) -> Tensor:
    weight = fresh((after, before, *(1,) * ndim), tensor)
    convolve: Callable[..., Tensor] = getattr(F, f"conv{ndim}d")
    return convolve(tensor, weight, None, stride)


def _linear(tensor: Tensor, before: int, after: int) -> Tensor:
    return F.linear(tensor, fresh((after, before), tensor))


def _interpolate(tensor: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(tensor, size=size)


def _pad(tensor: Tensor, pads: tuple[int, ...]) -> Tensor:
    return F.pad(tensor, pads)


_OWN: dict[str, Callable[..., Tensor]] = {
    "index": _index,
    "pad": _pad,
    "interpolate": _interpolate,
    "conv": _conv,
    "linear": _linear,
}
