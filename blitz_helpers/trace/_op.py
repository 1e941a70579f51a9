"""The base class of operations, their registry, and the error of arguments that do not fit."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from blitz_helpers._torch import functorch
from blitz_helpers.trace._field import Origin

# fmt: off
Kind = Literal[
    "size", "rank", "window", "numbers", "unequal", "dtype", "table", "average", "batch", "guard",
    "other",
]
# fmt: on


class Misfit(RuntimeError):  # noqa: N818  # it is caught as data, and users never see it
    """Sizes, dimensions or dtypes that torch refuses, as data.

    Attributes:
        kind: what does not fit. ``"size"``: a dimension. ``"rank"``: the number of dimensions.
            ``"window"``: a side is too small. ``"numbers"``: a view holds another count of numbers.
            ``"unequal"``: operands differ in size. ``"table"``: an index is out of range.
            ``"average"``: a single value is normalised. ``"batch"``: the batches of two operands
            differ. ``"guard"``: an exported program is for another size.
        tensor: the operand that does not fit.
        dim: which of its dimensions does not, from 0.
        got: the size, number of dimensions or dtype that it has.
        wants: what would fit, as in ``got``, or a tuple of the allowed numbers of dimensions.
        noun: what is counted, such as ``"features"``.
        others: the operands that it does not fit.
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
        """Drop the tensors, so that the error keeps none of them alive."""
        self.tensor, self.others = None, ()

    def __reduce__(self) -> tuple[Any, ...]:
        return RuntimeError, self.args  # without the tensors


class Op:
    """One call of an operation. A subclass declares torch's signature as fields, in torch's order.

    The fields are the names that the class annotates, or those of its base if it annotates none. A
    class attribute is the default value. Further arguments are in ``args`` and ``kwargs`` if the
    class annotates these as well. The methods below have defaults that say nothing is known.
    """

    _fields: tuple[str, ...] = ()
    _required: frozenset[str] = frozenset()
    _takes_more = False
    func: Any = None  # the function that was called

    def __init_subclass__(cls) -> None:
        notes = inspect.get_annotations(cls)
        names = [name for name, note in notes.items() if not note.startswith("ClassVar")]
        if names:
            cls._takes_more = "args" in names
            cls._fields = tuple([name for name in names if name not in ("args", "kwargs")])
            cls._required = frozenset([name for name in cls._fields if not hasattr(cls, name)])

    def __init__(self, /, *args: Any, **kwargs: Any) -> None:
        fields = self._fields
        values = dict(zip(fields, args, strict=False))
        more: dict[str, Any] = {}
        for name, value in kwargs.items():
            field = name if name in fields else ALIASES.get(name, name)
            if field in values:
                raise TypeError(f"{name} is given twice")
            (values if field in fields else more)[field] = value
        rest = args[len(fields) :]
        if ((rest or more) and not self._takes_more) or not self._required <= values.keys():
            raise TypeError(f"the arguments must be {', '.join(fields)}")
        self.__dict__ = values
        if self._takes_more:
            values["args"], values["kwargs"] = rest, more

    def output(self) -> Any:
        """Return the output without data, or ``NotImplemented`` to leave it to torch's own kernel.

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
        """Return where the output's dimensions come from, or ``None`` if that is not known.

        ``step`` is the number of this step, for the dimensions that it makes.
        """
        return None


# Other names that torch takes for an argument, most of them numpy's.
ALIASES = {
    **{"axis": "dim", "keepdims": "keepdim", "x": "input", "x1": "input", "x2": "other"},
    **{"mat2": "other", "vec": "other", "vec2": "other", "tensor": "other", "self": "input"},
}
Family = TypeVar("Family", bound=Callable[..., Op])
OPS: dict[Any, Callable[..., Op]] = {}
BY_NAME: dict[str, Callable[..., Op]] = {}
EVERYWHERE: tuple[Any, ...] = (torch, Tensor, F, torch.linalg, torch.special)


def op(names: str, *namespaces: Any, **settings: Any) -> Callable[[Family], Family]:
    """Let the decorated class stand for the functions of these names, by default everywhere.

    With ``settings``, a subclass that has them as class attributes stands for these functions.
    """

    def decorate(family: Family) -> Family:
        kind: Any = type(family.__name__, (family,), settings) if settings else family  # type: ignore[arg-type]  # only classes have settings
        for name in names.split():
            for namespace in namespaces or EVERYWHERE:
                function = getattr(namespace, name, None)
                if callable(function):
                    OPS[function] = kind
            BY_NAME.setdefault(name.strip("_") if name.startswith("__") else name, kind)
        return family

    return decorate


def bind(func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Op | None:
    """Return the call as an instance of its class, or ``None`` if the operation has none.

    If ``func`` is ``None``, the class is found by the name.
    """
    base = name.partition(".")[0]  # of "add.Tensor", as exported programs spell it
    kind = OPS.get(func)
    if kind is None and getattr(func, "namespace", "aten") == "aten":
        kind = BY_NAME.get(base) or BY_NAME.get(base.removesuffix("_"))
    if kind is None:
        return None
    if "out" in kwargs:
        kwargs = {name: value for name, value in kwargs.items() if name != "out"}
    try:
        call = kind(*args, **kwargs)
    except TypeError:  # spelled in another way, or wrongly: torch's own kernel knows
        return None
    call.func = func or next(filter(None, _found(base, f"__{base}__")), None)
    return call


def _found(*names: str) -> Iterator[Any]:
    """Yield the functions of these names."""
    return (getattr(place, name, None) for name in names for place in EVERYWHERE)


def vmapped() -> int:
    """Return the number of samples over which `vmap` runs this operation, 0 outside `vmap`."""
    if functorch.maybe_current_level() is None:
        return 0
    count = 1
    for interpreter in functorch.get_interpreter_stack() or ():
        if interpreter.key() == functorch.TransformType.Vmap:
            count *= functorch.CVmapInterpreterPtr(interpreter).batchSize()
    return count
