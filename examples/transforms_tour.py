"""Transforms: what the presets make of one image, from PIL, an array or OpenCV's BGR alike.

A transform is called with a PIL image. An array becomes one by ``Image.fromarray``; OpenCV's arrays have their colours in
the order blue, green, red, and are turned round first. The grid has one row a preset; every image of a row is a new
draw.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.utils import save_image

import cvkit
from cvkit.transforms import classification_eval, classification_train, small_image_train


def main() -> None:
    """Loads an image three ways, and draws eight of each preset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder with an image in it; a generated star by default")
    parser.add_argument("--out", type=Path, default=Path("runs/transforms_tour"), help="where the image goes")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)

    root = options.data or cvkit.data.write_shapes(options.out / "shapes", 1, 128, classes=["star"], seed=3)
    path = sorted(one for one in root.rglob("*") if one.suffix.lower() in (".png", ".jpg", ".jpeg"))[0]
    image = cvkit.data.decode(path)

    rgb = np.asarray(image)  # (H, W, 3), as matplotlib and imageio have it
    bgr = np.ascontiguousarray(rgb[:, :, ::-1])  # as cv2.imread gives it
    evaluation = classification_eval(64)
    from_pil = evaluation(image)
    from_array = evaluation(Image.fromarray(rgb))
    from_opencv = evaluation(Image.fromarray(bgr[:, :, ::-1]))
    same = torch.equal(from_pil, from_array) and torch.equal(from_pil, from_opencv)
    print(f"{path.name}, {image.width}×{image.height}: {tuple(from_pil.shape)}, equal from PIL, array and BGR: {same}")

    presets = {
        "classification_eval": evaluation,
        "classification_train": classification_train(64),
        "with colours": classification_train(64, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
        "with erasing": classification_train(64, erase=1.0),
        "randaugment": classification_train(64, augment="randaugment"),
        "small_image_train": small_image_train(64, padding=8),
    }
    rows = [one.denormalize(torch.stack([one(image) for _ in range(6)])) for one in presets.values()]
    print("rows of the image:", ", ".join(presets))
    save_image(torch.cat(rows), options.out / "transforms_tour.png", nrow=6)


if __name__ == "__main__":
    main()
