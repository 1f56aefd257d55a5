"""One file: round trip, atomic writing, damage refused, no code run."""

import builtins
import errno
import hashlib
import os
import pickle
import random
import shutil
import stat
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cvkit.errors import CheckpointError
from cvkit.serialization import archive as archive_
from cvkit.serialization import checkpoint as checkpoint_
from cvkit.training import load_checkpoint, save_checkpoint

DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int8,
    torch.uint8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.bool,
    torch.complex64,
]


def same(a, b):
    """Whether two contents are equal in type and bit by bit."""
    if isinstance(a, torch.Tensor):
        return (
            isinstance(b, torch.Tensor)
            and a.dtype == b.dtype
            and a.shape == b.shape
            and a.contiguous().reshape(-1).view(torch.uint8).equal(b.contiguous().reshape(-1).view(torch.uint8))
        )
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return repr(a) == repr(b) if isinstance(a, float) else a == b


@st.composite
def tensors(draw):
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    dtype = draw(st.sampled_from(DTYPES))
    count = int(np.prod(shape))
    raw = np.random.default_rng(draw(st.integers(0, 2**32))).integers(0, 256, 8 * (count + 1), dtype=np.uint8)
    if dtype is torch.bool:
        return torch.from_numpy(raw[:count]).reshape(shape) > 127
    return torch.from_numpy(raw).view(dtype)[:count].reshape(shape).clone()


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.binary(min_size=1) | st.text() | tensors()
keys = st.text(max_size=5) | st.integers()
contents = st.dictionaries(
    keys,
    st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(inner, max_size=3).map(tuple)
            | st.dictionaries(keys, inner, max_size=3)
        ),
        max_leaves=8,
    ),
    max_size=4,
)


@settings(max_examples=80)
@given(content=contents)
def test_what_goes_in_comes_out_bit_by_bit(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "round.pt"
    assert save_checkpoint(path, content) == path
    assert same(load_checkpoint(path), content)


@pytest.mark.parametrize("value", [b"\0\xff", "", "\ud800", -0.0, float("nan"), float("-inf"), 2**200, -(2**70)])
def test_plain_values_at_the_edge_come_back(tmp_path, value):
    path = save_checkpoint(tmp_path / "a.pt", {"v": value, 3: [value, (value,)]})
    assert same(load_checkpoint(path), {"v": value, 3: [value, (value,)]})


def test_tied_tensors_stay_tied_and_parameters_become_tensors(tmp_path):
    weight = torch.nn.Parameter(torch.randn(3))
    back = load_checkpoint(save_checkpoint(tmp_path / "a.pt", {"a": weight, "b": weight}))
    assert type(back["a"]) is torch.Tensor
    assert not back["a"].requires_grad
    back["a"][0] = 7
    assert back["b"][0] == 7


def test_any_mapping_becomes_a_plain_dict(tmp_path):
    back = load_checkpoint(save_checkpoint(tmp_path / "a.pt", OrderedDict(b=1, a=OrderedDict(c=2))))
    assert type(back) is dict
    assert type(back["a"]) is dict
    assert list(back) == ["b", "a"]


class Own:
    pass


@pytest.mark.parametrize(
    ("content", "where", "got"),
    [
        ({"a": Path("x")}, "content['a']", "pathlib._local.PosixPath|pathlib.PosixPath"),
        ({"a": {"b": [1, np.zeros(2)]}}, "content['a']['b'][1]", "numpy.ndarray"),
        ({"a": np.float64(1)}, "content['a']", "numpy.float64"),
        ({"a": {1: {2, 3}}}, "content['a'][1]", "builtins.set"),
        ({"a": (print,)}, "content['a'][0]", "builtins.builtin_function_or_method"),
        ({"a": torch.Size([1])}, "content['a']", "torch.Size"),
        ({"a": torch.float32}, "content['a']", "torch.dtype"),
        ({"a": Own()}, "content['a']", f"{Own.__module__}.Own"),
        ({"a": {1.5: 0}}, "content['a']: the key 1.5", "builtins.float"),
        ({True: 0}, "content: the key True", "builtins.bool"),
    ],
)
def test_any_other_type_is_refused_by_its_key(tmp_path, content, where, got):
    with pytest.raises(CheckpointError) as caught:
        save_checkpoint(tmp_path / "a.pt", content)
    assert str(caught.value) in [
        f"{where} cannot go into a checkpoint\n"
        f"  got: {one}\n"
        "  expected: nested dicts (keys str or int), lists and tuples of tensors, numbers, strings, bytes, booleans and None\n"
        "  fix: store what it is made of: str(path), array.tolist(), torch.from_numpy(array)"
        for one in got.split("|")
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_plain_torch_load_with_weights_only_reads_it(tmp_path):
    content = {"model": {"w": torch.arange(5)}, "training": {"step": 3, "name": "é"}}
    path = save_checkpoint(tmp_path / "a.pt", content)
    assert same(torch.load(path, weights_only=True), content)
    assert same(torch.load(path, weights_only=True, mmap=True), content)
    assert zipfile.is_zipfile(path)
    assert zipfile.ZipFile(path).testzip() is None


def test_the_directory_is_made_and_nothing_but_the_file_left(tmp_path):
    save_checkpoint(tmp_path / "x" / "y" / "a.pt", {"a": 1})
    save_checkpoint(str(tmp_path / "x" / "y" / "a.pt"), {"a": 2})
    assert [p.name for p in (tmp_path / "x" / "y").iterdir()] == ["a.pt"]
    assert load_checkpoint(str(tmp_path / "x" / "y" / "a.pt")) == {"a": 2}


def test_the_file_is_flushed_before_it_is_renamed_and_the_directory_after(tmp_path, monkeypatch):
    log = []
    fsync, replace, verify = os.fsync, os.replace, checkpoint_._verify

    def fake_fsync(fd):
        log.append("fsync directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "fsync file")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", fake_fsync)
    monkeypatch.setattr(os, "replace", lambda *a: (log.append("replace"), replace(*a)))
    monkeypatch.setattr(checkpoint_, "_verify", lambda path: (log.append("verify"), verify(path)))
    save_checkpoint(tmp_path / "a.pt", {"a": torch.zeros(3)})
    assert log == ["fsync file", "verify", "replace", "fsync directory"]


def _no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


class _FullDisk:
    """A file that takes so many bytes and no more."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        self.room -= len(bytes(data))
        if self.room < 0:
            _no_space()
        return self.file.write(data)

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)


def _break(monkeypatch, fault):
    if fault == "replace":
        monkeypatch.setattr(os, "replace", _no_space)
    elif fault == "fsync":
        monkeypatch.setattr(os, "fsync", _no_space)
    elif fault == "torch.save":
        monkeypatch.setattr(torch, "save", _no_space)
    elif fault == "runtime":

        def refuse(*args):
            raise RuntimeError("PytorchStreamWriter failed writing file data/0")

        monkeypatch.setattr(torch, "save", refuse)
    else:
        real, room = builtins.open, int(fault.removeprefix("write after "))

        def full(file, mode="r", *args, **kwargs):
            opened = real(file, mode, *args, **kwargs)
            return _FullDisk(opened, room) if mode == "xb" else opened

        monkeypatch.setattr(builtins, "open", full)


FAULTS = ["replace", "fsync", "torch.save", "runtime", "write after 0", "write after 300", "write after 5000"]


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_disk_that_does_not_take_it_leaves_the_old_file(tmp_path, monkeypatch, fault, before):
    path = tmp_path / "last.pt"
    if before:
        save_checkpoint(path, {"old": torch.arange(10)})
    with monkeypatch.context() as patch:
        _break(patch, fault)
        with pytest.raises(CheckpointError) as caught:
            save_checkpoint(path, {"new": torch.randn(2000)})
    said = str(caught.value)
    assert said.startswith(f"cannot write the checkpoint {path}\n  got: ")
    assert f"the file before it is {'untouched' if before else 'not there'}" in said
    assert caught.value.__cause__ is not None
    assert [p.name for p in tmp_path.iterdir()] == (["last.pt"] if before else [])
    if before:
        assert same(load_checkpoint(path), {"old": torch.arange(10)})


def test_what_was_not_written_as_meant_is_noticed_before_the_rename(tmp_path, monkeypatch):
    path = save_checkpoint(tmp_path / "a.pt", {"a": 1})
    replaced, save = [], torch.save

    def torn(content, file):
        save(content, file)
        file.file.flush()
        with open(file.file.name, "r+b") as other:  # the disk keeps other bytes than it was given
            other.seek(60)
            other.write(b"\xaa\xbb\xcc")

    monkeypatch.setattr(torch, "save", torn)
    monkeypatch.setattr(os, "replace", lambda *args: replaced.append(args))
    with pytest.raises(CheckpointError):
        save_checkpoint(path, {"a": 2})
    assert replaced == []
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_an_interrupt_while_writing_leaves_no_temporary(tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "a.pt", {"a": 1})
    assert list(tmp_path.iterdir()) == []


def test_a_content_refused_leaves_the_old_file(tmp_path):
    path = save_checkpoint(tmp_path / "a.pt", {"a": 1})
    with pytest.raises(CheckpointError, match=r"content\['a'\]"):
        save_checkpoint(path, {"a": Own()})
    assert load_checkpoint(path) == {"a": 1}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "sound.pt"
    generator = torch.Generator().manual_seed(0)
    return save_checkpoint(path, {"model": {"w": torch.randn(40, generator=generator)}, "training": {"step": 3}})


def test_every_flipped_bit_is_refused_by_name(tmp_path, sound):
    data, chance = sound.read_bytes(), random.Random(0)
    places = [0, 1, len(data) // 2, len(data) - 1, len(data) - 64, len(data) - 77, len(data) - 78, len(data) - 79]
    places += [chance.randrange(len(data)) for _ in range(60)]
    path = tmp_path / "flipped.pt"
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(path)
        assert str(path) in str(caught.value), place


def test_every_truncation_and_extension_is_refused_by_name(tmp_path, sound):
    data, chance = sound.read_bytes(), random.Random(1)
    path = tmp_path / "cut.pt"
    for length in [0, 1, 76, 77, 78, 79, 100, len(data) - 1, *(chance.randrange(len(data)) for _ in range(40))]:
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(path)
        assert str(path) in str(caught.value), length
    for more in (b"\0", b"\n", data):
        path.write_bytes(data + more) if more != data else path.write_bytes(data[:50] + data)
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(path)
        assert str(path) in str(caught.value)


def test_a_swapped_block_is_refused(tmp_path, sound):
    data = bytearray(sound.read_bytes())
    data[200:264], data[264:328] = data[264:328], data[200:264]
    path = tmp_path / "swapped.pt"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=f"^the checkpoint {path} is damaged\n"):
        load_checkpoint(path)


def test_a_file_that_cvkit_did_not_write_is_refused_with_advice(tmp_path):
    path = tmp_path / "foreign.pt"
    torch.save({"model": {}}, path)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert str(caught.value) == (
        f"{path} is no whole checkpoint of cvkit's\n"
        f"  got: {path.stat().st_size} bytes that do not end in a checksum\n"
        "  expected: a file written by a Checkpoint callback or save_checkpoint, complete to its last byte\n"
        "  fix: use another checkpoint of the run; plain weights load with cvkit.load_weights(model, path)"
    )


class Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def sealed(path, content):
    """Writes anything torch.save takes under a right checksum, as somebody who knows the format would."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_, "plain", lambda content, where="": content)
        return save_checkpoint(path, content)


@pytest.mark.parametrize("seal", [True, False])
def test_code_in_a_file_is_refused_and_never_run(tmp_path, seal):
    marker, path = tmp_path / "marker", tmp_path / "hostile.pt"
    content = {"model": Hostile(marker)}
    sealed(path, content) if seal else torch.save(content, path)
    with pytest.raises(CheckpointError, match=str(path)):
        load_checkpoint(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)  # the file is indeed hostile
    assert marker.exists()


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(2), 3])
def test_a_sealed_file_that_is_no_dict_is_refused(tmp_path, content):
    path = sealed(tmp_path / "a.pt", content)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(f"{path} holds no checkpoint\n  got: {type(content).__name__}")


def reseal(archive: bytes) -> bytes:
    """Puts a right digest under changed bytes."""
    body = archive[: -(archive_.COMMENT + 2)]
    digest = hashlib.sha256(body + b"\0\0").hexdigest().encode()
    return body + archive_.COMMENT.to_bytes(2, "little") + archive_.MAGIC + digest


def test_garbage_under_a_right_checksum_is_refused_by_name_or_read(tmp_path, sound):
    data, chance, path = sound.read_bytes(), random.Random(2), tmp_path / "garbage.pt"
    assert reseal(data) == data
    for _ in range(150):
        changed = bytearray(data)
        for _ in range(chance.choice([1, 3, 40])):
            changed[chance.randrange(len(data) - 79)] = chance.randrange(256)
        path.write_bytes(reseal(bytes(changed)))
        try:
            said = type(load_checkpoint(path)).__name__
        except CheckpointError as error:
            said = str(error)
        assert said == "dict" or str(path) in said


@pytest.mark.parametrize(
    "stream", [b".", b"", b"\x80\x02K\x01\x85R.", b"\x80\x02].", b"\x80\x02h\x05.", b"\x80\x02](K\x01u."]
)
def test_a_broken_pickle_under_a_right_checksum_is_refused_by_name(tmp_path, stream):
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", stream)
        archive.writestr("archive/version", "3\n")
    path.write_bytes(reseal(path.read_bytes() + b" " * archive_.COMMENT))
    with pytest.raises(CheckpointError, match=str(path)):
        load_checkpoint(path)


@pytest.mark.parametrize("kind", ["hostile", "unknown class"])
def test_the_refusal_of_such_a_file_gives_no_advice_to_run_it(tmp_path, kind):
    inside = Hostile(tmp_path / "marker") if kind == "hostile" else OrderedDict(a=Path("x"))
    path = sealed(tmp_path / "a.pt", {"model": inside})
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert "\x1b" not in str(caught.value)  # no terminal codes
    assert "can still be loaded" not in str(caught.value)


def test_a_missing_file_says_what_is_beside_it(tmp_path):
    save_checkpoint(tmp_path / "last.pt", {})
    save_checkpoint(tmp_path / "best.pt", {})
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "lst.pt")
    assert str(caught.value) == (
        f"there is no checkpoint {tmp_path / 'lst.pt'}\n"
        "  got: beside it: best.pt, last.pt\n"
        "  expected: a file that a Checkpoint callback or save_checkpoint wrote\n"
        "  fix: check the path"
    )


@pytest.mark.parametrize("place", ["a.pt", "nowhere/a.pt"])
def test_a_missing_file_in_an_empty_place_says_so(tmp_path, place):
    path = tmp_path / place
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert f"  got: no .pt file in {path.parent}\n" in str(caught.value)


def test_a_directory_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=f"cannot read the checkpoint {tmp_path}\n  got: a directory\n"):
        load_checkpoint(tmp_path)
    for name in ("last.pt", "best.pt"):
        save_checkpoint(tmp_path / name, {})
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path)
    assert str(caught.value) == (
        f"cannot read the checkpoint {tmp_path}\n  got: a directory with best.pt, last.pt\n"
        f"  expected: a file\n  fix: pass {str(tmp_path / 'best.pt')!r}"
    )


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user whom permissions hold back")
def test_what_may_not_be_written_or_read_is_refused_by_name(tmp_path):
    path = save_checkpoint(tmp_path / "d" / "a.pt", {"a": 1})
    path.parent.chmod(0o500)
    try:
        with pytest.raises(CheckpointError, match=f"cannot write the checkpoint {path}\n  got: PermissionError"):
            save_checkpoint(path, {"a": 2})
    finally:
        path.parent.chmod(0o700)
    assert load_checkpoint(path) == {"a": 1}
    path.chmod(0)
    with pytest.raises(CheckpointError, match=f"cannot read the checkpoint {path}\n  got: PermissionError"):
        load_checkpoint(path)


@pytest.mark.parametrize("call", ["open", "mkdir"])
def test_a_permission_refused_is_a_checkpoint_error(tmp_path, monkeypatch, call):
    path = tmp_path / "d" / "a.pt"

    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(*((builtins, "open", refuse) if call == "open" else (Path, "mkdir", refuse)))
    with pytest.raises(CheckpointError, match=f"cannot write the checkpoint {path}\n  got: PermissionError"):
        save_checkpoint(path, {"a": 1})


def test_tensors_go_where_they_are_asked_to(tmp_path):
    path = save_checkpoint(tmp_path / "a.pt", {"a": torch.ones(2)})
    assert load_checkpoint(path, map_location="meta")["a"].is_meta
    assert load_checkpoint(path, map_location=torch.device("cpu"))["a"].device.type == "cpu"


def test_a_copy_of_the_file_is_as_good(tmp_path, sound):
    copied = shutil.copy(sound, tmp_path / "copy.pt")
    assert same(load_checkpoint(copied), load_checkpoint(sound))


def test_old_protocols_are_no_way_in(tmp_path):
    path = tmp_path / "old.pt"
    path.write_bytes(pickle.dumps({"model": {}}))
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize(("value", "shown"), [(b"", "empty bytes"), (2**2001, "an integer of 2002 bits")])
def test_what_could_not_be_read_back_is_refused_before_it_is_written(tmp_path, value, shown):
    with pytest.raises(CheckpointError, match=rf"content\['a'\] cannot be read back from a checkpoint\n  got: {shown}"):
        save_checkpoint(tmp_path / "a.pt", {"a": value})
    assert list(tmp_path.iterdir()) == []
