"""``write_shards``: any dataset into tar files that ``ShardDataset``, and the webdataset package, read."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from cvkit.arguments import check_integer
from cvkit.data.datasets.base import Subset, fingerprint_of
from cvkit.data.datasets.files import FileDataset
from cvkit.data.datasets.joined import JoinedDataset
from cvkit.data.datasets.shard_set import MANIFEST
from cvkit.data.datasets.shards import ShardDataset
from cvkit.data.permutation import Permutation
from cvkit.errors import ArgumentError, DataError
from cvkit.numbering import known_classes

__all__ = ["write_shards"]

_PLAN = ".shards-in-progress.json"
"""What is being written, until all of it is there."""


def write_shards(
    dataset: Any,
    out: str | Path,
    *,
    samples_per_shard: int = 1_000,
    shuffle: bool = True,
    seed: int = 0,
    prefix: str = "shard",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes a dataset into tar files in WebDataset's layout, with an index beside each and a ``shards.json``.

    Where samples come from files, these are copied byte for byte; images that exist in memory only are written as PNG, without
    loss. Each shard appears at once, when it is whole. Stopped at any moment, the same call goes on behind the last whole
    shard, and ends with the same bytes.

    Args:
        dataset: A dataset whose targets are classes or numbers.
        out: The directory; it is made.
        samples_per_shard: Samples to a shard; the last one may have fewer. Some 100 MB to a shard read well from anywhere.
        shuffle: Whether samples come in random order, so that each shard holds something of each class: what
            ``Loader(…, shuffle="blocks")`` and programs that stream need.
        seed: Which order.
        prefix: What the shards' names begin with: ``shard-000000.tar``.
        progress: Called with the samples written and their number, after each shard.

    Returns:
        ``out / "shards.json"``.

    Raises:
        ArgumentError: A value that cannot be used, or targets that cannot be written.
        DataError: ``out`` holds shards of another dataset or of another call, or a sample cannot be read.
    """
    check_integer("samples_per_shard", samples_per_shard, fix="samples_per_shard=1000")
    if not len(dataset):
        raise ArgumentError("there is nothing to write", got="no sample", expected="one or more", fix="see the dataset")
    folder = Path(out)
    count, shards = len(dataset), -(-len(dataset) // samples_per_shard)
    names = [f"{prefix}-{number:06d}.tar" for number in range(shards)]
    targets = getattr(dataset, "targets", None)
    target = _target_part(dataset, targets, 0)[0]
    classes = known_classes(dataset) if target == "cls" else None
    data = getattr(dataset, "fingerprint", None) or (type(dataset).__name__, count)
    plan = {
        "format": "cvkit shards",
        "classes": list(classes) if classes is not None else None,
        "target": target,
        "samples": count,
        "shards": names,
        "plan": fingerprint_of(data, samples_per_shard, shuffle, seed, prefix),
    }
    folder.mkdir(parents=True, exist_ok=True)
    if _agreed(folder, plan):
        return folder / MANIFEST
    order = Permutation(count, seed, "write_shards") if shuffle else None
    width = len(str(count - 1))
    for number, name in enumerate(names):
        places = np.arange(number * samples_per_shard, min((number + 1) * samples_per_shard, count))
        if not (folder / name).exists():
            samples = (order(places) if order is not None else places).tolist()
            _write_one(dataset, targets, folder / name, [(f"{index:0{width}d}", index) for index in samples])
        if progress is not None:
            progress(int(places[-1]) + 1, count)
    return _closed(folder, plan)


def _agreed(folder: Path, plan: dict[str, Any]) -> bool:
    """Returns whether all of it is there already; notes what is begun.

    Raises:
        DataError: Shards of something else lie there.
    """
    for name in (MANIFEST, _PLAN):
        path = folder / name
        if not path.is_file():
            continue
        try:
            there = json.loads(path.read_text("utf-8"))
        except ValueError:
            there = {}
        if {key: there.get(key) for key in plan} != plan:
            raise DataError(
                f"{folder} holds shards of something else",
                got=f"{there.get('samples')} samples of {there.get('classes')}, another dataset, order or samples_per_shard",
                expected="an empty folder, or what the same call has begun",
                fix="write into another folder, or delete this one",
            )
        if name == MANIFEST and all((folder / one).is_file() for one in plan["shards"]):
            (folder / _PLAN).unlink(missing_ok=True)
            return True
    foreign = sorted(one.name for one in folder.glob("*.tar")) if not (folder / _PLAN).is_file() else []
    if foreign and not (folder / MANIFEST).is_file():
        raise DataError(
            f"{folder} holds tar files already",
            got=f"{len(foreign)} files, e.g. {foreign[0]}",
            expected="an empty folder, or what the same call has begun",
            fix="write into another folder",
        )
    _write_whole(folder / _PLAN, json.dumps(plan, indent=1).encode())
    return False


def _closed(folder: Path, plan: dict[str, Any]) -> Path:
    """Indexes the shards, notes size and hash of each, and says that all are there."""
    files = []
    for name in plan["shards"]:
        with open(folder / name, "rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        files.append({"name": name, "bytes": (folder / name).stat().st_size, "blake2b": digest})
    _write_whole(folder / MANIFEST, json.dumps({**plan, "files": files}, indent=1).encode())
    kind: Any = "value" if plan["target"] == "json" else "class"
    ShardDataset([folder / name for name in plan["shards"]], kind=kind, target=plan["target"])
    (folder / _PLAN).unlink(missing_ok=True)
    return folder / MANIFEST


def _write_one(dataset: Any, targets: Any, path: Path, samples: Sequence[tuple[str, int]]) -> None:
    def content() -> Iterator[tuple[str, bytes]]:
        for key, index in samples:
            for ending, data in (_image_part(dataset, index), _target_part(dataset, targets, index)):
                yield f"{key}.{ending}", data

    hidden = path.with_name(f".{path.name}.partial")
    with open(hidden, "wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for name, data in content():
                member = tarfile.TarInfo(name)  # no time and no owner: the same samples make the same bytes
                member.size, member.mode = len(data), 0o444
                tar.addfile(member, io.BytesIO(data))
        file.flush()
        os.fsync(file.fileno())
    os.replace(hidden, path)
    _sync(path.parent)


def _write_whole(path: Path, data: bytes) -> None:
    hidden = path.with_name(f".{path.name}.partial")
    with open(hidden, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(hidden, path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a directory cannot be opened
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _owner(dataset: Any, index: int) -> tuple[Any, int]:
    """Returns the dataset that a sample comes from, and its index there."""
    while True:
        if isinstance(dataset, Subset):
            dataset, index = dataset.dataset, dataset.place(index)
        elif isinstance(dataset, JoinedDataset):
            part, index = dataset.locate(index)
            dataset = dataset.parts[part]
        else:
            return dataset, index


def _image_part(dataset: Any, index: int) -> tuple[str, bytes]:
    """Returns the ending and the bytes of a sample's image: those of its file, where it has one."""
    owner, place = _owner(dataset, index)
    if isinstance(owner, FileDataset):
        content, name = owner.source(place)
        ending = name.rpartition(".")[2].lower()
        return ending, content if isinstance(content, bytes) else _bytes(content, index)
    image = dataset[index][0]
    if isinstance(image, torch.Tensor | np.ndarray):
        pixels = torch.as_tensor(image)
        if pixels.dtype != torch.uint8 or pixels.ndim != 3 or pixels.shape[0] not in (1, 3):
            raise _no_image(dataset, index, f"{pixels.dtype} {tuple(pixels.shape)}")
        array = pixels.permute(1, 2, 0).numpy()
        image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else np.ascontiguousarray(array))
    if not isinstance(image, Image.Image):
        raise _no_image(dataset, index, type(image).__name__)
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return "png", buffer.getvalue()


def _bytes(path: Path, index: int) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"sample {index}: cannot read {path}",
            got=f"{type(error).__name__}: {error.strerror}",
            expected="a file that can be read",
            fix="check the path and its permissions; the same call then goes on",
        ) from error


def _no_image(dataset: Any, index: int, got: str) -> ArgumentError:
    return ArgumentError(
        f"sample {index} of {type(dataset).__name__} cannot be written into a shard",
        got=got,
        expected="a file, a PIL image, or uint8 (1 or 3, H, W)",
        fix="give a dataset of images, without its transform",
    )


def _target_part(dataset: Any, targets: Any, index: int) -> tuple[str, bytes]:
    """Returns the ending and the bytes of a sample's target: ``cls`` for a class number, ``json`` for numbers."""
    target = targets[index] if targets is not None else dataset[index][1]
    if isinstance(target, torch.Tensor | np.ndarray | np.generic):
        target = target.tolist()
    if type(target) is int:
        return "cls", str(target).encode()
    if type(target) is float or (isinstance(target, list) and all(type(one) in (int, float) for one in target)):
        return "json", json.dumps({"label": target}).encode()
    if isinstance(target, str):
        return "txt", target.encode()
    raise ArgumentError(
        f"the target of sample {index} cannot be written into a shard",
        got=type(target).__name__,
        expected="a class number, a label, or numbers",
        fix="masks and images as targets stay in folders: ParallelDataset",
    )
