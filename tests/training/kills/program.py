"""A script of a user's own, small enough to be run a hundred times, that is killed where the environment says.

    python program.py DIRECTORY '{"workers": 2}'

trains in DIRECTORY, or continues there, and writes to DIRECTORY.json a digest of all that the run has come to. With

    KILL='{"how": "SIGKILL", "hook": "on_batch_end", "call": 3}'

it does not get that far: see :class:`Options` and :class:`Kill`.
"""

import errno
import hashlib
import json
import os
import random
import signal
import stat
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import cvkit
from cvkit import seeding
from cvkit.callbacks import EMA, Checkpoint, CSVLogger, EarlyStopping, LRSchedule, TensorBoard
from cvkit.data import ArrayDataset, FolderDataset, Loader, ShardDataset
from cvkit.errors import CvkitWarning
from cvkit.serialization import checkpoint as checkpoint_
from cvkit.training import Callback, load_checkpoint
from cvkit.transforms import classification_train, small_image_train

SIZE, CLASSES = 16, 3
SAMPLES, BATCH = 22, 4  # six batches an epoch, the last one short


@dataclass(frozen=True)
class Options:
    """What is trained how; ``data`` is ``"arrays"``, ``"folder"`` or ``"shards"`` (with ``folder``) or ``"foreign"``."""

    data: str = "arrays"
    folder: str = ""
    workers: int = 0
    start: str = "fork"
    cache: str | None = None
    weights: str | None = None
    preset: str = "small"
    mixup: float = 0.0
    generator: bool = False
    noisy: bool = True
    epochs: int = 2
    val: bool = True
    seed: int | None = None
    preflight: bool = False
    accumulate: int = 1
    clip_norm: float | None = None
    schedule: str | None = None
    optimizer: str = "adamw"
    precision: str = "fp32"
    compile: bool = False
    ema: bool = False
    patience: int | None = None
    plateau: bool = False
    tensorboard: bool = False
    every_steps: int | None = 1
    every_epochs: int = 1
    keep_last: int = 1
    background: bool = False
    lr: float = 0.02
    decay: float = 0.9
    dropout: float = 0.2
    smoothing: float | None = None
    batch: int = BATCH
    drop_last: bool = False
    shuffle: bool | str = True
    override: tuple[str, ...] = ()


# --- the ends that a run can come to


def strike(how: str, group: int = 0) -> None:
    """Ends this process, or makes it fail; or sends a signal so many times to it and to its workers, as ``timeout`` does."""
    if group:
        for _ in range(group):
            os.killpg(os.getpgrp(), signal.Signals[how])
        return
    if how == "exception":
        raise RuntimeError("power cut")
    if how == "ENOSPC":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.kill(os.getpid(), signal.Signals[how])


class Kill(Callback):
    """Strikes at the ``call``-th call of a ``hook`` in this process, before the checkpoint is saved there, or if ``late`` after."""

    def __init__(self, kill: dict | None, *, late: bool) -> None:
        self.order = 2 if late else 0
        self.calls = 0
        if kill is not None and "hook" in kill and kill.get("late", False) == late:
            self.kill = kill
            setattr(self, kill["hook"], self._tell)

    def on_fit_start(self, state) -> None:
        """Makes a callback of it also where it strikes nowhere."""

    def _tell(self, state) -> None:
        self.calls += 1
        if self.calls == self.kill["call"]:
            strike(self.kill["how"], self.kill.get("group", 0))


class File:
    """The file that a checkpoint is written to."""

    def __init__(self, file, disk: "Disk") -> None:
        self._file, self._disk, self._writes = file, disk, 0

    def write(self, data) -> int:
        self._writes += 1
        if self._writes == 10 and self._disk.reached("half written"):
            data = bytes(data)
            self._file.write(data[: len(data) // 2])
            self._file.flush()
            strike(self._disk.kill["how"], self._disk.kill.get("group", 0))
            return len(data) // 2 + self._file.write(data[len(data) // 2 :])
        return self._file.write(data)

    def __enter__(self) -> "File":
        return self

    def __exit__(self, *error) -> None:
        self._file.close()

    def __getattr__(self, name: str):
        return getattr(self._file, name)


class Disk:
    """Strikes at a ``point`` on the way of the ``save``-th file of this process to the disk.

    The points, in this order: ``"half written"``, ``"before fsync"``, ``"after fsync"``, ``"before replace"``, ``"after replace"``
    (and before the directory's fsync), ``"after directory fsync"``.
    """

    def __init__(self, kill: dict) -> None:
        self.kill, self.saves = kill, 0
        self._real = {"fsync": os.fsync, "replace": os.replace}
        checkpoint_.open = self._open
        os.fsync, os.replace = self._fsync, self._replace

    def reached(self, point: str) -> bool:
        return self.saves == self.kill["save"] and point == self.kill["point"]

    def _reach(self, point: str) -> None:
        if self.reached(point):
            strike(self.kill["how"], self.kill.get("group", 0))

    def _open(self, path, mode="r", *args, **kwargs):
        file = open(path, mode, *args, **kwargs)  # noqa: SIM115  # whoever asked for it closes it
        if "x" not in mode:
            return file
        self.saves += 1
        return File(file, self)

    def _fsync(self, descriptor: int) -> None:
        what = "directory fsync" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "fsync"
        self._reach(f"before {what}")
        self._real["fsync"](descriptor)
        self._reach(f"after {what}")

    def _replace(self, source, target) -> None:
        ours = Path(target).name in ("last.pt", "best.pt")
        if ours:
            self._reach("before replace")
        self._real["replace"](source, target)
        if ours:
            self._reach("after replace")


# --- the run


class Noise(Callback):
    """Makes every random generator decide on the weights, and counts what this process has trained."""

    def __init__(self) -> None:
        self.batches = 0

    def on_fit_start(self, state) -> None:
        self.position = state.epoch * len(state.train) + state.batch_index
        random.random(), np.random.rand(), torch.rand(1)  # as a callback that shows a random image does

    def on_epoch_start(self, state) -> None:
        random.random(), np.random.rand(), torch.rand(1)

    def on_batch_start(self, state) -> None:
        self.batches += 1
        state.logs["drawn"] = state.logs.get("drawn", 0.0) + random.random()  # a sum over the epoch, kept in its row

    def on_gradients_ready(self, state) -> None:
        # both keep the second of each pair of normal numbers for the next call
        noise = random.gauss(0, 1e-2) + np.random.randn() * 1e-2
        for parameter in state.model.parameters():
            parameter.grad += noise


class Noisy(Dataset):
    """Draws a random number of each generator for each sample, as augmentations do."""

    def __init__(self, count: int, seed: int, noisy: bool) -> None:
        self.noisy = noisy
        made = np.random.default_rng(seed)
        self.inputs = torch.from_numpy(made.normal(size=(count, 3, SIZE, SIZE)).astype(np.float32))
        self.targets = made.integers(0, CLASSES, count).tolist()

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int):
        if not self.noisy:
            return self.inputs[index], self.targets[index]
        return self.inputs[index] + torch.rand(1) + random.random() + np.random.rand(), self.targets[index]


def images(count: int, seed: int) -> ArrayDataset:
    made = np.random.default_rng(seed)
    return ArrayDataset(made.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8), np.arange(count) % CLASSES)


def loaders(options: Options) -> tuple:
    """Returns the batches of training and validation."""
    if options.data == "foreign":
        generator = torch.Generator().manual_seed(5) if options.generator else None
        common = {"batch_size": BATCH, "num_workers": options.workers}
        common["multiprocessing_context"] = options.start if options.workers else None
        train = DataLoader(Noisy(SAMPLES, 1, options.noisy), shuffle=True, generator=generator, **common)
        return train, DataLoader(Noisy(10, 2, options.noisy), **common)
    if options.data == "folder":
        train, val = (FolderDataset(Path(options.folder) / part) for part in ("train", "val"))
    elif options.data == "shards":
        train, val = (ShardDataset(f"{options.folder}/shards/{part}/*.tar") for part in ("train", "val"))
    else:
        train, val = images(SAMPLES, 1), images(10, 2)
    if options.preset == "small":
        mixing = {"mixup": options.mixup, "num_classes": CLASSES} if options.mixup else {}
        transform = small_image_train(SIZE, padding=2, brightness=0.2, **mixing)
    else:
        transform = classification_train(SIZE, erase=0.5)
    common = {"workers": options.workers, "cache": options.cache, "start_method": options.start}
    order = {
        "shuffle": options.shuffle,
        "window": 2,
        "weights": options.weights,
        "seed": 7,
        "drop_last": options.drop_last,
    }
    return (
        Loader(train, options.batch, transform=transform, **order, **common),
        Loader(val, BATCH, transform=transform.evaluation(), **common),
    )


def network(dropout: float) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.Linear(196, CLASSES),
    )


def train(directory: Path, options: Options, kill: dict | None) -> tuple:
    """Runs, or continues; returns the result and the callback that counted."""
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    model, noise = network(options.dropout), Noise()
    training, validation = loaders(options)
    callbacks = [Kill(kill, late=False), noise]
    optimizer = options.optimizer
    if options.ema:
        callbacks.append(EMA(options.decay))
    if options.patience is not None:
        callbacks.append(EarlyStopping(patience=options.patience, min_delta=10.0))  # only the first epoch improves
    if options.plateau:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=10.0)
        callbacks.append(LRSchedule(plateau, every="epoch", monitor="val_loss"))
    if options.tensorboard:
        callbacks.append(TensorBoard(directory / "events", every_steps=1))
    checkpoint = Checkpoint(
        directory,
        monitor="val_loss" if options.val else None,
        every_steps=options.every_steps,
        every_epochs=options.every_epochs,
        keep_last=options.keep_last,
        background=options.background,
    )
    result = cvkit.fit(
        model,
        training,
        validation if options.val else None,
        epochs=options.epochs,
        optimizer=optimizer,
        **({} if options.plateau else {"lr": options.lr}),
        **({} if options.smoothing is None else {"loss": nn.CrossEntropyLoss(label_smoothing=options.smoothing)}),
        schedule=options.schedule,
        callbacks=[*callbacks, CSVLogger(directory / "log.csv"), checkpoint, Kill(kill, late=True)],
        device="cpu",
        precision=options.precision,
        compile=options.compile,
        accumulate=options.accumulate,
        clip_norm=options.clip_norm,
        seed=options.seed,
        resume=True,
        progress=False,
        preflight=options.preflight,
        override=options.override,
    )
    return result, noise


# --- what a run has come to


def leaves(value: object, where: str) -> dict[str, str]:
    """Returns every value in nested content by its place, such that equal strings are equal bits."""
    if isinstance(value, torch.Tensor):
        data = value.detach().contiguous().cpu().numpy().tobytes()
        return {where: f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(data).hexdigest()}"}
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, (list, tuple)):
        if len(value) > 100:  # the words of a generator
            return {where: hashlib.sha256(repr(value).encode()).hexdigest()}
        parts = enumerate(value)
    else:
        return {where: value.hex() if isinstance(value, float) else repr(value)}
    found = {where: f"{type(value).__name__} of {len(value)}"}
    for key, one in parts:
        found |= leaves(one, f"{where}.{key}")
    return found


def report(directory: Path, result: cvkit.FitResult, noise: Noise) -> dict:
    content = {
        "rng": seeding.capture(),  # first: nothing has drawn since
        "weights": result.model.state_dict(),
        "history": [dict(row) for row in result.history],
        "result": [result.epochs, result.steps, result.stop_reason, result.skipped],
        "log.csv": (directory / "log.csv").read_text(),
    }
    content |= {path.name: load_checkpoint(path) for path in sorted(directory.glob("*.pt"))}
    return {
        "leaves": leaves(content, ""),
        "files": sorted(path.name for path in directory.iterdir()),
        "batches": noise.batches,
        "position": noise.position,
    }


def main(arguments: list[str]) -> None:
    """Runs the script, as from the command line."""
    warnings.simplefilter("error", CvkitWarning)
    torch.set_num_threads(1)
    directory, options = Path(arguments[0]), Options(**json.loads(arguments[1]))
    kill = json.loads(os.environ.get("KILL", "null"))
    if kill is not None and "point" in kill:
        Disk(kill)
    result, noise = train(directory, options, kill)
    if result.stop_reason == "interrupted":
        return
    text = json.dumps(report(directory, result, noise))
    directory.with_suffix(".json").write_text(text)


if __name__ == "__main__":
    main(sys.argv[1:])
