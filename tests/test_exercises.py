"""Each exercise takes right answers, says what is wrong with others, and survives the rest."""

import ast
import builtins
import copy
import importlib
import importlib.util
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import FunctionType

import nbformat
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import blitz_helpers
from blitz_helpers.exercises import _exercise, _judging, _limits, shape_arithmetic
from blitz_helpers.exercises._exercise import Exercise, exercise

ROOT = Path(__file__).parents[1]
PACKAGE = Path(_exercise.__file__).parent
NOTEBOOKS = {path.stem[3:]: path for path in (ROOT / "notebooks").glob("*.ipynb")}
PAGES = sorted(path.stem for path in PACKAGE.glob("[!_]*.py"))


def exercises(page):
    module = importlib.import_module(f"blitz_helpers.exercises.{page}")
    return {name: value for name, value in vars(module).items() if isinstance(value, Exercise)}


def answers(page):
    file = Path(__file__).parent / "exercises" / f"{page}.py"
    spec = importlib.util.spec_from_file_location(f"answers_{page}", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


ALL = [(page, name) for page in PAGES for name in exercises(page)]
ANSWERS = {page: answers(page) for page in PAGES}
RIGHT = [
    pytest.param(page, name, answer, id=f"{page}-{name}-{number}")
    for page, name in ALL
    for number, answer in enumerate(ANSWERS[page].RIGHT[name])
]
WRONG = [
    pytest.param(page, name, answer, reply, id=f"{page}-{name}-{reply[:30]}")
    for page, name in ALL
    for answer, reply in ANSWERS[page].WRONG[name]
]
every_exercise = pytest.mark.parametrize(("page", "name"), ALL)


def ask(page, name):
    """Return an exercise afresh, as nobody has tried it."""
    return copy.copy(exercises(page)[name])


@pytest.mark.parametrize(("page", "name", "answer"), RIGHT)
def test_a_right_answer_is_accepted(page, name, answer):
    each = ask(page, name)
    reply = each.check(answer, seconds=60)
    assert reply.right, reply
    assert each.state == "done"


@pytest.mark.parametrize(("page", "name", "answer", "reply"), WRONG)
def test_a_wrong_answer_is_told_what_is_wrong_with_it(page, name, answer, reply):
    each = ask(page, name)
    said = each.check(answer, seconds=60)
    assert said.right is False
    assert reply in said.text
    assert each.state == "tried"


@every_exercise
def test_the_solution_is_accepted_whatever_the_page_has_set_in_torch(page, name):
    each = ask(page, name)
    names = {name: getattr(blitz_helpers, name) for name in blitz_helpers.__all__}
    namespace = {"torch": torch, "nn": nn, "F": F, **names}
    exec(each._solution, namespace)
    try:
        torch.set_default_dtype(torch.float64)
        with torch.no_grad():
            assert each.check(namespace["answer"], seconds=60).right
            assert not torch.is_grad_enabled()
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert each._solution.strip() in each.solution().markdown


def names(code, context):
    """Return the names that the code binds (``ast.Store``) or uses (``ast.Load``)."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, context):
            found.add(node.id)
        elif context is ast.Store and isinstance(node, ast.alias):
            found.add(node.asname or node.name.split(".")[0])
        elif context is ast.Store and isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif context is ast.Store and isinstance(node, ast.arg):
            found.add(node.arg)
    return found


@cache
def brought_by(page):
    """Return the names that a learner has who skipped what can be skipped."""
    found = set(dir(builtins))
    for cell in nbformat.read(NOTEBOOKS[page], as_version=4).cells:
        if re.search(r"^## (Going further|Three questions)", cell.source, re.MULTILINE):
            return found
        if cell.cell_type == "code" and not cell.source.startswith("%"):
            found |= names(cell.source, ast.Store)
    raise AssertionError(f"{page} has no end")


@every_exercise
def test_code_that_a_learner_copies_uses_names_of_the_page(page, name):
    each = ask(page, name)
    to_mend = re.findall(r"```python\n(.*?def .*?)```", each.question, re.DOTALL)
    for code in [each._solution, *to_mend]:
        missing = names(code, ast.Load) - names(code, ast.Store) - brought_by(page)
        assert not missing, (
            f"import it in the code, or on the page before it can be skipped: {missing}"
        )


@every_exercise
def test_three_wrong_answers_and_a_second_right_one_are_tried(page, name):
    replies = [reply for _, reply in ANSWERS[page].WRONG[name]]
    assert len(set(replies)) == len(replies) >= 3
    assert len(ANSWERS[page].RIGHT[name]) >= 1


@every_exercise
def test_three_dots_do_not_count_as_an_attempt(page, name):
    each = ask(page, name)
    for reply in (each.check(...), each.check()):
        assert reply.right is None
        assert repr(reply).startswith("Not attempted yet")
    assert each.state == "open"


class OddError(Exception):
    def __str__(self):
        raise RuntimeError("no words")


def raising(*args, **kwargs):
    raise OddError


ODD = [
    None,
    "",
    "text",
    True,
    -1,
    10**400,
    float("nan"),
    [],
    {},
    object(),
    torch.zeros(2, 3),
    nn.ReLU,
]
ODD += [
    nn.ReLU(),
    print,
    lambda *a: None,
    lambda *a: "text",
    lambda *a: a,
    lambda *a: torch.zeros(0),
]
ODD += [lambda *a: float("nan"), lambda *a: [None], raising, lambda: None, len]


@every_exercise
@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_an_answer_of_any_kind_gets_a_reply(page, name, odd):
    reply = ask(page, name).check(odd, seconds=20)
    assert reply.right is False
    assert reply.text.startswith("Not yet. ")


@every_exercise
def test_hints_say_more_and_more_and_the_last_one_stays(page, name):
    each = ask(page, name)
    told = [each.hint().markdown for _ in range(len(each._hints) + 1)]
    assert len(set(told)) == len(each._hints) >= 2
    assert told[-1] == told[-2]
    assert told[-1].endswith(f"No more hints. `ex.{name}.solution()` shows the code.")
    assert "No more hints" not in told[0]
    assert each.question.strip()


def test_each_page_of_the_series_has_three_exercises_or_more():
    assert set(PAGES) <= set(NOTEBOOKS)
    assert all(len(exercises(page)) >= 3 for page in PAGES)


def test_a_page_shows_what_is_done_tried_and_open(monkeypatch):
    count = len(exercises("shape_arithmetic"))
    for name in exercises("shape_arithmetic"):
        monkeypatch.setattr(shape_arithmetic, name, ask("shape_arithmetic", name))
    shape_arithmetic.fitting_sides.check((32,))
    shape_arithmetic.pooled_size.check(9)
    first, *lines = repr(shape_arithmetic).splitlines()
    assert first == f"●◐{'○' * (count - 2)} 1 of {count} done"
    assert lines[:3] == ["● pooled_size: done", "◐ fitting_sides: tried", "○ same_padding: open"]


def test_the_test_digits_are_scored_once(monkeypatch):
    monkeypatch.setattr("blitz_helpers.exercises.train._TEST_SCORES", [])
    each, reader = ask("train", "digit_reader"), ANSWERS["train"].OnlyWhenAsked()
    assert "scored now and never again: 9" in each.check(reader, seconds=60).text
    assert "are not scored again" in each.check(reader, seconds=60).text


# What a check does to the answer and to the world.


def make(judge, wants=FunctionType):
    judge.__annotations__ = {"answer": wants}
    return exercise("Question?", ("One.", "Two."), "answer = 1", "Because.")(judge)


def test_an_error_is_shown_with_the_learners_own_line_and_the_case_tried():
    def broken(x):
        return x.reshape(7)

    each = make(lambda answer: _judging.attempt(answer, torch.tensor([1.0, 2.0])))
    said = each.check(broken).text
    assert "Your code raised RuntimeError in your line `return x.reshape(7)`" in said
    assert "It was called with tensor([1., 2.])." in said


def test_of_many_numbers_the_first_wrong_one_is_named():
    wanted = torch.arange(20.0).reshape(4, 5)
    got = wanted.clone()
    got[2, 3] = got[3, 0] = 7.5
    with pytest.raises(_judging.Wrong, match=r"It should give 13.0000 at \(2, 3\), but gives 7.5"):
        _judging.expect_tensor(got, wanted, "It")


def endless():
    while True:
        pass


def stubborn():
    started = time.monotonic()
    while time.monotonic() - started < 60:
        try:
            while time.monotonic() - started < 60:
                pass
        except BaseException:
            if time.monotonic() - started > 1:
                raise


def swallowing():
    while True:
        try:
            while True:
                pass
        except:  # noqa: E722, as a learner writes it
            return "done"


def mistaking():
    try:
        endless()
    except BaseException:
        return 1 / 0


def waiting():
    time.sleep(60)


def waiting_for_nobody():
    threading.Lock().acquire() and threading.Event().wait(60)


waits = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="nothing wakes a thread")


@pytest.mark.parametrize(
    "function",
    [
        *(endless, stubborn, swallowing, mistaking),
        *(pytest.param(each, marks=waits) for each in (waiting, waiting_for_nobody)),
    ],
)
def test_code_that_does_not_end_is_stopped(function):
    each = make(lambda answer: _judging.attempt(answer))
    said = each.check(function, seconds=0.2).text
    assert "had not ended after 0.2 seconds, and was stopped" in said


def test_code_is_stopped_in_other_threads_too():
    each = make(lambda answer: _judging.attempt(answer))
    said = []
    thread = threading.Thread(target=lambda: said.append(each.check(endless, seconds=0.2).text))
    thread.start()
    thread.join()
    assert "had not ended after 0.2 seconds" in said[0]


@waits
def test_the_signal_that_ends_a_wait_is_handled_as_before():
    handled = []
    before = signal.signal(signal.SIGURG, lambda *_: handled.append("mine"))
    try:
        make(lambda answer: _judging.attempt(answer)).check(waiting, seconds=0.05)
        signal.raise_signal(signal.SIGURG)
    finally:
        signal.signal(signal.SIGURG, before)
    assert handled == ["mine"]


DEBUGGED = """
import sys
from blitz_helpers.exercises import define_a_network as ex
def endless(*inputs):
    while True:
        pass
def traced():
    return "traced"
for answer in (print, endless):
    ex.feature_map.check(answer, seconds=0.2)
    sys.settrace(lambda *event: None)
    print(traced())
    sys.settrace(None)
"""


def test_a_debugger_works_after_a_check_and_after_one_that_was_stopped():
    run = subprocess.run(
        [sys.executable, "-c", DEBUGGED], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.stdout.split() == ["traced", "traced"], run.stderr


def test_what_is_stopped_late_leaves_nothing_behind():
    for _ in range(200):  # ends about when its time is over
        with suppress(_limits.TookTooLongError):
            _limits.within(1e-4, lambda: sum(range(3000)))
    sum(range(100_000))


@pytest.mark.parametrize(
    ("wants", "reply"),
    [
        (tuple[int, ...], "put your numbers in brackets, `check((7, 4))`."),
        (int, "`check(answer, seconds=60)`"),
    ],
)
def test_several_answers_are_not_judged(wants, reply):
    each = make(lambda answer: None, wants)
    said = each.check(7, 4)
    assert said.right is None
    assert "Pass one answer" in said.text
    assert reply in said.text
    assert each.state == "open"


def test_code_that_calls_exit_and_a_class_in_place_of_a_function_get_a_reply():
    each = make(lambda answer: _judging.attempt(answer))
    assert "Your code called `sys.exit`." in each.check(lambda: sys.exit(1)).text
    assert "This is a class, but a function is wanted." in each.check(nn.ReLU).text


def test_output_is_kept_to_a_bounded_buffer(capsys):
    def chatty():
        for _ in range(10_000):
            print(f"so much to say {'.' * 150}")
        return 1 / 0

    said = make(lambda answer: _judging.attempt(answer)).check(chatty).text
    assert "ZeroDivisionError" in said
    assert 1000 < len(said) < 3000
    assert said.endswith("... (cut here)")
    said = make(lambda answer: _judging.attempt(answer)).check(lambda: print("a\n" * 9) or 1 / 0)
    assert said.text.count("\na") == 9
    assert "cut here" not in said.text
    said = make(lambda answer: _judging.attempt(answer)).check(lambda: print("a\n" * 11) or 1 / 0)
    assert said.text.endswith("\na" * 10 + "\n... (cut here)")
    assert capsys.readouterr().out == ""


def test_the_random_state_the_answer_and_its_inputs_stay_as_they_were():
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Dropout())
    before = copy.deepcopy(net.state_dict())

    def judge(answer):
        answer.train()
        torch.manual_seed(5)
        answer(torch.randn(4, 3)).sum().backward()
        torch.set_grad_enabled(False)
        raise _judging.Wrong("no")

    state = torch.get_rng_state()
    make(judge, wants=nn.Module).check(net)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())

    given = torch.zeros(3)

    def overwriting(x):
        return x.fill_(7)

    make(lambda answer: _judging.attempt(answer, given)).check(overwriting)
    assert given.sum() == 0


def test_gradients_are_copied_too():
    layer, w = nn.Linear(2, 1), torch.ones(2, requires_grad=True)
    layer.weight.grad, w.grad = torch.full((1, 2), 3.0), torch.full((2,), 4.0)

    def overwriting(layer, w):
        found = layer.weight.grad.clone(), w.grad.clone(), layer.bias.grad
        layer.zero_grad(set_to_none=False)
        w.grad.zero_()
        return found

    of_layer, of_w, none = _judging.attempt(overwriting, layer, w)
    assert none is None
    assert torch.equal(of_layer, layer.weight.grad)
    assert torch.equal(of_w, w.grad)


def test_receptive_field_agrees_with_what_a_gradient_reaches():
    layers = [(3, 1, 1, 2), (2, 2, 0, 1), (5, 3, 2, 1)]
    x = torch.ones(1, 1, 60, requires_grad=True)
    made = x
    for kernel_size, *settings in layers:
        made = F.conv1d(made, torch.ones(1, 1, kernel_size), None, *settings)
    for number in (1, 3, 6):
        (reached,) = torch.autograd.grad(made[0, 0, number], x, retain_graph=True)
        pixels = reached[0, 0].nonzero().flatten()
        answer = {}
        exec(shape_arithmetic.receptive_field._solution, answer)
        assert answer["answer"](layers, number) == (pixels.min(), pixels.max())
