"""Finds the owner of a node: the parameter behind a leaf, the module behind an operation."""

from __future__ import annotations

from torch import nn

from blitz_helpers.graph._labels import require_module


def parameters_of(model: nn.Module | None) -> dict[int, tuple[str, list[str]]]:
    """Map the ``id`` of each parameter to its first dotted name and the modules that own it."""
    known: dict[int, tuple[str, list[str]]] = {}
    if model is None:
        return known
    require_module(model)
    for path, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                first_name = f"{path}.{name}" if path else name
                known.setdefault(id(parameter), (first_name, []))[1].append(path)
    return known


def common_owner(feeding: list[list[str]]) -> str:
    """Return the module that owns all of the parameters; if none does, an owner of the first.

    A tied weight has several owners, and the bias beside it tells which one ran.
    """
    first, *others = feeding
    if len(first) == 1:
        return first[0]
    common = (module for module in first if all(module in owners for owners in others))
    return next(common, first[0])


def require_a_frozen_parameter(model: nn.Module) -> None:
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
