"""Trains a model, with a history, checkpoints and a clean end."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from blitz_helpers.training._checkpoint import Checkpoints, check_writable
from blitz_helpers.training._evaluation import Loader, check_batches, evaluate, mode, unwrapped
from blitz_helpers.training._history import History, Record, mean
from blitz_helpers.training._loop import Loop, Run
from blitz_helpers.training._processes import from_all, from_first, rank
from blitz_helpers.training._progress import Progress
from blitz_helpers.training._state import State


def fit(
    model: nn.Module,
    loader: Loader,
    step: Callable[..., object],
    epochs: int,
    *,
    val_loader: Loader | None = None,
    lr_schedule: Callable[[float], float] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume_from: str | os.PathLike[str] | None = None,
    run: Run | None = None,
) -> History:
    """Train a classifier: for each batch, backpropagate the cross-entropy, then ``step(params)``.

    Ctrl-C, or the kernel's stop button, ends training early and returns the history so far.
    Under ``torchrun``, with the model in a ``DistributedDataParallel``, losses are means over all
    processes; only the first process shows progress and reads and writes checkpoints.

    Args:
        model: returns logits ``(N, num_classes)``. Batches are moved to its device.
        loader: batches ``(inputs, labels)``, labels ``(N,)`` of any integer type.
        step: an update rule bound by ``functools.partial``, as in ``partial(sgd_step, lr=0.05)``.
        epochs: how many times to go through ``loader``, including the epochs in ``resume_from``.
        val_loader: batches to evaluate the model on after each epoch.
        lr_schedule: maps the finished fraction of the training, from 0 to 1, to a learning rate;
            the update is then ``step(params, lr=lr_schedule(done))``.
        checkpoint: a file to write after each epoch. It holds the weights, the history, the memory
            of ``step``, and the random states of torch (including the model's device), Python,
            numpy and the generators that the model, the loaders and ``step`` use. Memory is what
            has a ``state_dict`` (optimizers, schedulers, averaged models), containers that are
            bound to ``step``, and numbers, tensors and containers of these that ``step`` changes
            in its closure, defaults, attributes or globals. Numbers, and lists and dicts of them,
            that your own models, loaders and schedules change are kept too, and so is which
            parameters are frozen. Iterators and random states inside worker processes are lost,
            and so is what lies deep in data of many thousands of Python objects.
        resume_from: a checkpoint to continue from as if training had never stopped. Create the
            loaders and ``step`` in the same way as before. A number that was counted up, but
            begins with another value here, is yours: it stays, with a warning.
        run: logs ``train/loss`` at each step, ``train/lr`` if there is a schedule, and at the last
            step of an epoch ``val/loss`` and ``val/accuracy``.

    Raises:
        ValueError: a loader is empty, a label is out of range, or ``resume_from`` is damaged or
            from another training. It is raised before anything changes, except for bad labels or
            an empty loader that only show up later in the training.
        TypeError: a loader has no length, ``model`` is not a module, ``step`` or ``lr_schedule``
            not a function, ``run`` has no ``log``, or a file cannot store the memory of ``step``.
        DivergenceError: the loss or a weight is no longer finite. ``checkpoint`` still holds the
            last good epoch.
        ImportError: tqdm is not installed.

    >>> from functools import partial
    >>> from blitz_helpers import sgd_step
    >>> model, batches = nn.Linear(2, 2), [(torch.eye(2), torch.tensor([0, 1]))]
    >>> history = fit(model, batches, partial(sgd_step, lr=0.5), epochs=2)
    epoch 1 of 2: loss ...
    epoch 2 of 2: loss ...
    >>> history.losses[1] < history.losses[0]
    True
    """
    module = unwrapped(model)
    check_batches(loader)
    if val_loader is not None:
        check_batches(val_loader, "val_loader")
    is_whole = isinstance(epochs, Integral) and not isinstance(epochs, bool)  # numpy's count too
    if not is_whole or epochs < 1:
        raise ValueError(f"epochs={epochs!r} must be a whole number of 1 or more.")
    epochs = int(epochs)
    _check_functions(step, lr_schedule, run)
    _check_alike(len(loader), epochs)
    state = State(module, step, loader=loader, val_loader=val_loader, lr_schedule=lr_schedule)
    checkpoints = Checkpoints(module, state)
    source, target = from_first(
        [None if path is None else Path(path) for path in (resume_from, checkpoint)]
    )
    record, found = Record(epochs, promised=len(loader)), None
    if source is not None:
        found = checkpoints.load(source, steps_per_epoch=len(loader))
        record = Record(**found["record"] | {"epochs": epochs})
        if val_loader is not None and len(record.val_losses) < len(record.steps):
            raise ValueError(
                f"{source} was trained without a val_loader in some of its {len(record.steps)} "
                "epochs, whose losses would be missing. Leave out val_loader, and use evaluate()."
            )
    if target is not None and rank() == 0:
        check_writable(target)
    file = target and target.absolute()  # the training may change the working directory

    progress = Progress(epochs, record.num_steps(), len(record.losses), shown=rank() == 0)
    loop = Loop(model, step, lr_schedule, record, run, progress)
    try:
        with _unchanged_if_refused(module, state, record, resuming=found is not None):
            if source is not None and found is not None:
                if len(record.steps) < epochs:
                    _start_persistent_workers(loader, val_loader)
                checkpoints.restore(found)
                loop.checkpoint = source, len(record.steps)
            with mode(model, training=True), progress:
                for epoch in range(len(record.steps), epochs):
                    for sampler in state.samplers:
                        sampler.set_epoch(epoch)  # a DistributedSampler reshuffles only then
                    loop.train_epoch(loader)
                    if val_loader is not None:
                        result = evaluate(module, val_loader)
                        record.val_losses.append(result.loss)
                        record.val_accuracies.append(result.accuracy)
                        loop.values |= {"val/loss": result.loss, "val/accuracy": result.accuracy}
                    loop.log()
                    if target is not None and file is not None:
                        checkpoints.save(file, record)
                        loop.checkpoint = target, epoch + 1
                    progress.end_epoch(epoch + 1, mean(record.losses[-record.steps[-1] :]))
    except KeyboardInterrupt:
        return record.history(interrupted=True)
    finally:
        loop.log()
    return record.history()


@contextmanager
def _unchanged_if_refused(
    module: nn.Module, state: State, record: Record, resuming: bool
) -> Iterator[None]:
    """Restore everything if an error is raised before the first step is done."""
    # A forward pass can change only buffers; weights change only if a checkpoint is restored.
    tensors = [*module.buffers(), *(module.parameters() if resuming else ())]
    copies = [(tensor, tensor.detach().clone()) for tensor in tensors if not is_lazy(tensor)]
    gradients = [(w, w.grad) for w in module.parameters()]
    sources = [*state.memory().values(), *state.random.values()]
    values = [source.get() for source in sources]
    variables = state.variables.values()
    num_steps = len(record.losses)
    try:
        yield
    except Exception:
        if len(record.losses) == num_steps:
            with torch.no_grad():
                for tensor, copy in copies:
                    tensor.copy_(copy)
            for w, gradient in gradients:
                w.grad = gradient
            for source, value in zip(sources, values, strict=True):
                source.set(value)
            state.variables.reset(variables)
        raise


def _check_functions(step: object, lr_schedule: object, run: object) -> None:
    """Raise a ``TypeError`` now instead of after the first step."""
    is_optimizers = isinstance(getattr(step, "__self__", None), torch.optim.Optimizer)
    if not callable(step) or isinstance(step, type) or is_optimizers:
        raise TypeError(
            f"step={step!r} must be a function of the parameters. Use partial(sgd_step, lr=0.1), "
            "or for an optimizer of torch, lambda params: optimizer.step()."
        )
    if lr_schedule is not None and not callable(lr_schedule):
        raise TypeError(
            f"lr_schedule is a {type(lr_schedule).__name__}: expected a function of the finished "
            "fraction of the training, such as lambda done: 0.1 * (1 - done). Let step run a "
            "scheduler of torch, after its optimizer."
        )
    if run is not None and not callable(getattr(run, "log", None)):
        raise TypeError(
            f"run is a {type(run).__name__}, which has no log method. Use the run of start_run()."
        )


def _check_alike(num_batches: int, epochs: int) -> None:
    """Raise an error now if processes would later wait for each other for ever."""
    given = from_all((num_batches, epochs))
    if len(set(given)) > 1:
        batches, times = zip(*given, strict=True)
        raise ValueError(
            f"The processes must take the same number of steps, but their loaders hold {batches} "
            f"batches, for {times} epochs. Use a DistributedSampler, and the same epochs for all."
        )


def _start_persistent_workers(*loaders: Loader | None) -> None:
    """Start persistent workers before random states are restored.

    Starting them draws a random number, which the interrupted training had already drawn.
    """
    for loader in loaders:
        if loader is None or not getattr(loader, "persistent_workers", False):
            continue
        iter(loader)
        dataset = getattr(loader, "dataset", None)
        if type(dataset).__module__.partition(".")[0] != "torch":
            warnings.warn(
                f"Random numbers that {type(dataset).__name__} draws inside persistent workers "
                "cannot be resumed: their state is out of reach. If it draws any, use "
                "persistent_workers=False.",
                stacklevel=3,
            )
