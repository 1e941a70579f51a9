"""Operations element by element: each output comes from the same place of the inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from blitz_helpers.trace._field import Origin, known_origin, merged, origin_of
from blitz_helpers.trace._layout import (
    check_rank,
    check_size,
    compute_dtype,
    elementwise,
    wrong_dtype,
)
from blitz_helpers.trace._op import Misfit, Op, op


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    return [value for value in values if isinstance(value, Tensor)]


def _floating(dtype: torch.dtype) -> torch.dtype:
    inexact = dtype.is_floating_point or dtype.is_complex
    return dtype if inexact else torch.get_default_dtype()


class Pointwise(Op):
    """An operation whose output has the places of its inputs."""

    def __init__(self, input: Any, *args: Any, **kwargs: Any) -> None:
        self.input, self.args, self.kwargs = input, args, kwargs

    @property
    def operands(self) -> list[Tensor]:
        """The tensors among the arguments."""
        return _tensors((self.input, *self.args, *self.kwargs.values()))

    def origin(self, output: Tensor, step: int) -> Origin | None:
        tensors = self.operands
        if len(tensors) == 1 and tensors[0].dim() == output.dim():
            return origin_of(tensors[0])
        known = [tensor for tensor in tensors if known_origin(tensor)] or tensors[:1]
        return merged(known, output.dim()) if known else None


@op(
    """
    relu relu6 abs neg negative sign floor ceil round square leaky_relu threshold hardtanh
    __neg__ clamp clip __abs__ nan_to_num
    """
)
class SameDtype(Pointwise):
    """A function of one tensor that keeps its dtype."""

    def output(self) -> Any:
        bounds = _tensors((*self.args, *self.kwargs.values()))
        if bounds or self.input.is_complex():  # of which `abs` is real
            return NotImplemented
        if self.kwargs.get("inplace"):
            return self.input
        return elementwise((self.input,), self.input.dtype)


@op(
    """
    gelu silu mish elu selu celu softplus softsign hardswish hardsigmoid logsigmoid tanhshrink
    sigmoid tanh exp expm1 log log2 log10 log1p sqrt rsqrt sin cos tan atan sinh cosh erf
    reciprocal asin acos
    """
)
class FloatingResult(Pointwise):
    """A function of one tensor whose result is floating-point."""

    def output(self) -> Tensor:
        if self.kwargs.get("inplace"):
            return self.input  # type: ignore[no-any-return]  # it is a tensor
        return elementwise((self.input,), _floating(self.input.dtype))


@op("dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout")
class Dropout(Pointwise):
    """Random zeros."""

    def __init__(
        self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> None:
        super().__init__(input)
        self.same = inplace or not training

    def output(self) -> Tensor:
        return self.input if self.same else elementwise((self.input,), self.input.dtype)


@op(
    """
    add mul multiply __radd__ __rmul__ pow __rpow__ __pow__ maximum minimum
    fmod remainder __mod__ floor_divide __floordiv__ __and__ __or__ __xor__
    """
)
class Binary(Pointwise):
    """A function of two tensors, or of a tensor and a number."""

    def __init__(self, input: Any, other: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(input, other, *args, **kwargs)
        self.other = other

    def output(self) -> Tensor:
        both = _tensors((self.input, self.other))
        return elementwise(both, torch.result_type(self.input, self.other))


@op("sub subtract rsub __rsub__")
class Subtraction(Binary):
    """A difference, which truth values do not have."""

    def output(self) -> Tensor:
        for one in (self.input, self.other):
            if getattr(one, "dtype", type(one)) in (bool, torch.bool):
                text = "- takes no truth values: invert a mask by ~mask or mask.logical_not()"
                tensor = one if isinstance(one, Tensor) else None
                raise Misfit("other", text, tensor)
        return super().output()


@op("div divide true_divide __rdiv__ __rtruediv__ __truediv__ atan2")
class Division(Pointwise):
    """A quotient."""

    def __init__(self, input: Any, other: Any, *, rounding_mode: str | None = None) -> None:
        super().__init__(input, other)
        self.rounded = rounding_mode

    def output(self) -> Tensor:
        dtype = torch.result_type(self.input, self.args[0])
        both = _tensors((self.input, *self.args))
        return elementwise(both, dtype if self.rounded else _floating(dtype))


@op("eq ne lt le gt ge __eq__ __ne__ logical_and logical_or logical_xor")
class Comparison(Pointwise):
    """A question about two tensors."""

    def __init__(self, input: Any, other: Any) -> None:
        super().__init__(input, other)

    def output(self) -> Tensor:
        return elementwise(self.operands, torch.bool)


@op("logical_not isnan isinf isfinite")
class Predicate(Pointwise):
    """A question about each element."""

    def __init__(self, input: Tensor) -> None:
        super().__init__(input)

    def output(self) -> Tensor:
        return elementwise((self.input,), torch.bool)


@op("where", torch)
class Where(Pointwise):
    """A choice by a mask."""

    def __init__(self, condition: Tensor, input: Any = None, other: Any = None) -> None:
        super().__init__(condition, input, other)

    def output(self) -> Any:
        chosen = self.args
        if chosen[0] is None:
            return NotImplemented  # the positions: a question of values
        return elementwise(self.operands, torch.result_type(*chosen))


@op("where", Tensor)
class WhereOf(Where):
    """A choice by a mask, as a method of the first choice."""

    def __init__(self, input: Tensor, condition: Tensor, other: Any = None) -> None:
        super().__init__(condition, None if other is None else input, other)


@op("masked_fill")
class MaskedFill(Pointwise):
    """One value wherever a mask is set."""

    def __init__(self, input: Tensor, mask: Tensor, value: Any) -> None:
        super().__init__(input, mask, value)

    def output(self) -> Tensor:
        mask = self.args[0]
        if mask.dtype != torch.bool:
            raise wrong_dtype(mask, torch.bool, noun="a mask")
        return elementwise((self.input, mask), self.input.dtype)


@op(
    """
    detach clone contiguous float half double bfloat16 type type_as requires_grad alias lerp
    addcmul addcdiv copy rrelu hardshrink softshrink
    """,
    object,
)
class Likewise(Pointwise):
    """An operation that torch's own kernel answers, on the places of its inputs."""


@op("to cpu cuda", Tensor)
class Move(Op):
    """A tensor on another device or of another dtype."""

    def __init__(self, input: Tensor, *args: Any, **kwargs: Any) -> None:
        self.input = input

    def origin(self, output: Tensor, step: int) -> Origin:
        return origin_of(self.input)._replace(device=origin_of(output).device)


@op("prelu")
class PReLU(Op):
    """A slope a channel below zero."""

    def __init__(self, input: Tensor, weight: Tensor) -> None:
        self.input, self.weight = input, weight

    def check(self) -> None:
        compute_dtype(self.input, self.weight)
        if self.weight.numel() != 1 and self.input.dim() > 1:
            check_rank(self.weight, (0, 1))
            check_size(self.input, 1, self.weight.numel(), "channels", self.weight)

    def origin(self, output: Tensor, step: int) -> Origin:
        return origin_of(self.input)
