"""A tour of TensorBoard: scalars, histograms, the graph, images, embeddings, each by one word.

Look at it with ``tensorboard --logdir runs/tensorboard_tour``. Run the script again with more ``--epochs``, and the
curves go on where they ended; nothing is there twice.
"""

import argparse
from pathlib import Path

import torch

import cvkit
from cvkit.callbacks import Checkpoint, TensorBoard


def main() -> None:
    """Trains, and shows everything that TensorBoard can."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="images, one folder a class; generated shapes by default")
    parser.add_argument("--epochs", type=int, default=4, help="passes over the images, those of earlier runs included")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/tensorboard_tour"), help="where events and checkpoints go"
    )
    options = parser.parse_args()
    torch.manual_seed(0)

    root = options.data or cvkit.data.write_shapes(options.out / "shapes", per_class=60)
    upright = cvkit.transforms.small_image_train(32, padding=0)
    data = cvkit.data.from_folder(root, size=32, batch_size=8, val=0.2, transform=upright)
    model = cvkit.models.create("resnet9", num_classes=len(data.classes), width=8)
    board = TensorBoard(
        options.out,
        every_steps=5,  # points of loss, learning rate, gradient norm and speed: SCALARS
        histograms=True,  # weights and gradients after each epoch: HISTOGRAMS and DISTRIBUTIONS
        graph=True,  # the model as it was run on the first batch: GRAPHS
        images=16,  # what the model saw, and what it says of it: IMAGES
        figures=True,  # a confusion matrix: IMAGES, and precision-recall curves: PR CURVES
        embeddings=36,  # validation images as the last layer sees them: PROJECTOR
        hparams={"lr": 3e-3, "width": 8},  # to compare runs by: HPARAMS
        text="A tour of TensorBoard on generated shapes.",  # with the settings of the run: TEXT
    )
    saving = Checkpoint(options.out, monitor="val_accuracy")
    result = cvkit.fit(
        model, data.train, data.val, epochs=options.epochs, lr=3e-3, resume=True, callbacks=[board, saving]
    )
    print(f"{result.epochs} epochs, validation accuracy {result.history[-1]['val_accuracy']:.3f}")
    for part in ("train", "val"):
        files = [path for path in (options.out / part).rglob("*") if path.is_file()]
        print(f"{options.out / part}: {len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB")
    print(f"now: tensorboard --logdir {options.out}")


if __name__ == "__main__":
    main()
