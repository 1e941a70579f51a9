"""Saves a training to a file, completely or not at all, and restores it."""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from blitz_helpers.training._encoding import decode, encode
from blitz_helpers.training._history import Record
from blitz_helpers.training._processes import from_all, from_first, rank
from blitz_helpers.training._state import State

_VERSION = 4
_MARK = b"blitz_helpers"  # followed at the end of a file by the digest of all that precedes


class Checkpoints:
    """Reads and writes the checkpoints of one training.

    The first process reads and writes; random states are those of all processes.
    """

    def __init__(self, module: nn.Module, state: State) -> None:
        self._module, self._state = module, state

    def save(self, path: Path, record: Record) -> None:
        random = from_all({name: source.get() for name, source in self._state.random.items()})
        if rank() != 0:
            return
        names = {id(w): name for name, w in self._state.parameters().items()}
        model = self._module.state_dict()
        for name, value in model.items():  # in place, since it also holds the modules' versions
            model[name] = encode(value, f"the model's {name}", {})
        memory = self._state.memory()
        _write_file(
            path,
            {
                "version": _VERSION,
                "model": model,
                "variables": encode(self._state.variables.changed(), "a variable", names),
                "memory": {n: encode(source.get(), n, names) for n, source in memory.items()},
                "record": asdict(record),
                "generators": list(self._state.generators),
                "random": encode(random, "random", {}),
            },
        )

    def load(self, path: Path, steps_per_epoch: int) -> dict[str, Any]:
        """Return the first process's checkpoint after checking all of it; restore nothing yet.

        Raises:
            ValueError: it is damaged, or from another training.
        """
        data, error = b"", None
        if rank() == 0:
            try:
                data = _read_file(path)
            except (OSError, ValueError) as failure:
                error = failure
        data, error = from_first((data, error))
        if error is not None:
            raise error
        device = next((w.device for w in self._module.parameters()), None)
        found: dict[str, Any] = torch.load(io.BytesIO(data), device, weights_only=True)
        if found["version"] != _VERSION:
            raise ValueError(
                f"{path} was written by another version of blitz_helpers: its layout is "
                f"{found['version']!r}, {_VERSION} is expected. Resume with that version, or "
                "start anew."
            )
        self._check(path, found, steps_per_epoch)
        return found

    def restore(self, found: dict[str, Any]) -> None:
        parameters = self._state.parameters()
        model = found["model"]
        for name, kept in model.items():
            model[name] = decode(kept, {})
        self._module.load_state_dict(model)
        memory = self._state.memory()
        for name, kept in found["memory"].items():
            memory[name].set(decode(kept, parameters))
        self._state.variables.restore(found["variables"])
        of_processes = decode(found["random"], {})
        random = of_processes[rank() if rank() < len(of_processes) else 0]
        for name in random.keys() & self._state.random.keys():  # not every machine has a GPU
            self._state.random[name].set(random[name])

    def _check(self, path: Path, found: dict[str, Any], steps_per_epoch: int) -> None:
        model, saved = self._module.state_dict(), found["model"]
        for name in model | saved:
            if name in model and is_lazy(model[name]):
                continue
            here, there = _kind(model.get(name)), _kind(saved.get(name))
            for mine, other in zip(here, there, strict=False):
                if mine != other:
                    raise ValueError(
                        f"{path} is of another network: {name} is {other} there and {mine} here. "
                        "Build the model as it was then."
                    )
        theirs, ours = set(found["memory"]), set(self._state.memory())
        if theirs == ours:
            found["variables"] = decode(found["variables"], self._state.parameters())
            theirs |= self._state.variables.lacking(found["variables"])
        if theirs != ours:
            raise ValueError(
                f"{path} was written with another update rule: it remembers {_listed(theirs)} for "
                f"it, step has {_listed(ours)}. Bind what it remembers as it was bound then."
            )
        generators = set(found["generators"])
        if generators != set(self._state.generators):
            raise ValueError(
                f"{path} was written with another loader, model or rule: it keeps the random "
                f"states of {_listed(generators)}, here are {_listed(set(self._state.generators))}."
                " Build them as they were then."
            )
        promised = found["record"]["promised"]
        if promised != steps_per_epoch:
            raise ValueError(
                f"{path} was written with {promised} batches an epoch, the loader has "
                f"{steps_per_epoch}. Use the same dataset and batch size."
            )


def _kind(value: Any) -> tuple[object, ...]:
    if value is None:
        return ("missing",)
    return (tuple(value.shape), value.dtype) if isinstance(value, torch.Tensor) else ("no tensor",)


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def check_writable(path: Path) -> None:
    """Raise an ``OSError`` now instead of after the first epoch."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"checkpoint={str(path)!r} is a folder. Name a file in it.")
    if target.is_symlink():  # which was followed, so it leads back to itself
        raise FileExistsError(f"checkpoint={str(path)!r} is a link to itself. Name a file.")
    if target.exists() and not target.is_file():
        raise FileExistsError(f"checkpoint={str(path)!r} is not a file. Name a file.")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = _beside(target)
    part.touch(exist_ok=False)
    part.unlink()


def _beside(path: Path) -> Path:
    # A random name, so that no existing file is overwritten.
    # The start of a long name is enough: a file system allows 255 bytes.
    return path.with_name(f"{path.name[:40]}.{secrets.token_hex(4)}.part")


def _write_file(path: Path, checkpoint: dict[str, Any]) -> None:
    path = Path(os.path.realpath(path))  # follow a link to its file
    part = _beside(path)
    try:
        with part.open("x+b") as file:
            torch.save(checkpoint, file)
            file.seek(0)
            # A file that cannot be read back must not replace one that can.
            torch.load(file, map_location="meta", weights_only=True)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").digest()
            file.seek(0, os.SEEK_END)
            file.write(_MARK + digest)
            file.flush()
            os.fsync(file.fileno())  # otherwise a power cut could leave an empty file
        if path.exists():
            shutil.copymode(path, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _read_file(path: Path) -> bytes:
    """Return what ``torch.save`` wrote, after checking every bit against the digest."""
    saved, mark, digest = path.read_bytes().rpartition(_MARK)
    if not mark or hashlib.sha256(saved).digest() != digest:
        raise ValueError(
            f"{path} is damaged, or was not written by fit. Use an earlier one, or start without "
            "resume_from."
        )
    return saved
