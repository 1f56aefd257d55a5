"""The built-in models: their shapes, their sizes, and what their arguments do."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cvkit import models
from cvkit.errors import ArgumentError, UnknownNameError


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_plain_features_go_in_too(name):
    assert models.create(name, num_classes=2, in_features=7)(torch.randn(3, 7)).shape == (3, 2)
    assert models.create(name, num_classes=2, in_channels=1, size=8)(torch.randn(3, 1, 8, 8)).shape == (3, 2)


def test_the_layers_of_an_mlp_have_names():
    model = models.create("mlp", num_classes=4, in_features=9, hidden=(8, 7, 6), activation="gelu", dropout=0.5)
    assert [name for name, _ in model.named_children()] == [
        "flatten",
        *("hidden1", "gelu1", "dropout1"),
        *("hidden2", "gelu2", "dropout2"),
        *("hidden3", "gelu3", "dropout3"),
        "head",
    ]
    assert [tuple(one.weight.shape) for one in model.modules() if isinstance(one, nn.Linear)] == [
        (8, 9),
        (7, 8),
        (6, 7),
        (4, 6),
    ]


@given(st.lists(st.integers(1, 5), max_size=6))
def test_an_mlp_has_any_depth(hidden):
    model = models.create("mlp", num_classes=2, in_features=3, hidden=hidden)
    widths = [3, *hidden, 2]
    assert count(model) == sum(a * b + b for a, b in pairwise(widths))
    assert model(torch.zeros(4, 3)).shape == (4, 2)


@pytest.mark.parametrize(
    ("hidden", "shown"), [((8, 0), "(8, 0)"), (64, "64"), (("8",), "('8',)"), ((True,), "(True,)")]
)
def test_a_width_that_is_none_is_refused(hidden, shown):
    with pytest.raises(ArgumentError) as caught:
        models.create("mlp", num_classes=2, hidden=hidden)
    assert str(caught.value) == (
        f"mlp: hidden cannot be used\n  got: {shown}\n"
        "  expected: integers of 1 or more, one a layer\n  fix: pass e.g. hidden=(64, 32)"
    )


def test_an_activation_that_is_not_known_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'relu'"):
        models.create("mlp", num_classes=2, activation="rellu")


def test_the_digit_network_is_the_tutorials():
    model = models.create("cnn_mnist", num_classes=10, in_channels=1, size=28)
    layers = [one for one in model.modules() if isinstance(one, nn.Conv2d | nn.Linear)]
    assert [tuple(one.weight.shape) for one in layers] == [
        (64, 1, 5, 5),
        (128, 64, 5, 5),
        (1024, 128 * 7 * 7),
        (10, 1024),
    ]
    assert [one.p for one in model.modules() if isinstance(one, nn.Dropout)] == [0.4]


def test_lenet_and_the_quick_network_have_the_sizes_of_their_sources():
    assert count(models.create("lenet5", num_classes=10, in_channels=1)) == 61_706
    # Caffe's cifar10_quick: 2,432 + 25,632 + 51,264 in convolutions, 65,600 + 650 in dense layers
    assert count(models.create("cifar_quick", num_classes=10)) == 145_578


@pytest.mark.parametrize(("name", "least"), [("lenet5", 12), ("cnn_mnist", 4), ("cifar_quick", 8)])
def test_dense_layers_fit_any_size_down_to_the_least(name, least):
    with pytest.raises(ArgumentError, match="size is too small"):
        models.create(name, num_classes=2, size=least - 1)
    for size in (least, 20, 33, 48):
        assert models.create(name, num_classes=2, size=size)(torch.randn(1, 3, size, size)).shape == (1, 2)
    assert models.create(name, num_classes=2, size=(24, 17))(torch.randn(1, 3, 24, 17)).shape == (1, 2)


def test_images_that_are_too_small_are_refused():
    with pytest.raises(ArgumentError) as caught:
        models.create("lenet5", num_classes=2, size=5)
    assert str(caught.value) == (
        "size is too small for this model\n  got: 5\n  expected: the side of its images in pixels\n  fix: size=32"
    )


@pytest.mark.parametrize("size", [0, -3, 2.5, (28,), (28, 28, 3), "28"])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(ArgumentError, match="size cannot be used"):
        models.create("lenet5", num_classes=2, size=size)


@pytest.mark.parametrize(
    ("depth", "weights"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)]
)
def test_resnets_for_small_images_are_as_large_as_in_the_paper(depth, weights):
    with torch.device("meta"):
        model = models.create("resnet", num_classes=10, depth=depth)
    assert count(model) == weights
    layers = [one for one in model.modules() if isinstance(one, nn.Conv2d | nn.Linear)]
    assert len(layers) == depth
    assert sum(one.stride == (2, 2) for one in layers if isinstance(one, nn.Conv2d)) == 2


@pytest.mark.parametrize(("depth", "near"), [(18, 14), (21, 20), (3, 8), (5, 8)])
def test_a_depth_that_three_stages_cannot_have_is_answered_with_one_that_they_can(depth, near):
    with pytest.raises(ArgumentError, match="resnet: depth cannot be used") as caught:
        models.create("resnet", num_classes=2, depth=depth)
    assert str(caught.value).endswith(f"fix: pass depth={near}")


def test_a_new_stage_of_a_resnet_begins_with_a_shortcut_without_weights():
    block = models.create("resnet", num_classes=2, depth=8, width=2).get_submodule("layer2.0").eval()
    nn.init.zeros_(block.bn2.weight)
    x = torch.rand(1, 2, 5, 4)
    out = block(x)
    assert out.shape == (1, 4, 3, 2)
    assert torch.equal(out[:, 1:3], x[:, :, ::2, ::2])
    assert not out[:, [0, 3]].any()


@pytest.mark.parametrize("size", [(8, 8), (32, 32), (64, 64), (75, 33)])
@pytest.mark.parametrize("name", ["resnet", "resnet9"])
def test_residual_networks_take_any_size(name, size):
    assert models.create(name, num_classes=2, width=2)(torch.randn(2, 3, *size)).shape == (2, 2)


def test_a_unet_of_the_papers_size_has_31_million_parameters():
    with torch.device("meta"):
        model = models.create("unet", num_classes=2, in_channels=1)
    assert count(model) == 31_036_546  # of three channels 31,037,698, as milesial's Pytorch-UNet
    assert model.get_submodule("down.4.3").out_channels == 1024


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4), st.integers(1, 3))
def test_a_unet_answers_for_each_pixel_of_an_image_of_any_size(height, width, depth, classes):
    model = models.create("unet", num_classes=classes, in_channels=1, width=1, depth=depth).eval()
    assert model(torch.zeros(1, 1, height, width)).shape == (1, classes, height, width)


def test_what_a_unet_says_of_a_pixel_stays_where_the_pixel_is():
    torch.manual_seed(0)
    model = models.create("unet", num_classes=1, in_channels=1, width=4, depth=2).eval()
    image = torch.zeros(1, 1, 37, 41)
    changed = image.clone()
    changed[..., 20, 30] = 5.0
    difference = (model(changed) - model(image)).detach().abs()[0, 0]
    centre = (difference.sum(1) @ torch.arange(37.0), difference.sum(0) @ torch.arange(41.0))
    assert [float(one / difference.sum()) for one in centre] == pytest.approx([20, 30], abs=1.5)


def test_depth_and_width_of_a_unet_are_free():
    model = models.create("unet", num_classes=2, width=3, depth=2, dropout=0.25)
    assert [one.out_channels for one in model.modules() if isinstance(one, nn.ConvTranspose2d)] == [6, 3]
    assert model.dropout.p == 0.25
    for argument in ("depth", "width"):
        with pytest.raises(ArgumentError, match=f"unet: {argument} cannot be used"):
            models.create("unet", num_classes=2, **{argument: 0})


def test_the_linear_autoencoder_goes_from_784_to_32_and_back():
    model = models.create("autoencoder_linear", in_channels=1)
    assert [tuple(one.weight.shape) for one in model.modules() if isinstance(one, nn.Linear)] == [
        (128, 784),
        (64, 128),
        (32, 64),
        (64, 32),
        (128, 64),
        (784, 128),
    ]
    assert model.encoder(torch.rand(2, 1, 28, 28)).shape == (2, 32)
    assert model(torch.rand(2, 784)).shape == (2, 784)
    assert model(torch.rand(2, 28, 28)).shape == (2, 28, 28)


@given(st.integers(1, 21), st.integers(1, 21), st.integers(1, 4), st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_a_convolutional_autoencoder_gives_back_the_shape_of_any_image(height, width, channels, widths):
    model = models.create("autoencoder_conv", in_channels=channels, widths=widths)
    assert model(torch.rand(1, channels, height, width)).shape == (1, channels, height, width)


def test_autoencoders_end_in_the_range_that_is_asked_for():
    for name in ("autoencoder_linear", "autoencoder_conv"):
        squashed = models.create(name, in_channels=1, output="sigmoid")(10 * torch.randn(4, 1, 28, 28))
        assert 0 <= float(squashed.min()) <= float(squashed.max()) <= 1
        with pytest.raises(ArgumentError, match="one a layer"):
            models.create(name, **{"hidden" if "linear" in name else "widths": ()})


def test_autoencoders_have_no_classes_and_take_a_number_of_them_all_the_same():
    for name in ("autoencoder_linear", "autoencoder_conv"):
        x = torch.rand(2, 1, 28, 28)
        assert models.create(name, in_channels=1)(x).shape == x.shape
        model = models.create(name, num_classes=10, in_channels=1)
        assert model(x).shape == x.shape
        assert models.from_config(model.cvkit_config)(x).shape == x.shape
