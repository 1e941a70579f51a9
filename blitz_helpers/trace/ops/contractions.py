"""Products over other dimensions, in groups, or of more than two tensors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property
from math import prod
from typing import Any

import torch
from torch import Tensor

from blitz_helpers.trace._field import (
    UNKNOWN,
    Dim,
    Origin,
    dims_of,
    known_origin,
    last_made,
    origin_of,
    without_trail,
)
from blitz_helpers.trace._layout import (
    check_rank,
    check_size,
    compute_dtype,
    new,
)
from blitz_helpers.trace._op import Misfit, Op, OpenOp, op


@op("vecdot")
class VecDot(OpenOp):
    """Sums of products over a dimension of both."""

    x: Tensor
    y: Tensor

    def macs(self, output: Tensor) -> int:
        return output.numel() * int(self.x.shape[self.kwargs.get("dim", -1)])


@op("grouped_mm")
class GroupedMatMul(Op):
    """A matrix product per group. The only float that torch's `meta` kernel takes is bfloat16."""

    mat_a: Tensor
    mat_b: Tensor
    offs: Tensor | None = None
    bias: Any = None
    out_dtype: Any = None

    def output(self) -> Any:
        a, b = self.mat_a, self.mat_b
        left, right = a.shape, b.shape
        ragged = len(left) == 2 or len(right) == 2
        known = a.dtype in (torch.float32, torch.float16)
        plain = self.bias is None and self.out_dtype is None
        if not known or not plain or ragged == (self.offs is None):
            return NotImplemented
        if left[-1] != right[-2]:
            text = f"got {tuple(left)} @ {tuple(right)}, whose inner sizes differ"
            raise Misfit("size", text, a, -1, left[-1], right[-2], "inner", [b])
        both = len(left) == len(right)
        groups: Sequence[int] = left[:-2] if both else ()
        if both and self.offs is not None:
            groups = (len(self.offs),)
        return new((*groups, left[-2], right[-1]), compute_dtype(a, b))

    def macs(self, output: Tensor) -> int:
        if self.mat_a.dim() == self.mat_b.dim() == 2:  # the sums are divided among the groups
            return self.mat_a.numel() * self.mat_b.shape[-1]
        return output.numel() * self.mat_a.shape[-1]


@op("addmm addmv baddbmm addbmm")
class AddProduct(OpenOp):
    """A product added to a tensor. Each function has its own names for the operands."""

    input: Tensor

    @cached_property
    def operands(self) -> list[Tensor]:
        """The two tensors that are multiplied."""
        return [one for one in (*self.args, *self.kwargs.values()) if isinstance(one, Tensor)]

    def check(self) -> None:
        left, right = self.operands
        compute_dtype(self.input, left, right)
        if self.name.startswith("addmv") and self.input.dim() > 1:
            check_rank(self.input, (1,))
        if left.dim() and right.dim() > 1:
            check_size(left, -1, right.shape[-2], "features", right)

    def macs(self, output: Tensor) -> int:
        left, right = self.operands
        return left.numel() * (right.shape[-1] if right.dim() > 1 else 1)

    def origin(self, output: Tensor, step: int) -> Origin | None:
        left, _ = self.operands
        return last_made(left, output, step) if left.dim() == output.dim() == 2 else None


@op("bilinear")
class Bilinear(Op):
    """A product of two inputs with a weight of three dimensions."""

    input1: Tensor
    input2: Tensor
    weight: Tensor
    bias: Tensor | None = None

    def check(self) -> None:
        for place, tensor in enumerate((self.input1, self.input2), start=1):
            if tensor.dim():
                noun = f"features in input {place}"
                check_size(tensor, -1, self.weight.shape[place], noun, self.weight)

    def macs(self, output: Tensor) -> int:
        return output.numel() * prod(self.weight.shape[1:])


@op("einsum")
class Einsum(OpenOp):
    """Products over named indices, taken from left to right."""

    equation: Any

    @cached_property
    def operands(self) -> Sequence[Tensor]:
        """The tensors, which may also come in a list."""
        one = len(self.args) == 1 and isinstance(self.args[0], list | tuple)
        return self.args[0] if one else self.args

    @cached_property
    def terms(self) -> tuple[list[str], str] | None:
        """The letters of each operand and of the result, with Greek ones for an ellipsis."""
        if not isinstance(self.equation, str):
            return None
        left, arrow, result = self.equation.replace(" ", "").partition("->")
        terms = left.split(",")
        ranks = [operand.dim() for operand in self.operands]
        if len(terms) != len(ranks):
            return None
        wide = [  # the dimensions that an ellipsis stands for
            rank - len(term) + 3 if "..." in term else 0
            for term, rank in zip(terms, ranks, strict=True)
        ]
        greek = "".join([chr(0x3B1 + i) for i in range(max(wide))])
        for i, count in enumerate(wide):
            terms[i] = terms[i].replace("...", greek[max(wide) - count :])
        if list(map(len, terms)) != ranks:
            return None
        if not arrow:
            letters = "".join(terms)
            once = sorted(c for c in set(letters) - set(greek) if letters.count(c) == 1)
            result = "..." + "".join(once)
        return terms, result.replace("...", greek)

    def check(self) -> None:
        sizes: dict[str, tuple[int, Tensor, int]] = {}
        for term, operand in zip(self.terms[0] if self.terms else (), self.operands, strict=False):
            for dim, letter in enumerate(term):
                size, other, place = sizes.setdefault(letter, (operand.shape[dim], operand, dim))
                got = operand.shape[dim]
                if size != got and 1 not in (size, got):
                    pair = f"{tuple(other.shape)} and {tuple(operand.shape)}"
                    text = f"got {pair}: {letter!r} is {size} and {got} in {self.equation!r}"
                    if known_origin(operand) is None:  # a weight: the other is what came in
                        raise Misfit("size", text, other, place, size, got, "features", [operand])
                    raise Misfit("size", text, operand, dim, got, size, "features", [other])

    def macs(self, output: Tensor) -> int:
        if self.terms is None:
            return 0
        terms, result = self.terms
        sizes: dict[str, int] = {}
        for term, operand in zip(terms, self.operands, strict=True):
            for letter, size in zip(term, operand.shape, strict=True):
                sizes[letter] = max(size, sizes.get(letter, 1))
        macs, held = 0, set(terms[0])
        for i, term in enumerate(terms[1:], start=2):
            letters, kept = held | set(term), set(result).union(*terms[i:])
            summed = {one for one in held & set(term) - kept if sizes[one] > 1}
            if summed:  # otherwise torch multiplies the elements, as `*` does
                macs += prod([sizes[letter] for letter in letters & (kept | summed)])
            held = letters & kept
        return macs

    def origin(self, output: Tensor, step: int) -> Origin | None:
        if self.terms is None or len(self.terms[1]) != output.dim():
            return None
        known: dict[str, Dim] = {}
        for term, operand in zip(self.terms[0], self.operands, strict=True):
            for letter, dim in zip(term, dims_of(operand), strict=True):
                if dim != UNKNOWN:
                    known.setdefault(letter, dim)
        live = next((t for t in self.operands if origin_of(t).depends), self.operands[0])
        dims = [known.get(letter, Dim(step=step)) for letter in self.terms[1]]
        return without_trail(origin_of(live), tuple(dims))


@op("tensordot")
class TensorDot(Op):
    """A product over several dimensions."""

    a: Tensor
    b: Tensor
    dims: Any = 2

    def macs(self, output: Tensor) -> int:
        of_b = range(self.dims) if isinstance(self.dims, int) else self.dims[1]
        return output.numel() * prod([self.b.shape[d] for d in of_b])


@op("matrix_power")
class Power(Op):
    """A square matrix times itself, by repeated squaring."""

    input: Tensor
    n: int

    def macs(self, output: Tensor) -> int:
        exponent = abs(self.n)
        products = max(0, exponent.bit_length() - 1 + exponent.bit_count() - 1)
        return products * output.numel() * int(output.shape[-1])


@op("multi_dot chain_matmul")
class Chain(OpenOp):
    """A chain of matrix products, in the cheapest order."""

    @cached_property
    def matrices(self) -> Sequence[Tensor]:
        """The factors, which may also come in a list."""
        return (self.input, *self.args) if isinstance(self.input, Tensor) else self.input

    def check(self) -> None:
        for left, right in zip(self.matrices, self.matrices[1:], strict=False):
            check_size(left, -1, right.shape[0], "features", right)

    def macs(self, output: Tensor) -> int:
        """Source: the dynamic program for the cheapest order of a matrix chain, as in torch."""
        first, *others = self.matrices
        last = self.matrices[-1]
        sides = [one.shape[0] for one in others]
        sides.insert(0, first.shape[0] if first.dim() > 1 else 1)
        sides.append(last.shape[1] if last.dim() > 1 else 1)

        @cache
        def cost(start: int, end: int) -> int:
            ways = [
                cost(start, k) + cost(k, end) + sides[start] * sides[k] * sides[end]
                for k in range(start + 1, end)
            ]
            return min(ways, default=0)

        return cost(0, len(sides) - 1)
