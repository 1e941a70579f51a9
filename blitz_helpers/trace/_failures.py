"""A failed step as data: what did not fit, where it came from, and both in words.

Only here are torch's own messages read, by regular expressions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from blitz_helpers.trace._callers import TORCH
from blitz_helpers.trace._field import Dim, dims_of, known_origin
from blitz_helpers.trace._layout import unequal, wrong_dtype
from blitz_helpers.trace._nests import tensors_in
from blitz_helpers.trace._op import Misfit
from blitz_helpers.trace._records import ShapeStep, shape_text


class Given(NamedTuple):
    """One tensor among the inputs: the argument that it is, the name of that, and its sizes.

    ``argument`` is ``None`` for a tensor inside a list or a dict.
    """

    argument: int | str | None
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass
class Failure:
    """A step that failed, and what is needed to find a way out.

    ``number`` counts the calls of torch functions, as `CodeChange` does; ``numbers`` holds those
    of the steps before. ``called`` is off where a layer refused before it called a function.
    """

    misfit: Misfit
    step: ShapeStep
    number: int
    called: bool
    module: nn.Module | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    given: Sequence[Given]
    steps: Sequence[ShapeStep]
    numbers: Sequence[int]
    sealed: bool

    @property
    def name(self) -> str:
        """What failed: the layer, or the operation in the forward of a module."""
        return place_name(self.step.module, self.module, self.step.op)

    def maker(self, dim: Dim) -> str:
        """Return the path of the module whose step made a dimension, or ``""``."""
        return (
            "" if dim.step is None or dim.step >= len(self.steps) else self.steps[dim.step].module
        )


def place_name(path: str, module: nn.Module | None, op: str) -> str:
    """Return what to call a step in a message: a number alone would read as a count."""
    if not path:
        return op
    if path.replace(".", "").isdigit() and module is not None:
        return f"{type(module).__name__} {path}"
    own = module is not None and type(module).__module__.startswith("torch.nn")
    return path if own or module is None else f"{path} ({op})"


# Words of torch's errors


# What torch says where it has no answer for tensors without data.
NEEDS_DATA = re.compile(r"meta tensor|device meta|expected meta|fake impl")
_SHAPE_WORDS = re.compile(
    r"shape|size|dim|channel|feature|indices|broadcast|fit|expected|match|batch|output of|wrapping|"
    r"dtype|(same|input|scalar) type|type promoting|not implemented for '|out of (range|bounds)|"
    r"number of elements|divisible|embed|mask|\d-?D\b|contract|stride|heads|unflatten",
    re.IGNORECASE,
)
_DTYPE_WORDS = re.compile(
    r"dtype|(same|input|scalar) type|type promoting|not implemented for '", re.I
)


def about_shapes(error: Exception) -> bool:
    """Return whether an error of torch's speaks of shapes or dtypes."""
    return isinstance(error, Misfit) or bool(_SHAPE_WORDS.search(str(error)))


def misfit_of(
    error: Exception, step: ShapeStep, module: nn.Module | None, tensors: list[Tensor]
) -> Misfit:
    """Return what did not fit, from an error of ours or of torch's."""
    if isinstance(error, Misfit):
        return error
    text = str(error)
    readers = (
        *(_read_rank, _read_features, _read_channels, _read_product, _read_state, _read_average),
        *(_read_view, _read_meeting, _read_guard),
    )
    for read in readers:
        misfit = read(text, step, tensors)
        if misfit is not None:
            return misfit
    if _DTYPE_WORDS.search(text):
        misfit = _read_dtype(module, tensors)
        if misfit is not None:
            return misfit
    inner = re.findall(r"(?:\w+Error: )+(.*)", text)  # as TorchScript's hold the one that it met
    reason = (inner[-1] if inner else text.strip().split("\n")[0]).rstrip(".")
    got = " and ".join(map(shape_text, step.input_shapes)) or "what it does not take"
    return Misfit("other", f"got {got}: {reason}", tensors[0] if tensors else None)


def _read_rank(text: str, step: ShapeStep, tensors: list[Tensor]) -> Misfit | None:
    found = re.search(
        r"xpected (\d)-?D(?: or (\d)-?D)? (?:input|tensor)?.*?got (\d)-?D", text, re.S
    )
    found = found or re.search(r"xpected.*?(\d)-?D or (\d)-?D.*?got (?:a )?(\d)-?D", text, re.S)
    if not found or not tensors:
        return None
    x = next((t for t in tensors if t.dim() == int(found[3])), tensors[0])
    allowed = tuple(int(one) for one in found.groups()[:2] if one)
    wants = " or ".join(map(str, allowed))
    words = f"got {shape_text(tuple(x.shape))}, wants {wants} dimensions"
    return Misfit("rank", words, x, None, x.dim(), allowed, "dimensions")


def _read_features(text: str, step: ShapeStep, tensors: list[Tensor]) -> Misfit | None:
    found = re.search(r"(?:size\(-1\)|input_size).*?[Ee]xpected (\d+),? got (\d+)", text)
    if found:
        wants, got = int(found[1]), int(found[2])
    else:
        found = re.search(r"input_size: got (\d+),? expected (\d+)", text)
        if not found:
            return None
        got, wants = int(found[1]), int(found[2])
    words = f"got {got} features, wants {wants}"
    return Misfit("size", words, tensors[0], -1, got, wants, "features") if tensors else None


def _read_channels(text: str, step: ShapeStep, tensors: list[Tensor]) -> Misfit | None:
    found = re.search(r"to have (\d+) channels, but got (\d+) channels", text)
    for x in tensors if found else ():
        wants, got = int(found[1]), int(found[2])  # type: ignore[index]  # it was found
        if x.dim() > 1 and x.shape[1] == got:
            words = f"got {got} channels, wants {wants}"
            return Misfit("size", words, x, 1, got, wants, "channels")
    return None


def _read_product(text: str, step: ShapeStep, tensors: list[Tensor]) -> Misfit | None:
    found = re.search(r"cannot be multiplied \(\d+x(\d+) and (\d+)x\d+\)", text)
    found = found or re.search(r"reduction dim, but got \[\d+, (\d+)\] X \[(\d+), \d+\]", text)
    if not found or not tensors:
        return None
    got, wants = int(found[1]), int(found[2])
    own = tensors[0] if tensors[0].dim() and tensors[0].shape[-1] == got else None
    words = f"got {got} features, wants {wants}"
    return Misfit("size", words, own, None if own is None else -1, got, wants, "features")


def _read_guard(text: str, step: ShapeStep, tensors: list[Tensor]) -> Misfit | None:
    found = re.search(r"Guard failed: (\w+)\.size\(\)\[(\d+)\] == (\d+)", text)
    if not found:
        return None
    name, dim, wants = found[1], int(found[2]), int(found[3])
    words = f"was exported for {wants} in dimension {dim} of the input {name}"
    return Misfit("guard", words, None, None, dim, wants, name)


def _read_state(text: str, step: ShapeStep, tensors: list[Tensor]) -> Misfit | None:
    if not tensors or not re.search(r"hidden|\bhx\b|\bcx\b", text):
        return None
    found = re.search(r"xpected hidden.*?size [\[(](.*?)[\])], got [\[(](.*?)[\])]", text)
    if found:
        words = f"got a hidden state of ({found[2]}), wants ({found[1]})"
        wants = tuple(int(one) for one in re.findall(r"\d+", found[1]))
    else:
        wants = None
        words = f"got {shape_text(tuple(tensors[0].shape))}: {text.split('. ')[0].rstrip('.')}"
    state = tensors[1] if len(tensors) > 1 else tensors[0]
    return Misfit("batch", words, state, None, None, wants, "state", tensors[:1])


def _read_average(text: str, step: ShapeStep, tensors: list[Tensor]) -> Misfit | None:
    if not tensors or not re.search(r"more than 1 (value|spatial)", text):
        return None
    shape = shape_text(tuple(tensors[0].shape))
    words = f"got {shape}, one value a channel: training needs more to normalise"
    return Misfit("average", words, tensors[0])


def _read_view(text: str, step: ShapeStep, tensors: list[Tensor]) -> Misfit | None:
    if not tensors or "view size is not compatible" not in text:
        return None
    shape = shape_text(tuple(tensors[0].shape))
    words = f"got {shape}, whose numbers do not lie in one piece: view takes no copy"
    return Misfit("numbers", words, tensors[0], None, None, None, "stride")


def _read_meeting(text: str, step: ShapeStep, tensors: list[Tensor]) -> Misfit | None:
    meet = r"must match|same size|same shape|equal size|broadcast|must be the same"
    if len(tensors) < 2 or not re.search(meet, text):
        return None
    return unequal(tensors, "which do not match")


def _read_dtype(module: nn.Module | None, tensors: list[Tensor]) -> Misfit | None:
    weights = [t for t in tensors if known_origin(t) is None]
    weights += [] if module is None else list(module.parameters())
    inexact = [t.dtype for t in weights if t.is_floating_point() or t.is_complex()]
    inexact += [t.dtype for t in tensors if t.is_floating_point() or t.is_complex()]
    wants = inexact[0] if inexact else tensors[0].dtype if tensors else None
    for tensor in tensors:
        if wants is not None and tensor.dtype != wants and known_origin(tensor) is not None:
            return wrong_dtype(tensor, wants, [t for t in tensors if t is not tensor])
    return None


def layer_error(error: Exception) -> tuple[nn.Module, Any, list[Tensor]] | None:
    """Return the layer, its arguments and its input if a check inside one of torch's failed."""
    if not isinstance(error, RuntimeError | ValueError | AssertionError | IndexError):
        return None
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or not trace.tb_frame.f_code.co_filename.startswith(f"{TORCH}/nn/modules"):
        return None
    frame = trace.tb_frame
    while frame is not None and frame.f_code.co_name != "forward":
        frame = frame.f_back  # type: ignore[assignment]  # ends with None
    if frame is None or not about_shapes(error):
        return None
    values = frame.f_locals
    args = tuple(value for name, value in values.items() if name != "self")
    return values["self"], args, tensors_in(args)


# The message


def what(failure: Failure) -> str:
    """Return which step got what, and what it wants."""
    misfit = failure.misfit
    text = str(misfit)
    product = _product(misfit)
    if product is not None:
        sizes, wanted = product
        text = f"got {misfit.got} = {sizes} {misfit.noun}, wants {misfit.wants}"
        text += f" = {wanted}" if wanted else ""
    mixed = mixing_view(failure)
    if mixed is not None:
        step, batch = mixed
        text += f": {step.op} mixed the batch of {batch} into it"
    return f"{failure.name} {text}"


def _product(misfit: Misfit) -> tuple[str, str] | None:
    """Return the factors of what there is, and of what is wanted, where a view multiplied them."""
    x, dim = misfit.tensor, misfit.dim
    if misfit.kind != "size" or x is None or dim is None:
        return None
    parts = dims_of(x)[dim].parts
    if not parts or prod(size for size, _ in parts) != misfit.got:
        return None
    sizes = "*".join(str(size) for size, _ in parts)
    sides = [i for i, (_, part) in enumerate(parts) if part.axis is not None and _is_side(part, x)]
    rest = prod(size for i, (size, _) in enumerate(parts) if i not in sides)
    side = root(misfit.wants, rest, len(sides))
    if side is None or _is_batch_in(dims_of(x)[dim]):
        return sizes, ""
    wanted = [str(side) if i in sides else str(size) for i, (size, _) in enumerate(parts)]
    return sizes, "*".join(wanted)


def _is_side(part: Dim, x: Tensor) -> bool:
    return part.input is None or part.input[1] > 0


def root(number: int, rest: int, count: int) -> int | None:
    """Return the side whose ``count``-th power times ``rest`` is ``number``."""
    if not count or not rest or number % rest:
        return None
    side: int = round((number // rest) ** (1 / count))
    return side if rest * side**count == number else None


def _is_batch_in(dim: Dim) -> bool:
    return any(part.input == (0, 0) for _, part in dim.parts)


def mixing_view(failure: Failure) -> tuple[ShapeStep, int] | None:
    """Return the view that multiplied the batch with other dimensions, and the batch's size."""
    x = failure.misfit.tensor
    for dim in dims_of(x) if x is not None else ():
        batch = next((size for size, part in dim.parts if part.input == (0, 0)), 1)
        if batch > 1 and len(dim.parts) > 1:
            for step in reversed(failure.steps):
                if step.op in ("view", "reshape", "flatten", "unflatten"):
                    return step, batch
    return None


def whence(failure: Failure) -> str:
    """Return a sentence for each number of the misfit whose past is known."""
    misfit = failure.misfit
    said = []
    tensors = [misfit.tensor] if misfit.tensor is not None else list(misfit.others[:2])
    for x in tensors:
        if x is None or known_origin(x) is None:
            continue
        if misfit.tensor is not None and misfit.dim is not None:
            places = [misfit.dim]
        elif misfit.kind == "unequal":
            sizes = zip(*(t.shape for t in misfit.others), strict=False)
            places = [i for i, each in enumerate(sizes) if len(set(each) - {1}) > 1 and i < x.dim()]
        else:
            said.append(_made(failure, x))
            continue
        said += [_source(failure, x.shape[place], dims_of(x)[place]) for place in places]
    if misfit.kind == "size" and any(known_origin(t) is None for t in misfit.others):
        said.append(f"the weights of {failure.name} want {misfit.wants}")
    said = [one for one in dict.fromkeys(said) if one]
    if not said:
        return ""
    text = "; ".join(said)
    return f" {text[0].upper()}{text[1:]}."


def _who(step: ShapeStep) -> str:
    return f"`{step.module}`" if step.module else step.op


def _made(failure: Failure, x: Tensor) -> str:
    number = getattr(x, "_blitz_step", None)
    shape = shape_text(tuple(x.shape))
    if number is None or number >= len(failure.steps):
        return ""
    if number < 0:
        return f"{shape} is an input"
    step = failure.steps[number]
    return f"{_who(step)} made the {shape}"


def _source(failure: Failure, size: int, dim: Dim) -> str:
    if dim.input is not None:
        number, axis = dim.input
        name = failure.given[number].name if number < len(failure.given) else "x"
        given = failure.given[number].shape if number < len(failure.given) else ()
        changed = axis < len(given) and given[axis] != size
        verb = "comes from" if changed else "is"
        which = "the input" if len(failure.given) == 1 else f"the input {name}"
        return f"{size} {verb} dimension {axis} of {which}"
    if dim.step is not None and dim.step < len(failure.steps):
        step = failure.steps[dim.step]
        return f"{_who(step)} made the {size}"
    if dim.parts:
        return f"{size} is {'*'.join(str(one) for one, _ in dim.parts)}"
    return ""


def page(failure: Failure) -> str:
    """Return which notebook of the series explains this kind of failure."""
    op = failure.step.op
    if "loss" in op or "entropy" in op:
        return "Notebook 6, 06_train, shows what a loss takes."
    if failure.misfit.kind == "dtype":
        return "Notebook 1, 01_define_a_network, shows what a layer takes."
    return "Notebook 2, 02_shape_arithmetic, shows how the sizes follow from each other."


def message(failure: Failure, hint: str) -> str:
    """Return the whole message: what failed, and what to change or where the numbers come from."""
    first = what(failure)
    return f"{first}. {hint}" if hint else f"{first}.{whence(failure)} {page(failure)}"


def hint_of(remedies: Sequence[Any]) -> str:
    """Return what to change, as a sentence."""
    return f"Use {', or '.join(map(str, remedies))}." if remedies else ""
