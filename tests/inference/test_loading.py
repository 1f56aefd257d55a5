"""From a checkpoint file alone, in another process; and what is missing is named."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import cvkit
from cvkit.callbacks import EMA, Checkpoint
from cvkit.errors import CheckpointError


def test_the_file_is_all_that_another_process_needs(photos, trained, tmp_path):
    data = cvkit.data.from_folder(photos, size=32, batch_size=4)
    model = cvkit.models.create("cifar_quick", num_classes=3)
    path = trained(tmp_path, model, data.train, data.val)
    code = f"""
import torch; torch.set_num_threads(1)
import cvkit
found = cvkit.load({str(path)!r}, device="cpu").predict({str(photos / "val")!r})
print(found.outputs.flatten().tolist(), found.labels)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = cvkit.predict(model, data.val, device="cpu")
    labels = [data.classes[one] for one in found.argmax(1)]
    assert done.stdout == f"{found.flatten().tolist()} {labels}\n"


def test_averaged_weights_are_those_that_predict(photos, trained, tmp_path):
    from cvkit.callbacks import Checkpoint

    data = cvkit.data.from_folder(photos, size=32, batch_size=4)
    model = cvkit.models.create("test_classifier", num_classes=3)
    path = tmp_path / "last.pt"
    result = cvkit.fit(
        model,
        data.train,
        data.val,
        epochs=1,
        lr=0.1,
        callbacks=[EMA(0.9), Checkpoint(tmp_path, monitor=None)],
        device="cpu",
        progress=False,
        preflight=False,
    )
    predictor = cvkit.load(path, device="cpu")
    outputs = predictor.predict(photos / "val").outputs
    targets = torch.tensor(data.val.dataset.targets)
    mine = cvkit.evaluate(nn.Identity(), list(zip(outputs.split(4), targets.split(4), strict=True)), device="cpu")
    assert mine["loss"] == result.history["val_loss"][-1]


def foreign(tmp_path, trained, model=None):
    torch.manual_seed(0)
    loader = DataLoader(TensorDataset(torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 0, 1])), 2)
    model = model or cvkit.models.create("linear", num_classes=2, size=8)
    return trained(tmp_path, model, loader), model


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(192, 2)

    def forward(self, inputs):
        return self.inner(inputs.flatten(1))


@pytest.mark.parametrize(
    ("model", "missing", "why"),
    [
        (None, "transform", "is no preset of cvkit.transforms"),
        (Own(), "model", "was not made by cvkit.models.create"),
    ],
)
def test_what_a_run_cannot_tell_is_asked_for(trained, tmp_path, model, missing, why):
    path, _ = foreign(tmp_path, trained, model)
    with pytest.raises(CheckpointError) as caught:
        cvkit.load(path)
    assert str(caught.value) == (
        f"{path} does not describe its {missing}\n"
        f"  got: a run whose {missing} {why}\n"
        "  expected: a run of a model made by cvkit.models.create, on a cvkit loader with classes and a preset\n"
        f"  fix: pass it: cvkit.load(path, {missing}=…)"
    )


def test_what_is_given_completes_the_file(trained, tmp_path):
    path, model = foreign(tmp_path, trained, Own())
    transform = cvkit.transforms.small_image_eval(8)
    predictor = cvkit.load(path, model=Own(), classes=["x", "y"], transform=transform, device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    inputs, _ = transform.batch(torch.from_numpy(pixels).movedim(-1, 0)[None], torch.zeros(1), torch.Generator())
    assert torch.equal(predictor.predict(pixels).outputs, cvkit.predict(model, inputs, device="cpu")[0])


def test_what_is_given_goes_before_what_the_file_says(run):
    predictor = cvkit.load(
        run.path, classes=["x", "y", "z"], transform=cvkit.transforms.small_image_eval(16), device="cpu"
    )
    assert predictor.classes == ["x", "y", "z"]
    assert predictor.predict(run.folder)[0].label in "xyz"
    assert predictor.transform == cvkit.transforms.small_image_eval(16)


def test_weights_that_do_not_fit_are_refused(run):
    with pytest.raises(
        CheckpointError, match=f"^the weights in {re.escape(str(run.path))} do not fit the model\n  got: "
    ):
        cvkit.load(run.path, model=nn.Linear(2, 2))


def changed(run, tmp_path, **parts):
    content = cvkit.load_checkpoint(run.path)
    content["description"] |= parts
    return cvkit.save_checkpoint(tmp_path / "x.pt", content)


def test_a_model_that_was_registered_by_a_script_is_named(run, tmp_path):
    path = changed(run, tmp_path, model={"name": "mine", "num_classes": 3, "in_channels": 3})
    with pytest.raises(CheckpointError) as caught:
        cvkit.load(path)
    assert str(caught.value) == (
        f"{path} is of a model that is not known here\n"
        "  got: 'mine': unknown model 'mine'\n"
        "  expected: a model of cvkit's or torchvision's, or one that is registered\n"
        "  fix: import the module that registers it before, or pass the model: cvkit.load(path, model=…)"
    )


def test_a_transform_that_was_registered_by_a_script_is_named(run, tmp_path):
    path = changed(run, tmp_path, transform={"name": "mine", "size": 3})
    with pytest.raises(CheckpointError) as caught:
        cvkit.load(path)
    assert str(caught.value) == (
        f"{path} is of a run with a transform that is not known here\n"
        "  got: 'mine': unknown preset 'mine'\n"
        "  expected: a preset of cvkit.transforms, or one that is registered\n"
        "  fix: import the module that registers it before, or pass the transform: cvkit.load(path, transform=…)"
    )


def test_a_file_without_a_model_is_refused(tmp_path):
    path = cvkit.save_checkpoint(tmp_path / "x.pt", {"weights": {"a": torch.zeros(1)}})
    with pytest.raises(CheckpointError) as caught:
        cvkit.load(path)
    assert str(caught.value) == (
        f"{path} holds no model\n"
        "  got: the keys weights\n"
        "  expected: a file that a Checkpoint callback wrote\n"
        "  fix: cvkit.load_checkpoint(path) gives its content"
    )


def test_plain_weights_of_ones_own_are_taken_with_a_model_that_is_given(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    path = cvkit.save_checkpoint(tmp_path / "x.pt", {"model": model.state_dict()})
    transform = cvkit.transforms.small_image_eval(8)
    assert cvkit.load(path, model=model, classes=["x", "y"], transform=transform, device="cpu").batch_size == 32


def test_a_file_of_a_newer_format_is_refused(run, tmp_path):
    content = cvkit.load_checkpoint(run.path) | {"format": 99, "cvkit": "9.0"}
    path = cvkit.save_checkpoint(tmp_path / "x.pt", content)
    with pytest.raises(CheckpointError) as caught:
        cvkit.load(path)
    assert str(caught.value) == (
        f"{path} is of a newer format\n"
        "  got: format 99, written by cvkit 9.0\n"
        "  expected: format 1 or older\n"
        "  fix: use cvkit 9.0 or newer"
    )


def test_a_file_of_a_version_that_told_less_still_loads(run, predictor, tmp_path):
    content = cvkit.load_checkpoint(run.path)
    del content["description"]["images"]
    older = cvkit.load(cvkit.save_checkpoint(tmp_path / "x.pt", content), device="cpu")
    assert older.batch_size == 32
    assert torch.equal(older.predict(run.folder, batch_size=4).outputs, predictor.predict(run.folder).outputs)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=f"^there is no checkpoint {re.escape(str(tmp_path / 'no.pt'))}"):
        cvkit.load(tmp_path / "no.pt")


def test_a_device_that_is_not_there_is_refused(run):
    with pytest.raises(cvkit.errors.DeviceError, match="the device 'cuda:99' is not there"):
        cvkit.load(run.path, device="cuda:99")


def test_what_a_checkpoint_says_of_its_images_is_plain(run):
    assert cvkit.load_checkpoint(run.path)["description"]["images"] == {
        "batch_size": 4,
        "kind": None,
        "whole": False,
        "background": [255, 255, 255],
        "max_pixels": 89_478_485,
        "colour": "convert",
    }


def test_a_model_that_was_changed_by_hand_is_refused_where_its_weights_fit(photos, tmp_path):
    model = cvkit.models.create("resnet18", num_classes=3)
    model.maxpool = torch.nn.Identity()
    data = cvkit.data.from_folder(photos, size=32, batch_size=4)
    cvkit.fit(model, data.train, data.val, epochs=1, callbacks=[Checkpoint(tmp_path)], progress=False, device="cpu")
    with pytest.raises(
        CheckpointError, match=r"was changed after it had been created\n  got: 1 other layers, e\.g\. 'maxpool'"
    ):
        cvkit.load(tmp_path / "last.pt")
    same = cvkit.models.create("resnet18", num_classes=3)
    same.maxpool = torch.nn.Identity()
    cvkit.load(tmp_path / "last.pt", model=same)
