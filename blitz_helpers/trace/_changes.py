"""The changes that a remedy makes: to an input, to the model, or at one call in its forward."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from blitz_helpers.trace._guard import StateGuard
from blitz_helpers.trace._inputs import is_shape
from blitz_helpers.trace._nests import mapped, tensors_in
from blitz_helpers.trace._operations import QUESTIONS, name_of
from blitz_helpers.trace._transforms import Transform, fresh

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def with_tensor(nest: Any, place: int, change: Callable[[Tensor], Any]) -> Any:
    """Return nested values with one of the distinct tensors in them changed, wherever it occurs."""
    places: dict[int, int] = {}

    def one(tensor: Tensor) -> Any:
        return change(tensor) if places.setdefault(id(tensor), len(places)) == place else tensor

    return mapped(one, nest)


@dataclass(frozen=True)
class InputChange:
    """A transform of one of the distinct tensors in an argument of the model."""

    argument: int | str
    place: int
    transform: Transform
    text: str
    kind = "input"

    def apply_to(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """Return the arguments with the tensor replaced."""
        if isinstance(self.argument, str):
            return args, {**kwargs, self.argument: self._changed(kwargs[self.argument])}
        value = self._changed(args[self.argument])
        return (*args[: self.argument], value, *args[self.argument + 1 :]), kwargs

    def _changed(self, value: Any) -> Any:
        if not is_shape(value):
            return with_tensor(value, self.place, self.transform)
        made = self.transform(torch.empty(value, device="meta"))
        if made.dtype == torch.float32:
            return tuple(made.shape)
        return torch.zeros(made.shape, dtype=made.dtype)


@dataclass(frozen=True)
class ModelChange:
    """New values for attributes of modules, and new shapes or dtypes for parameters and buffers.

    ``settings`` has the path of a module, a name and a value for each attribute. ``tensors`` has
    the full name of each tensor, and its shape, its dtype, or ``None`` if it is removed.
    """

    settings: tuple[tuple[str, str, Any], ...]
    tensors: tuple[tuple[str, tuple[int, ...] | torch.dtype | None], ...]
    text: str
    kind: Literal["layer", "code"] = "layer"

    def apply_to(self, model: nn.Module, data: bool) -> Callable[[], None]:
        """Change the model in place, and return a function that undoes it.

        ``data`` says whether new tensors get values.
        """
        paths = {path for path, _, _ in self.settings}
        paths |= {name.rpartition(".")[0] for name, _ in self.tensors}
        owners = [model.get_submodule(path) for path in paths]
        stores = [s for one in owners for s in (vars(one), one._parameters, one._buffers)]
        before = [dict(store) for store in stores]

        def undo() -> None:
            for store, content in zip(stores, before, strict=True):
                store.clear()
                store.update(content)

        for full, form in self.tensors:
            path, _, name = full.rpartition(".")
            _replace_tensor(model.get_submodule(path), name, form, data)
        for path, name, value in self.settings:
            setattr(model.get_submodule(path), name, value)
        for module in owners:
            flat = getattr(module, "_flat_weights_names", ())  # of a recurrent layer
            if flat:
                vars(module)["_flat_weights"] = [getattr(module, name) for name in flat]
                vars(module)["_flat_weight_refs"] = [None] * len(flat)
        return undo


def _replace_tensor(
    owner: nn.Module, name: str, form: tuple[int, ...] | torch.dtype | None, data: bool
) -> None:
    store: Any = owner._buffers if name in owner._buffers else owner._parameters
    old = store.get(name)
    if form is None:
        store[name] = None
        return
    like = next(owner.parameters()) if old is None else old
    if not data:  # the values are never read, so the memory is never touched
        dtype, shape = (form, like.shape) if isinstance(form, torch.dtype) else (like.dtype, form)
        made = torch.empty(shape, dtype=dtype, device=like.device)
    elif isinstance(form, torch.dtype):
        made = like.detach().to(form)
    else:
        made = fresh(form, like)
        made = torch.ones_like(made) if "var" in name else made
    parameter = old is None or isinstance(old, nn.Parameter)
    store[name] = nn.Parameter(made, requires_grad=False) if parameter else made


@dataclass(frozen=True)
class CodeChange:
    """A transform at one call of a torch function.

    ``number`` counts the calls of the forward pass; the one changed must be of ``op``. ``place``
    says which of the distinct tensors among the arguments is changed. ``"output"`` changes the
    output instead, and ``"call"`` replaces the call by the transform of its first tensor.
    """

    number: int
    op: str
    place: int | Literal["output", "call"]
    transform: Transform
    text: str
    kind = "code"

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the function with the change made.

        Raises:
            ValueError: the call is to another operation than it was when the model failed.
        """
        if name_of(func) != self.op:
            raise ValueError(
                f"Call {self.number} is {name_of(func)}, not {self.op}: run the remedy on the "
                "model and inputs that trace_shapes failed on."
            )
        if self.place == "call":
            return self.transform(tensors_in((*args, *kwargs.values()))[0])
        if self.place == "output":
            return self.transform(func(*args, **kwargs))
        args, kwargs = with_tensor((args, kwargs), self.place, self.transform)
        return func(*args, **kwargs)


Change = InputChange | ModelChange | CodeChange


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
        if func in QUESTIONS:
            return func(*args, **kwargs)
        self.number += 1
        edit = self.edits.get(self.number)
        return func(*args, **kwargs) if edit is None else edit.call(func, args, kwargs)


def changed_inputs(changes: tuple[Change, ...], given: Arguments) -> Arguments:
    """Return the arguments of a model with the changes to its inputs made."""
    for one in changes:
        if isinstance(one, InputChange):
            given = one.apply_to(*given)
    return given


@contextmanager
def changed_model(model: nn.Module, changes: tuple[Change, ...], data: bool) -> Iterator[nn.Module]:
    """Yield a copy of the model with its changes made, or the model itself if there are none.

    The copy shares parameters, and buffers too unless the pass runs for real. A model that cannot
    be copied is changed in place and restored.
    """
    own = [one for one in changes if isinstance(one, ModelChange)]
    with ExitStack() as stack:
        given = model
        if own or data:
            try:
                model = _copied(model, data)
            except Exception:  # parts of a model may raise anything when they are copied
                if data:
                    stack.enter_context(StateGuard(list(model.modules())))
                    stack.enter_context(_buffers_kept(model))
        for one in own:
            undo = one.apply_to(model, data)
            if model is given:
                stack.callback(undo)
        yield model


def _copied(model: nn.Module, data: bool) -> nn.Module:
    copies: dict[int, Any] = {}  # the memo of `copy.deepcopy`, which copies nothing that is in it
    for module in model.modules():
        # An embedding with `max_norm` writes to its weight.
        shares = not data or getattr(module, "max_norm", None) is None
        for tensors, shared in ((module._parameters, shares), (module._buffers, not data)):
            for tensor in tensors.values():
                if tensor is None:
                    continue
                if nn.parameter.is_lazy(tensor):  # the forward pass will give it a shape in place
                    made: Any = type(tensor)
                    copies[id(tensor)] = made(tensor.requires_grad, tensor.device, tensor.dtype)
                elif shared:
                    copies[id(tensor)] = tensor
    return copy.deepcopy(model, copies)


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    kept = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, values in kept:
                buffer.copy_(values)
