"""Draws the images of plots.rst anew, on generated data: ``python docs/make_plot_pictures.py``."""

import tempfile
from pathlib import Path

import torch
from torch import nn

import cvkit
from cvkit import plots

IMAGES = Path(__file__).parent / "_static" / "plots"
MOST = 100_000
"""Bytes that an image may have."""


def save(name, figure):
    path = IMAGES / f"{name}.png"
    figure.savefig(path, dpi=70)
    size = path.stat().st_size
    print(f"{name}: {size:,} bytes")
    if size > MOST:
        raise SystemExit(f"{path} has {size:,} bytes, more than {MOST:,}")


def network(classes):
    """The one of the page."""
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.AdaptiveMaxPool2d(3), nn.Flatten(), nn.Linear(288, classes)),
    )


def classify(directory):
    """Images of classes."""
    cvkit.data.write_shapes(directory / "train", per_class=250, size=32, seed=0)
    cvkit.data.write_shapes(directory / "val", per_class=40, size=32, seed=1)
    data = cvkit.data.from_folder(directory, size=32, batch_size=32)
    save("show_batch", plots.show_batch(data.train, count=8, columns=4))

    model = network(len(data.classes))
    curve = cvkit.find_lr(model, data.train, low=1e-5, high=1, steps=300)
    save("find_lr", curve.plot())
    one = cvkit.fit(model, data.train, data.val, epochs=10, lr=curve.suggestion, progress=False)
    data.train.set_epoch(0)
    two = cvkit.fit(network(3), data.train, data.val, epochs=10, lr=0.01, optimizer="momentum", progress=False)
    save("plot_history", plots.plot_history({"adamw": one, "momentum": two}, charts=["loss", "accuracy"]))
    shuffled = cvkit.data.Loader(data.val.dataset, 16, transform=data.val.transform, shuffle=True, seed=2)
    save("show_predictions", plots.show_predictions(model, shuffled, count=8, columns=4))
    save("top_losses", plots.top_losses(model, data.val, count=4))
    save("confusion_matrix", plots.confusion_matrix(model, data.val))


def segment(directory):
    """Images with masks."""
    cvkit.data.write_shapes(directory, per_class=4, size=32, layout="mask")
    dataset = cvkit.data.ParallelDataset(directory / "images", directory / "masks", kind="mask")
    transform = cvkit.transforms.segmentation_eval(32)
    loader = cvkit.data.Loader(dataset, 4, transform=transform, shuffle=True)
    names = ["ground", "circle", "square", "triangle"]
    save("show_masks", plots.show_masks(loader, count=3, columns=3, classes=names))


def main():
    IMAGES.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as directory:
        classify(Path(directory) / "classes")
        segment(Path(directory) / "masks")


if __name__ == "__main__":
    main()
