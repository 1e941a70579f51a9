"""Tracks training runs with Weights & Biases; no account or network is needed."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blitz_helpers._extras import require
from blitz_helpers._run_file import is_finished, read_records

if TYPE_CHECKING:
    import wandb

_MODES = ("offline", "online", "disabled")
_PATIENCE = 10.0  # seconds to wait for a server or a process


@contextmanager
def start_run(
    project: str = "blitz",
    config: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    mode: str | None = None,
    dir: str | os.PathLike[str] | None = None,
) -> Iterator[wandb.Run]:
    """Open a run to log to, and finish it at the end of the ``with`` block, even after an error.

    The run is offline, a folder under ``wandb/``, unless ``mode`` or the environment variable
    ``WANDB_MODE`` is ``"online"`` or ``"disabled"``. It never prompts. If online does not work, for
    lack of a key or a network, it prints one line that says so and continues offline; if the folder
    cannot be written, it uses a temporary one. It records only what you log: no console output,
    code, git state, packages or machine data.
    Hooks set by ``run.watch`` or ``wandb.watch`` are removed at the end. If you already have a run
    open, it stays open and stays ``wandb.run``. Environment variables and ``sys.excepthook`` are
    restored.

    Args:
        project: the group of runs that this one belongs to.
        config: the settings of the run, such as ``{"lr": 0.05}``.
        name: the name of the run; wandb makes one up by default.
        mode: ``"offline"``, ``"online"`` or ``"disabled"``; overrides ``WANDB_MODE``.
        dir: the folder in which to put ``wandb/``; the working directory by default.

    Raises:
        ValueError: the mode does not exist, or wandb refuses an argument, such as a project with
            "/" in its name.
        TypeError: ``project`` or ``name`` is not text, or ``config`` is not a dict under text.
        ImportError: wandb is not installed.

    >>> with start_run("doctest", config={"lr": 0.1}, dir=tempfile.mkdtemp()) as run:
    ...     run.log({"train/loss": 0.25})
    Tracked offline, in ...
    >>> [row["train/loss"] for row in read_run(run.dir)]
    [0.25]
    """
    for argument, value in (("project", project), ("name", name)):
        if not isinstance(value, str | None):
            raise TypeError(f"{argument}={value!r} must be text, such as 'digits'.")
    is_dict = config is None or hasattr(config, "keys")  # as a `wandb.Config` has too
    if not is_dict or not all(isinstance(each, str) for each in dict(config or {})):
        raise TypeError(f"config={config!r} must be a dict of settings, such as {{'lr': 0.05}}.")
    chosen = mode if mode is not None else os.environ.get("WANDB_MODE", "offline")
    if chosen not in _MODES:
        source = "WANDB_MODE" if mode is None else "mode"
        raise ValueError(f"{source}={chosen!r} does not exist. Use one of {', '.join(_MODES)}.")
    with _nothing_left_behind():
        run, where = _open(
            chosen, project, config, name, Path(dir or os.environ.get("WANDB_DIR", ""))
        )
    print(f"Tracked {where}.")
    exit_code = 1
    try:
        yield run
        exit_code = 0
    finally:
        # Removed before the run ends, or the hooks would fail in a later backward.
        run.unwatch()
        run.finish(exit_code=exit_code)
        if run.offline:
            with suppress(OSError):  # the folder may be gone, which does not matter any more
                _wait_for(_find_file(Path(run.dir)))


def _open(
    chosen: str, project: str, config: Mapping[str, Any] | None, name: str | None, parent: Path
) -> tuple[wandb.Run, str]:
    """Return a new run, and a description of where it is tracked."""
    wandb = require("wandb", extra="tracking")
    # Otherwise the login would print as well.
    process = wandb.setup(wandb.Settings(silent=True) if chosen == "online" else None)
    folder, trouble = _writable(parent)
    settings = wandb.Settings(
        silent=True,  # its output differs between front ends and between runs
        console="off",
        save_code=False,
        disable_git=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        init_timeout=_PATIENCE,
        # If the user has a run open, this one is kept apart; otherwise it becomes `wandb.run`.
        reinit="create_new" if process.most_recent_active_run else "default",
    )

    init = partial(
        wandb.init,
        project=project,
        config=dict(config or {}),
        name=name,
        dir=folder.resolve(),
        settings=settings,
    )
    if chosen == "online":
        try:
            if not wandb.login(prompt=False, verify=False):
                raise wandb.errors.UsageError("no API key is set; `wandb login` sets it")
            run = init(mode="online")
            return run, "; ".join([f"online, at {run.url}", *trouble])
        except wandb.errors.Error as error:
            trouble.append(f"online does not work ({str(error).splitlines()[0].rstrip('.')})")
            chosen = "offline"
    where = {
        "offline": f"offline, in {folder / 'wandb'}: nothing is uploaded",
        "disabled": "nowhere: the mode is disabled",
    }
    try:
        return init(mode=chosen), "; ".join([where[chosen], *trouble])
    except wandb.errors.UsageError as error:
        raise ValueError(f"project={project!r} or another argument is wrong: {error}") from error


@contextmanager
def _nothing_left_behind() -> Iterator[None]:
    """Restore the variables and hooks that wandb changes in the process, even on import."""
    variables, hooks = _wandb_variables(), (sys.excepthook, sys.exit)
    # Keeps wandb from sending reports of its own errors. It reads this on its first import.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    try:
        yield
    finally:
        sys.excepthook, sys.exit = hooks
        for name in _wandb_variables().keys() - variables:
            del os.environ[name]
        os.environ.update(variables)


def _wandb_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}


class LoggedRun(list[dict[str, Any]]):
    """The log of a run: a list with one dict for each step, oldest first.

    Attributes:
        config: the settings of the run.
        summary: the last value under each name, and anything set in ``run.summary``.

    >>> run = LoggedRun([{"loss": 0.5}], config={"lr": 0.1}, summary={"loss": 0.5})
    >>> run[0]["loss"], run.config["lr"]
    (0.5, 0.1)
    """

    def __init__(
        self, rows: Iterable[dict[str, Any]], config: dict[str, Any], summary: dict[str, Any]
    ) -> None:
        super().__init__(rows)
        self.config = config
        self.summary = summary


def read_run(path: str | os.PathLike[str]) -> LoggedRun:
    """Return the log of an offline run: one dict for each step, oldest first.

    The settings and summary of the run are attributes of the result. Each dict has the logged
    values under their names, nested as they were logged, plus ``_step``, ``_runtime`` (seconds)
    and ``_timestamp``. Floats are exact. A histogram, picture or table is a dict whose ``_type``
    says what it is. If a run was killed, its file may end in the middle of a record: everything
    before that record is returned, with a warning.

    Args:
        path: ``run.dir``, the folder that holds it, or the ``.wandb`` file in that folder.

    Raises:
        FileNotFoundError: there is no run at ``path``.
        ValueError: the file is damaged, or not a run.
        ImportError: wandb is not installed.

    >>> read_run("nowhere")
    Traceback (most recent call last):
        ...
    FileNotFoundError: ...
    """
    with _nothing_left_behind():
        require("wandb", extra="tracking")
        rows, config, summary = read_records(_find_file(Path(path)))
    return LoggedRun(rows, config, summary)


def _wait_for(file: Path) -> None:
    """Wait until wandb's own process has written all of a finished run."""
    deadline = time.monotonic() + _PATIENCE
    size = -1
    while time.monotonic() < deadline:
        if file.stat().st_size != size:
            size = file.stat().st_size
            if is_finished(file):
                return
        time.sleep(0.005)


def _writable(parent: Path) -> tuple[Path, list[str]]:
    """Return ``parent``, or a temporary folder and a reason if ``parent/wandb`` is not writable."""
    try:
        (parent / "wandb").mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=parent / "wandb").close()
    except OSError as error:
        reason = f"{parent / 'wandb'} cannot be written ({error.strerror})"
        return Path(tempfile.mkdtemp(prefix="blitz-")), [reason]
    return parent, []


def _find_file(path: Path) -> Path:
    if path.is_file():
        return path
    for folder in (path, path.parent):  # run.dir is inside the folder of the run
        found = list(folder.glob("run-*.wandb"))
        if len(found) == 1:
            return found[0]
    raise FileNotFoundError(f"{path} holds no run. Give run.dir, or a folder offline-run-... .")
