"""Public sets by name, on files in torchvision's format that are made here."""

import gzip
import hashlib
import pickle
import struct

import numpy as np
import pytest
import torch
from torchvision import datasets

import cvkit
from cvkit.data import cifar10, cifar100, fashion_mnist, mnist
from cvkit.errors import DataError
from cvkit.transforms import digits_train


def write_idx(folder):
    """Files as MNIST has them: 40 training images and 10 others."""
    folder.mkdir(parents=True)
    for stem, count in (("train", 40), ("t10k", 10)):
        images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        header = struct.pack(">IIII", 0x803, count, 28, 28)
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = np.arange(count, dtype=np.uint8) % 10
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels.tobytes())


def write_cifar(folder, monkeypatch, kind, key, names):
    """Files as CIFAR has them, and their checksums told to torchvision."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)

    def write(name, content):
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    batches = {"train_list": ["data_batch_1", "data_batch_2"], "test_list": ["test_batch"]}
    for attribute, files in batches.items():
        made = []
        for name in files:
            levels = draw.integers(0, 256, (10, 3072), dtype=np.uint8)
            made.append([name, write(name, {"data": levels, key: [place % len(names) for place in range(10)]})])
        monkeypatch.setattr(kind, attribute, made)
    checksum = write("meta", {"names": names})
    monkeypatch.setattr(kind, "meta", {"filename": "meta", "key": "names", "md5": checksum})


@pytest.mark.parametrize(
    ("make", "folder", "mean", "std"),
    [(mnist, "MNIST", 0.1307, 0.3081), (fashion_mnist, "FashionMNIST", 0.2860, 0.3530)],
)
def test_grey_sets_in_two_lines(tmp_path, make, folder, mean, std):
    write_idx(tmp_path / folder / "raw")
    data = make(tmp_path, batch_size=8)
    assert (len(data.train.dataset), len(data.val.dataset), len(data.classes)) == (40, 10, 10)
    assert data.train.shuffle
    inputs, targets = next(iter(data.val))
    assert inputs.shape == (8, 1, 28, 28)
    assert targets.tolist() == list(range(8))
    raw = data.val.dataset.data[:8, None].float() / 255
    torch.testing.assert_close(inputs, (raw - mean) / std, rtol=1e-4, atol=1e-4)
    model = cvkit.models.create("linear", num_classes=10, in_channels=1, size=28)
    assert cvkit.fit(model, data.train, data.val, epochs=1, progress=False).epochs == 1


@pytest.mark.parametrize(
    ("make", "kind", "folder", "key", "count", "mean"),
    [
        (cifar10, datasets.CIFAR10, "cifar-10-batches-py", "labels", 10, 0.4914),
        (cifar100, datasets.CIFAR100, "cifar-100-python", "fine_labels", 100, 0.5071),
    ],
)
def test_coloured_sets(tmp_path, monkeypatch, make, kind, folder, key, count, mean):
    write_cifar(tmp_path / folder, monkeypatch, kind, key, [f"class {place}" for place in range(count)])
    data = make(tmp_path, batch_size=4)
    assert (len(data.train.dataset), len(data.val.dataset)) == (20, 10)
    assert data.classes == [f"class {place}" for place in range(count)]
    inputs, _ = next(iter(data.val))
    assert inputs.shape == (4, 3, 32, 32)
    assert data.val.transform.mean[0] == data.train.transform.mean[0] == mean
    assert next(iter(data.train))[0].shape == (4, 3, 32, 32)


def test_another_transform_with_its_twin(tmp_path):
    write_idx(tmp_path / "MNIST" / "raw")
    data = mnist(tmp_path, batch_size=8, transform=digits_train(32), seed=3)
    assert next(iter(data.val))[0].shape == (8, 1, 32, 32)
    assert data.train.seed == 3


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(DataError) as error:
        mnist(tmp_path)
    assert str(error.value) == (
        "MNIST cannot be read\n  got: RuntimeError: Dataset not found. You can use download=True to download it\n"
        f"  expected: the files of MNIST in {tmp_path}/MNIST/raw\n"
        "  fix: pass download=True, or the directory above MNIST/raw; damaged files are to be deleted first"
    )


def test_a_download_that_fails_says_what_to_do(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", refuse)
    with pytest.raises(DataError) as error:
        cifar10(tmp_path, download=True)
    assert str(error.value) == (
        f"CIFAR10 cannot be downloaded\n  got: OSError: no network\n"
        f"  expected: the files of CIFAR10 in {tmp_path}/cifar-10-batches-py\n"
        f"  fix: check the network; or put the set's files into {tmp_path}/cifar-10-batches-py by hand, unpacked, and leave "
        "download out"
    )


def test_a_damaged_file_is_named_with_its_set(tmp_path):
    write_idx(tmp_path / "MNIST" / "raw")
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(DataError, match=r"^MNIST cannot be read\n"):
        mnist(tmp_path)
