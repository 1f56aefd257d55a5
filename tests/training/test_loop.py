"""``fit`` against the loop that a good engineer writes by hand."""

import functools

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, AdamW, lr_scheduler
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset, TensorDataset

from cvkit import seeding
from cvkit.errors import CvkitWarning
from cvkit.metrics import Accuracy
from cvkit.training import Callback, Runtime, evaluate, fit
from cvkit.training.optimizers import optimizers
from cvkit.training.schedules import schedules


def samples(count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(
        torch.randn(count, 1, 8, 8, generator=generator), torch.randint(0, 5, (count,), generator=generator)
    )


TRAIN, VAL = samples(43), samples(21, seed=2)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(144, 5)
    )


def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 5))


def weights(model):
    return list(model.state_dict().values())


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


def by_hand(model, train, val, epochs, optimizer, schedule=None, seed=5):
    """The loop; returns its losses and accuracies an epoch."""
    torch.manual_seed(seed)
    optimizer = optimizer(list(model.parameters()))
    schedule = schedule(optimizer, epochs * len(train)) if schedule else None
    rows = []
    for _ in range(epochs):
        row = {}
        for name, loader in (("train", train), ("val", val)):
            model.train(name == "train")
            total, right, count = 0.0, 0, 0
            with torch.set_grad_enabled(name == "train"):
                for inputs, targets in loader:
                    outputs = model(inputs)
                    loss = F.cross_entropy(outputs, targets)
                    if name == "train":
                        optimizer.zero_grad()
                        loss.backward()
                        optimizer.step()
                        if schedule:
                            schedule.step()
                    total += loss.item() * len(targets)
                    right += int((outputs.argmax(1) == targets).sum())
                    count += len(targets)
            row |= {f"{name}_loss": total / count, f"{name}_accuracy": right / count}
        rows.append(row)
    return rows, torch.get_rng_state()


OPTIMIZERS = {
    "momentum": functools.partial(SGD, lr=0.05, momentum=0.9),
    "adamw": functools.partial(AdamW, lr=1e-2, fused=True),
}
SCHEDULES = {
    "none": None,
    "onecycle": lambda optimizer, total: lr_scheduler.OneCycleLR(optimizer, max_lr=0.02, total_steps=total),
}


class Noisy(Dataset):
    """Draws from the global generator in the main process, as augmentation does."""

    def __len__(self):
        return 43

    def __getitem__(self, index):
        image, target = TRAIN[index]
        return image + torch.randn(()), target


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_weights_are_bitwise_those_of_the_loop_by_hand(optimizer, schedule):
    train, val = DataLoader(TRAIN, 8, shuffle=True), DataLoader(VAL, 8)
    hand, ours = network(), network()
    rows, random = by_hand(hand, train, val, 3, OPTIMIZERS[optimizer], SCHEDULES[schedule])
    torch.manual_seed(5)
    result = fit(
        ours, train, val, epochs=3, optimizer=OPTIMIZERS[optimizer], schedule=SCHEDULES[schedule], progress=False
    )
    assert same(hand, ours)
    assert torch.equal(torch.get_rng_state(), random)
    assert [{name: row[name] for name in rows[0]} for row in result.history] == rows
    assert (result.epochs, result.steps, result.stop_reason) == (3, 18, "finished")


@pytest.mark.parametrize("preflight", [True, False])
@pytest.mark.parametrize("workers", [0, 2])
def test_augmentation_workers_and_a_generator_of_the_loaders_own_change_nothing(workers, preflight):
    def loaders():
        generator = torch.Generator().manual_seed(3) if workers else None
        return DataLoader(Noisy(), 8, shuffle=True, num_workers=workers, generator=generator), DataLoader(VAL, 8)

    hand, ours = network(), network()
    by_hand(hand, *loaders(), 2, OPTIMIZERS["momentum"])
    torch.manual_seed(5)
    fit(ours, *loaders(), epochs=2, optimizer=OPTIMIZERS["momentum"], progress=False, preflight=preflight)
    assert same(hand, ours)


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adam", "adamw", "adagrad", "rmsprop"])
def test_optimizers_by_name_are_torchs_fused_ones(name):
    references = {
        "sgd": functools.partial(SGD, fused=True),
        "momentum": functools.partial(SGD, momentum=0.9, fused=True),
        "nesterov": functools.partial(SGD, momentum=0.9, nesterov=True, fused=True),
        "adam": functools.partial(torch.optim.Adam, fused=True),
        "adamw": functools.partial(AdamW, fused=True),
        "adagrad": functools.partial(torch.optim.Adagrad, fused=True),
        "rmsprop": torch.optim.RMSprop,
    }
    assert set(references) | {"muon"} == set(optimizers)  # it has tests of its own
    train = DataLoader(TRAIN, 8)
    hand, ours = plain(), plain()
    by_hand(hand, train, DataLoader(VAL, 8), 1, lambda params: references[name](params, lr=0.01))
    fit(ours, train, epochs=1, optimizer=name, lr=0.01, progress=False)
    assert same(hand, ours)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("cosine", lambda o, t: lr_scheduler.CosineAnnealingLR(o, t)),
        ("onecycle", lambda o, t: lr_scheduler.OneCycleLR(o, max_lr=0.01, total_steps=t)),
        ("poly", lambda o, t: lr_scheduler.PolynomialLR(o, t, power=0.9)),
        ("step", lambda o, t: lr_scheduler.StepLR(o, -(-t // 3), gamma=0.1)),
        ("linear", lambda o, t: lr_scheduler.LinearLR(o, 1.0, 0.0, total_iters=t)),
    ],
)
def test_schedules_by_name_are_torchs_stepped_at_each_update(name, reference):
    train = DataLoader(TRAIN, 8)
    hand, ours = plain(), plain()
    by_hand(hand, train, DataLoader(VAL, 8), 2, functools.partial(SGD, lr=0.01, fused=True), reference)
    fit(ours, train, epochs=2, optimizer="sgd", lr=0.01, schedule=name, progress=False)
    assert same(hand, ours)


@pytest.mark.parametrize("optimizer", list(optimizers))
@pytest.mark.parametrize("schedule", list(schedules))
def test_every_schedule_goes_with_every_optimizer(optimizer, schedule):
    rates = []

    class Rates(Callback):
        def on_batch_end(self, state):
            rates.append(state.lr)

    train = DataLoader(TRAIN, 8)
    fit(plain(), train, epochs=2, optimizer=optimizer, schedule=schedule, lr=0.01, callbacks=[Rates()], progress=False)
    assert len(set(rates)) > 1
    assert max(rates) <= 0.01 + 1e-12


def test_without_a_seed_nothing_is_drawn_before_the_loop_and_with_one_the_run_repeats():
    seen = []

    def step(model, batch, state):
        seen.append(seeding.capture())
        return F.cross_entropy(model(batch[0]), batch[1])

    batches = [next(iter(DataLoader(TRAIN, 8)))]
    model = plain()
    before = seeding.capture()
    fit(model, batches, epochs=1, step=step, progress=False, preflight=False)
    assert torch.equal(seen[0]["torch"], before["torch"])
    assert seen[0]["python"] == before["python"]
    assert torch.equal(seen[0]["numpy"][1], before["numpy"][1])

    one, two = network(), network()
    train = DataLoader(TRAIN, 8, shuffle=True)
    for model in (one, two):
        fit(model, train, epochs=2, seed=11, progress=False)
    assert same(one, two)


CLASS_WEIGHTS = torch.tensor([1.0, 2.0, 3.0, 0.5, 0.1])


@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(reduction="sum"),
        nn.CrossEntropyLoss(weight=CLASS_WEIGHTS),
        nn.CrossEntropyLoss(weight=CLASS_WEIGHTS, reduction="sum"),
        nn.CrossEntropyLoss(ignore_index=2),
        functools.partial(F.cross_entropy, ignore_index=2),
        lambda outputs, targets: F.cross_entropy(outputs, targets),
    ],
    ids=["mean", "sum", "class weights", "class weights, sum", "ignore_index", "partial", "a callable"],
)
def test_accumulate_is_one_larger_batch_also_when_the_last_group_is_short(loss, clip_norm):
    one, four = plain(), plain()
    options = {"epochs": 3, "loss": loss, "optimizer": functools.partial(SGD, lr=0.01, momentum=0.9), "progress": False}
    large = fit(one, DataLoader(TRAIN, 24), clip_norm=clip_norm, **options)
    small = fit(four, DataLoader(TRAIN, 6), clip_norm=clip_norm, accumulate=4, **options)
    assert large.steps == small.steps == 6
    for a, b in zip(weights(one), weights(four), strict=True):
        assert float((a - b).abs().max() / a.abs().max()) <= 1e-6


def test_clip_norm_acts_on_unscaled_gradients_once_an_update():
    norms = []

    class Look:
        def on_gradients_ready(self, state):
            norms.append(float(torch.nn.utils.get_total_norm([p.grad for p in state.model.parameters()])))

    fit(plain(), DataLoader(TRAIN, 8), epochs=1, precision="fp16", progress=False, callbacks=[Look()], clip_norm=1.0)
    fit(plain(), DataLoader(TRAIN, 8), epochs=1, progress=False, callbacks=[Look()], clip_norm=1.0)
    assert len(norms) == 12
    assert norms[:6] == pytest.approx(norms[6:], rel=0.02)  # the loss scale, 65536, is off by then


class Reads(TorchDispatchMode):
    """Counts what would wait for a device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        aten = torch.ops.aten
        self.count += function in (aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default)
        chosen = args[1] if function is aten.index.Tensor else ()  # by a mask: how many are chosen is on the device
        self.count += any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in chosen)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize(
    "loss", ["cross_entropy", nn.CrossEntropyLoss(weight=CLASS_WEIGHTS, ignore_index=2, label_smoothing=0.1)]
)
def test_no_step_reads_from_the_device(monkeypatch, loss, accumulate):
    lists = []
    original = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: lists.append(1) or original(self))
    reads = Reads()
    inside = []

    class Count:
        def on_epoch_start(self, state):
            inside.append((reads.count, len(lists)))

        def on_batch_end(self, state):
            inside.append((reads.count, len(lists)))

    batches = list(DataLoader(TRAIN, 8)) * 30
    with reads:
        options = {"callbacks": [Count()], "clip_norm": 1.0, "optimizer": "sgd", "loss": loss, "accumulate": accumulate}
        fit(plain(), batches, epochs=1, progress=False, **options)
    scalars, blocks = inside[-1][0] - inside[0][0], inside[-1][1] - inside[0][1]
    assert scalars == 0
    assert blocks <= (3 if loss == "cross_entropy" else 4) * len(batches) / 64


def test_a_loss_that_is_not_finite_is_reported_with_its_place_and_the_run_goes_on():
    batches = [(inputs.clone(), targets) for inputs, targets in DataLoader(TRAIN, 8)]
    batches[3][0][0] = torch.nan
    finite = []

    class Look:
        def on_epoch_end(self, state):
            finite.append(state.finite)

    with pytest.warns(CvkitWarning) as said:
        result = fit(plain(), batches, epochs=5, progress=False, callbacks=[Look()])
    assert [str(one.message) for one in said] == [
        "the training loss is not finite in epoch 1, batch 4 (step 4). This is said once a run; an epoch with such a loss is not "
        "saved as best. The callback StopOnNaN() ends the run there and says where it comes from; try a lower lr, clip_norm=1.0 "
        "or precision='fp32', and look for NaN in the data"
    ]
    assert finite == [False] * 5
    assert result.steps == 30


def test_a_step_of_ones_own_covers_autoencoders_several_inputs_and_dict_batches():
    auto = nn.Linear(64, 64)
    result = fit(
        auto,
        DataLoader(TRAIN, 8),
        epochs=1,
        progress=False,
        step=lambda model, batch, state: F.mse_loss(model(batch[0].flatten(1)), batch[0].flatten(1)),
    )
    assert list(result.history[0]) == ["epoch", "step", "train_loss", "lr"]

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(128, 5)

        def forward(self, a, b):
            return self.head(torch.cat([a.flatten(1), b.flatten(1)], 1))

    def step(model, batch, state):
        outputs = model(batch["a"], batch["b"])
        return state.loss_fn(outputs, batch["y"]), outputs, batch["y"]

    batches = [{"a": x, "b": -x, "y": y} for x, y in DataLoader(TRAIN, 8)]
    result = fit(Two(), batches, batches, epochs=2, step=step, metrics=["accuracy"], progress=False)
    counted = Accuracy()
    for batch in batches:
        counted.update(result.model(batch["a"], batch["b"]), batch["y"])
    assert result.history[-1]["val_accuracy"] == counted.compute()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_with_weights_in_fp32(precision):
    model = plain()
    result = fit(model, DataLoader(TRAIN, 8), epochs=8, lr=1e-2, precision=precision, progress=False)
    assert result.history["train_loss"][-1] < result.history["train_loss"][0]
    assert {value.dtype for value in weights(model)} == {torch.float32}


def test_a_compiled_model_keeps_its_names(monkeypatch):
    compiled = []
    original = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda model, **how: compiled.append(model) or original(model, backend="eager", **how)
    )
    hand, ours = plain(), plain()
    by_hand(hand, DataLoader(TRAIN, 8), DataLoader(VAL, 8), 1, OPTIMIZERS["momentum"])
    result = fit(ours, DataLoader(TRAIN, 8), epochs=1, optimizer=OPTIMIZERS["momentum"], compile=True, progress=False)
    assert compiled == [ours]
    assert result.model is ours
    assert list(ours.state_dict()) == list(hand.state_dict())
    assert same(hand, ours)


def test_a_wrapped_model_is_trained_and_returned_unwrapped():
    inner = plain()
    assert fit(torch.compile(inner), DataLoader(TRAIN, 8), epochs=1, progress=False).model is inner


def test_what_is_frozen_keeps_its_batch_norm_statistics():
    model = network()
    model[1].requires_grad_(False)
    model[1].cvkit_frozen = True
    before = model[1].running_mean.clone()
    fit(model, DataLoader(TRAIN, 8), DataLoader(VAL, 8), epochs=2, progress=False)
    assert torch.equal(model[1].running_mean, before)


def test_evaluate_gives_the_numbers_that_fit_logs_and_leaves_the_mode():
    model = network()
    result = fit(model, DataLoader(TRAIN, 8), DataLoader(VAL, 8), epochs=1, progress=False)
    model.train()
    values = evaluate(model, DataLoader(VAL, 8))
    assert values == {name: result.history[0][f"val_{name}"] for name in ("loss", "accuracy")}
    assert model.training
    assert model[1].training


def test_a_loader_that_gives_fewer_batches_than_it_says_is_noticed_and_its_last_group_updated():
    class Short(list):
        def __len__(self):
            return 9

    with pytest.warns(CvkitWarning, match="train says that it has 9 batches and gave 6 in epoch 1"):
        result = fit(plain(), Short(DataLoader(TRAIN, 8)), epochs=1, accumulate=4, progress=False)
    assert result.steps == 2


def test_compiling_goes_on_beyond_torchs_eight_graphs(monkeypatch):
    config = torch._dynamo.config
    monkeypatch.setattr(config, "recompile_limit", 8)
    monkeypatch.setattr(config, "accumulated_recompile_limit", 64)
    Runtime("cpu", compile=True).prepare(plain())
    # beyond it torch runs without compiling, later in a continued run than in an undisturbed one
    assert config.recompile_limit >= 256
    assert config.accumulated_recompile_limit >= config.recompile_limit
