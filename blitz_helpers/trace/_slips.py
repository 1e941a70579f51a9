"""What might mend dtypes, tables and states, and the usual slips."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from blitz_helpers.trace._clues import (
    Candidate,
    Clues,
    Found,
    Sides,
)
from blitz_helpers.trace._field import known_origin
from blitz_helpers.trace._layers import sets
from blitz_helpers.trace._records import shape_text
from blitz_helpers.trace._remedies import (
    Conversion,
    EvalMode,
    InputChange,
    LayerChange,
    Resize,
)
from blitz_helpers.trace._transforms import Transform


def wrong_dtype(clues: Clues) -> Found:
    """Yield conversions of what came in, or of the layer."""
    x, wants = clues.misfit.tensor, clues.misfit.wants
    if x is None:
        return
    lossy = x.is_complex() and not wants.is_complex
    if known_origin(x) is not None and not lossy:
        yield from clues.at(x, Transform("to", (wants,)), 3)
    path = clues.failure.step.module
    if lossy:
        yield Candidate(4, Conversion("", x.dtype, f"model.to({x.dtype})"))
    elif clues.input_number(x) is None and path and x.is_floating_point():
        yield Candidate(8, Conversion(path, x.dtype, f"{clues.name_of(path)}.to({x.dtype})"))
    for other in clues.misfit.others:
        if known_origin(other) is not None and other.dtype != x.dtype:
            yield from clues.at(other, Transform("to", (x.dtype,)), 6)


def short_table(clues: Clues) -> Found:
    """Yield a longer table, and a shorter input."""
    ids, rows, worst = clues.misfit.tensor, clues.misfit.wants, clues.misfit.got
    module, path = clues.failure.module, clues.failure.step.module
    if isinstance(module, nn.Embedding | nn.EmbeddingBag) and worst >= 0:
        shape = (worst + 1, module.embedding_dim)
        text = f"num_embeddings={worst + 1}"
        settings = (("num_embeddings", worst + 1),)
        yield Candidate(5, LayerChange(path, settings, (("weight", shape),), text))
    if clues.misfit.others and clues.misfit.noun == "classes" and worst > 0:
        yield from clues.maker(clues.misfit.others[0], 1, worst + 1, rank=5)
    if ids is None:
        return
    for number, given in enumerate(clues.failure.given):
        for axis, size in enumerate(given.shape):
            if axis and size == worst + 1 and given.argument is not None and size > rows:
                which = clues.an_input(given)
                noun = f"{which} of length {{}}"
                yield Sides(6 + number, given.argument, (axis,), size, lambda s: s <= rows, noun)


def single_value(clues: Clues) -> Found:
    """Yield eval mode, and a batch of two."""
    yield Candidate(3, EvalMode())
    given = clues.failure.given[0] if clues.failure.given else None
    if given is not None and given.argument is not None and given.shape[:1] == (1,):
        change = Resize(given.argument, ((0, 2),), "a batch of 2 or more")
        yield Candidate(4, change, batch=True)


def wrong_state(clues: Clues) -> Found:
    """Yield what brings a recurrent layer and its hidden state together."""
    module, path = clues.failure.module, clues.failure.step.module
    if isinstance(module, nn.RNNBase):
        flag = not module.batch_first
        yield Candidate(3, sets(path, "", batch_first=flag))
    x = clues.misfit.others[0] if clues.misfit.others else clues.misfit.tensor
    if x is not None and x.dim() == 3:
        yield from clues.at(x, Transform("transpose", (0, 1)), 6)
    state, wants = clues.misfit.tensor, clues.misfit.wants
    number = None if state is None else clues.input_number(state)
    if state is not None and number is not None and wants and len(wants) == state.dim():
        given = clues.failure.given[number]
        sizes = tuple((d, n) for d, n in enumerate(wants) if n != state.shape[d])
        if given.argument is not None:
            text = f"{clues.an_input(given)} of {shape_text(wants)}"
            yield Candidate(5, Resize(given.argument, sizes, text))
    if state is not None and wants and len(wants) == state.dim():
        yield from clues.maker(state, state.dim() - 1, wants[-1], rank=5)
    if state is not None and state.dim() == 2:
        yield from clues.at(state, Transform("unsqueeze", (0,)), 7)
    if state is not None and state.dim() == 3:
        yield from clues.at(state, Transform("transpose", (0, 1)), 8)


def exported_size(clues: Clues) -> Found:
    """Yield the input that a program was exported for."""
    dim, wants = clues.misfit.got, clues.misfit.wants
    for given in clues.failure.given:
        if given.argument is None or given.name != clues.misfit.noun or dim >= len(given.shape):
            continue
        image = dim > 1 and len(given.shape) > 3
        axes = tuple(i for i in range(2, len(given.shape))) if image else (dim,)
        sizes = tuple((axis, wants) for axis in axes)
        words = f"of {wants} pixels a side" if image else f"of {wants} in dimension {dim}"
        text = f"{clues.an_input(given)} {words}"
        yield Candidate(3, Resize(given.argument, sizes, text), batch=dim == 0)


def usual_slips(clues: Clues) -> Found:
    """Yield the usual slips: the batch is missing, the channels stand last."""
    for number, given in enumerate(clues.failure.given[:1]):
        if given.argument is None:
            continue
        name = clues.input_name(number)
        where = "on the input" if len(clues.failure.given) == 1 else f"on the input {given.name}"
        ndim = len(given.shape)
        views: list[tuple[int, Transform, bool]] = []
        alone = any(
            step.op.startswith("conv") and step.input_shapes[:1] == (given.shape,)
            for step in clues.failure.steps
        )
        if ndim in (1, 3) or alone:
            rank = 9 if clues.misfit.kind == "rank" else 26
            views.append((rank, Transform("unsqueeze", (0,)), True))
        if ndim == 4 and _has_channels_last(given.shape):
            views.append((41, Transform("permute", (0, 3, 1, 2)), False))
        if ndim == 3:
            views.append((42, Transform("transpose", (1, 2)), False))
        for other in clues.failure.given[1:] if given.shape else ():
            if other.shape[:1] != given.shape[:1] and other.argument is not None and other.shape:
                shape = shape_text((given.shape[0], *other.shape[1:]))
                text = f"{clues.an_input(other)} of {shape}"
                resize = Resize(other.argument, ((0, given.shape[0]),), text)
                yield Candidate(43, resize)
        if given.shape[:1] == (1,) and (ndim == 3 or clues.misfit.kind == "rank"):
            views.append((44, Transform("squeeze", (0,)), True))
        for rank, transform, batch in views:
            text = f"{transform.text(name)} {where}"
            yield Candidate(rank, InputChange(given.argument, transform, text), batch)
    if clues.failure.sealed:
        yield from _guesses(clues)
    module, path = clues.failure.module, clues.failure.step.module
    if isinstance(module, nn.RNNBase | nn.MultiheadAttention) and clues.misfit.kind != "batch":
        yield Candidate(45, sets(path, "", batch_first=not module.batch_first))


def _guesses(clues: Clues) -> Found:
    """Yield the sides that images often have, for code that nothing is known of."""
    given = clues.failure.given[0] if clues.failure.given else None
    if given is None or given.argument is None or len(given.shape) < 3:
        return
    axes = tuple(range(2, len(given.shape)))
    noun = "an input of length {}" if len(axes) == 1 else "an input of {} pixels a side"
    side = given.shape[axes[0]]
    for size in sorted({28, 32, 64, 96, 224, 256} - {side}, key=lambda n: abs(n - side)):
        yield Sides(70, given.argument, axes, side, _only(size), noun)


def _only(size: int) -> Callable[[int], bool]:
    return lambda side: side == size


def _has_channels_last(shape: tuple[int, ...]) -> bool:
    """Return whether the sizes are those of images whose channels stand last."""
    high, wide, last = shape[1:]
    return (last <= 4 < min(high, wide)) or (high == last != wide)
