"""Optimizers with weights to train and weights to use: those to use are validated, saved and returned."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cvkit
from cvkit.callbacks import EMA, Checkpoint
from cvkit.errors import ArgumentError
from cvkit.training import Callback, fit


class ScheduleFreeSGD(torch.optim.Optimizer):
    """Defazio et al., 2024, equations 3 to 5, with the switching of the authors' package."""

    def __init__(self, params, lr=0.1, beta=0.9):
        super().__init__(params, {"lr": lr, "beta": beta, "k": 0, "train_mode": False})

    @torch.no_grad()
    def _switch(self, train):
        for group in self.param_groups:
            if group["train_mode"] != train:
                for p in group["params"]:
                    if "z" in self.state[p]:
                        p.lerp_(self.state[p]["z"], 1 - group["beta"] if train else 1 - 1 / group["beta"])
                group["train_mode"] = train

    def train(self):
        self._switch(True)

    def eval(self):
        self._switch(False)

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            if not group["train_mode"]:
                raise RuntimeError("not in train mode")
            group["k"] += 1
            for p in group["params"]:
                if p.grad is not None:
                    state = self.state[p]
                    z = state.setdefault("z", p.detach().clone())
                    x = p.lerp(z, 1 - 1 / group["beta"])
                    z.sub_(p.grad, alpha=group["lr"])
                    x.lerp_(z, 1 / group["k"])
                    p.copy_(x.lerp(z, 1 - group["beta"]))


def batches():
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(8, 4, generator=generator), torch.randint(0, 3, (8,), generator=generator)) for _ in range(5)]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def run(directory=None, *, stop=None, val=True, **options):
    class Stops(Callback):
        def on_batch_end(self, state):
            if state.step == stop:
                state.request_stop("enough")

    model = network()
    saving = [Checkpoint(directory, monitor=None, every_steps=1)] if directory is not None else []
    return fit(
        model, batches(), batches() if val else None, epochs=3, optimizer=lambda p: ScheduleFreeSGD(p), device="cpu",
        callbacks=[Stops(), *saving], progress=False, resume=directory is not None, **options,
    )  # fmt: skip


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def by_hand():
    model = network()
    optimizer = ScheduleFreeSGD(model.parameters())
    optimizer.train()
    losses = []
    for _ in range(3):
        for inputs, targets in batches():
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
            optimizer.zero_grad()
        values = [p.detach().clone() for p in model.parameters()]
        optimizer.eval()
        with torch.no_grad():
            losses.append(float(torch.stack([F.cross_entropy(model(i), t) for i, t in batches()]).mean()))
            optimizer.train()
            for p, value in zip(model.parameters(), values, strict=True):
                p.copy_(value)
    optimizer.eval()
    return model, losses


def test_the_weights_to_use_are_validated_and_returned():
    model, losses = by_hand()
    result = run()
    assert same(model, result.model)
    assert list(result.history["val_loss"]) == pytest.approx(losses, abs=1e-6)


def test_validating_and_saving_changes_nothing_of_the_training(tmp_path):
    assert same(run(val=False).model, run(tmp_path).model)


@pytest.mark.parametrize("stop", [2, 5, 8])
def test_a_run_is_continued_exactly_and_its_file_holds_the_weights_to_use(tmp_path, stop):
    whole = run()
    cut = run(tmp_path, stop=stop)
    saved = cvkit.load_checkpoint(tmp_path / "last.pt")
    used = dict(cut.model.state_dict())
    assert all(torch.equal(used[name], value) for name, value in saved["model"].items())
    assert not torch.equal(saved["training"]["weights"]["0.weight"], saved["model"]["0.weight"])
    result = run(tmp_path)
    assert same(whole.model, result.model)
    assert whole.history.rows == result.history.rows


def test_find_lr_trains_with_it_too():
    cvkit.find_lr(network(), batches(), optimizer=lambda p: ScheduleFreeSGD(p), steps=10)


def test_two_averages_are_one_too_many():
    with pytest.raises(ArgumentError, match="EMA does not go with the optimizer ScheduleFreeSGD"):
        fit(network(), batches(), epochs=1, optimizer=lambda p: ScheduleFreeSGD(p), callbacks=[EMA()], progress=False)
