"""Quickstart: a small classifier from a folder of images, and its answer for one of them.

The images are generated; with ``--data DIR`` it trains on your own, in ``DIR/train/<class>/`` and ``DIR/val/<class>/``.
Run it again, with more epochs if you like: it continues where it ended. ``tensorboard --logdir runs`` shows the curves.
"""

import argparse
from pathlib import Path

import cvkit
from cvkit.callbacks import Checkpoint, TensorBoard


def main() -> None:
    """Writes images, trains on them, predicts one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="your own images; generated ones by default")
    parser.add_argument("--size", type=int, default=32, help="side of the images that the model sees, in pixels")
    parser.add_argument("--epochs", type=int, default=6, help="total number of epochs, those of earlier runs included")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights, the order and the augmentation")
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="where checkpoints and curves go")
    options = parser.parse_args()

    root: Path = options.data or options.out / "shapes"
    if options.data is None and not root.exists():
        cvkit.data.write_shapes(root / "train", per_class=300, seed=0)
        cvkit.data.write_shapes(root / "val", per_class=50, seed=1)

    data = cvkit.data.from_folder(root, size=options.size, batch_size=16, seed=options.seed)
    model = cvkit.models.create("resnet9", num_classes=len(data.classes), width=16)
    result = cvkit.fit(
        model,
        data.train,
        data.val,
        epochs=options.epochs,
        lr=3e-3,
        schedule="onecycle",  # warms up: a new network that starts at the full rate may learn nothing for epochs
        seed=options.seed,
        resume=True,
        callbacks=[Checkpoint(options.out, monitor="val_loss"), TensorBoard(options.out)],
    )
    print(result.history)

    image = sorted((root / "val" / data.classes[0]).glob("*.*"))[0]
    prediction = cvkit.load(options.out / "best.pt").predict(image)
    print(
        f"validation image {image.parent.name}/{image.name}: {prediction.label}, probability {prediction.probability:.3f}"
    )


if __name__ == "__main__":
    main()
