"""An exercise: a question, a check that replies, hints, and a solution."""

from __future__ import annotations

import copy
import inspect
import operator
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import EllipsisType, FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from blitz_helpers._random_states import global_generators
from blitz_helpers.exercises._judging import Wrong, shown, told_of
from blitz_helpers.exercises._limits import TookTooLongError, bounded_output, within
from blitz_helpers.trace._guard import StateGuard

_SECONDS = 5.0
_NOT_ATTEMPTED = "Not attempted yet: put your answer in place of the three dots."


@dataclass(frozen=True)
class Reply:
    """The reply to an answer. ``right`` is ``None`` if there was nothing to judge."""

    right: bool | None
    text: str

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Text:
    """A question, hint or solution: Markdown in a notebook, plain text elsewhere."""

    markdown: str

    def __repr__(self) -> str:
        return self.markdown

    def _repr_markdown_(self) -> str:
        return self.markdown


@dataclass(repr=False, eq=False)
class Exercise:
    """One exercise. Show it to read the question; then use ``check``, ``hint``, ``solution``."""

    _judge: Callable[[Any], str | None]
    question: str
    _hints: tuple[str, ...]
    _solution: str
    _why: str
    state: str = "open"  # then "tried", then "done"
    _told: int = 0  # hints so far

    @property
    def name(self) -> str:
        """The name of the exercise in its module."""
        return self._judge.__name__

    @property
    def _wants(self) -> Any:
        """The type of an answer, as the check declares it."""
        return inspect.get_annotations(self._judge, eval_str=True)["answer"]

    def __repr__(self) -> str:
        return self.question

    def _repr_markdown_(self) -> str:
        return self.question

    def check(self, answer: Any = ..., *more: Any, seconds: float = _SECONDS) -> Reply:
        """Say whether the answer is right, or what is wrong with it.

        It never raises on an answer, and leaves the answer and the random state as they were. Code
        that takes longer than ``seconds`` is stopped, unless it computes inside a call into C.
        """
        if more:
            return Reply(None, _one_answer(self._wants, (answer, *more)))
        if isinstance(answer, EllipsisType):
            return Reply(None, _NOT_ATTEMPTED)
        if self.state == "open":
            self.state = "tried"
        with StateGuard(given=global_generators().values()), bounded_output() as printed:
            torch.set_grad_enabled(True)
            torch.set_default_dtype(torch.float32)
            reply = self._judged(answer, seconds)
        if reply.right:
            self.state = "done"
            return Reply(True, f"Right. {reply.text}")
        output = printed.told()
        said = f"\nIt printed:\n{output}" if output else ""
        return Reply(False, f"Not yet. {reply.text}{said}")

    def _judged(self, answer: Any, seconds: float) -> Reply:
        try:
            told = within(seconds, lambda: self._judge(_accepted(answer, self._wants)))
        except Wrong as wrong:
            return Reply(False, str(wrong))
        except TookTooLongError:
            took = f"Your code had not ended after {seconds:g} seconds, and was stopped."
            return Reply(False, took)
        except SystemExit:
            return Reply(False, "Your code called `sys.exit`.")
        except Exception as error:
            return Reply(False, told_of(error))
        return Reply(True, self._why if told is None else told)

    def hint(self) -> Text:
        """Return the next hint, or the last one again; each says a little more."""
        self._told = min(self._told + 1, len(self._hints))
        rest = len(self._hints) - self._told
        hint = self._hints[self._told - 1]
        if rest:
            return Text(f"Hint {self._told} ({rest} more): {hint}")
        spent = f"No more hints. `ex.{self.name}.solution()` shows the code."
        return Text(f"Hint {self._told}: {hint}\n\n{spent}")

    def solution(self) -> Text:
        """Return code that answers the question, and why it does."""
        return Text(f"```python\n{self._solution.strip()}\n```\n\n{self._why}")


def exercise(
    question: str, hints: tuple[str, ...], solution: str, why: str
) -> Callable[[Callable[[Any], str | None]], Exercise]:
    """Make an exercise of a function that raises :class:`Wrong` on a wrong ``answer``.

    The type that it declares for ``answer`` is the type it gets: ``int``, ``float``,
    ``tuple[int, ...]``, ``nn.Module``, ``Tensor`` (in float32, also from a list), or
    ``FunctionType`` for any callable. If it returns a text, that is said after a right answer
    instead of ``why``.

    Args:
        question: Markdown, shown where the exercise is shown.
        hints: shown one after the other; each says a little more.
        solution: code that leaves a right answer in ``answer``.
        why: the reason, said after a right answer and below the solution.
    """
    return lambda judge: Exercise(judge, question, hints, solution, why)


def _one_answer(wants: Any, given: tuple[Any, ...]) -> str:
    if wants in (tuple[int, ...], Tensor):
        return f"Pass one answer: put your numbers in brackets, `check({shown(given)})`."
    return "Pass one answer. More time is given by name: `check(answer, seconds=60)`."


def _accepted(answer: Any, wants: Any) -> Any:
    """Return the answer in the type that the check takes, or say what was expected."""
    if isinstance(answer, type) and wants is FunctionType:
        raise Wrong("This is a class, but a function is wanted. Pass its name alone.")
    if isinstance(answer, type):
        raise Wrong(f"This is a class. Pass what it makes: {answer.__name__}(...).")
    if wants is FunctionType:
        if not callable(answer):
            raise Wrong(f"A function is wanted, but this is {shown(answer)}. Pass its name alone.")
        return answer
    if wants is nn.Module:
        if not isinstance(answer, nn.Module):
            raise Wrong(f"A network (an nn.Module) is wanted, but this is {shown(answer)}.")
        return copy.deepcopy(answer)
    name, convert = _KINDS[wants]
    if callable(answer):
        raise Wrong(f"{name} is wanted, but this is a function. Pass what it returns.")
    try:
        return convert(answer)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise Wrong(f"{name} is wanted, but this is {shown(answer)}.") from None


def _whole(answer: Any) -> int:
    if isinstance(answer, bool):
        raise TypeError
    number = answer.item() if hasattr(answer, "item") else answer  # of torch or numpy
    if isinstance(number, float) and number.is_integer():
        return int(number)
    return operator.index(number)


def _sizes(answer: Any) -> tuple[int, ...]:
    numbers = answer.tolist() if hasattr(answer, "tolist") else answer  # of torch or numpy
    if not isinstance(numbers, tuple | list | range):
        raise TypeError
    return tuple(map(_whole, numbers))


def _numbers(answer: Any) -> Tensor:
    return torch.as_tensor(answer, dtype=torch.float32).detach().clone()


_KINDS: dict[Any, tuple[str, Callable[[Any], Any]]] = {
    int: ("A whole number", _whole),
    float: ("A number", float),
    tuple[int, ...]: ("A tuple of whole numbers, in brackets and with commas,", _sizes),
    Tensor: ("A tensor of numbers", _numbers),
}


class Page(ModuleType):
    """A module of exercises, which shows your progress."""

    def __repr__(self) -> str:
        exercises = [value for value in vars(self).values() if isinstance(value, Exercise)]
        states = [each.state for each in exercises]
        bar = "".join(_MARKS[state] for state in sorted(states, key=list(_MARKS).index))
        lines = [f"{_MARKS[each.state]} {each.name}: {each.state}" for each in exercises]
        return "\n".join([f"{bar} {states.count('done')} of {len(states)} done", *lines])


_MARKS = {"done": "●", "tried": "◐", "open": "○"}


def page(name: str) -> None:
    """Make a module show the learner's progress; called in the last line of each page's file."""
    sys.modules[name].__class__ = Page
