"""Every example is thin, runs offline in an empty directory, says what it promises, and runs once more over its own results."""

import ast
import importlib
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import cvkit

HERE = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(HERE.glob("*.py"))
AT_MOST = 60
"""Lines of an example, imports and docstring included."""

each_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)


# --- what they are written with


def private_names(tree):
    """Names with an underscore at their beginning that are used or imported, but for what Python itself has."""
    for node in ast.walk(tree):
        names = [getattr(node, "attr", getattr(node, "id", ""))]  # of an attribute, of a name
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [part for alias in node.names for part in alias.name.split(".")]
            names += (getattr(node, "module", None) or "").split(".")
        yield from (name for name in names if re.match(r"_(?!_(?:name|doc|init)__$)\w", name))


def unlisted_names(tree):
    """What of cvkit's is used and stands in no ``__all__``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "cvkit":
            listed = importlib.import_module(node.module).__all__
            yield from (f"{node.module}.{alias.name}" for alias in node.names if alias.name not in listed)
        elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith("cvkit."):
            room, _, name = ast.unparse(node).rpartition(".")
            module = sys.modules.get(room)
            if module is not None and name not in module.__all__:
                yield f"{room}.{name}"


@each_example
def test_an_example_is_short(example):
    assert len(example.read_text("utf-8").splitlines()) <= AT_MOST


@each_example
def test_an_example_uses_public_names_only(example):
    tree = ast.parse(example.read_text("utf-8"))
    assert list(private_names(tree)) == []
    assert list(unlisted_names(tree)) == []


@each_example
def test_an_example_says_in_its_first_lines_what_it_shows(example):
    tree = ast.parse(example.read_text("utf-8"))
    title, _, text = (ast.get_docstring(tree) or "").partition("\n\n")
    assert re.fullmatch(r"[A-Z][^\n]{10,110}\.", title), title
    assert len(text) > 40
    main = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main")
    assert ast.get_docstring(main)


@pytest.mark.parametrize(
    "line",
    [
        "from cvkit.training.loop import _train",
        "import cvkit._x",
        "state._hooks",
        "_ = 1; __builtins__._x",
        "from cvkit._hidden import fit",
    ],
)
def test_a_private_name_is_found(line):
    assert list(private_names(ast.parse(line)))


@pytest.mark.parametrize("line", ["import cvkit; cvkit.training", "from cvkit.data import np", "cvkit.data.torch"])
def test_a_name_that_is_not_listed_is_found(line):
    assert list(unlisted_names(ast.parse(line)))


def test_an_example_runs_as_a_command(tmp_path):
    done = subprocess.run(
        [sys.executable, str(HERE / "linear_regression.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("fit: ")


# --- what they do


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs an example by name in an empty directory and returns what it has printed, as ``python example.py`` would."""
    monkeypatch.chdir(tmp_path)

    def running(name, *options):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *options])
        capsys.readouterr()
        with torch.random.fork_rng():
            runpy.run_path(str(HERE / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return running


def numbers(pattern, text):
    """The numbers that a pattern finds, one for each of its matches; thousands may be told apart by commas."""
    return [float(found.replace(",", "")) for found in re.findall(pattern, text)]


def images():
    """The images that lie in the directories of the examples, generated data left out, by name with their sizes in bytes."""
    return {path.name: path.stat().st_size for path in Path("runs").glob("*/*.png")}


def rows(said):
    """The history that an example has printed."""
    names, *lines = [line.split() for line in said.splitlines() if ":" not in line]
    return [dict(zip(names, line, strict=True)) for line in lines]


def check_the_quickstart(said):
    assert float(rows(said)[-1]["val_accuracy"]) > 0.95
    label, probability = re.search(r"validation image circle/0000\.png: (\w+), probability (\S+)", said).groups()
    assert label == "circle"
    assert float(probability) > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_the_quickstart_learns_with_any_seed(seed, run):
    check_the_quickstart(run("quickstart", "--seed", str(seed)))


def test_the_quickstart_learns_its_images_shows_it_and_has_nothing_left_to_do(run):
    said = run("quickstart")
    check_the_quickstart(said)
    assert list(Path("runs/quickstart").glob("**/events.out.tfevents.*"))
    assert run("quickstart") == said


def test_the_quickstart_continues_where_it_ended(run):
    options = ("--size", "16", "--out", "here")
    run("quickstart", *options, "--epochs", "1")
    with pytest.warns(cvkit.errors.CvkitWarning, match="planned for 1 epochs and is now to have 2"):
        table = rows(run("quickstart", *options, "--epochs", "2"))
    assert [row["epoch"] for row in table] == ["1", "2"]
    assert Path("here/best.pt").is_file()


def test_linear_regression_is_the_closed_form(run):
    assert numbers(r"largest difference: (\S+)", run("linear_regression"))[0] < 1e-4
    assert images()["linear_regression.png"] > 5000


def test_gradient_descent_makes_an_update_a_batch_and_the_more_the_nearer(run):
    said = run("gradient_descent")
    assert numbers(r"(\d+) updates", said) == [2000, 100, 10]
    stochastic, mini, batch = numbers(r"loss (\S+)", said)
    assert max(stochastic, mini) < 0.4 < 1 < batch
    assert images()["gradient_descent.png"] > 5000


def test_logistic_regression_finds_the_border(run):
    said = run("logistic_regression")
    assert numbers(r"accuracy (\S+)", said)[-1] > 0.88
    assert images()["logistic_regression.png"] > 5000


def test_five_ways_give_the_same_losses(run):
    said = run("mlp_five_ways")
    assert re.findall(r"^(\S+) +loss", said, re.MULTILINE) == [
        "tensors",
        "autograd",
        "nn.Module",
        "nn.Sequential",
        "fit",
    ]
    assert max(numbers(r"at most (\S+) from", said)) < 1e-5
    assert len(set(re.findall(r"loss .* … \S{6}", said))) == 1


def test_lenet_tells_shapes_apart(run):
    said = run("lenet5")
    assert numbers(r"([\d.]+)% of 240 images", said)[0] > 70
    assert images()["lenet5.png"] > 5000


def test_a_convolutional_network_is_more_accurate_each_epoch(run):
    said = run("cnn_predictions")
    accuracy = numbers(r"validation (\S+)", said)
    assert len(accuracy) == 6
    assert accuracy[-1] > 0.85 > accuracy[0]
    assert images()["cnn_predictions.png"] > 5000


@pytest.mark.slow
def test_fit_is_as_accurate_as_the_tutorials_loop(run):
    tutorial, fit = numbers(r"accuracy (\S+)", run("cifar10"))
    assert fit > tutorial - 0.2
    assert fit > 0.5


def test_a_resnet_and_a_densenet_learn(run):
    said = run("resnet_densenet")
    assert re.findall(r"^(\w+): validation", said, re.MULTILINE) == ["resnet", "densenet"]
    assert min(numbers(r"accuracy (\S+)", said)) > 0.75


def test_of_vgg16_only_the_new_layer_is_trained(run):
    said = run("vgg16_layers")
    appended, replaced = numbers(r"([\d,]+) of [\d,]+ parameters", said)
    assert (appended, replaced) == (1000 * 3 + 3, 4096 * 3 + 3)
    assert numbers(r"of ([\d,]+) parameters", said) == [138_357_544 + 3003, 138_357_544 - 4096 * 997 - 997]


def test_transfer_trains_in_three_ways(run):
    said = run("transfer", "--epochs", "1")
    ways = re.findall(r"^([\w-]+): \S+% of the validation images", said, re.MULTILINE)
    assert ways == ["pretraining", "scratch", "frozen", "fine-tuned"]


@pytest.mark.slow
def test_fine_tuning_is_better_than_a_frozen_backbone_and_that_than_from_scratch(run):
    _, scratch, frozen, tuned = numbers(r": (\S+)% of the validation images", run("transfer"))
    assert scratch < frozen < tuned


def test_all_layouts_hold_the_same(run):
    said = run("label_layouts")
    assert said.count("True") == 4
    assert "False" not in said
    assert images()["label_layouts.png"] > 5000


def test_a_unet_finds_the_shapes_in_tiff(run):
    assert numbers(r"given: (\S+)", run("unet_masks"))[0] > 0.75
    assert images()["unet_masks.png"] > 5000


def test_autoencoders_remove_noise_and_convolutions_remove_more(run):
    linear, convolutional = numbers(r"error (\S+),", run("autoencoders"))
    assert convolutional < linear < 0.03
    assert images()["autoencoders.png"] > 5000


def test_the_tour_of_tensorboard_writes_all_of_it_and_goes_on(run):
    tensorboard = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run("tensorboard_tour", "--epochs", "2")
    assert run("tensorboard_tour", "--epochs", "3").startswith("3 epochs")
    found = {}
    for part in ("train", "val"):
        events = tensorboard.EventAccumulator(f"runs/tensorboard_tour/{part}").Reload()
        for kind, tags in events.Tags().items():
            found[kind] = found.get(kind, False) or bool(tags)
        assert [one.step for one in events.Scalars("loss")] == [18, 36, 54]
    assert all(found[kind] for kind in ("scalars", "histograms", "images", "graph", "tensors")), found
    assert list(Path("runs/tensorboard_tour").rglob("projector_config.pbtxt"))


def test_transforms_take_images_arrays_and_bgr_alike(run):
    assert "equal from PIL, array and BGR: True" in run("transforms_tour")
    assert images()["transforms_tour.png"] > 5000


def test_every_optimizer_and_loss_learns(run):
    said = run("losses_optimizers")
    accuracy = numbers(r"accuracy (\S+)", said)
    assert len(accuracy) == 8
    assert min(accuracy) > 0.55
    assert sorted(accuracy)[4] > 0.95
    assert images()["losses_optimizers.png"] > 5000


def test_a_continued_run_is_the_whole_one_and_its_model_judges_an_image(run):
    said = run("save_resume")
    assert "stopped on purpose at step 65 of 120, continued to step 120" in said
    assert "bit for bit: True" in said
    assert re.search(r"circle/0000\.png: Prediction\(label='\w+', probability=0\.\d+\)", said)
    again = run("save_resume")
    assert "bit for bit: True" in again


def test_a_step_of_ones_own_learns_without_labels(run):
    assert numbers(r"(\S+)% of the turns", run("own_step"))[-1] > 45


def test_a_student_learns_from_a_teacher_without_a_label(run):
    teacher, _, taught = numbers(r"(\S+)% of the validation images", run("distillation"))
    assert teacher > 95
    assert taught > 60, "33% by chance"


def test_features_learned_without_labels_are_better_than_random_ones(run):
    said = run("simclr")
    first, last = numbers(r"(\d\.\d+) in the", said)
    assert last < first
    random, learned = numbers(r"features: (\S+)%", said)
    assert learned > random + 20


def test_two_networks_with_an_optimizer_each_train_against_each_other(run):
    said = run("gan")
    (real,) = numbers(r"real ones: (\S+)", said)
    early, late = numbers(r"made ones: (\S+)", said)
    assert early < 0.7 * real < late < 1.5 * real
    assert images()["gan.png"] > 5000


def test_several_views_of_an_image_are_averaged(run):
    right = numbers(r"(\S+)% right", run("test_time_augmentation"))
    assert len(right) == 3
    assert min(right) > 60
    assert right[1] != right[0]


def test_a_callback_of_ones_own_ends_the_run(run):
    said = run("own_callback")
    assert "worst_class" in said
    assert "every class is right in 85% of its images" in said


@pytest.mark.parametrize(("example", "others"), [("linear_regression", "fit: "), ("label_layouts", "folder ")])
def test_without_matplotlib_an_example_runs_and_says_what_is_missing(example, others, run, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = run(example)
    assert said.startswith(others)
    assert "no image: " in said
    assert 'pip install "cvkit[plots]"' in said
    assert images() == {}


# --- the gallery


@pytest.fixture(scope="module")
def gallery():
    """What ``docs/make_example_pages.py`` defines."""
    return runpy.run_path(str(HERE.parent / "docs" / "make_example_pages.py"))


def test_the_gallery_shows_every_example_once(gallery):
    assert sorted(gallery["names"]()) == [path.stem for path in EXAMPLES]
    assert (HERE.parent / "docs" / "examples" / "index.rst").read_text("utf-8") == gallery["index"]()


@each_example
def test_a_page_of_the_gallery_tells_of_the_script_as_it_is(example, gallery):
    pages = HERE.parent / "docs" / "examples"
    assert (pages / f"{example.stem}.rst").read_text("utf-8") == gallery["page"](example.stem)
    assert (pages / f"{example.stem}.txt").read_text("utf-8").strip()


@each_example
def test_an_image_of_the_gallery_is_small(example, gallery):
    image = HERE.parent / "docs" / "_static" / "examples" / f"{example.stem}.png"
    drawn = f'"{example.stem}.png"' in example.read_text("utf-8")
    assert image.is_file() == drawn
    assert not drawn or image.stat().st_size < gallery["MOST_BYTES"]


def test_cifar10_fast_runs_through(run):
    out = run("cifar10_fast", "--epochs", "1", "--device", "cpu")
    assert re.fullmatch(r"1 epochs, [\d.]+ s, accuracy 0\.\d{4}\n", out)


def test_every_example_has_its_test():
    source = Path(__file__).read_text("utf-8")
    assert [path.stem for path in EXAMPLES if f'run("{path.stem}"' not in source] == []
