"""Samples inside tar files: what is read is what was written, what cannot be right is refused by name."""

import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cvkit.data import (
    ArrayDataset,
    FolderDataset,
    Loader,
    ParallelDataset,
    ShardDataset,
    Subset,
    TableDataset,
    concat,
    split,
    write_shapes,
    write_shards,
)
from cvkit.data.datasets.base import is_deterministic
from cvkit.errors import ArgumentError, DataError, ImageError


def png(level=0, size=(6, 4)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (level,) * 3).save(buffer, "png")
    return buffer.getvalue()


def member(tar, name, data=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    tar.addfile(info, io.BytesIO(data))


def shard(path, samples, ending="cls", form=tarfile.PAX_FORMAT):
    """Writes a shard of ``(key, level, label)``."""
    with tarfile.open(path, "w", format=form) as tar:
        for key, level, label in samples:
            member(tar, f"{key}.png", png(level))
            member(tar, f"{key}.{ending}", str(label).encode())
    return path


@pytest.fixture
def two(tmp_path):
    shard(tmp_path / "train-000.tar", [("a/0", 0, "ant"), ("a/1", 10, "bee"), ("b/2", 20, "cat")])
    shard(tmp_path / "train-001.tar", [("a/0", 30, "ant"), ("a/4", 40, "bee"), ("b/5", 50, "cat")])
    return tmp_path


@pytest.fixture
def shapes(tmp_path):
    write_shapes(tmp_path / "shapes", per_class=7, size=20)
    return FolderDataset(tmp_path / "shapes")


def text(error):
    return str(error.value)


# --- the contract of every adapter


def test_it_says_what_it_holds(two):
    data = ShardDataset(two / "train-*.tar")
    assert (len(data), data.classes, data.root, data.shards) == (
        6,
        ["ant", "bee", "cat"],
        two,
        [str(two / "train-000.tar"), str(two / "train-001.tar")],
    )
    assert data.targets == [0, 1, 2, 0, 1, 2]
    assert data.targets != [0, 1, 2, 0, 1, 1]
    assert np.asarray(data.targets).tolist() == data.targets.tolist() == list(data.targets)
    assert list(data.paths) == [
        *(f"train-000.tar/{name}.png" for name in ("a/0", "a/1", "b/2")),
        *(f"train-001.tar/{name}.png" for name in ("a/0", "a/4", "b/5")),
    ]
    assert data.paths[1:3] == ["train-000.tar/a/1.png", "train-000.tar/b/2.png"]
    assert [image.getpixel((0, 0))[0] for image, _ in data] == [0, 10, 20, 30, 40, 50]
    assert [target for _, target in data] == data.targets.tolist()
    assert data.size(4) == (6, 4)
    assert is_deterministic(data)
    assert repr(data) == "ShardDataset(2 shards, 6 images, 3 classes)"
    assert data.block_ends.tolist() == [3, 6]
    assert data[-1][0].getpixel((0, 0)) == (50, 50, 50)
    for wrong in (6, -7):
        with pytest.raises(IndexError, match=rf"^index {wrong} of 6 paths$"):
            data[wrong]
        with pytest.raises(IndexError, match=rf"^index {wrong} of 6 paths$"):
            data.paths[wrong]


@pytest.mark.parametrize(
    "pattern", ["train-{000..001}.tar", "train-00?.tar", ["train-000.tar", "train-001.tar"], "train-{0..1}.tar"]
)
def test_a_pattern_may_be_a_glob_a_range_or_a_list(two, pattern, monkeypatch):
    if pattern == "train-{0..1}.tar":
        for number in (0, 1):
            (two / f"train-00{number}.tar").rename(two / f"train-{number}.tar")
    monkeypatch.chdir(two)
    data = ShardDataset(pattern)
    assert data.targets == [0, 1, 2, 0, 1, 2]
    assert data.root == two


def test_it_can_be_pickled_and_takes_no_array_along(two):
    data = ShardDataset(two / "train-*.tar")
    list(data), list(data.targets)
    assert len(pickle.dumps(data)) < 4_000
    other = pickle.loads(pickle.dumps(data))
    assert (other.targets, list(other.paths), other.fingerprint) == (data.targets, list(data.paths), data.fingerprint)


def test_the_fingerprint_sees_each_change_and_not_where_it_lies_or_when_it_was_written(tmp_path):
    base = [("0", 0, "ant"), ("1", 10, "bee"), ("2", 20, "cat")]
    ways = {
        "base": base,
        "a key": [("0", 0, "ant"), ("7", 10, "bee"), ("2", 20, "cat")],
        "a target": [("0", 0, "ant"), ("1", 10, "cat"), ("2", 20, "cat"), ("3", 1, "bee")][:4],
        "a class": [("0", 0, "ant"), ("1", 10, "dog"), ("2", 20, "cat")],
        "the order": base[::-1],
    }
    seen = set()
    for way, samples in ways.items():
        (tmp_path / way).mkdir()
        seen.add(ShardDataset(shard(tmp_path / way / "s.tar", samples)).fingerprint)
    assert len(seen) == len(ways)
    (tmp_path / "again").mkdir()
    path = shard(tmp_path / "again" / "s.tar", base)
    os.utime(path, (1, 1))
    assert ShardDataset(path).fingerprint in seen
    assert ShardDataset(path, classes=["cat", "bee", "ant"]).fingerprint not in seen
    code = f"from cvkit.data import ShardDataset; print(ShardDataset({str(path)!r}).fingerprint)"
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip() in seen


def test_parts_of_it_and_several_of_them_are_datasets_too(two):
    data = ShardDataset(two / "train-*.tar")
    part = Subset(data, [4, 1])
    assert (part.targets, part.paths) == ([1, 1], ["train-001.tar/a/4.png", "train-000.tar/a/1.png"])
    assert part.read(0)[0].getpixel((0, 0)) == (40, 40, 40)
    train, held = split(data, 0.5)
    assert sorted(train.indices + held.indices) == list(range(6))
    both = concat(data, ShardDataset(two / "train-000.tar", classes=["cat", "bee", "ant"]))
    assert both.targets == [0, 1, 2, 0, 1, 2, 0, 1, 2]
    assert both.verify().count == 9


def test_every_loader_that_takes_files_takes_shards(two):
    data = ShardDataset(two / "train-*.tar")
    ways = [{"workers": 0}, {"workers": 2, "start_method": "fork"}, {"workers": 0, "cache": "ram"}]
    for shuffle in (True, "blocks", "computed"):
        made = [
            [(images.tolist(), targets.tolist()) for images, targets in Loader(data, 4, shuffle=shuffle, **way)]
            for way in ({"cache": None} | way for way in ways)
        ]
        assert made[0] == made[1] == made[2]
    assert Loader(data, 4, weights="balanced").weights.tolist() == [0.5] * 6


def test_verify_counts_all_and_names_what_is_damaged(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for key, data in (("0", png()), ("1", b"no image"), ("2", png()[:45])):
            member(tar, f"{key}.png", data)
            member(tar, f"{key}.cls", b"0")
    data = ShardDataset(tmp_path / "s.tar")
    found = data.verify()
    assert (found.count, list(found.bad)) == (3, ["s.tar/1.png", "s.tar/2.png"])
    with pytest.raises(ImageError) as caught:
        data[1]
    assert text(caught).splitlines()[0] == f"sample 1: cannot decode the image {tmp_path}/s.tar/1.png"
    loader = Loader(ShardDataset(tmp_path / "s.tar", on_error="skip"), 3, workers=0, cache=None)
    assert [len(targets) for _, targets in loader] == [1]
    assert sorted(loader.skipped) == [1, 2]


def test_verify_looks_at_jpegs_strictly(tmp_path):
    pytest.importorskip("simplejpeg")
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "jpeg")
    sound = buffer.getvalue()
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for key, data in (("0", sound), ("1", sound[:-2] + bytes(100) + sound[-2:])):
            member(tar, f"{key}.jpg", data)
            member(tar, f"{key}.cls", b"0")
    found = ShardDataset(tmp_path / "s.tar").verify(strict=True)
    assert list(found.bad) == ["s.tar/1.jpg"]
    assert found.bad["s.tar/1.jpg"].startswith(f"the JPEG {tmp_path}/s.tar/1.jpg is damaged\n")


# --- labels


def test_labels_that_are_numbers_number_the_classes(tmp_path):
    path = shard(tmp_path / "s.tar", [("0", 0, 2), ("1", 1, 0), ("2", 2, 2)])
    data = ShardDataset(path)
    assert (data.classes, data.targets) == (["0", "1", "2"], [2, 0, 2])
    named = ShardDataset(path, classes=["ant", "bee", "cat"])
    assert (named.classes, named.targets) == (["ant", "bee", "cat"], [2, 0, 2])
    with pytest.raises(DataError) as caught:
        ShardDataset(path, classes=["ant", "bee"])
    assert text(caught) == (
        f"a label is no number of a class\n  got: 2 (in {path} or a later shard)\n  expected: an integer from 0 to 1\n"
        "  fix: name all classes: classes=[…]"
    )


def test_a_label_that_classes_lack_is_refused(two):
    with pytest.raises(DataError, match=r"^2 labels are no known class: cat\n"):
        ShardDataset(two / "train-*.tar", classes=["ant", "bee"])


def test_a_label_is_a_text_or_a_field_of_json(tmp_path):
    samples = [("0", 0, json.dumps({"label": "bee", "id": 4})), ("1", 1, json.dumps({"label": "ant", "id": 5}))]
    path = shard(tmp_path / "s.tar", samples, "json")
    assert (ShardDataset(path).classes, ShardDataset(path).targets) == (["ant", "bee"], [1, 0])
    numbers = ShardDataset(path, kind="value", label="id")
    assert (numbers.classes, numbers.targets) == (None, [4.0, 5.0])
    assert torch.equal(numbers[1][1], torch.tensor(5.0))
    with pytest.raises(DataError) as caught:
        ShardDataset(path, label="class")
    assert text(caught) == (
        f"the target {path}/0.json cannot be used\n  got: KeyError: 'class'\n"
        "  expected: one line of text or an integer in its field 'class'\n"
        "  fix: name the part and the field that hold the target: target='json', label='…'"
    )
    lists = shard(tmp_path / "l.tar", [("0", 0, "[1, 2.5]"), ("1", 1, "[3, 4]")], "json")
    assert ShardDataset(lists, kind="value").targets == [[1.0, 2.5], [3.0, 4.0]]


@pytest.mark.parametrize("label", ["", "a\nb", "\xff"])
def test_a_label_that_is_none_is_refused(tmp_path, label):
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        member(tar, "0.png", png())
        member(tar, "0.cls", label.encode("latin-1"))
    with pytest.raises(DataError, match=r"^the target .*s\.tar/0\.cls cannot be used\n"):
        ShardDataset(tmp_path / "s.tar")


# --- hostile and damaged shards


HOSTILE = {
    "a link": (lambda tar: member(tar, "1.png", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "'1.png'", "a link"),
    "a hard link": (lambda tar: member(tar, "1.png", type=tarfile.LNKTYPE, linkname="0.png"), "'1.png'", "a link"),
    "a pipe": (lambda tar: member(tar, "1.png", type=tarfile.FIFOTYPE), "'1.png'", "a device"),
    "absolute": (lambda tar: member(tar, "/1.png", png()), "'/1.png'", "a name that leads outside"),
    "outside": (lambda tar: member(tar, "a/../../1.png", png()), "'a/../../1.png'", "a name that leads outside"),
    "no ending": (lambda tar: member(tar, "README", b"x"), "'README'", "a name without an ending"),
    "twice": (lambda tar: member(tar, "0.cls", b"1"), "'0.cls'", "a name that comes twice"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_member_is_refused_by_name(tmp_path, case):
    add, name, got = HOSTILE[case]
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        member(tar, "0.png", png())
        member(tar, "0.cls", b"0")
        add(tar)
    with pytest.raises(DataError) as caught:
        ShardDataset(tmp_path / "s.tar")
    first, second, *_ = text(caught).splitlines()
    assert first == f"the shard {tmp_path}/s.tar holds {name}, which cannot be used"
    assert second == f"  got: {got}"


def test_a_sample_whose_files_lie_apart_is_refused(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name, data in (("0.png", png()), ("0.cls", b"0"), ("1.png", png()), ("1.cls", b"0"), ("0.txt", b"x")):
            member(tar, name, data)
    with pytest.raises(
        DataError, match=r"holds '0.txt', which cannot be used\n  got: a sample whose files do not lie together\n"
    ):
        ShardDataset(tmp_path / "s.tar")


def test_samples_that_lack_a_part_or_have_two_images_are_named(tmp_path):
    path = shard(tmp_path / "s.tar", [("0", 0, 1)])
    with tarfile.open(path, "a") as tar:
        member(tar, "1.png", png())
        member(tar, "2.cls", b"0")
    with pytest.raises(DataError) as caught:
        ShardDataset(path)
    assert text(caught).splitlines()[0] == (
        f"the shard {path} holds 2 samples without an image or without a target: 1, 2"
    )
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for name, data in (("0.png", png(7)), ("0.jpg", b"x"), ("0.cls", b"0")):
            member(tar, name, data)
    with pytest.raises(
        DataError, match=r"holds several images of the sample 0\n  got: png, jpg\n.*\n  fix: .*image='png'"
    ):
        ShardDataset(tmp_path / "t.tar")
    assert ShardDataset(tmp_path / "t.tar", image=".png")[0][0].getpixel((0, 0)) == (7, 7, 7)


def test_hidden_files_folders_and_long_names_are_no_trouble(tmp_path):
    deep = "folder/" * 30 + "0"
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(tmp_path / "s.tar", "w", format=form) as tar:
            member(tar, "folder", type=tarfile.DIRTYPE)
            member(tar, "folder/._0.png", b"x")
            member(tar, "__notes__", b"x")
            member(tar, f"{deep}.PNG", png(9))
            member(tar, f"{deep}.cls", b"0")
        data = ShardDataset(tmp_path / "s.tar")
        assert list(data.paths) == [f"s.tar/{deep}.png"]
        assert data[0][0].getpixel((0, 0)) == (9, 9, 9)


@pytest.mark.parametrize("cut", [100, 512, 1_000, 1_536, 2_560])
def test_a_truncated_shard_is_refused_wherever_it_ends(tmp_path, cut):
    path = shard(tmp_path / "s.tar", [("0", 0, 1), ("1", 1, 1)])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=rf"^the shard {path} is no whole tar file\n"):
        ShardDataset(path, target="cls")


def test_a_shard_that_was_compressed_joined_or_overwritten_is_refused(tmp_path):
    path = shard(tmp_path / "s.tar", [("0", 0, 1), ("1", 1, 1)])
    sound = path.read_bytes()
    with tarfile.open(tmp_path / "z.tar", "w:gz") as tar:
        member(tar, "0.png", png())
    with pytest.raises(DataError, match=r"z\.tar is no whole tar file\n"):
        ShardDataset(tmp_path / "z.tar", target="cls")
    path.write_bytes(sound + sound)
    with pytest.raises(DataError, match="holds data behind its end\n"):
        ShardDataset(path)
    damaged = bytearray(sound)
    damaged[512 * 4] ^= 1  # the name of the third file
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"s\.tar is no whole tar file\n  got: a header that is none at byte 2,048\n"):
        ShardDataset(path)


def test_no_shard_and_a_missing_one_are_told(tmp_path):
    with pytest.raises(DataError, match=r"^no shard matches .*x-\*\.tar\n"):
        ShardDataset(tmp_path / "x-*.tar")
    with pytest.raises(DataError, match=r"^cannot read the shard .*x\.tar\n  got: FileNotFoundError: "):
        ShardDataset(tmp_path / "x.tar", target="cls")
    with pytest.raises(ArgumentError, match=r"^pattern cannot be used\n"):
        ShardDataset([tmp_path / "x.tar", "memory://x.tar"])
    with pytest.raises(ArgumentError, match=r"^unknown kind 'mask'"):
        ShardDataset(tmp_path / "x.tar", kind="mask")


# --- the index


def indexes(folder):
    return sorted(folder.glob("*.index"))


def test_an_index_is_built_once_and_again_when_the_shard_changes(two, monkeypatch):
    first = ShardDataset(two / "train-*.tar")
    assert len(indexes(two)) == 2
    times = [path.stat().st_mtime_ns for path in indexes(two)]
    ShardDataset(two / "train-*.tar")
    assert [path.stat().st_mtime_ns for path in indexes(two)] == times
    shard(two / "train-001.tar", [("a/0", 60, "bee")])
    with pytest.raises(ImageError) as caught:
        first[3]
    assert text(caught).splitlines()[0] == f"sample 3: the shard {two}/train-001.tar has changed since it was indexed"
    again = ShardDataset(two / "train-*.tar")
    assert (again.targets, again[3][0].getpixel((0, 0))) == ([0, 1, 2, 1], (60, 60, 60))


def test_another_part_as_target_has_an_index_of_its_own(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name, data in (("0.png", png()), ("0.cls", b"3"), ("0.txt", b"ant")):
            member(tar, name, data)
    assert ShardDataset(tmp_path / "s.tar").targets == [3]
    assert ShardDataset(tmp_path / "s.tar", target="txt").classes == ["ant"]
    assert len(indexes(tmp_path)) == 2


def test_a_damaged_index_is_built_anew_or_refused(two):
    ShardDataset(two / "train-000.tar")
    path = indexes(two)[0]
    sound = path.read_bytes()
    for damaged in (sound[:30], b"", sound[:40] + b"\0" + sound[41:]):
        path.write_bytes(damaged)
        assert ShardDataset(two / "train-000.tar").targets == [0, 1, 2]
        assert path.read_bytes() == sound
    path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    with pytest.raises(DataError, match=rf"^the index {path} is damaged\n"):
        list(ShardDataset(two / "train-000.tar").targets)


def test_an_index_that_does_not_fit_the_bytes_is_noticed_at_each_sample(two):
    data = ShardDataset(two / "train-000.tar")
    path, other = two / "train-000.tar", two / "other.tar"
    stat = path.stat()
    shard(other, [("a/9", 0, "ant"), ("a/1", 10, "bee"), ("b/2", 20, "cat")])
    path.write_bytes(other.read_bytes())
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as a copy that keeps times does
    with pytest.raises(ImageError, match=r"has changed since it was indexed\n  got: a/9.png of"):
        data[0]


def test_an_index_goes_to_the_cache_where_the_folder_cannot_be_written_to(two, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    from cvkit.data.datasets import shard_set

    real = shard_set.written
    monkeypatch.setattr(shard_set, "written", lambda path, data: "cache" in path and real(path, data))
    data = ShardDataset(two / "train-*.tar")
    assert indexes(two) == []
    assert len(indexes(tmp_path / "cache/cvkit/shards")) == 2
    assert data.targets == [0, 1, 2, 0, 1, 2]
    monkeypatch.setattr(shard_set, "written", lambda path, data: False)
    for path in indexes(tmp_path / "cache/cvkit/shards"):
        path.unlink()
    with pytest.raises(DataError, match="can be kept nowhere\n"):
        ShardDataset(two / "train-000.tar")


# --- writing


def same_samples(one, other):
    return len(one) == len(other) and all(
        a.tobytes() == b.tobytes() and s == t for (a, s), (b, t) in zip(one, other, strict=True)
    )


def test_what_is_written_is_what_was_there_byte_for_byte(shapes, tmp_path):
    manifest = write_shards(shapes, tmp_path / "out", samples_per_shard=8, shuffle=False)
    assert json.loads(manifest.read_text())["classes"] == shapes.classes
    data = ShardDataset(tmp_path / "out/shard-*.tar")
    assert [len(shapes), len(data.shards)] == [21, 3]
    assert (data.classes, data.targets) == (shapes.classes, shapes.targets)
    assert same_samples(data, shapes)
    assert all(data.source(i)[0] == (shapes.root / shapes.paths[i]).read_bytes() for i in range(21))
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if "index" not in path.name) == [
        *(f"shard-00000{number}.tar" for number in range(3)),
        "shards.json",
    ]
    assert len(indexes(tmp_path / "out")) == 3
    reversed_ = ShardDataset(tmp_path / "out/shard-*.tar", classes=shapes.classes[::-1])
    assert reversed_.targets == [2 - target for target in shapes.targets]


def test_shards_are_mixed_unless_told_otherwise(shapes, tmp_path):
    write_shards(shapes, tmp_path / "out", samples_per_shard=7)
    data = ShardDataset(tmp_path / "out/*.tar")
    assert sorted(data.targets) == shapes.targets
    assert all(len(set(data.targets[start : start + 7])) > 1 for start in (0, 7, 14))
    keys = [int(Path(path).stem) for path in data.paths]
    assert sorted(keys) == list(range(21))
    assert all(shapes.targets[key] == target for key, target in zip(keys, data.targets))


class Failing:
    """A dataset that can be read so many times."""

    def __init__(self, dataset, reads):
        self.dataset, self.reads, self.fingerprint = dataset, reads, dataset.fingerprint
        self.targets, self.classes = dataset.targets, dataset.classes

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        self.reads -= 1
        if self.reads < 0:
            raise KeyboardInterrupt
        return self.dataset[index]


@pytest.mark.parametrize("reads", [0, 5, 8, 9, 20])
def test_writing_goes_on_where_it_was_stopped_and_ends_with_the_same_bytes(shapes, tmp_path, reads):
    write_shards(Failing(shapes, 99), tmp_path / "whole", samples_per_shard=4)
    failing = Failing(shapes, reads)
    with pytest.raises(KeyboardInterrupt):
        write_shards(failing, tmp_path / "out", samples_per_shard=4)
    assert not (tmp_path / "out/shards.json").exists()
    done = len(list((tmp_path / "out").glob("shard-*.tar")))
    assert done == reads // 4
    failing.reads = 21 - 4 * done
    write_shards(failing, tmp_path / "out", samples_per_shard=4)
    for name in ["shards.json", *(f"shard-{number:06d}.tar" for number in range(6))]:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert list((tmp_path / "out").glob(".*")) == []
    write_shards(failing, tmp_path / "out", samples_per_shard=4)  # which reads nothing: all is there


def test_shards_of_something_else_are_not_mixed_up(shapes, tmp_path):
    write_shards(shapes, tmp_path / "out", samples_per_shard=8)
    with pytest.raises(DataError, match=r"out holds shards of something else\n"):
        write_shards(shapes, tmp_path / "out", samples_per_shard=9)
    shard(tmp_path / "mine.tar", [("0", 0, 0)])
    with pytest.raises(DataError, match=r"holds tar files already\n  got: 1 files, e\.g\. mine\.tar\n"):
        write_shards(shapes, tmp_path)
    with pytest.raises(ArgumentError, match=r"^samples_per_shard cannot be used\n"):
        write_shards(shapes, tmp_path / "new", samples_per_shard=0)


def test_any_adapter_can_be_written(shapes, tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
    arrays = ArrayDataset(levels, [0, 1, 0, 1, 1], classes=["no", "yes"])
    rows = [{"image": path, "label": index / 4} for index, path in enumerate(shapes.paths)]
    values = TableDataset(rows, root=shapes.root, kind="value")
    part, joined = Subset(shapes, [20, 3, 3]), concat(shapes, shapes)
    for number, (data, kind) in enumerate(((arrays, "class"), (values, "value"), (part, "class"), (joined, "class"))):
        write_shards(data, tmp_path / str(number), samples_per_shard=4, shuffle=False)
        read = ShardDataset(tmp_path / str(number) / "*.tar", kind=kind)
        assert read.classes == (data.classes if kind == "class" else None)
        assert same_samples(read, [(image, target) for image, target in data])


def test_masks_are_not_written(tmp_path):
    write_shapes(tmp_path / "masks", per_class=1, layout="mask")
    with pytest.raises(ArgumentError, match=r"^the target of sample 0 cannot be written into a shard\n"):
        write_shards(ParallelDataset(tmp_path / "masks/images", tmp_path / "masks/masks", "mask"), tmp_path / "out")


# --- the neighbour whose layout it is


def test_webdataset_reads_our_shards_and_we_read_theirs(shapes, tmp_path):
    wds = pytest.importorskip("webdataset")
    write_shards(shapes, tmp_path / "ours", samples_per_shard=8, shuffle=False)
    urls = sorted(map(str, (tmp_path / "ours").glob("*.tar")))
    theirs = list(wds.WebDataset(urls, shardshuffle=False, empty_check=False).decode("pil").to_tuple("png", "cls"))
    assert same_samples([(image.convert("RGB"), target) for image, target in theirs], shapes)
    with wds.TarWriter(str(tmp_path / "theirs.tar")) as sink:
        for index, (image, target) in enumerate(shapes):
            sink.write({"__key__": f"sample{index:04d}", "png": image, "cls": target, "json": {"id": index}})
    read = ShardDataset(tmp_path / "theirs.tar")
    assert read.targets == shapes.targets
    assert same_samples(read, shapes)
    assert ShardDataset(tmp_path / "theirs.tar", kind="value", target="json", label="id").targets[20] == 20.0
