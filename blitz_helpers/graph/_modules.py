"""Finds the owner of a node: the parameter behind a leaf, the module behind an operation."""

from __future__ import annotations

from torch import nn

from blitz_helpers.graph._labels import require_module

# A parameter may reach the node that uses it through these, as through `T` under every `Addmm`.
VIEWS = frozenset(
    (
        *("alias", "as_strided", "clone", "diagonal", "expand", "narrow", "permute", "select"),
        *("reshape_alias", "slice", "split", "split_with_sizes", "squeeze", "t", "to_copy"),
        *("transpose", "unbind", "unfold", "unsafe_view", "unsqueeze", "view"),
        *("view_as_complex", "view_as_real"),
    )
)


def parameters_of(model: nn.Module | None) -> dict[int, tuple[str, list[str]]]:
    """Map the ``id`` of each parameter to its first dotted name and the modules that own it.

    Raises:
        TypeError: ``model`` is not a module.
    """
    known: dict[int, tuple[str, list[str]]] = {}
    if model is None:
        return known
    require_module(model)
    for path, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            owned = known.get(id(parameter))
            if owned is None:
                known[id(parameter)] = (f"{path}.{name}" if path else name, [path])
            else:  # tied
                owned[1].append(path)
    return known


def owner(feeding: list[list[str]]) -> str:
    """Return the module that owns all of the parameters; if none does, an owner of the first.

    A tied weight has several owners, and the bias beside it tells which one ran.
    """
    first, *others = feeding
    for module in first:
        for owners in others:
            if module not in owners:
                break
        else:
            return module
    return first[0]


def require_a_name(model: nn.Module) -> None:
    """Raise a ``ValueError`` if a model that owns nothing in a graph cannot have computed it.

    A frozen parameter has no leaf, so a model with frozen parameters may have computed the output.
    """
    kind = type(model).__name__
    parameters = list(model.parameters())
    if not parameters:
        raise ValueError(
            f"model is a {kind} without parameters: it owns no leaf of this graph to name. "
            "Pass the graph's model, or none."
        )
    if all(parameter.requires_grad for parameter in parameters):
        raise ValueError(
            f"model is a {kind} that owns no leaf of this graph: no gradient of output reaches its "
            "parameters. Pass the model that computed output (not a copy of it, and not frozen or "
            "under no_grad at that time), or none."
        )
