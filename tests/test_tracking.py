"""A run asks nothing, waits for nothing, loses nothing, and can be read back."""

import http.server
import importlib
import math
import os
import pickle
import random
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import pytest
import torch
from torch import nn

from blitz_helpers import read_run, start_run

wandb = pytest.importorskip("wandb")


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """Work in an empty folder, with no key and no mode in the environment."""
    for name in list(os.environ):
        if name.startswith("WANDB"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    yield
    wandb.teardown()


def losses(run):
    return [row["train/loss"] for row in read_run(run.dir)]


def test_a_run_is_offline_by_default_and_gives_back_what_was_logged(capsys):
    logged = [0.1, 1 / 3, 2.5e-300, math.pi]
    with start_run("digits", config={"lr": 0.05}, name="first") as run:
        for loss in logged:
            run.log({"train/loss": loss})
    assert losses(run) == logged
    assert [row["_step"] for row in read_run(run.dir)] == [0, 1, 2, 3]
    assert run.offline
    assert (run.project, run.name, dict(run.config)) == ("digits", "first", {"lr": 0.05})
    assert wandb.run is None
    streams = capsys.readouterr()
    assert streams.out == "Tracked offline, in wandb: nothing is uploaded.\n"
    assert streams.err == ""


def test_a_run_gives_back_its_settings_and_its_summary():
    settings = {"lr": 0.05, "layers": {"fc1": 120, "sizes": [3, 5]}}
    with start_run(config=settings) as run:
        run.log({"train/loss": 2.5, "gradients": wandb.Histogram([1, 2])})
        run.log({"train/loss": 1.25})
        run.config.update({"late": True})
        run.summary["test/accuracy"] = 0.75
    record = read_run(run.dir)
    assert [row["train/loss"] for row in record] == [2.5, 1.25]
    assert record.config == {**settings, "late": True}
    assert (record.summary["train/loss"], record.summary["test/accuracy"]) == (1.25, 0.75)
    assert record.summary["gradients"]["_type"] == "histogram"
    again = pickle.loads(pickle.dumps(record))
    assert (again, again.config, again.summary) == (record, record.config, record.summary)


def test_what_was_removed_from_the_summary_is_not_in_it():
    with start_run() as run:
        run.log({"loss": 1.0})
        run.summary["best"] = 1
        run.summary["scores"] = {"train": 1, "test": 2}
        del run.summary["best"]
        del run.summary["scores"]["train"]
    summary = read_run(run.dir).summary
    assert {name for name in summary if not name.startswith("_")} == {"loss", "scores"}
    assert summary["scores"] == {"test": 2}
    assert "_wandb" not in summary


def test_a_run_without_records_is_named(tmp_path):
    file = tmp_path / "run-1.wandb"
    file.write_bytes(b":W&B\xe1\xbe\x00")
    with pytest.raises(ValueError, match="holds no records: its run is still open"):
        read_run(file)


def test_a_run_without_settings_has_none():
    with start_run() as run:
        run.log({"loss": 1.0})
    assert read_run(run.dir).config == {}


def test_the_run_directory_has_a_name_that_git_ignores():
    with start_run() as run:
        pass
    assert Path(run.dir).relative_to(Path.cwd()).parts[0] == "wandb"
    ignored = (Path(__file__).parents[1] / ".gitignore").read_text().splitlines()
    assert "wandb/" in ignored


def test_only_logged_values_are_recorded():
    with start_run() as run:
        print("a line on the console")
        run.log({"train/loss": 1.0})
    folder = Path(run.dir).parent
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {name for name in names if not name.endswith(".log")} == {f"run-{run.id}.wandb"}
    recorded = next(folder.glob("*.wandb")).read_bytes()
    assert b"a line on the console" not in recorded
    assert sys.executable.encode() not in recorded


@pytest.mark.parametrize("point", ["files", "folder", "file"])
def test_a_run_is_found_by_its_folder_and_its_file_too(point):
    with start_run() as run:
        run.log({"train/loss": 1.0})
    folder = Path(run.dir).parent
    path = {"files": run.dir, "folder": folder, "file": folder / f"run-{run.id}.wandb"}[point]
    assert [row["train/loss"] for row in read_run(path)] == [1.0]


def test_values_that_json_does_not_know_and_media_come_back():
    with start_run() as run:
        run.log({"nan": math.nan, "inf": -math.inf, "word": "loss", "a.b": 1})
        run.log({"weight": wandb.Histogram(np_histogram=([1, 2], [0.0, 0.5, 1.0]))})
        run.log({"misread": wandb.Table(columns=["label"], data=[[7], [9]])})
    first, second, third = read_run(run.dir)
    assert math.isnan(first["nan"])
    assert (first["inf"], first["word"], first["a.b"]) == (-math.inf, "loss", 1)
    assert second["weight"] == {"_type": "histogram", "bins": [0, 0.5, 1], "values": [1, 2]}
    assert (third["misread"]["_type"], third["misread"]["nrows"]) == ("table-file", 2)


def test_a_second_run_in_one_process_is_a_run_of_its_own():
    runs = []
    for loss in (1.0, 2.0):
        with start_run() as run:
            run.log({"train/loss": loss})
        runs.append(run)
    assert [losses(run) for run in runs] == [[1.0], [2.0]]


def test_hooks_of_watch_are_gone_after_the_run_and_gradients_are_in_it():
    model = nn.Linear(2, 1)
    for watch in ("run", "wandb"):
        with start_run() as run:
            watcher = run if watch == "run" else wandb
            watcher.watch(model, log="all", log_freq=1)
            model(torch.ones(3, 2)).sum().backward()
            run.log({"train/loss": 1.0})
        (row,) = read_run(run.dir)
        gradients = [value for key, value in row.items() if key.startswith("gradients/")]
        assert [value["_type"] for value in gradients] == ["histogram"] * 2
        assert not model._forward_hooks
        assert not any(w._backward_hooks for w in model.parameters())
        model(torch.ones(3, 2)).sum().backward()  # a hook left behind would fail here


@pytest.mark.parametrize("error", [RuntimeError("a crash"), KeyboardInterrupt()])
def test_after_a_crash_the_logged_values_can_be_read_back(error):
    model = nn.Linear(2, 1)
    runs = []

    def crash():
        with start_run() as run:
            runs.append(run)
            run.watch(model)
            run.log({"train/loss": 0.5})
            run.log({"train/loss": 0.25})
            raise error

    with pytest.raises(type(error)):
        crash()
    assert losses(runs[0]) == [0.5, 0.25]
    assert wandb.run is None
    assert not any(w._backward_hooks for w in model.parameters())


def test_a_folder_that_cannot_be_written_is_said_and_the_run_goes_on_elsewhere(capsys):
    Path("wandb").touch()
    with start_run() as run:
        run.log({"train/loss": 0.5})
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert "wandb cannot be written (File exists)" in line
    assert str(Path(run.dir).parents[1]) in line
    assert losses(run) == [0.5]


def test_a_chosen_folder_is_made_and_named(capsys):
    with start_run(dir="here/and there") as run:
        pass
    assert Path(run.dir).is_relative_to(Path("here/and there").resolve())
    assert str(Path("here/and there/wandb")) in capsys.readouterr().out


def test_disabled_runs_and_writes_nothing(monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with start_run() as run:
        run.log({"train/loss": 0.5})
    assert "the mode is disabled" in capsys.readouterr().out
    assert not list(Path().rglob("*.wandb"))


def test_an_unknown_mode_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="mode='onlin' does not exist"), start_run(mode="onlin"):
        pass
    monkeypatch.setenv("WANDB_MODE", "of")
    with pytest.raises(ValueError, match="WANDB_MODE='of' does not exist"), start_run():
        pass


def test_a_name_that_wandb_refuses_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"project='a/b'.*Invalid project name"), start_run("a/b"):
        pass


def test_a_path_without_a_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere holds no run"):
        read_run(tmp_path / "nowhere")
    (tmp_path / "run-1.wandb").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"run-1\.wandb is not a run that wandb can read"):
        read_run(tmp_path)


def test_every_key_comes_back_as_it_was_logged_beside_histograms_and_nested_ones():
    logged = {
        "w.norm": 5.0, "w._type": "mine", "w.bins": 1, "nan": "NaN", "none": None,
        "layers": {"fc1": {"norm": 1.5, "b.c": 2}}, "list": [1, 2.5], "ä\n": "ß",
    }  # fmt: skip
    with start_run() as run:
        run.log({"w": wandb.Histogram(np_histogram=([1, 2], [0.0, 0.5, 1.0]))} | logged)
    (row,) = read_run(run.dir)
    histogram = row.pop("w")
    assert histogram == {"_type": "histogram", "bins": [0, 0.5, 1], "values": [1, 2]}
    assert {key: value for key, value in row.items() if not key.startswith("_")} == logged


@pytest.fixture
def long_run():
    """Return the file of a run that fills more than one block, and its rows."""
    with start_run() as run:
        for number in range(100):
            run.log({"x": number, "long": "y" * 900})
    (file,) = Path(run.dir).parent.glob("*.wandb")
    assert file.stat().st_size > 2 * 32 * 1024
    return file, list(read_run(file))


def test_a_run_longer_than_a_block_comes_back_whole(long_run):
    _, rows = long_run
    assert [row["x"] for row in rows] == list(range(100))


@pytest.mark.parametrize("left", range(12))
def test_a_record_may_begin_with_any_room_left_in_its_block(tmp_path, left):
    """Below 7 bytes there is no room for a piece; with 7 the first piece is empty."""

    def piece(kind, data):
        checksum = zlib.crc32(bytes([kind]) + data).to_bytes(4, "little")
        return checksum + len(data).to_bytes(2, "little") + bytes([kind]) + data

    record_type = importlib.import_module("wandb.proto.wandb_internal_pb2").Record
    filler, second = record_type(), record_type()
    second.history.item.add(key="x", value_json="1.5")
    room = 32 * 1024 - 7 - 7 - left
    filler.history.item.add(key="y", value_json="0" * 32000)
    short = room - filler.ByteSize()
    filler.history.item[0].value_json = '"' + "0" * (32000 + short - 2) + '"'
    data = second.SerializeToString()
    if left < 7:
        rest = bytes(left) + piece(1, data)
    else:
        rest = piece(2, data[: left - 7]) + piece(4, data[left - 7 :])
    file = tmp_path / "run-1.wandb"
    file.write_bytes(b":W&B\xe1\xbe\x00" + piece(1, filler.SerializeToString()) + rest)
    assert read_run(file)[1] == {"x": 1.5}


def test_any_changed_byte_is_found_or_changes_nothing(long_run):
    file, rows = long_run
    good = file.read_bytes()
    draw = random.Random(0)
    found = 0
    for _ in range(60):
        bad = bytearray(good)
        bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
        file.write_bytes(bad)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                same = list(read_run(file)) == rows
            except ValueError:
                same, found = True, found + 1
        assert same or caught
    assert found > 50


def test_the_file_of_a_killed_run_gives_its_values_and_a_warning(long_run):
    file, rows = long_run
    file.write_bytes(file.read_bytes()[:50_000])
    with pytest.warns(UserWarning, match="ends in the middle of a record: the run was killed"):
        read = read_run(file)
    assert 0 < len(read) < 100
    assert list(read) == rows[: len(read)]


def test_a_run_that_the_user_has_open_goes_on_beside_ours(tmp_path):
    quiet = wandb.Settings(silent=True, console="off")
    mine = wandb.init(mode="offline", project="mine", dir=tmp_path, settings=quiet)
    with start_run() as ours:
        ours.log({"x": 1})
        assert wandb.run is mine
        mine.log({"y": 1})
        with start_run() as inner:
            inner.log({"z": 3})
    mine.log({"y": 2})
    mine.finish()
    assert [row["x"] for row in read_run(ours.dir)] == [1]
    assert [row["z"] for row in read_run(inner.dir)] == [3]


LEFT_BEHIND = """
import os, sys
from blitz_helpers import read_run, start_run
os.environ["WANDB_NOTES"] = "mine"
sys.excepthook = hook = lambda *_: None
leave, before = sys.exit, dict(os.environ)
for _ in range(2):
    with start_run() as run:
        run.log({"x": 1})
        assert (sys.excepthook, sys.exit, dict(os.environ)) == (hook, leave, before), "within"
    read_run(run.dir)
    assert (sys.excepthook, sys.exit, dict(os.environ)) == (hook, leave, before), "after"
"""


def test_hooks_and_environment_variables_are_as_they_were():
    subprocess.run(
        [sys.executable, "-c", LEFT_BEHIND],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        check=True,
    )


def test_without_wandb_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match=r"needs wandb.*pip install wandb"), start_run():
        pass
    with pytest.raises(ImportError, match=r"needs wandb.*pip install wandb"):
        read_run("anywhere")


class Refusing(http.server.BaseHTTPRequestHandler):
    """A server that knows no key."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(401)
        self.end_headers()
        self.wfile.write(b'{"errors": [{"message": "invalid key"}]}')

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def refusing_server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


ONLINE = """
from blitz_helpers import read_run, start_run
for loss in (0.5, 0.25):
    with start_run() as run:
        run.log({"train/loss": loss})
    print(read_run(run.dir)[0]["train/loss"], run.offline)
"""


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (None, "no API key is set; `wandb login` sets it"),
        ("short", "WANDB_API_KEY invalid: API key must have 40+ characters, has 5"),
        ("w" * 40, "invalid key"),
    ],
    ids=["no key", "malformed key", "wrong key"],
)
def test_online_without_a_good_key_says_so_in_one_line_and_goes_on_offline(
    refusing_server, tmp_path, key, reason
):
    # In a process of its own, with a home of its own: wandb reads keys once, and from ~/.netrc.
    settings = {"WANDB_MODE": "online", "WANDB_BASE_URL": refusing_server, "HOME": str(tmp_path)}
    if key:
        settings["WANDB_API_KEY"] = key
    run = subprocess.run(
        [sys.executable, "-c", ONLINE],
        env={**os.environ, **settings, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    line = f"Tracked offline, in wandb: nothing is uploaded; online does not work ({reason})."
    assert run.stdout.splitlines() == [line, "0.5 True", line, "0.25 True"]
    assert run.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"project": 3}, "project=3 must be text"),
        ({"name": 3}, "name=3 must be text"),
        ({"config": 3}, "config=3 must be a dict of settings"),
        ({"config": "lr"}, "config='lr' must be a dict of settings"),
        ({"config": [("lr", 1)]}, "must be a dict of settings"),
        ({"config": {1: 2}}, "must be a dict of settings"),
    ],
)
def test_an_argument_of_another_kind_is_refused_before_a_run_begins(tmp_path, arguments, message):
    with (
        pytest.raises(TypeError, match=message),
        start_run(**{"project": "tests", "dir": tmp_path} | arguments),
    ):
        pass
    assert not any(tmp_path.iterdir())
