"""A convolutional network: its accuracy each epoch, and a grid of what it predicts.

All it takes is a folder of images, ``DIR/<class>/…`` or ``DIR/train/<class>/…``; a fifth of them is held back for
validation. Without ``--data`` coloured shapes are drawn.
"""

import argparse
from pathlib import Path

import torch
from torch import nn

import cvkit
from cvkit.data import Loader


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Returns a convolution that halves the edge of its images."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2))


def main() -> None:
    """Trains, and shows predictions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="images, one folder a class; generated shapes by default")
    parser.add_argument("--epochs", type=int, default=6, help="passes over the images")
    parser.add_argument("--out", type=Path, default=Path("runs/cnn_predictions"), help="where images go")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)

    root = options.data or cvkit.data.write_shapes(options.out / "shapes", per_class=100)
    upright = cvkit.transforms.small_image_train(32, padding=0)  # mirrored at random, not shifted
    data = cvkit.data.from_folder(root, size=32, batch_size=8, val=0.2, transform=upright)
    head = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(64, len(data.classes)))
    model = nn.Sequential(block(3, 16), block(16, 32), block(32, 64), head)
    result = cvkit.fit(model, data.train, data.val, epochs=options.epochs, lr=3e-3, progress=False)
    for row in result.history:
        print(f"epoch {row['epoch']}: accuracy {row['train_accuracy']:.3f}, in validation {row['val_accuracy']:.3f}")

    mixed = Loader(data.val.dataset, 15, transform=data.val.transform, shuffle=True)  # data.val goes class by class
    try:
        cvkit.plots.show_predictions(model, mixed, columns=5).savefig(options.out / "cnn_predictions.png")
    except cvkit.errors.MissingDependencyError as missing:
        print("no image:", missing)


if __name__ == "__main__":
    main()
