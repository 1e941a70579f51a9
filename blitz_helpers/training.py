"""The training loop, its checkpoints and its record, and how well a network answers."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from blitz_helpers._checkpoint import check_writable, load_checkpoint, save_checkpoint
from blitz_helpers._progress import Progress
from blitz_helpers._tables import html_table, text_table


class Loader(Protocol):
    """Batches of inputs and labels, as many as ``len()`` says: a ``DataLoader``, or a list."""

    def __iter__(self) -> Iterator[Any]: ...
    def __len__(self) -> int: ...


class Run(Protocol):
    """Where numbers are logged: a run of Weights & Biases, or anything with its ``log``."""

    def log(self, data: dict[str, Any], /) -> Any:
        """Take the values of one step."""


class DivergenceError(FloatingPointError):
    """The loss or a weight became NaN or infinite, and training stopped.

    Attributes:
        step: the step at which it was seen, counted from 1.
        parameters: the names of the parameters that are not finite, nearest to the loss first.
        history: what was done until then.
    """

    def __init__(self, message: str, step: int, parameters: tuple[str, ...], history: History):
        super().__init__(message)
        self.step = step
        self.parameters = parameters
        self.history = history


@dataclass(frozen=True)
class History:
    """What a training run has done: ``losses`` has the loss of each step, in order.

    ``val_losses`` and ``val_accuracies`` have one value for each epoch, where ``fit`` was given
    digits to validate on. ``interrupted`` says that it was stopped before it was through.
    """

    losses: tuple[float, ...]
    steps_per_epoch: int
    val_losses: tuple[float, ...] = ()
    val_accuracies: tuple[float, ...] = ()
    interrupted: bool = False

    @property
    def epochs(self) -> int:
        """How many epochs are complete."""
        return len(self.losses) // self.steps_per_epoch

    @property
    def epoch_losses(self) -> tuple[float, ...]:
        """The mean loss over the steps of each epoch, of an unfinished last one too."""
        starts = range(0, len(self.losses), self.steps_per_epoch)
        return tuple(_mean(self.losses[at : at + self.steps_per_epoch]) for at in starts)

    def _table(self) -> tuple[list[str], list[list[str]], str]:
        header = ["epoch", "loss"]
        columns = [[f"{loss:.4f}" for loss in self.epoch_losses]]
        if self.val_losses:
            header += ["val loss", "val accuracy"]
            columns += [[f"{loss:.4f}" for loss in self.val_losses]]
            columns += [[f"{accuracy:.2%}" for accuracy in self.val_accuracies]]
        rows = [
            [str(epoch + 1), *(column[epoch] if epoch < len(column) else "" for column in columns)]
            for epoch in range(len(columns[0]))
        ]
        return header, rows, ">" * len(header)

    def _note(self) -> str:
        return f"interrupted after {len(self.losses):,} steps" if self.interrupted else ""

    def __str__(self) -> str:
        return "\n".join(filter(None, [text_table(*self._table()), self._note()]))

    def _repr_html_(self) -> str:
        return html_table(*self._table()) + (f"<p>{self._note()}</p>" if self.interrupted else "")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A network's answers to labelled images, in the loader's order.

    ``loss`` is the mean cross-entropy; ``predictions`` and ``labels`` are int64 ``(N,)``.
    """

    loss: float
    predictions: Tensor
    labels: Tensor
    num_classes: int

    @property
    def accuracy(self) -> float:
        """The fraction of right answers, from 0 to 1."""
        return int((self.predictions == self.labels).sum()) / len(self.labels)

    @property
    def confusion_matrix(self) -> Tensor:
        """How often class ``i`` was taken for class ``j``: int64 ``(num_classes, num_classes)``."""
        pairs = self.labels * self.num_classes + self.predictions
        return pairs.bincount(minlength=self.num_classes**2).view(self.num_classes, -1)

    @property
    def misread(self) -> Tensor:
        """Where the wrong answers stand in the loader's order: int64 indices."""
        return (self.predictions != self.labels).nonzero().squeeze(1)

    def _table(self) -> tuple[list[str], list[list[str]], str]:
        matrix = self.confusion_matrix.tolist()
        header = ["class", *map(str, range(self.num_classes)), "right"]
        rows = [
            [str(label), *map(str, row), f"{row[label] / sum(row):.1%}" if sum(row) else ""]
            for label, row in enumerate(matrix)
        ]
        return header, rows, ">" * len(header)

    def _note(self) -> str:
        return f"accuracy {self.accuracy:.2%}, loss {self.loss:.4f}, {len(self.labels):,} samples"

    def __str__(self) -> str:
        return f"{text_table(*self._table())}\n{self._note()}"

    def _repr_html_(self) -> str:
        return f"{html_table(*self._table())}<p>{self._note()}</p>"


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
    """Train a classifier: for each batch the gradients of the cross-entropy, then ``step(params)``.

    Ctrl-C, or the kernel's stop button, ends training early; what was done is kept and returned.
    Under ``torchrun``, with the model in a ``DistributedDataParallel``, losses are means over all
    processes, and the first process alone shows progress and writes the checkpoint.

    Args:
        model: gives logits ``(N, num_classes)``. Batches go to the device it is on.
        loader: batches ``(inputs, labels)``, labels int64 ``(N,)``.
        step: an update rule bound by ``functools.partial``, as in ``partial(sgd_step, lr=0.05)``.
        epochs: how many times to go through ``loader``, those of ``resume_from`` counted in.
        val_loader: what to evaluate the model on after each epoch.
        lr_schedule: gives the learning rate for the part of the training that is done, from 0 to
            1; the update is then ``step(params, lr=lr_schedule(done))``.
        checkpoint: a file to write after each epoch: the weights, the history, what ``step``
            remembers in dicts bound to it, and the random state.
        resume_from: such a file, to go on from as if nothing had happened. ``loader`` and ``step``
            must be made in the way they were.
        run: gets ``train/loss`` at each step, with a schedule ``train/lr``, and at the last step
            of an epoch ``val/loss`` and ``val/accuracy``.

    Raises:
        ValueError: an empty loader, a label that is no class, or a ``resume_from`` that is damaged
            or of another network. It is raised before the weights change; a label that comes
            later in the loader, when it comes.
        DivergenceError: the loss or a weight is no longer finite. ``checkpoint`` is as it was at
            the end of the last epoch in which all was well.
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
    _check_batches(loader)
    if not isinstance(epochs, int) or epochs < 1:
        raise ValueError(f"epochs={epochs!r} is no number of epochs. Use 1 or more.")
    module = model.module if isinstance(model, DistributedDataParallel) else model
    record: dict[str, list[float]] = {"losses": [], "val_losses": [], "val_accuracies": []}
    if checkpoint is not None:
        check_writable(Path(checkpoint))
    if resume_from is not None:
        record = load_checkpoint(Path(resume_from), module, step, loader)

    losses, steps_per_epoch = record["losses"], len(loader)
    num_steps = epochs * steps_per_epoch
    params = list(model.parameters())

    def history(interrupted: bool = False) -> History:
        kept = {name: tuple(values) for name, values in record.items()}
        return History(**kept, steps_per_epoch=steps_per_epoch, interrupted=interrupted)

    def stop(reason: str, step: int) -> NoReturn:
        raise _divergence(reason, step, module, batch, history(), checkpoint)

    try:
        with (
            _mode(model, training=True),
            Progress(epochs, num_steps, done=len(losses), shown=_rank() == 0) as progress,
        ):
            for epoch in range(len(losses) // steps_per_epoch, epochs):
                _deal_anew(loader, epoch)
                for batch in loader:
                    for w in params:  # as model.zero_grad() does, which looks them up each time
                        w.grad = None
                    logits, labels = _answer(model, batch)
                    loss = F.cross_entropy(logits, labels)
                    value = _mean_over_processes(loss)
                    if not math.isfinite(value):
                        stop(f"the loss is {value}", step=len(losses) + 1)
                    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
                    if lr_schedule is None:
                        step(params)
                        logged = {"train/loss": value}
                    else:
                        lr = lr_schedule(len(losses) / num_steps)
                        step(params, lr=lr)
                        logged = {"train/loss": value, "train/lr": lr}
                    losses.append(value)
                    progress.advance(value)
                    # The last step of an epoch is logged below, together with its evaluation.
                    if run is not None and len(losses) % steps_per_epoch:
                        run.log(logged)
                if not all(w.isfinite().all() for w in params):
                    stop("a parameter is no longer finite", step=len(losses))
                if val_loader is not None:
                    evaluation = evaluate(model, val_loader)
                    record["val_losses"].append(evaluation.loss)
                    record["val_accuracies"].append(evaluation.accuracy)
                    logged |= {"val/loss": evaluation.loss, "val/accuracy": evaluation.accuracy}
                if run is not None:
                    run.log(logged)
                if checkpoint is not None and _rank() == 0:
                    save_checkpoint(Path(checkpoint), module, step, loader, record)
                progress.end_epoch(epoch + 1, _mean(losses[-steps_per_epoch:]))
    except KeyboardInterrupt:
        return history(interrupted=True)
    return history()


def evaluate(model: nn.Module, loader: Loader) -> Evaluation:
    """Return how the model answers the loader's images, in evaluation mode and without gradients.

    Modes are afterwards as they were.

    Raises:
        ValueError: an empty loader, or a label that is no class.

    >>> evaluate(nn.Identity(), [(torch.eye(3), torch.tensor([0, 1, 1]))]).predictions
    tensor([0, 1, 2])
    """
    _check_batches(loader)
    total, predictions, truth = 0.0, [], []
    with _mode(model, training=False), torch.no_grad():
        for batch in loader:
            logits, labels = _answer(model, batch)
            total += F.cross_entropy(logits, labels, reduction="sum").item()
            predictions.append(logits.argmax(dim=1).cpu())
            truth.append(labels.cpu())
    labels = torch.cat(truth)
    return Evaluation(total / len(labels), torch.cat(predictions), labels, logits.shape[1])


def _mean(losses: Sequence[float]) -> float:
    return math.fsum(losses) / len(losses)


def _check_batches(loader: Loader) -> None:
    if not isinstance(loader, Sized):
        raise TypeError(
            f"loader is a {type(loader).__name__}, which has no length. "
            "Use a DataLoader of a dataset with a length, or a list of batches."
        )
    if len(loader) == 0:
        raise ValueError(
            "The loader is empty: it holds no batch. Use a dataset with samples, and drop_last="
            "False where a batch is larger than the dataset."
        )


def _answer(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the logits ``(N, num_classes)`` and the labels ``(N,)``, on the model's device."""
    inputs, labels = batch
    device = next((w.device for w in model.parameters()), inputs.device)
    logits = model(inputs.to(device))
    if logits.ndim != 2:
        raise ValueError(
            f"The model gives shape {tuple(logits.shape)}, where logits (N, num_classes) are "
            "expected."
        )
    if labels.shape != logits.shape[:1] or labels.is_floating_point() or len(labels) == 0:
        raise ValueError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)}, where a class number for "
            f"each of {len(logits)} samples is expected: int64, one dimension, not empty."
        )
    num_classes = logits.shape[1]
    lowest, highest = (int(label) for label in labels.aminmax())
    if lowest < 0 or highest >= num_classes:
        raise ValueError(
            f"The label {lowest if lowest < 0 else highest} is no class: the model tells "
            f"{num_classes} classes apart, 0 to {num_classes - 1}. Mend the labels, or give the "
            "model more classes."
        )
    return logits, labels.to(device)


@contextmanager
def _mode(model: nn.Module, training: bool) -> Iterator[None]:
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode


def _divergence(
    reason: str,
    step: int,
    module: nn.Module,
    batch: tuple[Tensor, Tensor],
    history: History,
    checkpoint: str | os.PathLike[str] | None,
) -> DivergenceError:
    # Gradients come from the loss: of several, the last in the network was reached first.
    bad = tuple(name for name, w in module.named_parameters() if not w.isfinite().all())[::-1]
    if bad:
        rest = f", then {', '.join(bad[1:])}" if bad[1:] else ""
        where = f"The parameter that went bad first is {bad[0]}{rest}."
    elif not batch[0].isfinite().all():
        where = "All parameters are finite, but the inputs of this batch are not: mend the data."
    else:
        sizes = {name: w.detach().abs().max().item() for name, w in module.named_parameters()}
        name = max(sizes, key=sizes.__getitem__)
        where = f"No parameter went bad yet; {name} is the largest, up to {sizes[name]:.2g}."
    good_epochs = (step - 1) // history.steps_per_epoch
    way_out = " Try a smaller lr."
    if checkpoint is not None and good_epochs:
        way_out = (
            f" {checkpoint} is good, of epoch {good_epochs}: resume from it with a smaller lr."
        )
    return DivergenceError(
        f"Training stopped at step {step}: {reason}. {where}{way_out}", step, bad, history
    )


def _deal_anew(loader: Loader, epoch: int) -> None:
    # A DistributedSampler deals out the samples anew only when it is told the epoch.
    set_epoch = getattr(getattr(loader, "sampler", None), "set_epoch", None)
    if set_epoch is not None:
        set_epoch(epoch)


def _rank() -> int:
    return distributed.get_rank() if _is_distributed() else 0


def _is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _mean_over_processes(loss: Tensor) -> float:
    if not _is_distributed():
        return loss.item()
    mean = loss.detach().clone()
    distributed.all_reduce(mean)
    return mean.item() / distributed.get_world_size()
