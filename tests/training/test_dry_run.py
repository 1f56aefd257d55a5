"""``fit(dry_run=True)``: everything is tried, nothing is left of it."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

import cvkit
from cvkit.callbacks import EMA, SWA, Checkpoint, CSVLogger, EarlyStopping, LRSchedule, TensorBoard
from cvkit.errors import PreflightError
from cvkit.training import Callback, fit


def dataset():
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(20, 4, generator=generator), torch.randint(0, 3, (20,), generator=generator))


def loader(kind):
    if kind == "torch":
        return DataLoader(dataset(), 4, shuffle=True, generator=torch.Generator().manual_seed(1))
    return cvkit.data.Loader(dataset(), 4, shuffle=True)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))


class Counts(Callback):
    seen: list = []  # noqa: RUF012  # shared, so that a copy counts here too

    def on_batch_end(self, state):
        self.seen.append("train")

    def on_validation_batch_end(self, state):
        self.seen.append("val")

    def on_epoch_end(self, state):
        self.seen.append("end")


def files(directory):
    return sorted(str(path) for path in directory.rglob("*"))


@pytest.mark.parametrize("kind", ["torch", "cvkit"])
def test_two_batches_of_each_and_nothing_is_left(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, train, val = network(), loader(kind), loader(kind)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    scheduler = lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    callbacks = [
        *(Counts(), EMA(), EarlyStopping(), LRSchedule(scheduler), TensorBoard(), CSVLogger(tmp_path / "log.csv")),
        Checkpoint(tmp_path / "run"),
    ]

    def all_of():
        return copy.deepcopy(
            (
                model.state_dict(),
                [module.training for module in model.modules()],
                [p.grad for p in model.parameters()],
                optimizer.state_dict(),
                scheduler.state_dict(),
                torch.get_rng_state(),
                train.generator.get_state() if kind == "torch" else train.state_dict(),
                [getattr(one, "state_dict", dict)() for one in callbacks[:3]],
            )
        )

    Counts.seen.clear()
    before = all_of()
    result = fit(
        model,
        train,
        val,
        epochs=9,
        optimizer=optimizer,
        callbacks=callbacks,
        dry_run=True,
        device="cpu",
        progress=False,
    )
    assert (result.stop_reason, result.steps, result.last_checkpoint) == ("dry_run", 2, None)
    assert Counts.seen == ["train", "train", "val", "val", "end"]
    assert files(tmp_path) == []
    assert str(all_of()) == str(before)
    assert all(torch.equal(a, b) for a, b in zip(before[0].values(), all_of()[0].values(), strict=True))


@pytest.mark.parametrize("kind", ["torch", "cvkit"])
def test_the_run_after_it_is_as_without(kind, tmp_path):
    def run(rehearsed):
        model, train = network(), loader(kind)
        torch.manual_seed(4)
        callbacks = [SWA(0.5), Checkpoint(tmp_path / str(rehearsed), monitor="train_loss")]
        options = {
            "epochs": 2,
            "schedule": "cosine",
            "warmup": 2,
            "callbacks": callbacks,
            "device": "cpu",
            "progress": False,
        }
        if rehearsed:
            fit(model, train, dry_run=True, **options)
        return fit(model, train, **options)

    with_it, without = run(True), run(False)
    assert with_it.history.rows == without.history.rows
    pairs = zip(with_it.model.state_dict().values(), without.model.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_what_would_fail_at_the_end_of_an_epoch_fails_now(tmp_path):
    class Fails(Callback):
        def on_epoch_end(self, state):
            raise RuntimeError("disk of a test")

    model = network()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match="disk of a test"):
        fit(model, loader("torch"), epochs=100, callbacks=[Fails()], dry_run=True, device="cpu", progress=False)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    with pytest.raises(PreflightError):
        fit(nn.Linear(3, 3), loader("torch"), epochs=1, dry_run=True, device="cpu", progress=False)
