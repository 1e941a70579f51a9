"""Changes that might mend a failure, likeliest first. Whether one does, only trying it tells."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from blitz_helpers.trace._clues import Candidate, Clues, Found, Sides
from blitz_helpers.trace._failures import Failure
from blitz_helpers.trace._fitting import small_window, wrong_count, wrong_rank, wrong_size
from blitz_helpers.trace._meetings import unequal
from blitz_helpers.trace._slips import (
    exported_size,
    short_table,
    single_value,
    usual_slips,
    wrong_dtype,
    wrong_state,
)

_OF_KIND: dict[str, Callable[[Clues], Found]] = {
    "size": wrong_size,
    "rank": wrong_rank,
    "window": small_window,
    "numbers": wrong_count,
    "unequal": unequal,
    "dtype": wrong_dtype,
    "table": short_table,
    "average": single_value,
    "batch": wrong_state,
    "guard": exported_size,
}


def candidates(failure: Failure, model: nn.Module) -> list[Candidate | Sides]:
    """Return what to try, likeliest first."""
    clues = Clues(failure, model)
    of_kind = _OF_KIND.get(failure.misfit.kind)
    found = [*(() if of_kind is None else of_kind(clues)), *usual_slips(clues)]
    if failure.sealed:
        found = [c for c in found if isinstance(c, Sides) or c.change.kind == "input"]
    return sorted(found, key=lambda one: one.rank)
