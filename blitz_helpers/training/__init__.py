"""The training loop, its history and checkpoints, and the evaluation of a network."""

from blitz_helpers.training._evaluation import Evaluation, evaluate
from blitz_helpers.training._fit import fit
from blitz_helpers.training._history import History
from blitz_helpers.training._loop import DivergenceError

__all__ = ["DivergenceError", "Evaluation", "History", "evaluate", "fit"]
for _record in (DivergenceError, Evaluation, History):
    _record.__module__ = __name__  # the public path, for tracebacks and pickles
