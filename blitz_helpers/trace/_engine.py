"""Runs the forward pass under a mode that sees each operation as its caller typed it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from threading import get_ident
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from blitz_helpers._random_states import global_generators
from blitz_helpers._running import follow_modules
from blitz_helpers._threads import WarningIgnored
from blitz_helpers._torch import functorch, no_torch_function
from blitz_helpers.trace._answers import Answers, RealAnswers, WrongDeviceError
from blitz_helpers.trace._callers import called_by_torch, calling_line, line_of
from blitz_helpers.trace._field import guessed, known_origin, origin_of, set_origin
from blitz_helpers.trace._guard import StateGuard
from blitz_helpers.trace._inputs import Inputs, give_past, outliving
from blitz_helpers.trace._modules import prepare, tensors_of, tracing
from blitz_helpers.trace._nests import shape_of, tensors_in
from blitz_helpers.trace._op import Misfit, Op, bind, vmapped
from blitz_helpers.trace._operations import DEVICE, PLAIN_QUESTIONS, QUESTIONS, name_of
from blitz_helpers.trace._records import ShapeError, ShapeStep, ShapeTrace
from blitz_helpers.trace._standins import NoValuesError, is_memory_of, is_strided
from blitz_helpers.trace._survivors import note_made

if TYPE_CHECKING:
    from blitz_helpers.trace._changes import Change, Editing
    from blitz_helpers.trace._failures import Failure

_CHECKPOINTING = WarningIgnored("None of the inputs have requires_grad")  # from checkpointing


class NeedsValues(BaseException):
    """The forward pass asked for a value. Not an `Exception`, so that no model catches it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class FailedError(ShapeError):
    """A forward pass failed on shapes; the remedies are not known yet."""

    failure: Failure


def forward(
    model: nn.Module,
    modules: dict[nn.Module, str],
    inputs: tuple[Any, ...],
    kwargs: dict[str, Any],
    ran_for_real: str | None,
    changes: tuple[Change, ...] = (),
) -> ShapeTrace:
    """Run the forward pass once, with changes to its code.

    It runs for real if ``ran_for_real`` gives a reason.
    """
    given = (*inputs, *kwargs.values(), *(global_generators().values() if ran_for_real else ()))
    outer = tracing.tracer
    with StateGuard(modules, given) as state, _CHECKPOINTING:
        tracer = tracing.tracer = _Tracer(modules, state, ran_for_real)
        try:
            args = [tracer.inputs.taken(place, value) for place, value in enumerate(inputs)]
            named = {name: tracer.inputs.taken(name, value) for name, value in kwargs.items()}
            if changes:
                from blitz_helpers.trace._changes import Editing  # only a failure needs it

                tracer.editing = Editing(changes)
            if ran_for_real:
                tracer.lay_values_aside()
            for module in modules:
                prepare(module)
            with follow_modules(tracer), tracer, tracer.editing or nullcontext():
                output = model(*args, **named)
            return tracer.trace(shape_of(output))
        except ShapeError:
            raise
        except Exception as error:
            if isinstance(error, NoValuesError):  # of an input
                raise NeedsValues(str(error)) from error
            from blitz_helpers.trace._unstrided import made_by_torch_nested

            if not ran_for_real and made_by_torch_nested(error):
                reason = f"a nested tensor asks for values in the model at {line_of(error)}"
                raise NeedsValues(reason) from error
            unseen = isinstance(error, RuntimeError) and tracer.asks_for_values(error)
            if unseen and not ran_for_real:  # by the tracer: it may be in another thread
                raise NeedsValues(f"a value is needed in the model at {line_of(error)}") from error
            tracer.layer_refused(error)
            error.trace = tracer.trace(None)  # type: ignore[attr-defined]  # for whoever catches it
            raise
        finally:
            tracing.tracer = outer


class _Tracer(TorchFunctionMode):
    """Sees the operations of one forward pass, has them answered, and records each as a step."""

    def __init__(
        self, modules: dict[nn.Module, str], state: StateGuard, ran_for_real: str | None
    ) -> None:
        super().__init__()
        self.modules = modules
        self.state = state
        self.ran_for_real = ran_for_real
        self.parameters, buffers = tensors_of(modules)
        own = [*self.parameters, *buffers]
        device = own[0].device if own else torch.device("cpu")
        self.own = set(map(id, own))
        self.unused = set(map(id, self.parameters))
        self.lazy = any(map(nn.parameter.is_lazy, own))
        self.answers = (
            RealAnswers(device, state, ran_for_real) if ran_for_real else Answers(device, state)
        )
        self.inputs = Inputs(self.answers)
        self.steps: list[ShapeStep] = []
        # Each running module with its path, the number of its call, and the steps and finished
        # calls inside it so far, in order.
        self.running: list[tuple[str, int, nn.Module | None, list[Any]]] = [("", 0, None, [])]
        self.calls_of: dict[nn.Module, int] = {}
        self.thread = get_ident()
        self.activation_bytes = 0
        self.number = -1
        self.numbers: list[int] = []
        self.editing: Editing | None = None

    def lay_values_aside(self) -> None:
        """Save the values and gradients of the model's own tensors."""
        parameters, buffers = tensors_of(self.modules)
        for tensor in (*parameters, *buffers):
            if not nn.parameter.is_lazy(tensor):  # that has no values yet
                self.state.protect(tensor)
                if tensor.is_leaf:
                    tensor.grad = None

    # Modules

    @contextmanager
    def initializing(self) -> Iterator[None]:
        """Record no operations, since they only give a lazy module its parameters."""
        self.answers.initializes = True
        try:
            yield
        finally:
            self.answers.initializes = False

    def run_script(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a scripted module as one step."""
        from blitz_helpers.trace._scripts import Counted

        inputs = tensors_in((*args, *kwargs.values()))
        name = type(module).__name__
        with no_torch_function():
            try:
                output = self.answers.run_script(module, args, kwargs)
                # Once more without data: an error inside this mode would have lost its text.
                with Counted() as counted, suppress(RuntimeError):
                    Answers.run_script(self.answers, module, args, kwargs)
            except RuntimeError as error:
                if self.ran_for_real:
                    raise
                if self.asks_for_values(error):
                    raise self.needs_values(name) from error
                raise self.shape_error(name, args, kwargs, inputs, error) from error
        self.record(name, output, None, [*inputs, *module.parameters()], counted.macs)
        return output

    def entered(self, module: nn.Module, _inputs: tuple[Any, ...]) -> None:
        """Begin the record of a module's call."""
        path = self.modules.get(module)
        if path is None or get_ident() != self.thread:
            return
        call = self.calls_of.get(module, 0)
        self.calls_of[module] = call + 1
        self.running.append((path, call, module, []))

    def left(self, module: nn.Module, output: Any) -> None:
        """Complete the record of a module's call."""
        if module not in self.modules or get_ident() != self.thread:
            return
        path, call, _, inside = self.running.pop()
        with no_torch_function():  # it is we who ask for shapes, not the model
            shape = shape_of(output)
        depth = len(self.running) - 1
        self.running[-1][3].append((path, call, type(module).__name__, depth, shape, inside))

    # Operations

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Answer one operation."""
        kwargs = kwargs or {}
        if func in QUESTIONS:
            if func in PLAIN_QUESTIONS:
                return func(*args, **kwargs)
            device = self.answers.device_of(args[0])
            return device if func == DEVICE else device.type == "meta"  # never the same wrapper
        tensors = tensors_in((*args, *kwargs.values()) if kwargs else args)
        if self.lazy and tensors and nn.parameter.is_lazy(tensors[0]):
            return func(*args, **kwargs)
        if functorch.maybe_current_level() is not None:
            for tensor in tensors:
                give_past(tensor)
        self.number = self.number + 1 if self.editing is None else self.editing.number
        name = name_of(func)
        call = bind(func, name, args, kwargs)
        try:
            output = self.answers.answer(func, name, call, args, kwargs, tensors)
        except (RuntimeError, ValueError, IndexError, AssertionError) as error:
            self.refused(func, call, args, kwargs, tensors, error)
            raise
        self.record(name, tensors[0] if name == "setitem" else output, call, tensors)
        return output

    def refused(
        self,
        func: Any,
        call: Op | None,
        args: Any,
        kwargs: dict[str, Any],
        tensors: list[Tensor],
        error: Exception,
    ) -> None:
        """Raise `ShapeError` or `NeedsValues` if that is what an operation's error means."""
        from blitz_helpers.trace._failures import about_shapes

        name = name_of(func)
        if isinstance(error, WrongDeviceError):
            module = self.running[-1][0] or "the model"
            raise WrongDeviceError(f"{name} in {module}: {error}") from None
        if not self.ran_for_real and self.asks_for_values(error):
            raise self.needs_values(name) from error
        without_data = not self.ran_for_real and any(tensor.is_meta for tensor in tensors)
        if isinstance(error, ShapeError) or not about_shapes(error, without_data):
            return
        if call is not None and not isinstance(error, Misfit):
            try:  # our own words say more than torch's
                call.check()
                call.output()
            except Misfit as misfit:
                error = misfit
            except RuntimeError:  # we have no better words
                pass
        raise self.shape_error(name, args, kwargs, tensors, error, func) from error

    @staticmethod
    def asks_for_values(error: Exception) -> bool:
        """Return whether an error says that an operation asks for values that are not there."""
        from blitz_helpers.trace._failures import NEEDS_DATA

        return isinstance(error, NoValuesError) or bool(NEEDS_DATA.search(str(error)))

    def needs_values(self, name: str) -> NeedsValues:
        """Return the error that says which operation asked for a value, and where."""
        path = self.running[-1][0]
        where = f"module {path!r}" if path else "the model"
        return NeedsValues(f"{name} asks for a value in {where} at {calling_line()}")

    def layer_refused(self, error: Exception) -> None:
        """Raise a `ShapeError` if a layer refused its input before it called an operation."""
        from blitz_helpers.trace._failures import layer_error  # only a failure needs it

        failed = layer_error(error)
        if failed:
            layer, args, tensors = failed
            call = max(self.calls_of.get(layer, 1) - 1, 0)
            self.running.append((self.modules.get(layer, ""), call, layer, []))  # it had ended
            name = type(layer).__name__
            raise self.shape_error(name, args, {}, tensors, error) from error

    # Records

    def record(
        self, name: str, output: Any, call: Op | None, tensors: list[Tensor], macs: int = 0
    ) -> None:
        """Record the step, and the origin of each tensor that it made."""
        made = [output] if isinstance(output, Tensor) else tensors_in((output,))
        if not made:
            return
        if self.ran_for_real and not all(map(is_strided, (*made, *tensors))):
            from blitz_helpers.trace._unstrided import UnstridedOp

            call = UnstridedOp(call)
        first = made[0]
        number = len(self.steps)
        is_step = not (
            self.answers.initializes or id(first) in self.own or (not tensors and called_by_torch())
        )
        params, nbytes = 0, 0
        shapes, sources = [], []
        for tensor in tensors:
            key = id(tensor)
            if key not in self.own:
                if known_origin(tensor) is not None:
                    shapes.append(shape_of(tensor))
                    sources.append(getattr(tensor, "_blitz_step", -1))
            elif is_step and key in self.unused:
                self.unused.remove(key)
                params += tensor.numel()
        went_in = set(map(id, tensors))
        for tensor in made:
            size = tensor.numel() * tensor.itemsize
            nbytes += size
            if id(tensor) not in went_in:
                note_made(tensor)
                base = tensor._base
                if is_step and (base is None or not is_memory_of(base, tensors)):
                    self.activation_bytes += size
            elif known_origin(tensor) is None:
                continue  # a tensor of the model or of the user
            origin = None if call is None else call.origin(tensor, number)
            if origin is None:
                origin = guessed(tensors, tensor, number) if tensors else origin_of(tensor)
            set_origin(tensor, origin)
            if is_step:
                tensor._blitz_step = number  # type: ignore[attr-defined]  # beside its origin
        if not is_step:
            return
        sums, macs = ((), macs) if call is None else (call.sums(first), call.macs(first))
        if macs and (samples := vmapped()):
            macs *= samples
        path, turn, _, inside = self.running[-1]
        step = ShapeStep(
            path, turn, name, tuple(shapes), shape_of(output), sums, params, macs,
            origin_of(first).receptive_field, tuple(sources), first.dtype, nbytes, calling_line(),
        )  # fmt: skip
        self.steps.append(step)
        self.numbers.append(self.number)
        inside.append(step)

    def trace(self, output_shape: Any) -> ShapeTrace:
        """Return the trace recorded so far."""
        parameters = self.parameters
        if self.lazy:
            parameters = [t for t in tensors_of(self.modules)[0] if not nn.parameter.is_lazy(t)]
        sizes = [parameter.numel() for parameter in parameters]
        return ShapeTrace(
            self.steps,
            [record for *_, inside in self.running for record in inside],
            output_shape,
            sum(sizes),
            sum([size for size, one in zip(sizes, parameters, strict=True) if one.requires_grad]),
            self.activation_bytes,
            self.ran_for_real,
        )

    def shape_error(
        self,
        name: str,
        args: Any,
        kwargs: dict[str, Any],
        tensors: list[Tensor],
        error: Exception,
        func: Any = None,
    ) -> FailedError:
        """Return the error that says which step failed, and why.

        ``func`` is the function that was called, or ``None`` if a layer refused before.
        """
        from blitz_helpers.trace._failures import Failure, Given, misfit_of

        path, call, module, _ = self.running[-1]
        ours = [t for t in tensors if known_origin(t) is not None and id(t) not in self.own]
        shapes = tuple([tuple(tensor.shape) for tensor in ours])
        sources = tuple([getattr(tensor, "_blitz_step", -1) for tensor in ours])
        step = ShapeStep(
            path, call, name, shapes, None, (), 0, 0, None, sources, None, 0, calling_line()
        )
        misfit = misfit_of(error, step, module, tensors)
        if functorch.maybe_current_level() is not None:
            args, kwargs = outliving(misfit, (args, kwargs))
        names = self.inputs.names(next(iter(self.modules)))
        given = [
            Given(argument, names[argument], shape, dtype)
            for argument, shape, dtype in self.inputs.tensors
        ]
        sealed = isinstance(module, torch.jit.ScriptModule) or "." in name
        found = FailedError(str(misfit), self.trace(None), step, (), "")
        found.failure = Failure(
            misfit, step, self.number, func, next(iter(self.modules)), module, tuple(args), kwargs,
            given, self.steps, self.numbers, sealed,
        )  # fmt: skip
        return found
