"""Random trainings that are stopped and resumed, and processes that are killed and started again.

usage: python benchmarks/soak_training.py [--start 0] [--resumed 200] [--killed 20]

Each must end with the weights of one that nothing happened to, to the last bit. Training N is made
of seed N alone: `--start N --resumed 1 --killed 0` is the same again.
"""

import argparse
import io
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, TensorDataset

from blitz_helpers import adam_step, adamw_step, fit, momentum_step, sgd_step

ROOT = Path(__file__).resolve().parent.parent
NUM_CLASSES = 4


class Noisy(Dataset):
    """Samples with noise from a generator of the data set, or from a global one."""

    def __init__(self, samples: TensorDataset, draw: Callable[[], Any]) -> None:
        self.samples, self.draw = samples, draw

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, label = self.samples[index]
        return inputs + 0.1 * float(self.draw()), label


GENERATOR = np.random.default_rng()


def draw_from_variable() -> float:
    return GENERATOR.random()


class Stopping:
    """An update rule that Ctrl-C stops before step ``at``; it never does where that is ``None``."""

    def __init__(self, rule: Callable[..., object], at: int | None) -> None:
        self.rule, self.at = rule, at

    def __call__(self, params: list[torch.Tensor], **settings: float) -> None:
        if self.at == 0:
            raise KeyboardInterrupt
        self.at = None if self.at is None else self.at - 1
        self.rule(params, **settings)


def momentum_in_a_list(params: list[torch.Tensor], buffers: list[torch.Tensor], lr: float) -> None:
    if not buffers:
        buffers.extend(torch.zeros_like(w) for w in params)
    with torch.no_grad():
        for w, buffer in zip(params, buffers, strict=True):
            w.sub_(buffer.mul_(0.9).add_(w.grad), alpha=lr)


class Training:
    """All that a training is made of, drawn from a seed: made anew, it is the same."""

    def __init__(self, seed: int, at: int | None = None) -> None:
        draw = random.Random(seed)
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        GENERATOR.bit_generator.state = np.random.default_rng(seed).bit_generator.state
        generator = torch.Generator().manual_seed(seed)
        count, batch = draw.randrange(8, 60), draw.randrange(2, 9)
        samples = TensorDataset(
            torch.randn(count, 5, generator=generator),
            torch.randint(NUM_CLASSES, (count,), generator=generator),
        )
        self.words: list[str] = []
        self.model = self._model(draw)
        self.loader = self._loader(draw, samples, batch, generator)
        self.epochs = draw.randrange(2, 6)
        self.num_steps = self.epochs * len(self.loader)
        self.options: dict[str, Any] = {}
        if draw.random() < 0.5:
            self.words.append("schedule")
            self.options["lr_schedule"] = lambda done: 0.1 * (1 - done) + 1e-3
        if draw.random() < 0.5:
            self.words.append("validation")
            noise = np.random.default_rng(seed)
            self.options["val_loader"] = DataLoader(Noisy(samples, noise.random), 7, shuffle=True)
        rule = self._rule(draw)
        self.step = partial(Stopping(rule, at), **getattr(rule, "keywords", {}))

    def _model(self, draw: random.Random) -> nn.Sequential:
        layers: list[nn.Module] = [nn.Linear(5, 8)]
        layers += [nn.BatchNorm1d(8, momentum=draw.choice((0.1, None)))] * (draw.random() < 0.4)
        layers += [draw.choice((nn.ReLU, nn.Tanh))()]
        layers += [nn.Dropout(0.3)] * (draw.random() < 0.6)
        self.words += [type(layer).__name__ for layer in layers]
        return nn.Sequential(*layers, nn.Linear(8, NUM_CLASSES))

    def _loader(
        self, draw: random.Random, samples: TensorDataset, batch: int, generator: torch.Generator
    ) -> Any:
        kinds = ("own", "global", "batches", "numpy", "old numpy", "python", "variable", "list")
        kind = draw.choice(kinds)
        self.words.append(f"{kind} order")
        # Batch norm cannot train on a single sample, which a last batch may be.
        whole = {"batch_size": batch, "drop_last": True}
        if kind == "own":
            return DataLoader(samples, shuffle=True, generator=generator, **whole)
        if kind == "global":
            return DataLoader(samples, shuffle=True, **whole)
        if kind == "batches":
            sampler = RandomSampler(samples, generator=generator)
            return DataLoader(samples, batch_sampler=BatchSampler(sampler, batch, True))
        if kind == "list":
            return list(DataLoader(samples, **whole))
        source = {
            "numpy": np.random.default_rng(0).random,
            "old numpy": np.random.rand,
            "python": random.random,
            "variable": draw_from_variable,
        }[kind]
        return DataLoader(Noisy(samples, source), shuffle=True, generator=generator, **whole)

    def _rule(self, draw: random.Random) -> Callable[..., object]:
        kinds = ("sgd", "momentum", "nesterov", "adam", "adamw", "closure", "list", "optimizer")
        kind = draw.choice((*kinds, "scheduler"))
        self.words.append(kind)
        if kind == "sgd":
            return partial(sgd_step, lr=0.05)
        if kind in ("momentum", "nesterov"):
            return partial(momentum_step, velocities={}, lr=0.05, nesterov=kind == "nesterov")
        if kind in ("adam", "adamw"):
            return partial({"adam": adam_step, "adamw": adamw_step}[kind], state={}, lr=0.01)
        if kind == "closure":
            velocities: dict[torch.Tensor, torch.Tensor] = {}
            return lambda params, lr=0.05: momentum_step(params, velocities, lr)
        if kind == "list":
            buffers: list[torch.Tensor] = []
            return lambda params, lr=0.05: momentum_in_a_list(params, buffers, lr)
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01, amsgrad=True)
        if kind == "optimizer":
            return lambda params, lr=None: optimizer.step()
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, draw.randrange(1, 9), 0.7)
        return lambda params, lr=None: (optimizer.step(), scheduler.step())

    def run(self, **files: Path) -> tuple[Any, dict[str, torch.Tensor]]:
        with redirect_stdout(io.StringIO()):
            history = fit(self.model, self.loader, self.step, self.epochs, **self.options, **files)
        return history, self.model.state_dict()


def resumes(seed: int, folder: Path) -> bool:
    """Stop a training at a random step, once or twice, and compare its end with the whole."""
    draw, path = random.Random(-seed - 1), folder / f"{seed}.pt"
    whole = Training(seed)
    expected, weights = whole.run()
    places = sorted(draw.randrange(whole.num_steps) for _ in range(draw.choice((1, 2))))
    for at in places:
        done = _steps_in(path)
        Training(seed, at=max(at - done, 0)).run(
            checkpoint=path, **({"resume_from": path} if path.exists() else {})
        )
        torch.rand(3), random.random(), np.random.rand(), GENERATOR.random()
    history, resumed = Training(seed).run(**({"resume_from": path} if path.exists() else {}))
    same = history == expected and all(torch.equal(weights[n], resumed[n]) for n in weights)
    if not same:
        print(f"training {seed} ({', '.join(whole.words)}), stopped at {places}: DIFFERENT")
    return same


def _steps_in(path: Path) -> int:
    return len(torch.load(path, weights_only=True)["record"]["losses"]) if path.exists() else 0


def train_two(checkpoint: Path, log: Path, seed: int) -> subprocess.Popen[bytes]:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1",
        "--nproc-per-node=2", "--max-restarts=3", "-m", "blitz_helpers.train", "--epochs=4",
        f"--seed={seed}", f"--checkpoint={checkpoint}",
    ]  # fmt: skip
    variables = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    with log.open("ab") as file:
        return subprocess.Popen(
            command, env=os.environ | variables, stdout=file, stderr=file, start_new_session=True
        )


def workers(agent: int) -> list[int]:
    children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    return [int(pid) for pid in children]


def kill_one(agent: subprocess.Popen[bytes], after: float, whom: str) -> bool:
    """Wait, then kill a worker, or all processes; return whether all must be started again."""
    deadline = time.monotonic() + after
    while time.monotonic() < deadline and agent.poll() is None:
        time.sleep(0.02)
    if agent.poll() is not None:
        return False
    running = workers(agent.pid)
    if whom == "all" or len(running) < 2:
        for pid in (agent.pid, *running):
            os.kill(pid, signal.SIGKILL)
        agent.wait()
        return True
    os.kill(running[whom == "second worker"], signal.SIGKILL)
    return False


def survives(number: int, folder: Path) -> bool:
    """Kill a random process at a random time, and compare the end with an undisturbed one."""
    draw = random.Random(number)
    whole, killed, log = (folder / f"{number}.{name}" for name in ("whole", "killed", "log"))
    start = time.monotonic()
    codes = [train_two(whole, log, seed=number).wait()]
    seconds = time.monotonic() - start
    after, whom = draw.random() * seconds, draw.choice(("first worker", "second worker", "all"))
    agent = train_two(killed, log, seed=number)
    if kill_one(agent, after, whom):
        agent = train_two(killed, log, seed=number)
    codes.append(agent.wait())
    words = f"run {number}: {whom} killed after {after:.1f} s of {seconds:.1f}"
    if any(codes):
        print(f"{words}, exit codes {codes}\n{log.read_text()[-3000:]}", flush=True)
        return False
    one, other = (torch.load(path, weights_only=True) for path in (whole, killed))
    same = one["record"] == other["record"] and all(
        torch.equal(one["model"][name], other["model"][name]) for name in one["model"]
    )
    print(f"{words}, {'the same end' if same else 'ANOTHER END'}", flush=True)
    return same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--start", type=int, default=0, help="seed of the first of each")
    parser.add_argument("--resumed", type=int, default=200, help="trainings stopped and resumed")
    parser.add_argument("--killed", type=int, default=20, help="runs of which processes are killed")
    options = parser.parse_args()
    # `Stopping.at` is set anew before each resume, and stays as it is set.
    warnings.filterwarnings("ignore", message=".*taken for a setting of yours")
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        for what, trial, count in (
            ("trainings stopped and resumed", resumes, options.resumed),
            ("runs killed and started again", survives, options.killed),
        ):
            good = sum(
                trial(seed, Path(name)) for seed in range(options.start, options.start + count)
            )
            if count:
                print(f"{good} of {count} {what} ended as those that nothing happened to")
            failed += count - good
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
