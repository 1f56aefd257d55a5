"""What holds for every model by name: it builds, learns, freezes, and is rebuilt from its configuration.

Each name has a line here, with a small side of an image; a name without one fails. On the meta device the shapes of all of
them are traced; with values the small ones go through always, those up to a few hundred megabytes in the slow run.
"""

import json
import math

import pytest
import torch
from torchvision.models import regnet

from cvkit import models
from cvkit.models.parts import find_heads, outputs_of
from cvkit.models.registry import _builders

BUILT_IN = {
    "autoencoder_conv": 13,
    "autoencoder_linear": 28,
    "cifar_quick": 32,
    "cnn_mnist": 28,
    "lenet5": 28,
    "linear": 32,
    "mlp": 32,
    "resnet": 16,
    "resnet9": 16,
    "unet": 17,
}
FAST = {
    "lraspp_mobilenet_v3_large": 32,
    "mnasnet0_5": 32,
    "mobilenet_v3_small": 32,
    "resnet18": 32,
    "shufflenet_v2_x0_5": 32,
    "squeezenet1_1": 33,
}
"""Those that are quick with values."""

SLOW = {
    "alexnet": 64,
    **dict.fromkeys(["convnext_base", "convnext_small", "convnext_tiny"], 32),
    **dict.fromkeys(["deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50", "deeplabv3_resnet101"], 32),
    **dict.fromkeys(["densenet121", "densenet161", "densenet169", "densenet201"], 32),
    **dict.fromkeys([f"efficientnet_b{number}" for number in range(8)], 32),
    **dict.fromkeys(["efficientnet_v2_s", "efficientnet_v2_m", "efficientnet_v2_l"], 32),
    **dict.fromkeys(["fcn_resnet50", "fcn_resnet101"], 32),
    "googlenet": 32,
    "inception_v3": 75,
    "maxvit_t": 224,
    **dict.fromkeys(["mnasnet0_75", "mnasnet1_0", "mnasnet1_3", "mobilenet_v2", "mobilenet_v3_large"], 32),
    **dict.fromkeys([f"regnet_x_{size}" for size in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf")], 32),
    **dict.fromkeys([f"regnet_y_{size}" for size in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf")], 32),
    **dict.fromkeys(["resnet34", "resnet50", "resnet101", "resnet152"], 32),
    **dict.fromkeys(["resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"], 32),
    **dict.fromkeys(["shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0"], 32),
    "squeezenet1_0": 33,
    **dict.fromkeys(["swin_t", "swin_s", "swin_b", "swin_v2_t", "swin_v2_s", "swin_v2_b"], 32),
    **dict.fromkeys([f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")], 32),
    **dict.fromkeys(["vit_b_16", "vit_b_32"], 224),
    **dict.fromkeys(["wide_resnet50_2", "wide_resnet101_2"], 32),
}
HUGE = {
    "convnext_large": 32,
    "regnet_y_32gf": 32,
    "regnet_y_128gf": 32,
    "vit_l_16": 224,
    "vit_l_32": 224,
    "vit_h_14": 224,
}
"""Gigabytes with their gradients: traced on the meta device only."""

EVERY = BUILT_IN | FAST | SLOW | HUGE

SMALLER = {"unet": {"width": 4}, "resnet": {"depth": 8, "width": 4}, "resnet9": {"width": 4}}
"""Arguments that make the pass with values a quick one; the meta pass takes the defaults."""

with_values = pytest.mark.parametrize(
    "name", [*BUILT_IN, *FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)


def sources(name, channels, device="cpu"):
    size = EVERY[name]
    return torch.rand(2, channels, size, size, device=device)


def expected_shape(name, channels, classes):
    size = EVERY[name]
    if name.startswith("autoencoder"):
        return (2, channels, size, size)
    maps = name == "unet" or name.startswith(("fcn", "deeplabv3", "lraspp"))
    return (2, classes, size, size) if maps else (2, classes)


def classes_of(name, number):
    return {} if name.startswith("autoencoder") else {"num_classes": number}


def train_mode(model):
    """As ``fit`` does it."""
    model.train()
    for module in model.modules():
        if getattr(module, "cvkit_frozen", False):
            module.eval()


def test_every_name_has_its_line_in_the_contract():
    # other tests, and pages of the documentation, register models of their own
    others = {name for name in _builders if not _builders.get(name).__module__.startswith("cvkit.")}
    assert sorted(EVERY) == [name for name in models.names() if name not in others]


@pytest.fixture(autouse=True)
def _regnets_on_meta(monkeypatch):
    """Lets torchvision do its arithmetic on the widths of a RegNet where numbers have values."""
    made = regnet.BlockParams.from_init_params.__func__

    def elsewhere(cls, *args, **kwargs):
        with torch.device("cpu"):
            return made(cls, *args, **kwargs)

    monkeypatch.setattr(regnet.BlockParams, "from_init_params", classmethod(elsewhere))


@pytest.mark.parametrize("name", EVERY)
def test_grey_images_and_three_classes_go_through_and_the_configuration_builds_the_same(name):
    with torch.device("meta"):
        model = models.create(name, **classes_of(name, 3), in_channels=1)
        outputs = model(sources(name, 1, "meta"))
        assert isinstance(outputs, torch.Tensor)
        assert outputs.shape == expected_shape(name, 1, 3)
        config = json.loads(json.dumps(model.cvkit_config))
        again = models.from_config(config)
    assert config == model.cvkit_config == again.cvkit_config == {"name": name, **classes_of(name, 3), "in_channels": 1}
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    assert {key: value.shape for key, value in again.state_dict().items()} == shapes


@pytest.mark.parametrize("name", EVERY)
def test_four_channels_go_through_and_freezing_leaves_the_heads_alone_trainable(name):
    with torch.device("meta"):
        model = models.create(name, **classes_of(name, 3), in_channels=4, freeze=True)
        assert model(sources(name, 4, "meta")).shape == expected_shape(name, 4, 3)
    heads = find_heads(model)
    if classes_of(name, 3):
        assert {outputs_of(head) for _, head in heads} == {3}
    inside = tuple(f"{path}." for path, _ in heads)
    trained = {key for key, one in model.named_parameters() if one.requires_grad}
    assert trained == {key for key, _ in model.named_parameters() if key.startswith(inside)}
    train_mode(model)
    assert [path for path, one in model.named_modules() if hasattr(one, "running_mean") and one.training] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", HUGE)
def test_gradients_reach_every_parameter_of_a_huge_model(name):
    with torch.device("meta"):
        model = models.create(name, num_classes=3)
        model(sources(name, 3, "meta")).sum().backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


@with_values
def test_a_frozen_step_moves_the_head_and_nothing_else(name):
    model = models.create(name, **classes_of(name, 3), **SMALLER.get(name, {}), freeze=True)
    heads = tuple(f"{path}." for path, _ in find_heads(model))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    for _ in range(2):
        train_mode(model)
        (model(sources(name, 3)) - 1).square().sum().backward()  # some heads begin as zeros
        optimizer.step()
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {key for key in before if key.startswith(heads)}


@with_values
def test_gradients_reach_every_parameter_and_weights_round_trip(name):
    torch.manual_seed(0)
    model = models.create(name, **classes_of(name, 5), **SMALLER.get(name, {}))
    outputs = model(sources(name, 3))
    assert outputs.shape == expected_shape(name, 3, 5)
    outputs.square().mean().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert math.isfinite(float(parameter.grad.sum())), key
    again = models.from_config(model.cvkit_config)
    again.load_state_dict(dict(model.state_dict()))  # plain, as a checkpoint holds it
    images = sources(name, 3)
    with torch.no_grad():
        assert torch.equal(again.eval()(images), model.eval()(images))
