"""The base class of operations, their registry, and the error of arguments that do not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from blitz_helpers._torch import functorch
from blitz_helpers.trace._field import Origin

if TYPE_CHECKING:
    from typing import Literal, TypeVar

    Kind = Literal[
        "size", "rank", "window", "numbers", "unequal", "dtype", "table", "average", "batch",
        "guard", "other",
    ]  # fmt: skip
    Known = tuple[Callable[..., "Op"], dict[str, Any]]
    Family = TypeVar("Family", bound=Callable[..., "Op"])


class Misfit(RuntimeError):  # noqa: N818  # it is caught as data, and users never see it
    """Sizes, dimensions or dtypes that torch refuses, as data.

    Attributes:
        kind: what does not fit. ``"size"``: a dimension. ``"rank"``: the number of dimensions.
            ``"window"``: a side is too small. ``"numbers"``: a view holds another count of numbers.
            ``"unequal"``: operands differ in size. ``"table"``: an index is out of range.
            ``"average"``: a single value is normalised. ``"batch"``: the batches of two operands
            differ. ``"guard"``: an exported program is for another size. ``"dtype"``: a dtype.
            ``"other"``: anything else, for which only common slips are tried as remedies.
        tensor: the operand that does not fit.
        dim: which of its dimensions does not, from 0.
        got: the size, number of dimensions or dtype that it has.
        wants: what would fit, as in ``got``, or a tuple of the allowed numbers of dimensions.
        noun: what is counted, such as ``"features"`` or ``"channels"``. The search for remedies
            goes by the kind and the noun.
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
    class attribute is the default value. The methods below have defaults that say nothing is known.
    """

    _fields: tuple[str, ...] = ()
    _slow_calls: Iterator[int]  # how many more go through the plain `__init__`
    func: Any = None  # the function that was called
    name = ""  # as its caller typed it

    def __init_subclass__(cls) -> None:
        notes = cls.__annotations__.items()
        names = [name for name, note in notes if not note.startswith("ClassVar")]
        if names or not cls._fields:
            own: Any = cls
            own._fields, own.__init__, own._slow_calls = tuple(names), Op.__init__, iter(range(50))

    def __init__(self, /, *args: Any, **kwargs: Any) -> None:
        if next(self._slow_calls, None) is None:
            return self._compiled_init()(self, *args, **kwargs)  # type: ignore[no-any-return]  # it gives `None`
        for name, value in zip(self._fields, args):  # noqa: B905  # there may be less or more
            setattr(self, name, value)
        given = len(args)
        for name in self._fields[given:]:
            if name in kwargs:
                setattr(self, name, kwargs.pop(name))
            elif not hasattr(self, name):
                raise TypeError(f"{name} is missing")
        self._take_more(args[len(self._fields) :], kwargs)

    @classmethod
    def _compiled_init(cls) -> Any:
        """Give the class an ``__init__`` like that of a dataclass.

        It is several times as fast, but compiling it takes as long as about 50 calls save.
        """
        owner: Any = next(kind for kind in cls.__mro__ if "_fields" in vars(kind))
        more = ["args", "kwargs"] if issubclass(owner, OpenOp) else []
        takes = [f"{name}=owner.{name}" if hasattr(owner, name) else name for name in owner._fields]
        takes += ["*args", "**kwargs"] if more else []
        keeps = [f"self.{name} = {name}" for name in (*owner._fields, *more)]
        names: dict[str, Any] = {"owner": owner}
        exec(f"def __init__(self, {', '.join(takes)}):\n  {'; '.join(keeps)}", names)
        owner.__init__ = names["__init__"]
        return owner.__init__

    def _take_more(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Take the arguments that are no fields."""
        if args or kwargs:
            raise TypeError(f"{args} and {kwargs} are too much")

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


class OpenOp(Op):
    """An operation with arguments beyond its fields, which are in ``args`` and ``kwargs``."""

    args: ClassVar[tuple[Any, ...]]
    kwargs: ClassVar[dict[str, Any]]
    input: Any

    def _take_more(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args, self.kwargs = args, kwargs  # type: ignore[misc]  # `ClassVar`: not fields


# Other names that torch takes for an argument, most of them numpy's.
ALIASES = {
    **{"axis": "dim", "keepdims": "keepdim", "x": "input", "x1": "input", "x2": "other"},
    **{"mat2": "other", "vec": "other", "vec2": "other", "tensor": "other", "self": "input"},
}
_RENAMED = {*ALIASES, "out"}
# By the name of a function, its class and the attributes that calls have beside their fields.
OPS: dict[str, Known] = {}
# The files of `ops`, the most used first. Each is loaded when none before it knows a name.
FAMILIES = (
    *("windows", "pools", "pointwise", "views", "products", "norms", "masks", "adaptive_pools"),
    *("dimensions", "indexing", "joins", "lookups", "attention", "resizing", "contractions"),
    *("recurrent", "transposed"),
)


def op(names: str, **settings: Any) -> Callable[[Family], Family]:
    """Let the decorated class stand for torch's functions of these names.

    With ``settings``, calls of these functions have them as attributes.
    """

    def decorate(family: Family) -> Family:
        OPS.update(dict.fromkeys(names.split(), (family, settings)))
        return family

    return decorate


def bind(func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Op | None:
    """Return the call as an instance of its class, or ``None`` if the operation has none."""
    known = OPS.get(name)
    if known is None and getattr(func, "namespace", "aten") == "aten":
        known = _known_as(name)
    if known is None:
        return None
    kind, settings = known
    if not _RENAMED.isdisjoint(kwargs):
        own = getattr(kind, "_fields", ())
        names = {key: key if key in own else ALIASES.get(key, key) for key in kwargs}
        kwargs = {names[key]: value for key, value in kwargs.items() if key != "out"}
    try:
        call = kind(*args, **kwargs)
    except TypeError:  # spelled in another way, or wrong: torch's own kernel will tell
        return None
    call.func, call.name = func, name
    for key, value in settings.items():
        setattr(call, key, value)
    return call


@lru_cache(maxsize=1024)
def _known_as(name: str) -> Known | None:
    """Return the class of a name whose family is not loaded yet, or that is spelled otherwise.

    Operations in place, in an exported program and in another namespace have such names.
    """
    base = name.partition(".")[0].removeprefix("linalg_").removeprefix("special_")
    for family in FAMILIES:
        import_module(f"{__package__}.ops.{family}")
        for known in (name, base, base.removesuffix("_")):
            if known in OPS:
                return OPS[known]
    return None


def vmapped() -> int:
    """Return the number of samples over which `vmap` runs this operation, 0 outside `vmap`."""
    if functorch.maybe_current_level() is None:
        return 0
    count = 1
    for interpreter in functorch.get_interpreter_stack() or ():
        if interpreter.key() == functorch.TransformType.Vmap:
            count *= functorch.CVmapInterpreterPtr(interpreter).batchSize()
    return count
