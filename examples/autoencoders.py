"""Denoising autoencoders: linear and convolutional, with images before and after.

The preset ``denoise`` gives each image noise anew in every epoch and keeps the clean one as target, so that nothing
else is needed but ``loss="mse"``. What a network without any skill would leave is the noise itself: 0.3² = 0.09.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torchvision.datasets import MNIST
from torchvision.utils import save_image

import cvkit
from cvkit.data import FolderDataset, Loader, split, write_shapes


def main() -> None:
    """Trains both, and writes noisy, restored and clean images below each other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder with MNIST; generated shapes by default")
    parser.add_argument("--epochs", type=int, default=6, help="passes over the images")
    parser.add_argument("--out", type=Path, default=Path("runs/autoencoders"), help="where images go")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    dataset: Any
    if options.data:
        dataset = MNIST(options.data)
    else:
        dataset = FolderDataset(write_shapes(options.out / "shapes", per_class=100, size=28))
    train, val = split(dataset, 0.2)
    noisy = cvkit.transforms.denoise(28, noise=0.3, channels=1)
    batches = Loader(train, 16, transform=noisy, shuffle=True), Loader(val, 64, transform=noisy, shuffle=True)
    inputs, targets = next(iter(batches[1]))
    rows = [inputs[:12].clamp(0, 1)]
    for name, arguments in (("autoencoder_linear", {"size": 28}), ("autoencoder_conv", {"widths": (16, 8)})):
        torch.manual_seed(0)
        model = cvkit.models.create(name, num_classes=1, in_channels=1, output="sigmoid", **arguments)
        batches[0].set_epoch(0)  # both see the same batches
        result = cvkit.fit(model, *batches, epochs=options.epochs, loss="mse", lr=3e-3, schedule="onecycle")
        print(f"{name:18}  mean squared error {result.history[-1]['val_loss']:.4f}, of the noise 0.0900")
        rows.append(cvkit.predict(model, inputs[:12]))
    save_image(torch.cat([*rows, targets[:12]]), options.out / "autoencoders.png", nrow=12)
    print("rows of the image: noisy, linear, convolutional, clean")


if __name__ == "__main__":
    main()
