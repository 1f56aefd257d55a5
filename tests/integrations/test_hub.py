"""Publishing a run: a directory in place of the Hub, the Hub's own calls, and what a damaged one says."""

import inspect
import json
import shutil
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn

import cvkit
from cvkit.callbacks import Checkpoint
from cvkit.integrations.hub import push

pytest.importorskip("safetensors")

FILES = ["README.md", "cvkit.json", "manifest.json", "model.safetensors"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    for name, count, seed in (("train", 8, 0), ("val", 4, 1)):
        cvkit.data.write_shapes(root / "data" / name, per_class=count, seed=seed)
    data = cvkit.data.from_folder(root / "data", size=32, batch_size=8, workers=0)
    torch.manual_seed(0)
    model = cvkit.models.create("cifar_quick", num_classes=3)
    options = {"epochs": 2, "seed": 0, "device": "cpu", "progress": False}
    cvkit.fit(model, data.train, data.val, **options, callbacks=[Checkpoint(root / "run", monitor="val_accuracy")])
    return root


def same(published, run):
    image = next((run / "data" / "val").rglob("*.png"))
    one, other = (cvkit.load(path, device="cpu") for path in (published, run / "run" / "best.pt"))
    assert one.classes == other.classes
    assert one.transform.to_config() == other.transform.to_config()
    assert torch.equal(one.predict(image).scores, other.predict(image).scores)


def test_a_directory_that_was_pushed_to_predicts_as_the_checkpoint_does(run, tmp_path):
    address = push(run / "run", tmp_path / "shared")
    assert address == str(tmp_path / "shared")
    assert sorted(one.name for one in Path(address).iterdir()) == FILES
    same(address, run)
    same(Path(address), run)
    assert push(run / "run" / "best.pt", address) == address, "a second push replaces the first"


def test_the_card_and_the_manifest_tell_of_the_run(run, tmp_path):
    push(run / "run", tmp_path / "shared")
    content = cvkit.load_checkpoint(run / "run" / "best.pt")
    made = json.loads((tmp_path / "shared" / "manifest.json").read_text("utf-8"))
    assert (made["seed"], made["epochs"], made["steps"]) == (0, 2, content["training"]["step"])
    assert made["settings"]["optimizer"] == "AdamW"
    assert len(made["history"]) == content["training"]["epoch"]
    assert made["environment"]["torch"] == torch.__version__
    card = (tmp_path / "shared" / "README.md").read_text("utf-8")
    assert card.startswith("---\nlibrary_name: cvkit\npipeline_tag: image-classification\n")
    for part in ("# cifar_quick, trained with cvkit", "- training samples: 24", "- validation samples: 12"):
        assert part in card
    assert "- 3 classes: circle, square, triangle" in card
    assert f"{made['history'][-1]['val_accuracy']:.5g}" in card
    assert str(run) not in card + json.dumps(made)


class Hub:
    """The Hub in a directory; every call must fit the real package's signature, where that is installed."""

    def __init__(self, root):
        self.root, self.private = root, {}
        self.HfApi = lambda: self

    def fits(self, name, *values, **named):
        real = pytest.importorskip("huggingface_hub")
        function = getattr(real, name, None)
        if function is None:
            function, values = getattr(real.HfApi, name), (None, *values)
        inspect.signature(function).bind(*values, **named)

    def create_repo(self, repo, **named):
        self.private[repo] = named["private"]
        self.calls.append(("create_repo", (repo,), named))

    def upload_folder(self, **named):
        shutil.copytree(named["folder_path"], self.root / named["repo_id"], dirs_exist_ok=True)
        self.calls.append(("upload_folder", (), named))

    def snapshot_download(self, repo, **named):
        self.calls.append(("snapshot_download", (repo,), named))
        if not (self.root / repo).is_dir():
            raise OSError("404: no such repository")
        fetched = self.root / "cache" / repo
        fetched.mkdir(parents=True, exist_ok=True)
        for name in named["allow_patterns"]:
            shutil.copy(self.root / repo / name, fetched / name)
        return str(fetched)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    made = Hub(tmp_path)
    made.calls = []
    monkeypatch.setitem(
        sys.modules,
        "huggingface_hub",
        types.SimpleNamespace(HfApi=made.HfApi, snapshot_download=made.snapshot_download),
    )
    return made


def test_the_hub_takes_a_run_and_gives_it_back(run, hub, monkeypatch):
    assert push(run / "run", "hf://me/shapes", private=True) == "hf://me/shapes"
    assert hub.private == {"me/shapes": True}
    assert sorted(one.name for one in (hub.root / "me/shapes").iterdir()) == FILES
    same("hf://me/shapes@main", run)
    assert [path.name for path in sorted((hub.root / "cache/me/shapes").iterdir())] == [
        "cvkit.json",
        "model.safetensors",
    ]
    (name, values, named) = hub.calls[-1]
    assert (name, values, named["revision"]) == ("snapshot_download", ("me/shapes",), "main")
    calls = list(hub.calls)
    monkeypatch.undo()
    for name, values, named in calls:
        hub.fits(name, *values, **named)


def test_a_repository_that_is_not_there_is_named(hub):
    with pytest.raises(cvkit.errors.CheckpointError) as raised:
        cvkit.load("hf://me/other")
    assert str(raised.value) == (
        "hf://me/other cannot be fetched\n"
        "  got: OSError: 404: no such repository\n"
        "  expected: a repository that you may use, and a network\n"
        "  fix: check the name; for a private one, hf auth login"
    )


@pytest.mark.parametrize("address", ["hf://name", "hf:/me/name", "hf://me/name/more", "hf://../..", "hf://me/name@"])
def test_what_begins_as_an_address_and_is_none_is_refused(run, hub, address):
    for use in (cvkit.load, lambda one: push(run / "run", one)):
        with pytest.raises(cvkit.errors.ArgumentError, match="is no address of the Hub"):
            use(address)
    assert hub.calls == []


def test_without_the_package_it_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(cvkit.errors.MissingDependencyError, match=r'pip install "cvkit\[hub\]"'):
        cvkit.load("hf://me/shapes")


def test_weights_with_a_flipped_bit_are_refused(run, tmp_path):
    push(run / "run", tmp_path / "shared")
    path = tmp_path / "shared" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(cvkit.errors.CheckpointError, match=r"a model\.safetensors that cvkit\.json does not know"):
        cvkit.load(tmp_path / "shared")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weights_sha256": 3}', "[" * 100_000])
def test_a_description_that_is_none_is_refused(run, tmp_path, text):
    push(run / "run", tmp_path / "shared")
    (tmp_path / "shared" / "cvkit.json").write_text(text, "utf-8")
    with pytest.raises(cvkit.errors.CheckpointError, match="holds no model that cvkit can load"):
        cvkit.load(tmp_path / "shared")


def test_a_directory_with_other_files_is_not_written_into(run, tmp_path):
    (tmp_path / "notes.txt").write_text("mine", "utf-8")
    with pytest.raises(cvkit.errors.ArgumentError, match=r"a directory with notes\.txt"):
        push(run / "run", tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["notes.txt"]


def test_a_directory_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(cvkit.errors.CheckpointError, match=r"a directory without best\.pt and last\.pt"):
        push(tmp_path, tmp_path / "shared")


def test_a_file_that_is_no_runs_is_refused(tmp_path):
    cvkit.save_checkpoint(tmp_path / "own.pt", {"numbers": [1]})
    with pytest.raises(cvkit.errors.CheckpointError, match="got: the keys numbers"):
        push(tmp_path / "own.pt", tmp_path / "shared")


def test_a_model_of_your_own_is_published_and_loaded_with_it(tmp_path):
    data = [(torch.randn(4, 3), torch.randint(0, 2, (4,))) for _ in range(2)]
    options = {"epochs": 1, "device": "cpu", "progress": False, "preflight": False}
    cvkit.fit(nn.Linear(3, 2), data, **options, callbacks=[Checkpoint(tmp_path / "run", monitor=None)])
    push(tmp_path / "run", tmp_path / "shared")
    assert "# a custom model, trained with cvkit" in (tmp_path / "shared" / "README.md").read_text("utf-8")
    model = nn.Linear(3, 2)
    cvkit.load(tmp_path / "shared", model=model, classes=["a", "b"], transform=lambda image: image, device="cpu")
    saved = cvkit.load_checkpoint(tmp_path / "run" / "last.pt")["model"]
    assert torch.equal(model.weight, saved["weight"])
