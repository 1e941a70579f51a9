"""What an operation is to the trace: one class a family, and the errors with which it refuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from blitz_helpers._torch import functorch
from blitz_helpers.trace._field import Origin

Kind = Literal[
    "size",
    "rank",
    "window",
    "numbers",
    "unequal",
    "dtype",
    "table",
    "average",
    "batch",
    "guard",
    "other",
]


class Misfit(RuntimeError):  # noqa: N818  # it is caught as data, and users never see it
    """Sizes, dimensions or dtypes that torch refuses, as data.

    Attributes:
        kind: ``"size"``: a dimension is not the one size that fits. ``"rank"``: the tensor has too
            many or too few dimensions. ``"window"``: a side is too small. ``"numbers"``: a view
            holds another count of numbers. ``"unequal"``: tensors that meet differ. ``"dtype"``.
            ``"table"``: an index is past the end. ``"average"``: one value alone is normalised.
            ``"batch"``: the batches of two tensors differ. ``"guard"``: an exported program is for
            another size. ``"other"``: none of these.
        tensor: the operand that does not fit.
        dim: which of its dimensions does not, from 0.
        got: what there is: a size, a count of dimensions, a dtype.
        wants: what would fit: the same, or a tuple of the numbers of dimensions that are allowed.
        noun: what is counted, ``"features"`` for one.
        others: the operands that it was held against.
        channels: how many channels are wanted, where the number of dimensions is wrong.
    """

    def __init__(
        self,
        kind: Kind,
        text: str,
        tensor: Tensor | None = None,
        dim: int | None = None,
        got: Any = None,
        wants: Any = None,
        noun: str = "",
        others: Sequence[Tensor] = (),
        channels: int | None = None,
    ) -> None:
        super().__init__(text)
        self.kind = kind
        self.tensor = tensor
        self.dim = dim if dim is None or tensor is None or dim >= 0 else dim + tensor.dim()
        self.got = got
        self.wants = wants
        self.noun = noun
        self.others = tuple(others)
        self.channels = channels

    def forget(self) -> None:
        """Let go of the tensors, so that the error keeps none alive."""
        self.tensor, self.others = None, ()

    def __reduce__(self) -> tuple[Any, ...]:
        return RuntimeError, self.args  # without the tensors


class Op:
    """One call of an operation. Subclasses take the arguments that torch takes.

    Each method has a default for operations of which there is nothing to say.
    """

    def output(self) -> Any:
        """Return the output without data; ``NotImplemented``: torch's own kernel knows better.

        Raises:
            Misfit: torch refuses these shapes or dtypes.
        """
        return NotImplemented

    def check(self) -> None:
        """Refuse what torch's own kernel for tensors without data lets through."""

    def sums(self, output: Tensor) -> tuple[str, ...]:
        """Return the written-out sums, one for each dimension that is computed."""
        return ()

    def macs(self, output: Tensor) -> int:
        """Return the multiply-accumulates."""
        return 0

    def origin(self, output: Tensor, step: int) -> Origin | None:
        """Return where the output's dimensions come from; ``None``: not known.

        ``step`` is the number of this step, for the dimensions that it makes.
        """
        return None


OPS: dict[Any, type[Op]] = {}
BY_NAME: dict[str, type[Op]] = {}
EVERYWHERE: tuple[Any, ...] = (torch, Tensor, F)


def op(names: str, *namespaces: Any) -> Callable[[type[Op]], type[Op]]:
    """Let the decorated class stand for the functions of these names, wherever torch keeps them."""

    def decorate(kind: type[Op]) -> type[Op]:
        for name in names.split():
            for namespace in namespaces or EVERYWHERE:
                function = getattr(namespace, name, None)
                if function is not None:
                    OPS[function] = kind
            BY_NAME.setdefault(name.strip("_") if name.startswith("__") else name, kind)
        return kind

    return decorate


def bind(func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Op | None:
    """Return the call of an operation, or ``None`` where nothing is known of it."""
    kind = OPS.get(func)
    if kind is None:
        if func in OPS:
            return None
        kind = _by_name(func, name)
        if kind is None:
            return None
    try:
        return kind(*args, **kwargs)
    except TypeError:  # spelled in another way, or wrongly: torch's own kernel knows
        return None


def _by_name(func: Any, name: str) -> type[Op] | None:
    """Return the class of a function that torch keeps elsewhere: in place, or in a program."""
    namespace = getattr(func, "namespace", "aten")
    base = name.partition(".")[0]
    kind = BY_NAME.get(base) or BY_NAME.get(base.removesuffix("_"))
    return kind if namespace == "aten" else None


def vmapped() -> int:
    """Return over how many samples `vmap` runs this operation; 0 outside of it."""
    if functorch.maybe_current_level() is None:
        return 0
    count = 1
    for interpreter in functorch.get_interpreter_stack() or ():
        if interpreter.key() == functorch.TransformType.Vmap:
            count *= functorch.CVmapInterpreterPtr(interpreter).batchSize()
    return count
