"""VGG16 for custom classes: a layer appended, or the last one replaced; all the rest is frozen.

The two usual ways to change a pretrained network. ``--weights FILE`` takes a state dict of torchvision's, such as
``vgg16-397923af.pth``; without it the frozen layers are random, so that nothing is downloaded, and little is learned.
"""

import argparse
from pathlib import Path

import torch

import cvkit


def main() -> None:
    """Changes VGG16 in two ways, and trains what is new."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="images, one folder a class; generated shapes by default")
    parser.add_argument("--weights", type=Path, help="a file with weights; random ones by default")
    parser.add_argument("--size", type=int, default=32, help="edge of the images that the model sees, in pixels")
    parser.add_argument("--out", type=Path, default=Path("runs/vgg16_layers"), help="where generated images go")
    options = parser.parse_args()

    root = options.data or cvkit.data.write_shapes(options.out / "shapes", per_class=10)
    for change in (cvkit.models.append_head, cvkit.models.replace_head):
        torch.manual_seed(0)
        data = cvkit.data.from_folder(root, size=options.size, batch_size=8, val=0.2)
        model = cvkit.models.create("vgg16", num_classes=1000, pretrained=options.weights or False)
        change(model, len(data.classes))
        cvkit.models.freeze(model)  # all but the last layer
        size = cvkit.models.summary(model, (3, options.size, options.size))
        print(f"{change.__name__}: {size.trainable:,} of {size.parameters:,} parameters are trained")
        print(f"the last layer is now: {model.get_submodule('classifier.6')}")
        result = cvkit.fit(model, data.train, data.val, epochs=1, lr=1e-3)
        print(f"validation accuracy after one epoch: {result.history[-1]['val_accuracy']:.3f}")


if __name__ == "__main__":
    main()
