"""A run that differs from the one that it continues is refused, with all that differs; the same script never is."""

import functools
import os
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, lr_scheduler
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

import cvkit
from cvkit.callbacks import (
    EMA,
    Checkpoint,
    CSVLogger,
    EarlyStopping,
    GradualUnfreezing,
    LRSchedule,
    StopOnNaN,
    TensorBoard,
)
from cvkit.data import ArrayDataset, FolderDataset, Loader, write_shapes
from cvkit.errors import CheckpointError
from cvkit.training import Callback, fit, load_checkpoint, save_checkpoint
from cvkit.transforms import small_image_eval

CE = nn.functional.cross_entropy


def tensors(count=18, seed=3):
    made = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(count, 4, generator=made), torch.randint(0, 3, (count,), generator=made))


def batches(count=18, seed=3, **options):
    return DataLoader(tensors(count, seed), batch_size=4, **options)


class Labelled(Dataset):
    """Says its labels and classes, and has a transform, as torchvision's datasets."""

    def __init__(self, count=18, relabelled=(), classes=("a", "b", "c"), transform=None):
        self.targets = [(i % 3 + (i in relabelled)) % 3 for i in range(count)]
        self.classes = list(classes)
        self.transform = transform

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        sample = torch.full((4,), index / 18)
        return self.transform(sample) if self.transform else sample, self.targets[index]


def labelled(batch_size=4, **options):
    return DataLoader(Labelled(**options), batch_size=batch_size)


class Net(nn.Module):
    """A network of a user's own."""

    def __init__(self, activation=nn.ReLU, dropout=0.0, extra=False):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), activation(), nn.Dropout(dropout), nn.Linear(8, 3))
        if extra:
            self.extra = nn.Dropout(0.5)

    def forward(self, inputs):
        return self.body(inputs)


def frozen():
    model = Net()
    model.body[0].requires_grad_(False)
    return model


def groups(lr=0.05, first=0.05, decay=0.0):
    def build(parameters):
        return SGD([{"params": parameters[:2], "lr": first, "weight_decay": decay}, {"params": parameters[2:]}], lr=lr)

    return build


def run(directory, *callbacks, model=None, train=None, val=None, monitor="train_loss", **options):
    """Runs a script that takes one thing or another."""
    options = {"epochs": 1, "resume": True, "device": "cpu", "progress": False, "preflight": False} | options
    torch.manual_seed(0)
    callbacks = [*callbacks, Checkpoint(directory, monitor=monitor)]
    return fit(model or Net(), train or batches(), val, callbacks=callbacks, **options)


def own_step(model, batch, state):
    return CE(model(batch[0]), batch[1])


def scheduled(*callbacks, make=lambda o: lr_scheduler.StepLR(o, 2), lr=0.1, **options):
    """Arguments of a run with a scheduler in a callback."""
    model = Net()
    optimizer = SGD(model.parameters(), lr=lr)
    return {"model": model, "optimizer": optimizer, "callbacks": (LRSchedule(make(optimizer)), *callbacks), **options}


def smoothed(amount, outputs, targets):
    return CE(outputs, targets, label_smoothing=amount)


def power(base):
    return lambda step: base**step


def lambda_lr(base):
    return lambda optimizer, total: lr_scheduler.LambdaLR(optimizer, power(base))


def with_loader(**change):
    def make():
        options = {"count": 12, "batch_size": 4, "transform": None, "shuffle": True, "seed": 3} | change
        count = options.pop("count")
        images = np.arange(count * 8 * 8 * 3, dtype=np.uint8).reshape(count, 8, 8, 3)
        data = Loader(ArrayDataset(images, np.arange(count) % 3), **options)
        return {"train": data, "model": nn.Sequential(nn.Flatten(), nn.Linear(192, 3))}

    return make


CHANGES = {
    # what is learned from, and how
    "more validation samples": (
        {"val": batches()},
        {"val": batches(22)},
        "val batches: 5 then, 6 now; val samples: 18 then, 22 now",
        "val",
    ),
    "no validation": ({"val": batches()}, {}, "val data given: yes then, no now", "val"),
    "validation labels": (
        {"val": labelled()},
        {"val": labelled(relabelled=[3])},
        r"val labels: int64 \(18,\) \w+ then, int64 \(18,\) \w+ now",
        "val",
    ),
    "the classes": (
        {"train": labelled()},
        {"train": labelled(classes="xyz")},
        r"classes: \['a', 'b', 'c'\] then, \['x', 'y', 'z'\] now",
        "data",
    ),
    "the choice of samples": (
        {"train": DataLoader(Subset(tensors(), [0, 1, 2, 3]), batch_size=2)},
        {"train": DataLoader(Subset(tensors(), [0, 1, 2, 4]), batch_size=2)},
        r"choice of samples: \[\[0, 1, 2, 3\]\] then, \[\[0, 1, 2, 4\]\] now",
        "data",
    ),
    "the sampler": (
        {"train": batches()},
        {"train": batches(shuffle=True)},
        "sampler: SequentialSampler then, RandomSampler now",
        "data",
    ),
    "drop_last": (
        {"train": batches(16)},
        {"train": batches(16, drop_last=True)},
        "drop_last: False then, True now",
        "data",
    ),
    "a transform in a dataset": (
        {"train": labelled(transform=lambda x: x * 2)},
        {"train": labelled(transform=lambda x: x * 3)},
        "the transform's code has changed",
        "transform",
    ),
    "a transform in a validation dataset": (
        {"val": labelled(transform=torch.neg)},
        {"val": labelled(transform=torch.abs)},
        "val transform: neg then, abs now",
        "transform",
    ),
    "the weights of samples": (
        with_loader(weights=[1.0] * 12),
        with_loader(weights=[1.0] * 11 + [2.0]),
        r"weights: \[1.0, .*\] then, \[1.0, .* 2.0\] now",
        "data",
    ),
    "shuffle": (with_loader(), with_loader(shuffle=False), "shuffle: True then, False now", "data"),
    "the loader's seed": (with_loader(), with_loader(seed=4), "loader seed: 3 then, 4 now", "data"),
    "the loss's smoothing": (
        {"loss": nn.CrossEntropyLoss()},
        {"loss": nn.CrossEntropyLoss(label_smoothing=0.1)},
        "the loss's label_smoothing: 0.0 then, 0.1 now",
        "loss",
    ),
    "class weights": (
        {"loss": nn.CrossEntropyLoss(torch.tensor([1.0, 1.0, 1.0]))},
        {"loss": nn.CrossEntropyLoss(torch.tensor([1.0, 1.0, 2.0]))},
        r"the loss's weight: \[1.0, 1.0, 1.0\] then, \[1.0, 1.0, 2.0\] now",
        "loss",
    ),
    "a loss's argument": (
        {"loss": functools.partial(smoothed, 0.1)},
        {"loss": functools.partial(smoothed, 0.2)},
        r"the loss's \[0\]: 0.1 then, 0.2 now",
        "loss",
    ),
    "a loss's code": (
        {"loss": lambda o, t: CE(o, t) * 2},
        {"loss": lambda o, t: CE(o, t) * 3},
        "the loss's code has changed",
        "loss",
    ),
    # the updates
    "a group's lr": (
        {"optimizer": groups()},
        {"optimizer": groups(first=0.01)},
        "SGD's lr by group: 0.05 then, 0.01, 0.05 now",
        "lr",
    ),
    "a group's weight decay": (
        {"optimizer": groups()},
        {"optimizer": groups(decay=0.1)},
        "SGD's weight_decay by group: 0.0 then, 0.1, 0.0 now",
        "weight_decay",
    ),
    "the lr": ({"lr": 0.1}, {"lr": 0.01}, "AdamW's lr: 0.1 then, 0.01 now", "lr"),
    "the parameter groups": (
        {"optimizer": groups()},
        {"optimizer": lambda p: SGD(p, lr=0.05)},
        "parameter groups: 2, 2 then, 4 now",
        "optimizer",
    ),
    "gamma": (
        {"schedule": lambda o, total: lr_scheduler.StepLR(o, 5, gamma=0.5)},
        {"schedule": lambda o, total: lr_scheduler.StepLR(o, 5, gamma=0.1)},
        "the schedule's gamma: 0.5 then, 0.1 now; the schedule factory's code has changed",
        "schedule",
    ),
    "a schedule's function": (
        {"schedule": lambda_lr(0.9)},
        {"schedule": lambda_lr(0.8)},
        r"the schedule's lr_lambdas\[0\].base: 0.9 then, 0.8 now; the schedule factory's base: 0.9 then, 0.8 now",
        "schedule",
    ),
    "a custom scheduler": (
        scheduled,
        functools.partial(scheduled, make=lambda o: lr_scheduler.StepLR(o, 3)),
        "LRSchedule's step_size: 2 then, 3 now",
        "schedule",
    ),
    "plateaus": (
        lambda: scheduled(make=lambda o: lr_scheduler.StepLR(o, 2)),
        lambda: scheduled() | {"callbacks": ()},
        "callbacks of the schedule: LRSchedule then, none now",
        "schedule",
    ),
    "precision": ({"precision": "fp32"}, {"precision": "bf16"}, "precision: fp32 then, bf16 now", "precision"),
    "a step": ({}, {"step": own_step, "metrics": "accuracy"}, "step: none then, own_step now", "step"),
    "clipping": ({}, {"clip_norm": 1.0}, "clip_norm: None then, 1.0 now", "clip_norm"),
    "accumulation": ({}, {"accumulate": 5}, "accumulate: 1 then, 5 now", "accumulate"),
    # the model
    "an activation": (
        {},
        {"model": Net(nn.GELU)},
        r"the layer body.1: ReLU\(\) then, GELU\(approximate='none'\) now",
        "model",
    ),
    "dropout": (
        {},
        {"model": Net(dropout=0.5)},
        r"the layer body.2: Dropout\(p=0.0, .*\) then, Dropout\(p=0.5, .*\) now",
        "model",
    ),
    "a layer without weights": ({}, {"model": Net(extra=True)}, r"layers: 5 \(\w+\) then, 6 \(\w+\) now", "model"),
    "frozen parameters": (
        {},
        {"model": frozen()},
        r"frozen parameters: \[\] then, \['body.0.weight', 'body.0.bias'\] now",
        "model",
    ),
    # callbacks, and what is logged
    "EMA": ({}, {"callbacks": (EMA(),)}, "callbacks: none then, EMA now", "callbacks"),
    "the decay of EMA": (
        {"callbacks": (EMA(0.9),)},
        {"callbacks": (EMA(0.8),)},
        "EMA's decay: 0.9 then, 0.8 now",
        "callbacks",
    ),
    "patience": (
        {"callbacks": (EarlyStopping("train_loss"),)},
        {"callbacks": (EarlyStopping("train_loss", patience=9),)},
        "EarlyStopping's patience: 3 then, 9 now",
        "callbacks",
    ),
    "a plan of unfreezing": (
        {"callbacks": (GradualUnfreezing({1: "all"}, keep="body.3"),)},
        {"callbacks": (GradualUnfreezing({2: "all"}, keep="body.3"),), "epochs": 3},
        r"GradualUnfreezing's plan: \{'1': \['all'\]\} then, \{'2': \['all'\]\} now",
        "callbacks",
    ),
    "metrics": ({}, {"metrics": []}, "metrics: accuracy then, none now", "metrics"),
    "a metric's option": (
        {"metrics": cvkit.metrics.Accuracy()},
        {"metrics": cvkit.metrics.Accuracy(ignore_index=2)},
        "the metric accuracy's ignore_index: None then, 2 now",
        "metrics",
    ),
    "the monitor": (
        {},
        {"monitor": "train_accuracy"},
        "Checkpoint's monitor: train_loss then, train_accuracy now",
        "callbacks",
    ),
}


def arguments(given):
    given = dict(given() if callable(given) else given)
    return given.pop("callbacks", ()), given


@pytest.mark.parametrize(("before", "after", "said", "part"), CHANGES.values(), ids=CHANGES)
@pytest.mark.filterwarnings("ignore:GradualUnfreezing")
def test_a_change_is_refused_with_the_difference_and_what_would_allow_it(tmp_path, before, after, said, part):
    callbacks, options = arguments(before)
    run(tmp_path, *callbacks, **options)
    callbacks, options = arguments(after)
    with pytest.raises(CheckpointError) as caught:
        run(tmp_path, *callbacks, **options)
    start, _, rest = str(caught.value).partition("\n  got: ")
    assert start == f"the run in {tmp_path / 'last.pt'} is another one than this"
    got, _, rest = rest.partition("\n  expected: ")
    assert re.fullmatch(said, got), got
    assert f"pass override=({part!r},); or start a new run in another directory" in rest


def test_files_of_a_folder_and_how_they_are_decoded_are_compared(tmp_path):
    root = write_shapes(tmp_path / "data", 4, 8)

    def go(**options):
        data = FolderDataset(root, **options)
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
        load = functools.partial(Loader, data, 4, transform=small_image_eval(8), cache=None)
        return run(tmp_path / "run", model=model, train=load(), val=load())

    go()
    assert go(on_error="skip").epochs == 1
    for options, said in [
        ({"background": (0, 0, 0)}, "background: [255, 255, 255] then, [0, 0, 0] now"),
        ({"max_pixels": 100}, "max_pixels: 89478485 then, 100 now"),
    ]:
        with pytest.raises(CheckpointError, match=re.escape(f"got: {said}; val {said}\n")) as caught:
            go(**options)
        assert "override=('data', 'val')" in str(caught.value)
    old = root / "circle" / "0001.png"
    old.rename(old.with_name("other.png"))
    with pytest.raises(CheckpointError, match=r"got: data: other files, labels or classes.*; val data: other files"):
        go()


def test_the_hash_of_a_dataset_in_a_loader_that_has_none_is_compared(tmp_path):
    def go(name):
        train = labelled()
        train.dataset.fingerprint = name
        return run(tmp_path, train=train)

    go("1f2e")
    with pytest.raises(CheckpointError, match="got: files and labels: other names, labels or classes\n"):
        go("3d4c")


def test_all_differences_are_told_at_once(tmp_path):
    run(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        run(tmp_path, EMA(), loss=nn.CrossEntropyLoss(label_smoothing=0.1), clip_norm=1.0, lr=0.5)
    assert "got: clip_norm: None then, 1.0 now; AdamW's lr: 0.001 then, 0.5 now; loss: cross_entropy then" in str(
        caught.value
    )
    assert "override=('clip_norm', 'loss', 'callbacks', 'lr')" in str(caught.value)


class Watches(Callback):
    """Only looks on."""

    def on_batch_end(self, state):
        self.step = state.step


SAFE = {
    "epochs": {"epochs": 3},
    "workers": {"train": batches(num_workers=1, multiprocessing_context="fork")},
    "progress": {"progress": True},
    "deterministic": {"deterministic": True},
    "preflight": {"preflight": True},
    "precision asked for by name": {"precision": "fp32"},
    "a callback that looks on": {"callbacks": (Watches(), StopOnNaN())},
    "the same by other means": {"loss": "cross_entropy", "optimizer": "adamw", "lr": 1e-3, "metrics": "accuracy"},
}


@pytest.mark.parametrize("change", SAFE.values(), ids=SAFE)
def test_what_is_safe_may_change(tmp_path, change):
    run(tmp_path)
    callbacks, options = arguments(change)
    epochs = options.pop("epochs", 2)
    assert run(tmp_path, *callbacks, epochs=epochs, **options).epochs == epochs


def test_observers_and_how_often_is_saved_may_change(tmp_path):
    run(tmp_path)
    more = [CSVLogger(tmp_path / "log.csv"), TensorBoard(tmp_path / "events")]
    checkpoint = Checkpoint(tmp_path, monitor="train_loss", every_steps=2, keep_last=2, background=True)
    options = {"epochs": 2, "resume": True, "device": "cpu", "progress": False}
    assert fit(Net(), batches(), callbacks=[*more, checkpoint], **options).epochs == 2


@pytest.mark.slow
def test_compile_may_change(tmp_path):
    run(tmp_path)
    assert run(tmp_path, epochs=2, compile=True).epochs == 2


@pytest.mark.parametrize(("asked", "resolved"), [("auto", "fp32"), ("auto", "bf16")])
def test_precision_auto_may_come_to_another_on_another_device(tmp_path, monkeypatch, asked, resolved):
    from cvkit.training import runtime

    run(tmp_path, precision=asked)
    monkeypatch.setattr(runtime, "_find_precision", lambda asked, device: resolved)
    assert run(tmp_path, precision=asked, epochs=2).epochs == 2


def test_a_longer_run_may_plan_its_schedule_by_its_length(tmp_path):
    def factory(epochs):
        return lambda optimizer, total: lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=5 * epochs)

    run(tmp_path, schedule=factory(1))
    with pytest.warns(cvkit.errors.CvkitWarning, match="its learning-rate schedule is recomputed for the new length"):
        assert run(tmp_path, schedule=factory(2), epochs=2).epochs == 2


def test_a_file_of_an_older_version_is_compared_by_what_it_holds(tmp_path):
    run(tmp_path)
    content = load_checkpoint(tmp_path / "last.pt")
    old = ("loss", "clip_norm", "processes", "optimizer", "AdamW's lr", "AdamW's weight_decay", "schedule")
    training = content["training"]
    training["settings"] = {name: training["settings"][name] for name in old}
    del training["overridden"], training["schedule_offset"]
    save_checkpoint(tmp_path / "last.pt", content)
    changed = {"metrics": [], "model": Net(dropout=0.1)}
    with pytest.raises(CheckpointError, match=r"got: AdamW's lr: 0\.001 then, 0\.1 now\n"):
        run(tmp_path, epochs=2, lr=0.1, **changed)
    assert run(tmp_path, epochs=2, **changed).epochs == 2


def test_code_for_another_python_is_not_compared(tmp_path):
    run(tmp_path, loss=lambda o, t: CE(o, t))
    content = load_checkpoint(tmp_path / "last.pt")
    settings = content["training"]["settings"]
    settings["the loss's code"] = settings["the loss's code"].replace("cpython-", "cpython-9")
    save_checkpoint(tmp_path / "last.pt", content)
    assert run(tmp_path, loss=lambda o, t: CE(o, t) + 1, epochs=2).epochs == 2


# --- the same script again


class Counting:
    """A loss that counts in a plain attribute, and in one of its own."""

    def __init__(self):
        self.calls = 0

    def __call__(self, outputs, targets):
        self.calls += 1
        return CE(outputs, targets)


class Adapting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.scale = nn.Parameter(torch.rand(()))

    def forward(self, outputs, targets):
        if torch.is_grad_enabled():
            self.seen += 1
        return CE(outputs * self.scale, targets)


class Sums:
    """A metric that keeps its sums in the open."""

    name = "sums"

    def __init__(self):
        self.total, self.log = 0, []

    def update(self, outputs, targets):
        self.total += len(targets)
        self.log.append(len(targets))

    def compute(self):
        return self.total

    def reset(self):
        self.total = 0


def interrupt(at):
    def on_batch_end(state):
        if state.step == at:
            raise RuntimeError("the notebook's stop button")

    callback = Callback()
    callback.on_batch_end = on_batch_end
    return callback


@pytest.mark.parametrize("at", [3, 7])
@pytest.mark.filterwarnings(
    "ignore:the metric 'sums' has no state_dict", "ignore:CV602. the loss has trainable parameters"
)
def test_a_cell_that_is_run_again_with_the_same_objects_goes_on(tmp_path, at):
    model = Net()
    optimizer = SGD(model.parameters(), lr=0.1)
    loss, metric, stopping = [Counting(), Adapting()][at == 7], Sums(), EarlyStopping("train_loss")
    unfreezing = GradualUnfreezing({1: "all"}, keep="body.3")

    def cell(*callbacks):
        own = {"optimizer": optimizer, "schedule": "cosine", "loss": loss, "metrics": metric}
        callbacks = [*callbacks, stopping, unfreezing, Checkpoint(tmp_path, monitor=None, every_steps=1)]
        return fit(model, batches(), epochs=2, resume=True, device="cpu", progress=False, callbacks=callbacks, **own)

    with pytest.raises(RuntimeError, match="stop button"):
        cell(interrupt(at))
    assert cell().epochs == 2


def test_an_optimizer_that_is_used_again_with_a_new_scheduler_goes_on(tmp_path):
    model = Net()
    optimizer = SGD(model.parameters(), lr=0.1)

    def cell(*callbacks):
        warmup = LRSchedule(lr_scheduler.LinearLR(optimizer, 0.1, total_iters=8))
        callbacks = [*callbacks, warmup, Checkpoint(tmp_path, monitor=None, every_steps=1)]
        return fit(
            model,
            batches(),
            epochs=2,
            resume=True,
            optimizer=optimizer,
            device="cpu",
            progress=False,
            callbacks=callbacks,
        )

    with pytest.raises(RuntimeError, match="stop button"):
        cell(interrupt(3))
    assert cell().epochs == 2


def test_an_optimizer_whose_lr_was_set_between_two_runs_is_told(tmp_path):
    model = Net()
    optimizer = SGD(model.parameters(), lr=0.1)
    run(tmp_path, model=model, optimizer=optimizer)
    optimizer.param_groups[0]["lr"] = 0.01
    with pytest.raises(CheckpointError, match=r"got: SGD's lr by group: 0\.1 then, 0\.01 now\n"):
        run(tmp_path, model=model, optimizer=optimizer, epochs=2)


SCRIPT = """
import functools, sys
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import v2
from cvkit.callbacks import Checkpoint, EMA, EarlyStopping, LRSchedule
from cvkit.data import ArrayDataset, Loader
from cvkit.training import fit

directory, epochs, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


class Focal(nn.Module):
    def __init__(self, gamma):
        super().__init__()
        self.gamma = gamma
        self.register_buffer("alpha", torch.tensor([0.2, 0.3, 0.5]))
        self.register_buffer("seen", torch.zeros(()))
        self.scale = nn.Parameter(torch.rand(1))  # drawn anew in each process

    def forward(self, outputs, targets):
        self.seen += 1
        return nn.functional.cross_entropy(outputs, targets, self.alpha) * self.gamma


class Add:
    def __init__(self, amount):
        self.amount, self.file, self.helper = amount, __file__, object()

    def __call__(self, image):
        return image + self.amount


class Squares(Dataset):
    classes = ["a", "b", "c"]

    def __init__(self, transform):
        self.transform, self.cache, self.targets = transform, {}, [i % 3 for i in range(12)]

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return self.transform(torch.full((3, 8, 8), index / 12)), self.targets[index]


def power(base):
    return lambda step: base**step


def step(model, batch, state, loss=Focal(2.0)):
    outputs = model(batch[0])
    return loss(outputs, batch[1]), outputs, batch[1]


def build(width, optimizer, total):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, power(0.9))


def data(transform):
    context = "fork" if workers else None
    return DataLoader(Squares(transform), 4, shuffle=True, num_workers=workers, multiprocessing_context=context)


augment = v2.Compose([v2.Compose([v2.RandomHorizontalFlip(), v2.RandomApply([v2.RandomErasing()])]), v2.Lambda(lambda x: x), Add(1)])
model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3), nn.Dropout(0.1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
ways = {
    "factory": dict(optimizer=lambda p: torch.optim.AdamW(p, lr=0.01), schedule=functools.partial(build, 3), loss=Focal(1.0)),
    "step": dict(optimizer=optimizer, step=step, callbacks=(LRSchedule(build(3, optimizer, 0)),)),
    "lambda": dict(loss=lambda o, t: nn.functional.cross_entropy(o, t), schedule="onecycle"),
}
for name, way in ways.items():
    callbacks = [*way.pop("callbacks", ()), EMA(0.9), EarlyStopping(), Checkpoint(f"{directory}/{name}", every_steps=2)]
    result = fit(model, data(augment), data(transforms.Compose([Add(2)])), epochs=epochs, resume=True, device="cpu",
                 callbacks=callbacks, progress=False, **way)
    print(name, result.epochs)
"""


def test_the_same_script_in_another_process_directory_and_with_other_workers_goes_on(tmp_path):
    for number, (epochs, workers) in enumerate([(1, 0), (2, 1), (2, 0)]):
        place = tmp_path / f"checkout {number}"
        place.mkdir()
        (place / "script.py").write_text(textwrap.dedent(SCRIPT))
        command = [sys.executable, "-W", "ignore", "script.py", str(tmp_path / "runs"), str(epochs), str(workers)]
        environment = os.environ | {"PYTHONHASHSEED": str(number)}
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["factory", str(epochs), "step", str(epochs), "lambda", str(epochs)]


class Forward(nn.Linear):
    def forward(self, inputs):
        return super().forward(inputs) * 2


class Other(nn.Linear):
    def forward(self, inputs):
        return super().forward(inputs) * 3


Other.__name__ = "Forward"


class Addressed(nn.Linear):
    def extra_repr(self):
        return f"init={object()!r}"


def test_the_code_of_a_forward_of_ones_own_is_compared_and_addresses_are_not(tmp_path):
    run(tmp_path / "a", model=Forward(4, 3))
    assert run(tmp_path / "a", model=Forward(4, 3), epochs=2).epochs == 2
    with pytest.raises(CheckpointError, match=r"got: Forward\.forward's code has changed\n") as caught:
        run(tmp_path / "a", model=Other(4, 3), epochs=2)
    assert "override=('model',)" in str(caught.value)
    run(tmp_path / "b", model=Addressed(4, 3))
    assert run(tmp_path / "b", model=Addressed(4, 3), epochs=2).epochs == 2


def test_what_the_training_changes_is_state_and_not_compared(tmp_path):
    class Unfreezes(Callback):
        def on_epoch_start(self, state):
            state.model.requires_grad_(True)

    model = frozen()
    run(tmp_path, Unfreezes(), model=model)
    assert run(tmp_path, Unfreezes(), model=model, epochs=2).epochs == 2
    settings = load_checkpoint(tmp_path / "last.pt")["training"]["settings"]
    assert "the layer body.1" in settings
    assert "frozen parameters" in settings, "the second run began with none, and left it so"


def test_a_callback_that_says_what_must_match_is_compared(tmp_path):
    class Noise(Callback):
        def __init__(self, scale):
            self.scale = scale

        def must_match(self):
            return {"scale": self.scale}

    run(tmp_path, Noise(0.1))
    with pytest.raises(CheckpointError, match=r"got: Noise's scale: 0\.1 then, 0\.2 now\n"):
        run(tmp_path, Noise(0.2), epochs=2)
    with pytest.raises(CheckpointError, match="got: callbacks: Noise then, none now\n"):
        run(tmp_path, epochs=2)
    assert run(tmp_path, Noise(0.2), epochs=2, override=("callbacks",)).epochs == 2
