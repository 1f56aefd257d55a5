"""Heads that are replaced or appended, channels that are adapted, and what the configuration says of them afterwards."""

import warnings

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cvkit import models
from cvkit.errors import ArgumentError, CvkitWarning, ModelError
from cvkit.models.adapt import adapted, find_head, like
from cvkit.models.parts import find_heads, find_input, outputs_of

FAMILIES = {
    "alexnet": "classifier.6",
    "convnext_tiny": "classifier.2",
    "densenet121": "classifier",
    "efficientnet_b0": "classifier.1",
    "efficientnet_v2_s": "classifier.1",
    "googlenet": "fc",
    "inception_v3": "fc",
    "maxvit_t": "classifier.5",
    "mnasnet0_5": "classifier.1",
    "mobilenet_v2": "classifier.1",
    "mobilenet_v3_small": "classifier.3",
    "resnet18": "fc",
    "resnext50_32x4d": "fc",
    "shufflenet_v2_x0_5": "fc",
    "squeezenet1_1": "classifier.1",
    "swin_t": "head",
    "swin_v2_t": "head",
    "vgg11": "classifier.6",
    "vit_b_32": "heads.head",
}
SIDES = {"maxvit_t": 224, "vit_b_32": 224, "inception_v3": 96}
SEGMENTERS = ["deeplabv3_mobilenet_v3_large", "fcn_resnet50", "lraspp_mobilenet_v3_large"]


def theirs(name, **options):
    """A model of torchvision's on the meta device: shapes, and no arithmetic."""
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": False, **options}
    with torch.device("meta"):
        return torchvision.models.get_model(name, **options)


def sources(name, channels=3):
    side = SIDES.get(name, 64)
    return torch.empty(2, channels, side, side, device="meta")


def small():
    """Three convolutions and a head, quick with values."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_takes_another_head_and_other_channels(name):
    model = theirs(name)
    assert find_head(model)[0] == FAMILIES[name]
    assert models.adapt_input(models.replace_head(model, 7), 4) is model
    assert model.eval()(sources(name, 4)).shape == (2, 7)
    assert outputs_of(find_head(model)[1]) == 7


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_takes_a_layer_behind_its_head(name):
    model = models.append_head(theirs(name), 10)
    assert model.eval()(sources(name)).shape == (2, 10)
    assert find_head(model)[0] == f"{FAMILIES[name]}.appended"
    assert outputs_of(model.get_submodule(f"{FAMILIES[name]}.pretrained")) == 1000


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_classifiers_get_new_layers_too(name):
    model = models.replace_head(theirs(name, aux_logits=True), 7)
    side = torch.empty(2, 3, 299, 299, device="meta")
    assert [tuple(one.shape) for one in model.train()(side)] == [(2, 7)] * (3 if name == "googlenet" else 2)


@pytest.mark.parametrize("name", SEGMENTERS)
def test_segmentation_models_get_a_new_last_layer_in_each_head(name):
    aux = {} if name.startswith("lraspp") else {"aux_loss": True}
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights_backbone=None, **aux)
    models.replace_head(model, 2)
    shapes = {key: tuple(one.shape) for key, one in model(torch.empty(2, 3, 64, 64, device="meta")).items()}
    assert shapes == dict.fromkeys(["out", *(["aux"] if aux else [])], (2, 2, 64, 64))
    assert len(find_heads(model)) == 2


def test_the_rest_of_the_model_stays_as_it_is():
    model = small()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    models.replace_head(model, 2)
    kept = {key: value for key, value in model.state_dict().items() if not key.startswith("6.")}
    assert all(torch.equal(value, before[key]) for key, value in kept.items())
    assert model[6].bias is not None
    assert model[6].weight.requires_grad


def test_a_head_without_bias_of_another_precision_stays_so():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 5, bias=False)).double()
    models.replace_head(model, 2)
    assert model[1].bias is None
    assert model[1].weight.dtype == torch.float64


def test_a_number_of_classes_that_the_model_keeps_is_kept_true():
    model = small()
    model.num_classes = 5
    assert models.replace_head(model, 2).num_classes == 2


def test_a_head_replaced_in_a_frozen_part_is_trained():
    model = models.freeze(small(), keep=["0"])
    models.replace_head(model, 2)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == [
        "0.weight",
        "0.bias",
        "6.weight",
        "6.bias",
    ]


def test_an_appended_layer_computes_on_the_pretrained_outputs():
    model = small().eval()
    images = torch.randn(2, 3, 9, 9)
    before = model(images)
    models.append_head(model, 2)
    assert torch.equal(model(images), model[6].appended(before))


def test_freezing_an_appended_model_trains_the_appended_layer_only():
    model = models.freeze(models.append_head(small(), 2))
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["6.appended.weight", "6.appended.bias"]


def test_an_appended_model_describes_itself():
    model = models.create("lenet5", num_classes=10)
    models.append_head(models.append_head(model, 4), 2)
    assert model.cvkit_config["appended"] == [4, 2]
    models.replace_head(model, 3)
    assert (model.cvkit_config["num_classes"], model.cvkit_config["appended"]) == (10, [4, 3])
    again = models.from_config(model.cvkit_config)
    again.load_state_dict(model.state_dict())
    assert again.cvkit_config == model.cvkit_config
    assert models.from_config(again.cvkit_config).cvkit_config == model.cvkit_config


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "squeezenet1_1"])
def test_a_changed_model_describes_itself(name):
    model = models.create(name, num_classes=5)
    models.adapt_input(models.replace_head(model, 2), 1)
    assert (model.cvkit_config["num_classes"], model.cvkit_config["in_channels"]) == (2, 1)
    again = models.from_config(model.cvkit_config)
    again.load_state_dict(model.state_dict())
    images = torch.randn(2, 1, 64, 64)
    assert torch.equal(again.eval()(images), model.eval()(images))


@pytest.mark.parametrize(("change", "key"), [(models.replace_head, "num_classes"), (models.adapt_input, "in_channels")])
def test_a_change_that_the_builder_has_no_argument_for_ends_the_description_and_says_so(change, key):
    model = small()
    model.cvkit_config = {"name": "mine", key: 77}
    with pytest.warns(
        CvkitWarning, match=r"^checkpoints of this Sequential will not describe it: 'mine' has no argument"
    ):
        change(model, 2)
    assert model.cvkit_config is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        change(model, 4)


def test_a_grey_image_gives_what_it_gave_as_rgb():
    model = small().eval()
    grey = torch.randn(2, 1, 9, 9)
    before = model(grey.expand(2, 3, 9, 9))
    assert torch.allclose(models.adapt_input(model, 1)(grey), before, atol=1e-6)


@settings(max_examples=40)
@given(before=st.integers(1, 5), after=st.integers(1, 9), dimensions=st.integers(1, 3))
def test_adapted_weights_give_what_they_gave_for_an_image_alike_in_all_channels(before, after, dimensions):
    weight = torch.randn(2, before, *[3] * dimensions, generator=torch.Generator().manual_seed(before))
    made = adapted(weight, after)
    assert made.shape == (2, after, *[3] * dimensions)
    if after == 1 or after % before == 0:
        assert torch.allclose(made.sum(1), weight.sum(1), atol=1e-5)


def test_the_same_number_of_channels_changes_nothing():
    model = small()
    weight = model[0].weight
    assert models.adapt_input(model, 3)[0].weight is weight


def test_a_convolution_of_a_class_of_its_own_stays_of_it():
    class Padded(nn.Conv2d):
        def forward(self, x):
            return super().forward(nn.functional.pad(x, (1, 1, 1, 1)))

    model = nn.Sequential(Padded(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    models.adapt_input(model, 5)
    assert type(model[0]) is Padded
    assert model[0](torch.randn(1, 5, 6, 6)).shape == (1, 4, 6, 6)


def test_a_frozen_first_convolution_stays_frozen():
    model = models.adapt_input(models.freeze(small()), 1)
    assert not model[0].weight.requires_grad


@pytest.mark.parametrize(
    ("first", "got"),
    [
        (nn.Linear(3, 4), "Linear '0' as its first layer"),
        (nn.BatchNorm2d(3), "BatchNorm2d '0' as its first layer"),
        (nn.Conv2d(4, 4, 1, groups=2), "Conv2d '0' as its first layer"),
        (nn.ConvTranspose2d(3, 4, 2), "ConvTranspose2d '0' as its first layer"),
        (nn.LazyConv2d(4, 1), "LazyConv2d '0' as its first layer"),
    ],
)
def test_an_input_that_goes_elsewhere_is_refused(first, got):
    with pytest.raises(ModelError) as caught:
        models.adapt_input(nn.Sequential(first, nn.Conv2d(4, 4, 1)), 2)
    assert str(caught.value) == (
        "no convolution found that the input of Sequential goes into\n"
        f"  got: {got}\n"
        "  expected: a model whose first layer with weights is a convolution of one group\n"
        "  fix: build it with the channels that it is to take, or change its first layer by hand"
    )
    with pytest.raises(ModelError, match="got: no layer with weights"):
        find_input(nn.Sequential(nn.ReLU()))


def test_models_that_end_otherwise_have_no_head():
    attention = nn.Sequential(nn.Linear(4, 4), nn.MultiheadAttention(4, 2))
    for model, got in [
        (nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), "LayerNorm '1' as its last layer"),
        (attention, "NonDynamicallyQuantizableLinear '1.out_proj' as its last layer"),
        (nn.Sequential(nn.LazyLinear(2)), "LazyLinear '0' as its last layer"),
        (nn.Sequential(nn.ReLU()), "no layer with weights"),
    ]:
        for change in (models.replace_head, models.append_head):
            with pytest.raises(ModelError) as caught:
                change(model, 3)
            assert str(caught.value) == (
                f"no head found in Sequential\n  got: {got}\n"
                "  expected: a classifier whose last layer is linear or a convolution\n"
                "  fix: replace or freeze its layers by hand"
            )


def test_a_model_that_is_its_own_head_is_refused():
    with pytest.raises(ModelError, match=r"^a model that is its own head cannot be given another\n  got: Linear"):
        models.replace_head(nn.Linear(2, 2), 3)
    with pytest.raises(ModelError, match=r"^nothing can be appended to Linear\n  got: a model that is its own head"):
        models.append_head(nn.Linear(2, 2), 3)


def test_nothing_is_appended_to_one_head_of_several():
    with pytest.raises(ModelError) as caught:
        models.append_head(theirs("googlenet", aux_logits=True), 3)
    assert str(caught.value) == (
        "nothing can be appended to GoogLeNet\n"
        "  got: several heads: fc, aux1.fc2, aux2.fc2\n"
        "  expected: a model with one head as one of its layers\n"
        "  fix: use replace_head, or build it without"
    )


@pytest.mark.parametrize("count", [0, -1, True, 2.0])
def test_counts_below_one_are_refused(count):
    for change, label, fix in [
        (models.replace_head, "num_classes", "count the classes"),
        (models.append_head, "num_classes", "count the classes"),
        (models.adapt_input, "in_channels", "count the channels of the images"),
    ]:
        with pytest.raises(ArgumentError) as caught:
            change(small(), count)
        assert str(caught.value) == (
            f"{change.__name__}: {label} cannot be used\n  got: {count}\n  expected: 1 or more\n  fix: {fix}"
        )


def test_a_convolution_like_another_differs_in_what_is_given_only():
    layer = nn.Conv2d(4, 6, (3, 5), stride=2, padding=1, dilation=2, groups=2, bias=False, padding_mode="reflect")
    made = like(layer, out_channels=8)
    assert str(made) == str(layer).replace("Conv2d(4, 6", "Conv2d(4, 8")
