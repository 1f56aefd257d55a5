"""Frames: chosen before decoding, cut out of images that are kept or decoded smaller; transforms of the user's own."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cvkit.errors import DataError
from cvkit.registry import presets
from cvkit.transforms import Framed, Transform, classification_eval, classification_train, small_image_train
from cvkit.transforms.sample import Frame, centre_frame, cut, random_box, resize, whole_frame

sides = st.integers(1, 3000)
NAMES = [
    "classification_train", "classification_eval", "small_image_train", "small_image_eval", "digits_train", "digits_eval",
    "segmentation_train", "segmentation_eval", "denoise",
]  # fmt: skip


def smooth(width, height, channels=3):
    """Pixels of an image without fine detail."""
    rows, columns = np.mgrid[0:height, 0:width] / max(width, height)
    levels = [127 + 100 * np.sin(5 * rows + k) * np.cos(4 * columns - k) for k in range(channels)]
    return torch.from_numpy(np.stack(levels).round().astype(np.uint8))


def source(width=50, height=40, mode="RGB", seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@st.composite
def frames(draw):
    width, height = draw(sides), draw(sides)
    left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    box = (left, top, draw(st.integers(left + 1, width)), draw(st.integers(top + 1, height)))
    size = (draw(st.integers(1, 500)), draw(st.integers(1, 500)))
    return Frame((width, height), box, size, spare=draw(st.sampled_from([1.0, 1.5, 2.0])))


@given(frames())
def test_what_is_enough_is_never_larger_than_the_image_and_the_box_on_it_never_smaller_than_wanted(frame):
    wide, high = frame.enough
    assert 1 <= wide <= frame.of[0]
    assert 1 <= high <= frame.of[1]
    left, top, right, bottom = frame.box
    for enough, of, taken, wanted in (
        (wide, frame.of[0], right - left, frame.size[0]),
        (high, frame.of[1], bottom - top, frame.size[1]),
    ):
        assert enough == of or enough * taken / of >= wanted * frame.spare * (1 - 1e-9)
    left, top, right, bottom = frame.on(wide, high)
    assert right - left >= min(frame.size[0], frame.box[2] - frame.box[0]) - 1  # either border is rounded
    assert bottom - top >= min(frame.size[1], frame.box[3] - frame.box[1]) - 1


@given(frames(), st.data())
def test_a_box_on_a_smaller_image_lies_inside_it_and_covers_the_same_part(frame, data):
    wide, high = data.draw(st.integers(1, frame.of[0])), data.draw(st.integers(1, frame.of[1]))
    left, top, right, bottom = frame.on(wide, high)
    assert 0 <= left < right <= wide
    assert 0 <= top < bottom <= high
    for made, of, now, before in zip(
        (left, top, right, bottom), (wide, high) * 2, frame.box, frame.of * 2, strict=True
    ):
        assert abs(made - now * of / before) <= 1.5  # rounded, and at least a pixel
    assert frame.on(*frame.of) == frame.box


def test_a_box_at_the_far_border_keeps_a_pixel():
    assert Frame((10, 10), (9, 9, 10, 10), (4, 4)).on(3, 3) == (2, 2, 3, 3)
    assert Frame((10, 10), (0, 0, 1, 1), (4, 4)).on(3, 3) == (0, 0, 1, 1)


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 300))
def test_for_an_image_to_be_compared_twice_the_pixels_are_decoded(width, height, size):
    wide, high = centre_frame(width, height, size, size).enough
    assert min(wide, high) >= min(2 * size, width, height)


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_wants_no_more_than_the_image_and_cuts_its_own_size(name):
    transform = presets.get(name)(24)
    for width, height in ((50, 40), (1, 1), (7, 300), (24, 24), (400, 300)):
        frame = transform.frame(width, height, torch.Generator().manual_seed(0))
        assert frame.of == (width, height)
        assert frame.enough[0] <= width
        assert frame.enough[1] <= height
        smaller = resize(smooth(width, height, transform.channels), *frame.enough)
        assert transform.cut(smaller, frame).shape == (transform.channels, 24, 24)


@given(st.integers(0, 2**32), st.integers(200, 600), st.integers(200, 600))
@settings(max_examples=25)
def test_an_image_decoded_smaller_gives_nearly_the_same_crop(seed, width, height):
    pixels = smooth(width, height)
    generator = torch.Generator().manual_seed(seed)
    random = Frame((width, height), random_box(width, height, (0.2, 1.0), (0.75, 1.33), generator), (32, 32))
    # the box of a crop is whole pixels of the smaller image: a shift of half a pixel of the result at most
    for most, frame in (
        (5, random),
        (0.6, centre_frame(width, height, 37, 32)),
        (0.6, whole_frame(width, height, 32)),
    ):
        far = (cut(pixels, frame).int() - cut(resize(pixels, *frame.enough), frame).int()).abs().float()
        assert far.mean() <= most


@given(
    st.integers(20, 4000), st.integers(20, 4000), st.integers(8, 300), st.integers(0, 2**32),
    st.sampled_from([(0.08, 1.0), (0.5, 1.0), (0.02, 0.1), (1.0, 1.0)]), st.sampled_from([(0.75, 4 / 3), (1.0, 1.0), (0.2, 0.5), (0.3, 4.0)]),
)  # fmt: skip
@settings(max_examples=200)
def test_no_crop_is_enlarged_because_a_reduced_image_was_kept(width, height, size, seed, scale, ratio):
    transform = classification_train(size, scale=scale, ratio=ratio)
    wide, high = transform.most(width, height)
    assert 1 <= wide <= width
    assert 1 <= high <= height
    generator = torch.Generator().manual_seed(seed)
    for _ in range(5):
        frame = transform.frame(width, height, generator)
        left, top, right, bottom = frame.box
        kept = (right - left) * wide / width, (bottom - top) * high / height
        for now, before in zip(kept, (right - left, bottom - top), strict=True):
            assert now >= min(size, before) - 1  # a box is whole pixels


def test_an_image_under_the_bound_is_kept_as_it_is_and_a_larger_one_no_larger_than_is_of_use():
    transform = classification_train(16)
    pixels = transform.pixels(source())
    assert torch.equal(pixels, torch.from_numpy(np.array(source())).permute(2, 0, 1))
    large = transform.pixels(source(900, 600))
    assert large.shape[1:] == transform.most(900, 600)[::-1]
    assert large.shape[2] < 900
    assert abs(large.shape[2] / large.shape[1] - 1.5) < 0.02
    assert transform.pixels(source(mode="L")).shape == (3, 40, 50)
    assert small_image_train(32).pixels(source(900, 600)).shape == (3, 32, 32)
    assert classification_eval(16).pixels(source()).shape == (3, 40, 50)


@pytest.mark.parametrize("name", NAMES)
def test_a_frame_cut_from_kept_pixels_is_that_from_the_image(name):
    transform = presets.get(name)(24)
    for mode in ("L", "RGB"):
        image = source(mode=mode)
        frame = transform.frame(50, 40, torch.Generator().manual_seed(1))
        pixels = torch.from_numpy(np.array(image.convert("L" if transform.channels == 1 else "RGB")))
        pixels = pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()
        assert torch.equal(transform.cut(pixels, frame), transform.cut(image, frame))


@pytest.mark.parametrize("name", NAMES)
def test_a_frame_draws_from_the_generator_it_is_given_and_from_nothing_else(name):
    transform = presets.get(name)(24)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    explicit = transform.frame(500, 400, torch.Generator().manual_seed(3))
    assert torch.equal(torch.get_rng_state(), before)
    assert transform.frame(500, 400) == explicit
    assert torch.equal(torch.get_rng_state(), before) is not transform.sample_random


@pytest.mark.parametrize("name", NAMES)
def test_what_passes_is_what_the_first_stage_leaves_alone(name):
    transform = presets.get(name)(24)
    mode = "L" if transform.channels == 1 else "RGB"
    image = source(24, 24, mode)
    same = torch.equal(transform.sample(image).flatten(), transform.pixels(image).flatten())
    assert not transform.passes(transform.channels, 24, 24) or same
    assert not transform.passes(transform.channels, 24, 23)
    assert not transform.passes(4 - transform.channels, 24, 24)
    assert transform.passes(transform.channels, 24, 24) is not name.startswith(("classification", "segmentation_train"))


def test_a_policy_keeps_an_image_from_passing():
    assert small_image_train(24).passes(3, 24, 24)
    assert not small_image_train(24, augment="randaugment").passes(3, 24, 24)


@dataclass(frozen=True)
class Middle(Transform):
    """A user's own: one stage, nothing random."""

    name: ClassVar[str] = "middle"

    def sample(self, image):
        return torch.from_numpy(np.array(image.convert("RGB").resize((self.size, self.size)))).permute(2, 0, 1)


@dataclass(frozen=True)
class Corner(Framed):
    """A user's own: a corner of each image."""

    name: ClassVar[str] = "corner"

    share: float = 0.5

    def frame(self, width, height, generator=None):
        return Frame(
            (width, height), (0, 0, max(1, int(width * self.share)), max(1, int(height * self.share))), (self.size,) * 2
        )


@dataclass(frozen=True)
class Negative(Framed):
    """A user's own, which changes what it has cut."""

    name: ClassVar[str] = "negative"

    def frame(self, width, height, generator=None):
        return whole_frame(width, height, self.size)

    def cut(self, image, frame):
        return 255 - super().cut(image, frame)


@pytest.fixture
def registered():
    for kind in (Middle, Corner, Negative):
        presets.register(kind.name)(kind)
    yield
    for kind in (Middle, Corner, Negative):
        presets._entries.pop(kind.name)


@pytest.mark.parametrize("kind", [Middle, Corner, Negative])
def test_a_transform_of_the_users_own_does_all_that_a_preset_does(kind, registered):
    transform = kind(8, (0.5,) * 3, (0.25,) * 3)
    sample = transform.sample(source())
    assert (sample.dtype, sample.shape) == (torch.uint8, (3, 8, 8))
    images, targets = transform.batch(sample[None], torch.tensor([1]), torch.Generator())
    assert torch.allclose(images, (sample[None] / 255 - 0.5) / 0.25, atol=1e-6)
    assert targets.tolist() == [1]
    assert torch.equal(transform(source()), images[0])
    assert transform.evaluation() is transform
    again = Transform.from_config(transform.to_config())
    assert again == transform
    assert hash(again) == hash(transform)


def test_a_corner_is_cut_where_it_is_said_to_be():
    image = source(40, 40)
    expected = image.crop((0, 0, 20, 20))
    assert torch.equal(
        Corner(20, (0.5,) * 3, (0.5,) * 3).sample(image), torch.from_numpy(np.array(expected)).permute(2, 0, 1)
    )


def test_a_class_that_changes_what_it_cuts_does_not_pass():
    assert not Negative(8, (0.5,), (0.5,)).passes(1, 8, 8)


@pytest.mark.parametrize("kind", [Middle, Corner])
def test_a_transform_that_moves_no_targets_says_so(kind):
    with pytest.raises(DataError) as caught:
        kind(8, (0.5,), (0.5,)).sample_pair(source(), source(mode="L"))
    assert str(caught.value) == (
        f"{kind.name} leaves a target that is an image behind\n"
        "  got: a target of mode 'L', 50×40\n"
        "  expected: targets that are classes or numbers\n"
        "  fix: take segmentation_train and segmentation_eval for masks, denoise for images"
    )
