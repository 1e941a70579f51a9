"""What a node keeps for its backward, read without touching it."""

from __future__ import annotations

import inspect
from types import CodeType
from typing import Any

from torch import Tensor
from torch.autograd.graph import Node

from blitz_helpers.graph._records import SavedTensor

_RAW = "_raw_saved_"


def saved_names(kind: type[Node]) -> tuple[str, ...]:
    """Return the names of the tensors that nodes of this built-in kind can save."""
    return tuple(name.removeprefix(_RAW) for name in vars(kind) if name.startswith(_RAW))


class SavedReader:
    """Reads saved tensors, and adds up the memory that they keep."""

    def __init__(self) -> None:
        self._storages: dict[int, int] = {}

    @property
    def nbytes(self) -> int:
        """Bytes kept by all that was read, each storage counted once."""
        return sum(self._storages.values())

    def builtin(self, node: Node, names: tuple[str, ...]) -> tuple[SavedTensor, ...]:
        """Read the named tensors of a node that torch itself defines."""
        found = []
        for name in names:
            try:
                raw = getattr(node, _RAW + name)
            except RuntimeError:  # a list of tensors, freed
                found.append(SavedTensor(name, None, 0, "freed"))
                continue
            if type(raw) is tuple:
                for place, item in enumerate(raw):
                    record = self._read(item, f"{name}[{place}]", node, None)
                    if record is not None:
                        found.append(record)
            else:
                record = self._read(raw, name, node, "_saved_" + name)
                if record is not None:
                    found.append(record)
        return tuple(found)

    def custom(self, node: Node) -> tuple[SavedTensor, ...]:
        """Read the tensors that a custom function gave to ``save_for_backward``."""
        try:
            raws = node._raw_saved_tensors  # type: ignore[attr-defined]  # a custom function's
        except RuntimeError:
            # All that is left is the fact that it was freed, even if it never saved anything.
            if not _uses_saved_tensors(node._forward_cls):  # type: ignore[attr-defined]  # same
                return ()
            return (SavedTensor("saved_tensors", None, 0, "freed"),)
        packed = any(raw.unpack_hook is not None for raw in raws)
        unpacked = None if packed else "saved_tensors"  # which would run the hook
        records = (
            self._read(raw, f"saved_tensors[{place}]", node, unpacked)
            for place, raw in enumerate(raws)
        )
        return tuple(record for record in records if record is not None)

    def _read(self, raw: Any, name: str, node: Node, unpacked: str | None) -> SavedTensor | None:
        if raw.unpack_hook is not None:
            return SavedTensor(name, None, None, "packed")
        data = raw.data
        if data is None:
            # Freed, or there never was a tensor, as with the bias of a layer that has none.
            try:
                raw.unpack()
            except RuntimeError:
                return SavedTensor(name, None, 0, "freed")
            return None
        return SavedTensor(
            name,
            tuple(data.shape),
            self._count(data),
            # A version of 0 was never written to; otherwise only unpacking can tell.
            "kept" if data._version == 0 or _unpacks(raw, node, unpacked) else "changed",
        )

    def _count(self, data: Tensor) -> int:
        nbytes = data.nbytes
        storage = data.untyped_storage()
        self._storages[storage._cdata] = storage.nbytes()
        return nbytes


def _unpacks(raw: Any, node: Node, unpacked: str | None) -> bool:
    """Return whether torch hands the tensor out: not when it was modified in place.

    There is no hook on it, so that nothing but torch's own check runs.
    """
    try:
        if unpacked is None:
            raw.unpack()
        else:
            getattr(node, unpacked)
    except RuntimeError as error:
        return "modified by an inplace operation" not in str(error)
    return True


def _uses_saved_tensors(function: type) -> bool:
    for method in ("forward", "setup_context", "backward", "vjp"):
        code = getattr(inspect.unwrap(getattr(function, method)), "__code__", None)
        if code is not None and _names(code) & {"save_for_backward", "saved_tensors"}:
            return True
    return False


def _names(code: CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(_names, inner))
