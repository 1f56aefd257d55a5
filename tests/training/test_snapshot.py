"""Exact resume: whatever ended a run, the same command again ends where an undisturbed run does, bit by bit."""

import random
import signal
import warnings

import numpy as np
import pytest
import torch
from resumed_runs import ACCUMULATE, BATCH, SAMPLES, Drawing, Keeps, assert_same, data, network, stop_at, train
from torch import nn
from torch.utils.data import DataLoader, Dataset

from cvkit.callbacks import Checkpoint, EarlyStopping
from cvkit.errors import CvkitWarning
from cvkit.training import Callback, fit, load_checkpoint


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed, with its directory."""
    directory = tmp_path_factory.mktemp("whole")
    _, everything = train(directory)
    return everything, directory


@pytest.mark.parametrize("batch", range(1, 11))
def test_a_run_stopped_at_any_batch_goes_on_bit_by_bit(tmp_path, whole, batch):
    first, _ = train(tmp_path, Keeps("on_batch_end", stop_at(batch)))
    assert first.stop_reason == "stop"
    update = min(-(-((batch - 1) % 5 + 1) // ACCUMULATE), 3) + 3 * ((batch - 1) // 5)
    assert first.steps == update, "a stop waits for the end of a group of accumulate"
    second, everything = train(tmp_path)
    assert second.stop_reason == "finished"
    assert_same(everything, whole[0])


def test_the_best_file_of_a_stopped_run_is_that_of_an_undisturbed_one(tmp_path, whole):
    train(tmp_path, Keeps("on_batch_end", stop_at(7)))
    train(tmp_path)
    for name in ("best.pt", "last.pt"):
        a, b = load_checkpoint(tmp_path / name), load_checkpoint(whole[1] / name)
        assert_same(a, b, name)


def test_a_run_stopped_again_and_again_goes_on_bit_by_bit(tmp_path, whole):
    for _ in range(8):
        result, everything = train(tmp_path, Keeps("on_batch_end", stop_at(1)))
        if result.stop_reason == "finished":
            break
    else:
        pytest.fail("the run never ended")
    assert_same(everything, whole[0])


def test_a_run_in_fp16_goes_on_with_its_loss_scale(tmp_path):
    options = {"precision": "fp16", "accumulate": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch must not blame the user for a step that the loss scaler left out
        _, undisturbed = train(tmp_path / "whole", **options)
    assert undisturbed["scaler"]["_growth_tracker"] > 5
    train(tmp_path / "stopped", Keeps("on_batch_end", stop_at(7)), **options)
    _, everything = train(tmp_path / "stopped", **options)
    assert_same(everything, undisturbed)


@pytest.mark.parametrize("hook", ["on_batch_start", "on_gradients_ready", "on_batch_end", "on_validation_batch_end"])
def test_a_run_that_an_exception_ended_goes_on_from_its_last_save(tmp_path, whole, hook):
    def fail(state, calls):
        if calls == 5:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        train(tmp_path, Keeps(hook, fail), checkpoint=Checkpoint(tmp_path, every_steps=1))
    assert [p.name for p in tmp_path.glob("*.pt")], "nothing was saved"
    _, everything = train(tmp_path)
    assert_same(everything, whole[0])


@pytest.mark.parametrize("call", [1, 5, 6, 10])
def test_an_interrupted_validation_is_done_again(tmp_path, whole, call):
    def interrupt(state, calls):
        if calls == call:
            signal.raise_signal(signal.SIGINT)

    first, _ = train(tmp_path, Keeps("on_validation_batch_end", interrupt))
    assert first.stop_reason == "interrupted"
    assert first.epochs == (call - 1) // 5
    _, everything = train(tmp_path)
    assert_same(everything, whole[0])


@pytest.mark.parametrize("hook", ["on_fit_start", "on_epoch_start", "on_validation_end", "on_epoch_end"])
def test_a_stop_asked_for_between_steps_loses_nothing(tmp_path, whole, hook):
    train(tmp_path, Keeps(hook, stop_at(1, "interrupted")))
    _, everything = train(tmp_path)
    assert_same(everything, whole[0])


@pytest.mark.parametrize("batch", [3, 5, 8])
def test_callbacks_that_draw_random_numbers_do_not_shift_a_resume(tmp_path, batch):
    _, undisturbed = train(tmp_path / "a", Drawing())
    train(tmp_path / "b", Drawing(), Keeps("on_batch_end", stop_at(batch)))
    _, everything = train(tmp_path / "b", Drawing())
    assert_same(everything, undisturbed)


def test_the_seed_need_not_be_given_again(tmp_path, whole):
    train(tmp_path, Keeps("on_batch_end", stop_at(4)))
    torch.manual_seed(1)
    model = network()
    torch.manual_seed(12345)
    stopping = EarlyStopping("val_loss", patience=5)
    fit(
        model,
        data(),
        data(shuffle=False, seed=4),
        epochs=2,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.05),
        schedule="cosine",
        accumulate=ACCUMULATE,
        device="cpu",
        progress=False,
        resume=True,
        callbacks=[stopping, Checkpoint(tmp_path)],
    )
    assert_same(model.state_dict(), whole[0]["model"])


@pytest.mark.parametrize("batch", [3, 5, 6, 9])
@pytest.mark.parametrize("which", ["train", "val"])
def test_a_loader_with_a_generator_of_its_own_goes_on_bit_by_bit(tmp_path, which, batch):
    def loaders():
        return {which: data(generator=torch.Generator().manual_seed(5), seed=3 if which == "train" else 4)}

    _, undisturbed = train(tmp_path / "a", **loaders())
    train(tmp_path / "b", Keeps("on_batch_end", stop_at(batch)), **loaders())
    _, everything = train(tmp_path / "b", **loaders())
    assert_same(everything, undisturbed)


class Noisy(Dataset):
    """Draws a random number for each sample, as augmentations do."""

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        return torch.full((4,), index / SAMPLES) + torch.rand(4) + random.random() + np.random.rand(), index % 3


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("batch", [3, 8])
def test_samples_that_are_drawn_at_random_go_on_bit_by_bit(tmp_path, batch, workers):
    def loader():
        # a fork is quick; numpy's generator is seeded in a worker by torch, as is Python's
        context = "fork" if workers else None
        return DataLoader(Noisy(), batch_size=BATCH, shuffle=True, num_workers=workers, multiprocessing_context=context)

    _, undisturbed = train(tmp_path / "a", train=loader())
    train(tmp_path / "b", Keeps("on_batch_end", stop_at(batch)), train=loader())
    _, everything = train(tmp_path / "b", train=loader())
    assert_same(everything, undisturbed)


class Drifting(nn.Module):
    """A loss that remembers: its weight follows the batches."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, outputs, targets):
        if torch.is_grad_enabled():
            self.seen += 1
        return nn.functional.cross_entropy(outputs, targets) * (1 + self.seen / 10)


def test_a_loss_that_remembers_goes_on_bit_by_bit(tmp_path):
    _, undisturbed = train(tmp_path / "a", loss=Drifting(), metrics="accuracy")
    train(tmp_path / "b", Keeps("on_batch_end", stop_at(6)), loss=Drifting(), metrics="accuracy")
    _, everything = train(tmp_path / "b", loss=Drifting(), metrics="accuracy")
    assert_same(everything, undisturbed)


@pytest.mark.parametrize("schedule", ["onecycle", "poly", "step", "linear"])
def test_every_schedule_goes_on_bit_by_bit(tmp_path, schedule):
    _, undisturbed = train(tmp_path / "a", schedule=schedule)
    train(tmp_path / "b", Keeps("on_batch_end", stop_at(4)), schedule=schedule)
    _, everything = train(tmp_path / "b", schedule=schedule)
    assert_same(everything, undisturbed)


@pytest.mark.parametrize(
    "factory",
    [
        lambda o, total: torch.optim.lr_scheduler.MultiStepLR(o, [2, 4]),
        lambda o, total: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1 / (step + 1)),
        lambda o, total: torch.optim.lr_scheduler.SequentialLR(
            o,
            [
                torch.optim.lr_scheduler.LinearLR(o, 0.1, total_iters=2),
                torch.optim.lr_scheduler.MultiStepLR(o, [1, 2]),
            ],
            milestones=[2],
        ),
        lambda o, total: torch.optim.lr_scheduler.ChainedScheduler(
            [torch.optim.lr_scheduler.ExponentialLR(o, 0.9), torch.optim.lr_scheduler.MultiStepLR(o, [3])]
        ),
    ],
    ids=["multistep", "lambda", "sequential", "chained"],
)
def test_schedules_of_a_factory_go_on_bit_by_bit(tmp_path, factory):
    result, undisturbed = train(tmp_path / "a", schedule=factory)
    train(tmp_path / "b", Keeps("on_batch_end", stop_at(4)), schedule=factory)
    again, everything = train(tmp_path / "b", schedule=factory)
    del undisturbed["schedules"], everything["schedules"]
    assert_same(everything, undisturbed)
    assert again.history["lr"] == result.history["lr"]


def test_two_optimizers_go_on_bit_by_bit(tmp_path):
    def pair(parameters):
        return [torch.optim.SGD(parameters[:2], lr=0.1, momentum=0.9), torch.optim.Adam(parameters[2:], lr=0.01)]

    _, undisturbed = train(tmp_path / "a", optimizer=pair)
    train(tmp_path / "b", Keeps("on_batch_end", stop_at(6)), optimizer=pair)
    _, everything = train(tmp_path / "b", optimizer=pair)
    assert_same(everything, undisturbed)


def test_a_run_that_is_complete_does_nothing(tmp_path, whole):
    train(tmp_path)
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    batches = Keeps("on_batch_start", lambda state, calls: pytest.fail("trained"))
    result, everything = train(tmp_path, batches)
    assert (result.stop_reason, result.epochs, result.steps) == ("finished", 2, 6)
    assert result.best_checkpoint == tmp_path / "best.pt"
    assert result.last_checkpoint == tmp_path / "last.pt"
    assert_same(everything, whole[0])
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == before


def test_more_epochs_continue_and_the_schedule_is_told_to_be_another(tmp_path):
    train(tmp_path)
    with pytest.warns(CvkitWarning) as caught:
        result, everything = train(tmp_path, epochs=4)
    assert [str(one.message) for one in caught] == [
        f"the run continued from {tmp_path / 'last.pt'} was planned for 2 epochs and is now "
        "to have 4: its learning-rate schedule is recomputed for the new length"
    ]
    assert (result.epochs, result.steps, result.history["epoch"]) == (4, 12, [1, 2, 3, 4])
    planned = torch.optim.lr_scheduler.CosineAnnealingLR(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.05), 12)
    lrs = []
    for _ in range(12):
        lrs.append(planned.get_last_lr()[0])
        planned.optimizer.step()
        planned.step()
    assert result.history["lr"][2:] == pytest.approx([lrs[8], lrs[11]], abs=1e-12)
    assert everything["optimizers"][0]["state"][0]["step"] == 12


def test_more_epochs_without_a_schedule_are_the_longer_run(tmp_path):
    _, undisturbed = train(tmp_path / "a", epochs=3, schedule=None)
    train(tmp_path / "b", epochs=1, schedule=None)
    _, everything = train(tmp_path / "b", epochs=3, schedule=None)
    assert_same(everything, undisturbed)


class Script(Callback):
    """Logs values that were written beforehand."""

    def __init__(self, values):
        self.values = values

    def on_validation_end(self, state):
        state.logs["val_loss"] = self.values[state.epoch]


def test_the_best_survives_a_resume(tmp_path):
    values = [3.0, 1.0, 2.0, 1.5, 0.5]
    result, _ = train(tmp_path, Script(values), epochs=2, schedule=None)
    assert load_checkpoint(result.best_checkpoint)["training"]["epoch"] == 2
    train(tmp_path, Script(values), epochs=4, schedule=None)
    assert load_checkpoint(tmp_path / "best.pt")["training"]["epoch"] == 2, "a worse epoch wrote over the best"
    train(tmp_path, Script(values), epochs=5, schedule=None)
    assert load_checkpoint(tmp_path / "best.pt")["training"]["epoch"] == 5


def test_random_numbers_of_every_kind_are_those_of_the_undisturbed_run(tmp_path):
    class Draws(Callback):
        def __init__(self):
            self.drawn = []

        def on_batch_start(self, state):
            self.drawn.append((random.random(), np.random.rand(), torch.rand(()).item()))

        def state_dict(self):
            return {"drawn": [list(one) for one in self.drawn]}

        def load_state_dict(self, state):
            self.drawn = [tuple(one) for one in state["drawn"]]

    undisturbed, one, two = Draws(), Draws(), Draws()
    train(tmp_path / "a", undisturbed)
    train(tmp_path / "b", one, Keeps("on_batch_end", stop_at(4)))
    train(tmp_path / "b", two)
    assert one.drawn == undisturbed.drawn[:4]
    assert two.drawn == undisturbed.drawn


def test_a_batch_that_is_left_out_whole_does_not_shift_the_place_to_go_on_from(tmp_path):
    from cvkit.data import FolderDataset, Loader, write_shapes
    from cvkit.transforms import small_image_train

    root = write_shapes(tmp_path / "data", 6, 16)
    for number in (2, 3):
        (root / "circle" / f"{number:04d}.png").write_bytes(b"no image")

    class Stop:
        def on_batch_end(self, state):
            if state.step == 3:
                state.request_stop("enough")

    def run(where, *more):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3))
        loader = Loader(FolderDataset(root, on_error="skip"), 2, transform=small_image_train(16), workers=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CvkitWarning)
            callbacks = [Checkpoint(where, monitor=None), *more]
            return fit(model, loader, epochs=1, resume=True, progress=False, callbacks=callbacks)

    whole = run(tmp_path / "a")
    run(tmp_path / "b", Stop())
    resumed = run(tmp_path / "b")
    assert (whole.steps, resumed.steps) == (8, 8)
    assert_same(dict(resumed.model.state_dict()), dict(whole.model.state_dict()))
