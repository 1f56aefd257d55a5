"""What training presets add to their own: draws, mixtures, erasing, colours, policies."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from cvkit.errors import ArgumentError
from cvkit.registry import presets
from cvkit.transforms import classification_train, digits_train, segmentation_train, small_image_train
from cvkit.transforms.augment import draw_erased, draw_mixed

TRAIN = ["classification_train", "small_image_train", "digits_train", "segmentation_train"]
FIELDS = {"flip": 0.5, "vertical_flip": 0.5, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.2}
MORE = {"erase": 0.7, "mixup": 0.4, "cutmix": 1.0}
STATISTICS = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7)}
POLICIES = {"autoaugment": v2.AutoAugment, "randaugment": v2.RandAugment, "trivialaugment": v2.TrivialAugmentWide}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def source(width=50, height=40, mode="RGB", seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def uint8(count, channels=3, size=16, seed=0):
    return torch.randint(0, 256, (count, channels, size, size), generator=seeded(seed), dtype=torch.uint8)


def build(name, fields, size=16):
    fields = {
        "flip": 0.0,
        **({"padding": 0} if name in ("small_image_train", "digits_train") else {}),
        **STATISTICS,
        **fields,
    }
    classes = {"num_classes": 5} if fields.get("mixup") or fields.get("cutmix") else {}
    return presets.get(name)(size, **fields, **classes)


def cases():
    for name in TRAIN:
        for field, value in {**FIELDS, **({} if name == "segmentation_train" else MORE)}.items():
            yield name, field, value
        if name in ("small_image_train", "digits_train"):
            yield name, "padding", 3


@pytest.mark.parametrize(("name", "field", "value"), list(cases()))
def test_samples_of_one_batch_get_draws_of_their_own(name, field, value):
    transform = build(name, {field: value})
    if field in ("mixup", "cutmix"):  # every other sample is the same, so that each is mixed with the same
        images = uint8(2).repeat(32, 1, 1, 1)
        made = transform.batch(images, torch.arange(64) % 2, seeded())[0][::2]
    else:
        made = transform.batch(uint8(1).repeat(64, 1, 1, 1), torch.zeros(64).long(), seeded())[0]
    different = len({one.numpy().tobytes() for one in made})
    assert different == 2 if "flip" in field else different > 15


@pytest.mark.parametrize(("name", "field", "value"), list(cases()))
def test_a_batch_is_a_function_of_its_generator_and_touches_no_other(name, field, value):
    transform = build(name, {field: value})
    images, targets = uint8(24), torch.arange(24) % 5
    before = images.clone()
    states = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())
    first, first_targets = transform.batch(images, targets, seeded(1))
    again, again_targets = transform.batch(images, targets, seeded(1))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), repr(np.random.get_state())) == states[1:]
    assert torch.equal(first, again)
    assert torch.equal(first_targets, again_targets)
    assert not torch.equal(transform.batch(images, targets, seeded(2))[0], first)
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", TRAIN)
def test_every_draw_has_a_row_a_sample_on_the_cpu(name):
    transform = build(name, {**FIELDS, **({} if name == "segmentation_train" else MORE)})
    draws = transform.draw(7, seeded())
    assert set(FIELDS) <= set(draws)
    assert {len(value) for value in draws.values()} == {7}
    assert {value.device.type for value in draws.values()} == {"cpu"}


@pytest.mark.parametrize("name", TRAIN)
def test_processes_that_take_rows_of_a_batch_make_the_rows_of_the_batch(name):
    fields = {**FIELDS, **({} if name == "segmentation_train" else {"erase": 0.7})}
    transform = build(name, {**fields, **({"padding": 2} if name in ("small_image_train", "digits_train") else {})})
    images, targets, draws = uint8(9), torch.arange(9), transform.draw(9, seeded(1))
    whole, _ = transform.apply(images, targets, draws)
    for rows in (slice(0, 4), slice(4, 9), slice(0, None, 2), torch.tensor([8, 1, 3])):
        part, kept = transform.apply(images[rows], targets[rows], {key: value[rows] for key, value in draws.items()})
        assert (part - whole[rows]).abs().max() <= 1e-5  # a mean may be summed in another order
        assert torch.equal(kept, targets[rows])
    without = build(name, {"flip": 0.5, "vertical_flip": 0.5})
    draws = without.draw(9, seeded(1))
    halves = [
        without.apply(images[r], targets[r], {k: v[r] for k, v in draws.items()})[0] for r in (slice(5), slice(5, 9))
    ]
    assert torch.equal(torch.cat(halves), without.apply(images, targets, draws)[0])


@pytest.mark.parametrize("name", ["classification_train", "small_image_train"])
def test_the_whole_batch_stage_is_torchvisions_sample_by_sample(name):
    transform = build(name, {**FIELDS, "erase": 0.7, **({"padding": 2} if name == "small_image_train" else {})})
    images, draws = uint8(12), transform.draw(12, seeded(4))
    made, _ = transform.apply(images, torch.zeros(12), draws)
    for k, image in enumerate(images):
        if name == "small_image_train":
            image = reference.crop(reference.pad(image, [2] * 4), int(draws["top"][k]), int(draws["left"][k]), 16, 16)
        image = reference.horizontal_flip(image) if draws["flip"][k] else image
        image = reference.vertical_flip(image) if draws["vertical_flip"][k] else image
        image = reference.to_dtype(image, torch.float32, scale=True)
        for field in ("brightness", "contrast", "saturation", "hue"):
            image = getattr(reference, f"adjust_{field}")(image, float(draws[field][k]))
        image = reference.normalize(image, list(transform.mean), list(transform.std))
        if draws["erase"][k, 2]:
            image = reference.erase(image, *draws["erase"][k].tolist(), torch.tensor(0.0))
        assert (made[k] - image).abs().max() <= 5e-5


@pytest.mark.parametrize("name", TRAIN)
def test_factors_are_uniform_within_their_strength(name):
    transform = build(name, {"brightness": 0.4, "contrast": 2.0, "saturation": 1.0, "hue": 0.3, "flip": 0.25})
    draws = transform.draw(4000, seeded())
    for field, low, high in (
        ("brightness", 0.6, 1.4),
        ("contrast", 0.0, 3.0),
        ("saturation", 0.0, 2.0),
        ("hue", -0.3, 0.3),
    ):
        values = draws[field].sort().values
        assert low <= values[0]
        assert values[-1] <= high
        assert torch.allclose(values, torch.linspace(low, high, 4000), atol=0.03 * (high - low))
    assert abs(draws["flip"].float().mean() - 0.25) < 0.03


def test_erased_boxes_keep_their_bounds_and_lie_inside():
    size = 200
    top, left, high, wide = draw_erased(4000, size, 1.0, seeded()).unbind(1)
    assert (high > 0).all()
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + high).max() == size
    assert (left + wide).max() == size
    area, ratio = (high * wide) / size**2, high / wide
    assert area.min() > 0.019
    assert area.max() < 0.335
    assert ratio.min() > 0.27
    assert ratio.max() < 3.6
    assert abs(area.mean() - 0.175) < 0.01
    assert abs(ratio.log().mean()) < 0.05


@given(st.integers(1, 40), st.integers(0, 2**32))
def test_an_erased_box_lies_inside_an_image_of_any_size(size, seed):
    top, left, high, wide = draw_erased(16, size, 1.0, seeded(seed)).unbind(1)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + high <= size).all()
    assert (left + wide <= size).all()
    assert ((high > 0) == (wide > 0)).all()


def test_so_many_are_erased_as_was_asked_for():
    assert abs((draw_erased(4000, 32, 0.3, seeded())[:, 2] > 0).float().mean() - 0.3) < 0.03
    assert not draw_erased(50, 32, 0.0, seeded()).any()


@given(st.integers(1, 64), st.integers(0, 2**32), st.sampled_from([0.05, 0.5, 1.0, 5.0]))
def test_a_share_of_cutmix_is_exactly_what_lies_outside_of_its_box(size, seed, alpha):
    share, box = draw_mixed(20, size, 0.0, alpha, seeded(seed))
    top, left, high, wide = box.unbind(1)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + high <= size).all()
    assert (left + wide <= size).all()
    assert ((high > 0) == (wide > 0)).all()
    for k in range(20):
        outside = torch.ones(size, size)
        outside[top[k] : top[k] + high[k], left[k] : left[k] + wide[k]] = 0
        assert share[k] == pytest.approx(float(outside.double().mean()), abs=1e-7)


def test_the_area_of_cutmix_is_what_the_other_one_is_given():
    _, box = draw_mixed(500, 400, 0.0, 1e4, seeded())  # a share of a half, but for what the borders cut off
    sides = box[:, 2:].max(1).values.float() / 400
    assert sides.max() == pytest.approx(0.5**0.5, abs=0.02)
    top, left, high, wide = draw_mixed(4000, 400, 0.0, 1.0, seeded())[1].unbind(1)
    whole = (top > 0) & (left > 0) & (top + high < 400) & (left + wide < 400)
    assert 0.1 < whole.float().mean() < 0.6
    assert (high[whole] == wide[whole]).all()


def test_cutmix_takes_each_pixel_from_one_of_the_two():
    transform = small_image_train(16, flip=0, padding=0, cutmix=1.0, num_classes=5)
    images = uint8(12)
    plain = small_image_train(16, flip=0, padding=0)
    made, _ = transform.batch(images, torch.arange(12) % 5, seeded(3))
    own = plain.batch(images, torch.zeros(12), seeded())[0]
    inside = torch.zeros(12, 1, 16, 16, dtype=torch.bool)
    for k, (top, left, high, wide) in enumerate(transform.draw(12, seeded(3))["box"].tolist()):
        inside[k, :, top : top + high, left : left + wide] = True
    assert torch.equal(made, torch.where(inside, own.roll(1, 0), own))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_a_share_of_mixup_is_of_a_beta_distribution(alpha):
    share, box = draw_mixed(8000, 32, alpha, 0.0, seeded())
    assert not box.any()
    assert abs(share.mean() - 0.5) < 0.02
    assert share.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)


def test_where_both_mixtures_are_on_a_fair_coin_chooses_for_each_sample():
    _, box = draw_mixed(4000, 224, 0.2, 1.0, seeded())
    assert abs((box[:, 2] > 0).float().mean() - 0.5) < 0.03


@pytest.mark.parametrize("alpha", [1e-300, 1e-6, 1e3])
def test_an_extreme_parameter_gives_no_nan(alpha):
    for mixup, cutmix in ((alpha, 0.0), (0.0, alpha)):
        share, _ = draw_mixed(500, 32, mixup, cutmix, seeded())
        assert ((share >= 0) & (share <= 1)).all()


@pytest.mark.parametrize("fields", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("size", [1, 15])
def test_images_and_classes_are_mixed_in_the_same_share(fields, count, size):
    transform = small_image_train(size, flip=0, padding=0, num_classes=5, mean=(0.0,), std=(1.0,), **fields)
    values = torch.arange(count)  # the level of an image is its class
    images = (values * 30)[:, None, None, None].expand(count, 1, size, size).to(torch.uint8)
    made, soft = transform.batch(images, values % 5, seeded(count))
    draws = transform.draw(count, seeded(count))
    assert (soft.dtype, soft.shape) == (torch.float32, (count, 5))
    assert torch.allclose(soft.sum(1), torch.ones(count))
    hot = torch.eye(5)[values % 5]
    share = draws["share"][:, None]
    assert torch.allclose(soft, share * hot + (1 - share) * hot.roll(1, 0), atol=1e-6)
    mean = made.mean((1, 2, 3)) * 255 / 30
    assert torch.allclose(mean, share[:, 0] * values + (1 - share[:, 0]) * values.roll(1), atol=1e-3)
    if count == 1:
        assert torch.equal(soft, hot)


@pytest.mark.parametrize("name", ["classification_train", "small_image_train", "digits_train"])
@pytest.mark.parametrize("policy", list(POLICIES))
@pytest.mark.parametrize("channels", [1, 3])
def test_a_policy_is_torchvisions_from_the_same_seed(name, policy, channels):
    statistics = {"mean": (0.5,) * channels, "std": (0.5,) * channels}
    transform = presets.get(name)(20, augment=policy, **statistics)
    theirs = POLICIES[policy](interpolation=v2.InterpolationMode.BILINEAR)
    image = source(mode="L" if channels == 1 else "RGB")
    plain = presets.get(name)(20, **statistics)
    changed = 0
    for seed in range(12):
        torch.manual_seed(seed)
        states = random.getstate(), repr(np.random.get_state())
        ours = transform.sample(image)
        torch.manual_seed(seed)
        cut = plain.sample(image)
        assert torch.equal(ours, theirs(cut))
        assert (ours.dtype, ours.shape) == (torch.uint8, (channels, 20, 20))
        assert (random.getstate(), repr(np.random.get_state())) == states
        changed += not torch.equal(ours, cut)
    assert changed > 3
    assert transform.sample_random
    assert transform.draws_global
    assert not plain.draws_global
    assert not transform.evaluation().sample_random


def test_an_empty_batch_stays_empty():
    transform = build("small_image_train", {**FIELDS, **MORE, "padding": 2})
    images, targets = transform.batch(uint8(0), torch.zeros(0, dtype=torch.long), seeded())
    assert images.shape == (0, 3, 16, 16)
    assert targets.shape == (0, 5)


def test_one_image_goes_through_mixup_alone():
    transform = small_image_train(24, mixup=0.2, cutmix=1.0, num_classes=3, flip=0, padding=0)
    assert torch.equal(transform(source()), transform.evaluation()(source()))


def test_mixing_what_are_no_classes_is_refused():
    transform = digits_train(8, mixup=0.2, num_classes=3)
    with pytest.raises(ArgumentError) as caught:
        transform.batch(uint8(2, 1, 8), torch.zeros(2), seeded())
    assert str(caught.value) == (
        "digits_train: mixup and cutmix mix classes\n"
        "  got: targets torch.float32 of shape (2,)\n"
        "  expected: class indices, one a sample\n"
        "  fix: leave mixup and cutmix out"
    )


@pytest.mark.parametrize("targets", [[0, 3], [-1, 2]])
def test_a_class_beyond_those_that_were_said_is_refused(targets):
    transform = digits_train(8, cutmix=1.0, num_classes=3)
    with pytest.raises(ArgumentError) as caught:
        transform.batch(uint8(2, 1, 8), torch.tensor(targets), seeded())
    assert str(caught.value) == (
        "digits_train: there are targets that are none of the classes\n"
        f"  got: targets from {targets[0]} to {targets[1]}\n"
        "  expected: from 0 to 2, for num_classes=3\n"
        "  fix: pass num_classes=len(data.classes)"
    )


@pytest.mark.parametrize("field", ["mixup", "cutmix"])
@pytest.mark.parametrize("classes", [None, 1, 2.0, True])
def test_mixtures_without_the_number_of_classes_are_refused(field, classes):
    with pytest.raises(ArgumentError) as caught:
        classification_train(**{field: 0.2}, num_classes=classes)
    assert str(caught.value) == (
        "classification_train: mixup and cutmix make soft targets and must know how many classes there are\n"
        f"  got: num_classes={classes!r}\n"
        "  expected: the number of classes, 2 or more\n"
        "  fix: pass num_classes=len(data.classes)"
    )


def test_an_unknown_policy_is_answered_with_the_nearest():
    with pytest.raises(ArgumentError) as caught:
        classification_train(augment="randaug")
    assert str(caught.value) == (
        "unknown augment 'randaug'\n"
        "  expected: one of: autoaugment, randaugment, trivialaugment\n"
        "  fix: did you mean 'randaugment'?"
    )


@pytest.mark.parametrize("name", TRAIN)
@pytest.mark.parametrize(
    ("field", "value", "most"),
    [
        ("brightness", -0.1, "1000"),
        ("contrast", 2e3, "1000"),
        ("saturation", float("nan"), "1000"),
        ("hue", 0.6, "0.5"),
    ],
)
def test_a_strength_out_of_range_is_refused(name, field, value, most):
    with pytest.raises(ArgumentError) as caught:
        presets.get(name)(**{field: value})
    assert str(caught.value) == (
        f"{name}: {field} cannot be used\n  got: {value!r}\n"
        f"  expected: a number from 0 (none) to {most}\n  fix: pass e.g. {field}=0.2"
    )


def test_masks_are_never_erased_nor_mixed():
    with pytest.raises(TypeError):
        segmentation_train(erase=0.5)
    assert "erase" not in segmentation_train().to_config()
