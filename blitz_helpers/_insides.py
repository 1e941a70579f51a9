"""Reads what classes and code are made of: slots, and the functions inside a function."""

from __future__ import annotations

from collections.abc import Iterator
from types import CodeType, MemberDescriptorType


def slots_of(kind: type) -> tuple[str, ...]:
    """Return the attribute names behind a type's ``__slots__``.

    >>> class Point:
    ...     __slots__ = ("x", "y")
    >>> slots_of(Point)
    ('x', 'y')
    """
    return tuple(
        name
        for base in kind.__mro__
        if "__slots__" in vars(base)
        for name, slot in vars(base).items()
        if isinstance(slot, MemberDescriptorType)
    )


def codes_in(code: CodeType) -> Iterator[CodeType]:
    """Yield ``code`` and the code of the functions and comprehensions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes_in(constant)
