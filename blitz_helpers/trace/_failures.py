"""A failed step as data. This is the only file that reads torch's error messages."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from blitz_helpers.trace._callers import TORCH, is_ours
from blitz_helpers.trace._field import Dim, known_origin
from blitz_helpers.trace._layout import unequal, wrong_dtype
from blitz_helpers.trace._nests import shape_text, tensors_in
from blitz_helpers.trace._op import Misfit
from blitz_helpers.trace._records import ShapeStep


class Given(NamedTuple):
    """One tensor among the inputs: the argument that holds it, its name, shape and dtype."""

    argument: int | str
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass
class Failure:
    """A step that failed, with everything needed to look for remedies.

    ``number`` counts the calls of torch functions, as in `CodeChange`; ``numbers`` holds the
    numbers of the earlier steps. ``func`` is the function that was called, or ``None`` if a layer
    refused its input before. ``model`` is the one that failed, with the changes that were tried.
    ``sealed`` is ``True`` in scripted or exported code: only inputs can change.
    """

    misfit: Misfit
    step: ShapeStep
    number: int
    func: Any
    model: nn.Module
    module: nn.Module | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    given: Sequence[Given]
    steps: Sequence[ShapeStep]
    numbers: Sequence[int]
    sealed: bool

    @property
    def name(self) -> str:
        """The name of what failed: the layer, or the operation in the forward of a module."""
        return place_name(self.step.module, self.module, self.step.op)

    @property
    def tensors(self) -> list[Tensor]:
        """The distinct tensors among the arguments."""
        found = tensors_in((*self.args, *self.kwargs.values()))
        return list({id(tensor): tensor for tensor in found}.values())

    def maker(self, dim: Dim) -> str:
        """Return the path of the module whose step made a dimension, or ``""``."""
        known = dim.step is not None and dim.step < len(self.steps)
        return self.steps[dim.step].module if known else ""  # type: ignore[index]  # it is known


def place_name(path: str, module: nn.Module | None, op: str) -> str:
    """Return the name of a step in a message; a bare number would read as a count."""
    if not path:
        return op
    if path.replace(".", "").isdigit() and module is not None:
        return f"{type(module).__name__} {path}"
    own = module is not None and type(module).__module__.startswith("torch.nn")
    return path if own or module is None else f"{path} ({op})"


# Torch's messages for operations that it cannot do on tensors without data.
NEEDS_DATA = re.compile(r"meta tensor|device meta|expected meta|fake impl")
_DTYPE_WORDS = (
    r"dtype|(same|input|scalar) type|type promoting|not implemented for '|can't be cast|LongTensor"
    r"|\b(bool|boolean|floating|complex) (tensors|types|inputs)\b"
)
_SHAPE_WORDS = re.compile(
    r"shape|size|dim|channel|feature|indices|broadcast|fit|expected|match|batch|output of|wrapping|"
    rf"{_DTYPE_WORDS}|out of (range|bounds)|"
    r"number of elements|divisible|embed|mask|\d-?D\b|contract|stride|heads|unflatten",
    re.IGNORECASE,
)


_OTHER_WORDS = re.compile(r"grad\b|leaf|in-?place|inference|device|memory|storage", re.IGNORECASE)


def about_shapes(error: Exception, without_data: bool = False) -> bool:
    """Return whether an error is about shapes or dtypes.

    Torch refuses tensors ``without_data`` for little else.
    """
    text = str(error)
    if isinstance(error, Misfit) or _SHAPE_WORDS.search(text):
        return True
    return without_data and type(error) is RuntimeError and not _OTHER_WORDS.search(text)


def misfit_of(
    error: Exception, step: ShapeStep, module: nn.Module | None, tensors: list[Tensor]
) -> Misfit:
    """Return the misfit behind an error: the error itself, or one read from torch's message."""
    if isinstance(error, Misfit):
        return error
    text = str(error)
    for pattern, read in _READERS:
        found = re.search(pattern, text, re.S)
        misfit = read(found, tensors) if found and (tensors or read is _read_guard) else None
        if misfit is not None:
            return misfit
    if tensors and re.search(_DTYPE_WORDS, text, re.IGNORECASE):
        misfit = _read_dtype(module, tensors)
        if misfit is not None:
            return misfit
    inner = re.findall(r"(?:\w+Error: )+(.*)", text)  # TorchScript's errors quote the first one
    reason = (inner[-1] if inner else text.strip().split("\n")[0]).rstrip(".")
    got = " and ".join(map(shape_text, step.input_shapes)) or "no tensor of the trace"
    return Misfit("other", f"got {got}: {reason}", tensors[0] if tensors else None)


Found = re.Match[str]


def _read_rank(found: Found, tensors: list[Tensor]) -> Misfit:
    first, second, got = found.groups()
    x = next((t for t in tensors if t.dim() == int(got)), tensors[0])
    allowed = tuple(int(one) for one in (first, second) if one)
    words = f"got {shape_text(tuple(x.shape))}, wants {' or '.join(map(str, allowed))} dimensions"
    return Misfit("rank", words, x, None, x.dim(), allowed, "dimensions")


def _read_rank_of_state(found: Found, tensors: list[Tensor]) -> Misfit:
    wants, got = map(int, found.groups())
    state = next((t for t in reversed(tensors) if t.dim() == got), tensors[-1])
    words = f"got a hidden state of {shape_text(tuple(state.shape))}, wants {wants} dimensions"
    return Misfit("rank", words, state, None, got, (wants,), "dimensions")


def _read_features(found: Found, tensors: list[Tensor]) -> Misfit:
    wants, got = map(int, found.groups())
    words = f"got {got} features, wants {wants}"
    return Misfit("size", words, tensors[0], -1, got, wants, "features")


def _read_channels(found: Found, tensors: list[Tensor]) -> Misfit | None:
    wants, got = map(int, found.groups())
    x = next((t for t in tensors if t.dim() > 1 and t.shape[1] == got), None)
    words = f"got {got} channels, wants {wants}"
    return None if x is None else Misfit("size", words, x, 1, got, wants, "channels")


def _read_product(found: Found, tensors: list[Tensor]) -> Misfit:
    got, wants = map(int, found.groups())
    own = tensors[0] if tensors[0].dim() and tensors[0].shape[-1] == got else None
    words = f"got {got} features, wants {wants}"
    return Misfit("size", words, own, None if own is None else -1, got, wants, "features")


def _read_guard(found: Found, tensors: list[Tensor]) -> Misfit:
    name, dim, wants = found[1], int(found[2]), int(found[3])
    words = f"was exported for {wants} in dimension {dim} of the input {name}"
    return Misfit("guard", words, None, None, dim, wants, name)


def _read_state(found: Found, tensors: list[Tensor]) -> Misfit:
    words = f"got a hidden state of ({found[2]}), wants ({found[1]})"
    wants = tuple(map(int, re.findall(r"\d+", found[1])))
    state = tensors[1] if len(tensors) > 1 else tensors[0]
    return Misfit("batch", words, state, None, None, wants, "state", tensors[:1])


def _read_average(found: Found, tensors: list[Tensor]) -> Misfit:
    shape = shape_text(tuple(tensors[0].shape))
    words = f"got {shape}, one value a channel: training needs more to normalise"
    return Misfit("average", words, tensors[0])


def _read_view(found: Found, tensors: list[Tensor]) -> Misfit:
    shape = shape_text(tuple(tensors[0].shape))
    words = f"got {shape}, whose numbers do not lie in one piece: view makes no copy"
    return Misfit("numbers", words, tensors[0], None, None, None, "stride")


def _read_numbers(found: Found, tensors: list[Tensor]) -> Misfit:
    x, asked = tensors[0], tuple(map(int, found[1].split(", ")))
    text = f"got {shape_text(tuple(x.shape))}, {x.numel()} numbers, which {asked} does not hold"
    return Misfit("numbers", text, x, None, x.numel(), asked)


def _read_unpacking(found: Found, tensors: list[Tensor]) -> Misfit:
    x, wants = tensors[0], int(found[1])
    text = f"got {shape_text(tuple(x.shape))}, which its code unpacks into {wants} sizes"
    return Misfit("rank", text, x, None, x.dim(), (wants,), "dimensions")


def _read_dimension(found: Found, tensors: list[Tensor]) -> Misfit:
    x = tensors[0]
    at = int(found[1] or x.dim())
    text = f"got {shape_text(tuple(x.shape))}, of which its code asks for dimension {at}"
    wants = at + 1 if at >= 0 else -at
    return Misfit("rank", text, x, None, x.dim(), (wants,), "dimensions")


def _read_meeting(found: Found, tensors: list[Tensor]) -> Misfit | None:
    return unequal(tensors, "which do not match") if len(tensors) > 1 else None


def _read_shuffle(found: Found, tensors: list[Tensor]) -> Misfit:
    x, block = tensors[0], int(found[1]) ** 2
    got = x.shape[-3]
    wants = max(1, round(got / block)) * block
    words = f"got {got} channels, wants a multiple of {found[1]}*{found[1]} = {block}"
    return Misfit("size", words, x, -3, got, wants, "channels")


def _read_halving(found: Found, tensors: list[Tensor]) -> Misfit:
    dim, got = int(found[1]), int(found[2])
    noun = "channels" if dim == 1 and tensors[0].dim() > 2 else "features"
    words = f"got {got} {noun}, wants an even number"
    return Misfit("size", words, tensors[0], dim, got, got + 1, noun)


_READERS: tuple[tuple[str, Callable[[Found, list[Tensor]], Misfit | None]], ...] = (
    (r"xpected (\d)-?D(?: or (\d)-?D)? (?:input|tensor)?.*?got (\d)-?D", _read_rank),
    (r"xpected.*?(\d)-?D or (\d)-?D.*?got (?:a )?(\d)-?D", _read_rank),
    (r"should also be (\d)-?D but got \(?(\d)-?D", _read_rank_of_state),
    (r"(?:size\(-1\)|input_size).*?[Ee]xpected (\d+),? got (\d+)", _read_features),
    (r"to have (\d+) channels, but got (\d+) channels", _read_channels),
    (r"to match num_features \((\d+)\), but got: (\d+)", _read_channels),
    (r"cannot be multiplied \(\d+x(\d+) and (\d+)x\d+\)", _read_product),
    (r"reduction dim, but got \[\d+, (\d+)\] X \[(\d+), \d+\]", _read_product),
    (r"xpected hidden.*?size [\[(](.*?)[\])], got [\[(](.*?)[\])]", _read_state),
    (r"Invalid input shape for pixel_shuffle: .*? with upscale_factor = (\d+)", _read_shuffle),
    (r"Halving dimension must be even, but dimension (\d+) is size (\d+)", _read_halving),
    (r"more than 1 (value|spatial)", _read_average),
    (r"view size is not compatible", _read_view),
    (r"shape '\[(-?\d+(?:, -?\d+)*)\]' is invalid for input of size", _read_numbers),
    (r"values to unpack \(expected (?:at least )?(\d+)", _read_unpacking),
    (r"Dimension out of range .*but got (-?\d+)|tuple index out of range", _read_dimension),
    (r"must match|same size|same shape|equal size|broadcast|must be the same", _read_meeting),
    (r"Guard failed: (\w+)\.size\(\)\[(\d+)\] == (\d+)", _read_guard),
)


def _read_dtype(module: nn.Module | None, tensors: list[Tensor]) -> Misfit | None:
    weights = [t for t in tensors if known_origin(t) is None]
    weights += [] if module is None else list(module.parameters())
    found = [*weights, *tensors]
    inexact = [t.dtype for t in found if t.is_floating_point() or t.is_complex()]
    wants = (inexact or [t.dtype for t in tensors])[0]
    for tensor in tensors:
        if tensor.dtype != wants and known_origin(tensor) is not None:
            return wrong_dtype(tensor, wants, [t for t in tensors if t is not tensor])
    return None


def layer_error(error: Exception) -> tuple[nn.Module, Any, list[Tensor]] | None:
    """Return the module, its arguments and its tensors if they failed before an operation.

    Either a check inside torch's layers failed, or a module's own code asked for sizes that a
    tensor does not have.
    """
    if not isinstance(error, RuntimeError | ValueError | AssertionError | IndexError):
        return None
    trace = error.__traceback__
    theirs = trace
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
        theirs = theirs if is_ours(trace.tb_frame) else trace
    if trace is None or theirs is None:
        return None
    frame = trace.tb_frame
    x = _asked_for_sizes(theirs) if _SIZES_ASKED.search(str(error)) else None
    if x is None and not frame.f_code.co_filename.startswith(f"{TORCH}/nn/modules"):
        return None
    while frame is not None and frame.f_code.co_name != "forward":
        frame = frame.f_back  # type: ignore[assignment]  # ends with None
    if frame is None or not about_shapes(error):
        return None
    module, *args = frame.f_locals.values()
    args = args if x is None else [x]
    return (module, tuple(args), tensors_in(args)) if isinstance(module, nn.Module) else None


_SIZES_ASKED = re.compile("values to unpack|tuple index out of range|Dimension out of range")


def _asked_for_sizes(trace: TracebackType) -> Tensor | None:
    """Return the tensor of ``b, c, h, w = x.shape`` or ``x.size(2)``, where that failed."""
    from dis import get_instructions  # only this failure needs it

    before: list[Any] = []
    for one in get_instructions(trace.tb_frame.f_code):
        if one.offset == trace.tb_lasti:
            break
        before = [*before[-4:], one]
    asked = [place for place, one in enumerate(before) if one.argval in ("shape", "size")]
    name = before[asked[-1] - 1].argval if asked and asked[-1] else None
    value = trace.tb_frame.f_locals.get(name) if isinstance(name, str) else None
    return value if isinstance(value, Tensor) else None
