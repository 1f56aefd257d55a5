"""ResNet and DenseNet for small images.

Both families were made for photographs: their first layers shrink an image to a sixteenth of its area before anything is
learned. For small ones there is ``"resnet"``, the paper's own for CIFAR-10; the DenseNet is torchvision's class, with the
first layers that its paper has for CIFAR-10. Any ``nn.Module`` goes into ``fit``.
"""

import argparse
from pathlib import Path

import torch
from torch import nn
from torchvision.models import DenseNet

import cvkit


def resnet(classes: int) -> nn.Module:
    """Returns a ResNet of 8 layers; the paper's have ``depth=20`` and more."""
    return cvkit.models.create("resnet", num_classes=classes, depth=8)


def densenet(classes: int) -> nn.Module:
    """Returns a DenseNet of three blocks whose first layers leave small images as large as they are."""
    model: nn.Module = DenseNet(growth_rate=12, block_config=(3, 3, 3), num_init_features=16, num_classes=classes)
    features = model.get_submodule("features")
    features.conv0, features.pool0 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.Identity()
    return model


def main() -> None:
    """Trains both on the same images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="images, one folder a class; generated shapes by default")
    parser.add_argument("--epochs", type=int, default=5, help="passes over the images")
    parser.add_argument("--size", type=int, default=16, help="edge of the images that the model sees, in pixels")
    parser.add_argument("--out", type=Path, default=Path("runs/resnet_densenet"), help="where images go")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    root = options.data or cvkit.data.write_shapes(options.out / "shapes", 150, 16, classes=("circle", "ring"))
    results: dict[str, cvkit.FitResult] = {}
    for build in (resnet, densenet):
        torch.manual_seed(0)
        upright = cvkit.transforms.small_image_train(options.size, padding=0)
        data = cvkit.data.from_folder(root, size=options.size, batch_size=8, val=0.2, transform=upright)
        model = build(len(data.classes))
        result = cvkit.fit(model, data.train, data.val, epochs=options.epochs, lr=3e-3, schedule="onecycle")
        size = cvkit.models.summary(model, (3, options.size, options.size))
        print(f"{build.__name__}: {size.parameters:,} parameters, {size.multiply_adds:,} multiply-adds an image")
        print(f"{build.__name__}: validation accuracy {result.history[-1]['val_accuracy']:.3f}")
        results[build.__name__] = result
    try:
        cvkit.plots.plot_history(results).savefig(options.out / "resnet_densenet.png")
    except cvkit.errors.MissingDependencyError as missing:
        print("no image:", missing)


if __name__ == "__main__":
    main()
