"""The logged mean of a loss is that of one large batch, whatever the batch size."""

import functools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from cvkit.callbacks import StopOnNaN
from cvkit.errors import CvkitWarning
from cvkit.losses import resolve_loss
from cvkit.training import evaluate, find_lr, fit

COUNT, CLASSES, IGNORE = 53, 5, 255
SIZES = (4, 8, 16, 53)
WEIGHTS = torch.tensor([1.0, 7.0, 0.2, 3.0, 0.05])


def rows(*shape, seed=0):
    """Inputs, and targets of the given shape a sample of which about a third are to be ignored, where a loss ignores any."""
    generator = torch.Generator().manual_seed(seed)
    inputs = 3 * torch.randn(COUNT, 6, *shape, generator=generator)
    targets = torch.randint(0, CLASSES, (COUNT, *shape), generator=generator)
    ignored = torch.rand(targets.shape, generator=generator) < 0.35
    ignored[:4] = False  # a first batch that counts
    return inputs, targets, ignored


class Logits(nn.Module):
    """Log-probabilities of what comes in, a class a channel, from weights that are always the same."""

    def __init__(self):
        super().__init__()
        table = torch.randn(CLASSES, 6, generator=torch.Generator().manual_seed(3))
        self.table = nn.Parameter(table)

    def forward(self, inputs):
        return torch.einsum("ki,ni...->nk...", self.table, inputs).log_softmax(1)


def ways(loss, inputs, targets, dtype):
    """The logged means of training and validation for each batch size, and what the loss itself says of all at once."""
    if isinstance(loss, nn.Module):
        loss.to(dtype)
    inputs = inputs.to(dtype)
    model = Logits().to(dtype)
    fn = resolve_loss(loss).function
    with torch.no_grad():
        whole = float(fn(model(inputs), targets))
    found = []
    for size in SIZES:
        data = DataLoader(TensorDataset(inputs, targets), size)
        row = fit(
            Logits().to(dtype),
            data,
            data,
            epochs=1,
            loss=loss,
            optimizer=lambda p: torch.optim.SGD(p, lr=0.0),
            ignore=("CV501", "CV102", "CV415"),
            metrics=(),
            progress=False,
        ).history[-1]
        found += [row["train_loss"], row["val_loss"]]
        found.append(evaluate(Logits().to(dtype), data, loss=loss, metrics=())["loss"])
    return found, whole


HARD = {
    "by name": ("cross_entropy", -100),
    "nll by name": ("nll", -100),
    "weights": (nn.CrossEntropyLoss(weight=WEIGHTS.clone()), None),
    "ignored": (nn.CrossEntropyLoss(ignore_index=IGNORE), IGNORE),
    "weights, ignored": (nn.CrossEntropyLoss(weight=WEIGHTS.clone(), ignore_index=IGNORE), IGNORE),
    "an ignored class": (nn.CrossEntropyLoss(weight=WEIGHTS.clone(), ignore_index=2), 2),
    "smoothed": (nn.CrossEntropyLoss(label_smoothing=0.1, ignore_index=IGNORE), IGNORE),
    "smoothed, weights": (
        nn.CrossEntropyLoss(weight=WEIGHTS.clone(), label_smoothing=0.1, ignore_index=IGNORE),
        IGNORE,
    ),
    "nll, weights, ignored": (nn.NLLLoss(weight=WEIGHTS.clone(), ignore_index=IGNORE), IGNORE),
    "a partial": (functools.partial(F.cross_entropy, ignore_index=IGNORE, label_smoothing=0.2), IGNORE),
}


@pytest.mark.parametrize(("dtype", "precise"), [(torch.float32, 1e-6), (torch.float64, 1e-12)], ids=["fp32", "fp64"])
@pytest.mark.parametrize("shape", [(), (4, 3)], ids=["classes", "masks"])
@pytest.mark.parametrize("name", HARD)
def test_the_logged_mean_does_not_depend_on_the_batch_size(name, shape, dtype, precise):
    loss, ignore = HARD[name]
    inputs, targets, ignored = rows(*shape)
    if ignore is not None:
        targets = targets.masked_fill(ignored, ignore)
    found, whole = ways(loss, inputs, targets, dtype)
    assert found == pytest.approx([whole] * len(found), rel=precise)


def soft(shape):
    return rows(*shape)[0][:, :CLASSES].softmax(1)


@pytest.mark.parametrize("shape", [(), (4, 3)], ids=["classes", "masks"])
@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss(weight=WEIGHTS.double()), nn.CrossEntropyLoss(label_smoothing=0.1)]
)
def test_soft_targets_count_by_the_sample_as_torch_divides(loss, shape):
    found, whole = ways(loss, rows(*shape)[0], soft(shape).double(), torch.float64)
    assert found == pytest.approx([whole] * len(found), rel=1e-12)


@pytest.mark.parametrize(
    "loss", [nn.KLDivLoss(reduction="batchmean"), functools.partial(F.kl_div, reduction="batchmean")]
)
def test_batchmean_is_a_mean_over_samples(loss):
    found, whole = ways(loss, rows()[0], soft(()).double(), torch.float64)
    assert found == pytest.approx([whole] * len(found), rel=1e-12)


def test_a_sum_and_a_callable_of_ones_own_count_by_the_sample():
    inputs, targets, _ = rows()
    targets[4:9] = -100
    outputs = Logits()(inputs).detach()
    data = DataLoader(TensorDataset(inputs, targets), 8)
    total = evaluate(Logits(), data, loss=nn.CrossEntropyLoss(weight=WEIGHTS, reduction="sum"), metrics=())["loss"]
    assert total == pytest.approx(float(F.cross_entropy(outputs, targets, WEIGHTS, reduction="sum")) / COUNT, rel=1e-6)

    class Focal(nn.CrossEntropyLoss):
        def forward(self, outputs, targets):
            return F.cross_entropy(outputs, targets, self.weight, reduction="none").pow(2).mean()

    for own in (Focal(weight=WEIGHTS), lambda outputs, targets: Focal(weight=WEIGHTS)(outputs, targets)):
        mean = evaluate(Logits(), data, loss=own, metrics=())["loss"]
        assert mean == pytest.approx(float(Focal(weight=WEIGHTS)(outputs, targets)), rel=1e-6)


def test_a_step_of_ones_own_counts_by_its_targets_too():
    inputs, targets, _ = rows()
    loss = nn.CrossEntropyLoss(weight=WEIGHTS.clone())

    def step(model, batch, state):
        outputs = model(batch[0])
        return state.loss_fn(outputs, batch[1]), outputs, batch[1]

    data = DataLoader(TensorDataset(inputs, targets), 4)
    found = evaluate(Logits(), data, loss=loss, step=step, metrics=())["loss"]
    assert found == pytest.approx(float(loss(Logits()(inputs).detach(), targets)), rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [None, WEIGHTS], ids=["plain", "weights"])
@pytest.mark.parametrize("where", [slice(8, 16), slice(45, 53)], ids=["in the middle", "at the end"])
def test_a_batch_in_which_all_is_ignored_counts_nothing(where, weight, smoothing):
    inputs, targets, _ = rows()
    targets[where] = -100
    loss = nn.CrossEntropyLoss(weight=weight, label_smoothing=smoothing)
    data = DataLoader(TensorDataset(inputs, targets), 8 if where.start == 8 else 45)
    model = Logits()
    row = fit(
        model,
        data,
        data,
        epochs=1,
        loss=loss,
        optimizer=lambda p: torch.optim.SGD(p, lr=0.0),
        ignore=("CV501", "CV102", "CV415"),
        progress=False,
        callbacks=[StopOnNaN()],
    )
    assert row.stop_reason == "finished"
    whole = float(loss(Logits()(inputs).detach(), targets))
    assert [row.history[-1]["train_loss"], row.history[-1]["val_loss"]] == pytest.approx([whole, whole], rel=1e-6)
    assert torch.isfinite(model.table).all()


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(weight=WEIGHTS)], ids=["plain", "weights"])
@pytest.mark.parametrize("ignored", [slice(6, 12), slice(0, 6), slice(0, 24)], ids=["inside", "first", "a whole group"])
def test_accumulate_is_one_larger_batch_where_a_part_of_it_counts_nothing(ignored, loss):
    inputs, targets, _ = rows()
    targets[ignored] = -100
    found = []
    for size, accumulate in ((24, 1), (6, 4)):
        model = Logits()
        data = DataLoader(TensorDataset(inputs, targets), size)
        fit(
            model,
            data,
            epochs=2,
            loss=loss,
            optimizer=lambda p: torch.optim.SGD(p, lr=0.1),
            accumulate=accumulate,
            progress=False,
            preflight=False,
        )
        found.append(model.table.detach())
    assert torch.isfinite(found[0]).all()
    assert torch.allclose(*found, rtol=1e-5, atol=1e-6)


def test_where_nothing_at_all_counts_the_mean_is_nan_and_the_first_batch_is_noted():
    inputs, targets, _ = rows()
    data = DataLoader(TensorDataset(inputs, targets.fill_(-100)), 8)
    with pytest.warns(CvkitWarning) as said:
        row = fit(Logits(), data, epochs=1, progress=False, metrics=()).history[-1]
    assert [str(one.message) for one in said] == [
        "CV405: no target of the first batch of train counts: all are ignore_index=-100, or of classes of weight 0; its loss is NaN, "
        "and such a batch counts nothing in the mean and trains nothing"
    ]
    assert math.isnan(row["train_loss"])


def test_bytes_as_targets_are_weighed_by_their_classes():
    targets = torch.tensor([156, 1, 0, 2], dtype=torch.uint8)
    assert resolve_loss("cross_entropy").weigh(targets, 4) == 4
    weigh = resolve_loss(nn.CrossEntropyLoss(weight=WEIGHTS, ignore_index=156)).weigh
    assert float(weigh(targets, 4)) == pytest.approx(float(WEIGHTS[[1, 0, 2]].sum()))


def test_find_lr_weighs_the_batches_of_a_group_alike():
    inputs, targets, ignored = rows()
    inputs, targets = inputs[:48], targets.masked_fill(ignored, -100)[:48]
    curves = [
        find_lr(
            Logits(),
            DataLoader(TensorDataset(inputs, targets), size),
            loss=nn.CrossEntropyLoss(weight=WEIGHTS),
            optimizer="sgd",
            low=1e-6,
            high=1e-2,
            steps=10,
            accumulate=accumulate,
        )
        for size, accumulate in ((16, 1), (4, 4))
    ]
    assert curves[0].losses == pytest.approx(curves[1].losses, rel=1e-5)


def test_accumulate_with_batchmean_is_one_larger_batch():
    inputs, wanted = rows()[0], soft(())
    found = []
    for size, accumulate in ((24, 1), (6, 4)):
        model = Logits()
        data = DataLoader(TensorDataset(inputs, wanted), size)
        fit(
            model,
            data,
            epochs=2,
            loss=nn.KLDivLoss(reduction="batchmean"),
            optimizer=lambda p: torch.optim.SGD(p, lr=0.1),
            accumulate=accumulate,
            progress=False,
        )
        found.append(model.table.detach())
    assert torch.allclose(*found, rtol=1e-5, atol=1e-6)
