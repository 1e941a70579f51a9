"""Layers of other sizes. A new layer on ``meta`` shows which weights and settings change."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from blitz_helpers._torch import ConvNd, NormBase
from blitz_helpers.trace._changes import ModelChange

# The arguments that set how many channels or features a layer takes, and how many it makes.
_TAKES: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.Linear, "in_features"),
    (ConvNd, "in_channels"),
    (NormBase, "num_features"),
    (nn.GroupNorm, "num_channels"),
    (nn.LayerNorm, "normalized_shape"),
    (nn.RMSNorm, "normalized_shape"),
    (nn.RNNBase, "input_size"),
    (nn.RNNCellBase, "input_size"),
    (nn.PReLU, "num_parameters"),
)
_MAKES: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.Linear, "out_features"),
    (ConvNd, "out_channels"),
    (nn.Embedding, "embedding_dim"),
    (nn.RNNBase, "hidden_size"),
)


def takes(path: str, module: nn.Module | None, size: int, noun: str) -> ModelChange | None:
    """Return the change that makes a layer take ``size`` channels or features."""
    if isinstance(module, nn.MultiheadAttention):
        alike = module._qkv_same_embed_dim
        if noun.endswith("query"):
            follow = {"kdim": None, "vdim": None} if alike else {}
            return remade(path, module, {"embed_dim": size} | follow, f"embed_dim={size}")
        names = ("kdim", "vdim") if alike else ("kdim" if noun.endswith("key") else "vdim",)
        return remade(path, module, dict.fromkeys(names, size))
    if isinstance(module, nn.Bilinear):
        return remade(path, module, {f"in{1 if noun.endswith('1') else 2}_features": size})
    if noun.endswith("state"):
        return remade(path, module, {"hidden_size": size})
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        several = len(module.normalized_shape) > 1
        return None if several else remade(path, module, {"normalized_shape": (size,)})
    name = next((name for kind, name in _TAKES if isinstance(module, kind)), "")
    if isinstance(module, ConvNd) and module.groups == module.in_channels > 1:
        return remade(path, module, {"in_channels": size, "groups": size})  # one filter per channel
    return remade(path, module, {name: size}) if name else None


def makes(path: str, module: Any, got: int, wants: int, where: str) -> ModelChange | None:
    """Return the change that makes a layer output as much more as ``wants`` is more than ``got``.

    What the layer made may have been cut, into heads or into queries, keys and values.
    """
    name = next((name for kind, name in _MAKES if isinstance(module, kind)), "")
    makes_now = vars(module)[name] if name else 0
    if not makes_now or getattr(module, "proj_size", False) or makes_now * wants % got:
        return None
    size = makes_now * wants // got
    return remade(path, module, {name: size}, f"{name}={size} in {where}")


def sets(path: str, where: str = "", **settings: Any) -> ModelChange:
    """Return a change of settings on which no weight depends."""
    plain = {
        name: value[0] if isinstance(value, tuple) and len(set(value)) == 1 else value
        for name, value in settings.items()
    }
    each = tuple((path, name, value) for name, value in settings.items())
    return ModelChange(each, (), _named(plain) + (f" in {where}" if where else ""))


def _named(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in arguments.items())


def remade(path: str, module: Any, arguments: dict[str, Any], text: str = "") -> ModelChange | None:
    """Return the change that turns a layer into one with other arguments, if torch can make it."""
    if any(map(nn.parameter.is_lazy, module.parameters())):
        return None
    kind = next(c for c in type(module).__mro__ if c.__module__.startswith("torch.nn.modules"))
    signature = inspect.signature(nn.RNNBase if isinstance(module, nn.RNNBase) else kind)
    given = {
        name: value
        for name, parameter in signature.parameters.items()
        if name != "mode" and (value := _argument(module, name)) != parameter.default
    }
    try:
        twin = kind(**(given | arguments), device="meta")
    except (ValueError, AssertionError):  # groups or heads that do not divide the size
        return None
    settings = tuple(
        (path, name, value)
        for name, value in vars(twin).items()
        if name != "training" and isinstance(value, int | tuple) and value != getattr(module, name)
    )
    if isinstance(module, nn.RNNBase):
        settings += ((path, "_flat_weights_names", tuple(twin._flat_weights_names)),)
    return ModelChange(
        settings, tuple(_other_tensors(path, module, twin)), text or _named(arguments)
    )


def _argument(module: Any, name: str) -> Any:
    """Return the argument that a layer was made with; for a bias, whether it has one."""
    own = {"bias": "in_proj_bias", "add_bias_kv": "bias_k"}
    name = own.get(name, name) if isinstance(module, nn.MultiheadAttention) else name
    value = getattr(module, name, None)
    return value is not None if "bias" in name and not isinstance(value, bool) else value


def _other_tensors(path: str, module: nn.Module, twin: nn.Module) -> Any:
    for inner, part in twin.named_modules():
        own = module.get_submodule(inner)
        for new, old in ((part._parameters, own._parameters), (part._buffers, own._buffers)):
            for name, tensor in new.items():
                shape = None if tensor is None else tuple(tensor.shape)
                before: Tensor | None = old.get(name)
                if shape != (None if before is None else tuple(before.shape)):
                    yield ".".join(filter(None, (path, inner, name))), shape
