"""Losses by name: the papers' formulas, torch's and other libraries' figures, and what is known of their outputs."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import cvkit
from cvkit.losses import focal, losses, resolve_loss
from cvkit.outputs import OutputSpec

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(6, 4, generator=GENERATOR)
CLASSES = torch.tensor([0, 3, 1, 2, 3, 0])
LABELS = (torch.rand(6, 4, generator=GENERATOR) > 0.5).float()


def test_label_smoothing_is_torchs():
    theirs = nn.CrossEntropyLoss(label_smoothing=0.1)(LOGITS, CLASSES)
    assert torch.equal(losses.get("label_smoothing")(LOGITS, CLASSES), theirs)
    other = resolve_loss(functools.partial(F.cross_entropy, label_smoothing=0.3))
    assert torch.equal(other.function(LOGITS, CLASSES), nn.CrossEntropyLoss(label_smoothing=0.3)(LOGITS, CLASSES))
    assert other.spec == OutputSpec("classification", "softmax")


def test_the_focal_loss_is_the_papers():
    chance = LOGITS.softmax(1)[range(6), CLASSES]
    assert focal(LOGITS, CLASSES).item() == pytest.approx((-((1 - chance) ** 2) * chance.log()).mean().item())
    assert focal(LOGITS, CLASSES, gamma=0.0).item() == pytest.approx(F.cross_entropy(LOGITS, CLASSES).item())
    # of two classes it is torchvision's without its balance
    from torchvision.ops import sigmoid_focal_loss

    two, truth = LOGITS[:, :2], CLASSES % 2
    theirs = sigmoid_focal_loss(two[:, 1] - two[:, 0], truth.float(), alpha=-1, gamma=2, reduction="mean")
    assert focal(two, truth).item() == pytest.approx(theirs.item(), rel=1e-5)


def test_what_is_left_out_weighs_nothing():
    masked = CLASSES.clone()
    masked[2:4] = -100
    kept = masked != -100
    for name in ("focal", "label_smoothing"):
        loss = resolve_loss(name)
        assert loss.weigh(masked, 6) == 4
        whole, part = loss.function(LOGITS, masked), loss.function(LOGITS[kept], masked[kept])
        assert whole.item() == pytest.approx(part.item(), rel=1e-6)


def test_the_binary_focal_loss_aligns_one_output_a_sample():
    truth = CLASSES % 2
    assert torch.equal(
        losses.get("binary_focal")(LOGITS[:, :1], truth), losses.get("binary_focal")(LOGITS[:, 0], truth.float())
    )


def test_the_asymmetric_loss_is_the_authors_over_all_labels():
    timm = pytest.importorskip("timm.loss")
    theirs = (
        timm.AsymmetricLossMultiLabel(gamma_neg=4, gamma_pos=0, clip=0.05)(LOGITS, LABELS) / 4
    )  # a mean over samples
    assert losses.get("asymmetric")(LOGITS, LABELS).item() == pytest.approx(theirs.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "task", "activation"),
    [
        ("label_smoothing", "classification", "softmax"),
        ("focal", "classification", "softmax"),
        ("binary_focal", "binary", "sigmoid"),
        ("asymmetric", "multilabel", "sigmoid"),
    ],
)
def test_each_says_what_its_outputs_are(name, task, activation):
    assert resolve_loss(name).spec == OutputSpec(task, activation)


@pytest.mark.parametrize(
    ("name", "targets"),
    [("label_smoothing", CLASSES), ("focal", CLASSES), ("asymmetric", LABELS), ("binary_focal", LABELS)],
)
def test_fit_trains_by_it_and_parts_of_a_batch_are_the_whole(name, targets):
    def trained(size, accumulate):
        torch.manual_seed(0)
        model = nn.Linear(4, 4)
        batches = [(LOGITS[i : i + size], targets[i : i + size]) for i in range(0, 6, size)]
        cvkit.fit(
            model,
            batches,
            epochs=3,
            loss=name,
            optimizer="sgd",
            lr=0.5,
            accumulate=accumulate,
            device="cpu",
            progress=False,
        )
        return model.weight

    assert torch.allclose(trained(6, 1), trained(2, 3), atol=1e-6)


def test_a_loss_of_yours_is_one_registration():
    @cvkit.register_loss("log_cosh_of_a_test", task="regression", activation="none")
    def log_cosh(outputs, targets):
        return (outputs - targets).cosh().log().mean()

    loss = resolve_loss("log_cosh_of_a_test")
    assert loss.function is log_cosh
    assert loss.spec == OutputSpec("regression", "none")
