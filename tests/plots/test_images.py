"""Pixels that can be shown: every kind of image, every range, and what is no image."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cvkit.errors import ArgumentError, DataError
from cvkit.plots.images import first_batch, to_pixels
from cvkit.transforms import classification_eval

MAGENTA = [1.0, 0.0, 1.0]


def one(value, channels=1, dtype=torch.uint8):
    return torch.full((1, channels, 2, 3), value, dtype=dtype)


def test_grey_is_shown_grey():
    pixels, notes = to_pixels(one(51))
    assert pixels.shape == (1, 2, 3, 3)
    assert pixels.dtype == np.float32
    assert pixels[0, 0, 0].tolist() == pytest.approx([0.2, 0.2, 0.2])
    assert notes == []


def test_an_image_without_a_channel_is_grey():
    assert to_pixels(one(255)[:, 0])[0][0, 1, 2].tolist() == [1, 1, 1]


def test_colours_stay_where_they_are_in_either_layout():
    image = torch.tensor([255, 0, 51], dtype=torch.uint8).reshape(1, 3, 1, 1).expand(1, 3, 8, 5)
    for given_ in (image, image.permute(0, 2, 3, 1)):
        pixels, _ = to_pixels(given_)
        assert pixels.shape == (1, 8, 5, 3)
        assert pixels[0, 7, 4].tolist() == pytest.approx([1.0, 0.0, 0.2])


def test_what_is_transparent_is_white():
    image = torch.tensor([255, 0, 0, 51], dtype=torch.uint8).reshape(1, 4, 1, 1).expand(1, 4, 2, 2)
    assert to_pixels(image)[0][0, 0, 0].tolist() == pytest.approx([1.0, 0.8, 0.8])


@pytest.mark.parametrize(
    ("values", "shown", "note"),
    [
        (torch.tensor([0.0, 0.25, 1.0]), [0, 0.25, 1], None),
        (torch.tensor([0.25, 0.5, 0.5]), [0.25, 0.5, 0.5], None),
        (torch.tensor([-1.0, 0.0, 3.0]), [0, 0.25, 1], "values from -1 to 3 are shown as 0 to 1"),
        (torch.tensor([0.0, 1.0, 2.0]).bfloat16(), [0, 0.5, 1], "values from 0 to 2 are shown as 0 to 1"),
        (torch.tensor([7.0, 7.0, 7.0]), [0.5, 0.5, 0.5], "values from 7 to 7 are shown as 0 to 1"),
        (torch.tensor([0, 51, 255]), [0, 0.2, 1], None),
        (torch.tensor([0, 1, 1]), [0, 1, 1], None),
        (torch.tensor([0, 1000, 4000]), [0, 0.25, 1], "values from 0 to 4e+03 are shown as 0 to 1"),
        (torch.tensor([False, True, True]), [0, 1, 1], None),
    ],
)
def test_every_range_is_shown_by_a_rule_that_is_told(values, shown, note):
    pixels, notes = to_pixels(values.reshape(1, 1, 1, 3))
    assert pixels[0, 0, :, 0].tolist() == pytest.approx(shown)
    assert notes == ([note] if note else [])


def test_one_scale_holds_for_the_whole_batch():
    pixels, _ = to_pixels(torch.tensor([0.0, 1.0, 2.0, 4.0]).reshape(4, 1, 1, 1))
    assert pixels[:, 0, 0, 0].tolist() == [0, 0.25, 0.5, 1]


def test_normalised_images_are_denormalised():
    transform = classification_eval(4)
    raw = torch.tensor([200, 20, 100], dtype=torch.uint8).reshape(1, 3, 1, 1).repeat(1, 1, 4, 4)
    normalised, _ = transform.batch(raw, torch.zeros(1), torch.Generator())
    pixels, notes = to_pixels(normalised, transform.denormalize)
    assert pixels[0, 0, 0] * 255 == pytest.approx([200, 20, 100], abs=1e-3)
    assert notes == []


def test_images_of_integers_are_not_denormalised():
    assert to_pixels(one(255), lambda images: images * 0)[0].max() == 1


def test_pixels_that_are_not_finite_are_magenta_and_counted():
    images = torch.full((3, 3, 2, 2), 0.5)
    images[0, 1, 0, 0], images[2, 0, 1, 1] = float("nan"), float("inf")
    for denormalize in (None, lambda images: images.clamp(0, 1)):
        pixels, notes = to_pixels(images, denormalize)
        assert pixels[0, 0, 0].tolist() == pixels[2, 1, 1].tolist() == MAGENTA
        assert (pixels == np.array(MAGENTA, dtype=np.float32)).all(-1).sum() == 2
        assert pixels[1].max() == 0.5
        assert notes == ["pixels that are not finite are magenta (2 of 3 images)"]
    pixels, _ = to_pixels(torch.full((1, 1, 2, 2), float("nan")))
    assert pixels[0, 0, 0].tolist() == MAGENTA


@pytest.mark.parametrize("shape", [(4, 8), (4, 2, 8, 8), (4, 5, 8, 8), (4,), (2, 3, 4, 5, 6)])
def test_what_is_no_image_is_refused(shape):
    with pytest.raises(ArgumentError) as caught:
        to_pixels(torch.zeros(shape))
    assert str(caught.value).splitlines()[:2] == ["these are no images", f"  got: float32 {shape}"]


def test_of_other_channels_three_can_be_chosen():
    assert to_pixels(torch.zeros(1, 5, 2, 2), lambda images: images[:, :3])[0].shape == (1, 2, 2, 3)


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 1, 0, 4)])
def test_no_images_at_all_are_an_error(shape):
    with pytest.raises(ArgumentError, match="there is nothing to show"):
        to_pixels(torch.zeros(shape))


floats = st.floats(width=32, allow_nan=True, allow_infinity=True)


@given(st.lists(floats, min_size=4, max_size=4), st.sampled_from([torch.float32, torch.float16]))
def test_whatever_the_values_what_is_shown_lies_between_0_and_1(values, dtype):
    pixels, _ = to_pixels(torch.tensor(values, dtype=dtype).reshape(1, 1, 2, 2))
    assert ((pixels >= 0) & (pixels <= 1)).all()


def test_a_batch_can_be_given_itself():
    inputs, targets = torch.zeros(2, 1, 3, 3), torch.tensor([0, 1])
    for batch in ((inputs, targets), [inputs, targets]):
        assert torch.equal(first_batch(batch).targets, targets)
    assert first_batch(inputs).targets is None
    assert first_batch((inputs, [0, 1])).targets.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("loader", "error", "message"),
    [
        (iter([]), ArgumentError, "the loader is an iterator, which is used up after one epoch"),
        ([], ArgumentError, "the loader has no batches"),
        (7, ArgumentError, "the loader cannot be iterated"),
        ([{"image": 1}], ArgumentError, "this batch cannot be shown\n  got: dict with the keys image"),
        ([(torch.zeros(1, 1, 2, 2), ["a"])], ArgumentError, "these targets cannot be shown\n  got: list"),
    ],
)
def test_what_is_neither_loader_nor_batch_is_refused(loader, error, message):
    with pytest.raises(error) as caught:
        first_batch(loader)
    assert str(caught.value).startswith(message)


def test_a_data_set_that_fails_is_named():
    class Fails(torch.utils.data.Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            raise OSError("gone")

    with pytest.raises(DataError, match="the loader failed to give its first batch"):
        first_batch(torch.utils.data.DataLoader(Fails()))
