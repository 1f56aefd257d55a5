"""Test-time augmentation: the mean over views, turned back where there are places."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

import cvkit
from cvkit.errors import ArgumentError, UnknownNameError
from cvkit.inference.outputs import VIEWS, views_of

IMAGES = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))


def test_the_views_are_what_their_names_say():
    x = IMAGES
    wanted = {
        "original": x,
        "flip": x.flip(3),
        "vertical_flip": x.flip(2),
        "rotate180": x.flip(2, 3),
        "rotate90": x.rot90(1, (2, 3)),
        "rotate270": x.rot90(3, (2, 3)),
        "transpose": x.transpose(2, 3),
        "transverse": x.transpose(2, 3).flip(2, 3),
    }
    assert list(VIEWS) == list(wanted)
    for name, view in VIEWS.items():
        assert torch.equal(view.of(x), wanted[name]), name


@pytest.mark.parametrize("name", VIEWS)
def test_each_view_is_undone(name):
    assert torch.equal(VIEWS[name].undo(VIEWS[name].of(IMAGES)), IMAGES)


def test_no_two_views_are_the_same():
    for one, other in itertools.combinations(VIEWS.values(), 2):
        assert not torch.equal(one.of(IMAGES), other.of(IMAGES))


@pytest.mark.parametrize(
    ("tta", "names"),
    [
        (None, ["original"]),
        ("flip", ["original", "flip"]),
        ("original", ["original"]),
        ("rotate180", ["original", "rotate180"]),
        (1, ["original"]),
        (2, ["original", "flip"]),
        (8, list(VIEWS)),
        (["flip"], ["flip"]),
        (("original", "transpose"), ["original", "transpose"]),
    ],
)
def test_views_are_asked_for_by_name_by_number_and_by_list(tta, names):
    assert views_of(tta) == [VIEWS[name] for name in names]


@pytest.mark.parametrize("tta", [0, 9, True, [], 1.5, {"flip": 1}])
def test_what_are_no_views_is_refused(predictor, run, tta):
    with pytest.raises(ArgumentError, match=r"^tta cannot be used"):
        predictor.predict(run.folder, tta=tta)


@pytest.mark.parametrize("tta", ["flop", ["original", "flop"]])
def test_an_unknown_view_is_answered_with_the_nearest(predictor, run, tta):
    with pytest.raises(UnknownNameError, match=r"unknown view 'flop'[\s\S]*did you mean 'flip'"):
        predictor.predict(run.folder, tta=tta)


def test_probabilities_are_the_mean_over_the_views(run, predictor):
    found = predictor.predict(run.folder, tta=["original", "flip", "rotate90"])
    inputs = torch.cat([batch[0] for batch in run.data.val])
    views = [inputs, inputs.flip(3), inputs.rot90(1, (2, 3))]
    wanted = sum(cvkit.predict(run.model, view, device="cpu").softmax(1) for view in views) / 3
    assert torch.allclose(found.probabilities, wanted, atol=1e-6)
    assert not torch.allclose(found.probabilities, predictor.predict(run.folder).probabilities, atol=1e-6)


def test_a_mirror_image_is_predicted_as_the_image_is(run, drawn):
    predictor = cvkit.Predictor(run.model, ["a", "b", "c"], cvkit.transforms.small_image_eval(32), device="cpu")
    image = drawn(np.random.default_rng(3), 32, 32)
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    one, other = (predictor.predict(each, tta="flip").scores for each in (image, mirrored))
    assert torch.allclose(one, other, atol=1e-6)
    assert not torch.allclose(predictor.predict(image).scores, predictor.predict(mirrored).scores, atol=1e-6)


def test_one_view_of_number_one_changes_nothing(run, predictor):
    assert torch.equal(predictor.predict(run.folder, tta=1).outputs, predictor.predict(run.folder).outputs)


def test_averaged_probabilities_have_no_outputs(run, predictor):
    assert not hasattr(predictor.predict(run.folder, tta="flip")[0], "outputs")


def test_maps_are_turned_back_before_they_are_averaged(fixed):
    transform = cvkit.transforms.segmentation_eval(16, mean=(0, 0, 0), std=(1, 1, 1))
    predictor = fixed(lambda inputs: 9 * (inputs[:, :2] - 0.5), classes=("x", "y"), transform=transform)
    pixels = np.random.default_rng(0).integers(0, 2, (16, 16, 3), dtype=np.uint8) * 255
    plain = predictor.predict(pixels, probability_maps=True)
    several = predictor.predict(pixels, tta=8, probability_maps=True)
    assert torch.allclose(several.probability_maps, plain.probability_maps, atol=1e-6)
    assert torch.equal(several.mask, plain.mask)


def test_values_are_averaged_as_they_are(fixed):
    predictor = fixed(lambda inputs: inputs[:, 0, 0, 0], classes=None)
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[0, 7] = 255
    low, high = predictor.predict(pixels, tta=1).value, predictor.predict(pixels, tta=["flip"]).value
    assert high > low
    assert predictor.predict(pixels, tta="flip").value == pytest.approx((low + high) / 2)
