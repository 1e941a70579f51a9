"""What `can_backward` says of every differentiable operation in torch's own list, and what is so.

As a program it tries all samples of all operations, prints a table and ends with 1 if one was
foretold wrong.

usage: python tests/operations.py [--samples N] [--seed 0]
"""

from __future__ import annotations

import argparse
import copy
import itertools
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from blitz_helpers import autograd_graph

# The first of each that an operation takes.
REAL = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
COMPLEX = (torch.complex128, torch.complex64)
MODES = ("first backward", "second backward", "input changed", "output changed", "its gradient")


@dataclass(frozen=True)
class Verdict:
    """What was said of one graph, and what `backward()` did."""

    operation: str
    mode: str
    said: bool | None
    reason: str
    works: bool
    error: str

    @property
    def is_wrong(self) -> bool:
        return self.said is not None and self.said != self.works

    def __str__(self) -> str:
        return f"{self.operation}, {self.mode}: {self.said} ({self.reason}) / {self.error}"


def differentiable_operations() -> list[Any]:
    from torch.testing._internal.common_methods_invocations import op_db

    return [op for op in op_db if op.supports_autograd]


def verdicts(operation: Any, samples: int | None, seed: int) -> Iterator[Verdict]:
    """Try the first samples of an operation, or all of them, with real and complex numbers."""
    name = f"{operation.name} {operation.variant_test_name}".strip()
    taken = operation.supported_dtypes("cpu") & operation.supported_backward_dtypes("cpu")
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is deprecated, sparse or a prototype
        for dtypes in (REAL, COMPLEX):
            dtype = next((dtype for dtype in dtypes if dtype in taken), None)
            if dtype is None:
                continue
            torch.manual_seed(seed)
            # Not by `sample_inputs`, which reads the whole stack at each sample to name a test.
            given = operation.sample_inputs_func(operation, "cpu", dtype, requires_grad=True)
            for sample in itertools.islice(given, samples):
                for mode, outputs in graphs(operation, sample):
                    yield judge(name, mode, outputs)


def graphs(operation: Any, sample: Any) -> Iterator[tuple[str, list[torch.Tensor]]]:
    """Yield the outputs of fresh calls; whoever takes them sends them backward before the next."""
    _, outputs = call(operation, sample)
    if not outputs:
        return
    yield "first backward", outputs
    yield "second backward", outputs
    inputs, outputs = call(operation, sample)
    gradients = gradients_of(outputs, [tensor for tensor in inputs if tensor.requires_grad])
    if gradients:
        yield "its gradient", gradients
    for place in range(len(inputs)):
        inputs, outputs = call(operation, sample)
        if bump(inputs[place]):
            yield "input changed", outputs
    for place in range(len(outputs)):
        _, outputs = call(operation, sample)
        if bump(outputs[place]):
            yield "output changed", outputs


def call(operation: Any, sample: Any) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return the tensors that go into a call, as they are fresh, and those that have a graph."""
    arguments = tree_map(fresh, (sample.input, sample.args, sample.kwargs))
    result = operation(arguments[0], *arguments[1], **arguments[2])
    inputs = [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, torch.Tensor)]
    outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
    return inputs, [tensor for tensor in outputs if tensor.requires_grad and not tensor.is_leaf]


def fresh(value: Any) -> Any:
    """Return a tensor's copy in memory of its own; anything else as it is."""
    if not isinstance(value, torch.Tensor):
        return value
    if value.layout is torch.strided and not value.is_nested:
        return copy.deepcopy(value)  # with all the memory behind it, which `as_strided` takes
    return value.detach().clone().requires_grad_(value.requires_grad)


def bump(tensor: torch.Tensor) -> bool:
    """Count an in-place change, as every in-place operation does; say whether it has a count."""
    try:
        torch.autograd.graph.increment_version(tensor)
    except RuntimeError:
        return False
    return True


def gradients_of(outputs: list[torch.Tensor], inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    directions = [direction(output).requires_grad_() for output in outputs]
    try:
        found = torch.autograd.grad(
            outputs, inputs, directions, create_graph=True, allow_unused=True
        )
    except RuntimeError:  # it has no gradient with these values, as "first backward" has said
        return []
    return [gradient for gradient in found if gradient is not None and gradient.grad_fn is not None]


def direction(output: torch.Tensor) -> torch.Tensor:
    if output.layout is torch.strided and not output.is_nested:
        return torch.ones_like(output)
    return output.detach().clone()


def judge(name: str, mode: str, outputs: list[torch.Tensor]) -> Verdict:
    said: bool | None
    try:
        graph = autograd_graph(outputs)
    except ValueError as refusal:
        said, reason = False, f"no graph: {refusal}"
    else:
        said, reason = graph.can_backward, graph.backward_error or ""
    try:
        torch.autograd.backward(outputs, [direction(output) for output in outputs])
    except Exception as error:  # whatever it is: that it raises is the answer
        return Verdict(name, mode, said, reason, False, str(error).partition("\n")[0])
    return Verdict(name, mode, said, reason, True, "")


def table(found: list[Verdict]) -> str:
    """Return how many graphs of each mode were foretold, and why the rest was not."""
    lines = [f"{'':16} graphs  works  raises  cannot tell  wrong"]
    for mode in MODES:
        own = [verdict for verdict in found if verdict.mode == mode]
        right = Counter(verdict.said for verdict in own if not verdict.is_wrong)
        wrong = sum(verdict.is_wrong for verdict in own)
        lines.append(
            f"{mode:16} {len(own):6} {right[True]:6} {right[False]:7} {right[None]:12} {wrong:6}"
        )
    unknown = Counter(verdict.reason for verdict in found if verdict.said is None)
    lines += [f"cannot tell, {count:4}: {reason}" for reason, count in unknown.most_common()]
    lines += [f"WRONG {verdict}" for verdict in found if verdict.is_wrong]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, help="of each operation; all if not given")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found: list[Verdict] = []
    operations = differentiable_operations()
    for operation in operations:
        found += verdicts(operation, options.samples, options.seed)
    tried = len({verdict.operation for verdict in found})
    print(f"{tried} of {len(operations)} operations, {len(found)} graphs")
    print(table(found))
    sys.exit(any(verdict.is_wrong for verdict in found))


if __name__ == "__main__":
    main()
