"""U-Net: images and masks in two directories, grey TIFF of 8 and 16 bits included.

``--data DIR`` takes ``DIR/image/<name>.*`` with ``DIR/label/<name>.*``, masks of the levels 0 and 255; by default such
are made of shapes. Images and masks are matched by name, decoded to the same grey whatever they are stored in, and cut
and mirrored together.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import cvkit
from cvkit.data import Loader, ParallelDataset, split, write_shapes


def write(out: Path) -> Path:
    """Writes shapes as grey TIFF, every second one of 16 bits, beside masks of 0 and 255."""
    shapes = write_shapes(out / "shapes", per_class=40, layout="mask")
    for part in ("image", "label"):
        (out / part).mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(sorted((shapes / "images").iterdir())):
        grey = np.asarray(Image.open(path).convert("L"))
        Image.fromarray(grey.astype(np.uint16) * 257 if number % 2 else grey).save(out / "image" / f"{path.stem}.tif")
        mask = np.asarray(Image.open(shapes / "masks" / path.name)) > 0
        Image.fromarray(mask.astype(np.uint8) * 255).save(out / "label" / path.name)
    return out


def main() -> None:
    """Trains, measures, and shows masks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="images and custom masks; generated ones by default")
    parser.add_argument("--size", type=int, default=32, help="edge of the images that the model sees, in pixels")
    parser.add_argument("--epochs", type=int, default=7, help="passes over the images")
    parser.add_argument("--out", type=Path, default=Path("runs/unet_masks"), help="where images go")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)

    root = options.data or write(options.out)
    names = ["ground", "shape"]
    pairs = ParallelDataset(root / "image", root / "label", "mask", mask_values=(0, 255), classes=names)
    train, val = split(pairs, 0.2)
    transform = cvkit.transforms.segmentation_train(options.size, scale=(0.5, 1.0), channels=1)
    batches = Loader(train, 4, transform=transform, shuffle=True), Loader(val, 4, transform=transform.evaluation())
    model = cvkit.models.create("unet", num_classes=2, in_channels=1, width=8, depth=3)
    result = cvkit.fit(model, *batches, epochs=options.epochs, lr=3e-3, schedule="onecycle", metrics="iou")
    print(f"intersection over union of masks found and given: {result.history[-1]['val_iou']:.3f}")
    try:
        cvkit.plots.show_masks(batches[1], model).savefig(options.out / "unet_masks.png")
    except cvkit.errors.MissingDependencyError as missing:
        print("no image:", missing)


if __name__ == "__main__":
    main()
