"""Models by name: which there are, what is said of wrong arguments, and what a configuration builds."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from cvkit import models
from cvkit.errors import ArgumentError, CvkitWarning, ModelError, UnknownNameError
from cvkit.models import registry


@pytest.fixture
def own_builder():
    """Registers a builder for one test."""
    filed = []

    def file(name, builder):
        models.register(name)(builder)
        filed.append(name)

    yield file
    for name in filed:
        registry._builders._entries.pop(name)


def test_names_hold_the_built_in_and_torchvisions():
    named = models.names()
    assert named == sorted(set(named))
    assert {"unet", "resnet", "autoencoder_conv", "resnet18", "vit_b_16", "fcn_resnet50", "deeplabv3_resnet101"} <= {
        *named
    }
    assert not {"fasterrcnn_resnet50_fpn", "raft_large", "r3d_18", "quantized_resnet18"} & {*named}


@pytest.mark.parametrize(("argument", "value"), [("num_classes", 0), ("in_channels", 0), ("num_classes", 2.5)])
def test_a_count_below_one_is_refused(argument, value):
    with pytest.raises(ArgumentError) as caught:
        models.create("linear", **{"num_classes": 2, argument: value})
    assert str(caught.value) == (
        f"create('linear'): {argument} cannot be used\n"
        f"  got: {value}\n  expected: an integer of 1 or more\n  fix: pass e.g. {argument}=3"
    )


@pytest.mark.parametrize("name", ["lenet5", "unet", "resnet18", "fcn_resnet50"])
def test_a_model_that_needs_its_number_of_classes_says_so(name):
    with pytest.raises(ArgumentError) as caught:
        models.create(name)
    assert str(caught.value) == (
        f"create('{name}') needs num_classes\n  got: no number of outputs\n"
        "  expected: as many as there are classes, 1 for a regression of one number\n"
        f"  fix: create('{name}', num_classes=len(data.classes))"
    )


def test_wrong_names_are_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match=r"unknown model 'resnet-18'(.|\n)*did you mean 'resnet18'"):
        models.create("resnet-18", num_classes=2)
    with pytest.raises(UnknownNameError, match="did you mean 'hidden'"):
        models.create("mlp", num_classes=2, hiden=(3,))
    with pytest.raises(UnknownNameError, match="unknown stem 'tiny'"):
        models.create("resnet18", num_classes=2, stem="tiny")


def test_weights_that_nobody_has_are_an_error():
    with pytest.raises(ModelError, match="there are no pretrained weights for 'lenet5'"):
        models.create("lenet5", num_classes=2, pretrained=True)


def test_something_that_is_no_configuration_is_an_error():
    with pytest.raises(ModelError, match="this is no configuration of a model"):
        models.from_config({"nmae": "linear"})


def test_a_builder_of_ones_own_is_found_by_its_name(own_builder):
    own_builder("mine", lambda *, num_classes=2, in_channels=3: nn.Linear(in_channels, num_classes))
    assert "mine" in models.names()
    assert models.create("mine").out_features == 2
    model = models.create("mine", num_classes=5)
    assert models.from_config(model.cvkit_config).out_features == 5


def test_a_number_of_classes_that_a_builder_does_not_take_is_not_dropped_in_silence(own_builder):
    own_builder("fixed", lambda *, in_channels=3: nn.Linear(in_channels, 2))
    assert models.create("fixed").out_features == 2
    with pytest.raises(UnknownNameError, match="unknown argument of the model 'fixed': 'num_classes'"):
        models.create("fixed", num_classes=5)


def test_an_argument_without_a_plain_form_is_told(own_builder):
    own_builder("odd", lambda *, num_classes, in_channels=3, act=None: nn.Sequential(nn.Linear(1, num_classes), act()))
    with pytest.warns(CvkitWarning, match=r"because of act=…"):
        assert models.create("odd", num_classes=2, act=nn.ReLU).cvkit_config is None


def test_what_was_appended_to_a_model_is_built_again():
    model = models.append_head(models.create("resnet9", num_classes=5, width=4), 3)
    again = models.from_config(model.cvkit_config)
    again.load_state_dict(model.state_dict())
    assert again.cvkit_config == model.cvkit_config
    assert again(torch.rand(2, 3, 16, 16)).shape == (2, 3)


def test_a_built_in_model_needs_no_torchvision():
    code = """
import sys
sys.modules["torchvision"] = None  # importing it is an error
from cvkit import models
models.create("unet", num_classes=2, width=2)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
