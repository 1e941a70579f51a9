"""Size formulas of convolution and pooling layers: integers only, no torch.

Each size and setting is an int, or one per dimension, for any number of dimensions, as in torch.
Ints give one answer, a tuple among them a tuple of answers. What torch rejects raises a
``ValueError`` that says what was given and what would fit.

>>> conv_output_size((32, 64), kernel_size=(3, 5), padding=(0, 2))
(30, 64)
"""

from collections.abc import Callable
from functools import wraps
from inspect import Signature, signature
from operator import index
from typing import Any, NamedTuple


class _Window(NamedTuple):
    kernel_size: int
    stride: int
    padding: int  # of both sides together
    dilation: int
    ceil_mode: bool = False
    output_padding: int = 0


def _each_dimension(settings: Callable[..., _Window]) -> Callable[..., Callable[..., Any]]:
    """Let a function of one size and its window take the settings of the window, also as tuples."""

    def decorate(answer: Callable[[int, _Window], Any]) -> Callable[..., Any]:
        size, _ = signature(answer).parameters.values()
        public = Signature([size, *signature(settings).parameters.values()])

        def side(given: dict[str, Any]) -> Any:
            (first,) = _whole(1, **{size.name: given.pop(size.name)})
            return answer(first, settings(**given))

        @wraps(answer)
        def each(*args: Any, **kwargs: Any) -> Any:
            given = public.bind(*args, **kwargs).arguments
            sides = {name: v for name, v in given.items() if isinstance(v, (tuple, list))}
            if not sides:
                return side(given)
            dimensions = len(sides.get(size.name, ())) or max(map(len, sides.values()))
            if any(len(value) not in (1, dimensions) for value in sides.values()) or not dimensions:
                values = ", ".join(f"{name}={value}" for name, value in sides.items())
                raise ValueError(f"{values} do not match: use an int, or one per dimension.")
            return tuple(
                side(given | {name: value[i % len(value)] for name, value in sides.items()})
                for i in range(dimensions)
            )

        each.__signature__ = public  # type: ignore[attr-defined]  # what `help` shows
        return each

    return decorate


def _whole(least: int, **values: Any) -> list[int]:
    """Return the values as ints of at least ``least``."""
    for name, value in values.items():
        try:
            values[name] = index(value)
        except TypeError:
            value = True
        if isinstance(value, bool):
            raise ValueError(f"{name}={values[name]!r} is not a whole number: use an int.")
        if value < least:
            raise ValueError(f"{name}={value} is too small: use {least} or more.")
    return list(values.values())


def _conv(kernel_size: int, stride: int = 1, padding: int | str = 0, dilation: int = 1) -> _Window:
    k, s, d = _whole(1, kernel_size=kernel_size, stride=stride, dilation=dilation)
    if padding == "same":
        if s > 1:
            raise ValueError(f"padding='same' needs stride=1, not {s}: use an int as padding.")
        return _Window(k, s, d * (k - 1), d)
    if isinstance(padding, str) and padding != "valid":
        raise ValueError(f"padding={padding!r} is unknown: use an int, 'same' or 'valid'.")
    (padding,) = _whole(0, padding=0 if padding == "valid" else padding)
    return _Window(k, s, 2 * padding, d)


def _pool(
    kernel_size: int,
    stride: int | None = None,
    padding: int = 0,
    dilation: int = 1,
    ceil_mode: bool = False,
) -> _Window:
    (padding,) = _whole(0, padding=padding)
    window = _conv(kernel_size, kernel_size if stride is None else stride, padding, dilation)
    if padding > kernel_size // 2:
        raise ValueError(
            f"padding={padding} is more than half of kernel_size={kernel_size}: "
            f"use {kernel_size // 2} or less, or kernel_size={2 * padding} or more."
        )
    return window._replace(ceil_mode=bool(ceil_mode))


def _conv_transpose(
    kernel_size: int, stride: int = 1, padding: int = 0, output_padding: int = 0, dilation: int = 1
) -> _Window:
    padding, extra = _whole(0, padding=padding, output_padding=output_padding)
    window = _conv(kernel_size, stride, padding, dilation)
    if extra >= max(stride, dilation):
        raise ValueError(
            f"output_padding={extra} does not go with stride={stride} and dilation={dilation}: "
            f"use {max(stride, dilation) - 1} or less."
        )
    return window._replace(output_padding=extra)


def _smallest_size(out: int, window: _Window) -> int:
    """Return the smallest size, be it below 1, along which there are ``out`` positions."""
    k, s, padding, d, ceil_mode, _ = window
    whole = (out - 1) * s + d * (k - 1) + 1 - padding
    if not ceil_mode:
        return whole
    # The last may reach over the edge by less than a stride, but not start in the padding there.
    return max(whole - s, (out - 1) * s - padding // 2) + 1


def _fitting_sizes(out: int, window: _Window) -> range:
    return range(max(1, _smallest_size(out, window)), max(1, _smallest_size(out + 1, window)))


def _slide(size: int, window: _Window) -> tuple[int, str]:
    """Return how many positions the window has along ``size``, and the sum that says so."""
    k, s, padding, d, ceil_mode, _ = window
    half, odd = divmod(padding, 2)
    if size < (smallest := _smallest_size(1, window)):
        enough = half + (smallest - size + 1) // 2
        raise ValueError(
            f"kernel_size={k}{f' with dilation={d}' if d > 1 else ''} does not fit an input of "
            f"{size}: size + 2*padding must be at least {smallest + padding}.\n"
            f"Use {f'padding={enough}, or ' if enough <= k // 2 else ''}"
            f"an input of {smallest} or more."
        )
    pads = f"{half} + {half + 1}" if odd else f"2*{half}"
    room = f"{size} + {pads} - {d}*({k} - 1) - 1" if d > 1 else f"{size} - {k} + {pads}"
    steps, rest = divmod(size + padding - d * (k - 1) - 1, s)
    text = f"({room})/{s}"
    if rest:
        text = f"ceil({text})" if ceil_mode else f"floor({text})"
        steps += ceil_mode
    text += " + 1"
    if size < _smallest_size(steps + 1, window):  # the last would start in the padding
        steps -= 1
        text += " - 1"
    return steps + 1, f"{text} = {steps + 1}"


def _spread(size: int, window: _Window) -> tuple[int, str]:
    """Return the size after a transposed convolution, and the sum that says so."""
    k, s, padding, d, _, extra = window
    out = (size - 1) * s - padding + d * (k - 1) + 1 + extra
    if out < 1:
        raise ValueError(
            f"padding={padding // 2} leaves an output of {out} from an input of {size}.\n"
            f"Use padding={(out + padding - 1) // 2} or less, "
            f"or an input of {size - (out - 1) // s} or more."
        )
    span = f"{d}*({k} - 1) + 1" if d > 1 else f"{k}"
    return out, f"({size} - 1)*{s} - 2*{padding // 2} + {span} + {extra} = {out}"


@_each_dimension(_conv)
def conv_output_size(size: int, window: _Window) -> int:
    """Return how many positions a kernel takes along one side of a padded input.

    ``padding`` is also ``"same"``, which keeps the size, or ``"valid"``, which is none.

    Raises:
        ValueError: torch rejects this, most often because the kernel is larger than its input.

    Source: the formula under "Shape" of :class:`torch.nn.Conv2d`.

    >>> conv_output_size(32, kernel_size=3)
    30
    """
    return _slide(size, window)[0]


@_each_dimension(_conv)
def conv_arithmetic(size: int, window: _Window) -> str:
    """Return the sum behind :func:`conv_output_size`: left of ``=`` it is valid Python.

    >>> conv_arithmetic(32, kernel_size=3, stride=2, padding=2, dilation=2)
    'floor((32 + 2*2 - 2*(3 - 1) - 1)/2) + 1 = 16'
    """
    return _slide(size, window)[1]


@_each_dimension(_conv)
def conv_fitting_sizes(out: int, window: _Window) -> range:
    """Return the input sizes that :func:`conv_output_size` turns into ``out``.

    >>> conv_fitting_sizes(15, kernel_size=3, stride=2)
    range(31, 33)
    """
    return _fitting_sizes(out, window)


@_each_dimension(_pool)
def pool_output_size(size: int, window: _Window) -> int:
    """Return how many windows pooling takes along one side of a padded input.

    The stride is the kernel size unless given. ``ceil_mode`` adds a last window that reaches
    over the edge, unless it would start in the padding there.

    Raises:
        ValueError: torch rejects this, most often because the kernel is larger than its input.

    Source: the formula under "Shape" of :class:`torch.nn.MaxPool2d`. :class:`torch.nn.AvgPool3d`
    alone is stricter: its kernel must fit the input as it is.

    >>> pool_output_size(13, kernel_size=2)
    6
    """
    return _slide(size, window)[0]


@_each_dimension(_pool)
def pool_arithmetic(size: int, window: _Window) -> str:
    """Return the sum behind :func:`pool_output_size`: left of ``=`` it is valid Python.

    >>> pool_arithmetic(13, kernel_size=2)
    'floor((13 - 2 + 2*0)/2) + 1 = 6'
    """
    return _slide(size, window)[1]


@_each_dimension(_pool)
def pool_fitting_sizes(out: int, window: _Window) -> range:
    """Return the input sizes that :func:`pool_output_size` turns into ``out``.

    >>> pool_fitting_sizes(6, kernel_size=2)
    range(12, 14)
    """
    return _fitting_sizes(out, window)


@_each_dimension(_conv_transpose)
def conv_transpose_output_size(size: int, window: _Window) -> int:
    """Return the size of one side after a transposed convolution.

    Raises:
        ValueError: torch rejects this, for example an ``output_padding`` that is too large.

    Source: the formula under "Shape" of :class:`torch.nn.ConvTranspose2d`.

    >>> conv_transpose_output_size(5, kernel_size=3, stride=2, padding=1, output_padding=1)
    10
    """
    return _spread(size, window)[0]


@_each_dimension(_conv_transpose)
def conv_transpose_arithmetic(size: int, window: _Window) -> str:
    """Return the sum behind :func:`conv_transpose_output_size`: left of ``=`` it is valid Python.

    >>> conv_transpose_arithmetic(5, kernel_size=3, stride=2, padding=1, output_padding=1)
    '(5 - 1)*2 - 2*1 + 3 + 1 = 10'
    """
    return _spread(size, window)[1]
