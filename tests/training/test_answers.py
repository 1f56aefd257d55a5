"""Wrong use is answered with what arrived, what was expected and what to do, before anything is trained."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, Dataset

from cvkit import seeding
from cvkit.data import FolderDataset, Loader, write_shapes
from cvkit.errors import (
    ArgumentError,
    CvkitWarning,
    DataError,
    DeviceError,
    ModelError,
    PreflightError,
    UnknownNameError,
)
from cvkit.metrics import Accuracy
from cvkit.models import create
from cvkit.training import fit, preflight
from cvkit.transforms import small_image_train

BATCHES = [(torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 1])) for _ in range(2)]


def network(classes=3, channels=3):
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, classes))


class Data(list):
    classes = ("a", "b", "c")


class Silent(nn.Conv2d):
    def forward(self, x):
        super().forward(x)


class Pair:
    train = val = BATCHES


class Samples(Dataset):
    def __init__(self, *sample):
        self.sample = sample

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.sample


class UsedUp:
    def __init__(self):
        self.batches = iter(BATCHES)

    def __len__(self):
        return 2

    def __iter__(self):
        return self.batches


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epochs": 0}, ArgumentError, "epochs cannot be used\n  got: 0\n  expected: an integer of at least 1"),
        ({"epochs": True}, ArgumentError, "epochs cannot be used\n  got: True"),
        ({"epochs": "3"}, ArgumentError, "epochs cannot be used\n  got: '3'"),
        ({"accumulate": 0}, ArgumentError, "accumulate cannot be used\n  got: 0"),
        ({"clip_norm": -1}, ArgumentError, "clip_norm cannot be used\n  got: -1"),
        ({"seed": -1}, ArgumentError, "the seed cannot be used\n  got: -1"),
        ({"lr": float("nan")}, ArgumentError, "lr cannot be used\n  got: nan"),
        ({"train": []}, ArgumentError, "train has no batches\n  got: an empty list"),
        ({"val": []}, ArgumentError, "val has no batches"),
        ({"train": iter(BATCHES)}, ArgumentError, "train is an iterator, which is used up after one epoch"),
        ({"train": (batch for batch in BATCHES)}, ArgumentError, "train is an iterator"),
        ({"train": 3}, ArgumentError, "train cannot be iterated\n  got: int"),
        ({"train": {1, 2}.__iter__}, ArgumentError, "train cannot be iterated"),
        ({"train": "data/train"}, ArgumentError, "(?s)train cannot be iterated.*'data/train'.*from_folder"),
        ({"train": Pair()}, ArgumentError, "(?s)train cannot be iterated.*got: Pair.*data.train, data.val"),
        ({"model": nn.Linear}, ArgumentError, "model cannot be trained\n  got: the class Linear"),
        (
            {"loss": "cross_entropie"},
            UnknownNameError,
            r"unknown loss 'cross_entropie'(\n.*)*did you mean 'cross_entropy'",
        ),
        ({"loss": nn.MSELoss}, ArgumentError, "loss cannot be used\n  got: the class MSELoss"),
        (
            {"loss": nn.CrossEntropyLoss(reduction="none")},
            ArgumentError,
            "CrossEntropyLoss does not reduce to one number",
        ),
        ({"optimizer": "adamv"}, UnknownNameError, "unknown optimizer 'adamv'"),
        (
            {"optimizer": lambda params: SGD(params, lr=0.1), "lr": 0.1},
            ArgumentError,
            "lr has no effect beside an optimizer",
        ),
        ({"optimizer": SGD(nn.Linear(2, 2).parameters())}, ArgumentError, "SGD holds no parameter of the model"),
        ({"schedule": "cosin"}, UnknownNameError, r"unknown schedule 'cosin'(\n.*)*did you mean 'cosine'"),
        (
            {"schedule": StepLR(SGD(nn.Linear(2, 2).parameters()), 1)},
            ArgumentError,
            r"(?s)ready-made scheduler.*LRSchedule",
        ),
        ({"metrics": "acuracy"}, UnknownNameError, r"unknown metric 'acuracy'(\n.*)*did you mean 'accuracy'"),
        ({"metrics": [Accuracy]}, ArgumentError, "the metric 'accuracy' cannot be used\n  got: the class Accuracy"),
        ({"metrics": ["accuracy", Accuracy()]}, ArgumentError, "two metrics are called 'accuracy'"),
        ({"callbacks": "tensorboard"}, ArgumentError, "callbacks cannot be used\n  got: str"),
        ({"device": "cuda:7"}, DeviceError, "the device 'cuda:7' is not there"),
        ({"device": "gpu"}, UnknownNameError, "unknown device 'gpu'"),
        ({"precision": "fp8"}, UnknownNameError, "unknown precision 'fp8'"),
        (
            {"model": nn.Sequential(nn.Flatten(), nn.LazyLinear(3))},
            ModelError,
            "the parameter 1.weight has no shape yet",
        ),
        ({"model": network().requires_grad_(False)}, ArgumentError, "the model has nothing to train"),
        ({"train": UsedUp(), "preflight": False, "epochs": 2}, DataError, "train gave no batch in epoch 2"),
        (
            {"model": network(2)},
            PreflightError,
            r"(?s)the model has 2 outputs and the targets of train need 3.*num_classes=3",
        ),
        (
            {"model": network(2), "train": Data([(BATCHES[0][0], BATCHES[0][1] % 2)])},
            PreflightError,
            "need 3\n.*3 classes in the data",
        ),
        (
            {"model": network(channels=1)},
            PreflightError,
            r"(?s)the forward fails in layer '0' \(Conv2d\) on the first batch of train.*\(4, 3, 8, 8\).*in_channels=3, "
            r"or load images with 1 channel \(channels=1 in a preset of cvkit.transforms\)$",
        ),
        (
            {"train": [(torch.randn(4, 3, 9, 9), BATCHES[0][1])]},
            PreflightError,
            r"(?s)the forward fails in layer '4' \(Linear\).*in_features=196",
        ),
        (
            {
                "model": nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.BatchNorm1d(8)),
                "train": [(BATCHES[0][0][:1], BATCHES[0][1][:1])],
            },
            PreflightError,
            r"(?s)layer '2' \(BatchNorm1d\).*batch norm needs more than one sample",
        ),
        (
            {"train": [(torch.ones(4, 3, 8, 8, dtype=torch.uint8), BATCHES[0][1])]},
            PreflightError,
            "the inputs of train are integers",
        ),
        ({"train": [BATCHES[0][0]]}, PreflightError, r"a batch of train is not \(inputs, targets\)\n  got: Tensor"),
        ({"train": BATCHES[0]}, PreflightError, r"(?s)got: Tensor, float32 \(4, 3, 8, 8\).*TensorDataset\(inputs"),
        *(
            ({"train": Samples(inputs, target)}, PreflightError, "(?s)train gives single samples.*got: Samples.*Loader")
            for inputs, target in (
                (Image.new("RGB", (8, 8)), 1),
                (torch.ones(3, 8, 8), 1),
                (torch.ones(3, 8, 8), torch.tensor(1)),
            )
        ),
        (
            {"train": [(BATCHES[0][0].numpy(), BATCHES[0][1].numpy())]},
            PreflightError,
            r"(?s)are NumPy arrays.*torch\.from_numpy",
        ),
        (
            {"train": [(torch.from_numpy(np.ones((4, 3, 8, 8))), BATCHES[0][1])]},
            PreflightError,
            r"(?s)layer '0' \(Conv2d\).*expected: float32, as its weights are.*inputs\.float\(\)",
        ),
        (
            {"train": [(BATCHES[0][0].permute(0, 2, 3, 1), BATCHES[0][1])]},
            PreflightError,
            r"(?s)layer '0' \(Conv2d\).*inputs\.permute\(0, 3, 1, 2\)",
        ),
        (
            {"train": [(BATCHES[0][0], BATCHES[0][1].int())]},
            PreflightError,
            r"(?s)targets int32.*targets\.long\(\)",
        ),
        (
            {"train": [(BATCHES[0][0], nn.functional.one_hot(BATCHES[0][1], 3))]},
            PreflightError,
            r"(?s)do not fit each other.*look one-hot: pass targets\.argmax\(1\)",
        ),
        (
            {"train": [(BATCHES[0][0], torch.zeros(4, 8, 8, dtype=torch.int64))]},
            PreflightError,
            "(?s)do not fit each other.*the targets are masks",
        ),
        (
            {"model": nn.Conv2d(3, 3, 1)},
            PreflightError,
            "(?s)do not fit each other.*pool or flatten before its last layer",
        ),
        (
            {"train": [(BATCHES[0][0], torch.tensor([1, 2, 3, 1]))]},
            PreflightError,
            "(?s)num_classes=4; or, if the classes are counted from 1, subtract 1",
        ),
        ({"loss": "bce"}, PreflightError, '(?s)would be broadcast.*take loss="cross_entropy" for class indices'),
        ({"model": Silent(3, 3, 1)}, PreflightError, "(?s)outputs: NoneType.*end the model's forward with return"),
        (
            {"train": [{"x": BATCHES[0][0]}]},
            PreflightError,
            "a batch of train is not .*\n  got: dict of 1\n.*\n  fix: pass step=",
        ),
        (
            {"train": [(BATCHES[0][0], torch.rand(4))]},
            PreflightError,
            "the targets of train do not fit a classification loss",
        ),
        (
            {"train": [(BATCHES[0][0], BATCHES[0][1][:, None])]},
            PreflightError,
            r"(?s)do not fit each other.*squeeze the targets",
        ),
        (
            {"train": [(BATCHES[0][0], BATCHES[0][1] - 1)]},
            PreflightError,
            r"(?s)class indices from -1 to 1.*count the classes from 0",
        ),
        (
            {"train": [(BATCHES[0][0] * torch.nan, BATCHES[0][1])]},
            PreflightError,
            "the loss of the first batch of train is nan",
        ),
        (
            {"model": network(1), "loss": nn.MSELoss(), "train": [(BATCHES[0][0], torch.rand(4))]},
            PreflightError,
            "would be broadcast against each other: the loss would be silently wrong",
        ),
        (
            {"model": network(2), "loss": "mse", "train": [(BATCHES[0][0], torch.rand(4))]},
            PreflightError,
            "would be broadcast",
        ),
        ({"step": lambda model, batch, state: model(batch[0])}, PreflightError, "your step does not give one number"),
        (
            {"step": lambda model, batch, state: model(batch[0]).mean().detach()},
            PreflightError,
            "no parameter has a part in",
        ),
        (
            {"step": lambda model, batch, state: model(batch[0]).mean(), "metrics": "accuracy"},
            PreflightError,
            r"the metrics accuracy have nothing to look at",
        ),
    ],
)
def test_wrong_use_is_answered(options, error, message):
    arguments = {"model": network(), "train": BATCHES, "epochs": 1, "progress": False, **options}
    with pytest.raises(error, match=message):
        fit(arguments.pop("model"), arguments.pop("train"), arguments.pop("val", None), **arguments)


def test_classes_that_are_numbered_differently_are_refused():
    train, val = Data(BATCHES), Data(BATCHES)
    val.classes = ("b", "a", "c")
    with pytest.raises(PreflightError, match="train and val number their classes differently"):
        fit(network(), train, val, epochs=1, progress=False)


def test_preflight_leaves_no_trace():
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model[1].eval()
    random = seeding.capture()
    assert preflight(model, BATCHES, BATCHES) == []
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert model.training
    assert not model[1].training
    assert torch.equal(random["torch"], seeding.capture()["torch"])


def test_what_is_suspicious_but_works_is_a_note():
    ending = nn.Sequential(network(), nn.Softmax(1))
    assert preflight(ending, BATCHES).codes == ["CV311"]

    assert preflight(network(3), Data(BATCHES)) == []
    assert [str(one) for one in preflight(network(9), Data(BATCHES))] == [
        "CV306: the model has 9 outputs and the data 3 classes\n  fix: build the model with num_classes=3"
    ]

    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = network(), nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    (found,) = preflight(Unused(), BATCHES)
    assert str(found).startswith("CV601: spare.weight, spare.bias took no part in the loss and will not be trained")
    model = Unused()
    model.spare.requires_grad_(False)
    with pytest.warns(CvkitWarning, match=r"no optimizer holds used\.0\.weight"):
        fit(model, BATCHES, epochs=1, progress=False, optimizer=lambda p: SGD(p[4:], lr=0.1))


def test_an_optimizer_is_named_without_its_settings():
    model = network()
    with pytest.raises(ArgumentError, match=r"got: lr=0\.01 and an optimizer SGD\n"):
        fit(model, BATCHES, epochs=1, optimizer=SGD(model.parameters(), lr=0.1), lr=0.01)


def test_a_result_is_shown_in_one_line():
    result = fit(network(), BATCHES, epochs=1, progress=False)
    assert repr(result) == (
        "FitResult(History(1 epoch: epoch, step, train_loss, train_accuracy, lr), model=Sequential, epochs=1, steps=2, "
        "stop_reason='finished')"
    )


def test_an_optimizer_that_wants_a_closure_is_refused_before_it_fails():
    model = nn.Linear(3, 2)
    with pytest.raises(ArgumentError) as caught:
        fit(
            model,
            [(torch.zeros(2, 3), torch.tensor([0, 1]))],
            epochs=1,
            optimizer=torch.optim.LBFGS(model.parameters()),
        )
    assert str(caught.value) == (
        "the optimizer LBFGS cannot be used\n"
        "  got: a step() that needs a closure, to compute the loss several times an update\n"
        "  expected: an optimizer whose step() follows one backward pass\n"
        "  fix: take another, or write its loop by hand around a cvkit.data.Loader"
    )


def test_training_samples_that_come_class_by_class_are_noted(tmp_path):
    data = FolderDataset(write_shapes(tmp_path, per_class=6, size=16))
    transform = small_image_train(16)
    said = (
        "the training samples come class by class: the dataset is in the order of its classes, and the loader does not "
        "shuffle"
    )
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3))

    def notes(train, **how):
        return [one.what for one in preflight(linear, train, **how) if one.code == "CV102"]

    assert notes(Loader(data, 4, transform=transform)) == [said]
    listed = Listed(torch.zeros(18, 3 * 16 * 16), data.targets)
    assert notes(torch.utils.data.DataLoader(listed, 4)) == [said]
    assert notes(Loader(data, 4, transform=transform, shuffle=True)) == []
    assert notes(Loader(data, 4, transform=transform, weights="balanced")) == []
    assert notes(Loader(data, 18, transform=transform)) == []  # all of it is in one batch
    assert notes(torch.utils.data.DataLoader(listed, 4, shuffle=True)) == []
    mixed = Listed(listed.inputs, [0, 1, 2] * 6)
    assert notes(torch.utils.data.DataLoader(mixed, 4)) == []
    assert preflight(linear, Loader(data, 4, transform=transform), step=_four_turns) == []
    named = Listed(torch.zeros(6, 3 * 16 * 16), ["a", "a", "b", "b", "c", "c"])
    assert notes(Loader(named, 2, classes=["a", "b", "c"])) == [said]
    assert notes(Loader(named, 2, classes=["a", "b", "c"], shuffle=True)) == []
    with pytest.warns(CvkitWarning, match="come class by class"):
        fit(linear, Loader(data, 4, transform=transform), epochs=1, progress=False)


def _four_turns(model, batch, state):
    """Targets of its own, of more classes than the data have."""
    outputs = model(batch[0])
    return state.loss_fn(torch.cat([outputs, outputs], 1), torch.full((len(outputs),), 5))


class Listed:
    """Samples with a list of their targets, as torchvision's datasets have it."""

    def __init__(self, inputs, targets):
        self.inputs, self.targets = inputs, list(targets)

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return self.inputs[index], self.targets[index]


@pytest.mark.parametrize(
    ("name", "torchs"), [("adadelta", "Adadelta"), ("NAdam", "NAdam"), ("r_adam", "RAdam"), ("adafactor", "Adafactor")]
)
def test_an_optimizer_of_torchs_that_is_not_built_in_is_answered_with_how_it_goes_in(name, torchs):
    with pytest.raises(UnknownNameError) as caught:
        fit(network(), BATCHES, epochs=1, optimizer=name, progress=False)
    assert str(caught.value) == (
        f"unknown optimizer {name!r}\n"
        f"  got: a name of torch.optim.{torchs}, which is not built in\n"
        "  expected: one of: adagrad, adam, adamw, momentum, muon, nesterov, rmsprop, sgd; or a factory params -> Optimizer\n"
        f"  fix: optimizer=lambda p: torch.optim.{torchs}(p, lr=…), and leave lr out"
    )


@pytest.mark.parametrize("name", ["LBFGS", "Optimizer", "swa_utils", "Adam", "sparseadam"])
def test_what_cannot_train_an_ordinary_model_is_not_suggested(name):
    with pytest.raises(UnknownNameError) as caught:
        fit(network(), BATCHES, epochs=1, optimizer=name, progress=False)
    assert "torch.optim" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "built", "inputs", "fix"),
    [
        ("lenet5", {"in_channels": 1}, (4, 1, 32, 32), "create('lenet5', …, size=32); it was built with size=28"),
        (
            "lenet5",
            {"in_channels": 1, "size": (32, 24)},
            (4, 1, 28, 20),
            "create('lenet5', …, size=(28, 20)); it was built with size=(32, 24)",
        ),
        (
            "mlp",
            {},
            (4, 1, 28, 28),
            "create('mlp', …, in_channels=1, size=28); it was built with in_channels=3, size=32",
        ),
        ("mlp", {}, (4, 7), "create('mlp', …, in_features=7); it was built for images"),
        ("linear", {"in_features": 5}, (4, 7), "create('linear', …, in_features=7); it was built with in_features=5"),
        ("cnn_mnist", {"in_channels": 1}, (4, 1, 20, 20), "create('cnn_mnist', …, size=20); it was built with size=28"),
        ("cifar_quick", {"size": 16}, (4, 3, 32, 32), "create('cifar_quick', …, size=32); it was built with size=16"),
        (
            "unet",
            {"width": 2, "depth": 1},
            (4, 1, 8, 8),
            "create('unet', …, in_channels=1); it was built with in_channels=3",
        ),
        ("resnet18", {}, (4, 1, 32, 32), "create('resnet18', …, in_channels=1); it was built with in_channels=3"),
    ],
)
def test_a_built_in_model_for_other_inputs_is_answered_with_its_builders_argument(name, built, inputs, fix):
    model = create(name, num_classes=3, **built)
    (found,) = preflight(model, [(torch.randn(inputs), torch.tensor([0, 1, 2, 0]))])
    assert found.fix == f"build the model for these inputs: {fix}"


def test_a_mean_over_the_batch_goes_in_and_outputs_that_would_be_broadcast_do_not():
    inputs, wanted = torch.randn(8, 3, 8, 8), torch.rand(8, 3).softmax(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3), nn.LogSoftmax(1))
    loss = nn.KLDivLoss(reduction="batchmean")
    result = fit(model, [(inputs, wanted)], epochs=1, loss=loss, progress=False)
    assert list(result.history[0]) == ["epoch", "step", "train_loss", "lr"]
    assert preflight(model, [(inputs, wanted[:, :1])], loss=loss).codes == ["CV302"]
    with pytest.raises(ArgumentError) as caught:
        fit(model, [(inputs, wanted)], epochs=1, loss=nn.KLDivLoss(reduction="none"), progress=False)
    assert str(caught.value) == (
        "the loss KLDivLoss does not reduce to one number\n"
        "  got: reduction='none'\n"
        '  expected: reduction="mean", "batchmean" (of nn.KLDivLoss) or "sum"\n'
        "  fix: leave reduction out, or weigh the samples in your own step"
    )


def test_labels_that_are_text_are_answered_with_what_to_write():
    samples = [(torch.randn(3, 8, 8), label) for label in ("dog", "cat", "dog")]
    with pytest.raises(PreflightError) as caught:
        fit(network(2), DataLoader(samples, batch_size=3), epochs=1, progress=False)
    assert str(caught.value) == (
        "CV203: the targets of train are labels as text\n  got: 'dog', 'cat', 'dog'\n  expected: the number of each sample's class\n"
        "  fix: number them: in the dataset, with classes=['cat', 'dog'] for all classes, return classes.index(label) instead "
        "of the label; or take cvkit.data.Loader(dataset, batch_size=…, classes=['cat', 'dog']), which numbers them"
    )
    with pytest.raises(PreflightError, match=r"fix: number them: with classes=\['cat', 'dog'\] for all"):
        fit(network(2), [(torch.randn(3, 3, 8, 8), ["dog", "cat", "dog"])], epochs=1, progress=False)
