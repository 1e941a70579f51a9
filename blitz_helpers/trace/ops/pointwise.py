"""Element-wise operations: each number of the output comes from the same place in the inputs."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from blitz_helpers._torch import no_torch_function
from blitz_helpers.trace._field import Origin, known_origin, merged, origin_of
from blitz_helpers.trace._layout import (
    check_rank,
    check_size,
    compute_dtype,
    elementwise,
    unequal,
)
from blitz_helpers.trace._op import Op, OpenOp, op

# The dtype of a result, by the function and the kinds of its arguments.
_DTYPES: dict[tuple[Any, ...], torch.dtype | None] = {}
_FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


@op(
    """
    detach clone contiguous float half double bfloat16 type type_as requires_grad alias copy rrelu
    """
)
class Pointwise(OpenOp):
    """An operation whose output keeps the places of its inputs."""

    def __init__(self, /, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.given = (self.input, *self.args, *self.kwargs.values())
        self.operands = [value for value in self.given if isinstance(value, Tensor)]

    def origin(self, output: Tensor, step: int) -> Origin | None:
        tensors = self.operands
        if len(tensors) == 1 and tensors[0].dim() == output.dim():
            return origin_of(tensors[0])
        known = [tensor for tensor in tensors if known_origin(tensor)] or tensors[:1]
        return merged(known, output.dim()) if known else None


@op(
    """
    threshold clamp clip
    add mul multiply sub subtract rsub div divide true_divide floor_divide pow fmod remainder
    floordiv mod and or xor
    atan2 maximum minimum lerp addcmul addcdiv where
    eq ne lt le gt ge logical_and logical_or logical_xor logical_not
    isnan isinf isfinite
    """
)
@op(
    """
    relu relu6 leaky_relu hardtanh gelu silu mish elu selu celu softplus softsign
    hardswish hardsigmoid hardshrink softshrink logsigmoid tanhshrink
    sigmoid tanh exp expm1 log log2 log10 log1p sqrt rsqrt square reciprocal erf
    sin cos tan asin acos atan sinh cosh
    abs neg negative sign floor ceil round nan_to_num
    """,
    keeps_floats=True,
)
class Elementwise(Pointwise):
    """An operation on each element, or on those in the same place of several tensors.

    ``keeps_floats`` tells that floats keep their dtype if nothing else is given.
    """

    keeps_floats: ClassVar[bool] = False

    def output(self) -> Any:
        dtype = self._dtype()
        if dtype is None:
            return NotImplemented
        if self.kwargs.get("inplace"):
            return self.input
        made, first = elementwise(self.operands, dtype), self.operands[0]
        if made.shape != first.shape and self.name.partition(".")[0].endswith("_"):
            text = f"which broadcast to {tuple(made.shape)}: the first cannot grow in place"
            raise unequal(self.operands, text)
        return made

    def _dtype(self) -> torch.dtype | None:
        """Return the dtype of the output; torch may compute it once, from single numbers."""
        if self.keeps_floats and not self.args and self.kwargs.keys() <= {"inplace"}:
            dtype: torch.dtype = self.input.dtype
            if dtype in _FLOATS:
                return dtype
        kinds = [(v.dtype, not v.dim()) if isinstance(v, Tensor) else type(v) for v in self.given]
        key = (self.func, torch.get_default_dtype(), *kinds)
        if key not in _DTYPES:
            named = {name: _single(value) for name, value in self.kwargs.items()}
            with no_torch_function():
                made = self.func(*map(_single, (self.input, *self.args)), **named)
            _DTYPES[key] = made.dtype if isinstance(made, Tensor) else None
        return _DTYPES[key]


def _single(value: Any) -> Any:
    """Return a single number in place of a tensor, with its dtype."""
    if not isinstance(value, Tensor):
        return value
    return torch.ones((1,) if value.dim() else (), dtype=value.dtype, device="cpu")


@op("to cpu cuda")
class Move(Pointwise):
    """A tensor on another device or of another dtype."""

    def origin(self, output: Tensor, step: int) -> Origin:
        return origin_of(self.input)._replace(device=origin_of(output).device)


@op("prelu")
class PReLU(Op):
    """A slope below zero, one for each channel."""

    input: Tensor
    weight: Tensor

    def check(self) -> None:
        compute_dtype(self.input, self.weight)
        if self.weight.numel() != 1 and self.input.dim() > 1:
            check_rank(self.weight, (0, 1))
            check_size(self.input, 1, self.weight.numel(), "channels", self.weight)

    def origin(self, output: Tensor, step: int) -> Origin:
        return origin_of(self.input)
