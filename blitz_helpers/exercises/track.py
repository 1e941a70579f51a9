"""Exercises of page 07: rows, the best of them, a gradient that died, and a record of what ran."""

import math
from types import FunctionType
from typing import Any

from blitz_helpers.exercises._exercise import exercise, page
from blitz_helpers.exercises._judging import Wrong, attempt, attempt_in_place, expect_value, shown

Row = dict[str, float]
Histogram = tuple[list[int], list[float]]


@exercise(
    question="""\
**Predict.** How many rows does this run have?

```python
for step in range(10):
    run.log({"train/loss": loss, "train/lr": lr})
    if step % 5 == 4:
        run.log({"val/loss": val_loss})
```""",
    hints=(
        "How many times is `log` called?",
        "`step % 5 == 4` holds in steps 4 and 9.",
    ),
    solution="answer = 10 + 2",
    why="Each call is a row. So no row knows both losses: log them in one dict, as `fit` does.",
)
def rows_of_a_run(answer: int) -> None:
    slips = {
        10: "That is a row for each step of the loop. But `log` is called more often than that.",
        20: "The second `log` is not called in every step.",
        22: "A dict makes one row, however many names it has.",
        11: "Count the steps in which `step % 5 == 4`, from step 0 on.",
        2: "Those are the rows with `val/loss` alone.",
    }
    expect_value(answer, 12, slips, "Count the calls of `log`.")


@exercise(
    question="""\
**Write** a function `best_step(rows)`: in which step was `"val/loss"` lowest? `rows` is what
`read_run` returns, a sequence of dicts. Each of them has a `"_step"`; only those at the end of an
epoch have a `"val/loss"`. Return the `"_step"` of the row, or `None` if no row has that name.""",
    hints=(
        'First keep the rows that have one: `"val/loss" in row`.',
        '`min(rows, key=lambda row: row["val/loss"])` finds the row. Return its `"_step"`.',
        "`min` of an empty list raises an error; `min(..., default=None)` does not.",
    ),
    solution="""\
def answer(rows):
    rows = [row for row in rows if "val/loss" in row]
    if not rows:
        return None
    return min(rows, key=lambda row: row["val/loss"])["_step"]""",
    why="A row without a value is not a row with the value 0, and a row's place in the list is not "
    "its step.",
)
def best_step(answer: FunctionType) -> None:
    """Ask for the best step of runs with few rows, many, and none."""
    for losses, steps, first in _RUNS:
        rows = _rows(losses, steps, first)
        got = attempt(answer, rows)
        with_loss = [row for row in rows if "val/loss" in row]
        tried = f"With a `val/loss` of {losses} every {steps} steps, from step {first} on"
        if not with_loss:
            if got is not None:
                raise Wrong(f"For a run without any row, `None` is wanted, not {shown(got)}.")
            continue
        best = min(with_loss, key=lambda row: row["val/loss"])
        if got == best["_step"] and not isinstance(got, bool):
            continue
        _name_the_step(got, rows, with_loss, best, tried)


def _name_the_step(got: Any, rows: list[Row], with_loss: list[Row], best: Row, tried: str) -> None:
    lowest_train = min(rows, key=lambda row: row["train/loss"])
    slips = [
        (best["val/loss"], "That is the loss itself. The row has a `_step`, too."),
        (best, "That is the whole row. Return its `_step`."),
        (rows[0]["_step"], "That step has no `val/loss`. Missing is not zero."),
        (rows.index(best), "That is the row's place in the list, and not its `_step`."),
        (with_loss.index(best), "That is the epoch, counted from 0, and not the `_step`."),
        (max(with_loss, key=lambda row: row["val/loss"])["_step"], "There it was highest."),
        (lowest_train["_step"], "There `train/loss` was lowest. `val/loss` is wanted."),
        (with_loss[-1]["_step"], "That is the last step, not the best."),
    ]
    for slip, reply in slips:
        if type(got) is type(slip) and got == slip:
            raise Wrong(f"{tried}: {reply}")
    raise Wrong(f"{tried}, the lowest `val/loss` is in step {best['_step']}, not {shown(got)}.")


# In the first run, each slip leads to another step.
_RUNS = (
    ((0.9, 0.4, 0.6, 0.7), 3, 10),
    ((0.5,), 3, 5),
    ((0.7, 0.8, 0.3, 0.2, 0.5), 7, 0),
    ((), 1, 0),
)


def _rows(losses: tuple[float, ...], steps: int, first: int) -> list[Row]:
    count = steps * len(losses)
    rows: list[Row] = [
        {"_step": first + place, "train/loss": 1.0 + abs(count - 2 - place)}
        for place in range(count)
    ]
    for epoch, loss in enumerate(losses):
        rows[steps * epoch + steps - 1]["val/loss"] = loss
    return rows


@exercise(
    question="""\
**Write** a function `died_at(histograms)`: in which step did a gradient become zero for good?
`histograms` maps steps to histograms, in their order: counts, and the edges of the bins. Where all
numbers are equal there is one bin, and its two edges are that number. A gradient may be zero and
come back: what counts is that it is zero in this step and all later ones. Return the first such
step, or `None`. For these it is 39:

```python
{19: ([54], [0.0, 0.0]), 29: ([9, 45], [-0.1, 0.0, 0.1]), 39: ([54], [0.0, 0.0])}
```""",
    hints=(
        "All numbers are zero where the first and the last edge are: `edges[0] == edges[-1] == 0`.",
        "Go through the steps, and keep the first one that is zero; forget it where one is not.",
        "`died = None`; then in each step `None` if it is alive, or the step if `died` is `None`.",
    ),
    solution="""\
def answer(histograms):
    died = None
    for step, (counts, edges) in histograms.items():
        if not edges[0] == edges[-1] == 0:
            died = None
        elif died is None:
            died = step
    return died""",
    why="A step in which nothing gets back may be chance, the digits of one batch. Only a gradient "
    "that is zero to the end of the record is a sign that units are dead.",
)
def died_at(answer: FunctionType) -> None:
    """Ask about gradients that die, come back, never die, and are dead from step 0 on."""
    for histograms, wanted in _GRADIENTS:
        got = attempt(answer, histograms)
        if (got is None) == (wanted is None) and got == wanted and not isinstance(got, bool):
            continue
        steps = list(histograms)
        zero = [step for step in steps if histograms[step][1][0] == histograms[step][1][-1] == 0]
        tried = f"With {histograms}"
        if wanted is None:
            raise Wrong(f"{tried}, `None` is wanted, not {shown(got)}: it is alive in the end.")
        slips = [
            (None, "It is zero in the last step."),
            (zero[0], "There it was zero, but it came back."),
            (steps[-1], "That is the last step. It was zero before."),
            (steps.index(wanted), "That is the place of the histogram, and not its step."),
            (histograms[wanted], "That is the histogram. Return its step."),
        ]
        for slip, reply in slips:
            if type(got) is type(slip) and got == slip:
                raise Wrong(f"{tried}: {reply}")
        raise Wrong(f"{tried}, it is zero for good from step {wanted} on, not {shown(got)}.")


_ALIVE: Histogram = [9, 45], [-0.1, 0.0, 0.1]
_ABOVE: Histogram = [50, 4], [0.0, 0.1, 0.2]
_ZERO: Histogram = [54], [0.0, 0.0]
_EQUAL: Histogram = [54], [0.1, 0.1]
# In the first one, each slip leads to another step.
_GRADIENTS: tuple[tuple[dict[int, Histogram], int | None], ...] = (
    ({9: _ALIVE, 19: _ZERO, 29: _ALIVE, 39: _ZERO, 49: _ZERO, 59: _ZERO}, 39),
    ({0: _ZERO, 5: _ZERO, 10: _ZERO}, 0),
    ({9: _ALIVE, 19: _EQUAL, 29: _ZERO, 39: _ZERO}, 29),
    ({9: _ZERO, 19: _ZERO, 29: _ALIVE}, None),
    ({9: _ALIVE, 19: _ABOVE}, None),
)


@exercise(
    question="""\
**Find the faults.** `log_training(run, train_step)` should train with the settings of the run, and
keep one row for each step: `"train/loss"` and `"train/lr"`. `train_step(lr)` takes a step and
returns its loss. `lr` falls in a straight line, as on the page. Nothing raises an error, and two
things are wrong. Pass the function that you made.

```python
def log_training(run, train_step):
    for step in range(run.config.steps):
        lr = 0.2 * (1 - step / run.config.steps)
        run.log({"train/loss": train_step(lr)})
        run.log({"train/lr": lr})
```""",
    hints=(
        "A run says `lr: 0.1`. Which `lr` does this function use in the first step?",
        "How many rows does a step leave?",
        "`run.config.lr` in place of `0.2`, and both names in one dict.",
    ),
    solution="""\
def answer(run, train_step):
    config = run.config
    for step in range(config.steps):
        lr = config.lr * (1 - step / config.steps)
        loss = train_step(lr)
        run.log({"train/loss": loss, "train/lr": lr})""",
    why="What is read from the run is what ran, and what belongs to one step is in one row.",
)
def mended_record(answer: FunctionType) -> None:
    """Train with several settings, and compare the settings used with those recorded."""
    for lr, steps in ((0.1, 4), (0.2, 3), (1.0, 10)):
        run, used, given = Run(lr, steps), list[float](), {"lr": lr, "steps": steps}

        def train_step(lr: float, used: list[float] = used) -> float:
            used.append(lr)
            return 2.5 - 0.1 * len(used)

        attempt_in_place(answer, run, train_step)
        tried = f"With {given}"
        if dict(run.config) != given:
            raise Wrong(f"{tried}, the config is {dict(run.config)} afterwards. Leave it as it is.")
        if len(used) != steps:
            raise Wrong(f"{tried} it should take {steps} steps, but takes {len(used)}.")
        if not _close(used, [lr * (1 - step / steps) for step in range(steps)]):
            if _close(used, [0.2 * (1 - step / steps) for step in range(steps)]):
                raise Wrong(
                    f"{tried}, the first step uses lr={used[0]}: it is not read from the run."
                )
            if _close(used, [lr] * steps):
                raise Wrong(f"{tried}, `lr` does not fall.")
            raise Wrong(f"{tried}, the steps use the wrong `lr`: {shown(used)}.")
        if len(run.rows) > steps:
            raise Wrong(
                f"{tried}, {steps} steps leave {len(run.rows)} rows. Log both names in one call."
            )
        if len(run.rows) < steps:
            raise Wrong(f"{tried}, only {len(run.rows)} of {steps} steps leave a row.")
        for number, row in enumerate(run.rows):
            loss, kept = row.get("train/loss"), row.get("train/lr")
            if loss is None or kept is None:
                raise Wrong(f"{tried}, row {number} has only {', '.join(row)}. Both names, please.")
            if not _close([loss, kept], [2.4 - 0.1 * number, used[number]]):
                raise Wrong(
                    f"{tried}, row {number} says loss {shown(loss)} and lr {shown(kept)}, but the "
                    f"step gave {2.4 - 0.1 * number:.1f} with {used[number]:.4f}."
                )


def _close(got: list[float], wanted: list[float]) -> bool:
    return all(math.isclose(a, b, abs_tol=1e-9) for a, b in zip(got, wanted, strict=True))


class _Config(dict[str, float]):
    """Settings that can be read as ``config.lr`` and as ``config["lr"]``, like those of a run."""

    def __getattr__(self, name: str) -> float:
        if name in self:
            return self[name]
        raise AttributeError(f"the config has {', '.join(self)}, but no {name}")


class Run:
    """A run that writes no file: it keeps the rows that ``log`` makes."""

    def __init__(self, lr: float, steps: int) -> None:
        self.config = _Config(lr=lr, steps=steps)
        self.rows: list[dict[str, Any]] = []
        self._step: int | None = None
        self._is_open = False

    def log(
        self, values: dict[str, Any], step: int | None = None, commit: bool | None = None
    ) -> None:
        """Add a row, or add to the last one as wandb does while it is open."""
        if not isinstance(values, dict):
            raise TypeError(f"log takes a dict, but gets {shown(values)}")
        if self._is_open and step in (None, self._step):
            self.rows[-1] |= values
        else:
            self.rows.append(dict(values))
        self._step = step
        self._is_open = step is not None if commit is None else not commit

    def __repr__(self) -> str:
        return f"a run with {dict(self.config)}"


page(__name__)
