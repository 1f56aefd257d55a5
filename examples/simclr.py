"""SimCLR: a network learns without labels that two views of one image belong together.

The two views of an image are to be more alike than those of different images (Chen et al., A Simple Framework for
Contrastive Learning of Visual Representations, 2020). Then a linear layer is trained on the frozen features.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

import cvkit

VIEW = v2.Compose([v2.RandomResizedCrop(32, (0.5, 1)), v2.RandomHorizontalFlip(), v2.RandomRotation(30)])


def contrast(model: nn.Module, batch: tuple[Tensor, Tensor], state: cvkit.TrainState) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the loss of a batch; of each view's neighbours, the right one is its image's other view."""
    images, _ = batch  # the labels are not looked at
    views = torch.stack([VIEW(image) for _ in range(2) for image in images])
    contrast = 2 * torch.rand(len(views), 1, 1, 1, device=views.device) - 1  # light on dark, or dark on light
    views = (views - views.mean((2, 3), keepdim=True)) * contrast.sign() * (0.5 + contrast.abs())
    points = nn.functional.normalize(model(views))
    alike = points @ points.T / 0.5
    alike = alike.masked_fill(torch.eye(len(alike), dtype=torch.bool, device=alike.device), -1e4)
    partners = torch.arange(len(alike), device=alike.device).roll(len(images))
    return nn.functional.cross_entropy(alike, partners), alike, partners


def main() -> None:
    """Trains without labels, and compares the frozen features with those of a network that has learned nothing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="images, one folder a class; generated shapes by default")
    parser.add_argument("--epochs", type=int, default=12, help="passes over the images")
    parser.add_argument("--out", type=Path, default=Path("runs/simclr"), help="where generated images go")
    options = parser.parse_args()
    torch.manual_seed(0)

    root = options.data or cvkit.data.write_shapes(options.out / "shapes", 200, classes=("cross", "ring", "square"))
    plain = cvkit.transforms.small_image_train(32, padding=0, channels=1)
    data = cvkit.data.from_folder(root, size=32, batch_size=32, val=0.3, channels=1, transform=plain)
    kept = cvkit.data.Loader(data.train.dataset, 32, transform=data.val.transform, shuffle=True, drop_last=True)
    for name in ("random features", "learned features"):
        model = cvkit.models.create("resnet9", num_classes=32, in_channels=1, width=8)
        if name == "learned features":
            result = cvkit.fit(
                model, kept, epochs=options.epochs, lr=3e-3, step=contrast, metrics=[], schedule="onecycle"
            )
            first, *_, last = result.history["train_loss"]
            print(f"loss without labels: {first:.2f} in the first epoch, {last:.2f} in the last")
        cvkit.models.replace_head(model, len(data.classes))
        cvkit.models.freeze(model)
        result = cvkit.fit(model, data.train, data.val, epochs=12, lr=1e-2, seed=0)
        print(f"{name}: {result.history[-1]['val_accuracy']:.1%} of the validation images, by a linear layer")


if __name__ == "__main__":
    main()
