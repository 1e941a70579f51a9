"""What an operation did, in numbers: written-out sums, multiply-accumulates, receptive fields.

An explanation has the signature of its operation, with the output before it. What has none computes
no size and multiplies nothing that is added up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from math import prod
from operator import add, mul
from typing import Any, NamedTuple

import torch
from torch import Tensor

from blitz_helpers.shapes import (
    conv_arithmetic,
    conv_output_size,
    conv_transpose_arithmetic,
    conv_transpose_output_size,
    pool_arithmetic,
    pool_output_size,
)
from blitz_helpers.trace._origin import (
    Axes,
    Axis,
    Origin,
    SizeRule,
    input_origin,
    known_origin,
    merged,
    origin_of,
    spatial,
    upsampling,
    window,
    with_last_axes,
)
from blitz_helpers.trace._rules import Sizes, per_dimension


class Explanation(NamedTuple):
    """The sums, the multiply-accumulates and the origin of the output (``None``: lost)."""

    arithmetic: tuple[str, ...] = ()
    num_macs: int = 0
    origin: Origin | None = None


Explain = Callable[..., Explanation]
_EXPLAIN: dict[str, Explain] = {}
# Each output element comes from the input elements of the same place, whatever else is mixed in.
_ELEMENTWISE = """
    relu relu6 abs neg negative sign floor ceil round square leaky_relu threshold hardtanh clamp
    clip nan_to_num gelu silu mish elu selu celu softplus softsign hardswish hardsigmoid logsigmoid
    tanhshrink sigmoid tanh exp expm1 log log2 log10 log1p sqrt rsqrt sin cos tan atan sinh cosh erf
    reciprocal asin acos dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout
    add sub subtract mul multiply rsub pow maximum minimum div divide true_divide truediv atan2 fmod
    remainder mod where masked_fill prelu rrelu hardshrink softshrink eq ne lt le gt ge
    batch_norm group_norm instance_norm local_response_norm detach clone contiguous float half
    double bfloat16 type type_as requires_grad alias lerp addcmul addcdiv copy
"""
_ELEMENTWISE_NAMES = frozenset(_ELEMENTWISE.split())


def explain(op: str, output: Tensor, args: Any, kwargs: Any, tensors: list[Tensor]) -> Explanation:
    """Explain the operation of this name that gave ``output``."""
    explanation = _EXPLAIN.get(op)
    if explanation is not None:
        found = explanation(output, *args, **kwargs)
        if found.origin is not None:
            return found
    else:
        found = Explanation()
    if not tensors:
        return found._replace(origin=origin_of(output))  # a new tensor's, whose device is known
    if explanation is None and op.removesuffix("_") in _ELEMENTWISE_NAMES:
        known = [tensor for tensor in tensors if known_origin(tensor)] or tensors[:1]
        origins = [origin_of(tensor) for tensor in known]
        if len(origins) == 1 and known[0].dim() == output.dim():
            return Explanation((), 0, origins[0])
        origin = merged(origins, [tensor.shape for tensor in known], output.dim())
        return Explanation((), 0, origin)
    origins = [origin_of(tensor) for tensor in tensors]
    origin = Origin(device_of(origins), any(origin.depends for origin in origins))
    return Explanation(found.arithmetic, found.num_macs, origin)


def device_of(origins: Sequence[Origin]) -> torch.device:
    """Return the device that the result of an operation is on."""
    for origin in origins:
        if origin.device.type != "cpu":
            return origin.device
    return origins[0].device


def _explains(names: str) -> Callable[[Explain], Explain]:
    def decorate(function: Explain) -> Explain:
        _EXPLAIN.update(dict.fromkeys(names.split(), function))
        return function

    return decorate


# Convolution and pooling

_pool_sum = lru_cache(maxsize=4096)(pool_arithmetic)
_conv_transpose_sum = lru_cache(maxsize=4096)(conv_transpose_arithmetic)


@lru_cache(maxsize=1024)
def _rule(formula: Callable[..., int], **settings: Any) -> Callable[[int], int]:
    return partial(formula, **settings)


@lru_cache(maxsize=4096)
def _windows(
    sum_of: Callable[..., str],
    formula: Callable[..., int],
    sizes: tuple[int, ...],
    *settings: tuple[Any, ...],
    **mode: bool,
) -> tuple[tuple[str, ...], list[SizeRule]]:
    """Return the sum and the size rule of each dimension that a window slides over."""
    names = ("kernel_size", "stride", "padding", "dilation")
    each = [dict(zip(names, one, strict=True)) | mode for one in zip(*settings, strict=True)]
    sums = tuple([sum_of(size, **one) for size, one in zip(sizes, each, strict=True)])
    return sums, [partial(formula, **one) for one in each]


def _slide(
    x: Tensor,
    output: Tensor,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    rules: Sequence[SizeRule],
) -> Origin | None:
    """Return the origin of the output of a window that slides over the last dimensions."""
    origin = origin_of(x)
    known = spatial(origin, x.dim(), len(kernel))
    if known is None:
        return None
    axes = map(window, known, kernel, stride, padding, dilation, rules)
    return with_last_axes(origin, output.dim(), list(axes))


def _explain_conv(
    output: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Explanation:
    shape = weight.shape
    kernel = tuple(shape[2:])
    ndim = len(kernel)
    strides, dilations = per_dimension(stride, ndim), per_dimension(dilation, ndim)
    pads: tuple[Any, ...]
    if padding == "same":
        pads = (padding,) * ndim
        # The smaller half stands before the input.
        before = tuple([d * (k - 1) // 2 for k, d in zip(kernel, dilations, strict=True)])
    elif padding == "valid":
        pads, before = (padding,) * ndim, (0,) * ndim
    else:
        pads = before = per_dimension(padding, ndim)  # type: ignore[arg-type]  # no text here
    sizes = tuple(input.shape[-ndim:])
    sums, rules = _windows(
        conv_arithmetic, conv_output_size, sizes, kernel, strides, pads, dilations
    )
    origin = _slide(input, output, kernel, strides, before, dilations, rules)
    return Explanation(sums, output.numel() * prod(shape[1:]), origin)


def _explain_conv_transpose(
    output: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Explanation:
    shape = weight.shape
    kernel = tuple(shape[2:])
    ndim = len(kernel)
    settings = list(
        zip(
            kernel,
            per_dimension(stride, ndim),
            per_dimension(padding, ndim),
            per_dimension(output_padding, ndim),
            per_dimension(dilation, ndim),
            strict=True,
        )
    )
    sums = [
        _conv_transpose_sum(size, *one)
        for size, one in zip(input.shape[-ndim:], settings, strict=True)
    ]
    macs = input.numel() * prod(shape[1:])
    origin = origin_of(input)
    known = spatial(origin, input.dim(), ndim)
    if known is None:
        return Explanation(tuple(sums), macs)
    axes = [
        upsampling(
            axis,
            factor=s,
            before=d * (k - 1) - p,
            after=p,
            rule=_rule(
                conv_transpose_output_size,
                kernel_size=k,
                stride=s,
                padding=p,
                output_padding=o,
                dilation=d,
            ),
        )
        for axis, (k, s, p, o, d) in zip(known, settings, strict=True)
    ]
    return Explanation(tuple(sums), macs, with_last_axes(origin, output.dim(), axes))


def _explain_pool(
    ndim: int,
    output: Tensor,
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None,
    padding: Sizes,
    dilation: Sizes,
    ceil_mode: bool,
) -> Explanation:
    kernel = per_dimension(kernel_size, ndim)
    strides = per_dimension(stride, ndim) if stride else kernel
    pads, dilations = per_dimension(padding, ndim), per_dimension(dilation, ndim)
    settings = (kernel, strides, pads, dilations)
    sizes = tuple(input.shape[-ndim:])
    sums, rules = _windows(pool_arithmetic, pool_output_size, sizes, *settings, ceil_mode=ceil_mode)
    return Explanation(sums, 0, _slide(input, output, *settings, rules))


def _fixed(output_size: int, _: int) -> int:
    return output_size


def _explain_adaptive_pool(ndim: int, output: Tensor, input: Tensor) -> Explanation:
    """Where the output divides the input, it is a pool with windows of the quotient's size."""
    sizes, outs = input.shape[-ndim:], output.shape[-ndim:]
    sums, axes = [], []
    origin = origin_of(input)
    known = spatial(origin, input.dim(), ndim)
    for i, (size, out) in enumerate(zip(sizes, outs, strict=True)):
        divides = out > 0 and size % out == 0
        side = size // out if divides else _largest_adaptive_window(size, out)
        if divides and side > 1:
            sums.append(_pool_sum(size, side))
        if known is not None and (divides or out == 1):
            axes.append(window(known[i], side, side, 0, 1, partial(_fixed, out)))
    if len(axes) < ndim:
        return Explanation(tuple(sums))
    return Explanation(tuple(sums), 0, with_last_axes(origin, output.dim(), axes))


def _largest_adaptive_window(size: int, out: int) -> int:
    return max((-(-(i + 1) * size // out) - i * size // out for i in range(out)), default=0)


def _register_spatial(ndim: int) -> None:
    _EXPLAIN[f"conv{ndim}d"] = _explain_conv
    _EXPLAIN[f"conv_transpose{ndim}d"] = _explain_conv_transpose

    def explain_max_pool(
        output: Tensor,
        input: Tensor,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Explanation:
        return _explain_pool(ndim, output, input, kernel_size, stride, padding, dilation, ceil_mode)

    def explain_avg_pool(
        output: Tensor,
        input: Tensor,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        *args: Any,
        **kwargs: Any,
    ) -> Explanation:
        return _explain_pool(ndim, output, input, kernel_size, stride, padding, 1, ceil_mode)

    def explain_adaptive(output: Tensor, input: Tensor, *args: Any, **kwargs: Any) -> Explanation:
        return _explain_adaptive_pool(ndim, output, input)

    _explains(f"max_pool{ndim}d max_pool{ndim}d_with_indices")(explain_max_pool)
    _explains(f"avg_pool{ndim}d")(explain_avg_pool)
    _explains(f"adaptive_avg_pool{ndim}d adaptive_max_pool{ndim}d")(explain_adaptive)


for _ndim in (1, 2, 3):
    _register_spatial(_ndim)


@_explains("pad")
def _explain_pad(
    output: Tensor, input: Tensor, pad: Sequence[int], *args: Any, **kwargs: Any
) -> Explanation:
    sums = []
    origin = origin_of(input)
    axes = None if origin.axes is None else list(origin.axes)
    count = len(pad) // 2
    for i in range(count - 1, -1, -1):
        before, after = pad[2 * i], pad[2 * i + 1]
        if before or after:
            sums.append(f"{before} + {input.shape[-i - 1]} + {after} = {output.shape[-i - 1]}")
            axis = axes[-i - 1] if axes else None
            if axes and axis:
                rule = partial(add, before + after)
                axes[-i - 1] = window(axis, 1, 1, before, 1, rule)
    if axes is None:
        return Explanation(tuple(sums))
    return Explanation(tuple(sums), 0, origin._replace(axes=tuple(axes)))


@_explains("interpolate upsample upsample_nearest upsample_bilinear")
def _explain_interpolate(
    output: Tensor,
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    *args: Any,
    **kwargs: Any,
) -> Explanation:
    count = input.dim() - 2
    ins, outs = input.shape[2:], output.shape[2:]
    factors = [b // a if b % a == 0 else 0 for a, b in zip(ins, outs, strict=True)]
    sums = tuple([f"{a}*{f} = {b}" for a, f, b in zip(ins, factors, outs, strict=True) if f > 1])
    origin = origin_of(input)
    known = spatial(origin, input.dim(), count)
    if known is None or not all(factors) or align_corners:
        return Explanation(sums)
    reach = _INTERPOLATION_REACH.get(mode)
    if reach is None:
        return Explanation(sums)
    axes = []
    for axis, factor, out in zip(known, factors, outs, strict=True):
        rule = partial(_fixed, out) if size is not None else partial(mul, factor)
        axes.append(axis if factor == 1 else upsampling(axis, factor, *reach(factor), rule))
    return Explanation(sums, 0, with_last_axes(origin, output.dim(), axes))


def _nearest_reach(factor: int) -> tuple[int, int]:
    return factor - 1, 0


def _linear_reach(factor: int) -> tuple[int, int]:
    # Two neighbours, or, with an odd factor, one where the centres meet.
    return (3 * factor - 2) // 2, factor // 2


_INTERPOLATION_REACH: dict[str, Callable[[int], tuple[int, int]]] = {
    "nearest": _nearest_reach,
    "nearest-exact": _nearest_reach,
    "linear": _linear_reach,
    "bilinear": _linear_reach,
    "trilinear": _linear_reach,
}


# Products


@_explains("linear")
def _explain_linear(
    output: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Explanation:
    if weight.dim() != 2:
        return Explanation()
    out_features, in_features = weight.shape
    return _product(output, origin_of(input), in_features, out_features)


def _product(output: Tensor, origin: Origin, inner: int, columns: int) -> Explanation:
    """Explain a product whose last side is computed by sums over ``inner`` products."""
    axes = origin.axes
    kept = None
    if axes is not None and not origin.untouched and axes[-1] is None:
        kept = Origin(origin.device, True, axes)
    sums = (f"{inner}/{inner}*{columns} = {columns}",)
    return Explanation(sums, output.numel() * inner, kept)


@_explains("matmul mm bmm mv dot vdot inner")
def _explain_matmul(output: Tensor, input: Tensor, *args: Tensor, **kwargs: Tensor) -> Explanation:
    other = next(iter((*args, *kwargs.values())))  # also called mat2, vec or tensor
    inner = input.shape[-1]
    columns = output.shape[-1] if other.dim() > 1 else None
    sums = () if columns is None else (f"{inner}/{inner}*{columns} = {columns}",)
    return Explanation(sums, output.numel() * inner)


@_explains("scaled_dot_product_attention")
def _explain_attention(
    output: Tensor, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
) -> Explanation:
    rows = output.numel() // value.shape[-1]
    return Explanation((), rows * key.shape[-2] * (query.shape[-1] + value.shape[-1]))


@_explains("addmm addmv baddbmm addbmm addmm_ baddbmm_")
def _explain_add_product(output: Tensor, input: Tensor, *args: Any, **kwargs: Any) -> Explanation:
    left, right = [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)][:2]
    columns = right.shape[-1] if right.dim() > 1 else 1
    return Explanation((), left.numel() * columns)


@_explains("grouped_mm")
def _explain_grouped_mm(
    output: Tensor, mat_a: Tensor, mat_b: Tensor, *args: Any, **kwargs: Any
) -> Explanation:
    if mat_a.dim() == mat_b.dim() == 2:  # the groups share the sums
        return Explanation((), mat_a.numel() * mat_b.shape[-1])
    return Explanation((), output.numel() * mat_a.shape[-1])


@_explains("bilinear")
def _explain_bilinear(
    output: Tensor, input1: Tensor, input2: Tensor, weight: Tensor, *args: Any, **kwargs: Any
) -> Explanation:
    return Explanation((), output.numel() * prod(weight.shape[1:]))


@_explains("einsum")
def _explain_einsum(output: Tensor, equation: Any, *operands: Any) -> Explanation:
    """Count the products from left to right, each over every index of its two operands."""
    if not isinstance(equation, str) or "." in equation:
        return Explanation()
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])
    left, _, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    sizes = {
        letter: size
        for term, operand in zip(terms, operands, strict=True)
        for letter, size in zip(term, operand.shape, strict=True)
    }
    macs, held = 0, set(terms[0])
    for i, term in enumerate(terms[1:], start=2):
        held |= set(term)
        macs += prod([sizes[letter] for letter in held])
        held &= set(result).union(*terms[i:])
    return Explanation((), macs)


@_explains("lstm gru rnn_tanh rnn_relu")
def _explain_recurrent(output: Tensor, input: Tensor, *args: Any, **kwargs: Any) -> Explanation:
    """Every token passes through every weight matrix of every layer and direction once."""
    weights = next(value for value in args if isinstance(value, list))
    tokens = input.numel() // input.shape[-1]
    return Explanation((), tokens * sum([w.numel() for w in weights if w.dim() == 2]))


@_explains("lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell")
def _explain_cell(
    output: Tensor, input: Tensor, hx: Any, w_ih: Tensor, w_hh: Tensor, *args: Any, **kwargs: Any
) -> Explanation:
    return Explanation((), input.shape[0] * (w_ih.numel() + w_hh.numel()))


@_explains("multi_head_attention_forward")
def _explain_multi_head_attention(
    output: Tensor,
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
    *args: Any,
    **kwargs: Any,
) -> Explanation:
    """Four projections, then scores and their weighted sum over every head."""
    rows = query.numel() // query.shape[-1]
    keys = key.shape[0] + (bias_k is not None) + bool(add_zero_attn)
    projections = embed_dim * (query.numel() + key.numel() + value.numel() + rows * embed_dim)
    return Explanation((), projections + 2 * rows * keys * embed_dim)


# Joins and views


@_explains("cat concat concatenate")
def _explain_cat(
    output: Tensor, tensors: Sequence[Tensor], dim: int = 0, **kwargs: Any
) -> Explanation:
    parts = [tensor for tensor in tensors if tuple(tensor.shape) != (0,)] or list(tensors)
    dim = kwargs.get("axis", dim) % output.dim()
    sizes = [tensor.shape[dim] for tensor in parts]
    sums = (f"{' + '.join(map(str, sizes))} = {output.shape[dim]}",) if len(sizes) > 1 else ()
    origin = merged(
        [origin_of(part) for part in parts], [part.shape for part in parts], output.dim()
    )
    axes = origin.axes
    if axes is not None and not origin.untouched and len(parts) > 1 and axes[dim] is not None:
        return Explanation(sums)  # joined along the sides that the windows slide over
    return Explanation(sums, 0, origin)


def _moves_sides(names: str) -> Callable[[Callable[..., Axes | None]], None]:
    """Explain views that move sides: the decorated function says where the axes are then."""

    def decorate(moved: Callable[..., Axes | None]) -> None:
        @_explains(names)
        def explanation(output: Tensor, input: Tensor, *args: Any, **kwargs: Any) -> Explanation:
            origin = origin_of(input)
            if origin.untouched:
                return Explanation(origin=input_origin(origin.device, output.dim()))
            axes = origin.axes and moved(origin.axes, input, *args, **kwargs)
            if axes is None:
                return Explanation()
            return Explanation(origin=Origin(origin.device, origin.depends, axes))

    return decorate


def regroup(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Yield which dimensions of ``old`` became which of ``new``, the smallest groups first."""
    i = j = 0
    while i < len(old) or j < len(new):
        ins, outs = [], []
        left = right = 1
        if j < len(new):
            right, outs, j = new[j], [j], j + 1
        if i < len(old):
            left, ins, i = old[i], [i], i + 1
        while left != right:
            if left < right and i < len(old):
                left, i = left * old[i], i + 1
                ins.append(i - 1)
            elif j < len(new):
                right, j = right * new[j], j + 1
                outs.append(j - 1)
            else:
                return
        if j == len(new):
            ins += range(i, len(old))
            i = len(old)
        if i == len(old):
            outs += range(j, len(new))
            j = len(new)
        yield ins, outs


@_explains("view reshape flatten unflatten view_as reshape_as")
def _explain_view(output: Tensor, input: Tensor, *args: Any, **kwargs: Any) -> Explanation:
    origin = origin_of(input)
    old, new = tuple(input.shape), tuple(output.shape)
    sums: list[str] = []
    axes: list[Axis | None] = [None] * len(new)
    factors = {}
    if 0 in old:
        return Explanation()
    asked = args[0] if len(args) == 1 and isinstance(args[0], Sequence) else args
    inferred = asked.index(-1) if -1 in asked and len(asked) == len(new) else None
    for ins, outs in regroup(old, new):
        sizes = [old[i] for i in ins]
        parts = "*".join(map(str, sizes))
        if len(outs) == 1 and len(ins) > 1:
            sums.append(f"{parts} = {new[outs[0]]}")
            if origin.axes is not None:
                factors[outs[0]] = (tuple(sizes), tuple(origin.axes[i] for i in ins))
        elif len(outs) == 1 and len(ins) == 1 and origin.axes is not None:
            axes[outs[0]] = origin.axes[ins[0]]
        elif inferred in outs and len(outs) > 1:
            rest = "*".join(str(new[j]) for j in outs if j != inferred)
            rest = f"({rest})" if "*" in rest else rest
            sums.append(f"{parts}/{rest} = {new[inferred]}")
    if origin.axes is None:
        return Explanation(tuple(sums))
    kept = Origin(
        origin.device,
        origin.depends,
        tuple(axes),
        untouched=origin.untouched,
        factors=factors or None,
    )
    if origin.untouched:
        kept = kept._replace(axes=input_origin(origin.device, len(new)).axes)
    return Explanation(tuple(sums), 0, kept)


@_moves_sides("unsqueeze unsqueeze_")
def _unsqueezed(axes: Axes, input: Tensor, dim: int) -> Axes:
    dim %= len(axes) + 1
    return (*axes[:dim], None, *axes[dim:])


@_moves_sides("squeeze squeeze_")
def _squeezed(axes: Axes, input: Tensor, dim: Any = None) -> Axes:
    ndim = len(axes)
    asked = range(ndim) if dim is None else (dim,) if isinstance(dim, int) else dim
    gone = {d % (ndim or 1) for d in asked}
    return tuple(axis for i, axis in enumerate(axes) if not (i in gone and input.shape[i] == 1))


@_moves_sides("permute")
def _permuted(axes: Axes, input: Tensor, *order: Any, **kwargs: Any) -> Axes:
    order = kwargs.get("dims", order[0] if len(order) == 1 else order)
    return tuple(axes[d] for d in order)


@_moves_sides("transpose swapaxes swapdims transpose_")
def _transposed(axes: Axes, input: Tensor, *dims: int, **kwargs: int) -> Axes:
    dim0, dim1 = (*dims, *kwargs.values())  # also called axis0 and axis1
    swapped = list(axes)
    swapped[dim0], swapped[dim1] = swapped[dim1], swapped[dim0]
    return tuple(swapped)


@_explains("to cpu cuda")
def _explain_move(output: Tensor, input: Tensor, *args: Any, **kwargs: Any) -> Explanation:
    return Explanation(origin=origin_of(input)._replace(device=origin_of(output).device))


@_explains("layer_norm rms_norm softmax log_softmax normalize chunk split")
def _explain_along_channels(
    output: Tensor, input: Tensor, *args: Any, **kwargs: Any
) -> Explanation:
    origin = origin_of(input)
    if origin.axes is None or output.dim() != input.dim():
        return Explanation()
    changed = [i for i, (a, b) in enumerate(zip(input.shape, output.shape, strict=True)) if a != b]
    if any(origin.axes[i] is not None for i in changed) and not origin.untouched:
        return Explanation()
    return Explanation(origin=origin._replace(factors=None))


@_moves_sides("getitem")
def _indexed(axes: Axes, input: Tensor, index: Any) -> Axes | None:
    """Follow plain slices, positions and new axes; let the rest go."""
    items = list(index) if isinstance(index, tuple) else [index]
    if any(not isinstance(item, int | slice | type(None) | type(...)) for item in items):
        return None
    used = sum(item is not None and item is not ... for item in items)
    if ... not in items:
        items.append(...)
    at = items.index(...)
    items[at : at + 1] = [slice(None)] * (input.dim() - used)
    found: list[Axis | None] = []
    old = zip(axes, input.shape, strict=True)
    for item in items:
        if item is None:
            found.append(None)
            continue
        axis, size = next(old)
        if isinstance(item, slice):
            start, stop, step = item.indices(size)
            if axis is not None and (start, stop, step) != (0, size, 1):
                rule = _rule(_sliced, start=item.start, stop=item.stop, step=item.step)
                axis = window(axis, 1, step, -start, 1, rule)
            found.append(axis)
        elif axis is not None:
            return None  # one position of a spatial side
    return tuple(found)


def _sliced(size: int, start: int | None, stop: int | None, step: int | None) -> int:
    return len(range(*slice(start, stop, step).indices(size)))
