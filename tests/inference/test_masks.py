"""Segmentation: masks in the size of the images, and what validation says of them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import cvkit
from cvkit.errors import ArgumentError, ModelError
from cvkit.inference.outputs import mask_of, resize_map

CLASSES = ["ground", "circle", "square"]


@pytest.fixture(scope="module")
def segmentation(tmp_path_factory, trained):
    """A run over shapes of 32 pixels, whose masks are as large as what the model sees."""
    root = cvkit.data.write_shapes(
        tmp_path_factory.mktemp("shapes"), per_class=4, size=32, layout="mask", classes=CLASSES[1:]
    )
    dataset = cvkit.data.ParallelDataset(root / "images", root / "masks", kind="mask", classes=CLASSES)
    train = cvkit.data.Loader(dataset, 4, transform=cvkit.transforms.segmentation_train(32), shuffle=True)
    val = cvkit.data.Loader(dataset, 3, transform=cvkit.transforms.segmentation_eval(32))
    model = cvkit.models.create("test_segmenter", num_classes=3)
    path = trained(tmp_path_factory.mktemp("run"), model, train, val)
    return SimpleNamespace(path=path, model=model, val=val, folder=root / "images", root=root)


@pytest.fixture(scope="module")
def segmenter(segmentation):
    return cvkit.load(segmentation.path, device="cpu")


def test_masks_are_those_of_validation(segmentation, segmenter):
    found = segmenter.predict(segmentation.folder)
    outputs = cvkit.predict(segmentation.model, segmentation.val, device="cpu")
    assert torch.equal(torch.stack([one.mask for one in found]).long(), outputs.argmax(1))
    assert found[0].mask.dtype == torch.uint8
    right = [
        (one.mask == torch.from_numpy(np.array(Image.open(segmentation.root / "masks" / one.path.name))))
        .double()
        .mean()
        for one in found
    ]
    said = cvkit.evaluate(segmentation.model, segmentation.val, device="cpu")["accuracy"]
    assert torch.stack(right).mean().item() == pytest.approx(said, abs=1e-12)


@pytest.mark.parametrize(("width", "height"), [(50, 20), (32, 32), (7, 90), (200, 150)])
def test_a_mask_is_as_large_as_its_image(segmenter, width, height, drawn):
    one = segmenter.predict(drawn(np.random.default_rng(0), width, height), probability_maps=True)
    assert one.mask.shape == (height, width) == one.size
    assert one.probability_maps.shape == (3, height, width)
    assert torch.equal(one.probability_maps.argmax(0), one.mask.long())
    assert torch.allclose(one.probability_maps.sum(0), torch.ones(height, width), atol=1e-5)


def test_of_a_file_lying_on_its_side_the_mask_stands_upright(segmenter, drawn, tmp_path):
    sideways = Image.Exif()
    sideways[0x0112] = 8
    drawn(np.random.default_rng(0), 60, 40).save(tmp_path / "x.jpg", exif=sideways)
    assert segmenter.predict(tmp_path / "x.jpg").mask.shape == (60, 40)


def test_a_large_jpeg_is_decoded_whole_as_the_images_of_masks_are(segmentation, segmenter, drawn, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    drawn(np.random.default_rng(0), 400, 300).save(tmp_path / "images" / "x.jpg")
    Image.new("L", (400, 300)).save(tmp_path / "masks" / "x.png")
    dataset = cvkit.data.ParallelDataset(tmp_path / "images", tmp_path / "masks", kind="mask", classes=CLASSES)
    loader = cvkit.data.Loader(dataset, 1, transform=cvkit.transforms.segmentation_eval(32))
    wanted = cvkit.predict(segmentation.model, loader, device="cpu").softmax(1)[0]
    found = segmenter.predict(tmp_path / "images" / "x.jpg", probability_maps=True).probability_maps
    assert torch.equal(found, torch.stack([resize_map(one, 300, 400) for one in wanted]))


def test_what_is_in_a_mask_is_told(fixed):
    def outputs(inputs):
        made = torch.zeros(len(inputs), 3, 8, 8)
        made[:, 2, :2], made[:, 0, 2:] = 5, 5
        return made

    predictor = fixed(outputs, transform=cvkit.transforms.segmentation_eval(8))
    one = predictor.predict([np.zeros((8, 8, 3), np.uint8)])
    assert one[0].present == {"a": 0.75, "c": 0.25}
    assert one[0].shares() == {"a": 0.75, "b": 0.0, "c": 0.25}
    assert repr(one[0]) == "Prediction(mask=8×8, present={'a': 0.75, 'c': 0.25})"
    assert one.to_csv() == "path,height,width,a,b,c\n,8,8,0.75,0,0.25\n"
    with pytest.raises(
        ArgumentError, match="this prediction has no label\n  got: the prediction of a model for segmentation"
    ):
        one.labels  # noqa: B018
    with pytest.raises(ArgumentError, match="the probability maps were not kept"):
        one[0].probability_maps  # noqa: B018


def test_one_map_for_two_classes_is_a_logit_of_the_second(fixed):
    transform = cvkit.transforms.segmentation_eval(8, mean=(0, 0, 0), std=(1, 1, 1))
    predictor = fixed(lambda inputs: inputs[:, :1] - 0.5, classes=("no", "yes"), transform=transform)
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[3] = 255
    one = predictor.predict(pixels, probability_maps=True)
    assert one.mask.sum(1).tolist() == [0, 0, 0, 8, 0, 0, 0, 0]
    assert torch.allclose(one.probability_maps[1, 3], torch.full((8,), 0.5).sigmoid())


def test_outputs_of_another_number_of_maps_are_refused(fixed):
    predictor = fixed(lambda inputs: inputs, classes="ab", transform=cvkit.transforms.segmentation_eval(8))
    with pytest.raises(ModelError) as caught:
        predictor.predict(np.zeros((8, 8, 3), np.uint8))
    assert str(caught.value) == (
        "the model's outputs do not fit its classes\n"
        "  got: outputs of shape (3, 8, 8) an image\n"
        "  expected: maps (N, 2, H, W), one for each of the 2 classes\n"
        "  fix: predict(model, data) gives the outputs of any model"
    )


def test_a_preprocessing_that_looks_at_a_part_makes_no_masks(fixed):
    predictor = fixed(lambda inputs: inputs, transform=cvkit.transforms.classification_eval(8))
    with pytest.raises(ArgumentError) as caught:
        predictor.predict(np.zeros((8, 8, 3), np.uint8))
    assert str(caught.value).startswith(
        "masks cannot be brought back to the images' size\n  got: the preprocessing classification_eval(size=8"
    )
    own = fixed(lambda inputs: inputs, transform=lambda image: torch.zeros(3, 8, 8))
    with pytest.raises(ArgumentError, match="which may look at a part of each image"):
        own.predict(np.zeros((8, 8, 3), np.uint8))


@given(st.integers(1, 5), st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_the_mask_is_the_most_probable_class_of_the_resized_maps(count, height, width, seed):
    maps = torch.rand(count, 4, 4, generator=torch.Generator().manual_seed(seed)).round(decimals=1)
    resized = torch.stack([resize_map(one, height, width) for one in maps])
    assert torch.equal(mask_of(maps, height, width).long(), resized.argmax(0))


def test_more_classes_than_a_byte_holds_make_a_wider_mask():
    maps = torch.zeros(300, 2, 2)
    maps[299, 0, 0] = 1
    mask = mask_of(maps, 2, 2)
    assert (mask.dtype, mask.tolist()) == (torch.int32, [[299, 0], [0, 0]])
