"""torchvision's models: their stems, their weights, and the segmentation networks among them."""

import re
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import ResNet18_Weights, ResNet50_Weights, WeightsEnum
from torchvision.models import segmentation as theirs

import cvkit
from cvkit import models
from cvkit.errors import ArgumentError, ModelError, UnknownNameError
from cvkit.models.adapt import adapted
from cvkit.models.torchvision import Segmenter

SEGMENTATION = ["deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50", "fcn_resnet50", "lraspp_mobilenet_v3_large"]


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A directory that stands for torch's cache of downloads, and no network."""
    (tmp_path / "checkpoints").mkdir()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def offline(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    return tmp_path / "checkpoints"


@pytest.fixture
def serve(monkeypatch):
    """Makes torchvision's entries give the weights of a model."""

    def give(state):
        monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *args, **kwargs: dict(state))

    return give


# --- stems


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("stem", ["auto", "small"])
def test_resnet18_takes_three_classes_any_channels_and_a_small_stem(channels, stem):
    model = models.create("resnet18", num_classes=3, in_channels=channels, stem=stem)
    assert model(torch.randn(2, channels, 32, 32)).shape == (2, 3)
    assert isinstance(model.maxpool, nn.Identity) is (stem == "small")
    again = models.from_config(model.cvkit_config)
    again.load_state_dict(model.state_dict())


def sides(model):
    """The width of what each convolution makes of an image of 64×64."""
    seen = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, inputs, out: seen.append(out.shape[-1]))
    assert model(torch.empty(2, 1, 64, 64)).shape == (2, 3)
    return seen


STEMS = {
    "resnet18": 4,
    "densenet121": 4,
    "googlenet": 4,
    "shufflenet_v2_x0_5": 4,
    "squeezenet1_0": 4,
    "squeezenet1_1": 4,
    "regnet_x_400mf": 2,
    "mobilenet_v2": 2,
    "mobilenet_v3_small": 2,
    "efficientnet_b0": 2,
    "mnasnet0_5": 2,
}


@pytest.mark.parametrize("name", STEMS)
def test_a_small_stem_leaves_more_of_a_small_image(name):
    sizes = {}
    for stem in ("auto", "small"):
        with torch.device("cpu" if name.startswith("regnet") else "meta"):  # torchvision builds no RegNet on meta
            model = models.create(name, num_classes=3, in_channels=1, stem=stem)
            sizes[stem] = sides(model)
    assert sizes["small"][0] == 64
    assert 1 <= sizes["small"][-1] / (STEMS[name] * sizes["auto"][-1]) < 2


def test_a_stem_that_a_model_does_not_have_is_an_error_that_says_which_have():
    for name in ("vgg11", "vit_b_16", "convnext_tiny", "lenet5"):
        with pytest.raises(ArgumentError) as caught, torch.device("meta"):
            models.create(name, num_classes=2, stem="small")
        assert str(caught.value) == (
            f"the model '{name}' has no small stem\n  got: stem='small'\n"
            "  expected: torchvision's ResNet, ResNeXt, Wide ResNet, DenseNet, GoogLeNet, ShuffleNet, SqueezeNet, RegNet, "
            "MobileNet, MNASNet, EfficientNet or a segmentation network on one of these; resnet and resnet9 are made for small "
            "images\n  fix: leave stem out"
        )


def test_a_small_stem_keeps_what_is_trained_but_a_larger_kernel(hub):
    torch.save(torchvision.models.resnet18().state_dict(), hub / "resnet18-f37072fd.pth")
    model = models.create("resnet18", num_classes=1000, stem="small", pretrained=True)
    source = torch.load(hub / "resnet18-f37072fd.pth", weights_only=True)
    same = {key for key, value in model.state_dict().items() if torch.equal(value, source[key])}
    assert set(source) - same == {"conv1.weight"}
    own = hub / "own.pt"
    torch.save(model.state_dict(), own)
    again = models.create("resnet18", num_classes=1000, stem="small", pretrained=own)
    assert torch.equal(again.conv1.weight, model.conv1.weight)


# --- weights


def test_weights_that_cannot_be_downloaded_say_where_to_place_the_file(hub):
    with pytest.raises(ModelError) as caught:
        models.create("resnet18", num_classes=3, pretrained=True)
    assert str(caught.value) == (
        "the pretrained weights of 'resnet18' are not to be had\n"
        "  got: URLError: <urlopen error no network>\n"
        f"  expected: a connection to download them, or a sound file {hub}/resnet18-f37072fd.pth\n"
        "  fix: download https://download.pytorch.org/models/resnet18-f37072fd.pth elsewhere and place it there"
    )


@pytest.mark.parametrize("pretrained", [True, ResNet18_Weights.IMAGENET1K_V1])
def test_pretrained_weights_get_a_new_head_and_another_input(hub, pretrained):
    source = torchvision.models.resnet18()
    torch.save(source.state_dict(), hub / "resnet18-f37072fd.pth")
    model = models.create("resnet18", num_classes=3, in_channels=1, pretrained=pretrained)
    assert model.fc.out_features == 3
    assert torch.equal(model.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    grey = torch.randn(1, 1, 16, 16)
    assert torch.allclose(model.conv1(grey), source.conv1(grey.expand(1, 3, 16, 16)), atol=1e-5)
    assert "pretrained" not in model.cvkit_config


def test_a_downloaded_file_that_would_run_code_is_refused_and_runs_nothing(hub, tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"fc.weight": Payload()}, hub / "resnet18-f37072fd.pth")
    with pytest.raises(ModelError, match="the pretrained weights of 'resnet18' are not to be had"):
        models.create("resnet18", num_classes=3, pretrained=True)
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_model_are_refused_with_those_that_there_are():
    with pytest.raises(ArgumentError) as caught:
        models.create("resnet18", num_classes=3, pretrained=ResNet50_Weights.IMAGENET1K_V2)
    assert str(caught.value) == (
        "create('resnet18'): pretrained cannot be used\n  got: ResNet50_Weights.IMAGENET1K_V2\n"
        "  expected: True, the path of a file, or one of ResNet18_Weights.IMAGENET1K_V1\n"
        "  fix: pretrained=True takes the best of them"
    )


def test_torchvisions_own_names_for_weights_are_answered_with_ours():
    with pytest.raises(ArgumentError, match=r"create\('resnet18'\): weights are not named like that here"):
        models.create("resnet18", num_classes=3, weights="DEFAULT")


def test_wrong_arguments_are_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'zero_init_residual'"):
        models.create("resnet18", num_classes=2, zero_init_residul=True)
    with pytest.raises(UnknownNameError, match="did you mean 'stochastic_depth_prob'"):
        models.create("efficientnet_b0", num_classes=2, stochastic_depth_probe=0.1)
    with pytest.raises(UnknownNameError, match=r"unknown argument of the model 'regnet_x_400mf': 'no_such'"):
        models.create("regnet_x_400mf", num_classes=2, no_such=1)
    with pytest.raises(UnknownNameError, match="did you mean 'aux_loss'"):
        models.create("fcn_resnet50", num_classes=2, auxloss=True)
    with pytest.raises(UnknownNameError, match="unknown argument of the model 'lraspp_mobilenet_v3_large': 'aux_loss'"):
        models.create("lraspp_mobilenet_v3_large", num_classes=2, aux_loss=True)


def test_densenets_old_names_of_layers_are_understood(tmp_path):
    source = torchvision.models.densenet121(num_classes=4).state_dict()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key): value for key, value in source.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "densenet.pth")
    model = models.create("densenet121", num_classes=3, pretrained=tmp_path / "densenet.pth")
    name = "features.denseblock4.denselayer16.conv2.weight"
    assert torch.equal(model.state_dict()[name], source[name])


def test_a_vision_transformer_is_as_large_as_its_weights_say(serve):
    with torch.device("meta"):
        source = torchvision.models.vit_b_16(image_size=384).state_dict()
    serve({key: torch.zeros(value.shape) for key, value in source.items()})
    weights = torchvision.models.ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1
    model = models.create("vit_b_16", num_classes=3, pretrained=weights)
    assert model.cvkit_config == {"name": "vit_b_16", "num_classes": 3, "in_channels": 3, "image_size": 384}
    assert model.image_size == models.from_config(model.cvkit_config).image_size == 384


def test_pretrained_inception_gives_one_output_and_its_configuration_the_same_model(serve):
    source = torchvision.models.inception_v3(init_weights=False).state_dict()
    assert any(key.startswith("AuxLogits.") for key in source)
    serve(source)
    model = models.create("inception_v3", num_classes=3, pretrained=True)
    again = models.from_config(model.cvkit_config)
    again.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 75, 75)
    assert again.train()(images).shape == (2, 3)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(images), model.eval()(images))


def test_auxiliary_classifiers_of_googlenet_come_with_new_heads_when_asked_for(serve):
    source = torchvision.models.googlenet(init_weights=False, aux_logits=True)
    serve(source.state_dict())
    model = models.create("googlenet", num_classes=3, pretrained=True, aux_logits=True)
    assert torch.equal(model.aux1.fc1.weight, source.aux1.fc1.weight)
    outputs = model(torch.randn(2, 3, 64, 64))
    assert [tuple(one.shape) for one in outputs] == [(2, 3)] * 3
    assert model.eval()(torch.randn(2, 3, 64, 64)).shape == (2, 3)


# --- segmentation


@pytest.mark.parametrize("name", SEGMENTATION)
def test_a_segmentation_network_gives_the_tensor_that_torchvisions_has_under_out(name):
    model = models.create(name, num_classes=3).eval()
    reference = getattr(theirs, name)(num_classes=3, weights=None, weights_backbone=None).eval()
    reference.load_state_dict(model.state_dict())
    images = torch.rand(1, 3, 33, 41)
    with torch.no_grad():
        out = model(images)
        assert out.shape == (1, 3, 33, 41)
        assert torch.equal(out, reference(images)["out"])


def test_an_auxiliary_head_speaks_in_training_only():
    model = models.create("fcn_resnet50", num_classes=2, aux_loss=True)
    assert model.cvkit_config["aux_loss"] is True
    outputs = model(torch.rand(2, 3, 32, 32))
    assert {key: tuple(value.shape) for key, value in outputs.items()} == {"out": (2, 2, 32, 32), "aux": (2, 2, 32, 32)}
    assert model.eval()(torch.rand(2, 3, 32, 32)).shape == (2, 2, 32, 32)


@pytest.mark.parametrize(
    ("name", "aux_loss"), [("fcn_resnet50", False), ("fcn_resnet50", True), ("lraspp_mobilenet_v3_large", False)]
)
def test_trained_segmentation_weights_get_new_heads_and_lose_an_unused_one(serve, name, aux_loss):
    options = {"aux_loss": True} if name.startswith("fcn") else {}
    source = getattr(theirs, name)(num_classes=21, weights=None, weights_backbone=None, **options)
    serve(source.state_dict())
    model = models.create(name, num_classes=3, in_channels=1, pretrained=True, **(options if aux_loss else {}))
    expected = source.state_dict()
    own = model.state_dict()
    changed = {key for key in own if own[key].shape != expected[key].shape}
    heads = ["low_classifier", "high_classifier"] if name.startswith("lraspp") else ["4"]
    assert {key for key in changed if not key.startswith("backbone")} == {
        *(f"classifier.{head}.{kind}" for head in heads for kind in ("weight", "bias")),
        *(f"aux_classifier.4.{kind}" for kind in ("weight", "bias") if aux_loss),
    }
    first = next(key for key in own if own[key].ndim == 4)
    assert changed - {first} == {key for key in changed if not key.startswith("backbone")}
    assert torch.equal(own[first], adapted(expected[first], 1))
    assert all(torch.equal(own[key], expected[key]) for key in set(own) - changed)


@pytest.mark.parametrize(
    ("name", "backbone", "weights"),
    [
        ("fcn_resnet50", "resnet50", ResNet50_Weights.IMAGENET1K_V2),
        (
            "lraspp_mobilenet_v3_large",
            "mobilenet_v3_large",
            torchvision.models.MobileNet_V3_Large_Weights.IMAGENET1K_V1,
        ),
    ],
)
def test_weights_of_a_backbone_go_into_it(serve, tmp_path, name, backbone, weights):
    source = torchvision.models.get_model(backbone).state_dict()
    serve(source)
    torch.save(source, tmp_path / "backbone.pth")
    for pretrained in (weights, tmp_path / "backbone.pth"):
        model = models.create(name, num_classes=3, pretrained=pretrained)
        own = {key: value for key, value in model.state_dict().items() if key.startswith("backbone.")}
        prefix = "features." if "mobilenet" in name else ""
        assert own
        assert all(torch.equal(value, source[prefix + key.removeprefix("backbone.")]) for key, value in own.items())


def test_weights_of_another_backbone_are_refused(tmp_path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(ModelError, match="cannot be used"):
        models.create("fcn_resnet50", num_classes=3, pretrained=tmp_path / "resnet18.pth")


def test_a_small_stem_of_a_segmentation_network_sees_finer():
    for name, factor in (("fcn_resnet50", 4), ("lraspp_mobilenet_v3_large", 2)):
        with torch.device("meta"):
            plain, small = (models.create(name, num_classes=2, stem=stem) for stem in ("auto", "small"))
            last = [list(model.backbone(torch.empty(1, 3, 64, 64)).values())[-1].shape[-1] for model in (plain, small)]
        assert last[1] == factor * last[0]


def test_a_segmentation_network_goes_through_fit_and_comes_back_from_its_file(tmp_path):
    images, masks = torch.rand(4, 3, 32, 32), torch.randint(0, 2, (4, 32, 32))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, masks), batch_size=2)
    model = models.create("lraspp_mobilenet_v3_large", num_classes=2)
    assert isinstance(model, Segmenter)
    checkpoint = cvkit.callbacks.Checkpoint(tmp_path, monitor="val_loss")
    result = cvkit.fit(model, loader, loader, epochs=1, callbacks=[checkpoint], progress=False, device="cpu")
    assert {"train_accuracy", "val_accuracy"} <= set(result.history[-1])
    content = cvkit.load_checkpoint(tmp_path / "last.pt")
    again = models.from_config(content["description"]["model"])
    again.load_state_dict(content["model"])
    assert torch.equal(again.eval()(images), model.eval()(images))


def test_an_auxiliary_loss_is_a_step_of_ones_own():
    """The step of the builder's docstring."""

    def step(model, batch, state):
        images, masks = batch
        outputs = model(images)
        if isinstance(outputs, dict):
            aux, outputs = outputs["aux"], outputs["out"]
            return (
                nn.functional.cross_entropy(outputs, masks) + 0.4 * nn.functional.cross_entropy(aux, masks),
                outputs,
                masks,
            )
        return nn.functional.cross_entropy(outputs, masks), outputs, masks

    batch = (torch.rand(2, 3, 32, 32), torch.randint(0, 2, (2, 32, 32)))
    model = models.create("fcn_resnet50", num_classes=2, aux_loss=True)
    before = model.aux_classifier[4].weight.clone()
    result = cvkit.fit(model, [batch], [batch], epochs=1, step=step, metrics="accuracy", progress=False, device="cpu")
    assert "val_accuracy" in result.history[-1]
    assert not torch.equal(model.aux_classifier[4].weight, before)


def test_a_mnasnet_loads_a_plain_dictionary():
    model, other = (models.create("mnasnet0_5", num_classes=2) for _ in range(2))
    other.load_state_dict(dict(model.state_dict()))
    assert all(torch.equal(one, model.state_dict()[name]) for name, one in other.state_dict().items())


def test_an_argument_that_makes_a_model_what_it_is_cannot_be_another():
    with pytest.raises(ArgumentError) as caught:
        models.create("densenet121", num_classes=3, growth_rate=12)
    assert str(caught.value) == (
        "'densenet121' has a growth_rate of its own\n  got: growth_rate=12\n"
        "  expected: other arguments than those that make it 'densenet121'\n"
        "  fix: leave it out, or build the class of torchvision's yourself: fit takes any module"
    )
