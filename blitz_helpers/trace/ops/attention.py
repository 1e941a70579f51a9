"""Attention: each position looks at all the others."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from blitz_helpers.trace._field import Dim, Origin, dims_of, origin_of, without_trail
from blitz_helpers.trace._layout import check_rank, check_size, compute_dtype, new, unequal
from blitz_helpers.trace._op import Misfit, Op, op


def _check_mask(mask: Tensor, shape: tuple[int, ...], tensors: tuple[Tensor, ...]) -> None:
    """Refuse a mask that does not broadcast to the scores."""
    dim = None
    for place, (size, wants) in enumerate(zip(reversed(mask.shape), reversed(shape), strict=False)):
        if size not in (1, wants) and dim is None:
            dim = mask.dim() - 1 - place
    if dim is None and mask.dim() <= len(shape):
        return
    text = f"got a mask of {tuple(mask.shape)} for scores of {shape}"
    raise Misfit("unequal", text, mask, dim, noun="mask", others=tensors)


@op("scaled_dot_product_attention", F)
class ScaledDotProduct(Op):
    """Scores of each query with each key, and the sum of the values that they weight."""

    def __init__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> None:
        self.query, self.key, self.value, self.mask = query, key, value, attn_mask
        self.grouped = enable_gqa

    def output(self) -> Any:
        query = self.query
        self.check()
        if query.dim() != 4 or self.key.dim() != 4:
            return NotImplemented
        # The fused kernel of the CPU works on (N, L, heads, E) and hands back a transposed view.
        n, heads, length, _ = query.shape
        made = new((n, length, heads, self.value.shape[-1]), query.dtype)
        return made.transpose(1, 2)

    def check(self) -> None:
        query, key, value = self.query, self.key, self.value
        for tensor in (query, key, value):
            if tensor.dim() < 2:
                check_rank(tensor, (2, 3, 4))
        compute_dtype(query, key, value)
        check_size(key, -1, query.shape[-1], "features in key", query)
        check_size(value, -2, key.shape[-2], "values", key)
        lead = [tuple(t.shape[:-2]) for t in (query, key, value)]
        if not self.grouped:
            for other, shape in zip((key, value), lead[1:], strict=True):
                sizes = zip(reversed(lead[0]), reversed(shape), strict=False)
                if any(a != b and 1 not in (a, b) for a, b in sizes):
                    raise unequal((query, other), "whose batches and heads differ")
        if self.mask is not None:
            shape = (*lead[0], query.shape[-2], key.shape[-2])
            _check_mask(self.mask, shape, (query, key))

    def macs(self, output: Tensor) -> int:
        rows = output.numel() // self.value.shape[-1]
        return rows * self.key.shape[-2] * (self.query.shape[-1] + self.value.shape[-1])

    def origin(self, output: Tensor, step: int) -> Origin:
        dims = (*dims_of(self.query)[:-1], dims_of(self.value)[-1])
        return without_trail(origin_of(self.query), dims)


@op("multi_head_attention_forward", F)
class MultiHead(Op):
    """Four projections, then scores and their weighted sum over every head."""

    def __init__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        embed_dim: int,
        num_heads: int,
        in_proj_weight: Tensor | None,
        in_proj_bias: Tensor | None,
        bias_k: Tensor | None,
        bias_v: Tensor | None,
        add_zero_attn: bool,
        dropout_p: float,
        out_proj_weight: Tensor,
        out_proj_bias: Tensor | None,
        training: bool = True,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        use_separate_proj_weight: bool = False,
        q_proj_weight: Tensor | None = None,
        k_proj_weight: Tensor | None = None,
        v_proj_weight: Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        self.query, self.key, self.value = query, key, value
        self.embed_dim, self.num_heads = embed_dim, num_heads
        self.extra = (bias_k is not None) + bool(add_zero_attn)
        self.weight = out_proj_weight
        self.padding, self.mask = key_padding_mask, attn_mask
        self.separate = (k_proj_weight, v_proj_weight) if use_separate_proj_weight else None

    def check(self) -> None:
        query, key, value = self.query, self.key, self.value
        for tensor in (query, key, value):
            check_rank(tensor, (2, 3) if tensor is query else (query.dim(),))
        compute_dtype(query, self.weight)
        check_size(query, -1, self.embed_dim, "features in query", self.weight)
        for name, tensor, place in (("key", key, 0), ("value", value, 1)):
            weight = self.separate[place] if self.separate else None
            wants = self.embed_dim if weight is None else weight.shape[1]
            check_size(tensor, -1, wants, f"features in {name}", self.weight)
        if self.embed_dim % self.num_heads:
            text = f"got {self.embed_dim} features, which {self.num_heads} heads do not divide"
            raise Misfit("other", text, query)
        check_size(value, 0, key.shape[0], "values", key)
        batched = query.dim() == 3
        if batched and not key.shape[1] == value.shape[1] == query.shape[1]:
            raise unequal((query, key, value), "whose batches differ")
        length, keys = query.shape[0], key.shape[0]
        batch = query.shape[1] if batched else 1
        if self.mask is not None:
            shape = (batch * self.num_heads, length, keys)
            allowed = ((length, keys), shape)
            if tuple(self.mask.shape) not in allowed:
                text = f"got a mask of {tuple(self.mask.shape)}, wants {allowed[0]} or {shape}"
                raise Misfit("unequal", text, self.mask, None, noun="mask", others=(query, key))
        if self.padding is not None:
            fits = (batch, keys) if batched else (keys,)
            if tuple(self.padding.shape) != fits:
                text = f"got a key_padding_mask of {tuple(self.padding.shape)}, wants {fits}"
                raise Misfit("unequal", text, self.padding, None, noun="mask", others=(query, key))

    def macs(self, output: Tensor) -> int:
        query, key, value = self.query, self.key, self.value
        rows = query.numel() // query.shape[-1]
        inside = query.numel() + key.numel() + value.numel() + rows * self.embed_dim
        scores = 2 * rows * (key.shape[0] + self.extra) * self.embed_dim
        return self.embed_dim * inside + scores

    def origin(self, output: Tensor, step: int) -> Origin | None:
        if output.dim() != self.query.dim() or output.shape[0] != self.query.shape[0]:
            return None
        return without_trail(origin_of(self.query), (*dims_of(self.query)[:-1], Dim(step=step)))


@op("_nested_tensor_from_mask_left_aligned", torch)
class NestedFromMask(Op):
    """Whether the encoder may go by nested tensors: it may not, and ends in the same shape."""

    def __init__(self, input: Tensor, mask: Tensor) -> None:
        pass

    def output(self) -> Any:
        return False
