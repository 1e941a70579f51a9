"""Why a step failed on shapes, and what to change, in words."""

from __future__ import annotations

import re
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from blitz_helpers.trace._origin import Axis, origin_of
from blitz_helpers.trace._records import ShapeStep, shape_text

_LARGEST_SIDE = 1 << 14
_ABOUT_DTYPES = re.compile(r"dtype|indices|(same|input|scalar) type|type promoting|not impl", re.I)
_AXES = {1: "L", 2: "H, W", 3: "D, H, W"}


class Failure(NamedTuple):
    """What went wrong, the ways out, and the input sizes, if any, that would be one of them."""

    what: str
    ways: tuple[str, ...] = ()
    sides: range | None = None

    @property
    def hint(self) -> str:
        """What to change, as a sentence."""
        ways = list(self.ways)
        if self.sides is not None:
            first, last = self.sides[0], self.sides[-1]
            several = "" if first == last else f" to {last}"
            least = last >= _LARGEST_SIDE
            size = f"at least {first}" if least else f"{first}{several}"
            ways.append(f"an input of {size} pixels a side")
        if not ways:
            return "Compare the shapes of the steps before it: print(error.trace)."
        return f"Use {', or '.join(ways)}."


def explain_failure(
    step: ShapeStep,
    module: nn.Module | None,
    args: Any,
    kwargs: dict[str, Any],
    tensors: list[Tensor],
    error: Exception,
) -> Failure:
    """Return why the step failed and what to change."""
    name = step.module or step.op
    got = " and ".join(map(shape_text, step.input_shapes))
    for cause in (_dtype, _features, _channels, _window, _unequal, _layer, _numbers):
        failure = cause(step, name, module, tensors, error)
        if failure is not None:
            return failure
    reason = str(error).strip().split("\n")[0].rstrip(".")
    return Failure(f"{name} ({step.op}) got {got}: {reason}")


def _dtype(
    step: ShapeStep, name: str, module: Any, tensors: list[Tensor], error: Exception
) -> Failure | None:
    """Numbers of another kind than the weights, or than the tensor beside them."""
    if not tensors or not _ABOUT_DTYPES.search(str(error)):
        return None
    if step.op in ("embedding", "embedding_bag"):
        got = tensors[0].dtype
        if got in (torch.int64, torch.int32):
            return None
        what = f"{name} got indices of {got}, wants {torch.int64}"
        return Failure(what, ("x.long() on the input",))
    if step.op == "masked_fill":
        what = f"{name} got a mask of {tensors[-1].dtype}, wants {torch.bool}"
        return Failure(what, ("mask.bool()",))
    weights = [] if module is None else module.parameters()
    floating = [t.dtype for t in (*tensors[1:], *weights) if t.is_floating_point()]
    wants = floating[0] if floating else tensors[0].dtype
    got = next((t.dtype for t in tensors if t.dtype != wants), wants)
    if got == wants:
        return None
    return Failure(f"{name} got an input of {got}, wants {wants}", (f"x.to({wants}) on the input",))


def _features(
    step: ShapeStep, name: str, module: Any, tensors: list[Tensor], error: Exception
) -> Failure | None:
    """A linear layer, or a product, whose sizes do not meet."""
    if step.op in ("matmul", "mm", "bmm") and len(tensors) == 2:
        a, b = tensors
        flips = a.shape[-1:] == b.shape[-1:] and "multiplied" in str(error) and b.dim() > 1
        ways = ("the second one's .transpose(-2, -1)",) if flips else ()
        pair = f"{shape_text(a.shape)} @ {shape_text(b.shape)}"
        return Failure(f"{name} ({step.op}) got {pair}: {error}", ways)
    if step.op != "linear" or "multiplied" not in str(error):
        return None
    x, wants = tensors[0], tensors[1].shape[1]
    got = x.shape[-1]
    if x.dim() == 2 and x.shape[0] * got == wants:
        return Failure(
            f"{name} got {shape_text(x.shape)}, wants {wants} features: "
            f"{x.shape[0]}*{got} = {wants}, so the batch dimension is missing",
            ("x.unsqueeze(0) on the input",),
        )
    got_text, wants_text, sides = str(got), str(wants), None
    sizes, axes = (origin_of(x).factors or {}).get(x.dim() - 1, ((), ()))
    if sizes:
        got_text = f"{got} = {'*'.join(map(str, sizes))}"
        spatial = [i for i, axis in enumerate(axes) if axis is not None]
        side = _root(wants, prod(s for i, s in enumerate(sizes) if i not in spatial), len(spatial))
        if side:
            parts = [str(side) if i in spatial else str(s) for i, s in enumerate(sizes)]
            wants_text = f"{wants} = {'*'.join(parts)}"
            sides = fitting_inputs([axes[i] for i in spatial], side)
    what = f"{name} got {got_text} features, wants {wants_text}"
    return Failure(what, (f"in_features={got}",), sides)


def _channels(
    step: ShapeStep, name: str, module: Any, tensors: list[Tensor], error: Exception
) -> Failure | None:
    """A convolution or a normalisation on another number of channels."""
    if step.op == "batch_norm" and "channels" in str(error):
        got, wants = tensors[0].shape[1], tensors[1].shape[0]
        return Failure(f"{name} got {got} channels, wants {wants}", (f"num_features={got}",))
    if not step.op.startswith("conv"):
        return None
    x, weight = tensors[:2]
    ndim = int(step.op[-2])  # of `conv2d`, say: the weight itself may be wrong
    found = re.search(r"expected (\d+) channels", str(error))
    if found is None and (x.dim() in (ndim + 1, ndim + 2) or weight.dim() != ndim + 2):
        return None
    groups = getattr(module, "groups", 1)
    wants = weight.shape[0] if "transpose" in step.op else weight.shape[1] * groups
    takes = f"(N, C, {_AXES[ndim]}) or (C, {_AXES[ndim]})"
    if found is None:
        what = f"{name} ({step.op}) got {shape_text(x.shape)}, wants {takes} with C = {wants}"
        lacking = ndim + 2 - x.dim()
        if lacking <= 0:
            return Failure(what)
        # An image alone lacks its batch; a picture without channels lacks both.
        return Failure(what, (f"x[{', '.join(['None'] * lacking)}] on the input",))
    got = x.shape[-ndim - 1]
    what = f"{name} ({step.op}) got {got} channels of {shape_text(x.shape)}, wants {wants}"
    if x.shape[-1] == wants and x.dim() == ndim + 2:
        order = ", ".join(map(str, (0, ndim + 1, *range(1, ndim + 1))))
        return Failure(f"{what}: they stand last", (f"x.permute({order}) on the input",))
    if wants == 1 and x.dim() == ndim + 1:
        return Failure(f"{what}: {takes}", ("x.unsqueeze(1) on the input", f"in_channels={got}"))
    s = "" if wants == 1 else "s"
    return Failure(what, (f"in_channels={got}", f"an input of {wants} channel{s}"))


def _window(
    step: ShapeStep, name: str, module: Any, tensors: list[Tensor], error: Exception
) -> Failure | None:
    """A window that is larger than what it slides over."""
    lines = str(error).split("\n")
    found = re.search(r"an input of (\d+) or more", lines[-1])
    if found is None or not tensors:
        return None
    x = tensors[0]
    axes = [axis for axis in origin_of(x).axes or () if axis is not None]
    if origin_of(x).untouched:
        axes = axes[-1:]
    sides = None
    if axes:
        least = max(_first_at_least(axis, int(found[1])) for axis in axes)
        sides = range(least, _LARGEST_SIDE + 1)
    ways = tuple(re.findall(r"padding=\d+", lines[-1]))
    reason = lines[0].split(":")[0].rstrip(".")
    return Failure(f"{name} ({step.op}) got {shape_text(x.shape)}: {reason}", ways, sides)


def _unequal(
    step: ShapeStep, name: str, module: Any, tensors: list[Tensor], error: Exception
) -> Failure | None:
    """Tensors that are joined, or taken element by element, and differ in size."""
    text = str(error)
    joined = "match except" in text or "equal size" in text
    if not (joined or "broadcast" in text or "must match" in text) or len(tensors) < 2:
        return None
    a = tensors[0].shape
    b = next((t.shape for t in tensors[1:] if t.shape != a), a)
    what = f"{name} ({step.op}) got {shape_text(a)} and {shape_text(b)}, which do not match"
    if len(a) != len(b):
        return Failure(what)
    skip = re.search(r"except in dimension (\d+)", text)
    able = {int(skip[1])} if skip else set()
    differ = [
        i
        for i, (p, q) in enumerate(zip(a, b, strict=True))
        if p != q and i not in able and (joined or 1 not in (p, q))
    ]
    if not differ:
        return Failure(what)
    first = all(a[i] < b[i] for i in differ)
    if not first and any(a[i] < b[i] for i in differ):
        return Failure(f"{what} in dimensions {', '.join(map(str, differ))}")
    small, large = (a, b) if first else (b, a)
    what = f"{what} in dimension{'s' * (len(differ) > 1)} {', '.join(map(str, differ))}"
    which = f"on the one of {shape_text(small)}"
    if differ == [1] and len(a) in (3, 4, 5):
        return Failure(what, (f"nn.Conv{len(a) - 2}d({small[1]}, {large[1]}, 1) {which}",))
    if differ == [len(a) - 1] and len(a) < 4:
        return Failure(what, (f"nn.Linear({small[-1]}, {large[-1]}) {which}",))
    pads = []
    for i in range(len(a) - 1, min(differ) - 1, -1):
        lack = large[i] - small[i] if i in differ else 0
        pads += [lack // 2, lack - lack // 2]
    return Failure(what, (f"F.pad(x, ({', '.join(map(str, pads))})) {which}",))


def _layer(
    step: ShapeStep, name: str, module: Any, tensors: list[Tensor], error: Exception
) -> Failure | None:
    """What torch's layers check themselves."""
    text = str(error)
    if found := re.search(r"xpected (\d)D(?: or \dD)? input \(got (\d)D", text):
        what = f"{name} got {shape_text(step.input_shapes[0])}, wants {found[1]} dimensions"
        missing = int(found[1]) - int(found[2])
        if missing == 1:
            what += ": the batch dimension is missing"
        return Failure(what, ("x.unsqueeze(0) on the input",) if missing == 1 else ())
    if found := re.search(r"input.size\(-1\).*?[Ee]xpected (\d+), got (\d+)", text):
        return Failure(
            f"{name} got {found[2]} features, wants {found[1]}", (f"input_size={found[2]}",)
        )
    if found := re.search(r"expected the last sizes to be (\(.*?\)), but got", text):
        got = tuple(tensors[0].shape[-found[1].count(",") - (found[1][-2] != ",") :])
        what = f"{name} got {shape_text(tensors[0].shape)}, wants {found[1]} last"
        return Failure(what, (f"normalized_shape={got}",))
    return None


def _numbers(
    step: ShapeStep, name: str, module: Any, tensors: list[Tensor], error: Exception
) -> Failure | None:
    """A view that does not hold as many numbers as there are."""
    if step.op not in ("view", "reshape", "unflatten") or not tensors:
        return None
    x = tensors[0]
    reason = str(error).strip().split("\n")[0].rstrip(".")
    what = f"{name} ({step.op}) got {shape_text(x.shape)}, {x.numel()} numbers: {reason}"
    if not x.is_contiguous() and "reshape" in reason:
        return Failure(what, ("x.reshape(...) in the place of x.view(...)",))
    return Failure(what, (f"x.{step.op}({x.shape[0]}, -1)",)) if x.dim() else Failure(what)


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
