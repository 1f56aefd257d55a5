"""StopOnNaN: the run ends before it is spoilt, says where it came from, and no checkpoint holds what is not finite."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from cvkit.callbacks import EMA, Checkpoint, EarlyStopping, StopOnNaN
from cvkit.errors import CvkitWarning
from cvkit.training import fit, load_checkpoint

BATCHES = 4


class Bomb(nn.Module):
    """Two layers with a function between them that may be told to give NaN, or to have such a gradient, from a call on."""

    def __init__(self, kind, call=10**9):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.between, self.norm, self.last = (
            nn.Linear(3, 4),
            Between(kind, call),
            nn.BatchNorm1d(4),
            nn.Linear(4, 2),
        )

    def forward(self, x):
        return self.last(self.norm(self.between(self.first(x))))


class Between(nn.Module):
    def __init__(self, kind, call):
        super().__init__()
        self.kind, self.call, self.calls = kind, call, 0

    def forward(self, x):
        self.calls += self.training
        if not self.training or self.calls < self.call:
            return x
        if self.kind == "forward":
            return x / torch.zeros_like(x)
        return x + torch.sqrt(x.abs() * 0) * 0  # its derivative is 0 * infinity


def batches(spoil=None):
    torch.manual_seed(1)
    data = [(torch.randn(4, 3), torch.randint(0, 2, (4,))) for _ in range(BATCHES)]
    if spoil is not None:
        data[spoil][0][2, 1] = math.nan
    return data


def run(model, *callbacks, data=None, epochs=3, **options):
    """Trains, and returns the result and what was warned of."""
    data = data or batches()
    given = {"lr": 0.1, "device": "cpu", "progress": False, "preflight": False} | options
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        result = fit(model, data, data, epochs=epochs, callbacks=list(callbacks), **given)
    return result, [str(one.message) for one in said if one.category is CvkitWarning]


def finite(model):
    return all(bool(p.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("call", [1, 3, 4, 6, 8])
@pytest.mark.parametrize("gradients", [False, True])
def test_the_run_ends_at_the_batch_and_the_weights_are_those_of_before(call, gradients):
    model, kept = Bomb("forward", call), []

    class Keep:
        order = 1

        def on_batch_start(self, state):
            kept.append([p.detach().clone() for p in state.model.parameters()])

    result, said = run(model, StopOnNaN(gradients=gradients), Keep())
    assert result.stop_reason == "nan"
    assert len(kept) == call
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), kept[-1], strict=True))
    epoch, batch = divmod(call - 1, BATCHES)
    assert len(said) == 1, "the loop does not say it again"
    assert said[0].startswith(
        f"the training loss is nan in epoch {epoch + 1}, batch {batch + 1} (step {call}): "
        "the run ends here, and checkpoints stay as they are\n"
    )


def test_a_run_without_a_nan_does_not_notice():
    with_it, without = Bomb("forward"), Bomb("forward")
    result, said = run(with_it, StopOnNaN(gradients=True))
    assert (result.stop_reason, said) == ("finished", [])
    assert run(without)[0].history == result.history
    assert all(torch.equal(p, q) for p, q in zip(with_it.parameters(), without.parameters(), strict=True))


@pytest.mark.parametrize("call", [2, 3, 5, 6])
def test_a_batch_that_makes_no_update_of_its_own_is_found_too(call):
    """Groups of three: the second batch is in the middle of one, the third at its end."""
    model, before = Bomb("forward", call), Bomb("forward")
    result, said = run(model, StopOnNaN(), accumulate=3, epochs=1 if call < 4 else 2)
    assert result.stop_reason == "nan"
    epoch, batch = divmod(call - 1, BATCHES)
    assert f"in epoch {epoch + 1}, batch {batch + 1} (step {2 * epoch + 1}):" in said[0]
    assert finite(model)
    if call < 4:
        assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before.parameters(), strict=True))


# --- what it says


def said_of(model, callback=None, **options):
    return run(model, callback or StopOnNaN(), **options)[1][0]


def test_samples_that_hold_a_nan_are_named():
    text = said_of(Bomb("none"), data=batches(spoil=1))
    assert "batch 2 (step 2)" in text
    assert "\n  the inputs hold values that are not finite, in 1 of 4 samples: 2 (from 0)\n" in text


def test_the_first_layer_is_named():
    text = said_of(Bomb("forward", 3))
    assert "\n  the first layer whose output is not finite is 'between' (Between()), given values up to " in text


def test_the_loss_is_named_where_the_outputs_are_finite():
    text = said_of(nn.Linear(3, 2), loss=lambda outputs, targets: torch.log(outputs.sum() * 0 - 1))
    assert "\n  the model's outputs are finite, from " in text
    assert "and the loss of them is nan: it is the loss" in text


def test_what_lies_between_layers_is_told():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x):
            return self.layer(x) / 0

    assert "\n  no layer gives a value that is not finite: it comes from what lies between" in said_of(Bare())


def test_a_gradient_is_found_before_its_update_and_its_layer_named():
    model = Bomb("backward", 3)
    text = said_of(model, StopOnNaN(gradients=True))
    assert text.startswith("the loss is finite, and the norm of its gradient is nan, in epoch 1, batch 3 (step 3): ")
    assert (
        "going back from it, the gradients cease to be in or just before the layer 'between': "
        "Function 'SqrtBackward0' returned nan values" in text
    )
    assert finite(model)


def test_without_looking_at_gradients_the_next_loss_tells_which_weights_were_spoilt():
    model = Bomb("backward", 3)
    text = said_of(model)
    assert text.startswith("the training loss is nan in epoch 1, batch 4 (step 4): ")
    assert "\n  the weights had been spoilt by an update before: first.weight, first.bias\n" in text
    assert "StopOnNaN(gradients=True, wait=True) stops before that update" in text


def test_a_batch_that_is_fine_the_second_time_is_told_to_be_so():
    class Once(Between):
        def forward(self, x):
            self.calls += self.training
            return x / 0 if self.training and self.calls == 2 else x

    model = Bomb("none")
    model.between = Once("", 0)
    assert "run once more, the batch gave a finite loss and finite gradients" in said_of(model)


def test_a_step_of_the_users_own_is_run_again():
    def step(model, batch, state):
        return model(batch["x"]).square().mean() / (0 if state.step == 1 else 1)

    data = [{"x": torch.ones(2, 3)}] * 3
    text = said_of(nn.Linear(3, 2), data=data, step=step)
    assert "no layer gives a value that is not finite" in text
    data = [{"x": torch.full((2, 3), math.inf)}]
    assert "\n  the batch['x'] holds values that are not finite, in 2 of 2 samples: 0, 1 (from 0)\n" in said_of(
        nn.Linear(3, 2), data=data, step=step
    )


def test_a_batch_that_cannot_be_run_again_does_not_hide_what_was_found():
    def step(model, batch, state):
        if state.stop_reason is not None:
            raise KeyError("only once")
        return model(batch[0]).sum() * math.nan

    result, said = run(nn.Linear(3, 2), StopOnNaN(), step=step)
    assert result.stop_reason == "nan"
    assert "\n  the batch could not be run once more to see where it came from: KeyError: 'only once'\n" in said[0]


def test_what_never_was_finite_is_no_mistake(tmp_path):
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)
            self.register_buffer("mask", torch.tensor([-math.inf, 0.0]))

        def forward(self, x):
            return self.layer(x)

    result, said = run(Masked(), StopOnNaN(), Checkpoint(tmp_path))
    assert (result.stop_reason, said) == ("finished", [])


def test_it_can_be_kept_from_looking():
    model = Bomb("forward", 2)
    text = said_of(model, StopOnNaN(diagnose=False))
    assert len(text.splitlines()) == 2
    assert model.between.calls == 2, "the batch was not run again"


def test_looking_leaves_no_trace():
    model, seen = Bomb("forward", 3), {}

    class Before:
        def on_gradients_ready(self, state):
            seen["before"] = torch.get_rng_state()

    class Look:
        order = 1

        def on_gradients_ready(self, state):
            if state.stop_reason == "nan":
                seen["hooks"] = [len(m._forward_hooks) for m in state.model.modules()]
                seen["rng"] = torch.get_rng_state()
                seen["buffer"] = state.model.norm.num_batches_tracked.item()
                seen["meter"] = state.engine.train_meters.losses.state_dict()["count"]

    model.last = nn.Sequential(nn.Dropout(0.5), model.last)
    run(model, Before(), StopOnNaN(), Look())
    assert set(seen["hooks"]) == {0}
    assert torch.equal(seen["rng"], seen["before"])
    assert (seen["buffer"], seen["meter"]) == (3, 3)
    assert not torch.is_anomaly_enabled()


# --- checkpoints


def saved(path):
    content = load_checkpoint(path)
    return content["model"], content["training"]


@pytest.mark.parametrize("kind", ["forward", "backward"])
@pytest.mark.parametrize("call", [2, 4, 5, 8])
@pytest.mark.parametrize("steps", [None, 1])
@pytest.mark.parametrize(("first", "background"), [(True, False), (False, True)])
def test_no_checkpoint_holds_anything_that_is_not_finite(tmp_path, kind, call, steps, first, background):
    """Whatever the order in the list, wherever in the epoch, also where the loss shows it only a batch later."""
    keep = Checkpoint(tmp_path, every_steps=steps, keep_last=9, background=background)
    callbacks = [StopOnNaN(), keep] if first else [keep, StopOnNaN()]
    result, _ = run(Bomb(kind, call), *callbacks, EMA(0.5) if call == 5 else EarlyStopping(patience=99))
    assert result.stop_reason == "nan"
    for path in tmp_path.glob("*.pt"):
        model, training = saved(path)
        for name, value in model.items():
            assert value.isfinite().all(), f"{path.name}: {name}"
        assert training["step"] < call
        for state in training["optimizers"][0]["state"].values():
            assert state["exp_avg"].isfinite().all()
    if (steps == 1 and call > 2) or call > 4:
        assert (tmp_path / "last.pt").exists(), "the good ones are kept"


def test_the_run_continued_comes_to_the_same_place(tmp_path):
    data = batches()
    given = {"lr": 0.1, "device": "cpu", "progress": False, "preflight": False}
    fit(Bomb("none"), data, data, epochs=1, callbacks=[Checkpoint(tmp_path)], **given)
    before = (tmp_path / "last.pt").read_bytes()
    texts = []
    for _ in range(2):
        result, said = run(
            Bomb("none"), StopOnNaN(wait=True), Checkpoint(tmp_path), data=batches(2), epochs=2, resume=True
        )
        assert (result.stop_reason, result.epochs) == ("nan", 1)
        texts.append(said)
        assert (tmp_path / "last.pt").read_bytes() == before
    assert texts[0] == texts[1]
    assert "epoch 2, batch 3 (step 7)" in texts[0][0]


def test_losses_that_arrive_late_are_found_late_and_nothing_spoilt_is_saved(tmp_path, monkeypatch):
    """As on a GPU: nothing has arrived until somebody waits for it."""
    from cvkit.metrics.async_scalars import AsyncScalars

    monkeypatch.setattr(AsyncScalars, "arrived", lambda self: [])
    model = Bomb("forward", 6)
    result, said = run(model, StopOnNaN(), Checkpoint(tmp_path, every_steps=3))
    assert result.stop_reason == "nan"
    assert said[0].startswith("the training loss is nan in epoch 2, batch 2 (step 6): ")
    assert not finite(model), "the update was made before anybody knew"
    assert "\n  the weights had been spoilt by an update before: " in said[0]
    weights, training = saved(tmp_path / "last.pt")
    assert training["step"] == 4
    assert all(value.isfinite().all() for value in weights.values())

    exact = Bomb("forward", 6)
    result, said = run(exact, StopOnNaN(wait=True), epochs=2)
    assert result.stop_reason == "nan"
    assert finite(exact)
    assert "the first layer whose output is not finite is 'between'" in said[0]


def test_another_reason_to_stop_does_not_save_what_is_spoilt(tmp_path, monkeypatch):
    from cvkit.metrics.async_scalars import AsyncScalars

    class Interrupt:
        def on_batch_end(self, state):
            if state.step == 6:
                state.request_stop("interrupted")

    monkeypatch.setattr(AsyncScalars, "arrived", lambda self: [])
    result, _ = run(Bomb("forward", 6), Interrupt(), StopOnNaN(), Checkpoint(tmp_path))
    assert result.stop_reason == "nan"
    assert saved(tmp_path / "last.pt")[1]["step"] == 4


def test_one_and_the_same_serves_several_fits():
    guard = StopOnNaN()
    assert run(Bomb("forward", 2), guard)[0].stop_reason == "nan"
    assert run(Bomb("none"), guard)[0].stop_reason == "finished"


def test_with_a_loss_scaler_gradients_are_its_own_business():
    data = batches()
    result, said = run(Bomb("none"), StopOnNaN(gradients=True), data=data, precision="fp16", lr=1e-3)
    assert (result.stop_reason, said) == ("finished", [])


def test_any_loader_will_do():
    data = DataLoader([(torch.randn(3), 0)] * 8, batch_size=2)
    assert run(Bomb("forward", 3), StopOnNaN(), data=data)[0].stop_reason == "nan"


def test_a_state_that_is_no_tensor_is_passed_over():
    class Counts(Bomb):
        def get_extra_state(self):
            return {"calls": 1}

        def set_extra_state(self, state):
            pass

    assert run(Counts("forward", 3), StopOnNaN())[0].stop_reason == "nan"
