"""Checkpoints whose words about themselves were chosen to do harm: nothing is fetched, opened, imported or made large for them."""

import hashlib
import io
import math
import sys
import urllib.request
import zipfile
from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch

import cvkit
from cvkit.errors import CheckpointError, MissingDependencyError
from cvkit.serialization import archive

MODEL = {"name": "mlp", "num_classes": 3, "in_channels": 3, "size": 8, "hidden": [16]}
TRANSFORM = {"name": "small_image_eval", "size": 8, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}

_seen = []
_watching = []
_EVENTS = ("open", "import", "socket.", "subprocess.", "os.system", "os.exec", "urllib.", "ctypes.dlopen")


def _hook(event, arguments):
    if _watching and event.startswith(_EVENTS):
        _seen.append((event, arguments))


sys.addaudithook(_hook)  # there is no way to take one off; it does nothing while nobody watches


@pytest.fixture
def watched(monkeypatch):
    """Loads a file and asserts that nothing else was opened, nothing fetched and no package imported."""
    fetched = []
    monkeypatch.setattr(urllib.request, "urlopen", lambda *a, **k: fetched.append(a))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *a, **k: fetched.append(a))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *a, **k: fetched.append(a))
    cvkit.models.names()  # torchvision is imported where a name needs it

    def load(path, **given):
        packages = {name.partition(".")[0] for name in sys.modules}
        _seen.clear()
        _watching.append(True)
        try:
            return cvkit.load(path, device="cpu", **given)
        finally:
            _watching.clear()
            assert not fetched
            assert not [one for one in _seen if not one[0].startswith(("open", "import"))]
            opened = {str(arguments[0]) for event, arguments in _seen if event == "open"} - {str(path)}
            assert not [one for one in opened if not one.endswith((".py", ".pyc"))]  # parts of torch, when first used
            assert {name.partition(".")[0] for name in sys.modules} <= packages | sys.stdlib_module_names

    return load


def content(model=None, state=None, **description):
    """What an honest file holds, but for what is given."""
    torch.manual_seed(0)
    weights = cvkit.models.create(**MODEL).state_dict() if state is None else state
    described = {
        "model": MODEL if model is None else model,
        "classes": ["a", "b", "c"],
        "transform": TRANSFORM,
        "loss": "cross_entropy",
        "layers": None,
        "images": {"batch_size": 4, "kind": None, "whole": False, "background": [0, 0, 0], "max_pixels": 10**6},
    }
    return {"format": 1, "cvkit": "0", "torch": "0", "model": dict(weights), "description": described | description}


def written(path, made):
    """Writes content of any kind under a right checksum, as somebody who knows the format would."""
    stream = io.BytesIO()
    torch.save(made, stream)
    return sealed(path, stream.getvalue())


def sealed(path, data):
    body = data[:-2]
    digest = hashlib.sha256(body + b"\0\0").hexdigest().encode()
    path.write_bytes(body + archive.COMMENT.to_bytes(2, "little") + archive.MAGIC + digest)
    return path


def model(**changes):
    return lambda: content(model=MODEL | changes)


def other(name, **arguments):
    return lambda: content(model={"name": name, "num_classes": 3, "in_channels": 3, **arguments})


def part(**changes):
    return lambda: content(**changes)


def preset(**changes):
    return lambda: content(transform=TRANSFORM | changes)


def images(**changes):
    return lambda: content(images=content()["description"]["images"] | changes)


def top(**changes):
    return lambda: content() | changes


def weight(make):
    def made():
        state = cvkit.models.create(**MODEL).state_dict()
        return content(state=state | {"head.weight": make(state["head.weight"])})

    return made


def deep():
    nested = []
    for _ in range(200):
        nested = [nested]
    return nested


def laughs():
    """Lists of lists, each ten times in the next: a short pickle of 10^40 values."""
    many = ["x"] * 10
    for _ in range(40):
        many = [many] * 10
    return many


class Claims:
    """Pickles as a tensor of a size that its bytes do not have."""

    def __init__(self, size, stride):
        self.size, self.stride = size, stride

    def __reduce__(self):
        storage = torch.zeros(1)._typed_storage()
        return torch._utils._rebuild_tensor_v2, (storage, 0, self.size, self.stride, False, OrderedDict())


def expanded():
    state = {"head.weight": torch.zeros(1).expand(10**6, 10**5), "head.bias": torch.zeros(1).expand(10**6)}
    return content(model={"name": "linear", "num_classes": 10**6, "in_channels": 3, "in_features": 10**5}, state=state)


UNBUILDABLE = "the model that {path} describes cannot be built"
UNKNOWN = "{path} is of a model that is not known here"
UNFIT = "the weights in {path} do not fit the model"
PRESET = "{path} is of a run with a transform that is not known here"
UNREADABLE = "cannot read the checkpoint {path}"
MALFORMED = "{path} has a %s that cannot be used"

MODELS = {
    "a name with a path": (other("../../etc/passwd"), UNKNOWN),
    "a name of a megabyte": (other("x" * 1_000_000), UNKNOWN),
    "a name with an escape sequence": (other("\x1b[2J"), UNKNOWN),
    "a name that is a list": (other(["mlp"]), UNBUILDABLE),
    "no name": (part(model={"num_classes": 3}), UNBUILDABLE),
    "a hub": (other("timm:hf-hub:evil/model"), UNBUILDABLE),
    "a folder": (other("timm:local-dir:/etc"), UNBUILDABLE),
    "a text": (part(model="mlp"), MALFORMED % "model"),
    "a list": (part(model=["mlp"]), MALFORMED % "model"),
    "numbers as keys": (part(model={1: 2, "name": "mlp"}), MALFORMED % "model"),
    "an unknown argument": (model(code="import os"), UNBUILDABLE),
    "num_classes of 10**12": (model(num_classes=10**12), UNBUILDABLE),
    "num_classes as large as allowed": (model(num_classes=2**31 - 1), UNBUILDABLE),
    "num_classes below zero": (model(num_classes=-3), UNBUILDABLE),
    "num_classes is a boolean": (model(num_classes=True), UNBUILDABLE),
    "num_classes is no number": (model(num_classes=math.nan), UNBUILDABLE),
    "num_classes is a dictionary": (model(num_classes={"a": 1}), UNBUILDABLE),
    "num_classes is a tensor": (model(num_classes=torch.ones(())), UNBUILDABLE),
    "an integer of 10,000 digits": (model(num_classes=1 << 33_000), UNREADABLE),
    "an integer of 600 digits": (model(num_classes=1 << 2_000), UNBUILDABLE),
    "hidden=[10**9]*100": (model(hidden=[10**9] * 100), UNBUILDABLE),
    "hidden=[10**4]*1000": (model(hidden=[10**4] * 1_000), UNBUILDABLE),
    "too many layers": (model(hidden=[1] * 100_000), UNBUILDABLE),
    "lists 200 deep": (model(hidden=deep()), UNBUILDABLE),
    "a list of 10^40 values": (model(hidden=laughs()), UNBUILDABLE),
    "an activation that is a list": (model(activation=["relu"]), UNBUILDABLE),
    "an activation that is a path": (model(activation="/etc/passwd"), UNBUILDABLE),
    "dropout is no number": (model(dropout=math.nan), UNBUILDABLE),
    "a size that overflows": (model(size=[2**31 - 1, 2**31 - 1]), UNBUILDABLE),
    "another number of classes": (model(num_classes=4), UNFIT),
    "appended without end": (model(appended=[3] * 100_000), UNBUILDABLE),
    "appended is huge": (model(appended=[2**31 - 1]), UNBUILDABLE),
    "appended is a text": (model(appended="xyz"), UNBUILDABLE),
    "a network of 10**9 layers": (other("resnet", depth=6 * 10**8 + 2), UNBUILDABLE),
    "a U-Net of 10**9 levels": (other("unet", depth=10**9), UNBUILDABLE),
    "torchvision: classes": (other("resnet18", num_classes=2**31 - 1), UNBUILDABLE),
    "torchvision: blocks": (other("densenet121", block_config=[10**9] * 4), UNBUILDABLE),
    "torchvision: blocks in settings": (
        other("mobilenet_v2", inverted_residual_setting=[[1, 8, 10**9, 1]]),
        UNBUILDABLE,
    ),
    "torchvision: the size of images": (other("vit_b_16", image_size=2**30), UNBUILDABLE),
    "torchvision: a layer by its name": (other("resnet18", norm_layer="os.system"), UNBUILDABLE),
    "torchvision: a model that needs values": (other("regnet_y_128gf"), UNBUILDABLE),
    "torchvision: a model of other weights": (other("vgg16"), UNBUILDABLE),
}

PARTS = {
    "a description that is a text": (top(description="mlp"), MALFORMED % "description"),
    "a description that is a list": (top(description=[MODEL]), MALFORMED % "description"),
    "a description with numbers as keys": (top(description={1: MODEL}), MALFORMED % "description"),
    "a format that is a text": (top(format="1"), MALFORMED % "format"),
    "a format that is a boolean": (top(format=True), MALFORMED % "format"),
    "a format below zero": (top(format=-1), MALFORMED % "format"),
    "a format of 10**30, by a long name": (top(format=10**30, cvkit="9" * 10**6), "{path} is of a newer format"),
    "a model that is a list": (top(model=[1, 2]), "{path} holds no model"),
    "a loss that is a list": (part(loss=["mse"]), MALFORMED % "loss"),
    "a loss that is a number": (part(loss=3), MALFORMED % "loss"),
    "layers that are a list": (part(layers=["x"]), MALFORMED % "layers"),
    "images that are a list": (part(images=[4]), MALFORMED % "images"),
    "no image in a batch": (images(batch_size=0), MALFORMED % "batch_size"),
    "a batch of 10**9 images": (images(batch_size=10**9), MALFORMED % "batch_size"),
    "a batch size that is a text": (images(batch_size="4"), MALFORMED % "batch_size"),
    "a batch size that is a boolean": (images(batch_size=True), MALFORMED % "batch_size"),
    "images of 10**15 pixels": (images(max_pixels=10**15), MALFORMED % "max_pixels"),
    "two levels as background": (images(background=[0, 0]), MALFORMED % "background"),
    "a background out of range": (images(background=[0, 0, 256]), MALFORMED % "background"),
    "whole is a text": (images(whole="yes"), MALFORMED % "whole"),
    "a kind that is a list": (images(kind=["mask"]), MALFORMED % "kind"),
    "classes in a dictionary": (part(classes={"a": 0, "b": 1, "c": 2}), MALFORMED % "classes"),
    "classes in a text": (part(classes="abc"), MALFORMED % "classes"),
    "classes that are numbers": (part(classes=[0, 1, 2]), MALFORMED % "classes"),
    "a class twice": (part(classes=["a", "b", "a"]), MALFORMED % "classes"),
    "a class that clears the terminal": (part(classes=["a", "b", "\x1b[2J"]), MALFORMED % "classes"),
    "a class that turns the text": (part(classes=["a", "b", "\u202egnp.c"]), MALFORMED % "classes"),
    "a hundred thousand classes": (part(classes=[str(one) for one in range(100_000)]), MALFORMED % "classes"),
}

PRESETS = {
    "an unknown preset": (preset(name="nothing"), PRESET),
    "a preset with a path": (preset(name="../x"), PRESET),
    "a preset that is a list": (preset(name=["x"]), PRESET),
    "a text": (part(transform="small_image_eval"), MALFORMED % "transform"),
    "an unknown stage": (preset(stage="os.system"), PRESET),
    "a size of 10**9": (preset(size=10**9), PRESET),
    "a size of 10**40": (preset(size=10**40), PRESET),
    "a size below zero": (preset(size=-8), PRESET),
    "a size that is no number": (preset(size=math.nan), PRESET),
    "a size that is a boolean": (preset(size=True), PRESET),
    "a size in a list": (preset(size=[[8]]), PRESET),
    "a size that is a text": (preset(size="8"), PRESET),
    "a mean that is no number": (preset(mean=[math.nan] * 3), PRESET),
    "a mean of booleans": (preset(mean=[True, True, True]), PRESET),
    "a mean of lists": (preset(mean=[[0.5], [0.5], [0.5]]), PRESET),
    "a mean of texts": (preset(mean=["0.5"] * 3), PRESET),
    "a mean of many": (preset(mean=[0.5] * 100_000), PRESET),
    "a mean of 10^40 values": (preset(mean=laughs()), PRESET),
    "a std of zero": (preset(std=[0.0, 0.0, 0.0]), PRESET),
    "padding of 10**9": (preset(name="small_image_train", padding=10**9), PRESET),
    "resize of 10**9": (preset(name="classification_eval", resize=10**9), PRESET),
}

WEIGHTS = {
    "sparse": (weight(lambda one: one.to_sparse()), UNFIT),
    "compressed": (weight(lambda one: one.to_sparse_csr()), UNFIT),
    "complex": (weight(lambda one: one.to(torch.complex64)), UNFIT),
    "without values": (weight(lambda one: one.to("meta")), UNFIT),
    "nested": (weight(lambda one: torch.nested.nested_tensor([one[0], one[1, :2]])), None),
    "quantized": (weight(lambda one: torch.quantize_per_tensor(one, 0.1, 0, torch.qint8)), None),
    "a text": (weight(lambda one: "weight"), UNFIT),
    "a list": (weight(lambda one: one.tolist()), UNFIT),
    "of another shape": (weight(lambda one: one.T), UNFIT),
    "few values repeated": (expanded, UNBUILDABLE),
    "a size that overflows": (weight(lambda one: Claims((2**40, 2**40), (2**40, 1))), UNREADABLE),
    "a size of 10**15 bytes": (weight(lambda one: Claims((10**15,), (1,))), UNREADABLE),
    "a size below zero": (weight(lambda one: Claims((-3,), (1,))), UNREADABLE),
    "numbers as names": (lambda: content(state={1: torch.zeros(2)}), UNFIT),
    "a hundred thousand names": (
        lambda: content(state=dict.fromkeys(map(str, range(100_000)), torch.zeros(1))),
        UNFIT,
    ),
    "none": (lambda: content(state={}), UNFIT),
}


def corpus():
    for kind, cases in (("model", MODELS), ("part", PARTS), ("transform", PRESETS), ("weights", WEIGHTS)):
        for name, (make, first) in cases.items():
            yield pytest.param(make, first, id=f"{kind}: {name}")


@pytest.mark.parametrize(("make", "first"), list(corpus()))
def test_what_was_made_to_do_harm_is_refused_by_name(make, first, tmp_path, watched, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    path = written(tmp_path / "x.pt", make())
    with pytest.raises(CheckpointError) as caught:
        watched(path)
    assert type(caught.value) is CheckpointError
    lines = str(caught.value).splitlines()
    assert str(path) in lines[0]
    assert first is None or lines[0] == first.format(path=path)
    assert [line.split(":")[0] for line in lines[1:]] == ["  got", "  expected", "  fix"]
    assert len(str(caught.value)) < 3_000
    assert str(caught.value).replace("\n", "").isprintable()


def test_lists_deeper_than_python_goes_are_refused(tmp_path, watched):
    def text(word):
        return b"X" + len(word).to_bytes(4, "little") + word.encode()

    def dictionary(**items):
        return b"}" + b"".join(text(key) + value + b"s" for key, value in items.items())

    lists = b"]" * 50_000 + b"a" * 49_999
    told = dictionary(name=text("mlp"), num_classes=b"K\x03", hidden=lists)
    pickled = b"\x80\x02" + dictionary(model=b"}", description=dictionary(model=told)) + b"."
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, record in (("data.pkl", pickled), ("version", b"3\n"), ("byteorder", b"little")):
            file.writestr(f"x/{name}", record)
    path = sealed(tmp_path / "x.pt", stream.getvalue())
    transform = cvkit.transforms.small_image_eval(8)
    with pytest.raises(CheckpointError) as caught:
        watched(path, transform=transform, classes=["a", "b", "c"])
    assert str(caught.value).splitlines()[:2] == [
        f"the model that {path} describes cannot be built",
        "  got: the configuration of 'mlp' has a hidden that cannot be used, got: lists in lists, more than 3 deep",
    ]


def test_none_of_it_takes_much_memory(tmp_path):
    resource = pytest.importorskip("resource")
    scale = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    for number, (make, _) in enumerate([*MODELS.values(), WEIGHTS["few values repeated"]]):
        with pytest.raises((CheckpointError, MissingDependencyError)):
            cvkit.load(written(tmp_path / f"{number}.pt", make()), device="cpu")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale - before < 600 << 20


def test_the_honest_file_of_these_tests_loads(tmp_path, watched):
    path = written(tmp_path / "x.pt", content())
    assert watched(path).classes == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("mlp", {"pretrained": True}),
        ("mlp", {"pretrained": "/etc/passwd"}),
        ("mlp", {"weights": "/etc/passwd"}),
        ("mlp", {"checkpoint_path": "/etc/passwd", "cache_dir": "/tmp/x"}),
        ("mlp", {"freeze": True}),
        ("squeezenet1_1", {"pretrained": True}),
        ("squeezenet1_1", {"weights": "/etc/passwd", "progress": True}),
        ("lraspp_mobilenet_v3_large", {"pretrained": True, "weights_backbone": "DEFAULT"}),
    ],
    ids=str,
)
def test_where_weights_came_from_is_passed_over(name, more, tmp_path, watched):
    made = cvkit.models.create(name, num_classes=3) if name != "mlp" else cvkit.models.create(**MODEL)
    path = written(tmp_path / "x.pt", content(model=made.cvkit_config | more, state=made.state_dict()))
    loaded = watched(path).model
    assert all(torch.equal(one, loaded.state_dict()[key]) for key, one in made.state_dict().items())
    assert loaded.cvkit_config == made.cvkit_config
    assert all(one.requires_grad for one in loaded.parameters())


def test_messages_say_what_is_wrong(tmp_path):
    path = written(tmp_path / "x.pt", content(model=MODEL | {"hidden": [10**9] * 100}))
    with pytest.raises(CheckpointError) as caught:
        cvkit.load(path)
    first, got, expected, fix = str(caught.value).splitlines()
    assert first == f"the model that {path} describes cannot be built"
    assert got == "  got: a tensor of 768000000000 bytes"
    assert expected == (
        "  expected: the name of a model and arguments of its architecture, of the size of the weights in the file"
    )
    assert fix == (
        "  fix: use another checkpoint of the run, or build the model yourself and pass it: cvkit.load(path, model=…); do not "
        "trust the file if it comes from elsewhere"
    )


@pytest.mark.parametrize(
    ("make", "got"),
    [
        (
            model(num_classes=10**12),
            "the configuration of 'mlp' has a num_classes that cannot be used, got: 1000000000000, beyond",
        ),
        (
            model(code=1),
            "unknown argument of the architecture 'mlp': 'code', expected: one of: activation, dropout, hidden",
        ),
        (other("resnet", depth=6 * 10**8 + 2), "many more layers than the file has weights for"),
        (other("vgg16"), "a tensor of 411041792 bytes"),
        (weight(lambda one: one.to_sparse()), "head.weight: a tensor of the layout sparse_coo for a plain tensor"),
        (weight(lambda one: one.to(torch.complex64)), "head.weight: a complex tensor for a plain tensor"),
        (part(classes=["a", "b", "a"]), "'a' twice"),
        (part(classes=["a", "b", "\x1b[2J"]), r"'\x1b[2J', with a control character"),
        (part(classes=["a", "b", 3]), "3, a int"),
        (part(classes=[str(one) for one in range(1_001)]), "1001 names, and no weight with more than 192 rows"),
    ],
)
def test_what_came_is_shown_shortly(make, got, tmp_path):
    path = written(tmp_path / "x.pt", make())
    with pytest.raises(CheckpointError) as caught:
        cvkit.load(path)
    assert str(caught.value).splitlines()[1].startswith(f"  got: {got}")


def test_what_is_passed_need_not_be_right_in_the_file(tmp_path):
    path = written(tmp_path / "x.pt", content(model="x", classes={"a": 1}, transform=[3]))
    given = {"model": cvkit.models.create(**MODEL), "classes": ["x", "y", "z"]}
    predictor = cvkit.load(path, transform=cvkit.transforms.small_image_eval(8), device="cpu", **given)
    assert predictor.classes == ["x", "y", "z"]


def test_names_of_any_script_are_fine(tmp_path):
    names = ["größe ß", "日本\u3000語", "نمی\u200cخواهم"]
    assert cvkit.load(written(tmp_path / "x.pt", content(classes=names)), device="cpu").classes == names


def test_random_numbers_are_left_as_they_were(tmp_path):
    path = written(tmp_path / "x.pt", content())
    state = torch.get_rng_state()
    cvkit.load(path, device="cpu")
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", ["resnet18", "regnet_x_400mf", "swin_t", "unet", "autoencoder_conv", "googlenet"])
def test_a_model_is_built_with_every_value_of_the_file(name, tmp_path):
    options = {} if name.startswith("autoencoder") else {"num_classes": 3}
    made = cvkit.models.create(name, **options).eval()
    path = written(tmp_path / "x.pt", content(model=made.cvkit_config, state=made.state_dict()))
    loaded = cvkit.load(path, device="cpu").model
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(images), made(images))


class Timm:
    """Stands in for timm: notes what is asked of it."""

    def __init__(self):
        self.asked = []

    def is_model(self, name):
        return name == "small"

    def list_models(self):
        return ["small"]

    def create_model(self, name, **arguments):
        self.asked.append((name, arguments))
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, arguments["num_classes"]))


@pytest.fixture
def timm(monkeypatch):
    stand_in = Timm()
    known = SimpleNamespace(
        is_model=stand_in.is_model, list_models=stand_in.list_models, create_model=stand_in.create_model
    )
    monkeypatch.setitem(sys.modules, "timm", known)
    return stand_in


TIMM = {"name": "timm:small", "num_classes": 3, "in_channels": 3}


@pytest.mark.parametrize(
    "more",
    [
        {"pretrained_cfg": {"url": "http://localhost/x"}},
        {"pretrained_cfg": "x"},
        {"pretrained_cfg_overlay": {"file": "/etc/passwd"}},
        {"features_only": True},
        {"scriptable": True},
        {"exportable": True},
        {"no_jit": True},
        {"pretrained_strict": False},
        {"pretrained_model_args": {}},
        {"block_args": {}},
        {"drop_rate": {"a": 1}},
        {"act_layer": "../x"},
        {"depth": 10**6},
    ],
    ids=str,
)
def test_timm_is_asked_for_an_architecture_only(more, timm, tmp_path, watched):
    path = written(tmp_path / "x.pt", content(model=TIMM | more))
    with pytest.raises(CheckpointError) as caught:
        watched(path)
    assert str(caught.value).startswith(f"the model that {path} describes cannot be built\n")
    assert timm.asked == []


def test_timm_gives_the_architecture_without_its_weights(timm, tmp_path, watched):
    state = timm.create_model("small", num_classes=3).state_dict()
    timm.asked.clear()
    told = TIMM | {"drop_rate": 0.1, "pretrained": True, "checkpoint_path": "/etc/passwd", "cache_dir": "/tmp/x"}
    path = written(tmp_path / "x.pt", content(model=told, state=state))
    assert torch.equal(watched(path).model[1].weight, state["1.weight"])
    assert {name for name, _ in timm.asked} == {"small"}
    assert all(one == {"num_classes": 3, "in_chans": 3, "drop_rate": 0.1} for _, one in timm.asked)


def test_a_model_of_timms_without_timm_says_which_file_needs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    path = written(tmp_path / "x.pt", content(model=TIMM))
    with pytest.raises(MissingDependencyError) as caught:
        cvkit.load(path)
    assert str(caught.value) == (
        f"{path}: the model 'timm:small' needs timm\n  got: import of timm halted; None in sys.modules\n"
        "  expected: the package timm\n  fix: pip install timm"
    )


class Registered:
    """A builder of a user's, registered for one test, that notes what it is called with."""

    def __init__(self):
        self.asked = []

    def __call__(self, *, num_classes, in_channels=3, width=4, backbone="small", pretrained=False, **rest):
        self.asked.append({"width": width, "backbone": backbone, "pretrained": pretrained, **rest})
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, num_classes))


@pytest.fixture
def registered():
    from cvkit.models import registry

    builder = Registered()
    cvkit.models.register("mine")(builder)
    yield builder
    registry._builders._entries.pop("mine")


MINE = {"name": "mine", "num_classes": 3, "in_channels": 3}


def test_a_registered_builder_gets_its_own_plain_arguments(registered, tmp_path, watched):
    state = registered(num_classes=3).state_dict()
    registered.asked.clear()
    told = MINE | {"width": 8, "backbone": "large", "pretrained": True}
    watched(written(tmp_path / "x.pt", content(model=told, state=state)))
    assert registered.asked
    assert all(one == {"width": 8, "backbone": "large", "pretrained": False} for one in registered.asked)


@pytest.mark.parametrize(
    "more",
    [{"backbone": "/etc/passwd"}, {"backbone": "hub/model"}, {"backbone": {"a": 1}}, {"code": "x"}, {"width": 10**12}],
    ids=str,
)
def test_a_registered_builder_is_not_called_with_anything_else(registered, more, tmp_path, watched):
    path = written(tmp_path / "x.pt", content(model=MINE | more))
    with pytest.raises(CheckpointError) as caught:
        watched(path)
    assert str(caught.value).startswith(f"the model that {path} describes cannot be built\n")
    assert registered.asked == []


def test_what_is_written_can_be_read(registered):
    made = cvkit.models.create("mine", num_classes=3, width=8, pretrained=True)
    assert made.cvkit_config == MINE | {"width": 8}
    with pytest.warns(cvkit.errors.CvkitWarning, match=r"will not describe it, because of code=…"):
        assert cvkit.models.create("mine", num_classes=3, code=1).cvkit_config is None
    with pytest.warns(cvkit.errors.CvkitWarning, match=r"will not describe it, because of backbone=…"):
        assert cvkit.models.create("mine", num_classes=3, backbone="hub/model").cvkit_config is None


def test_a_builder_that_needs_values_is_bounded_as_well(registered, tmp_path, monkeypatch):
    def needs(**arguments):
        torch.zeros(1).item()
        return torch.nn.Sequential(torch.nn.Flatten(), *(torch.nn.Linear(10**4, 10**4) for _ in range(50)))

    monkeypatch.setattr(Registered, "__call__", lambda self, *, num_classes, in_channels=3: needs())
    path = written(tmp_path / "x.pt", content(model=MINE))
    with pytest.raises(CheckpointError, match=r"cannot be built\n  got: a tensor of 400000000 bytes\n"):
        cvkit.load(path)


@pytest.mark.parametrize("kind", ["sparse", "complex", "without values"])
def test_no_reader_of_weights_takes_another_kind_of_tensor(kind, tmp_path):
    path = written(tmp_path / "x.pt", WEIGHTS[kind][0]())
    model = cvkit.models.create(**MODEL)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(cvkit.errors.ModelError, match=r"head\.weight: a "):
        cvkit.load_weights(model, path)
    with pytest.raises(cvkit.errors.ModelError, match=r"head\.weight: a "):
        cvkit.models.create(**MODEL, pretrained=path)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
