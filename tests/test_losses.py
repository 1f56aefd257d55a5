"""Losses: what a batch of one weighs, as torch itself has divided."""

import pytest
import torch
from torch import nn

from cvkit.losses import resolve_loss


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 4, 4), (2, 3, 4, 4)])
@pytest.mark.parametrize("ignored", [-100, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_divisor_that_autograd_keeps_is_the_count_of_the_targets(shape, ignored, dtype):
    spec = resolve_loss(nn.CrossEntropyLoss(ignore_index=ignored))
    for seed in range(5):
        torch.manual_seed(seed)
        targets = torch.randint(0, 4, shape)
        targets[torch.rand(shape) < 0.4] = ignored
        outputs = torch.randn(shape[0], 4, *shape[1:], dtype=dtype, requires_grad=True)
        loss = spec.function(outputs, targets)
        assert (
            float(spec.weigh(targets, shape[0], loss))
            == float(spec.weigh(targets, shape[0]))
            == int((targets != ignored).sum())
        )


def test_only_a_loss_that_divides_by_a_count_is_asked_for_it():
    targets, outputs = torch.tensor([0, 1, 1]), torch.randn(3, 2, requires_grad=True)
    weighted = resolve_loss(nn.CrossEntropyLoss(weight=torch.tensor([0.1, 0.7])))
    assert torch.equal(weighted.weigh(targets, 3, weighted.function(outputs, targets)), weighted.weigh(targets, 3))
    smooth = resolve_loss(nn.CrossEntropyLoss(label_smoothing=0.1))
    assert int(smooth.weigh(targets, 3, smooth.function(outputs, targets))) == 3
    soft = torch.tensor([[0.5, 0.5]] * 3)
    assert smooth.weigh(soft, 3, smooth.function(outputs, soft)) == 3
