"""``find_lr``: what it measures, what it suggests, and that nothing remembers it."""

import copy
import io
import math
import random
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import cvkit
from cvkit import seeding
from cvkit.data import ArrayDataset, Loader
from cvkit.errors import ArgumentError, PreflightError
from cvkit.training import LRCurve, find_lr

OPTIONS = {"device": "cpu", "steps": 20}


def samples(count=40, features=6):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count, features, generator=generator)
    return inputs, (inputs[:, 0] > 0).long()


def batches(size=8):
    inputs, targets = samples()
    return list(zip(inputs.split(size), targets.split(size), strict=True))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))


def tensors(model):
    return [*model.parameters(), *model.buffers()]


def everything(model, optimizer=None, loader=None):
    """All that must be as before, copied."""
    return {
        "tensors": [one.detach().clone() for one in tensors(model)],
        "memory": [one.data_ptr() for one in tensors(model)],
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "optimizer": None if optimizer is None else copy.deepcopy(optimizer.state_dict()),
        "rng": seeding.capture(),
        "loader": None if loader is None else copy.deepcopy(vars(loader) if isinstance(loader, Epochs) else []),
    }


def same(one, other):
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


class Epochs:
    """A loader that is told the epoch and counts what it has given."""

    def __init__(self):
        self.epoch, self.given, self.seen = 3, 0, []

    def set_epoch(self, epoch):
        self.epoch = epoch
        self.seen.append(epoch)

    def __len__(self):
        return len(batches())

    def __iter__(self):
        for batch in batches():
            self.given += 1
            yield batch


# --- what it measures


def by_hand(model, rates, optimizer):
    """The losses of the ramp: before any update, and after one with each rate."""
    losses, model = [], copy.deepcopy(model).train()
    optimizer = optimizer(model.parameters())
    walk = iter(batches() * 20)
    for rate in [*rates, None]:
        inputs, targets = next(walk)
        loss = F.cross_entropy(model(inputs), targets)
        losses.append(loss.item())
        if rate is not None:
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return losses


def test_each_loss_is_that_of_the_batch_after_the_update_with_its_rate():
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    curve = find_lr(model, batches(), optimizer="sgd", low=1e-4, high=1.0, **OPTIONS)
    assert curve.lrs == pytest.approx([1e-4 * 10 ** (4 * i / 19) for i in range(20)])
    assert [curve.start, *curve.losses] == by_hand(model, curve.lrs, lambda p: torch.optim.SGD(p, lr=1.0, fused=True))
    assert not curve.diverged


def test_an_accumulated_group_has_the_loss_and_makes_the_update_of_one_large_batch():
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    whole = find_lr(model, batches(8), optimizer="sgd", high=1.0, **OPTIONS)
    parts = find_lr(model, batches(4), optimizer="sgd", high=1.0, accumulate=2, **OPTIONS)
    assert parts.losses == pytest.approx(whole.losses, rel=1e-5)
    assert parts.start == pytest.approx(whole.start, rel=1e-6)


def test_a_summed_loss_counts_by_the_sample():
    model = nn.Linear(6, 2)
    mean = find_lr(model, batches(), low=1e-9, high=1e-8, **OPTIONS)
    total = find_lr(model, batches(), loss=nn.CrossEntropyLoss(reduction="sum"), low=1e-9, high=1e-8, **OPTIONS)
    assert total.losses == pytest.approx(mean.losses, rel=1e-4)


def test_parameter_groups_keep_their_ratio_to_the_first():
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(
        [{"params": model[0].parameters(), "lr": 0.5}, {"params": model[1].parameters(), "lr": 0.05}]
    )
    seen = []

    def step(model, batch, state):
        seen.append([group["lr"] for group in state.optimizer.param_groups])
        return F.cross_entropy(model(batch[0]), batch[1])

    find_lr(model, batches(), optimizer=optimizer, step=step, low=1e-3, high=1e-1, **OPTIONS)
    ramp = [pair for pair in seen if pair != [0.5, 0.05]]
    assert ramp[0] == pytest.approx([1e-3, 1e-4])
    assert ramp[-1] == pytest.approx([1e-1, 1e-2])


def test_it_stops_when_the_loss_runs_away_and_keeps_the_loss_that_did():
    curve = find_lr(nn.Linear(6, 2), batches(), optimizer="sgd", loss="mse", step=quadratic, high=1e4, **OPTIONS)
    assert curve.diverged
    assert len(curve.lrs) == len(curve.losses) < 20
    assert curve.losses[-1] > 4 * min(curve.losses)
    assert repr(curve).endswith(", where the loss ran away)")


def quadratic(model, batch, state):
    return model(batch[0]).square().mean()


def test_a_loss_that_is_not_finite_has_run_away():
    def step(model, batch, state):
        loss = quadratic(model, batch, state)
        return loss if state.step < 7 else loss * math.nan

    curve = find_lr(nn.Linear(6, 2), batches(), step=step, **OPTIONS)
    assert curve.diverged
    assert len(curve.losses) == 7
    assert math.isnan(curve.losses[-1])
    assert all(math.isfinite(one) for one in curve.smoothed)


def test_a_loss_that_is_not_finite_before_the_first_update_is_told():
    nonfinite = [(torch.full((8, 6), value), torch.zeros(8, dtype=torch.long)) for value in (1.0, math.nan)]
    with pytest.raises(PreflightError, match=r"^the loss is nan before the first update\n  got: "):
        find_lr(network(), nonfinite, accumulate=2, steps=10)


def test_a_loss_that_is_not_finite_after_the_first_update_can_be_printed_and_drawn():
    pytest.importorskip("matplotlib")
    nonfinite = [(torch.full((8, 6), value), torch.zeros(8, dtype=torch.long)) for value in (1.0, math.nan)]
    curve = find_lr(network(), nonfinite, steps=10)
    assert (len(curve.losses), curve.diverged) == (1, True)
    assert (
        repr(curve)
        == "LRCurve(suggestion=none, the loss has not fallen, 1 rates from 1e-07 to 1e-07, where the loss ran away)"
    )
    curve.plot().savefig(io.BytesIO())


def test_the_loss_is_not_read_in_each_step(monkeypatch):
    """On a device that is slow to answer the ramp goes on, and the result is the same."""
    from cvkit.metrics.async_scalars import AsyncScalars

    def run():
        return find_lr(nn.Linear(6, 2), batches(), optimizer="sgd", step=quadratic, high=1e4, **OPTIONS)

    torch.manual_seed(0)
    at_once = run()
    monkeypatch.setattr(AsyncScalars, "arrived", lambda self: [])
    torch.manual_seed(0)
    assert run() == at_once


# --- what it suggests


def curve_of(losses, start=2.0):
    return LRCurve([float(one) for one in np.geomspace(1e-6, 1.0, len(losses))], list(losses), start, diverged=False)


def valley(place, count=100):
    """Flat at 2, falling steepest at ``place``, and running away at the end."""
    at = np.linspace(-6, 0, count)
    return 2 - 1.5 / (1 + np.exp(-(at - place) / 0.2)) + np.exp((at + 0.5) / 0.1)


@pytest.mark.parametrize("place", [-4, -3, -2])
def test_the_suggestion_is_where_the_loss_falls_steepest(place):
    assert math.log10(curve_of(valley(place)).suggestion) == pytest.approx(place, abs=0.15)


def test_noise_of_single_batches_does_not_decide():
    noise = np.random.default_rng(0).normal(0, 0.05, 100)
    assert math.log10(curve_of(valley(-3) + noise).suggestion) == pytest.approx(-3, abs=0.5)


@pytest.mark.parametrize("seed", range(20))
def test_noise_alone_suggests_nothing(seed):
    curve = curve_of(2 + np.random.default_rng(seed).normal(0, 0.2, 100))
    assert "suggestion=none" in repr(curve)


def test_no_suggestion_is_an_error_that_says_what_was_tried():
    curve = curve_of(np.linspace(2, 3, 50))
    assert repr(curve) == "LRCurve(suggestion=none, the loss has not fallen, 50 rates from 1e-06 to 1)"
    with pytest.raises(ArgumentError) as caught:
        _ = curve.suggestion
    assert str(caught.value) == (
        "no learning rate can be suggested\n"
        "  got: a loss that has not fallen from 2 at any of 50 rates from 1e-06 to 1\n"
        "  expected: a loss that falls, and rises when the rate is too high\n"
        "  fix: look at plot(); test other rates (low=, high=), more steps, or a model that is not trained already"
    )


def test_what_is_printed_is_the_suggestion():
    curve = curve_of(valley(-3))
    assert repr(curve) == f"LRCurve(suggestion={curve.suggestion:.2g}, 100 rates from 1e-06 to 1)"


def test_a_rate_as_suggested_trains(tmp_path):
    model = network()
    curve = find_lr(model, batches(), device="cpu", optimizer="momentum")
    result = cvkit.fit(
        model, batches(), epochs=5, lr=curve.suggestion, optimizer="momentum", progress=False, preflight=False
    )
    assert result.history["train_loss"][-1] < 0.8 * result.history["train_loss"][0]


# --- what it draws


def test_the_plot_shows_losses_smoothed_and_suggestion():
    curve = curve_of(valley(-3))
    (axes,) = curve.plot().axes
    assert axes.get_xscale() == "log"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("learning rate", "training loss")
    raw, smooth, line, point = axes.lines
    assert raw.get_ydata().tolist() == curve.losses
    assert smooth.get_ydata().tolist() == curve.smoothed
    assert set(line.get_xdata()) == {curve.suggestion} == set(point.get_xdata())
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["loss of each batch", "smoothed", f"suggestion: {curve.suggestion:.2g}"]
    assert axes.get_ylim() == pytest.approx((0.38, 2.525), abs=0.05), "where it runs away would hide the rest"
    assert max(curve.losses) > 50


def test_the_plot_says_that_there_is_no_suggestion():
    (axes,) = curve_of(np.linspace(2, 3, 50)).plot().axes
    assert axes.get_title() == "no suggestion: the loss has not fallen"
    assert len(axes.lines) == 2


def test_the_plot_of_a_loss_that_is_not_finite_at_the_end_can_be_drawn():
    curve = LRCurve([0.1, 0.2, 0.3], [1.0, 0.9, math.nan], 1.1, diverged=True)
    assert curve.plot().savefig("/dev/null", format="png") is None


# --- what is left of it: nothing


def prepared():
    """A model in evaluation in part, with gradients, and an optimizer that has been used."""
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for inputs, targets in batches()[:2]:
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    model[1].eval()
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    return model, optimizer


def test_model_optimizer_loader_and_random_numbers_are_as_they_were():
    model, optimizer = prepared()
    loader = Epochs()
    objects = [id(p.grad) for p in model.parameters()], id(optimizer.state), [id(g) for g in optimizer.param_groups]
    before, place = everything(model, optimizer), (loader.epoch, loader.given)
    find_lr(model, loader, optimizer=optimizer, **OPTIONS)
    assert loader.seen[:2] == [3, 4], "it goes on from the epoch at which the loader stands"
    assert same(everything(model, optimizer), before)
    assert (loader.epoch, loader.given) == place
    assert objects == (
        [id(p.grad) for p in model.parameters()],
        id(optimizer.state),
        [id(g) for g in optimizer.param_groups],
    )


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
def test_also_after_an_exception_and_ctrl_c(error):
    model, optimizer = prepared()
    loader = Epochs()

    def step(model, batch, state):
        if state.step == 5:
            raise error
        return F.cross_entropy(model(batch[0]), batch[1])

    before = everything(model, optimizer)
    with pytest.raises(type(error)):
        find_lr(model, loader, optimizer=optimizer, step=step, **OPTIONS)
    assert same(everything(model, optimizer), before)
    assert (loader.epoch, loader.given) == (3, 0)


def test_also_when_the_first_batch_does_not_go_through():
    model, optimizer = nn.Linear(5, 2), None
    before = everything(model, optimizer)
    with pytest.raises(PreflightError, match="the forward fails in layer 'Linear'"):
        find_lr(model, batches(), **OPTIONS)
    assert same(everything(model, optimizer), before)


def test_a_loss_with_weights_of_its_own_is_as_it_was():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, outputs, targets):
            self.calls += 1
            return F.cross_entropy(outputs * self.scale, targets)

    model, loss = network(), Scaled()
    optimizer = torch.optim.SGD([*model.parameters(), *loss.parameters()], lr=0.1)
    find_lr(model, batches(), loss=loss, optimizer=optimizer, **OPTIONS)
    assert (loss.scale.item(), loss.calls.item()) == (1.0, 0.0)
    assert loss.scale.grad is None


def test_a_learning_rate_that_is_a_tensor_is_left_as_it_was():
    model = network()
    rate = torch.tensor(0.25)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    find_lr(model, batches(), optimizer=optimizer, **OPTIONS)
    assert optimizer.param_groups[0]["lr"] is rate
    assert float(rate) == 0.25


def test_training_afterwards_is_the_training_without_it():
    def train(*, tested):
        torch.manual_seed(4)
        model = network()
        loader = DataLoader(TensorDataset(*samples()), 8, shuffle=True, generator=torch.Generator().manual_seed(2))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        torch.manual_seed(5)
        for _ in range(2 if tested else 0):
            find_lr(model, loader, optimizer=optimizer, **OPTIONS)
        result = cvkit.fit(model, loader, epochs=2, optimizer=optimizer, device="cpu", progress=False)
        return result.history.rows, [one.clone() for one in tensors(model)], torch.get_rng_state()

    assert same(list(train(tested=True)), list(train(tested=False)))


def test_a_loader_of_cvkits_stands_where_it_stood_also_in_the_middle_of_an_epoch():
    inputs, targets = samples()
    loader, twin = (Loader(ArrayDataset(inputs.numpy(), targets.numpy()), 8, shuffle=True) for _ in range(2))
    walk, other = iter(loader), iter(twin)
    for _ in range(2):
        next(walk), next(other)
    state = loader.state_dict()
    find_lr(network(), loader, **OPTIONS)
    assert loader.state_dict() == state
    assert same([list(batch) for batch in walk], [list(batch) for batch in other])
    assert same([list(batch) for batch in loader], [list(batch) for batch in twin]), "and so the epoch after"


def test_a_name_of_an_optimizer_and_a_factory_will_do_and_a_compiled_model_is_tested_itself():
    for optimizer in ("nesterov", lambda p: torch.optim.SGD(p, lr=0.1), torch.optim.Adam):
        assert len(find_lr(network(), batches(), optimizer=optimizer, low=1e-5, high=1e-3, **OPTIONS).lrs) == 20
    wrapped = nn.DataParallel(network())
    before = everything(wrapped.module)
    find_lr(wrapped, batches(), **OPTIONS)
    assert same(everything(wrapped.module)["tensors"], before["tensors"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 0}, "these learning rates cannot be tested\n  got: low=0, high=10.0\n  expected: 0 < low < high"),
        ({"low": 1.0, "high": 0.1}, "got: low=1.0, high=0.1"),
        ({"high": math.inf}, "got: low=1e-07, high=inf"),
        ({"low": "1"}, "got: low='1', high=10.0"),
        ({"steps": 5}, "steps cannot be used\n  got: 5\n  expected: an integer of at least 10"),
        ({"steps": 20.0}, "steps cannot be used\n  got: 20.0"),
        ({"stop_factor": 1}, "stop_factor cannot be used\n  got: 1\n  expected: a number above 1"),
        ({"accumulate": 0}, "accumulate cannot be used\n  got: 0"),
    ],
)
def test_arguments_that_cannot_work_are_refused(options, message):
    with pytest.raises(ArgumentError, match=re.escape(message)):
        find_lr(network(), batches(), **options)


def test_a_loader_that_is_used_up_is_an_error_and_not_a_loop_without_end():
    class Once:
        def __init__(self):
            self.left = batches()

        def __len__(self):
            return 5

        def __iter__(self):
            while self.left:
                yield self.left.pop()

    with pytest.raises(cvkit.errors.DataError, match=r"train gave no batch in epoch \d"):
        find_lr(network(), Once(), **OPTIONS)
