"""Reads the file of an offline run of Weights & Biases, record by record."""

from __future__ import annotations

import json
import warnings
import zlib
from pathlib import Path
from typing import Any

from blitz_helpers._extras import require

_START = b":W&B\xe1\xbe\x00"  # type of file, magic number, version 0
_BLOCK = 32 * 1024
_HEADER = 7  # checksum (4 bytes), length (2), kind of piece (1)
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def read_records(file: Path) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
    """Return the logged values, one dict per step, and the settings and summary of the run.

    If the file ends in the middle of a record, everything before it is returned, with a warning.

    Raises:
        ValueError: it is not such a file, or it is damaged: a checksum does not match.
    """
    records, is_cut_off = _records(file)
    if is_cut_off:
        warnings.warn(
            f"{file} ends in the middle of a record: the run was killed, or the file is cut off. "
            "Everything logged before that is returned.",
            stacklevel=3,
        )
    if not records:
        raise ValueError(
            f"{file} holds no records: its run is still open, or ended before wandb wrote any. "
            "Finish the run first."
        )
    record_type = _record_type()
    rows: list[dict[str, Any]] = []
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    for data in records:
        record = record_type.FromString(data)
        match record.WhichOneof("record_type"):
            case "history":
                rows.append({})
                _put(record.history.item, rows[-1])
            case "run":  # it holds the first settings; later ones come separately
                _put(record.run.config.update, config)
            case "config":
                _put(record.config.update, config)
                _remove(record.config.remove, config)
            case "summary":
                _put(record.summary.update, summary)
                _remove(record.summary.remove, summary)
    config.pop("_wandb", None)
    summary.pop("_wandb", None)
    return rows, config, summary


def is_finished(file: Path) -> bool:
    """Return whether the file is complete; wandb may still be writing after a run has ended."""
    try:
        records, _ = _records(file)
    except (OSError, ValueError):  # it does not exist yet, or lacks its first bytes
        return False
    return bool(records) and _record_type().FromString(records[-1]).HasField("exit")


def _record_type() -> Any:
    return require("wandb.proto.wandb_internal_pb2", extra="tracking").Record


def _records(file: Path) -> tuple[list[bytes], bool]:
    """Return the records of a file, and whether it ends in the middle of another one.

    Source: LevelDB, "Log format", with the CRC-32 of zlib, as wandb 0.31 writes it.
    """
    data = file.read_bytes()
    if not data.startswith(_START):
        raise ValueError(f"{file} is not a run that wandb can read: its first bytes do not fit.")
    records: list[bytes] = []
    started: bytes | None = None  # the pieces of a record so far; the first may be empty
    at = len(_START)
    while at < len(data):
        left = _BLOCK - at % _BLOCK
        if left < _HEADER:  # too short for a piece: padding
            at += left
            continue
        checksum, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 6], "little")
        end = at + _HEADER + length
        if end > len(data) and end - at <= left:
            return records, True
        kind_and_piece = data[at + 6 : end]
        fits = zlib.crc32(kind_and_piece).to_bytes(4, "little") == checksum
        kind = kind_and_piece[0] if fits else 0
        begins = kind in (_WHOLE, _FIRST)
        if kind not in (_WHOLE, _FIRST, _MIDDLE, _LAST) or begins == (started is not None):
            raise ValueError(
                f"{file} is damaged at byte {at:,} of {len(data):,}: the record there does not "
                "match its checksum. Use another copy of the file."
            )
        started = (started or b"") + kind_and_piece[1:]
        if kind in (_WHOLE, _LAST):
            records.append(started)
            started = None
        at = end
    return records, started is not None


def _put(items: Any, into: dict[str, Any]) -> None:
    """Put the values of a record into a dict, nested as they were logged."""
    for item in items:
        *outer, last = item.nested_key or [item.key]
        inner = into
        for key in outer:
            if not isinstance(inner.get(key), dict):
                inner[key] = {}
            inner = inner[key]
        inner[last] = json.loads(item.value_json)


def _remove(items: Any, inside: dict[str, Any]) -> None:
    """Remove what a record says was removed."""
    for item in items:
        *outer, last = item.nested_key or [item.key]
        inner: Any = inside
        for key in outer:
            inner = inner.get(key, {})
        inner.pop(last, None)
