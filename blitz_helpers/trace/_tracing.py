"""The public function, which traces a forward pass and explains a failure."""

from __future__ import annotations

import inspect
import warnings
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from blitz_helpers.trace._modules import device_of, paths_of
from blitz_helpers.trace._records import ShapeError, ShapeTrace
from blitz_helpers.trace._survivors import SurvivorsDisarmed

if TYPE_CHECKING:
    from blitz_helpers.trace._changes import Arguments, Change
    from blitz_helpers.trace._failures import Failure

from blitz_helpers._threads import WarningIgnored
from blitz_helpers.trace._engine import FailedError, NeedsValues, forward

_TRIED = WarningIgnored("")  # hides every warning while a change is only tried


def trace_shapes(model: nn.Module, /, *inputs: Any, **kwargs: Any) -> ShapeTrace:
    """Return what one forward pass of ``model`` does to shapes, step by step.

    Nothing is computed: the pass runs on tensors without data, and the model, the random state and
    torch's global state are restored afterwards. Only if the model asks for a value (as in
    ``if x.sum() > 0``) does the pass run for real; ``ran_for_real`` then says what asked.

    Args:
        model: any module, on any device, ``meta`` included.
        *inputs: the model's inputs. A tuple of integers stands for a float32 tensor of that shape.
        **kwargs: its keyword inputs, passed on as they are.

    Raises:
        ShapeError: the forward pass fails on shapes. It says where, why, and what to change.
        TypeError: ``model`` is not an ``nn.Module``.
        ValueError: no input is given, a shape is not of whole numbers from 1, an input is on
            another device than the model, or a model on ``meta`` needs a value.

    An error of the model's own comes through unchanged, with the trace so far as its ``.trace``.

    >>> trace = trace_shapes(nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU()), (1, 1, 32, 32))
    >>> trace.path(), trace.output_shape
    ('input -> conv2d -> relu', (1, 6, 30, 30))
    >>> trace[0].arithmetic[0]
    '(32 - 3 + 2*0)/1 + 1 = 30'
    """
    _check_model(model, inputs, kwargs)
    with SurvivorsDisarmed() as survivors:
        try:
            trace = _passed(model, inputs, kwargs)
        except FailedError as failed:
            raise _explained(failed, model, inputs, kwargs) from failed.__cause__
    if survivors.holders:
        holders = "; ".join(survivors.holders)
        warnings.warn(
            f"After the trace, tensors without data are still held by {holders}. "
            "They raise an error where they are used: remove them before the model runs.",
            stacklevel=2,
        )
    return trace


def _passed(
    model: nn.Module,
    inputs: tuple[Any, ...],
    kwargs: dict[str, Any],
    ran_for_real: str | None = None,
    changes: tuple[Change, ...] = (),
) -> ShapeTrace:
    """Return the trace of a forward pass, which runs for real only if it must."""
    modules = paths_of(model)
    try:
        return forward(model, modules, inputs, kwargs, ran_for_real, changes)
    except NeedsValues as need:
        reason = need.reason
    if device_of(modules).type == "meta":
        raise ValueError(
            f"{reason}, and a model on the meta device has no values. "
            "Use model.to_empty(device='cpu'), with weights, to run it for real."
        )
    return forward(model, modules, inputs, kwargs, reason, changes)


def _explained(
    failed: FailedError, model: nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any]
) -> ShapeError:
    """Return the error that the user sees, with the remedies that were tried and work."""
    from blitz_helpers.trace import _changes, _proof, _words  # only a failure needs them

    def attempt(changes: tuple[Change, ...], given: Arguments) -> ShapeTrace | Failure | None:
        try:
            args, named = _changes.changed_inputs(changes, given)
            with _changes.changed_model(model, changes, data=False) as copied:
                return _passed(copied, args, named, failed.trace.ran_for_real, changes)
        except FailedError as following:
            return following.failure
        except Exception:  # the model still fails
            return None

    failure = failed.failure
    remedies, bug = [], None
    with _TRIED:
        try:
            remedies = _proof.Proof(failure, (inputs, kwargs), attempt).remedies()
        except Exception as error:  # a bug of ours, which must not hide the failure
            bug = error
    hint = _words.hint_of(remedies)
    message = _words.message(failure, hint)
    failure.misfit.forget()
    explained = ShapeError(message, failed.trace, failed.step, tuple(remedies), hint)
    if bug is not None:
        explained.add_note(f"The search for remedies failed, which is a bug: {bug!r}")
    return explained


def _check_model(model: Any, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if not isinstance(model, nn.Module):
        advice = "an instance, as in Network()" if isinstance(model, type) else "an nn.Module"
        raise TypeError(f"model must be an nn.Module, but is {model!r:.60}. Pass {advice}.")
    for value in inputs:
        if isinstance(value, tuple) and value and all(isinstance(size, Real) for size in value):
            for size in value:
                if isinstance(size, bool) or not isinstance(size, (int, Integral)) or size < 1:
                    raise ValueError(
                        f"{value} cannot be a shape: {size!r} is not a whole number from 1. "
                        "Use a tuple such as (1, 1, 32, 32)."
                    )
    if not inputs and not kwargs and not isinstance(model, torch.jit.ScriptModule):
        wanted = [
            name
            for name, parameter in inspect.signature(model.forward).parameters.items()
            if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
        ]
        if wanted:
            raise ValueError(
                f"No input is given, but forward takes {', '.join(wanted)}. "
                "Pass a shape such as (1, 1, 32, 32), or the tensors themselves."
            )
