"""Attention, in which each position looks at all others."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor

from blitz_helpers.trace._field import Origin, dims_of, last_made, origin_of, without_trail
from blitz_helpers.trace._layout import (
    broadcast,
    check_rank,
    check_size,
    compute_dtype,
    elementwise,
    new,
    unequal,
    wrong_dtype,
)
from blitz_helpers.trace._op import Misfit, Op, OpenOp, op


def _wrong_mask(mask: Tensor, text: str, dim: int | None, *others: Tensor) -> Misfit:
    return Misfit("unequal", text, mask, dim, noun="mask", others=others)


@op("scaled_dot_product_attention")
class ScaledDotProduct(Op):
    """Scores of each query with each key, then sums of the values, weighted by the scores."""

    query: Tensor
    key: Tensor
    value: Tensor
    attn_mask: Tensor | None = None
    dropout_p: float = 0.0
    is_causal: bool = False
    scale: float | None = None
    enable_gqa: bool = False

    def output(self) -> Tensor:
        query, key, value = self.query, self.key, self.value
        dtype = compute_dtype(query, key, value)
        fused = query.dim() == 4 and query.shape[-1] == value.shape[-1] and not self.dropout_p
        if fused and all(tensor.stride(-1) == 1 for tensor in (query, key, value)):
            return elementwise((query,), dtype)  # in the order of the query
        batch = query.shape[:-2] if self.enable_gqa else broadcast((query, key, value), drop=2)
        return new((*batch, query.shape[-2], value.shape[-1]), dtype)

    def check(self) -> None:
        query, key, value = self.query, self.key, self.value
        for tensor in (query, key, value):
            if tensor.dim() < 2:
                check_rank(tensor, (2, 3, 4))
        compute_dtype(query, key, value)
        check_size(key, -1, query.shape[-1], "features in key", query)
        check_size(value, -2, key.shape[-2], "values", key)
        if self.enable_gqa and query.dim() > 2:
            for other in (key, value):
                if query.shape[-3] % other.shape[-3]:
                    raise unequal((query, other), "whose heads do not divide")
        for other in () if self.enable_gqa else (key, value):
            sizes = zip(reversed(query.shape[:-2]), reversed(other.shape[:-2]), strict=False)
            if any(a != b and 1 not in (a, b) for a, b in sizes):
                raise unequal((query, other), "whose batches and heads differ")
        if self.attn_mask is not None:
            self._check_mask(self.attn_mask)

    def _check_mask(self, mask: Tensor) -> None:
        """Refuse a mask that does not broadcast to the scores."""
        dtype = self.query.dtype
        if mask.dtype not in (torch.bool, torch.float32, dtype):
            raise wrong_dtype(mask, dtype, (self.query,), "a mask")
        shape = (*self.query.shape[:-1], self.key.shape[-2])
        sizes = enumerate(zip(reversed(mask.shape), reversed(shape), strict=False), start=1)
        dim = next((mask.dim() - i for i, (size, wants) in sizes if size not in (1, wants)), None)
        if dim is not None or mask.dim() > len(shape):
            text = f"got a mask of {tuple(mask.shape)} for scores of {shape}"
            raise _wrong_mask(mask, text, dim, self.query, self.key)

    def macs(self, output: Tensor) -> int:
        rows = output.numel() // self.value.shape[-1]
        return rows * self.key.shape[-2] * (self.query.shape[-1] + self.value.shape[-1])

    def origin(self, output: Tensor, step: int) -> Origin:
        dims = (*dims_of(self.query)[:-1], dims_of(self.value)[-1])
        return without_trail(origin_of(self.query), dims)


@op("multi_head_attention_forward")
class MultiHead(OpenOp):
    """Projections of query, key and value, attention in every head, and a last projection."""

    query: Tensor
    key: Tensor
    value: Tensor
    embed_dim_to_check: int
    num_heads: int
    in_proj_weight: Tensor | None
    in_proj_bias: Tensor | None
    bias_k: Tensor | None
    bias_v: Tensor | None
    add_zero_attn: bool
    dropout_p: float
    out_proj_weight: Tensor
    out_proj_bias: Tensor | None
    training: bool = True
    key_padding_mask: Tensor | None = None
    need_weights: bool = True
    attn_mask: Tensor | None = None
    use_separate_proj_weight: bool = False
    q_proj_weight: Tensor | None = None
    k_proj_weight: Tensor | None = None
    v_proj_weight: Tensor | None = None

    def check(self) -> None:
        query, key, value = self.query, self.key, self.value
        check_rank(query, (2, 3))
        weight, embed_dim = self.out_proj_weight, self.embed_dim_to_check
        compute_dtype(query, weight)
        check_size(query, -1, embed_dim, "features in query", weight)
        projected = (("key", key, self.k_proj_weight), ("value", value, self.v_proj_weight))
        for name, tensor, own in projected:
            check_rank(tensor, (query.dim(),))
            wants = own.shape[1] if self.use_separate_proj_weight and own is not None else embed_dim
            check_size(tensor, -1, wants, f"features in {name}", weight)
        check_size(value, 0, key.shape[0], "values", key)
        if not key.shape[1:-1] == value.shape[1:-1] == query.shape[1:-1]:
            raise unequal((query, key, value), "whose batches differ")
        self._check_masks()

    def _check_masks(self) -> None:
        mask, padding, others = self.attn_mask, self.key_padding_mask, (self.query, self.key)
        length, *batch = self.query.shape[:-1]
        keys = self.key.shape[0]
        each = (prod(batch) * self.num_heads, length, keys)
        if mask is not None and tuple(mask.shape) not in ((length, keys), each):
            text = f"got a mask of {tuple(mask.shape)}, wants {(length, keys)} or {each}"
            raise _wrong_mask(mask, text, None, *others)
        if padding is not None and tuple(padding.shape) != (*batch, keys):
            text = f"got a key_padding_mask of {tuple(padding.shape)}, wants {(*batch, keys)}"
            raise _wrong_mask(padding, text, None, *others)

    def macs(self, output: Tensor) -> int:
        query, key, value = self.query, self.key, self.value
        embed_dim = self.embed_dim_to_check
        rows = query.numel() // query.shape[-1]
        inside = query.numel() + key.numel() + value.numel() + rows * embed_dim
        extra = (self.bias_k is not None) + bool(self.add_zero_attn)
        return embed_dim * inside + 2 * rows * (key.shape[0] + extra) * embed_dim

    def origin(self, output: Tensor, step: int) -> Origin | None:
        if output.dim() != self.query.dim() or output.shape[0] != self.query.shape[0]:
            return None
        return last_made(self.query, output, step)


@op("_nested_tensor_from_mask_left_aligned")
class NestedFromMask(Op):
    """The encoder asks whether it may use nested tensors. No: the shapes are the same without."""

    input: Tensor
    mask: Tensor

    def output(self) -> Any:
        return False
