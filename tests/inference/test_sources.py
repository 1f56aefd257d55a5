"""Files and folders: what is predicted of them is what validation computes, to the last bit."""

import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import cvkit
from cvkit.errors import ArgumentError, CvkitWarning, DataError, ImageError, ModelError


def batches_of(predictions, targets, size):
    """The predictor's outputs and the true classes as batches, for ``evaluate`` over a model that changes nothing."""
    outputs = predictions.outputs
    return [(outputs[i : i + size], targets[i : i + size]) for i in range(0, len(outputs), size)]


def test_a_folder_gives_what_validation_computes_to_the_last_bit(run, predictor):
    found = predictor.predict(run.folder)
    outputs = cvkit.predict(run.model, run.data.val, device="cpu")
    assert torch.equal(found.outputs, outputs)
    assert torch.equal(found.probabilities, outputs.softmax(1))


def test_loss_and_accuracy_over_a_folder_are_those_of_evaluate_exactly(run, predictor):
    targets = torch.tensor(run.data.val.dataset.targets)
    batches = batches_of(predictor.predict(run.folder), targets, run.data.val.batch_size)
    mine = cvkit.evaluate(nn.Identity(), batches, device="cpu")
    assert mine == cvkit.evaluate(run.model, run.data.val, device="cpu")
    assert mine["loss"] > 0


def test_so_they_are_for_the_files_of_a_split(photos, trained, tmp_path):
    data = cvkit.data.from_folder(photos / "train", size=32, batch_size=4, val=0.4, seed=3)
    model = cvkit.models.create("test_classifier", num_classes=3)
    predictor = cvkit.load(trained(tmp_path, model, data.train, data.val), device="cpu")
    files = [photos / "train" / path for path in data.val.dataset.paths]
    assert torch.equal(predictor.predict(files).outputs, cvkit.predict(model, data.val, device="cpu"))


def test_so_they_are_for_a_part_that_torch_made(photos, trained, tmp_path):
    part = torch.utils.data.Subset(cvkit.data.FolderDataset(photos / "val", background=[9, 9, 9]), range(1, 15, 2))
    loader = cvkit.data.Loader(part, 4, transform=cvkit.transforms.classification_eval(32))
    model = cvkit.models.create("test_classifier", num_classes=3)
    predictor = cvkit.load(trained(tmp_path, model, loader), classes=["a", "b", "c"], device="cpu")
    files = [photos / "val" / part.dataset.paths[index] for index in part.indices]
    assert torch.equal(predictor.predict(files).outputs, cvkit.predict(model, loader, device="cpu"))


@pytest.mark.parametrize("workers", [0, 2])
def test_any_number_of_workers_gives_the_same(run, predictor, workers):
    assert torch.equal(predictor.predict(run.folder, workers=workers).outputs, predictor.predict(run.folder).outputs)


def test_the_batch_size_is_that_of_validation_and_can_be_another(run, predictor):
    sizes = []
    hook = predictor.model.register_forward_hook(lambda module, inputs, outputs: sizes.append(len(outputs)))
    predictor.predict(run.folder)
    predictor.predict(run.folder, batch_size=10)
    hook.remove()
    assert sizes == [4, 4, 4, 3, 10, 5]


def test_another_batch_size_gives_the_same_but_for_rounding(run, predictor):
    one, other = (predictor.predict(run.folder, batch_size=size).probabilities for size in (1, 15))
    assert torch.allclose(one, other, atol=1e-6)


def test_background_and_pixel_limit_of_the_data_set_are_taken_over(photos, trained, tmp_path):
    black = cvkit.data.FolderDataset(photos / "val", background=(0, 0, 0), max_pixels=200_000)
    loader = cvkit.data.Loader(black, 4, transform=cvkit.transforms.small_image_eval(32))
    model = cvkit.models.create("test_classifier", num_classes=3)
    predictor = cvkit.load(trained(tmp_path, model, loader, loader), device="cpu")
    found = predictor.predict(photos / "val")
    assert torch.equal(found.outputs, cvkit.predict(model, loader, device="cpu"))
    white = cvkit.Predictor(model, found[0].classes, loader.transform, batch_size=4, device="cpu").predict(
        photos / "val"
    )
    assert not torch.equal(found.outputs, white.outputs), "some images are transparent"
    Image.new("RGB", (500, 500)).save(tmp_path / "large.png")
    with pytest.raises(ImageError, match=r"at most 200,000 pixels"):
        predictor.predict(tmp_path / "large.png")


def in_other_colours(folder):
    """The photos of a folder, each with a profile under which its greens are reds."""
    from PIL import ImageCms

    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    for path in [folder / one for one in cvkit.data.FolderDataset(folder).paths]:
        with Image.open(path) as image:
            shown = image.convert("RGB")
        path.unlink()
        shown.save(path.with_name(f"{path.name}.png"), icc_profile=bytes(profile))


@pytest.mark.parametrize("colour", ["convert", "ignore"])
def test_colours_are_converted_as_the_run_did_it(photos, trained, tmp_path, colour):
    import shutil

    shutil.copytree(photos / "val", tmp_path / "val")
    in_other_colours(tmp_path / "val")
    data = cvkit.data.FolderDataset(tmp_path / "val", colour=colour)
    loader = cvkit.data.Loader(data, 4, transform=cvkit.transforms.small_image_eval(32))
    model = cvkit.models.create("test_classifier", num_classes=3)
    path = trained(tmp_path / "run", model, loader, loader)
    predictor = cvkit.load(path, device="cpu")
    found = predictor.predict(tmp_path / "val")
    assert torch.equal(found.outputs, cvkit.predict(model, loader, device="cpu"))
    opened = [Image.open(one) for one in found.paths]
    assert torch.equal(predictor.predict(opened).outputs, found.outputs)
    classes, other = found[0].classes, "ignore" if colour == "convert" else "convert"
    options = {"batch_size": 4, "device": "cpu"}
    by_hand = cvkit.Predictor(model, classes, loader.transform, colour=colour, **options).predict(tmp_path / "val")
    otherwise = cvkit.Predictor(model, classes, loader.transform, colour=other, **options).predict(tmp_path / "val")
    assert torch.equal(by_hand.outputs, found.outputs)
    assert not torch.equal(otherwise.outputs, found.outputs)
    content = cvkit.load_checkpoint(path)
    del content["description"]["images"]["colour"]  # as a version wrote it that took all levels for sRGB
    older = cvkit.load(cvkit.save_checkpoint(tmp_path / "older.pt", content), device="cpu").predict(tmp_path / "val")
    assert torch.equal(older.outputs, (found if colour == "ignore" else otherwise).outputs)


def test_a_folder_comes_in_the_order_of_a_data_set_over_it(run, predictor):
    dataset = run.data.val.dataset
    assert predictor.predict(run.folder).paths == [run.folder / path for path in dataset.paths]


def test_names_that_sort_before_a_slash_do_not_change_that_order(tmp_path, predictor, drawn):
    import numpy as np

    for name in ("a", "a b", "a-b", "b"):
        (tmp_path / name / "z").mkdir(parents=True)
        drawn(np.random.default_rng(0), 40, 40).save(tmp_path / name / "z" / "1.png")
        drawn(np.random.default_rng(0), 40, 40).save(tmp_path / name / "z!.png")
    found = predictor.predict(tmp_path)
    assert found.paths == [tmp_path / path for path in cvkit.data.FolderDataset(tmp_path).paths]
    drawn(np.random.default_rng(0), 40, 40).save(tmp_path / "zz.png")
    assert predictor.predict(tmp_path).paths == [tmp_path / "zz.png", *found.paths]


def test_one_file_gives_one_prediction_by_its_path_as_text_or_not(run, predictor):
    path = run.folder / "a" / "large.jpg"
    prediction = predictor.predict(path)
    assert isinstance(prediction, cvkit.Prediction)
    assert prediction.path == path
    assert prediction.size == (300, 400)
    assert predictor.predict(str(path)).probabilities == prediction.probabilities


def test_the_size_is_the_upright_one_of_the_file(run, predictor):
    assert predictor.predict(run.folder / "a" / "turned.JPG").size == (320, 200)


def test_a_list_keeps_its_order_whatever_is_in_it(run, predictor):
    first, second = run.folder / "a" / "large.jpg", run.folder / "d" / "clear.png"
    mixed = [second, str(first), Image.open(second), run.folder / "b c", first]
    found = predictor.predict(mixed)
    inside = predictor.predict(run.folder / "b c").paths
    assert len(inside) == 5
    assert found.paths == [second, first, None, *inside, first]
    assert isinstance(predictor.predict(iter([first])), cvkit.Predictions)
    assert isinstance(predictor.predict(path for path in [first]), cvkit.Predictions)


def test_an_image_opened_by_pillow_is_turned_upright_as_its_file_is(run, predictor):
    path = run.folder / "a" / "turned.JPG"
    with Image.open(path) as image:
        opened = predictor.predict(image)
    assert opened.size == (320, 200)
    # a file is decoded no larger than needed, an opened image is whole: one or two grey levels
    assert opened.scores.tolist() == pytest.approx(predictor.predict(path).scores.tolist(), abs=0.02)


def test_no_random_generator_is_touched(run, predictor):
    before = torch.get_rng_state()
    predictor.predict(run.folder, tta="flip")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_model_predicts_in_evaluation_mode_even_if_somebody_trained_it_since(run):
    predictor = cvkit.load(run.path, device="cpu")
    before = predictor.predict(run.folder).outputs
    predictor.model.train()
    assert torch.equal(predictor.predict(run.folder).outputs, before)
    assert not predictor.model.training


def test_a_transform_of_training_is_taken_at_its_evaluation_twin(run):
    train = cvkit.transforms.classification_train(32)
    predictor = cvkit.Predictor(run.model, ["a", "b", "c"], train, device="cpu")
    assert predictor.transform == train.evaluation()


def test_a_callable_of_the_users_own_is_a_preprocessing_too(run):
    from torchvision import transforms as tv

    own = tv.Compose([tv.Resize((32, 32)), tv.ToTensor()])
    predictor = cvkit.Predictor(run.model, ["a", "b", "c"], own, device="cpu")
    loader = cvkit.data.Loader(cvkit.data.FolderDataset(run.folder), 32, transform=own)
    assert torch.equal(predictor.predict(run.folder).outputs, cvkit.predict(run.model, loader, device="cpu"))


# --- what cannot be read


@pytest.fixture
def broken(run, tmp_path):
    root = tmp_path / "broken"
    shutil.copytree(run.folder, root)
    (root / "a" / "bad.jpg").write_bytes(b"no image at all")
    whole = (root / "d" / "large.jpg").read_bytes()
    (root / "d" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    return root


def test_a_file_that_cannot_be_decoded_is_named(broken, predictor):
    with pytest.raises(ImageError, match=re.escape(f"cannot decode the image {broken / 'a' / 'bad.jpg'}")):
        predictor.predict(broken)


def test_those_that_are_skipped_are_counted_and_told(run, broken, predictor):
    with pytest.warns(CvkitWarning) as caught:
        found = predictor.predict(broken, on_error="skip")
    bad = str(broken / "a" / "bad.jpg")
    assert str(caught[0].message) == (
        f"2 of 17 images were left out because they cannot be read, e.g. cannot decode the image {bad}"
    )
    assert caught[0].filename == __file__
    assert list(found.skipped) == [bad, str(broken / "d" / "cut.jpg")]
    assert len(found) == 15
    assert [path.relative_to(broken) for path in found.paths] == [
        path.relative_to(run.folder) for path in predictor.predict(run.folder).paths
    ]
    assert "15, 2 skipped" in repr(found)


def test_where_none_can_be_read_skipping_is_an_error(tmp_path, predictor):
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(b"?")
    with pytest.raises(DataError) as caught:
        predictor.predict(tmp_path, on_error="skip")
    assert str(caught.value) == (
        "none of the images can be read\n"
        f"  got: 2 that were left out, e.g. cannot decode the image {tmp_path / '1.png'}\n"
        "  expected: at least one that can\n"
        "  fix: see what they are"
    )


def test_one_image_that_cannot_be_read_is_an_error_whatever_on_error_says(broken, predictor):
    with pytest.raises(ImageError, match="cannot decode"):
        predictor.predict(broken / "a" / "bad.jpg", on_error="skip")


def test_a_missing_file_is_named(tmp_path, predictor):
    with pytest.raises(ImageError) as caught:
        predictor.predict(tmp_path / "no.jpg")
    assert str(caught.value) == (
        f"cannot read the image {tmp_path / 'no.jpg'}\n"
        "  got: FileNotFoundError: No such file or directory\n"
        "  expected: a file that can be read\n"
        "  fix: check the path and its permissions"
    )


def test_a_folder_without_images_says_what_it_holds(tmp_path, predictor):
    (tmp_path / "notes.txt").write_text("?")
    (tmp_path / ".hidden.png").write_bytes(b"?")
    with pytest.raises(DataError) as caught:
        predictor.predict(tmp_path)
    assert str(caught.value) == (
        f"no image in {tmp_path}\n"
        "  got: 2 entries, e.g. .hidden.png, notes.txt\n"
        "  expected: files ending in .bmp, .gif, .jpeg, .jpg, .pgm, .png, .ppm, .tif, .tiff, .webp\n"
        "  fix: check the path; files of other names can be given as a list"
    )


def test_a_file_of_another_ending_can_be_named(run, predictor, tmp_path):
    shutil.copy(run.folder / "a" / "grey.jpg", tmp_path / "image")
    assert predictor.predict(tmp_path / "image").label in "ab cd"


def test_links_that_lead_outside_are_told(run, predictor, tmp_path):
    shutil.copy(run.folder / "a" / "grey.jpg", tmp_path / "1.jpg")
    os.symlink(run.folder, tmp_path / "more")
    with pytest.warns(CvkitWarning) as caught:
        found = predictor.predict(tmp_path)
    assert str(caught[0].message) == (
        f"1 links in {tmp_path} are left out, e.g. {tmp_path / 'more'}: links to folders, and to files outside the folder, "
        "are not followed; pass a list of what is meant"
    )
    assert found.paths == [tmp_path / "1.jpg"]


def test_streaming_gives_the_same_one_by_one_and_tells_at_its_end(run, broken, predictor):
    whole = predictor.predict(run.folder)
    streamed = predictor.stream(run.folder)
    assert next(streamed).path == whole[0].path
    assert torch.equal(torch.stack([one.outputs for one in streamed]), whole.outputs[1:])
    with pytest.warns(CvkitWarning, match="2 of 17 images were left out"):
        assert len(list(predictor.stream(broken, on_error="skip"))) == 15


def test_streaming_leaves_gradients_to_who_takes_it(run, predictor):
    for one in predictor.stream(run.folder):
        assert torch.is_grad_enabled()
        assert not one.outputs.requires_grad


# --- what cannot be used


@pytest.mark.parametrize(
    ("given", "got"),
    [
        (3, "a int"),
        (None, "a NoneType"),
        (b"bytes", "a bytes"),
        ({"a": 1}, "a dict"),
        ([3], "a int"),
        ([["x.png"]], "a list inside a list"),
    ],
)
def test_what_is_no_image_is_refused(predictor, given, got):
    name = "number 0 of the list" if isinstance(given, list) else "this"
    with pytest.raises(ArgumentError) as caught:
        predictor.predict(given)
    assert str(caught.value) == (
        f"predict cannot look at {name}\n"
        f"  got: {got}\n"
        "  expected: a path, a folder, a PIL image, an array (H, W) or (H, W, C), a tensor (C, H, W) or (N, C, H, W), or a list "
        "of such\n"
        "  fix: for the batches of a loader take cvkit.predict(predictor.model, loader)"
    )


def test_a_loader_is_sent_to_predict(run, predictor):
    with pytest.raises(
        ArgumentError, match=r"a tuple inside a list[\s\S]*take cvkit.predict\(predictor.model, loader\)"
    ):
        predictor.predict(run.data.val)


def test_an_empty_list_is_refused(predictor):
    with pytest.raises(ArgumentError, match=r"there is nothing to predict\n  got: an empty list"):
        predictor.predict([])


@pytest.mark.parametrize("option", [{"batch_size": 0}, {"batch_size": True}, {"workers": -1}, {"on_error": "ignore"}])
def test_options_that_cannot_be_used_are_refused(run, predictor, option):
    (name,) = option
    for call in (predictor.predict, predictor.stream):
        with pytest.raises(ArgumentError, match=f"^{name} cannot be used"):
            call(run.folder, **option)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": nn.Linear}, r"model cannot be used\n  got: the class Linear"),
        ({"classes": "abc"}, r"classes cannot be used"),
        ({"classes": ["a", "a"]}, r"classes cannot be used"),
        ({"transform": 3}, r"transform cannot be used\n  got: 3"),
        ({"task": "detection"}, r"unknown task 'detection'"),
        ({"outputs": "log"}, r"unknown kind of outputs 'log'"),
        ({"batch_size": 0}, r"batch_size cannot be used"),
        ({"task": "segmentation", "classes": None}, r"segmentation needs classes"),
        ({"device": "cuda:99"}, r"the device 'cuda:99' is not there"),
        ({"device": "gpu"}, r"unknown device 'gpu'"),
        ({"precision": "fp8"}, r"unknown precision 'fp8'"),
    ],
)
def test_arguments_of_a_predictor_that_cannot_be_used_are_refused(arguments, message):
    usual = {"model": nn.Identity(), "classes": ["a"], "transform": cvkit.transforms.small_image_eval(8)}
    with pytest.raises(cvkit.errors.CvkitError, match=f"^{message}"):
        cvkit.Predictor(**(usual | arguments))


def test_outputs_that_do_not_fit_the_classes_are_refused(fixed, run):
    with pytest.raises(ModelError) as caught:
        fixed([0.0, 1.0]).predict(run.folder)
    assert str(caught.value) == (
        "the model's outputs do not fit its classes\n"
        "  got: outputs of shape (2,) an image\n"
        "  expected: one output for each of the 3 classes\n"
        "  fix: predict(model, data) gives the outputs of any model"
    )


def test_outputs_that_are_not_finite_are_refused_by_the_first_image(fixed, run):
    calls = []

    def outputs(inputs):
        calls.append(len(inputs))
        made = torch.zeros(len(inputs), 3)
        if len(calls) == 2:
            made[1:3, 0] = float("nan")
        return made

    with pytest.raises(ModelError) as caught:
        fixed(outputs, batch_size=4).predict(run.folder)
    path = [run.folder / one for one in cvkit.data.FolderDataset(run.folder).paths][5]
    assert str(caught.value).splitlines()[:2] == [
        f"the model's outputs for {path} are not finite",
        "  got: NaN or infinity for 2 of the 4 images in its batch",
    ]


def test_an_infinite_logit_is_a_probability_of_nought(fixed, run):
    assert fixed([0.0, 0.0, -float("inf")]).predict(run.folder)[0].probabilities == {"a": 0.5, "b": 0.5, "c": 0.0}


def test_a_model_that_loses_the_batch_is_told_so(fixed, run):
    with pytest.raises(ModelError) as caught:
        fixed(lambda inputs: torch.zeros(len(inputs), 3).squeeze()).predict(run.folder / "a" / "grey.jpg")
    assert str(caught.value) == (
        "the model's outputs are not one row an image\n"
        "  got: shape (3,) from a batch of 1\n"
        "  expected: (1, …)\n"
        "  fix: take squeeze() without a dimension, reshape and mean over dimension 0 out of its forward()"
    )


def test_several_outputs_are_refused_unless_one_is_the_main_one(fixed, run):
    path = run.folder / "a" / "grey.jpg"
    two = {"out": torch.tensor([[0.0, 0.0, 9.0]]), "aux": torch.zeros(1, 3)}
    assert fixed(lambda inputs: two).predict(path).label == "c"
    with pytest.raises(ModelError, match=r"got: dict of main, aux"):
        fixed(lambda inputs: {"main": 0, "aux": 0}).predict(path)
    with pytest.raises(ModelError, match=r"got: tuple"):
        fixed(lambda inputs: (inputs, inputs)).predict(path)


def test_the_repr_says_what_it_is(predictor):
    assert repr(predictor) == (
        "Predictor(Sequential, classes=['a', 'b c', 'd'], transform=classification_eval(size=32, mean=(0.485, 0.456, 0.406), "
        "std=(0.229, 0.224, 0.225), resize=37, interpolation='bilinear'))"
    )


def test_the_paths_are_paths(run, predictor):
    assert all(isinstance(path, Path) for path in predictor.predict(str(run.folder)).paths)
