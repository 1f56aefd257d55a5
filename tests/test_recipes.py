"""Recipes: arguments that ``fit`` takes, of models that there are, with the numbers of their sources."""

import inspect

import pytest
import torch
from torch import nn

import cvkit
from cvkit import recipes
from cvkit.errors import UnknownNameError

BATCHES = [(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 5]))]


@pytest.mark.parametrize("name", recipes.names())
def test_fit_takes_it(name):
    recipe = recipes.get(name)
    assert set(recipe.fit) <= set(inspect.signature(cvkit.fit).parameters)
    assert recipe.model in cvkit.models.names()
    assert all((recipe.source, recipe.data, recipe.beside))
    options = recipe.fit | {"epochs": 200, "max_steps": 3}
    cvkit.fit(nn.Linear(3, 6), BATCHES, device="cpu", progress=False, **options)


@pytest.mark.parametrize(
    ("name", "epochs", "lr", "decay", "batch_size"),
    [
        ("resnet50_v1", 90, 0.1, 1e-4, 256),
        ("resnet50_v2", 600, 0.5, 2e-5, 1024),
        ("convnext_tiny", 600, 1e-3, 0.05, 1024),
        ("vit_b_16", 300, 3e-3, 0.3, 4096),
    ],
)
def test_the_numbers_are_the_sources(name, epochs, lr, decay, batch_size):
    recipe = recipes.get(name)
    optimizer = recipe.fit["optimizer"](list(nn.Linear(2, 2).parameters()))
    group = optimizer.param_groups[0]
    assert (recipe.fit["epochs"], group["lr"], group["weight_decay"], recipe.batch_size) == (
        epochs,
        lr,
        decay,
        batch_size,
    )


def test_a_copy_may_be_changed():
    recipes.get("vit_b_16").fit["epochs"] = 1
    assert recipes.get("vit_b_16").fit["epochs"] == 300
    with pytest.raises(UnknownNameError, match="unknown recipe 'resnet50'"):
        recipes.get("resnet50")
