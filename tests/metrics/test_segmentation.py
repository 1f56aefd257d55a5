"""Dice and IoU: counted over all pixels, as integers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import cvkit
from cvkit.errors import ArgumentError
from cvkit.metrics import Dice, IoU


def by_hand(predicted, targets, classes, score, ignore=None):
    values = []
    keep = targets != ignore if ignore is not None else torch.ones_like(targets, dtype=torch.bool)
    keep &= targets != -100
    for one in classes:
        said = {
            i for i, (p, k) in enumerate(zip(predicted.flatten().tolist(), keep.flatten().tolist())) if p == one and k
        }
        true = {
            i for i, (t, k) in enumerate(zip(targets.flatten().tolist(), keep.flatten().tolist())) if t == one and k
        }
        if said | true:
            values.append(score(said, true))
    return sum(values) / len(values) if values else math.nan


SCORES = {
    Dice: lambda said, true: 2 * len(said & true) / (len(said) + len(true)),
    IoU: lambda said, true: len(said & true) / len(said | true),
}


@pytest.mark.parametrize("kind", SCORES)
@given(
    seed=st.integers(0, 10_000),
    classes=st.integers(2, 5),
    parts=st.integers(1, 3),
    ignore=st.sampled_from([None, 0, 255]),
)
@settings(max_examples=40)
def test_batches_add_up_to_what_sets_of_pixels_say(kind, seed, classes, parts, ignore):
    random = torch.Generator().manual_seed(seed)
    outputs = torch.randn(6, classes, 3, 4, generator=random)
    targets = torch.randint(0, classes, (6, 3, 4), generator=random)
    metric = kind(ignore_index=ignore)
    for part, truth in zip(outputs.chunk(parts), targets.chunk(parts), strict=True):
        metric.update(part, truth)
    expected = by_hand(outputs.argmax(1), targets, range(classes), SCORES[kind], ignore)
    assert metric.compute() == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize("channel", [True, False])
def test_a_single_output_is_that_of_the_foreground(kind, channel):
    outputs = torch.tensor([[2.0, -1.0, 0.5, -3.0, 1.0]])
    targets = torch.tensor([[1, 1, 1, 0, 0]])
    metric = kind()
    metric.update(outputs[:, None] if channel else outputs[0], targets if channel else targets[0])
    assert metric.compute() == pytest.approx({Dice: 4 / 6, IoU: 2 / 4}[kind])
    probabilities = kind(threshold=0.5)
    probabilities.update(outputs[:, None].sigmoid(), targets)
    assert probabilities.compute() == metric.compute()


def test_targets_with_a_channel_for_each_class_are_their_largest():
    outputs = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    targets = torch.randint(0, 3, (2, 4, 4), generator=torch.Generator().manual_seed(1))
    one, other = Dice(), Dice()
    one.update(outputs, targets)
    other.update(outputs, nn.functional.one_hot(targets, 3).movedim(-1, 1).float())
    assert one.compute() == other.compute()


def test_only_the_classes_asked_for_count():
    outputs = nn.functional.one_hot(torch.tensor([[0, 1, 2, 2]]), 3).movedim(-1, 1).float()
    metric = IoU(classes=[2])
    metric.update(outputs, torch.tensor([[0, 0, 2, 1]]))
    assert metric.compute() == 1 / 2
    with pytest.raises(ArgumentError) as caught:
        IoU(classes=[0, 3]).update(outputs, torch.tensor([[0, 0, 2, 1]]))
    assert str(caught.value) == (
        "IoU was asked for a class that is not there\n  got: classes=[0, 3], outputs of 3 classes\n"
        "  expected: classes from 0 to 2\n  fix: leave the others out"
    )


@pytest.mark.parametrize("classes", [[], [-1]])
def test_classes_that_cannot_be_are_refused_at_once(classes):
    with pytest.raises(ArgumentError, match="Dice: classes cannot be used"):
        Dice(classes=classes)


def test_nothing_seen_is_not_a_number_and_reset_forgets():
    metric = Dice()
    assert math.isnan(metric.compute())
    metric.update(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long))
    assert metric.compute() == 1
    metric.reset()
    assert math.isnan(metric.compute())


def test_counts_survive_a_resume():
    metric, other = Dice(), Dice()
    outputs, targets = torch.randn(4, 3, 5, 5), torch.randint(0, 3, (4, 5, 5))
    metric.update(outputs[:2], targets[:2])
    other.load_state_dict(metric.state_dict())
    for one in (metric, other):
        one.update(outputs[2:], targets[2:])
    assert metric.compute() == other.compute()
    assert other.state_dict()["counts"].dtype == torch.int64


def test_by_name_in_fit():
    batches = [(torch.randn(2, 3, 8, 8), torch.randint(0, 2, (2, 8, 8))) for _ in range(2)]
    result = cvkit.fit(
        nn.Conv2d(3, 2, 1), batches, batches, epochs=1, metrics=["accuracy", "dice", "iou"], progress=False
    )
    assert {"train_dice", "val_dice", "train_iou", "val_iou"} <= set(result.history.rows[0])
    assert 0 < result.history.rows[0]["val_iou"] < result.history.rows[0]["val_dice"] < 1


@pytest.mark.parametrize("metric", [Dice, IoU])
def test_what_torchs_losses_leave_out_does_not_count_either(metric):
    outputs = nn.functional.one_hot(torch.tensor([[0, 1, 1, 1]]), 2).movedim(-1, 1).float()
    here = metric()
    here.update(outputs, torch.tensor([[0, 1, 1, -100]]))
    assert here.compute() == 1


@pytest.mark.filterwarnings("ignore:CV213", "ignore:CV607")
@pytest.mark.parametrize("ignored", [-100, 255])
def test_metrics_by_name_leave_out_what_the_loss_does(ignored):
    inputs, targets = torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.long)
    targets[:, 2:] = ignored
    model = nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.copy_(torch.tensor([1.0, -1.0]))  # says 0 everywhere, which is right wherever it counts
    loss = nn.CrossEntropyLoss(ignore_index=ignored)
    for metrics in (None, ["accuracy", "dice", "iou"]):
        values = cvkit.evaluate(model, [(inputs, targets)], loss=loss, metrics=metrics)
        assert {name: value for name, value in values.items() if name != "loss"} == dict.fromkeys(
            values.keys() - {"loss"}, 1
        )
    result = cvkit.fit(model, [(inputs, targets)], epochs=1, loss=loss, progress=False)
    assert result.history[0]["train_accuracy"] == 1
