"""Many rounds of what `make test` tries once: random networks, and the series under hardship.

usage: python benchmarks/soak.py [--rounds 20] [--count 250] [--seed 0] [--python PYTHON]

Each round has a seed. It tries its own random networks, good ones and ones that are broken in one
place, then what is foretold of the graphs of all of torch's operations, trainings that are stopped
and resumed, and two processes of which one is killed; then it runs nbval over the notebooks in
random order, on one thread or two, with plain or AVX2 kernels, on idle cores or busy ones.
`--rounds 1 --seed 7` is the round of seed 7 again; `--python` names the interpreter of another
environment, with another torch. Ctrl-C stops and sums up. Nothing is written into the repository.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SPIN = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"
LONGEST_REPORT = 5000  # characters of what a failure said


@contextmanager
def busy_cores(busy: bool) -> Iterator[None]:
    count = (os.cpu_count() or 1) if busy else 0
    spin = [sys.executable, "-c", SPIN]
    spinners = [subprocess.Popen(spin, start_new_session=True) for _ in range(count)]
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def passes(title: str, command: list[str], **variables: str) -> bool:
    """Run a command, tell in one line how it went, and what it said if it failed."""
    print(f"{title:<80}", end="", flush=True)
    start = time.monotonic()
    environment = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **variables}
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as child:  # fmt: skip
        try:
            said, _ = child.communicate()
        except KeyboardInterrupt:
            child.send_signal(signal.SIGINT)  # so that it stops the kernels that it started
            child.communicate()
            print("stopped")
            raise
    print(f"{'FAILED' if child.returncode else 'passed'} {time.monotonic() - start:6.0f} s")
    if child.returncode:
        print(said[-LONGEST_REPORT:], flush=True)
    return child.returncode == 0


def commands(seed: int, count: int) -> dict[str, tuple[str, list[str]]]:
    """Return for each part of a round but the series what it tries, and how it is called."""
    first, ten = seed * count, seed * 10
    networks = [f"--start={first}", f"--count={count}"]
    trainings = "benchmarks/soak_training.py"
    return {
        "networks": (f"networks {first} to {first + count - 1}", ["tests/fuzz.py", *networks]),
        "remedies": (
            f"broken networks {first} to {first + count - 1}", ["tests/breaking.py", *networks],
        ),
        "operations": (
            "the graphs of all of torch's operations", ["tests/operations.py", f"--seed={seed}"],
        ),
        "trainings": (
            f"trainings {ten} to {ten + 9} stopped and resumed",
            [trainings, f"--start={ten}", "--resumed=10", "--killed=0"],
        ),
        "processes": (
            "two processes, one killed",
            [trainings, f"--start={seed}", "--resumed=0", "--killed=1"],
        ),
    }  # fmt: skip


def series_passes(python: str, seed: int) -> bool:
    draw = random.Random(seed)
    notebooks = sorted(str(path) for path in (ROOT / "notebooks").rglob("[0-9]*.ipynb"))
    draw.shuffle(notebooks)
    threads, kernels = draw.choice("12"), draw.choice(("default", "avx2"))
    busy = draw.random() < 0.5
    title = (
        f"seed {seed:3}: {threads} thread{'s' * (threads == '2')}, {kernels} kernels, "
        f"{'busy' if busy else 'idle'} cores, {Path(notebooks[0]).stem[:2]} first"
    )
    nbval = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval", *notebooks]
    with busy_cores(busy):
        return passes(title, nbval, OMP_NUM_THREADS=threads, ATEN_CPU_CAPABILITY=kernels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--count", type=int, default=250, help="random networks a round")
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    parser.add_argument("--python", default=sys.executable, help="of another environment")
    options = parser.parse_args()
    tried: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    try:
        for seed in range(options.seed, options.seed + options.rounds):
            for what, (title, arguments) in commands(seed, options.count).items():
                command = [options.python, *arguments]
                failed[what] += not passes(f"seed {seed:3}: {title}", command)
                tried[what] += 1
            failed["series"] += not series_passes(options.python, seed)
            tried["series"] += 1
    except KeyboardInterrupt:
        print("Stopped by Ctrl-C.")
    for what, count in tried.items():
        print(f"{what}: {count - failed[what]} of {count} rounds passed")
    sys.exit(failed.total() > 0 or tried["series"] < options.rounds)


if __name__ == "__main__":
    main()
