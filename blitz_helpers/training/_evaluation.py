"""Evaluates a network: its answers to labelled batches, compared with the labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from blitz_helpers._tables import html_table, scroll_box, text_table


class Loader(Protocol):
    """Batches of inputs and labels, with a length: a ``DataLoader``, or a list."""

    def __iter__(self) -> Iterator[Any]: ...
    def __len__(self) -> int: ...


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A network's answers to labelled images, in the loader's order.

    ``loss`` is the mean cross-entropy; ``predictions`` and ``labels`` are int64 ``(N,)``.

    >>> import torch
    >>> from torch import nn
    >>> from blitz_helpers import evaluate
    >>> scores = torch.eye(3)  # each row's highest score stands in its own place
    >>> result = evaluate(nn.Identity(), [(scores, torch.tensor([0, 1, 1]))])
    >>> round(result.accuracy, 3), result.misread.tolist()
    (0.667, [2])
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
        """How often class ``i`` was taken for class ``j``: int64 ``(num_classes, num_classes)``.

        Raises:
            ValueError: a label or an answer is not one of the classes.
        """
        n = self.num_classes
        labels, predictions = self.labels.long(), self.predictions.long()
        both = torch.cat([labels, predictions])
        if len(both) and not (both.min() >= 0 and both.max() < n):
            raise ValueError(
                f"labels and predictions go from {both.min()} to {both.max()}, where classes from "
                f"0 to {n - 1} are expected. Give num_classes as it is."
            )
        return (labels * n + predictions).bincount(minlength=n**2).view(n, n)

    @property
    def misread(self) -> Tensor:
        """Indices of the wrong answers in the loader's order, int64."""
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
        html = f"{html_table(*self._table())}<p>{self._note()}</p>"
        return scroll_box(html, "Confusion matrix")


def evaluate(model: nn.Module, loader: Loader) -> Evaluation:
    """Return the model's answers to the loader's images, in evaluation mode and without gradients.

    The modes of all modules are restored afterwards. A ``DistributedDataParallel`` is evaluated
    through the module inside it, so that one process can evaluate alone.

    Raises:
        TypeError: the loader has no length, or ``model`` is not a module.
        ValueError: the loader is empty, a label is out of range, or the model gives no logits.

    >>> evaluate(nn.Identity(), [(torch.eye(3), torch.tensor([0, 1, 1]))]).predictions
    tensor([0, 1, 2])
    """
    model = unwrapped(model)
    check_batches(loader)
    total, predictions, truth, widths = 0.0, [], [], set()
    with mode(model, training=False), torch.no_grad():
        for batch in loader:
            logits, labels = answer(model, batch)
            # In half precision, a sum over a batch would overflow or be too coarse.
            exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
            total += F.cross_entropy(exact, labels, reduction="sum").item()
            predictions.append(logits.argmax(dim=1).cpu())
            truth.append(labels.cpu())
            widths.add(logits.shape[1])
    if not widths:
        raise _no_batch("loader", f"though its length is {len(loader)}")
    if len(widths) > 1:
        raise ValueError(
            f"The model tells {' and '.join(map(str, sorted(widths)))} classes apart, one number "
            "in one batch and another in the next. Give it one number of classes."
        )
    labels = torch.cat(truth)
    return Evaluation(total / len(labels), torch.cat(predictions), labels, widths.pop())


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside a ``DistributedDataParallel``, or the model as it is.

    Raises:
        TypeError: ``model`` is not a module.
    """
    if not isinstance(model, nn.Module):
        made = f" Use {model.__name__}(...)." if isinstance(model, type) else ""
        raise TypeError(f"model is a {type(model).__name__}: expected an nn.Module.{made}")
    return model.module if isinstance(model, DistributedDataParallel) else model


def check_batches(loader: Loader, name: str = "loader") -> None:
    try:
        num_batches = len(loader)
    except TypeError as error:  # as of a DataLoader whose data set has no length
        raise TypeError(
            f"{name} is a {type(loader).__name__}, which has no length. "
            "Use a DataLoader of a dataset with a length, or a list of batches."
        ) from error
    if num_batches == 0:
        raise _no_batch(name, "its length is 0")


def _no_batch(name: str, why: str) -> ValueError:
    return ValueError(
        f"The {name} is empty: it holds no batch ({why}). Use a dataset with samples, and "
        "drop_last=False where a batch is larger than the dataset."
    )


def answer(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the logits ``(N, num_classes)`` and the labels, int64 ``(N,)``, on one device."""
    kinds = [type(part) for part in batch] if isinstance(batch, tuple | list) else [type(batch)]
    if len(kinds) != 2 or not all(issubclass(kind, Tensor) for kind in kinds):
        raise TypeError(
            "A batch must be a pair of tensors, (inputs, labels); the loader gave "
            f"{', '.join(kind.__name__ for kind in kinds) or 'nothing'}. "
            "Use a DataLoader of a TensorDataset, or a collate_fn that makes such pairs."
        )
    inputs, labels = batch
    device = next((w.device for w in model.parameters()), inputs.device)
    logits = model(inputs.to(device))
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        is_tensor = isinstance(logits, Tensor)
        given = f"shape {tuple(logits.shape)}" if is_tensor else f"a {type(logits).__name__}"
        raise ValueError(f"The model gives {given}, where logits (N, num_classes) are expected.")
    if logits.is_meta or logits.is_complex() or logits.dtype == torch.bool:
        raise ValueError(
            f"The model gives {logits.dtype} on {logits.device}, where real numbers are expected. "
            "Give the model weights, or its output an abs() or float()."
        )
    is_integer = not (labels.is_floating_point() or labels.is_complex())
    if labels.shape != logits.shape[:1] or not is_integer or labels.dtype == torch.bool:
        raise ValueError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)}, where a class number for "
            f"each of {len(logits)} samples is expected: an integer type, one dimension."
        )
    if len(labels) == 0:
        raise ValueError("A batch holds no sample. Leave empty batches out of the loader.")
    num_classes = logits.shape[1]
    labels = labels.long()  # small integer types would overflow in label * 20 and the like
    lowest, highest = (int(label) for label in labels.aminmax())
    if lowest < 0 or highest >= num_classes:
        raise ValueError(
            f"The label {lowest if lowest < 0 else highest} is out of range: the model tells "
            f"{num_classes} classes apart, 0 to {num_classes - 1}. Mend the labels, or give the "
            "model more classes."
        )
    return logits, labels.to(device)


@contextmanager
def mode(model: nn.Module, training: bool) -> Iterator[None]:
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, was_training in before:
            module.training = was_training
