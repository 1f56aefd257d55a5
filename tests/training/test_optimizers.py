"""Optimizers by name."""

import pytest
import torch
from torch import nn

from cvkit.errors import ArgumentError
from cvkit.training.optimizers import resolve_optimizers


def test_muon_takes_the_matrices_and_adamw_the_rest_with_one_rate():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 8), nn.Linear(8, 2))
    muon, adamw = resolve_optimizers("muon", model, 0.02)
    assert (type(muon), type(adamw)) == (torch.optim.Muon, torch.optim.AdamW)
    assert [tuple(p.shape) for p in muon.param_groups[0]["params"]] == [(8, 4), (2, 8)]
    held = [p for one in (muon, adamw) for p in one.param_groups[0]["params"]]
    assert {id(p) for p in held} == {id(p) for p in model.parameters()}
    assert len(held) == len(list(model.parameters()))
    assert [one.param_groups[0]["lr"] for one in (muon, adamw)] == [0.02, 0.02]


def test_muon_without_a_matrix_is_refused():
    with pytest.raises(ArgumentError) as caught:
        resolve_optimizers("muon", nn.Conv2d(3, 4, 3), 0.02)
    assert str(caught.value) == (
        "the optimizer muon has nothing to do\n"
        "  got: 2 parameters, none of two dimensions\n"
        "  expected: a model with linear layers or attention: Muon takes no convolutions, norms or biases\n"
        '  fix: pass optimizer="adamw"'
    )
