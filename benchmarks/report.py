"""The table, as text and Markdown, and the picture."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch

from blitz_helpers._tables import text_table

HERE = Path(__file__).resolve().parent
PEERS = ("torch", "torchinfo", "torchview", "torchlens", "torchviz")
HEADER = ("what", "work", "beside", "ours is", "middle half", "target", "")
SURVIVAL_HEADER = ("tool", "survives", "gives up on", "side effects")
TITLES = {
    "trace": "shape trace",
    "graph": "graph walk",
    "drawing": "drawing, SVG",
    "figure": "drawing, figure",
    "gradients": "gradient report",
    "sgd": "sgd_step",
    "adam": "adam_step",
    "series": "the series",
}


@dataclass(frozen=True)
class Row:
    """One comparison: ours over theirs, as median and quartiles, or why there is none."""

    what: str
    work: str
    beside: str
    ratio: tuple[float, float, float] | None
    at_most: float | None = None
    unit: str = "times"
    failure: str | None = None
    why: str = ""  # the target is missed, where it is

    @property
    def met(self) -> bool | None:
        if self.at_most is None or self.ratio is None:
            return None
        return self.ratio[0] <= self.at_most

    def cells(self) -> tuple[str, ...]:
        what = TITLES.get(self.what, self.what)
        target = "" if self.at_most is None else words(self.at_most, self.unit)
        verdict = {None: "", True: "met", False: "missed"}[self.met]
        if self.ratio is None:
            return what, self.work, self.beside, self.failure or "-", "", target, verdict
        median, low, high = (words(one, self.unit) for one in self.ratio)
        note = f"; it {self.failure}" if self.failure else ""
        middle = "" if self.unit == "MB" else f"{low} to {high}"
        return what, self.work, self.beside, f"{median}{note}", middle, target, verdict

    def __str__(self):
        return "  ".join(self.cells())


def words(ratio: float, unit: str) -> str:
    if unit == "MB":
        return f"{ratio:.2g} MB"
    if unit == "percent":
        return f"{100 * (ratio - 1):+.2g} %"
    factor = 1 / ratio if ratio < 1 else ratio
    if factor < 1.005:
        return "level"
    text = f"{factor:,.0f}" if factor >= 100 else f"{factor:.3g}"
    return f"{text}x faster" if ratio < 1 else f"{text}x slower"


def machine() -> str:
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        name = next((one.partition(":")[2].strip() for one in lines if "model name" in one), name)
    versions = ", ".join(f"{peer} {importlib.metadata.version(peer)}" for peer in PEERS)
    dot = "without Graphviz"
    if shutil.which("dot"):
        said = subprocess.run(["dot", "-V"], capture_output=True, text=True).stderr
        dot = said.strip().removeprefix("dot - ")
    return (
        f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}; Python {platform.python_version()}, "
        f"{versions}, {dot}"
    )


def notes(minutes: float) -> str:
    return (
        f"`make bench`, {date.today()}, {minutes:.0f} minutes. {machine()}.\n\n"
        "Each figure is our time over theirs, taken in turns, each in a process of its own where "
        "memory, a first call or survival counts: the median over the rounds, and the middle half."
    )


def reasons(rows: list[Row]) -> list[str]:
    """Return for each comparison with a missed target where the time goes."""
    missed: dict[str, list[str]] = {}
    for row in rows:
        if row.met is False and row.why:
            missed.setdefault(f"{TITLES.get(row.what, row.what)}: {row.why}", []).append(row.work)
    return [f"{why} (Missed on: {'; '.join(dict.fromkeys(on))}.)" for why, on in missed.items()]


def text(rows: list[Row], survival: list[tuple[str, ...]], minutes: float) -> str:
    parts = [text_table(HEADER, [row.cells() for row in rows], "<" * len(HEADER))]
    if missed := reasons(rows):
        parts.append("\n".join(["Missed, and why", *missed]))
    if survival:
        parts.append(text_table(SURVIVAL_HEADER, survival, "<" * len(SURVIVAL_HEADER)))
    return "\n\n".join([*parts, notes(minutes)])


def markdown(rows: list[Row], survival: list[tuple[str, ...]], minutes: float) -> str:
    parts = ["# Beside the alternatives", notes(minutes), "![](results.png)"]
    parts.append(_pipes(HEADER, [row.cells() for row in rows]))
    if missed := reasons(rows):
        parts += ["## Missed, and why", "\n".join(f"- {one}" for one in missed)]
    if survival:
        parts += ["## Which tool survives which hard model", _pipes(SURVIVAL_HEADER, survival)]
    return "\n\n".join(parts) + "\n"


def _pipes(header, rows) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


def write(rows: list[Row], survival: list[tuple[str, ...]], minutes: float) -> None:
    (HERE / "results.txt").write_text(text(rows, survival, minutes) + "\n", "utf-8")
    (HERE / "results.md").write_text(markdown(rows, survival, minutes), "utf-8")
    picture(rows, HERE / "results.png")


def picture(rows: list[Row], path: Path) -> None:
    """Draw how many times faster or slower each is: right of the line is faster."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter

    shown = [row for row in rows if row.ratio and row.unit == "times"]
    if not shown:
        return
    figure, ax = pyplot.subplots(figsize=(9, 0.8 + 0.2 * len(shown)), layout="constrained")
    figure.patch.set_facecolor("white")
    for place, row in enumerate(shown):
        median, low, high = row.ratio
        color = {None: "#5b6770", True: "#0072b2", False: "#d55e00"}[row.met]
        ax.plot([1 / high, 1 / low], [place, place], color=color, lw=4, alpha=0.35)
        ax.plot(1 / median, place, "o", color=color, ms=5)
        if row.at_most is not None:
            ax.plot(1 / row.at_most, place, "|", color="black", ms=10)
    labels = [f"{TITLES.get(row.what, row.what)}, {row.work}  /  {row.beside}" for row in shown]
    ax.set_yticks(range(len(shown)), labels, fontsize=7)
    ax.set_ylim(len(shown) - 0.5, -0.5)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(
        FuncFormatter(lambda x, _: f"{x:g}x" if x >= 1 else f"1/{1 / x:g}")
    )
    ax.axvline(1, color="black", lw=0.8)
    ax.grid(axis="x", color="#dddddd", lw=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.set_xlabel(
        "times as fast as what stands behind the slash\n"
        "dot: median, bar: middle half, tick: target\n"
        "blue: target met, orange: missed, grey: no target"
    )
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
