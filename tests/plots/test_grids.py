"""``show_batch``, ``show_predictions`` and ``top_losses``: what is drawn, what is written, and that nothing is disturbed."""

import copy
import math

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import cvkit
from cvkit import seeding
from cvkit.data import ArrayDataset, Loader
from cvkit.errors import ArgumentError
from cvkit.figures import RIGHT, WRONG
from cvkit.plots import show_batch, show_predictions, top_losses
from cvkit.transforms import classification_eval, denoise, digits_eval


def logits(*classes, of=3, height=4.0):
    return height * F.one_hot(torch.tensor(classes), of).float()


# --- show_batch


def test_each_image_has_an_axes_of_its_own_with_its_pixels_and_its_class(loader, read):
    shown = read(show_batch(loader))
    assert shown.titles == ["ants", "bees", "cats", "ants"]
    assert [image.shape for image in shown.images] == [(4, 4, 3)] * 4
    assert [round(float(image[0, 0, 0]) * 255) for image in shown.images] == [0, 10, 20, 30]
    assert (shown.heading, shown.note) == ("", "")
    assert all(axes.get_xticks().size == axes.get_yticks().size == 0 for axes in shown.figure.axes)
    assert all(axes.images[0].get_clim() == (0, 1) for axes in shown.figure.axes), "no image is stretched by itself"


def test_a_normalised_batch_is_shown_as_it_was(read):
    colours = torch.tensor([[200, 20, 100], [0, 255, 50]], dtype=torch.uint8)[:, :, None, None].expand(2, 3, 8, 8)
    loader = Loader(
        ArrayDataset(colours.numpy(), np.array([0, 1])), 2, transform=classification_eval(8, resize=8), workers=0
    )
    inputs, _ = next(iter(loader))
    assert inputs.min() < -1, "normalised"
    shown = read(show_batch(loader))
    assert shown.images[0][3, 3] * 255 == pytest.approx([200, 20, 100], abs=0.01)
    assert shown.images[1][3, 3] * 255 == pytest.approx([0, 255, 50], abs=0.01)


def test_an_unknown_range_is_noted_and_can_be_denormalised_by_hand(read):
    batch = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1).expand(2, 1, 4, 4), torch.tensor([0, 1])
    assert read(show_batch(batch)).note == "values from -1 to 1 are shown as 0 to 1"
    shown = read(show_batch(batch, denormalize=lambda images: images / 4 + 0.5))
    assert shown.note == ""
    assert [float(image[0, 0, 0]) for image in shown.images] == [0.25, 0.75]


def test_count_and_columns_say_how_many(loader, read):
    assert len(read(show_batch(loader, count=3)).titles) == 3
    grid = show_batch(loader, count=3, columns=1).axes[0].get_gridspec()
    assert (grid.nrows, grid.ncols) == (3, 1)
    grid = show_batch(torch.zeros(9, 1, 4, 4)).axes[0].get_gridspec()
    assert (grid.nrows, grid.ncols) == (3, 3)
    grid = show_batch(torch.zeros(1, 1, 4, 4)).axes[0].get_gridspec()
    assert (grid.nrows, grid.ncols) == (1, 1)


@pytest.mark.parametrize("options", [{"count": 0}, {"count": True}, {"columns": 0}, {"columns": 1.5}])
def test_counts_that_cannot_be_are_refused(loader, options):
    name, value = next(iter(options.items()))
    with pytest.raises(ArgumentError) as caught:
        show_batch(loader, **options)
    assert str(caught.value).splitlines()[:2] == [f"{name} cannot be used", f"  got: {value!r}"]


def test_no_image_is_an_error_and_features_are_none():
    with pytest.raises(ArgumentError, match="there is nothing to show"):
        show_batch(torch.zeros(0, 1, 4, 4))
    with pytest.raises(ArgumentError, match="these are no images"):
        show_batch((torch.zeros(4, 8), torch.zeros(4)))


def test_a_name_may_hold_what_matplotlib_takes_for_a_formula(read):
    shown = read(show_batch((torch.zeros(1, 1, 4, 4), torch.tensor([0])), classes=["$x_{1$ and \\frac"]))
    assert shown.titles == ["$x_{1$ and \\frac"]
    assert shown.figure.savefig("/dev/null", format="png") is None


def test_a_target_that_is_an_image_stands_beside_its_input(read):
    images = np.full((2, 1, 8, 8), 100, dtype=np.uint8)
    loader = Loader(ArrayDataset(images, np.array([0, 0])), 2, transform=denoise(8, noise=0.2, flip=0.0), workers=0)
    shown = read(show_batch(loader))
    assert shown.parts[0] == ["input", "target"]
    assert shown.note == ""
    image = shown.images[0]
    assert image.shape == (8, 17, 3), "with a line between"
    assert image[0, 8].tolist() == [1, 1, 1]
    assert image[:, 9:] == pytest.approx(100 / 255, abs=1e-3)
    assert image[:, :8].std() > 0.05


def foreign():
    inputs = torch.arange(12.0).reshape(12, 1, 1, 1).expand(12, 1, 4, 4) / 12
    return DataLoader(
        TensorDataset(inputs, torch.arange(12)), 4, shuffle=True, generator=torch.Generator().manual_seed(3)
    )


def test_a_foreign_loader_gives_the_same_batches_as_if_nobody_had_looked(read):
    loader, twin = foreign(), foreign()
    shown = read(show_batch(loader))
    assert len(set(shown.titles) & {str(index) for index in range(12)}) == 4
    assert [batch[1].tolist() for batch in loader] == [batch[1].tolist() for batch in twin]


def test_neither_loader_nor_random_numbers_are_moved(squares):
    loader = Loader(squares, 2, shuffle=True, workers=0, cache=None)
    twin = Loader(squares, 2, shuffle=True, workers=0, cache=None)
    walk, other = iter(loader), iter(twin)
    next(walk), next(other)
    model = Levels()
    state, random = loader.state_dict(), seeding.capture()
    show_batch(loader)
    show_predictions(model, loader)
    top_losses(model, loader)
    assert loader.state_dict() == state
    now = seeding.capture()
    assert torch.equal(now["torch"], random["torch"])
    assert now["python"] == random["python"]
    assert torch.equal(now["numpy"][1], random["numpy"][1])
    assert [b[1].tolist() for b in walk] == [b[1].tolist() for b in other]
    assert [b[1].tolist() for b in loader] == [b[1].tolist() for b in twin]


# --- show_predictions


def test_right_and_wrong_are_told_by_sign_and_by_colour(loader, fixed, read):
    shown = read(show_predictions(fixed(logits(0, 0, 2, 1)), loader))
    assert shown.titles == ["✓ ants 96 %", "✗ ants 96 %\nis bees", "✓ cats 96 %", "✗ bees 96 %\nis ants"]
    assert shown.colours == [RIGHT, WRONG, RIGHT, WRONG]
    assert [to_hex(frame).upper() for frame in shown.frames] == [RIGHT, WRONG, RIGHT, WRONG]
    assert shown.heading == "2 of 4 right"


def test_without_targets_it_is_only_said_what_the_model_says(fixed, read):
    shown = read(show_predictions(fixed(logits(0, 1)), torch.zeros(2, 1, 4, 4), classes=["a", "b", "c"]))
    assert shown.titles == ["a 96 %", "b 96 %"]
    assert shown.heading == ""
    assert len(set(shown.colours)) == 1


def test_an_answer_that_is_not_finite_is_wrong(fixed, read):
    outputs = torch.tensor([[float("nan"), 0.0], [1.0, 0.0]])
    shown = read(show_predictions(fixed(outputs), (torch.zeros(2, 1, 4, 4), torch.tensor([0, 0]))))
    assert shown.titles == ["✗ no answer: not finite\nis 0", "✓ 0 73 %"]
    assert shown.heading == "1 of 2 right"


def test_outputs_that_do_not_fit_the_classes_are_refused(loader, fixed):
    with pytest.raises(ArgumentError) as caught:
        show_predictions(fixed(logits(0, 0, 0, 0, of=5)), loader)
    assert str(caught.value).splitlines()[1] == "  got: outputs of shape (5,) a sample, 3 classes"


def test_the_model_is_asked_in_evaluation_mode_and_is_as_before_afterwards():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Dropout(0.9), nn.Linear(16, 3)).train()
    model[2].eval()
    before = copy.deepcopy(model.state_dict())
    batch = torch.rand(4, 1, 4, 4), torch.tensor([0, 1, 2, 0])
    one, other = (show_predictions(model, batch, device="cpu") for _ in range(2))
    assert [axes.get_title() for axes in one.axes] == [axes.get_title() for axes in other.axes]
    assert [module.training for module in model.modules()] == [True, True, True, False, True]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_data_in_the_models_place_are_refused(loader, fixed):
    with pytest.raises(ArgumentError, match="this is no model that can be asked\n  got: Loader"):
        show_predictions(loader, fixed(logits(0)))


def test_a_predictor_knows_its_classes_and_what_its_outputs_are(read):
    images = np.full((3, 1, 8, 8), 100, dtype=np.uint8)
    loader = Loader(ArrayDataset(images, np.array([0, 1, 1])), 3, transform=digits_eval(8), workers=0)

    class Shares(nn.Module):
        def forward(self, inputs):
            return torch.tensor([[0.25, 0.75]]).expand(len(inputs), 2)

    predictor = cvkit.Predictor(Shares(), ["no", "yes"], digits_eval(8), outputs="probabilities", device="cpu")
    shown = read(show_predictions(predictor, loader))
    assert shown.titles == ["✗ yes 75 %\nis no", "✓ yes 75 %", "✓ yes 75 %"]


def test_a_model_that_gives_images_is_shown_by_its_images(read):
    class Darker(nn.Module):
        def forward(self, inputs):
            return inputs / 2

    inputs = torch.full((2, 3, 4, 4), 0.5)
    shown = read(show_predictions(Darker(), (inputs, torch.tensor([0, 1]))))
    assert (shown.parts, shown.note) == ([["input", "output"], []], "")
    assert shown.images[0][0, :, 0].tolist() == [0.5] * 4 + [1] + [0.25] * 4
    shown = read(show_predictions(Darker(), (inputs, inputs)))
    assert (shown.parts, shown.note) == ([["input", "output", "target"], []], "")
    assert shown.images[0][0, :, 0].tolist() == [0.5] * 4 + [1] + [0.25] * 4 + [1] + [0.5] * 4
    shown = read(show_predictions(Darker(), (inputs.repeat(3, 1, 1, 1), inputs.repeat(3, 1, 1, 1)), columns=2))
    assert shown.parts == [["input", "output", "target"]] * 2 + [[]] * 4, "over the first row only"
    strip = shown.figure.axes[0]
    assert [text.get_position()[0] for text in strip.texts] == pytest.approx([1 / 6, 1 / 2, 5 / 6])


# --- top_losses


def test_the_highest_losses_come_first_with_their_files(loader, fixed, read):
    outputs = logits(0, 1, 2, 1, 1, 0, 2)  # wrong of samples 3, 5 and 6
    outputs[5] *= 2
    shown = read(top_losses(fixed(outputs), loader, count=3))
    losses = F.cross_entropy(outputs, torch.arange(7) % 3, reduction="none")
    assert shown.titles == [
        f"cats/picture_5.png\nloss {losses[5]:.3g}\n✗ ants 100 %\nis cats",
        f"ants/picture_3.png\nloss {losses[3]:.3g}\n✗ bees 96 %\nis ants",
        f"ants/picture_6.png\nloss {losses[6]:.3g}\n✗ cats 96 %\nis ants",
    ]
    assert [round(float(image[0, 0, 0]) * 255) for image in shown.images] == [50, 30, 60]
    assert shown.colours == [WRONG] * 3


class Levels(nn.Module):
    """Finds of an image of level 10 i the class that is wrong for i = 3 only."""

    def forward(self, inputs):
        sample = (inputs[:, 0, 0, 0] * 25.5).round().long()
        return logits(*torch.where(sample == 3, 1, sample % 3).tolist())


@pytest.mark.parametrize("shuffle", [False, True])
def test_the_file_is_the_right_one_whatever_the_order_and_whatever_could_not_be_read(squares, shuffle, read):
    squares.broken, squares.on_error = {1, 2}, "skip"
    for seed in range(4):
        loader = Loader(squares, 3, shuffle=shuffle, seed=seed, workers=0, cache=None)
        shown = read(top_losses(Levels(), loader, count=1))
        assert shown.titles[0].startswith("ants/picture_3.png\n")


def test_a_shuffled_torch_loader_is_walked_in_the_order_of_its_dataset(read):
    inputs = torch.arange(7.0).reshape(7, 1, 1, 1).expand(7, 1, 4, 4) / 25.5
    loader = DataLoader(TensorDataset(inputs, torch.arange(7) % 3), 2, shuffle=True)
    random = torch.get_rng_state()
    shown = read(top_losses(Levels(), loader, count=2))
    assert shown.titles[0].splitlines()[0] == "sample 3"
    assert torch.equal(torch.get_rng_state(), random)


def test_samples_drawn_more_than_once_are_shown_once(squares, read):
    loader = Loader(squares, 3, weights=[0, 0, 0, 1, 0, 0, 0], workers=0, cache=None)
    assert len(read(top_losses(Levels(), loader)).titles) == 1


def test_a_loss_that_is_no_number_is_the_highest(loader, fixed, read):
    outputs = logits(0, 1, 2, 1, 1, 2, 0)
    outputs[4] = math.nan
    shown = read(top_losses(fixed(outputs), loader, count=2))
    assert shown.titles == [
        "bees/picture_4.png\nloss nan\n✗ no answer: not finite\nis bees",
        "ants/picture_3.png\nloss 4.04\n✗ bees 96 %\nis ants",
    ]


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 1.0])), F.cross_entropy, "hinge"])
def test_any_loss_that_fit_takes_will_do(loader, fixed, read, loss):
    shown = read(top_losses(fixed(logits(0, 1, 2, 1, 1, 2, 0)), loader, loss=loss, count=1))
    assert shown.titles[0].startswith("ants/picture_3.png\n")


def test_there_is_no_loss_without_targets(fixed):
    with pytest.raises(ArgumentError, match="there is no loss without targets"):
        top_losses(fixed(logits(0)), [torch.zeros(1, 1, 4, 4)])


def test_of_a_loader_in_order_predictions_are_from_all_over_its_data(read):
    images = np.repeat(np.arange(40, dtype=np.uint8) * 6, 36 * 3).reshape(40, 6, 6, 3)
    data = ArrayDataset(images, np.repeat(np.arange(4), 10), classes=["a", "b", "c", "d"])
    model, transform = nn.Sequential(nn.Flatten(), nn.Linear(108, 4)), classification_eval(6, resize=6)

    def levels(loader, **how):
        return [round(float(one.flat[0]) * 255 / 6) for one in read(show_predictions(model, loader, **how)).images]

    assert levels(Loader(data, 8, transform=transform), count=8) == [2, 7, 12, 17, 22, 27, 32, 37]
    shuffled = Loader(data, 8, transform=transform, shuffle=True, seed=1)
    first = transform.denormalize(next(iter(shuffled))[0])[:, 0, 0, 0] * 255 / 6
    shuffled.set_epoch(0)
    assert levels(shuffled) == first.round().int().tolist()
