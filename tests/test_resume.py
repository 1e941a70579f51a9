"""A training that was stopped and resumed is, to the last bit, one that never stopped."""

import copy
import inspect
import itertools
import random
import shutil
import stat
import sys
import warnings
from collections import Counter, OrderedDict, defaultdict, deque
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    Sampler,
    TensorDataset,
)
from torch.utils.weak import WeakTensorKeyDictionary

from blitz_helpers import adam_step, fit, momentum_step, sgd_step
from blitz_helpers.training._reach import reachable

NUM_SAMPLES, NUM_CLASSES = 37, 3


def data(num_samples=NUM_SAMPLES):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(num_samples, 4, generator=generator)
    return TensorDataset(inputs, torch.randint(NUM_CLASSES, (num_samples,), generator=generator))


def seeded(seed=5):
    return torch.Generator().manual_seed(seed)


def make_model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, NUM_CLASSES))


def fingerprint(model):
    state = {name: value.clone() for name, value in model.state_dict().items()}
    return state | {f"{n}.grad": w.grad for n, w in model.named_parameters() if w.grad is not None}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def assert_resumes(tmp_path, make=make_model, loader=None, step=None, seed=lambda: None, **options):
    """Compare four epochs at a stretch with two and two, everything made anew in between."""
    loader = loader or (lambda: DataLoader(data(), 8, shuffle=True, generator=seeded()))
    step = step or (lambda: partial(sgd_step, lr=0.1))

    def train(epochs, **files):
        seed()
        model = make()
        made = {name: option() for name, option in options.items()}
        return model, fit(model, loader(), step(), epochs, **made, **files)

    path = tmp_path / "net.pt"
    whole, expected = train(4)
    train(2, checkpoint=path)
    torch.rand(1), np.random.rand(), random.random()
    model, history = train(4, resume_from=path)
    assert history == expected
    assert same(fingerprint(model), fingerprint(whole))


class Noisy(Dataset):
    """Samples with noise from a source that the data set or the process has."""

    def __init__(self, draw):
        self.draw, self.samples = draw, data()

    def __len__(self):
        return NUM_SAMPLES

    def __getitem__(self, index):
        inputs, label = self.samples[index]
        return inputs + float(self.draw()), label


class OwnSampler:
    """A sampler with a generator of Python's, in a slot."""

    __slots__ = ("rng",)

    def __init__(self):
        self.rng = random.Random(4)

    def __len__(self):
        return NUM_SAMPLES

    def __iter__(self):
        return iter(self.rng.sample(range(NUM_SAMPLES), NUM_SAMPLES))


def adding_noise(rng):
    def collate(rows):
        inputs, labels = zip(*rows, strict=True)
        return torch.stack(inputs) + float(rng.normal()), torch.stack(labels)

    return collate


RNG = np.random.default_rng(6)


def adding_global_noise(rows):
    inputs, labels = zip(*rows, strict=True)
    noise = [float(RNG.normal()) for _ in inputs]
    return torch.stack(inputs) + torch.tensor(noise)[:, None], torch.stack(labels)


class NoisyByItsClass(Dataset):
    rng = random.Random(6)

    def __len__(self):
        return NUM_SAMPLES

    def __getitem__(self, index):
        inputs, label = data()[index]
        return inputs + self.rng.random() + float(RNG.normal()), label


def draw_from_variable():
    return float(RNG.normal())


def adding_noise_by_a_helper(rows):
    inputs, labels = zip(*rows, strict=True)
    return torch.stack(inputs) + draw_from_variable(), torch.stack(labels)


class OwnIterator:
    """A loader that is its own iterator, and so no container to look into."""

    def __init__(self):
        self.rng, self.left = random.Random(4), 0

    def __len__(self):
        return 5

    def __iter__(self):
        self.left = len(self)
        return self

    def __next__(self):
        self.left -= 1
        if self.left < 0:
            raise StopIteration
        return data()[self.rng.sample(range(NUM_SAMPLES), 7)]


class ShufflingList(list):
    rng = random.Random(6)

    def __iter__(self):
        return iter(self.rng.sample(range(len(self)), len(self)))


class Sample:
    def __init__(self, inputs, label):
        self.inputs, self.label, self.boxes = inputs, label, [[1, 2], [3, 4]]


class ManyObjects(Dataset):
    """Far more objects than are looked at, before and around what draws."""

    def __init__(self):
        rows = [Sample(*row) for row in data()]
        self.folders = [[*rows, *(Sample(None, at) for at in range(300))] for _ in range(90)]
        self.transforms = [SimpleNamespace(inner=[Noisy(np.random.default_rng(3).random)])]

    def __len__(self):
        return NUM_SAMPLES

    def __getitem__(self, index):
        row = self.folders[index][index]
        return row.inputs + float(self.transforms[0].inner[0].draw()), row.label


LOADERS = {
    "a method of a generator of Python's": lambda: DataLoader(Noisy(random.Random(3).random), 8),
    "a helper of a function": lambda: DataLoader(data(), 8, collate_fn=adding_noise_by_a_helper),
    "a loader that is its own iterator": OwnIterator,
    "a list that shuffles itself": lambda: DataLoader(
        data(), 8, sampler=ShufflingList(range(NUM_SAMPLES))
    ),
    "a generator behind many objects": lambda: DataLoader(ManyObjects(), 8),
    "a batch sampler around a sampler": lambda: DataLoader(
        data(), batch_sampler=BatchSampler(RandomSampler(data(), generator=seeded()), 8, False)
    ),
    "a sampler with a generator of Python's": lambda: DataLoader(data(), 8, sampler=OwnSampler()),
    "torch's global state": lambda: DataLoader(data(), 8, shuffle=True),
    "numpy's generator in the data": lambda: DataLoader(Noisy(np.random.default_rng(3).random), 8),
    "numpy's old generator in the data": lambda: DataLoader(
        Noisy(np.random.RandomState(3).rand), 8
    ),
    "numpy's global state in the data": lambda: DataLoader(Noisy(np.random.rand), 8),
    "Python's global state in the data": lambda: DataLoader(Noisy(random.random), 8),
    "torch's generator in the data": lambda: DataLoader(
        Noisy(partial(torch.rand, (), generator=seeded())), 8
    ),
    "a generator in a closure": lambda: DataLoader(
        data(), 8, collate_fn=adding_noise(np.random.Generator(np.random.MT19937(2)))
    ),
    "a global generator in a function": lambda: DataLoader(
        data(), 8, collate_fn=adding_global_noise
    ),
    "generators of a class and of its module": lambda: DataLoader(NoisyByItsClass(), 8),
    "a list of batches": lambda: list(DataLoader(data(), 8)),
}


def seed_all():
    RNG.bit_generator.state = np.random.PCG64(6).state
    NoisyByItsClass.rng.seed(6)
    ShufflingList.rng.seed(6)
    random.seed(3)
    np.random.seed(3)


@pytest.mark.parametrize("loader", LOADERS)
def test_the_batches_are_those_that_would_have_come(tmp_path, loader):
    assert_resumes(tmp_path, loader=LOADERS[loader], seed=seed_all)


@pytest.mark.skipif(sys.platform == "win32", reason="starting workers anew takes long there")
@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("generator", [seeded, lambda: None])
def test_batches_from_workers_are_those_that_would_have_come(tmp_path, lasting, generator):
    assert_resumes(
        tmp_path,
        loader=lambda: DataLoader(
            data(), 8, shuffle=True, num_workers=1, persistent_workers=lasting,
            generator=generator(),
        ),
    )  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="starting workers anew takes long there")
def test_what_cannot_be_seen_in_lasting_workers_is_named(tmp_path):
    def loader():
        return DataLoader(Noisy(random.random), 8, num_workers=1, persistent_workers=True)

    path = tmp_path / "net.pt"
    fit(make_model(), loader(), partial(sgd_step, lr=0.1), 1, checkpoint=path)
    with pytest.warns(
        UserWarning, match=r"Noisy draws inside persistent workers cannot be resumed"
    ):
        fit(make_model(), loader(), partial(sgd_step, lr=0.1), 2, resume_from=path)


def test_a_random_validation_is_the_one_that_would_have_come(tmp_path):
    assert_resumes(
        tmp_path,
        val_loader=lambda: DataLoader(Noisy(np.random.default_rng(3).random), 8),
    )


def test_dropout_is_the_one_that_would_have_come(tmp_path):
    assert_resumes(tmp_path, make=lambda: make_model().insert(2, nn.Dropout(0.5)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_dropout_on_a_gpu_is_the_one_that_would_have_come(tmp_path):
    def make():
        torch.cuda.manual_seed(1)
        return make_model().insert(2, nn.Dropout(0.5)).cuda()

    assert_resumes(tmp_path, make=make, step=RULES["bound by name"])


def test_a_generator_that_the_model_holds_goes_on(tmp_path):
    class Jitter(nn.Module):
        def __init__(self):
            super().__init__()
            self.rng = seeded(7)

        def forward(self, x):
            return x + torch.randn(x.shape, generator=self.rng) if self.training else x

    assert_resumes(tmp_path, make=lambda: make_model().insert(0, Jitter()))


def test_extra_state_and_the_versions_of_modules_are_kept(tmp_path):
    class Counting(nn.Module):
        _version = 3

        def __init__(self):
            super().__init__()
            self.seen = Counter()

        def forward(self, x):
            self.seen["batches"] += self.training
            return x * (1 + 0.01 * self.seen["batches"])

        def get_extra_state(self):
            return self.seen

        def set_extra_state(self, seen):
            self.seen = seen

        def _load_from_state_dict(self, state_dict, prefix, local_metadata, *rest):
            assert local_metadata["version"] == 3
            super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    def make():
        return nn.Sequential(Counting(), *make_model())

    def train(epochs, **files):
        model = make()
        batches = DataLoader(data(), 8, shuffle=True, generator=seeded())
        return fit(model, batches, partial(sgd_step, lr=0.1), epochs, **files)

    path = tmp_path / "net.pt"
    whole = train(4)
    train(2, checkpoint=path)
    assert train(4, resume_from=path) == whole


def bound_by_place():
    def rule(velocities, params):
        momentum_step(params, velocities, lr=0.1)

    return partial(rule, {})


def in_a_closure():
    state = {}
    return lambda params: adam_step(params, state, lr=0.01)


def an_object():
    class Rule:
        def __init__(self):
            self.state = {}

        def __call__(self, params):
            adam_step(params, self.state, lr=0.01)

    return Rule()


def a_method():
    return an_object().__call__


def one_dict_for_all():
    def rule(params, memory):
        momentum_step(params, memory.setdefault("velocities", {}), lr=0.1)
        memory["seen"] = np.float64(memory.get("seen", 0) + 1)
        memory.setdefault("norms", deque(maxlen=3)).append(params[0].norm().item())
        memory.setdefault("first", params[0])
        assert memory["first"] is params[0]

    return partial(rule, memory={})


def with_noise():
    def rule(params, generator):
        sgd_step(params, lr=0.1)
        with torch.no_grad():
            params[0].add_(torch.randn(params[0].shape, generator=generator), alpha=0.01)

    return partial(rule, generator=seeded(9))


VELOCITIES = {}


def in_a_global():
    VELOCITIES.clear()
    return lambda params: momentum_step(params, VELOCITIES, lr=0.1)


def with_velocities(params, velocities):
    """Move as momentum does, with the velocities in a list or under numbers."""
    if not velocities:
        zeros = [torch.zeros_like(w) for w in params]
        if isinstance(velocities, list):
            velocities.extend(zeros)
        else:
            velocities.update(enumerate(zeros))
    with torch.no_grad():
        for place, w in enumerate(params):
            velocities[place].mul_(0.9).add_(w.grad)
            w.sub_(velocities[place], alpha=0.1)


def in_a_list():
    velocities = []
    return lambda params: with_velocities(params, velocities)


def under_numbers():
    velocities = {}
    return lambda params: with_velocities(params, velocities)


def falling(params, count):
    sgd_step(params, lr=0.5 / count)


def counting_in_an_attribute():
    class Rule:
        count = 0

        def __call__(self, params):
            self.count += 1
            falling(params, self.count)

    return Rule()


def counting_on_the_class():
    class Rule:
        count = 0

        def __call__(self, params):
            type(self).count += 1
            falling(params, self.count)

    return Rule()


def counting_in_a_slot():
    class Rule:
        __slots__ = ("count",)

        def __init__(self):
            self.count = 0

        def __call__(self, params):
            self.count += 1
            falling(params, self.count)

    return Rule()


def counting_in_a_closure():
    count = 0

    def step(params):
        nonlocal count
        count += 1
        falling(params, count)

    return step


def counting_on_the_function():
    def step(params):
        step.count += 1
        falling(params, step.count)

    step.count = 0
    return step


COUNT = 0


def counting_in_a_global():
    global COUNT
    COUNT = 0

    def step(params):
        global COUNT
        COUNT += 1
        falling(params, COUNT)

    return step


def counting_in_a_namespace():
    memory = SimpleNamespace(count=torch.zeros(()))

    def step(params):
        memory.count += 1
        falling(params, memory.count.item())

    return step


def counting_in_an_array():
    class Rule:
        def __init__(self):
            self.counts, self.step = np.zeros(2), np.float64(0)

        def __call__(self, params):
            self.counts[0] += 1
            self.step += 0.5
            falling(params, float(self.counts[0] + self.step))

    return Rule()


def clipping_by_the_last_norms():
    class Clipping:
        def __init__(self):
            self.norms, self.seen = deque(maxlen=4), frozenset()

        def __call__(self, params):
            norm = torch.nn.utils.get_total_norm([w.grad for w in params]).item()
            self.norms.append(norm)
            self.seen |= {round(norm, 2)}
            torch.nn.utils.clip_grads_with_norm_(params, sum(self.norms) / 4, torch.tensor(norm))
            falling(params, len(self.seen))

    return Clipping()


def counting_words():
    counts = {}

    def step(params):
        word = "steep" if params[0].grad.norm() > 0.2 else "flat"
        counts[word] = counts.get(word, 0) + 1
        falling(params, counts[word])

    return step


def made_at_the_first_step():
    class Rule:
        velocities = None

        def __call__(self, params):
            self.velocities = self.velocities or {}
            momentum_step(params, self.velocities, lr=0.1)

    return Rule()


def a_dict_for_each():
    class Rule:
        def __init__(self):
            self.state = defaultdict(dict)
            self.state["self"] = [self.state]  # which nothing could store

        def __call__(self, params):
            self.state.pop("self", None)
            for place, w in enumerate(params):
                memory = self.state[place]
                memory["seen"] = memory.get("seen", 0) + 1
                memory["mean"] = 0.9 * memory.get("mean", 0) + w.grad
                with torch.no_grad():
                    w.sub_(memory["mean"], alpha=0.1 / memory["seen"])

    return Rule()


def a_tuple_made_anew():
    class Rule:
        velocities = ()

        def __call__(self, params):
            before = self.velocities or [0] * len(params)
            self.velocities = tuple(0.9 * v + w.grad for v, w in zip(before, params, strict=True))
            with torch.no_grad():
                for w, v in zip(params, self.velocities, strict=True):
                    w.sub_(v, alpha=0.1)

    return Rule()


def for_matrices_alone():
    momenta = {}

    def step(params):
        for place, w in enumerate(params):
            g = w.grad
            if w.ndim == 2:
                g = momenta[f"matrix {place}"] = 0.9 * momenta.get(f"matrix {place}", 0) + g
            with torch.no_grad():
                w.sub_(g, alpha=0.1)

    return step


def of_two_models():
    torch.manual_seed(8)
    other, mine, theirs = nn.Linear(1, 1), {}, {}

    def step(params):
        adam_step(params, mine, lr=0.01)
        other.zero_grad()
        other(params[0].detach().norm().view(1, 1)).sum().backward()
        adam_step(other.parameters(), theirs, lr=0.1)
        with torch.no_grad():
            params[0].mul_(1 + 0.01 * other.weight.item())

    return step


def in_values_of_many_kinds():
    state = {"key": b"a", "n": np.int64(0), "dtype": torch.float32, "sizes": {}}

    def step(params):
        state["n"] += 1
        state["key"] += b"a"
        for w in params:
            state["sizes"].setdefault(w.shape, []).append(w.grad.norm(dtype=state["dtype"]).item())
        falling(
            params, len(state["key"]) + float(state["n"]) + sum(state["sizes"][params[0].shape])
        )

    return step


def one_vector():
    class Rule:
        velocity = None

        def __call__(self, params):
            gradient = torch.cat([w.grad.flatten() for w in params])
            self.velocity = gradient if self.velocity is None else 0.9 * self.velocity + gradient
            parts = self.velocity.split([w.numel() for w in params])
            with torch.no_grad():
                for w, v in zip(params, parts, strict=True):
                    w.sub_(v.view_as(w), alpha=0.1)

    return Rule()


def on_the_parameters():
    def step(params):
        for w in params:
            w.velocity = 0.9 * getattr(w, "velocity", 0) + w.grad
            with torch.no_grad():
                w.sub_(w.velocity, alpha=0.1)

    return step


def under_ids():
    def rule(params, memory):
        for w in params:
            memory[id(w)] = 0.9 * memory.get(id(w), 0) + w.grad
            with torch.no_grad():
                w.sub_(memory[id(w)], alpha=0.1)

    return partial(rule, memory={})


def in_the_last_three():
    def rule(params, norms):
        norms.append(params[0].grad.norm().item())
        falling(params, 1 + sum(norms))

    return partial(rule, norms=deque(maxlen=3))


def in_a_set():
    def rule(params, seen):
        seen.add(round(params[0].grad.norm().item(), 4))
        falling(params, len(seen))

    return partial(rule, seen=set())


def counting_in_a_counter():
    counts = Counter()

    def step(params):
        counts["steps"] += 1
        falling(params, counts["steps"])

    return step


def counting_in_a_default():
    def step(params, *, counts=[0]):  # noqa: B006, as users write it
        counts[0] += 1
        falling(params, counts[0])

    step.__kwdefaults__["counts"] = [0]
    return step


def with_memory_in_a_default():
    def step(params, state={}):  # noqa: B006, as users write it
        adam_step(params, state, lr=0.01)

    step.__defaults__ = ({},)
    return step


def with_memory_under_weak_keys():
    state = WeakTensorKeyDictionary()
    return lambda params: adam_step(params, state, lr=0.01)


RULES = {
    "memory under weak keys": with_memory_under_weak_keys,
    "a count in a counter": counting_in_a_counter,
    "a count in a default": counting_in_a_default,
    "memory in a default": with_memory_in_a_default,
    "a count in an attribute": counting_in_an_attribute,
    "a count in a slot": counting_in_a_slot,
    "a count on the class": counting_on_the_class,
    "a count in a closure": counting_in_a_closure,
    "a count on the function": counting_on_the_function,
    "a count in a global": counting_in_a_global,
    "a count in a namespace": counting_in_a_namespace,
    "a count in an array of numpy": counting_in_an_array,
    "numbers in a deque and a set": clipping_by_the_last_norms,
    "numbers in a dict": counting_words,
    "a vector in an attribute": one_vector,
    "values of many kinds": in_values_of_many_kinds,
    "of two models": of_two_models,
    "made at the first step": made_at_the_first_step,
    "a dict for each parameter": a_dict_for_each,
    "a tuple that is made anew": a_tuple_made_anew,
    "for some parameters alone": for_matrices_alone,
    "on the parameters": on_the_parameters,
    "under the ids of parameters": under_ids,
    "in a deque": in_the_last_three,
    "in a set": in_a_set,
    "bound by name": lambda: partial(momentum_step, velocities={}, lr=0.1),
    "bound twice": lambda: partial(partial(adam_step, state={}), lr=0.01),
    "bound by place": bound_by_place,
    "in a closure": in_a_closure,
    "in an object": an_object,
    "in an object, by a method": a_method,
    "in a global": in_a_global,
    "in a list": in_a_list,
    "in a bound list": lambda: partial(with_velocities, velocities=[]),
    "under numbers": under_numbers,
    "in one dict with more": one_dict_for_all,
    "a generator": with_noise,
}


@pytest.mark.parametrize("rule", RULES)
def test_what_the_rule_remembers_is_kept_wherever_it_is(tmp_path, rule):
    assert_resumes(tmp_path, step=RULES[rule])


class Shuffled(Sampler):
    def __init__(self):
        self.epoch = 0

    def __len__(self):
        return len(data())

    def __iter__(self):
        self.epoch += 1
        return iter(random.Random(self.epoch).sample(range(len(self)), len(self)))


def test_a_sampler_that_counts_its_epochs_goes_on(tmp_path):
    assert_resumes(tmp_path, loader=lambda: DataLoader(data(), 8, sampler=Shuffled()))


def test_a_sampler_with_a_state_dict_goes_on(tmp_path):
    class Stateful(Shuffled):
        def __init__(self):
            self.epochs = [0]

        def __iter__(self):
            self.epochs[0] += 1
            return iter(random.Random(self.epochs[0]).sample(range(len(self)), len(self)))

        def state_dict(self):
            return {"epochs": self.epochs[0]}

        def load_state_dict(self, state):
            self.epochs[0] = state["epochs"]

    assert_resumes(tmp_path, loader=lambda: DataLoader(data(), 8, sampler=Stateful()))


class Log:
    """Counts in a list, in a dict and in a tuple."""

    def __init__(self):
        self.calls, self.counts, self.last, self.inner = [], {"calls": 0}, (), {}

    def count(self):
        self.calls.append("call")
        self.counts["calls"] += 1
        self.last = (self.counts["calls"], *self.last[:1])
        self.inner.setdefault("calls", []).append(1)
        return sum(map(len, (self.calls, *self.inner.values()))) + sum(self.last)


class LoggingSampler(Shuffled):
    def __init__(self):
        self.log = Log()

    def __iter__(self):
        draw = random.Random(self.log.count())
        return iter(draw.sample(range(len(self)), len(self)))


class LoggingModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.log = Log()

    def forward(self, x):
        return x * (1 + 1 / self.log.count())


def logging_schedule():
    log = Log()
    return lambda done: 0.5 / log.count()


LOGGING = {
    "sampler": {"loader": lambda: DataLoader(data(), 8, sampler=LoggingSampler())},
    "model": {"make": lambda: nn.Sequential(LoggingModel(), *make_model())},
    "schedule": {"step": lambda: sgd_step, "lr_schedule": logging_schedule},
}


@pytest.mark.parametrize("parts", LOGGING.values(), ids=LOGGING)
def test_any_part_may_count_in_containers(tmp_path, parts):
    assert_resumes(tmp_path, **parts)


def test_a_layer_that_is_unfrozen_on_the_way_stays_unfrozen(tmp_path):
    class Unfreezing:
        calls = 0

        def __call__(self, params):
            self.calls += 1
            if self.calls == 3:
                params[0].requires_grad_(True)
            sgd_step([w for w in params if w.requires_grad], lr=0.5)

    def frozen():
        model = make_model()
        next(model.parameters()).requires_grad_(False)
        return model

    assert_resumes(tmp_path, make=frozen, step=Unfreezing)


def test_a_model_that_counts_its_calls_goes_on(tmp_path):
    class Fading(nn.Module):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return x * (1 + 1 / self.calls)

    assert_resumes(tmp_path, make=lambda: nn.Sequential(Fading(), *make_model()))


def test_a_setting_that_is_changed_before_a_resume_stays_changed(tmp_path):
    class Rule:
        def __init__(self, lr):
            self.lr, self.count = lr, 0

        def __call__(self, params):
            self.count += 1
            sgd_step(params, lr=self.lr)

    path, rule = tmp_path / "net.pt", Rule(0.01)
    fit(make_model(), loader(), Rule(0.1), 2, checkpoint=path)
    fit(make_model(), loader(), rule, 3, resume_from=path, checkpoint=path)
    assert (rule.lr, rule.count) == (0.01, 3 * len(loader()))
    again = Rule(0.01)
    again.count = rule.count  # as it is in the file, and kept in it although nothing changes it
    fit(make_model(), loader(), again, 3, resume_from=path)
    assert again.count == rule.count


class Stopping:
    """A rule that the caller's own number stops, as Ctrl-C would."""

    def __init__(self, at):
        self.at = at

    def __call__(self, params):
        if self.at == 0:
            raise KeyboardInterrupt
        self.at -= 1
        sgd_step(params, lr=0.1)


def test_a_number_that_the_caller_sets_anew_stays_and_is_named(tmp_path):
    path = tmp_path / "net.pt"
    assert fit(make_model(), loader(), Stopping(12), 3, checkpoint=path).interrupted
    message = r"step\.at is 40, but was 12 when .* began, and 2 at its end.* stays"
    with pytest.warns(UserWarning, match=message):
        history = fit(make_model(), loader(), Stopping(40), 3, resume_from=path)
    assert len(history.losses) == 15
    assert not history.interrupted
    # Set to its first value, as the warning says, it goes on: after two steps it stops again.
    assert len(fit(make_model(), loader(), Stopping(12), 3, resume_from=path).losses) == 12


def test_a_list_is_restored_in_place_and_one_that_the_caller_fills_stays(tmp_path):
    def counting(calls):
        def step(params):
            calls.append(len(calls))
            sgd_step(params, lr=0.1)

        return step

    path, calls, more = tmp_path / "net.pt", [], ["mine"]
    fit(make_model(), loader(), counting([]), 2, checkpoint=path)
    fit(make_model(), loader(), counting(calls), 3, resume_from=path)
    assert calls == list(range(15))
    with pytest.warns(UserWarning, match=r"calls is \['mine'\], but was \[\] when"):
        fit(make_model(), loader(), counting(more), 3, resume_from=path)
    assert more == ["mine", *range(1, 6)]


def test_a_step_that_is_used_again_goes_on_from_where_it_is(tmp_path):
    path, step = tmp_path / "net.pt", counting_in_an_attribute()
    whole = fit(make_model(), loader(), counting_in_an_attribute(), 3)
    fit(make_model(), loader(), step, 2, checkpoint=path)
    assert fit(make_model(), loader(), step, 3, resume_from=path) == whole


def test_a_number_that_is_restored_once_is_restored_again(tmp_path):
    path, whole = tmp_path / "net.pt", fit(make_model(), loader(), counting_in_a_closure(), 3)
    for epochs in (1, 2, 3):
        more = {"resume_from": path} if epochs > 1 else {}
        step = counting_in_a_closure()
        history = fit(make_model(), loader(), step, epochs, checkpoint=path, **more)
    assert history == whole


def test_a_refused_resume_leaves_no_variable_behind(tmp_path):
    path = tmp_path / "net.pt"
    fit(make_model(), loader(), counting_in_an_attribute(), 1, checkpoint=path)
    samples, rule = data(), counting_in_an_attribute()
    samples.tensors[1].fill_(99)
    batches = DataLoader(samples, 8, shuffle=True, generator=seeded())
    with pytest.raises(ValueError, match="label 99 is out of range"):
        fit(make_model(), batches, rule, 2, resume_from=path)
    assert vars(rule) == {}


def test_a_refused_resume_leaves_no_global_behind(tmp_path):
    def step(params):
        global LATE
        LATE = globals().get("LATE", 0) + 1
        sgd_step(params, lr=0.1)

    path, samples = tmp_path / "net.pt", data()
    fit(make_model(), loader(), step, 1, checkpoint=path)
    assert globals().pop("LATE") == 5
    samples.tensors[1].fill_(99)
    batches = DataLoader(samples, 8, shuffle=True, generator=seeded())
    with pytest.raises(ValueError, match="label 99 is out of range"):
        fit(make_model(), batches, step, 2, resume_from=path)
    assert "LATE" not in globals()
    fit(make_model(), loader(), step, 2, resume_from=path)
    assert globals().pop("LATE") == 10


def test_a_first_step_that_fails_leaves_what_the_rule_holds_as_it_was():
    velocities, counts = {}, []

    def step(params):
        counts.append(1)
        momentum_step(params, velocities, lr=0.1)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fit(make_model(), loader(), step, 1)
    assert (velocities, counts) == ({}, [])


def test_no_code_of_what_is_searched_runs():
    class Answering:
        __slots__ = ("lacking", "rng")

        def __init__(self):
            self.rng = random.Random(4)

        def __getattr__(self, name):
            raise AssertionError(name)

    class Iterating(list):
        def __iter__(self):
            raise AssertionError

    held = [name for name, _ in reachable([Iterating([Answering()])])]
    assert {"[0]", "[0][0]", "[0][0].rng"} <= set(held)


def test_large_data_is_not_searched_whole():
    samples = [Sample(None, at) for at in range(50_000)]
    assert sum(1 for _ in reachable({"samples": samples, "by name": {"all": samples}})) < 5_000


def test_the_objects_of_libraries_are_left_alone(tmp_path):
    class Bar:
        __module__ = "torch"
        shown = 0

        def __call__(self, params):
            self.shown += 1
            sgd_step(params, lr=0.1)

    path, bar = tmp_path / "net.pt", Bar()
    fit(make_model(), loader(), Bar(), 1, checkpoint=path)
    fit(make_model(), loader(), bar, 2, resume_from=path)
    assert bar.shown == len(loader())


def test_an_optimizer_of_torch_goes_on(tmp_path):
    made = []

    def make():
        made.append(make_model())
        return made[-1]

    def step():
        optimizer = torch.optim.AdamW(made[-1].parameters(), lr=0.01)
        return lambda params: optimizer.step()

    assert_resumes(tmp_path, make=make, step=step)


SCHEDULERS = {
    "StepLR": lambda optimizer: lr_scheduler.StepLR(optimizer, 3, 0.5),
    "MultiStepLR": lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [3, 7, 12]),
    "OneCycleLR": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=30),
    "CyclicLR": lambda optimizer: lr_scheduler.CyclicLR(optimizer, 0.01, 0.2, 3),
    "SequentialLR": lambda optimizer: lr_scheduler.SequentialLR(
        optimizer,
        [lr_scheduler.ConstantLR(optimizer, 0.5, 4), lr_scheduler.ExponentialLR(optimizer, 0.9)],
        [5],
    ),
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_scheduler_of_torch_goes_on(tmp_path, scheduler):
    made = []

    def make():
        made.append(make_model())
        return made[-1]

    def step():
        optimizer = torch.optim.SGD(made[-1].parameters(), lr=0.1, momentum=0.9)
        schedule = SCHEDULERS[scheduler](optimizer)

        def rule(params):
            optimizer.step()
            schedule.step()

        return rule

    assert_resumes(tmp_path, make=make, step=step)


def averaging(model):
    average = torch.optim.swa_utils.AveragedModel(model)

    def rule(params):
        sgd_step(params, lr=0.1)
        average.update_parameters(model)
        with torch.no_grad():
            for w, mean in zip(params, average.module.parameters(), strict=True):
                w.lerp_(mean, 0.1)

    return rule


def test_an_averaged_model_that_the_rule_keeps_goes_on(tmp_path):
    made = []

    def make():
        made.append(make_model())
        return made[-1]

    assert_resumes(tmp_path, make=make, step=lambda: averaging(made[-1]))


class HoldingTheModel(nn.Module):
    """An average that holds the model itself, too, and a count of its own."""

    def __init__(self, model):
        super().__init__()
        self.model, self.average = model, copy.deepcopy(model)
        self.register_buffer("count", torch.zeros(()))

    def update(self):
        self.count += 1
        with torch.no_grad():
            for mean, w in zip(self.average.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(w, 1 / self.count.item())
                w.lerp_(mean, 0.1)


def test_an_average_that_holds_the_model_goes_on(tmp_path):
    made = []

    def make():
        made.append(make_model())
        return made[-1]

    def step():
        holder = HoldingTheModel(made[-1])
        part = holder.average  # found before the whole, or after it

        def rule(params):
            sgd_step(params, lr=0.1)
            holder.update()
            assert part is holder.average

        return rule

    assert_resumes(tmp_path, make=make, step=step)


def test_a_refused_resume_leaves_an_averaged_model_as_it_was(tmp_path):
    path, model = tmp_path / "net.pt", make_model()
    fit(model, loader(), averaging(model), 1, checkpoint=path)
    again, samples = make_model(), data()
    rule = averaging(again)
    before = [w.clone() for w in inspect.getclosurevars(rule).nonlocals["average"].parameters()]
    samples.tensors[1].fill_(99)
    batches = DataLoader(samples, 8, shuffle=True, generator=seeded())
    with pytest.raises(ValueError, match="label 99 is out of range"):
        fit(again, batches, rule, 2, resume_from=path)
    after = inspect.getclosurevars(rule).nonlocals["average"].parameters()
    assert all(map(torch.equal, before, after))


def test_a_rule_with_a_state_dict_goes_on(tmp_path):
    class Fading:
        def __init__(self):
            self.count = 0

        def __call__(self, params):
            self.count += 1
            sgd_step(params, lr=0.1 / self.count)

        def state_dict(self):
            return {"count": self.count}

        def load_state_dict(self, state):
            self.count = state["count"]

    assert_resumes(tmp_path, step=Fading)


def test_a_variable_called_like_an_argument_is_kept_beside_it(tmp_path):
    def step():
        state = {}

        def rule(params, **bound):
            adam_step(params, state, lr=0.01)
            momentum_step(params, bound["state"], lr=0.01)

        return partial(rule, state={})

    assert_resumes(tmp_path, step=step)


@pytest.fixture
def trained(tmp_path):
    """Return a checkpoint of one epoch, with all that makes it up."""
    path = tmp_path / "net.pt"
    fit(make_model(), loader(), adam(), 1, checkpoint=path)
    return path


def loader():
    return DataLoader(data(), 8, shuffle=True, generator=seeded())


def adam():
    return partial(adam_step, state={}, lr=0.01)


def refused(path, message, model=None, batches=None, step=None, error=ValueError, epochs=2):
    """Try to resume, and hold that nothing has changed."""
    model, batches, step = model or make_model(), batches or loader(), step or adam()
    before, drawn = fingerprint(model), torch.get_rng_state()
    order = batches.generator.get_state() if batches.generator else None
    file = path.read_bytes()
    with pytest.raises(error, match=message):
        fit(model, batches, step, epochs, resume_from=path)
    assert same(fingerprint(model), before)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert order is None or torch.equal(batches.generator.get_state(), order)
    assert not step.keywords.get("state")
    assert path.read_bytes() == file


def test_any_flipped_bit_is_found(trained):
    good = trained.read_bytes()
    draw = random.Random(0)
    for place in (0, len(good) - 1, *(draw.randrange(len(good)) for _ in range(30))):
        bad = bytearray(good)
        bad[place] ^= 1 << draw.randrange(8)
        trained.write_bytes(bad)
        refused(trained, "is damaged, or was not written by fit")


def test_a_checkpoint_of_another_version_is_refused(trained, monkeypatch):
    monkeypatch.setattr("blitz_helpers.training._checkpoint._VERSION", 5)
    refused(trained, "written by another version of blitz_helpers: its layout is 4, 5 is expected")


def test_a_checkpoint_of_another_dtype_is_refused(trained):
    refused(trained, r"0\.weight is torch\.float32 there and torch\.float64", make_model().double())


def test_a_checkpoint_of_another_place_of_memory_is_refused(trained):
    step = partial(lambda velocities, params: None, {})
    refused(trained, r"remembers state for it, step has args\[0\]", step=step)
    refused(trained, "remembers state for it, step has nothing", step=partial(sgd_step, lr=0.1))


def test_a_rule_that_lacks_what_another_remembers_is_refused(tmp_path):
    path = tmp_path / "net.pt"
    fit(make_model(), loader(), of_two_models(), 1, checkpoint=path)
    message = "remembers other for it, step has nothing"
    refused(path, message, step=partial(sgd_step, lr=0.1))
    fit(make_model(), loader(), in_a_closure(), 1, checkpoint=path)
    message = r"remembers step\.closure\.state for it, step has nothing"
    refused(path, message, step=partial(sgd_step, lr=0.1))


def test_a_checkpoint_of_another_source_of_order_is_refused(trained):
    message = r"random states of loader\.generator, here are nothing"
    refused(trained, message, batches=DataLoader(data(), 8))


def test_a_bad_first_batch_after_a_resume_changes_nothing(trained):
    samples = data()
    samples.tensors[1].fill_(99)
    batches = DataLoader(samples, 8, shuffle=True, generator=seeded())
    refused(trained, "label 99 is out of range", batches=batches)


@pytest.mark.parametrize(
    "value",
    [
        *(OrderedDict(a=1), Counter("aab"), {1, 2}, frozenset("ab"), torch.Size([2])),
        *(b"", b"a\xff"),
        *(np.arange(6).reshape(2, 3), np.zeros((0, 2)), np.array(3.5), np.array(["a", "bcd"])),
        *(np.float32(0.1), np.longdouble(1) / 3, np.datetime64("2026-01-01"), None),
    ],
)
def test_whatever_is_saved_is_given_back(tmp_path, value):
    def rule(params, state):
        seen.append(state.setdefault("kept", value))
        sgd_step(params, lr=0.1)

    seen = []
    path = tmp_path / "net.pt"
    fit(make_model(), [data(8)[:]], partial(rule, state={}), 1, checkpoint=path)
    fit(make_model(), [data(8)[:]], partial(rule, state={}), 2, resume_from=path)
    assert type(seen[-1]) is type(value)
    assert np.array_equal(seen[-1], value) if isinstance(value, np.ndarray) else seen[-1] == value


def test_what_could_not_be_given_back_is_named_when_it_is_saved_and_the_old_file_stays(trained):
    good = trained.read_bytes()
    for bad, message in [
        (object(), r"state\['kept'\] holds a builtins\.object, which a checkpoint cannot"),
        ({torch.ones(1): 1}, r"state\['kept'\] has a tensor as a key that is not a parameter"),
    ]:

        def rule(params, state, bad=bad):
            state["kept"] = bad

        with pytest.raises(TypeError, match=message):
            fit(make_model(), loader(), partial(rule, state={}), 1, checkpoint=trained)
        assert trained.read_bytes() == good
        assert list(trained.parent.iterdir()) == [trained]


def test_a_link_is_followed(tmp_path):
    target, link = tmp_path / "scratch" / "net.pt", tmp_path / "net.pt"
    target.parent.mkdir()
    link.symlink_to(target)
    for _ in range(2):  # where nothing is yet, and where something is
        fit(make_model(), loader(), adam(), 1, checkpoint=link)
        assert link.is_symlink()
        assert target.is_file()
        assert list(target.parent.iterdir()) == [target]
    fit(make_model(), loader(), adam(), 2, resume_from=link)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_a_link_to_itself_is_refused_and_stays(tmp_path):
    path = tmp_path / "net.pt"
    path.symlink_to(tmp_path / "other.pt")
    (tmp_path / "other.pt").symlink_to(path)
    with pytest.raises(FileExistsError, match="is a link to itself"):
        fit(make_model(), loader(), partial(sgd_step, lr=0.1), 1, checkpoint=path)
    assert path.is_symlink()


def test_permissions_stay(trained):
    trained.chmod(0o640)
    fit(make_model(), loader(), adam(), 1, checkpoint=trained)
    assert stat.S_IMODE(trained.stat().st_mode) == 0o640


def test_files_beside_the_checkpoint_are_left_alone(tmp_path):
    names = ("net.pt.part", "net.pt.tmp", "net.pt.bak", ".net.pt")
    for name in names:
        (tmp_path / name).write_text("mine")
    fit(make_model(), loader(), adam(), 1, checkpoint=tmp_path / "net.pt")
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([*names, "net.pt"])
    assert all((tmp_path / name).read_text() == "mine" for name in names)


def test_a_refused_resume_makes_no_folder(trained, tmp_path):
    shutil.copy(trained, tmp_path / "other.pt")
    (tmp_path / "other.pt").write_bytes(b"half a checkpo")
    with pytest.raises(ValueError, match="is damaged"):
        fit(
            make_model(), loader(), adam(), 2, resume_from=tmp_path / "other.pt",
            checkpoint=tmp_path / "new folder" / "net.pt",
        )  # fmt: skip
    assert not (tmp_path / "new folder").exists()


class Promising:
    """A loader that gives other numbers of batches than its length promises."""

    def __init__(self, promised, *given):
        self.promised, self.given = promised, itertools.chain(given, itertools.repeat(0))

    def __len__(self):
        return self.promised

    def __iter__(self):
        samples = data(24)
        return iter([samples[8 * (at % 3) : 8 * (at % 3) + 8] for at in range(next(self.given))])


@pytest.mark.parametrize(
    ("promised", "given"), [(5, (2, 2, 2)), (2, (3, 3, 3)), (3, (3, 1, 2)), (1, (1, 4, 1))]
)
def test_steps_are_counted_as_they_come_and_not_as_promised(tmp_path, promised, given):
    lrs = []

    def rule(params, lr):
        lrs.append(lr)
        sgd_step(params, lr)

    def train(*given, epochs, **files):
        batches = Promising(promised, *given)
        return fit(
            make_model(), batches, rule, epochs, lr_schedule=lambda done: 1 - done, **files
        )  # fmt: skip

    whole = train(*given, epochs=3)
    assert whole.epochs == len(whole.epoch_losses) == 3
    assert len(whole.losses) == sum(given)
    starts = [0, *itertools.accumulate(given)]
    means = [sum(whole.losses[a:b]) / (b - a) for a, b in itertools.pairwise(starts)]
    assert list(whole.epoch_losses) == pytest.approx(means)
    assert all(0 < lr <= 1 for lr in lrs)

    path = tmp_path / "net.pt"
    with pytest.raises(ValueError, match="gave no batch in epoch 2"):
        train(given[0], epochs=3, checkpoint=path)
    assert train(*given[1:], epochs=3, resume_from=path, checkpoint=path) == whole
    assert train(epochs=3, resume_from=path) == whole  # through: no batch is asked for


def test_no_warning_comes_with_the_data_sets_of_torch(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_resumes(tmp_path)
