"""Gradual unfreezing: what is trained follows the plan, and a run cut anywhere continues as if it had not been."""

import pytest
import torch
from torch import nn

import cvkit
from cvkit import models
from cvkit.callbacks import EMA, Checkpoint, GradualUnfreezing
from cvkit.errors import ArgumentError, CheckpointError, CvkitWarning, ModelError, UnknownNameError
from cvkit.training import Callback


def network():
    torch.manual_seed(0)
    blocks = [
        nn.Sequential(nn.Conv2d(3 if i == 0 else 4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2))
        for i in range(3)
    ]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def batches(count=3):
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(4, 3, 6, 6, generator=generator), torch.randint(0, 2, (4,), generator=generator))
        for _ in range(count)
    ]


def fit(*callbacks, model=None, epochs=4, **options):
    options = {"optimizer": "adamw", "progress": False, "preflight": False, "seed": 3} | options
    if options["optimizer"] in ("sgd", "momentum", "nesterov", "adam", "adamw", "adagrad"):
        options["lr"] = 0.05
    return cvkit.fit(model or network(), batches(), batches(1), epochs=epochs, callbacks=callbacks, **options)


class Watch(Callback):
    """Notes, for each epoch, which top-level parts have changed in it, statistics too."""

    def __init__(self):
        self.moved = []

    def on_epoch_start(self, state):
        self.before = {key: value.clone() for key, value in state.model.state_dict().items()}

    def on_epoch_end(self, state):
        now = state.model.state_dict()
        parts = {key.partition(".")[0] for key in now if not torch.equal(now[key], self.before[key])}
        self.moved.append("".join(sorted(parts)))


PLANS = {
    "a block an epoch": (GradualUnfreezing, {}, ["5", "25", "125", "0125"]),
    "a block every two epochs": (GradualUnfreezing, {"every_epochs": 2}, ["5", "5", "25", "25"]),
    "names": (GradualUnfreezing, {"plan": {3: ["0", "1"], 1: "2"}}, ["5", "25", "25", "0125"]),
    "a depth and all": (GradualUnfreezing, {"plan": {1: 3, 2: "all"}}, ["5", "125", "0125", "0125"]),
    "from the start": (GradualUnfreezing, {"plan": {0: "2", 3: "all"}}, ["25", "25", "25", "0125"]),
    "without the head": (GradualUnfreezing, {"plan": {2: "5"}, "keep": "0"}, ["0", "0", "05", "05"]),
    "a parameter": (GradualUnfreezing, {"plan": {1: "0.0.bias"}}, ["5", "05", "05", "05"]),
}
each_plan = pytest.mark.parametrize("plan", PLANS)


def made(plan):
    kind, arguments, _ = PLANS[plan]
    return kind(**arguments)


@each_plan
@pytest.mark.parametrize("frozen", [False, True])
def test_each_epoch_trains_what_is_due_and_nothing_else(plan, frozen):
    model, watch = network(), Watch()
    fit(made(plan), watch, model=models.freeze(model) if frozen else model)
    assert watch.moved == PLANS[plan][2]


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "adamw", "adagrad"])
def test_every_optimizer_by_name_takes_up_what_is_unfrozen(optimizer):
    watch = Watch()
    fit(GradualUnfreezing(), watch, model=models.freeze(network()), optimizer=optimizer, schedule="cosine")
    assert watch.moved == ["5", "25", "125", "0125"]


OPTIMIZERS = {
    "adamw by name": lambda model: "adamw",
    "momentum by name": lambda model: "momentum",
    "a factory": lambda model: lambda params: torch.optim.RMSprop(params, lr=0.01, momentum=0.9),
    "param_groups": lambda model: (
        lambda params: torch.optim.AdamW(
            models.param_groups(model, lr=0.02, head_lr=0.1, weight_decay=0.1, layer_decay=0.8), fused=True
        )
    ),
    "param_groups, made before": lambda model: torch.optim.SGD(
        models.param_groups(model, lr=0.02, weight_decay=0.1, layer_decay=0.8), momentum=0.9
    ),
    "fused custom momentum": lambda model: torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, fused=True),
}
CUTS = [(optimizer, "a block an epoch", batch) for optimizer in OPTIMIZERS for batch in (4, 6, 10)]
CUTS += [("adamw by name", plan, batch) for plan in ("names", "without the head") for batch in (4, 8)]


@pytest.mark.parametrize(("optimizer", "plan", "batch"), CUTS)
def test_a_run_cut_anywhere_continues_as_if_it_had_not_been(optimizer, plan, batch, tmp_path):
    class Stop(Callback):
        seen = 0

        def on_batch_end(self, state):
            self.seen += 1
            if self.seen == batch:
                state.request_stop("stop")

    def command(where, *extra, frozen):
        model = models.freeze(network()) if frozen else network()
        chosen = OPTIMIZERS[optimizer](model)
        result = fit(
            made(plan), *extra, Checkpoint(tmp_path / where), model=model, optimizer=chosen, schedule="cosine",
            resume=True,
        )  # fmt: skip
        return result, model

    whole, expected = command("a", frozen=False)
    assert command("b", Stop(), frozen=True)[0].stop_reason == "stop"
    again, found = command("b", frozen=batch % 2 == 0)
    assert again.history == whole.history
    assert again.stop_reason == "finished"
    for key, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[key], value), key


def test_it_goes_with_averaged_weights(tmp_path):
    class Stop(Callback):
        def on_batch_end(self, state):
            if state.step == 5:
                state.request_stop("stop")

    whole = fit(GradualUnfreezing(), EMA(0.9), Checkpoint(tmp_path / "a"))
    fit(GradualUnfreezing(), EMA(0.9), Stop(), Checkpoint(tmp_path / "b"))
    again = fit(GradualUnfreezing(), EMA(0.9), Checkpoint(tmp_path / "b"), resume=True)
    assert again.history == whole.history
    assert all(torch.equal(a, b) for a, b in zip(again.model.state_dict().values(), whole.model.state_dict().values()))


def test_momentum_that_begins_later_is_that_of_the_plain_kernel():
    fused, plain = network(), network()
    for model, fast in ((fused, True), (plain, False)):
        fit(GradualUnfreezing(), model=model, optimizer=torch.optim.SGD(model.parameters(), 0.05, 0.9, fused=fast))
    for one, other in zip(fused.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_until_it_is_unfrozen_an_optimizer_keeps_nothing_of_a_parameter():
    sizes = []

    class Sizes(Callback):
        def on_epoch_end(self, state):
            sizes.append(len(state.optimizer.state))

    fit(GradualUnfreezing(), Sizes(), optimizer="momentum")
    assert sizes == [2, 6, 10, 14]


@pytest.mark.parametrize("optimizer", ["adamw", "momentum", "nesterov"])
def test_a_callback_of_ones_own_that_unfreezes_is_trained_too(optimizer):
    class Mine(Callback):
        def on_epoch_start(self, state):
            if state.epoch == 2:
                models.unfreeze(state.model, "2")

    watch = Watch()
    fit(Mine(), watch, model=models.freeze(network()), optimizer=optimizer)
    assert watch.moved == ["5", "5", "25", "25"]


def test_an_optimizer_without_what_is_to_be_trained_is_refused():
    model = models.freeze(network())
    head = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    with pytest.raises(ArgumentError) as caught:
        fit(GradualUnfreezing({1: "2"}), model=model, optimizer=head)
    assert str(caught.value) == (
        "no optimizer holds all that GradualUnfreezing is to train\n"
        "  got: 4 parameters outside, e.g. 2.0.weight, 2.0.bias, 2.1.weight\n"
        "  expected: every parameter in an optimizer from the start; frozen ones are left alone until they are unfrozen\n"
        "  fix: give the optimizer by name, or build it over model.parameters() or cvkit.models.param_groups(model, …)"
    )


def test_names_that_the_model_does_not_have_end_the_run_before_it_starts():
    watch = Watch()
    with pytest.raises(UnknownNameError, match=r"unknown submodule of Sequential 'layer4'"):
        fit(GradualUnfreezing({3: "layer4"}), watch)
    with pytest.raises(UnknownNameError, match=r"unknown submodule of Sequential '9'"):
        fit(GradualUnfreezing(keep="9"), watch)
    with pytest.raises(ModelError, match="no head found"):
        fit(GradualUnfreezing(), watch, model=nn.Sequential(nn.Flatten(), nn.Linear(108, 2), nn.BatchNorm1d(2)))
    assert watch.moved == []


def test_another_plan_than_that_of_the_run_is_refused_by_its_difference(tmp_path):
    fit(GradualUnfreezing(every_epochs=2), Checkpoint(tmp_path), epochs=1)
    with pytest.raises(CheckpointError, match="got: GradualUnfreezing's every_epochs: 2 then, 1 now\n"):
        fit(GradualUnfreezing(), Checkpoint(tmp_path), resume=True)


def test_another_plan_is_refused_of_a_file_that_keeps_it_in_the_state_only():
    with pytest.raises(CheckpointError) as caught:
        GradualUnfreezing().load_state_dict(GradualUnfreezing(every_epochs=2).state_dict())
    assert str(caught.value) == (
        "the run that is continued unfroze its model by another plan\n"
        "  got: every_epochs=2 then, 1 now\n"
        "  expected: the same plan: the weights would be those of neither run\n"
        "  fix: give GradualUnfreezing what it had, or start a new run in another directory"
    )


def test_a_plan_that_the_run_is_too_short_for_is_noticed():
    with pytest.warns(CvkitWarning, match="a run of 4 epochs never trains what is planned for after epoch 4, 9"):
        fit(GradualUnfreezing({1: "2", 4: "1", 9: "all"}))


@pytest.mark.parametrize("arguments", [{"plan": ["2"]}, {"plan": {1: "2"}, "every_epochs": 1}])
def test_plans_that_are_none_are_refused(arguments):
    with pytest.raises(ArgumentError, match=r"^GradualUnfreezing cannot use this plan\n  got: plan="):
        GradualUnfreezing(**arguments)


@pytest.mark.parametrize(
    ("arguments", "label", "least"),
    [
        ({"plan": {-1: "2"}}, "plan's epoch", 0),
        ({"plan": {"2": 1}}, "plan's epoch", 0),
        ({"every_epochs": 0}, "every_epochs", 1),
        ({"every_epochs": True}, "every_epochs", 1),
    ],
)
def test_epochs_that_are_none_are_refused(arguments, label, least):
    with pytest.raises(ArgumentError, match=f"^GradualUnfreezing: {label} cannot be used\n(.|\n)*of {least} or more"):
        GradualUnfreezing(**arguments)
