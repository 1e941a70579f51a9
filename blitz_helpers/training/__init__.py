"""The training loop, its checkpoints and its record, and how well a network answers."""

from blitz_helpers.training._evaluation import Evaluation, evaluate
from blitz_helpers.training._fit import DivergenceError, fit
from blitz_helpers.training._history import History

__all__ = ["DivergenceError", "Evaluation", "History", "evaluate", "fit"]
for _record in (DivergenceError, Evaluation, History):
    _record.__module__ = __name__  # what tracebacks and pickles call them: where users find them
