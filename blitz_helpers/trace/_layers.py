"""Which argument of a layer decides a size, and the shapes of its weights with another one."""

from __future__ import annotations

from typing import Any

from torch import nn

from blitz_helpers._torch import ConvNd, ConvTransposeNd, NormBase
from blitz_helpers.trace._remedies import LayerChange

Settings = tuple[tuple[str, Any], ...]
Shapes = tuple[tuple[str, tuple[int, ...] | None], ...]


def takes(
    path: str, module: nn.Module | None, size: int, noun: str, where: str
) -> LayerChange | None:
    """Return the change with which a layer takes ``size`` channels or features."""
    settings, shapes = _taking(module, size, noun)
    return _change(path, settings, shapes, where)


def makes(path: str, module: nn.Module | None, size: int, where: str) -> LayerChange | None:
    """Return the change with which a layer makes ``size`` channels or features."""
    settings, shapes = _making(module, size)
    return _change(path, settings, shapes, where)


def sets(path: str, where: str, **settings: Any) -> LayerChange:
    """Return the change of settings that no weight depends on."""
    change = _change(path, tuple(settings.items()), (), where)
    assert change is not None  # there are settings
    return change


def _change(path: str, settings: Settings, shapes: Shapes, where: str) -> LayerChange | None:
    if not settings:
        return None
    shown = settings[:1] if settings[0][0] == "embed_dim" else settings  # the rest follows from it
    named = ", ".join(f"{key}={value}" for key, value in shown if key[0] != "_")
    return LayerChange(path, settings, shapes, named + (f" in {where}" if where else ""))


def _taking(module: nn.Module | None, size: int, noun: str) -> tuple[Settings, Shapes]:
    if isinstance(module, nn.Linear):
        return (("in_features", size),), (("weight", (module.out_features, size)),)
    if isinstance(module, ConvNd):
        return _conv_taking(module, size)
    if isinstance(module, NormBase):
        names = ("weight", "bias", "running_mean", "running_var")
        present = [name for name in names if getattr(module, name) is not None]
        return (("num_features", size),), tuple((name, (size,)) for name in present)
    if isinstance(module, nn.GroupNorm):
        if size % module.num_groups:
            return (), ()
        present = [name for name in ("weight", "bias") if getattr(module, name) is not None]
        return (("num_channels", size),), tuple((name, (size,)) for name in present)
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        if len(module.normalized_shape) != 1:
            return (), ()
        present = [n for n in ("weight", "bias") if getattr(module, n, None) is not None]
        return (("normalized_shape", (size,)),), tuple((name, (size,)) for name in present)
    if isinstance(module, nn.RNNBase):
        first = [name for name, _ in module.named_parameters() if name.startswith("weight_ih_l0")]
        shapes = tuple((name, (getattr(module, name).shape[0], size)) for name in first)
        return (("input_size", size),), shapes
    if isinstance(module, nn.RNNCellBase):
        return (("input_size", size),), (("weight_ih", (module.weight_ih.shape[0], size)),)
    if isinstance(module, nn.PReLU):
        return (("num_parameters", size),), (("weight", (size,)),)
    if isinstance(module, nn.MultiheadAttention):
        return _attention_taking(module, size, noun)
    if isinstance(module, nn.Bilinear):
        place = 1 if noun.endswith("1") else 2
        shape = list(module.weight.shape)
        shape[place] = size
        return ((f"in{place}_features", size),), (("weight", tuple(shape)),)
    return (), ()


def _conv_taking(module: ConvNd, size: int) -> tuple[Settings, Shapes]:
    kernel, groups, out = tuple(module.kernel_size), module.groups, module.out_channels
    settings: Settings = (("in_channels", size),)
    if size % groups:
        depthwise = groups == module.in_channels and out % size == 0
        if not depthwise:
            return (), ()
        groups = size
        settings += (("groups", groups),)
    if isinstance(module, ConvTransposeNd):
        return settings, (("weight", (size, out // groups, *kernel)),)
    return settings, (("weight", (out, size // groups, *kernel)),)


def _attention_taking(
    module: nn.MultiheadAttention, size: int, noun: str
) -> tuple[Settings, Shapes]:
    embed = module.embed_dim
    if noun.endswith("query"):
        if size % module.num_heads or not module._qkv_same_embed_dim:
            return (), ()
        shapes: Shapes = (("in_proj_weight", (3 * size, size)),)
        if module.in_proj_bias is not None:
            shapes += (("in_proj_bias", (3 * size,)),)
        shapes += (("out_proj.weight", (size, size)),)
        if module.out_proj.bias is not None:
            shapes += (("out_proj.bias", (size,)),)
        settings = (("embed_dim", size), ("kdim", size), ("vdim", size))
        return (*settings, ("head_dim", size // module.num_heads)), shapes
    name = "kdim" if noun.endswith("key") else "vdim"
    if module._qkv_same_embed_dim:
        both = (("kdim", size), ("vdim", size), ("_qkv_same_embed_dim", False))
        apart = (("in_proj_weight", None), ("q_proj_weight", (embed, embed)))
        return both, (*apart, ("k_proj_weight", (embed, size)), ("v_proj_weight", (embed, size)))
    return ((name, size),), ((f"{name[0]}_proj_weight", (embed, size)),)


def _making(module: nn.Module | None, size: int) -> tuple[Settings, Shapes]:
    if isinstance(module, nn.Linear):
        shapes: Shapes = (("weight", (size, module.in_features)),)
        shapes += (("bias", (size,)),) if module.bias is not None else ()
        return (("out_features", size),), shapes
    if isinstance(module, ConvNd):
        kernel, groups = tuple(module.kernel_size), module.groups
        if size % groups:
            return (), ()
        if isinstance(module, ConvTransposeNd):
            weight: tuple[int, ...] = (module.in_channels, size // groups, *kernel)
        else:
            weight = (size, module.in_channels // groups, *kernel)
        shapes = (("weight", weight),)
        shapes += (("bias", (size,)),) if module.bias is not None else ()
        return (("out_channels", size),), shapes
    if isinstance(module, nn.Embedding):
        shape = (module.num_embeddings, size)
        return (("embedding_dim", size),), (("weight", shape),)
    if isinstance(module, nn.RNNBase) and not module.proj_size:
        directions = 2 if module.bidirectional else 1
        if size % directions:
            return (), ()
        return _recurrent_making(module, size // directions, directions)
    return (), ()


def _recurrent_making(module: nn.RNNBase, hidden: int, directions: int) -> tuple[Settings, Shapes]:
    gates = {"LSTM": 4, "GRU": 3}.get(module.mode, 1) * hidden
    shapes: Shapes = ()
    for name, _ in module.named_parameters():
        layer = int(name.split("_l")[1].split("_")[0])
        inside = module.input_size if layer == 0 else hidden * directions
        columns = inside if name.startswith("weight_ih") else hidden
        shapes += ((name, (gates,) if name.startswith("bias") else (gates, columns)),)
    return (("hidden_size", hidden),), shapes
