"""Training on a fake GPU: nothing left on the host, nothing waited for in a step, every copy ordered; and planted mistakes."""

import pytest
import torch
from torch import nn

import cvkit
from cvkit import streams, transforms
from cvkit.callbacks import EMA, Checkpoint, EarlyStopping, GradientNorm, Profile, StopOnNaN, TensorBoard, Timer
from cvkit.data import ArrayDataset, Loader, prefetch
from cvkit.data import loader as loader_
from cvkit.serialization.async_writer import Buffers
from cvkit.transforms import batch

# its validation images are augmented, so that what augmenting does on the device is seen there as well
pytestmark = pytest.mark.filterwarnings("ignore:CV217", "ignore:CV417")

OPTIONS = {"epochs": 2, "progress": False, "seed": 0, "lr": 0.05, "optimizer": "momentum", "precision": "fp32"}


def net(channels=3):
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
    )


def data(transform=None, *, shuffle=True, cache="auto", count=24):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=generator)
    targets = torch.arange(count) % 3
    transform = transform or transforms.small_image_train(16)
    return Loader(
        ArrayDataset(images, targets), batch_size=5, transform=transform, shuffle=shuffle, cache=cache, workers=0
    )


def train(device="cuda", model=None, loader=None, **options):
    torch.manual_seed(0)
    model = model or net()
    result = cvkit.fit(model, loader or data(), data(shuffle=False), device=device, **{**OPTIONS, **options})
    return model, result


def weights(model):
    return [(one.held if hasattr(one, "held") else one).detach().clone() for one in model.state_dict().values()]


@pytest.fixture
def on_cpu():
    """A run on the CPU, before the fake device is there."""
    model, result = train("cpu")
    return weights(model), result.history.rows


def test_a_run_computes_there_what_it_computes_on_the_host(on_cpu, cuda):
    model, result = train()
    assert all(one.device.type == "cuda" for one in model.parameters())
    for here, there in zip(on_cpu[0], weights(model), strict=True):
        torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-5)
    assert result.history.rows[-1]["train_loss"] == pytest.approx(on_cpu[1][-1]["train_loss"], rel=1e-4)
    cuda.check()


PRESETS = {
    "classification": lambda: transforms.classification_train(16),
    "colours": lambda: transforms.classification_train(16, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1),
    "small images": lambda: transforms.small_image_train(16, erase=0.5),
    "mixtures": lambda: transforms.small_image_train(16, mixup=0.2, cutmix=1.0, num_classes=3),
}


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("cache", ["auto", None])
def test_no_preset_waits_or_is_left_on_the_host(cuda, name, cache):
    metrics = [] if name == "mixtures" else None
    train(loader=data(PRESETS[name](), cache=cache), metrics=metrics, epochs=3, preflight=False)
    cuda.check()


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adamw", "schedule": "onecycle", "clip_norm": 1.0},
        {"optimizer": "sgd", "accumulate": 2, "clip_norm": 1.0},
        {"optimizer": "rmsprop"},
        {"precision": "bf16"},
        {"precision": "auto", "accumulate": 3},
        {"loss": nn.CrossEntropyLoss(weight=torch.ones(3), ignore_index=2)},
    ],
    ids=str,
)
def test_no_option_of_fit_waits(cuda, options):
    options = dict(options)
    if options.get("optimizer") in ("adamw", "rmsprop"):
        options["lr"] = 1e-3
    train(**options)
    cuda.check()


def test_no_callback_waits_in_a_step(cuda, tmp_path):
    callbacks = [
        EMA(),
        GradientNorm(every_steps=1, layers=1),
        StopOnNaN(gradients=True),
        EarlyStopping("val_loss"),
        Timer(hours=1),
    ]
    callbacks += [TensorBoard(tmp_path / "board", every_steps=100), Profile(tmp_path / "profile", batches=3, trace=0)]
    train(callbacks=[*callbacks, Checkpoint(tmp_path / "run", monitor="val_loss")])
    cuda.check()


def test_a_run_continues_there(cuda, tmp_path):
    straight, _ = train(epochs=3)
    train(epochs=1, callbacks=[Checkpoint(tmp_path)])
    again, _ = train(epochs=3, callbacks=[Checkpoint(tmp_path)], resume=True, seed=None)
    assert all(torch.equal(a, b) for a, b in zip(weights(straight), weights(again), strict=True))
    assert cuda.rng_restored
    cuda.check()


def test_saving_in_the_middle_of_an_epoch_reads_no_buffer_too_early(cuda, tmp_path):
    train(callbacks=[Checkpoint(tmp_path, every_steps=2)])
    assert cuda.races == []
    assert all(torch.isfinite(one).all() for one in cvkit.load_checkpoint(tmp_path / "last.pt")["model"].values())


def test_saving_without_waiting_for_the_copy_is_found(cuda, tmp_path, monkeypatch):
    monkeypatch.setattr(streams.CudaMoment, "wait", lambda self: None)
    made = {"weight": torch.ones(3, device="cuda") + 1}
    Buffers().copy(made)["weight"].tolist()
    assert any("tolist in host does not wait for the write in main" in one for one in cuda.races)


def test_the_loss_scaler_of_fp16_does_not_wait(cuda):
    train(precision="fp16", preflight=False)
    cuda.check()


def test_a_predictor_answers_there_what_it_answers_on_the_host(cuda, tmp_path):
    model = cvkit.models.create("linear", num_classes=3, in_features=3 * 16 * 16)
    train("cpu", model=model, callbacks=[Checkpoint(tmp_path)])
    images = torch.randint(0, 256, (4, 16, 16, 3), dtype=torch.uint8).numpy()
    here = cvkit.load(tmp_path / "last.pt", device="cpu").predict(list(images))
    there = cvkit.load(tmp_path / "last.pt", device="cuda").predict(list(images))
    assert [one.label for one in there] == [one.label for one in here]
    assert cuda.races == []


def test_evaluate_waits_only_at_its_end(cuda):
    cvkit.evaluate(net(), data(shuffle=False), device="cuda", precision="fp32")
    cuda.check()


def test_the_cpu_path_waits_for_nothing_either(waits):
    loader = data()
    with waits() as found:
        train(
            "cpu", loader=loader, preflight=False, clip_norm=1.0, schedule="cosine", callbacks=[GradientNorm(), EMA()]
        )
    assert found.found == []


def test_a_wait_is_found_on_the_cpu_path_by_the_same_rule(waits):
    loader = data()
    with waits() as found:
        train("cpu", loader=loader, preflight=False, epochs=1, step=step_of(SYNCS["item"]))
    assert all(one.startswith("_local_scalar_dense at test_fake_device.py:") for one in found.found)
    assert len(found.found) == 2 * 5  # batches of training and of validation


# --- planted mistakes: each is found, with its line


def step_of(work):
    def step(model, batch, state):
        inputs, targets = batch
        outputs = model(inputs)
        loss = nn.functional.cross_entropy(outputs, targets)
        return work(loss, outputs, targets) or loss, outputs, targets

    return step


MEETINGS = {
    "a weight of the loss on the host": lambda loss, outputs, targets: loss + (outputs * torch.ones(3)).sum(),
    "a mask on the host": lambda loss, outputs, targets: torch.where(torch.ones(outputs.shape) > 0, outputs, 0).sum(),
    "targets made on the host": lambda loss, outputs, targets: nn.functional.mse_loss(
        outputs, torch.zeros(outputs.shape)
    ),
}
SYNCS = {
    "item": lambda loss, outputs, targets: loss.item() and None,
    "float": lambda loss, outputs, targets: float(loss.detach()) and None,
    "a condition": lambda loss, outputs, targets: loss * 2 if (loss > 0) else loss,
    "nonzero": lambda loss, outputs, targets: targets.nonzero().sum() * 0 + loss,
    "boolean indexing": lambda loss, outputs, targets: outputs[targets == 0].sum() + loss,
    "masked_select": lambda loss, outputs, targets: outputs.masked_select(outputs > 0).sum() * 0 + loss,
    "cpu": lambda loss, outputs, targets: outputs.detach().cpu() is None or loss,
    "tolist": lambda loss, outputs, targets: targets.tolist() and None,
    "unique": lambda loss, outputs, targets: targets.unique().sum() * 0 + loss,
    "a tensor made there": lambda loss, outputs, targets: loss * torch.tensor(2.0, device=outputs.device),
    "a blocking copy": lambda loss, outputs, targets: loss * torch.ones(1).to(outputs.device).sum(),
    "an index on the host": lambda loss, outputs, targets: loss + outputs[torch.arange(2)].sum() * 0,
}


@pytest.mark.parametrize("name", MEETINGS)
def test_what_is_left_on_the_host_is_found(cuda, name):
    with pytest.raises(
        RuntimeError, match=r"two devices, cuda:0 and cpu! \(\w+ at test_fake_device\.py:\d+ <lambda>\)"
    ):
        train(step=step_of(MEETINGS[name]), preflight=False)


@pytest.mark.parametrize("name", SYNCS)
def test_a_hidden_wait_is_found(cuda, name):
    train(step=step_of(SYNCS[name]), preflight=False, epochs=1)
    assert any(" at test_fake_device.py:" in one for one in cuda.in_steps())


def test_a_batch_left_on_the_host_is_found(cuda, monkeypatch):
    monkeypatch.setattr(loader_, "prefetched", lambda batches, device: batches)
    monkeypatch.setattr(cvkit.Runtime, "place", lambda self, batch: batch)
    with pytest.raises(Exception, match="cuda:0 and cpu"):
        train(loader=data(cache=None), preflight=False)


def test_draws_left_on_the_host_are_found(cuda, monkeypatch):
    monkeypatch.setattr(batch, "to_device", lambda draws, device: draws)
    with pytest.raises(Exception, match="cuda:0 and cpu"):
        train(preflight=False)


# --- planted races


RACES = {
    "nobody waits for the copy": ("follow", lambda self, moment: None, "does not wait for the write in side"),
    "the memory is not kept": ("keep", lambda self, tensor: None, "is free while main may still use it"),
}


@pytest.mark.parametrize("name", RACES)
def test_a_race_of_the_prefetch_is_found(cuda, monkeypatch, name):
    method, broken, message = RACES[name]
    monkeypatch.setattr(streams.CudaStreams, method, broken)
    train(loader=data(cache=None), preflight=False)
    assert any(message in one for one in cuda.races), cuda.races


def test_a_moment_marked_before_the_copy_is_found(cuda, queues):
    side = queues.second()
    with queues.within(side):
        early = queues.moment()
        there = queues.send(torch.ones(3))
    queues.follow(early)
    queues.keep(there)
    _ = there + 1
    assert any("add in main does not wait for the write in side" in one for one in cuda.races)


def test_a_buffer_read_before_its_copy_is_done_is_found(cuda, queues):
    made = torch.ones(3, device="cuda") + 1
    host = queues.fetch(made, queues.buffer(made))
    host.tolist()
    assert any("tolist in host does not wait for the write in main" in one for one in cuda.races)


def test_a_buffer_used_again_before_its_copy_is_done_is_found(cuda, queues):
    side = queues.second()
    one, two = torch.ones(3, device="cuda"), torch.zeros(3, device="cuda")
    buffer = queues.buffer(one)
    queues.fetch(one, buffer)
    with queues.within(side):
        queues.fetch(two, buffer)
    assert cuda.races


def test_what_waits_as_it_should_is_no_race(cuda, queues):
    made = torch.ones(3, device="cuda") + 1
    host = queues.fetch(made, queues.buffer(made))
    moment = queues.moment()
    assert not moment.passed()
    moment.wait()
    assert host.tolist() == [2.0, 2.0, 2.0]
    assert moment.passed()
    assert cuda.races == []
    assert ("fetch", "main") in cuda.log
    assert cuda.log.index(("fetch", "main")) < cuda.log.index(("record", "main"))


def test_the_copy_of_the_next_batch_is_queued_before_this_one_is_used(cuda):
    batches = [prefetch.RawBatch(torch.ones(2, 3), torch.ones(2), 0, place) for place in range(3)]
    coming = prefetch.prefetched(iter(batches), torch.device("cuda", 0))
    first = next(coming)
    assert [what for what, queue in cuda.log if queue.startswith("side") and what == "send"] == ["send"] * 4
    _ = first.images + 1
    assert len(list(coming)) == 2
    cuda.check()


def test_a_device_with_one_queue_has_nothing_to_wait_for():
    queues = streams.of(torch.device("cpu"))
    begun = queues.moment(timing=True)
    made = torch.arange(3)
    with queues.within(queues.second()):
        assert queues.send(made) is made
        assert torch.equal(queues.fetch(made, queues.buffer(made)), made)
    queues.keep(made)
    queues.follow(begun)
    begun.wait()
    assert begun.passed()
    assert begun.seconds_until(queues.moment()) >= 0
    assert not queues.parallel
