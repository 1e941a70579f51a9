"""Many rounds of what `make test` tries once: random networks, and the series under hardship.

usage: python benchmarks/soak.py [--rounds 20] [--count 5000] [--seed 0]

Each round runs nbval over the notebooks in random order, under another of: one thread or two,
plain or AVX2 kernels, idle cores or busy ones. `--python` names the interpreter of another
environment, with another torch, to run all of it there.
"""

import argparse
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBVAL = (
    *("-q", "-p", "no:cacheprovider", "--nbval", "--nbval-cell-timeout=300"),
    *("--nbval-sanitize-with", "tests/nbval_sanitize.cfg"),
)


@contextmanager
def busy_cores(busy: bool) -> Iterator[None]:
    count = (os.cpu_count() or 1) if busy else 0
    spinners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def run_series(python: str, draw: random.Random) -> bool:
    """Return whether all notebooks passed under a hardship drawn at random."""
    notebooks = sorted(str(path) for path in (ROOT / "notebooks").rglob("*.ipynb"))
    draw.shuffle(notebooks)
    threads, kernels = draw.choice("12"), draw.choice(("default", "avx2"))
    busy = draw.random() < 0.5
    environment = os.environ | {"OMP_NUM_THREADS": threads, "ATEN_CPU_CAPABILITY": kernels}
    where = f"threads={threads} kernels={kernels} busy={busy}, first {Path(notebooks[0]).name}"
    with busy_cores(busy):
        done = subprocess.run(
            [python, "-m", "pytest", *NBVAL, *notebooks],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    print(f"{where}: {'passed' if done.returncode == 0 else 'FAILED'}", flush=True)
    if done.returncode:
        print(done.stdout[-5000:], flush=True)
    return done.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, help="times through the series")
    parser.add_argument("--count", type=int, default=5000, help="random networks")
    parser.add_argument("--seed", type=int, default=0, help="of the hardships")
    parser.add_argument("--python", default=sys.executable, help="of another environment")
    options = parser.parse_args()
    fuzz = [options.python, "tests/fuzz.py", "--count", str(options.count)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    passed = subprocess.run(fuzz, cwd=ROOT, env=environment).returncode == 0
    draw = random.Random(options.seed)
    rounds = [run_series(options.python, draw) for _ in range(options.rounds)]
    print(f"fuzzing {'passed' if passed else 'FAILED'}; series {sum(rounds)} of {len(rounds)}")
    sys.exit(not (passed and all(rounds)))


if __name__ == "__main__":
    main()
