"""Plain weights go out and in as the ecosystem writes them, and never silently wrong."""

import os
import random

import pytest
import torch
from torch import nn

import cvkit
from cvkit import load_weights, save_weights
from cvkit.callbacks import Checkpoint
from cvkit.errors import CheckpointError, CvkitWarning, MissingDependencyError, ModelError


def make(seed=0, outputs=3):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, outputs))


def same(one, other):
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "model.ckpt", "w.safetensors"])
def test_weights_come_back_as_they_were(name, tmp_path):
    if name.endswith("safetensors"):
        pytest.importorskip("safetensors")
    source, target = make(0), make(1)
    assert not same(source, target)
    assert save_weights(source, tmp_path / "new" / name) == tmp_path / "new" / name
    assert load_weights(target, tmp_path / "new" / name) is target
    assert same(source, target)
    assert os.listdir(tmp_path / "new") == [name]


def test_others_read_what_is_written_and_what_they_write_is_read(tmp_path):
    safe = pytest.importorskip("safetensors.torch")
    source = make(0)
    save_weights(source, tmp_path / "a.pt")
    save_weights(source, tmp_path / "a.safetensors")
    for state in (torch.load(tmp_path / "a.pt", weights_only=True), safe.load_file(tmp_path / "a.safetensors")):
        target = make(1)
        target.load_state_dict(state)
        assert same(source, target)
    torch.save(source.state_dict(), tmp_path / "model.ckpt")
    torch.save(source.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": source.state_dict(), "epoch": 3}, tmp_path / "nested.pth")
    torch.save({"model_state_dict": source.state_dict(), "optimizer": {}}, tmp_path / "tutorial.tar")
    safe.save_file(source.state_dict(), tmp_path / "b.safetensors")
    for name in ("model.ckpt", "old.pth", "nested.pth", "tutorial.tar", "b.safetensors"):
        assert same(source, load_weights(make(1), tmp_path / name)), name


def test_a_checkpoint_of_fit_is_read(tmp_path):
    model = make(0)
    batches = [(torch.randn(2, 1, 4, 4), torch.tensor([0, 1]))]
    cvkit.fit(model, batches, epochs=1, callbacks=[Checkpoint(tmp_path, monitor=None)], progress=False)
    assert same(model, load_weights(make(1), tmp_path / "last.pt"))


def test_tied_and_strided_weights_go_into_safetensors(tmp_path):
    pytest.importorskip("safetensors")
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).to(memory_format=torch.preserve_format)
    model[1].weight = model[0].weight
    model[0].bias.data = torch.randn(4, 2)[:, 0]
    save_weights(model, tmp_path / "a.safetensors")
    target = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    assert same(model, load_weights(target, tmp_path / "a.safetensors"))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "model.", "net.backbone."])
def test_prefixes_of_wrappers_and_owners_are_taken_off(prefix, tmp_path):
    source = make(0)
    state = {f"{prefix}{name}": value for name, value in source.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "w.ckpt")
    assert same(source, load_weights(make(1), tmp_path / "w.ckpt"))


def test_what_stands_beside_the_model_in_its_owner_is_told(tmp_path):
    state = {f"model.{name}": value for name, value in make(0).state_dict().items()} | {"loss.weight": torch.ones(3)}
    torch.save({"state_dict": state}, tmp_path / "w.ckpt")
    with pytest.raises(ModelError, match=r"got: not in the model: loss\.weight\n"):
        load_weights(make(1), tmp_path / "w.ckpt")
    with pytest.warns(CvkitWarning, match=r"9 of 9 weights were loaded from .*w.ckpt; not in the model: loss.weight$"):
        assert same(make(0), load_weights(make(1), tmp_path / "w.ckpt", strict=False))


def test_names_are_saved_without_wrappers_and_wrapped_models_are_read_into(tmp_path):
    source = make(0)
    save_weights(nn.DataParallel(torch.compile(source, backend="eager")), tmp_path / "w.pt")
    assert list(torch.load(tmp_path / "w.pt", weights_only=True)) == list(source.state_dict())
    target = make(1)
    load_weights(nn.DataParallel(torch.compile(target, backend="eager")), tmp_path / "w.pt")
    assert same(source, target)


class Owner(nn.Module):
    """Has a submodule that is called as a wrapper's is, and a weight of the same name as one in it."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.module = nn.Linear(3, 3)
        self.weight = nn.Parameter(torch.randn(3, 3))


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_submodule_that_is_called_module_keeps_its_name(name, wrapped, tmp_path):
    source = Owner(0)
    save_weights(nn.DataParallel(source) if wrapped else source, tmp_path / name)
    assert same(source, load_weights(Owner(1), tmp_path / name))
    target = Owner(2)
    load_weights(nn.DataParallel(target), tmp_path / name)
    assert same(source, target)


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, lambda model: torch.compile(nn.DataParallel(model), backend="eager")]
)
def test_a_submodule_that_is_called_module_is_found_in_what_others_saved_of_a_wrapper(wrap, tmp_path):
    source = Owner(0)
    torch.save(wrap(source).state_dict(), tmp_path / "w.pt")
    assert same(source, load_weights(Owner(1), tmp_path / "w.pt"))


def test_a_compiled_submodule_is_saved_under_its_own_name(tmp_path):
    source = make(0)
    names = list(source.state_dict())
    source[3] = torch.compile(source[3], backend="eager")
    save_weights(source, tmp_path / "w.pt")
    assert list(torch.load(tmp_path / "w.pt", weights_only=True)) == names
    target = make(1)
    target[0] = torch.compile(target[0], backend="eager")
    load_weights(target, tmp_path / "w.pt")
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))


def test_weights_that_do_not_fit_are_named_and_nothing_is_changed(tmp_path):
    path = save_weights(make(0, outputs=5), tmp_path / "w.pt")
    target, before = make(1), make(1)
    with pytest.raises(ModelError) as caught:
        load_weights(target, path)
    assert str(caught.value) == (
        f"the weights in {path} do not fit this Sequential\n"
        "  got: of another shape: 3.weight (5, 16) for (3, 16), 3.bias (5,) for (3,)\n"
        "  expected: its 9 weights, by name and shape\n"
        "  fix: build the model that they were saved from, or load those that fit with strict=False"
    )
    assert same(target, before)
    with pytest.warns(CvkitWarning, match=r"7 of 9 weights were loaded from .*; of another shape: 3.weight"):
        load_weights(target, path, strict=False)
    assert torch.equal(target[0].weight, make(0)[0].weight)
    assert torch.equal(target[3].weight, before[3].weight)


def test_missing_and_surplus_weights_are_named_and_long_lists_are_cut(tmp_path):
    torch.save({f"x{k}": torch.zeros(1) for k in range(7)}, tmp_path / "w.pt")
    with pytest.raises(ModelError) as caught:
        load_weights(make(), tmp_path / "w.pt", strict=False)  # nothing fits: that is never what was meant
    assert "missing: 0.weight, 0.bias, 1.weight, 1.bias and 5 more; not in the model: x0, x1, x2, x3 and 3 more" in str(
        caught.value
    )


def test_a_whole_pickled_model_is_refused_with_the_way_to_convert_it(tmp_path):
    torch.save(make(), tmp_path / "whole.pt")
    with pytest.raises(ModelError) as caught:
        load_weights(make(), tmp_path / "whole.pt")
    said = str(caught.value)
    assert said.startswith(
        f"the weights in {tmp_path / 'whole.pt'} cannot be used\n  got: pickled Python objects: torch.nn."
    )
    assert "reading it runs the code in it" in said
    conversion = said.partition("take its weights out once: ")[2].partition(", then ")[0]
    exec(conversion.replace("'weights.pt'", repr(str(tmp_path / "weights.pt"))))  # what is advised works
    assert same(make(), load_weights(make(1), tmp_path / "weights.pt"))


@pytest.mark.parametrize("name", ["w.pt", "sealed.pt"])
def test_a_flipped_bit_is_never_loaded(name, tmp_path):
    path, chance = tmp_path / name, random.Random(0)
    torch.save(make().state_dict(), path) if name == "w.pt" else save_weights(make(), path)
    data = path.read_bytes()
    for _ in range(60):
        changed = bytearray(data)
        changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        target = make(1)
        said = ""
        try:
            load_weights(target, path)
        except ModelError as error:
            said = str(error)
        # in a file of torch's there are bits that no reader looks at, such as the dates in an archive
        assert str(path) in said or (name == "w.pt" and same(make(), target))


@pytest.mark.parametrize("end", [0, 10, 100, -1])
def test_a_file_that_is_cut_off_is_refused(end, tmp_path):
    for name in ("w.pt", "w.safetensors"):
        path = tmp_path / name
        if name.endswith("safetensors"):
            pytest.importorskip("safetensors")
        save_weights(make(), path)
        path.write_bytes(path.read_bytes()[:end])
        with pytest.raises(ModelError, match=f"the weights in {path} cannot be used"):
            load_weights(make(), path)


def test_a_missing_file_says_what_is_beside_it(tmp_path):
    save_weights(make(), tmp_path / "a.pt")
    with pytest.raises(ModelError, match=r"got: no such file; beside it: a\.pt\n"):
        load_weights(make(), tmp_path / "b.pt")
    with pytest.raises(ModelError, match=r"cannot be used\n  got: IsADirectoryError"):
        load_weights(make(), tmp_path)


@pytest.mark.parametrize("content", [[1], {}, {"a": 1}, torch.zeros(3), "text"])
def test_what_holds_no_weights_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="expected: a state dict: a dictionary of tensors by name"):
        load_weights(make(), tmp_path / "w.pt")


def test_a_disk_that_does_not_take_it_leaves_the_old_file(tmp_path, monkeypatch):
    pytest.importorskip("safetensors")
    path = save_weights(make(0), tmp_path / "w.safetensors")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=f"cannot write the weights {path}\n  got: OSError: .*No space left"):
        save_weights(make(1), path)
    monkeypatch.undo()
    assert same(make(0), load_weights(make(1), path))
    assert os.listdir(tmp_path) == ["w.safetensors"]


def test_without_safetensors_the_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "safetensors.torch", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "cvkit\[safetensors\]"'):
        save_weights(make(), tmp_path / "w.safetensors")


def test_extra_state_that_is_no_tensor_goes_into_pt_only(tmp_path):
    pytest.importorskip("safetensors")

    class Counting(nn.Linear):
        count = 3

        def get_extra_state(self):
            return {"count": self.count}

        def set_extra_state(self, state):
            self.count = state["count"]

    source, target = Counting(2, 2), Counting(2, 2)
    source.count = 9
    assert load_weights(target, save_weights(source, tmp_path / "w.pt")).count == 9
    with pytest.raises(CheckpointError, match="'_extra_state' cannot go into a safetensors file\n  got: dict"):
        save_weights(source, tmp_path / "w.safetensors")


def test_pretrained_takes_the_same_files(tmp_path):
    pytest.importorskip("safetensors")
    source = cvkit.models.create("resnet9", num_classes=3, width=4)
    for name in ("w.pt", "w.safetensors"):
        path = save_weights(source, tmp_path / name)
        assert same(source, cvkit.models.create("resnet9", num_classes=3, width=4, pretrained=path))
