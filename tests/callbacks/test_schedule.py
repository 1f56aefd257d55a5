"""LRSchedule: a scheduler of the user's own, stepped as often as said."""

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import (
    CosineAnnealingWarmRestarts,
    CyclicLR,
    LambdaLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)

from cvkit.callbacks import Checkpoint, LRSchedule
from cvkit.errors import ArgumentError, CheckpointError, CvkitWarning, UnknownNameError
from cvkit.training import fit


def built(make, lr=1.0, **kwargs):
    """Returns a model, its optimizer, and the callback over a scheduler."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = SGD(model.parameters(), lr=lr, momentum=0.5)
    return model, optimizer, LRSchedule(make(optimizer), **kwargs)


def rates(tiny, make, *extra, every="step", epochs=2, accumulate=1, stop=None, **kwargs):
    """Returns the learning rate of every update, and the result."""
    model, optimizer, callback = built(make, every=every)
    seen = []
    look = tiny.Do("on_gradients_ready", lambda state, calls: seen.append(state.lr))
    stops = tiny.Do("on_batch_end", lambda state, calls: state.request_stop("stop") if calls == stop else None)
    result = tiny.run(
        callback,
        look,
        stops,
        *extra,
        epochs=epochs,
        model=model,
        optimizer=optimizer,
        accumulate=accumulate,
        **kwargs,
    )
    return seen, result


def test_a_scheduler_is_stepped_at_each_update(tiny):
    seen, _ = rates(tiny, lambda o: StepLR(o, 1, gamma=0.5))
    assert seen == [0.5**k for k in range(8)]


def test_a_scheduler_is_stepped_once_an_accumulated_group(tiny):
    seen, _ = rates(tiny, lambda o: StepLR(o, 1, gamma=0.5), accumulate=3)
    assert seen == [1, 0.5, 0.25, 0.125]


def test_a_scheduler_is_stepped_at_each_epoch(tiny):
    seen, result = rates(tiny, lambda o: StepLR(o, 1, gamma=0.5), every="epoch", epochs=3)
    assert seen == [1] * 4 + [0.5] * 4 + [0.25] * 4
    assert result.history["lr"] == [1, 0.5, 0.25], "the row holds the rate that the epoch was trained with"


@pytest.mark.parametrize(("every", "stop"), [("step", 3), ("step", 5), ("epoch", 3), ("epoch", 6), ("epoch", 4)])
@pytest.mark.parametrize(
    "make",
    [
        lambda o: StepLR(o, 2, gamma=0.5),
        lambda o: MultiStepLR(o, [1, 3, 6], gamma=0.5),
        lambda o: LambdaLR(o, lambda step: 1 / (1 + step)),
        lambda o: OneCycleLR(o, 1.0, total_steps=20),
        lambda o: CyclicLR(o, 0.1, 1.0, step_size_up=3),
        lambda o: CosineAnnealingWarmRestarts(o, 3),
    ],
    ids=["step", "multistep", "lambda", "onecycle", "cyclic", "restarts"],
)
def test_a_resumed_scheduler_goes_on_where_it_was(tiny, tmp_path, make, every, stop):
    undisturbed, whole = rates(tiny, make, Checkpoint(tmp_path / "a"), every=every)
    first, _ = rates(tiny, make, Checkpoint(tmp_path / "b"), every=every, stop=stop)
    second, result = rates(tiny, make, Checkpoint(tmp_path / "b"), every=every, resume=True)
    assert first + second == undisturbed
    assert result.history == whole.history
    assert torch.equal(result.model.weight, whole.model.weight)


def plateau(tiny, values, *extra, epochs, **kwargs):
    model, optimizer, callback = built(
        lambda o: ReduceLROnPlateau(o, patience=1, factor=0.5, threshold=0), every="epoch", monitor="val_loss"
    )
    seen = []
    look = tiny.Do("on_epoch_start", lambda state, calls: seen.append(state.lr))
    tiny.run(
        tiny.Logs("val_loss", values), callback, look, *extra, epochs=epochs, model=model, optimizer=optimizer, **kwargs
    )
    return seen


def test_a_plateau_scheduler_watches_a_logged_value(tiny):
    assert plateau(tiny, [3, 4, 4, 2, 3, 3], epochs=6) == [1, 1, 1, 0.5, 0.5, 0.5]


def test_a_resumed_plateau_scheduler_goes_on_where_it_was(tiny, tmp_path):
    values = [3, 4, 4, 2, 3, 3, 3]
    undisturbed = plateau(tiny, values, epochs=7)
    seen = []
    for epochs in (2, 5, 7):
        seen += plateau(tiny, values, Checkpoint(tmp_path), epochs=epochs, resume=True)
    assert seen == undisturbed


def test_a_plateau_scheduler_without_a_monitor_is_refused():
    with pytest.raises(ArgumentError) as caught:
        built(ReduceLROnPlateau, every="epoch")
    assert str(caught.value) == (
        "ReduceLROnPlateau with every='epoch' and monitor=None does not go together\n"
        '  expected: every="epoch" and a monitor for ReduceLROnPlateau, no monitor for any other\n'
        '  fix: LRSchedule(scheduler, every="epoch", monitor="val_loss")'
    )
    with pytest.raises(ArgumentError, match="every='step' and monitor='val_loss' does not go together"):
        built(ReduceLROnPlateau, monitor="val_loss")


def test_a_monitor_for_another_scheduler_is_refused():
    with pytest.raises(ArgumentError, match="fix: leave monitor out"):
        built(lambda o: StepLR(o, 1), every="epoch", monitor="val_loss")


def test_a_monitor_that_is_never_logged_is_refused_before_training(tiny):
    model, optimizer, callback = built(ReduceLROnPlateau, every="epoch", monitor="val_los")
    with pytest.raises(UnknownNameError, match="did you mean 'val_loss'"):
        tiny.run(callback, model=model, optimizer=optimizer)


def test_the_scheduler_of_another_optimizer_is_refused(tiny):
    _, _, callback = built(lambda o: StepLR(o, 1))
    with pytest.raises(ArgumentError) as caught:
        tiny.run(callback)
    assert str(caught.value) == (
        "the scheduler of LRSchedule belongs to another optimizer\n"
        "  got: StepLR over an optimizer that fit was not given\n"
        "  expected: the same optimizer object in both\n"
        "  fix: build optimizer, then scheduler over it, and pass optimizer=optimizer to fit"
    )


@pytest.mark.parametrize("thing", ["cosine", None, StepLR])
def test_what_is_no_scheduler_is_refused(thing):
    with pytest.raises(ArgumentError, match="LRSchedule cannot use this scheduler"):
        LRSchedule(thing)


def test_another_every_is_refused():
    with pytest.raises(ArgumentError, match="every cannot be used\n  got: 'batch'"):
        built(lambda o: StepLR(o, 1), every="batch")


def test_the_update_of_a_group_that_a_loader_leaves_short_is_stepped_after_too(tmp_path):
    class Short(list):
        def __len__(self):
            return 4

    batches = Short((torch.randn(2, 3), torch.tensor([0, 1])) for _ in range(3))

    def rate_after(*callbacks, **options):
        model, optimizer, callback = built(lambda o: StepLR(o, 1, gamma=0.5))
        with pytest.warns(CvkitWarning, match="says that it has 4 batches and gave 3"):
            fit(
                model,
                batches,
                optimizer=optimizer,
                accumulate=2,
                callbacks=[callback, *callbacks],
                progress=False,
                preflight=False,
                **options,
            )
        return optimizer.param_groups[0]["lr"]

    assert rate_after(epochs=2) == 0.5**4
    assert rate_after(Checkpoint(tmp_path, monitor=None), epochs=1) == 0.5**2
    assert rate_after(Checkpoint(tmp_path, monitor=None), epochs=2, resume=True) == 0.5**4


@pytest.mark.parametrize(
    ("kinds", "got"),
    [
        ((StepLR, StepLR), r"over optimizer 1 then, over optimizer 0 \(from 0\) now"),
        ((StepLR, MultiStepLR), "LRSchedule's scheduler: MultiStepLR then, StepLR now"),
    ],
)
def test_schedulers_that_have_changed_places_are_refused_on_resume(tiny, tmp_path, kinds, got):
    def go(turned, **options):
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        optimizers = [SGD([model.weight], lr=0.1), SGD([model.bias], lr=0.2)]
        made = [
            LRSchedule(kind(optimizer, 1 if kind is StepLR else [1]))
            for kind, optimizer in zip(kinds, optimizers, strict=True)
        ]
        checkpoint = Checkpoint(tmp_path, monitor=None)
        return tiny.run(*(made[::-1] if turned else made), checkpoint, model=model, optimizer=optimizers, **options)

    go(turned=True, epochs=1)
    with pytest.raises(CheckpointError, match=f"\n  got: {got}"):
        go(turned=False, resume=True)
    assert go(turned=True, resume=True).stop_reason == "finished"
