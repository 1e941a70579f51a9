"""Trains a model, with a history, checkpoints and a clean end."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from blitz_helpers.training._checkpoint import Checkpoints, check_writable
from blitz_helpers.training._evaluation import Loader, check_batches, evaluate, mode, unwrapped
from blitz_helpers.training._history import History, Record
from blitz_helpers.training._loop import Log, Loop, NotFiniteError, Run
from blitz_helpers.training._memory import Memory
from blitz_helpers.training._processes import from_all, from_first, rank
from blitz_helpers.training._progress import Progress
from blitz_helpers.training._randomness import RandomStates
from blitz_helpers.training._reach import reachable


class DivergenceError(FloatingPointError):
    """The loss or a weight became NaN or infinite, and training stopped.

    Attributes:
        step: the step where it was noticed, counted from 1.
        parameters: the names of the parameters that are not finite, nearest to the loss first.
        history: the training up to that step.

    >>> from functools import partial
    >>> import torch
    >>> from torch import nn
    >>> from blitz_helpers import fit, sgd_step
    >>> batch = torch.full((1, 2), 1e20), torch.tensor([0])
    >>> model = nn.Linear(2, 2)
    >>> _ = nn.init.zeros_(model.weight)
    >>> try:
    ...     fit(model, [batch, batch], partial(sgd_step, lr=1e30), epochs=1)
    ... except DivergenceError as error:
    ...     print(error.step, error.parameters)
    2 ('weight',)
    """

    def __init__(self, message: str, step: int, parameters: tuple[str, ...], history: History):
        super().__init__(message)
        self.step = step
        self.parameters = parameters
        self.history = history

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.step, self.parameters, self.history), vars(self)


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
            of ``step`` (dicts, or a torch optimizer), and the random states of torch (including
            the model's device), Python, numpy and the generators held by the model, the loaders
            and ``step``. It cannot hold random states inside worker processes.
        resume_from: a checkpoint to continue from as if training had never stopped. Create the
            loaders and ``step`` in the same way as before.
        run: logs ``train/loss`` at each step, ``train/lr`` if there is a schedule, and at the last
            step of an epoch ``val/loss`` and ``val/accuracy``.

    Raises:
        ValueError: a loader is empty, a label is out of range, or ``resume_from`` is damaged or
            from another training. It is raised before anything changes, except for bad labels or
            an empty loader that only show up later in the training.
        TypeError: a loader has no length, or a file cannot store the memory of ``step``.
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
    check_batches(loader)
    if val_loader is not None:
        check_batches(val_loader, "val_loader")
    if not isinstance(epochs, int) or epochs < 1:
        raise ValueError(f"epochs={epochs!r} must be a whole number of 1 or more.")
    _check_alike(len(loader), epochs)
    module = unwrapped(model)
    memory = Memory(step, module)
    random = RandomStates(
        module, loader=loader, val_loader=val_loader, step=step, lr_schedule=lr_schedule
    )
    checkpoints = Checkpoints(module, memory, random, len(loader))
    source, target = (None if path is None else Path(path) for path in (resume_from, checkpoint))
    found = checkpoints.load(source)
    if target is not None and rank() == 0:
        check_writable(target)
    saves = from_first(target is not None)

    record, log = Record(epochs, promised=len(loader)), Log(run)
    good: tuple[Path | None, int] | None = None  # the last good checkpoint and its epoch
    try:
        with _unchanged_if_refused(module, memory, random, record, resuming=found is not None):
            if found is not None:
                if len(found["record"]["steps"]) < epochs:
                    _start_lasting_workers(loader, val_loader)
                record.resume(checkpoints.restore(found))
                good = source, len(record.steps)
            progress = Progress(epochs, record.num_steps(), record.resumed_at, shown=rank() == 0)
            loop = Loop(model, step, lr_schedule, record, log, progress)
            with mode(model, training=True), progress:
                for epoch in range(len(record.steps), epochs):
                    _deal_anew(loader, epoch)
                    try:
                        loop.train_epoch(loader)
                    except NotFiniteError as found_out:
                        raise _divergence(found_out, module, loop, record, good) from None
                    if val_loader is not None:
                        result = evaluate(module, val_loader)
                        record.val_losses.append(result.loss)
                        record.val_accuracies.append(result.accuracy)
                        log.add({"val/loss": result.loss, "val/accuracy": result.accuracy})
                    log.flush()
                    if saves:
                        checkpoints.save(target, record.kept())
                        good = target, epoch + 1
                    progress.end_epoch(epoch + 1, record.epoch_loss())
    except KeyboardInterrupt:
        return record.history(interrupted=True)
    finally:
        log.flush()
    return record.history()


@contextmanager
def _unchanged_if_refused(
    module: nn.Module, memory: Memory, random: RandomStates, record: Record, resuming: bool
) -> Iterator[None]:
    """Restore everything if an error is raised before the first step is done."""
    # A forward pass can change only buffers; weights change only if a checkpoint is restored.
    tensors = [*module.buffers(), *(module.parameters() if resuming else ())]
    copies = [(tensor, tensor.detach().clone()) for tensor in tensors if not is_lazy(tensor)]
    gradients = [(w, w.grad) for w in module.parameters()]
    remembered, drawn = memory.copy(), random.get()
    try:
        yield
    except Exception:
        if len(record.losses) == record.resumed_at:
            with torch.no_grad():
                for tensor, copy in copies:
                    tensor.copy_(copy)
            for w, gradient in gradients:
                w.grad = gradient
            memory.put_back(remembered)
            random.set(drawn)
        raise


def _check_alike(num_batches: int, epochs: int) -> None:
    """Raise an error now if processes would later wait for each other for ever."""
    given = from_all((num_batches, epochs))
    if len(set(given)) > 1:
        batches, times = zip(*given, strict=True)
        raise ValueError(
            f"The processes must take the same number of steps, but their loaders hold {batches} "
            f"batches, for {times} epochs. Use a DistributedSampler, and the same epochs for all."
        )


def _start_lasting_workers(*loaders: Loader | None) -> None:
    """Start persistent workers before random states are restored.

    Starting them draws a random number, which the interrupted training had already drawn.
    """
    for loader in loaders:
        if not getattr(loader, "persistent_workers", False):
            continue
        iter(loader)  # type: ignore[arg-type]  # None has no such attribute
        dataset = getattr(loader, "dataset", None)
        if type(dataset).__module__.partition(".")[0] != "torch":
            warnings.warn(
                f"Random numbers that {type(dataset).__name__} draws inside persistent workers "
                "cannot be resumed: their state is out of reach. If it draws any, use "
                "persistent_workers=False.",
                stacklevel=3,
            )


def _deal_anew(loader: Loader, epoch: int) -> None:
    # A DistributedSampler, even inside a batch sampler, reshuffles only if it is told the epoch.
    for _, part in reachable(loader):
        if hasattr(type(part), "set_epoch"):
            part.set_epoch(epoch)


def _divergence(
    found_out: NotFiniteError,
    module: nn.Module,
    loop: Loop,
    record: Record,
    good: tuple[Path | None, int] | None,
) -> DivergenceError:
    # Gradients start at the loss, so they reach the last of several bad parameters first.
    bad = tuple(name for name, w in module.named_parameters() if not w.isfinite().all())[::-1]
    rest = f", then {', '.join(bad[1:])}" if bad[1:] else ""
    is_lr = False
    if bad and loop.trained_on is None:
        where = (
            f"Before the first step {', '.join(bad)} held values that are not finite: load or draw "
            "the weights anew."
        )
    elif bad and not _has_finite_inputs(loop.trained_on):
        where = (
            "The inputs of the batch before were not finite: mend the data. The parameter that "
            f"went bad first is {bad[0]}{rest}."
        )
    elif bad:
        is_lr = True
        where = f"The parameter that went bad first is {bad[0]}{rest}."
    elif not _has_finite_inputs(loop.batch):
        where = "All parameters are finite, but the inputs of this batch are not: mend the data."
    else:
        is_lr = True
        sizes = {name: w.detach().abs().max().item() for name, w in module.named_parameters()}
        name = max(sizes, key=sizes.__getitem__)
        where = f"No parameter went bad yet; {name} is the largest, up to {sizes[name]:.2g}."
    if good is not None and good[0] is not None:
        with_lr = " with a smaller lr" if is_lr else ""
        where += f" {good[0]} is good, of epoch {good[1]}: resume from it{with_lr}."
    elif is_lr:
        where += " Try a smaller lr."
    message = f"Training stopped at step {found_out.step}: {found_out}. {where}"
    return DivergenceError(message, found_out.step, bad, record.history())


def _has_finite_inputs(batch: tuple[Tensor, Tensor] | None) -> bool:
    return batch is None or bool(batch[0].isfinite().all())
