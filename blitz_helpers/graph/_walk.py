"""From a tensor to the nodes behind it, in time and memory linear in their number."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node

from blitz_helpers.graph._modules import labels_of, module_running, require_module
from blitz_helpers.graph._records import AutogradGraph, GraphEdge, GraphNode
from blitz_helpers.graph._saved import SavedReader, saved_names

_Slots: TypeAlias = tuple[tuple[Node | None, int], ...]

# Nodes visited from Python are freed one inside the other, at about 200 bytes of C stack each,
# unless something comes between them at every so many levels.
_LEVELS_FREED_AT_ONCE = 64

# Through these a parameter still feeds the node that uses it: `T` under every `Addmm`.
_VIEWS = frozenset(
    (
        *("alias", "as_strided", "clone", "diagonal", "expand", "narrow", "permute", "select"),
        *("reshape_alias", "slice", "split", "split_with_sizes", "squeeze", "t", "to_copy"),
        *("transpose", "unbind", "unfold", "unsafe_view", "unsqueeze", "view"),
        *("view_as_complex", "view_as_real"),
    )
)


def autograd_graph(
    output: Tensor | tuple[Any, ...] | list[Any] | Mapping[Any, Any], model: nn.Module | None = None
) -> AutogradGraph:
    """Return the graph that autograd built to go backward from ``output``.

    The graph is a snapshot and keeps no tensor alive. Taking it runs no hook, unpacks nothing and
    recomputes nothing.

    Args:
        output: a tensor, or several in a tuple, list or dict, also nested.
        model: names the leaves by its parameters, and the nodes by its modules.

    Raises:
        TypeError: ``output`` holds something that is no tensor, or ``model`` is no module.
        ValueError: a tensor has no graph or is a leaf, there is no tensor at all, or ``model``
            owns none of the leaves.

    >>> import torch
    >>> model = torch.nn.Linear(3, 2)
    >>> graph = autograd_graph(model(torch.ones(1, 3)).sum(), model)
    >>> graph
    AutogradGraph(5 nodes, 4 edges, 2 leaves)
    >>> graph.path()
    't -> addmm -> sum'
    >>> [leaf.parameter for leaf in graph.leaves]
    ['bias', 'weight']
    """
    if model is not None:
        require_module(model)
    roots = [_grad_fn(tensor, where) for where, tensor in _tensors(output, "output")]
    if not roots:
        raise ValueError(f"output is an empty {type(output).__name__}: there is no tensor in it.")
    slots, depths = _discover(list(dict.fromkeys(roots)))
    numbers = {node: number for number, node in enumerate(depths)}
    kinds = _Kinds()
    parameters, modules = _belongings(slots, numbers, kinds, model)
    reader = SavedReader()
    nodes, edges = [], []
    for number, (node, depth) in enumerate(depths.items()):
        kind = kinds[node]
        inputs: list[int | None] = []
        for slot, (source, output_nr) in enumerate(slots[node]):
            if source is None:
                inputs.append(None)
                continue
            inputs.append(numbers[source])
            edges.append(GraphEdge(numbers[source], number, slot, output_nr))
        saved = reader.custom(node) if kind.is_custom else reader.builtin(node, kind.saved)
        nodes.append(
            GraphNode(
                number,
                kind.name,
                kind.op,
                parameters.get(node),
                modules.get(node),
                _shape(node),
                tuple(inputs),
                saved,
                any(tensor.state == "freed" for tensor in saved) if saved else None,
                depth,
            )
        )
    return AutogradGraph(
        tuple(nodes),
        tuple(edges),
        tuple(nodes[numbers[root]] for root in dict.fromkeys(roots)),
        reader.nbytes,
    )


def _tensors(output: object, where: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(output, Tensor):
        yield where, output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from _tensors(value, f"{where}[{key!r}]")
    elif isinstance(output, tuple | list):
        for place, value in enumerate(output):
            yield from _tensors(value, f"{where}[{place}]")
    else:
        raise TypeError(
            f"{where} is a {type(output).__name__}; expected a tensor, "
            "or tensors in a tuple, list or dict."
        )


def _grad_fn(tensor: Tensor, where: str) -> Node:
    if tensor.grad_fn is not None:
        return tensor.grad_fn
    if tensor.requires_grad:
        raise ValueError(
            f"{where} is a leaf that requires grad: no operation made it, so there is no graph "
            "behind it. Pass what was computed from it, such as a loss."
        )
    if not (tensor.is_floating_point() or tensor.is_complex()):
        raise ValueError(
            f"{where} is a tensor of {tensor.dtype} and can have no graph: only floating point "
            "and complex tensors have gradients. Pass the floating point output."
        )
    raise ValueError(
        f"{where} has no graph: it was made under torch.no_grad() (or inference_mode(), or by "
        "detach()), or from inputs of which none requires grad. torch does not know which. To "
        "find out, print torch.is_grad_enabled() and the requires_grad of every input where it "
        "is computed."
    )


def _discover(roots: list[Node]) -> tuple[dict[Node, _Slots], dict[Node, int]]:
    """Return the slots of every node, and the depth of each, in an order by depth."""
    slots: dict[Node, _Slots] = {}
    consumers: dict[Node, int] = {}
    try:
        todo = list(roots)
        while todo:
            node = todo.pop()
            if node in slots:
                continue
            slots[node] = node.next_functions
            for source, _ in slots[node]:
                if source is not None:
                    consumers[source] = consumers.get(source, 0) + 1
                    todo.append(source)
        # A node comes when its last consumer has come, so the order is one by depth.
        depths = {root: 0 for root in roots if root not in consumers}
        order = list(depths)
        for node in order:
            for source, _ in slots[node]:
                if source is not None:
                    consumers[source] -= 1
                    if not consumers[source]:
                        depths[source] = depths[node] + 1
                        order.append(source)
    except BaseException:  # a keyboard interrupt must not leave a graph that crashes later
        for node, sources in slots.items():
            _free_apart(node, sources)
        raise
    for node in order:
        level = depths[node] // _LEVELS_FREED_AT_ONCE
        for source, _ in slots[node]:
            if source is not None and depths[source] // _LEVELS_FREED_AT_ONCE != level:
                _free_apart(node, slots[node])
                break
    return slots, depths


class _Kind(NamedTuple):
    name: str
    op: str
    saved: tuple[str, ...]
    is_custom: bool


class _Kinds:
    """What is the same for all nodes of one Python type, and asked for once."""

    def __init__(self) -> None:
        self._known: dict[type[Node], _Kind] = {}

    def __getitem__(self, node: Node) -> _Kind:
        python_type = type(node)
        kind = self._known.get(python_type)
        if kind is None:
            is_custom = issubclass(python_type, BackwardCFunction)
            name = _QUALIFIERS.sub("", node.name())
            kind = _Kind(
                name,
                _BACKWARD.sub("", name) or name if is_custom else _op(name),
                () if is_custom else saved_names(python_type),
                is_custom,
            )
            # Nodes that only C++ knows share one Python type, and each has its own name.
            if is_custom or python_type.__name__ == name:
                self._known[python_type] = kind
        return kind


_QUALIFIERS = re.compile(r"^(?:[\w() ]+::)+")
_BACKWARD = re.compile(r"Backward\d*$")
# A capital after a digit goes on with the word if it stands alone: Pool2D, R2C, Log1P.
_WORD = re.compile(r"[A-Z][a-z]*(?:\d+(?:[A-Z](?![a-z]))?)*|[a-z]+")
_IRREGULAR = {
    "Col2Im": "col2im",
    "Im2Col": "im2col",
    "GridSampler2D": "grid_sampler_2d",
    "GridSampler3D": "grid_sampler_3d",
}


def _op(name: str) -> str:
    """Return the operation behind a node's name, as one calls it.

    >>> _op("MaxPool2DWithIndicesBackward0")
    'max_pool2d_with_indices'
    """
    stem = _BACKWARD.sub("", name)
    if not stem.isidentifier():
        return name
    return _IRREGULAR.get(stem) or "_".join(_WORD.findall(stem)).lower()


def _shape(node: Node) -> tuple[int, ...] | None:
    metadata = node._input_metadata
    return tuple(metadata[0].shape) if metadata else None


def _belongings(
    slots: dict[Node, _Slots], numbers: dict[Node, int], kinds: _Kinds, model: nn.Module | None
) -> tuple[dict[Node, str], dict[Node, str]]:
    """Return the parameter of each leaf and the module of each node, where they are known."""
    parameters: dict[Node, str] = {}
    modules: dict[Node, str] = {}
    labels = labels_of(model)
    if model is None and not labels:
        return parameters, modules
    names: dict[int, list[str]] = {}
    if model is not None:
        for name, parameter in model.named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), []).append(name)
    owners: dict[Node, list[str]] = {}  # of leaves and of views of them
    labelled = False
    for node in reversed(numbers):
        kind = kinds[node]
        if kind.name == "AccumulateGrad":
            own = names.get(id(node.variable))  # type: ignore[attr-defined]  # a leaf's
            if own:
                parameters[node] = own[0]
                owners[node] = [name.rpartition(".")[0] for name in own]
                modules[node] = owners[node][0]
            continue
        label = module_running(labels, node._sequence_nr()) if labels else None
        feeding = [owners[source] for source, _ in slots[node] if source in owners]
        if feeding and kind.op in _VIEWS:
            owners[node] = feeding[0]
        if label is not None:
            labelled = True
            modules[node] = label
        elif feeding:
            # A tied weight has several owners; the bias beside it tells which one ran.
            shared = set(feeding[0]).intersection(*feeding[1:])
            modules[node] = next((owner for owner in feeding[0] if owner in shared), feeding[0][0])
    if model is not None and not parameters and not labelled:
        raise ValueError(_stranger(model, bool(names)))
    return parameters, modules


def _stranger(model: nn.Module, has_parameters: bool) -> str:
    kind = type(model).__name__
    if not has_parameters:
        return f"model is a {kind} without parameters: there is nothing to name leaves by."
    return (
        f"model is a {kind} that owns no leaf of this graph: none of its parameters went into "
        "output. Pass the model that computed it, not a copy."
    )


class _Pending(threading.local):
    def __init__(self) -> None:
        self.slots: list[_Slots] = []
        self.emptying = False


class _Apart:
    """Stands in a node's metadata and frees what feeds the node after it, not inside it.

    It holds nothing but what the node holds itself.
    """

    __slots__ = ("_slots",)
    _pending = _Pending()

    def __init__(self, slots: _Slots) -> None:
        self._slots = slots

    def __del__(self) -> None:
        pending = self._pending
        pending.slots.append(self._slots)
        if pending.emptying:
            return
        pending.emptying = True
        try:
            while pending.slots:
                pending.slots.pop()
        finally:
            pending.emptying = False


def _free_apart(node: Node, slots: _Slots) -> None:
    node.metadata["blitz_helpers"] = _Apart(slots)  # type: ignore[index]  # a dict, stubbed wrongly
