"""Why a step failed on shapes, and what to change, in words."""

from __future__ import annotations

from math import prod
from typing import Any

from torch import Tensor, nn

from blitz_helpers.trace._explain import origin_of
from blitz_helpers.trace._origin import Axis
from blitz_helpers.trace._records import ShapeStep, shape_text

_LARGEST_SIDE = 1 << 14


def explain_failure(
    step: ShapeStep,
    module: nn.Module | None,
    args: Any,
    kwargs: dict[str, Any],
    tensors: list[Tensor],
    error: Exception,
) -> tuple[str, str]:
    """Return the message and the hint of a `ShapeError`."""
    name = step.module or step.op
    if step.op == "linear":
        found = _linear(name, *tensors[:2])
        if found:
            return found
    got = ", ".join(map(shape_text, step.input_shapes))
    return f"{name} ({step.op}) got {got}: {error}", "Compare the shapes in the trace."


def _linear(name: str, x: Tensor, weight: Tensor) -> tuple[str, str] | None:
    got, wants = x.shape[-1], weight.shape[1]
    if got == wants:
        return None
    factors = (origin_of(x).factors or {}).get(x.dim() - 1)
    ways = [f"in_features={got}"]
    got_text, wants_text = str(got), str(wants)
    if factors is not None:
        sizes, axes = factors
        got_text = f"{got} = {'*'.join(map(str, sizes))}"
        spatial = [i for i, axis in enumerate(axes) if axis is not None]
        rest = prod(size for i, size in enumerate(sizes) if i not in spatial)
        side = _root(wants, rest, len(spatial))
        if side:
            parts = [str(side) if i in spatial else str(s) for i, s in enumerate(sizes)]
            wants_text = f"{wants} = {'*'.join(parts)}"
            inputs = fitting_inputs([axes[i] for i in spatial], side)
            if inputs:
                ways.append(f"an input of {_span(inputs)} pixels a side")
    hint = f"Use {', or '.join(ways)}."
    return f"{name} got {got_text} features, wants {wants_text}. {hint}", hint


def _root(number: int, rest: int, count: int) -> int | None:
    """Return the side whose ``count``-th power times ``rest`` is ``number``."""
    if not count or number % rest:
        return None
    side = round((number // rest) ** (1 / count))
    return side if rest * side**count == number else None


def fitting_inputs(axes: list[Axis | None], side: int) -> range | None:
    """Return the input sizes that become ``side`` along every one of the axes."""
    low, high = 1, _LARGEST_SIDE
    for axis in axes:
        if axis is None:
            return None
        first, last = _first_at_least(axis, side), _first_at_least(axis, side + 1) - 1
        low, high = max(low, first), min(high, last)
    return range(low, high + 1) if low <= high < _LARGEST_SIDE else None


def _first_at_least(axis: Axis, side: int) -> int:
    """Return the smallest input size that becomes ``side`` or more."""
    low, high = 1, _LARGEST_SIDE
    while low < high:
        middle = (low + high) // 2
        try:
            enough = axis.size_for(middle) >= side
        except ValueError:
            enough = False
        if enough:
            high = middle
        else:
            low = middle + 1
    return low


def _span(sizes: range) -> str:
    return str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
