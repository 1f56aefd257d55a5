"""Quickstart: a small classifier from a folder of pictures, and what it says of one of them.

The pictures are generated; with ``--data DIR`` it trains on pictures of your own, in ``DIR/train/<class>/`` and
``DIR/val/<class>/``. Run it again, with more epochs if you like: it continues where it ended. ``tensorboard --logdir
runs`` shows the curves.
"""

import argparse
from pathlib import Path

import cvkit
from cvkit.callbacks import Checkpoint, TensorBoard


def main() -> None:
    """Writes pictures, trains on them, predicts one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="pictures of your own; generated ones by default")
    parser.add_argument("--size", type=int, default=32, help="edge of the pictures that the model sees, in pixels")
    parser.add_argument("--epochs", type=int, default=10, help="total number of epochs, those of earlier runs included")
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="where checkpoints and curves go")
    options = parser.parse_args()

    root: Path = options.data or options.out / "shapes"
    if options.data is None and not root.exists():
        cvkit.data.write_shapes(root / "train", per_class=200, seed=0)
        cvkit.data.write_shapes(root / "val", per_class=25, seed=1)

    data = cvkit.data.from_folder(root, size=options.size, batch_size=16)
    model = cvkit.models.create("resnet9", num_classes=len(data.classes), width=16)
    result = cvkit.fit(
        model,
        data.train,
        data.val,
        epochs=options.epochs,
        lr=3e-3,
        schedule="cosine",
        seed=0,
        resume=True,
        callbacks=[Checkpoint(options.out, monitor="val_accuracy"), TensorBoard(options.out)],
    )
    print(result.history)

    picture = sorted((root / "val" / data.classes[0]).glob("*.*"))[0]
    print(f"{picture.name} of {data.classes[0]}:", cvkit.load(options.out / "best.pt").predict(picture))


if __name__ == "__main__":
    main()
