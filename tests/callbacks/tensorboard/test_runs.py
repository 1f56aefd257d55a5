"""TensorBoard beside runs of every kind: it changes none of them, and says what it cannot draw."""

import os
import re
import signal
import socket
import warnings

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("tensorboard")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import cvkit
from cvkit.callbacks import EMA, Checkpoint, TensorBoard
from cvkit.errors import ArgumentError, CvkitWarning
from cvkit.training import Callback

EVERYTHING = {
    "every_steps": 1,
    "histograms": True,
    "graph": True,
    "images": 4,
    "embeddings": 6,
    "hparams": True,
    "figures": True,
}


def read(directory):
    """Returns everything as the loader that reads everything sees it."""
    found = EventAccumulator(str(directory), size_guidance={"scalars": 0, "images": 0, "histograms": 0, "tensors": 0})
    return found.Reload()


def steps(directory, kind, tag):
    return [event.step for event in getattr(read(directory), kind)(tag)]


def tags(directory, kind):
    return set(read(directory).Tags()[kind])


def sources(count=12, channels=3, classes=3, size=8):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, channels, size, size, generator=generator), torch.arange(count) % classes


def batches(inputs, targets, size=4):
    return [(inputs[at : at + size], targets[at : at + size]) for at in range(0, len(inputs), size)]


def classifier(channels=3, classes=3):
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3),
        nn.BatchNorm2d(4),
        nn.Dropout(0.2),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(144, classes),
    )


def fit(model, train, val, *callbacks, epochs=2, **kwargs):
    options = {"device": "cpu", "progress": False, "preflight": False, "optimizer": "sgd", "lr": 0.05}
    return cvkit.fit(model, train, val, epochs=epochs, callbacks=list(callbacks), **(options | kwargs))


# --- it changes nothing


class Trail(Callback):
    """Everything that a run may differ in, after each batch."""

    order = 1

    def __init__(self):
        self.seen = []

    def on_batch_end(self, state):
        self.seen.append(self.of(state))

    on_validation_batch_end = on_epoch_end = on_batch_end

    def of(self, state):
        values = [state.loss, *state.model.state_dict().values()]
        modes = [module.training for module in state.model.modules()]
        numbers = [torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()]
        return [value.tolist() for value in values], modes, numbers, dict(state.logs)


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_with_everything_is_bit_for_bit_one_without(tmp_path, accumulate, averaged):
    def run(*callbacks):
        trail = Trail()
        train = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*sources()), 4, shuffle=True)
        train = train if accumulate == 1 else batches(*sources())  # the same tensors each epoch
        torch.manual_seed(5)
        extra = [EMA(0.9)] if averaged else []
        model = classifier()
        result = fit(model, train, batches(*sources()), *extra, *callbacks, trail, accumulate=accumulate, clip_norm=0.5)
        return (
            trail.seen,
            result.history,
            [value.tolist() for value in model.state_dict().values()],
            torch.get_rng_state(),
        )

    one, other = run(), run(TensorBoard(tmp_path, **EVERYTHING))
    assert one[:3] == other[:3]
    assert torch.equal(one[3], other[3])
    assert tags(tmp_path / "train", "histograms")
    assert tags(tmp_path / "val", "images") == {"predictions", "confusion"}


def test_a_loader_of_our_own_is_not_disturbed_either(tmp_path):
    cvkit.data.write_shapes(tmp_path / "data/train", per_class=4, size=8, seed=0)

    def run(*callbacks):
        data = cvkit.data.from_folder(tmp_path / "data", size=8, batch_size=5, val=0.5)
        result = fit(classifier(), data.train, data.val, *callbacks, seed=3, preflight=True)
        return (
            result.history,
            [value.tolist() for value in result.model.state_dict().values()],
            torch.get_rng_state().tolist(),
        )

    assert run() == run(TensorBoard(tmp_path / "tb", **EVERYTHING))


# --- where it goes


def test_a_directory_that_cannot_be_made_is_refused_before_training(tmp_path):
    (tmp_path / "runs").write_text("a file")
    inputs, targets = sources()
    with pytest.raises(ArgumentError, match=r"events cannot be written to .*\n  got: (NotADirectory|FileExists)Error"):
        fit(classifier(), batches(inputs, targets), None, TensorBoard(tmp_path / "runs" / "a"))


def test_a_directory_that_is_not_given_names_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    boards = [TensorBoard(comment="-lr0.1"), TensorBoard(comment="-lr0.1")]
    assert [board.directory for board in boards] == [None, None]
    for board in boards:
        fit(classifier(), batches(*sources()), None, board, epochs=1)
    first, second = (str(board.directory) for board in boards)
    host = re.escape(socket.gethostname())
    assert re.fullmatch(rf"runs/\d{{4}}-\d\d-\d\d_\d\d-\d\d-\d\d-{host}-lr0\.1(\.\d)?", first)
    assert first != second
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == sorted(
        os.path.basename(one) for one in (first, second)
    )


def test_a_directory_that_named_itself_is_found_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for epochs in (1, 3):
        board = TensorBoard()
        fit(
            classifier(),
            batches(*sources()),
            None,
            board,
            Checkpoint("saved", monitor=None),
            epochs=epochs,
            resume=True,
        )
    (directory,) = (tmp_path / "runs").iterdir()
    assert steps(directory / "train", "Scalars", "loss") == [3, 6, 9]
    assert board.directory.resolve() == directory


def test_one_object_serves_two_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    board = TensorBoard(**EVERYTHING)
    for _ in range(2):
        fit(classifier(), batches(*sources()), batches(*sources()), board, epochs=1)
    first, second = sorted((tmp_path / "runs").iterdir())
    for directory in (first, second):
        assert steps(directory / "train", "Scalars", "loss") == [3]
        assert steps(directory / "val", "Images", "predictions") == [3]


# --- resume


class Signal(Callback):
    """Sends Ctrl-C in the middle of the second validation."""

    def __init__(self):
        self.calls = 0

    def on_validation_batch_end(self, state):
        self.calls += 1
        if self.calls == 4:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("size", [4, 12])
def test_a_run_stopped_in_a_validation_has_each_point_once(tmp_path, size):
    def run(*callbacks):
        board = TensorBoard(tmp_path / "tb", **EVERYTHING)
        train = batches(*sources(), size=size)
        saves = Checkpoint(tmp_path / "saved", monitor=None)
        return fit(classifier(), train, batches(*sources()), *callbacks, board, saves, epochs=3, resume=True, seed=0)

    stop = Signal()
    assert run(stop).stop_reason == "interrupted"
    assert stop.calls == 4
    assert run().stop_reason == "finished"
    count = 12 // size
    every, epochs = list(range(1, 3 * count + 1)), [count, 2 * count, 3 * count]
    assert steps(tmp_path / "tb/train", "Scalars", "step/loss") == every
    assert steps(tmp_path / "tb/train", "Scalars", "step/gradient_norm") == every
    assert steps(tmp_path / "tb/train", "Images", "inputs") == [1, 1 + count, 1 + 2 * count]
    for kind in ("weights", "gradients"):
        assert steps(tmp_path / "tb/train", "Histograms", f"{kind}/0.weight") == epochs
    for run_, tag in (("train", "loss"), ("val", "loss")):
        assert steps(tmp_path / f"tb/{run_}", "Scalars", tag) == epochs
    assert steps(tmp_path / "tb/val", "Images", "predictions") == epochs


@pytest.mark.parametrize("every", [1, 2])
def test_histograms_come_every_so_many_epochs(tmp_path, every):
    fit(classifier(), batches(*sources()), None, TensorBoard(tmp_path, histograms=every), epochs=4)
    for kind in ("weights", "gradients"):
        found = steps(tmp_path / "train", "Histograms", f"{kind}/0.weight")
        assert found == [3 * epoch for epoch in range(1, 5) if epoch % every == 0]


def test_images_belong_to_the_update_that_they_had_a_part_in(tmp_path):
    fit(classifier(), batches(*sources()), None, TensorBoard(tmp_path, images=2), accumulate=2, epochs=2)
    assert steps(tmp_path / "train", "Images", "inputs") == [1, 3]


def test_the_gradient_norm_is_that_before_clipping(tmp_path):
    norms = []

    class Norms(Callback):
        def on_gradients_ready(self, state):
            norms.append(float(torch.cat([p.grad.flatten() for p in state.model.parameters()]).norm()))

    fit(
        classifier(),
        batches(*sources()),
        None,
        Norms(),
        TensorBoard(tmp_path, every_steps=1),
        epochs=1,
        clip_norm=1e-3,
    )
    assert [one.value for one in read(tmp_path / "train").Scalars("step/gradient_norm")] == pytest.approx(
        norms, rel=1e-5
    )


# --- runs of other kinds


def said(directory, option):
    (event,) = read(directory / "train").Tensors(f"notes/{option}/text_summary")
    return event.tensor_proto.string_val[0].decode()


def quiet(run):
    """Runs, and returns the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = run()
    assert result.stop_reason == "finished"
    return [str(one.message) for one in caught if issubclass(one.category, CvkitWarning)]


def test_an_autoencoder_shows_inputs_outputs_and_targets_and_says_what_it_has_not(tmp_path):
    images, _ = sources()
    net = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 3, 3, padding=1))
    board = TensorBoard(tmp_path, **EVERYTHING)
    told = quiet(lambda: fit(net, batches(images, images), batches(images, images), board, loss="mse"))
    why = "a confusion matrix and curves need classes, and there are outputs that are images"
    assert told == [f"TensorBoard(figures=…) is left out: {why}"]
    assert said(tmp_path, "figures") == why
    (last,) = read(tmp_path / "val").Images("predictions")[-1:]
    assert (last.width, last.height) == (3 * 64 + 2, 4 * 64 + 3 * 4)
    assert len((tmp_path / "val/projector/metadata.tsv").read_text().splitlines()) == 6


def test_masks_are_drawn_and_counted(tmp_path):
    images, _ = sources()
    masks = torch.arange(12 * 64).reshape(12, 8, 8) % 4
    masks[0, 0, 0] = 255
    net = nn.Conv2d(3, 4, 1)
    loss = nn.CrossEntropyLoss(ignore_index=255)
    board = TensorBoard(tmp_path, **EVERYTHING)
    told = quiet(lambda: fit(net, batches(images, masks), batches(images, masks), board, loss=loss))
    assert told == []
    assert tags(tmp_path / "val", "images") == {"predictions", "confusion"}


def test_a_regression_writes_its_numbers_below_the_images(tmp_path):
    images, _ = sources()
    values = torch.rand(12)
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 1))
    board = TensorBoard(tmp_path, **EVERYTHING)
    told = quiet(lambda: fit(net, batches(images, values), batches(images, values), board, loss="mse"))
    assert [one.split(" is left out")[0] for one in told] == ["TensorBoard(figures=…)"]
    assert tags(tmp_path / "val", "images") == {"predictions"}


def test_labels_have_curves_and_no_confusion(tmp_path):
    images, _ = sources()
    labels = (torch.arange(36).reshape(12, 3) % 2).float()
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    board = TensorBoard(tmp_path, **EVERYTHING)
    told = quiet(lambda: fit(net, batches(images, labels), batches(images, labels), board, loss="bce", metrics=[]))
    assert told == []
    assert tags(tmp_path / "val", "images") == {"predictions"}
    assert "precision_recall/1" in tags(tmp_path / "val", "tensors")


def test_inputs_that_are_no_images_are_said_to_be_none(tmp_path):
    values, targets = torch.rand(12, 5), torch.arange(12) % 2
    board = TensorBoard(tmp_path, **EVERYTHING)
    told = quiet(lambda: fit(nn.Linear(5, 2), batches(values, targets), batches(values, targets), board))
    assert told == ["TensorBoard(images=…) is left out: the inputs are no images (N, C, H, W) but float32 (4, 5)"]
    assert tags(tmp_path / "val", "images") == {"confusion"}
    assert "sprite" not in (tmp_path / "val/projector_config.pbtxt").read_text()


def test_a_step_that_returns_only_the_loss_is_told_what_to_return(tmp_path):
    images, _ = sources()

    def step(model, batch, state):
        return model(batch["view"], scale=2.0).square().mean()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(192, 2)

        def forward(self, x, *, scale):
            return self.layer(x.flatten(1)) * scale

    data = [{"view": images[:4]}, {"view": images[4:8]}]
    board = TensorBoard(tmp_path, **EVERYTHING)
    told = quiet(lambda: fit(Net(), data, data, board, step=step))
    nothing = "no outputs: a step that returns only the loss (return loss, outputs, targets)"
    assert [one.split(" is left out: ") for one in told] == [
        ["TensorBoard(images=…)", f"predictions cannot be drawn from {nothing}; the inputs were"],
        ["TensorBoard(figures=…)", f"a confusion matrix and curves need classes, and there are {nothing}"],
        [
            "TensorBoard(embeddings=…)",
            f"running the model on the side failed with TypeError: {Net.__qualname__}.forward() missing 1 required keyword-only argument: 'scale'",
        ],
    ]
    assert tags(tmp_path / "train", "images") == {"inputs"}
    assert read(tmp_path / "train").Tags()["graph"] is True  # it was seen to be called by keyword


def test_a_model_that_cannot_be_run_on_the_side_has_a_note_instead_of_a_graph(tmp_path):
    class Moody(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 2)

        def forward(self, x):
            if not self.training:
                raise RuntimeError("not now\nat all")
            return self.layer(x)

    board = TensorBoard(tmp_path, graph=True)
    told = quiet(lambda: fit(Moody(), batches(torch.rand(8, 5), torch.arange(8) % 2), None, board, epochs=1))
    why = "running the model on the side failed with RuntimeError: not now"
    assert told == [f"TensorBoard(graph=…) is left out: {why}"]
    assert said(tmp_path, "graph") == why
    assert read(tmp_path / "train").Tags()["graph"] is False


def test_a_model_that_wants_whole_batches_has_its_graph(tmp_path):
    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 2)

        def forward(self, x):
            one, other = x.reshape(2, -1, 5).unbind()
            return self.layer(torch.cat([one, other]))

    fit(Halves(), batches(torch.rand(8, 5), torch.arange(8) % 2), None, TensorBoard(tmp_path, graph=True), epochs=1)
    assert read(tmp_path / "train").Tags()["graph"] is True


def test_gradients_that_are_not_finite_do_not_stop_the_run(tmp_path):
    inputs = torch.rand(8, 5)
    inputs[0, 0] = float("nan")
    board = TensorBoard(tmp_path, every_steps=1, histograms=True)
    told = quiet(lambda: fit(nn.Linear(5, 2), batches(inputs, torch.arange(8) % 2), None, board, epochs=1))
    assert len(told) == 1
    assert "not finite" in told[0]
    assert len(steps(tmp_path / "train", "Scalars", "step/loss")) == 2


def test_a_full_disk_is_not_held_back(tmp_path, monkeypatch):
    from cvkit.callbacks.tensorboard import writers

    def full(self, event):
        if event.HasField("summary") and event.step:
            raise OSError(28, "No space left on device")
        return None

    monkeypatch.setattr(writers.Events, "add", full)
    with pytest.raises(OSError, match="No space left"):
        fit(classifier(), batches(*sources()), None, TensorBoard(tmp_path, images=2), epochs=1)


# --- writers of somebody else's


class Double:
    """A writer that remembers what it was called with."""

    def __init__(self, *lacking):
        self.calls, self.lacking = [], lacking

    def __getattr__(self, name):
        if not name.startswith(("add_", "flush")) or name in self.__dict__.get("lacking", ()):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.calls.append((name, args, kwargs))


def test_a_writer_is_given_everything(tmp_path):
    double = Double()
    result = fit(classifier(), batches(*sources()), batches(*sources()), TensorBoard(double, **EVERYTHING), epochs=1)
    called = {name for name, _, _ in double.calls}
    assert called == {
        "flush",
        *(
            f"add_{what}"
            for what in ("scalar", "histogram_raw", "image", "text", "graph", "pr_curve_raw", "embedding", "hparams")
        ),
    }
    scalars = {args[0]: args[1:] for name, args, _ in double.calls if name == "add_scalar"}
    assert scalars["loss/train"] == (result.history[-1]["train_loss"], 3)
    assert scalars["loss/val"] == (result.history[-1]["val_loss"], 3)
    assert all(type(value) in (float, int) for value, _ in scalars.values())
    ((hparams, outcome),) = [args for name, args, _ in double.calls if name == "add_hparams"]
    assert hparams["lr"] == 0.05
    assert outcome["hparam/val_loss"] == result.history[-1]["val_loss"]


def test_a_writer_that_can_only_write_scalars_is_enough(tmp_path):
    class Scalars:
        def __init__(self):
            self.found = []

        def add_scalar(self, tag, value, step):
            self.found.append((tag, step))

    writer = Scalars()
    fit(classifier(), batches(*sources()), None, TensorBoard(writer, every_steps=3), epochs=1)
    assert ("step/loss", 3) in writer.found
    assert ("loss/train", 3) in writer.found


@pytest.mark.parametrize("package", ["torch.utils.tensorboard", "tensorboardX"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_writers_of_torch_and_tensorboardx_write_all_of_it(tmp_path, package):
    writer = pytest.importorskip(package).SummaryWriter(str(tmp_path))
    fit(classifier(), batches(*sources()), batches(*sources()), TensorBoard(writer, **EVERYTHING), epochs=1)
    writer.add_scalar("mine", 1.0, 1)  # it is still open
    writer.close()
    found = read(tmp_path).Tags()
    assert {"loss/train", "loss/val", "step/loss", "step/gradient_norm", "mine"} <= set(found["scalars"])
    assert {"inputs/train", "predictions/val", "confusion/val"} == set(found["images"])
    assert {"weights/0.weight", "gradients/0.weight"} <= set(found["histograms"])
    assert {"settings/text_summary", "model/text_summary", "precision_recall/all classes"} <= set(found["tensors"])
    assert found["graph"] is True
    assert (tmp_path / "projector_config.pbtxt").exists()


def test_what_a_writer_lacks_is_told():
    with pytest.raises(ArgumentError) as caught:
        TensorBoard(Double("add_graph", "add_image"), graph=True, figures=True, histograms=True)
    assert str(caught.value) == (
        "the writer Double cannot write what is asked for\n"
        "  got: no add_graph for graph; no add_image for figures\n"
        "  expected: a writer with these methods, as torch's SummaryWriter has\n"
        "  fix: leave out graph, figures, or pass a directory"
    )


# --- arguments


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        ({"every_steps": True}, "every_steps cannot be used\n  got: True\n  expected: an integer"),
        ({"every_steps": 2.5}, "every_steps cannot be used\n  got: 2.5\n  expected: an integer"),
        ({"images": -1}, "images cannot be used\n  got: -1\n  expected: at least 0\n  fix: images=16"),
        ({"images": True}, "images cannot be used\n  got: True\n  expected: an integer\n  fix: images=16"),
        ({"embeddings": "all"}, "embeddings cannot be used\n  got: 'all'"),
        ({"histograms": -1}, "histograms cannot be used\n  got: -1"),
        ({"histograms": "auto"}, "histograms cannot be used\n  got: 'auto'"),
        ({"graph": 1}, "graph cannot be used\n  got: 1\n  expected: True or False\n  fix: graph=True"),
        ({"figures": "yes"}, "figures cannot be used\n  got: 'yes'"),
        ({"text": 3}, "text cannot be used\n  got: 3"),
        ({"hparams": ["lr"]}, "hparams cannot be used\n  got: ['lr']"),
        ({"hparams": {"layers": [1, 2]}}, "hparams: 'layers' cannot be used\n  got: [1, 2] (list)"),
        ({"hparams": {3: 1}}, "hparams: 3 cannot be used"),
        ({"directory": 3}, "TensorBoard cannot write to this\n  got: 3"),
        ({"directory": Double}, "TensorBoard cannot write to this\n  got: the class Double"),
        (
            {"directory": "a", "comment": "b"},
            "comment is for a directory that names itself\n  got: comment='b' beside 'a'",
        ),
        ({"comment": "a/b"}, "comment cannot be used\n  got: 'a/b'"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(arguments, first):
    with pytest.raises(ArgumentError) as caught:
        TensorBoard(**arguments)
    assert str(caught.value).startswith(first)


@pytest.mark.parametrize(("option", "value"), [("figures", True), ("embeddings", 5)])
def test_what_needs_a_validation_is_refused_without_one(tmp_path, option, value):
    with pytest.raises(ArgumentError) as caught:
        fit(classifier(), batches(*sources()), None, TensorBoard(tmp_path / "tb", **{option: value}))
    assert str(caught.value).splitlines()[:2] == ["TensorBoard has no validation to draw", f"  got: {option}={value}"]
    assert not (tmp_path / "tb").exists()


def test_a_text_stands_above_the_settings_and_false_writes_none(tmp_path):
    board = TensorBoard(str(tmp_path), text="*mine*", hparams={"lr": 1e-3})
    fit(classifier(), batches(*sources()), None, board, epochs=1)
    (event,) = read(tmp_path / "train").Tensors("settings/text_summary")
    assert event.tensor_proto.string_val[0].decode().startswith("*mine*\n\n| setting | value |")
    fit(classifier(), batches(*sources()), None, TensorBoard(tmp_path / "b", text=False), epochs=1)
    assert tags(tmp_path / "b/train", "tensors") == set()
