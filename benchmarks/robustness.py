"""Which tool survives which hard model, and what it leaves behind."""

import copy
import gc
import json
import os
import signal
import sys
import warnings
import weakref
from collections import Counter
from functools import partial
from importlib import import_module
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 10  # for one model
TOOLS = ("blitz_helpers trace", "torchinfo", "torchview", "torchlens")
GRAPH_TOOLS = ("blitz_helpers graph", "torchviz")
GRADIENT_TOOLS = ("blitz_helpers gradient report", "blitz_helpers updates")
MOST_NAMED = 5  # models that a tool gives up on


def table() -> list[tuple[str, ...]]:
    """Return a row for each tool: how many models, which not, and what it left behind."""
    load_once()
    return [row(tool) for tool in (*TOOLS, *GRAPH_TOOLS, *GRADIENT_TOOLS)]


def load_once() -> None:
    """Import for all children what each would have to import for itself."""
    # The first two are what torch's meta kernels import.
    for name in ("sympy", "torch._dynamo", "torchinfo", "torchlens", "torchview", "torchviz"):
        import_module(name)

    import blitz_helpers

    for name in blitz_helpers.__all__:
        if name.startswith(("trace", "autograd", "gradient", "sgd")):
            getattr(blitz_helpers, name)


def row(tool: str) -> tuple[str, ...]:
    models = hard_models()
    outcomes = [attempt(tool, model) for model in models]
    pairs = zip(models, outcomes, strict=True)
    failed = [f"{model} ({said['failure']})" for model, said in pairs if said["failure"]]
    if len(failed) > MOST_NAMED:
        kinds = Counter(outcome["failure"] for outcome in outcomes if outcome["failure"])
        failures = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    else:
        failures = ", ".join(failed)
    effects = Counter(effect for outcome in outcomes for effect in outcome["effects"])
    return (
        tool,
        f"{len(models) - len(failed)} of {len(models)}",
        failures or "none",
        ", ".join(f"{name} {count}" for name, count in effects.most_common()) or "none",
    )


def hard_models():
    sys.path.insert(0, str(ROOT / "tests"))
    from hard_models import HARD_MODELS

    return HARD_MODELS


def attempt(tool: str, hard) -> dict[str, object]:
    """Try one model in a child process, which may crash or hang and takes its mess with it."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        os.dup2(devnull, 2)
        signal.alarm(SECONDS)
        outcome = trial(tool, hard)
        os.write(writer, json.dumps(outcome).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        said = answer.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 0:
        return json.loads(said)
    name = "exit" if status > 0 else signal.Signals(-status).name
    return {"failure": f"over {SECONDS} s" if name == "SIGALRM" else name, "effects": []}


def trial(tool: str, hard) -> dict[str, object]:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = hard.make_model()
    args, kwargs = hard.make_inputs()
    output = None
    if tool in GRAPH_TOOLS + GRADIENT_TOOLS:
        output = first_with_graph(model(*args, **kwargs))
        if output is None:
            return {"failure": None, "effects": []}
    if tool in GRADIENT_TOOLS and not output.is_meta:
        try:
            output.abs().double().mean().backward()
        except RuntimeError:  # the model overwrites what its own backward needs
            return {"failure": None, "effects": []}
    before, failure = State(model), None
    try:
        use(tool, model, args, kwargs, output)
    except Exception as error:
        failure = type(error).__name__
    # To move the weights is what an update is for; whether rightly, it was asked itself.
    effects = [] if tool == "blitz_helpers updates" else before.changes(model)
    alive = weakref.ref(model)
    del model, output, before
    hard_args = args, kwargs
    gc.collect()
    if alive() is not None and not any(alive() is one for one in hard_args):
        effects.append("model left alive")
    return {"failure": failure, "effects": effects}


def use(tool: str, model, args, kwargs, output) -> None:
    if tool == "blitz_helpers trace":
        from blitz_helpers import trace_shapes

        str(trace_shapes(model, *args, **kwargs))
    elif tool == "torchinfo":
        from torchinfo import summary

        str(summary(model, input_data=list(args), verbose=0, device=device_of(args), **kwargs))
    elif tool == "torchview":
        from torchview import draw_graph

        draw_graph(model, input_data=list(args), device=device_of(args), **kwargs)
    elif tool == "torchlens":
        import torchlens

        torchlens.trace(model, args if len(args) > 1 else args[0], input_kwargs=kwargs)
    elif tool == "torchviz":
        from torchviz import make_dot

        make_dot(output, dict(model.named_parameters()), show_attrs=True, show_saved=True)
    elif tool == "blitz_helpers graph":
        from blitz_helpers import autograd_graph

        str(autograd_graph(output))
    elif tool == "blitz_helpers gradient report":
        from blitz_helpers import gradient_report

        if any(True for _ in model.parameters()):
            str(gradient_report(model))
    else:
        updates_with_the_bits_of_torch(model)


def updates_with_the_bits_of_torch(model) -> None:
    from blitz_helpers import adam_step, momentum_step, sgd_step

    pairs = (
        (partial(sgd_step, lr=0.1), partial(torch.optim.SGD, lr=0.1)),
        (
            partial(momentum_step, velocities={}, lr=0.1),
            partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        ),
        (partial(adam_step, state={}, lr=0.01), partial(torch.optim.Adam, lr=0.01)),
    )
    for ours, theirs in pairs:
        params = [w for w in model.parameters() if w.grad is not None and not w.is_meta]
        twins = [w.detach().clone() for w in params]
        for twin, w in zip(twins, params, strict=True):
            twin.grad = w.grad
        if params:
            ours(params)
            theirs(twins).step()
        if not all(map(torch.equal, params, twins)):
            raise ArithmeticError("other bits than torch.optim")


def device_of(args) -> str:
    tensors = [one for one in args if isinstance(one, torch.Tensor)]
    return tensors[0].device.type if tensors else "cpu"


def first_with_graph(output):
    if isinstance(output, torch.Tensor):
        return output if output.grad_fn is not None else None
    values = output.values() if isinstance(output, dict) else output
    if isinstance(values, list | tuple) or isinstance(output, dict):
        for value in values:
            found = first_with_graph(value)
            if found is not None:
                return found
    return None


class State:
    """All that should be afterwards as it was."""

    def __init__(self, model: nn.Module):
        self.values = _values(model)
        self.modes = _modes(model)
        self.hooks = _hooks(model)
        self.kinds = [type(module) for module in model.modules()]
        self.grads = [w.grad is None for w in model.parameters()]
        self.random = torch.get_rng_state()
        self.globals = _globals()

    def changes(self, model: nn.Module) -> list[str]:
        after = _values(model)
        lazy = [name for name, value in self.values.items() if value is None]
        changed = after.keys() != self.values.keys() or any(
            value is not None and not _same(value, after[name])
            for name, value in self.values.items()
        )
        found = {
            "lazy layers materialised": any(after.get(name) is not None for name in lazy),
            "parameters or buffers changed": changed,
            "modes changed": self.modes != _modes(model),
            "hooks left": self.hooks != _hooks(model),
            "modules of another class": self.kinds != [type(m) for m in model.modules()],
            "gradients changed": self.grads != [w.grad is None for w in model.parameters()],
            "random state moved": not torch.equal(self.random, torch.get_rng_state()),
            "global state changed": self.globals != _globals(),
        }
        return [name for name, happened in found.items() if happened]


def _values(model: nn.Module) -> dict[str, torch.Tensor | None]:
    named = [*model.named_parameters(), *model.named_buffers()]
    return {
        name: None if nn.parameter.is_lazy(value) else copy.deepcopy(value.detach())
        for name, value in named
    }


def _same(a: torch.Tensor, b: torch.Tensor | None) -> bool:
    if b is None or a.shape != b.shape or a.is_meta != b.is_meta:
        return False
    return a.is_meta or torch.equal(a, b) or bool((a.isnan() & b.isnan()).any())


def _modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def _hooks(model: nn.Module) -> list[int]:
    return [
        sum(len(value) for name, value in vars(module).items() if "_hooks" in name and value)
        for module in model.modules()
    ]


def _globals() -> tuple[object, ...]:
    module = nn.modules.module
    return (
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_autocast_enabled("cpu"),
        len(module._global_forward_hooks) + len(module._global_forward_pre_hooks),
        torch.overrides._len_torch_function_stack(),
        *(id(getattr(torch, name)) for name in ("relu", "cat", "zeros")),
        *(id(getattr(torch.Tensor, name)) for name in ("add", "view")),
        id(nn.Module.__call__),
    )
