"""cvkit's data path against the standard recipe, side by side in one run.

The standard recipe is ``torchvision.datasets.ImageFolder``, transforms v2 and a torch ``DataLoader`` on the same cores. In each
round every contender walks one epoch, in an order that changes with the round; ratios are taken within a round, and the table
shows medians with the 10th and 90th percentile. See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import gzip
import os
import random
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

import cvkit
from cvkit.data import FolderDataset, Loader, decode
from cvkit.transforms import classification_train, digits_train, small_image_train
from cvkit.transforms.presets import CIFAR10_MEAN, CIFAR10_STD, IMAGENET_MEAN, IMAGENET_STD, MNIST_MEAN, MNIST_STD

WORKERS = 2


# --- data: generated, unless real images are given


def write_small(root: Path, count: int) -> Path:
    """Writes PNG files of 32×32 pixels in ten folders, about as hard to compress as photos."""
    rng = np.random.default_rng(0)
    for index in range(count):
        folder = root / f"class{index % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        _photo(rng, 32, 32, grain=12).save(folder / f"{index:05d}.png")
    return root


def write_photos(root: Path, count: int, width: int, height: int, grain: float = 8) -> Path:
    """Writes JPEG files of quality 90 in two folders."""
    rng = np.random.default_rng(0)
    for index in range(count):
        folder = root / f"class{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        _photo(rng, width, height, grain).save(folder / f"{index:05d}.jpg", quality=90)
    return root


def _photo(rng: np.random.Generator, width: int, height: int, grain: float) -> Image.Image:
    """Draws soft shapes of many sizes with some grain: octaves of noise, each half as strong as the one before."""
    levels = np.zeros((height, width, 3), np.float32)
    size, strength = 4, 90.0
    while size < max(width, height) and strength > 3:
        octave = rng.normal(0, strength, (size, size, 3)).astype(np.float32)
        planes = [Image.fromarray(octave[..., c]).resize((width, height), Image.Resampling.BICUBIC) for c in range(3)]
        levels += np.stack([np.asarray(plane) for plane in planes], -1)
        size, strength = size * 2, strength / 1.7
    levels += 128 + rng.normal(0, grain, levels.shape)
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def write_mnist(root: Path, count: int) -> Path:
    """Writes files that ``torchvision.datasets.MNIST`` reads: blobs, one place a class."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 10, count).astype(np.uint8)
    images = rng.integers(0, 60, (count, 28, 28)).astype(np.uint8)
    for index, target in enumerate(targets):
        images[index, 2 + 2 * target : 8 + 2 * target, 8:20] = 230
    for name in ("train", "t10k"):
        (raw / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">iiii", 2051, count, 28, 28) + images.tobytes())
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 2049, count) + targets.tobytes())
    return root


# --- timing


def walk(batches: Iterable[Any]) -> int:
    """Walks one epoch and returns how many samples it had."""
    return sum(len(inputs) for inputs, _ in batches)


def rounds(contenders: dict[str, Callable[[], int]], count: int) -> dict[str, list[float]]:
    """Returns the seconds a sample of each contender in each round, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    for number in range(count + 1):
        random.Random(number).shuffle(order)
        for name in order:
            start = time.perf_counter()
            samples = contenders[name]()
            if number:
                seconds[name].append((time.perf_counter() - start) / samples)
    return seconds


def spread(values: list[float], form: str = "{:.3g}") -> str:
    """Returns the median with the 10th and 90th percentile."""
    low, high = np.percentile(values, [10, 90])
    return f"{form.format(statistics.median(values))} ({form.format(low)} … {form.format(high)})"


def table(title: str, seconds: dict[str, list[float]], references: list[str]) -> None:
    """Prints one row a contender: samples a second, and how many times as fast as each reference in the same round."""
    print(f"\n**{title}**\n")
    print("| | samples a second | " + " | ".join(f"× {name}" for name in references) + " |")
    print("| --- |" + " --- |" * (1 + len(references)))
    for name, values in seconds.items():
        ratios = [[r / v for r, v in zip(seconds[one], values, strict=True)] for one in references]
        speed = spread([1 / value for value in values], "{:,.0f}")
        print(f"| {name} | {speed} | " + " | ".join(spread(one) for one in ratios) + " |", flush=True)


# --- the standard recipe


def standard(root: Path, transform: Any, workers: int, batch_size: int) -> DataLoader[Any]:
    """Returns ImageFolder + v2 + DataLoader, with workers that stay."""
    dataset = torchvision.datasets.ImageFolder(str(root), transform)
    return DataLoader(
        dataset,
        batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=torch.Generator(),
    )


SMALL = v2.Compose(
    [
        v2.RandomCrop(32, padding=4),
        v2.RandomHorizontalFlip(),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(CIFAR10_MEAN, CIFAR10_STD),
    ]
)
PHOTOS = v2.Compose(
    [
        v2.RandomResizedCrop(224),
        v2.RandomHorizontalFlip(),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
    ]
)


# --- the comparisons


def small(root: Path, count: int) -> None:
    """Small images in folders: first epochs by themselves, then later ones."""
    firsts: dict[str, list[float]] = {"standard, 2 workers": [], "cvkit": []}
    for _ in range(max(3, count // 3)):  # fresh loaders each time: start-up and decoding are part of a first epoch
        for name in firsts:
            loader = (
                standard(root, SMALL, WORKERS, 128)
                if name != "cvkit"
                else Loader(FolderDataset(root), 128, transform=small_image_train(32), shuffle=True)
            )
            start = time.perf_counter()
            samples = walk(loader)
            firsts[name].append((time.perf_counter() - start) / samples)
            del loader
    table("Small images (32×32 PNG), first epoch", firsts, ["standard, 2 workers"])
    fast = Loader(FolderDataset(root), 128, transform=small_image_train(32), shuffle=True)
    slow, alone = standard(root, SMALL, WORKERS, 128), standard(root, SMALL, 0, 128)
    walk(fast)
    contenders = {
        "standard, 2 workers": lambda: walk(slow),
        "standard, no workers": lambda: walk(alone),
        "cvkit, cache": lambda: walk(fast),
    }
    table("Small images, second epoch on", rounds(contenders, count), ["standard, 2 workers", "standard, no workers"])
    print(
        f"\ncached: {fast.cached_bytes / 2**20:,.1f} MiB; worker processes in a cached epoch: {len(_children(slow)) - WORKERS}"
    )


def photos(title: str, root: Path, count: int, *, ram: bool) -> None:
    """Photos decoded each time, without and with workers; and kept in memory."""
    data = FolderDataset(root)
    preset = classification_train(224)
    loaders: dict[str, Any] = {
        "standard, no workers": standard(root, PHOTOS, 0, 32),
        "standard, 2 workers": standard(root, PHOTOS, WORKERS, 32),
        "cvkit, no workers": Loader(data, 32, transform=preset, shuffle=True, workers=0, cache=None),
        "cvkit, 2 workers": Loader(data, 32, transform=preset, shuffle=True, workers=WORKERS, cache=None),
    }
    if ram:
        loaders["cvkit, in memory"] = Loader(data, 32, transform=preset, shuffle=True, cache="ram")
    contenders = {name: (lambda one=loader: walk(one)) for name, loader in loaders.items()}
    table(title, rounds(contenders, count), ["standard, no workers", "standard, 2 workers"])
    if ram:
        kept = loaders["cvkit, in memory"].cached_bytes
        print(f"\nin memory: {kept / 2**20:,.1f} MiB for {len(data)} photos, {kept / len(data) / 2**20:.2f} MiB each")


def mnist(root: Path, count: int) -> None:
    """An epoch of lenet5 through ``fit``, and the same loop by hand over one float tensor in memory."""
    dataset = torchvision.datasets.MNIST(str(root), train=True)
    images = ((dataset.data.float() / 255 - MNIST_MEAN[0]) / MNIST_STD[0])[:, None]
    targets = dataset.targets
    model = cvkit.models.create("lenet5", num_classes=10, in_channels=1)
    loader = Loader(dataset, 64, transform=digits_train(28), shuffle=True)

    def by_hand() -> int:
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        losses, right = [], []
        model.train()
        for part in torch.randperm(len(images)).split(64):
            inputs, truth = images[part], targets[part]
            outputs = model(inputs)
            loss = torch.nn.functional.cross_entropy(outputs, truth)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.detach() * len(part))
            right.append((outputs.argmax(1) == truth).sum())
        torch.stack(losses).sum().item(), torch.stack(right).sum().item()
        return len(images)

    def by_fit() -> int:
        cvkit.fit(model, loader, epochs=1, progress=False, preflight=False)
        return len(images)

    seconds = rounds({"by hand, one float tensor": by_hand, "cvkit.fit on torchvision's MNIST": by_fit}, count)
    table("MNIST, an epoch of lenet5 (batches of 64)", seconds, ["by hand, one float tensor"])


def waiting(root: Path) -> None:
    """What a run waits for, read from a callback, and what a worker takes."""
    data = FolderDataset(root)

    class Clock(cvkit.Callback):
        def on_epoch_end(self, state: cvkit.TrainState) -> None:
            rows.append((state.epoch_seconds, state.data_seconds))

    print("\n**What a run waits for** (resnet18, photos, batches of 32)\n")
    print("| | batches a second | waited for data | memory a worker, MiB |\n| --- | --- | --- | --- |")
    for workers in (0, 1, 2):
        rows: list[tuple[float, float]] = []
        loader = Loader(data, 32, transform=classification_train(224), shuffle=True, workers=workers, cache=None)
        memory: list[float] = []

        class Look(cvkit.Callback):
            def on_batch_end(self, state: cvkit.TrainState) -> None:
                if state.batch_index == 2:
                    memory.extend(_private(process.pid) for process in _children(loader))  # noqa: B023

        model = cvkit.models.create("resnet18", num_classes=2)
        cvkit.fit(model, loader, epochs=2, callbacks=[Clock(), Look()], progress=False, preflight=False)
        whole, waited = rows[-1]
        mean = f"{statistics.mean(memory):.0f}" if memory else "–"
        print(f"| {workers} workers | {len(loader) / whole:.2f} | {waited / whole:.0%} | {mean} |", flush=True)


def starting(root: Path, count: int) -> None:
    """Time to the first batch of the second epoch."""
    data = FolderDataset(root)
    preset = small_image_train(32)
    loaders: dict[str, Any] = {
        "standard, 2 workers that stay": standard(root, SMALL, WORKERS, 128),
        "standard, 2 workers started afresh": DataLoader(
            torchvision.datasets.ImageFolder(str(root), SMALL), 128, shuffle=True, num_workers=WORKERS
        ),
        "cvkit, 2 workers, no cache": Loader(data, 128, transform=preset, shuffle=True, workers=2, cache=None),
        "cvkit, cache": Loader(data, 128, transform=preset, shuffle=True),
    }
    print("\n**Time to the first batch of a later epoch**, ms\n\n| | |\n| --- | --- |")
    for name, loader in loaders.items():
        walk(loader)
        times = []
        for _ in range(count):
            start = time.perf_counter()
            batches = iter(loader)
            next(batches)
            times.append((time.perf_counter() - start) * 1000)
            walk(batches)
        print(f"| {name} | {spread(times)} |", flush=True)


def exactness(root: Path) -> None:
    """How far a JPEG decoded smaller is from one decoded whole, after both are brought to 224 pixels."""
    errors = []
    for path in sorted(root.rglob("*.jp*g"))[:40]:
        whole = decode(path)
        scaled = decode(path, enough=lambda w, h: (224 * w // min(w, h), 224 * h // min(w, h)))
        if scaled.size == whole.size:
            continue
        sides = [np.asarray(one.resize((224, 224), Image.Resampling.BILINEAR), np.float32) for one in (whole, scaled)]
        errors.append(float(np.abs(sides[0] - sides[1]).mean()))
    if errors:
        print(f"\ndecoded smaller, against decoded whole: {spread(errors)} grey levels of 255 on average over an image")


def _children(loader: Any) -> list[Any]:
    """Returns the worker processes of a loader."""
    inner = loader._makers._processes if isinstance(loader, Loader) else loader
    iterator = getattr(inner, "_iterator", None)
    return list(getattr(iterator, "_workers", ()))


def _private(pid: int) -> float:
    """Returns the memory that a process has for itself, in MiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def _unpacked(root: Path) -> Path:
    """Unpacks the files of an MNIST that lies there as it was downloaded."""
    for path in (root / "MNIST" / "raw").glob("*-ubyte.gz"):
        if not path.with_suffix("").exists():
            path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    return root


def main(arguments: list[str] | None = None) -> None:
    """Runs the comparisons that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="small,photos,phones,mnist,starting,waiting", help="comma-separated")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="a few images and rounds, to see that it runs")
    parser.add_argument("--small", type=Path, help="folders of small images, e.g. CIFAR-10's")
    parser.add_argument("--photos", type=Path, help="folders of photos")
    parser.add_argument("--mnist", type=Path, help="what torchvision.datasets.MNIST takes as root")
    options = parser.parse_args(arguments)
    wanted, count = set(options.only.split(",")), 1 if options.quick else options.rounds
    few = 20 if options.quick else 1
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {os.cpu_count()} cores, Python {sys.version.split()[0]}"
    )
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        images = options.small or (
            write_small(base / "small", 10_000 // few) if wanted & {"small", "starting"} else base
        )
        shots = options.photos or (
            write_photos(base / "photos", 400 // few, 500, 375) if wanted & {"photos", "waiting"} else base
        )
        if "small" in wanted:
            small(images, count)
        if "starting" in wanted:
            starting(images, count)
        if "photos" in wanted:
            photos("Photos of about 500×375", shots, count, ram=True)
        if "phones" in wanted:
            large = write_photos(base / "phones", 64 // min(few, 16), 2500, 1875, grain=4)
            photos("Photos of 2,500×1,875", large, count, ram=False)
            exactness(large)
        if "mnist" in wanted:
            mnist(_unpacked(options.mnist) if options.mnist else write_mnist(base / "mnist", 60_000 // few), count)
        if "waiting" in wanted:
            waiting(shots)


if __name__ == "__main__":
    main()
