"""Logistic regression: one linear layer, and the logistic loss.

On two clouds of points in the plane; with ``--data DIR`` on the digits that torchvision's ``MNIST(DIR)`` reads.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torchvision.datasets import MNIST

import cvkit
from cvkit.data import ArrayDataset, Loader


def clouds(count: int, seed: int) -> ArrayDataset:
    """Returns points around (-1, -1) and (1, 1), and which of the two they belong to."""
    targets = torch.arange(count) % 2
    noise = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    return ArrayDataset(noise + 2.0 * targets[:, None] - 1, targets)


def main() -> None:
    """Trains on points or digits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder with MNIST; two clouds of points by default")
    parser.add_argument("--out", type=Path, default=Path("runs/logistic_regression"), help="where the image goes")
    options = parser.parse_args()
    torch.manual_seed(0)

    train: Any = MNIST(options.data, train=True) if options.data else clouds(400, seed=0)
    val: Any = MNIST(options.data, train=False) if options.data else clouds(200, seed=1)
    grey = cvkit.transforms.digits_eval(28) if options.data else None
    batches = Loader(train, 64, transform=grey, shuffle=True), Loader(val, 256, transform=grey)
    model = cvkit.models.create("linear", num_classes=len(train.classes), in_features=784 if options.data else 2)
    result = cvkit.fit(model, *batches, epochs=5, optimizer="momentum", lr=0.02, progress=False)
    print(f"validation accuracy {result.history[-1]['val_accuracy']:.3f}")
    if options.data is None:
        weight, bias = model.get_parameter("head.weight"), model.get_parameter("head.bias")
        draw(options.out, val, (weight[1] - weight[0]).tolist(), (bias[1] - bias[0]).item())


def draw(out: Path, points: ArrayDataset, slope: list[float], offset: float) -> None:
    """Draws the points, and the line on which both classes are as probable."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print('no image: matplotlib is missing, pip install "cvkit[plots]"')
        return
    figure = Figure(figsize=(5, 4))
    axes = figure.subplots()
    axes.scatter(points.images[:, 0], points.images[:, 1], c=points.targets, cmap="coolwarm")
    axes.axline((0, -offset / slope[1]), slope=-slope[0] / slope[1], color="black")
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "logistic_regression.png")


if __name__ == "__main__":
    main()
