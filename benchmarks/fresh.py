"""What is measured in fresh processes alone: the import, and the whole series under nbval."""

import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jupyter_client.manager import start_new_kernel

from benchmarks.measure import ratios
from benchmarks.report import Row

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SERIES_ROUNDS = 3
WHY = (
    "the pages train for real: 06 tries learning rates and trains past 95 %, and 08 starts two "
    "processes, each of which imports torch's compiler when DDP wraps the model."
)


def imports(rounds: int = 9) -> list[Row]:
    """Return what our import adds to torch's, beside what torchinfo's adds."""
    program = (
        "import time; a = time.perf_counter(); import torch; b = time.perf_counter(); "
        "import {}; c = time.perf_counter(); print(b - a, c - b)"
    )
    packages = ("blitz_helpers", "torchinfo")
    added: dict[str, list[float]] = {name: [] for name in packages}
    torch: dict[str, list[float]] = {name: [] for name in packages}
    for number in range(rounds + 1):
        for name in packages:
            run = [sys.executable, "-c", program.format(name)]
            first, second = subprocess.check_output(run, text=True, cwd=ROOT).split()
            if number:  # the first reads the files from the disk
                torch[name].append(float(first))
                added[name].append(float(first) + float(second))
    return [
        Row("import", f"import {name}", "import torch", ratios(added[name], torch[name]),
            1.005 if name == "blitz_helpers" else None, "percent")
        for name in packages
    ]  # fmt: skip


def series() -> list[Row]:
    """Return nbval over all notebooks on two cores, beside the bare kernels they need."""
    ours, theirs = [], []
    for _ in range(SERIES_ROUNDS):
        start = time.perf_counter()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(start_kernel, NOTEBOOKS))
        theirs.append(time.perf_counter() - start)
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as cache:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "--nbval",
                 "-o", f"cache_dir={cache}", "notebooks"],
                cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
        ours.append(time.perf_counter() - start)
        if done.returncode:
            failure = done.stdout.strip().splitlines()[-1]
            return [Row("series", "nbval, all notebooks", "-", None, None, failure=failure)]
    beside = f"{len(NOTEBOOKS)} kernel starts with import torch"
    work = f"nbval, {len(NOTEBOOKS)} notebooks"
    return [Row("series", work, beside, ratios(ours, theirs), 4.5, why=WHY)]


def start_kernel(_: Path) -> None:
    manager, client = start_new_kernel(stderr=subprocess.DEVNULL)  # it warns of its transport
    client.execute_interactive("import torch")
    client.stop_channels()
    manager.shutdown_kernel(now=True)
