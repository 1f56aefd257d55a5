"""The summary: shapes as traced, numbers as published, nothing changed by looking, and how far a failing pass came."""

import json

import pytest
import torch
import torchvision
from torch import nn

from cvkit import models
from cvkit.errors import ArgumentError

PUBLISHED = {
    "alexnet": 224,
    "convnext_tiny": 224,
    "densenet121": 224,
    "efficientnet_b0": 224,
    "inception_v3": 299,
    "mobilenet_v2": 224,
    "mobilenet_v3_small": 224,
    "resnet18": 224,
    "shufflenet_v2_x1_0": 224,
    "squeezenet1_1": 224,
    "swin_t": 224,
    "vgg16": 224,
    "vit_b_16": 224,
}
"""Models of torchvision's and the side of the images that their operations are published for."""


def theirs(name):
    options = {"init_weights": False} if name == "inception_v3" else {}
    with torch.device("meta"):
        return torchvision.models.get_model(name, **options)


class Block(nn.Module):
    """Calls its norm twice, and one layer never."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.spare = nn.Linear(7, 7)
        self.scale = nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x):
        return self.norm(self.norm(self.conv(x))) * self.scale


def network():
    torch.manual_seed(0)
    return nn.Sequential(Block(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 6 * 6, 2))


def by_name(found):
    return {layer.name: layer for layer in found.layers}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_multiply_adds_are_those_that_torchvision_publishes(name):
    published = next(iter(torchvision.models.get_model_weights(name))).meta
    found = models.summary(theirs(name), (3, PUBLISHED[name], PUBLISHED[name]))
    assert found.multiply_adds / 1e9 == pytest.approx(published["_ops"], abs=6e-4)
    assert found.parameters == published["num_params"]
    assert found.output_shape == (1, 1000)
    assert found.error is None
    assert sum(layer.parameters for layer in found.layers) == found.parameters
    assert sum(layer.multiply_adds for layer in found.layers) == found.multiply_adds


@pytest.mark.parametrize(
    ("layer", "size", "expected"),
    [
        (nn.Linear(5, 7), (5,), 5 * 7),
        (nn.Linear(5, 7), (3, 5), 3 * 5 * 7),
        (nn.Conv2d(4, 6, 3, padding=1), (4, 8, 8), 8 * 8 * 6 * 4 * 9),
        (nn.Conv2d(4, 6, 3, stride=2, groups=2), (4, 9, 9), 4 * 4 * 6 * 2 * 9),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), (4, 5, 5), 5 * 5 * 4 * 6 * 4),
        (nn.Conv1d(4, 6, 3), (4, 10), 8 * 6 * 4 * 3),
        (nn.MultiheadAttention(8, 2, batch_first=True), [(5, 8)] * 3, 5 * 8 * 32 + 2 * 5 * 5 * 8),
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (5, 8), 5 * 8 * 32 + 2 * 5 * 5 * 8 + 2 * 5 * 8 * 16),
        (nn.BatchNorm2d(4), (4, 8, 8), 0),
    ],
)
def test_multiply_adds_are_those_by_hand(layer, size, expected):
    assert models.summary(layer, size).multiply_adds == expected
    batch = models.summary(layer, size, batch_size=3)
    assert (batch.multiply_adds, batch.input_shape[0][0]) == (3 * expected, 3)


def test_layers_are_told_in_the_order_of_their_calls_with_shapes_and_numbers():
    found = models.summary(network(), (3, 6, 6))
    assert [layer.name for layer in found.layers] == ["", "0", "0.conv", "0.norm", "1", "2", "3", "0.spare"]
    assert found.input_shape == ((1, 3, 6, 6),)
    layers = by_name(found)
    assert (layers["0.conv"].kind, layers["0.conv"].level) == ("Conv2d", 2)
    assert (layers["0.conv"].input_shape, layers["0.conv"].output_shape) == ((1, 3, 6, 6), (1, 4, 6, 6))
    assert layers["0.conv"].multiply_adds == 36 * 4 * 3 * 9
    assert layers["0.norm"].calls == 2
    assert (layers["0"].parameters, layers["0"].multiply_adds) == (4, 0)  # its scale
    assert (layers["0.spare"].calls, layers["0.spare"].parameters, layers["0.spare"].output_shape) == (0, 56, None)
    assert found.parameters == sum(p.numel() for p in network().parameters())


def test_frozen_parameters_are_told_apart():
    model = models.freeze(network())
    found = models.summary(model, (3, 6, 6))
    assert (found.parameters, found.trainable) == (470, 290)
    assert by_name(found)["0.conv"].trainable == 0


def test_the_table_is_this():
    found = models.summary(models.freeze(network()), (3, 6, 6))
    assert (
        str(found)
        == repr(found)
        == (
            "layer       kind            input         output        parameters  multiply-adds\n"
            "─────────────────────────────────────────────────────────────────────────────────\n"
            "Sequential  Sequential      (1, 3, 6, 6)  (1, 2)\n"
            "  0         Block           (1, 3, 6, 6)  (1, 4, 6, 6)    4 frozen\n"
            "    conv    Conv2d          (1, 3, 6, 6)  (1, 4, 6, 6)  112 frozen          3,888\n"
            "    norm    BatchNorm2d ×2  (1, 4, 6, 6)  (1, 4, 6, 6)    8 frozen\n"
            "  1         Dropout         (1, 4, 6, 6)  (1, 4, 6, 6)\n"
            "  2         Flatten         (1, 4, 6, 6)  (1, 144)\n"
            "  3         Linear          (1, 144)      (1, 2)               290            288\n"
            "    spare   Linear                        not called     56 frozen\n"
            "─────────────────────────────────────────────────────────────────────────────────\n"
            "470 parameters, 290 trainable, 180 frozen; 4,176 multiply-adds"
        )
    )


def test_a_table_of_some_depth_counts_what_is_below():
    lines = models.summary(network(), (3, 6, 6)).table(depth=1).splitlines()
    assert lines[3].split() == ["0", "Block", "(1,", "3,", "6,", "6)", "(1,", "4,", "6,", "6)", "180", "3,888"]
    assert not any(line.startswith("    ") for line in lines)
    whole = models.summary(network(), (3, 6, 6)).table(depth=0).splitlines()
    assert whole[2].split()[-2:] == ["470", "4,176"]
    for depth in (-1, True, 1.5):
        with pytest.raises(ArgumentError, match=r"^table: depth cannot be used"):
            models.summary(network(), (3, 6, 6)).table(depth=depth)


def test_it_is_plain_data_too():
    found = models.summary(network(), (3, 6, 6)).to_dict()
    assert json.loads(json.dumps(found))["layers"][2]["name"] == "0.conv"


@pytest.mark.parametrize("size", [(3, 6, 6), (3, 5, 5)], ids=["passes", "fails"])
@pytest.mark.parametrize("training", [True, False])
def test_looking_changes_nothing(size, training):
    model = network().train(training)
    model[0].norm.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    weights, random = list(model.parameters()), torch.get_rng_state()
    fused = torch.backends.mha.get_fastpath_enabled()
    models.summary(model, size)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(one is other for one, other in zip(model.parameters(), weights, strict=True))
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.backends.mha.get_fastpath_enabled() is fused
    assert all(p.grad is None for p in model.parameters())


def test_a_pass_that_fails_is_shown_up_to_where():
    found = models.summary(network(), (3, 5, 5))
    assert found.failed_layer == "3"
    assert found.error.startswith("RuntimeError: ")
    assert found.output_shape is None
    layers = by_name(found)
    assert layers["2"].output_shape == (1, 100)
    assert (layers["3"].input_shape, layers["3"].output_shape, layers["3"].failed) == ((1, 100), None, True)
    assert found.multiply_adds == 25 * 4 * 3 * 9
    lines = str(found).splitlines()
    assert "unfinished" in lines[2]
    assert "FAILED" in next(line for line in lines if line.startswith("  3"))
    assert lines[-1].startswith("the forward pass failed in 3: RuntimeError: ")


def test_a_model_that_fails_by_itself_is_named():
    class Wrong(nn.Module):
        def forward(self, x):
            raise ValueError("not today")

    found = models.summary(Wrong(), (3,))
    assert (found.failed_layer, found.error) == ("", "ValueError: not today")
    assert str(found).endswith("the forward pass failed in Wrong: ValueError: not today")


def test_a_model_that_needs_values_is_run_for_real_over_copies():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 4)
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x):
            self.seen += 1
            x = self.layer(x) + torch.rand(4)
            return x[:, : 2 if bool(x.sum() < 1e9) else 3]

    model = Counts()
    random = torch.get_rng_state()
    found = models.summary(model, (3,))
    assert (found.output_shape, found.multiply_adds, found.error) == ((1, 2), 12, None)
    assert model.seen == 0
    assert torch.equal(torch.get_rng_state(), random)


def test_several_inputs_indices_and_nested_outputs_are_shown():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.image, self.word = nn.Linear(3, 4), nn.Embedding(5, 4)

        def forward(self, image, word):
            return {"sum": self.image(image)[:, None] + self.word(word), "parts": (image, word)}

    found = models.summary(Both(), [(3,), torch.zeros(1, 6, dtype=torch.long)])
    assert found.input_shape == ((1, 3), (1, 6))
    assert found.output_shape == {"sum": (1, 6, 4), "parts": ((1, 3), (1, 6))}
    assert "(1, 3), (1, 6)" in str(found)
    assert "sum: (1, 6, 4), parts: (1, 3), (1, 6)" in str(found)


def test_shared_weights_are_counted_once():
    layer = nn.Linear(4, 4)
    found = models.summary(nn.Sequential(layer, nn.ReLU(), layer), (4,))
    assert (found.parameters, found.multiply_adds) == (20, 32)
    tied = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    tied[1].weight = tied[0].weight
    assert [one.parameters for one in models.summary(tied, (4,)).layers] == [0, 16, 0]


def test_wrapped_models_are_looked_into_and_precision_is_kept():
    model = network().double()
    assert models.summary(nn.DataParallel(model), (3, 6, 6)).model == "Sequential"
    assert models.summary(torch.compile(model), (3, 6, 6)).error is None


@pytest.mark.parametrize("size", [5, (3, 0, 4), (3, "6"), "336", [(3, 6), 4], None])
def test_what_is_no_shape_is_refused(size):
    with pytest.raises(ArgumentError) as caught:
        models.summary(network(), size)
    assert str(caught.value) == (
        f"summary: input_size cannot be used\n  got: {size!r}, batch_size=1\n"
        "  expected: the shape of one sample, or a list of shapes\n"
        "  fix: pass e.g. (3, 224, 224), without the batch"
    )
    with pytest.raises(ArgumentError, match=r"^summary cannot look at this"):
        models.summary(network, (3, 6, 6))
