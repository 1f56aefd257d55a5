"""What an object is, as text that is the same in every process, directory and checkout."""

import functools
import os
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch
from torch import nn

from cvkit.training import stable_text
from cvkit.training.stable_text import describe, plain_text

v2 = pytest.importorskip("torchvision.transforms.v2")

SCRIPT = """
import functools, json, random, sys
import torch
from torch import nn
from torchvision import transforms
from torchvision.transforms import v2
from cvkit.training.stable_text import describe


class Focal(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("alpha", torch.tensor([0.25, 0.75]))
        self.scale = nn.Parameter(torch.randn(1))
        self.kinds = {"a", "b", "c", "ab", "cd"}

    def forward(self, outputs, targets):
        return (outputs - targets).abs().sum() if "x" in {"a", "b", "c", "ab"} else outputs.sum()


class Add:
    def __init__(self, amount):
        self.amount, self.file, self.helper, self.random = amount, __file__, object(), random.Random()

    def __call__(self, image):
        return image + self.amount


def power(base):
    return lambda step: base**step


objects = [
    Add(3), Add(3).__call__, Focal(), power(0.9), functools.partial(Add, amount=object()), lambda image: image,
    functools.partial(nn.functional.cross_entropy, weight=torch.ones(3)), nn.CrossEntropyLoss(torch.rand(2) * 0),
    v2.Compose([v2.RandomResizedCrop(8), v2.RandomApply([v2.ColorJitter(0.1)]), v2.Lambda(lambda x: x), v2.ToDtype(torch.float32)]),
    transforms.Compose([transforms.Compose([transforms.RandomRotation(10)]), Add(1), transforms.ToTensor()]),
]
found = [describe(one) for one in objects]
print(json.dumps([[one.shape, one.values, one.code] for one in found]))
"""


@pytest.mark.parametrize("script", [SCRIPT])
def test_another_process_directory_and_checkout_describe_the_same(tmp_path, script):
    said = []
    for number in (1, 2):
        place = tmp_path / f"checkout {number}"
        place.mkdir()
        (place / "script.py").write_text(textwrap.dedent(script) + "\n" * number)
        environment = os.environ | {"PYTHONHASHSEED": str(number)}
        done = subprocess.run(
            [sys.executable, "script.py"], cwd=place, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert said[0] == said[1]
    assert "0x" not in said[0]
    assert str(tmp_path) not in said[0]


def power(base):
    return lambda step: base**step


class Scaled:
    def __init__(self, factor=1.0, **more):
        self.factor = factor
        self.__dict__ |= more

    def __call__(self, image):
        return image * self.factor


class Doubled(Scaled):
    def __call__(self, image):
        return image * self.factor * 2


DIFFERENT = {
    "another constant": (lambda x: x * 2, lambda x: x * 3),
    "another operation": (lambda x: x * 2, lambda x: x + 2),
    "another name that is called": (lambda x: x.relu(), lambda x: x.gelu()),
    "another constant inside": (lambda x: [y * 2 for y in x], lambda x: [y * 3 for y in x]),
    "another value closed over": (power(0.9), power(0.8)),
    "another default": (lambda x, k=1: x * k, lambda x, k=2: x * k),
    "another keyword default": (lambda x, *, k=1: x * k, lambda x, *, k=2: x * k),
    "another attribute": (Scaled(1.0), Scaled(2.0)),
    "another class": (Scaled(1.0), Doubled(1.0)),
    "an argument of a partial": (functools.partial(power, 1), functools.partial(power, 2)),
    "a keyword of a partial": (functools.partial(power), functools.partial(power, base=2)),
    "class weights": (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(torch.ones(3))),
    "other class weights": (nn.CrossEntropyLoss(torch.ones(3)), nn.CrossEntropyLoss(torch.tensor([1.0, 1.0, 2.0]))),
    "one of many numbers": (Scaled(torch.zeros(99)), Scaled(torch.arange(99) == 98)),
    "an array": (Scaled(np.zeros(99)), Scaled(np.arange(99.0))),
    "smoothing": (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1)),
    "a transform within": (
        v2.Compose([v2.Compose([v2.RandomRotation(10)])]),
        v2.Compose([v2.Compose([v2.RandomRotation(20)])]),
    ),
    "the order": (v2.Compose([v2.RandomRotation(1), v2.Resize(8)]), v2.Compose([v2.Resize(8), v2.RandomRotation(1)])),
    "a lambda within": (v2.Compose([v2.Lambda(lambda x: x)]), v2.Compose([v2.Lambda(lambda x: -x)])),
    "a list within": (Scaled([1, 2]), Scaled([1, 3])),
    "a dict within": (Scaled({"a": [1]}), Scaled({"a": [2]})),
}


@pytest.mark.parametrize(("one", "other"), DIFFERENT.values(), ids=DIFFERENT)
def test_what_makes_a_difference_is_seen(one, other):
    assert describe(one) == describe(one)
    assert describe(one) != describe(other)


def documented(x):
    """Says something."""
    y = x * 2
    return y


def undocumented(x):
    z = x * 2

    # says more
    return z


SAME = {
    "another path": (Scaled(1, place="/a/b"), Scaled(1, place="/c")),
    "another device": (Scaled(1, device=torch.device("cpu")), Scaled(1, device=torch.device("cuda"))),
    "other objects": (
        Scaled(1, lock=object(), rng=np.random.default_rng()),
        Scaled(1, lock=object(), rng=np.random.default_rng()),
    ),
    "what is its own business": (Scaled(1, _made=time.time()), Scaled(1, _made=time.time() + 1)),
    "a docstring, a comment, a variable's name": (documented, undocumented),
    "the order of a set": (Scaled({"a", "b", "c"}), Scaled({"c", "b", "a"})),
}


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME)
def test_what_makes_no_difference_is_not_seen(one, other):
    a, b = describe(one), describe(other)
    assert (a.values, a.code) == (b.values, b.code)


def test_the_code_of_a_library_is_not_looked_at():
    assert describe(nn.functional.cross_entropy) == stable_text.Description("cross_entropy", {}, "")
    assert describe(nn.MSELoss()).code == ""
    assert describe(Scaled()).code.startswith(f"{sys.implementation.cache_tag} ")


def test_an_object_that_holds_itself_ends():
    one = Scaled()
    one.inner = [one]
    assert describe(one).shape == "Scaled([Scaled])"


def test_a_network_that_a_function_closes_over_is_left_out():
    model = nn.BatchNorm1d(3)
    assert describe(lambda x: model(x)).values == {}


def test_plain_values_are_short():
    assert plain_text([1, (2.0, "a")]) == "[1, [2.0, 'a']]"
    assert plain_text(list(range(1000))).startswith("[1000 values, ")
    assert len(plain_text("x" * 10_000)) < 200
    assert plain_text([1, object()]) is None
    assert plain_text(torch.empty(3, device="meta")) == "torch.float32 (3,)"
