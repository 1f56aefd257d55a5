"""A device that is full: the error says what gives the same update with less."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import cvkit
from cvkit.errors import DeviceError


class Full(nn.Module):
    """Runs out of memory from a call on."""

    def __init__(self, at):
        super().__init__()
        self.inner, self.at, self.calls = nn.Linear(4, 2), at, 0

    def forward(self, x):
        self.calls += 1
        if self.calls >= self.at:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.inner(x)


def _loader(batch_size):
    return DataLoader(TensorDataset(torch.randn(16, 4), torch.arange(16) % 2), batch_size, shuffle=True)


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "fix"),
    [
        (8, 1, "batch_size=4 in the loader of train and fit(accumulate=2)"),
        (8, 3, "batch_size=4 in the loader of train and fit(accumulate=6)"),
        (9, 2, "batch_size=3 in the loader of train and fit(accumulate=6)"),
        (1, 1, "smaller images or a smaller model"),
    ],
)
@pytest.mark.parametrize("preflight", [True, False])
def test_half_the_batch_and_twice_the_accumulation_give_the_same_update(batch_size, accumulate, fix, preflight):
    with pytest.raises(DeviceError) as found:
        cvkit.fit(
            Full(1),
            _loader(batch_size),
            epochs=1,
            accumulate=accumulate,
            device="cpu",
            progress=False,
            preflight=preflight,
            ignore=("CV509",),
        )
    assert str(found.value).startswith(
        "CV805: the memory of cpu is full\n  got: weights and their gradients of 8e-05 MB"
    )
    assert f"\n  fix: {fix}" in str(found.value)
    assert "Tried to allocate 2.00 GiB" in str(found.value)
    assert isinstance(found.value.__cause__, torch.OutOfMemoryError)


def test_a_loader_without_a_batch_size_is_told_so_too():
    with pytest.raises(DeviceError, match=r"half the samples in a batch and fit\(accumulate=2\)"):
        cvkit.fit(Full(1), list(_loader(8)), epochs=1, device="cpu", progress=False)


def test_what_is_advised_gives_the_same_weights():
    data = TensorDataset(torch.randn(16, 4), torch.arange(16) % 2)
    weights = []
    for batch_size, accumulate in ((8, 1), (4, 2)):
        torch.manual_seed(0)
        model = nn.Linear(4, 2)
        cvkit.fit(model, DataLoader(data, batch_size), epochs=1, accumulate=accumulate, device="cpu", progress=False)
        weights.append(model.weight.detach().clone())
    torch.testing.assert_close(*weights)
