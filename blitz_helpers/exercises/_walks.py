"""Runs update rules from fixed weights along fixed gradients, and judges that of a learner."""

from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any, NoReturn

import torch
from torch import Tensor

from blitz_helpers.exercises._judging import Wrong, attempt_in_place

Rule = Callable[[list[Tensor], dict[Tensor, Any]], object]  # of parameters, and a dict to keep
Path = list[Tensor]  # all weights, as one vector, after each step


class Walk:
    """Two parameters, and their gradients at each step; at the third, the first has none."""

    def __init__(self, dtype: torch.dtype, steps: int) -> None:
        generator = torch.Generator().manual_seed(0)

        def draw() -> list[Tensor]:
            shapes = (3,), (2, 2)
            return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]

        self._starts = draw()
        self._params = [torch.zeros_like(start).requires_grad_() for start in self._starts]
        self._gradients: list[list[Tensor | None]] = [[*draw()] for _ in range(steps)]
        self._gradients[2][0] = None

    def path(self, rule: Rule) -> Path:
        """Return the path of a rule, which begins with an empty dict."""
        return self._path(rule, self._gradients)

    def path_of_learner(self, rule: FunctionType, kept: str, keeper: str, *settings: float) -> Path:
        """Return the path of the learner's rule, whose dict ``keeper`` holds ``kept``."""

        def asked(params: list[Tensor], memory: dict[Tensor, Any]) -> None:
            before = [(w.grad, w.grad.clone()) for w in params if w.grad is not None]
            attempt_in_place(rule, params, memory, *settings)
            if not all(torch.equal(grad, was) for grad, was in before):
                raise Wrong(f"Your rule changes `.grad`: make new tensors for the {kept}.")

        path = self.path(asked)
        if not alike(path, self.path(asked)):
            raise Wrong(
                f"A second walk with an empty dict goes on with the old {kept}. Keep them in "
                f"`{keeper}`, and nowhere else."
            )
        return path

    def name_the_slip(
        self, path: Path, rule: Rule, slips: Iterable[tuple[Rule, str]] = ()
    ) -> NoReturn:
        """Raise :class:`Wrong` about a path that differs from that of the rule."""
        if torch.equal(path[-1], torch.cat([start.flatten() for start in self._starts])):
            raise Wrong("No weight has moved. Change each of them in place, with `-=` or `add_`.")
        stopped: list[list[Tensor | None]] = [
            [None, None] if any(g is None for g in drawn) else drawn for drawn in self._gradients
        ]
        if alike(path, self._path(rule, stopped)):
            raise Wrong(
                "A parameter without a gradient stops those after it: `continue`, not `return`."
            )
        for slip, reply in slips:
            if alike(path, self.path(slip)):
                raise Wrong(reply)
        wanted = self.path(rule)
        differ = [~_near(a, b) for a, b in zip(path, wanted, strict=True)]
        step = next(step for step, places in enumerate(differ) if places.any())
        place = int(differ[step].nonzero()[0])
        raise Wrong(
            f"In step {step + 1} the weights come out wrong: one that should be "
            f"{wanted[step][place]:.5f} is {path[step][place]:.5f}."
        )

    def _path(self, rule: Rule, gradients: list[list[Tensor | None]]) -> Path:
        path, memory = [], dict[Tensor, Any]()
        with torch.no_grad():
            for w, start in zip(self._params, self._starts, strict=True):
                w.copy_(start)
        for drawn in gradients:
            for w, g in zip(self._params, drawn, strict=True):
                w.grad = None if g is None else g.clone()
            rule(self._params, memory)
            path.append(torch.cat([w.detach().flatten() for w in self._params]))
        return path


def alike(path: Path, other: Path) -> bool:
    """Return whether two paths are equal up to rounding."""
    return all(bool(_near(a, b).all()) for a, b in zip(path, other, strict=True))


def _near(a: Tensor, b: Tensor) -> Tensor:
    return torch.isclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True)
