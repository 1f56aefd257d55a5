"""What the common tutorials train, reproduced by name with cvkit's public names only.

    python benchmarks/reproduce.py --mnist data/mnist --cifar10 data/cifar10 --membrane data/membrane
    python benchmarks/reproduce.py --only linear_regression,mnist_cnn --mnist data/mnist

* ``linear_regression``: a line through fifteen points, against the closed form. It needs no data.
* ``mnist_cnn``: the digit network (64 and 128 maps, 1,024 dense units), two epochs on MNIST; 98.5 % at least.
* ``cifar_quick``: Caffe's quick network on CIFAR-10, the accuracy after each epoch.
* ``unet``: a U-Net on the 30 membranes of ISBI 2012, a third of them held out: Dice and pixel accuracy, against a
  network that says "foreground" everywhere.
* ``autoencoders``: a linear and a convolutional denoising autoencoder on noisy digits: the mean squared error to the clean
  ones, against the noisy ones' own.

``--mnist`` is the directory that ``torchvision.datasets.MNIST`` reads, ``--cifar10`` has ``train/<class>/…`` and
``test/<class>/…``, ``--membrane`` has ``image/0.png`` … and ``label/0.png`` …, labels of 0 and 255. What has no directory is
left out with a line that says so.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchvision.datasets import MNIST

import cvkit
from cvkit import models, transforms
from cvkit.data import ArrayDataset, Loader, ParallelDataset, from_folder, split

Row = tuple[str, str, str]
"""What was measured, how it came out, and what to hold it against."""

POINTS = (
    [3.3, 4.4, 5.5, 6.71, 6.93, 4.168, 9.779, 6.182, 7.59, 2.167, 7.042, 10.791, 5.313, 7.997, 3.1],
    [1.7, 2.76, 2.09, 3.19, 1.694, 1.573, 3.366, 2.596, 2.53, 1.221, 2.827, 3.465, 1.65, 2.904, 1.3],
)
"""The fifteen points of the PyTorch tutorials' linear regression."""

GREY = {"mean": (0.5,), "std": (0.2,)}
NOISE = 0.5


def linear_regression(options: argparse.Namespace) -> Iterator[Row]:
    x, y = (torch.tensor(values)[:, None] for values in POINTS)
    model = models.create("linear", num_classes=1, in_features=1)
    train = Loader(ArrayDataset(x, y), batch_size=len(x))
    cvkit.fit(model, train, epochs=options.epochs or 1000, loss="mse", optimizer="momentum", lr=0.02, progress=False)
    head = model.get_submodule("head")
    found = torch.stack([head.weight.detach().flatten()[0], head.bias.detach()[0]])
    exact = torch.linalg.lstsq(torch.cat([x, torch.ones_like(x)], 1), y).solution.flatten()
    yield (
        "fifteen points: slope, intercept",
        ", ".join(f"{float(value):.5f}" for value in found),
        f"closed form {', '.join(f'{float(value):.5f}' for value in exact)}",
    )
    yield "largest difference", f"{float((found - exact).abs().max()):.1e}", "0"


def mnist_cnn(options: argparse.Namespace) -> Iterator[Row]:
    preset = transforms.digits_eval(28)
    train, test = (
        Loader(MNIST(str(options.mnist), train=part), batch_size=100, transform=preset, shuffle=part)
        for part in (True, False)
    )
    model = models.create("cnn_mnist", num_classes=10, in_channels=1, size=28)
    result = cvkit.fit(
        model, train, test, epochs=options.epochs or 2, optimizer="adam", lr=1e-3, schedule="onecycle", seed=0
    )
    for row in result.history:
        yield f"MNIST, cnn_mnist, epoch {row['epoch']}", f"{row['val_accuracy']:.2%}", "≥ 98.5 % after two"


def cifar_quick(options: argparse.Namespace) -> Iterator[Row]:
    data = from_folder(options.cifar10, size=32, batch_size=100, val="test")
    model = models.create("cifar_quick", num_classes=len(data.classes))
    result = cvkit.fit(model, data.train, data.val, epochs=options.epochs or 5, lr=1e-3, schedule="cosine", seed=0)
    for row in result.history:
        measured = f"{row['val_accuracy']:.2%}, train loss {row['train_loss']:.3f}"
        yield f"CIFAR-10, cifar_quick, epoch {row['epoch']}", measured, "10 % by chance"


def unet(options: argparse.Namespace) -> Iterator[Row]:
    root = Path(options.membrane)
    pairs = ParallelDataset(
        root / "image", root / "label", kind="mask", mask_values=(0, 255), classes=("membrane", "cell")
    )
    rest, held = split(pairs, 1 / 3, seed=0)
    augmented = transforms.segmentation_train(options.size, vertical_flip=0.5, **GREY)
    train = Loader(rest, batch_size=4, transform=augmented, shuffle=True)
    test = Loader(held, batch_size=2, transform=transforms.segmentation_eval(2 * options.size, **GREY))
    model = models.create("unet", num_classes=2, in_channels=1, width=options.width)
    cvkit.fit(model, train, epochs=options.epochs or 30, lr=2e-3, schedule="onecycle", seed=0)
    outputs, truth = cvkit.predict(model, test), torch.cat([masks for _, masks in test])
    scores = {"U-Net": outputs.argmax(1), "all foreground": torch.ones_like(truth)}
    for what, score in (
        ("pixel accuracy", lambda said: float((said == truth).float().mean())),
        ("Dice of cells", lambda said: dice(said == 1, truth == 1)),
        ("Dice of membranes", lambda said: dice(said == 0, truth == 0)),
    ):
        ours, constant = (score(said) for said in scores.values())
        yield f"{len(held)} of {len(pairs)} membranes held out: {what}", f"{ours:.4f}", f"{constant:.4f} all foreground"


def dice(said: Tensor, truth: Tensor) -> float:
    """Returns twice the overlap over the sum of both, over all pixels (Dice, 1945)."""
    return float(2 * (said & truth).sum() / (said.sum() + truth.sum()))


def autoencoders(options: argparse.Namespace) -> Iterator[Row]:
    preset = transforms.denoise(28, noise=NOISE, mean=(0.0,), std=(1.0,))
    train, test = (
        Loader(MNIST(str(options.mnist), train=part), batch_size=100, transform=preset, shuffle=part)
        for part in (True, False)
    )
    for name in ("autoencoder_linear", "autoencoder_conv"):
        model = models.create(name, in_channels=1)
        train.set_epoch(0)  # both see the same batches
        cvkit.fit(model, train, epochs=options.epochs or 3, loss="mse", lr=2e-3, schedule="onecycle", seed=0)
        test.set_epoch(0)
        loss = cvkit.evaluate(model, test, loss="mse")["loss"]
        test.set_epoch(0)
        noisy, clipped = errors(test)
        yield (
            f"MNIST with noise of {NOISE}, {name}: MSE to the clean digits",
            f"{loss:.4f}",
            f"{noisy:.4f} noisy, {clipped:.4f} noisy and clipped to 0 … 1",
        )


def errors(batches: Loader) -> tuple[float, float]:
    """Returns the mean squared error of the inputs themselves, as they are and clipped to the range of an image."""
    pairs = [(((x - y) ** 2).mean(), ((x.clamp(0, 1) - y) ** 2).mean(), len(x)) for x, y in batches]
    total = sum(count for *_, count in pairs)
    noisy, clipped = (sum(float(one[place]) * one[2] for one in pairs) / total for place in (0, 1))
    return noisy, clipped


TASKS: dict[str, tuple[Callable[[argparse.Namespace], Iterator[Row]], str | None]] = {
    "linear_regression": (linear_regression, None),
    "mnist_cnn": (mnist_cnn, "mnist"),
    "cifar_quick": (cifar_quick, "cifar10"),
    "unet": (unet, "membrane"),
    "autoencoders": (autoencoders, "mnist"),
}
"""What can be reproduced, and the option that names its data."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains what is asked for and prints one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(TASKS), help="names, separated by commas")
    for option in ("mnist", "cifar10", "membrane"):
        parser.add_argument(f"--{option}", type=Path, help="a directory, see above")
    parser.add_argument("--epochs", type=int, help="instead of each task's own number")
    parser.add_argument("--width", type=int, default=16, help="of the U-Net's finest level")
    parser.add_argument("--size", type=int, default=256, help="of the crops that the U-Net learns from, in pixels")
    options = parser.parse_args(arguments)
    chosen = options.only.split(",")
    if unknown := [name for name in chosen if name not in TASKS]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(TASKS)}")
    rows: list[tuple[str, str, str, str]] = []
    for name in chosen:
        task, needs = TASKS[name]
        if needs is not None and getattr(options, needs) is None:
            print(f"{name} is left out: it needs --{needs}")
            continue
        torch.manual_seed(0)
        start = time.perf_counter()
        done = list(task(options))
        seconds = f"{time.perf_counter() - start:.0f} s"
        rows += [(*row, seconds if place == 0 else "") for place, row in enumerate(done)]
    print("\n| | measured | against | took |\n| --- | --- | --- | --- |")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
