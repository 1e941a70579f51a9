"""Words and numbers in the form that pictures and their alt texts share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_TOLD = 20  # entries of a list that an alt text gives


def by(height: int, width: int) -> str:
    """Return the size as text, such as ``30x30``."""
    return f"{height}x{width}"


def minus(number: object) -> str:
    """Return the number as text with a true minus sign, as on matplotlib's axes."""
    return str(number).replace("-", "\N{MINUS SIGN}")


def short(number: float, digits: int = 2) -> str:
    """Format the number with at most so many decimals.

    >>> short(2.0), short(0.125), short(-0.001)
    ('2', '0.12', '0')
    """
    return minus(f"{round(number, digits) + 0.0:g}")  # + 0.0 turns -0.0 into 0.0


def fixed(number: float, digits: int = 2) -> str:
    """Format the number with so many decimals, and a huge one as a power of ten.

    >>> fixed(0.125), fixed(-1e30)
    ('0.12', '-1e+30')
    """
    text = f"{number:.{digits}f}"
    return text if len(text) < 12 else f"{number:.{digits + 1}g}"


def as_written(text: object) -> str:
    r"""Return text that matplotlib draws as it stands, instead of reading a formula between "$"s.

    >>> print(as_written("from $5 to $6"))
    from \$5 to \$6
    """
    return str(text).replace("$", r"\$")


def counted(count: int, noun: str) -> str:
    """Return the count with its noun.

    >>> counted(1, "row"), counted(2, "row")
    ('1 row', '2 rows')
    """
    return f"{count:,} {noun}{'s' * (count != 1)}"


def listed(words: Iterable[str], last: str = "and") -> str:
    """Join the words with commas, and the last one with a word.

    >>> listed("abc"), listed("a")
    ('a, b and c', 'a')
    """
    *others, end = words
    return f"{', '.join(others)} {last} {end}" if others else end


def shortened(words: list[str]) -> list[str]:
    """Return the words; of more than 20, the first 20 and how many follow.

    >>> shortened(["a"] * 25)[-2:]
    ['a', 'and 5 more']
    """
    rest = [f"and {len(words) - _TOLD} more"] if len(words) > _TOLD else []
    return words[:_TOLD] + rest
