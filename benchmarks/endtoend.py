"""Time of an epoch and time to an accuracy: the tutorials' loop, cvkit and other trainers, on equal models and files.

    python benchmarks/endtoend.py --mnist DIR --cifar10 DIR --hymenoptera DIR
    python benchmarks/endtoend.py --tiny             # generated images: do all contenders run?

``--mnist``: as ``torchvision.datasets.MNIST`` reads it. ``--cifar10``: ``{train,test}/<class>/``. ``--hymenoptera``:
``{train,val}/<class>/``. A case without its files is left out, and so is a contender that is not installed; both are said.
Every contender trains the same network from the same weights, with the same optimizer and batch size; each loads as its
tutorials do, with the same augmentation. The accuracy is computed after each epoch by one function, outside of the clock.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets
from torchvision import transforms as tv

import cvkit

WANTS = {"tutorial": None, "cvkit": None, "lightning": "pytorch_lightning", "fastai": "fastai", "keras": "keras"}
"""Contenders, and the module that each needs."""


@dataclass
class Case:
    """One network on one set of files.

    Attributes:
        title: What the row says.
        model: Its builder.
        train: The training samples ``(image, class)``.
        test: The samples that the accuracy is computed on.
        theirs: The transform of torchvision for training and for testing.
        ours: The preset for training and for testing.
        batch: Samples to a batch.
        lr: Learning rate of SGD with momentum 0.9.
        epochs: At most so many.
        goal: The accuracy that the time is taken to.
    """

    title: str
    model: Callable[[], nn.Module]
    train: Any
    test: Any
    theirs: tuple[Any, Any]
    ours: tuple[Any, Any]
    batch: int
    lr: float
    epochs: int
    goal: float

    def loader(self, workers: int) -> DataLoader[Any]:
        """Returns the training samples as a tutorial loads them."""
        self.train.transform = self.theirs[0]
        return DataLoader(self.train, self.batch, shuffle=True, num_workers=workers)

    def accuracy(self, model: nn.Module) -> float:
        """Returns the accuracy on the test samples."""
        self.test.transform = None
        return cvkit.evaluate(model, cvkit.data.Loader(self.test, 128, transform=self.ours[1], workers=0))["accuracy"]


class Clock:
    """Takes the time of each epoch; what happens between two of them does not count."""

    def __init__(self, case: Case) -> None:
        self.case, self.seconds, self.accuracies = case, list[float](), list[float]()
        self._began = time.perf_counter()

    def lap(self, model: nn.Module) -> bool:
        """Ends an epoch.

        Returns:
            Whether the accuracy is there.
        """
        self.seconds.append(time.perf_counter() - self._began)
        mode = model.training
        self.accuracies.append(self.case.accuracy(model))
        model.train(mode)
        self._began = time.perf_counter()
        return self.accuracies[-1] >= self.case.goal


def tutorial(case: Case, model: nn.Module, clock: Clock, workers: int) -> None:
    """The loop of the tutorials: per-sample transforms, ``.item()`` in each step."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)
    loader = case.loader(workers)
    optimizer = torch.optim.SGD(model.parameters(), lr=case.lr, momentum=0.9)
    for _ in range(case.epochs):
        running = 0.0
        for inputs, labels in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs.to(device)), labels.to(device))
            loss.backward()
            optimizer.step()
            running += loss.item()
        if clock.lap(model):
            return


def by_cvkit(case: Case, model: nn.Module, clock: Clock, workers: int) -> None:
    """``fit`` on a ``Loader``."""

    class Lap:
        def on_epoch_end(self, state: Any) -> None:
            if clock.lap(state.model):
                state.request_stop("goal")

    case.train.transform = None
    loader = cvkit.data.Loader(case.train, case.batch, transform=case.ours[0], shuffle=True)
    options: dict[str, Any] = {"optimizer": "momentum", "lr": case.lr, "progress": False, "callbacks": [Lap()]}
    cvkit.fit(model, loader, epochs=case.epochs, **options)


def lightning(case: Case, model: nn.Module, clock: Clock, workers: int) -> None:
    """``Trainer.fit`` with everything off that is not asked for here."""
    import pytorch_lightning as pl

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: Any, index: int) -> Any:
            return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

        def on_train_epoch_end(self) -> None:
            self.trainer.should_stop = clock.lap(self.model)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.model.parameters(), lr=case.lr, momentum=0.9)

    off: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_epochs=case.epochs, devices=1, enable_progress_bar=False, **off)
    trainer.fit(Module(), case.loader(workers))


def fastai(case: Case, model: nn.Module, clock: Clock, workers: int) -> None:
    """``Learner.fit`` on torch's loader."""
    from fastai.callback.core import Callback, CancelFitException
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.optimizer import OptimWrapper

    class Lap(Callback):
        def after_train(self) -> None:
            if clock.lap(model):
                raise CancelFitException

    def optimizer(parameters: Any, lr: float) -> Any:
        return OptimWrapper(parameters, torch.optim.SGD, lr=lr, momentum=0.9)

    train = case.loader(workers)
    loaders = DataLoaders(train, DataLoader([train.dataset[0]], 1))
    learner = Learner(loaders, model, loss_func=nn.functional.cross_entropy, opt_func=optimizer, lr=case.lr)
    with learner.no_bar(), learner.no_logging():
        learner.fit(case.epochs, cbs=Lap())


def keras(case: Case, model: nn.Module, clock: Clock, workers: int) -> None:
    """``Model.fit`` on torch's backend, around the same module."""
    import os

    os.environ["KERAS_BACKEND"] = "torch"
    import keras as k

    class Lap(k.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.stop_training = clock.lap(model)

    first = case.loader(0).dataset[0][0]
    inputs = k.Input(tuple(first.shape))
    wrapped = k.Model(inputs, k.layers.TorchModuleWrapper(model)(inputs))
    wrapped.compile(k.optimizers.SGD(case.lr, momentum=0.9), k.losses.SparseCategoricalCrossentropy(from_logits=True))
    wrapped.fit(case.loader(workers), epochs=case.epochs, verbose=0, callbacks=[Lap()])


RUNS: dict[str, Callable[[Case, nn.Module, Clock, int], None]] = {
    "tutorial": tutorial,
    "cvkit": by_cvkit,
    "lightning": lightning,
    "fastai": fastai,
    "keras": keras,
}


def small(mean: float = 0.5) -> tuple[Any, Any]:
    """Returns the tutorials' transform of small colour images: no augmentation."""
    made = tv.Compose([tv.ToTensor(), tv.Normalize((mean,) * 3, (0.5,) * 3)])
    return made, made


def cases(options: argparse.Namespace) -> list[Case]:
    """Returns the cases whose files are there; says which are not."""
    found: list[Case] = []
    create, presets = cvkit.models.create, cvkit.transforms
    plain = presets.small_image_train(32, padding=0, flip=0.0, mean=(0.5,) * 3, std=(0.5,) * 3)
    if options.mnist is not None:
        train, test = (datasets.MNIST(options.mnist, train=part) for part in (True, False))
        theirs = tv.Compose([tv.Resize(32), tv.ToTensor(), tv.Normalize((0.1307,), (0.3081,))])
        ours = (presets.digits_train(32), presets.digits_eval(32))
        build = lambda: create("lenet5", num_classes=10, in_channels=1)  # noqa: E731
        found.append(
            Case("MNIST, LeNet-5", build, train, test, (theirs, theirs), ours, 64, 0.01, options.epochs or 5, 0.985)
        )
    if options.cifar10 is not None:
        for name, batch, lr, goal in (("cifar_quick", 16, 0.02, 0.6), ("resnet9", 128, 0.1, 0.8)):
            train, test = (datasets.ImageFolder(str(options.cifar10 / part)) for part in ("train", "test"))
            build = partial(create, name, num_classes=len(train.classes))
            ours = (plain, plain.evaluation())
            found.append(
                Case(f"CIFAR-10, {name}", build, train, test, small(), ours, batch, lr, options.epochs or 10, goal)
            )
    if options.hymenoptera is not None:
        train, test = (datasets.ImageFolder(str(options.hymenoptera / part)) for part in ("train", "val"))
        normal = [tv.ToTensor(), tv.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
        theirs = tv.Compose([tv.RandomResizedCrop(224), tv.RandomHorizontalFlip(), *normal])
        ours = (presets.classification_train(224), presets.classification_eval(224))
        build = lambda: create("resnet18", num_classes=2)  # noqa: E731
        title = "ants and bees, ResNet-18 at 224"
        found.append(Case(title, build, train, test, (theirs, theirs), ours, 4, 0.001, options.epochs or 5, 0.7))
    for name in ("mnist", "cifar10", "hymenoptera"):
        if getattr(options, name) is None:
            print(f"{name} is left out: it needs --{name}", file=sys.stderr)
    return found


def run(case: Case, name: str, workers: int) -> str:
    """Trains one contender; returns its row."""
    torch.manual_seed(0)
    model = case.model()
    clock = Clock(case)
    RUNS[name](case, model, clock, workers)
    reached = next((place for place, one in enumerate(clock.accuracies, 1) if one >= case.goal), None)
    until = f"{sum(clock.seconds[:reached]):.1f} s" if reached else "not reached"
    later = clock.seconds[1:] or clock.seconds
    return f"| {case.title} | {name} | {min(later):.2f} s | {until} ({case.goal:.0%}) | {max(clock.accuracies):.3f} |"


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    for name in ("mnist", "cifar10", "hymenoptera"):
        parser.add_argument(f"--{name}", type=Path, help="where its files are")
    parser.add_argument("--contenders", default=",".join(RUNS), help=f"some of {','.join(RUNS)}")
    parser.add_argument("--epochs", type=int, help="at most so many epochs, in place of each case's own number")
    parser.add_argument(
        "--workers", type=int, default=2, help="processes that load for all but cvkit, which chooses itself"
    )
    parser.add_argument(
        "--tiny", action="store_true", help="generated images for CIFAR-10's cases: does everything run?"
    )
    options = parser.parse_args(arguments)
    asked = options.contenders.split(",")
    if unknown := sorted(set(asked) - set(RUNS)):
        raise SystemExit(f"--contenders got {', '.join(unknown)}; expected some of {','.join(RUNS)}")
    there = [name for name in asked if WANTS[name] is None or importlib.util.find_spec(WANTS[name] or "") is not None]
    for name in asked:
        if name not in there:
            print(f"{name} is left out: {WANTS[name]} is not installed", file=sys.stderr)
    with tempfile.TemporaryDirectory() as directory:
        if options.tiny:
            options.cifar10, options.epochs = Path(directory), options.epochs or 2
            for seed, part in enumerate(("train", "test")):
                cvkit.data.write_shapes(options.cifar10 / part, per_class=4, seed=seed)
        found = cases(options)
        print("| | contender | an epoch | until the accuracy | best accuracy |\n| --- | --- | ---: | ---: | ---: |")
        for case in found:
            for name in there:
                print(run(case, name, options.workers), flush=True)


if __name__ == "__main__":
    main()
