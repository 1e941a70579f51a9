"""Random-vector backward, reports of gradients, and numerical gradients to check them."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from numbers import Real

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from blitz_helpers._statistics import statistics
from blitz_helpers._tables import html_table, scroll_box, text_table

_HEADER = ("parameter", "shape", "status", "norm", "mean", "std", "max abs", "zeros", "grad/weight")


def random_backward(output: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw a normal vector ``v`` of ``output``'s shape, run ``output.backward(v)``, return ``v``.

    Each ``.grad`` then receives the gradient of ``(v * output).sum()``.

    Raises:
        TypeError: ``output`` is not a tensor, or ``generator`` is not of torch.
        ValueError: ``output`` has no graph.

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> v = random_backward(3 * w, generator=torch.Generator().manual_seed(0))
    >>> torch.equal(w.grad, 3 * v)
    True
    """
    if not isinstance(output, Tensor):
        raise TypeError(f"output is a {type(output).__name__}: backward starts from one tensor.")
    if not output.requires_grad:
        raise ValueError(
            f"output, {output.dtype} of shape {tuple(output.shape)}, has no graph to go back "
            "through: it was made under torch.no_grad(), or from nothing that requires grad."
        )
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator is a {type(generator).__name__}: use torch.Generator().manual_seed(0)."
        )
    device = output.device if generator is None else generator.device
    vector = torch.randn(output.shape, generator=generator, dtype=output.dtype, device=device)
    vector = vector.to(output.device)
    torch.autograd.backward(output, vector)
    return vector


@dataclass(frozen=True)
class GradientRow:
    """The gradient of one parameter; its numbers are ``None`` if there is no gradient.

    ``status`` is ``"frozen"`` (``requires_grad`` is off), ``"none"`` (no backward has reached
    it), ``"zero"`` (reached, and every entry is zero), ``"nonfinite"`` or ``"ok"``. ``std`` is
    the sample standard deviation, as in :func:`torch.std`: nan for a single entry.

    >>> from torch import nn
    >>> row = gradient_report(nn.Linear(2, 1))[0]  # no backward yet
    >>> row.name, row.shape, row.status, row.norm
    ('weight', (1, 2), 'none', None)
    """

    name: str
    shape: tuple[int, ...] | None  # `None` for a lazy parameter
    status: str
    norm: float | None = None
    mean: float | complex | None = None
    std: float | None = None
    max_abs: float | None = None
    zero_fraction: float | None = None  # of exact zeros
    weight_ratio: float | None = None  # norm of the gradient over norm of the weight

    def _cells(self) -> list[str]:
        shape = "?" if self.shape is None else "x".join(map(str, self.shape)) or "()"
        zeros = "-" if self.zero_fraction is None else f"{self.zero_fraction:.1%}"
        numbers = (self.norm, self.mean, self.std, self.max_abs, self.weight_ratio)
        *cells, ratio = ("-" if number is None else f"{number:.2e}" for number in numbers)
        return [self.name, shape, self.status, *cells, zeros, ratio]


class GradientReport(tuple[GradientRow, ...]):
    """One :class:`GradientRow` per parameter, in the model's order; a tied weight comes once.

    >>> import torch
    >>> from torch import nn
    >>> layer = nn.Linear(2, 1)
    >>> layer(torch.tensor([3.0, 4.0])).backward()
    >>> report = gradient_report(layer)
    >>> [row.norm for row in report], round(report.total_norm, 3)
    ([5.0, 1.0], 5.099)
    """

    __slots__ = ()

    @property
    def total_norm(self) -> float:
        """The norm of all gradients as one vector, as in ``torch.nn.utils.get_total_norm``."""
        norms = [row.norm for row in self if row.norm is not None]
        return float(torch.linalg.vector_norm(torch.tensor(norms, dtype=torch.float64)))

    def __repr__(self) -> str:
        return f"{text_table(*self._table())}\ntotal norm: {self.total_norm:.4g}"

    def _repr_html_(self) -> str:
        html = f"{html_table(*self._table())}<p>total norm: {self.total_norm:.4g}</p>"
        return scroll_box(html, "Gradient report")

    def _table(self) -> tuple[tuple[str, ...], list[list[str]], str]:
        return _HEADER, [row._cells() for row in self], "<<<>>>>>>"


@torch.no_grad()
def gradient_report(model: nn.Module) -> GradientReport:
    """Return statistics of the gradient of every parameter of ``model``.

    No gradient is copied as a whole. The zeros that a sparse gradient leaves out count.

    Raises:
        TypeError: ``model`` is not a module.
        ValueError: it has no parameters, or a gradient is on the ``meta`` device.

    >>> model = nn.Linear(2, 1)
    >>> [row.status for row in gradient_report(model)]
    ['none', 'none']
    >>> model(torch.zeros(1, 2)).sum().backward()
    >>> [(row.name, row.status, row.norm) for row in gradient_report(model)]
    [('weight', 'zero', 0.0), ('bias', 'ok', 1.0)]
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}: expected an nn.Module.")
    rows = [_row(name, parameter) for name, parameter in model.named_parameters()]
    if not rows:
        raise ValueError(f"{type(model).__name__} has no parameters, and so no gradients.")
    return GradientReport(rows)


def _row(name: str, parameter: nn.Parameter) -> GradientRow:
    shape = None if is_lazy(parameter) else tuple(parameter.shape)
    grad, trains = parameter.grad, parameter.requires_grad
    if grad is None:
        return GradientRow(name, shape, "none" if trains else "frozen")
    if grad.is_meta:
        raise ValueError(f"The gradient of {name} is on the meta device: it has no numbers.")
    found = statistics(grad)
    status = "nonfinite" if not math.isfinite(found.max_abs) else "ok" if found.max_abs else "zero"
    weight_norm = _norm(parameter)
    ratio = found.norm / weight_norm if weight_norm else found.norm * math.inf
    return GradientRow(name, shape, status if trains else "frozen", *found, weight_ratio=ratio)


def _norm(weights: Tensor) -> float:
    if weights.layout is torch.strided:
        norm: float = torch.linalg.vector_norm(weights).item()
        if 0 < norm < math.inf:  # otherwise it may have under- or overflowed
            return norm
    return statistics(weights).norm


def numerical_gradient(
    loss_fn: Callable[[], Tensor | float],
    parameter: Tensor,
    eps: float = 1e-5,
    indices: Iterable[int | Sequence[int]] | Tensor | None = None,
) -> Tensor:
    """Return the gradient of ``loss_fn()`` at ``parameter`` by central differences.

    Each entry in turn is nudged up and down by ``eps``; the gradient is the difference between
    the two losses, divided by the distance between the two nudged values. ``loss_fn`` must be
    deterministic: no dropout. ``parameter`` is restored to the bit, even if ``loss_fn`` raises.

    The result has the shape of ``parameter``, or one number for each of ``indices`` if given:
    tuples as in ``parameter[2, 0]``, or integers as in ``parameter.flatten()[5]``.

    Raises:
        ValueError: ``parameter`` is not float64 or is expanded, ``eps`` is not a small positive
            number, or ``loss_fn`` does not return a single float64 number.
        TypeError: an argument is of another kind than these.
        IndexError: an index does not point at one entry.

    >>> w = torch.tensor([1.0, 2.0], dtype=torch.float64)
    >>> numerical_gradient(lambda: (w**2).sum(), w).round(decimals=6)
    tensor([2., 4.], dtype=torch.float64)
    """
    if not isinstance(parameter, Tensor) or not callable(loss_fn):
        raise TypeError(
            f"loss_fn is a {type(loss_fn).__name__} and parameter a {type(parameter).__name__}: "
            "expected a function without arguments and a tensor, as in "
            "numerical_gradient(lambda: loss(model), model.weight)."
        )
    if parameter.is_meta:
        raise ValueError("parameter is on the meta device: it has no numbers to nudge.")
    if parameter.dtype != torch.float64:
        raise ValueError(
            f"parameter is {parameter.dtype}: nudges this small would drown in rounding. "
            "Use a copy in float64, copy.deepcopy(model).double(), and float64 inputs."
        )
    if any(n > 1 and not step for n, step in zip(parameter.shape, parameter.stride(), strict=True)):
        raise ValueError("parameter is expanded: its entries share memory. Use the original.")
    if not isinstance(eps, Real) or not 0 < eps < math.inf:
        raise ValueError(f"eps={eps!r}: expected a small positive number, such as 1e-5.")
    if not isinstance(indices, Iterable | None):
        raise TypeError(f"indices={indices!r}: expected a list of them, such as [{indices!r}].")
    # Through `.data`, so that graphs made before stay usable: the nudges are undone.
    values = parameter.data
    before = values.clone()
    picked = product(*map(range, parameter.shape)) if indices is None else indices
    try:
        slopes = [_slope(_entry(values, index), loss_fn, eps) for index in picked]
    finally:
        values.copy_(before)
    gradient = torch.tensor(slopes, dtype=torch.float64, device=parameter.device)
    return gradient.reshape(parameter.shape) if indices is None else gradient


def _entry(values: Tensor, index: int | Sequence[int] | Tensor) -> Tensor:
    """Return a view of one entry; ``index`` is a tuple, or a number in flattened order."""
    where = index.tolist() if hasattr(index, "tolist") else index  # of torch or numpy
    if not isinstance(where, int | Sequence) or isinstance(where, bool | str):
        raise TypeError(f"index {index!r}: expected an int, or a tuple of ints as in w[2, 0].")
    if isinstance(where, int):
        if not -values.numel() <= where < values.numel():
            raise IndexError(f"index {where} is out of range for {values.numel()} entries.")
        flat = torch.tensor(where % values.numel())
        where = [int(i) for i in torch.unravel_index(flat, values.shape)]
    entry = values[tuple(where)]
    if entry.dim():
        raise IndexError(f"index {where} must point at one entry of shape {tuple(values.shape)}.")
    return entry


def _slope(entry: Tensor, loss_fn: Callable[[], Tensor | float], eps: float) -> float:
    """Return the central difference of ``loss_fn()`` for ``entry`` nudged up and down by ``eps``.

    If ``loss_fn`` raises, the entry stays nudged, and the caller must restore it.
    """
    middle = entry.item()
    up, down = middle + eps, middle - eps
    if up == down:
        raise ValueError(f"eps={eps} is lost beside an entry of {middle}: use a larger one.")
    entry.fill_(up)
    above = _loss_value(loss_fn())
    entry.fill_(down)
    below = _loss_value(loss_fn())
    entry.fill_(middle)
    return (above - below) / (up - down)


def _loss_value(loss: Tensor | float) -> float:
    if isinstance(loss, float | int):
        return loss
    if isinstance(loss, Tensor) and loss.numel() == 1 and loss.dtype == torch.float64:
        return loss.item()
    given = f"{loss.dtype} of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
    raise ValueError(
        f"loss_fn returned {given}: expected one number in float64. "
        "Reduce it, for example by .sum(), and compute it from float64 inputs."
    )
