"""What is frozen stays as it is, statistics too, and unfreezing undoes it for the whole or for a part."""

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import cvkit
from cvkit import models
from cvkit.errors import ArgumentError, ModelError, UnknownNameError
from cvkit.module_state import train_mode


def network():
    """Four blocks of convolution, norm and dropout, and a head."""
    torch.manual_seed(0)
    blocks = [
        nn.Sequential(nn.Conv2d(3 if i == 0 else 4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.1))
        for i in range(4)
    ]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def batches(count=3):
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(4, 3, 6, 6, generator=generator), torch.randint(0, 2, (4,), generator=generator))
        for _ in range(count)
    ]


def fit(model, **options):
    options = {
        "epochs": 2,
        "lr": 0.1,
        "seed": 0,
        "progress": False,
        "preflight": False,
        "optimizer": "momentum",
    } | options
    return cvkit.fit(model, batches(), **options)


def moved(model, before):
    """The top-level parts in which anything has changed, statistics too."""
    return {key.partition(".")[0] for key, value in model.state_dict().items() if not torch.equal(value, before[key])}


def copied(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def trained(model):
    return {name.partition(".")[0] for name, p in model.named_parameters() if p.requires_grad}


def marked(model):
    return {name for name, module in model.named_modules() if getattr(module, "cvkit_frozen", False)}


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "adamw", "adagrad", "rmsprop"])
def test_fit_moves_nothing_that_is_frozen(optimizer):
    model = models.freeze(network())
    before = copied(model)
    fit(model, optimizer=optimizer)
    assert moved(model, before) == {"6"}


def test_decay_and_momentum_of_a_factory_do_not_reach_what_is_frozen():
    model = models.freeze(network())
    before = copied(model)
    fit(model, lr=1e-3, optimizer=lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.5))
    assert moved(model, before) == {"6"}


def test_what_is_kept_is_trained_with_its_statistics():
    model = models.freeze(network(), keep=["3", "6"])
    before = copied(model)
    fit(model)
    assert moved(model, before) == {"3", "6"}


def test_one_path_need_not_be_a_list_and_a_parameter_can_be_kept():
    assert trained(models.freeze(network(), keep="3")) == {"3"}
    model = models.freeze(network(), keep=["0.0.bias"])
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["0.0.bias"]


def test_a_kept_norm_without_weights_goes_on_counting():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False), nn.Flatten(), nn.Linear(144, 2))
    models.freeze(model, keep=["1", "3"])
    before = copied(model)
    fit(model)
    assert moved(model, before) == {"1", "3"}
    models.unfreeze(models.freeze(model), "1")
    assert not hasattr(model[1], "cvkit_frozen")


def test_freezing_anew_takes_back_what_was_frozen_before():
    model = models.freeze(network())
    models.freeze(model, keep=["0"])
    assert trained(model) == {"0"}
    assert model[0][1].training
    assert marked(model) == {"1", "1.0", "1.1", "2", "2.0", "2.1", "3", "3.0", "3.1", "6"}


def test_unfreezing_undoes_it():
    model = models.unfreeze(models.freeze(network()))
    assert trained(model) == {"0", "1", "2", "3", "6"}
    assert all(module.training and not hasattr(module, "cvkit_frozen") for module in model.modules())


def test_unfreezing_by_name_trains_that_part_with_its_statistics_and_dropout():
    model = models.unfreeze(models.freeze(network()), "2")
    assert trained(model) == {"2", "6"}
    train_mode(model)
    assert {name for name, module in model.named_modules() if not module.training} == {
        f"{part}{layer}" for part in "013" for layer in ("", ".0", ".1", ".2", ".3")
    }
    before = copied(model)
    fit(model)
    assert moved(model, before) == {"2", "6"}


def test_several_names_and_a_parameter_are_unfrozen():
    model = models.unfreeze(models.freeze(network()), ["1", "3.0.weight"])
    assert [name for name, p in model.named_parameters() if p.requires_grad] == [
        *("1.0.weight", "1.0.bias", "1.1.weight", "1.1.bias", "3.0.weight", "6.weight", "6.bias")
    ]
    assert marked(model) == {"0", "0.0", "0.1", "2", "2.0", "2.1", "3.1"}


def test_it_takes_effect_in_the_middle_of_training():
    model = network().train()
    models.unfreeze(models.freeze(model), "3")
    assert all(module.training for module in model[3].modules())
    assert not any(module.training for module in model[2].modules())
    models.unfreeze(model, "2.1")
    assert [layer.training for layer in model[2]] == [False, True, True, True]


@settings(max_examples=25)
@given(st.lists(st.sampled_from(["0", "1", "2", "3", "6", "2.0", "1.1"]), max_size=5))
def test_unfreezing_parts_is_freezing_without_them(names):
    one = models.freeze(network())
    for name in names:
        models.unfreeze(one, name)
    other = models.freeze(network(), keep=["6", *names])
    for model in (one, other):
        train_mode(model)
    assert [p.requires_grad for p in one.parameters()] == [p.requires_grad for p in other.parameters()]
    assert marked(one) == marked(other)
    assert [m.training for m in one.modules()] == [m.training for m in other.modules()]


@pytest.mark.parametrize(
    ("depth", "names"), [(1, {"6"}), (2, {"3", "6"}), (4, {"1", "2", "3", "6"}), (5, None), (99, None)]
)
def test_unfreezing_by_depth_counts_blocks_from_the_head(depth, names):
    model = models.unfreeze(models.freeze(network()), depth=depth)
    assert trained(model) == (names or {"0", "1", "2", "3", "6"})


def theirs(name, **options):
    with torch.device("meta"):
        return torchvision.models.get_model(name, **options)


BLOCKS = {
    "resnet18": [("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",), ("fc",)],
    "alexnet": [(f"features.{i}",) for i in (0, 3, 6, 8, 10)] + [(f"classifier.{i}",) for i in (1, 4, 6)],
    "vgg11_bn": [(f"features.{i}", f"features.{i + 1}") for i in (0, 4, 8, 11, 15, 18, 22, 25)]
    + [(f"classifier.{i}",) for i in (0, 3, 6)],
    "convnext_tiny": [
        *[(f"features.{i}",) for i in range(7)],
        ("features.7", "classifier.0"),
        ("classifier.2",),
    ],
    "swin_t": [*[(f"features.{i}",) for i in range(7)], ("features.7", "norm"), ("head",)],
    "vit_b_32": [
        ("conv_proj",),
        *[(f"encoder.layers.encoder_layer_{i}",) for i in range(11)],
        ("encoder.layers.encoder_layer_11", "encoder.ln"),
        ("heads.head",),
    ],
    "maxvit_t": [
        ("stem",),
        ("blocks.0",),
        ("blocks.1",),
        ("blocks.2",),
        ("blocks.3", "classifier.2"),
        ("classifier.3",),
        ("classifier.5",),
    ],
    "densenet121": [
        ("features.conv0", "features.norm0"),
        *[(f"features.{kind}{i}",) for i in (1, 2, 3) for kind in ("denseblock", "transition")],
        ("features.denseblock4", "features.norm5"),
        ("classifier",),
    ],
    "squeezenet1_1": [(f"features.{i}",) for i in (0, 3, 4, 6, 7, 9, 10, 11, 12)] + [("classifier.1",)],
}


@pytest.mark.parametrize("name", BLOCKS)
def test_the_blocks_of_a_family_are_its_stages(name):
    assert models.find_blocks(theirs(name)) == BLOCKS[name]


def test_auxiliary_classifiers_go_with_the_head():
    model = theirs("googlenet", aux_logits=True, init_weights=False)
    assert models.find_blocks(model)[-2:] == [("inception5b",), ("fc", "aux1", "aux2")]
    models.freeze(model)
    assert {name for name, p in model.named_parameters() if p.requires_grad and name.endswith("weight")} == {
        "fc.weight",
        "aux1.fc2.weight",
        "aux2.fc2.weight",
    }


def test_a_row_of_blocks_between_a_stem_and_a_last_layer_is_looked_into():
    row = nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(4)])
    model = nn.Sequential(
        nn.Linear(4, 4), nn.Sequential(nn.BatchNorm1d(4), nn.Identity()), row, nn.Linear(4, 4), nn.Linear(4, 2)
    )
    assert models.find_blocks(model) == [("0", "1"), ("2.0",), ("2.1",), ("2.2",), ("2.3",), ("3",), ("4",)]


def test_three_stages_stay_whole():
    def stage(wide):
        return nn.Sequential(*[nn.Linear(wide, wide) for _ in range(3)])

    model = nn.Sequential(stage(2), stage(4), stage(8), nn.Linear(8, 2))
    assert models.find_blocks(model) == [("0",), ("1",), ("2",), ("3",)]


def test_the_second_head_of_a_distilled_model_goes_with_the_first():
    class Distilled(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.Sequential(*[nn.Linear(4, 4) for _ in range(4)])
            self.head, self.head_dist = nn.Linear(4, 5), nn.Linear(4, 5)

        def forward(self, x):
            x = self.blocks(x)
            return (self.head(x) + self.head_dist(x)) / 2

    model = Distilled()
    assert models.find_blocks(model) == [*[(f"blocks.{i}",) for i in range(4)], ("head_dist", "head")]
    assert trained(models.freeze(model)) == {"head", "head_dist"}
    assert models.replace_head(model, 2)(torch.randn(3, 4)).shape == (3, 2)


def test_a_wrapper_or_a_backbone_is_looked_into():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = theirs("resnet18")

    class Headed(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = theirs("resnet18")
            self.backbone.fc = nn.Identity()
            self.head = nn.Sequential(nn.LayerNorm(512), nn.Linear(512, 2))

    assert models.find_blocks(Wrapped())[-2:] == [("net.layer4",), ("net.fc",)]
    assert models.find_blocks(Headed()) == [
        ("backbone.conv1", "backbone.bn1"),
        *[(f"backbone.layer{i}",) for i in (1, 2, 3)],
        ("backbone.layer4", "head.0"),
        ("head.1",),
    ]


@pytest.mark.parametrize("name", [*BLOCKS, "fcn_resnet50", "lraspp_mobilenet_v3_large"])
def test_every_parameter_is_in_one_block_or_outside_all(name):
    options = {"weights_backbone": None} if "_resnet" in name or "lraspp" in name else {}
    model = theirs(name, **options)
    paths = [path for block in models.find_blocks(model) for path in block]
    for parameter, _ in model.named_parameters():
        count = sum(parameter.startswith(f"{path}.") for path in paths)
        assert count == 1 or parameter in ("class_token", "encoder.pos_embedding")


def test_unfreezing_all_blocks_reaches_what_is_outside_them():
    model = models.freeze(theirs("vit_b_32"))
    models.unfreeze(model, depth=13)
    assert not model.class_token.requires_grad
    models.unfreeze(model, depth=14)
    assert model.class_token.requires_grad
    assert model.encoder.pos_embedding.requires_grad


def test_a_model_without_a_head_has_blocks_and_is_frozen_by_name():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.LayerNorm(2))
    assert models.find_blocks(model) == [("0",), ("1", "2")]
    with pytest.raises(ModelError, match="no head found in Sequential"):
        models.freeze(model)
    assert trained(models.freeze(model, keep=["1"])) == {"1"}
    assert models.find_blocks(nn.Linear(2, 2)) == models.find_blocks(nn.ReLU()) == [("",)]


def test_wrong_names_and_depths_are_refused():
    model = network()
    with pytest.raises(UnknownNameError, match=r"unknown submodule of Sequential '3\.9'"):
        models.unfreeze(model, "3.9")
    with pytest.raises(UnknownNameError, match=r"unknown submodule of Sequential '3\.9'"):
        models.freeze(model, keep=["3.9"])
    assert trained(model) == {"0", "1", "2", "3", "6"}
    with pytest.raises(ArgumentError) as caught:
        models.unfreeze(model, "3", depth=2)
    assert str(caught.value) == (
        "unfreeze got both a name and a depth\n  got: name='3', depth=2\n"
        "  expected: one of them, or neither for the whole model\n  fix: call it twice"
    )
    for depth in (0, True, 1.0):
        with pytest.raises(ArgumentError, match=r"^unfreeze: depth cannot be used\n  got: "):
            models.unfreeze(model, depth=depth)
