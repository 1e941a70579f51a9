"""Products that are summed up: linear layers, matrix products, einsum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from blitz_helpers.trace._field import (
    UNKNOWN,
    Dim,
    Dims,
    Origin,
    dims_of,
    known_origin,
    origin_of,
    without_trail,
)
from blitz_helpers.trace._layout import (
    broadcast,
    check_size,
    compute_dtype,
    new,
    unequal,
)
from blitz_helpers.trace._op import Misfit, Op, op

LINALG: Any = torch.linalg


@op("linear", F)
@dataclass(eq=False)
class Linear(Op):
    """A linear layer: a product with the last dimension."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None = None

    def output(self) -> Any:
        x, weight = self.input, self.weight
        if not x.dim() or not weight.dim():
            raise Misfit("rank", "got a number, wants at least one dimension", x, None, 0, (1,))
        if weight.dim() != 2:
            return NotImplemented
        out_features, in_features = weight.shape
        check_size(x, -1, in_features, "features", weight)
        if self.bias is not None and self.bias.shape not in ((out_features,), (1,), ()):
            text = f"got a bias of {tuple(self.bias.shape)}, wants ({out_features},)"
            raise Misfit("other", text, self.bias)
        return new((*x.shape[:-1], out_features), compute_dtype(x, weight, self.bias))

    def macs(self, output: Tensor) -> int:
        return output.numel() * self.weight.shape[-1]

    def origin(self, output: Tensor, step: int) -> Origin | None:
        if self.weight.dim() != 2:
            return None
        origin, dims = origin_of(self.input), dims_of(self.input)
        made = (*dims[:-1], Dim(step=step))
        if origin.traced and not origin.untouched and dims[-1].axis is None:
            return Origin(origin.device, origin.depends, made, traced=True)
        return without_trail(origin, made)


@op("matmul __matmul__", torch, Tensor)
@op("matmul", LINALG)
class MatMul(Op):
    """A matrix product; torch has another name for the second operand in each function."""

    ranks: tuple[int, int] | None = None

    def __init__(self, input: Tensor, *second: Tensor, **named: Any) -> None:
        named.pop("out_dtype", None)
        others = [*second, *named.values()]
        if len(others) != 1:
            raise TypeError("a product takes two operands")
        self.input: Tensor = input
        self.other: Tensor = others[0]

    def output(self) -> Any:
        a, b = self.input, self.other
        for tensor, rank in zip((a, b), self.ranks or (), strict=False):
            if tensor.dim() != rank:
                text = f"got {tuple(a.shape)} and {tuple(b.shape)}, wants {self.ranks} dimensions"
                raise Misfit("rank", text, tensor, None, tensor.dim(), (rank,), "dimensions")
        left, right = tuple(a.shape), tuple(b.shape)
        if not left or not right:
            tensor = b if left else a
            text = f"got {left} and {right}, wants at least one dimension in both"
            raise Misfit("rank", text, tensor, None, 0, (1,), "dimensions")
        if self.ranks == (3, 3) and left[0] != right[0]:
            raise unequal((a, b), f"whose batches are {left[0]} and {right[0]}")
        inner = right[-2] if len(right) > 1 else right[0]
        if left[-1] != inner:
            text = f"got {left} @ {right}, whose inner sizes are {left[-1]} and {inner}"
            raise Misfit("size", text, a, -1, left[-1], inner, "inner", [b])
        rows = left[:-1] if len(left) > 1 else ()
        columns = right[-1:] if len(right) > 1 else ()
        batch = broadcast((a, b), 2) if len(left) > 2 or len(right) > 2 else ()
        return new((*batch, *rows[-1:], *columns), compute_dtype(a, b))

    def macs(self, output: Tensor) -> int:
        return output.numel() * self.input.shape[-1]

    def origin(self, output: Tensor, step: int) -> Origin | None:
        left, right = dims_of(self.input), dims_of(self.other)
        rows = left[:-1] if len(left) > 1 else ()
        columns = right[-1:] if len(right) > 1 else ()
        lead = right[:-2] if len(right) > len(left) else rows[:-1]
        origin = origin_of(self.input)
        if not origin.depends:
            origin = origin_of(self.other)
        if len(right) == 2 and self.other.dim() == 2 and columns == (UNKNOWN,):
            columns = (Dim(step=step),)
        return without_trail(origin, (*lead, *rows[-1:], *columns)[-output.dim() or 1 :])


def _product(name: str, left: int, right: int) -> None:
    """Register a product of tensors of these numbers of dimensions and no others."""
    op(name, torch, Tensor)(type(name.title(), (MatMul,), {"ranks": (left, right)}))


_product("mm", 2, 2)
_product("bmm", 3, 3)
_product("mv", 2, 1)
_product("dot", 1, 1)
_product("vdot", 1, 1)


@op("inner", torch, Tensor)
class Inner(Op):
    """A product over the last dimension of both."""

    def __init__(self, input: Tensor, other: Tensor) -> None:
        self.input, self.other = input, other

    def macs(self, output: Tensor) -> int:
        return output.numel() * self.input.shape[-1]


@op("_grouped_mm grouped_mm", torch, F)
class GroupedMatMul(Op):
    """Products group by group; of the floats, torch's `meta` kernel knows bfloat16 alone."""

    def __init__(
        self, mat_a: Tensor, mat_b: Tensor, offs: Tensor | None = None, **kwargs: Any
    ) -> None:
        self.a, self.b, self.offs, self.others = mat_a, mat_b, offs, kwargs

    def output(self) -> Any:
        a, b = self.a, self.b
        left, right = a.shape, b.shape
        ragged = len(left) == 2 or len(right) == 2
        plain = all(value is None for value in self.others.values())
        known = a.dtype in (torch.float32, torch.float16)
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
        if self.a.dim() == self.b.dim() == 2:  # the groups share the sums
            return self.a.numel() * self.b.shape[-1]
        return output.numel() * self.a.shape[-1]


@op("addmm addmv baddbmm addbmm")
class AddProduct(Op):
    """A product that is added to a tensor."""

    def __init__(self, input: Tensor, *args: Any, **kwargs: Any) -> None:
        given = [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)]
        self.input, (self.left, self.right) = input, given[:2]

    def check(self) -> None:
        if self.left.dim() and self.right.dim() > 1:
            check_size(self.left, -1, self.right.shape[-2], "features", self.right)

    def macs(self, output: Tensor) -> int:
        return self.left.numel() * (self.right.shape[-1] if self.right.dim() > 1 else 1)

    def origin(self, output: Tensor, step: int) -> Origin | None:
        if self.left.dim() != 2 or output.dim() != 2:
            return None
        made = (dims_of(self.left)[0], Dim(step=step))
        return without_trail(origin_of(self.left), made)


@op("bilinear", F, torch)
class Bilinear(Op):
    """A product of two inputs with a weight of three dimensions."""

    def __init__(
        self, input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None
    ) -> None:
        self.inputs, self.weight = (input1, input2), weight

    def check(self) -> None:
        for place, tensor in enumerate(self.inputs, start=1):
            if tensor.dim():
                noun = f"features in input {place}"
                check_size(tensor, -1, self.weight.shape[place], noun, self.weight)

    def macs(self, output: Tensor) -> int:
        return output.numel() * prod(self.weight.shape[1:])


@op("einsum", torch)
class Einsum(Op):
    """Products over named indices, taken from left to right."""

    def __init__(self, equation: Any, *operands: Any) -> None:
        if len(operands) == 1 and isinstance(operands[0], list | tuple):
            operands = tuple(operands[0])
        self.equation, self.operands = equation, operands

    def _terms(self) -> tuple[list[str], str] | None:
        """Return the letters of each operand and of the result, an ellipsis spelled out."""
        if not isinstance(self.equation, str):
            return None
        left, arrow, result = self.equation.replace(" ", "").partition("->")
        terms = left.split(",")
        if len(terms) != len(self.operands):
            return None
        spare = [c for c in map(chr, range(0x3B1, 0x3CA)) if c not in self.equation]
        wide = 0
        for i, (term, operand) in enumerate(zip(terms, self.operands, strict=True)):
            if "..." in term:
                count = operand.dim() - len(term) + 3
                wide = max(wide, count)
                letters = "".join(spare[len(spare) - count :]) if count > 0 else ""
                terms[i] = term.replace("...", letters)
            if len(terms[i]) != operand.dim():
                return None
        if not arrow:
            once = sorted(c for c in set("".join(terms)) if "".join(terms).count(c) == 1)
            result = ("..." if wide else "") + "".join(c for c in once if c not in spare)
        return terms, result.replace("...", "".join(spare[len(spare) - wide :]) if wide else "")

    def check(self) -> None:
        found = self._terms()
        if found is None:
            return
        sizes: dict[str, tuple[int, Tensor, int]] = {}
        for term, operand in zip(found[0], self.operands, strict=True):
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
        found = self._terms()
        if found is None:
            return 0
        terms, result = found
        sizes: dict[str, int] = {}
        for term, operand in zip(terms, self.operands, strict=True):
            for letter, size in zip(term, operand.shape, strict=True):
                sizes[letter] = max(size, sizes.get(letter, 1))
        macs, held = 0, set(terms[0])
        for i, term in enumerate(terms[1:], start=2):
            held |= set(term)
            macs += prod([sizes[letter] for letter in held])
            held &= set(result).union(*terms[i:])
        return macs

    def origin(self, output: Tensor, step: int) -> Origin | None:
        found = self._terms()
        if found is None or len(found[1]) != output.dim():
            return None
        known: dict[str, Dim] = {}
        for term, operand in zip(found[0], self.operands, strict=True):
            for letter, dim in zip(term, dims_of(operand), strict=True):
                if dim != UNKNOWN:
                    known.setdefault(letter, dim)
        live = next((t for t in self.operands if origin_of(t).depends), self.operands[0])
        dims: Dims = tuple([known.get(letter, Dim(step=step)) for letter in found[1]])
        return without_trail(origin_of(live), dims)


@op("tensordot", torch)
class TensorDot(Op):
    """A product over several dimensions."""

    def __init__(self, a: Tensor, b: Tensor, dims: Any = 2, out: Any = None) -> None:
        self.a, self.b, self.dims = a, b, dims

    def macs(self, output: Tensor) -> int:
        if isinstance(self.dims, int):
            inner = prod(self.b.shape[: self.dims])
        else:
            of_b = self.dims[1]
            inner = prod([self.b.shape[d] for d in ((of_b,) if isinstance(of_b, int) else of_b)])
        return output.numel() * inner


@op("multi_dot", LINALG)
@op("chain_matmul", torch)
class Chain(Op):
    """A chain of matrix products, taken in the order that costs least."""

    def __init__(self, *matrices: Any, out: Any = None) -> None:
        one = len(matrices) == 1 and not isinstance(matrices[0], Tensor)
        self.matrices: Sequence[Tensor] = matrices[0] if one else matrices

    def check(self) -> None:
        for left, right in zip(self.matrices, self.matrices[1:], strict=False):
            check_size(left, -1, right.shape[0], "features", right)

    def macs(self, output: Tensor) -> int:
        """Source: the matrix chain order by dynamic programming, as torch has it."""
        shapes = [tuple(matrix.shape) for matrix in self.matrices]
        if len(shapes[0]) == 1:
            shapes[0] = (1, *shapes[0])
        if len(shapes[-1]) == 1:
            shapes[-1] = (*shapes[-1], 1)
        sides = [shapes[0][0], *(shape[1] for shape in shapes)]
        count = len(shapes)
        cost = [[0] * count for _ in range(count)]
        for length in range(1, count):
            for i in range(count - length):
                j = i + length
                cost[i][j] = min(
                    cost[i][k] + cost[k + 1][j] + sides[i] * sides[k + 1] * sides[j + 1]
                    for k in range(i, j)
                )
        return cost[0][-1]
