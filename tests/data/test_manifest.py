"""The manifest: content that has changed is named, a second look reads nothing, and a continued run is refused."""

import os

import pytest
import torch
from PIL import Image

import cvkit
from cvkit.callbacks import Checkpoint
from cvkit.data import ArrayDataset, FolderDataset, Loader, Manifest, ParallelDataset, split, write_shapes
from cvkit.data.manifest import NAME
from cvkit.errors import ArgumentError, CheckpointError, DataError


def settle(root):
    """Makes files old enough that their modification time can be relied on."""
    for path in root.rglob("*.*"):
        os.utime(path, ns=(10**18, 10**18))


def edit(path, level):
    """Writes another image of the same size in pixels; the modification time moves on."""
    Image.new("RGB", Image.open(path).size, (level,) * 3).save(path)
    os.utime(path, ns=(10**18 + level, 10**18 + level))


@pytest.fixture
def shapes(tmp_path):
    write_shapes(tmp_path / "shapes", per_class=4, size=8)
    settle(tmp_path / "shapes")
    return FolderDataset(tmp_path / "shapes")


def test_a_manifest_is_a_plain_file_beside_the_data(shapes):
    made = shapes.manifest()
    assert len(made) == 12
    assert made.path == shapes.root / NAME
    lines = made.path.read_text().splitlines()
    assert lines[0] == "# cvkit manifest 1: hash (blake2b, 128 bits), bytes, modification time (ns), file"
    assert lines[1].split("\t")[2:] == [str(10**18), shapes.paths[0]]
    assert lines[-1] == "# 12 files"
    again = Manifest.load(made.path)
    assert again.entries == made.entries
    assert again.digest == made.digest
    assert len(FolderDataset(shapes.root)) == 12  # it is no sample


def test_a_second_look_reads_no_file(shapes, monkeypatch):
    made = shapes.manifest()
    monkeypatch.setattr("cvkit.data.manifest.content_hash", lambda path: pytest.fail(f"{path} was read"))
    assert shapes.manifest().digest == made.digest
    assert shapes.content_digest() == made.digest


def test_a_file_that_was_just_written_is_read_again(shapes):
    path = shapes.root / shapes.paths[0]
    os.utime(path)  # now
    shapes.manifest()
    assert Manifest.load(shapes.root / NAME).entries[shapes.paths[0]].mtime == 0


def test_verify_finds_what_a_decoder_does_not(shapes):
    made = shapes.manifest()
    path = shapes.root / shapes.paths[3]
    bare = path.read_bytes()
    edit(path, 7)
    Image.new("RGB", (9, 9)).save(shapes.root / shapes.paths[5])
    assert shapes.verify()
    said = shapes.verify(manifest=True)
    assert list(said.bad) == [shapes.paths[3], shapes.paths[5]]
    assert "is not what the manifest says" in said.bad[shapes.paths[3]]
    assert shapes.verify(manifest=made).bad == said.bad == shapes.verify(manifest=made.path).bad
    path.write_bytes(bare)
    assert list(shapes.verify(manifest=made).bad) == [shapes.paths[5]]


def test_damage_that_leaves_size_and_time_alone_is_found_too(shapes):
    shapes.manifest()
    path = shapes.root / shapes.paths[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(10**18, 10**18))
    said = shapes.verify(manifest=True)
    name = shapes.paths[0]
    assert name in said.bad
    assert shapes.unlike(Manifest.load(shapes.root / NAME), [0]) == {
        0: f"the file {name} is not what the manifest says: other content of the same size; its modification time is the same"
    }


def test_a_part_has_its_own_digest_in_the_same_file(shapes):
    train, val = split(shapes, 0.25)
    both = shapes.manifest()
    assert len(train.manifest()) == len(train)
    assert len(val.manifest()) == 3
    assert train.manifest().digest != val.manifest().digest
    assert len(Manifest.load(both.path)) == 12
    edit(val.dataset.root / val.paths[0], 9)
    assert list(val.verify(manifest=True).bad) == [val.paths[0]]
    assert train.verify(manifest=True)


def test_masks_are_files_of_a_sample(tmp_path):
    write_shapes(tmp_path, per_class=2, size=8, layout="mask")
    settle(tmp_path)
    data = ParallelDataset(tmp_path / "images", tmp_path / "masks", "mask")
    made = data.manifest()
    assert len(made) == 2 * len(data)
    assert sum(name.startswith("../masks/") for name in made.entries) == len(data)


def test_a_manifest_elsewhere(shapes, tmp_path):
    made = shapes.manifest(tmp_path / "kept.txt")
    assert made.path == tmp_path / "kept.txt"
    assert not (shapes.root / NAME).exists()
    assert shapes.verify(manifest=tmp_path / "kept.txt")
    assert shapes.content_digest() is None


def test_names_with_tabs_and_line_ends(tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "a" / "one\ttwo\\n\nthree.png")
    data = FolderDataset(tmp_path)
    data.manifest()
    assert list(Manifest.load(tmp_path / NAME).entries) == list(data.paths)


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda text: text.replace("# cvkit", "# other"), "the first line '# other manifest 1: hash"),
        (lambda text: text[: len(text) // 2], "line "),
        (lambda text: "\n".join(text.split("\n")[:-3]) + "\n# 12 files\n", "files, and no last line that says so"),
    ],
)
def test_a_damaged_manifest_is_refused(shapes, change, got):
    path = shapes.manifest().path
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=r"is no sound manifest") as error:
        shapes.verify(manifest=True)
    assert got in str(error.value) or "no last line" in str(error.value)


def test_a_missing_manifest_is_said(shapes):
    with pytest.raises(DataError) as error:
        shapes.verify(manifest=True)
    assert str(error.value).splitlines()[0] == f"the manifest {shapes.root / NAME} cannot be read"


def test_arrays_have_no_manifest():
    part = split(ArrayDataset(torch.zeros(4, 2), [0, 0, 1, 1]), 0.5)[0]
    with pytest.raises(ArgumentError, match="these samples have no manifest"):
        part.manifest()
    with pytest.raises(ArgumentError, match="these samples have no manifest"):
        part.verify(manifest=True)
    assert part.content_digest() is None


def test_joined_datasets_have_a_digest_where_each_part_has(shapes, tmp_path):
    write_shapes(tmp_path / "more", per_class=2, size=8, seed=3)
    more = FolderDataset(tmp_path / "more")
    both = shapes + more
    shapes.manifest()
    assert both.content_digest() is None
    more.manifest()
    assert both.content_digest() is not None


def train(directory, data, epochs, **options):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))
    return cvkit.fit(
        *(model, Loader(data, 4, workers=0, shuffle=True)),
        epochs=epochs,
        callbacks=[Checkpoint(directory, monitor=None)],
        progress=False,
        **options,
    )


def test_an_image_that_changed_before_a_resume_is_refused_by_name(shapes, tmp_path):
    shapes.manifest()
    train(tmp_path / "run", shapes, 1)
    edit(shapes.root / shapes.paths[2], 40)
    with pytest.raises(DataError) as error:
        train(tmp_path / "run", shapes, 2, resume=True)
    assert str(error.value) == (
        f"1 files in {shapes.root} are not what the manifest says\n"
        f"  got: {shapes.paths[2]}\n"
        f"  expected: the content that {shapes.root / NAME} lists (format 1)\n"
        "  fix: restore the files; or, if the change is meant, write the manifest anew: dataset.manifest()"
    )
    shapes.manifest()
    with pytest.raises(CheckpointError) as error:
        train(tmp_path / "run", shapes, 2, resume=True)
    assert f"file contents: other than the manifest had (changed since it was first written: {shapes.paths[2]})" in str(
        error.value
    )
    assert train(tmp_path / "run", shapes, 2, resume=True, override=("data",)).epochs == 2


def test_a_sound_manifest_lets_a_run_go_on(shapes, tmp_path):
    shapes.manifest()
    train(tmp_path / "run", shapes, 1)
    settle(shapes.root)
    assert train(tmp_path / "run", shapes, 2, resume=True).epochs == 2
