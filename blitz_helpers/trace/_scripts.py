"""Counts the multiply-accumulates inside scripted code, which runs as one step."""

from __future__ import annotations

from typing import Any

from blitz_helpers._torch import DispatchMode
from blitz_helpers.trace._op import bind
from blitz_helpers.trace._operations import name_of


class Counted(DispatchMode):  # type: ignore[misc]  # its base has no stub
    """Counts those of each operation that runs while it is entered."""

    macs = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run one operation."""
        output = func(*args, **(kwargs or {}))
        call = bind(func, name_of(func), args, kwargs or {})
        self.macs += 0 if call is None else call.macs(output)
        return output
