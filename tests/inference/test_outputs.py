"""What a model's outputs are, as its run tells: classes, several at a time, values, images."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import cvkit
from cvkit.errors import ArgumentError, CheckpointError, ModelError
from cvkit.inference.outputs import Reader, task_of_run

PIXELS = np.zeros((8, 8, 3), np.uint8)
EVAL = cvkit.transforms.small_image_eval(8)


def arrays(targets, classes=None, batch_size=4):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (len(targets), 8, 8, 3), dtype=np.uint8)
    dataset = cvkit.data.ArrayDataset(images, np.asarray(targets), classes=classes)
    return images, cvkit.data.Loader(dataset, batch_size, transform=EVAL)


def test_a_regression_gives_values(trained, tmp_path):
    images, loader = arrays(np.linspace(0, 1, 8))
    model = cvkit.models.create("linear", num_classes=1, size=8)
    predictor = cvkit.load(trained(tmp_path, model, loader, loss="mse"), device="cpu")
    found = predictor.predict(list(images))
    wanted = cvkit.predict(model, loader, device="cpu")
    assert torch.equal(found.outputs, wanted)
    assert [one.value for one in found] == wanted.flatten().tolist()
    assert found.rows[0] == {"path": None, "value": found[0].value}
    assert repr(found[0]) == f"Prediction(value={found[0].value:.4g})"
    with pytest.raises(
        ArgumentError, match="this prediction has no label\n  got: the prediction of a model for regression"
    ):
        found[0].label  # noqa: B018


def test_several_values_are_numbered(fixed):
    one = fixed([1.0, 2.0, 4.0], classes=None).predict([PIXELS])
    assert one[0].outputs.tolist() == [1.0, 2.0, 4.0]
    assert one.rows == [{"path": None, "value_0": 1.0, "value_1": 2.0, "value_2": 4.0}]
    assert repr(one[0]) == "Prediction(outputs=(3,))"
    with pytest.raises(
        ArgumentError, match=r"this prediction is no single value\n  got: regression with outputs of shape \(3,\)"
    ):
        one[0].value  # noqa: B018


def test_a_regression_over_folders_has_no_label_either(trained, tmp_path, photos):
    data = cvkit.data.from_folder(photos, size=32, batch_size=4)
    model = cvkit.models.create("test_classifier", num_classes=1)
    predictor = cvkit.load(trained(tmp_path, model, data.train, data.val, loss="mse"), device="cpu")
    assert isinstance(predictor.predict(photos / "val")[0].value, float)


def test_one_output_for_two_classes_is_a_logit_of_the_second(trained, tmp_path):
    images, loader = arrays([0, 1] * 4, ["no", "yes"])
    model = cvkit.models.create("linear", num_classes=1, size=8)
    predictor = cvkit.load(trained(tmp_path, model, loader, loss="bce"), device="cpu")
    found = predictor.predict(list(images))
    second = cvkit.predict(model, loader, device="cpu").sigmoid().flatten()
    assert torch.equal(found.probabilities[:, 1], second)
    assert found.labels == ["yes" if one > 0.5 else "no" for one in second]
    assert found[0].task == "classification"


def test_classes_that_were_trained_each_for_itself_have_probabilities_each_for_itself(trained, tmp_path):
    targets = np.eye(3)[np.arange(8) % 3]
    images, loader = arrays(targets, ["a", "b", "c"])
    model = cvkit.models.create("linear", num_classes=3, size=8)
    predictor = cvkit.load(trained(tmp_path, model, loader, loss="bce"), device="cpu")
    found = predictor.predict(list(images))
    assert found[0].task == "multilabel"
    assert torch.equal(found.probabilities, cvkit.predict(model, loader, device="cpu").sigmoid())


def test_a_model_trained_on_probabilities_gives_some(trained, tmp_path):
    images, loader = arrays([0.0, 1.0] * 4, ["no", "yes"])

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = cvkit.models.create("linear", num_classes=1, size=8)

        def forward(self, inputs):
            return self.inner(inputs).sigmoid().flatten()

    model = Own()
    path = trained(tmp_path, model, loader, loss=nn.BCELoss(), step=None, metrics=[], lr=1e-4)
    predictor = cvkit.load(path, model=model, device="cpu")
    assert torch.equal(predictor.predict(list(images)).probabilities[:, 1], cvkit.predict(model, loader, device="cpu"))


def test_log_probabilities_become_probabilities(fixed):
    one = fixed(torch.tensor([0.2, 0.3, 0.5]).log().tolist()).predict(PIXELS)
    assert one.scores.tolist() == pytest.approx([0.2, 0.3, 0.5])


def test_probabilities_are_taken_as_they_are_where_it_is_said(fixed):
    one = fixed([0.25, 0.25, 0.5], outputs="probabilities").predict(PIXELS)
    assert one.scores.tolist() == [0.25, 0.25, 0.5]


def test_images_come_back_as_images(trained, tmp_path, photos):
    transform = cvkit.transforms.denoise(16, noise=0.2)
    loader = cvkit.data.Loader(cvkit.data.FolderDataset(photos / "val"), 4, transform=transform)
    model = cvkit.models.create("test_segmenter", num_classes=3)
    predictor = cvkit.load(trained(tmp_path, model, loader, loader, loss="mse"), device="cpu")
    assert predictor.transform.noise == 0, "images to be restored are noisy as they are"
    one = predictor.predict(photos / "val")[0]
    assert (one.task, one.image.size, one.image.mode) == ("reconstruction", (16, 16), "RGB")
    assert one.outputs.shape == (3, 16, 16)
    levels = (one.outputs.clamp(0, 1) * 255).round().to(torch.uint8)
    assert torch.equal(torch.from_numpy(np.array(one.image)).movedim(-1, 0), levels)
    assert repr(one) == "Prediction(image=16×16)"
    assert one.row() == {"path": str(one.path), "height": one.size[0], "width": one.size[1]}


def test_a_grey_image_from_flat_outputs_is_one_too(fixed):
    transform = cvkit.transforms.denoise(8, mean=(0,), std=(1,))
    one = fixed(lambda inputs: inputs.flatten(1), classes=None, transform=transform, task="reconstruction").predict(
        PIXELS + 255
    )
    assert (one.image.size, one.image.mode) == ((8, 8), "L")
    assert np.asarray(one.image).min() == 255


def test_what_is_no_image_has_none(fixed):
    one = fixed(lambda inputs: inputs[:, :, :4], classes=None).predict(PIXELS)
    assert one.outputs.shape == (3, 4, 8)
    assert not hasattr(one, "image")


def test_grey_models_get_grey(trained, tmp_path, drawn):
    images = np.random.default_rng(0).integers(0, 256, (8, 28, 28), dtype=np.uint8)
    loader = cvkit.data.Loader(
        cvkit.data.ArrayDataset(images, np.arange(8) % 2), 4, transform=cvkit.transforms.digits_train()
    )
    model = cvkit.models.create("lenet5", num_classes=2, in_channels=1)
    predictor = cvkit.load(trained(tmp_path, model, loader), device="cpu")
    twin = cvkit.data.Loader(loader.dataset, 4, transform=cvkit.transforms.digits_eval())
    assert torch.equal(predictor.predict(list(images)).outputs, cvkit.predict(model, twin, device="cpu"))
    assert torch.equal(
        predictor.predict(torch.from_numpy(images)[:, None]).outputs, predictor.predict(list(images)).outputs
    )


@pytest.mark.parametrize(
    ("loss", "kind", "preset", "classes", "task"),
    [
        ("cross_entropy", None, "small_image_eval", ["a"], "auto"),
        ("cross_entropy", "text", "small_image_eval", ["a"], "auto"),
        ("cross_entropy", "mask", "segmentation_eval", ["a"], "segmentation"),
        ("mse", "image", "denoise", None, "reconstruction"),
        ("mse", None, "denoise", ["a"], "reconstruction"),
        ("mse", None, "small_image_eval", ["a"], "regression"),
        ("SmoothL1Loss", None, "small_image_eval", ["a"], "regression"),
        ("huber_loss", None, None, None, "auto"),
        ("bce", None, "small_image_eval", ["a", "b"], "multilabel"),
        ("BCEWithLogitsLoss", None, None, ["a", "b"], "multilabel"),
        ("own", None, None, ["a"], "auto"),
        (None, None, None, None, "auto"),
    ],
)
def test_the_task_is_told_from_what_a_checkpoint_knows(loss, kind, preset, classes, task):
    assert task_of_run(loss, kind, preset, classes) == task


@pytest.mark.parametrize(
    ("classes", "shape", "task"),
    [
        (None, (2, 3), "regression"),
        (None, (2,), "regression"),
        (None, (2, 3, 4, 4), "reconstruction"),
        ("abc", (2, 3), "classification"),
        ("abc", (2, 3, 1, 1), "classification"),
        ("abc", (2, 3, 4, 4), "segmentation"),
        ("ab", (2, 1), "classification"),
        ("ab", (2,), "classification"),
        ("ab", (2, 1, 4, 4), "segmentation"),
    ],
)
def test_the_task_is_told_from_the_shape_of_the_outputs(classes, shape, task):
    reader = Reader("auto", tuple(classes) if classes else None)
    outputs = torch.randn(shape)
    assert reader.task_of(outputs) == task
    scores = reader.scores(outputs, task)
    assert (
        scores.shape == (2, len(classes), *shape[2:])[: 4 if task == "segmentation" else 2]
        if classes
        else outputs.shape
    )


def test_a_classification_without_class_names_asks_for_them(trained, tmp_path):
    class Nameless:
        deterministic = True

        def __len__(self):
            return 4

        def __getitem__(self, index):
            from PIL import Image

            return Image.new("RGB", (8, 8)), index % 2

    loader = cvkit.data.Loader(Nameless(), 2, transform=EVAL)
    path = trained(tmp_path, cvkit.models.create("linear", num_classes=2, size=8), loader)
    with pytest.raises(CheckpointError) as caught:
        cvkit.load(path)
    assert str(caught.value) == (
        f"{path} does not describe its classes\n"
        "  got: a run whose classes are not known to its train loader\n"
        "  expected: a run of a model made by cvkit.models.create, on a cvkit loader with classes and a preset\n"
        "  fix: pass it: cvkit.load(path, classes=…)"
    )
    assert cvkit.load(path, classes=["x", "y"], device="cpu").predict(PIXELS).label in "xy"
    assert cvkit.load(path, task="regression", device="cpu").predict(PIXELS).outputs.shape == (2,)


@pytest.mark.parametrize("use", ["predict", "export"])
def test_a_preprocessing_of_another_size_than_the_models_is_told(use, tmp_path):
    model = cvkit.models.create("lenet5", num_classes=3, in_channels=1)
    other = cvkit.Predictor(model, ["a", "b", "c"], cvkit.transforms.digits_eval(20), device="cpu")
    said = r"^the model fails on what the preprocessing makes of an image\n  got: RuntimeError: .*; inputs float32 \(\d, 1, 20, 20\)\n"
    with pytest.raises(ModelError, match=said):
        other.predict(Image.new("L", (9, 9))) if use == "predict" else other.export(tmp_path / "a.pt2")
