"""Size formulas of convolution and pooling layers: integers only, no torch.

Each size and setting is an int, or a tuple with one int per dimension, as in torch. If all are
ints, the result is a single answer, otherwise a tuple of them. Settings that torch rejects raise a
``ValueError`` that says what was given and what would fit. Source: the formulas under "Shape" of
:class:`torch.nn.Conv2d`, :class:`torch.nn.MaxPool2d` and :class:`torch.nn.ConvTranspose2d`.

>>> conv_output_size((32, 64), kernel_size=(3, 5), padding=(0, 2))
(30, 64)
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from operator import index
from typing import Any, TypeVar

Ints = int | tuple[int, ...]
Size = TypeVar("Size", int, tuple[int, ...])
# Type checkers require a tuple as size if a setting is a tuple, although an int works as well.
# `str | Any` is a str for ints and a tuple of str otherwise; `Any` spares callers an `isinstance`.


def _per_side(answer: Callable[..., Any], window: Callable[..., Any], *given: Any) -> Any:
    """Call the formula once, or once per dimension if any value is a tuple."""
    first = "out" if answer is _fitting else "size"
    tuples = {i: value for i, value in enumerate(given) if isinstance(value, (tuple, list))}
    dimensions = len(tuples[0]) if 0 in tuples else max(map(len, tuples.values()), default=1)
    if not dimensions or any(len(value) not in (1, dimensions) for value in tuples.values()):
        names = [first, *signature(window).parameters]
        values = ", ".join(f"{names[i]}={value}" for i, value in tuples.items())
        raise ValueError(f"{values} do not match: use an int, or one per dimension.")
    answers = []
    for n in range(dimensions):
        size, *settings = [v[n % len(v)] if i in tuples else v for i, v in enumerate(given)]
        answers.append(answer(*_whole(1, **{first: size}), *window(*settings)))
    return tuple(answers) if tuples else answers[0]


def _whole(least: int, **values: Any) -> list[int]:
    """Return the values as ints, or raise a ValueError if one is below its minimum."""
    for name, value in values.items():
        try:
            number = None if isinstance(value, bool) else index(value)
        except TypeError:
            number = None
        if number is None:
            raise ValueError(f"{name}={value!r} must be a whole number: use an int.")
        if number < least:
            raise ValueError(f"{name}={value} is too small: use {least} or more.")
        values[name] = number
    return list(values.values())


def _conv(kernel_size: int, stride: int, padding: int | str, dilation: int) -> tuple[int, ...]:
    """Return k, s, the total padding p of both sides, and d."""
    k, s, d = _whole(1, kernel_size=kernel_size, stride=stride, dilation=dilation)
    if padding == "same":
        if s > 1:
            raise ValueError(f"padding='same' needs stride=1, not {s}: use an int as padding.")
        return k, s, d * (k - 1), d
    if isinstance(padding, str) and padding != "valid":
        raise ValueError(f"padding={padding!r} is unknown: use an int, 'same' or 'valid'.")
    (padding,) = _whole(0, padding=0 if padding == "valid" else padding)
    return k, s, 2 * padding, d


def _pool(
    kernel_size: int, stride: int | None, padding: int, dilation: int, ceil_mode: bool
) -> tuple[int, ...]:
    (padding,) = _whole(0, padding=padding)
    window = _conv(kernel_size, kernel_size if stride is None else stride, padding, dilation)
    if padding > kernel_size // 2:
        raise ValueError(
            f"padding={padding} is more than half of kernel_size={kernel_size}: "
            f"use {kernel_size // 2} or less, or kernel_size={2 * padding} or more."
        )
    return *window, bool(ceil_mode)


def _conv_transpose(
    kernel_size: int, stride: int, padding: int, output_padding: int, dilation: int
) -> tuple[int, ...]:
    padding, extra = _whole(0, padding=padding, output_padding=output_padding)
    window = _conv(kernel_size, stride, padding, dilation)
    if extra >= max(stride, dilation):
        raise ValueError(
            f"output_padding={extra} does not go with stride={stride} and dilation={dilation}: "
            f"use {max(stride, dilation) - 1} or less."
        )
    return *window, extra


def _smallest(out: int, k: int, s: int, p: int, d: int, ceil_mode: bool = False) -> int:
    """Return the smallest size with ``out`` positions; it may be below 1."""
    least = d * (k - 1) + 1 - p
    if ceil_mode:
        # A window may extend past the padded input by less than a stride, but must not start in
        # the padding there.
        least = max(least - s, -(p // 2)) + 1
    return least + (out - 1) * s


def _fitting(out: int, *window: Any) -> range:
    return range(max(1, _smallest(out, *window)), max(1, _smallest(out + 1, *window)))


def _count(size: int, k: int, s: int, p: int, d: int, ceil_mode: bool = False) -> int:
    least = _smallest(1, k, s, p, d, ceil_mode)
    if size < least:
        pad = p // 2 + (least - size + 1) // 2
        raise ValueError(
            f"kernel_size={k}{f' with dilation={d}' if d > 1 else ''} does not fit an input of "
            f"{size}: size + 2*padding must be at least {least + p}.\n"
            f"Use {f'padding={pad}, or ' if pad <= k // 2 else ''}an input of {least} or more."
        )
    return (size - least) // s + 1


def _sum(size: int, k: int, s: int, p: int, d: int, ceil_mode: bool = False) -> str:
    out = _count(size, k, s, p, d, ceil_mode)
    pads = f"{p // 2} + {p // 2 + 1}" if p % 2 else f"2*{p // 2}"
    room = f"{size} + {pads} - {d}*({k} - 1) - 1" if d > 1 else f"{size} - {k} + {pads}"
    steps, rest = divmod(size - _smallest(1, k, s, p, d), s)
    if not rest:
        return f"({room})/{s} + 1 = {out}"
    if ceil_mode:
        return f"ceil(({room})/{s}) + 1{' - 1' if out == steps + 1 else ''} = {out}"
    return f"floor(({room})/{s}) + 1 = {out}"


def _grown(size: int, k: int, s: int, p: int, d: int, extra: int) -> int:
    """Return the smallest size that the convolution would turn into ``size``, plus ``extra``."""
    out = _smallest(size, k, s, p, d) + extra
    if out < 1:
        raise ValueError(
            f"padding={p // 2} leaves an output of {out} from an input of {size}.\n"
            f"Use padding={(out + p - 1) // 2} or less, "
            f"or an input of {size - (out - 1) // s} or more."
        )
    return out


def _grown_sum(size: int, k: int, s: int, p: int, d: int, extra: int) -> str:
    out = _grown(size, k, s, p, d, extra)
    span = f"{d}*({k} - 1) + 1" if d > 1 else f"{k}"
    return f"({size} - 1)*{s} - 2*{p // 2} + {span} + {extra} = {out}"


def conv_output_size(
    size: Size,
    kernel_size: int | Size,
    stride: int | Size = 1,
    padding: int | Size | str = 0,
    dilation: int | Size = 1,
) -> Size:
    """Return how many positions a kernel takes along one side of a padded input.

    ``padding`` may also be ``"same"``, which keeps the size, or ``"valid"``, no padding.

    Raises:
        ValueError: torch rejects these settings, usually because the kernel is too large.

    >>> conv_output_size(32, kernel_size=3)
    30
    """
    out: Size = _per_side(_count, _conv, size, kernel_size, stride, padding, dilation)
    return out


def conv_arithmetic(
    size: Ints, kernel_size: Ints, stride: Ints = 1, padding: Ints | str = 0, dilation: Ints = 1
) -> str | Any:
    """Return the sum behind :func:`conv_output_size`: left of ``=`` it is valid Python.

    >>> conv_arithmetic(32, kernel_size=3, stride=2, padding=2, dilation=2)
    'floor((32 + 2*2 - 2*(3 - 1) - 1)/2) + 1 = 16'
    """
    return _per_side(_sum, _conv, size, kernel_size, stride, padding, dilation)


def conv_fitting_sizes(
    out: Ints, kernel_size: Ints, stride: Ints = 1, padding: Ints | str = 0, dilation: Ints = 1
) -> range | Any:
    """Return the input sizes that :func:`conv_output_size` turns into ``out``.

    >>> conv_fitting_sizes(15, kernel_size=3, stride=2)
    range(31, 33)
    """
    return _per_side(_fitting, _conv, out, kernel_size, stride, padding, dilation)


def pool_output_size(
    size: Size,
    kernel_size: int | Size,
    stride: int | Size | None = None,
    padding: int | Size = 0,
    dilation: int | Size = 1,
    ceil_mode: bool = False,
) -> Size:
    """Return how many windows pooling takes along one side of a padded input.

    ``stride`` defaults to the kernel size. ``ceil_mode`` adds a last window that extends past the
    edge, unless it would start in the padding there. Only :class:`torch.nn.AvgPool3d` is stricter:
    its kernel must fit the unpadded input.

    >>> pool_output_size(13, kernel_size=2)
    6
    """
    out: Size = _per_side(_count, _pool, size, kernel_size, stride, padding, dilation, ceil_mode)
    return out


def pool_arithmetic(
    size: Ints,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> str | Any:
    """Return the sum behind :func:`pool_output_size`: left of ``=`` it is valid Python.

    >>> pool_arithmetic(13, kernel_size=2)
    'floor((13 - 2 + 2*0)/2) + 1 = 6'
    """
    return _per_side(_sum, _pool, size, kernel_size, stride, padding, dilation, ceil_mode)


def pool_fitting_sizes(
    out: Ints,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> range | Any:
    """Return the input sizes that :func:`pool_output_size` turns into ``out``.

    >>> pool_fitting_sizes(6, kernel_size=2)
    range(12, 14)
    """
    return _per_side(_fitting, _pool, out, kernel_size, stride, padding, dilation, ceil_mode)


def conv_transpose_output_size(
    size: Size,
    kernel_size: int | Size,
    stride: int | Size = 1,
    padding: int | Size = 0,
    output_padding: int | Size = 0,
    dilation: int | Size = 1,
) -> Size:
    """Return the size of one side after a transposed convolution.

    >>> conv_transpose_output_size(5, kernel_size=3, stride=2, padding=1, output_padding=1)
    10
    """
    out: Size = _per_side(
        _grown, _conv_transpose, size, kernel_size, stride, padding, output_padding, dilation
    )
    return out


def conv_transpose_arithmetic(
    size: Ints,
    kernel_size: Ints,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    dilation: Ints = 1,
) -> str | Any:
    """Return the sum behind :func:`conv_transpose_output_size`: left of ``=`` it is valid Python.

    >>> conv_transpose_arithmetic(5, kernel_size=3, stride=2, padding=1, output_padding=1)
    '(5 - 1)*2 - 2*1 + 3 + 1 = 10'
    """
    return _per_side(
        _grown_sum, _conv_transpose, size, kernel_size, stride, padding, output_padding, dilation
    )
