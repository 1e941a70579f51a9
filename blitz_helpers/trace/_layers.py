"""Which argument of a layer decides a size, and the shapes of its weights with another one."""

from __future__ import annotations

from typing import Any

from torch import nn

from blitz_helpers._torch import ConvNd, ConvTransposeNd, NormBase
from blitz_helpers.trace._changes import ModelChange

Settings = dict[str, Any]
Shapes = dict[str, tuple[int, ...] | None]
NOTHING: tuple[Settings, Shapes] = ({}, {})


def takes(path: str, module: nn.Module | None, size: int, noun: str) -> ModelChange | None:
    """Return the change with which a layer takes ``size`` channels or features."""
    return _change(path, *_taking(module, size, noun))


def makes(path: str, module: nn.Module | None, size: int, where: str) -> ModelChange | None:
    """Return the change with which a layer makes ``size`` channels or features."""
    return _change(path, *_making(module, size), where)


def sets(path: str, where: str = "", **settings: Any) -> ModelChange:
    """Return the change of settings that no weight depends on."""
    plain = ", ".join(f"{key}={_plain(value)}" for key, value in settings.items())
    each = tuple((path, name, value) for name, value in settings.items())
    return ModelChange(each, (), f"{plain} in {where}" if where else plain)


def _change(path: str, settings: Settings, shapes: Shapes, where: str = "") -> ModelChange | None:
    if not settings:
        return None
    shown = {"embed_dim": settings["embed_dim"]} if "embed_dim" in settings else settings
    named = {key: value for key, value in shown.items() if key[0] != "_"}
    text = ", ".join(f"{key}={value}" for key, value in named.items())
    return ModelChange(
        tuple((path, name, value) for name, value in settings.items()),
        tuple((f"{path}.{name}".lstrip("."), shape) for name, shape in shapes.items()),
        f"{text} in {where}" if where else text,
    )


def _plain(value: Any) -> Any:
    """Return one number for a tuple that repeats it, as torch's layers take both."""
    return value[0] if isinstance(value, tuple) and len(set(value)) == 1 else value


def _present(module: Any, *names: str) -> list[str]:
    return [name for name in names if getattr(module, name, None) is not None]


def _taking(module: nn.Module | None, size: int, noun: str) -> tuple[Settings, Shapes]:
    match module:
        case nn.Linear():
            return {"in_features": size}, {"weight": (module.out_features, size)}
        case ConvNd():
            return _conv_taking(module, size)
        case NormBase():
            names = _present(module, "weight", "bias", "running_mean", "running_var")
            return {"num_features": size}, dict.fromkeys(names, (size,))
        case nn.GroupNorm() if size % module.num_groups == 0:
            names = _present(module, "weight", "bias")
            return {"num_channels": size}, dict.fromkeys(names, (size,))
        case nn.LayerNorm() | nn.RMSNorm() if len(module.normalized_shape) == 1:
            names = _present(module, "weight", "bias")
            return {"normalized_shape": (size,)}, dict.fromkeys(names, (size,))
        case nn.RNNBase() | nn.RNNCellBase():
            names = [n for n, _ in module.named_parameters() if n.startswith("weight_ih")]
            first = [n for n in names if "_l" not in n or n.startswith("weight_ih_l0")]
            return {"input_size": size}, {n: (getattr(module, n).shape[0], size) for n in first}
        case nn.PReLU():
            return {"num_parameters": size}, {"weight": (size,)}
        case nn.MultiheadAttention():
            return _attention_taking(module, size, noun)
        case nn.Bilinear():
            place = 1 if noun.endswith("1") else 2
            shape = list(module.weight.shape)
            shape[place] = size
            return {f"in{place}_features": size}, {"weight": tuple(shape)}
    return NOTHING


def _conv_taking(module: ConvNd, size: int) -> tuple[Settings, Shapes]:
    kernel, groups, out = tuple(module.kernel_size), module.groups, module.out_channels
    settings: Settings = {"in_channels": size}
    if size % groups:
        depthwise = groups == module.in_channels and out % size == 0
        if not depthwise:
            return NOTHING
        groups = settings["groups"] = size
    if isinstance(module, ConvTransposeNd):
        return settings, {"weight": (size, out // groups, *kernel)}
    return settings, {"weight": (out, size // groups, *kernel)}


def _attention_taking(
    module: nn.MultiheadAttention, size: int, noun: str
) -> tuple[Settings, Shapes]:
    embed, alike = module.embed_dim, module._qkv_same_embed_dim
    if noun.endswith("query"):
        if size % module.num_heads or not alike:
            return NOTHING
        settings: Settings = dict.fromkeys(("embed_dim", "kdim", "vdim"), size)
        settings["head_dim"] = size // module.num_heads
        shapes: Shapes = {"in_proj_weight": (3 * size, size), "out_proj.weight": (size, size)}
        if module.in_proj_bias is not None:
            shapes |= {"in_proj_bias": (3 * size,), "out_proj.bias": (size,)}
        return settings, shapes
    name = "kdim" if noun.endswith("key") else "vdim"
    if not alike:
        return {name: size}, {f"{name[0]}_proj_weight": (embed, size)}
    shapes = {"in_proj_weight": None, "q_proj_weight": (embed, embed)}
    shapes |= {"k_proj_weight": (embed, size), "v_proj_weight": (embed, size)}
    return {"kdim": size, "vdim": size, "_qkv_same_embed_dim": False}, shapes


def _making(module: nn.Module | None, size: int) -> tuple[Settings, Shapes]:
    bias: Shapes = {"bias": (size,)} if _present(module, "bias") else {}
    match module:
        case nn.Linear():
            return {"out_features": size}, {"weight": (size, module.in_features), **bias}
        case ConvNd() if size % module.groups == 0:
            inside, outside = module.in_channels // module.groups, size // module.groups
            pair = (module.in_channels, outside)
            pair = pair if isinstance(module, ConvTransposeNd) else (size, inside)
            return {"out_channels": size}, {"weight": (*pair, *module.kernel_size), **bias}
        case nn.Embedding():
            return {"embedding_dim": size}, {"weight": (module.num_embeddings, size)}
        case nn.RNNBase() if not module.proj_size and size % (1 + module.bidirectional) == 0:
            return _recurrent_making(module, size // (1 + module.bidirectional), size)
    return NOTHING


def _recurrent_making(module: nn.RNNBase, hidden: int, size: int) -> tuple[Settings, Shapes]:
    gates = {"LSTM": 4, "GRU": 3}.get(module.mode, 1) * hidden
    shapes: Shapes = {}
    for name, _ in module.named_parameters():
        inside = module.input_size if "_l0" in name else size
        columns = inside if name.startswith("weight_ih") else hidden
        shapes[name] = (gates,) if name.startswith("bias") else (gates, columns)
    return {"hidden_size": hidden}, shapes
