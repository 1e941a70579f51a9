"""`can_backward` over torch's own list of operations; `make soak` takes all samples of each."""

import torch
from operations import MODES, Verdict, differentiable_operations, judge, table, verdicts


def test_backward_is_foretold_for_every_differentiable_operation():
    operations = differentiable_operations()
    found = [verdict for one in operations for verdict in verdicts(one, samples=2, seed=0)]
    assert not any(verdict.is_wrong for verdict in found), table(found)
    assert len({verdict.operation for verdict in found}) > 0.9 * len(operations)
    for mode in MODES:
        assert sum(verdict.mode == mode for verdict in found) > 1000
    unknown = {verdict.reason.partition(" ")[0] for verdict in found if verdict.said is None}
    assert unknown <= {
        "CopySlices",
        "LinalgEigBackward0",
        "LinalgEighBackward0",
        "LinalgSvdBackward0",
        "NativeLayerNormBackwardBackward0",
    }


def test_what_is_foretold_wrong_is_told_apart():
    output = torch.ones(2, requires_grad=True).exp()
    output.register_hook(lambda gradient: 1 / 0)  # a user's hook is the one thing not foreseen
    verdict = judge("exp", "first backward", [output])
    assert verdict == Verdict("exp", "first backward", True, "", False, "division by zero")
    assert verdict.is_wrong
    assert "WRONG exp, first backward: True" in table([verdict])
