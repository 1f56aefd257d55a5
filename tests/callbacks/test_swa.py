"""``SWA``: the figures of torch's ``swa_utils``, validated and saved, continued exactly."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, update_bn
from torch.utils.data import DataLoader, TensorDataset

import cvkit
from cvkit.callbacks import SWA, Checkpoint
from cvkit.errors import ArgumentError, CheckpointError
from cvkit.training import Callback, fit

EPOCHS = 4


def dataset():
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(
        torch.randn(20, 4, generator=generator), torch.randint(0, 3, (20,), generator=generator)
    )  # fmt: skip


def data():
    return DataLoader(dataset(), 8)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def by_hand(start=2):
    model = network()
    average = AveragedModel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for epoch in range(EPOCHS):
        model.train()
        for inputs, targets in data():
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
            optimizer.zero_grad()
        used = model
        if epoch >= start:
            average.update_parameters(model)
            update_bn(data(), average)
            used = average
        used.eval()
        with torch.no_grad():
            losses.append(sum(float(F.cross_entropy(used(i), t, reduction="sum")) for i, t in data()) / 20)
    return average.module, losses


def run(directory=None, *, stop=None, train=None, **options):
    class Stops(Callback):
        def on_batch_end(self, state):
            if state.step == stop:
                state.request_stop("enough")

    saving = [Checkpoint(directory, monitor=None)] if directory is not None else []
    torch.manual_seed(5)
    return fit(
        network(), train or data(), data(), epochs=EPOCHS, optimizer="sgd", lr=0.1, device="cpu", progress=False,
        callbacks=[Stops(), SWA(0.5), *saving], resume=directory is not None, **options,
    )  # fmt: skip


def close(one, two):
    pairs = zip(one.state_dict().items(), two.state_dict().items(), strict=True)
    return all(torch.allclose(a.float(), b.float(), atol=1e-6) for (_, a), (_, b) in pairs)


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_the_average_and_its_statistics_are_torchs():
    model, losses = by_hand()
    result = run()
    assert close(model, result.model)
    assert list(result.history["val_loss"]) == pytest.approx(losses, abs=1e-5)


@pytest.mark.parametrize("stop", [4, 7, 10])
@pytest.mark.parametrize("kind", ["torch", "shuffled", "cvkit", "workers"])
def test_a_run_is_continued_exactly(tmp_path, stop, kind):
    def train():
        if kind == "torch":
            return data()
        if kind == "shuffled":
            return DataLoader(dataset(), 8, shuffle=True)
        workers = 1 if kind == "workers" else 0
        return cvkit.data.Loader(dataset(), 8, shuffle=True, workers=workers)

    whole = run(train=train())
    cut = run(tmp_path, stop=stop, train=train())
    saved = cvkit.load_checkpoint(tmp_path / "last.pt")["model"]
    assert all(torch.equal(value, cut.model.state_dict()[name]) for name, value in saved.items())
    result = run(tmp_path, train=train())
    assert same(whole.model, result.model)
    assert whole.history.rows == result.history.rows


def test_the_training_is_as_without():
    with_it, without = [], []

    class Losses(Callback):
        def __init__(self, kept):
            self.kept = kept

        def on_batch_end(self, state):
            self.kept.append(float(state.loss))

    for kept, callbacks in ((with_it, [SWA(0.25)]), (without, [])):
        torch.manual_seed(3)
        fit(
            network(), DataLoader(dataset(), 8, shuffle=True), epochs=EPOCHS, device="cpu", progress=False,
            callbacks=[Losses(kept), *callbacks],
        )  # fmt: skip
    assert with_it == without


def test_another_start_is_another_run(tmp_path):
    run(tmp_path, stop=7)
    with pytest.raises(CheckpointError, match=r"SWA's start: 0.5 then, 0.75 now"):
        fit(
            network(), data(), data(), epochs=EPOCHS, optimizer="sgd", lr=0.1, device="cpu", progress=False, resume=True,
            callbacks=[SWA(), Checkpoint(tmp_path, monitor=None)],
        )  # fmt: skip


@pytest.mark.parametrize("start", [1, -0.1, "half"])
def test_a_start_out_of_range_is_refused(start):
    with pytest.raises(ArgumentError, match="start cannot be used"):
        SWA(start)
