"""``fit(override=…)``: what it names takes the values of this call, and all else goes on as it was."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from cvkit.callbacks import EMA, Checkpoint, EarlyStopping, GradualUnfreezing, LRSchedule
from cvkit.errors import ArgumentError, CheckpointError, CvkitWarning, UnknownNameError
from cvkit.training import Callback, fit, load_checkpoint

CE = nn.functional.cross_entropy


def batches(size=4, count=16, seed=3):
    made = torch.Generator().manual_seed(seed)
    data = TensorDataset(torch.randn(count, 4, generator=made), torch.randint(0, 3, (count,), generator=made))
    return DataLoader(data, batch_size=size)


def network(dropout=0.0):
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3))


class Notes(Callback):
    """Notes what every step was made with."""

    def __init__(self, stop_at=None):
        self.stop_at = stop_at
        self.lr, self.decay, self.start, self.state = [], [], None, None

    def on_fit_start(self, state):
        self.state = state
        self.start = copy.deepcopy(list(state.optimizer.state.values()))

    def on_gradients_ready(self, state):
        self.lr.append(state.lr)
        self.decay.append(state.optimizer.param_groups[0]["weight_decay"])

    def on_batch_end(self, state):
        if state.step == self.stop_at:
            state.request_stop("stop")


def run(directory, *callbacks, stop_at=None, model=None, train=None, monitor=None, **options):
    """Runs, or continues; returns what was noted and the result."""
    options = {"epochs": 1, "resume": True, "device": "cpu", "progress": False, "preflight": False, "seed": 0} | options
    torch.manual_seed(0)
    notes = Notes(stop_at)
    callbacks = [*callbacks, notes, Checkpoint(directory, monitor=monitor)]
    result = fit(model or network(), train or batches(), callbacks=callbacks, **options)
    return notes, result


def weights(result):
    return torch.cat([p.detach().flatten() for p in result.model.parameters()])


def test_lr_takes_the_value_of_this_call_and_the_moments_stay(tmp_path):
    run(tmp_path, lr=0.1)
    saved = load_checkpoint(tmp_path / "last.pt")["training"]["optimizers"][0]["state"]
    notes, result = run(tmp_path, lr=0.01, epochs=2, override=("lr",))
    assert notes.lr == [0.01] * 4
    assert result.history["epoch"] == [1, 2]
    assert torch.equal(notes.start[0]["exp_avg"], saved[0]["exp_avg"])
    assert int(notes.start[0]["step"]) == 4


def test_the_next_resume_compares_with_the_new_values(tmp_path):
    run(tmp_path, lr=0.1)
    run(tmp_path, lr=0.01, epochs=2, override=("lr",))
    training = load_checkpoint(tmp_path / "last.pt")["training"]
    assert training["overridden"] == ["step 4: AdamW's lr: 0.1 then, 0.01 now"]
    assert run(tmp_path, lr=0.01, epochs=3)[0].lr == [0.01] * 4
    with pytest.raises(CheckpointError, match=r"got: AdamW's lr: 0\.01 then, 0\.1 now\n"):
        run(tmp_path, lr=0.1, epochs=4)
    assert load_checkpoint(tmp_path / "last.pt")["training"]["overridden"] == training["overridden"]


@pytest.mark.parametrize("schedule", [None, "cosine", "onecycle"])
def test_the_same_call_again_goes_on_bit_by_bit(tmp_path, schedule):
    options = {"epochs": 3, "schedule": schedule, "optimizer": "momentum"}
    changed = {"lr": 0.02, "override": ("lr", "momentum", "loss")}
    for name in "ab":
        run(tmp_path / name, stop_at=6, lr=0.1, **options)
    _, whole = run(tmp_path / "a", **options, **changed)
    run(tmp_path / "b", stop_at=9, **options, **changed)
    _, again = run(tmp_path / "b", **options, **changed)
    assert torch.equal(weights(whole), weights(again))
    assert whole.history.rows == again.history.rows


def test_an_override_that_nothing_needs_changes_nothing(tmp_path):
    names = (
        "lr",
        "weight_decay",
        "schedule",
        "loss",
        "transform",
        "data",
        "accumulate",
        "callbacks",
        "optimizer",
        "val",
    )
    for name in "ab":
        run(tmp_path / name, EMA(0.9), stop_at=6, schedule="cosine", epochs=3)
    _, plain = run(tmp_path / "a", EMA(0.9), schedule="cosine", epochs=3)
    _, named = run(tmp_path / "b", EMA(0.9), schedule="cosine", epochs=3, override=names)
    assert torch.equal(weights(plain), weights(named))
    assert load_checkpoint(tmp_path / "b" / "last.pt")["training"]["overridden"] == []


def test_an_override_without_a_run_to_continue_is_a_new_run(tmp_path):
    assert run(tmp_path / "a", override=("lr",))[1].steps == 4
    assert fit(network(), batches(), epochs=1, progress=False, device="cpu", override=("lr",)).steps == 4


@pytest.mark.parametrize("at", [4, 6])
def test_lr_under_a_schedule_is_where_the_new_one_would_be_by_now(tmp_path, at):
    options = {"epochs": 3, "schedule": "cosine"}
    first, _ = run(tmp_path, stop_at=at, lr=0.1, **options)
    notes, _ = run(tmp_path, lr=0.01, override=("lr",), **options)
    fresh, _ = run(tmp_path / "fresh", lr=0.01, **options)
    assert len(first.lr) == at
    assert notes.lr == fresh.lr[at:]


def test_weight_decay_changes_and_the_schedule_stays(tmp_path):
    def optimizer(decay):
        return lambda parameters: AdamW(parameters, lr=0.1, weight_decay=decay)

    whole, _ = run(tmp_path / "whole", epochs=2, optimizer=optimizer(0.5), schedule="cosine")
    run(tmp_path, stop_at=4, epochs=2, optimizer=optimizer(0.5), schedule="cosine")
    changed = {"optimizer": optimizer(0.1), "override": ("weight_decay",)}
    notes, _ = run(tmp_path, epochs=2, schedule="cosine", **changed)
    assert notes.decay == [0.1] * 4
    assert notes.lr == whole.lr[4:]


def test_the_option_of_one_group_changes(tmp_path):
    def optimizer(first):
        return lambda p: SGD([{"params": p[:2], "lr": first}, {"params": p[2:]}], lr=0.1, momentum=0.9)

    run(tmp_path, optimizer=optimizer(0.1))
    notes, _ = run(tmp_path, optimizer=optimizer(0.01), epochs=2, override=["lr"])
    assert notes.lr == [0.01] * 4
    assert notes.state.optimizer.param_groups[1]["lr"] == 0.1


def test_the_schedule_of_this_call_is_put_to_where_the_run_stands(tmp_path):
    def step(gamma):
        return lambda optimizer, total: lr_scheduler.StepLR(optimizer, 3, gamma)

    options = {"optimizer": lambda p: SGD(p, lr=1.0), "epochs": 3}
    run(tmp_path, stop_at=5, schedule=step(0.1), **options)
    notes, _ = run(tmp_path, schedule=step(0.5), override=("schedule",), **options)
    assert notes.lr == [0.5, 0.25, 0.25, 0.25, 0.125, 0.125, 0.125]
    assert run(tmp_path, schedule=step(0.5), optimizer=options["optimizer"], epochs=3)[1].stop_reason == "finished"


def test_a_schedule_may_come_and_go(tmp_path):
    options = {"epochs": 3, "lr": 0.1}
    run(tmp_path, stop_at=4, **options)
    whole, _ = run(tmp_path / "whole", schedule="linear", **options)
    notes, _ = run(tmp_path, stop_at=8, schedule="linear", override=("schedule",), **options)
    assert notes.lr == whole.lr[4:8]
    left, _ = run(tmp_path, override=("schedule",), **options)
    assert left.lr == [whole.lr[8]] * 4, "it stays where the schedule has left it, unless lr is named as well"


def callback_run(directory, gamma=0.5, lr=1.0, scheduler=None, every="step", **options):
    model = network()
    optimizer = SGD(model.parameters(), lr=lr)
    made = scheduler(optimizer) if scheduler else lr_scheduler.StepLR(optimizer, 3, gamma)
    monitor = "train_loss" if isinstance(made, lr_scheduler.ReduceLROnPlateau) else None
    schedule = LRSchedule(made, every=every, monitor=monitor)
    return *run(directory, schedule, model=model, optimizer=optimizer, **options), made


def test_the_scheduler_of_a_callback_is_put_to_where_the_run_stands(tmp_path):
    callback_run(tmp_path, gamma=0.1, stop_at=5, epochs=3)
    notes, *_ = callback_run(tmp_path, gamma=0.5, epochs=3, override=("schedule",))
    assert notes.lr == [0.5, 0.25, 0.25, 0.25, 0.125, 0.125, 0.125]


def test_lr_under_the_scheduler_of_a_callback_is_where_the_new_one_would_be(tmp_path):
    callback_run(tmp_path, lr=1.0, stop_at=5, epochs=3)
    notes, *_ = callback_run(tmp_path, lr=0.1, epochs=3, override=("lr",))
    assert notes.lr == pytest.approx([0.05, 0.025, 0.025, 0.025, 0.0125, 0.0125, 0.0125])


def test_a_scheduler_that_comes_later_is_put_to_where_the_run_stands(tmp_path):
    run(tmp_path, optimizer=lambda p: SGD(p, lr=1.0))
    notes, *_ = callback_run(tmp_path, epochs=2, override=("schedule",))
    assert notes.lr == [0.5, 0.5, 0.25, 0.25]


def test_a_scheduler_of_plateaus_keeps_what_it_has_counted(tmp_path):
    def plateau(patience):
        return lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=patience, threshold=10.0)

    callback_run(tmp_path, scheduler=plateau(9), every="epoch", epochs=3)
    notes, _, made = callback_run(tmp_path, scheduler=plateau(2), every="epoch", epochs=5, override=("schedule",))
    assert made.patience == 2
    assert notes.lr == [1.0] * 4 + [0.5] * 4, "two epochs without an improvement had been counted before"


def test_a_scheduler_that_has_been_stepped_before_cannot_be_put_anywhere(tmp_path):
    callback_run(tmp_path, gamma=0.1)

    def stepped(optimizer):
        made = lr_scheduler.StepLR(optimizer, 3)
        made.step()
        return made

    with (
        pytest.warns(UserWarning, match="Detected call of"),
        pytest.raises(ArgumentError, match="has been stepped before\n  got: StepLR after 1 steps\n"),
    ):
        callback_run(tmp_path, scheduler=stepped, lr=0.5, epochs=2, override=("schedule", "lr"))


class Remembers(nn.Module):
    """A loss with a buffer that counts, and weights."""

    def __init__(self, weight):
        super().__init__()
        self.register_buffer("weight", torch.tensor(weight))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, outputs, targets):
        self.seen += 1
        return CE(outputs, targets, self.weight)


def test_a_loss_takes_the_weights_of_this_call(tmp_path):
    first, changed = Remembers([1.0, 1.0, 1.0]), Remembers([1.0, 1.0, 5.0])
    run(tmp_path, loss=first)
    run(tmp_path, loss=changed, epochs=2, override=("loss",))
    assert (changed.weight.tolist(), int(changed.seen)) == ([1.0, 1.0, 5.0], 4)
    again = Remembers([1.0, 1.0, 5.0])
    run(tmp_path, loss=again, epochs=3, override=("loss",))
    assert int(again.seen) == 8, "what has not changed goes on with its state"


def own_step(model, batch, state):
    return CE(model(batch[0]), batch[1])


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"clip_norm": 0.1}, "clip_norm"),
        ({"precision": "bf16"}, "precision"),
        ({"model": network(0.5)}, "model"),
        ({"step": own_step, "metrics": "accuracy"}, "step"),
        ({"metrics": []}, "metrics"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
@pytest.mark.parametrize("stop_at", [4, 2])
def test_what_is_named_may_change_in_the_middle_of_an_epoch_too(tmp_path, change, name, stop_at):
    run(tmp_path, stop_at=stop_at, metrics="accuracy", epochs=2)
    options = {"metrics": "accuracy", "epochs": 2} | change
    with pytest.raises(CheckpointError, match=rf"pass override=\({name!r},\)"):
        run(tmp_path, **options)
    notes, result = run(tmp_path, override=(name,), **options)
    assert (result.stop_reason, result.steps, len(notes.lr)) == ("finished", 8, 8 - stop_at)
    if name in ("clip_norm", "precision"):
        assert getattr(notes.state if name == "clip_norm" else notes.state.runtime, name) == change[name]


def test_a_metric_that_comes_in_the_middle_of_an_epoch_counts_from_there(tmp_path):
    run(tmp_path, stop_at=2, metrics=[], epochs=2)
    with pytest.warns(
        CvkitWarning, match="the metric 'accuracy' is new: in the epoch continued here, only what comes now"
    ):
        _, result = run(tmp_path, metrics="accuracy", epochs=2, override=("metrics",))
    assert "train_accuracy" in result.history.rows[0]


@pytest.mark.parametrize("schedule", ["onecycle", "linear", None])
@pytest.mark.parametrize(
    "change", [{"train": batches(8)}, {"train": batches(2)}, {"accumulate": 2}], ids=["8", "2", "x2"]
)
def test_batches_of_another_size_between_epochs_leave_the_schedule_to_end_with_the_run(tmp_path, schedule, change):
    options = {"optimizer": "momentum", "lr": 0.1, "schedule": schedule, "epochs": 4}
    run(tmp_path, stop_at=4, **options)
    name = "data" if "train" in change else "accumulate"
    fresh, _ = run(tmp_path / "fresh", **options, **change)
    steps = len(fresh.lr) // 4
    notes, _ = run(tmp_path, stop_at=4 + 2 * steps, override=(name,), **options, **change)
    assert notes.lr == pytest.approx(fresh.lr[steps : 3 * steps])
    notes, result = run(tmp_path, override=(name,), **options, **change)
    assert notes.lr == pytest.approx(fresh.lr[3 * steps :])
    assert result.steps == 4 + 3 * steps


def test_a_longer_run_of_batches_of_another_size_has_its_schedule_recomputed(tmp_path):
    options = {"lr": 0.1, "schedule": "linear"}
    run(tmp_path, epochs=1, **options)
    fresh, _ = run(tmp_path / "fresh", train=batches(8), epochs=4, **options)
    with pytest.warns(CvkitWarning, match="planned for 1 epochs and is now to have 2"):
        run(tmp_path, train=batches(8), epochs=2, override=("data",), **options)
    with pytest.warns(CvkitWarning, match="planned for 2 epochs and is now to have 4"):
        notes, _ = run(tmp_path, train=batches(8), epochs=4, **options)
    assert notes.lr == pytest.approx(fresh.lr[4:])


@pytest.mark.parametrize(
    ("change", "part"), [({"train": batches(8)}, "data"), ({"accumulate": 2}, "accumulate")], ids=["data", "accumulate"]
)
@pytest.mark.parametrize("named", [False, True])
def test_data_cannot_change_in_the_middle_of_an_epoch(tmp_path, change, part, named):
    run(tmp_path, stop_at=2, epochs=2)
    with pytest.raises(CheckpointError) as caught:
        run(tmp_path, epochs=2, override=(part,) if named else (), **change)
    assert (
        f"\n  fix: undo the change; or, if it is meant, let the epoch end first by the script as it was, for {part} cannot change "
        f"2 batches into one; then pass override=({part!r},); or start a new run"
    ) in str(caught.value)


def test_an_average_may_come_and_its_decay_change(tmp_path):
    run(tmp_path, epochs=1)
    _, with_average = run(tmp_path, EMA(0.9), epochs=2, override=("callbacks",))
    saved = load_checkpoint(tmp_path / "last.pt")
    assert not torch.equal(saved["model"]["0.weight"], saved["training"]["weights"]["0.weight"])
    changed = EMA(0.5)
    run(tmp_path, changed, epochs=3, override=("callbacks",))
    assert changed.updates == 8
    assert with_average.epochs == 2


def test_patience_changes_and_what_was_waited_stays(tmp_path):
    def stopping(patience):
        return EarlyStopping("train_loss", patience=patience, min_delta=100.0)

    assert run(tmp_path, stopping(1), epochs=9)[1].epochs == 3
    _, result = run(tmp_path, stopping(3), epochs=9, override=("callbacks",))
    assert (result.epochs, result.stop_reason) == (5, "early_stopping")


def test_another_value_that_is_watched_begins_anew(tmp_path):
    run(tmp_path, EarlyStopping("train_loss", patience=1), epochs=2, monitor="train_loss")
    stopping = EarlyStopping("train_accuracy", patience=1)
    run(tmp_path, stopping, epochs=3, monitor="train_accuracy", override=("callbacks",))
    content = load_checkpoint(tmp_path / "best.pt")["training"]
    assert content["epoch"] == 3, "the best by what is watched now"
    assert stopping.waited == 0
    assert stopping.monitor.best == content["callbacks"]["Checkpoint"]["best"]


def test_another_plan_of_unfreezing(tmp_path):
    def plan(epoch):
        return GradualUnfreezing({epoch: "all"}, keep="3")

    run(tmp_path, plan(5), epochs=6, stop_at=8)
    before = load_checkpoint(tmp_path / "last.pt")["model"]["0.weight"]
    _, result = run(tmp_path, plan(2), epochs=3, override=("callbacks",))
    assert not torch.equal(result.model[0].weight, before)


@pytest.mark.parametrize("schedule", [None, "cosine"])
def test_another_optimizer_begins_without_moments_and_the_history_stays(tmp_path, schedule):
    run(tmp_path, lr=0.1, epochs=2, stop_at=4, schedule=schedule)
    options = {"optimizer": "momentum", "lr": 0.5, "epochs": 2, "schedule": schedule}
    with pytest.raises(CheckpointError, match=r"got: optimizer: AdamW then, SGD now\n(.|\n)*override=\('optimizer',\)"):
        run(tmp_path, **options)
    notes, result = run(tmp_path, override=("optimizer",), **options)
    fresh, _ = run(tmp_path / "fresh", **options)
    assert (notes.start, notes.lr) == ([], fresh.lr[4:])
    assert result.history["epoch"] == [1, 2]


def test_a_name_that_is_not_known_is_answered_with_all_that_are(tmp_path):
    with pytest.raises(UnknownNameError) as caught:
        run(tmp_path, override=("learning_rate",))
    assert str(caught.value).startswith(
        "unknown name in override: 'learning_rate'\n"
        "  expected: one of: accumulate, amsgrad, betas, callbacks, clip_norm, data, decoupled_weight_decay, eps, loss, lr, "
        "maximize, metrics, model, optimizer, precision, schedule, step, transform, val, weight_decay\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("given", "fix"), [("lr", "override=('lr',)"), (1, 'override=("lr",)')])
def test_what_is_no_sequence_of_names_is_refused(tmp_path, given, fix):
    with pytest.raises(ArgumentError) as caught:
        run(tmp_path, override=given)
    assert str(caught.value).startswith(f"override cannot be used\n  got: {given!r}\n  expected: a sequence of names")
    assert fix in str(caught.value)
