"""Reads the tensors that a node saved for backward, without running hooks or recomputing."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor, UntypedStorage
from torch.autograd.graph import Node

from blitz_helpers.graph._nodes import SavedTensor

Shape: TypeAlias = tuple[int, ...]


class Lost(NamedTuple):
    """A saved tensor that backward can no longer use; ``why`` completes ``"needs x, and ..."``."""

    name: str
    why: str


FREED = "it was freed"
"""The ``why`` of a tensor that an earlier backward freed."""


class Reading:
    """Findings made while saved tensors are read, beside their records."""

    def __init__(self) -> None:
        self.storages: set[UntypedStorage] = set()
        self.lost: list[Lost] = []
        """Saved tensors that the node being read has lost."""
        self.shapes: list[Shape | None] = []
        """The shapes of the inputs and outputs of this node."""
        self.reshaped_leaves: dict[int, Shape] = {}
        """Maps the ``id`` of a leaf whose shape has changed to its shape in the forward pass."""


SavedReader: TypeAlias = Callable[[Any, Reading], tuple[SavedTensor, ...]]
"""Returns the records of a node's saved tensors, and adds its findings to the reading."""


def saved_reader(python_type: type[Node]) -> SavedReader | None:
    """Return a reader for this node type of torch's; ``None`` if its nodes save nothing."""
    raw = "_raw_saved_"
    names = [name.removeprefix(raw) for name in vars(python_type) if name.startswith(raw)]
    if not names:
        return None
    hooks = attrgetter(*[f"{raw}{name}.unpack_hook" for name in names])
    without = (None,) * len(names) if len(names) > 1 else None
    attributes = [(name, raw + name, "_saved_" + name) for name in names]

    def read(node: Any, reading: Reading) -> tuple[SavedTensor, ...]:
        try:
            unhooked = hooks(node) == without
        except (AttributeError, RuntimeError):  # one of them is a list of tensors
            unhooked = False
        found: list[SavedTensor] = []
        for name, raw_attribute, attribute in attributes:
            if not unhooked:
                try:
                    raw = getattr(node, raw_attribute)
                except RuntimeError:  # a freed list of tensors
                    found.append(_freed(name, reading))
                    continue
                if type(raw) is tuple:
                    found += _read_list(name, raw, reading)
                    continue
                if raw.unpack_hook is not None:
                    found.append(SavedTensor(name, None, None, "packed"))
                    continue
            # It has no hook, so only torch's own checks run here.
            try:
                tensor = getattr(node, attribute)
                if tensor is not None and not tensor.requires_grad:
                    # Like backward, this raises for a tensor that was detached in place.
                    getattr(node, raw_attribute).unpack()
            except RuntimeError as error:
                found.append(_lost(name, getattr(node, raw_attribute), error, reading))
            else:
                if tensor is not None:  # it is None for the bias of a layer without one
                    found.append(_present(name, tensor, reading))
        return tuple(found)

    return read


def read_custom(node: Any, reading: Reading) -> tuple[SavedTensor, ...]:
    """Return the records of the tensors that a custom function gave to ``save_for_backward``.

    Once they are freed, there is no way to tell whether there were any.
    """
    clears = node._forward_cls.clear_saved_tensors_on_access
    try:
        raws = node._raw_saved_tensors
    except RuntimeError:
        return (_freed("saved_tensors", reading),)
    if clears and not raws:
        return (_freed("saved_tensors", reading),)
    if not clears and all(raw.unpack_hook is None for raw in raws):
        try:
            tensors = node.saved_tensors
        except RuntimeError:
            pass  # one of them is lost: find out which
        else:
            return tuple(
                _present(f"saved_tensors[{place}]", tensor, reading)
                for place, tensor in enumerate(tensors)
                if tensor is not None
            )
    return tuple(_read_list("saved_tensors", raws, reading))


def _read_list(name: str, raws: tuple[Any, ...], reading: Reading) -> list[SavedTensor]:
    found = []
    for place, raw in enumerate(raws):
        item = f"{name}[{place}]"
        if raw.unpack_hook is not None:
            found.append(SavedTensor(item, None, None, "packed"))
            continue
        try:
            tensor = raw.unpack()
        except RuntimeError as error:
            # Here torch reports a tensor that the node itself made as detached. If it was never
            # changed, it is intact.
            tensor = raw.data if _DETACHED in str(error) else None
            if tensor is None or tensor._version:
                found.append(_lost(item, raw, error, reading))
                continue
        if tensor is not None:
            found.append(_present(item, tensor, reading))
    return found


def _present(name: str, tensor: Tensor, reading: Reading) -> SavedTensor:
    """Return the record of a tensor that torch hands out, in any layout."""
    try:
        shape, nbytes, storage = tensor.shape, tensor.nbytes, tensor.untyped_storage()
    except RuntimeError:  # sparse, nested, or a wrapper of torch.func
        return SavedTensor(name, shape_of(tensor), None, "kept")
    reading.storages.add(storage)
    if shape not in reading.shapes:  # a shape among these is almost certainly right
        before = _shape_before(tensor, reading)
        if before is not None and not _broadcast(shape, before):
            why = f"its shape was {before} then and is {tuple(shape)} now"
            reading.lost.append(Lost(name, why))
            return SavedTensor(name, tuple(shape), nbytes, "changed")
    if storage.nbytes() < nbytes and storage.nbytes() < _reach(tensor):
        reading.lost.append(Lost(name, "its memory was released since"))
        return SavedTensor(name, tuple(shape), storage.nbytes(), "changed")
    return _kept(name, shape, nbytes)


@lru_cache(maxsize=4096)
def _kept(name: str, shape: Shape, nbytes: int) -> SavedTensor:
    """Return one shared record for equal ones: a loop saves the same in every step."""
    return SavedTensor(name, tuple(shape), nbytes, "kept")


def _freed(name: str, reading: Reading) -> SavedTensor:
    reading.lost.append(Lost(name, FREED))
    return SavedTensor(name, None, 0, "freed")


_DETACHED = "detached in-place"
_WHY = {
    "modified by an inplace operation": "it was modified in place since",
    "is a view": "it is a view whose base, or another view of it, was modified in place since",
    _DETACHED: "it was detached or modified in place since",
}


def _lost(name: str, raw: Any, error: RuntimeError, reading: Reading) -> SavedTensor:
    """Return the record of a tensor that torch does not hand out."""
    data = raw.data
    if data is None:
        return _freed(name, reading)
    words = str(error).partition("\n")[0]
    why = next((why for part, why in _WHY.items() if part in words), f"torch says: {words}")
    record = _present(name, data, reading)._replace(state="changed")
    reading.lost.append(Lost(name, why))
    return record


def _reach(tensor: Tensor) -> int:
    """Return how many bytes of its storage a tensor needs, counted from the start."""
    if not tensor.numel():
        return 0
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    last = tensor.storage_offset() + sum((size - 1) * step for size, step in steps)
    return int(last + 1) * tensor.itemsize


def _shape_before(tensor: Tensor, reading: Reading) -> Shape | None:
    """Return the shape that a tensor had when it was made, if it has changed since."""
    maker = tensor.grad_fn
    if maker is None:
        return reading.reshaped_leaves.get(id(tensor)) if reading.reshaped_leaves else None
    made = maker._input_metadata
    number = tensor.output_nr
    if number >= len(made) or made[number].shape == tensor.shape:
        return None
    return tuple(made[number].shape)


def _broadcast(one: Shape, other: Shape) -> bool:
    pairs = zip(reversed(one), reversed(other), strict=False)
    return all(a == b or 1 in (a, b) for a, b in pairs)


def shape_of(tensor: Tensor) -> Shape | None:
    """Return the shape, or ``None`` for a nested tensor, which has no single shape."""
    try:
        return tuple(tensor.shape)
    except RuntimeError:
        return None
