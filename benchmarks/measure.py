"""Contenders in processes of their own, taking turns, so that each has the same minutes."""

import contextlib
import json
import select
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field

SLOWEST = 60  # seconds that one call may take
MOST_ROUNDS, FEWEST_ROUNDS = 25, 3


class Worker:
    """A process for one or several contenders of one work."""

    def __init__(self, comparison: str, work: str):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", comparison, work],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def answer(self) -> float | str:
        """Return seconds or megabytes, or what went wrong."""
        if not select.select([self.process.stdout], [], [], SLOWEST)[0]:
            self.process.kill()
            return f"over {SLOWEST} s"
        line = self.process.stdout.readline()
        return json.loads(line) if line else self.death()

    def ask(self, command: str, contender: str) -> float | str:
        try:
            self.process.stdin.write(json.dumps([command, contender]) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return self.death()
        return self.answer()

    def death(self) -> str:
        code = self.process.wait()
        return f"crashes: {signal.Signals(-code).name}" if code < 0 else f"exits with {code}"

    def end(self) -> str | None:
        """Let go of everything; return how the process died, if it did not end well."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(SLOWEST)
        except subprocess.TimeoutExpired:
            self.process.kill()
        code = self.process.wait()
        return f"crashes when freed: {signal.Signals(-code).name}" if code < 0 else None


@dataclass
class Sample:
    """What was measured of one contender: seconds, megabytes, or why there is nothing."""

    load: list[float] = field(default_factory=list)
    """Imports, and what a contender prepares."""
    first: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    memory: float | None = None
    failure: str | None = None


def measure(
    comparison: str, work: str, contenders: list[str], *, together: bool, cold: int, seconds: float
) -> dict[str, Sample]:
    """Return a sample for each contender; ``cold`` is how many fresh processes to start."""
    samples = {name: Sample() for name in contenders}
    for start in range(cold):
        if together:
            shared = Worker(comparison, work)
            workers = dict.fromkeys(contenders, shared)
            shared.answer()
        else:
            workers = {name: Worker(comparison, work) for name in contenders}
            for worker in workers.values():
                worker.answer()

        def turn(command: str, workers: dict[str, Worker] = workers) -> None:
            for name, worker in workers.items():
                sample = samples[name]
                if sample.failure is None:
                    result = worker.ask(command, name)
                    if isinstance(result, str):
                        sample.failure = result
                    elif command == "memory":
                        sample.memory = result
                    else:
                        getattr(sample, "warm" if command == "run" else command).append(result)

        turn("load")
        turn("first")
        if start == cold - 1:
            turn("run")  # a warm-up, which does not count
            for sample in samples.values():
                sample.warm.clear()
            if not together:
                turn("memory")
            begin = time.monotonic()
            for number in range(MOST_ROUNDS):
                if number >= FEWEST_ROUNDS and time.monotonic() - begin > seconds:
                    break
                turn("run")
        for name, worker in workers.items():
            if samples[name].failure is None or not together:
                end = worker.end()
                samples[name].failure = samples[name].failure or end
    return samples


def ratios(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """Return median, first and third quartile of our time over theirs, round by round."""
    paired = [a / b for a, b in zip(ours, theirs, strict=False)]
    if len(paired) < 2:
        return paired[0], paired[0], paired[0]
    low, _, high = statistics.quantiles(paired, n=4, method="inclusive")
    return statistics.median(paired), low, high
