"""GradientNorm: the norm before clipping, of all gradients and by layer, whatever the precision."""

import math
import warnings

import pytest
import torch
from torch import nn

from cvkit.callbacks import Checkpoint, CSVLogger, GradientNorm
from cvkit.errors import ArgumentError, CvkitWarning
from cvkit.training import fit


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)))


class Reference:
    """The norms, computed by hand."""

    def __init__(self):
        self.rows = {}

    def on_gradients_ready(self, state):
        named = {name: p.grad for name, p in state.model.named_parameters() if p.grad is not None}
        groups = {"": list(named.values())}
        for name, gradient in named.items():
            groups.setdefault(f"/{name.split('.')[0]}", []).append(gradient)
        for name, gradients in groups.items():
            norm = math.sqrt(sum(float((one.double() ** 2).sum()) for one in gradients))
            self.rows.setdefault((state.epoch, name), []).append(norm)


@pytest.mark.parametrize("accumulate", [1, 2, 3])
@pytest.mark.parametrize("clip", [None, 0.01])
def test_mean_and_largest_are_those_of_the_gradients_before_clipping(tiny, accumulate, clip):
    by_hand = Reference()
    result = tiny.run(
        by_hand, GradientNorm(every_steps=1, layers=1), model=net(), accumulate=accumulate, clip_norm=clip
    )
    for row in result.history:
        epoch = row["epoch"] - 1
        norms = by_hand.rows[epoch, ""]
        assert len(norms) == -(-4 // accumulate)
        assert row["gradient_norm"] == pytest.approx(sum(norms) / len(norms), rel=1e-5)
        assert row["gradient_norm_max"] == pytest.approx(max(norms), rel=1e-5)
        for layer in ("/0", "/2"):
            norms = by_hand.rows[epoch, layer]
            assert row[f"gradient_norm{layer}"] == pytest.approx(sum(norms) / len(norms), rel=1e-5)
    names = [name for name in result.history.columns if name.startswith("gradient")]
    assert sorted(names) == ["gradient_norm", "gradient_norm/0", "gradient_norm/2", "gradient_norm_max"]


@pytest.mark.parametrize(
    ("layers", "groups"),
    [(0, []), (1, ["0", "2"]), (2, ["0", "2.0", "2.1"]), (9, ["0", "2.0", "2.1"])],
)
def test_layers_are_grouped_by_the_parts_of_their_names(tiny, layers, groups):
    result = tiny.run(GradientNorm(layers=layers), model=net(), epochs=1)
    found = [name.split("/")[1] for name in result.history.columns if "/" in name]
    assert sorted(found) == groups


@pytest.mark.parametrize("every", [2, 3, 4, 99])
def test_it_looks_every_few_steps_and_in_each_epoch(tiny, every):
    by_hand = Reference()
    result = tiny.run(by_hand, GradientNorm(every_steps=every), model=net(), epochs=3)
    for epoch, row in enumerate(result.history):
        norms = by_hand.rows[epoch, ""][::every]
        assert row["gradient_norm"] == pytest.approx(sum(norms) / len(norms), rel=1e-5)


def test_what_is_frozen_or_has_no_gradient_has_no_part(tiny):
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused, self.frozen = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 3)
            self.frozen.requires_grad_(False)

        def forward(self, x):
            return self.used(self.frozen(x))

    torch.manual_seed(0)
    result = tiny.run(GradientNorm(layers=1), model=Half(), epochs=1)
    assert result.history["gradient_norm"] == pytest.approx(result.history["gradient_norm/used"])
    assert not {"gradient_norm/unused", "gradient_norm/frozen"} & set(result.history.columns)


def test_parameters_outside_of_the_model_count_too():
    class Loss(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, outputs, targets):
            return self.scale * outputs.square().mean()

    torch.manual_seed(0)
    model, loss = nn.Linear(3, 2), Loss()
    optimizer = torch.optim.SGD([*model.parameters(), *loss.parameters()], lr=0.1)
    data = [(torch.randn(2, 3), torch.zeros(2, 2))]
    result = fit(
        *(model, data),
        **{"epochs": 1, "loss": loss, "optimizer": optimizer, "device": "cpu", "metrics": []},
        **{"progress": False, "preflight": False, "callbacks": [GradientNorm(layers=1)]},
    )
    assert {"gradient_norm/weight", "gradient_norm/bias", "gradient_norm/others"} < set(result.history.columns)


def test_sparse_gradients_are_measured(tiny):
    torch.manual_seed(0)
    table = nn.EmbeddingBag(5, 2, sparse=True)
    data = [(torch.tensor([[0, 1, 1], [2, 0, 0]]), torch.tensor([0, 1]))]
    norms = []
    look = tiny.Do("on_gradients_ready", lambda state, calls: norms.append(table.weight.grad.to_dense().norm().item()))
    result = fit(
        *(table, data),
        **{"epochs": 1, "optimizer": torch.optim.SGD(table.parameters(), lr=0.1), "device": "cpu"},
        **{"progress": False, "preflight": False, "callbacks": [look, GradientNorm()]},
    )
    assert result.history["gradient_norm"] == pytest.approx(norms)


class Scaler:
    """As much of a loss scaler as the loop asks for: an update whose gradients are not finite is left out."""

    def scale(self, loss):
        return loss * 8

    def unscale_(self, optimizer):
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad /= 8

    def step(self, optimizer):
        if all(bool(p.grad.isfinite().all()) for group in optimizer.param_groups for p in group["params"]):
            optimizer.step()

    def update(self):
        pass

    def state_dict(self):
        return {}


def poison(state, calls):
    if calls == 2:
        next(state.model.parameters()).grad.fill_(math.inf)


def test_with_a_loss_scaler_the_norm_is_unscaled_and_an_update_that_is_left_out_does_not_count(tiny):
    by_hand = Reference()
    spoil = tiny.Do("on_gradients_ready", poison)
    scaled = tiny.Do("on_fit_start", lambda state, calls: setattr(state.runtime, "scaler", Scaler()))
    result = tiny.run(scaled, by_hand, spoil, GradientNorm(every_steps=1), model=net(), epochs=1, val=False, lr=0.0)
    norms = by_hand.rows[0, ""]
    kept = [norms[0], *norms[2:]]
    assert result.history["gradient_norm"] == pytest.approx([sum(kept) / 3], rel=1e-5)
    assert result.history["gradient_norm_max"] == pytest.approx([max(kept)], rel=1e-5)


@pytest.mark.filterwarnings("ignore::cvkit.errors.CvkitWarning")
def test_without_one_a_norm_that_is_not_finite_is_logged_as_it_is(tiny):
    spoil = tiny.Do("on_gradients_ready", poison)
    result = tiny.run(spoil, GradientNorm(every_steps=1), model=net(), epochs=1, val=False)
    assert not math.isfinite(result.history["gradient_norm"][0])
    assert not math.isfinite(result.history["gradient_norm_max"][0])


def test_it_does_not_touch_the_training(tiny):
    with_it, without = net(), net()
    tiny.run(GradientNorm(every_steps=1, layers=2), model=with_it)
    tiny.run(model=without)
    assert all(torch.equal(a, b) for a, b in zip(with_it.parameters(), without.parameters(), strict=True))


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 6])
def test_a_run_resumed_in_an_epoch_has_the_same_history(tiny, tmp_path, batch):
    def command(where, *extra):
        norm = GradientNorm(every_steps=1, layers=1)
        return tiny.run(*extra, norm, Checkpoint(tmp_path / where), model=net(), resume=True)

    stop = tiny.Do("on_batch_end", lambda state, calls: state.request_stop("stop") if calls == batch else None)
    command("b", stop)
    assert command("b").history == command("a").history


def test_a_logger_listed_before_it_sees_its_values(tiny, tmp_path):
    tiny.run(CSVLogger(tmp_path / "log.csv"), GradientNorm(), epochs=1)
    assert "gradient_norm,gradient_norm_max" in (tmp_path / "log.csv").read_text()


def test_gradients_that_are_all_zero_are_told_once(tiny):
    dead = net()
    with torch.no_grad():
        dead[0].bias.fill_(-100.0)
        dead[2][0].bias.zero_()
    dead[2].requires_grad_(False)
    with pytest.warns(CvkitWarning) as said:
        tiny.run(GradientNorm(every_steps=1), model=dead, epochs=3)
    assert [str(one.message) for one in said] == [
        "no gradient reached a weight in epoch 1: its norm is 0 in all 4 steps looked at. Look for units that are all off "
        "(a ReLU after a large negative bias), a loss that does not depend on the outputs, or .detach() on the way"
    ]


@pytest.mark.parametrize(("factor", "clip", "warns"), [(1000, None, True), (1000, 1.0, False), (10, None, False)])
def test_a_spike_that_nothing_clips_is_told(tiny, factor, clip, warns):
    def spike(state, calls):
        for p in state.model.parameters():
            p.grad.fill_(factor if calls == 3 else 1)

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        tiny.run(tiny.Do("on_gradients_ready", spike), GradientNorm(every_steps=1), clip_norm=clip, epochs=1, lr=0.0)
    found = [str(one.message) for one in said if one.category is CvkitWarning]
    usual = math.sqrt(8)
    assert found == (
        [
            f"the gradient norm was {factor * usual:.3g} in a step of epoch 1, and {usual:.3g} in its middle one: such a step "
            "can undo many others. fit(clip_norm=6) would bound it"
        ]
        if warns
        else []
    )


@pytest.mark.parametrize(
    ("options", "got", "expected", "fix"),
    [
        ({"every_steps": 0}, "0", 1, "GradientNorm(every_steps=1)"),
        ({"every_steps": 1.5}, "1.5", 1, "GradientNorm(every_steps=1)"),
        ({"layers": -1}, "-1", 0, "GradientNorm(layers=1)"),
        ({"layers": True}, "True", 0, "GradientNorm(layers=1)"),
    ],
)
def test_numbers_that_cannot_work_are_refused(options, got, expected, fix):
    with pytest.raises(ArgumentError) as caught:
        GradientNorm(**options)
    assert str(caught.value) == (
        f"{next(iter(options))} cannot be used\n"
        f"  got: {got}\n"
        f"  expected: an integer of at least {expected}\n"
        f"  fix: {fix}"
    )
