"""The search for remedies: tries each candidate by tracing with it, and keeps those that work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import gcd
from typing import Any

import torch
from torch import Tensor, nn

from blitz_helpers.trace._candidates import candidates
from blitz_helpers.trace._changes import Arguments, Change, InputChange, ModelChange
from blitz_helpers.trace._clues import Candidate, Sides
from blitz_helpers.trace._failures import Failure, place_name
from blitz_helpers.trace._inputs import is_shape
from blitz_helpers.trace._nests import mapped
from blitz_helpers.trace._records import ShapeTrace
from blitz_helpers.trace.remedies import Remedy

_MOST = 3
_LARGEST_SIDE = 1024
Result = ShapeTrace | Failure | None
Attempt = Callable[[tuple[Change, ...], Arguments], Result]
Changes = tuple[Change, ...]


@dataclass
class Proof:
    """A search for at most three remedies that were tried and work, best first.

    ``attempt`` traces the model with some changes. It returns the trace, or the failure that comes
    next, or ``None`` for an error of another kind.
    """

    failure: Failure
    given: Arguments
    attempt: Attempt
    # The search is counted, not timed, so that the same input gives the same message everywhere.
    traces: int = 24
    steps: int = 20_000
    # The changes that only moved the failure to a later step, with that failure.
    later: list[tuple[Change, Failure, bool]] = field(default_factory=list)

    def remedies(self) -> list[Remedy]:
        """Return the remedies that work: single changes, or pairs if no single change does."""
        found: list[Remedy] = []
        for candidate in candidates(self.failure):
            if len(found) == _MOST or self.spent:
                break
            if candidate.doubtful and found:
                continue
            remedy = self.proven((), candidate)
            if remedy is not None and remedy.text not in map(str, found):
                found.append(remedy)
        for first, following, batch in () if found else self.later[:5]:
            for candidate in candidates(following)[:6]:
                remedy = None if found else self.proven((first,), candidate, batch)
                found += [] if remedy is None else [remedy]
        return found

    @property
    def spent(self) -> bool:
        """Whether the search has used up its traces or its steps."""
        return self.traces <= 0 or self.steps <= 0

    def tried(self, changes: Changes, given: Arguments | None = None) -> Result:
        """Trace the model with some changes, if there are traces left."""
        if self.spent:
            return None
        self.traces -= 1
        result = self.attempt(changes, self.given if given is None else given)
        if result is not None:
            self.steps -= len(result if isinstance(result, ShapeTrace) else result.steps)
        return result

    def proven(
        self, before: Changes, candidate: Candidate | Sides, batch: bool = False
    ) -> Remedy | None:
        """Return the remedy that makes the candidate's change after those ``before`` it."""
        change: Change | None
        if isinstance(candidate, Sides):
            change, result = self.sized(before, candidate)
        else:
            change = candidate.change
            result = self.tried((*before, change))
            batch |= candidate.batch
        if change is None:
            return None
        changes = (*[one for one in before if not _same_place(one, change)], change)
        if isinstance(result, Failure):
            if not before and result.number > self.failure.number:
                self.later.append((change, result, batch))
            return None
        if result is None or not (batch or self.keeps_batch(changes, result)):
            return None
        words = [one.text for one in changes]
        if len(changes) > 1:
            words = [f"{one.text}{self.place(one)}" for one in changes]
        return Remedy(changes, " and ".join(words))

    def place(self, change: Change) -> str:
        """Return which layer a change is to, unless its text says so."""
        if not isinstance(change, ModelChange) or change.kind == "code" or " in " in change.text:
            return ""
        for path in [path for path, _, _ in change.settings][:1]:
            return f" in {place_name(path, self.failure.model.get_submodule(path), path)}"
        return ""

    # Sizes of the input

    def sized(self, before: Changes, sides: Sides) -> tuple[InputChange | None, Result]:
        """Return the change to the nearest size that works, worded for all sizes that do.

        A size that satisfies the layer that failed may be wrong for a later one. Then the sizes
        must also satisfy that one.
        """
        results: dict[int, Result] = {}

        def passes(size: int) -> bool:
            if size not in results:
                results[size] = self.tried((*before, sides.change(size))) if size else None
            return isinstance(results[size], ShapeTrace)

        if sides.fits(sides.given) and not sides.differ:
            return None, None
        limit = max(_LARGEST_SIDE, 2 * sides.given)
        for _ in range(6):
            near = (sides.given + sign * away for away in range(limit) for sign in (-1, 1))
            fits = partial(_fits, sides, limit)
            size = next(filter(fits, near), 0)
            if not size:
                break
            low, high = _around(size, fits, limit)
            ends = (size, low, high if high < limit else min(high, 2 * size))
            refused = next((n for n in ends if not passes(n)), None)
            if refused is None:
                words = _words(fits, low, high, limit)
                if (low > 1 and passes(low - 1)) or (high < limit and passes(high + 1)):
                    low, high = _around(size, passes, 4)
                    ended = low < high and size - low < 4 and high - size < 4
                    words = f"{low} to {high}" if ended else ""
                elif words.startswith("a multiple") and not passes(2 * size):
                    words = ""
                return sides.change(size, words), results[size]
            more = self.narrower(sides, results[refused])
            if more is None:
                return sides.change(size), results[size]
            sides = more
        return None, None

    def narrower(self, sides: Sides, following: Result) -> Sides | None:
        """Return the sides that also avoid the failure that followed."""
        if not isinstance(following, Failure):
            return None
        for other in candidates(following):
            if isinstance(other, Sides):
                return sides.and_also(other)
        return None

    # The batch

    def keeps_batch(self, changes: Changes, result: ShapeTrace) -> bool:
        """Return whether one more sample gives one more row in an output, so the batch is kept."""
        outputs = _shapes(result.output_shape)
        shape = self.failure.given[0].shape if self.failure.given else ()
        if not shape or not any(outputs):
            return True  # scalar outputs have no batch
        for axis in (0, 1) if len(shape) > 1 and self.recurrent else (0,):
            size = shape[axis]
            grown = self.tried(changes, _grown(self.given, axis, size))
            if isinstance(grown, Failure) and len(self.failure.given) > 1:  # pairs of samples?
                wider = self.tried(changes, _grown(self.given, axis, size, pairs=True))
                grown = wider if isinstance(wider, ShapeTrace) else grown
            if isinstance(grown, ShapeTrace):
                if _rows(outputs, _shapes(grown.output_shape), size):
                    return True
            elif grown is not None and len(shape) == 1 and grown.misfit.kind == "size":
                return True  # its only dimension holds features
            elif grown is not None and grown.misfit.kind in self.fixed:
                # The model only takes this batch size, because of a view or state of fixed size.
                return any(one[:1] == (size,) for one in outputs)
        return False

    @property
    def fixed(self) -> tuple[str, ...]:
        """The kinds of failure that one more sample may cause in a model that works."""
        alone = len(self.failure.given) < 2  # other inputs may hold the batch elsewhere
        return ("numbers", "batch", "guard") if alone else ("numbers", "batch", "guard", "unequal")

    @property
    def recurrent(self) -> bool:
        """Whether the batch may be the second dimension, as in recurrent layers and attention."""
        kinds = nn.RNNBase | nn.MultiheadAttention
        return any(isinstance(m, kinds) and not m.batch_first for m in self.failure.model.modules())


def _same_place(one: Change, other: Change) -> bool:
    """Return whether two changes give values to the same attributes, so the later holds."""
    if not isinstance(one, ModelChange) or not isinstance(other, ModelChange):
        return False
    return [place[:2] for place in one.settings] == [place[:2] for place in other.settings] != []


def _around(size: int, passes: Callable[[int], bool], most: int) -> list[int]:
    """Return the first and the last of the sizes around one that work, at most ``most`` away."""
    ends = []
    for step in (-1, 1):
        end = size
        while abs(end - size) < most and passes(end + step):
            end += step
        ends.append(end)
    return ends


def _fits(sides: Sides, limit: int, size: int) -> bool:
    return 0 < size <= limit and sides.fits(size)


def _words(fits: Callable[[int], bool], low: int, high: int, limit: int) -> str:
    """Return the sizes in words, ``""`` for a single size."""
    if high >= limit:
        return f"at least {low}"
    if low < high:
        return f"{low} to {high}"
    sizes = list(filter(fits, range(1, limit + 1)))
    step = gcd(*sizes)
    return f"a multiple of {step}" if sizes == list(range(sizes[0], limit + 1, step)) else ""


def _shapes(output: Any) -> list[tuple[int, ...]]:
    """Return the shapes in nested tuples, lists and dicts."""
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, tuple) and all(isinstance(size, int) for size in output):
        return [output]
    if isinstance(output, list | tuple):
        return [shape for one in output for shape in _shapes(one)]
    return []


def _rows(before: list[tuple[int, ...]], after: list[tuple[int, ...]], size: int) -> bool:
    """Return whether some dimension of this size is one larger ``after``."""
    for one, other in zip(before, after, strict=False):
        if size == 1 and len(other) == len(one) + 1 and other[0] == 2:
            return True  # a bare `squeeze` dropped the batch of one
        if len(one) == len(other) and (size, size + 1) in zip(one, other, strict=True):
            return True
    return False


def _grown(given: Arguments, axis: int, size: int, pairs: bool = False) -> Arguments:
    """Return the inputs with one more sample in each that has as many samples as the first.

    With ``pairs``, a square matrix of that size holds a number for each pair of samples.
    """

    def axes_of(shape: Sequence[int]) -> list[int]:
        square = pairs and len(shape) > 1 and set(shape[-2:]) == {size}
        found = [len(shape) - 2, len(shape) - 1] if square else [axis]
        return [at for at in found if at < len(shape) and shape[at] == size]

    def more(tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        for at in axes_of(tensor.shape):
            tensor = torch.cat([tensor, tensor.narrow(at, 0, min(1, size))], at)
        return tensor

    def grown(value: Any) -> Any:
        if not is_shape(value):
            return mapped(more, value)
        grows = axes_of(value)
        return tuple(size + (at in grows) for at, size in enumerate(value))

    return tuple(map(grown, given[0])), {name: grown(value) for name, value in given[1].items()}
