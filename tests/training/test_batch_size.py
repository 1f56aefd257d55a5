"""The largest batch that fits, found without a trace; memory runs out where the test says so."""

import copy

import pytest
import torch
from torch import nn

import cvkit
from cvkit.data import ArrayDataset, Loader
from cvkit.errors import ArgumentError, DeviceError
from cvkit.transforms import small_image_train


class Net(nn.Sequential):
    """Runs out of memory for more samples than it has room for."""

    def __init__(self, room, error=None):
        super().__init__(nn.Flatten(), nn.Linear(3 * 64, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
        self.room, self.tried = room, []
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")

    def forward(self, x):
        if len(x) not in self.tried:
            self.tried.append(len(x))
        if len(x) > self.room:
            super().forward(x[:2]).sum().backward()  # it may fail late, with gradients there already
            raise self.error
        return super().forward(x)


def loader():
    images = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8)
    dataset = ArrayDataset(images, torch.arange(20) % 3)
    return Loader(dataset, batch_size=4, transform=small_image_train(8), shuffle=True, workers=0)


@pytest.mark.parametrize(("room", "found"), [(8, 8), (9, 8), (100, 96), (104, 104), (4096, 256)])
def test_the_largest_multiple_that_fits_is_found(room, found):
    model = Net(room)
    assert cvkit.find_batch_size(model, loader(), device="cpu", most=256) == found
    assert len(model.tried) <= 2 * 6  # doubled, then bisected


def test_what_is_tried_is_doubled_then_bisected():
    model = Net(100)
    cvkit.find_batch_size(model, loader(), device="cpu", most=1000)
    assert model.tried == [8, 16, 32, 64, 128, 96, 112, 104]


@pytest.mark.parametrize("given", ["name", "ready"])
def test_it_leaves_no_trace(given):
    model, batches = Net(40), loader()
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, 3, 8, 8)).sum().backward()
    optimizer.step()
    model.eval()
    batches.set_epoch(3)
    gradients = [one.grad for one in model.parameters()]
    values = [one.clone() for one in gradients]
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    random = torch.get_rng_state()
    cvkit.find_batch_size(model, batches, device="cpu", optimizer=optimizer if given == "ready" else "sgd")
    assert torch.equal(torch.get_rng_state(), random)
    assert all(one.grad is other for one, other in zip(model.parameters(), gradients, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(gradients, values, strict=True))
    assert not any(one.training for one in model.modules())
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before[0].items())
    states = optimizer.state_dict()["state"]
    assert all(
        torch.equal(states[key][name], one) for key, held in before[1]["state"].items() for name, one in held.items()
    )
    assert batches.state_dict() == {"seed": 0, "epoch": 3, "batch": 0}


def test_any_batches_of_tensors_will_do():
    batches = [{"x": torch.randn(4, 3, 8, 8), "y": torch.arange(4) % 3, "scale": torch.tensor(2.0)}]

    def step(model, batch, state):
        return nn.functional.cross_entropy(model(batch["x"]), batch["y"]) * batch["scale"]

    assert cvkit.find_batch_size(Net(10), batches, step=step, device="cpu", multiple=1, most=64) == 10


def test_another_error_is_no_lack_of_memory():
    model = Net(10, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        cvkit.find_batch_size(model, loader(), device="cpu")
    assert model.training
    assert all(one.grad is None for one in model.parameters())


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_a_cpu_says_it_in_other_words(error):
    assert cvkit.find_batch_size(Net(10, error), loader(), device="cpu", most=64) == 8


def test_a_device_that_is_too_small_is_an_error():
    with pytest.raises(DeviceError, match="not even 8 samples fit into the memory of cpu") as caught:
        cvkit.find_batch_size(Net(4), loader(), device="cpu")
    assert "got: a training step of Net that ran out of memory" in str(caught.value)


@pytest.mark.parametrize("arguments", [{"most": 4}, {"multiple": 0}, {"most": True}])
def test_numbers_that_cannot_work_are_refused(arguments):
    with pytest.raises(ArgumentError):
        cvkit.find_batch_size(Net(4), loader(), device="cpu", **arguments)


def test_a_batch_that_cannot_be_repeated_is_refused():
    with pytest.raises(ArgumentError, match="cannot make batches of another size"):
        cvkit.find_batch_size(Net(4), [(torch.randn(4, 3, 8, 8), object())], device="cpu")
