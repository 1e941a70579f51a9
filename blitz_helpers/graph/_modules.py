"""Finds the owner of a node: the parameter behind a leaf, the module behind an operation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from blitz_helpers.graph._kinds import Kind
from blitz_helpers.graph._labels import labelled_modules, require_module

_Names = list[str | None]


def find_owners(
    model: nn.Module | None,
    nodes: Sequence[Any],
    kinds: Sequence[Kind],
    inputs: Sequence[Sequence[int | None]],
) -> tuple[_Names, _Names]:
    """Return the parameter of each node and its module, as far as they are known.

    The module is the one that was running, if that was recorded; otherwise the owner of the
    parameters that feed the node, directly or through views. Every node comes before its inputs.
    """
    parameters: _Names = [None] * len(nodes)
    modules = labelled_modules(model, nodes, inputs)
    if model is None:
        return parameters, modules
    known = _parameters_of(model)
    owners: list[list[str] | None] = [None] * len(nodes)
    for number in reversed(range(len(nodes))):
        if kinds[number].is_leaf:
            found = known.get(id(nodes[number].variable))
            if found is not None:
                parameters[number], owners[number] = found
                modules[number] = found[1][0]
            continue
        above = (owners[source] for source in inputs[number] if source is not None)
        feeding = [owned_by for owned_by in above if owned_by is not None]
        if feeding:
            if kinds[number].is_view:
                owners[number] = feeding[0]
            if modules[number] is None:
                modules[number] = _common_owner(feeding)
    if all(module is None for module in modules):
        _require_a_frozen_parameter(model)
    return parameters, modules


def _parameters_of(model: nn.Module) -> dict[int, tuple[str, list[str]]]:
    """Map the ``id`` of each parameter to its first dotted name and the modules that own it."""
    require_module(model)
    known: dict[int, tuple[str, list[str]]] = {}
    for path, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                first_name = f"{path}.{name}" if path else name
                known.setdefault(id(parameter), (first_name, []))[1].append(path)
    return known


def _common_owner(feeding: list[list[str]]) -> str:
    """Return the module that owns all of the parameters; if none does, an owner of the first.

    A tied weight has several owners, and the bias beside it tells which one ran.
    """
    first, *others = feeding
    common = (module for module in first if all(module in owners for owners in others))
    return next(common, first[0])


def _require_a_frozen_parameter(model: nn.Module) -> None:
    """Raise a ``ValueError`` if a model that owns nothing in a graph cannot have computed it.

    A frozen parameter has no leaf, so a model with frozen parameters may have computed the output.
    """
    parameters = list(model.parameters())
    if all(parameter.requires_grad for parameter in parameters):
        kind = type(model).__name__ + ("" if parameters else " without parameters")
        raise ValueError(
            f"model is a {kind} that owns no leaf of this graph: no gradient of output reaches its "
            "parameters. Pass the model that computed output (not a copy of it, and not frozen or "
            "under no_grad at that time), or none."
        )
