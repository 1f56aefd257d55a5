"""Whatever happens to a module inside, it is as it was afterwards."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn

from cvkit.module_state import evaluation_mode, train_mode, unchanged, with_weights


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 2)))
    made[0].weight.requires_grad_(False)
    made[2].eval()
    made[2][1].weight.grad = torch.ones(2, 6)
    return made


def everything(model):
    """All that may be seen of a module and of the random generators."""
    return {
        "modes": [one.training for one in model.modules()],
        "trained": [one.requires_grad for one in model.parameters()],
        "weights": copy.deepcopy(model.state_dict()),
        "places": [one.data_ptr() for one in model.state_dict().values()],
        "gradients": [None if one.grad is None else one.grad.clone() for one in model.parameters()],
        "hooks": [
            len(one._forward_hooks) + len(one._forward_pre_hooks) + len(one._backward_hooks) for one in model.modules()
        ],
        "torch": torch.get_rng_state().clone(),
        "numpy": np.random.get_state()[1].copy(),
        "python": random.getstate(),
    }


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


CHANGES = {
    "modes": lambda model: model.train(),
    "trained": lambda model: [one.requires_grad_(not one.requires_grad) for one in model.parameters()],
    "hooks": lambda model: [one.register_forward_hook(lambda *_: None) for one in model.modules()],
    "torch": lambda model: torch.rand(3),
    "numpy": lambda model: np.random.rand(3),
    "python": lambda model: random.random(),
    "buffers": lambda model: model.train()(torch.randn(8, 4)),
    "weights": lambda model: [one.data.zero_() for one in model.parameters()],
    "memory": lambda model: model.double(),
    "gradients": lambda model: model.train()(torch.randn(8, 4)).sum().backward(),
    "gradient in place": lambda model: model[2][1].weight.grad is None or model[2][1].weight.grad.zero_(),
}
REACH = {"modes": ("modes", "trained", "hooks", "torch", "numpy", "python")}
REACH["buffers"] = (*REACH["modes"], "buffers")
REACH["weights"] = tuple(CHANGES)


@pytest.mark.parametrize(("scope", "change"), [(scope, change) for scope in REACH for change in REACH[scope]])
@pytest.mark.parametrize("ends", ["well", "in an error"])
def test_what_is_changed_inside_is_put_back(model, scope, change, ends):
    before = everything(model)
    try:
        with unchanged(model, scope=scope):
            CHANGES[change](model)
            if ends == "in an error":
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert ends == "in an error"
    after = everything(model)
    assert [name for name in before if not same(before[name], after[name])] == []


def test_each_change_is_one(model):
    """The changes above do change something, or the test above shows nothing."""
    for name, change in CHANGES.items():
        one = copy.deepcopy(model)
        one[2][1].weight.grad = torch.ones(2, 6)
        before = everything(one)
        change(one)
        assert not same(before, everything(one)), name


def test_gradients_are_none_inside_where_weights_are_kept(model):
    with unchanged(model, scope="weights"):
        assert all(one.grad is None for one in model.parameters())
    assert model[2][1].weight.grad is not None


def test_an_optimizer_works_on_a_copy_of_its_state(model):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model(torch.randn(8, 4)).sum().backward()
    optimizer.step()
    before = copy.deepcopy(optimizer.state_dict())
    with unchanged(model, optimizers=[optimizer]):
        optimizer.param_groups[0]["lr"] = 5.0
        model(torch.randn(8, 4)).sum().backward()
        optimizer.step()
    assert same(before, optimizer.state_dict())


def test_the_generators_of_a_loader_are_put_back(model):
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    with unchanged(model, scope="modes", generators=[generator]):
        torch.rand(4, generator=generator)
    assert torch.equal(generator.get_state(), before)


def test_evaluation_mode_reaches_every_module_and_only_inside(model):
    modes = [one.training for one in model.modules()]
    with evaluation_mode(model):
        assert not any(one.training for one in model.modules())
    assert [one.training for one in model.modules()] == modes


def test_other_weights_are_there_inside_only(model):
    own = copy.deepcopy(model.state_dict())
    other = {name: torch.zeros_like(value) for name, value in own.items()}
    with with_weights(model, other):
        assert float(model[0].weight.abs().sum()) == 0
    assert same(own, model.state_dict())
    with with_weights(model, None):
        assert same(own, model.state_dict())


def test_training_leaves_what_is_frozen_in_evaluation_mode(model):
    model[1].cvkit_frozen = True
    train_mode(model)
    assert [one.training for one in (model, model[0], model[1], model[2][0])] == [True, True, False, True]
