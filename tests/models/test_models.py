"""What holds for every built-in model, for torchvision's, and for what is frozen or replaced."""

import json
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import nn

from cvkit import models
from cvkit.errors import ArgumentError, ModelError, UnknownNameError
from cvkit.models.adapt import find_head
from cvkit.models.torchvision import adapted

BUILT_IN = {"linear": 32, "mlp": 32, "lenet5": 28, "cnn_mnist": 28, "cifar_quick": 32, "resnet9": 32}
each = pytest.mark.parametrize("name", BUILT_IN)


def pictures(name, channels=3, count=2):
    return torch.randn(count, channels, BUILT_IN[name], BUILT_IN[name])


def train_mode(model):
    """As ``fit`` does it."""
    model.train()
    for module in model.modules():
        if getattr(module, "cvkit_frozen", False):
            module.eval()


@each
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_forward_and_backward_reach_every_parameter(name, channels):
    model = models.create(name, num_classes=5, in_channels=channels)
    outputs = model(pictures(name, channels))
    assert outputs.shape == (2, 5)
    outputs.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert find_head(model)[1].weight.shape[0] == 5


@each
def test_the_configuration_is_plain_and_builds_the_same_architecture(name):
    model = models.create(name, num_classes=4, in_channels=1)
    config = json.loads(json.dumps(model.cvkit_config))
    assert config == model.cvkit_config
    again = models.from_config(config)
    again.load_state_dict(model.state_dict())
    images = pictures(name, 1)
    assert torch.equal(again.eval()(images), model.eval()(images))
    assert models.create(**model.cvkit_config).cvkit_config == config


@each
def test_frozen_means_that_only_the_head_moves(name):
    model = models.create(name, num_classes=3, freeze=True)
    head = f"{find_head(model)[0]}."
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    for _ in range(2):
        train_mode(model)
        model(pictures(name)).square().sum().backward()
        optimizer.step()
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {key for key in before if key.startswith(head)}


@each
def test_unfreezing_undoes_it(name):
    model = models.unfreeze(models.create(name, num_classes=3, freeze=True))
    assert all(p.requires_grad for p in model.parameters())
    assert all(module.training and not hasattr(module, "cvkit_frozen") for module in model.modules())


def test_a_dropout_beside_a_trained_head_goes_on_dropping():
    model = models.create("cnn_mnist", num_classes=3, freeze=True)
    train_mode(model)
    assert [m.training for m in model.modules() if isinstance(m, nn.Dropout)] == [True]
    assert not model.get_submodule("features").training


def test_statistics_of_a_batch_norm_without_weights_are_frozen_too():
    model = models.freeze(nn.Sequential(nn.BatchNorm1d(4, affine=False), nn.Linear(4, 2)))
    train_mode(model)
    model(torch.randn(8, 4))
    assert model[0].running_mean.eq(0).all()


def test_what_is_kept_stays_trainable():
    model = models.freeze(models.create("resnet9", num_classes=3), keep=["layer3", "head"])
    assert {key.split(".")[0] for key, p in model.named_parameters() if p.requires_grad} == {"layer3", "head"}
    with pytest.raises(UnknownNameError, match="did you mean 'layer3'"):
        models.freeze(model, keep=["layer33"])


def test_a_new_head_is_known_to_the_configuration():
    model = models.replace_head(models.create("resnet9", num_classes=3), 7)
    assert model(pictures("resnet9")).shape == (2, 7)
    assert model.cvkit_config["num_classes"] == 7


def test_a_model_that_ends_otherwise_has_no_head():
    with pytest.raises(ModelError) as caught:
        models.freeze(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)))
    assert str(caught.value) == (
        "no head found in Sequential\n"
        "  got: LayerNorm '1' as its last layer\n"
        "  expected: a classifier whose last layer is linear or a convolution\n"
        "  fix: replace or freeze its layers by hand"
    )
    with pytest.raises(ModelError, match="its own head"):
        models.replace_head(nn.Linear(2, 2), 3)


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_plain_features_go_in_too(name):
    assert models.create(name, num_classes=2, in_features=7)(torch.randn(3, 7)).shape == (3, 2)
    assert models.create(name, num_classes=2, in_channels=1, size=8)(torch.randn(3, 1, 8, 8)).shape == (3, 2)


@pytest.mark.parametrize("name", ["lenet5", "cnn_mnist", "cifar_quick"])
@pytest.mark.parametrize("size", [20, 33, 48])
def test_dense_layers_fit_the_size(name, size):
    assert models.create(name, num_classes=2, size=size)(torch.randn(1, 3, size, size)).shape == (1, 2)


@pytest.mark.parametrize("size", [32, 64, 75])
def test_resnet9_takes_any_size(size):
    assert models.create("resnet9", num_classes=2, width=4)(torch.randn(1, 3, size, size)).shape == (1, 2)


@pytest.mark.parametrize(("argument", "value"), [("num_classes", 0), ("in_channels", 0), ("num_classes", 2.5)])
def test_a_count_below_one_is_refused(argument, value):
    with pytest.raises(ArgumentError) as caught:
        models.create("linear", **{"num_classes": 2, argument: value})
    assert str(caught.value) == (
        f"create('linear'): {argument} cannot be used\n"
        f"  got: {value}\n  expected: a whole number of 1 or more\n  fix: pass e.g. {argument}=3"
    )


def test_wrong_names_are_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match=r"unknown model 'resnet-18'(.|\n)*did you mean 'resnet18'"):
        models.create("resnet-18", num_classes=2)
    with pytest.raises(UnknownNameError, match="did you mean 'hidden'"):
        models.create("mlp", num_classes=2, hiden=(3,))
    with pytest.raises(UnknownNameError, match="did you mean 'zero_init_residual'"):
        models.create("resnet18", num_classes=2, zero_init_residul=True)
    with pytest.raises(UnknownNameError, match="did you mean 'relu'"):
        models.create("mlp", num_classes=2, activation="rellu")
    with pytest.raises(UnknownNameError, match="unknown stem 'tiny'"):
        models.create("resnet18", num_classes=2, stem="tiny")


def test_weights_that_nobody_has_are_an_error():
    with pytest.raises(ModelError, match="there are no pretrained weights for 'lenet5'"):
        models.create("lenet5", num_classes=2, pretrained=True)


def test_something_that_is_no_configuration_is_an_error():
    with pytest.raises(ModelError, match="this is no configuration of a model"):
        models.from_config({"nmae": "linear"})


def test_names_hold_the_built_in_and_torchvisions():
    assert {*BUILT_IN, "resnet18", "vit_b_16"} <= set(models.names())


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("stem", ["auto", "small"])
def test_resnet18_takes_three_classes_any_channels_and_a_small_stem(channels, stem):
    model = models.create("resnet18", num_classes=3, in_channels=channels, stem=stem)
    assert model(torch.randn(2, channels, 32, 32)).shape == (2, 3)
    assert isinstance(model.maxpool, nn.Identity) is (stem == "small")
    again = models.from_config(model.cvkit_config)
    again.load_state_dict(model.state_dict())


def test_a_stem_that_a_model_does_not_have_is_an_error():
    with pytest.raises(ArgumentError, match="the model 'squeezenet1_1' has no small stem"):
        models.create("squeezenet1_1", num_classes=2, stem="small")


def test_weights_that_cannot_be_downloaded_say_where_to_place_the_file(monkeypatch, tmp_path):
    def offline(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ModelError) as caught:
        models.create("resnet18", num_classes=3, pretrained=True)
    assert str(caught.value) == (
        "the pretrained weights of 'resnet18' are not to be had\n"
        "  got: URLError: <urlopen error no network>\n"
        f"  expected: a connection to download them, or a sound file {tmp_path}/checkpoints/resnet18-f37072fd.pth\n"
        "  fix: download https://download.pytorch.org/models/resnet18-f37072fd.pth elsewhere and place it there"
    )


@pytest.mark.parametrize("pretrained", [True, torchvision.models.ResNet18_Weights.IMAGENET1K_V1])
def test_pretrained_weights_get_a_new_head_and_another_input(monkeypatch, tmp_path, pretrained):
    source = torchvision.models.resnet18()
    (tmp_path / "checkpoints").mkdir()
    torch.save(source.state_dict(), tmp_path / "checkpoints" / "resnet18-f37072fd.pth")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    model = models.create("resnet18", num_classes=3, in_channels=1, pretrained=pretrained)
    assert model.fc.out_features == 3
    assert torch.equal(model.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    grey = torch.randn(1, 1, 16, 16)
    assert torch.allclose(model.conv1(grey), source.conv1(grey.expand(1, 3, 16, 16)), atol=1e-5)
    assert "pretrained" not in model.cvkit_config


def test_weights_of_a_file_keep_all_but_a_head_of_another_size(tmp_path):
    source = models.create("resnet9", num_classes=5, width=4)
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    model = models.create("resnet9", num_classes=3, in_channels=4, width=4, pretrained=tmp_path / "weights.pt")
    assert torch.equal(model.stem[0].weight, adapted(source.stem[0].weight, 4))
    assert torch.equal(model.layer3[0][0].weight, source.layer3[0][0].weight)
    same = models.create("resnet9", num_classes=5, width=4, pretrained=str(tmp_path / "weights.pt"))
    assert torch.equal(same.head.weight, source.head.weight)


def test_weights_of_another_model_or_no_file_are_errors_by_name(tmp_path):
    torch.save(models.create("lenet5", num_classes=5).state_dict(), tmp_path / "lenet.pt")
    (tmp_path / "torn.pt").write_bytes(b"PK\x03\x04")
    for name in ("lenet.pt", "torn.pt", "none.pt"):
        with pytest.raises(ModelError, match=f"the weights in .*{name} cannot be used"):
            models.create("resnet9", num_classes=5, width=4, pretrained=tmp_path / name)


def test_adapted_weights_keep_the_size_of_the_outputs():
    weight = torch.randn(8, 3, 3, 3)
    grey = torch.randn(2, 1, 9, 9)
    expected = torch.conv2d(grey.expand(2, 3, 9, 9), weight)
    for channels in (1, 6):
        made = torch.conv2d(grey.expand(2, channels, 9, 9), adapted(weight, channels))
        assert torch.allclose(made, expected, atol=1e-5)


def test_pretrained_inception_gives_one_output_and_its_configuration_the_same_model(monkeypatch):
    source = torchvision.models.inception_v3(init_weights=False).state_dict()
    monkeypatch.setattr(torchvision.models.Inception_V3_Weights, "get_state_dict", lambda *args, **kwargs: source)
    model = models.create("inception_v3", num_classes=3, pretrained=True)
    again = models.from_config(model.cvkit_config)
    again.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 75, 75)
    assert again.train()(images).shape == (2, 3)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(images), model.eval()(images))
