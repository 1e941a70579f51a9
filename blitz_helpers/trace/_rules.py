"""What torch would return, as a tensor without data: sizes, strides and dtype of the output.

torch's own `meta` kernels answer the same questions, but many are written in Python and slow, and
the first of them loads sympy and more. So the common operations have a rule here; views have none,
because torch's kernels for them are quick. A rule has the signature of its operation. Where torch
would refuse the shapes, a rule raises an error too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import lru_cache, reduce
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from blitz_helpers.shapes import (
    conv_output_size,
    conv_transpose_output_size,
    pool_output_size,
)

Shape = tuple[int, ...]
Sizes = int | Sequence[int]
META = torch.device("meta")
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}

Rule = Callable[..., Any]
RULES: dict[Any, Rule] = {}

# The formulas themselves; networks ask the same few questions over and over.
_conv_size = lru_cache(maxsize=4096)(conv_output_size)
_pool_size = lru_cache(maxsize=4096)(pool_output_size)
_conv_transpose_size = lru_cache(maxsize=4096)(conv_transpose_output_size)


def _register(names: str, of: Sequence[Any] = (torch, torch.Tensor, F)) -> Callable[[Rule], Rule]:
    """Answer the operations of these names, wherever torch keeps them, by the decorated rule."""

    def decorate(rule: Rule) -> Rule:
        for name, namespace in itertools.product(names.split(), of):
            if hasattr(namespace, name):
                RULES[getattr(namespace, name)] = rule
        return rule

    return decorate


def new(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return a contiguous tensor without data."""
    return torch.empty(shape, dtype=dtype, device=META)


def without_data(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return a tensor without data that looks like this one."""
    dtype = dtype or tensor.dtype
    return torch.empty_strided(tensor.size(), tensor.stride(), dtype=dtype, device=META)


def per_dimension(value: Sizes, count: int) -> Shape:
    """Return a torch size argument as one integer a dimension."""
    if isinstance(value, int):
        return (value,) * count
    sizes = tuple(value)
    return sizes * count if len(sizes) == 1 else sizes


def _in_channels_last(tensor: Tensor) -> bool:
    """Whether the channels of an image or a volume lie innermost."""
    if tensor.is_contiguous() or tensor.dim() not in FORMATS:
        return False
    return tensor.is_contiguous(memory_format=FORMATS[tensor.dim()])


def _like_format(shape: Shape, dtype: torch.dtype, *models: Tensor) -> Tensor:
    """Return a new tensor in channels-last order if one of the models is."""
    for model in models:
        if _in_channels_last(model) and model.dim() == len(shape):
            order = FORMATS[len(shape)]
            return torch.empty(shape, dtype=dtype, device=META, memory_format=order)
    return new(shape, dtype)


def _compute_dtype(x: Tensor, *others: Tensor | None) -> torch.dtype:
    """Return the dtype that a product of these tensors has.

    Raises:
        RuntimeError: their dtypes differ.
    """
    # Autocast goes by the device that the tensors are really on; they are shapes here.
    for device in ("cpu", "cuda"):
        if torch.is_autocast_enabled(device) and x.dtype.is_floating_point:
            return torch.get_autocast_dtype(device)
    for other in others:
        if other is not None and other.dtype != x.dtype:
            raise RuntimeError(f"expected one dtype, but got {x.dtype} and {other.dtype}")
    return x.dtype


def _check_norm_dtypes(x: Tensor, *parameters: Any) -> None:
    """Refuse, as torch does, parameters of another dtype than the input that they scale."""
    allowed = {x.dtype}
    if x.dtype in (torch.bfloat16, torch.float16):
        allowed.add(torch.float32)
    for parameter in parameters:
        if isinstance(parameter, Tensor) and parameter.dtype not in allowed:
            _compute_dtype(x, parameter)


# Convolution and pooling


def _conv(
    ndim: int,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sizes,
    padding: Sizes | str,
    dilation: Sizes,
    groups: int,
) -> Tensor:
    shape, kernel = x.shape, weight.shape
    _check_spatial_input(x, ndim)
    _check_kernel(ndim, weight, bias, kernel[0], groups)
    if shape[-ndim - 1] != kernel[1] * groups:
        raise RuntimeError(
            f"expected {kernel[1] * groups} channels, but got {shape[-ndim - 1]}: "
            f"input {tuple(shape)}, weight {tuple(kernel)}, groups={groups}"
        )
    dtype = _compute_dtype(x, weight, bias)
    out = _conv_size(
        tuple(shape[-ndim:]),
        tuple(kernel[2:]),
        per_dimension(stride, ndim),
        padding if isinstance(padding, str) else per_dimension(padding, ndim),
        per_dimension(dilation, ndim),
    )
    return _like_format((*shape[: -ndim - 1], kernel[0], *out), dtype, x, weight)


def _check_spatial_input(x: Tensor, ndim: int) -> None:
    if x.dim() not in (ndim + 1, ndim + 2):
        raise RuntimeError(
            f"expected {ndim + 1} dimensions (unbatched) or {ndim + 2} (batched), "
            f"but got {x.dim()}: {tuple(x.shape)}"
        )


def _check_kernel(
    ndim: int, weight: Tensor, bias: Tensor | None, out_channels: int, groups: int
) -> None:
    if weight.dim() != ndim + 2:
        raise RuntimeError(
            f"expected a weight of {ndim + 2} dimensions, but got {weight.dim()}: "
            f"{tuple(weight.shape)}"
        )
    if groups < 1 or weight.shape[0] % groups:
        raise RuntimeError(f"groups={groups} does not divide a weight of {tuple(weight.shape)}")
    if bias is not None and bias.shape != (out_channels,):
        raise RuntimeError(
            f"expected a bias of shape ({out_channels},), but got {tuple(bias.shape)}"
        )


def _conv_transpose(
    ndim: int,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sizes,
    padding: Sizes,
    output_padding: Sizes,
    groups: int,
    dilation: Sizes,
) -> Tensor:
    shape, kernel = x.shape, weight.shape
    _check_spatial_input(x, ndim)
    _check_kernel(ndim, weight, bias, kernel[1] * groups, groups)
    if shape[-ndim - 1] != kernel[0]:
        raise RuntimeError(
            f"expected {kernel[0]} channels, but got {shape[-ndim - 1]}: "
            f"input {tuple(shape)}, weight {tuple(kernel)}, groups={groups}"
        )
    dtype = _compute_dtype(x, weight, bias)
    out = _conv_transpose_size(
        tuple(shape[-ndim:]),
        tuple(kernel[2:]),
        per_dimension(stride, ndim),
        per_dimension(padding, ndim),
        per_dimension(output_padding, ndim),
        per_dimension(dilation, ndim),
    )
    return _like_format((*shape[: -ndim - 1], kernel[1] * groups, *out), dtype, x, weight)


def _pool(
    ndim: int,
    x: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None,
    padding: Sizes,
    dilation: Sizes,
    ceil_mode: bool,
) -> Tensor:
    _check_spatial_input(x, ndim)
    shape = x.shape
    out = _pool_size(
        tuple(shape[-ndim:]),
        per_dimension(kernel_size, ndim),
        per_dimension(stride, ndim) if stride or stride == 0 else None,
        per_dimension(padding, ndim),
        per_dimension(dilation, ndim),
        ceil_mode,
    )
    return _like_format((*shape[:-ndim], *out), x.dtype, x)


def _adaptive_pool(ndim: int, x: Tensor, output_size: Any) -> Tensor:
    _check_spatial_input(x, ndim)
    shape = x.shape
    wanted = (output_size,) * ndim if not isinstance(output_size, Sequence) else output_size
    out = [size if want is None else want for size, want in zip(shape[-ndim:], wanted, strict=True)]
    return _like_format((*shape[:-ndim], *out), x.dtype, x)


def _register_spatial(ndim: int) -> None:
    """Answer convolutions and pools over ``ndim`` spatial dimensions."""

    def conv(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Sizes = 1,
        padding: Sizes | str = 0,
        dilation: Sizes = 1,
        groups: int = 1,
    ) -> Tensor:
        return _conv(ndim, input, weight, bias, stride, padding, dilation, groups)

    def conv_transpose(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
        groups: int = 1,
        dilation: Sizes = 1,
    ) -> Tensor:
        return _conv_transpose(
            ndim, input, weight, bias, stride, padding, output_padding, groups, dilation
        )

    def max_pool(
        input: Tensor,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        out = _pool(ndim, input, kernel_size, stride, padding, dilation, ceil_mode)
        return (out, without_data(out, torch.int64)) if return_indices else out

    def max_pool_with_indices(*args: Any, **kwargs: Any) -> Any:
        return max_pool(*args, **{**kwargs, "return_indices": True})

    def avg_pool(
        input: Tensor,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Tensor:
        if ndim == 3:
            for size, kernel in zip(input.shape[-3:], per_dimension(kernel_size, 3), strict=False):
                if size < kernel:  # torch: here alone the padding does not help
                    raise ValueError(
                        f"kernel_size={kernel} does not fit an input of {size}: avg_pool3d counts "
                        f"no padding.\nUse an input of {kernel} or more."
                    )
        return _pool(ndim, input, kernel_size, stride, padding, 1, ceil_mode)

    def adaptive_avg_pool(input: Tensor, output_size: Any) -> Any:
        if set(per_dimension(output_size, ndim)) == {1} and input.dim() not in (ndim + 1, ndim + 2):
            return NotImplemented  # torch takes the mean, of fewer dimensions too
        return _adaptive_pool(ndim, input, output_size)

    def adaptive_max_pool(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
        out = _adaptive_pool(ndim, input, output_size)
        return (out, without_data(out, torch.int64)) if return_indices else out

    both = (torch, F)
    _register(f"conv{ndim}d", of=both)(conv)
    _register(f"conv_transpose{ndim}d", of=both)(conv_transpose)
    _register(f"max_pool{ndim}d", of=both)(max_pool)
    _register(f"max_pool{ndim}d_with_indices", of=(F,))(max_pool_with_indices)
    _register(f"avg_pool{ndim}d", of=both)(avg_pool)
    _register(f"adaptive_avg_pool{ndim}d", of=(F,))(adaptive_avg_pool)
    _register(f"adaptive_max_pool{ndim}d", of=(F,))(adaptive_max_pool)


for _ndim in (1, 2, 3):
    _register_spatial(_ndim)


# Element by element


def _dense_order(shape: Shape, operands: Sequence[tuple[Shape, Shape]]) -> list[int]:
    """Return the dimensions from the innermost out, as an element-wise operation lays them out.

    The operands are (shape, strides) pairs. Source: torch's ``TensorIterator::reorder_dimensions``.
    """
    strides = []
    for own, steps in operands:
        lead = len(shape) - len(own)
        strides.append(
            [0] * lead
            + [
                0 if size == 1 and shape[lead + i] != 1 else step
                for i, (size, step) in enumerate(zip(own, steps, strict=True))
            ]
        )

    def compare(a: int, b: int) -> int:
        for steps in strides:
            if steps[a] == 0 or steps[b] == 0:
                continue
            if steps[a] != steps[b]:
                return 1 if steps[a] > steps[b] else -1
            if shape[a] > shape[b]:
                return 1
        return 0

    order = list(range(len(shape) - 1, -1, -1))
    for i in range(1, len(order)):
        moving = i
        for other in range(i - 1, -1, -1):
            outcome = compare(order[other], order[moving])
            if outcome > 0:
                order[other], order[moving] = order[moving], order[other]
                moving = other
            elif outcome < 0:
                break
    return order


def broadcast(shapes: Sequence[Sequence[int] | torch.Size]) -> Shape:
    """Return the shape that these broadcast to.

    Raises:
        RuntimeError: they do not.
    """
    out = list(max(shapes, key=lambda shape: len(tuple(shape))))
    for shape in shapes:
        for i in range(1, len(shape) + 1):
            if out[-i] == 1:
                out[-i] = shape[-i]
            elif shape[-i] not in (1, out[-i]):
                listed = " and ".join(str(tuple(one)) for one in shapes)
                raise RuntimeError(f"shapes {listed} do not broadcast: {out[-i]} and {shape[-i]}")
    return tuple(out)


def elementwise(tensors: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Return a new tensor as an element-wise operation over these makes it."""
    first = tensors[0].shape
    shape: Sequence[int] = first
    for other in tensors[1:]:
        if other.shape != first:
            shape = broadcast([tensor.shape for tensor in tensors])
            break
    for tensor in tensors:
        if not tensor.is_contiguous():
            break
    else:
        return torch.empty(shape, dtype=dtype, device=META)
    shape = tuple(shape)
    order = _dense_order(shape, [(tuple(t.shape), t.stride()) for t in tensors])
    strides = [1] * len(shape)
    step = 1
    for dimension in order:
        strides[dimension] = step
        step *= shape[dimension] or 1
    return torch.empty_strided(shape, strides, dtype=dtype, device=META)


def _floating(dtype: torch.dtype) -> torch.dtype:
    inexact = dtype.is_floating_point or dtype.is_complex
    return dtype if inexact else torch.get_default_dtype()


@_register(
    """
    relu relu6 abs neg negative sign floor ceil round square leaky_relu threshold hardtanh
    __neg__ clamp clip __abs__ nan_to_num
    """
)
def _same_dtype(input: Tensor, *args: Any, **kwargs: Any) -> Any:
    tensor_bounds = _operands((*args, *kwargs.values()))
    if tensor_bounds or input.is_complex():  # of which `abs` is real
        return NotImplemented
    if kwargs.get("inplace"):
        return input
    return elementwise((input,), input.dtype)


@_register(
    """
    gelu silu mish elu selu celu softplus softsign hardswish hardsigmoid logsigmoid tanhshrink
    sigmoid tanh exp expm1 log log2 log10 log1p sqrt rsqrt sin cos tan atan sinh cosh erf
    reciprocal asin acos
    """
)
def _floating_result(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if kwargs.get("inplace"):
        return input
    return elementwise((input,), _floating(input.dtype))


@_register("dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout")
def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    if inplace or not training:
        return input
    return elementwise((input,), input.dtype)


def _operands(values: Sequence[Any]) -> list[Tensor]:
    return [value for value in values if isinstance(value, Tensor)]


@_register(
    """
    add mul multiply __radd__ __rmul__ pow __rpow__ __pow__ maximum minimum
    fmod remainder __mod__ floor_divide __floordiv__ __and__ __or__ __xor__
    """
)
def _binary(input: Any, other: Any, *args: Any, **kwargs: Any) -> Tensor:
    return elementwise(_operands((input, other)), torch.result_type(input, other))


@_register("sub subtract rsub __rsub__")
def _subtraction(input: Any, other: Any, *args: Any, **kwargs: Any) -> Any:
    if any(getattr(one, "dtype", type(one)) in (bool, torch.bool) for one in (input, other)):
        raise RuntimeError("- takes no truth values: invert a mask by ~mask or mask.logical_not()")
    return _binary(input, other)


@_register("div divide true_divide __rdiv__ __rtruediv__ __truediv__ atan2")
def _division(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    dtype = torch.result_type(input, other)
    return elementwise(_operands((input, other)), dtype if rounding_mode else _floating(dtype))


@_register("eq ne lt le gt ge __eq__ __ne__ logical_and logical_or logical_xor")
def _comparison(input: Any, other: Any) -> Tensor:
    return elementwise(_operands((input, other)), torch.bool)


@_register("logical_not isnan isinf isfinite")
def _predicate(input: Tensor) -> Tensor:
    return elementwise((input,), torch.bool)


@_register("where", of=(torch,))
def _where(condition: Tensor, input: Any = None, other: Any = None) -> Any:
    if input is None:
        return NotImplemented  # the positions: a question of values
    return elementwise(_operands((condition, input, other)), torch.result_type(input, other))


@_register("where", of=(torch.Tensor,))
def _where_of(input: Tensor, condition: Tensor, other: Any = None) -> Any:
    return NotImplemented if other is None else _where(condition, input, other)


@_register("masked_fill")
def _masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    if mask.dtype != torch.bool:
        raise RuntimeError(f"masked_fill takes masks of dtype torch.bool, but got {mask.dtype}")
    return elementwise((input, mask), input.dtype)


# Products


@_register("linear", of=(F,))
def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    shape = input.shape
    if not shape or not weight.dim():
        raise RuntimeError("both arguments of a linear layer need at least one dimension")
    if weight.dim() != 2:
        return NotImplemented
    out_features, in_features = weight.shape
    if shape[-1] != in_features:
        raise RuntimeError(
            "mat1 and mat2 shapes cannot be multiplied "
            f"({prod(shape[:-1])}x{shape[-1]} and {in_features}x{out_features})"
        )
    return new((*shape[:-1], out_features), _compute_dtype(input, weight, bias))


@_register("matmul __matmul__")
def _matmul(input: Tensor, other: Tensor) -> Tensor:
    left, right = tuple(input.shape), tuple(other.shape)
    if not left or not right:
        raise RuntimeError("both arguments of a matrix product need at least one dimension")
    rows = left[:-1] if len(left) > 1 else ()
    columns = right[-1:] if len(right) > 1 else ()
    inner = right[-2] if len(right) > 1 else right[0]
    if left[-1] != inner:
        raise RuntimeError(
            "mat1 and mat2 shapes cannot be multiplied "
            f"({'x'.join(map(str, left))} and {'x'.join(map(str, right))})"
        )
    batch = broadcast([left[:-2], right[:-2]])
    return new((*batch, *rows[-1:], *columns), _compute_dtype(input, other))


def _register_product(name: str, left: int, right: int) -> None:
    """Answer a product that takes tensors of these numbers of dimensions and no others."""

    def product(input: Tensor, *second: Tensor, **named: Tensor) -> Any:
        (other,) = (*second, *named.values())  # torch has a name of its own for each: mat2, vec
        if input.dim() != left or other.dim() != right:
            raise RuntimeError(
                f"expected {left} and {right} dimensions, but got {input.dim()} and {other.dim()}"
            )
        if left == 3 and input.shape[0] != other.shape[0]:
            raise RuntimeError(
                f"expected one batch size, but got {input.shape[0]} and {other.shape[0]}"
            )
        return _matmul(input, other)

    _register(name)(product)


_register_product("mm", 2, 2)
_register_product("bmm", 3, 3)
_register_product("mv", 2, 1)
_register_product("dot", 1, 1)


@_register("_grouped_mm", of=(torch,))
def _grouped_mm(mat_a: Tensor, mat_b: Tensor, offs: Tensor | None = None, **kwargs: Any) -> Any:
    """Multiply group by group; of the floats, torch's `meta` kernel knows bfloat16 alone."""
    left, right = mat_a.shape, mat_b.shape
    ragged = len(left) == 2 or len(right) == 2
    plain = all(value is None for value in kwargs.values())
    if mat_a.dtype not in (torch.float32, torch.float16) or not plain or ragged == (offs is None):
        return NotImplemented
    if left[-1] != right[-2]:
        raise RuntimeError(
            f"contraction dimension of mat_a {tuple(left)} and mat_b {tuple(right)} must match"
        )
    both = len(left) == len(right)
    groups = (len(offs),) if both and offs is not None else left[:-2] if both else ()
    return new((*groups, left[-2], right[-1]), _compute_dtype(mat_a, mat_b))


@_register("embedding", of=(F,))
def _embedding(input: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if input.dtype not in (torch.int64, torch.int32):
        raise RuntimeError(f"embedding needs integer indices, but got {input.dtype}")
    return new((*input.shape, weight.shape[1]), weight.dtype)


@_register("scaled_dot_product_attention", of=(F,))
def _attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise RuntimeError(
            f"query {tuple(query.shape)}, key {tuple(key.shape)} and value {tuple(value.shape)} "
            "do not fit: query and key must agree in the last size, key and value in the one before"
        )
    return NotImplemented if query.dim() != 4 else _attention_output(query, value)


def _attention_output(query: Tensor, value: Tensor) -> Tensor:
    # The fused kernel of the CPU works on (N, L, heads, E) and hands back a transposed view.
    n, heads, length, _ = query.shape
    return new((n, length, heads, value.shape[-1]), query.dtype).transpose(1, 2)


@_register("_nested_tensor_from_mask_left_aligned", of=(torch,))
def _no_nested_tensors(input: Tensor, mask: Tensor) -> bool:
    # The encoder then takes the way of plain tensors, which ends in the same shape.
    return False


# Normalisation and softmax


@_register("batch_norm", of=(F,))
def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    shape = input.shape
    if training and prod(shape) == shape[1]:
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {tuple(shape)}"
        )
    for tensor in (running_mean, weight, bias):
        if tensor is not None and tensor.shape[0] != shape[1]:
            raise RuntimeError(f"expected {tensor.shape[0]} channels, but got {shape[1]}")
    _check_norm_dtypes(input, running_mean, weight)
    return _like_format(tuple(shape), input.dtype, input)


@_register("instance_norm local_response_norm", of=(F,))
def _channel_norm(input: Tensor, *args: Any, **kwargs: Any) -> Any:
    per_channel = [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)]
    if not input.is_contiguous() or input.dim() < 2:
        return NotImplemented
    for tensor in per_channel:
        if tensor.shape[0] != input.shape[1]:
            raise RuntimeError(f"expected {tensor.shape[0]} channels, but got {input.shape[1]}")
    _check_norm_dtypes(input, *per_channel)
    if prod(input.shape[2:]) == 1:
        return NotImplemented  # torch itself sees whether there is enough to average
    return new(input.shape, input.dtype)


@_register("group_norm", of=(F,))
def _group_norm(input: Tensor, num_groups: int, *args: Any, **kwargs: Any) -> Any:
    if input.dim() < 2 or input.shape[1] % num_groups:
        return NotImplemented  # torch refuses it
    return _channel_norm(input, *args, **kwargs)


@_register("layer_norm", of=(F,))
def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    *args: Any,
    **kwargs: Any,
) -> Any:
    _check_norm_dtypes(input, weight)
    return _rms_norm(input, normalized_shape)


@_register("rms_norm", of=(F,))
def _rms_norm(input: Tensor, normalized_shape: Sequence[int], *args: Any, **kwargs: Any) -> Any:
    wanted = tuple(normalized_shape)
    if tuple(input.shape[-len(wanted) :]) != wanted:
        raise RuntimeError(f"expected the last sizes to be {wanted}, but got {tuple(input.shape)}")
    return NotImplemented if not input.is_contiguous() else new(input.shape, input.dtype)


@_register("softmax log_softmax softmin gumbel_softmax normalize cumsum flip")
def _along_a_dimension(input: Tensor, *args: Any, **kwargs: Any) -> Any:
    dtype = kwargs.get("dtype")
    dim = kwargs.get("dim", args[0] if args else None)
    if isinstance(dim, int):
        _wrap(dim, input.dim())
    if not input.is_contiguous() or kwargs.get("out") is not None or not input.is_floating_point():
        return NotImplemented
    return new(input.shape, dtype or input.dtype)


# Reductions and joins


@_register("sum mean amax amin var std logsumexp prod")
def _reduction(input: Tensor, *args: Any, **kwargs: Any) -> Any:
    dim = kwargs.get("dim", args[0] if args else None)
    keepdim = kwargs.get("keepdim", args[1] if len(args) > 1 else False)
    # A bool in the place of a dimension: `var(unbiased)`.
    if not input.is_floating_point() or isinstance(dim, bool) or "axis" in kwargs:
        return NotImplemented
    if dim is None or (isinstance(dim, Sequence) and not dim):
        dims = set(range(input.dim()))
    else:
        dims = {_wrap(d, input.dim()) for d in ((dim,) if isinstance(dim, int) else dim)}
    if not isinstance(keepdim, bool) or not input.is_contiguous():
        return NotImplemented
    shape = [
        1 if i in dims else size for i, size in enumerate(input.shape) if keepdim or i not in dims
    ]
    return new(shape, kwargs.get("dtype") or input.dtype)


def _wrap(dim: int, ndim: int) -> int:
    span = ndim or 1
    if not -span <= dim < span:
        raise IndexError(
            f"Dimension out of range (expected to be in range of [{-span}, {span - 1}], "
            f"but got {dim})"
        )
    return dim % span


@_register("cat concat concatenate", of=(torch,))
def _cat(tensors: Sequence[Tensor], dim: int = 0, **kwargs: Any) -> Any:
    dim = kwargs.pop("axis", dim)
    tensors = [tensor for tensor in tensors if tuple(tensor.shape) != (0,)]
    if kwargs or not tensors:
        return NotImplemented
    first = tensors[0].shape
    dim = _wrap(dim, len(first))
    for tensor in tensors:
        shape = tensor.shape
        if len(shape) != len(first) or any(
            a != b for i, (a, b) in enumerate(zip(first, shape, strict=True)) if i != dim
        ):
            raise RuntimeError(
                "Sizes of tensors must match except in dimension "
                f"{dim}: got {tuple(first)} and {tuple(shape)}"
            )
    out = (*first[:dim], sum(tensor.shape[dim] for tensor in tensors), *first[dim + 1 :])
    dtype = reduce(torch.promote_types, [tensor.dtype for tensor in tensors])
    models = tensors if all(map(_in_channels_last, tensors)) else ()
    return _like_format(out, dtype, *models)


@_register("stack", of=(torch,))
def _stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    first = tensors[0]
    for tensor in tensors:
        if tensor.shape != first.shape:
            raise RuntimeError(
                "stack expects each tensor to be equal size, "
                f"but got {tuple(first.shape)} and {tuple(tensor.shape)}"
            )
    dim = _wrap(dim, first.dim() + 1)
    dtype = reduce(torch.promote_types, [tensor.dtype for tensor in tensors])
    return new((*first.shape[:dim], len(tensors), *first.shape[dim:]), dtype)


@_register("pad", of=(F,))
def _pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: Any = None) -> Any:
    pad = list(pad)
    if mode != "constant":
        return NotImplemented
    if len(pad) % 2 or len(pad) > 2 * input.dim():
        raise RuntimeError(f"pad {tuple(pad)} does not fit {input.dim()} dimensions")
    shape = list(input.shape)
    for i in range(len(pad) // 2):
        shape[-i - 1] += pad[2 * i] + pad[2 * i + 1]
    if min(shape, default=0) < 0:
        raise RuntimeError(f"pad {tuple(pad)} takes more than there is from {tuple(input.shape)}")
    return _like_format(tuple(shape), input.dtype, input)


@_register("interpolate upsample", of=(F,))
def _interpolate(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    *args: Any,
    **kwargs: Any,
) -> Any:
    count = input.dim() - 2
    if count not in (1, 2, 3) or (size is None) == (scale_factor is None):
        return NotImplemented
    if size is not None:
        out = per_dimension(size, count)
    else:
        one = not isinstance(scale_factor, Sequence)
        factors = (scale_factor,) * count if one else scale_factor
        out = tuple(
            int(side * float(factor)) for side, factor in zip(input.shape[2:], factors, strict=True)
        )
    return _like_format((*input.shape[:2], *out), input.dtype, input)


# Copies


@_register("reshape", of=(torch, torch.Tensor))
def _reshape(input: Tensor, *sizes: Any, shape: Any = None) -> Tensor:
    shape = shape or (sizes[0] if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes)
    source = input if input.is_meta else without_data(input)
    if not source.is_contiguous():
        try:
            return source.view(shape)
        except RuntimeError:
            source = new(source.shape, source.dtype)  # torch makes a contiguous copy first
    return source.view(shape)
