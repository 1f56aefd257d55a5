"""``show_masks``: the colours over the images, the legend, and how far a model agrees."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from torch import nn

from cvkit.data import Loader, ParallelDataset, write_shapes
from cvkit.errors import ArgumentError
from cvkit.figures import FAINT, PALETTE
from cvkit.plots import show_masks
from cvkit.plots.masks import _class_colour
from cvkit.transforms import segmentation_eval


def batch():
    """Two grey images whose masks have a class in each quarter."""
    mask = torch.zeros(2, 4, 4, dtype=torch.long)
    mask[:, :2, 2:], mask[:, 2:, :2] = 1, 2
    mask[1, 2:, 2:] = 255
    return torch.full((2, 1, 4, 4), 0.5), mask


def over(colour):
    return [0.25 + 0.5 * part for part in to_rgb(colour)]


def test_each_class_lies_over_the_image_in_its_colour_and_the_ground_does_not(read):
    shown = read(show_masks(batch(), classes=["ground", "road", "sky"]))
    assert shown.titles == ["image", "truth"] * 2
    image, truth = shown.images[:2]
    assert image == pytest.approx(0.5)
    assert truth[0, 0].tolist() == [0.5, 0.5, 0.5]
    assert truth[0, 3] == pytest.approx(over(PALETTE[0]))
    assert truth[3, 0] == pytest.approx(over(PALETTE[1]))
    assert shown.images[3][3, 3] == pytest.approx(over(FAINT))
    assert shown.legend == ["road", "sky", "255: does not count"]


def test_every_class_is_coloured_where_there_is_no_ground(read):
    shown = read(show_masks(batch(), ground=None, ignore=None, opacity=1.0))
    assert shown.legend == ["0", "1", "2", "255"]
    assert shown.images[1][0, 0].tolist() == pytest.approx(list(_class_colour(0)), abs=1e-6)


def test_a_class_has_the_same_colour_whatever_else_is_there_and_hundreds_have_different_ones():
    colours = [tuple(np.round(_class_colour(index), 2)) for index in range(60)]
    assert len(set(colours)) == 60


class Found(nn.Module):
    def __init__(self, classes, channels=3):
        super().__init__()
        self.scores = nn.functional.one_hot(classes, channels).movedim(-1, 1).float()

    def forward(self, inputs):
        return self.scores


def test_what_a_model_finds_is_compared_where_it_counts(read):
    inputs, mask = batch()
    found = mask.clamp(max=2)
    found[0, :2, 2:] = 0  # a quarter is wrong in the first, only what does not count in the second
    shown = read(show_masks((inputs, mask), Found(found)))
    assert shown.titles == [
        *("image", "truth", "found: 75 % right, IoU 0.56"),
        *("image", "truth", "found: 100 % right, IoU 1.00"),
    ]
    assert shown.images[2][0, 3].tolist() == [0.5, 0.5, 0.5]
    assert shown.images[5][3, 3] == pytest.approx(over(PALETTE[1]))


def test_one_channel_is_a_logit_and_a_dict_of_torchvisions_will_do(read):
    class Half(nn.Module):
        def forward(self, inputs):
            logit = torch.full((len(inputs), 1, 4, 4), -1.0)
            logit[:, :, :2] = 1.0
            return {"out": logit, "aux": None}

    mask = torch.zeros(1, 1, 4, 4)
    mask[:, :, :2] = 1
    shown = read(show_masks((torch.zeros(1, 3, 4, 4), mask), Half()))
    assert shown.titles[2] == "found: 100 % right, IoU 1.00"
    assert shown.legend == ["1"]


def test_outputs_that_are_not_finite_are_magenta_and_wrong(read):
    inputs, mask = batch()
    model = Found(mask.clamp(max=2))
    model.scores[0, 1, 0, 0] = float("nan")
    shown = read(show_masks((inputs, mask), model, opacity=1.0))
    assert shown.images[2][0, 0].tolist() == [1, 0, 1]
    assert shown.titles[2].startswith("found: 94 % right")
    assert shown.legend[0] == "not finite"


def test_many_classes_leave_room_for_the_images(read):
    mask = torch.arange(64).reshape(1, 8, 8)
    shown = read(show_masks((torch.zeros(1, 1, 8, 8), mask)))
    assert len(shown.legend) == 21
    assert shown.legend[-1] == "… and 43 more"


@pytest.mark.parametrize(
    ("targets", "got"),
    [
        (torch.tensor([0, 1]), "int64 (2,) for images of 4×4"),
        (torch.zeros(2, 5, 4, dtype=torch.long), "int64 (2, 5, 4) for images of 4×4"),
        (torch.full((2, 4, 4), 0.5), "float32 (2, 4, 4) for images of 4×4"),
        (None, "no targets"),
    ],
)
def test_what_are_no_masks_is_refused(targets, got):
    given = torch.zeros(2, 1, 4, 4) if targets is None else (torch.zeros(2, 1, 4, 4), targets)
    with pytest.raises(ArgumentError) as caught:
        show_masks(given)
    assert str(caught.value).splitlines()[:2] == ["the targets are no masks of these images", f"  got: {got}"]


def test_outputs_of_another_size_and_an_opacity_that_cannot_be_are_refused():
    with pytest.raises(ArgumentError, match=r"got: outputs of shape \(2, 3, 2, 2\), masks of shape \(2, 4, 4\)"):
        show_masks(batch(), Found(torch.zeros(2, 2, 2, dtype=torch.long)))
    for opacity in (-0.1, 2, True, "much"):
        with pytest.raises(ArgumentError, match="opacity cannot be used"):
            show_masks(batch(), opacity=opacity)


def test_a_loader_of_masks_is_shown(tmp_path, read):
    write_shapes(tmp_path, per_class=1, size=16, layout="mask")
    directories = sorted(path for path in tmp_path.iterdir() if path.is_dir())
    dataset = ParallelDataset(directories[0], directories[1], kind="mask")
    loader = Loader(dataset, 3, transform=segmentation_eval(16), workers=0)
    shown = read(show_masks(loader))
    assert len(shown.titles) == 6
    assert set(shown.legend) <= set(dataset.classes)
