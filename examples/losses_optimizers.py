"""Optimizers and losses: compared by name, under a polynomial schedule.

Each run starts from the same weights and sees the same batches of two spirals in the plane; only a word differs. The
learning rate falls from its first value to 0 as ``(1 - step / steps) ** 0.9``. A loss is a name, a module, or any
function of outputs and targets.
"""

import argparse
from pathlib import Path

import torch
from torch import nn

import cvkit
from cvkit.data import ArrayDataset, Loader

OPTIMIZERS = {"sgd": 0.1, "momentum": 0.05, "nesterov": 0.05, "adagrad": 0.05, "rmsprop": 0.003, "adam": 0.01}
LOSSES: dict[str, str | nn.Module] = {"hinge": "hinge", "smoothed": nn.CrossEntropyLoss(label_smoothing=0.1)}


def spirals(count: int, seed: int) -> ArrayDataset:
    """Returns points on two spirals, and on which."""
    random = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % 2
    angle = 7 * torch.rand(count, generator=random).sqrt()
    points = torch.stack([angle.cos(), angle.sin()], 1) * (angle * (1 - 2 * targets) / 3)[:, None]
    return ArrayDataset(points + 0.05 * torch.randn(count, 2, generator=random), targets)


def main() -> None:
    """Trains once with each optimizer, and twice more with another loss."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/losses_optimizers"), help="where the image goes")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    val = Loader(spirals(500, seed=1), 500)
    runs: dict[str, tuple[str | nn.Module, str]] = {name: ("cross_entropy", name) for name in OPTIMIZERS}
    runs |= {f"adam, {name}": (loss, "adam") for name, loss in LOSSES.items()}
    curves: dict[str, cvkit.History] = {}
    for name, (loss, optimizer) in runs.items():
        torch.manual_seed(0)
        train, lr = Loader(spirals(500, seed=0), 25, shuffle=True), OPTIMIZERS[optimizer]
        model = cvkit.models.create("mlp", num_classes=2, in_features=2, hidden=(32, 32))
        result = cvkit.fit(
            model, train, val, epochs=12, loss=loss, optimizer=optimizer, lr=lr, schedule="poly", progress=False
        )
        print(f"{name:14}  lr {lr:<5}  validation accuracy {result.history[-1]['val_accuracy']:.3f}")
        curves[name] = cvkit.History(
            [{key: row[key] for key in ("epoch", "val_accuracy", "lr")} for row in result.history]
        )
    try:
        cvkit.plots.plot_history(curves).savefig(options.out / "losses_optimizers.png")
    except cvkit.errors.MissingDependencyError as missing:
        print("no image:", missing)


if __name__ == "__main__":
    main()
