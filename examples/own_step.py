"""A custom ``step``: a network learns which way up an image is, without a single label.

Each image of a batch is turned by 0, 90, 180 and 270 degrees, and the network is to say by how much (Gidaris et al.,
Unsupervised Representation Learning by Predicting Image Rotations, 2018). The loop is still ``fit``'s, with its
checkpoints, metrics and precision; only what a batch means is written here.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

import cvkit


def turn(model: nn.Module, batch: tuple[Tensor, Tensor], state: cvkit.TrainState) -> tuple[Tensor, Tensor, Tensor]:
    """Returns loss, outputs and targets of a batch; ``state.loss_fn`` is the loss that ``fit`` was given."""
    images, _ = batch  # the labels are not looked at
    inputs = torch.cat([torch.rot90(images, quarter, (2, 3)) for quarter in range(4)])
    targets = torch.arange(4, device=inputs.device).repeat_interleave(len(images))
    outputs = model(inputs)
    return state.loss_fn(outputs, targets), outputs, targets


def main() -> None:
    """Trains without labels, and shows images the way up that they look right to the network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="images, one folder a class; generated shapes by default")
    parser.add_argument("--epochs", type=int, default=4, help="passes over the images")
    parser.add_argument("--out", type=Path, default=Path("runs/own_step"), help="where generated images go")
    options = parser.parse_args()
    torch.manual_seed(0)

    shapes = ("star", "triangle")  # a circle looks the same any way up
    root = options.data or cvkit.data.write_shapes(options.out / "shapes", per_class=100, classes=shapes)
    data = cvkit.data.from_folder(
        root, size=32, batch_size=4, val=0.2, transform=cvkit.transforms.small_image_train(32, padding=0)
    )
    model = cvkit.models.create("resnet9", num_classes=4, width=8)
    result = cvkit.fit(
        model, data.train, data.val, epochs=options.epochs, lr=3e-3, schedule="onecycle", step=turn, metrics="accuracy"
    )
    for row in result.history:
        print(f"epoch {row['epoch']}: {row['val_accuracy']:.1%} of the turns are recognised, 25% by chance")


if __name__ == "__main__":
    main()
