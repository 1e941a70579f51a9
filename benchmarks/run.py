"""Run every comparison, or those named, and write results.txt, results.md and results.png.

usage: python -m benchmarks.run [trace graph drawing figure gradients sgd adam import training
series robustness]
"""

import sys
import time
from dataclasses import dataclass
from operator import add

from benchmarks import fresh, report, robustness
from benchmarks.contenders import COMPARISONS
from benchmarks.measure import Sample, measure, ratios
from benchmarks.report import Row

VIEWERS = ("torchinfo", "torchview", "torchlens")
META, FAKE, REAL = "a bare forward on meta", "a forward under FakeTensorMode", "a bare real forward"
LOOP, VIZ = "a bare loop over next_functions", "torchviz"
SAVED, TENTHS = "torchviz with saved tensors", "ten loops of 100,000 steps"
FLOOR = "one vector_norm pass over the gradients"
QUARTER = "a quarter of a training step of 32"
NETWORK, RESNET = "the network", "ResNet-152"


# Where a profile found the time, for targets that are missed.
WHY = {
    "fresh": "a trace imports 30 small files, and to find and read them alone takes as long as "
    "all that torchinfo does; a quarter of the time is a round of Python's garbage collector that "
    "the import of torch has left nearly due.",
    "figure": "matplotlib lays out and renders every word by itself, in more than a millisecond, "
    "and the picture of the network has about 70; all the rest, the walk and the layout included, "
    "takes less than dot. As SVG the same picture needs no matplotlib.",
    "graph": "on the network a third of the time reads what each node saved, tensor by tensor, a "
    "fifth the shapes and dtypes, a sixth the parameters' names and modules, a tenth the bare "
    "walk, and the rest makes the records; torchviz reads none of these unless asked to.",
    "gradients": "a row has five reductions of the gradient (smallest and largest, sum, squares, "
    "signs and how many of them) and the weight's norm, where the floor is one; in the cache each "
    "still takes half as long as the floor's pass from memory, and on small tensors the calls "
    "alone take five times the floor's.",
}


@dataclass(frozen=True)
class Plan:
    """A work, whom to measure on it, and what our time over theirs may be at most."""

    comparison: str
    work: str
    targets: dict[str, float | None]  # by whom we are measured beside
    cold_targets: dict[str, float] | None = None
    most_megabytes: float | None = None
    together: bool = False
    ours: tuple[str, ...] = ("blitz_helpers",)
    unit: str = "times"
    seconds: float = 10

    def samples(self) -> dict[str, Sample]:
        return measure(
            self.comparison, self.work, [*self.ours, *self.targets], together=self.together,
            cold=7 if self.cold_targets else 1, seconds=self.seconds,
        )  # fmt: skip


def none(*names: str) -> dict[str, float | None]:
    return dict.fromkeys(names)


PLANS = (
    Plan("trace", NETWORK, {"torchinfo": 1} | none(*VIEWERS[1:], META, FAKE, REAL),
         cold_targets={"torchinfo": 1}, most_megabytes=1, seconds=4),
    Plan("trace", f"{RESNET}, 1 image", {"torchinfo": 1 / 5} | none(*VIEWERS[1:])
         | {META: 0.3} | none(FAKE, REAL), most_megabytes=1, seconds=20),
    Plan("trace", f"{RESNET}, 32", {"torchinfo": 1 / 150, META: 0.3} | none(FAKE, REAL),
         most_megabytes=1, seconds=30),
    Plan("trace", "Llama of 1 billion, on meta", none(*VIEWERS, META) | {FAKE: 1 / 5},
         most_megabytes=1),
    Plan("trace", "Llama of 7 billion, on meta", none(*VIEWERS, META) | {FAKE: 1 / 5},
         most_megabytes=1),
    Plan("graph", NETWORK, none(LOOP) | {VIZ: 1 / 8, SAVED: 1 / 30}, seconds=3),
    Plan("graph", RESNET, none(LOOP) | {VIZ: 1 / 8, SAVED: 1 / 30}, seconds=10),
    Plan("graph", RESNET, {QUARTER: 0.04}, seconds=30),  # 1 % of the step
    Plan("graph", "loop of 2,000 steps", none(LOOP, VIZ, SAVED), seconds=4),
    Plan("graph", "loop of 100,000 steps", none(LOOP, VIZ), seconds=10),
    Plan("graph", "loop of 1,000,000 steps", none(LOOP) | {TENTHS: 1.25}, seconds=20),
    Plan("drawing", NETWORK, {"torchviz with dot": 1}),
    Plan("drawing", RESNET, {"torchviz with dot": 1}, seconds=15),
    Plan("figure", NETWORK, {"torchviz with dot, as PNG": 1}, seconds=10),  # ResNet-152: dot 20 s
    Plan("gradients", NETWORK, {FLOOR: 3}, together=True, seconds=2),
    Plan("gradients", RESNET, {FLOOR: 3}, together=True, seconds=5),
    Plan("gradients", RESNET, {QUARTER: 0.04}, together=True, seconds=30),  # 1 % of the step
    Plan("gradients", "Llama of 1 billion", {FLOOR: 3}, together=True, seconds=20),
    *(
        Plan(kind, work, {"torch.optim": 1.05} | none("torch.optim, foreach", "torch.optim, fused")
             | (none(FLOOR) if kind == "sgd" else {}), together=True, seconds=seconds)
        for kind, work, seconds in (
            *(("sgd", NETWORK, 2), ("sgd", RESNET, 8), ("sgd", "Llama of 1 billion", 20)),
            *(("adam", NETWORK, 2), ("adam", RESNET, 10)),
        )
    ),
    Plan("training", "250 steps, batches of 16", {"the bare loop": None}, together=True,
         ours=("fit", "fit, tracked"), unit="percent", seconds=30),
)  # fmt: skip
TRAINING_TARGETS = {"fit": 1.05, "fit, tracked": 1.25}


def rows_of(plan: Plan) -> list[Row]:
    samples = plan.samples()
    rows = []
    for ours in plan.ours:
        for theirs, target in plan.targets.items():
            target = TRAINING_TARGETS.get(ours, target)
            both = samples[ours], samples[theirs]
            work = plan.work if len(plan.ours) == 1 else f"{ours}, {plan.work}"
            cold = (plan.cold_targets or {}).get(theirs)
            if cold and both[1].first:
                loads = [list(map(add, one.load, one.first)) for one in both]
                for part, times in (("first call", [one.first for one in both]),
                                    ("import and first call", loads)):  # fmt: skip
                    place = f"{work}, {part} of a process"
                    why = WHY["fresh"]
                    row = Row(plan.comparison, place, theirs, ratios(*times), cold, why=why)
                    rows.append(row)
            ratio = ratios(both[0].warm, both[1].warm) if both[0].warm and both[1].warm else None
            failure = both[1].failure or (both[0].failure and f"ours {both[0].failure}")
            why = WHY.get(plan.comparison, "")
            rows.append(Row(plan.comparison, work, theirs, ratio, target, plan.unit, failure, why))
    if plan.most_megabytes:
        memory = samples[plan.ours[0]].memory
        others = ", ".join(
            f"{name} {samples[name].memory:.1f}"
            for name in plan.targets
            if samples[name].memory is not None
        )
        ratio = None if memory is None else (memory,) * 3
        rows.append(Row(plan.comparison, f"{plan.work}, extra MB when warm", others or "-", ratio,
                        plan.most_megabytes, "MB"))  # fmt: skip
    return rows


def main(names: list[str]) -> None:
    known = [*COMPARISONS, "import", "series", "robustness"]
    unknown = set(names) - set(known)
    if unknown:
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    wanted = names or known
    start = time.monotonic()
    rows: list[Row] = []

    def found(new: list[Row]) -> None:
        print(*map(str, new), sep="\n", flush=True)
        rows.extend(new)
        if not names:  # an interrupted run leaves what it has
            report.write(rows, [], (time.monotonic() - start) / 60)

    for plan in PLANS:
        if plan.comparison in wanted:
            found(rows_of(plan))
    for name, function in (("import", fresh.imports), ("series", fresh.series)):
        if name in wanted:
            found(function())
    survival = robustness.table() if "robustness" in wanted else []
    minutes = (time.monotonic() - start) / 60
    print(report.text(rows, survival, minutes))
    if not names:
        report.write(rows, survival, minutes)


if __name__ == "__main__":
    main(sys.argv[1:])
