"""Reads the tensors that a node saved for backward, without running hooks or recomputing."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, UntypedStorage
from torch.autograd.graph import Node

from blitz_helpers._torch import checkpoint_inputs
from blitz_helpers.graph._kinds import Kind
from blitz_helpers.graph._nodes import SavedTensor
from blitz_helpers.graph._tensors import Form, Shape, form_of


class Lost(NamedTuple):
    """A saved tensor that backward can no longer use, for certain or perhaps."""

    name: str
    why: str
    """Completes ``"needs x as saved, and ..."``."""
    is_certain: bool = True


FREED = "it was freed"
"""The ``why`` of a tensor that an earlier backward freed."""


class SavedReader:
    """Reads the saved tensors of one node after another."""

    def __init__(self) -> None:
        self.storages: set[UntypedStorage] = set()
        """The memory of all tensors read so far."""
        self.forms: dict[Node | int, Form | None] = {}
        """Forms in the forward pass: of what a node made first, and of a leaf by its ``id``."""

    def read(self, node: Any, kind: Kind) -> tuple[tuple[SavedTensor, ...], list[Lost]]:
        """Return the records of a node's saved tensors, and those that are lost."""
        self._node, self._kind = node, kind
        self._lost: list[Lost] = []
        found: list[SavedTensor] = []
        for name, raw_attribute, attribute, sizes in kind.saved:
            raw = None
            try:
                raw = getattr(node, raw_attribute)
                if type(raw) is tuple:
                    found += self._read_list(name, raw, attribute)
                    continue
                if raw.unpack_hook is not None:
                    found.append(self._packed(name, raw.unpack_hook))
                    continue
                tensor = getattr(node, attribute)  # without a hook, only torch's own checks run
                if tensor is None:  # such as the bias of a layer without one
                    continue
                if not tensor.requires_grad:
                    raw.unpack()  # like backward, it raises for a tensor detached in place
            except RuntimeError as error:
                found.append(self._refused(name, raw, error))
            else:
                found.append(self._present(name, tensor, sizes))
        return tuple(found), self._lost

    def _read_list(self, name: str, raws: tuple[Any, ...], attribute: str) -> list[SavedTensor]:
        """Read a list of tensors, or those that a custom function gave to ``save_for_backward``.

        Once these are freed, there is no way to tell whether there were any.
        """
        custom = getattr(self._node, "_forward_cls", None)
        clears = custom is not None and custom.clear_saved_tensors_on_access
        if clears and not raws:
            return [self._freed(name)]
        names = [f"{name}[{place}]" for place in range(len(raws))]
        if not clears and all(raw.unpack_hook is None for raw in raws):
            try:
                tensors = getattr(self._node, attribute)
            except RuntimeError:
                pass  # one of them is lost: find out which
            else:
                pairs = zip(names, tensors, strict=True)
                return [self._present(*pair) for pair in pairs if pair[1] is not None]
        found = []
        for item, raw in zip(names, raws, strict=True):
            if raw.unpack_hook is not None:
                found.append(self._packed(item, raw.unpack_hook))
                continue
            try:
                tensor = raw.unpack()
            except RuntimeError as error:
                # Here torch reports a tensor that the node itself made as detached. If it was
                # never changed, it is intact.
                tensor = raw.data if _DETACHED in str(error) else None
                if tensor is None or tensor._version:
                    found.append(self._refused(item, raw, error))
                    continue
            if tensor is not None:
                found.append(self._present(item, tensor))
        return found

    def _packed(self, name: str, unpack_hook: object) -> SavedTensor:
        """Return the record of a tensor that a hook packed, without running the hook."""
        for saved in checkpoint_inputs(unpack_hook):
            try:
                if saved.unpack_hook is None:
                    saved.unpack()
            except RuntimeError:
                why = "an input of its checkpoint was modified in place since"
                self._lost.append(Lost(name, why))
        return SavedTensor(name, None, None, "packed")

    def _freed(self, name: str) -> SavedTensor:
        self._lost.append(Lost(name, FREED))
        return SavedTensor(name, None, 0, "freed")

    def _refused(self, name: str, raw: Any, error: RuntimeError) -> SavedTensor:
        """Return the record of a tensor that torch does not hand out."""
        if raw is None or raw.data is None:
            return self._freed(name)
        words = str(error).partition("\n")[0]
        why = next((why for part, why in _WHY.items() if part in words), f"torch says: {words}")
        self._lost.append(Lost(name, why))
        # `raw.data` may be a view that has lost its graph; its `.data` is not.
        return self._present(name, raw.data.data)._replace(state="changed")

    def _present(self, name: str, tensor: Tensor, sizes: str | None = None) -> SavedTensor:
        """Return the record of a tensor that torch hands out, in any layout."""
        try:
            shape, dtype, storage = tensor.shape, tensor.dtype, tensor.untyped_storage()
        except RuntimeError:  # sparse, nested, or a wrapper of torch.func
            return SavedTensor(name, form_of(tensor)[0], None, "kept")
        if tensor.is_nested:
            return SavedTensor(name, None, None, "kept")
        self.storages.add(storage)
        record = _kept(name, shape, dtype)
        then = None if tensor.output_nr else self.forms.get(tensor.grad_fn or id(tensor))
        if then is None:
            then = self._form_elsewhere(name, tensor, sizes)
        lost = None
        if then != (shape, dtype) and (then is not None or self._kind.is_pointwise):
            lost = self._of_another_form(record, dtype, *(then or (None, dtype)))
        if storage.nbytes() < tensor.nbytes and is_released(tensor):
            lost = Lost(name, "its memory was released since")
            record = record._replace(nbytes=storage.nbytes())
        if lost is None:
            return record
        self._lost.append(lost)
        return record._replace(state="changed")

    def _form_elsewhere(self, name: str, tensor: Tensor, sizes: str | None) -> Form | None:
        """Return the form in the forward pass of what is not in ``forms``, if it is known."""
        maker, number = tensor.grad_fn, tensor.output_nr
        if maker is not None and number < len(maker._input_metadata):
            return form_of(maker._input_metadata[number])
        shape = None if sizes is None else getattr(self._node, sizes)
        dtype = self._dtype_then(name, tensor)
        return None if shape is None and dtype == tensor.dtype else (shape, dtype)

    def _dtype_then(self, name: str, tensor: Tensor) -> torch.dtype:
        """Return the dtype in the forward pass of what needs no gradient, as far as it is known."""
        kind, form = self._kind.name, self.forms[self._node]
        if kind not in _OF_ONE_DTYPE or form is None or name == "bias":  # which is not read
            return tensor.dtype
        if not tensor.is_floating_point():  # such as the places of maxima
            return tensor.dtype
        _, made = form
        # Norms of numbers in half precision have weights and statistics in float32.
        is_exact = "Norm" in kind and tensor.dtype == torch.float32 and made.itemsize < 4
        return tensor.dtype if is_exact else made

    def _of_another_form(
        self,
        now: SavedTensor,
        dtype: torch.dtype,
        shape_then: Shape | None,
        dtype_then: torch.dtype,
    ) -> Lost | None:
        """Return the loss if a change of form through ``.data`` or ``set_`` stops backward."""
        name, shape, *_ = now
        assert shape is not None  # that of a nested tensor is not compared
        form = self.forms[self._node]
        made = form[0] if form is not None and self._kind.is_pointwise else None
        if dtype_then != dtype:
            promotes = made is not None and dtype.is_floating_point and dtype_then.is_floating_point
            if not promotes:
                why = f"its dtype was {dtype_then} then and is {dtype} now"
                return Lost(name, why, is_certain=self._refuses(name, dtype, dtype_then))
        if made is not None:
            if _broadcast(shape, made):
                return None
            return Lost(name, f"its shape is {shape} now, which does not fit {made}")
        if shape_then in (None, shape):
            return None
        why = f"its shape was {shape_then} then and is {shape} now"
        return Lost(name, why, is_certain=not _broadcast(shape, shape_then))

    def _refuses(self, name: str, dtype: torch.dtype, dtype_then: torch.dtype) -> bool:
        """Return whether the node is certain to refuse a saved tensor of another dtype."""
        is_wider = dtype.itemsize > dtype_then.itemsize  # oneDNN converts to a narrower type
        if self._kind.name == "ConvolutionBackward0":
            # The weight is read for the gradient of the input, the input for that of the weight.
            source, _ = self._node.next_functions[name == "input"]
            return is_wider and source is not None
        if self._kind.name == "MkldnnRnnLayerBackward0" and name in ("weight2", "weight3"):
            return is_wider  # these are the biases
        return _OF_ONE_DTYPE.get(self._kind.name, False)


@lru_cache(maxsize=4096)
def _kept(name: str, shape: Shape, dtype: torch.dtype) -> SavedTensor:
    """Return one shared record for equal ones: a loop saves the same in every step."""
    return SavedTensor(name, tuple(shape), prod(shape) * dtype.itemsize, "kept")


_DETACHED = "detached in-place"
_WHY = {
    "modified by an inplace operation": "it was modified in place since",
    "is a view": "it is a view whose base, or another view of it, was modified in place since",
    _DETACHED: "it was detached or modified in place since",
}


# Nodes that take all their saved numbers in one dtype, and whether they always refuse another.
# Pointwise nodes promote it; whether any other node refuses it is not known.
_OF_ONE_DTYPE = {
    "AddbmmBackward0": True,
    "AddmmBackward0": True,
    "AvgPool2DBackward0": True,
    "BaddbmmBackward0": True,
    "BmmBackward0": True,
    "ConvolutionBackward0": True,
    "MaxPool2DWithIndicesBackward0": True,
    "MkldnnRnnLayerBackward0": True,
    "MmBackward0": True,
    "NativeBatchNormBackward0": True,
    "NativeGroupNormBackward0": False,
    "NativeLayerNormBackward0": True,
    "TrilinearBackward0": False,
}


def is_released(tensor: Tensor) -> bool:
    """Return whether the memory of a strided tensor was released, as by ``resize_`` of storages."""
    storage = tensor.untyped_storage().nbytes()
    if storage >= tensor.nbytes or not tensor.numel():
        return False
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    last = tensor.storage_offset() + sum((size - 1) * step for size, step in steps)
    return storage < (last + 1) * tensor.itemsize  # an expanded tensor needs less than its nbytes


def _broadcast(one: Shape, other: Shape) -> bool:
    """Return whether two shapes can be broadcast together."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return all(a == b or 1 in (a, b) for a, b in pairs)
