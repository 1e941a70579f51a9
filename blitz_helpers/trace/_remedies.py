"""Changes that make a failing forward pass go through, and how they are made without a trace."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from blitz_helpers.trace._guard import global_state_kept
from blitz_helpers.trace._operations import DEVICE, IS_META, PLAIN_QUESTIONS, name_of
from blitz_helpers.trace._transforms import Transform, fresh

_SEED = 0
Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Undo = Callable[[], None]


def is_shape(value: Any) -> bool:
    """Return whether an argument is a tuple of sizes, which stands for a float32 tensor."""
    return isinstance(value, tuple) and bool(value) and all(isinstance(one, int) for one in value)


@dataclass(frozen=True)
class InputChange:
    """An argument replaced by what a transform makes of it."""

    argument: int | str
    transform: Transform
    text: str
    kind = "input"

    def apply_to(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """Return the arguments with this one replaced."""
        return _replaced(args, kwargs, self.argument, self._changed)

    def _changed(self, value: Any) -> Any:
        if not is_shape(value):
            return self.transform(value)
        made = self.transform(torch.empty(value, device="meta"))
        if made.dtype == torch.float32:
            return tuple(made.shape)
        return torch.zeros(made.shape, dtype=made.dtype)


@dataclass(frozen=True)
class Resize:
    """An argument replaced by one of other sizes along some of its axes."""

    argument: int | str
    sizes: tuple[tuple[int, int], ...]
    text: str
    kind = "input"

    def apply_to(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """Return the arguments with this one replaced."""
        return _replaced(args, kwargs, self.argument, self._changed)

    def _changed(self, value: Any) -> Any:
        shape = list(value if is_shape(value) else value.shape)
        for axis, size in self.sizes:
            shape[axis] = size
        return tuple(shape) if is_shape(value) else resized(value, tuple(shape))


def resized(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a tensor of another shape: the old values, and new ones of their kind beside them."""
    cut = tensor[tuple(slice(size) for size in shape)]
    if tuple(cut.shape) == shape:
        return cut
    if tensor.is_meta:
        return torch.empty(shape, dtype=tensor.dtype, device=tensor.device)
    generator = torch.Generator().manual_seed(_SEED)
    if tensor.is_floating_point() or tensor.is_complex():
        made = torch.randn(shape, generator=generator).to(tensor.device, tensor.dtype)
    elif tensor.numel():
        low, high = int(tensor.min()), int(tensor.max())
        made = torch.randint(low, high + 1, shape, generator=generator)
        made = made.to(tensor.device, tensor.dtype)
    else:
        made = torch.zeros(shape, dtype=tensor.dtype, device=tensor.device)
    made[tuple(slice(size) for size in cut.shape)] = cut
    return made


def _replaced(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    argument: int | str,
    change: Callable[[Any], Any],
) -> Arguments:
    if isinstance(argument, str):
        return args, {**kwargs, argument: change(kwargs[argument])}
    return (*args[:argument], change(args[argument]), *args[argument + 1 :]), kwargs


@dataclass(frozen=True)
class LayerChange:
    """Attributes of one module set anew, and parameters and buffers of new shapes in it."""

    path: str
    settings: tuple[tuple[str, Any], ...]
    shapes: tuple[tuple[str, tuple[int, ...] | None], ...]
    text: str
    kind = "layer"

    def apply_to(self, model: nn.Module, data: bool) -> Undo:
        """Change the model in place, the new weights with or without data; return the undoing."""
        module = model.get_submodule(self.path)
        owners = {name: module.get_submodule(name.rpartition(".")[0]) for name, _ in self.shapes}
        stores: list[dict[str, Any]] = [module.__dict__]
        for owner in {module, *owners.values()}:
            stores += [owner._parameters, owner._buffers]
        before = [dict(store) for store in stores]

        def undo() -> None:
            for store, content in zip(stores, before, strict=True):
                store.clear()
                store.update(content)

        for full, shape in self.shapes:
            owner, name = owners[full], full.rpartition(".")[2]
            store: dict[str, Any] = (
                owner._parameters if name in owner._parameters else owner._buffers
            )
            old = store[name]
            if shape is None:
                store[name] = None
                continue
            new = old is None
            old = next(module.parameters()) if old is None else old
            if not data:  # nobody reads the values, so that the memory is never touched
                made = torch.empty(shape, dtype=old.dtype, device=old.device)
            else:
                made = fresh(shape, old)
            if data and "var" in name:
                made = torch.ones_like(made)
            keep = new or isinstance(old, nn.Parameter)
            store[name] = nn.Parameter(made, requires_grad=False) if keep else made
        for name, value in self.settings:
            setattr(module, name, value)
        flat = getattr(module, "_flat_weights_names", None)
        if flat is not None:
            module.__dict__["_flat_weights"] = [getattr(module, name) for name in flat]
        return undo


@dataclass(frozen=True)
class Conversion:
    """The parameters and buffers of one module in another dtype."""

    path: str
    dtype: torch.dtype
    text: str
    kind = "layer"

    def apply_to(self, model: nn.Module, data: bool) -> Undo:
        """Convert copies of its tensors, and return the undoing."""
        module = model.get_submodule(self.path)
        undone: list[tuple[dict[str, Any], dict[str, Any]]] = []
        for inner in module.modules():
            both: list[dict[str, Any]] = [inner._parameters, inner._buffers]
            for store in both:
                undone.append((store, dict(store)))
                for name, old in store.items():
                    if old is not None and old.is_floating_point():
                        made = old.detach().to(self.dtype)
                        keep = isinstance(old, nn.Parameter)
                        store[name] = nn.Parameter(made, requires_grad=False) if keep else made

        def undo() -> None:
            for store, content in undone:
                store.update(content)

        return undo


@dataclass(frozen=True)
class EvalMode:
    """The whole model in eval mode."""

    text: str = "model.eval()"
    kind = "code"

    def apply_to(self, model: nn.Module, data: bool) -> Undo:
        """Switch every module, and return the undoing."""
        flags = [(module, module.training) for module in model.modules()]
        for module, _ in flags:
            module.training = False

        def undo() -> None:
            for module, training in flags:
                module.training = training

        return undo


Slot = tuple[int | str, ...]


@dataclass(frozen=True)
class CodeChange:
    """A transform at one call of a torch function: of an argument, of the output, or instead of it.

    ``number`` counts the calls of the forward pass, ``op`` is what has to stand there. ``slot`` is
    the place of the argument; ``("output",)`` is the output, and ``("call",)`` replaces the call by
    the transform of its first argument.
    """

    number: int
    op: str
    slot: Slot
    transform: Transform
    text: str
    kind = "code"

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the function with the change made.

        Raises:
            ValueError: another operation stands here than in the model that failed.
        """
        if name_of(func) != self.op:
            raise ValueError(
                f"Call {self.number} is {name_of(func)}, not {self.op}: run the remedy on the "
                "model and inputs that trace_shapes failed on."
            )
        if self.slot == ("output",):
            return self.transform(func(*args, **kwargs))
        if self.slot == ("call",):
            first = args[0] if args else next(iter(kwargs.values()))
            return self.transform(first)
        args, kwargs = _at_slot(args, kwargs, self.slot, self.transform)
        return func(*args, **kwargs)


def _at_slot(
    args: tuple[Any, ...], kwargs: dict[str, Any], slot: Slot, change: Callable[[Any], Any]
) -> Arguments:
    place, *inner = slot

    def inside(value: Any) -> Any:
        if not inner:
            return change(value)
        items = list(value)
        items[inner[0]] = change(items[inner[0]])  # type: ignore[index]  # a place in a list
        return items

    return _replaced(args, kwargs, place, inside)


Change = InputChange | Resize | LayerChange | Conversion | EvalMode | CodeChange


class Editing(TorchFunctionMode):
    """Counts the calls of torch functions, and makes the code changes where they belong."""

    def __init__(self, changes: tuple[Change, ...]) -> None:
        super().__init__()
        self.edits = {one.number: one for one in changes if isinstance(one, CodeChange)}
        self.number = -1

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call the function, changed or as it is."""
        kwargs = kwargs or {}
        if not is_counted(func):
            return func(*args, **kwargs)
        self.number += 1
        edit = self.edits.get(self.number)
        return func(*args, **kwargs) if edit is None else edit.call(func, args, kwargs)


def is_counted(func: Any) -> bool:
    """Return whether a torch function is one of the calls that are counted."""
    return func not in PLAIN_QUESTIONS and func != DEVICE and func != IS_META


@contextmanager
def changed(model: nn.Module, changes: tuple[Change, ...], data: bool) -> Iterator[nn.Module]:
    """Give a copy of the model with the changes to its layers, or the model itself without any.

    The copy shares parameters, and buffers as long as nothing runs for real. A model that cannot be
    copied is changed in place, and put back.
    """
    own = [one for one in changes if isinstance(one, LayerChange | Conversion | EvalMode)]
    with ExitStack() as stack:
        if own or data:
            try:
                model = _copied(model, data)
            except Exception:  # whatever a model's parts raise when they are copied
                own_state = stack.enter_context(_buffers_kept(model)) if data else None
                del own_state
        for one in own:
            stack.callback(one.apply_to(model, data))
        yield model


def _copied(model: nn.Module, data: bool) -> nn.Module:
    shared: dict[int, Any] = {}
    for module in model.modules():
        rewritten = data and getattr(module, "max_norm", None) is not None
        for tensor in module._parameters.values():
            if tensor is not None and not rewritten:
                shared[id(tensor)] = tensor
        for buffer in () if data else module._buffers.values():
            if buffer is not None:
                shared[id(buffer)] = buffer
    return copy.deepcopy(model, shared)


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    kept = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, values in kept:
                buffer.copy_(values)


@dataclass(frozen=True, repr=False)
class Remedy:
    """One or two changes that were tried and make the forward pass go through.

    >>> import torch
    >>> from blitz_helpers import ShapeError, trace_shapes
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 2))
    >>> try:
    ...     trace_shapes(model, (1, 1, 4, 4))
    ... except ShapeError as error:
    ...     print(error.remedies[0], tuple(error.remedies[0].run(model, (1, 1, 4, 4)).shape))
    in_features=16 (1, 2)
    """

    changes: tuple[Change, ...]
    text: str

    @property
    def kind(self) -> Literal["input", "layer", "code"]:
        """What is changed first: an input, a layer, or the code of a forward."""
        return self.changes[0].kind  # type: ignore[return-value]  # one of the three

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Remedy({self.text!r})"

    def run(self, model: nn.Module, /, *inputs: Any, **kwargs: Any) -> Any:
        """Return the output of the real forward pass with the changes made.

        It takes what `trace_shapes` took, and leaves everything that it was given as it is: the
        changes are made on a copy. New weights and inputs come from a fixed seed.

        Raises:
            ValueError: another operation stands where the code is to be changed.
        """
        args = inputs
        for change in self.changes:
            if isinstance(change, InputChange | Resize):
                args, kwargs = change.apply_to(args, kwargs)
        tensor = next((t for t in (*model.parameters(), *model.buffers())), None)
        device = torch.device("cpu") if tensor is None else tensor.device
        generator = torch.Generator().manual_seed(_SEED)
        real = [
            torch.randn(value, generator=generator).to(device) if is_shape(value) else _own(value)
            for value in args
        ]
        named = {name: _own(value) for name, value in kwargs.items()}
        editing: Any = Editing(self.changes)
        with global_state_kept(), changed(model, self.changes, data=True) as copied, editing:
            return copied(*real, **named)


def _own(value: Any) -> Any:
    """Return a copy of an input, so that nobody writes into what was given."""
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    try:
        return copy.deepcopy(value)
    except Exception:  # what cannot be copied is handed on
        return value
