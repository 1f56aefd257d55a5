"""Metrics by name: figures by hand, in parts as in one, and resumed."""

import math
import sys
import types

import pytest
import torch
from torch import nn

import cvkit
from cvkit.callbacks import Checkpoint
from cvkit.errors import ArgumentError, MissingDependencyError, UnknownNameError
from cvkit.losses import resolve_loss
from cvkit.metrics import F1, CalibrationError, ClassAccuracy, Precision, Recall, TopK, fit_temperature
from cvkit.training.meters import resolve_metrics

# a 3-class example: predicted 0 0 1 1 2 1, true 0 1 1 1 2 2
PREDICTED, TRUE = torch.tensor([0, 0, 1, 1, 2, 1]), torch.tensor([0, 1, 1, 1, 2, 2])
OUTPUTS = nn.functional.one_hot(PREDICTED, 3).float()


def value(metric, outputs=OUTPUTS, targets=TRUE, size=2):
    for start in range(0, len(outputs), size):
        metric.update(outputs[start : start + size], targets[start : start + size])
    return metric.compute()


def test_macro_figures_are_those_by_hand():
    assert value(Precision()) == pytest.approx((1 / 2 + 2 / 3 + 1 / 1) / 3)
    assert value(Recall()) == pytest.approx((1 / 1 + 2 / 3 + 1 / 2) / 3)
    assert value(F1()) == pytest.approx((2 / 3 + 4 / 6 + 2 / 3) / 3)
    assert value(ClassAccuracy()) == {"0": 1.0, "1": pytest.approx(2 / 3), "2": 0.5}


def test_a_class_that_is_not_there_has_no_accuracy():
    four = nn.functional.one_hot(PREDICTED, 4).float()
    assert math.isnan(value(ClassAccuracy(), four)["3"])
    assert value(ClassAccuracy(classes=[2]), four) == {"2": 0.5}


def test_labels_are_judged_one_by_one():
    outputs = torch.tensor([[2.0, -1.0], [1.0, 3.0], [-1.0, -2.0], [-3.0, 4.0]])
    targets = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    assert value(Precision(multilabel=True), outputs, targets) == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert value(Recall(multilabel=True), outputs, targets) == pytest.approx((1 / 2 + 1 / 2) / 2)
    found = resolve_metrics(["f1"], resolve_loss("asymmetric"), own_step=False)["f1"]
    assert value(found, outputs, targets) == pytest.approx(0.5)


def test_pixels_are_counted_as_samples_are():
    masks, maps = TRUE.reshape(1, 2, 3), OUTPUTS.T.reshape(1, 3, 2, 3)
    assert value(F1(), maps, masks) == value(F1())


def test_the_classes_likeliest_k():
    outputs = torch.tensor([[0.1, 0.5, 0.4, 0.0], [0.1, 0.5, 0.4, 0.0], [0.7, 0.1, 0.2, 0.0]])
    targets = torch.tensor([2, 0, 2])
    assert value(TopK(2), outputs, targets) == pytest.approx(2 / 3)
    found = resolve_metrics(["top3"], resolve_loss("cross_entropy"), own_step=False)
    assert value(found["top3"], outputs, targets) == 1.0
    with pytest.raises(ArgumentError, match=r"the metric 'top5' cannot be computed\n  got: outputs \(2, 4\)"):
        value(TopK(5), outputs, targets)


def test_the_calibration_error_is_the_papers():
    # two bins' worth: 4 samples at 0.9 of which 2 are right, 2 at 0.6 of which 2 are right
    sure = torch.tensor([0.9, 0.9, 0.9, 0.9, 0.6, 0.6])
    outputs = torch.stack([sure, 1 - sure], 1).log()
    targets = torch.tensor([0, 0, 1, 1, 0, 0])
    assert value(CalibrationError(), outputs, targets) == pytest.approx((4 * 0.4 + 2 * 0.4) / 6, abs=1e-6)
    assert math.isnan(CalibrationError().compute())


def test_the_temperature_undoes_a_scale_and_lowers_the_error():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 3, generator=generator) * 2
    targets = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    found = fit_temperature(logits * 3, targets)
    assert found == pytest.approx(3, rel=0.05)
    before, after = CalibrationError(), CalibrationError()
    assert value(after, logits * 3 / found, targets, 100) < value(before, logits * 3, targets, 100) / 3
    with pytest.raises(ArgumentError, match="fit_temperature cannot use these tensors"):
        fit_temperature(logits[:, :1], targets)


NAMES = ["top2", "precision", "recall", "f1", "class_accuracy", "ece"]


def test_a_run_that_is_continued_in_an_epoch_has_the_same_figures(tmp_path):
    batches = [(OUTPUTS[n : n + 2], TRUE[n : n + 2]) for n in (0, 2, 4)]

    class Stops(cvkit.Callback):
        def __init__(self, at):
            self.at = at

        def on_batch_end(self, state):
            if state.step == self.at:
                state.request_stop("enough")

    def run(directory, at=None):
        torch.manual_seed(0)
        return cvkit.fit(
            nn.Linear(3, 3), batches, batches, epochs=2, metrics=NAMES, resume=True, device="cpu", progress=False,
            callbacks=[Stops(at), Checkpoint(directory, monitor="val_f1")],
        ).history.rows  # fmt: skip

    whole = run(tmp_path / "whole")
    assert {"train_top2", "val_f1", "train_class_accuracy_2", "val_ece"} <= set(whole[0])
    run(tmp_path / "cut", 4)
    assert str(run(tmp_path / "cut")) == str(whole)  # NaN is not equal to itself


def test_a_metric_of_yours_is_one_registration():
    @cvkit.metrics.register("count_of_a_test")
    class Count:
        name = "count_of_a_test"
        total = 0

        def update(self, outputs, targets):
            self.total += len(outputs)

        def compute(self):
            return self.total

        def reset(self):
            self.total = 0

    found = resolve_metrics(["count_of_a_test"], resolve_loss("mse"), own_step=False)
    assert value(found["count_of_a_test"]) == 6


def test_an_unknown_name_is_answered_with_all():
    with pytest.raises(UnknownNameError, match="did you mean 'auroc'"):
        resolve_metrics(["aurc"], resolve_loss("cross_entropy"), own_step=False)


# --- through torchmetrics


def test_without_torchmetrics_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    monkeypatch.setitem(sys.modules, "torchmetrics.functional", None)
    with pytest.raises(MissingDependencyError) as caught:
        resolve_metrics(["auroc"], resolve_loss("cross_entropy"), own_step=False)
    assert str(caught.value).startswith("the metric 'auroc' needs torchmetrics\n")
    assert "fix: pip install 'cvkit[metrics]'" in str(caught.value)


@pytest.fixture
def stand_in(monkeypatch):
    """Says which function was called with what."""
    called = []

    def function(name):
        return lambda chances, targets, **options: called.append((name, chances, targets, options)) or 0.5

    kinds = ("binary", "multiclass", "multilabel")
    classification = types.SimpleNamespace(**{f"{one}_auroc": function(f"{one}_auroc") for one in kinds})
    functional = types.ModuleType("torchmetrics.functional")
    functional.classification = classification
    monkeypatch.setitem(sys.modules, "torchmetrics", types.ModuleType("torchmetrics"))
    monkeypatch.setitem(sys.modules, "torchmetrics.functional", functional)
    return called


@pytest.mark.parametrize(
    ("loss", "outputs", "targets", "name", "options"),
    [
        ("cross_entropy", OUTPUTS, TRUE, "multiclass_auroc", {"num_classes": 3}),
        ("cross_entropy", OUTPUTS[:, :2], TRUE % 2, "binary_auroc", {}),
        ("bce", OUTPUTS[:, :1], (TRUE % 2).float(), "binary_auroc", {}),
        ("asymmetric", OUTPUTS, OUTPUTS, "multilabel_auroc", {"num_labels": 3}),
    ],
)
def test_torchmetrics_gets_probabilities_of_all_samples_at_once(stand_in, loss, outputs, targets, name, options):
    metric = resolve_metrics(["auroc"], resolve_loss(loss), own_step=False)["auroc"]
    metric.update(outputs[:4], targets[:4])
    other = resolve_metrics(["auroc"], resolve_loss(loss), own_step=False)["auroc"]
    other.load_state_dict(metric.state_dict())
    other.update(outputs[4:], targets[4:])
    assert other.compute() == 0.5
    ((called, chances, given, with_options),) = stand_in
    assert (called, with_options) == (name, options)
    assert len(chances) == len(given) == 6
    assert 0 <= chances.min() <= chances.max() <= 1
    assert torch.equal(given, targets.long())


def test_the_real_torchmetrics_agrees_with_ranks_counted_by_hand():
    pytest.importorskip("torchmetrics")
    outputs, targets = torch.tensor([0.1, 0.9, -0.4, 2.0, 0.3]), torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0])
    metric = resolve_metrics(["auroc"], resolve_loss("bce"), own_step=False)["auroc"]
    assert value(metric, outputs, targets) == pytest.approx(4 / 6)
    precision = resolve_metrics(["average_precision"], resolve_loss("bce"), own_step=False)["average_precision"]
    assert value(precision, outputs, targets) == pytest.approx((1 + 1 + 3 / 5) / 3)
