"""A training saved in a file, whole or not at all, and put back from it."""

from __future__ import annotations

import os
from collections.abc import Callable, MutableMapping, Sized
from pathlib import Path
from typing import Any

import torch
from torch import nn


def check_writable(path: Path) -> None:
    """Raise an ``OSError`` now, and not after the first epoch."""
    if path.is_dir():
        raise IsADirectoryError(f"checkpoint={str(path)!r} is a folder. Name a file in it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _beside(path)
    part.touch()
    part.unlink()


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _memory(step: Callable[..., object]) -> dict[str, MutableMapping[Any, Any]]:
    """Return what an update rule remembers: the dicts that ``functools.partial`` bound to it."""
    keywords = getattr(step, "keywords", {})
    return {name: value for name, value in keywords.items() if isinstance(value, MutableMapping)}


def _generators(loader: Sized) -> list[torch.Generator]:
    """Return what the order of the batches is drawn from, beside torch's own random state."""
    owners = (loader, getattr(loader, "sampler", None))
    found = [getattr(owner, "generator", None) for owner in owners]
    return list(dict.fromkeys(generator for generator in found if generator is not None))


def save_checkpoint(
    path: Path,
    module: nn.Module,
    step: Callable[..., object],
    loader: Sized,
    record: dict[str, list[float]],
) -> None:
    names = {w: name for name, w in module.named_parameters()}
    memory = {
        keyword: {names.get(key, key): value for key, value in mapping.items()}
        for keyword, mapping in _memory(step).items()
    }
    checkpoint = {
        "model": module.state_dict(),
        "memory": memory,
        "record": record,
        "steps_per_epoch": len(loader),
        "random": [torch.get_rng_state(), *(g.get_state() for g in _generators(loader))],
    }
    part = _beside(path)
    try:
        with part.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave an empty file under the name
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load_checkpoint(
    path: Path, module: nn.Module, step: Callable[..., object], loader: Sized
) -> dict[str, list[float]]:
    """Put everything back as it was saved, once all of it is found to fit."""
    device = next((w.device for w in module.parameters()), None)
    with path.open("rb") as file:
        try:
            checkpoint = torch.load(file, map_location=device, weights_only=True)
            model, memory = checkpoint["model"], checkpoint["memory"]
            record: dict[str, list[float]] = checkpoint["record"]
            random, steps_per_epoch = checkpoint["random"], checkpoint["steps_per_epoch"]
        except Exception as error:  # a damaged file can fail in any way, as an OSError too
            raise ValueError(
                f"{path} is damaged, or no checkpoint that fit wrote. Use an earlier one, or start "
                "without resume_from."
            ) from error

    ours, theirs = (_shapes(state) for state in (module.state_dict(), model))
    for name in ours | theirs:
        if ours.get(name) != theirs.get(name):
            raise ValueError(
                f"{path} is of another network: {name} is {theirs.get(name, 'missing')} there and "
                f"{ours.get(name, 'missing')} here. Build the model as it was then."
            )
    generators = [torch.default_generator, *_generators(loader)]
    if memory.keys() != _memory(step).keys() or len(random) != len(generators):
        raise ValueError(
            f"{path} was written with another update rule or loader: it remembers "
            f"{', '.join(memory) or 'nothing'} and {len(random)} random states, step has "
            f"{', '.join(_memory(step)) or 'nothing'} and the loader {len(generators)}. Bind and "
            "build them as they were then."
        )
    if steps_per_epoch != len(loader):
        raise ValueError(
            f"{path} was written with {steps_per_epoch} batches an epoch, the loader has "
            f"{len(loader)}. Use the same dataset and batch size."
        )

    module.load_state_dict(model)
    parameters = dict(module.named_parameters())
    for keyword, mapping in _memory(step).items():
        mapping.clear()
        mapping.update({parameters.get(k, k): value for k, value in memory[keyword].items()})
    for generator, state in zip(generators, random, strict=True):
        generator.set_state(state.cpu())
    return record


def _shapes(state: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items() if hasattr(value, "shape")}
