"""Blocks that compute again in the backward pass: the same gradients, statistics and random numbers, fewer activations."""

import copy
import re

import pytest
import torch
from torch import nn

from cvkit import models
from cvkit.errors import ArgumentError


def net():
    torch.manual_seed(0)
    block = lambda a, b: nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.Dropout(0.5))  # noqa: E731
    return nn.Sequential(block(3, 8), block(8, 8), block(8, 8), nn.Sequential(nn.Flatten(), nn.Linear(8 * 64, 3)))


def trained(model, steps=2):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    torch.manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(4, 3, 8, 8)).square().mean().backward()
        optimizer.step()
    return [one.grad for one in model.parameters()], model.state_dict(), torch.rand(1)


def kept(model):
    """Bytes that a forward pass keeps for the backward pass."""
    seen = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: seen.append(one.nbytes) or one, lambda one: one):
        model(torch.randn(4, 3, 8, 8))
    return sum(seen)


@pytest.mark.parametrize("every", [1, 2])
def test_gradients_statistics_and_random_numbers_are_bit_for_bit_the_same(every):
    plain, thrifty = net(), net()
    assert models.checkpoint_blocks(thrifty, every=every)
    expected, found = trained(plain), trained(thrifty)
    assert all(torch.equal(a, b) for a, b in zip(expected[0], found[0], strict=True))
    assert found[1].keys() == expected[1].keys()
    assert all(torch.equal(expected[1][name], found[1][name]) for name in expected[1])
    assert int(found[1]["0.1.num_batches_tracked"]) == 2
    assert torch.equal(expected[2], found[2])


@pytest.mark.parametrize("name", ["resnet9", "unet"])
def test_models_by_name_compute_the_same(name):
    torch.manual_seed(0)
    plain = models.create(name, num_classes=2)
    thrifty = copy.deepcopy(plain)
    assert models.checkpoint_blocks(thrifty)
    images = torch.randn(2, 3, 32, 32)
    plain(images).square().mean().backward()
    thrifty(images).square().mean().backward()
    for (key, one), other in zip(plain.named_parameters(), thrifty.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad), key
    assert all(torch.equal(a, b) for a, b in zip(plain.buffers(), thrifty.buffers(), strict=True))


def test_less_is_kept_and_taking_it_off_keeps_it_again():
    model = net()
    before = kept(model)
    assert models.checkpoint_blocks(model, every=1) == ["0", "1", "2"]
    assert kept(model) < before / 2
    assert models.checkpoint_blocks(model, every=2) == ["0", "2"]
    assert "forward" not in vars(model[1])
    assert models.checkpoint_blocks(model, every=None) == []
    assert kept(model) == before


def test_a_copy_computes_with_its_own_weights():
    model = net().eval()
    models.checkpoint_blocks(model)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin[0][0].weight.zero_()
        twin[0][0].bias.zero_()
    images = torch.randn(1, 3, 8, 8)
    assert not torch.equal(model(images), twin(images))
    assert vars(twin[0])["forward"].args[0] is twin[0]


def test_every_must_be_a_number_of_blocks():
    with pytest.raises(ArgumentError, match=re.escape("every")):
        models.checkpoint_blocks(net(), every=0)
