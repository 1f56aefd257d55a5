"""What holds for every preset, and what each does."""

import inspect
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import ResNet18_Weights, ViT_B_16_Weights, get_weight
from torchvision.transforms._presets import ImageClassification
from torchvision.transforms.v2 import functional as reference

from cvkit import transforms
from cvkit.errors import ArgumentError, UnknownNameError
from cvkit.registry import presets
from cvkit.transforms import Transform
from cvkit.transforms.sample import to_tensor

NAMES = [name for name in transforms.__all__ if name not in ("Frame", "Framed", "Transform", "from_weights")]
TRAIN = [name for name in NAMES if name.endswith("_train")]
CROPPED = ["classification_train", "segmentation_train"]
each = pytest.mark.parametrize("name", NAMES)


def source(width=50, height=40, mode="RGB", seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def ready(transform, count=4):
    """A batch of different images after the first stage, and their targets."""
    return torch.stack([transform.sample(source(seed=k)) for k in range(count)]), torch.arange(count)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@each
def test_a_preset_is_registered_under_its_own_name(name):
    assert presets.get(name) is getattr(transforms, name)
    assert presets.get(name)().name == name


@each
def test_arguments_after_the_size_are_keyword_only(name):
    first, *rest = inspect.signature(presets.get(name)).parameters.values()
    assert (first.name, first.kind) == ("size", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    assert {one.kind for one in rest} == {inspect.Parameter.KEYWORD_ONLY}


@each
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
@pytest.mark.parametrize("size", [1, 24, 33])
def test_both_stages_keep_their_types_and_shapes(name, mode, size):
    transform = presets.get(name)(size)
    sample = transform.sample(source(mode=mode))
    assert (sample.dtype, sample.shape) == (torch.uint8, (transform.channels, size, size))
    images, targets = transform.batch(sample[None], torch.tensor([3]), seeded())
    assert (images.dtype, images.shape) == (torch.float32, (1, transform.channels, size, size))
    if name == "denoise":
        assert (targets.dtype, targets.shape) == (torch.float32, images.shape)
    else:
        assert targets.tolist() == [3]
    assert transform(source(mode=mode)).shape == (transform.channels, size, size)


@each
def test_the_configuration_is_plain_and_builds_the_same_transform(name):
    for transform in (presets.get(name)(), presets.get(name)(20, mean=[0.25], std=[0.5])):
        config = json.loads(json.dumps(transform.to_config()))
        assert config == transform.to_config()
        again = Transform.from_config(config)
        assert again == transform
        assert hash(again) == hash(transform)
        assert repr(again) == repr(transform)
        assert pickle.loads(pickle.dumps(transform)) == transform
    assert presets.get(name)(20) != presets.get(name)(24)
    assert [other for other in NAMES if presets.get(other)(20) == presets.get(name)(20)] == [name]


def test_a_representation_says_all_arguments():
    assert repr(transforms.digits_train(20)) == (
        "digits_train(size=20, mean=(0.1307,), std=(0.3081,), flip=0.0, vertical_flip=0.0, brightness=0.0, contrast=0.0, "
        "saturation=0.0, hue=0.0, erase=0.0, mixup=0.0, cutmix=0.0, num_classes=None, augment=None, padding=2)"
    )


def test_a_transform_cannot_be_changed():
    with pytest.raises(AttributeError):
        transforms.digits_eval().size = 3


@each
def test_the_evaluation_twin_is_deterministic_and_its_own_twin(name):
    transform = presets.get(name)(24, mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3))
    twin = transform.evaluation()
    assert twin.name == name.replace("train", "eval")
    assert (twin.size, twin.mean, twin.std) == (transform.size, transform.mean, transform.std)
    assert twin.evaluation() == twin
    assert not twin.sample_random
    state = torch.get_rng_state()
    first = twin.sample(source())
    assert torch.equal(twin.sample(source()), first)
    assert torch.equal(torch.get_rng_state(), state)
    once, again = (twin.batch(first[None], torch.zeros(1), seeded(k))[0] for k in (1, 2))
    assert torch.equal(once, again)
    assert torch.equal(twin(source()), once[0])


@each
def test_a_first_stage_that_says_it_is_not_random_draws_nothing(name):
    transform = presets.get(name)(24)
    state = torch.get_rng_state()
    transform.sample(source())
    assert torch.equal(torch.get_rng_state(), state) is not transform.sample_random


@each
def test_a_first_stage_is_a_function_of_the_global_generator(name):
    transform = presets.get(name)(24)
    torch.manual_seed(5)
    first = transform.sample(source())
    torch.manual_seed(5)
    assert torch.equal(transform.sample(source()), first)


@each
def test_a_batch_stage_is_a_function_of_its_generator_alone(name):
    transform = presets.get(name)(24)
    images, targets = ready(transform, 16)
    before, state = images.clone(), torch.get_rng_state()
    first, _ = transform.batch(images, targets, seeded(1))
    assert torch.equal(transform.batch(images, targets, seeded(1))[0], first)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, before)
    other, _ = transform.batch(images, targets, seeded(2))
    assert torch.equal(other, first) is not (name in TRAIN or name == "denoise")


@pytest.mark.parametrize("name", TRAIN)
def test_samples_of_a_batch_get_draws_of_their_own(name):
    transform = presets.get(name)(24)
    same = transform.sample(source())[None].repeat(64, 1, 1, 1)
    images, _ = transform.batch(same, torch.zeros(64), seeded())
    different = len({one.numpy().tobytes() for one in images})
    assert different == 2 if name in CROPPED else different > 15


@pytest.mark.parametrize("name", TRAIN)
def test_processes_that_share_the_draws_of_a_batch_make_the_same_batch(name):
    transform = presets.get(name)(24)
    images, targets = ready(transform, 7)
    whole, _ = transform.batch(images, targets, seeded(1))
    draws = transform.draw(7, seeded(1))
    halves = [
        transform.apply(images[rows], targets[rows], {key: value[rows] for key, value in draws.items()})[0]
        for rows in (slice(0, 4), slice(4, 7))
    ]
    assert torch.equal(torch.cat(halves), whole)


@pytest.mark.parametrize("size", [24, 128])  # a large one goes another way
def test_classification_train_mirrors_and_normalises_as_torchvision_does(size):
    transform = transforms.classification_train(size)
    images, targets = ready(transform, 8)
    flags = torch.rand(8, generator=seeded(3)) < 0.5
    assert 0 < flags.sum() < 8
    expected = [reference.hflip(one) if flag else one for one, flag in zip(images, flags, strict=True)]
    expected = [reference.normalize(one / 255, transform.mean, transform.std) for one in expected]
    made, _ = transform.batch(images, targets, seeded(3))
    assert (made - torch.stack(expected)).abs().max() <= 1e-6


@pytest.mark.parametrize("size", [(50, 40), (40, 50), (31, 31), (300, 224)])
def test_classification_eval_is_that_of_torchvisions_weights(size):
    ours = transforms.classification_eval(28)(source(*size))
    recipe = ImageClassification(crop_size=28, resize_size=32)
    for theirs in (recipe(source(*size)), recipe(to_tensor(source(*size)))):  # by Pillow, and by floats: each rounds
        assert (ours - theirs).abs().max() <= 1 / 255 / 0.224 + 1e-6


@pytest.mark.parametrize(("size", "resize"), [(224, 256), (64, 73), (32, 37), (1, 1)])
def test_classification_eval_resizes_in_the_usual_proportion(size, resize):
    assert transforms.classification_eval(size).to_config()["resize"] == resize


@pytest.mark.parametrize("name", ["small_image_train", "digits_train"])
def test_a_padded_crop_shifts_by_no_more_than_its_padding_and_fills_with_zeros(name):
    transform = presets.get(name)(8, padding=2, flip=0.0, mean=(0.0,), std=(1.0,))
    full = torch.full((200, 1, 8, 8), 255, dtype=torch.uint8)
    images, _ = transform.batch(full, torch.zeros(200), seeded())
    assert set(images.unique().tolist()) == {0.0, 1.0}
    covered = images.sum((1, 2, 3))
    assert covered.min() == 36
    assert covered.max() == 64


@pytest.mark.parametrize("name", ["small_image_train", "digits_train"])
def test_no_padding_and_no_flip_are_the_evaluation_twin(name):
    transform = presets.get(name)(24, padding=0, flip=0.0)
    images, targets = ready(transform)
    twin = transform.evaluation()
    assert torch.equal(transform.batch(images, targets, seeded())[0], twin.batch(images, targets, seeded())[0])


@each
def test_denormalising_undoes_the_second_stage(name):
    transform = presets.get(name)(24, mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3)).evaluation()
    images, targets = ready(transform)
    back = transform.denormalize(transform.batch(images, targets, seeded())[0])
    assert torch.equal((back * 255).round().to(torch.uint8), images)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            "small_image_eval",
            {"size": 0},
            "small_image_eval: size cannot be used\n  got: 0\n"
            "  expected: the side of the result in pixels, an integer of 1 or more\n  fix: pass e.g. size=32",
        ),
        (
            "classification_train",
            {"scale": (0.5, 1.5)},
            "classification_train: scale cannot be used\n  got: (0.5, 1.5)\n"
            "  expected: two numbers, 0 < low <= high <= 1\n  fix: pass e.g. scale=(0.08, 1.0)",
        ),
        (
            "classification_train",
            {"ratio": (2, 1)},
            "classification_train: ratio cannot be used\n  got: (2.0, 1.0)\n"
            "  expected: two numbers, 0 < low <= high\n  fix: pass e.g. ratio=(0.75, 1.33)",
        ),
        (
            "digits_train",
            {"flip": 1.5},
            "digits_train: flip cannot be used\n  got: 1.5\n"
            "  expected: a probability from 0 to 1\n  fix: pass e.g. flip=0.5",
        ),
        (
            "small_image_train",
            {"padding": -1},
            "small_image_train: padding cannot be used\n  got: -1\n"
            "  expected: zeros on each side in pixels, an integer of 0 or more\n  fix: pass e.g. padding=4",
        ),
        (
            "classification_eval",
            {"size": 64, "resize": 32},
            "classification_eval: resize cannot be used\n  got: 32\n"
            "  expected: the shorter side in pixels before the cut, an integer of size=64 or more\n"
            "  fix: leave resize out",
        ),
        (
            "digits_eval",
            {"mean": (0.1, 0.2), "std": (0.1,)},
            "digits_eval: mean and std cannot be used\n  got: mean=(0.1, 0.2), std=(0.1,)\n"
            "  expected: one mean and one positive std a channel, for 1 (grey) or 3 (RGB) channels, on the scale 0 to 1\n"
            "  fix: leave both out for the usual ones",
        ),
    ],
)
def test_a_value_out_of_range_is_answered(name, arguments, message):
    with pytest.raises(ArgumentError) as caught:
        presets.get(name)(**arguments)
    assert str(caught.value) == message


@each
@pytest.mark.parametrize("size", [0, -3, 2.5, "32", True, (32, 32), None])
def test_no_preset_takes_a_size_that_is_no_whole_number(name, size):
    with pytest.raises(ArgumentError, match=f"{name}: size cannot be used"):
        presets.get(name)(size)


@pytest.mark.parametrize("scale", [(0.5,), (0.1, 0.5, 1.0), (0, 1), (0.8, 0.2), (float("nan"), 1)])
def test_a_scale_that_is_no_pair_is_refused(scale):
    with pytest.raises(ArgumentError, match="classification_train: scale cannot be used"):
        transforms.classification_train(scale=scale)


def test_an_unknown_interpolation_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'bicubic'"):
        transforms.classification_eval(interpolation="bicubik")


@pytest.mark.parametrize(
    "images",
    [torch.zeros(2, 3, 32, 32), torch.zeros(2, 1, 32, 32).byte(), torch.zeros(2, 3, 30, 32).byte()],
    ids=["floats", "grey", "another size"],
)
def test_a_batch_of_something_else_is_refused(images):
    with pytest.raises(ArgumentError) as caught:
        transforms.small_image_eval().batch(images, torch.zeros(2), seeded())
    assert str(caught.value) == (
        "small_image_eval: these are not batches of its samples\n"
        f"  got: {images.dtype} of shape {tuple(images.shape)}\n"
        "  expected: torch.uint8 of shape (B, 3, 32, 32)\n"
        "  fix: stack what its sample() returns"
    )


def test_a_configuration_of_an_unknown_preset_is_answered():
    with pytest.raises(UnknownNameError, match="unknown preset 'digit_train'"):
        Transform.from_config({"name": "digit_train", "size": 28})
    with pytest.raises(UnknownNameError, match="unknown preset ''"):
        Transform.from_config({})


def test_a_configuration_with_a_wrong_argument_is_answered():
    with pytest.raises(ArgumentError) as caught:
        Transform.from_config({"name": "digits_eval", "sise": 28})
    assert str(caught.value) == (
        "this is no configuration of the preset 'digits_eval'\n"
        "  got: {'sise': 28} (got an unexpected keyword argument 'sise')\n"
        "  expected: arguments among size, mean, std\n"
        "  fix: pass what to_config() returned"
    )


def test_the_room_does_not_load_torchvision():
    code = "import cvkit.transforms, sys; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("argument", ["mean", "std", "scale", "ratio"])
def test_one_number_where_several_are_wanted_is_answered(argument):
    with pytest.raises(ArgumentError) as caught:
        transforms.classification_train(**{argument: 0.5})
    assert str(caught.value) == (
        f"{argument} cannot be used\n  got: 0.5\n  expected: a sequence of numbers\n"
        f"  fix: pass e.g. {argument}=(0.5,), or leave it out for the usual ones"
    )


@pytest.mark.parametrize(
    ("arguments", "got"), [({"flip": "half"}, "'half'"), ({"mixup": None}, "None"), ({"mean": "abc"}, "'a'")]
)
def test_what_is_no_number_is_answered(arguments, got):
    with pytest.raises(ArgumentError) as caught:
        transforms.digits_train(**arguments)
    assert str(caught.value) == (
        f"{next(iter(arguments))} cannot be used\n  got: {got}\n  expected: a number\n"
        "  fix: leave it out for the usual one"
    )


@pytest.mark.parametrize(
    "statistics",
    [
        {"mean": (0.1, 0.2, float("nan"))},
        {"mean": (0.1, 0.2, float("inf"))},
        {"std": (0.1, 0.0, 0.2)},
        {"std": (0.1, -0.1, 0.2)},
        {"std": (0.1, float("inf"), 0.2)},
        {"std": (0.1, float("nan"), 0.2)},
        {"mean": (), "std": ()},
        {"mean": (0.1, 0.2), "std": (0.1, 0.2)},
    ],
)
def test_statistics_that_make_no_image_are_refused(statistics):
    with pytest.raises(ArgumentError, match="classification_eval: mean and std cannot be used"):
        transforms.classification_eval(**statistics)


@pytest.mark.parametrize("ratio", [(1, float("inf")), (0, 1), (2, 1), (1,), (float("nan"), 1)])
def test_a_ratio_that_is_no_pair_is_refused(ratio):
    with pytest.raises(ArgumentError, match="segmentation_train: ratio cannot be used"):
        transforms.segmentation_train(ratio=ratio)


@each
def test_a_configuration_with_every_argument_changed_builds_the_same_transform(name):
    other = {
        "size": 17, "scale": (0.3, 0.6), "ratio": (0.5, 2), "flip": 0.25, "vertical_flip": 0.75, "brightness": 0.1,
        "contrast": 0.2, "saturation": 0.3, "hue": 0.4, "erase": 0.6, "mixup": 0.7, "cutmix": 0.8, "num_classes": 9,
        "augment": "randaugment", "mean": (0.1,), "std": (0.2,), "interpolation": "bicubic", "resize": 19, "padding": 3,
        "noise": 0.05,
    }  # fmt: skip
    taken = {key: other[key] for key in inspect.signature(presets.get(name)).parameters if key != "channels"}
    transform = presets.get(name)(**taken)
    config = transform.to_config()
    assert {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()} == {
        "name": name,
        **taken,
    }
    again = Transform.from_config(json.loads(json.dumps(config)))
    assert again == transform
    assert pickle.loads(pickle.dumps(transform)) == transform
    for key in set(taken) - {"size", "num_classes", "resize"}:  # each argument is part of what it is
        less = {k: v for k, v in taken.items() if k != key and not (key in ("mean", "std") and k in ("mean", "std"))}
        assert presets.get(name)(**less) != transform


GREY = {
    "classification_train": ((0.449,), (0.226,)),
    "classification_eval": ((0.449,), (0.226,)),
    "small_image_train": ((0.4734,), (0.2507,)),
    "small_image_eval": ((0.4734,), (0.2507,)),
    "segmentation_train": ((0.449,), (0.226,)),
    "segmentation_eval": ((0.449,), (0.226,)),
    "denoise": ((0.0,), (1.0,)),
}


@pytest.mark.parametrize("name", GREY)
def test_one_channel_makes_grey_images_with_statistics_of_one(name):
    transform = presets.get(name)(24, channels=1)
    assert (transform.channels, transform.mean, transform.std) == (1, *GREY[name])
    assert transform.sample(source()).shape == (1, 24, 24)
    assert transform(source()).shape == (1, 24, 24)
    assert transform.evaluation().channels == 1
    assert (transform.evaluation().mean, transform.evaluation().std) == GREY[name]
    config = json.loads(json.dumps(transform.to_config()))
    assert "channels" not in config  # mean and std say it, also in the checkpoints of older versions
    assert Transform.from_config(config) == transform
    assert presets.get(name)(24, channels=1, mean=[0.5], std=[0.25]).mean == (0.5,)
    usual = presets.get(name)(24)
    assert presets.get(name)(24, channels=3) == usual
    assert usual.channels == 3
    for one, three in zip(GREY[name], (usual.mean, usual.std), strict=True):
        assert one[0] == pytest.approx(sum(three) / 3, abs=5e-5)


@pytest.mark.parametrize("name", GREY)
def test_statistics_of_another_number_of_channels_are_refused(name):
    with pytest.raises(ArgumentError) as caught:
        presets.get(name)(24, channels=1, mean=(0.1, 0.2, 0.3))
    assert str(caught.value) == (
        f"{name}: mean and std are not of channels=1\n"
        f"  got: mean=(0.1, 0.2, 0.3), std={GREY[name][1]}\n"
        "  expected: 1 of each\n"
        "  fix: leave mean and std out for the usual ones, or leave channels out"
    )
    with pytest.raises(ArgumentError, match="mean and std are not of channels=3"):
        presets.get(name)(24, channels=3, mean=(0.5,), std=(0.25,))


@pytest.mark.parametrize("channels", [0, 2, 4, True, "1", 1.0, [1]])
def test_other_channels_than_one_and_three_are_refused(channels):
    with pytest.raises(ArgumentError) as caught:
        transforms.denoise(24, channels=channels)
    assert str(caught.value) == (
        f"denoise: channels cannot be used\n  got: {channels!r}\n  expected: 1 for grey images, 3 for RGB\n"
        "  fix: pass channels=1 or channels=3, or leave it out"
    )


@each
def test_the_twin_of_a_preset_keeps_what_they_share(name):
    taken = inspect.signature(presets.get(name)).parameters
    transform = presets.get(name)(20, **({"interpolation": "bicubic"} if "interpolation" in taken else {}))
    twin = transform.evaluation()
    assert twin.channels == transform.channels
    assert twin.takes_pairs == transform.takes_pairs
    assert twin.to_config().get("interpolation") == transform.to_config().get("interpolation")
    assert transforms.Transform.from_config(twin.to_config()) == twin


def test_weights_of_a_classifier_give_their_preprocessing():
    weights = ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1
    transform = transforms.from_weights(weights)
    assert transform == transforms.classification_eval(384, resize=384, interpolation="bicubic")
    assert transforms.from_weights("ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1") == transform
    assert Transform.from_config(transform.to_config()) == transform


@pytest.mark.parametrize("name", ["ResNet50_Weights.IMAGENET1K_V2", "AlexNet_Weights.DEFAULT"])
def test_the_preprocessing_of_weights_is_torchvisions(name):
    image = source(300, 260)
    theirs = get_weight(name).transforms()(to_tensor(image))
    assert (transforms.from_weights(name)(image) - theirs).abs().max() <= 1 / 255 / 0.224 + 1e-6


def test_weights_of_a_segmentation_take_the_whole_image():
    transform = transforms.from_weights("FCN_ResNet50_Weights.DEFAULT")
    assert transform == transforms.segmentation_eval(520)
    assert transform.takes_pairs


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("FasterRCNN_ResNet50_FPN_Weights.COCO_V1", "ObjectDetection"),
        ("R3D_18_Weights.DEFAULT", "VideoClassification"),
        ("Raft_Small_Weights.DEFAULT", "OpticalFlow"),
    ],
)
def test_weights_of_another_task_are_refused(name, kind):
    for weights in (name, get_weight(name)):
        with pytest.raises(ArgumentError) as caught:
            transforms.from_weights(weights)
        assert str(caught.value) == (
            f"these weights' preprocessing is no preset\n  got: {kind}\n"
            "  expected: that of a classifier or of a semantic segmentation\n"
            "  fix: pass weights.transforms() itself as the transform"
        )


@pytest.mark.parametrize(
    "weights",
    [
        "ResNet18_Weight.IMAGENET1K_V1",
        "ResNet18_Weights.IMAGENET1K_V9",
        "ResNet18_Weights",
        "",
        None,
        3,
        ResNet18_Weights,
    ],
)
def test_what_are_no_weights_is_answered(weights):
    with pytest.raises(ArgumentError) as caught:
        transforms.from_weights(weights)
    what, got, expected, fix = str(caught.value).split("\n")
    assert what == "weights cannot be used"
    assert got.startswith(f"  got: {weights!r} (")
    assert expected == "  expected: an entry of a torchvision weights enum, or its name"
    assert fix == '  fix: e.g. from_weights("ResNet18_Weights.IMAGENET1K_V1")'
