"""The program gives the same losses in one process and in two, also when one of them is killed."""

import gzip
import os
import socket
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from blitz_helpers import load_mnist, read_run, train

ROOT = Path(train.__file__).parents[1]
NUM_DIGITS = {"train": 96, "test": 20}

needs_gloo = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="this build of torch has no gloo",
)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Return a folder with a few real digits, in the format of the full MNIST."""
    folder = tmp_path_factory.mktemp("digits")
    for split, prefix in {"train": "train", "test": "t10k"}.items():
        images, labels = load_mnist(split, size=28)[: NUM_DIGITS[split]]
        pixels = (images * 255).round().to(torch.uint8).numpy().tobytes()
        sizes = struct.pack(">3I", len(images), 28, 28)
        with gzip.open(folder / f"{prefix}-images-idx3-ubyte.gz", "wb") as file:
            file.write(b"\0\0\x08\x03" + sizes + pixels)
        with gzip.open(folder / f"{prefix}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(b"\0\0\x08\x01" + struct.pack(">I", len(labels)) + bytes(labels.tolist()))
    return folder


def run(*command, cwd=None):
    """Run it with loopback as the only network it is told of."""
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
        },
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        out, err = process.communicate(timeout=120)
    finally:
        process.terminate()  # which torchrun, unlike a kill, hands on to its workers
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def torchrun(*arguments, processes=2):
    launcher = "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"
    return run(*launcher, f"--nproc-per-node={processes}", *arguments)


def losses(checkpoint):
    return torch.load(checkpoint, weights_only=True)["record"]["losses"]


def options(digits, checkpoint, epochs=3):
    small = [f"--epochs={epochs}", "--batch-size=8", "--lr=0.05"]
    return [*small, f"--data={digits}", f"--checkpoint={checkpoint}"]


@pytest.fixture(scope="module")
def one_process(digits, tmp_path_factory):
    """Return the checkpoint of three epochs in this process."""
    checkpoint = tmp_path_factory.mktemp("one") / "net.pt"
    train.main(options(digits, checkpoint))
    return checkpoint


def test_one_process_trains_tests_once_and_says_so(digits, tmp_path, capsys):
    train.main(options(digits, tmp_path / "net.pt", epochs=2))
    first, *epochs, last = capsys.readouterr().out.splitlines()
    assert first == "96 digits, 12 batches of 8 an epoch, 1 process, from the start"
    assert [line.split(":")[0] for line in epochs] == ["epoch 1 of 2", "epoch 2 of 2"]
    assert last.startswith("test digits: ")
    assert len(losses(tmp_path / "net.pt")) == 24


def test_the_same_seed_gives_the_same_losses_and_another_seed_others(digits, tmp_path, one_process):
    train.main(options(digits, tmp_path / "same.pt"))
    train.main([*options(digits, tmp_path / "other.pt"), "--seed=1"])
    assert losses(tmp_path / "same.pt") == losses(one_process)
    assert losses(tmp_path / "other.pt") != losses(one_process)


def test_a_tracked_run_can_be_read_back(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    train.main([*options(digits, "net.pt", epochs=1), "--project=test"])
    (folder,) = tmp_path.glob("wandb/offline-run-*")
    rows = read_run(folder)
    assert [row["train/loss"] for row in rows if "train/loss" in row] == losses("net.pt")
    assert "test/accuracy" in rows[-1]


@needs_gloo
def test_two_processes_give_the_losses_of_one_to_five_digits(digits, tmp_path, one_process):
    result = torchrun("-m", "blitz_helpers.train", *options(digits, tmp_path / "two.pt"))
    assert result.returncode == 0, result.stderr
    first, *epochs, _ = result.stdout.splitlines()
    assert first == "96 digits, 12 batches of 8 an epoch, 2 processes, from the start"
    assert len(epochs) == 3  # one process prints, not both
    assert losses(tmp_path / "two.pt") == pytest.approx(losses(one_process), rel=1e-5)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Agents:
    """Two agents of torchrun, each in a folder of its own, with the network alone in common."""

    def __init__(self, tmp_path, *program):
        self.program = program
        self.shared = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
        self.shared += ["--master-addr=127.0.0.1", f"--master-port={free_port()}"]
        self.folders = [tmp_path / f"machine {rank}" for rank in range(2)]
        for folder in self.folders:
            folder.mkdir()

    def run(self, rank, *options):
        command = *self.shared, f"--node-rank={rank}", *options, *self.program
        return run(*command, cwd=self.folders[rank])


@needs_gloo
@pytest.mark.skipif(sys.platform != "linux", reason="tried on Linux alone")
def test_two_agents_with_nothing_but_the_network_in_common_train_as_one_process_does(
    digits, tmp_path, one_process
):
    agents = Agents(tmp_path, "-m", "blitz_helpers.train", *options(digits, "net.pt"))
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(agents.run, range(2)))
    assert [result.returncode for result in results] == [0, 0], results[0].stderr
    assert "2 processes, from the start" in results[0].stdout
    assert results[1].stdout == ""
    assert losses(agents.folders[0] / "net.pt") == pytest.approx(losses(one_process), rel=1e-5)
    assert list(agents.folders[1].iterdir()) == []


KILLED_WITH_ITS_AGENT = """
import os, signal
from pathlib import Path
from blitz_helpers import train

sgd_step, steps = train.sgd_step, 0

def step(params, lr):
    global steps
    steps += 1
    if os.environ["RANK"] == "1" and steps == 18 and not Path("killed").exists():
        Path("killed").touch()
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    sgd_step(params, lr)

train.sgd_step = step
train.main()
"""


@needs_gloo
@pytest.mark.skipif(sys.platform != "linux", reason="tried on Linux alone")
def test_an_agent_that_is_killed_with_its_worker_and_started_again_takes_part_again(
    digits, tmp_path, one_process
):
    program = tmp_path / "killed.py"
    program.write_text(KILLED_WITH_ITS_AGENT)
    agents = Agents(tmp_path, program, *options(digits, "net.pt"))
    with ThreadPoolExecutor() as pool:
        first = pool.submit(agents.run, 0, "--max-restarts=3")
        killed = agents.run(1, "--max-restarts=3")
        again = agents.run(1, "--max-restarts=3")
    assert (killed.returncode, again.returncode) == (-9, 0), again.stderr
    assert first.result().returncode == 0, first.result().stderr
    lines = first.result().stdout.splitlines()
    starts = [line.split(", ")[-1] for line in lines if "batches" in line]
    assert starts == ["from the start", "from net.pt"]
    assert losses(agents.folders[0] / "net.pt") == pytest.approx(losses(one_process), rel=1e-5)


@needs_gloo
def test_processes_agree_on_a_name_that_dead_ones_do_not_share(monkeypatch):
    store = torch.distributed.HashStore()

    def start(rank):
        return train._name_of_this_start(store, rank, num_processes=2)

    with ThreadPoolExecutor() as pool:
        names = [set(pool.map(start, range(2))) for _ in range(3)]
    assert [len(agreed) for agreed in names] == [1, 1, 1]
    assert len(set.union(*names)) == 3
    monkeypatch.setattr(train, "_PATIENCE", 0)
    with pytest.raises(TimeoutError, match="Only some of 2 processes came back"):
        start(0)


# One rank alone validates, evaluates, writes and reads; and each draws a dropout of its own.
TOGETHER = """
import sys
from functools import partial

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, TensorDataset

from blitz_helpers import evaluate, fit, sgd_step

distributed.init_process_group("gloo")
rank, folder = distributed.get_rank(), sys.argv[1]
step = partial(sgd_step, lr=0.1)
inputs = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))
data = TensorDataset(inputs, torch.arange(24) % 3)
seen = []

def collate(rows):
    inputs, labels = map(torch.stack, zip(*rows))
    seen.append(inputs)
    return inputs, labels

def train(epochs, **files):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 3))
    model = DistributedDataParallel(net)
    torch.manual_seed(rank)
    sampler = DistributedSampler(data, seed=1)
    loader = DataLoader(data, batch_sampler=BatchSampler(sampler, 2, False), collate_fn=collate)
    validation = [data[:]] if rank == 0 else None
    return model, fit(model, loader, step, epochs, val_loader=validation, **files)

model, whole = train(4)
if rank == 0:
    assert evaluate(model, [data[:]]).loss == whole.val_losses[-1]
first, second = torch.stack(seen).view(4, 12, 4)[:2]
assert not torch.equal(first, second), "the batch sampler's sampler was not dealt anew"

train(2, checkpoint=f"{folder}/net.pt" if rank == 0 else None)
_, resumed = train(4, resume_from=f"{folder}/net.pt" if rank == 0 else None)
assert resumed.losses == whole.losses, "the resumed training differs"
assert rank or resumed.val_losses == whole.val_losses, "the resumed validation differs"

try:
    fit(nn.Linear(2, 2), [(torch.eye(2), torch.arange(2))] * (2 + rank), step, 1)
except ValueError as error:
    assert "their loaders hold (2, 3) batches, for (1, 1) epochs" in str(error)
else:
    raise AssertionError("unlike numbers of batches were not found out")
print("all is well", flush=True)
"""


@needs_gloo
def test_processes_stay_in_step_where_one_alone_validates_and_resume_as_if_never_stopped(tmp_path):
    program = tmp_path / "together.py"
    program.write_text(TOGETHER)
    result = torchrun(program, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("all is well") == 2


KILLED_IN_THE_MIDDLE = """
import os, signal
from blitz_helpers import train

sgd_step, steps = train.sgd_step, 0

def step(params, lr):
    global steps
    steps += 1
    first_time = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if first_time and os.environ["RANK"] == "1" and steps == 18:  # of 36: in the second epoch
        os.kill(os.getpid(), signal.SIGKILL)
    sgd_step(params, lr)

train.sgd_step = step
train.main()
"""


@needs_gloo
def test_a_run_whose_worker_is_killed_ends_with_the_same_result(digits, tmp_path, one_process):
    program = tmp_path / "killed.py"
    program.write_text(KILLED_IN_THE_MIDDLE)
    result = torchrun("--max-restarts=1", program, *options(digits, tmp_path / "net.pt"))
    assert result.returncode == 0, result.stderr
    assert "failed (exitcode: -9) local_rank: 1" in result.stderr
    starts = [line.split(", ")[-1] for line in result.stdout.splitlines() if "batches" in line]
    assert starts == ["from the start", f"from {tmp_path / 'net.pt'}"]
    assert losses(tmp_path / "net.pt") == pytest.approx(losses(one_process), rel=1e-5)


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(
    digits, tmp_path, one_process, monkeypatch
):
    """The stop is Ctrl-C's, in the middle of the second epoch."""
    step, count = train.sgd_step, iter(range(100))

    def interrupted(params, lr):
        if next(count) == 18:
            raise KeyboardInterrupt
        step(params, lr)

    monkeypatch.setattr(train, "sgd_step", interrupted)
    with pytest.raises(SystemExit) as stop:
        train.main(options(digits, tmp_path / "net.pt"))
    assert stop.value.code == 130
    assert len(losses(tmp_path / "net.pt")) == 12
    monkeypatch.undo()
    train.main(options(digits, tmp_path / "net.pt"))
    assert losses(tmp_path / "net.pt") == losses(one_process)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lr=0"], "lr must be above 0 and finite, got 0"),
        (["--lr=-1"], "lr must be above 0"),
        (["--lr=nan"], "lr must be above 0"),
        (["--data=nowhere"], "nowhere"),
        (["--lr=1e30"], "Training stopped at step"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_message(digits, arguments, message):
    with pytest.raises(SystemExit, match=message):
        train.main(["--epochs=1", f"--data={digits}", *arguments])


@pytest.mark.parametrize(
    "argument", ["--epochs=0", "--epochs=-1", "--epochs=two", "--batch-size=0"]
)
def test_numbers_that_are_none_are_an_error_of_usage(argument, capsys):
    with pytest.raises(SystemExit):
        train.main([argument])
    assert "must be a whole number of 1 or more" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_an_error_and_stays_as_it_is(digits, tmp_path):
    checkpoint = tmp_path / "net.pt"
    checkpoint.write_bytes(b"half a checkpo")
    with pytest.raises(SystemExit, match=r"net\.pt is damaged"):
        train.main(options(digits, checkpoint))
    assert checkpoint.read_bytes() == b"half a checkpo"


def test_a_batch_that_cannot_be_shared_evenly_is_an_error(digits, monkeypatch):
    arguments = train._parser().parse_args(["--batch-size=9", f"--data={digits}"])
    with pytest.raises(
        ValueError, match="--batch-size 9 cannot be shared evenly among 2 processes"
    ):
        train._train(arguments, rank=0, num_processes=2, device=torch.device("cpu"))


def test_several_processes_without_gloo_are_an_error_that_says_so(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.distributed, "is_backend_available", lambda backend: False)
    with pytest.raises(SystemExit, match="2 processes need torch's gloo backend"):
        train.main(["--epochs=1"])


def test_help_describes_every_option_and_both_ways_to_start(capsys):
    with pytest.raises(SystemExit) as stop:
        train.main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for word in (
        "--epochs",
        "--batch-size",
        "--lr",
        "--seed",
        "--data",
        "--checkpoint",
        "--project",
    ):
        assert word in text
    assert "python -m blitz_helpers.train --epochs 5" in text
    assert "torchrun --nproc-per-node 2 -m blitz_helpers.train --epochs 5" in text
