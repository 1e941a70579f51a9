"""Saves a training to a file, completely or not at all, and restores it."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import secrets
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from blitz_helpers.training._memory import Memory, write
from blitz_helpers.training._processes import from_all, from_first, rank
from blitz_helpers.training._randomness import RandomStates

_VERSION = 1
_MARK = b"blitz_helpers"  # followed at the end of a file by the digest of all that precedes
_DIGEST = "sha256"
_DIGEST_SIZE = hashlib.new(_DIGEST).digest_size


class Checkpoints:
    """Reads and writes the checkpoints of one training.

    ``record`` and the model's state are those of this process; random states, of all processes.
    """

    def __init__(
        self, module: nn.Module, memory: Memory, random: RandomStates, steps_per_epoch: int
    ) -> None:
        self._module, self._memory, self._random = module, memory, random
        self._steps_per_epoch = steps_per_epoch

    def save(self, path: Path | None, record: dict[str, Any]) -> None:
        """Write the file in the first process, with the random states of all processes."""
        random = from_all(self._random.get())
        if path is None or rank() != 0:
            return
        model = self._module.state_dict()
        for name, value in model.items():
            if not isinstance(value, torch.Tensor):
                write(value, f"the model's {name}", {})  # raises if it cannot be read again
        _write_file(
            path,
            {
                "version": _VERSION,
                "model": model,
                "memory": self._memory.get(),
                "record": record,
                "steps_per_epoch": self._steps_per_epoch,
                "random": random,
            },
        )

    def load(self, path: Path | None) -> dict[str, Any] | None:
        """Return the first process's checkpoint after checking all of it; restore nothing yet.

        Raises:
            ValueError: it is damaged, or from another training.
        """
        data, error = None, None
        if path is not None and rank() == 0:
            try:
                data = _read_file(path)
            except (OSError, ValueError) as failure:
                error = failure
        path, data, error = from_first((path, data, error))
        if error is not None:
            raise error
        if data is None:
            return None
        device = next((w.device for w in self._module.parameters()), None)
        try:
            found = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
            version = found["version"]
        except (KeyError, RuntimeError, TypeError, pickle.UnpicklingError) as failure:
            raise ValueError(_damaged(path)) from failure
        if version != _VERSION:
            raise ValueError(
                f"{path} was written by another version of blitz_helpers: its layout is "
                f"{version!r}, {_VERSION} is expected. Resume with that version, or start anew."
            )
        self._check(path, found)
        return dict(found)

    def restore(self, found: dict[str, Any]) -> dict[str, Any]:
        """Restore everything as it was saved, and return the record."""
        self._module.load_state_dict(found["model"])
        self._memory.set(found["memory"])
        random = found["random"]
        self._random.set(random[rank()] if rank() < len(random) else random[0])
        return dict(found["record"])

    def _check(self, path: Path | None, found: dict[str, Any]) -> None:
        ours, theirs = self._module.state_dict(), found["model"]
        for name in ours | theirs:
            if name in ours and is_lazy(ours[name]):
                continue
            for described in (_shape, _dtype):
                here, there = described(ours.get(name)), described(theirs.get(name))
                if here == there:
                    continue
                raise ValueError(
                    f"{path} is of another network: {name} is {there} there and {here} here. "
                    "Build the model as it was then."
                )
        memory, needed = set(found["memory"]), self._memory.needed()
        if not needed <= memory <= self._memory.names():
            raise ValueError(
                f"{path} was written with another update rule: it remembers "
                f"{_listed(memory)} for it, step has {_listed(needed)}. Bind what it remembers "
                "as it was bound then."
            )
        random = set(found["random"][0]) - {"torch", "python", "numpy"}
        random = {name for name in random if not name.startswith("device ")}
        if random != self._random.own:
            raise ValueError(
                f"{path} was written with another loader, model or rule: it keeps the random "
                f"states of {_listed(random)}, here are {_listed(self._random.own)}. "
                "Build them as they were then."
            )
        if found["steps_per_epoch"] != self._steps_per_epoch:
            raise ValueError(
                f"{path} was written with {found['steps_per_epoch']} batches an epoch, the loader "
                f"has {self._steps_per_epoch}. Use the same dataset and batch size."
            )


def check_writable(path: Path) -> None:
    """Raise an ``OSError`` now instead of after the first epoch."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"checkpoint={str(path)!r} is a folder. Name a file in it.")
    if target.exists() and not target.is_file():
        raise FileExistsError(f"checkpoint={str(path)!r} is not a file. Name a file.")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = _beside(target)
    part.touch(exist_ok=False)
    part.unlink()


def _beside(path: Path) -> Path:
    # A random name, so that no existing file is overwritten.
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")


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
            digest = hashlib.file_digest(file, _DIGEST).digest()
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
    data = path.read_bytes()
    end = len(data) - len(_MARK) - _DIGEST_SIZE
    digest = hashlib.new(_DIGEST, memoryview(data)[: max(end, 0)]).digest()
    if end < 0 or data[end:] != _MARK + digest:
        raise ValueError(_damaged(path))
    return data[:end]


def _damaged(path: Path | None) -> str:
    return (
        f"{path} is damaged, or was not written by fit. Use an earlier one, or start "
        "without resume_from."
    )


def _shape(value: Any) -> str:
    if value is None:
        return "missing"
    return str(tuple(value.shape)) if isinstance(value, torch.Tensor) else "no tensor"


def _dtype(value: Any) -> str:
    return str(getattr(value, "dtype", "no tensor"))


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
