"""timm's models by ``timm:NAME``."""

import sys

import pytest
import torch

from cvkit import models
from cvkit.errors import ArgumentError, MissingDependencyError, ModelError, UnknownNameError
from cvkit.models.adapt import adapted


def test_without_timm_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingDependencyError) as caught:
        models.create("timm:resnet18", num_classes=3)
    assert str(caught.value) == (
        "the model 'timm:resnet18' needs timm\n  got: import of timm halted; None in sys.modules\n"
        "  expected: the package timm\n  fix: pip install timm"
    )


@pytest.fixture
def timm():
    return pytest.importorskip("timm")


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", ["timm:resnet18", "timm:mobilenetv3_small_050"])
def test_a_model_of_timms_keeps_the_contract(timm, name, channels):
    model = models.create(name, num_classes=3, in_channels=channels, freeze=True, drop_rate=0.1)
    images = torch.rand(2, channels, 32, 32)
    assert model(images).shape == (2, 3)
    assert not any(one.training for one in model.modules() if hasattr(one, "running_mean"))
    assert model.cvkit_config == {"name": name, "num_classes": 3, "in_channels": channels, "drop_rate": 0.1}
    again = models.from_config(model.cvkit_config)
    again.load_state_dict(dict(model.state_dict()))
    assert torch.equal(again.eval()(images), model.eval()(images))


def test_weights_of_a_file_go_into_a_model_of_timms(timm, tmp_path):
    source = timm.create_model("resnet18")
    torch.save(source.state_dict(), tmp_path / "resnet18.pth")
    model = models.create("timm:resnet18", num_classes=3, in_channels=1, pretrained=tmp_path / "resnet18.pth")
    assert torch.equal(model.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    assert torch.equal(model.conv1.weight, adapted(source.conv1.weight, 1))
    assert model.fc.out_features == 3


def test_timms_own_weights_come_with_a_new_head_and_input(timm, monkeypatch):
    source = timm.create_model("resnet18")
    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_hf", lambda *a, **k: source.state_dict())
    model = models.create("timm:resnet18", num_classes=3, in_channels=1, pretrained=True)
    assert torch.equal(model.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    assert torch.allclose(model.conv1.weight, adapted(source.conv1.weight, 1), atol=1e-6)


def test_weights_that_cannot_be_downloaded_say_which_file_to_pass(timm, monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_hf", offline)
    with pytest.raises(ModelError) as caught:
        models.create("timm:resnet18", num_classes=3, pretrained=True)
    assert str(caught.value) == (
        "the pretrained weights of timm's 'resnet18' are not to be had\n  got: OSError: no network\n"
        "  expected: a connection to download them, or their file\n"
        "  fix: download https://huggingface.co/timm/resnet18.a1_in1k/resolve/main/model.safetensors elsewhere, and pass the "
        "file: pretrained='model.safetensors'"
    )


def test_names_and_arguments_that_timm_does_not_know_are_errors(timm):
    with pytest.raises(UnknownNameError, match="did you mean 'resnet18'"):
        models.create("timm:resnet-18", num_classes=3)
    with pytest.raises(ArgumentError, match="timm cannot build 'resnet18' with these arguments"):
        models.create("timm:resnet18", num_classes=3, no_such=1)
    with pytest.raises(ArgumentError, match="timm's models have no such argument"):
        models.create("timm:resnet18", num_classes=3, stem="small")
