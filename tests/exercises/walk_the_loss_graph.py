"""Answers to the exercises of page 04, right and wrong, with the reply that each should get."""

import torch
import torch.nn.functional as F


def linear_by_autograd(grad, x, weight):
    bias = torch.zeros(len(weight), requires_grad=True)
    x, weight = x.requires_grad_(), weight.requires_grad_()
    return torch.autograd.grad(x @ weight.T + bias, (bias, x, weight), grad)


def linear(bias=lambda grad: grad.sum(0), of_x=torch.matmul, of_weight=lambda grad, x: grad.T @ x):
    return lambda grad, x, weight: (bias(grad), of_x(grad, weight), of_weight(grad, x))


def walk(add=True, seen_at=None, narrow=True):
    def send_back(loss):
        arrived, seen, todo = {}, set(), [(loss.grad_fn, torch.ones(()))]
        while todo:
            node, grad = todo.pop(0)
            leaf = hasattr(node, "variable")
            if node in seen and seen_at in ("all", "leaves" if leaf else "inner"):
                continue
            seen.add(node)
            if leaf:
                grad = grad.sum_to_size(node.variable.shape) if narrow else grad
                arrived[node.variable] = grad + (arrived.get(node.variable, 0) if add else 0)
                continue
            grads = node(grad)
            grads = grads if isinstance(grads, tuple) else (grads,)
            for (source, _), each in zip(node.next_functions, grads, strict=True):
                if source is not None:
                    todo.append((source, each))
        return arrived

    return send_back


def in_order(loss):
    arrived = {}

    def visit(node, grad):
        if hasattr(node, "variable"):
            arrived.setdefault(node.variable, []).append(grad.sum_to_size(node.variable.shape))
            return
        grads = node(grad)
        for (source, _), each in zip(
            node.next_functions, grads if isinstance(grads, tuple) else (grads,), strict=True
        ):
            if source is not None:
                visit(source, each)

    visit(loss.grad_fn, torch.ones(()))
    return {tensor: sum(grads) for tensor, grads in arrived.items()}


def unpool(grad, x):
    _, places = F.max_pool2d(x[None], 2, return_indices=True)
    return F.max_unpool2d(grad[None], places, 2, output_size=x.shape)[0]


def spread(grad, x):
    back = torch.zeros_like(x)
    wide = grad.repeat_interleave(2, 0).repeat_interleave(2, 1)
    back[: wide.shape[0], : wide.shape[1]] = wide
    return back


def cut_off(grad, x):
    return unpool(grad, x)[: 2 * grad.shape[0], : 2 * grad.shape[1]]


def maxima(x):
    pooled = F.max_pool2d(x[None], 2)[0]
    return spread(pooled.nan_to_num(), x) == x


RIGHT = {
    "slots_to_a_weight": [[0, 1, 0, 2, 0]],
    "ones_sent_back": [3.0, torch.tensor(3)],
    "linear_backward": [linear_by_autograd, linear(of_weight=lambda g, x: (x.T @ g).T)],
    "meeting_ways": [in_order, walk()],
    "max_pool_backward": [unpool],
}
WRONG = {
    "slots_to_a_weight": [
        ((0, 1, 0, 2), "leads to `TBackward0`"),
        ((0, 0, 0, 2, 0), "`fc3.bias`, the end of a way"),
        ((0, 2, 0), "leads to the `AccumulateGrad` of `fc3.weight`"),
        ((0, 1, 2, 0), "`ReluBackward0`, which has slot 0 alone"),
        ((0, 1, 0, 0), "leads to the `AccumulateGrad` of `fc2.bias`"),
        ((1, 0), "leads nowhere"),
    ],
    "ones_sent_back": [
        (1, "right for one image"),
        (30, "all thirty ones"),
        (10, "has a bias of its own"),
        (1 / 3, "There is no mean here"),
        (4, "How many ways"),
    ],
    "linear_backward": [
        (linear(bias=lambda grad: grad), "added to each row"),
        (linear(bias=lambda grad: grad.mean(0)), "it is the mean over the images"),
        (linear(of_weight=lambda grad, x: x.T @ grad), "is transposed"),
        (linear(of_x=lambda grad, weight: weight), "`x`: that is the weight"),
        (linear(of_x=lambda grad, weight: grad @ weight.T), "cannot be multiplied"),
        (lambda grad, x, weight: grad @ weight, "Return three gradients"),
    ],
    "meeting_ways": [
        (walk(add=False, seen_at="all"), "1 in place of 5. What comes by"),
        (walk(add=False), "2 in place of 5. A leaf should add"),
        (walk(seen_at="inner"), "should pass on what comes by each"),
        (walk(narrow=False), "should give the shape (3,), but gives (5, 3)"),
        (lambda loss: None, "Return the dict"),
        (lambda loss: {}, "of 1 leaves, some received nothing"),
    ],
    "max_pool_backward": [
        (spread, "all four numbers of a window"),
        (lambda grad, x: spread(grad, x) / 4, "backward of the mean"),
        (lambda grad, x: unpool(torch.ones_like(grad), x), "but they hold 1"),
        (lambda grad, x: spread(grad, x) * maxima(x), "only the first should count"),
        (cut_off, "has a gradient too, 0"),
        (lambda grad, x: grad, "should give the shape (2, 2)"),
        (lambda grad, x: -unpool(grad, x), "should give tensor("),
    ],
}
