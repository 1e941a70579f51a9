"""Checks what a plot is given, and says what it expects."""

from __future__ import annotations

from collections.abc import Mapping
from operator import index
from typing import TYPE_CHECKING, Any

import torch

from blitz_helpers._extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike


def require_axes(ax: Axes) -> Axes:
    """Return ``ax``, or raise a TypeError if it is something else."""
    if not isinstance(ax, require("matplotlib.axes", extra="plotting").Axes):
        raise TypeError(
            f"ax is a {type(ax).__name__}: expected the Axes of matplotlib. "
            "Use those of plt.subplots(): _, ax = plt.subplots()."
        )
    return ax  # type: ignore[no-any-return]  # `require` returns Any, which narrows `ax` to it


def require_record(record: object, name: str, kind: str, source: str) -> None:
    """Raise a TypeError unless ``record`` is of the class called ``kind``.

    Only the name is compared, so that a plot imports nothing of what makes its records.

    >>> require_record(0.5, "history", "History", "fit(...)")
    Traceback (most recent call last):
        ...
    TypeError: history is a float: expected a History. Use what fit(...) returns.
    """
    if kind not in (cls.__name__ for cls in type(record).__mro__):
        article = "an" if kind[0] in "AE" else "a"
        raise TypeError(
            f"{name} is a {type(record).__name__}: expected {article} {kind}. "
            f"Use what {source} returns."
        )


def require_mapping(given: object, name: str, example: str) -> None:
    """Raise a TypeError unless ``given`` maps names to something."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{name} is a {type(given).__name__}: expected a dict, such as {example}.")


def whole_pair(numbers: Any) -> tuple[int, int] | None:
    """Return two whole numbers, of any library, as ints; ``None`` for anything else.

    >>> whole_pair((torch.tensor(3), 4)), whole_pair((3, 0.5)), whole_pair(3)
    ((3, 4), None, None)
    """
    try:
        first, second = (index(number) for number in numbers if not isinstance(number, bool))
    except (TypeError, ValueError):
        return None
    return first, second


def checked(
    name: str,
    numbers: torch.Tensor | ArrayLike,
    shape: str,
    advice: str = "",
    problem: str = "cannot be drawn",
) -> torch.Tensor:
    """Return ``numbers`` in float64, on the CPU and without a graph.

    ``shape`` is written as the error shows it. A number in it stands for a size, and a name for
    any size of 1 or more.

    Raises:
        ValueError: the numbers have another shape, are complex, or on the meta device.
        TypeError: they are not numbers.

    >>> checked("image", [[0.0, 1.0]], "(H, W)").shape
    torch.Size([1, 2])
    """
    numbers = as_tensor(name, numbers)
    expected = shape.strip("(),").split(", ")
    fits = numbers.ndim == len(expected) and all(
        str(size) == wanted if wanted.isdigit() else size
        for size, wanted in zip(numbers.shape, expected, strict=True)
    )
    if not fits:
        given = f"{name} of shape {tuple(numbers.shape)} {problem}"
        raise ValueError(f"{given}: {shape} is expected. {advice}".rstrip())
    return numbers.detach().cpu().double()


def as_tensor(name: str, numbers: torch.Tensor | ArrayLike) -> torch.Tensor:
    """Return ``numbers`` as a tensor, or raise an error if they are not real numbers."""
    if not isinstance(numbers, torch.Tensor):
        try:
            array = require("numpy", extra="plotting").array(numbers)
            array = array if array.dtype.kind == "c" else array.astype(float)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{name} is a {type(numbers).__name__} that cannot be drawn: expected a tensor, or "
                f"an array or nested lists of numbers. ({error})"
            ) from error
        numbers = torch.from_numpy(array)
    if numbers.is_complex():
        raise ValueError(f"{name} is complex: draw its abs().")
    if numbers.is_meta:
        raise ValueError(f"{name} is on the meta device: draw data.")
    return numbers
