"""Arrays and tensors: the same image gives the same prediction in every form, and what is unclear is refused."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import cvkit
from cvkit.errors import ArgumentError, ImageError


@pytest.fixture(scope="module")
def levels(drawn):
    """An image as levels ``(H, W, 3)``."""
    return np.asarray(drawn(np.random.default_rng(7), 50, 40))


def same(prediction, wanted):
    assert torch.equal(prediction.outputs, wanted.outputs)
    assert prediction.size == wanted.size
    assert prediction.path is None


FORMS = {
    "uint8 (H, W, C)": lambda levels: levels,
    "not contiguous": lambda levels: np.ascontiguousarray(levels[:, ::-1])[:, ::-1],
    "Fortran order": np.asfortranarray,
    "float64 (H, W, C)": lambda levels: levels / 255,
    "float32 (H, W, C)": lambda levels: (levels / 255).astype(np.float32),
    "uint8 tensor (C, H, W)": lambda levels: torch.tensor(levels).movedim(-1, 0),
    "float tensor (C, H, W)": lambda levels: torch.tensor(levels).movedim(-1, 0) / 255,
    "with a graph": lambda levels: (torch.tensor(levels).movedim(-1, 0) / 255).requires_grad_(),
    "opaque (H, W, 4)": lambda levels: np.dstack([levels, np.full(levels.shape[:2], 255, np.uint8)]),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_image_gives_the_same_in_every_form(predictor, levels, form):
    same(predictor.predict(FORMS[form](levels)), predictor.predict(Image.fromarray(levels)))


GREY = {
    "(H, W)": lambda grey: grey,
    "(H, W, 1)": lambda grey: grey[:, :, None],
    "tensor (H, W)": torch.tensor,
    "tensor (1, H, W)": lambda grey: torch.tensor(grey)[None],
    "float tensor (H, W)": lambda grey: torch.tensor(grey) / 255,
    "mode L": Image.fromarray,
}


@pytest.mark.parametrize("form", GREY)
def test_a_grey_image_gives_the_same_in_every_form(predictor, levels, form):
    grey = np.ascontiguousarray(levels[:, :, 0])
    same(predictor.predict(GREY[form](grey)), predictor.predict(Image.fromarray(grey).convert("RGB")))


def test_half_precision_and_bfloat16_are_floats_too(predictor, levels):
    black = torch.zeros(3, 40, 50)
    for dtype in (torch.float16, torch.bfloat16):
        same(predictor.predict(black.to(dtype)), predictor.predict(black))


def test_transparent_pixels_show_the_background(predictor, levels):
    clear = np.dstack([levels, np.zeros(levels.shape[:2], np.uint8)])
    same(predictor.predict(clear), predictor.predict(np.full_like(levels, 255)))


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_a_batch_gives_predictions_in_order(predictor, levels, kind):
    images = np.stack([levels, 255 - levels, levels // 2])
    batch = kind(images) if kind is np.array else kind(images).movedim(-1, 1)
    found = predictor.predict(batch)
    assert isinstance(found, cvkit.Predictions)
    assert torch.equal(found.outputs, predictor.predict([Image.fromarray(one) for one in images]).outputs)


def test_images_of_different_sizes_go_into_one_list(predictor, levels):
    found = predictor.predict([levels, levels[:20], torch.zeros(40, 30, dtype=torch.uint8)])
    assert [one.size for one in found] == [(40, 50), (20, 50), (40, 30)]


@given(level=st.integers(0, 255), side=st.integers(5, 40))
def test_a_float_becomes_the_nearest_level(level, side):
    from cvkit.inference.sources import _image

    for nudge in (-0.4, 0.0, 0.4):
        value = min(max((level + nudge) / 255, 0.0), 1.0)
        made = np.asarray(_image(np.full((side, 3), value), "x"))
        assert made.dtype == np.uint8
        assert (made == level).all()


@pytest.mark.parametrize(
    ("array", "shown"),
    [
        (np.full((9, 9), -0.1), "-0.1 to -0.1"),
        (np.linspace(0, 255, 81).reshape(9, 9), "0 to 255"),
        (torch.linspace(-2, 2, 81).reshape(9, 9), "-2 to 2"),
        (np.full((9, 9), np.nan), "nan to nan"),
    ],
)
def test_floats_outside_of_0_to_1_are_refused(predictor, array, shown):
    with pytest.raises(ArgumentError) as caught:
        predictor.predict(array)
    assert str(caught.value) == (
        "the image number 0 of those given holds floats outside of 0 to 1\n"
        f"  got: values from {shown}\n"
        "  expected: floats from 0 to 1, or uint8 levels from 0 to 255\n"
        "  fix: divide levels by 255; inputs that are normalised already go straight to the model: "
        "cvkit.predict(predictor.model, tensor)"
    )


@pytest.mark.parametrize(
    ("array", "got"),
    [
        (np.zeros((9, 9), np.int64), "int64 (9, 9)"),
        (np.zeros((9, 9), bool), "bool (9, 9)"),
        (torch.zeros(3, 9, 9, dtype=torch.int32), "int32 (3, 9, 9)"),
        (np.array(["a"]), "<U1 (1,)"),
    ],
)
def test_numbers_that_are_no_levels_are_refused(predictor, array, got):
    with pytest.raises(ArgumentError) as caught:
        predictor.predict([array])
    assert str(caught.value) == (
        "the numbers of number 0 of the list are no image's\n"
        f"  got: {got}\n"
        "  expected: uint8 levels from 0 to 255, or floats from 0 to 1\n"
        "  fix: levels of 0 to 255: array.astype('uint8') or tensor.to(torch.uint8); levels of 16 bits: array / 65535"
    )


@pytest.mark.parametrize(
    ("shape", "what"),
    [
        ((3, 9, 3), "the shape of the image can be read in two ways"),
        ((1, 9, 4), "the shape of the image can be read in two ways"),
        ((5, 3, 9, 1), "the shape of the image can be read in two ways"),
        ((3, 9, 9), "the image has its channels first"),
        ((9, 9, 2), "the shape of the image is no image's"),
        ((9,), "the shape of the image is no image's"),
        ((0, 9), "the shape of the image is no image's"),
        ((9, 0, 3), "the shape of the image is no image's"),
        ((1, 1, 9, 9, 3), "the shape of the image is no image's"),
    ],
)
def test_arrays_of_another_shape_are_refused(predictor, shape, what):
    with pytest.raises(ArgumentError, match=f"^{re.escape(what)}\n  got: an array {re.escape(str(shape))}\n"):
        predictor.predict(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    ("shape", "what"),
    [
        ((3, 9, 3), "the shape of the image can be read in two ways"),
        ((2, 1, 9, 4), "the shape of the image can be read in two ways"),
        ((9, 9, 3), "the shape of the image is no image's"),
        ((5, 9, 9), "the shape of the image is no image's"),
        ((2, 3, 9, 0), "the shape of the image is no image's"),
        ((9,), "the shape of the image is no image's"),
        ((), "the shape of the image is no image's"),
        ((0, 9), "the shape of the image is no image's"),
    ],
)
def test_tensors_of_another_shape_are_refused(predictor, shape, what):
    with pytest.raises(ArgumentError, match=f"^{re.escape(what)}\n  got: a tensor {re.escape(str(shape))}\n"):
        predictor.predict(torch.zeros(shape, dtype=torch.uint8))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I;16"])
def test_images_of_every_mode_with_an_answer_are_looked_at(predictor, mode):
    assert predictor.predict(Image.new(mode, (40, 40))).probability > 0


def test_images_without_an_answer_in_8_bits_are_refused(predictor):
    with pytest.raises(ImageError, match="the image number 1 of those given has no right answer in 8 bits"):
        predictor.predict([Image.new("L", (40, 40)), Image.new("F", (40, 40))])


def test_an_image_whose_file_is_cut_off_is_refused(predictor, run, tmp_path):
    whole = (run.folder / "a" / "large.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with (
        Image.open(tmp_path / "cut.jpg") as image,
        pytest.raises(ImageError, match="cannot decode the image number 0"),
    ):
        predictor.predict(image)
