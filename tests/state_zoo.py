"""Models that keep something of a forward pass, each in another way."""

import contextlib
import functools
import warnings
from collections import ChainMap, Counter, OrderedDict, UserDict, defaultdict, deque
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace

import numpy as np
import torch
from torch import nn

SHAPE = (2, 8)
GLOBAL_FEATURES: list = []
GLOBAL_CACHE: dict = {"nested": {"deeper": []}}
LAST = None
settings = ModuleType("settings")


class Keeper(nn.Module):
    """Adds up what it has kept, so that its output tells whether something was left behind."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        y = self.linear(x)
        for kept in list(self.kept()):  # which another thread may be adding to
            y = y + kept
        self.keep(y.detach())
        return y

    def kept(self):
        return []


class InList(Keeper):
    def __init__(self):
        super().__init__()
        self.features = []

    def kept(self):
        return self.features

    def keep(self, y):
        self.features.append(y)


class InListSlot(InList):
    def __init__(self):
        super().__init__()
        self.features = [torch.zeros(2, 8)]

    def keep(self, y):
        self.features[0] = y


class InDeque(InList):
    def __init__(self):
        super().__init__()
        self.features = deque([torch.ones(2, 8)], maxlen=1)


class InSet(InList):
    def __init__(self):
        super().__init__()
        self.features = set()

    def keep(self, y):
        self.features.add(y)


class InNumpyArray(Keeper):
    """Counts its calls in numbers and in bytes that are written in place."""

    def __init__(self):
        super().__init__()
        self.calls, self.trail = np.zeros(3), bytearray(b"x")

    def kept(self):
        return [float(self.calls.sum()), len(self.trail)]

    def keep(self, y):
        self.calls += 1
        self.trail.append(7)


class InDataOfWeights(Keeper):
    """Moves a copy of its weights after them, as a teacher follows its student."""

    def __init__(self):
        super().__init__()
        self.teacher = nn.Linear(80, 80)
        self.mean = nn.Buffer(torch.zeros(8))

    def kept(self):
        return [self.teacher.weight[0, :8], self.mean]

    def keep(self, y):
        self.teacher.weight.data = self.teacher.weight.data * 0.9 + 0.1
        self.mean.data = y.mean(0)
        self.teacher.double()
        self.teacher.float()


class InNestedDicts(Keeper):
    def __init__(self):
        super().__init__()
        self.cache = {"layers": OrderedDict(first=defaultdict(list))}

    def kept(self):
        return self.cache["layers"]["first"]["keys"]

    def keep(self, y):
        self.cache["layers"]["first"]["keys"].append(y)
        self.cache["layers"].move_to_end("first")
        self.cache["count"] = self.cache.get("count", 0) + 1


class InTuple(Keeper):
    def __init__(self):
        super().__init__()
        self.pair = ([], {})

    def kept(self):
        return self.pair[0]

    def keep(self, y):
        self.pair[0].append(y)


class Plain:
    value = None


class Slotted:
    __slots__ = ("items", "value")

    def __init__(self):
        self.items = []


@dataclass
class Record:
    items: list = field(default_factory=list)
    count: int = 0


@dataclass(slots=True)
class SlottedRecord:
    items: list = field(default_factory=list)
    count: int = 0


class InObject(Keeper):
    make = Plain

    def __init__(self):
        super().__init__()
        self.holder = self.make()

    def kept(self):
        value = getattr(self.holder, "value", None)
        return [] if value is None else [value]

    def keep(self, y):
        self.holder.value = y


class InSlots(InObject):
    make = Slotted


class InNamespace(InObject):
    make = SimpleNamespace


class SlottedDict(dict):
    __slots__ = ("value",)


class InSlotsOfADict(InObject):
    make = SlottedDict


class InDataclass(Keeper):
    make = Record

    def __init__(self):
        super().__init__()
        self.record = self.make()

    def kept(self):
        return self.record.items

    def keep(self, y):
        self.record.items = [*self.record.items, y]
        self.record.count += 1


class InSlottedDataclass(InDataclass):
    make = SlottedRecord


class InUserDict(Keeper):
    make = UserDict

    def __init__(self):
        super().__init__()
        self.cache = self.make()

    def kept(self):
        return self.cache.values()

    def keep(self, y):
        self.cache["last"] = y


class InChainMap(InUserDict):
    make = ChainMap


class InCounter(InUserDict):
    make = Counter


class InAttribute(Keeper):
    last = None

    def kept(self):
        return [] if self.last is None else [self.last]

    def keep(self, y):
        self.last = y


class InClassAttribute(Keeper):
    last = None

    def kept(self):
        return [] if InClassAttribute.last is None else [InClassAttribute.last]

    def keep(self, y):
        type(self).last = y


class InNewClassAttribute(Keeper):
    def kept(self):
        with contextlib.suppress(AttributeError):
            return [self.newest]
        return []

    def keep(self, y):
        type(self).newest = y


class InClassList(Keeper):
    shared: list = []  # noqa: RUF012 - the mistake that is shown

    def kept(self):
        return self.shared

    def keep(self, y):
        self.shared.append(y)


class InGlobalList(Keeper):
    def kept(self):
        return GLOBAL_FEATURES

    def keep(self, y):
        GLOBAL_FEATURES.append(y)


class InGlobalDict(Keeper):
    def kept(self):
        return GLOBAL_CACHE["nested"]["deeper"]

    def keep(self, y):
        keep_globally(y)


def keep_globally(y):
    GLOBAL_CACHE["nested"]["deeper"].append(y)


class InGlobalName(Keeper):
    def kept(self):
        return [] if LAST is None else [LAST]

    def keep(self, y):
        global LAST
        LAST = y


class InDefault(Keeper):
    def kept(self, cache=[]):  # noqa: B006 - the mistake that is shown
        return cache

    def keep(self, y):
        self.kept().append(y)


class InFunctionAttribute(Keeper):
    def kept(self):
        return getattr(remember, "items", [])

    def keep(self, y):
        remember.items = [*getattr(remember, "items", []), y]


def remember():
    """Carries an attribute."""


class InClosure(Keeper):
    def __init__(self):
        super().__init__()
        features, last = [], None

        def keep(y):
            nonlocal last
            last = y
            features.append(y)

        self.keep = keep
        self.kept = lambda: [*features, *([] if last is None else [last])]


class InHook(Keeper):
    """A forward hook keeps each output: a closure, a bound method, a partial or an object."""

    def __init__(self):
        super().__init__()
        self.items = []
        self.linear.register_forward_hook(self.hook())

    def hook(self):
        items = self.items
        return lambda module, args, output: items.append(output.detach())

    def kept(self):
        return self.items[:-1]  # the newest is this very output

    def keep(self, y):
        pass


class Collector:
    def __init__(self, items):
        self.items = items

    def __call__(self, module, args, output):
        self.items.append(output.detach())

    def take(self, module, args, output):
        self.items.append(output.detach())


class InBoundHook(InHook):
    def hook(self):
        return Collector(self.items).take


class InObjectHook(InHook):
    def hook(self):
        return Collector(self.items)


class InPartialHook(InHook):
    def hook(self):
        return functools.partial(collect, self.items, extra={})


def collect(items, module, args, output, extra):
    extra["last"] = output
    items.append(output.detach())


class InModuleOutsideTheTree(Keeper):
    def __init__(self):
        super().__init__()
        self.helpers = [InList()]

    def kept(self):
        return self.helpers[0].features

    def keep(self, y):
        self.helpers[0](y)


class InPlainTensor(Keeper):
    """A tensor that is not a buffer, written to in place, also through a view."""

    def __init__(self):
        super().__init__()
        self.memory = [torch.zeros(8)]

    def kept(self):
        return self.memory

    def keep(self, y):
        self.memory[0].add_(1)
        self.memory[0][:2].add_(1)
        self.memory[0][3] = 7


class InHooksOfItsOwn(Keeper):
    """Registers a hook, a buffer, a parameter and a module in forward."""

    def kept(self):
        return [] if not hasattr(self, "scale") else [self.scale]

    def keep(self, y):
        self.register_forward_hook(lambda *_: None)
        self.register_buffer("mean", y.mean(0))
        self.scale = nn.Parameter(torch.ones(8))
        self.extra = nn.Linear(8, 8)
        self.linear.weight.requires_grad_(False)
        self.eval()


class InItsGenerators(Keeper):
    """Draws from random generators of its own."""

    def __init__(self):
        super().__init__()
        import random

        import numpy as np

        self.generators = {
            "torch": torch.Generator().manual_seed(0),
            "python": random.Random(0),
            "numpy": np.random.default_rng(0),
            "old numpy": np.random.RandomState(0),
        }

    def kept(self):
        by = self.generators
        noise = torch.rand(8, generator=by["torch"])
        return [noise * by["python"].random() + float(by["numpy"].random())]

    def keep(self, y):
        self.generators["old numpy"].random()


class InNewGlobalOfAModule(Keeper):
    def kept(self):
        return [settings.last] if hasattr(settings, "last") else []

    def keep(self, y):
        settings.last = y


class InRenamedAttribute(Keeper):
    """Has one attribute less and one more after each pass, which hold the same."""

    def __init__(self):
        super().__init__()
        self.first = torch.ones(8)

    def kept(self):
        return [self.first] if "first" in vars(self) else [self.second * 2]

    def keep(self, y):
        if "first" in vars(self):
            self.second = vars(self).pop("first")


class InAskedForValues(InListSlot):
    """Asks for a value, so that it runs for real."""

    def __init__(self):
        super().__init__()
        self.memory = {"sum": torch.zeros(8), "seen": torch.zeros(100)}

    def kept(self):
        return [self.memory["sum"], *self.features]

    def keep(self, y):
        super().keep(y)
        if y.sum() > -1e9:
            self.memory["sum"] += y.sum(0)
            self.memory["seen"].view(10, 10)[0].add_(1)


class InScriptedNormAskedForValues(Keeper):
    """Runs for real, so that the statistics of its scripted norm move."""

    def __init__(self):
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.jit is deprecated
            self.norm = torch.jit.script(nn.BatchNorm1d(8))

    def kept(self):
        return [self.norm.running_mean]

    def keep(self, y):
        if y.sum() > -1e9:
            self.norm(y)


def _all_keepers(kind):
    for one in kind.__subclasses__():
        yield one
        yield from _all_keepers(one)


KEEPERS = sorted(set(_all_keepers(Keeper)), key=lambda kind: kind.__name__)
