"""The update rules written out: one function per rule, one line of code per line of its formula.

Each moves the parameters ``w`` in place by their gradients ``g``. The results equal those of
``torch.optim`` on the CPU to the last bit, since the operations and their order are the same.
(The exception is ``foreach=True`` in bfloat16, which rounds differently.) If ``w.grad`` is
``None``, ``w`` and its memory are left alone. Bad input raises before anything has changed.

The memory of a rule is a dict that the caller keeps, with the parameters themselves as keys. A rule
can also continue from the memory of a torch optimizer: Adam and AdamW from
``dict(optimizer.state)``, momentum from the ``momentum_buffer`` of each parameter in it.
"""

from collections.abc import Iterable, MutableMapping
from typing import Any

import torch
from torch import Tensor, zeros_like

from blitz_helpers._update_checks import (
    check_adam_state,
    check_settings,
    check_velocities,
    two_betas,
    with_gradients,
)

AdamState = MutableMapping[Tensor, dict[str, Any]]


@torch.no_grad()
def sgd_step(params: Iterable[Tensor], lr: float, weight_decay: float = 0.0) -> None:
    """Move every parameter a small step against its gradient: ``w <- w - lr * g``.

    ``weight_decay`` first pulls ``w`` towards zero: ``g <- g + weight_decay * w``.

    Raises:
        ValueError: a setting is out of range; ``params`` is empty or names a tensor twice; a tensor
            cannot be moved (not a leaf, expanded, made in inference mode, or frozen but with a
            gradient); or its gradient or memory does not fit it.
        TypeError: a setting is not a number, ``params`` is not an iterable of tensors, or the
            memory has the wrong form.

    Source: :class:`torch.optim.SGD`.

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> (w**2).sum().backward()  # g = 2 * w
    >>> sgd_step([w], lr=0.25)
    >>> w.tolist()
    [0.5, 1.0]
    """
    check_settings(lr, weight_decay)
    for w, g in with_gradients(params, dense=weight_decay != 0):
        if weight_decay != 0:
            g = g.add(w, alpha=weight_decay)
        # Not `w.sub_(lr * g)`, which rounds twice; this may round only once.
        w.add_(g, alpha=-lr)


@torch.no_grad()
def momentum_step(
    params: Iterable[Tensor],
    velocities: MutableMapping[Tensor, Tensor],
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> None:
    """Move every parameter along its velocity, a fading sum of its gradients.

    ``v <- momentum * v + g`` (at the first step ``v <- g``), then ``w <- w - lr * v``. Nesterov's
    form looks a step ahead: ``w <- w - lr * (g + momentum * v)``. ``velocities`` is a dict that you
    keep, empty at first; it gets a ``v`` for each parameter. ``momentum`` is in [0, 1).
    For ``weight_decay`` and errors, see :func:`sgd_step`.

    Source: :class:`torch.optim.SGD`.

    >>> w, velocities = torch.tensor([8.0], requires_grad=True), {}
    >>> w.grad = torch.tensor([1.0])
    >>> for _ in range(3):
    ...     momentum_step([w], velocities, lr=1.0, momentum=0.5)
    >>> velocities[w], w.detach()
    (tensor([1.7500]), tensor([3.7500]))
    """
    check_settings(lr, weight_decay, momentum=momentum)
    if nesterov and momentum == 0:
        raise ValueError("nesterov=True looks ahead by the momentum, so that must be above 0.")
    if momentum == 0:  # like torch, keep no velocities
        sgd_step(params, lr, weight_decay)
        return
    moving = with_gradients(params, dense=weight_decay != 0)
    check_velocities(moving, velocities, nesterov)
    for w, g in moving:
        if weight_decay != 0:
            g = g.add(w, alpha=weight_decay)
        if w in velocities:
            velocities[w].mul_(momentum).add_(g)
        else:
            velocities[w] = g.clone()
        g = g.add(velocities[w], alpha=momentum) if nesterov else velocities[w]
        w.add_(g, alpha=-lr)


@torch.no_grad()
def adam_step(
    params: Iterable[Tensor],
    state: AdamState,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> None:
    """Move every weight by about ``lr``, whatever the scale of its gradients.

    Each weight has two running averages, of its gradients and of their squares:

    - ``m <- beta1 * m + (1 - beta1) * g`` and ``v <- beta2 * v + (1 - beta2) * g**2``
    - ``m_hat = m / (1 - beta1**t)`` and ``v_hat = v / (1 - beta2**t)`` at step ``t``, since both
      start at zero and would be too small at first
    - ``w <- w - lr * m_hat / (sqrt(v_hat) + eps)``

    ``state`` is a dict that you keep, empty at first. For each parameter it gets a ``step`` (t),
    ``exp_avg`` (m) and ``exp_avg_sq`` (v), as in torch. ``betas``, in [0, 1), set how slowly the
    averages forget; ``eps`` avoids division by zero. For the rest, see :func:`sgd_step`.

    Source: D. P. Kingma and J. Ba, "Adam: A Method for Stochastic Optimization", 2015, as
    :class:`torch.optim.Adam` computes it.

    >>> w, state = torch.zeros(2, requires_grad=True), {}
    >>> w.grad = torch.tensor([100.0, 0.01])
    >>> adam_step([w], state, lr=0.5)
    >>> w.detach()
    tensor([-0.5000, -0.5000])
    """
    beta1, beta2 = two_betas(betas)
    check_settings(lr, weight_decay, eps, beta1=beta1, beta2=beta2)
    for w, g in _with_state(params, state):
        if weight_decay != 0:
            g = g.add(w, alpha=weight_decay)
        _adam(w, g, state, lr, beta1, beta2, eps)


@torch.no_grad()
def adamw_step(
    params: Iterable[Tensor],
    state: AdamState,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
) -> None:
    """Shrink every weight, ``w <- w * (1 - lr * weight_decay)``, then step as Adam does.

    A weight with large gradients thus decays like any other. The rest is as in :func:`adam_step`.

    Source: I. Loshchilov and F. Hutter, "Decoupled Weight Decay Regularization", 2019, as
    :class:`torch.optim.AdamW` computes it.

    >>> w = torch.tensor([8.0], requires_grad=True)
    >>> w.grad = torch.tensor([0.0])  # so that only the decay is left
    >>> adamw_step([w], {}, lr=0.5, weight_decay=0.5)
    >>> w.detach()
    tensor([6.])
    """
    beta1, beta2 = two_betas(betas)
    check_settings(lr, weight_decay, eps, beta1=beta1, beta2=beta2)
    for w, g in _with_state(params, state):
        if weight_decay != 0:
            w.mul_(1 - lr * weight_decay)
        _adam(w, g, state, lr, beta1, beta2, eps)


def _with_state(params: Iterable[Tensor], state: AdamState) -> list[tuple[Tensor, Tensor]]:
    """Return each parameter that has a gradient, and that gradient; create missing states."""
    moving = with_gradients(params, dense=True)
    check_adam_state(moving, state)
    new = [w for w, _ in moving if not state.get(w)]
    state.update(
        {w: {"step": 0, "exp_avg": zeros_like(w), "exp_avg_sq": zeros_like(w)} for w in new}
    )
    return moving


def _adam(
    w: Tensor, g: Tensor, state: AdamState, lr: float, beta1: float, beta2: float, eps: float
) -> None:
    steps, m, v = state[w]["step"] + 1, state[w]["exp_avg"], state[w]["exp_avg_sq"]
    # In torch's state, step is a float32 tensor, which would round the powers of beta.
    t = steps.item() if isinstance(steps, Tensor) else steps
    if w.is_complex():  # a complex number is two weights
        moved, g, m, v = map(torch.view_as_real, (w, g, m, v))
    else:
        moved = w
    m.lerp_(g, 1 - beta1)
    v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
    v_hat_sqrt = v.sqrt().div_((1 - beta2**t) ** 0.5)
    moved.addcdiv_(m, v_hat_sqrt.add_(eps), value=-lr / (1 - beta1**t))
    state[w]["step"] = steps
