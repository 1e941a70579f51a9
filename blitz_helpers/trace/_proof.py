"""The search for remedies: what might help is tried, and what goes through is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import gcd
from typing import Any

import torch
from torch import Tensor, nn

from blitz_helpers.trace._candidates import candidates
from blitz_helpers.trace._clues import Candidate, Sides
from blitz_helpers.trace._failures import Failure
from blitz_helpers.trace._records import ShapeTrace
from blitz_helpers.trace._remedies import Arguments, Change, InputChange, Remedy, Resize, is_shape

# The search is counted, not timed, so that the same input gives the same message everywhere.
_TRACES, _STEPS = 24, 20_000
_MOST = 3
_LARGEST_SIDE = 1024
Attempt = Callable[[tuple[Change, ...], Arguments], ShapeTrace | Failure | None]


def remedies_for(
    failure: Failure, model: nn.Module, given: Arguments, attempt: Attempt
) -> list[Remedy]:
    """Return at most three remedies that were tried and work, best first.

    ``attempt`` traces the model with some changes: it returns the trace, the failure that comes
    then, or ``None`` for an error of another kind.
    """
    return _Proof(failure, model, given, attempt).remedies()


class _Proof:
    def __init__(
        self, failure: Failure, model: nn.Module, given: Arguments, attempt: Attempt
    ) -> None:
        self.failure, self.model, self.given = failure, model, given
        self.attempt = attempt
        self.traces, self.steps = _TRACES, _STEPS
        self.later: list[tuple[tuple[Change, ...], str, Failure, bool]] = []

    def remedies(self) -> list[Remedy]:
        """Return what works: single changes, and pairs only where no single one does."""
        found: list[Remedy] = []
        for candidate in candidates(self.failure, self.model):
            if len(found) == _MOST or self.spent:
                break
            if candidate.doubtful and found:
                continue
            remedy = self.proven((), "", candidate, self.failure, False)
            if remedy is not None and remedy.text not in {str(one) for one in found}:
                found.append(remedy)
        if found:
            return found
        for changes, text, following, batch in self.later[:5]:
            for candidate in candidates(following, self.model)[:6]:
                if self.spent or found:
                    break
                if _views_twice(changes[0], candidate):
                    continue
                remedy = self.proven(changes, text, candidate, following, batch)
                if remedy is not None:
                    found.append(remedy)
        return found

    @property
    def spent(self) -> bool:
        """Whether the search has come to its end."""
        return self.traces <= 0 or self.steps <= 0

    def tried(
        self, changes: tuple[Change, ...], given: Arguments | None = None
    ) -> ShapeTrace | Failure | None:
        """Trace the model with some changes, if there are traces left."""
        if self.spent:
            return None
        self.traces -= 1
        result = self.attempt(changes, self.given if given is None else given)
        if isinstance(result, ShapeTrace):
            self.steps -= len(result)
        elif result is not None:
            self.steps -= len(result.steps)
        return result

    def proven(
        self,
        changes: tuple[Change, ...],
        text: str,
        candidate: Candidate | Sides,
        failure: Failure,
        batch: bool,
    ) -> Remedy | None:
        """Return the remedy that a candidate is, after the changes before it."""
        lead = f"{text} and " if text else ""
        if isinstance(candidate, Sides):
            found = self.sized(changes, candidate, failure)
            if found is None or not self.keeps_batch((*changes, found[0]), batch, found[1]):
                return None
            return Remedy((*changes, found[0]), lead + found[0].text)
        every = (*changes, candidate.change)
        result = self.tried(every)
        batch |= candidate.batch
        if isinstance(result, Failure):
            if not changes and result.number > failure.number:
                self.later.append((every, candidate.change.text, result, batch))
            return None
        if result is None or not self.keeps_batch(every, batch, result):
            return None
        return Remedy(every, lead + candidate.change.text)

    # Sizes of the input

    def sized(
        self, changes: tuple[Change, ...], sides: Sides, failure: Failure
    ) -> tuple[Resize, ShapeTrace] | None:
        """Return the change to the nearest size that goes through, worded for all that do.

        What is large enough for the layer that failed can be too small for the next: then what that
        one wants is asked for, too.
        """
        if sides.fits(sides.given):
            return None
        for _ in range(6):
            sizes = _fitting(sides)
            if not sizes:
                return None
            size = min(sizes, key=lambda one: abs(one - sides.given))
            result = self.tried((*changes, sides.change(size)))
            if isinstance(result, ShapeTrace):
                return self.worded(changes, sides, sizes, size), result
            more = self.more(sides, result)
            if more is None:
                if isinstance(result, Failure) and not changes and result.number > failure.number:
                    text = sides.words(str(size))
                    self.later.append(((sides.change(size, text),), text, result, False))
                return None
            sides = more
        return None

    def more(self, sides: Sides, result: ShapeTrace | Failure | None) -> Sides | None:
        """Return the sides with what another failure wants of them as well."""
        if not isinstance(result, Failure):
            return None
        for other in candidates(result, self.model):
            if isinstance(other, Sides) and (other.argument, other.axes) == (
                sides.argument,
                sides.axes,
            ):
                return None if other.fits(other.given) else replace(sides, fits=_both(sides, other))
        return None

    def worded(
        self, changes: tuple[Change, ...], sides: Sides, sizes: list[int], size: int
    ) -> Resize:
        """Return the change to one size, with the words for the range in which it stands."""

        def passes(one: int) -> bool | Failure:
            result = self.tried((*changes, sides.change(one)))
            return result if isinstance(result, Failure) else result is not None

        for _ in range(3):
            low, high = _run(sizes, size)
            open_end = high >= _limit(sides)
            ends = [one for one in (low, min(high, 2 * size) if open_end else high) if one != size]
            refused = next((r for r in map(passes, ends) if r is not True), None)
            if refused is not None:
                more = self.more(sides, refused) if isinstance(refused, Failure) else None
                if more is None:
                    return sides.change(size, sides.words(str(size)))
                sides = more
                sizes = _fitting(sides)
                if size not in sizes:
                    return sides.change(size, sides.words(str(size)))
                continue
            outside = [low - 1] if low > 1 else []
            outside += [] if open_end else [high + 1]
            if any(passes(one) is True for one in outside):
                return sides.change(size, sides.words(self.felt(passes, size)))
            if open_end:
                return sides.change(size, sides.words(f"at least {low}"))
            if low < high:
                return sides.change(size, sides.words(f"{low} to {high}"))
            step = _step(sizes, _limit(sides))
            if step > 1 and passes(size + step) is True:
                return sides.change(size, sides.words(f"a multiple of {step}"))
            break
        return sides.change(size, sides.words(str(size)))

    @staticmethod
    def felt(passes: Callable[[int], Any], size: int) -> str:
        """Return the range around a size in words, its ends found by trying one after the other."""
        ends = []
        for step in (-1, 1):
            end = size
            while abs(end - size) < 4 and end + step > 0 and passes(end + step) is True:
                end += step
            ends.append(end)
        low, high = ends
        if size - low == 4 and passes(1) is True:
            return f"at most {high}" if high - size < 4 else f"{size}"
        if size - low == 4 or high - size == 4:
            return f"{size}"  # and others: where they end was not tried
        return f"{low} to {high}" if low < high else f"{size}"

    # The batch

    def keeps_batch(self, changes: tuple[Change, ...], says_so: bool, result: ShapeTrace) -> bool:
        """Return whether one sample more gives one row more: nothing else is the batch."""
        if says_so:
            return True
        shape = _first_shape(self.given)
        if not shape:
            return True
        outputs = _shapes(result.output_shape)
        if not any(outputs):
            return True  # numbers alone
        axes = (0, 1) if len(shape) > 1 and self.recurrent else (0,)
        for axis in axes:
            size = shape[axis]
            grown = self.tried(changes, _grown(self.given, axis, size))
            if isinstance(grown, ShapeTrace):
                if _rows(outputs, _shapes(grown.output_shape), size):
                    return True
            elif grown is not None and grown.misfit.kind in self.fixed:
                # A model for this batch alone, by a view or a state of fixed sizes.
                return any(one[:1] == (size,) for one in outputs)
        return False

    @property
    def fixed(self) -> tuple[str, ...]:
        """The failures that one sample more may come to in a good model."""
        alone = len(self.failure.given) < 2  # other inputs may hold the batch elsewhere
        return ("numbers", "batch", "guard") if alone else ("numbers", "batch", "guard", "unequal")

    @property
    def recurrent(self) -> bool:
        """Whether the batch may stand second, as recurrent layers and attention have it."""
        kinds = nn.RNNBase | nn.MultiheadAttention
        return any(isinstance(m, kinds) and not m.batch_first for m in self.model.modules())


def _views_twice(first: Change, candidate: Candidate | Sides) -> bool:
    """Return whether two views of one input would follow each other."""
    second = None if isinstance(candidate, Sides) else candidate.change
    if not isinstance(first, InputChange) or not isinstance(second, InputChange):
        return False
    batch_too = second.transform.name == "unsqueeze" and second.transform.args == (0,)
    return not batch_too and "to" not in (first.transform.name, second.transform.name)


def _both(one: Sides, other: Sides) -> Callable[[int], bool]:
    return lambda side: one.fits(side) and other.fits(side)


def _fitting(sides: Sides) -> list[int]:
    return [size for size in range(1, _limit(sides) + 1) if sides.fits(size)]


def _limit(sides: Sides) -> int:
    return max(_LARGEST_SIDE, 2 * sides.given)


def _run(sizes: list[int], size: int) -> tuple[int, int]:
    """Return the first and the last of the sizes that follow each other around one of them."""
    known = set(sizes)
    low = high = size
    while low - 1 in known:
        low -= 1
    while high + 1 in known:
        high += 1
    return low, high


def _step(sizes: list[int], limit: int) -> int:
    """Return the number whose multiples the sizes are, from the first of them on; else 0."""
    step = gcd(*sizes)
    return step if sizes == list(range(sizes[0], limit + 1, step)) else 0


def _shapes(output: Any) -> list[tuple[int, ...]]:
    """Return the shapes in a nest of them."""
    if isinstance(output, dict):
        return [shape for one in output.values() for shape in _shapes(one)]
    if isinstance(output, tuple) and all(isinstance(size, int) for size in output):
        return [output]
    if isinstance(output, list | tuple):
        return [shape for one in output for shape in _shapes(one)]
    return []


def _rows(before: list[tuple[int, ...]], after: list[tuple[int, ...]], size: int) -> bool:
    """Return whether some dimension of this size is one larger in what comes out after."""
    for one, other in zip(before, after, strict=False):
        if size == 1 and len(other) == len(one) + 1 and other[0] == 2:
            return True  # a bare `squeeze` dropped the batch of one
        if len(one) == len(other) and (size, size + 1) in zip(one, other, strict=True):
            return True
    return False


def _values(given: Arguments) -> Iterator[Any]:
    yield from given[0]
    yield from given[1].values()


def _first_shape(given: Arguments) -> tuple[int, ...]:
    for value in _values(given):
        if is_shape(value):
            return tuple(value)
        if isinstance(value, Tensor):
            return tuple(value.shape)
    return ()


def _grown(given: Arguments, axis: int, size: int) -> Arguments:
    """Return the inputs with one sample more in each that has as many as the first."""

    def more(value: Any) -> Any:
        if is_shape(value) and len(value) > axis and value[axis] == size:
            return (*value[:axis], size + 1, *value[axis + 1 :])
        if isinstance(value, Tensor) and value.dim() > axis and value.shape[axis] == size:
            with torch.no_grad():
                return torch.cat([value.detach(), value.detach().narrow(axis, 0, 1)], axis)
        return value

    return tuple(map(more, given[0])), {name: more(value) for name, value in given[1].items()}
