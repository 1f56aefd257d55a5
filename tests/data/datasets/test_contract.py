"""What every adapter keeps: one contract, tried on each of them."""

import os
import pickle
import random
import subprocess
import sys
import tracemalloc
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from cvkit.data import (
    ArrayDataset,
    FilenameDataset,
    FolderDataset,
    ParallelDataset,
    Subset,
    TableDataset,
    Verification,
    split,
)
from cvkit.data.datasets.base import is_deterministic
from cvkit.data.datasets.files import ClassTargets, FileDataset
from cvkit.errors import ArgumentError, DataError, ImageError

CLASSES = ["ant", "bee", "cat"]
SIX = [(index, CLASSES[index % 3]) for index in range(6)]


def source(path, level=0, mode="RGB", size=(6, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, (level,) * 3 if mode == "RGB" else level).save(path)
    return path


@dataclass
class Case:
    """An adapter over six images, whose levels are ten times their number.

    ``build`` makes it; ``paths`` and ``targets`` are what it must say; each of ``changes`` alters one thing that the
    fingerprint must see; ``recode`` numbers the classes otherwise, where there are any.
    """

    root: Path
    build: object
    paths: list
    targets: list
    changes: dict = field(default_factory=dict)
    classes: list | None = field(default_factory=lambda: list(CLASSES))

    def image_of(self, index):
        return self.root / self.paths[index]


def _folder(tmp):
    for index, name in SIX:
        source(tmp / name / f"{index}.png", index * 10)
    return Case(
        tmp,
        lambda **options: FolderDataset(tmp, **options),
        ["ant/0.png", "ant/3.png", "bee/1.png", "bee/4.png", "cat/2.png", "cat/5.png"],
        [0, 0, 1, 1, 2, 2],
        {
            "a path": lambda: (tmp / "bee/1.png").rename(tmp / "bee/0.png"),
            "a target": lambda: (tmp / "bee/1.png").rename(tmp / "ant/1.png"),
            "a class": lambda: (tmp / "bee").rename(tmp / "bees"),
        },
    )


def _text(tmp):
    for index, name in SIX:
        source(tmp / "images" / f"{index}.png", index * 10)
        (tmp / "labels").mkdir(exist_ok=True)
        (tmp / "labels" / f"{index}.txt").write_text(name)

    def rename():
        (tmp / "images/1.png").rename(tmp / "images/9.png")
        (tmp / "labels/1.txt").rename(tmp / "labels/9.txt")

    return Case(
        tmp / "images",
        lambda **options: ParallelDataset(tmp / "images", tmp / "labels", **options),
        [f"{index}.png" for index in range(6)],
        [0, 1, 2, 0, 1, 2],
        {
            "a path": rename,
            "a target": lambda: (tmp / "labels/1.txt").write_text("cat"),
            "a class": lambda: (tmp / "labels/1.txt").write_text("dog"),
        },
    )


def _mask(tmp):
    for index, _ in SIX:
        source(tmp / "images" / f"{index}.png", index * 10)
        source(tmp / "masks" / f"{index}.png", index % 3, "L")

    def rename():
        (tmp / "images/1.png").rename(tmp / "images/9.png")
        (tmp / "masks/1.png").rename(tmp / "masks/9.png")

    return Case(
        tmp / "images",
        lambda **options: ParallelDataset(tmp / "images", tmp / "masks", "mask", **options),
        [f"{index}.png" for index in range(6)],
        [Path(f"{index}.png") for index in range(6)],
        {"a path": rename, "a target": lambda: source(tmp / "masks/1.png", 0, "L").rename(tmp / "masks/1.bmp")},
        ["0", "1", "2"],
    )


def _image(tmp):
    for index, _ in SIX:
        source(tmp / "low" / f"{index}.png", index * 10)
        source(tmp / "high" / f"{index}.png", index, size=(12, 8))

    return Case(
        tmp / "low",
        lambda **options: ParallelDataset(tmp / "low", tmp / "high", "image", **options),
        [f"{index}.png" for index in range(6)],
        [Path(f"{index}.png") for index in range(6)],
        {"a target": lambda: (tmp / "high/1.png").rename(tmp / "high/1.bmp")},
        None,
    )


def _filename(tmp):
    for index, name in SIX:
        source(tmp / f"{name}.{index}.png", index * 10)
    return Case(
        tmp,
        lambda **options: FilenameDataset(tmp, r"^(?P<label>[a-z]+)\.", **options),
        ["ant.0.png", "ant.3.png", "bee.1.png", "bee.4.png", "cat.2.png", "cat.5.png"],
        [0, 0, 1, 1, 2, 2],
        {
            "a path": lambda: (tmp / "bee.1.png").rename(tmp / "bee.0.png"),
            "a target": lambda: (tmp / "bee.1.png").rename(tmp / "ant.1.png"),
            "a class": lambda: (tmp / "bee.1.png").rename(tmp / "dog.1.png"),
        },
    )


def _table(tmp):
    for index, _ in SIX:
        source(tmp / f"{index}.png", index * 10)
    table = tmp / "table.csv"
    table.write_text("image,label\n" + "".join(f"{index}.png,{name}\n" for index, name in SIX))

    def replace(old, new):
        return lambda: table.write_text(table.read_text().replace(old, new, 1))

    return Case(
        tmp,
        lambda **options: TableDataset(table, **options),
        [f"{index}.png" for index in range(6)],
        [0, 1, 2, 0, 1, 2],
        {
            "a path": lambda: ((tmp / "1.png").rename(tmp / "9.png"), replace("1.png", "9.png")()),
            "a target": replace("1.png,bee", "1.png,cat"),
            "a class": replace("bee", "dog"),
        },
    )


def _values(tmp):
    for index, _ in SIX:
        source(tmp / f"{index}.png", index * 10)
    table = tmp / "table.csv"
    table.write_text("image,x,y\n" + "".join(f"{index}.png,{index},0.5\n" for index, _ in SIX))
    return Case(
        tmp,
        lambda **options: TableDataset(table, label=["x", "y"], kind="value", **options),
        [f"{index}.png" for index in range(6)],
        [[float(index), 0.5] for index in range(6)],
        {
            "a target": lambda: table.write_text(table.read_text().replace("1.png,1", "1.png,7")),
        },
        ["x", "y"],
    )


CASES = {
    "folder": _folder,
    "text": _text,
    "mask": _mask,
    "image": _image,
    "filename": _filename,
    "table": _table,
    "values": _values,
}


@pytest.fixture(params=CASES)
def case(request, tmp_path):
    return CASES[request.param](tmp_path / "data")


def same(one, other):
    """Whether two samples, or parts of one, are equal to the last level."""
    if isinstance(one, tuple):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    if isinstance(one, Image.Image):
        return (one.mode, one.size, one.tobytes()) == (other.mode, other.size, other.tobytes())
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other) and one.dtype == other.dtype
    return one == other


def test_it_says_what_it_holds(case):
    data = case.build()
    assert len(data) == 6
    assert list(data.paths) == case.paths
    assert data.targets == case.targets
    assert data.classes == case.classes
    assert data.root == case.root
    assert [image.getpixel((0, 0)) for image, _ in data] == [
        (int("".join(filter(str.isdigit, path))) * 10,) * 3 for path in case.paths
    ]


def test_a_sample_is_an_image_and_the_target_that_was_listed(case):
    data = case.build()
    for index in range(len(data)):
        image, target = data[index]
        assert (image.mode, image.size) == ("RGB", (6, 4))
        if isinstance(target, Image.Image):
            assert (data.label_root / data.targets[index]).is_file()
        else:
            assert target == data.targets[index] if isinstance(target, int) else target.tolist() == data.targets[index]


def test_reading_a_sample_is_indexing_it(case):
    data = case.build()
    assert all(same(data.read(index), data[index]) for index in range(len(data)))
    assert same(data[-1], data[5])
    with pytest.raises(IndexError, match=r"^index 6 of 6 paths$"):
        data[6]


def test_a_sample_is_the_same_each_time_and_no_global_random_number_is_drawn(case):
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    data = case.build()
    assert data.deterministic
    assert is_deterministic(data)
    assert all(same(data[index], data[index]) for index in range(len(data)))
    data.verify()
    split(data, 0.5)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_it_can_be_pickled_and_takes_no_list_along(case):
    data = case.build()
    plain = pickle.dumps(data)
    assert data.targets == case.targets
    assert data.targets is data.targets
    assert b"targets" not in pickle.dumps(data)
    assert len(pickle.dumps(data)) <= len(plain)
    other = pickle.loads(plain)
    assert (other.targets, list(other.paths), other.classes) == (case.targets, case.paths, case.classes)
    assert other.fingerprint == data.fingerprint
    assert all(same(one, two) for one, two in zip(other, data, strict=True))


def test_the_fingerprint_is_the_same_in_another_process(tmp_path):
    (
        _folder(tmp_path / "folder"),
        _text(tmp_path / "text"),
        _mask(tmp_path / "mask"),
        _filename(tmp_path / "filename"),
        _table(tmp_path / "table"),
    )
    code = """if True:
        from pathlib import Path
        from cvkit.data import *
        here = Path.cwd()
        found = [
            FolderDataset(here / "folder"),
            ParallelDataset(here / "text" / "images", here / "text" / "labels"),
            ParallelDataset(here / "mask" / "images", here / "mask" / "masks", "mask", ignore=255),
            FilenameDataset(here / "filename", r"^(?P<label>[a-z]+)\\."),
            TableDataset(here / "table" / "table.csv"),
        ]
        found += split(found[0], 0.5)
        print(*(one.fingerprint for one in found))
    """
    told = []
    for number in ("1", "2"):  # another number hashes strings otherwise
        environment = os.environ | {"PYTHONHASHSEED": number}
        command = [sys.executable, "-c", code]
        run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        told.append(run.stdout.split())
    assert told[0] == told[1]
    assert len(set(told[0])) == 7
    assert told[0][0] == FolderDataset(tmp_path / "folder").fingerprint


@pytest.mark.parametrize("name", CASES)
def test_the_fingerprint_sees_each_change_and_not_where_it_lies(name, tmp_path):
    first = CASES[name](tmp_path / "first")
    seen = {first.build().fingerprint}
    assert CASES[name](tmp_path / "again").build().fingerprint in seen
    for count, change in enumerate(first.changes, 2):
        other = CASES[name](tmp_path / change)
        other.changes[change]()
        seen.add(other.build().fingerprint)
        assert len(seen) == count, change


def test_the_fingerprint_sees_how_the_classes_are_numbered(case):
    if case.classes is None:
        with pytest.raises(ArgumentError, match=r"^images have no classes\n"):
            case.build(classes=["a"])
        return
    given = case.build(classes=case.classes[::-1])
    assert given.classes == case.classes[::-1]
    assert given.fingerprint != case.build(classes=case.classes).fingerprint


def test_verify_counts_all_and_names_the_damaged(case):
    data = case.build()
    sound = data.verify()
    assert (sound.count, sound.bad, bool(sound), str(sound)) == (6, {}, True, "6 files, 0 of them bad")
    for index in (1, 4):
        case.image_of(index).write_bytes(b"no image")
    found = data.verify()
    assert (found.count, list(found.bad), bool(found)) == (6, [case.paths[1], case.paths[4]], False)
    assert isinstance(found, Verification)
    assert str(found) == "\n".join(
        ["6 files, 2 of them bad", *(f"cannot decode the image {case.image_of(index)}" for index in (1, 4))]
    )


def test_a_damaged_file_is_named_with_its_index(case):
    path = case.image_of(2)
    path.write_bytes(path.read_bytes()[:45])
    data = case.build()
    with pytest.raises(ImageError) as caught:
        data[2]
    first, *rest = str(caught.value).splitlines()
    assert first == f"sample 2: cannot decode the image {path}"
    assert rest[1:] == [
        "  expected: a whole image (JPEG, PNG, WebP, GIF, BMP, TIFF, …)",
        "  fix: replace or delete the file; a dataset's verify() lists all such files",
    ]


def test_a_file_that_went_away_is_named_with_its_index(case):
    data = case.build()
    case.image_of(3).unlink()
    with pytest.raises(ImageError) as caught:
        data[3]
    assert str(caught.value) == (
        f"sample 3: cannot read the image {case.image_of(3)}\n"
        "  got: FileNotFoundError: No such file or directory\n"
        "  expected: a file that can be read\n"
        "  fix: check the path and its permissions"
    )


def test_what_is_to_become_of_bad_images_is_kept_and_checked(case):
    assert case.build().on_error == "raise"
    assert case.build(on_error="skip").on_error == Subset(case.build(on_error="skip"), [0]).on_error == "skip"
    with pytest.raises(ArgumentError) as caught:
        case.build(on_error="ignore")
    assert str(caught.value) == (
        'on_error cannot be used\n  got: \'ignore\'\n  expected: "raise" or "skip"\n  fix: leave it out'
    )


def test_larger_images_than_allowed_are_refused(case):
    source(case.image_of(0), size=(9, 9))
    data = case.build(max_pixels=80 if case.classes else 96)
    assert data[1][0].size == (6, 4)
    if case.classes:
        with pytest.raises(ImageError, match=r"^sample 0: the image .* is too large\n  got: 9×9 pixels\n"):
            data[0]
    for wrong in (0, -1, 2.5, True, "many"):
        with pytest.raises(ArgumentError) as caught:
            case.build(max_pixels=wrong)
        assert str(caught.value) == (
            f"max_pixels cannot be used\n  got: {wrong!r}\n  expected: an integer of pixels\n"
            "  fix: leave it out for 89,478,485"
        )


def test_transparent_pixels_show_the_background(case):
    Image.new("RGBA", (6, 4), (9, 8, 7, 0)).save(case.image_of(0))
    assert case.build()[0][0].getpixel((0, 0)) == (255, 255, 255)
    assert case.build(background=(1, 2, 3))[0][0].getpixel((0, 0)) == (1, 2, 3)


@pytest.mark.parametrize("wrong", [255, (1, 2), (1, 2, 300), (1, 2, -1), (0.5, 0.5, 0.5), "red", (True, 0, 0)])
def test_a_background_that_is_no_colour_is_not_blamed_on_the_images(case, wrong):
    with pytest.raises(ArgumentError) as caught:
        case.build(background=wrong)
    assert str(caught.value) == (
        f"background cannot be used\n  got: {wrong!r}\n  expected: red, green and blue, each from 0 to 255\n"
        "  fix: e.g. background=(255, 255, 255)"
    )


def test_parts_of_it_are_data_sets_too(case):
    data = case.build()
    part = Subset(data, [4, 1])
    assert (len(part), part.classes, part.targets) == (2, case.classes, [case.targets[4], case.targets[1]])
    assert part.paths == [case.paths[4], case.paths[1]]
    assert same(part[0], data[4])
    assert same(part.read(1), data[1])
    assert part.deterministic
    assert same(pickle.loads(pickle.dumps(part))[0], data[4])
    one, two = split(data, 0.5)
    assert sorted([*one.indices, *two.indices]) == list(range(6))


def test_its_repr_says_what_it_is_and_reads_no_image(case, monkeypatch):
    data = case.build()
    for index in range(6):
        case.image_of(index).write_bytes(b"")
    if isinstance(data, ParallelDataset) and data.kind == "mask":
        (data.label_root / data.label_paths[0]).write_bytes(b"")
        assert repr(data) == f"ParallelDataset({str(case.root)!r}, 6 images)"
        return
    classes = f", {len(case.classes)} classes" if case.classes else ""
    assert repr(data) == f"{type(data).__name__}({str(case.root)!r}, 6 images{classes})"
    assert repr(Subset(data, [1])) == f"Subset(1 of {data!r})"


def test_a_user_may_change_what_came_without_changing_the_data(case):
    data = case.build()
    image, target = data[1]
    image.paste((9, 9, 9), (0, 0, 6, 4))
    if isinstance(target, torch.Tensor):
        target.add_(1)
    assert not same(image, data[1][0])
    assert not isinstance(target, torch.Tensor) or not same(target, data[1][1])


def test_what_arrays_keep_of_the_contract():
    levels = (np.arange(6, dtype=np.uint8) * 10)[:, None, None].repeat(4, 1).repeat(6, 2)
    data = ArrayDataset(levels, [0, 1, 2, 0, 1, 2], classes=CLASSES)
    assert (len(data), data.classes, data.targets, data.paths) == (6, CLASSES, [0, 1, 2, 0, 1, 2], None)
    assert is_deterministic(data)
    assert pickle.loads(pickle.dumps(data)).fingerprint == data.fingerprint
    assert data.verify() == Verification(6, {})
    assert Subset(data, [2]).paths is None
    assert same(Subset(data, [2])[0], data[2])
    assert not hasattr(Subset(data, [2]), "read")
    assert len({data.fingerprint, ArrayDataset(levels, [0, 1, 2, 0, 1, 1], classes=CLASSES).fingerprint}) == 2
    assert len({data.fingerprint, ArrayDataset(levels + 1, data.targets, classes=CLASSES).fingerprint}) == 2
    assert len({data.fingerprint, ArrayDataset(levels, data.targets, classes=CLASSES[::-1]).fingerprint}) == 2


class Listed(ClassTargets, FileDataset):
    """A dataset of many files that are not there; a sample is the length of its path."""

    fingerprint = "listed"

    def __init__(self, paths):
        self.classes = ["all"]
        super().__init__("/nowhere", paths, on_error="raise", background=(0, 0, 0), max_pixels=1)
        self.numbers = np.zeros(len(paths), dtype=np.int64)

    def __getitem__(self, index):
        return len(self.paths[index]), self.target(index, None)


def many(count=200_000):
    return [f"class_{index % 1000:04d}/some/folder/picture_{index:08d}.jpg" for index in range(count)]


def test_two_hundred_thousand_files_are_two_buffers_and_no_lists():
    paths = many()
    data = Listed(paths)
    size = sum(map(len, paths)) + 8 * len(paths)
    assert data.paths.nbytes == size
    assert data.targets[-1] == 0
    assert size < len(pickle.dumps(data)) < size + 8 * len(paths) + 2_000
    assert len(pickle.dumps(Subset(data, range(200_000)))) < size + 16 * len(paths) + 4_000


def test_reading_paths_leaves_nothing_in_memory():
    part = Subset(Listed(many(20_000)), range(0, 20_000, 2))
    for index in range(len(part)):
        part[index]
    tracemalloc.start()
    try:
        for _ in range(2):
            for index in range(len(part)):
                part[index]
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert left < 2_000


class Private(Listed):
    """The same; a sample also carries the process's private memory in KiB, now and then."""

    def __getitem__(self, index):
        length, target = super().__getitem__(index)
        private = 0
        if index % 500 == 0:
            with open("/proc/self/smaps_rollup") as lines:
                private = next(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))
        return length + target, private, torch.utils.data.get_worker_info().id


def private_memory(data, epochs):
    """Returns what each of two workers says of its private memory over the epochs, in KiB, once a batch."""
    loader = DataLoader(data, 500, num_workers=2, persistent_workers=True, multiprocessing_context="fork", timeout=120)
    told = {0: [], 1: []}
    for _ in range(epochs):
        for _, amounts, workers in loader:
            told[int(workers[0])].append(int(amounts[0]))
    return told.values()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").is_file(), reason="needs Linux's account of memory")
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "part"])
def test_the_memory_of_two_workers_does_not_grow_over_epochs(whole):
    data = Private(many())
    for amounts in private_memory(data if whole else Subset(data, range(200_000)), 3):
        assert len(amounts) == 600
        assert max(amounts) - amounts[0] < 8_000  # a worker that has just started, and what any loop takes
        assert max(amounts[200:]) - amounts[200] < 1_000


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").is_file(), reason="needs Linux's account of memory")
def test_a_list_of_paths_would_have_been_copied_into_each_worker():
    data = Private(many())
    data.paths = list(data.paths)
    for amounts in private_memory(data, 1):
        assert max(amounts) - amounts[0] > 10_000


def test_an_error_of_a_target_names_the_sample_too(tmp_path):
    case = _mask(tmp_path)
    source(tmp_path / "masks/4.png", 9, "L")
    with pytest.raises(DataError, match=r"^sample 4: the mask .*masks/4\.png holds values that are no class: 9\n"):
        case.build(classes=["0", "1", "2"])[4]
    assert list(case.build(classes=["0", "1", "2"]).verify().bad) == ["4.png"]


def test_a_worker_of_a_users_own_loader_names_file_and_index(tmp_path):
    case = _mask(tmp_path)
    data = case.build()
    case.image_of(3).write_bytes(b"no image")
    loader = DataLoader(data, 1, num_workers=1, collate_fn=list, multiprocessing_context="fork", timeout=60)
    taken = []
    with pytest.raises(ImageError, match=f"sample 3: cannot decode the image {case.image_of(3)}"):
        taken.extend(loader)
    assert len(taken) == 3
