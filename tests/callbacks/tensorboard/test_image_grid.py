"""What is counted, recorded, read and drawn for TensorBoard, by itself."""

import copy
import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models import regnet

import cvkit
from cvkit.callbacks.tensorboard import answers, image_grid, projector, scores
from cvkit.callbacks.tensorboard.histograms import BINS, histograms
from cvkit.callbacks.tensorboard.model_graph import Call, first_sample, record, to_proto, undisturbed
from cvkit.losses import resolve_loss
from cvkit.models.registry import _builders as builders
from cvkit.training.runtime import Runtime
from cvkit.transforms import digits_eval, small_image_eval

CROSS, BCE, MSE, DICE = (resolve_loss(name) for name in ("cross_entropy", "bce", "mse", "dice"))


# --- histograms


@settings(max_examples=50)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=300))
def test_a_histogram_counts_every_value_between_its_ends(values):
    tensor = torch.tensor(values)
    made = histograms({"a": tensor})["a"]
    assert sum(made.counts) == made.count == len(values)
    assert (made.low, made.high) == (tensor.min().item(), tensor.max().item())
    assert made.limits == sorted(made.limits)
    assert made.limits[-1] == made.high
    assert len(made.limits) == len(made.counts)
    assert made.total == pytest.approx(sum(values), rel=1e-3, abs=1e-2 * max(map(abs, values)) + 1e-30)


def test_a_histogram_is_numpys():
    tensor = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    made = histograms({"a": tensor})["a"]
    counts, edges = np.histogram(tensor.numpy(), BINS)
    assert np.abs(np.array(made.counts[1:]) - counts).max() <= 1  # a value on an edge
    assert made.limits == pytest.approx(edges.tolist(), rel=1e-5, abs=1e-6)
    assert made.squares == pytest.approx(float((tensor**2).sum()), rel=1e-4)


def test_what_is_not_finite_is_left_out_and_what_is_nothing_has_no_histogram():
    made = histograms(
        {
            "mixed": torch.tensor([1.0, float("nan"), 3.0, float("inf")]),
            "none": torch.full((3,), float("nan")),
            "empty": torch.empty(0),
            "whole": torch.tensor([1.0, 2.0]),
            "equal": torch.full((4,), 0.5, dtype=torch.bfloat16),
            "complex": torch.tensor([1 + 2j]),
        }
    )
    assert {name: (one.count, one.low, one.high) for name, one in made.items()} == {
        "mixed": (2, 1, 3),
        "whole": (2, 1, 2),
        "equal": (4, 0.5, 0.5),
        "complex": (2, 1, 2),
    }
    assert made["equal"].counts == [4]
    assert histograms({}) == histograms({"empty": torch.empty(0)}) == {}


# --- answers


def read(outputs, targets, loss, inputs=None):
    return answers.read(outputs, targets, loss, inputs)


def test_outputs_are_read_by_their_shapes_and_loss():
    batch = torch.randn(4, 3)
    found = read(batch, torch.tensor([0, 1, 2, 0]), CROSS)
    assert (found.task, found.classes) == ("classification", 3)
    assert torch.equal(found.predicted, batch.argmax(1))
    assert torch.allclose(found.scores, batch.softmax(1))
    soft = torch.tensor([[0.3, 0.7, 0.0]]).expand(4, 3)
    assert torch.equal(read(batch, soft, CROSS).truth, torch.ones(4, dtype=torch.long))
    binary = read(torch.tensor([[2.0], [-2.0]]), torch.tensor([1, 1]), BCE)
    assert (binary.task, binary.predicted.tolist(), binary.truth.tolist()) == ("binary", [1, 0], [1, 1])
    assert torch.allclose(binary.scores.sum(1), torch.ones(2))
    labels = read(torch.tensor([[1.0, -1.0]]), torch.tensor([[1.0, 1.0]]), BCE)
    assert (labels.task, labels.predicted.tolist(), labels.truth.tolist()) == (
        "multilabel",
        [[True, False]],
        [[True, True]],
    )
    masks = read(torch.randn(2, 5, 4, 4), torch.zeros(2, 4, 4, dtype=torch.long), CROSS)
    assert (masks.task, masks.classes, masks.predicted.shape) == ("segmentation", 5, (2, 4, 4))
    one = read(torch.randn(2, 1, 4, 4), torch.ones(2, 4, 4, dtype=torch.long), DICE)
    assert (one.task, one.classes, one.predicted.shape) == ("segmentation", 2, (2, 4, 4))
    assert read(torch.randn(2, 3, 4, 4), torch.rand(2, 3, 4, 4), MSE).task == "reconstruction"
    flat = read(torch.randn(2, 48), torch.rand(2, 48), MSE, torch.rand(2, 3, 4, 4))
    assert (flat.task, flat.predicted.shape) == ("reconstruction", (2, 3, 4, 4))
    assert read(torch.randn(4, 1), torch.randn(4), MSE).task == "regression"
    assert read(torch.randn(4, 2), torch.randn(4, 2), MSE).task == "regression"


@pytest.mark.parametrize(
    ("outputs", "targets"),
    [
        (None, None),
        ({"a": 1}, torch.ones(2)),
        (torch.ones(2), None),
        (torch.tensor(1.0), torch.tensor(1.0)),
        (torch.ones(3, 2), torch.ones(2)),
        (torch.ones(2, 2, dtype=torch.int64), torch.ones(2)),
        (torch.ones(2, 7), torch.ones(2, 3)),
        (torch.ones(2, 3, 4), torch.ones(2, 9, dtype=torch.int64)),
    ],
)
def test_what_cannot_be_read_is_nothing(outputs, targets):
    assert read(outputs, targets, MSE) is None


# --- scores


def test_the_confusion_matrix_counts_each_class_and_ignores_what_is_none():
    counted = scores.Scores()
    for outputs, targets in ((torch.eye(3), [0, 1, -100]), (torch.eye(3), [1, 1, 2])):
        counted.update(read(outputs, torch.tensor(targets), CROSS))
    assert counted.confusion().tolist() == [[1, 0, 0], [1, 2, 0], [0, 0, 1]]


def test_masks_are_counted_by_pixel_but_for_their_border():
    counted = scores.Scores()
    outputs = torch.zeros(1, 2, 1, 3)
    outputs[:, 1] = 1
    counted.update(read(outputs, torch.tensor([[[0, 1, 255]]]), CROSS))
    assert counted.confusion().tolist() == [[0, 1], [0, 1]]
    assert counted.curves(["a", "b"]) == {}


def test_the_curves_are_tensorboardx_own():
    from tensorboardX.summary import compute_curve

    generator = torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(50, 3, generator=generator), torch.randint(0, 3, (50,), generator=generator)
    counted = scores.Scores()
    for part in (slice(0, 20), slice(20, 50)):
        counted.update(read(outputs[part], targets[part], CROSS))
    curves = counted.curves(["a", "b", "c"])
    assert list(curves) == ["all classes", "a", "b", "c"]
    chances = outputs.softmax(1).numpy()
    for index, name in enumerate("abc"):
        wanted = compute_curve((targets == index).numpy(), chances[:, index], scores.THRESHOLDS)
        assert curves[name].rows == pytest.approx(wanted)
    every = compute_curve((targets[:, None] == torch.arange(3)).numpy().ravel(), chances.ravel(), scores.THRESHOLDS)
    assert curves["all classes"].rows == pytest.approx(every)


def test_a_binary_task_has_the_curve_of_its_second_class_and_many_classes_have_one_together():
    counted = scores.Scores()
    counted.update(read(torch.tensor([2.0, -2.0]), torch.tensor([1.0, 0.0]), BCE))
    assert list(counted.curves(["no", "yes"])) == ["yes"]
    many = scores.MOST_CURVES + 1
    counted = scores.Scores()
    counted.update(read(torch.randn(4, many), torch.zeros(4, dtype=torch.long), CROSS))
    assert list(counted.curves([str(index) for index in range(many)])) == ["all classes"]


@pytest.mark.parametrize("side", [2, 30, 200])
def test_a_confusion_matrix_is_drawn_at_any_size(side):
    names = [f"a class with rather a long name {index}" for index in range(side)]
    drawn = scores.draw_confusion(np.eye(side, dtype=np.int64) * 12345, names)
    assert max(drawn.shape) < 1300
    assert (drawn == (8, 48, 107)).all(2).sum() > side  # the diagonal


# --- images


def test_normalised_images_are_shown_as_they_were():
    images = torch.randint(0, 256, (2, 3, 5, 5), dtype=torch.uint8)
    transform = small_image_eval(size=5)
    inputs, _ = transform.batch(images, torch.zeros(2, dtype=torch.long), torch.Generator())
    wanted = images.permute(0, 2, 3, 1).numpy()
    assert np.array_equal(image_grid.to_pixels(inputs, transform), wanted)
    assert np.array_equal(image_grid.to_pixels(images), wanted)
    grey = torch.randint(0, 256, (1, 1, 5, 5), dtype=torch.uint8)
    digits = digits_eval(size=5)
    inputs, _ = digits.batch(grey, torch.zeros(1, dtype=torch.long), torch.Generator())
    assert np.array_equal(image_grid.to_pixels(inputs, digits), grey.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy())


def test_without_a_transform_images_are_scaled_only_where_they_must_be():
    unit = torch.tensor([[[[0.0, 0.5, 0.25]]]])
    assert image_grid.to_pixels(unit)[0, 0, :, 0].tolist() == [0, 128, 64]
    wild = torch.tensor([[[[-1.0, 0.0, 3.0, float("nan")]]]])
    assert image_grid.to_pixels(wild)[0, 0, :, 0].tolist() == [0, 64, 255, 0]
    assert image_grid.to_pixels(torch.full((1, 1, 1, 1), float("nan")))[0, 0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("channels", "wide"), [(1, 1), (2, 2), (3, 1), (4, 4), (8, 8), (13, 8)])
def test_other_channels_stand_side_by_side(channels, wide):
    images = torch.rand(2, channels, 6, 5)
    shown = image_grid.to_pixels(images, small_image_eval(size=5) if channels != 3 else None)
    assert shown.shape == (2, 6, 5 * wide, 3)
    if wide > 1:
        assert np.array_equal(shown[0, :, 5:10, 0], images[0, 1].mul(255).round().byte().numpy())


def test_a_grid_has_every_image_once():
    tiles = [np.full((4, 6, 3), value, np.uint8) for value in range(1, 8)]
    drawn = image_grid.grid(tiles)
    for value in range(1, 8):
        assert (drawn == value).all(2).sum() == 24
    assert image_grid.grid(tiles[:1]).shape == (4, 6, 3)


def test_small_images_are_enlarged_and_large_ones_made_smaller():
    assert image_grid.sized(np.zeros((28, 28, 3), np.uint8)).shape == (84, 84, 3)
    assert image_grid.sized(np.zeros((224, 224, 3), np.uint8)).shape == (224, 224, 3)
    assert image_grid.sized(np.zeros((1000, 500, 3), np.uint8)).shape == (256, 128, 3)
    assert image_grid.sized(np.zeros((300, 1200, 3), np.uint8)).shape == (256, 1024, 3)


def framed(drawn, colour):
    return int((drawn == colour).all(2).sum())


def test_wrong_predictions_are_in_a_red_frame_and_right_ones_in_a_green_one():
    inputs = np.zeros((2, 16, 16, 3), np.uint8)
    for targets, right, wrong in (([0, 1], True, False), ([1, 0], False, True), ([0, 0], True, True)):
        found = read(torch.eye(2) * 9, torch.tensor(targets), CROSS)
        drawn = image_grid.predictions(inputs, found, ["cat", "dog"], None)
        assert (framed(drawn, image_grid.RIGHT) > 500, framed(drawn, image_grid.WRONG) > 500) == (right, wrong)


def test_what_is_written_below_an_image():
    told = image_grid._captions
    classes = read(torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]]), torch.tensor([0, 1, -100]), CROSS)
    assert told(classes, ["cat", "dog"]) == [
        (["cat 50%", ""], True),
        (["cat 100%", "is dog"], False),
        (["dog 100%", "is no class"], False),
    ]
    labels = read(torch.tensor([[1.0, -1.0], [1.0, 1.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]]), BCE)
    assert told(labels, ["a", "b"]) == [(["a", "is none"], False), (["a, b", ""], True)]
    numbers = read(torch.tensor([[1.23456], [2.0]]), torch.tensor([1.0, -3.0]), MSE)
    assert told(numbers, []) == [(["1.23", "is 1"], None), (["2", "is -3"], None)]


def test_masks_and_images_stand_beside_their_targets():
    inputs = np.full((1, 64, 64, 3), 9, np.uint8)
    masks = read(torch.eye(2).repeat(1, 32, 32)[None].expand(1, 2, 64, 64) * 1.0, torch.full((1, 64, 64), 255), CROSS)
    assert image_grid.predictions(inputs, masks, ["a", "b"], None).shape == (64, 64 * 3 + 2, 3)
    made = read(torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64), MSE)
    drawn = image_grid.predictions(inputs, made, [], None)
    assert [int(drawn[0, column, 0]) for column in (0, 66, 131)] == [9, 0, 255]


def test_each_class_of_a_mask_has_a_colour_of_its_own_and_no_class_is_white():
    drawn = image_grid.coloured(torch.tensor([[[0, 1, 2, 20, 255, -1]]]), 21)[0, 0]
    assert drawn[0].tolist() == [0, 0, 0]
    assert drawn[4].tolist() == drawn[5].tolist() == [255, 255, 255]
    assert len({tuple(one) for one in drawn.tolist()}) == 5


def test_a_long_name_is_cut_to_fit():
    letters = image_grid.font(12)
    cut = image_grid.shortened("a very long name of a class", letters, 80)
    assert cut.endswith("…")
    assert letters.getlength(cut) <= 80
    assert image_grid.shortened("cat", letters, 80) == "cat"


# --- graphs


def names(nodes):
    return [node.name for node in nodes]


class Twice(nn.Module):
    """One layer called twice, a skip, an operation of its own, an input by keyword, and outputs in a dict."""

    def __init__(self):
        super().__init__()
        self.layer, self.blocks = nn.Linear(4, 4), nn.ModuleList([nn.ReLU(), nn.Sigmoid()])

    def forward(self, x, *, scale):
        y = self.layer(self.layer(x)) + x
        if float(y.sum()) > -1e9:  # which a tracer would not follow
            y = self.blocks[0](y)
        y[:, 0] = 0
        return {"out": y * scale, "loss": [y.sum()]}


def test_the_graph_shows_what_was_run():
    nodes = record(Twice(), Call((torch.ones(2, 4),), {"scale": torch.ones(())}))
    assert names(nodes) == [
        "input.0",
        "input.1",
        "layer[Linear]/weight",
        "layer[Linear]/bias",
        "layer[Linear]/linear",
        "layer[Linear].1/linear",
        "add",
        "sum",
        "blocks/0[ReLU]/relu",
        "setitem",
        "mul",
        "sum.1",
        "output.out",
        "output.loss",
    ]
    by = {node.name: node for node in nodes}
    assert by["layer[Linear].1/linear"].inputs == ["layer[Linear]/linear", "layer[Linear]/weight", "layer[Linear]/bias"]
    assert by["add"].inputs == ["layer[Linear].1/linear", "input.0"]
    assert by["mul"].inputs == ["setitem", "input.1"]
    assert by["output.out"].shapes == [(2, 4)]
    assert by["layer[Linear]/linear"].note == "in_features=4, out_features=4, bias=True"


@pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")
def test_what_cannot_be_seen_into_is_one_node():
    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = torch.jit.script(nn.Linear(4, 3))

        def forward(self, x):
            return self.inside(x)

    nodes = record(nn.Sequential(Around(), nn.ReLU()), Call((torch.ones(2, 4),), {}))
    assert [(node.name, node.inputs) for node in nodes[1:3]] == [
        ("0[Around]/Around", ["input"]),
        ("1[ReLU]/relu", ["0[Around]/Around"]),
    ]
    whole = record(torch.jit.script(nn.Linear(4, 3)), Call((torch.ones(2, 4),), {}))
    assert [node.inputs for node in whole] == [[], ["input"], ["RecursiveScriptModule"]]


def test_recording_leaves_no_trace():
    net = nn.Sequential(
        nn.Linear(4, 3),
        nn.BatchNorm1d(3),
        nn.Dropout(0.5),
        cvkit.models.create("mlp", num_classes=2, in_channels=3, size=1),
    )
    net[1].eval()
    before, modes = copy.deepcopy(net.state_dict()), [module.training for module in net.modules()]
    random = torch.get_rng_state()
    record(net[:3], Call((torch.randn(2, 4, generator=torch.Generator()),), {}))
    with undisturbed(net):
        net[1].running_mean.add_(1)
        torch.rand(3)
        assert not net.training
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_a_failing_model_leaves_no_hook_behind():
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(4, 3))
    with pytest.raises(RuntimeError):
        record(net, Call((torch.ones(2, 4),), {}))
    assert net.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_the_first_sample_is_cut_out_of_anything():
    call = Call(
        (torch.ones(5, 2), [torch.ones(5), torch.ones(3)], {"a": torch.ones(5, 1)}), {"b": torch.ones(()), "c": 5}
    )
    cut = first_sample(call)
    assert [cut.args[0].shape, cut.args[1][0].shape, cut.args[1][1].shape, cut.args[2]["a"].shape] == [
        (1, 2),
        (1,),
        (3,),
        (1, 1),
    ]
    assert (cut.kwargs["b"].shape, cut.kwargs["c"]) == ((), 5)
    assert first_sample(Call((3,), {})) == Call((3,), {})


def check_graph(name, monkeypatch):
    """Records a model without values, so that the largest takes no memory."""
    builder = inspect.signature(builders.get(name)).parameters if name in builders.names() else {}
    size = 32 if builder else 299 if name == "inception_v3" else 224
    options = {"size": size} if "size" in builder else {}
    # RegNet computes its widths with tensors
    widths = regnet.BlockParams.from_init_params

    def on_the_host(*args, **kwargs):
        with torch.device("cpu"):
            return widths(*args, **kwargs)

    monkeypatch.setattr(regnet.BlockParams, "from_init_params", on_the_host)
    with torch.device("meta"):
        net = cvkit.models.create(name, num_classes=5, **options)
        nodes = record(net, Call((torch.empty(2, 3, size, size),), {}))
    assert nodes[0].kind == "Input"
    assert nodes[-1].kind == "Output"
    known = set()
    for node in nodes:  # everything comes from what was there before, and all parameters are there
        assert set(node.inputs) <= known, node
        assert node.name not in known
        known.add(node.name)
    reached, todo = set(), [nodes[-1].name]
    by = {node.name: node for node in nodes}
    while todo:
        for source in by[todo.pop()].inputs:
            if source not in reached:
                reached.add(source)
                todo.append(source)
    assert nodes[0].name in reached, "nothing leads from the input to the output"
    assert len(to_proto(nodes).node) == len(nodes)


@pytest.mark.parametrize("name", [*sorted(builders.names()), "resnet18", "vit_b_16"])
def test_every_built_in_model_has_a_graph(name, monkeypatch):
    check_graph(name, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(cvkit.models.names()) - set(builders.names())))
def test_every_model_of_torchvision_has_a_graph(name, monkeypatch):
    check_graph(name, monkeypatch)


# --- the projector


def test_the_last_layers_input_is_found_and_feature_maps_are_averaged():
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.ReLU(), nn.Linear(7, 2), nn.Softmax(1))
    images = torch.rand(3, 3, 2, 2)
    made = projector.penultimate(dense, images, Runtime("cpu"))
    assert torch.equal(made, dense[:3](images).detach())
    maps = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))
    assert torch.allclose(projector.penultimate(maps, images, Runtime("cpu")), maps[0](images).mean((2, 3)))
    with pytest.raises(ValueError, match=r"^no layer with weights takes one row for each sample$"):
        projector.penultimate(nn.ReLU(), images, Runtime("cpu"))


def test_what_is_written_can_be_read_and_replaces_what_was_there(tmp_path):
    for count in (3, 5):
        rows = [["a", "b", "wrong"]] * count
        tiles = np.full((count, 4, 4, 3), 7, np.uint8)
        made = projector.Embedding(torch.ones(count, 2), ["label", "prediction", "answer"], rows, tiles)
        projector.write(tmp_path, made)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "metadata.tsv",
        "projector",
        "projector_config.pbtxt",
        "sprite.png",
        "tensors.tsv",
    ]
    assert (tmp_path / "projector/tensors.tsv").read_text() == "1\t1\n" * 5
    assert len((tmp_path / "projector/metadata.tsv").read_text().splitlines()) == 6


def test_sprites_are_as_small_as_a_browser_needs_them():
    pixels = np.zeros((2, 100, 80, 3), np.uint8)
    assert projector.sprites(pixels, 100).shape == (2, 64, 64, 3)
    assert projector.sprites(pixels, 40_000).shape == (2, 40, 40, 3)
    assert projector.sprites(np.zeros((2, 28, 28, 3), np.uint8), 100).shape == (2, 28, 28, 3)
