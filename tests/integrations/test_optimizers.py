"""Other libraries' optimizers by name."""

import sys
import types

import pytest
import torch
from torch import nn

from cvkit.errors import ArgumentError, MissingDependencyError, UnknownNameError
from cvkit.training import fit
from cvkit.training.optimizers import resolve_optimizers

timm_optim = pytest.importorskip("timm.optim")


def batches():
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(8, 4, generator=generator), torch.randint(0, 3, (8,), generator=generator)) for _ in range(4)]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


@pytest.mark.parametrize("name", ["lion", "lamb", "lars", "adan"])
def test_timms_optimizers_train_as_timm_builds_them(name):
    ours, theirs = network(), network()
    fit(ours, batches(), epochs=2, optimizer=f"timm:{name}", lr=0.01, device="cpu", progress=False)
    optimizer = timm_optim.create_optimizer_v2(theirs.parameters(), opt=name, lr=0.01)
    for _ in range(2):
        for inputs, targets in batches():
            nn.functional.cross_entropy(theirs(inputs), targets).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("timm:lionn", UnknownNameError, "unknown optimizer of timm's 'lionn'"),
        ("tim:lion", UnknownNameError, "unknown library of optimizers 'tim'"),
        ("lion", UnknownNameError, 'fix: pip install timm, and pass optimizer="timm:lion"'),
        ("timm:adahessian", ArgumentError, "got: one that needs second derivatives"),
    ],
)
def test_what_cannot_be_built_is_answered(name, error, says):
    with pytest.raises(error) as caught:
        resolve_optimizers(name, network(), 0.1)
    assert says in str(caught.value)


@pytest.mark.parametrize("library", ["timm", "pytorch_optimizer"])
def test_a_library_that_is_missing_is_named(library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingDependencyError) as caught:
        resolve_optimizers(f"{library}:lion", network(), 0.1)
    assert f"the optimizer '{library}:lion' needs {library.replace('_', '-')}\n" in str(caught.value)
    assert f"fix: pip install {library.replace('_', '-')}" in str(caught.value)


def stand_in():
    module = types.ModuleType("pytorch_optimizer")
    module.get_supported_optimizers = lambda: ["sgd", "sam"]
    module.load_optimizer = {"sgd": torch.optim.SGD, "sam": lambda params, base_optimizer: None}.__getitem__
    return module


def test_pytorch_optimizers_interface_is_called_as_it_is_documented(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", stand_in())
    (built,) = resolve_optimizers("pytorch_optimizer:sgd", network(), 0.25)
    assert isinstance(built, torch.optim.SGD)
    assert built.defaults["lr"] == 0.25
    with pytest.raises(ArgumentError, match="'pytorch_optimizer:sam' cannot be built by its name"):
        resolve_optimizers("pytorch_optimizer:sam", network(), 0.25)
    with pytest.raises(UnknownNameError, match="unknown optimizer of pytorch-optimizer 'x'"):
        resolve_optimizers("pytorch_optimizer:x", network(), 0.25)


def test_the_real_pytorch_optimizer_trains():
    pytest.importorskip("pytorch_optimizer")
    before = [one.clone() for one in network().parameters()]
    for name in ("lion", "schedulefreeadamw"):
        model = network()
        fit(model, batches(), epochs=1, optimizer=f"pytorch_optimizer:{name}", lr=0.01, device="cpu", progress=False)
        assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
