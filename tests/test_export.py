"""Exported programs: they give the predictor's results elsewhere, say how to prepare an image, and are whole or not there."""

import importlib.util
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import cvkit
from cvkit import export
from cvkit.errors import ArgumentError, MissingDependencyError, ModelError

onnxruntime = pytest.importorskip("onnxruntime")
T = cvkit.transforms

SHARED = ("resnet9", {"width": 4}, T.small_image_eval(16))
CASES = {
    "unet": ("unet", {"width": 4, "depth": 2}, T.segmentation_eval(32)),
    "resnet18": ("resnet18", {}, T.classification_eval(64)),
}
SLOW = {
    "grey": ("lenet5", {"in_channels": 1}, T.digits_eval()),
    "mlp": ("mlp", {"size": 16}, T.small_image_eval(16)),
    "average pooling": ("cifar_quick", {}, T.small_image_eval()),
    "depthwise": ("mobilenet_v3_small", {}, T.classification_eval(64)),
    "attention": ("vit_b_32", {"image_size": 64}, T.classification_eval(64)),
    "windows": ("swin_t", {}, T.classification_eval(64)),
    "segmentation of torchvision's": ("lraspp_mobilenet_v3_large", {}, T.segmentation_eval(64)),
    "dense": ("densenet121", {}, T.classification_eval(64)),
}
each_case = pytest.mark.parametrize("case", [*CASES, *(pytest.param(one, marks=pytest.mark.slow) for one in SLOW)])


@pytest.fixture(scope="module", autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the exporters' own
        warnings.simplefilter("ignore", FutureWarning)
        yield


def built(case):
    """A predictor with weights of its own, batch norms that have seen something, and images."""
    name, options, transform = case if isinstance(case, tuple) else (CASES | SLOW)[case]
    torch.manual_seed(0)
    model = cvkit.models.create(name, num_classes=3, **({"in_channels": transform.channels} | options))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return cvkit.Predictor(model, ["a", "b", "c"], transform, device="cpu")


def photos(count=5):
    generator = np.random.default_rng(0)
    coarse = [Image.fromarray(generator.integers(0, 256, (9, 12, 3), dtype=np.uint8)) for _ in range(count)]
    return [one.resize((80, 70), Image.Resampling.BICUBIC) for one in coarse]


def pixels_of(predictor, images):
    return torch.stack([predictor.transform.sample(image) for image in images])


def run_onnx(path, inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    return torch.from_numpy(session.run(None, {entry.name: inputs.numpy()})[0])


def run_pt2(path, inputs):
    with torch.no_grad():
        return torch.export.load(path).module()(inputs)


def scores(predictor, images):
    found = predictor.predict(images, probability_maps=True)
    if found[0].task != "segmentation":
        return found.probabilities
    inputs = predictor.transform.batch(pixels_of(predictor, images), torch.zeros(1), torch.Generator())[0]
    return cvkit.predict(predictor.model, inputs, device="cpu").softmax(1)


RUNNERS = {".onnx": run_onnx, ".pt2": run_pt2}


@each_case
def test_an_exported_program_gives_what_the_predictor_says(case, tmp_path):
    predictor, images = built(case), photos()
    path = predictor.export(tmp_path / "model.onnx")
    wanted = scores(predictor, images)
    for some in (images, images[:1], images[:3]):
        found = run_onnx(path, pixels_of(predictor, some))
        assert torch.allclose(found, wanted[: len(some)], atol=1e-4), "probabilities"
    assert [one.name for one in tmp_path.iterdir()] == ["model.onnx"]


@pytest.fixture(scope="module")
def predictor():
    """One with batch norms."""
    return built(SHARED)


@pytest.fixture(scope="module")
def exported(predictor, tmp_path_factory):
    """The files of that predictor, by ending."""
    return {ending: predictor.export(tmp_path_factory.mktemp("exported") / f"model{ending}") for ending in RUNNERS}


def test_so_do_both_kinds_of_file_for_any_number_of_images(predictor, exported):
    wanted = scores(predictor, photos(7))
    for ending, run in RUNNERS.items():
        for count in (1, 2, 7):
            found = run(exported[ending], pixels_of(predictor, photos(7)[:count]))
            assert torch.allclose(found, wanted[:count], atol=1e-4)
        assert [one.name for one in exported[ending].parent.iterdir()] == [f"model{ending}"]


def test_inputs_can_be_normalised_already(tmp_path):
    model = cvkit.models.create("mlp", num_classes=3, size=16)
    predictor = cvkit.Predictor(model, ["a", "b", "c"], T.small_image_eval(16), device="cpu")
    images = photos(3)
    inputs, _ = predictor.transform.batch(pixels_of(predictor, images), torch.zeros(3), torch.Generator())
    for ending, run in RUNNERS.items():
        path = predictor.export(tmp_path / f"x{ending}", inputs="normalized")
        assert torch.allclose(run(path, inputs), scores(predictor, images), atol=1e-4)
        assert export.read_metadata(path)["inputs"].startswith("float32")


def test_a_graph_of_one_channel_takes_grey_pixels(tmp_path):
    model = cvkit.models.create("mlp", num_classes=3, in_channels=1, size=16)
    predictor = cvkit.Predictor(model, ["a", "b", "c"], T.small_image_eval(16, channels=1), device="cpu")
    images = photos(3)
    for ending, run in RUNNERS.items():
        path = predictor.export(tmp_path / f"grey{ending}")
        found = run(path, pixels_of(predictor, images))
        assert torch.allclose(found, scores(predictor, images), atol=1e-4)
        said = export.read_metadata(path)
        assert (said["channels"], said["mean"], said["std"]) == ("L", [0.4734], [0.2507])
        assert T.Transform.from_config(said["preset"]) == predictor.transform


def test_the_file_says_what_is_needed_to_use_it(exported):
    for path in exported.values():
        found = export.read_metadata(path)
        assert found["classes"] == ["a", "b", "c"]
        assert (found["model"], found["task"]) == ("resnet9", "classification")
        assert (found["size"], found["resize"], found["channels"], found["interpolation"]) == (
            16,
            16,
            "RGB",
            "bilinear",
        )
        assert (found["mean"], found["std"]) == (list(T.presets.CIFAR10_MEAN), list(T.presets.CIFAR10_STD))
        assert found["cvkit_version"] == importlib.metadata.version("cvkit")
        assert found["inputs"].startswith("uint8 (N, channels, size, size)")
        assert T.Transform.from_config(found["preset"]) == T.small_image_eval(16)
        assert found["preprocessing"] == [
            "decode to 8-bit RGB, converted to sRGB by its colour profile, upright by its EXIF tag, transparent pixels showing (255, 255, 255)",
            "resize the whole image to 16×16 (bilinear, antialiased)",
        ]
    assert export.read_metadata(exported[".onnx"]) == export.read_metadata(exported[".pt2"])


def test_onnx_has_it_under_keys_that_any_tool_can_read(exported):
    session = onnxruntime.InferenceSession(exported[".onnx"], providers=["CPUExecutionProvider"])
    found = session.get_modelmeta().custom_metadata_map
    assert json.loads(found["classes"]) == ["a", "b", "c"]
    assert json.loads(found["mean"]) == list(T.presets.CIFAR10_MEAN)
    assert found["task"] == "classification"
    (entry,), (exit_,) = session.get_inputs(), session.get_outputs()
    assert (entry.name, entry.type, entry.shape[1:]) == ("pixels", "tensor(uint8)", [3, 16, 16])
    assert (exit_.name, exit_.type, exit_.shape[1:]) == ("probabilities", "tensor(float)", [3])
    assert isinstance(entry.shape[0], str), "any number of images"


@pytest.mark.parametrize(
    "transform",
    [
        T.classification_eval(48),
        T.classification_eval(32, interpolation="bicubic"),
        T.segmentation_eval(40),
        T.digits_eval(),
    ],
    ids=str,
)
def test_who_follows_the_file_gets_the_pixels(transform):
    from cvkit.inference.export_graph import metadata_of
    from cvkit.inference.outputs import Reader
    from cvkit.inference.sources import Decoding

    said = metadata_of(nn.Identity(), transform, Reader("auto", None), "regression", Decoding(), "pixels")
    image = photos(1)[0].convert(said["channels"])
    how = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[said["interpolation"]]
    size, shorter = said["size"], said["resize"]
    if f"resize the whole image to {size}×{size}" in said["preprocessing"][1]:
        image = image.resize((size, size), how)
    else:
        assert said["preprocessing"][1].startswith(f"resize the shorter side to {shorter}, ")
        image = image.resize((int(shorter * image.width / image.height), shorter), how)
        assert said["preprocessing"][2] == f"cut {size}×{size} from the middle"
        left, top = round((image.width - size) / 2), round((image.height - size) / 2)
        image = image.crop((left, top, left + size, top + size))
    wanted = transform.sample(photos(1)[0]).movedim(0, -1).numpy().astype(int)
    assert np.abs(np.asarray(image).reshape(wanted.shape).astype(int) - wanted).max() <= 2, "levels of 255"


def test_values_and_images_are_exported_too(tmp_path):
    transform = T.denoise(16)
    model = cvkit.models.create("linear", num_classes=2, size=16)
    path = cvkit.Predictor(model, None, transform, device="cpu").export(tmp_path / "values.onnx")
    inputs = pixels_of(cvkit.Predictor(model, None, transform, device="cpu"), photos(3))
    assert torch.allclose(run_onnx(path, inputs), cvkit.predict(model, inputs.float() / 255, device="cpu"), atol=1e-4)
    found = export.read_metadata(path)
    assert (found["task"], found["classes"], found["outputs"]) == ("regression", None, "the model's values")


def test_the_model_stays_as_it_is(predictor, tmp_path):
    before = {name: value.clone() for name, value in predictor.model.state_dict().items()}
    random = torch.get_rng_state()
    predictor.model.train()
    predictor.export(tmp_path / "x.pt2")
    assert all(module.training for module in predictor.model.modules())
    assert all(torch.equal(value, before[name]) for name, value in predictor.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    predictor.model.eval()


def test_a_program_runs_without_cvkit(predictor, exported, tmp_path):
    pixels = pixels_of(predictor, photos(2))
    np.save(tmp_path / "pixels.npy", pixels.numpy())
    code = f"""
import sys
import numpy, onnxruntime
session = onnxruntime.InferenceSession({str(exported[".onnx"])!r}, providers=["CPUExecutionProvider"])
print(session.run(["probabilities"], {{"pixels": numpy.load({str(tmp_path / "pixels.npy")!r})}})[0].tolist())
assert "cvkit" not in sys.modules and "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert np.allclose(json.loads(done.stdout), scores(predictor, photos(2)), atol=1e-4)


# --- any module


class Sum(nn.Module):
    def forward(self, inputs):
        return inputs.sum(1)


@pytest.mark.parametrize("ending", RUNNERS)
def test_any_module_of_one_tensor_is_written(ending, tmp_path):
    path = export.write(
        Sum(), tmp_path / "new" / f"x{ending}", torch.rand(1, 3, 4), metadata={"note": "ü", "n": [1, None]}
    )
    inputs = torch.rand(6, 3, 4)
    assert torch.allclose(RUNNERS[ending](path, inputs), inputs.sum(1))
    assert export.read_metadata(path) == {"note": "ü", "n": [1, None]}


class Random(nn.Module):
    def forward(self, inputs):
        return inputs + torch.rand_like(inputs)


class Branches(nn.Module):
    def forward(self, inputs):
        return inputs if inputs.sum() > 0 else -inputs


class Pair(nn.Module):
    def forward(self, inputs):
        return inputs, inputs


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Random(), "Random gives something else when exported: {path} is not written\n  got: outputs that differ by "),
        (Branches(), "Branches cannot be exported\n  got: "),
        (Pair(), "Pair cannot be exported\n  got: outputs that are a tuple\n  expected: one tensor\n"),
    ],
)
def test_what_cannot_be_exported_leaves_the_file_before_it(module, said, tmp_path):
    path = tmp_path / "x.pt2"
    path.write_text("before")
    with pytest.raises(ModelError, match="^" + re.escape(said.format(path=path))):
        export.write(module, path, torch.rand(2, 3))
    assert path.read_text() == "before"
    assert [one.name for one in tmp_path.iterdir()] == ["x.pt2"]


def test_a_disk_that_fails_leaves_the_file_before_it(monkeypatch, tmp_path):
    path = tmp_path / "x.pt2"
    path.write_text("before")

    def full(source, target):
        assert Path(source).stat().st_size > 0
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export.os, "replace", full)
    with pytest.raises(ModelError) as caught:
        export.write(Sum(), path, torch.rand(2, 3))
    assert str(caught.value) == (
        f"cannot write {path}\n"
        "  got: OSError: [Errno 28] No space left on device\n"
        "  expected: a directory that takes it; the file before it is untouched\n"
        "  fix: see whether the disk is full or the directory is read-only"
    )
    assert path.read_text() == "before"
    assert [one.name for one in tmp_path.iterdir()] == ["x.pt2"]


def test_what_is_not_tried_is_written_all_the_same(tmp_path):
    assert export.write(Random(), tmp_path / "x.pt2", torch.rand(2, 3), check=False).is_file()


def test_what_onnx_does_not_have_is_said(tmp_path):
    class Strange(nn.Module):
        def forward(self, inputs):
            return torch.linalg.eigvalsh(inputs @ inputs.mT)

    with pytest.raises(ModelError, match=r"^Strange cannot be written as ONNX\n  got: "):
        export.write(Strange(), tmp_path / "x.onnx", torch.rand(2, 3, 3))
    assert list(tmp_path.iterdir()) == []


def test_a_number_of_images_that_is_built_in_is_refused(tmp_path):
    class Two(nn.Module):
        def forward(self, inputs):
            return inputs.reshape(2, -1)

    with pytest.raises(ModelError, match=r"^Two cannot be exported\n  got: "):
        export.write(Two(), tmp_path / "x.pt2", torch.rand(2, 3))


@pytest.mark.parametrize("ending", ["", ".pt", ".txt"])
def test_another_ending_is_refused(predictor, ending, tmp_path):
    path = tmp_path / f"model{ending}"
    for call in (predictor.export, export.read_metadata, lambda path: export.write(Sum(), path, torch.rand(2, 3))):
        with pytest.raises(ArgumentError) as caught:
            call(path)
        assert str(caught.value) == (
            f"cannot tell what to export to {path}\n"
            f"  got: the ending {ending!r}\n"
            "  expected: .onnx for ONNX, or .pt2 for torch.export\n"
            f"  fix: name it {tmp_path / 'model.onnx'}"
        )


@pytest.mark.parametrize("example", [torch.zeros(0, 3), torch.zeros(3), [1, 2]])
def test_an_example_that_is_no_batch_is_refused(example, tmp_path):
    with pytest.raises(ArgumentError, match=r"this cannot be exported[\s\S]*a batch \(N, …\) of its inputs"):
        export.write(Sum(), tmp_path / "x.pt2", example)


@pytest.mark.parametrize("missing", [["onnx"], ["onnxscript", "onnxruntime"]])
def test_missing_packages_are_named_before_any_work(predictor, missing, monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in missing else find(name, *a))
    with pytest.raises(MissingDependencyError) as caught:
        predictor.export(tmp_path / "new" / "x.onnx")
    assert str(caught.value) == (
        "ONNX files cannot be written\n"
        f"  got: no {' and no '.join(missing)}\n"
        "  expected: onnx, onnxscript, onnxruntime\n"
        '  fix: pip install "cvkit[onnx]"'
    )
    assert list(tmp_path.iterdir()) == []


def test_without_onnx_metadata_of_onnx_files_cannot_be_read(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "cvkit\[onnx\]"'):
        export.read_metadata(exported[".onnx"])
    assert export.read_metadata(exported[".pt2"])["task"] == "classification"


def test_a_model_that_one_file_does_not_hold_is_refused(predictor, monkeypatch, tmp_path):
    monkeypatch.setattr(export, "_MOST_BYTES", 1000)
    with pytest.raises(ModelError, match=r"is too large for one ONNX file[\s\S]*export it to a .pt2 file"):
        predictor.export(tmp_path / "x.onnx")


def test_a_preprocessing_of_ones_own_is_not_exported(tmp_path):
    predictor = cvkit.Predictor(Sum(), None, lambda image: torch.zeros(3, 8, 8), device="cpu")
    with pytest.raises(ArgumentError) as caught:
        predictor.export(tmp_path / "x.onnx")
    assert str(caught.value).startswith(
        "this predictor cannot be exported\n  got: a preprocessing that cannot be described"
    )


def test_unknown_inputs_are_refused(predictor, tmp_path):
    with pytest.raises(ArgumentError, match="unknown kind of inputs 'floats'"):
        predictor.export(tmp_path / "x.onnx", inputs="floats")


def test_outputs_that_do_not_fit_the_classes_are_refused(tmp_path):
    predictor = cvkit.Predictor(nn.Flatten(), ["a", "b"], T.small_image_eval(8), device="cpu")
    with pytest.raises(ModelError, match="the model's outputs do not fit its classes"):
        predictor.export(tmp_path / "x.onnx")


@pytest.mark.parametrize("ending", RUNNERS)
@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 no", b"\x00" * 100])
def test_a_file_without_metadata_is_refused(ending, content, tmp_path):
    path = tmp_path / f"x{ending}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ArgumentError, match="^" + re.escape(f"{path} holds no metadata of cvkit's\n  got: ")):
        export.read_metadata(path)


def test_files_that_others_exported_are_refused(tmp_path):
    program = torch.export.export(Sum(), (torch.rand(2, 3),))
    torch.export.save(program, tmp_path / "x.pt2")
    with pytest.raises(ArgumentError, match=r"got: no cvkit.json in it"):
        export.read_metadata(tmp_path / "x.pt2")


def test_reading_metadata_runs_nothing_of_the_file(exported, monkeypatch):
    import pickle

    def never(*arguments, **options):
        raise RuntimeError("unpickled")

    for holder, name in ((pickle, "load"), (pickle, "loads"), (torch, "load"), (torch.export, "load")):
        monkeypatch.setattr(holder, name, never)
    for path in exported.values():
        assert export.read_metadata(Path(path))["task"] == "classification"
