"""LeNet-5: the network that read cheques, on generated shapes or on the digits of MNIST.

``--data DIR`` takes MNIST from where torchvision's ``MNIST(DIR)`` reads it: its datasets go into a ``Loader`` as they
are. Without it six kinds of shapes are drawn, in grey and 28 pixels wide like the digits.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torchvision.datasets import MNIST

import cvkit
from cvkit.data import FolderDataset, Loader, write_shapes

SHAPES = ("circle", "cross", "ring", "square", "star", "triangle")


def images(data: Path | None, out: Path, part: str) -> Any:
    """Returns one part of the data, ``"train"`` or ``"val"``."""
    if data is not None:
        return MNIST(str(data), train=part == "train")
    count, seed = (200, 0) if part == "train" else (40, 1)
    return FolderDataset(write_shapes(out / part, count, 28, classes=SHAPES, seed=seed), classes=SHAPES)


def main() -> None:
    """Trains, and shows what is taken for what."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder with MNIST; generated shapes by default")
    parser.add_argument("--epochs", type=int, default=6, help="passes over the images")
    parser.add_argument("--out", type=Path, default=Path("runs/lenet5"), help="where images go")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)

    train, val = (images(options.data, options.out, part) for part in ("train", "val"))
    digits = cvkit.transforms.digits_train(28)
    batches = Loader(train, 64, transform=digits, shuffle=True), Loader(val, 256, transform=digits.evaluation())
    model = cvkit.models.create("lenet5", num_classes=len(train.classes), in_channels=1)
    result = cvkit.fit(model, *batches, epochs=options.epochs, lr=5e-3, schedule="onecycle")
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    print(f"{result.history[-1]['val_accuracy']:.1%} of {len(val):,} images are right")
    try:
        cvkit.plots.confusion_matrix(model, batches[1]).savefig(options.out / "lenet5.png")
    except cvkit.errors.MissingDependencyError as missing:
        print("no image:", missing)


if __name__ == "__main__":
    main()
